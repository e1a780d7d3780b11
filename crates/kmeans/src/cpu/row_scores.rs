//! Scores of single rows in `f32`, with centroids in the lanes: for rows that scores of whole tiles leave in doubt.

use super::centroids::{DistanceError, certain_gap, error_of_square, largest_norm};
use super::lanes::Lanes;
use super::score::{Best, Tally, sum_of_four};
use crate::block::rounded_up;
use crate::{Centroids, LANES, exact};

/// Centroids less their mean, for the scores of single rows: there, what rounding takes is a share of how far things lie apart, and not of
/// where they lie on the grid.
#[derive(Clone)]
pub(super) struct RowCentroids {
    /// [n_features] about the mean of the centroids.
    middle: Vec<i32>,
    tiles: Vec<CentroidTile>,
    /// Largest Euclidean norm less the middle, rounded up.
    max_norm: f64,
    /// See [`error_of_square`].
    of_square: [f64; 3],
}

/// What there is to say of a single row.
pub(super) struct NearestToRow {
    /// The position of the nearest centroid.
    pub(super) idx: u16,
    pub(super) is_certain: bool,
    /// How much nearer it is than any other, at least, in grid steps.
    pub(super) gap: f32,
}

/// Up to [`LANES`] centroids, one a lane.
#[derive(Clone)]
struct CentroidTile {
    /// `|c|^2 / 2`, rounded to `f32`; infinite where there is no centroid.
    biases: [f32; LANES],
    /// Positions as floats, as in [`Best`].
    idxs: [f32; LANES],
    /// [n_features]
    columns: Vec<[f32; LANES]>,
}

impl RowCentroids {
    pub(super) fn new(centroids: &Centroids) -> Self {
        let n_clusters = centroids.n_clusters();
        let middle: Vec<i32> = (0..centroids.n_features())
            .map(|feature_idx| {
                let values = centroids.rows().map(|row| i64::from(row[feature_idx]));
                (values.sum::<i64>() / n_clusters as i64) as i32
            })
            .collect();
        let squares: Vec<u64> = centroids
            .rows()
            .map(|row| exact::squared_distance(row, &middle))
            .collect();
        let tiles = squares
            .chunks(LANES)
            .enumerate()
            .map(|(tile_idx, squares)| {
                let own = tile_idx * LANES..;
                let mut biases = [f32::INFINITY; LANES];
                for (bias, &square) in biases.iter_mut().zip(squares) {
                    *bias = square as f32 / 2.0;
                }
                let columns = middle.iter().enumerate().map(|(feature_idx, middle)| {
                    let mut column = [0.0; LANES];
                    for ((value, _), idx) in column.iter_mut().zip(squares).zip(own.clone()) {
                        *value = (centroids.row(idx)[feature_idx] - middle) as f32;
                    }
                    column
                });
                let columns = columns.collect();
                let mut idxs = [0.0; LANES];
                for (idx, position) in idxs.iter_mut().zip(own) {
                    *idx = position as f32;
                }
                CentroidTile {
                    biases,
                    idxs,
                    columns,
                }
            });
        let tiles = tiles.collect();
        let max_norm = largest_norm(&squares);
        Self {
            of_square: error_of_square(middle.len(), max_norm),
            middle,
            tiles,
            max_norm,
        }
    }

    /// Of `row` [n_features], or more; `room` is kept from row to row.
    ///
    /// The error is that of [`score`](super::score::score), with norms less the middle: differences of grid values are as exact in `f32` as these, and a term is
    /// rounded no more often when several sums are made side by side.
    #[inline(always)]
    pub(super) unsafe fn nearest<L: Lanes>(
        &self,
        row: &[i32],
        room: &mut Vec<f32>,
    ) -> NearestToRow {
        room.resize(self.middle.len(), 0.0);
        for ((x, value), middle) in room.iter_mut().zip(row).zip(&self.middle) {
            *x = (value - middle) as f32;
        }
        let (fours, rest) = room.as_chunks::<4>();
        let mut scores = Ranked::default();
        // SAFETY: passed on to the caller.
        unsafe {
            let mut best = Best::<L, 1>::start();
            for tile in &self.tiles {
                let mut sums = [L::splat(0.0); 4];
                sums[0] = L::load(&tile.biases);
                let (c_fours, c_rest) = tile.columns.as_chunks::<4>();
                for (four, c_four) in fours.iter().zip(c_fours) {
                    for at in 0..4 {
                        sums[at] = sums[at].minus_product(L::splat(four[at]), L::load(&c_four[at]));
                    }
                }
                for (&x, c) in rest.iter().zip(c_rest) {
                    sums[0] = sums[0].minus_product(L::splat(x), L::load(c));
                }
                best.offer([sum_of_four(sums)], L::load(&tile.idxs));
            }
            best.score[0].store(&mut scores.least);
            best.second_score[0].store(&mut scores.second);
            best.idx[0].store(&mut scores.idx);
        }
        let (least, second, least_idx) = scores.first();
        let square = sum_of_squares(room);
        let norm = rounded_up(square);
        let gap = certain_gap(self.middle.len(), self.max_norm, norm);
        let error = DistanceError::new(&self.of_square, self.max_norm, norm, 0.0);
        let [near, far] = error.near_and_far(square, least, second);
        NearestToRow {
            idx: least_idx as u16,
            is_certain: second - least > gap,
            gap: far - near - error.of_root,
        }
    }
}

