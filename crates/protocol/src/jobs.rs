//! What clients ask of a coordinator, as domain types.

use clientele_data::Location;
use clientele_data::manifest::NullPolicy;
use serde::{Deserialize, Serialize};

use crate::{FitSpec, TaskError, WorkerId};

/// A job to be done: the fit of one table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FitJob {
    /// Files, folders or patterns.
    pub tables: Vec<Location>,
    /// Column that names the customer; without it rows are numbered.
    pub id: Option<String>,
    /// Features, in order; empty: every numeric column but the id.
    pub columns: Vec<String>,
    /// Column that says what a customer is worth.
    pub value: Option<String>,
    /// What to do with nulls in features.
    pub nulls: NullPolicy,
    /// Run directory.
    pub out: Location,
    /// The models.
    pub spec: FitSpec,
    /// What the board says that no number does, as JSON.
    pub story: String,
    /// Whether the run directory is an unfinished one that the client has put features into.
    pub adopt_out: bool,
    /// Milliseconds to wait while there is no worker; 0 is the coordinator's own limit.
    pub wait_for_workers_ms: u64,
}

/// Where a job is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Waits for other jobs to end.
    Queued,
    /// Being computed, or waiting for a worker.
    Running,
    /// Computed; results are being written.
    Publishing,
    /// The run directory is committed.
    Done,
    /// Ended without a result.
    Failed,
    /// Ended by a client.
    Cancelled,
}

impl JobState {
    /// Whether nothing follows.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

/// Where a job stands.
#[derive(Debug, Clone, PartialEq)]
pub struct JobStatus {
    /// Its run id.
    pub run: String,
    /// Its run directory.
    pub out: Location,
    /// Its state.
    pub state: JobState,
    /// What is being done, while it runs.
    pub progress: Option<JobProgress>,
    /// Why it failed.
    pub error: Option<TaskError>,
    /// What was found, as JSON, when it is done.
    pub summary: Option<String>,
    /// When it was submitted, in milliseconds since 1970.
    pub submitted_ms: u64,
    /// Coordinators that have led it.
    pub epoch: u64,
}

/// What a running job is doing.
#[derive(Debug, Clone, PartialEq)]
pub struct JobProgress {
    /// [`crate::Stage::name`].
    pub stage: String,
    /// Parts answered in this stage.
    pub n_done: u64,
    /// Parts of this stage.
    pub n_parts: u64,
    /// Rows of the input.
    pub n_rows: u64,
    /// Passes begun.
    pub pass: u32,
    /// Candidates still being fitted.
    pub n_live: u32,
    /// Rows that changed cluster in the last pass, if counted.
    pub n_moved: Option<u64>,
    /// The smallest inertia of the last pass.
    pub inertia: Option<f64>,
    /// Milliseconds since this stage was opened.
    pub elapsed_ms: u64,
    /// Milliseconds since the job began to run.
    pub running_ms: u64,
    /// Whether it waits for a worker.
    pub is_waiting: bool,
}

/// A worker, for people.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerStatus {
    /// Its number.
    pub worker: WorkerId,
    /// Its name.
    pub name: String,
    /// What computes.
    pub devices: Vec<String>,
    /// Shards at home there, over all jobs.
    pub n_shards: u64,
    /// Rows a second of its last leases.
    pub rows_per_second: f64,
    /// Milliseconds since it was last heard of.
    pub heard_ms: u64,
    /// Parts leased to it now.
    pub n_leased: u64,
}
