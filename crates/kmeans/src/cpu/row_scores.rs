//! Scores of rows that scores of whole tiles leave in doubt, in `f32`: of sixteen, as of a tile, or of one, with centroids in the lanes.

use super::centroids::{FloatCentroids, NearestToRow};
use super::lanes::Lanes;
use super::score::{Best, Tally, sum_of_four};
use crate::{Centroids, LANES};

/// Centroids less their mean, for the scores of rows in doubt: there, what rounding takes is a share of how far things lie apart, and not of
/// where they lie on the grid.
#[derive(Clone)]
pub(super) struct RowCentroids {
    /// [n_features] about the mean of the centroids.
    pub(super) middle: Vec<i32>,
    /// Less the middle, for sixteen rows.
    pub(super) of_sixteen: FloatCentroids,
    /// Less the middle, for one row.
    tiles: Vec<CentroidTile>,
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
    /// Panels are at most `width` wide.
    pub(super) fn new(centroids: &Centroids, width: usize) -> Self {
        let n_clusters = centroids.n_clusters();
        let middle: Vec<i32> = (0..centroids.n_features())
            .map(|feature_idx| {
                let values = centroids.rows().map(|row| i64::from(row[feature_idx]));
                (values.sum::<i64>() / n_clusters as i64) as i32
            })
            .collect();
        let of_sixteen = FloatCentroids::new(centroids, &middle, width);
        let tiles = of_sixteen
            .biases
            .chunks(LANES)
            .enumerate()
            .map(|(tile_idx, own_biases)| {
                let own = tile_idx * LANES..;
                let mut biases = [f32::INFINITY; LANES];
                biases[..own_biases.len()].copy_from_slice(own_biases);
                let columns = middle.iter().enumerate().map(|(feature_idx, middle)| {
                    let mut column = [0.0; LANES];
                    for ((value, _), idx) in column.iter_mut().zip(own_biases).zip(own.clone()) {
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
        Self {
            tiles: tiles.collect(),
            of_sixteen,
            middle,
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
        self.of_sixteen
            .nearest(square, least_idx as u16, least, second)
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
    use super::super::score::score;
    use super::*;
    use crate::{GRID_LIMIT, exact};

    /// Rows and centroids within `spread` of a corner of the grid: the share of rows that are certain, scored one by one and by sixteens.
    /// What is said of them must hold.
    fn certain_shares(n_features: usize, n_clusters: usize, spread: u64) -> [f64; 2] {
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
        let rows = near_corner(63 * LANES);
        let of_rows = RowCentroids::new(&centroids, 8);
        let (mut n_certain, mut room) = ([0; 2], Vec::new());
        for sixteen in rows.chunks(LANES * n_features) {
            let mut columns = vec![[0.0; LANES]; n_features];
            for (lane, row) in sixteen.chunks(n_features).enumerate() {
                for ((column, value), middle) in columns.iter_mut().zip(row).zip(&of_rows.middle) {
                    column[lane] = (value - middle) as f32;
                }
            }
            // SAFETY: `Scalar` needs no more than the processor that the crate is compiled for.
            let of_sixteen = unsafe {
                let best: Best<Scalar, 1> = score(&[&columns], &of_rows.of_sixteen, &[]);
                best.of_rows(&columns, &of_rows.of_sixteen)
            };
            for (lane, row) in sixteen.chunks(n_features).enumerate() {
                // SAFETY: as above.
                let of_one = unsafe { of_rows.nearest::<Scalar>(row, &mut room) };
                let exact = exact::nearest_two(row, &centroids);
                let gap = (exact.second_d2 as f64).sqrt() - (exact.d2 as f64).sqrt();
                for (found, n_certain) in [of_one, of_sixteen[lane]].iter().zip(&mut n_certain) {
                    assert!(f64::from(found.gap) <= gap, "{} > {gap}", found.gap);
                    if found.is_certain {
                        assert_eq!(found.idx, exact.label);
                        *n_certain += 1;
                    }
                }
            }
        }
        n_certain.map(|n_certain| n_certain as f64 / (63 * LANES) as f64)
    }

    #[test]
    fn rows_far_from_the_middle_of_the_grid_are_certain() {
        for (n_features, n_clusters) in [(1, 2), (3, 5), (16, 16), (33, 40)] {
            // Scores about the middle of the grid could not tell these apart: they round squares of 2^44 to 2^21.
            for spread in [1_000, 1 << 22] {
                let shares = certain_shares(n_features, n_clusters, spread);
                assert!(shares.iter().all(|share| *share > 0.97), "{shares:?}");
            }
            // Ties are never certain.
            assert_eq!(certain_shares(n_features, n_clusters, 1), [0.0; 2]);
        }
    }
}
