//! The one task that owns the state machine: events in, actions out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clientele_proto::security::AuthorizeLayer;
use clientele_protocol::cluster::{CoordinatorMessage, Digest, Registration};
use clientele_protocol::jobs::{FitJob, JobState, JobStatus, WorkerStatus};
use clientele_protocol::{ChannelClosed, TaskError, WorkerChannel, WorkerId};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::metrics::Metrics;
use super::remote::{EncodedStages, RemoteWorker};
use super::runs::{Runs, Submission};
use crate::cluster::{Action, Cluster, Event, Limits};

/// Events that may wait; whoever has more to say waits.
const EVENT_QUEUE: usize = 1_024;
/// How often late leases and silent workers are looked for.
const TICK: Duration = Duration::from_millis(500);

/// What the core is asked for.
pub(super) enum Command {
    /// Something happened.
    Event(Event),
    /// An answer that a worker computed for the stage of this hash.
    Reply(WorkerId, Box<clientele_protocol::Reply>, Digest),
    /// A worker has registered; what is said to it comes out of the receiver, which ends when it is to go.
    Attend(Registration, oneshot::Sender<Result<Attended, TaskError>>),
    Submit(
        Box<Submission>,
        oneshot::Sender<Result<JobStatus, TaskError>>,
    ),
    Cancel(String, oneshot::Sender<Result<JobStatus, TaskError>>),
    Status(String, oneshot::Sender<Result<JobStatus, TaskError>>),
    List(oneshot::Sender<(Vec<JobStatus>, Vec<WorkerStatus>)>),
    /// Changes whenever the job does.
    Watch(
        String,
        oneshot::Sender<Result<watch::Receiver<u64>, TaskError>>,
    ),
}

/// A worker that was taken on.
pub(super) struct Attended {
    pub worker: WorkerId,
    pub messages: mpsc::Receiver<CoordinatorMessage>,
}

/// The way to the core.
#[derive(Clone)]
pub(super) struct Handle(mpsc::Sender<Command>);

impl Handle {
    /// Tells the core something; waits while it is busy. False when it has ended.
    pub async fn tell(&self, command: Command) -> bool {
        self.0.send(command).await.is_ok()
    }

    /// Asks the core something.
    pub async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, TaskError> {
        let (sender, answer) = oneshot::channel();
        let gone = || TaskError {
            kind: clientele_data::ErrorKind::Transient,
            message: "the coordinator is shutting down".into(),
            causes: Vec::new(),
            hint: Some("ask again when it has been started anew".into()),
        };
        if !self.tell(command(sender)).await {
            return Err(gone());
        }
        answer.await.map_err(|_| gone())
    }
}

/// How storage is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StorageCalls {
    /// On threads of their own.
    Threads,
    /// One after the other by the core itself: for simulations, in which nothing may depend on threads.
    Inline,
}

pub(super) struct Core {
    cluster: Cluster,
    runs: Arc<Runs>,
    storage: StorageCalls,
    metrics: Arc<Metrics>,
    gate: AuthorizeLayer,
    started: Instant,
    workers: BTreeMap<WorkerId, RemoteWorker>,
    n_registered: u32,
    stages: Arc<EncodedStages>,
    watchers: BTreeMap<String, watch::Sender<u64>>,
    handle: Handle,
}

impl Core {
    /// With the jobs that earlier coordinators have left.
    pub fn new(
        limits: Limits,
        runs: Arc<Runs>,
        storage: StorageCalls,
        metrics: Arc<Metrics>,
        gate: AuthorizeLayer,
    ) -> (Self, mpsc::Receiver<Command>, Handle) {
        let (sender, commands) = mpsc::channel(EVENT_QUEUE);
        let handle = Handle(sender);
        let core = Self {
            cluster: Cluster::new(limits),
            runs,
            storage,
            metrics,
            gate,
            started: Instant::now(),
            workers: BTreeMap::new(),
            n_registered: 0,
            stages: Arc::default(),
            watchers: BTreeMap::new(),
            handle: handle.clone(),
        };
        (core, commands, handle)
    }

