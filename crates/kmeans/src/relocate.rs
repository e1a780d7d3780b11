//! Rows for empty clusters, so that every cluster asked for is used while the rows allow it.

use crate::best_rows::BestRows;
use crate::cpu::CpuBackend;
use crate::exact::label_distances_in_block;
use crate::{Block, Centroids, Partial};
use std::cmp::Ordering;

/// The farthest distinct grid positions from their own centroid: by (squared distance, larger first; row key; grid row).
///
/// Lists of blocks merge in any order. Rows that lie on their centroid never enter: moving them helps nobody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FarthestRows {
    best: BestRows<Rank>,
}

#[derive(Debug, Clone, Copy)]
struct Rank {
    d2: u64,
    key: u64,
    /// Carried along; a function of the row, so it has no say in the order.
    donor: u16,
}

impl Ord for Rank {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.d2, self.key).cmp(&(self.d2, other.key))
    }
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Rank {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Rank {}

/// One row that may be given away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FarRow<'a> {
    /// Squared distance to its centroid, in grid steps squared; above 0.
    pub d2: u64,
    /// Row key.
    pub key: u64,
    /// The cluster that has it.
    pub donor: u16,
    /// [n_features] grid values.
    pub row: &'a [i32],
}

impl FarthestRows {
    /// Rows that are enough for a model of `n_clusters`, whatever they are: `n_clusters`.
    ///
    /// One walk down the list serves the empty clusters. It passes over a row only when its donor is down to one row, and a donor that
    /// is down to one row has one position left to pass over. So it reads at most `n_empty` rows that move and one a donor.
    pub fn limit_for(n_clusters: usize) -> usize {
        n_clusters
    }

    /// An empty list of at most `limit` positions.
    pub fn new(limit: usize) -> Self {
        Self {
            best: BestRows::new(limit),
        }
    }

    /// The farthest rows of one block under `centroids`.
    pub fn of_block(
        backend: &CpuBackend,
        block: &Block,
        centroids: &Centroids,
        limit: usize,
    ) -> Self {
        let mut far = Self::new(limit);
        let mut labels = Vec::new();
        backend.labels(block, centroids, &mut labels);
        let mut distances = Vec::new();
        label_distances_in_block(block, centroids, &labels, &mut distances);
        let mut row = vec![0; block.n_features()];
        for (row_idx, (&d2, &key)) in distances.iter().zip(block.keys()).enumerate() {
            let donor = labels[row_idx];
            if d2 > 0 && far.best.may_enter(&Rank { d2, key, donor }) {
                block.read_row(row_idx, &mut row);
                far.offer(FarRow {
                    d2,
                    key,
                    donor,
                    row: &row,
                });
            }
        }
        far
    }

    /// Positions kept, at most.
    pub fn limit(&self) -> usize {
        self.best.limit()
    }

    /// Considers one row.
    pub fn offer(&mut self, far: FarRow<'_>) {
        if far.d2 > 0 {
            let FarRow {
                d2,
                key,
                donor,
                row,
            } = far;
            self.best.offer(Rank { d2, key, donor }, row);
        }
    }

    /// Adds what another part of the rows has found.
    pub fn merge(&mut self, other: Self) {
        self.best.merge(other.best);
    }

    /// Farthest first.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = FarRow<'_>> {
        self.best
            .iter()
            .map(|(&Rank { d2, key, donor }, row)| FarRow {
                d2,
                key,
                donor,
                row,
            })
    }
}

/// Gives each empty cluster of `partial`, lowest index first, the farthest row whose donor keeps one; counts and sums move with it.
///
/// Returns the number of rows moved; clusters stay empty when `rows` has no more to give.
pub fn relocate(partial: &mut Partial, n_features: usize, rows: &FarthestRows) -> u64 {
    let mut n_relocated = 0;
    let mut rows = rows.rows();
    for cluster_idx in 0..partial.counts.len() {
        if partial.counts[cluster_idx] > 0 {
            continue;
        }
        // A row passed over here could not be given later either: donors only get smaller.
        let Some(far) = rows.find(|far| partial.counts[usize::from(far.donor)] > 1) else {
            break;
        };
        let donor = usize::from(far.donor);
        partial.counts[donor] -= 1;
        partial.counts[cluster_idx] += 1;
        for (feature_idx, &value) in far.row.iter().enumerate() {
            partial.sums[donor * n_features + feature_idx] -= i64::from(value);
            partial.sums[cluster_idx * n_features + feature_idx] += i64::from(value);
        }
        n_relocated += 1;
    }
    n_relocated
}

/// The centroids that have rows, and the indices they had: what is empty at the end is dropped.
pub fn drop_empty(centroids: &Centroids, counts: &[u64]) -> (Centroids, Vec<usize>) {
    let kept: Vec<usize> = (0..centroids.n_clusters())
        .filter(|&cluster_idx| counts[cluster_idx] > 0)
        .collect();
    let values = kept
        .iter()
        .flat_map(|&idx| centroids.row(idx))
        .copied()
        .collect();
    (Centroids::new(centroids.n_features(), values), kept)
}
