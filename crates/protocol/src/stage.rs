//! The questions.

use std::sync::Arc;

use clientele_data::stats::StatsRequest;
use clientele_data::transform::Transform;
use clientele_kmeans::Centroids;
use clientele_kmeans::seeding::SeedRound;

/// One of the models being fitted at once; stable for the life of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CandidateId(pub u32);

/// What to do with each part. Every stage that touches rows is asked, leased and re-leased in the same way.
#[derive(Debug, Clone, PartialEq)]
pub enum Stage {
    /// One round of column statistics over the source.
    Statistics(StatsRequest),
    /// Transforms the rows, puts them on the grid and keeps them; every later stage needs the transform.
    Ingest {
        /// Frozen.
        transform: Arc<Transform>,
        /// Leaves sorted fingerprints of the ids behind for [`Stage::Duplicates`].
        fingerprints: bool,
    },
    /// Looks for ids that occur twice within one range of hashes; a part is a range here.
    Duplicates {
        /// Ranges in all.
        n_ranges: u32,
        /// Shards whose fingerprints there are.
        n_shards: u32,
    },
    /// One race of k-means||.
    Seed {
        /// As in [`Stage::Ingest`].
        transform: Arc<Transform>,
        /// Round, candidates so far, limit.
        round: SeedRound,
    },
    /// Counts the rows nearest to each seeding candidate.
    Weigh {
        /// As in [`Stage::Ingest`].
        transform: Arc<Transform>,
        /// All seeding candidates.
        candidates: Arc<Centroids>,
    },
    /// One pass of Lloyd's algorithm for all live candidates.
    Pass {
        /// As in [`Stage::Ingest`].
        transform: Arc<Transform>,
        /// Who is being fitted, in the order of `centroids`.
        ids: Vec<CandidateId>,
        /// Their centroids.
        centroids: Vec<Centroids>,
    },
    /// The farthest rows, for candidates with empty clusters.
    Relocate {
        /// As in [`Stage::Ingest`].
        transform: Arc<Transform>,
        /// One a candidate.
        requests: Vec<RelocateRequest>,
    },
    /// Labels of the chosen model: writes assignments, profiles the clusters.
    Final {
        /// As in [`Stage::Ingest`].
        transform: Arc<Transform>,
        /// The chosen model.
        centroids: Arc<Centroids>,
    },
}

/// Asks for the rows farthest from their centroid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelocateRequest {
    /// For whom.
    pub candidate: CandidateId,
    /// Of the pass that found clusters empty.
    pub centroids: Centroids,
    /// Distinct grid positions wanted.
    pub limit: usize,
}

impl Stage {
    /// Name for people and the summary.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Statistics(_) => "statistics",
            Self::Ingest { .. } => "ingest",
            Self::Duplicates { .. } => "duplicates",
            Self::Seed { .. } | Self::Weigh { .. } => "seeding",
            Self::Pass { .. } | Self::Relocate { .. } => "passes",
            Self::Final { .. } => "final",
        }
    }

    /// The transform the rows are on the grid by, once there is one.
    pub fn transform(&self) -> Option<&Arc<Transform>> {
        match self {
            Self::Statistics(_) | Self::Duplicates { .. } => None,
            Self::Ingest { transform, .. }
            | Self::Seed { transform, .. }
            | Self::Weigh { transform, .. }
            | Self::Pass { transform, .. }
            | Self::Relocate { transform, .. }
            | Self::Final { transform, .. } => Some(transform),
        }
    }
}
