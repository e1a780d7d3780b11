//! The way to a worker over gRPC: the second implementation of [`WorkerChannel`].

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clientele_protocol::cluster::{CoordinatorMessage, Digest};
use clientele_protocol::{ChannelClosed, Reply, RunKey, StageSeq, Task, WorkerChannel};
use tokio::sync::mpsc;

/// Messages that may wait for one worker; one that does not take them is lost.
const QUEUE: usize = 256;

/// Stages of a run that are remembered: the current one, and the one that late answers are to.
const REMEMBERED: usize = 2;

/// Stages as they go over the wire, encoded once for all workers.
#[derive(Debug, Default)]
pub(super) struct EncodedStages(Mutex<BTreeMap<String, Vec<EncodedStage>>>);

#[derive(Debug)]
struct EncodedStage {
    key: RunKey,
    seq: StageSeq,
    bytes: Arc<Vec<u8>>,
    hash: Digest,
}

impl EncodedStages {
    fn get(&self, task: &Task) -> (Arc<Vec<u8>>, Digest) {
        let mut runs = lock(&self.0);
        let known = runs.entry(task.key.run.clone()).or_default();
        let is_it = |stage: &&EncodedStage| stage.key == task.key && stage.seq == task.seq;
        if let Some(stage) = known.iter().find(is_it) {
            return (stage.bytes.clone(), stage.hash);
        }
        let bytes = Arc::new(clientele_proto::encode_stage(&task.stage));
        let hash = blake3::hash(&bytes);
        if known.len() == REMEMBERED {
            known.remove(0);
        }
        known.push(EncodedStage {
            key: task.key.clone(),
            seq: task.seq,
            bytes: bytes.clone(),
            hash,
        });
        (bytes, hash)
    }

    /// Whether a reply is to a stage as it was asked: the same run, life and number, and the same content.
    pub fn asked(&self, reply: &Reply, stage_hash: &Digest) -> bool {
        let runs = lock(&self.0);
        let mut known = runs.get(&reply.key.run).into_iter().flatten();
        known.any(|stage| {
            (&stage.key, stage.seq, &stage.hash) == (&reply.key, reply.seq, stage_hash)
        })
    }

    /// Forgets a run that is over.
    pub fn forget(&self, run: &str) {
        lock(&self.0).remove(run);
    }
}

/// One worker's connection.
pub(super) struct RemoteWorker {
    messages: mpsc::Sender<CoordinatorMessage>,
    stages: Arc<EncodedStages>,
    told: Mutex<Told>,
}

/// What a worker has been told, by run.
#[derive(Debug, Default)]
struct Told {
    transforms: HashSet<(String, Digest)>,
    stages: BTreeMap<String, (u64, StageSeq)>,
}

impl RemoteWorker {
    /// A connection, and what is said over it.
    pub fn new(stages: Arc<EncodedStages>) -> (Self, mpsc::Receiver<CoordinatorMessage>) {
        let (messages, receiver) = mpsc::channel(QUEUE);
        let told = Mutex::default();
        let worker = Self {
            messages,
            stages,
            told,
        };
        (worker, receiver)
    }

    /// Says something without waiting.
    ///
    /// # Errors
    /// [`ChannelClosed`] when the worker is gone, or does not take what it is told.
    pub fn say(&self, message: CoordinatorMessage) -> Result<(), ChannelClosed> {
        self.messages.try_send(message).map_err(|_| ChannelClosed)
    }

    /// A run is over for this worker.
    ///
    /// # Errors
    /// As [`RemoteWorker::say`].
    pub fn close_run(&self, key: RunKey) -> Result<(), ChannelClosed> {
        {
            let mut told = lock(&self.told);
            told.stages.remove(&key.run);
            told.transforms.retain(|(run, _)| *run != key.run);
        }
        self.say(CoordinatorMessage::CloseRun(key))
    }
}

impl WorkerChannel for RemoteWorker {
    /// Says what of the stage the worker has not been told, then leases the parts.
    fn send(&self, task: Task) -> Result<(), ChannelClosed> {
        let Task {
            key,
            seq,
            stage,
            parts,
        } = &task;
        let (bytes, stage_hash) = self.stages.get(&task);
        let mut told = lock(&self.told);
        if let Some(transform) = stage.transform()
            && told.transforms.insert((key.run.clone(), transform.hash()))
        {
            self.say(CoordinatorMessage::Transform {
                key: key.clone(),
                transform: transform.clone(),
            })?;
        }
        let now = (key.epoch, *seq);
        if told.stages.insert(key.run.clone(), now) != Some(now) {
            self.say(CoordinatorMessage::OpenStage {
                key: key.clone(),
                seq: *seq,
                stage: bytes,
            })?;
        }
        self.say(CoordinatorMessage::Lease {
            key: key.clone(),
            seq: *seq,
            stage_hash,
            parts: parts.clone(),
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