    /// Works until the last handle is dropped or `stop` is sent.
    pub async fn run(
        mut self,
        remembered: Vec<(Submission, Option<JobStatus>)>,
        mut commands: mpsc::Receiver<Command>,
        mut stop: watch::Receiver<bool>,
    ) {
        for (submission, ended) in remembered {
            self.recall(submission, ended);
        }
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                command = commands.recv() => match command {
                    Some(command) => self.take(command),
                    None => return,
                },
                _ = ticks.tick() => self.step(Event::Tick),
            }
            let now = self.started.elapsed();
            self.metrics.observe(&self.cluster, &self.gate, now);
        }
    }

    fn recall(&mut self, submission: Submission, ended: Option<JobStatus>) {
        let job = Arc::new(submission.job);
        match ended {
            Some(status) => self.cluster.remember(status, job),
            None => {
                tracing::info!(run = submission.run, "found an unfinished run; it goes on");
                let now = self.started.elapsed();
                let (run, submitted_ms) = (submission.run, submission.submitted_ms);
                match self.cluster.submit(&run, job.clone(), submitted_ms, now) {
                    Ok(actions) => self.act(actions),
                    // It was refused before, and its coordinator died before it could forget it.
                    Err(error) => {
                        let status = JobStatus {
                            run,
                            out: job.out.clone(),
                            state: JobState::Failed,
                            progress: None,
                            error: Some(error),
                            summary: None,
                            submitted_ms,
                            epoch: 0,
                        };
                        self.cluster.remember(status.clone(), job);
                        self.act(vec![Action::End(status)]);
                    }
                }
            }
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Event(event) => self.step(event),
            Command::Reply(worker, reply, stage_hash) => self.reply(worker, *reply, stage_hash),
            Command::Attend(registration, answer) => {
                let attended = self.attend(registration.clone());
                let worker = attended.as_ref().ok().map(|attended| attended.worker);
                if answer.send(attended).is_ok()
                    && let Some(worker) = worker
                {
                    self.step(Event::Registered(worker, registration));
                }
            }
            // Whoever asked may have gone meanwhile.
            Command::Submit(submission, answer) => {
                let _ = answer.send(self.submit(*submission));
            }
            Command::Cancel(run, answer) => {
                let now = self.started.elapsed();
                let cancelled = self.cluster.cancel(&run, now);
                let status = cancelled.and_then(|actions| {
                    self.act(actions);
                    self.cluster.status(&run, now)
                });
                let _ = answer.send(status);
            }
            Command::Status(run, answer) => {
                let _ = answer.send(self.cluster.status(&run, self.started.elapsed()));
            }
            Command::List(answer) => {
                let now = self.started.elapsed();
                let _ = answer.send((self.cluster.statuses(now), self.cluster.workers(now)));
            }
            Command::Watch(run, answer) => {
                let known = self.cluster.status(&run, self.started.elapsed());
                let receiver = known.map(|_| {
                    let sender = self.watchers.entry(run);
                    sender.or_insert_with(|| watch::Sender::new(0)).subscribe()
                });
                let _ = answer.send(receiver);
            }
        }
    }

    fn attend(&mut self, registration: Registration) -> Result<Attended, TaskError> {
        self.cluster.admit()?;
        let worker = WorkerId(self.n_registered);
        self.n_registered += 1;
        let (connection, messages) = RemoteWorker::new(self.stages.clone());
        tracing::info!(
            worker = worker.0,
            name = registration.name,
            devices = registration.devices.join(", "),
            "a worker has joined"
        );
        self.workers.insert(worker, connection);
        Ok(Attended { worker, messages })
    }

    fn submit(&mut self, submission: Submission) -> Result<JobStatus, TaskError> {
        let now = self.started.elapsed();
        let job: Arc<FitJob> = Arc::new(submission.job);
        let run = submission.run;
        let actions = self
            .cluster
            .submit(&run, job, submission.submitted_ms, now)?;
        self.act(actions);
        self.cluster.status(&run, now)
    }

    /// An answer counts only when it is to the stage as it was asked. One to a stage that is long over counts no more, but its worker
    /// is free again.
    fn reply(&mut self, worker: WorkerId, reply: clientele_protocol::Reply, stage_hash: Digest) {
        tracing::debug!(
            run = reply.key.run,
            worker = worker.0,
            seq = reply.seq.0,
            first_part = reply.parts.first().map(|part| part.0),
            n_parts = reply.parts.len(),
            seconds = reply.elapsed.as_secs_f64(),
            "answered"
        );
        if self.stages.asked(&reply, &stage_hash) {
            return self.step(Event::Reply(worker, reply));
        }
        self.metrics.foreign_answers.inc();
        self.step(Event::Heartbeat(worker));
    }

    fn step(&mut self, event: Event) {
        if let Event::Lost(worker, reason) = &event
            && self.workers.remove(worker).is_some()
        {
            tracing::warn!(worker = worker.0, reason, "a worker is gone");
        }
        let actions = self.cluster.step(event, self.started.elapsed());
        self.act(actions);
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Open(run, job) => self.storage_call(move |runs| {
                    let opened = runs.open(&run, &job).map(Box::new);
                    Some(Event::Opened(run, opened))
                }),
                Action::Log(key, record) => self.storage_call(move |runs| {
                    let logged = runs.log(&key, &record);
                    Some(Event::Logged(key, logged))
                }),
                Action::Publish(key, outcome) => self.storage_call(move |runs| {
                    let published = runs.publish(&key, &outcome);
                    Some(Event::Published(key, published))
                }),
                Action::Confirm(key) => self.storage_call(move |runs| {
                    let leads = runs.leads(&key);
                    Some(Event::Confirmed(key, leads))
                }),
                Action::End(status) => {
                    self.stages.forget(&status.run);
                    tracing::info!(run = status.run, state = ?status.state, "a run has ended");
                    self.storage_call(move |runs| {
                        if let Err(error) = runs.end(&status) {
                            tracing::error!(run = status.run, %error, "how this run ended is not remembered");
                        }
                        None
                    });
                }
                Action::StandDown(run) => {
                    self.stages.forget(&run);
                    self.runs.let_go(&run);
                }
                Action::Attach(worker, open_run) => {
                    self.tell(worker, |channel| {
                        channel.say(CoordinatorMessage::OpenRun(open_run))
                    });
                }
                Action::Send(worker, task) => {
                    tracing::debug!(
                        run = task.key.run,
                        worker = worker.0,
                        seq = task.seq.0,
                        stage = task.stage.name(),
                        first_part = task.parts.first().map(|part| part.0),
                        n_parts = task.parts.len(),
                        "leased"
                    );
                    self.tell(worker, |channel| channel.send(task));
                }
                Action::Detach(worker, key) => {
                    self.tell(worker, |channel| channel.close_run(key));
                }
                Action::Disconnect(worker, reason) => {
                    tracing::warn!(worker = worker.0, reason, "a worker is disconnected");
                    self.workers.remove(&worker);
                }
                Action::Changed(run) => {
                    if let Some(watcher) = self.watchers.get(&run) {
                        watcher.send_modify(|version| *version += 1);
                    }
                    self.watchers.retain(|_, watcher| !watcher.is_closed());
                }
            }
        }
    }

    fn storage_call(&mut self, call: impl FnOnce(&Runs) -> Option<Event> + Send + 'static) {
        let (runs, handle) = (self.runs.clone(), self.handle.clone());
        match self.storage {
            StorageCalls::Threads => {
                tokio::spawn(async move {
                    let done = tokio::task::spawn_blocking(move || call(&runs)).await;
                    if let Ok(Some(event)) = done {
                        handle.tell(Command::Event(event)).await;
                    }
                });
            }
            StorageCalls::Inline => {
                if let Some(event) = call(&runs) {
                    tokio::spawn(async move { handle.tell(Command::Event(event)).await });
                }
            }
        }
    }

    fn tell(
        &mut self,
        worker: WorkerId,
        say: impl FnOnce(&RemoteWorker) -> Result<(), ChannelClosed>,
    ) {
        let Some(channel) = self.workers.get(&worker) else {
            return;
        };
        if say(channel).is_err() {
            self.workers.remove(&worker);
            let handle = self.handle.clone();
            let reason = "its connection is closed, or it does not take its messages".to_owned();
            tokio::spawn(async move {
                handle
                    .tell(Command::Event(Event::Lost(worker, reason)))
                    .await;
            });
        }
    }
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, crate::millis)
}
