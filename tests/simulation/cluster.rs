//! Coordinator, workers and client as hosts of one simulated network, and the hand that makes things go wrong.

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clientele_coordinator::cluster::{self, Limits};
use clientele_coordinator::machine::Outcome;
use clientele_coordinator::server::metrics::Metrics;
use clientele_coordinator::server::{Publication, Publisher, Server, ServerOptions, StorageCalls};
use clientele_data::ErrorKind;
use clientele_data::manifest::Manifest;
use clientele_data::run_dir::COMMITTED;
use clientele_proto::connection::call;
use clientele_proto::security::ServerSecurity;
use clientele_proto::status::to_error;
use clientele_proto::v1::jobs_service_client::JobsServiceClient;
use clientele_proto::v1::{SubmitRequest, WatchJobRequest};
use clientele_protocol::TaskError;
use clientele_protocol::jobs::{FitJob, JobStatus};
use clientele_worker::remote::{Execution, RemoteOptions, attend};
use tokio::sync::watch;
use tonic::Status;
use turmoil::Sim;

use crate::common::Mix;
use crate::schedule::{Fault, Planned, Schedule, WorkerPlan, name};
use crate::table::{Room, job, resources, summary};
use crate::wire::{COORDINATOR, Counts, RepeatingChannel, Repeats, dial, listen};

/// Simulated time in which a run must have ended.
const TIME_LIMIT: Duration = Duration::from_secs(600);
/// What hosts do between two messages happens at once; messages arrive at these steps.
const TICK: Duration = Duration::from_millis(10);
/// How often messages begin to take another time.
const JITTER: Duration = Duration::from_millis(100);
/// The host that asks for the run.
const CLIENT: &str = "client";

/// How a simulation ended.
pub struct Ended {
    pub status: JobStatus,
    /// Faults that came while the run lasted.
    pub fired: Vec<Fault>,
    pub n_repeated: u64,
    /// Simulated.
    pub took: Duration,
}

/// What the hosts share with the test.
#[derive(Clone, Default)]
struct Shared {
    counts: Arc<Counts>,
    /// What asks a worker to leave, by its number.
    stops: Arc<Mutex<BTreeMap<usize, watch::Sender<bool>>>>,
    ended: Arc<Mutex<Option<Result<JobStatus, TaskError>>>>,
}

