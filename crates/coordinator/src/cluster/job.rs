//! One job of a coordinator, from the queue to its end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use clientele_data::ErrorKind;
use clientele_data::manifest::Manifest;
use clientele_protocol::cluster::OpenRun;
use clientele_protocol::jobs::{FitJob, JobState, JobStatus};
use clientele_protocol::{FitSpec, RunKey, TaskError, WorkerId};

use super::{Action, Fault};
use crate::FitError;
use crate::machine::{Machine, Place};

/// A job and where it is.
#[derive(Debug)]
pub(super) struct JobEntry {
    pub(super) job: Arc<FitJob>,
    pub(super) phase: Phase,
    pub(super) epoch: u64,
    submitted_ms: u64,
}

#[derive(Debug)]
pub(super) enum Phase {
    Queued,
    /// Its run directory is being opened.
    Opening,
    Running(Box<Running>),
    /// Its results are being written.
    Publishing(RunKey),
    /// Something keeps it from going on: whether that is a failure is for the coordinator that leads it to say.
    Failing(RunKey, TaskError),
    Ended {
        state: JobState,
        error: Option<TaskError>,
        summary: Option<String>,
    },
}

impl Phase {
    pub(super) fn state(&self) -> JobState {
        match self {
            Self::Queued => JobState::Queued,
            Self::Opening | Self::Running(_) | Self::Failing(..) => JobState::Running,
            Self::Publishing(_) => JobState::Publishing,
            Self::Ended { state, .. } => *state,
        }
    }
}

/// A job that is being computed.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) machine: Machine,
    /// What workers are told of it.
    pub(super) open_run: OpenRun,
    /// Workers that cannot work on it.
    pub(super) set_aside: BTreeSet<WorkerId>,
    /// Since when there has been no worker.
    waiting_since: Option<Duration>,
    /// When it was last asked who leads it.
    confirmed: Duration,
}

impl Running {
    pub(super) fn new(
        open_run: OpenRun,
        spec: &FitSpec,
        manifest: Arc<Manifest>,
        fault: Option<Fault>,
        now: Duration,
    ) -> Result<Self, FitError> {
        let key = open_run.key.clone();
        let place = Place::Remote { fault };
        Ok(Self {
            machine: Machine::new(key, spec.clone(), manifest, place, now)?,
            open_run,
            set_aside: BTreeSet::new(),
            waiting_since: Some(now),
            confirmed: now,
        })
    }

    /// How long there has been no worker; those who watch are told when that begins and ends, and meanwhile it is asked who leads the run.
    pub(super) fn has_waited(
        &mut self,
        now: Duration,
        actions: &mut Vec<Action>,
        run: &str,
    ) -> Duration {
        let was_waiting = self.waiting_since;
        self.waiting_since = match self.machine.n_workers() {
            0 => Some(was_waiting.unwrap_or(now)),
            _ => None,
        };
        if was_waiting.is_some() != self.waiting_since.is_some() {
            if self.waiting_since.is_some() {
                tracing::warn!(run, "no worker is left; the run waits for one");
            }
            actions.push(Action::Changed(run.to_owned()));
        }
        // Whoever has no work to write down would never find out that another has taken it over, and its workers with it.
        if self.waiting_since.is_some() && now.saturating_sub(self.confirmed) > super::LEASE {
            self.confirmed = now;
            actions.push(Action::Confirm(self.open_run.key.clone()));
        }
        self.waiting_since
            .map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }
}

impl JobEntry {
    pub(super) fn new(job: Arc<FitJob>, submitted_ms: u64) -> Self {
        Self {
            job,
            phase: Phase::Queued,
            epoch: 0,
            submitted_ms,
        }
    }

    /// One that ended in an earlier life of the coordinator.
    pub(super) fn ended(job: Arc<FitJob>, status: JobStatus) -> Self {
        Self {
            job,
            phase: Phase::Ended {
                state: status.state,
                error: status.error,
                summary: status.summary,
            },
            epoch: status.epoch,
            submitted_ms: status.submitted_ms,
        }
    }

    /// How long this job waits while there is no worker, if it says.
    pub(super) fn wait_for_workers(&self) -> Option<Duration> {
        let limit = self.job.wait_for_workers_ms;
        (limit > 0).then(|| Duration::from_millis(limit))
    }

    pub(super) fn status(&self, run: &str, now: Duration) -> JobStatus {
        let (mut progress, mut error, mut summary) = (None, None, None);
        match &self.phase {
            Phase::Running(running) => progress = Some(running.machine.progress(now)),
            Phase::Ended {
                error: why,
                summary: found,
                ..
            } => (error, summary) = (why.clone(), found.clone()),
            Phase::Queued | Phase::Opening | Phase::Publishing(_) | Phase::Failing(..) => {}
        }
        JobStatus {
            run: run.to_owned(),
            out: self.job.out.clone(),
            state: self.phase.state(),
            progress,
            error,
            summary,
            submitted_ms: self.submitted_ms,
            epoch: self.epoch,
        }
    }
}

/// What a client is told of the end of a run.
pub(super) fn to_task_error(error: &FitError) -> TaskError {
    let causes = match error {
        FitError::Task(task) => return task.clone(),
        other => std::iter::successors(std::error::Error::source(other), |e| e.source())
            .map(ToString::to_string)
            .collect(),
    };
    TaskError {
        kind: error.kind().unwrap_or(ErrorKind::Bug),
        message: error.to_string(),
        causes,
        hint: error.hint(),
    }
}
