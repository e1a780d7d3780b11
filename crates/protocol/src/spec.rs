//! What to fit, checked before anything is read.

use clientele_data::transform::TransformKind;
use clientele_kmeans::{MAX_CLUSTERS, MAX_ROWS};
use serde::{Deserialize, Serialize};

/// Values in the partials of one pass, at most, over all candidates: what keeps an answer a small message.
pub const MAX_PASS_VALUES: usize = 1 << 24;

/// Why a fit is not possible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// It makes no sense.
    #[error("{0}")]
    Usage(String),
    /// It is beyond what a run may hold.
    #[error("{0}")]
    Limit(String),
}

/// What to fit; checked by [`FitSpec::check`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FitSpec {
    /// Numbers of clusters to try, smallest and largest.
    pub k_range: (usize, usize),
    /// Models a number of clusters.
    pub n_restarts: u32,
    /// Starting centroids in raw units, one a row; replaces seeding.
    pub init: Option<Vec<Vec<f64>>>,
    /// Decides everything random.
    pub seed: u64,
    /// How columns become comparable.
    pub transform: TransformKind,
    /// Rounds, at most.
    pub max_iter: u32,
    /// Stop when centroids move less than this share of the mean variance.
    pub tol: f64,
    /// Whether starts that can no longer win are given up. Runs that were asked for before there was a choice did not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub halving: bool,
}

impl FitSpec {
    /// # Errors
    /// [`SpecError::Usage`] and [`SpecError::Limit`], naming what is asked and what is possible.
    pub fn check(&self) -> Result<(), SpecError> {
        let (low, high) = self.k_range;
        if low == 0 || low > high {
            return Err(SpecError::Usage(format!(
                "k={low}..{high}: a model has at least one cluster"
            )));
        }
        if high > MAX_CLUSTERS {
            return Err(SpecError::Limit(format!(
                "k={high} is above the limit of {MAX_CLUSTERS} clusters"
            )));
        }
        if self.n_restarts == 0 || self.max_iter == 0 {
            return Err(SpecError::Usage(
                "restarts and max-iter must be at least 1".into(),
            ));
        }
        if !(self.tol >= 0.0 && self.tol.is_finite()) {
            return Err(SpecError::Usage(format!(
                "tol={} must be a number of at least 0",
                self.tol
            )));
        }
        Ok(())
    }

    /// # Errors
    /// [`SpecError::Limit`] when the models of `n_features` over `n_rows` do not fit in one pass.
    pub fn check_size(&self, n_features: usize, n_rows: u64) -> Result<(), SpecError> {
        if n_rows > MAX_ROWS {
            return Err(SpecError::Limit(format!(
                "n_rows={n_rows} is above the limit of {MAX_ROWS} rows"
            )));
        }
        let (low, high) = self.k_range;
        let n_clusters: usize = (low..=high).sum::<usize>() * self.n_restarts as usize;
        let n_values = n_clusters * n_features;
        if n_values > MAX_PASS_VALUES {
            return Err(SpecError::Limit(format!(
                "{n_clusters} centroids of {n_features} features in one pass are {n_values} values, above the limit of {MAX_PASS_VALUES}"
            )));
        }
        Ok(())
    }
}
