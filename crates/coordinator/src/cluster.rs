//! Many runs over one set of workers that come and go: `step(event, now) -> actions`, with no thread, socket, file or clock of its own.
//!
//! Each running job has its [`Machine`]; a worker serves all of them, with at most one task of each at a time, so that jobs share
//! the cluster evenly. Whatever touches storage is an action whose result comes back as an event.

mod events;
mod job;
mod queries;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clientele_data::ErrorKind;
use clientele_protocol::cluster::{OpenRun, Registration};
use clientele_protocol::jobs::{FitJob, JobState, JobStatus};
use clientele_protocol::{PartId, RunKey, TaskError, WorkerEvent, WorkerId};

use crate::FitError;
use crate::machine;
pub use crate::schedule::{Fault, Totals};
pub use events::{Action, Event, Logged, Opened};

use job::{JobEntry, Phase, Running};

/// A worker that says nothing for this long has lost its parts to the others.
pub const LEASE: Duration = Duration::from_secs(6);

/// How often a worker says that it is alive.
pub const HEARTBEAT: Duration = Duration::from_secs(2);

/// A worker that is lost after so long a silence was away before: what took it down is not what it was given since.
const SILENCE: Duration = Duration::from_secs(4);

/// What a coordinator takes on.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Jobs computed side by side; others queue.
    pub max_running: usize,
    /// Jobs in the queue; more are refused.
    pub max_queued: usize,
    /// Ended jobs that are remembered.
    pub max_ended: usize,
    /// Workers; more are refused.
    pub max_workers: usize,
    /// How long a job waits while there is no worker.
    pub wait_for_workers: Duration,
    /// A rule to break; for tests.
    pub fault: Option<Fault>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_running: 2,
            max_queued: 100,
            max_ended: 1_000,
            max_workers: 1_000,
            wait_for_workers: Duration::from_secs(600),
            fault: None,
        }
    }
}

/// Jobs and workers of one coordinator.
#[derive(Debug)]
pub struct Cluster {
    limits: Limits,
    /// By run id.
    jobs: BTreeMap<String, JobEntry>,
    /// Run ids in the order of submission.
    order: Vec<String>,
    workers: BTreeMap<WorkerId, Member>,
    n_refused: u64,
    /// Of jobs that are no longer computed.
    totals: Totals,
}

#[derive(Debug)]
struct Member {
    registration: Registration,
    heard: Duration,
    is_draining: bool,
}