/// Least and second of the scores of several centroids a lane, and the positions of the least.
#[derive(Default)]
struct Ranked {
    least: [f32; LANES],
    second: [f32; LANES],
    idx: [f32; LANES],
}

impl Ranked {
    /// Of all lanes. Half of them are compared with the other half, and so on: one after the other they would wait for each other.
    #[inline(always)]
    fn first(mut self) -> (f32, f32, f32) {
        let mut n = LANES / 2;
        while n > 0 {
            for lane in 0..n {
                let (a, b) = (self.least[lane], self.least[lane + n]);
                let seconds = self.second[lane].min(self.second[lane + n]);
                self.second[lane] = seconds.min(a.max(b));
                self.least[lane] = a.min(b);
                self.idx[lane] = if b < a {
                    self.idx[lane + n]
                } else {
                    self.idx[lane]
                };
            }
            n /= 2;
        }
        (self.least[0], self.second[0], self.idx[0])
    }
}

/// Sixteen sums side by side.
#[inline(always)]
fn sum_of_squares(values: &[f32]) -> f32 {
    let (whole, rest) = values.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for values in whole {
        for (sum, x) in sums.iter_mut().zip(values) {
            *sum += x * x;
        }
    }
    for (sum, x) in sums.iter_mut().zip(rest) {
        *sum += x * x;
    }
    let mut n = LANES / 2;
    while n > 0 {
        for lane in 0..n {
            sums[lane] += sums[lane + n];
        }
        n /= 2;
    }
    sums[0]
}

#[cfg(test)]
mod tests {
    use super::super::lanes::Scalar;
    use super::*;
    use crate::GRID_LIMIT;

    /// Rows and centroids within `spread` of a corner of the grid: the share of rows that are certain. What is said of them must hold.
    fn certain_share(n_features: usize, n_clusters: usize, spread: u64) -> f64 {
        let mut state = 11u64;
        let mut near_corner = |n_rows: usize| -> Vec<i32> {
            let mut next = || {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(5);
                GRID_LIMIT - 1 - ((state >> 33) % spread) as i32
            };
            (0..n_rows * n_features).map(|_| next()).collect()
        };
        let centroids = Centroids::new(n_features, near_corner(n_clusters));
        let rows = near_corner(1_000);
        let of_rows = RowCentroids::new(&centroids);
        let (mut n_certain, mut room) = (0, Vec::new());
        for row in rows.chunks(n_features) {
            // SAFETY: `Scalar` needs no more than the processor that the crate is compiled for.
            let found = unsafe { of_rows.nearest::<Scalar>(row, &mut room) };
            let exact = exact::nearest_two(row, &centroids);
            let gap = (exact.second_d2 as f64).sqrt() - (exact.d2 as f64).sqrt();
            assert!(f64::from(found.gap) <= gap, "{} > {gap}", found.gap);
            if found.is_certain {
                assert_eq!(found.idx, exact.label);
                n_certain += 1;
            }
        }
        f64::from(n_certain) / 1_000.0
    }

    #[test]
    fn rows_far_from_the_middle_of_the_grid_are_certain() {
        for (n_features, n_clusters) in [(1, 2), (3, 5), (16, 16), (33, 40)] {
            // Scores about the middle of the grid could not tell these apart: they round squares of 2^44 to 2^21.
            assert!(certain_share(n_features, n_clusters, 1_000) > 0.97);
            assert!(certain_share(n_features, n_clusters, 1 << 22) > 0.97);
            // Ties are never certain.
            assert!(certain_share(n_features, n_clusters, 1) == 0.0);
        }
    }
}
