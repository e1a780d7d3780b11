//! What goes over the stream between the coordinator and one remote worker, as domain types.

use std::sync::Arc;

use clientele_data::Location;
use clientele_data::transform::Transform;

use crate::{PartId, Reply, RunKey, StageSeq, TaskError, WorkerId};

/// BLAKE3 of something encoded.
pub type Digest = blake3::Hash;

/// What a worker says.
#[derive(Debug, Clone, PartialEq)]
pub enum WorkerMessage {
    /// First of all.
    Registration(Registration),
    /// Still alive.
    Heartbeat,
    /// Whether the worker can work on a run.
    RunOpened {
        /// As asked.
        key: RunKey,
        /// Shards whose rows it has on the grid already; or why it cannot.
        resident: Result<Vec<PartId>, TaskError>,
    },
    /// An answer.
    Reply {
        /// The answer.
        reply: Box<Reply>,
        /// As asked: what the answer is to.
        stage_hash: Digest,
    },
    /// The worker is about to leave and takes no more tasks.
    Draining,
}

/// What the coordinator says.
#[derive(Debug, Clone, PartialEq)]
pub enum CoordinatorMessage {
    /// The registration is accepted.
    Welcome {
        /// The worker's number.
        worker: WorkerId,
        /// How often to say that one is alive.
        heartbeat_ms: u32,
    },
    /// What a worker has to know of a run before its first task.
    OpenRun(OpenRun),
    /// A transform that later stages name by its hash.
    Transform {
        /// The run.
        key: RunKey,
        /// Frozen.
        transform: Arc<Transform>,
    },
    /// A stage that later leases name by its number.
    OpenStage {
        /// The run.
        key: RunKey,
        /// The stage.
        seq: StageSeq,
        /// Encoded; its BLAKE3 is the stage's hash.
        stage: Arc<Vec<u8>>,
    },
    /// A question about some parts.
    Lease {
        /// The run.
        key: RunKey,
        /// The stage.
        seq: StageSeq,
        /// Of the encoded stage.
        stage_hash: Digest,
        /// Parts to be answered together.
        parts: Vec<PartId>,
    },
    /// The run is over.
    CloseRun(RunKey),
}

/// Who a worker is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// [`crate::PROTOCOL_VERSION`] of the worker.
    pub protocol_version: u32,
    /// Of its arithmetic.
    pub algorithm_version: String,
    /// For people.
    pub name: String,
    /// For people: what will compute.
    pub devices: Vec<String>,
    /// Memory it may use, in bytes.
    pub memory_bytes: u64,
    /// CPU threads it may use.
    pub n_threads: u32,
    /// Aliases of the stores it can read.
    pub stores: Vec<String>,
}

/// What a worker has to know of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenRun {
    /// The run.
    pub key: RunKey,
    /// The run directory.
    pub out: Location,
    /// What `_work/nonce` in it must hold.
    pub nonce: Vec<u8>,
    /// Of `_work/manifest.json` in it.
    pub manifest_hash: Digest,
}
