//! The runs a remote worker works on, and the thread that does the work.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use clientele_data::manifest::Manifest;
use clientele_data::transform::Transform;
use clientele_data::{DataError, ErrorKind};
use clientele_protocol::cluster::{CoordinatorMessage, Digest, OpenRun, WorkerMessage};
use clientele_protocol::{Job, PartId, Reply, RunKey, Stage, StageSeq, Task, TaskError};
use tokio::sync::mpsc;

use super::RemoteOptions;
use crate::{Resources, Worker};

/// How a worker computes.
#[derive(Debug, Clone)]
pub enum Execution {
    /// On a thread of its own, so that it stays able to talk.
    Thread,
    /// Between two messages, after a simulated time a task: for simulations, in which nothing may depend on threads.
    Simulated(fn(name: &str, nth_task: u64) -> Duration),
}

/// All runs of one worker.
pub(super) struct Runs {
    resources: Arc<Resources>,
    options: RemoteOptions,
    runs: HashMap<String, Run>,
    work: Work,
    /// Run directories that were looked at, which takes as long as storage does.
    opened: (
        mpsc::UnboundedSender<Opened>,
        mpsc::UnboundedReceiver<Opened>,
    ),
}

/// A run directory that was looked at.
pub(super) struct Opened {
    open: OpenRun,
    job: Result<Job, TaskError>,
}

/// One run.
struct Run {
    key: RunKey,
    /// Whether this coordinator knows it; one before it may have.
    is_open: bool,
    manifest_hash: Digest,
    worker: Arc<Worker>,
    transforms: BTreeMap<[u8; blake3::OUT_LEN], Arc<Transform>>,
    stage: Option<KnownStage>,
}

struct KnownStage {
    seq: StageSeq,
    hash: Digest,
    /// None when it could not be understood.
    stage: Result<Arc<Stage>, TaskError>,
}

/// Something that takes long.
type Piece = Box<dyn FnOnce() + Send>;

enum Work {
    Thread(std::sync::mpsc::Sender<Piece>),
    Simulated {
        /// Of the worker's name and the number of the task.
        duration: fn(&str, u64) -> Duration,
        name: String,
        n_tasks: u64,
    },
}

impl Runs {
    pub fn new(resources: Arc<Resources>, options: RemoteOptions) -> Self {
        let work = match options.execution {
            Execution::Simulated(duration) => Work::Simulated {
                duration,
                name: options.name.clone(),
                n_tasks: 0,
            },
            Execution::Thread => {
                let (sender, pieces) = std::sync::mpsc::channel::<Piece>();
                std::thread::spawn(move || pieces.into_iter().for_each(|piece| piece()));
                Work::Thread(sender)
            }
        };
        Self {
            resources,
            options,
            runs: HashMap::new(),
            work,
            opened: mpsc::unbounded_channel(),
        }
    }

    /// The next run directory that was looked at.
    pub async fn next_opened(&mut self) -> Option<Opened> {
        self.opened.1.recv().await
    }

    /// A coordinator that is dialled anew says everything anew; rows stay where they are until their memory is wanted.
    pub fn connected(&mut self) {
        for run in self.runs.values_mut() {
            run.is_open = false;
            run.stage = None;
        }
    }

    /// Takes what the coordinator says; answers go to `outgoing` when they are there.
    pub fn take(&mut self, message: CoordinatorMessage, outgoing: &mpsc::Sender<WorkerMessage>) {
        match message {
            CoordinatorMessage::OpenRun(open) => self.open(open, outgoing),
            CoordinatorMessage::Transform { key, transform } => {
                if let Some(run) = self.runs.get_mut(&key.run) {
                    run.transforms
                        .insert(*transform.hash().as_bytes(), transform);
                }
            }
            CoordinatorMessage::OpenStage { key, seq, stage } => {
                if let Some(run) = self.runs.get_mut(&key.run) {
                    run.open_stage(seq, &stage);
                }
            }
            CoordinatorMessage::Lease {
                key,
                seq,
                stage_hash,
                parts,
            } => self.lease(key, seq, stage_hash, parts, outgoing),
            CoordinatorMessage::CloseRun(key) => {
                self.runs.remove(&key.run);
            }
            // Said once, at the beginning.
            CoordinatorMessage::Welcome { .. } => {}
        }
    }