/// Runs the job on the cluster of `schedule`, with a broken rule if one is given.
///
/// # Errors
/// What the run, the client or the simulation complained of.
pub fn simulate(
    schedule: &Schedule,
    room: &Room,
    broken: Option<cluster::Fault>,
) -> Result<Ended, String> {
    let shared = Shared::default();
    let mut sim = turmoil::Builder::new()
        .tick_duration(TICK)
        .simulation_duration(TIME_LIMIT)
        .tcp_capacity(4_096)
        .rng_seed(schedule.seed)
        .build();
    add_coordinator(&mut sim, room, broken);
    for (nth, plan) in schedule.workers.iter().enumerate() {
        add_worker(&mut sim, room, schedule, nth, plan, &shared);
    }
    sim.client(CLIENT, ask_for_the_run(shared.clone()));
    let mut hand = Hand::new(schedule, room, shared.clone());
    loop {
        hand.act(&mut sim);
        match sim.step() {
            Ok(true) => break,
            Ok(false) => {}
            Err(error) => return Err(format!("at {:?}: {error}", sim.elapsed())),
        }
    }
    let took = sim.elapsed();
    drop(sim);
    let status = lock(&shared.ended).take();
    Ok(Ended {
        status: status.ok_or("the client has left")?.map_err(|error| {
            format!(
                "the client was refused: {error} ({})",
                error.causes.join("; ")
            )
        })?,
        fired: hand.fired,
        n_repeated: shared.counts.n_repeated.load(Ordering::Relaxed),
        took,
    })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn add_coordinator(sim: &mut Sim<'_>, room: &Room, broken: Option<cluster::Fault>) {
    let (stores, state) = (room.stores.clone(), room.state());
    sim.host(COORDINATOR, move || {
        let security = ServerSecurity::new(([127, 0, 0, 1], 0).into(), None, None, None, None);
        let options = ServerOptions {
            stores: stores.clone(),
            state: state.clone(),
            limits: Limits {
                fault: broken,
                ..Limits::default()
            },
            publisher: Arc::new(ModelPublisher),
            security: security.unwrap(),
            has_reflection: false,
            storage: StorageCalls::Inline,
            metrics: Arc::new(Metrics::new()),
            injected: None,
        };
        async move {
            // It ends by force only.
            let (_stop, stopped) = watch::channel(false);
            let server = Server::open(options).await?;
            Ok(server.serve(listen().await?, stopped).await?)
        }
    });
}

struct ModelPublisher;

impl Publisher for ModelPublisher {
    fn publish(
        &self,
        job: &FitJob,
        _: &Manifest,
        outcome: &Outcome,
    ) -> Result<Publication, TaskError> {
        let (model, summary) = summary(&job.spec, outcome);
        let model = serde_json::to_vec(&model).unwrap();
        Ok(Publication {
            files: vec![("model.json".into(), model)],
            summary: summary.to_string(),
        })
    }
}

fn add_worker(
    sim: &mut Sim<'_>,
    room: &Room,
    schedule: &Schedule,
    nth: usize,
    plan: &WorkerPlan,
    shared: &Shared,
) {
    let options = RemoteOptions {
        name: format!(
            "{}/{}/{}",
            name(nth),
            plan.pace.as_millis(),
            plan.stalls_every
        ),
        stores: room.stores.clone(),
        spill_dir: room.spill_dir(),
        execution: Execution::Simulated(takes),
    };
    let repeats = Repeats {
        worker: name(nth),
        seed: schedule.seed ^ nth as u64,
        share: schedule.repeated,
        counts: shared.counts.clone(),
    };
    let (joins_after, stops) = (plan.joins_after, shared.stops.clone());
    let n_lives = Arc::new(AtomicU32::new(0));
    sim.host(name(nth), move || {
        let (options, repeats) = (options.clone(), repeats.clone());
        let (stop, stopped) = watch::channel(false);
        lock(&stops).insert(nth, stop);
        let is_first = n_lives.fetch_add(1, Ordering::Relaxed) == 0;
        async move {
            if is_first {
                tokio::time::sleep(joins_after).await;
            }
            let n_dialled = AtomicU64::new(0);
            let connect = || {
                let mut repeats = repeats.clone();
                repeats.seed ^= n_dialled.fetch_add(1, Ordering::Relaxed) << 32;
                async move {
                    let inner = dial().await?;
                    Ok(RepeatingChannel { inner, repeats })
                }
            };
            Ok(attend(resources(), options, connect, stopped).await?)
        }
    });
}

/// How long a task takes: about the pace in the worker's name, and now and then very long.
fn takes(name: &str, nth_task: u64) -> Duration {
    let mut said = name.rsplit('/').map(|word| word.parse().unwrap_or(1));
    let (stalls_every, pace_ms): (u64, u64) = (said.next().unwrap_or(1), said.next().unwrap_or(1));
    let seed = name
        .bytes()
        .fold(nth_task, |seed, byte| seed * 31 + u64::from(byte));
    let millis = pace_ms as f64 * (0.5 + Mix(seed).next());
    let stall = match (nth_task + 1).is_multiple_of(stalls_every) {
        true => 10_000.0 * Mix(!seed).next(),
        false => 0.0,
    };
    Duration::from_millis((millis + stall) as u64)
}

/// Asks until the job is taken and watches until it has ended, however often the coordinator is away.
async fn ask_for_the_run(shared: Shared) -> Result<(), Box<dyn Error>> {
    loop {
        let error = match follow().await {
            Ok(status) => {
                tracing::info!(target: "simulation", state = ?status.state, "the client knows the end");
                *lock(&shared.ended) = Some(Ok(status));
                return Ok(());
            }
            Err(status) => to_error(&status),
        };
        tracing::info!(target: "simulation", %error, "the client asks again");
        if error.kind != ErrorKind::Transient {
            *lock(&shared.ended) = Some(Err(error));
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn follow() -> Result<JobStatus, Status> {
    let channel = dial()
        .await
        .map_err(|error| Status::from_error(error.into()))?;
    let mut jobs = JobsServiceClient::new(channel);
    let run = String::from("run");
    let fit = Some((&job()).into());
    jobs.submit(call(SubmitRequest {
        run: run.clone(),
        fit,
    }))
    .await?;
    let mut watched = jobs.watch_job(WatchJobRequest { run }).await?.into_inner();
    while let Some(response) = watched.message().await? {
        let status = response.status.unwrap_or_default();
        let status = JobStatus::try_from(status)?;
        if let Some(progress) = &status.progress {
            let (n_done, n_parts) = (progress.n_done, progress.n_parts);
            let (stage, waits) = (&progress.stage, progress.is_waiting);
            tracing::info!(target: "simulation", life = status.epoch, stage, n_done, n_parts, waits, "the client sees");
        }
        if status.state.is_final() {
            return Ok(status);
        }
    }
    Err(Status::from_error(Box::new(io::Error::from(
        io::ErrorKind::UnexpectedEof,
    ))))
}

/// Lets faults come and go.
struct Hand {
    n_workers: usize,
    /// Of messages, at most.
    latency: Duration,
    mix: Mix,
    next_jitter: Duration,
    coming: Vec<Coming>,
    /// What has come, and when it goes.
    going: Vec<(Fault, Duration)>,
    /// What has come before this file was there.
    fired: Vec<Fault>,
    committed: PathBuf,
    shared: Shared,
}

struct Coming {
    planned: Planned,
    /// When, once there are so many answers.
    due: Option<Duration>,
}

impl Hand {
    fn new(schedule: &Schedule, room: &Room, shared: Shared) -> Self {
        let coming = schedule.faults.iter().cloned();
        Self {
            n_workers: schedule.workers.len(),
            latency: schedule.latency,
            mix: Mix(!schedule.seed),
            next_jitter: Duration::ZERO,
            coming: coming
                .map(|planned| Coming { planned, due: None })
                .collect(),
            going: Vec::new(),
            fired: Vec::new(),
            committed: room.out().join(COMMITTED),
            shared,
        }
    }

    fn act(&mut self, sim: &mut Sim<'_>) {
        let now = sim.elapsed();
        for (fault, _) in self.going.extract_if(.., |(_, until)| *until <= now) {
            tracing::info!(target: "simulation", ?fault, "is over");
            undo(sim, fault, self.n_workers);
        }
        if now >= self.next_jitter {
            self.next_jitter = now + JITTER;
            self.set_latencies(sim);
        }
        let n_answers = self.shared.counts.n_answers.load(Ordering::Relaxed);
        for coming in &mut self.coming {
            if n_answers >= coming.planned.after_answers {
                coming.due.get_or_insert(now + coming.planned.and_then);
            }
        }
        // One that meets another at the same place waits until that is over; the coordinator is at every place.
        let going = &self.going;
        let next = self.coming.iter().position(|coming| {
            let place = coming.planned.fault.place();
            let is_free = going.iter().all(|(other, _)| {
                let theirs = other.place();
                theirs != place && theirs != Place::Coordinator && place != Place::Coordinator
            });
            coming.due.is_some_and(|due| due <= now) && is_free
        });
        if let Some(next) = next {
            let Planned { fault, lasts, .. } = self.coming.remove(next).planned;
            tracing::info!(target: "simulation", ?fault, "comes");
            cause(sim, fault, self.n_workers, &self.shared);
            self.going.push((fault, now + lasts));
            if !self.committed.exists() {
                self.fired.push(fault);
            }
        }
    }
}

impl Hand {
    /// Gives every link a time of its own. Those that the simulated network draws depend on the order in which the connections of a
    /// killed process are closed, and that on the number of tasks the test process has ever started.
    fn set_latencies(&mut self, sim: &Sim<'_>) {
        for (nth, other) in others(self.n_workers).enumerate() {
            let drawn = self.latency.mul_f64(self.mix.next().powi(2));
            let delay = self.going.iter().find_map(|(fault, _)| match fault {
                Fault::Delay(worker, ms) if *worker == nth => Some(Duration::from_millis(*ms)),
                _ => None,
            });
            sim.set_link_latency(other, COORDINATOR, delay.unwrap_or(drawn));
        }
    }
}

/// Where a fault is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Worker(usize),
    Coordinator,
    Client,
}

impl Fault {
    fn place(&self) -> Place {
        match self {
            Self::KillWorker(nth)
            | Self::UnplugWorker(nth)
            | Self::PauseWorker(nth)
            | Self::Partition(nth)
            | Self::Deafen(nth)
            | Self::Mute(nth)
            | Self::Delay(nth, _)
            | Self::Drain(nth) => Place::Worker(*nth),
            Self::KillCoordinator | Self::UnplugCoordinator | Self::PauseCoordinator => {
                Place::Coordinator
            }
            Self::CutOffClient => Place::Client,
        }
    }
}

/// Everybody who talks to the coordinator.
fn others(n_workers: usize) -> impl Iterator<Item = String> {
    (0..n_workers).map(name).chain([CLIENT.to_owned()])
}

fn cause(sim: &mut Sim<'_>, fault: Fault, n_workers: usize, shared: &Shared) {
    match fault {
        Fault::KillWorker(nth) => sim.crash(name(nth)),
        Fault::UnplugWorker(nth) => {
            sim.partition(name(nth), COORDINATOR);
            sim.crash(name(nth));
        }
        Fault::KillCoordinator => sim.crash(COORDINATOR),
        Fault::UnplugCoordinator => {
            others(n_workers).for_each(|other| sim.partition(other, COORDINATOR));
            sim.crash(COORDINATOR);
        }
        Fault::PauseWorker(nth) => sim.hold(name(nth), COORDINATOR),
        Fault::PauseCoordinator => others(n_workers).for_each(|other| sim.hold(other, COORDINATOR)),
        Fault::Partition(nth) => sim.partition(name(nth), COORDINATOR),
        Fault::Deafen(nth) => sim.partition_oneway(COORDINATOR, name(nth)),
        Fault::Mute(nth) => sim.partition_oneway(name(nth), COORDINATOR),
        // See `Hand::set_latencies`.
        Fault::Delay(..) => {}
        Fault::Drain(nth) => {
            if let Some(stop) = lock(&shared.stops).get(&nth) {
                stop.send_replace(true);
            }
        }
        Fault::CutOffClient => sim.partition(CLIENT, COORDINATOR),
    }
}

fn undo(sim: &mut Sim<'_>, fault: Fault, n_workers: usize) {
    match fault {
        Fault::KillWorker(nth) | Fault::Drain(nth) => sim.bounce(name(nth)),
        Fault::UnplugWorker(nth) => {
            sim.repair(name(nth), COORDINATOR);
            sim.bounce(name(nth));
        }
        Fault::KillCoordinator => sim.bounce(COORDINATOR),
        Fault::UnplugCoordinator => {
            others(n_workers).for_each(|other| sim.repair(other, COORDINATOR));
            sim.bounce(COORDINATOR);
        }
        Fault::PauseWorker(nth) => sim.release(name(nth), COORDINATOR),
        Fault::PauseCoordinator => {
            others(n_workers).for_each(|other| sim.release(other, COORDINATOR));
        }
        Fault::Partition(nth) | Fault::Deafen(nth) | Fault::Mute(nth) => {
            sim.repair(name(nth), COORDINATOR);
        }
        Fault::Delay(..) => {}
        Fault::CutOffClient => sim.repair(CLIENT, COORDINATOR),
    }
}
