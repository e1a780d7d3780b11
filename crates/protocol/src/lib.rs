//! What coordinator and workers say to each other, as domain types.
//!
//! A worker is a pure function of (job, stage, part): the same question has the same answer, whoever gives it and how often.
//! The coordinator speaks through [`WorkerChannel`]; in process that is a queue to a thread, on a cluster a gRPC stream.

mod answer;
pub mod cluster;
pub mod jobs;
mod profile;
mod spec;
mod stage;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clientele_data::Folder;
use clientele_data::manifest::Manifest;
use serde::{Deserialize, Serialize};

pub use answer::{Answer, FinalPartial, MARGIN_BINS, Mismatch, RowHashSum, TaskError};
pub use profile::{FeatureHistogram, Histograms, profile_bins};
pub use spec::{FitSpec, MAX_PASS_VALUES, SpecError};
pub use stage::{CandidateId, RelocateRequest, Stage};

/// Version of these messages, and of the files that workers leave for each other; both ends must agree. Since 2 fingerprints are filed in the
/// order of their first bits only.
pub const PROTOCOL_VERSION: u32 = 2;

/// A worker, numbered by the coordinator in the order of registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorkerId(pub u32);

/// One unit of a stage's work: a shard of rows, or in [`Stage::Duplicates`] a range of id hashes.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct PartId(pub u32);

/// A stage of one run, numbered in the order the coordinator asked.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct StageSeq(pub u64);

/// Which life of which run a message belongs to; anything else is late or foreign and does not count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunKey {
    /// The run, unique among all runs.
    pub run: String,
    /// Counts the coordinators that have led this run.
    pub epoch: u64,
}

/// What a worker has to know of a run before its first task.
#[derive(Debug, Clone)]
pub struct Job {
    /// The run.
    pub key: RunKey,
    /// Input, pinned.
    pub manifest: Arc<Manifest>,
    /// Where finished assignment parts belong.
    pub assignments_dir: Folder,
    /// Where keyed intermediate files belong; gone when the run is committed.
    pub work_dir: Folder,
    /// A local folder for files that only this worker ever sees.
    pub spill_dir: PathBuf,
}

/// A question about some parts.
#[derive(Debug, Clone)]
pub struct Task {
    /// Run and epoch.
    pub key: RunKey,
    /// The stage, numbered.
    pub seq: StageSeq,
    /// What to do with each part.
    pub stage: Arc<Stage>,
    /// Parts to be answered together.
    pub parts: Vec<PartId>,
}

/// The answer to a [`Task`].
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// As asked.
    pub key: RunKey,
    /// As asked.
    pub seq: StageSeq,
    /// As asked; the answer is their sum.
    pub parts: Vec<PartId>,
    /// Merged over the parts, or why there is none.
    pub body: Result<Answer, TaskError>,
    /// What computed it, for the summary: backend and rows.
    pub ran: Vec<RowsBy>,
    /// Blocks that a GPU could not finish and the CPU did.
    pub n_rescued: u64,
    /// Time it took the worker.
    pub elapsed: Duration,
}

/// What a stage has come to: with the records of all stages so far a run goes on from where it was.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The stage.
    pub seq: StageSeq,
    /// Over all its parts.
    pub answer: Answer,
    /// What computed it.
    pub ran: Vec<RowsBy>,
    /// Blocks that a GPU could not finish and the CPU did.
    pub n_rescued: u64,
}

/// Rows that a backend has processed in passes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowsBy {
    /// [`clientele_kmeans::Backend::name`].
    pub backend: String,
    /// Rows, each counted once a pass.
    pub n_rows: u64,
}

/// What a worker says, in the order it happens.
#[derive(Debug)]
pub enum WorkerEvent {
    /// Ready for tasks.
    Joined {
        /// Shards whose rows it has on the grid already.
        resident: Vec<PartId>,
    },
    /// An answer.
    Reply(Reply),
    /// The channel is closed; what it had not answered is open again.
    Lost {
        /// What ended it.
        reason: String,
    },
}

/// The way to one worker. Answers come back as [`WorkerEvent`]s on the queue the coordinator's shell listens to.
pub trait WorkerChannel: Send {
    /// Hands over a task without waiting.
    ///
    /// # Errors
    /// [`ChannelClosed`] when the worker is gone.
    fn send(&self, task: Task) -> Result<(), ChannelClosed>;
}

/// The worker is gone.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the worker has closed its channel")]
pub struct ChannelClosed;
