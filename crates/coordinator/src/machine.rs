//! The coordinator: `step(event, now) -> actions`, with no thread, socket or clock of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clientele_data::manifest::Manifest;
use clientele_protocol::{
    Answer, FitSpec, Reply, RunKey, Stage, StageSeq, Task, WorkerEvent, WorkerId,
};

use crate::FitError;
use crate::fit::{Fit, Fitted, Next};
use crate::schedule::{Counted, Schedule};

/// Something happened.
#[derive(Debug)]
pub enum Event {
    /// A worker said something.
    Worker(WorkerId, WorkerEvent),
    /// Time has passed.
    Tick,
}

/// Something is to be done.
#[derive(Debug)]
pub enum Action {
    /// Hand a task to a worker.
    Send(WorkerId, Task),
    /// Tell people.
    Progress(Progress),
    /// The run is over.
    Finish(Box<Outcome>),
    /// The run has failed; nothing is to be published.
    Fail(FitError),
}

/// Where a run stands.
#[derive(Debug, Clone)]
pub struct Progress {
    /// [`Stage::name`].
    pub stage: &'static str,
    /// Parts answered in this stage.
    pub n_done: usize,
    /// Parts of this stage.
    pub n_parts: usize,
    /// Rows of the input.
    pub n_rows: u64,
    /// Passes begun.
    pub pass: u32,
    /// Candidates still being fitted.
    pub n_live: usize,
    /// Rows that changed cluster in the last pass, if counted.
    pub n_moved: Option<u64>,
    /// The smallest inertia of the last pass.
    pub inertia: Option<f64>,
    /// Since this stage was opened.
    pub elapsed: Duration,
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
    opened: Duration,
    backends: BTreeMap<String, u64>,
    seconds: Vec<(&'static str, f64)>,
    n_rechecked: u64,
    n_dropped: u64,
    n_rescued: u64,
    /// Workers to wait for before the first task; 0 once they have been there.
    n_awaited: usize,
    over: bool,
}

impl Machine {
    /// Leads the fit `spec` of the rows in `manifest`. Nothing is handed out before `n_awaited` workers have joined, so that each
    /// gets its share from the start.
    ///
    /// # Errors
    /// As [`Fit::new`].
    pub fn new(
        key: RunKey,
        spec: FitSpec,
        manifest: Arc<Manifest>,
        n_awaited: usize,
        now: Duration,
    ) -> Result<Self, FitError> {
        let fit = Fit::new(spec, manifest.clone())?;
        let (stage, n_parts) = fit.stage();
        let mut schedule = Schedule::default();
        schedule.open_stage(n_parts, keeps_homes(&stage));
        Ok(Self {
            key,
            manifest,
            fit,
            schedule,
            stage: Arc::new(stage),
            seq: StageSeq(0),
            opened: now,
            backends: BTreeMap::new(),
            seconds: Vec::new(),
            n_rechecked: 0,
            n_dropped: 0,
            n_rescued: 0,
            n_awaited,
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
            for (worker, parts) in self.schedule.grant() {
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
            Event::Tick => {
                for worker in self.schedule.silent(now) {
                    self.lose(worker)?;
                }
            }
            Event::Worker(worker, WorkerEvent::Joined) => self.schedule.join(worker, now),
            Event::Worker(worker, WorkerEvent::Heartbeat) => self.schedule.heard(worker, now),
            Event::Worker(worker, WorkerEvent::Lost { reason }) => {
                tracing::warn!(
                    worker = worker.0,
                    reason,
                    "a worker is gone; its shards go to the others"
                );
                self.lose(worker)?;
                self.n_awaited = self.n_awaited.saturating_sub(1);
                if self.schedule.n_workers() == 0 {
                    return Err(FitError::NoWorkers { reason });
                }
            }
            Event::Worker(worker, WorkerEvent::Reply(reply)) => {
                self.schedule.heard(worker, now);
                self.count(worker, reply, now, actions)?;
            }
        }
        Ok(())
    }

    fn lose(&mut self, worker: WorkerId) -> Result<(), FitError> {
        self.schedule.lose(worker).map_err(|poisonous| {
            let place = if keeps_homes(&self.stage) {
                self.manifest
                    .describe_shard(clientele_data::manifest::ShardId(poisonous.part.0))
            } else {
                format!("hash range {}", poisonous.part.0)
            };
            FitError::Poisonous { place }
        })
    }

    fn count(
        &mut self,
        worker: WorkerId,
        reply: Reply,
        now: Duration,
        actions: &mut Vec<Action>,
    ) -> Result<(), FitError> {
        if reply.key != self.key || reply.seq != self.seq {
            self.n_dropped += 1;
            return Ok(());
        }
        let answer = reply.body.map_err(FitError::Task)?;
        answer.check(&self.stage)?;
        let n_rechecked = rechecked(&answer);
        match self.schedule.answer(worker, &reply.parts, answer)? {
            Counted::Repeated => self.n_dropped += 1,
            Counted::New => {
                self.n_rechecked += n_rechecked;
                self.n_rescued += reply.n_rescued;
                for ran in reply.ran {
                    *self.backends.entry(ran.backend).or_default() += ran.n_rows;
                }
            }
        }
        actions.push(Action::Progress(self.progress(now)));
        if let Some(total) = self.schedule.finish() {
            self.close_stage(total, now, actions)?;
        }
        Ok(())
    }

    fn close_stage(
        &mut self,
        total: Answer,
        now: Duration,
        actions: &mut Vec<Action>,
    ) -> Result<(), FitError> {
        let next = self.fit.absorb(total)?;
        // The coordinator's own work between stages, such as reclustering, belongs to the stage before it.
        self.note_seconds(now);
        match next {
            Next::Stage => {
                let (stage, n_parts) = self.fit.stage();
                self.seq = StageSeq(self.seq.0 + 1);
                self.schedule.open_stage(n_parts, keeps_homes(&stage));
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

    fn note_seconds(&mut self, now: Duration) {
        let name = self.stage.name();
        let elapsed = now.saturating_sub(self.opened).as_secs_f64();
        match self.seconds.iter_mut().find(|(known, _)| *known == name) {
            Some((_, total)) => *total += elapsed,
            None => self.seconds.push((name, elapsed)),
        }
    }

    fn progress(&self, now: Duration) -> Progress {
        let (n_done, n_parts) = self.schedule.progress();
        Progress {
            stage: self.stage.name(),
            n_done,
            n_parts,
            n_rows: self.manifest.n_rows(),
            pass: self.fit.n_passes() + 1,
            n_live: self.fit.n_live(),
            n_moved: self.fit.n_moved(),
            inertia: self.fit.best_inertia(),
            elapsed: now.saturating_sub(self.opened),
        }
    }
}

/// Whether a stage's parts are shards of rows, which have a worker they are resident on.
fn keeps_homes(stage: &Stage) -> bool {
    !matches!(stage, Stage::Duplicates { .. })
}

fn rechecked(answer: &Answer) -> u64 {
    match answer {
        Answer::Pass(partials) => partials.iter().map(|p| p.n_rechecked).sum(),
        _ => 0,
    }
}
