//! What a coordinator can be asked.

use std::time::Duration;

use clientele_data::ErrorKind;
use clientele_protocol::jobs::{JobState, JobStatus, WorkerStatus};
use clientele_protocol::{TaskError, WorkerId};

use super::job::{JobEntry, Phase};
use super::{Cluster, Member, Totals, refusal, unknown};
use crate::machine::Machine;
use crate::millis;

impl Cluster {
    /// Where a job stands.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] when there is no such job.
    pub fn status(&self, run: &str, now: Duration) -> Result<JobStatus, TaskError> {
        let entry = self.jobs.get(run).ok_or_else(|| unknown(run))?;
        Ok(entry.status(run, now))
    }

    /// Where all jobs stand, oldest first.
    pub fn statuses(&self, now: Duration) -> Vec<JobStatus> {
        self.order
            .iter()
            .filter_map(|run| self.status(run, now).ok())
            .collect()
    }

    /// The workers, by number.
    pub fn workers(&self, now: Duration) -> Vec<WorkerStatus> {
        let status = |(id, member): (&WorkerId, &Member)| {
            let loads = self.machines().map(|machine| machine.load(*id));
            let (mut n_shards, mut n_leased, mut rows_per_second) = (0, 0, 0.0_f64);
            for load in loads {
                n_shards += load.n_homes;
                n_leased += load.n_leased;
                rows_per_second = rows_per_second.max(load.rows_per_second);
            }
            WorkerStatus {
                worker: *id,
                name: member.registration.name.clone(),
                devices: member.registration.devices.clone(),
                n_shards,
                rows_per_second,
                heard_ms: millis(now.saturating_sub(member.heard)),
                n_leased,
            }
        };
        self.workers.iter().map(status).collect()
    }

    /// Jobs by state; every state is there.
    pub fn n_jobs(&self) -> Vec<(JobState, i64)> {
        let states = [
            JobState::Queued,
            JobState::Running,
            JobState::Publishing,
            JobState::Done,
            JobState::Failed,
            JobState::Cancelled,
        ];
        let count = |state: JobState| {
            let is_it = |entry: &&JobEntry| entry.phase.state() == state;
            self.jobs.values().filter(is_it).count() as i64
        };
        states.map(|state| (state, count(state))).into()
    }

    /// Jobs that were refused because the queue was full.
    pub fn n_refused(&self) -> u64 {
        self.n_refused
    }

    /// What became of parts, over all jobs.
    pub fn totals(&self) -> Totals {
        self.machines()
            .fold(self.totals, |sum, machine| sum.plus(machine.totals()))
    }

    fn machines(&self) -> impl Iterator<Item = &Machine> {
        self.jobs.values().filter_map(|entry| match &entry.phase {
            Phase::Running(running) => Some(&running.machine),
            _ => None,
        })
    }

    /// Whether one more worker may be taken on.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`].
    pub fn admit(&self) -> Result<(), TaskError> {
        match self.workers.len() < self.limits.max_workers {
            true => Ok(()),
            false => Err(refusal(
                ErrorKind::Limit,
                format!("there are {} workers already", self.workers.len()),
                "raise --max-workers of the coordinator",
            )),
        }
    }
}