impl Cluster {
    /// Without jobs and workers.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            jobs: BTreeMap::new(),
            order: Vec::new(),
            workers: BTreeMap::new(),
            n_refused: 0,
            totals: Totals::default(),
        }
    }

    /// Takes a job. The same job again is where it stands.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when the run id or the run directory is another job's; [`ErrorKind::Limit`] when the queue is full.
    pub fn submit(
        &mut self,
        run: &str,
        job: Arc<FitJob>,
        submitted_ms: u64,
        now: Duration,
    ) -> Result<Vec<Action>, TaskError> {
        if let Some(known) = self.jobs.get(run) {
            return match known.job == job {
                true => Ok(Vec::new()),
                false => Err(refusal(
                    ErrorKind::Conflict,
                    format!("run `{run}` is another job"),
                    "choose another run id",
                )),
            };
        }
        let same_out = |(_, entry): &(&String, &JobEntry)| {
            entry.job.out == job.out && !entry.phase.state().is_final()
        };
        if let Some((other, _)) = self.jobs.iter().find(same_out) {
            return Err(refusal(
                ErrorKind::Conflict,
                format!("run `{other}` is being written to `{}`", job.out),
                "choose another folder with `--out`, or wait for that run",
            ));
        }
        let is_queued = |entry: &&JobEntry| matches!(entry.phase, Phase::Queued);
        let n_queued = self.jobs.values().filter(is_queued).count();
        if self.n_active() >= self.limits.max_running && n_queued >= self.limits.max_queued {
            self.n_refused += 1;
            return Err(refusal(
                ErrorKind::Limit,
                format!("{n_queued} jobs are waiting already"),
                "submit it again later; `clientele jobs` shows what is running",
            ));
        }
        self.order.push(run.to_owned());
        self.jobs
            .insert(run.to_owned(), JobEntry::new(job, submitted_ms));
        let mut actions = vec![Action::Changed(run.to_owned())];
        self.start_queued(now, &mut actions);
        Ok(actions)
    }

    /// Remembers a job that ended in an earlier life of this coordinator.
    pub fn remember(&mut self, status: JobStatus, job: Arc<FitJob>) {
        let run = status.run.clone();
        self.order.push(run.clone());
        self.jobs.insert(run, JobEntry::ended(job, status));
        self.forget_oldest();
    }

    /// Ends a job without a result.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] when there is no such job.
    pub fn cancel(&mut self, run: &str, now: Duration) -> Result<Vec<Action>, TaskError> {
        let entry = self.jobs.get(run).ok_or_else(|| unknown(run))?;
        let mut actions = Vec::new();
        // What is being written is as good as done; what has ended stays as it is.
        if !entry.phase.state().is_final() && !matches!(entry.phase, Phase::Publishing(_)) {
            self.end(run, JobState::Cancelled, None, None, now, &mut actions);
            self.start_queued(now, &mut actions);
        }
        Ok(actions)
    }

    /// Takes one event at time `now` (any monotonic clock) and says what to do.
    pub fn step(&mut self, event: Event, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Opened(run, opened) => self.opened(&run, opened, now, &mut actions),
            Event::Registered(worker, registration) => {
                self.registered(worker, registration, now, &mut actions);
            }
            Event::RunOpened(worker, key, resident) => {
                self.heard(worker, now);
                self.run_opened(worker, &key, resident, now, &mut actions);
            }
            Event::Heartbeat(worker) => self.heard(worker, now),
            Event::Reply(worker, reply) => {
                self.heard(worker, now);
                let run = reply.key.run.clone();
                let event = machine::Event::Worker(worker, WorkerEvent::Reply(reply));
                self.feed(&run, event, now, &mut actions);
            }
            Event::Draining(worker) => {
                if let Some(member) = self.workers.get_mut(&worker) {
                    member.is_draining = true;
                }
                self.feed_all(now, &mut actions, || machine::Event::Leaving(worker));
            }
            Event::Lost(worker, reason) => self.lose(worker, &reason, now, &mut actions),
            Event::Logged(key, logged) => self.logged(&key, logged, now, &mut actions),
            Event::Published(key, result) => self.published(&key, result, now, &mut actions),
            Event::Confirmed(key, leads) => self.confirmed(&key, leads, now, &mut actions),
            Event::Tick => self.tick(now, &mut actions),
        }
        actions
    }

    fn heard(&mut self, worker: WorkerId, now: Duration) {
        if let Some(member) = self.workers.get_mut(&worker) {
            member.heard = now;
        }
    }

    fn registered(
        &mut self,
        worker: WorkerId,
        registration: Registration,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        let member = Member {
            registration,
            heard: now,
            is_draining: false,
        };
        self.workers.insert(worker, member);
        for entry in self.jobs.values() {
            if let Phase::Running(running) = &entry.phase {
                actions.push(Action::Attach(worker, running.open_run.clone()));
            }
        }
    }

    fn run_opened(
        &mut self,
        worker: WorkerId,
        key: &RunKey,
        resident: Result<Vec<PartId>, TaskError>,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        let is_there = self.workers.get(&worker).is_some_and(|m| !m.is_draining);
        if !self.leads(key) || !is_there {
            return;
        }
        match resident {
            Ok(resident) => {
                let event = machine::Event::Worker(worker, WorkerEvent::Joined { resident });
                self.feed(&key.run, event, now, actions);
            }
            // Others may see what this one does not.
            Err(error) => {
                tracing::warn!(run = key.run, worker = worker.0, %error, "a worker cannot work on this run");
                self.set_aside(worker, &key.run, error, actions);
            }
        }
    }

    /// Leaves a worker out of a run; the run ends when there is nobody else.
    fn set_aside(
        &mut self,
        worker: WorkerId,
        run: &str,
        error: TaskError,
        actions: &mut Vec<Action>,
    ) {
        let Some(Phase::Running(running)) = self.jobs.get_mut(run).map(|entry| &mut entry.phase)
        else {
            return;
        };
        running.set_aside.insert(worker);
        let is_left = |(id, member): (&WorkerId, &Member)| {
            !member.is_draining && !running.set_aside.contains(id)
        };
        if error.kind == ErrorKind::Usage && !self.workers.iter().any(is_left) {
            self.fail(run, error, actions);
        }
    }

    fn opened(
        &mut self,
        run: &str,
        opened: Result<Box<Opened>, TaskError>,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        let Some(entry) = self.jobs.get_mut(run) else {
            return;
        };
        if !matches!(entry.phase, Phase::Opening) {
            // Cancelled meanwhile: what was opened is let go.
            actions.push(Action::End(entry.status(run, now)));
            return;
        }
        let opened = match opened {
            Ok(opened) => *opened,
            Err(error) => {
                self.end(run, JobState::Failed, Some(error), None, now, actions);
                return self.start_queued(now, actions);
            }
        };
        let (epoch, manifest, manifest_hash, nonce, records) = match opened {
            Opened::Ready {
                epoch,
                manifest,
                manifest_hash,
                nonce,
                records,
            } => (epoch, manifest, manifest_hash, nonce, records),
            Opened::Committed { summary } => {
                self.end(run, JobState::Done, None, Some(summary), now, actions);
                return self.start_queued(now, actions);
            }
        };
        entry.epoch = epoch;
        let open_run = OpenRun {
            key: RunKey {
                run: run.to_owned(),
                epoch,
            },
            out: entry.job.out.clone(),
            nonce,
            manifest_hash,
        };
        let fault = self.limits.fault;
        match Running::new(open_run, &entry.job.spec, manifest, fault, now) {
            Ok(running) => {
                let open_run = running.open_run.clone();
                tracing::info!(run, epoch, n_records = records.len(), "computing");
                entry.phase = Phase::Running(Box::new(running));
                actions.push(Action::Changed(run.to_owned()));
                for record in records {
                    let event = machine::Event::Found(Box::new(record));
                    self.feed(run, event, now, actions);
                }
                if self.leads(&open_run.key) {
                    let ready = self.workers.iter().filter(|(_, m)| !m.is_draining);
                    let attach = |(id, _): (&WorkerId, _)| Action::Attach(*id, open_run.clone());
                    actions.extend(ready.map(attach));
                }
            }
            Err(error) => {
                let error = job::to_task_error(&error);
                self.end(run, JobState::Failed, Some(error), None, now, actions);
                self.start_queued(now, actions);
            }
        }
    }

    /// Whether this coordinator computes that life of that run at the moment.
    fn leads(&self, key: &RunKey) -> bool {
        let phase = self.jobs.get(&key.run).map(|entry| &entry.phase);
        matches!(phase, Some(Phase::Running(running)) if running.machine.key() == key)
    }

    fn logged(
        &mut self,
        key: &RunKey,
        logged: Result<Logged, TaskError>,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        if !self.leads(key) {
            return;
        }
        match logged {
            Ok(Logged::Written) => self.feed(&key.run, machine::Event::Logged, now, actions),
            Ok(Logged::Found(record)) => {
                self.feed(&key.run, machine::Event::Found(record), now, actions);
            }
            Ok(Logged::Superseded) => self.stand_down(&key.run, now, actions),
            Err(error) => self.fail(&key.run, error, actions),
        }
    }

    /// Another coordinator leads the run: it is no longer a job of this one.
    fn stand_down(&mut self, run: &str, now: Duration, actions: &mut Vec<Action>) {
        tracing::warn!(run, "another coordinator leads this run now");
        self.detach_all(run, actions);
        if let Some(entry) = self.jobs.get_mut(run) {
            // How it really ends is for the other one to say, and to remember.
            entry.phase = Phase::Ended {
                state: JobState::Failed,
                error: Some(superseded(run)),
                summary: None,
            };
        }
        actions.push(Action::StandDown(run.to_owned()));
        actions.push(Action::Changed(run.to_owned()));
        self.start_queued(now, actions);
    }

    fn published(
        &mut self,
        key: &RunKey,
        result: Result<String, TaskError>,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        let is_publishing = self
            .jobs
            .get(&key.run)
            .is_some_and(|entry| matches!(&entry.phase, Phase::Publishing(k) if k == key));
        if !is_publishing {
            return;
        }
        match result {
            Ok(summary) => {
                self.end(&key.run, JobState::Done, None, Some(summary), now, actions);
                self.start_queued(now, actions);
            }
            Err(error) => self.fail(&key.run, error, actions),
        }
    }

    /// Ends a run that cannot go on, unless it is another coordinator's by now: then what went wrong here is of no importance, and is
    /// often that the other one has brought the run to its end.
    fn fail(&mut self, run: &str, error: TaskError, actions: &mut Vec<Action>) {
        self.detach_all(run, actions);
        let Some(entry) = self.jobs.get_mut(run) else {
            return;
        };
        let key = match &entry.phase {
            Phase::Running(running) => running.machine.key().clone(),
            Phase::Publishing(key) => key.clone(),
            _ => return,
        };
        entry.phase = Phase::Failing(key.clone(), error);
        actions.push(Action::Confirm(key));
        actions.push(Action::Changed(run.to_owned()));
    }

    fn confirmed(
        &mut self,
        key: &RunKey,
        leads: Result<bool, TaskError>,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        let run = &key.run;
        let failure = match self.jobs.get(run).map(|entry| &entry.phase) {
            Some(Phase::Running(running)) if running.machine.key() == key => None,
            Some(Phase::Failing(failing, error)) if failing == key => Some(error.clone()),
            _ => return,
        };
        match (leads, failure) {
            (Ok(false), _) => self.stand_down(run, now, actions),
            (_, Some(error)) => {
                self.end(run, JobState::Failed, Some(error), None, now, actions);
                self.start_queued(now, actions);
            }
            // It goes on; storage that does not answer now is asked again.
            (Ok(true) | Err(_), None) => {}
        }
    }

    fn tick(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let silent = |(_, member): &(&WorkerId, &Member)| now.saturating_sub(member.heard) > LEASE;
        let silent: Vec<WorkerId> = self
            .workers
            .iter()
            .filter(silent)
            .map(|(id, _)| *id)
            .collect();
        for worker in silent {
            self.lose(worker, "nothing was heard of it for 6 s", now, actions);
            actions.push(Action::Disconnect(
                worker,
                "nothing was heard of you for 6 s",
            ));
        }
        self.feed_all(now, actions, || machine::Event::Tick);
        self.give_up_waiting(now, actions);
    }

    /// Fails jobs that have been without a worker for too long.
    fn give_up_waiting(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let mut given_up = Vec::new();
        for (run, entry) in &mut self.jobs {
            let limit = entry
                .wait_for_workers()
                .unwrap_or(self.limits.wait_for_workers);
            if let Phase::Running(running) = &mut entry.phase
                && running.has_waited(now, actions, run) > limit
            {
                given_up.push((run.clone(), limit));
            }
        }
        for (run, limit) in given_up {
            let error = refusal(
                ErrorKind::Transient,
                format!("there has been no worker for {} s", limit.as_secs()),
                "start one with `clientele worker --coordinator URL`, or wait longer with `--wait-for-workers`",
            );
            self.fail(&run, error, actions);
        }
    }

    fn lose(&mut self, worker: WorkerId, reason: &str, now: Duration, actions: &mut Vec<Action>) {
        let Some(member) = self.workers.remove(&worker) else {
            return;
        };
        let is_silent = now.saturating_sub(member.heard) > SILENCE;
        self.feed_all(now, actions, || match is_silent {
            true => machine::Event::Silent(worker, member.heard),
            false => {
                let reason = reason.to_owned();
                machine::Event::Worker(worker, WorkerEvent::Lost { reason })
            }
        });
    }

    fn feed_all(
        &mut self,
        now: Duration,
        actions: &mut Vec<Action>,
        event: impl Fn() -> machine::Event,
    ) {
        let running = |(run, entry): (&String, &JobEntry)| match entry.phase {
            Phase::Running(_) => Some(run.clone()),
            _ => None,
        };
        let runs: Vec<String> = self.jobs.iter().filter_map(running).collect();
        for run in runs {
            self.feed(&run, event(), now, actions);
        }
    }

    /// Gives an event to the machine of a run, if it runs, and takes what it wants done.
    fn feed(&mut self, run: &str, event: machine::Event, now: Duration, actions: &mut Vec<Action>) {
        let Some(entry) = self.jobs.get_mut(run) else {
            return;
        };
        let Phase::Running(running) = &mut entry.phase else {
            return;
        };
        let key = running.machine.key().clone();
        // A fault that one run brings to light must not end the others.
        let step = std::panic::AssertUnwindSafe(|| running.machine.step(event, now));
        let taken = std::panic::catch_unwind(step).unwrap_or_else(|_| {
            let fact = "the coordinator panicked over this run; its log has the message";
            vec![machine::Action::Fail(FitError::Bug(fact.into()))]
        });
        for action in taken {
            match action {
                machine::Action::Send(worker, task) => actions.push(Action::Send(worker, task)),
                machine::Action::Log(record) => actions.push(Action::Log(key.clone(), record)),
                machine::Action::Progress(_) => actions.push(Action::Changed(run.to_owned())),
                machine::Action::Finish(outcome) => {
                    self.detach_all(run, actions);
                    if let Some(entry) = self.jobs.get_mut(run) {
                        entry.phase = Phase::Publishing(key.clone());
                    }
                    actions.push(Action::Publish(key, outcome));
                    actions.push(Action::Changed(run.to_owned()));
                    return;
                }
                machine::Action::Fail(error) => {
                    return self.fail(run, job::to_task_error(&error), actions);
                }
            }
        }
    }

    fn end(
        &mut self,
        run: &str,
        state: JobState,
        error: Option<TaskError>,
        summary: Option<String>,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        self.detach_all(run, actions);
        if let Some(entry) = self.jobs.get_mut(run) {
            entry.phase = Phase::Ended {
                state,
                error,
                summary,
            };
            actions.push(Action::End(entry.status(run, now)));
            actions.push(Action::Changed(run.to_owned()));
        }
        self.forget_oldest();
    }

    /// Tells the workers of a running job that it is over.
    fn detach_all(&mut self, run: &str, actions: &mut Vec<Action>) {
        if let Some(Phase::Running(running)) = self.jobs.get(run).map(|entry| &entry.phase) {
            self.totals = self.totals.plus(running.machine.totals());
            let key = running.machine.key();
            let detach = |id: &WorkerId| Action::Detach(*id, key.clone());
            actions.extend(self.workers.keys().map(detach));
        }
    }

    /// Jobs that are being computed.
    fn n_active(&self) -> usize {
        let is_active = |entry: &&JobEntry| {
            matches!(
                entry.phase,
                Phase::Opening | Phase::Running(_) | Phase::Publishing(_) | Phase::Failing(..)
            )
        };
        self.jobs.values().filter(is_active).count()
    }

    fn start_queued(&mut self, _now: Duration, actions: &mut Vec<Action>) {
        let mut n_active = self.n_active();
        for run in &self.order {
            if n_active >= self.limits.max_running {
                break;
            }
            if let Some(entry) = self.jobs.get_mut(run)
                && matches!(entry.phase, Phase::Queued)
            {
                entry.phase = Phase::Opening;
                n_active += 1;
                actions.push(Action::Open(run.clone(), entry.job.clone()));
                actions.push(Action::Changed(run.clone()));
            }
        }
    }

    fn forget_oldest(&mut self) {
        let is_ended = |run: &&String| {
            let entry = self.jobs.get(*run);
            entry.is_some_and(|entry| entry.phase.state().is_final())
        };
        let ended: Vec<String> = self.order.iter().filter(is_ended).cloned().collect();
        let n_surplus = ended.len().saturating_sub(self.limits.max_ended);
        for run in &ended[..n_surplus] {
            self.jobs.remove(run);
            self.order.retain(|known| known != run);
        }
    }
}

fn refusal(kind: ErrorKind, message: String, hint: &str) -> TaskError {
    TaskError {
        kind,
        message,
        causes: Vec::new(),
        hint: Some(hint.to_owned()),
    }
}

/// Another coordinator leads a run.
pub(crate) fn superseded(run: &str) -> TaskError {
    refusal(
        ErrorKind::Conflict,
        format!("another coordinator leads run `{run}` now"),
        "ask that one",
    )
}

fn unknown(run: &str) -> TaskError {
    refusal(
        ErrorKind::Usage,
        format!("there is no run `{run}`"),
        "`clientele jobs` lists those there are",
    )
}
