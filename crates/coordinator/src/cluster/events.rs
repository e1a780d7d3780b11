//! What happens to a coordinator, and what it wants done.

use std::sync::Arc;

use clientele_data::manifest::Manifest;
use clientele_protocol::cluster::{Digest, OpenRun, Registration};
use clientele_protocol::jobs::{FitJob, JobStatus};
use clientele_protocol::{PartId, Record, Reply, RunKey, Task, TaskError, WorkerId};

use crate::machine::Outcome;

/// Something happened.
#[derive(Debug)]
pub enum Event {
    /// A run directory was opened for a job, or could not be.
    Opened(String, Result<Box<Opened>, TaskError>),
    /// A worker is connected and may be used.
    Registered(WorkerId, Registration),
    /// A worker can work on a run, and has some of its rows already; or it cannot.
    RunOpened(WorkerId, RunKey, Result<Vec<PartId>, TaskError>),
    /// A worker lives.
    Heartbeat(WorkerId),
    /// A worker has answered.
    Reply(WorkerId, Reply),
    /// A worker is about to leave.
    Draining(WorkerId),
    /// A worker's connection is closed.
    Lost(WorkerId, String),
    /// A record was written, or what became of it.
    Logged(RunKey, Result<Logged, TaskError>),
    /// A run directory was committed; with its summary, as JSON.
    Published(RunKey, Result<String, TaskError>),
    /// Whether this coordinator leads a run still.
    Confirmed(RunKey, Result<bool, TaskError>),
    /// Time has passed.
    Tick,
}

/// A run directory.
#[derive(Debug)]
pub enum Opened {
    /// Ready to be computed in.
    Ready {
        /// Counts the coordinators that have led this run, this one included.
        epoch: u64,
        /// The input, pinned.
        manifest: Arc<Manifest>,
        /// Of its JSON in the run directory.
        manifest_hash: Digest,
        /// What workers must find there.
        nonce: Vec<u8>,
        /// Of earlier lives, in order.
        records: Vec<Record>,
    },
    /// Committed already.
    Committed {
        /// As JSON.
        summary: String,
    },
}

/// What became of a record.
#[derive(Debug)]
pub enum Logged {
    /// It is written.
    Written,
    /// Another coordinator of this run had written one for this stage before it was superseded: that one counts.
    Found(Box<Record>),
    /// Another coordinator leads this run now.
    Superseded,
}

/// Something is to be done.
#[derive(Debug)]
pub enum Action {
    /// Open the run directory of a job and answer [`Event::Opened`].
    Open(String, Arc<FitJob>),
    /// Tell a worker of a run; it answers [`Event::RunOpened`].
    Attach(WorkerId, OpenRun),
    /// Hand a task to a worker.
    Send(WorkerId, Task),
    /// A run is over for a worker.
    Detach(WorkerId, RunKey),
    /// Write a record and answer [`Event::Logged`].
    Log(RunKey, Box<Record>),
    /// Write the results, commit, and answer [`Event::Published`].
    Publish(RunKey, Box<Outcome>),
    /// See whether a later coordinator has taken a run over, and answer [`Event::Confirmed`].
    Confirm(RunKey),
    /// A job has ended: remember how, and let go of its run directory.
    End(JobStatus),
    /// Another coordinator leads this job; let go of its run directory and remember nothing.
    StandDown(String),
    /// Close a worker's connection.
    Disconnect(WorkerId, &'static str),
    /// Tell those who watch a job.
    Changed(String),
}
