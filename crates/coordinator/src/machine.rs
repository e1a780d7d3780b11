//! The coordinator: `step(event, now) -> actions`, with no thread, socket or clock of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clientele_data::ErrorKind;
use clientele_data::manifest::{Manifest, ShardId};
use clientele_protocol::jobs::JobProgress;
use clientele_protocol::{
    Answer, FitSpec, PartId, Record, Reply, RowsBy, RunKey, Stage, StageSeq, Task, TaskError,
    WorkerEvent, WorkerId, profile_bins,
};

use crate::fit::{Fit, Fitted, Next};
use crate::schedule::{Counted, Fault, Load, MAX_DEATHS, Poisonous, Schedule, Totals};
use crate::{FitError, millis};

/// Something happened.
#[derive(Debug)]
pub enum Event {
    /// A worker said something.
    Worker(WorkerId, WorkerEvent),
    /// A worker is lost that nothing was heard of since then.
    Silent(WorkerId, Duration),
    /// A worker is about to leave, as it should.
    Leaving(WorkerId),
    /// The record of the current stage is written.
    Logged,
    /// There is a record of the current stage already: it counts, whatever workers say.
    Found(Box<Record>),
    /// Time has passed.
    Tick,
}

/// Where a run's workers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In this process: nothing is handed out before so many have joined, their silence means nothing, and without one the run ends.
    InProcess {
        /// Workers to wait for.
        n_workers: usize,
    },
    /// Elsewhere: they come and go, and the run waits for them. Every stage is recorded before the next one begins.
    Remote {
        /// A rule to break; for tests.
        fault: Option<Fault>,
    },
}

/// Something is to be done.
#[derive(Debug)]
pub enum Action {
    /// Hand a task to a worker.
    Send(WorkerId, Task),
    /// Write this down, and answer [`Event::Logged`] or [`Event::Found`].
    Log(Box<Record>),
    /// Tell people.
    Progress(JobProgress),
    /// The run is over.
    Finish(Box<Outcome>),
    /// The run has failed; nothing is to be published.
    Fail(FitError),
}

/// A finished fit and how it was computed.
#[derive(Debug)]
pub struct Outcome {
    /// What was found.
    pub fitted: Fitted,
    /// Rows each backend went over, summed over passes.
    pub backends: BTreeMap<String, u64>,
    /// Time by stage name, in order of first appearance.
    pub seconds: Vec<(&'static str, f64)>,
    /// Passes of Lloyd's algorithm over the rows.
    pub n_passes: u32,
    /// Rows that fast arithmetic could not decide and that were settled exactly, over all passes and candidates.
    pub n_rechecked: u64,
    /// Answers that were late, repeated or foreign, and did not count.
    pub n_dropped: u64,
    /// Blocks that a GPU could not finish and the CPU did.
    pub n_rescued: u64,
}

/// One run's coordinator.
#[derive(Debug)]
pub struct Machine {
    key: RunKey,
    manifest: Arc<Manifest>,
    fit: Fit,
    schedule: Schedule,
    stage: Arc<Stage>,
    seq: StageSeq,
    started: Duration,
    opened: Duration,
    backends: BTreeMap<String, u64>,
    seconds: Vec<(&'static str, f64)>,
    n_rechecked: u64,
    n_dropped: u64,
    n_rescued: u64,
    place: Place,
    /// Workers to wait for before the first task; 0 once they have been there.
    n_awaited: usize,
    /// What has computed the answers of the current stage.
    stage_ran: BTreeMap<String, u64>,
    stage_rescued: u64,
    /// Of the current stage, while it is being written down.
    record: Option<Box<Record>>,
    over: bool,
}

impl Machine {
    /// Leads the fit `spec` of the rows in `manifest`.
    ///
    /// # Errors
    /// As [`Fit::new`].
    pub fn new(
        key: RunKey,
        spec: FitSpec,
        manifest: Arc<Manifest>,
        place: Place,
        now: Duration,
    ) -> Result<Self, FitError> {
        if matches!(place, Place::Remote { .. }) {
            check_answers(spec.k_range.1, manifest.n_features())?;
        }
        let fit = Fit::new(spec, manifest.clone())?;
        let (stage, n_parts) = fit.stage();
        let seq = StageSeq(0);
        let mut schedule = match place {
            Place::InProcess { .. } => Schedule::new(false),
            Place::Remote { fault } => Schedule::new(true).with_fault(fault),
        };
        schedule.open_stage(parts_of(&stage, seq, n_parts, &manifest));
        Ok(Self {
            key,
            manifest,
            fit,
            schedule,
            stage: Arc::new(stage),
            seq,
            started: now,
            opened: now,
            backends: BTreeMap::new(),
            seconds: Vec::new(),
            n_rechecked: 0,
            n_dropped: 0,
            n_rescued: 0,
            n_awaited: match place {
                Place::InProcess { n_workers } => n_workers,
                Place::Remote { .. } => 0,
            },
            place,
            stage_ran: BTreeMap::new(),
            stage_rescued: 0,
            record: None,
            over: false,
        })
    }

