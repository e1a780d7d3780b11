//! Centroids as the kernel wants them: distinct, in panels, with their bias and the error bound.

use super::row_scores::RowCentroids;
use crate::block::rounded_up;
use crate::{Centroids, exact};
use std::collections::HashMap;

/// Centroids scored together, at most.
pub(super) const MAX_PANEL_WIDTH: usize = 8;

/// A rounding of an `f32` is this share of it at most.
const UNIT: f64 = f32::EPSILON as f64 / 2.0;

/// Centroids that a kernel scores together: as many as leave their scores in registers, at most [`MAX_PANEL_WIDTH`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PanelWidths {
    pub(super) floats: usize,
    /// `None` where 16-bit products are no faster.
    pub(super) shorts: Option<usize>,
}

/// The distinct centroids of one candidate, cut into panels of nearly equal width.
#[derive(Clone)]
pub(super) struct PackedCentroids {
    /// Distinct centroids, in order of their first index: the lowest index still wins ties.
    distinct: Centroids,
    /// [n_distinct] the index that each has in the candidate.
    index_of: Vec<u16>,
    /// With duplicates.
    n_clusters: usize,
    /// For tiles of rows as they are.
    pub(super) of_tiles: FloatCentroids,
    /// As wide as panels of 16-bit products may be, where these are made at all.
    pub(super) short_width: Option<usize>,
    /// For rows in doubt.
    pub(super) of_rows: RowCentroids,
}

/// Distinct centroids in `f32`, less some origin, for rows less the same.
#[derive(Clone)]
pub(super) struct FloatCentroids {
    n_features: usize,
    pub(super) panels: Vec<Panel>,
    /// [n_distinct] `|c|^2 / 2`, rounded to `f32`.
    pub(super) biases: Vec<f32>,
    /// Largest Euclidean norm, rounded up.
    max_norm: f64,
    /// See [`error_of_square`].
    of_square: [f64; 3],
}

/// What there is to say of a single row.
#[derive(Clone, Copy, Default)]
pub(super) struct NearestToRow {
    /// The position of the nearest centroid.
    pub(super) idx: u16,
    pub(super) is_certain: bool,
    /// How much nearer it is than any other, at least, in grid steps.
    pub(super) gap: f32,
}

/// Up to [`MAX_PANEL_WIDTH`] centroids.
#[derive(Clone)]
pub(super) struct Panel {
    /// Position of the first in the distinct list.
    pub(super) first_idx: usize,
    pub(super) width: usize,
    /// [n_features x width]
    pub(super) values: Vec<f32>,
}

impl PackedCentroids {
    /// Duplicate centroids tie on every row of theirs, and every such row would have to be settled exactly: merged, they cost nothing.
    pub(super) fn new(centroids: &Centroids, widths: PanelWidths) -> Self {
        let n_clusters = centroids.n_clusters();
        assert!(
            (1..=usize::from(u16::MAX) + 1).contains(&n_clusters),
            "labels are u16 and n_clusters={n_clusters}"
        );
        let mut seen = HashMap::with_capacity(n_clusters);
        let mut values = Vec::with_capacity(centroids.values().len());
        let mut index_of = Vec::with_capacity(n_clusters);
        for (idx, row) in (0..=u16::MAX).zip(centroids.rows()) {
            if seen.insert(row, idx).is_none() {
                values.extend_from_slice(row);
                index_of.push(idx);
            }
        }
        let distinct = Centroids::new(centroids.n_features(), values);
        let origin = vec![0; distinct.n_features()];
        Self {
            of_tiles: FloatCentroids::new(&distinct, &origin, widths.floats),
            short_width: widths.shorts,
            of_rows: RowCentroids::new(&distinct, widths.floats),
            distinct,
            n_clusters,
            index_of,
        }
    }

    /// The centroids without duplicates.
    pub(super) fn distinct(&self) -> &Centroids {
        &self.distinct
    }

    /// Whether no two centroids are the same.
    pub(super) fn are_all_distinct(&self) -> bool {
        self.n_clusters == self.index_of.len()
    }

    /// A number not below the distance of any centroid from their middle, in grid steps: half the widest distance of two, at least.
    pub(super) fn max_norm_from_mean(&self) -> f64 {
        let n_features = self.distinct.n_features();
        let mut low = vec![i32::MAX; n_features];
        let mut high = vec![i32::MIN; n_features];
        for row in self.distinct.rows() {
            for ((low, high), &value) in low.iter_mut().zip(&mut high).zip(row) {
                (*low, *high) = ((*low).min(value), (*high).max(value));
            }
        }
        let middle: Vec<i32> = low
            .iter()
            .zip(&high)
            .map(|(low, high)| (low + high) / 2)
            .collect();
        let farthest = self
            .distinct
            .rows()
            .map(|row| exact::squared_distance(row, &middle))
            .max();
        (farthest.unwrap_or(0) as f64).sqrt() * (1.0 + 1e-12)
    }

