//! The centroids of one candidate.

use crate::GRID_LIMIT;

/// [n_clusters x n_features] grid integers, row-major.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Centroids {
    n_features: usize,
    values: Vec<i32>,
}

impl Centroids {
    /// `values` [n_clusters x n_features], row-major, each below 2^22 in magnitude.
    ///
    /// # Panics
    /// When the length is no multiple of `n_features` or a value is off the grid: means of grid rows never are.
    pub fn new(n_features: usize, values: Vec<i32>) -> Self {
        assert!(
            n_features > 0 && values.len().is_multiple_of(n_features),
            "centroids are rectangular"
        );
        assert!(
            values.iter().all(|v| v.abs() < GRID_LIMIT),
            "centroids lie on the grid"
        );
        Self { n_features, values }
    }

    /// Rows.
    pub fn n_clusters(&self) -> usize {
        self.values.len() / self.n_features
    }

    /// Columns.
    pub fn n_features(&self) -> usize {
        self.n_features
    }

    /// Centroid `cluster_idx` [n_features].
    pub fn row(&self, cluster_idx: usize) -> &[i32] {
        &self.values[cluster_idx * self.n_features..][..self.n_features]
    }

    /// Centroids in order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[i32]> {
        self.values.chunks_exact(self.n_features)
    }

    /// All values, row-major.
    pub fn values(&self) -> &[i32] {
        &self.values
    }
}
