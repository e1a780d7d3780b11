//! What a coordinator publishes: the same files as a run of one process.

use clientele_coordinator::machine::Outcome;
use clientele_coordinator::server::{Publication, Publisher};
use clientele_data::manifest::Manifest;
use clientele_protocol::TaskError;
use clientele_protocol::jobs::FitJob;

use crate::evidence::Story;
use crate::failure::Failure;
use crate::job;

/// Describes models as `fit` does.
pub struct BoardPublisher;

impl Publisher for BoardPublisher {
    fn publish(
        &self,
        job: &FitJob,
        manifest: &Manifest,
        outcome: &Outcome,
    ) -> Result<Publication, TaskError> {
        let story: Story = serde_json::from_str(&job.story).map_err(|error| {
            Failure::usage("the story of this job cannot be read").because(&error)
        })?;
        let (files, mut summary) = job::describe(&job.spec, manifest, outcome, &story)?;
        summary.run = job.out.to_string();
        let summary = serde_json::to_string(&summary)
            .map_err(|error| Failure::bug("a summary is not JSON").because(&error))?;
        Ok(Publication { files, summary })
    }
}