    /// The index in the candidate of the `idx`-th distinct centroid.
    pub(super) fn index_of(&self, idx: usize) -> u16 {
        self.index_of[idx]
    }

    /// The label of a row that floats could not decide.
    #[inline(always)]
    pub(super) fn settle(&self, row: &[i32]) -> u16 {
        let (mut nearest, mut nearest_d2) = (0, u64::MAX);
        for (idx, centroid) in self.distinct.rows().enumerate() {
            let mut d2 = 0;
            for (&x, &c) in row.iter().zip(centroid) {
                let difference = i64::from(x - c);
                d2 += (difference * difference) as u64;
            }
            if d2 < nearest_d2 {
                (nearest, nearest_d2) = (idx, d2);
            }
        }
        self.index_of(nearest)
    }
}

impl FloatCentroids {
    /// Less `origin` [n_features], on the grid; panels are at most `width` wide.
    pub(super) fn new(distinct: &Centroids, origin: &[i32], width: usize) -> Self {
        let squares: Vec<u64> = distinct
            .rows()
            .map(|row| exact::squared_distance(row, origin))
            .collect();
        let max_norm = largest_norm(&squares);
        Self {
            n_features: distinct.n_features(),
            panels: cut_in_panels(distinct, origin, width),
            // One rounding: an integer below 2^58 to `f32`; halving is exact.
            biases: squares.iter().map(|&square| square as f32 / 2.0).collect(),
            max_norm,
            of_square: error_of_square(distinct.n_features(), max_norm),
        }
    }

    /// If the second best score of a row of norm `row_norm` at most is more than this above the best, the best centroid is the nearest.
    ///
    /// The score of centroid c is `|c|^2 / 2 - x.c`, half the squared distance less the `|x|^2 / 2` that all share. Everything that
    /// enters is an integer of 2^23 at most and so exact in `f32`, nothing under- or overflows (scores are multiples of 1/2 below 2^60),
    /// and the only errors are roundings, u = 2^-24 each. The bias is rounded once when it is stored and once with each of the d
    /// subtractions; a product is rounded at most once by itself (not at all where the multiply-add is fused) and at most d times as
    /// part of the running score. So each term of the sum carries at most d + 1 factors (1 + delta), and (Higham, *Accuracy and
    /// Stability*, lemma 3.1) with `gamma_n = n u / (1 - n u)`
    ///
    /// ```text
    /// |score - exact| <= gamma_(d+1) (|c|^2 / 2 + sum_f |x_f c_f|) <= gamma_(d+1) (C^2 / 2 + X C) = E
    /// ```
    ///
    /// by Cauchy and Schwarz, X at least |x| and C at least the norm of every centroid. `gamma_n <= (n + 2) u` while `n (n + 2) u <= 2`,
    /// and n = d + 1 is at most 4,097: hence `E <= (d + 3) u (X C + C^2 / 2)`. If the computed gap is above 2 E, every other exact score
    /// is above the best one. The gap itself is a rounded difference, but rounding is monotone: a true gap of at most a bound that is
    /// an `f32` is never rounded above it. The bound is computed in `f64` and rounded up.
    #[inline(always)]
    pub(super) fn certain_gap(&self, row_norm: f32) -> f32 {
        let n_roundings = (self.n_features + 3) as f64;
        let size = self.max_norm * (f64::from(row_norm) + self.max_norm / 2.0);
        let bound = 2.0 * n_roundings * UNIT * size * (1.0 + 1e-12);
        (bound as f32).next_up()
    }

    /// Of a row of squared norm `square`, `idx` being the position of the centroid with the best score.
    #[inline(always)]
    pub(super) fn nearest(&self, square: f32, idx: u16, best: f32, second: f32) -> NearestToRow {
        let norm = rounded_up(square);
        let error = self.distance_error(norm);
        let [near, far] = error.near_and_far(square, best, second);
        NearestToRow {
            idx,
            is_certain: second - best > self.certain_gap(norm),
            gap: far - near - error.of_root,
        }
    }

    /// How far off distances are that follow from scores, of rows of norm `row_norm` at most.
    ///
    /// The square of a distance is `|x|^2 + 2 score`. With X, C and u as in [`FloatCentroids::certain_gap`], `|x|^2` carries d roundings
    /// and is off by `(d + 2) u X^2` at most, twice a score by `2 (d + 3) u (X C + C^2 / 2)`, and the two additions of what is then made of
    /// them round numbers below `2 (X + C)^2`. A root is half an ulp off, below `u (X + C) 2`, and so is the difference of two.
    #[inline(always)]
    pub(super) fn distance_error(&self, row_norm: f32) -> DistanceError {
        DistanceError::new(&self.of_square, self.max_norm, row_norm, 0.0)
    }
}

