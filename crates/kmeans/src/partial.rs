//! What a pass over some rows returns for one candidate.

/// Integers that add up in any order: neither threads, workers, retries nor devices can change the total.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partial {
    /// [n_clusters] rows assigned to each cluster.
    pub counts: Vec<u64>,
    /// [n_clusters x n_features] sums of their grid values, row-major.
    pub sums: Vec<i64>,
    /// Rows whose label differs from the pass before, for display; `None` when the backend did not keep the old labels.
    pub n_moved: Option<u64>,
    /// Rows that the fast arithmetic could not decide and that were settled exactly; how, not what: part of no hash.
    pub n_rechecked: u64,
}

impl Partial {
    /// No rows seen yet.
    pub fn zero(n_clusters: usize, n_features: usize) -> Self {
        Self {
            counts: vec![0; n_clusters],
            sums: vec![0; n_clusters * n_features],
            n_moved: Some(0),
            n_rechecked: 0,
        }
    }

    /// Adds the rows that `other` has seen; shapes must agree.
    pub fn merge(&mut self, other: &Self) {
        assert_eq!(
            (self.counts.len(), self.sums.len()),
            (other.counts.len(), other.sums.len()),
            "partials of one candidate"
        );
        self.counts
            .iter_mut()
            .zip(&other.counts)
            .for_each(|(a, b)| *a += b);
        self.sums
            .iter_mut()
            .zip(&other.sums)
            .for_each(|(a, b)| *a += b);
        self.n_moved = self.n_moved.zip(other.n_moved).map(|(a, b)| a + b);
        self.n_rechecked += other.n_rechecked;
    }

    /// Rows seen.
    pub fn n_rows(&self) -> u64 {
        self.counts.iter().sum()
    }
}