    /// Takes one event at time `now` (any monotonic clock) and says what to do.
    pub fn step(&mut self, event: Event, now: Duration) -> Vec<Action> {
        if self.over {
            return Vec::new();
        }
        let mut actions = Vec::new();
        if let Err(error) = self.take(event, now, &mut actions) {
            self.over = true;
            actions.push(Action::Fail(error));
            return actions;
        }
        if self.schedule.n_workers() >= self.n_awaited {
            self.n_awaited = 0;
        }
        if !self.over && self.n_awaited == 0 {
            for (worker, parts) in self.schedule.grant(now) {
                let task = Task {
                    key: self.key.clone(),
                    seq: self.seq,
                    stage: self.stage.clone(),
                    parts,
                };
                actions.push(Action::Send(worker, task));
            }
        }
        actions
    }

    fn take(
        &mut self,
        event: Event,
        now: Duration,
        actions: &mut Vec<Action>,
    ) -> Result<(), FitError> {
        match event {
            // What is late by now may be given to another worker as well.
            Event::Tick => {}
            Event::Worker(worker, WorkerEvent::Joined { resident }) => {
                self.schedule.join(worker, &resident);
            }
            Event::Worker(worker, WorkerEvent::Lost { reason }) => {
                tracing::warn!(
                    worker = worker.0,
                    reason,
                    "a worker is gone; its shards go to the others"
                );
                let lost = self.schedule.lose(worker);
                self.survived(lost)?;
                self.n_awaited = self.n_awaited.saturating_sub(1);
                if self.schedule.n_workers() == 0 && !self.is_remote() {
                    return Err(FitError::NoWorkers { reason });
                }
            }
            Event::Silent(worker, heard) => {
                tracing::warn!(
                    worker = worker.0,
                    "a worker is silent; its shards go to the others"
                );
                let lost = self.schedule.lose_silent(worker, heard);
                self.survived(lost)?;
            }
            Event::Leaving(worker) => self.schedule.leave(worker),
            Event::Logged => {
                if let Some(record) = self.record.take() {
                    self.close_stage(*record, now, actions)?;
                }
            }
            Event::Found(record) => self.close_stage(*record, now, actions)?,
            Event::Worker(worker, WorkerEvent::Reply(reply)) => {
                self.count(worker, reply, now, actions)?;
            }
        }
        Ok(())
    }

    fn survived(&self, lost: Result<(), Poisonous>) -> Result<(), FitError> {
        lost.map_err(|poisonous| FitError::Poisonous {
            place: self.describe(poisonous.part),
        })
    }

    /// Where a part of the current stage lies, for people.
    fn describe(&self, part: PartId) -> String {
        match is_of_rows(&self.stage) {
            true => self.manifest.describe_shard(ShardId(part.0)),
            false => format!("hash range {}", part.0),
        }
    }

