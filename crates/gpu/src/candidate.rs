//! Centroids and rows as the assignment shader reads them, and the bound on its error.

use std::collections::HashMap;
use std::sync::Arc;

use clientele_kmeans::Centroids;

use crate::pipeline::answer::Answer;
use crate::pipeline::assign::CLUSTER_TILE;

/// Largest relative error of one WGSL addition or multiplication: it may round to either neighbour.
const UNIT_ROUNDOFF: f64 = 1.0 / (1u64 << 23) as f64;

/// A score no real cluster has: those are below 2^57 in magnitude.
const FAR: f32 = 3.0e38;

/// One candidate, ready for the device.
pub(crate) struct Packed {
    pub for_device: Arc<DeviceCandidate>,
    /// [n_distinct] position of each distinct centroid among the candidate's own: the lowest of its duplicates.
    pub original_idx: Vec<u16>,
}

/// What the shader reads of one candidate.
#[derive(Debug)]
pub(crate) struct DeviceCandidate {
    /// Distinct centroids; rows tie between duplicates, so none of theirs would ever be certain.
    pub n_clusters: usize,
    /// For each tile of 8 centroids a line of 8 biases |c|^2 / 2 and then, a feature at a time, a line of 8 values -c.
    pub lines: Vec<f32>,
    /// Rows whose best two scores differ by more than `bound_slope * norm + bound_base` are certain.
    pub bound_slope: f32,
    pub bound_base: f32,
}

impl From<&Centroids> for Packed {
    fn from(centroids: &Centroids) -> Self {
        let original_idx = distinct(centroids);
        let rows: Vec<&[i32]> = original_idx
            .iter()
            .map(|&idx| centroids.row(usize::from(idx)))
            .collect();
        let (bound_slope, bound_base) = error_bound(&rows);
        let for_device = Arc::new(DeviceCandidate {
            n_clusters: rows.len(),
            lines: lines(&rows, centroids.n_features()),
            bound_slope,
            bound_base,
        });
        Self {
            for_device,
            original_idx,
        }
    }
}

impl Packed {
    /// What the device would say about a block without rows, for which it cannot be asked: bindings are never empty.
    pub fn answer_for_no_rows(&self) -> Answer {
        let n_features = self.for_device.lines.len()
            / (CLUSTER_TILE * self.for_device.n_clusters.div_ceil(CLUSTER_TILE))
            - 1;
        Answer {
            counts: vec![0; self.for_device.n_clusters],
            sums: vec![0; self.for_device.n_clusters * n_features],
            uncertain: Vec::new(),
            labels: Vec::new(),
        }
    }
}

/// Positions of the centroids that equal none before them.
fn distinct(centroids: &Centroids) -> Vec<u16> {
    let mut seen = HashMap::new();
    (0u16..)
        .zip(centroids.rows())
        .filter(|(idx, row)| *seen.entry(*row).or_insert(*idx) == *idx)
        .map(|(idx, _)| idx)
        .collect()
}

fn lines(rows: &[&[i32]], n_features: usize) -> Vec<f32> {
    let n_tiles = rows.len().div_ceil(CLUSTER_TILE);
    let mut lines = Vec::with_capacity(n_tiles * CLUSTER_TILE * (n_features + 1));
    for tile in rows.chunks(CLUSTER_TILE) {
        let padded = || (0..CLUSTER_TILE).map(|idx| tile.get(idx));
        lines.extend(padded().map(|row| row.map_or(FAR, |row| (square_norm(row) / 2.0) as f32)));
        for feature_idx in 0..n_features {
            lines.extend(padded().map(|row| row.map_or(0.0, |row| -row[feature_idx] as f32)));
        }
    }
    lines
}

/// How far apart the best two scores must be to be in the right order: `slope * X + base`, for any X not below |x|.
///
/// A score `|c|^2 / 2 - x.c` is a sum of d + 1 terms. Whatever the order of summation, and fused or not, no term passes through
/// more than d + 1 roundings of relative size u, so the score is off by at most
/// `E(x) = g (|c|^2 / 2 + sum_f |x_f c_f|) <= g (C^2 / 2 + |x| C)` with `g = (d + 1) u / (1 - (d + 1) u)`, `C = max |c|` and
/// Cauchy-Schwarz (Higham, Accuracy and Stability of Numerical Algorithms, 2nd edition, section 3.1). Two scores further apart
/// than `2 E = 2 g C |x| + g C^2` are in the right order. The device also rounds the difference, the product and the sum of
/// the comparison itself; 2^-19 is more than those three, and more than the roundings made here.
fn error_bound(rows: &[&[i32]]) -> (f32, f32) {
    let n_terms = rows.first().map_or(0, |row| row.len()) as f64 + 1.0;
    let g = n_terms * UNIT_ROUNDOFF / (1.0 - n_terms * UNIT_ROUNDOFF);
    let largest_square = rows.iter().map(|row| square_norm(row)).fold(0.0, f64::max);
    let slack = 1.0 + 1.0 / f64::from(1 << 19);
    (
        at_least(2.0 * g * largest_square.sqrt() * slack),
        at_least(g * largest_square * slack),
    )
}

/// |row|^2, exact up to the one rounding to `f64`.
fn square_norm(row: &[i32]) -> f64 {
    row.iter()
        .map(|&value| u64::from(value.unsigned_abs()).pow(2))
        .sum::<u64>() as f64
}

/// The smallest `f32` that is not below `value`.
fn at_least(value: f64) -> f32 {
    let rounded = value as f32;
    if f64::from(rounded) < value {
        rounded.next_up()
    } else {
        rounded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicates_are_merged_into_the_lowest_index() {
        let packed = Packed::from(&Centroids::new(2, vec![1, 2, 3, 4, 1, 2, 5, 6, 3, 4]));
        assert_eq!(packed.original_idx, [0, 1, 3]);
        assert_eq!(packed.for_device.n_clusters, 3);
    }

    #[test]
    fn a_tile_is_a_line_of_biases_and_a_line_a_feature() {
        let packed = Packed::from(&Centroids::new(2, vec![1, 2, -3, 4]));
        let lines = &packed.for_device.lines;
        assert_eq!(lines.len(), 3 * CLUSTER_TILE);
        assert_eq!(lines[..3], [2.5, 12.5, FAR]);
        assert_eq!(lines[CLUSTER_TILE..][..3], [-1.0, 3.0, 0.0]);
        assert_eq!(lines[2 * CLUSTER_TILE..][..3], [-2.0, -4.0, 0.0]);
    }

    #[test]
    fn the_bound_is_never_rounded_down() {
        // d = 2, C = 5: g is a little above 3 u.
        let (slope, base) = error_bound(&[&[3, 4], &[0, 1]]);
        let u = UNIT_ROUNDOFF;
        assert!(f64::from(slope) > 2.0 * 3.0 * u * 5.0 && f64::from(slope) < 31.0 * u);
        assert!(f64::from(base) > 3.0 * u * 25.0 && f64::from(base) < 76.0 * u);
    }
}