/// The root of the largest of `squares`, rounded up.
fn largest_norm(squares: &[u64]) -> f64 {
    let max_square = squares.iter().copied().max().unwrap_or(0);
    // Three roundings of 2^-53 each; the factor covers thousands.
    (max_square as f64).sqrt() * (1.0 + 1e-12)
}

/// By powers of the norm of a row, the error of a squared distance: the terms of [`FloatCentroids::distance_error`], in order.
pub(super) fn error_of_square(n_features: usize, max_norm: f64) -> [f64; 3] {
    let (d, c) = (n_features as f64, max_norm);
    let unit = UNIT * (1.0 + 1e-6);
    [
        unit * (d + 3.0 + 4.0) * c * c,
        unit * (2.0 * (d + 3.0) + 8.0) * c,
        unit * (d + 2.0 + 4.0),
    ]
}

/// See [`FloatCentroids::distance_error`].
pub(super) struct DistanceError {
    /// Of a squared distance, in grid steps squared.
    pub(super) of_square: f32,
    /// Of the roots of two, and of their difference, in grid steps.
    pub(super) of_root: f32,
}

impl DistanceError {
    /// Of rows and centroids of these norms at most; `of_square` as [`error_of_square`] makes it, `coarse` what else a squared distance is off.
    #[inline(always)]
    pub(super) fn new(of_square: &[f64; 3], max_norm: f64, row_norm: f32, coarse: f64) -> Self {
        let [constant, linear, square] = of_square;
        let x = f64::from(row_norm);
        let of_square = (square * x + linear) * x + constant + coarse * (1.0 + 1e-9);
        let of_root = 8.0 * UNIT * (x + max_norm);
        Self {
            of_square: (of_square as f32).next_up(),
            of_root: (of_root as f32).next_up(),
        }
    }

    /// From `|x|^2` and the scores of a row, but for [`DistanceError::of_root`]: how far it is from the nearest centroid at most, and from any
    /// other at least.
    #[inline(always)]
    pub(super) fn near_and_far(&self, square: f32, best: f32, second: f32) -> [f32; 2] {
        let near = square + 2.0 * best + self.of_square;
        let far = square + 2.0 * second - self.of_square;
        [near.max(0.0).sqrt(), far.max(0.0).sqrt()]
    }
}

/// Panels at most `width` wide, of values less `origin`.
fn cut_in_panels(centroids: &Centroids, origin: &[i32], width: usize) -> Vec<Panel> {
    let n_clusters = centroids.n_clusters();
    let n_panels = n_clusters.div_ceil(width.min(MAX_PANEL_WIDTH));
    let first_idx = |panel_idx: usize| panel_idx * n_clusters / n_panels;
    (0..n_panels)
        .map(|panel_idx| {
            // Widths that differ by one at most: a narrow remainder would leave the multipliers waiting.
            let members = first_idx(panel_idx)..first_idx(panel_idx + 1);
            let values = origin.iter().enumerate().flat_map(|(feature_idx, origin)| {
                let rows = members.clone().map(|idx| centroids.row(idx));
                rows.map(move |row| (row[feature_idx] - origin) as f32)
            });
            Panel {
                first_idx: members.start,
                width: members.len(),
                values: values.collect(),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOATS: PanelWidths = PanelWidths {
        floats: 8,
        shorts: None,
    };

    #[test]
    fn duplicates_are_merged_and_keep_the_lowest_index() {
        let packed = PackedCentroids::new(&Centroids::new(1, vec![5, 5, -1, 5, -1, 3]), FLOATS);
        assert_eq!(packed.index_of, [0, 2, 5]);
        assert_eq!(packed.settle(&[3]), 5);
        assert_eq!(packed.settle(&[4]), 0);
    }

    #[test]
    fn panels_are_of_nearly_equal_width() {
        for (n_clusters, widths) in [
            (1, vec![1]),
            (8, vec![8]),
            (9, vec![4, 5]),
            (17, vec![5, 6, 6]),
        ] {
            let packed =
                PackedCentroids::new(&Centroids::new(2, (0..2 * n_clusters).collect()), FLOATS);
            assert_eq!(
                packed
                    .of_tiles
                    .panels
                    .iter()
                    .map(|p| p.width)
                    .collect::<Vec<_>>(),
                widths
            );
        }
    }
}