    fn count(
        &mut self,
        worker: WorkerId,
        reply: Reply,
        now: Duration,
        actions: &mut Vec<Action>,
    ) -> Result<(), FitError> {
        if reply.key != self.key {
            self.n_dropped += 1;
            return Ok(());
        }
        let is_current = reply.seq == self.seq && self.record.is_none();
        let answer = match reply.body {
            Ok(answer) => answer,
            Err(error) if is_current => return self.fail(worker, &reply.parts, error),
            Err(_) => {
                self.schedule.replied(worker, reply.seq, &reply.parts);
                self.n_dropped += 1;
                return Ok(());
            }
        };
        // Only what may have a twin need be compared.
        let digest = match self.place {
            Place::Remote { .. } => clientele_proto::answer_digest(&answer),
            Place::InProcess { .. } => blake3::Hash::from_bytes([0; blake3::OUT_LEN]),
        };
        let counted = if is_current {
            answer.check(&self.stage)?;
            self.schedule
                .answer(worker, &reply.parts, answer, digest, reply.elapsed)?
        } else {
            self.schedule
                .late_answer(worker, reply.seq, &reply.parts, digest)
        };
        match counted {
            Counted::Repeated => self.n_dropped += 1,
            Counted::Differs => {
                let part = reply.parts.first().copied().unwrap_or_default();
                return Err(FitError::Differs {
                    place: self.describe(part),
                });
            }
            Counted::New => {
                self.stage_rescued += reply.n_rescued;
                for ran in reply.ran {
                    *self.stage_ran.entry(ran.backend).or_default() += ran.n_rows;
                }
            }
        }
        actions.push(Action::Progress(self.progress(now)));
        if let Some(answer) = self.schedule.finish() {
            let ran = std::mem::take(&mut self.stage_ran).into_iter();
            let record = Box::new(Record {
                seq: self.seq,
                answer,
                ran: ran
                    .map(|(backend, n_rows)| RowsBy { backend, n_rows })
                    .collect(),
                n_rescued: std::mem::take(&mut self.stage_rescued),
            });
            match self.place {
                Place::InProcess { .. } => self.close_stage(*record, now, actions)?,
                Place::Remote { .. } => {
                    actions.push(Action::Log(record.clone()));
                    self.record = Some(record);
                }
            }
        }
        Ok(())
    }

    fn is_remote(&self) -> bool {
        matches!(self.place, Place::Remote { .. })
    }

    /// A worker has no answer. What may work when tried again is tried again, elsewhere or alone.
    fn fail(
        &mut self,
        worker: WorkerId,
        parts: &[PartId],
        error: TaskError,
    ) -> Result<(), FitError> {
        if !self.is_remote() || error.kind != ErrorKind::Transient {
            return Err(FitError::Task(error));
        }
        tracing::warn!(run = self.key.run, worker = worker.0, %error, "a worker could not answer; its shards are asked again");
        self.schedule.fail(worker, parts).map_err(|poisonous| {
            let place = self.describe(poisonous.part);
            let causes = [format!("it was asked {MAX_DEATHS} times for {place}")];
            FitError::Task(TaskError {
                causes: causes.into_iter().chain(error.causes).collect(),
                ..error
            })
        })
    }

    fn close_stage(
        &mut self,
        record: Record,
        now: Duration,
        actions: &mut Vec<Action>,
    ) -> Result<(), FitError> {
        if record.seq != self.seq {
            let (found, expected) = (record.seq.0, self.seq.0);
            return Err(FitError::Bug(format!(
                "a record is of stage {found} where stage {expected} is to be closed"
            )));
        }
        record.answer.check(&self.stage)?;
        self.record = None;
        self.n_rechecked += rechecked(&record.answer);
        self.n_rescued += record.n_rescued;
        for ran in record.ran {
            *self.backends.entry(ran.backend).or_default() += ran.n_rows;
        }
        let next = self.fit.absorb(record.answer)?;
        // The coordinator's own work between stages, such as reclustering, belongs to the stage before it.
        self.note_seconds(now);
        match next {
            Next::Stage => {
                let (stage, n_parts) = self.fit.stage();
                self.seq = StageSeq(self.seq.0 + 1);
                self.stage_ran.clear();
                self.stage_rescued = 0;
                let parts = parts_of(&stage, self.seq, n_parts, &self.manifest);
                self.schedule.open_stage(parts);
                self.stage = Arc::new(stage);
                self.opened = now;
            }
            Next::Done(fitted) => {
                self.over = true;
                actions.push(Action::Finish(Box::new(Outcome {
                    fitted: *fitted,
                    backends: std::mem::take(&mut self.backends),
                    seconds: std::mem::take(&mut self.seconds),
                    n_passes: self.fit.n_passes(),
                    n_rechecked: self.n_rechecked,
                    n_dropped: self.n_dropped,
                    n_rescued: self.n_rescued,
                })));
            }
        }
        Ok(())
    }