    /// Looks for the run directory, unless it is known from an earlier coordinator of this run.
    fn open(&mut self, open: OpenRun, outgoing: &mpsc::Sender<WorkerMessage>) {
        let known = self.runs.get_mut(&open.key.run);
        if let Some(run) = known.filter(|run| run.manifest_hash == open.manifest_hash) {
            run.key = open.key.clone();
            run.is_open = true;
            run.stage = None;
            let worker = run.worker.clone();
            return tell(open.key, Ok(worker), outgoing);
        }
        let (options, sender) = (self.options.clone(), self.opened.0.clone());
        self.work.start(move || {
            let job = job(&options, &open);
            // Nobody waits for it when the worker is leaving.
            let _ = sender.send(Opened { open, job });
        });
    }

    /// Takes up a run whose directory was found, or says why it cannot.
    pub fn note_opened(&mut self, opened: Opened, outgoing: &mpsc::Sender<WorkerMessage>) {
        let Opened { open, job } = opened;
        // What ended while nobody could say so makes room.
        self.runs.retain(|_, run| run.is_open);
        let worker = job.map(|job| {
            let worker = Arc::new(Worker::new(job, self.resources.clone()));
            let run = Run {
                key: open.key.clone(),
                is_open: true,
                manifest_hash: open.manifest_hash,
                worker: worker.clone(),
                transforms: BTreeMap::new(),
                stage: None,
            };
            self.runs.insert(open.key.run.clone(), run);
            worker
        });
        tell(open.key, worker, outgoing);
    }

    fn lease(
        &mut self,
        key: RunKey,
        seq: StageSeq,
        stage_hash: Digest,
        parts: Vec<PartId>,
        outgoing: &mpsc::Sender<WorkerMessage>,
    ) {
        // A lease of a run that is closed meanwhile wants no answer.
        let Some(run) = self.runs.get(&key.run).filter(|run| run.key == key) else {
            return;
        };
        let worker = Arc::downgrade(&run.worker);
        let stage = match &run.stage {
            Some(known) if known.seq == seq && known.hash == stage_hash => known.stage.clone(),
            _ => Err(unknown_stage(seq)),
        };
        let compute = move |simulated: Option<Duration>| {
            // The run may have been closed while this waited: then its folder is a result, and nothing may be written there.
            let worker = worker.upgrade()?;
            let refused = |error| Reply {
                key: key.clone(),
                seq,
                parts: parts.clone(),
                body: Err(error),
                ran: Vec::new(),
                n_rescued: 0,
                elapsed: Duration::ZERO,
            };
            let mut reply = match stage {
                Err(error) => refused(error),
                Ok(stage) => {
                    let task = Task {
                        key: key.clone(),
                        seq,
                        stage,
                        parts: parts.clone(),
                    };
                    // A bug that some rows bring to light must not take the worker's other runs down with it.
                    catch_unwind(AssertUnwindSafe(|| worker.run(&task)))
                        .unwrap_or_else(|_| refused(panicked()))
                }
            };
            reply.elapsed = simulated.unwrap_or(reply.elapsed);
            Some(WorkerMessage::Reply {
                reply: Box::new(reply),
                stage_hash,
            })
        };
        let outgoing = outgoing.clone();
        self.work.start_task(compute, outgoing);
    }
}

fn tell(
    key: RunKey,
    worker: Result<Arc<Worker>, TaskError>,
    outgoing: &mpsc::Sender<WorkerMessage>,
) {
    let resident = worker.map(|worker| {
        let shards = worker.resident().into_iter();
        shards.map(|shard| PartId(shard.0)).collect()
    });
    let message = WorkerMessage::RunOpened { key, resident };
    let outgoing = outgoing.clone();
    tokio::spawn(async move { outgoing.send(message).await });
}

