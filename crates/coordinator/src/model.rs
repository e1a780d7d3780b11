//! The model as it is published, and its hash.

use clientele_data::transform::Transform;
use clientele_kmeans::lloyd::StopReason;
use clientele_kmeans::{ALGORITHM_VERSION, quality};
use clientele_protocol::FitSpec;
use serde::{Deserialize, Serialize};

use crate::fit::Fitted;
use crate::halving::GivenUp;
use crate::machine::Outcome;

/// One fitted candidate, for comparison.
#[derive(Debug, Clone, Serialize)]
pub struct CandidateSummary {
    /// Clusters that hold a row.
    pub n_clusters: usize,
    /// Which start.
    pub restart: u32,
    /// In clustered units squared.
    pub inertia: f64,
    /// In grid steps squared, exact.
    pub inertia_grid: i128,
    /// Rounds.
    pub n_iter: u32,
    /// Why they ended.
    pub stop_reason: StopReason,
    /// Rows of the smallest cluster that holds any.
    pub smallest_size: u64,
    /// Calinski and Harabasz's index, from exact sums; none for one cluster.
    pub calinski_harabasz: Option<f64>,
    /// Why it was not fitted to its end, if it was not; everything above is of the pass after which it was given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub given_up: Option<GivenUp>,
}

impl CandidateSummary {
    pub(crate) fn quality(&self, n_rows: u64) -> quality::FitSummary {
        quality::FitSummary {
            n_clusters: self.n_clusters,
            inertia: self.inertia_grid,
            smallest_size: self.smallest_size,
            n_rows,
            calinski_harabasz: self.calinski_harabasz,
        }
    }
}

/// `model.json`.
#[derive(Debug, Clone, Serialize)]
pub struct Model {
    /// Everything the model means; what `model_hash` is of.
    #[serde(flatten)]
    pub meaning: Meaning,
    /// Centroids in clustered units [n_clusters x n_features].
    pub centroids: Vec<Vec<f64>>,
    /// Centroids in the units of the input [n_clusters x n_features].
    pub centroids_original: Vec<Vec<f64>>,
    /// What really ran, and the rows it went over, summed over passes.
    pub backends: Vec<BackendRows>,
    /// Rows that were rechecked exactly, over all passes and candidates.
    pub certified: u64,
    /// Order-free hash of the canonical assignment rows.
    pub assignments_hash: String,
    /// BLAKE3 of the meaning.
    pub model_hash: String,
}

/// Everything a model means, and nothing about how it was computed.
#[derive(Debug, Clone, Serialize)]
pub struct Meaning {
    /// [`ALGORITHM_VERSION`].
    pub algorithm_version: String,
    /// Clusters.
    pub n_clusters: usize,
    /// Rounds.
    pub n_iter: u32,
    /// Why they ended.
    pub stop_reason: StopReason,
    /// In clustered units squared: the `f64` nearest to the exact integer.
    pub inertia: f64,
    /// In grid steps squared, exact.
    pub inertia_grid: i128,
    /// A power of two, in clustered units.
    pub grid_step: f64,
    /// Rows clustered.
    pub n_rows: u64,
    /// Of everything random.
    pub seed: u64,
    /// Rounds allowed.
    pub max_iter: u32,
    /// Tolerance asked for.
    pub tol: f64,
    /// Names, in order.
    pub features: Vec<String>,
    /// Frozen.
    pub transform: Transform,
    /// Grid integers [n_clusters x n_features].
    pub centroids_grid: Vec<Vec<i32>>,
    /// Rows of each cluster.
    pub sizes: Vec<u64>,
    /// One entry for each model fitted.
    pub candidates: Vec<CandidateSummary>,
}

/// Rows that a backend went over.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BackendRows {
    /// Its name.
    pub backend: String,
    /// Rows, each counted once a pass.
    pub n_rows: u64,
}

impl Model {
    /// The model of a finished fit.
    ///
    /// # Errors
    /// When it cannot be written as JSON, which would be a bug.
    pub fn new(spec: &FitSpec, outcome: &Outcome) -> Result<Self, serde_json::Error> {
        let fitted = &outcome.fitted;
        let meaning = meaning(spec, fitted);
        let model_hash = blake3::hash(&serde_json::to_vec(&meaning)?)
            .to_hex()
            .to_string();
        let by_feature = |of: &dyn Fn(usize, i32) -> f64| -> Vec<Vec<f64>> {
            fitted
                .centroids
                .rows()
                .map(|row| row.iter().enumerate().map(|(f, q)| of(f, *q)).collect())
                .collect()
        };
        Ok(Self {
            centroids: by_feature(&|f, q| fitted.transform.clustered(f, f64::from(q))),
            centroids_original: by_feature(&|f, q| fitted.transform.from_grid(f, f64::from(q))),
            backends: outcome
                .backends
                .iter()
                .map(|(backend, n_rows)| BackendRows {
                    backend: backend.clone(),
                    n_rows: *n_rows,
                })
                .collect(),
            certified: outcome.n_rechecked,
            assignments_hash: fitted.labels.row_hashes.to_hex(),
            model_hash,
            meaning,
        })
    }
}

fn meaning(spec: &FitSpec, fitted: &Fitted) -> Meaning {
    let chosen = &fitted.candidates[fitted.chosen_idx];
    Meaning {
        algorithm_version: ALGORITHM_VERSION.into(),
        n_clusters: fitted.centroids.n_clusters(),
        n_iter: fitted.n_iter,
        stop_reason: fitted.stop_reason,
        inertia: chosen.inertia,
        inertia_grid: chosen.inertia_grid,
        grid_step: fitted.transform.grid_step(),
        n_rows: fitted.totals.n_rows,
        seed: spec.seed,
        max_iter: spec.max_iter,
        tol: spec.tol,
        features: fitted
            .transform
            .features()
            .iter()
            .map(|feature| feature.name.clone())
            .collect(),
        transform: (*fitted.transform).clone(),
        centroids_grid: fitted.centroids.rows().map(<[i32]>::to_vec).collect(),
        sizes: fitted.labels.sizes.clone(),
        candidates: fitted.candidates.clone(),
    }
}