    /// The run and the life of it that this leads.
    pub fn key(&self) -> &RunKey {
        &self.key
    }

    /// The current stage and its number.
    pub fn stage(&self) -> (&Arc<Stage>, StageSeq) {
        (&self.stage, self.seq)
    }

    /// Workers that may be given tasks.
    pub fn n_workers(&self) -> usize {
        self.schedule.n_workers()
    }

    /// What became of parts so far.
    pub fn totals(&self) -> Totals {
        self.schedule.totals()
    }

    /// What a worker has to do in this run.
    pub fn load(&self, worker: WorkerId) -> Load {
        self.schedule.load(worker)
    }

    fn note_seconds(&mut self, now: Duration) {
        let name = self.stage.name();
        let elapsed = now.saturating_sub(self.opened).as_secs_f64();
        match self.seconds.iter_mut().find(|(known, _)| *known == name) {
            Some((_, total)) => *total += elapsed,
            None => self.seconds.push((name, elapsed)),
        }
    }

    /// Where the run stands.
    pub fn progress(&self, now: Duration) -> JobProgress {
        let (n_done, n_parts) = self.schedule.progress();
        JobProgress {
            stage: self.stage.name().to_owned(),
            n_done: n_done as u64,
            n_parts: n_parts as u64,
            n_rows: self.manifest.n_rows(),
            pass: self.fit.n_passes() + 1,
            n_live: u32::try_from(self.fit.n_live()).unwrap_or(u32::MAX),
            n_moved: self.fit.n_moved(),
            inertia: self.fit.best_inertia(),
            elapsed_ms: millis(now.saturating_sub(self.opened)),
            running_ms: millis(now.saturating_sub(self.started)),
            is_waiting: self.schedule.n_workers() == 0,
        }
    }
}

/// Whether a stage's parts are shards of rows, which have a worker they are resident on.
fn is_of_rows(stage: &Stage) -> bool {
    !matches!(stage, Stage::Duplicates { .. })
}

/// The largest answer is the last one: what no message can carry is refused before anything is computed.
fn check_answers(n_clusters: usize, n_features: usize) -> Result<(), FitError> {
    let n_cells = n_clusters * n_features * profile_bins(n_clusters, n_features);
    match n_cells <= clientele_proto::MAX_HISTOGRAM_CELLS {
        true => Ok(()),
        false => Err(FitError::Limit(format!(
            "{n_clusters} clusters of {n_features} features are more than workers can describe in one answer"
        ))),
    }
}

fn parts_of(
    stage: &Stage,
    seq: StageSeq,
    n_parts: u32,
    manifest: &Manifest,
) -> crate::schedule::Stage {
    let keeps_homes = is_of_rows(stage);
    crate::schedule::Stage {
        seq,
        name: stage.name(),
        rows: match keeps_homes {
            true => manifest.shards().iter().map(|shard| shard.n_rows).collect(),
            false => vec![1; n_parts as usize],
        },
        keeps_homes,
    }
}

fn rechecked(answer: &Answer) -> u64 {
    match answer {
        Answer::Pass(partials) => partials.iter().map(|p| p.n_rechecked).sum(),
        _ => 0,
    }
}