/// Everything that tasks of a run need, from its directory.
fn job(options: &RemoteOptions, open: &OpenRun) -> Result<Job, TaskError> {
    let stores = &options.stores;
    let out = stores
        .folder(&open.out)
        .map_err(|error| cannot_see(options, open, Some(error)))?;
    let work_dir = out.child("_work")?;
    if work_dir.read("nonce")?.as_deref() != Some(&open.nonce) {
        return Err(cannot_see(options, open, None));
    }
    let unusable = |why: String| TaskError {
        kind: ErrorKind::Bug,
        message: format!("the manifest of run `{}` cannot be used", open.key.run),
        causes: vec![why],
        hint: None,
    };
    let bytes = work_dir.read("manifest.json")?.unwrap_or_default();
    if blake3::hash(&bytes) != open.manifest_hash {
        return Err(unusable("it is not the one of the coordinator".into()));
    }
    let manifest: Manifest =
        serde_json::from_slice(&bytes).map_err(|error| unusable(error.to_string()))?;
    Ok(Job {
        key: open.key.clone(),
        manifest: Arc::new(manifest.attach(stores)?),
        assignments_dir: out.child("assignments")?,
        work_dir,
        spill_dir: options.spill_dir.clone(),
    })
}

/// A run directory that is another one here would be half of a result.
fn cannot_see(options: &RemoteOptions, open: &OpenRun, error: Option<DataError>) -> TaskError {
    TaskError {
        kind: ErrorKind::Usage,
        message: format!(
            "worker `{}` does not see the coordinator's `{}`",
            options.name, open.out
        ),
        causes: error.iter().map(ToString::to_string).collect(),
        hint: Some(format!(
            "start workers and coordinator with a `--store {}=...` that is the same place for all",
            open.out.store()
        )),
    }
}

impl Run {
    fn open_stage(&mut self, seq: StageSeq, bytes: &[u8]) {
        let transforms = &self.transforms;
        let known = |hash: &Digest| transforms.get(hash.as_bytes()).cloned();
        let stage = clientele_proto::decode_stage(bytes, &known);
        let stage = stage.map(Arc::new).map_err(|error| TaskError {
            kind: ErrorKind::Bug,
            message: format!("stage {} cannot be understood", seq.0),
            causes: vec![error.to_string()],
            hint: None,
        });
        self.stage = Some(KnownStage {
            seq,
            hash: blake3::hash(bytes),
            stage,
        });
    }
}

impl Work {
    fn start(&mut self, piece: impl FnOnce() + Send + 'static) {
        match self {
            // The thread ends with this sender.
            Self::Thread(pieces) => drop(pieces.send(Box::new(piece))),
            Self::Simulated { .. } => piece(),
        }
    }

    /// Computes an answer and says it, unless nobody waits for it any more.
    fn start_task(
        &mut self,
        compute: impl FnOnce(Option<Duration>) -> Option<WorkerMessage> + Send + 'static,
        outgoing: mpsc::Sender<WorkerMessage>,
    ) {
        let is_wanted = |outgoing: &mpsc::Sender<_>| !outgoing.is_closed();
        match self {
            Self::Thread(_) => self.start(move || {
                if is_wanted(&outgoing)
                    && let Some(answer) = compute(None)
                {
                    let _ = outgoing.blocking_send(answer);
                }
            }),
            Self::Simulated {
                duration,
                name,
                n_tasks,
            } => {
                let takes = duration(name, *n_tasks);
                *n_tasks += 1;
                tokio::spawn(async move {
                    tokio::time::sleep(takes).await;
                    if is_wanted(&outgoing)
                        && let Some(answer) = compute(Some(takes))
                    {
                        let _ = outgoing.send(answer).await;
                    }
                });
            }
        }
    }
}

fn unknown_stage(seq: StageSeq) -> TaskError {
    TaskError {
        kind: ErrorKind::Transient,
        message: format!("stage {} has not been opened on this worker", seq.0),
        causes: Vec::new(),
        hint: None,
    }
}

fn panicked() -> TaskError {
    TaskError {
        // Tried again elsewhere, in case it was the machine.
        kind: ErrorKind::Transient,
        message: "the worker panicked; its log has the message".into(),
        causes: Vec::new(),
        hint: None,
    }
}
