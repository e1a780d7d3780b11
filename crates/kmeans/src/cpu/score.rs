//! Scores of tiles of rows against panels of centroids, in registers, and the best of them.

use super::centroids::{
    DistanceError, MAX_PANEL_WIDTH, PackedCentroids, Panel, certain_gap, error_of_square,
    largest_norm,
};
use super::lanes::Lanes;
use crate::block::rounded_up;
use crate::{Centroids, LANES, exact};

/// What is kept of the scores of a group, as they come in order of the centroids: a later one must be less to take a place.
///
/// # Safety
/// As for [`Lanes`].
pub(super) trait Tally<L: Lanes, const TILES: usize> {
    /// Nothing yet.
    unsafe fn start() -> Self;
    /// The scores of centroid `idx`.
    unsafe fn offer(&mut self, scores: [L; TILES], idx: L);
}

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
    /// The error is that of [`score`], with norms less the middle: differences of grid values are as exact in `f32` as these, and a term is
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

/// What was found out about the rows of one tile.
///
/// # Safety
/// As for [`Lanes`].
pub(super) trait Found {
    /// Of the instruction set in use.
    type Floats: Lanes;
    /// Of upper bits only.
    const IS_COARSE: bool;
    /// The positions of the nearest centroids, and a bit for each row whose is not certain.
    unsafe fn labels(&self, centroids: &PackedCentroids, row_norm: f32) -> ([u16; LANES], u32);
    /// The scores, and how far off the distances are that follow from them. `columns` [n_features], where scores are of whole values.
    unsafe fn scores(
        &self,
        columns: &[[f32; LANES]],
        centroids: &PackedCentroids,
        row_norm: f32,
    ) -> (Scores, DistanceError);
}

/// Best and second best score of each row of a group, and the position of the best.
pub(super) struct Best<L, const TILES: usize> {
    score: [L; TILES],
    second_score: [L; TILES],
    /// Positions as floats: 65,535 and less are exact, and one kind of register is enough.
    idx: [L; TILES],
}

/// What bounds on the rows of a tile follow from.
pub(super) struct Scores {
    pub(super) best: [f32; LANES],
    pub(super) second: [f32; LANES],
    /// `|x|^2`, rounded.
    pub(super) squares: [f32; LANES],
}

impl<L: Lanes, const TILES: usize> Best<L, TILES> {
    /// What concerns one tile.
    #[inline(always)]
    pub(super) fn of_tile(&self, tile: usize) -> Best<L, 1> {
        Best {
            score: [self.score[tile]],
            second_score: [self.second_score[tile]],
            idx: [self.idx[tile]],
        }
    }
}

impl<L: Lanes> Found for Best<L, 1> {
    type Floats = L;
    const IS_COARSE: bool = false;

    #[inline(always)]
    unsafe fn labels(&self, centroids: &PackedCentroids, row_norm: f32) -> ([u16; LANES], u32) {
        let gap = centroids.certain_gap(row_norm);
        let mut idxs = [0f32; LANES];
        let mut uncertain = 0;
        let ([score], [second_score]) = (self.score, self.second_score);
        // SAFETY: passed on to the caller.
        unsafe {
            self.idx[0].store(&mut idxs);
            if second_score.any_within(score, gap) {
                let (mut scores, mut second_scores) = ([0f32; LANES], [0f32; LANES]);
                score.store(&mut scores);
                second_score.store(&mut second_scores);
                for lane in 0..LANES {
                    uncertain |= u32::from(second_scores[lane] - scores[lane] <= gap) << lane;
                }
            }
        }
        (as_labels(idxs), uncertain)
    }

    #[inline(always)]
    unsafe fn scores(
        &self,
        columns: &[[f32; LANES]],
        centroids: &PackedCentroids,
        row_norm: f32,
    ) -> (Scores, DistanceError) {
        let (mut best, mut second) = ([0.0; LANES], [0.0; LANES]);
        // SAFETY: passed on to the caller.
        let squares = unsafe {
            self.score[0].store(&mut best);
            self.second_score[0].store(&mut second);
            squared_norms::<L>(columns)
        };
        let scores = Scores {
            best,
            second,
            squares,
        };
        (scores, centroids.distance_error(row_norm))
    }
}

/// `|x|^2` of the rows of a tile, rounded with each feature.
#[inline(always)]
unsafe fn squared_norms<L: Lanes>(columns: &[[f32; LANES]]) -> [f32; LANES] {
    let mut squares = [0.0; LANES];
    // SAFETY: passed on to the caller.
    unsafe {
        // Four sums side by side: one would wait for itself with each feature.
        let mut negated = [L::splat(0.0); 4];
        let (fours, rest) = columns.as_chunks::<4>();
        for four in fours {
            for (negated, column) in negated.iter_mut().zip(four) {
                let x = L::load(column);
                *negated = negated.minus_product(x, x);
            }
        }
        for column in rest {
            let x = L::load(column);
            negated[0] = negated[0].minus_product(x, x);
        }
        L::splat(0.0)
            .minus_product(sum_of_four(negated), L::splat(1.0))
            .store(&mut squares);
    }
    squares
}

#[inline(always)]
unsafe fn sum_of_four<L: Lanes>([a, b, c, d]: [L; 4]) -> L {
    // SAFETY: passed on to the caller.
    unsafe {
        let minus_one = L::splat(-1.0);
        let [ab, cd] = [a.minus_product(b, minus_one), c.minus_product(d, minus_one)];
        ab.minus_product(cd, minus_one)
    }
}

impl<L: Lanes, const TILES: usize> Tally<L, TILES> for Best<L, TILES> {
    #[inline(always)]
    unsafe fn start() -> Self {
        // SAFETY: passed on to the caller.
        unsafe {
            Self {
                score: [L::splat(f32::INFINITY); TILES],
                second_score: [L::splat(f32::INFINITY); TILES],
                idx: [L::splat(0.0); TILES],
            }
        }
    }

    #[inline(always)]
    unsafe fn offer(&mut self, scores: [L; TILES], idx: L) {
        for (tile, score) in scores.into_iter().enumerate() {
            let least = self.score[tile];
            // SAFETY: passed on to the caller.
            unsafe {
                self.idx[tile] = score.if_less(least, idx, self.idx[tile]);
                self.second_score[tile] = self.second_score[tile].min(least.max(score));
                self.score[tile] = least.min(score);
            }
        }
    }
}

/// The three best scores of each row of a group, and the positions of the first two.
pub(super) struct BestTwo<L, const TILES: usize> {
    scores: [[L; 3]; TILES],
    idxs: [[L; 2]; TILES],
}

impl<L: Lanes, const TILES: usize> BestTwo<L, TILES> {
    /// The positions of a tile's rows, and a bit for each row of which one is not certain.
    #[inline(always)]
    pub(super) unsafe fn read(&self, tile: usize, gap: f32) -> ([[u16; LANES]; 2], u32) {
        let mut idxs = [[0f32; LANES]; 2];
        let mut scores = [[0f32; LANES]; 3];
        // SAFETY: passed on to the caller.
        unsafe {
            for (own, idxs) in self.idxs[tile].iter().zip(&mut idxs) {
                own.store(idxs);
            }
            for (own, scores) in self.scores[tile].iter().zip(&mut scores) {
                own.store(scores);
            }
        }
        let [first, second, third] = scores;
        let mut uncertain = 0;
        for lane in 0..LANES {
            let is_close =
                (second[lane] - first[lane] <= gap) | (third[lane] - second[lane] <= gap);
            uncertain |= u32::from(is_close) << lane;
        }
        ([as_labels(idxs[0]), as_labels(idxs[1])], uncertain)
    }
}

impl<L: Lanes, const TILES: usize> Tally<L, TILES> for BestTwo<L, TILES> {
    #[inline(always)]
    unsafe fn start() -> Self {
        // SAFETY: passed on to the caller.
        unsafe {
            Self {
                scores: [[L::splat(f32::INFINITY); 3]; TILES],
                idxs: [[L::splat(0.0); 2]; TILES],
            }
        }
    }

    #[inline(always)]
    unsafe fn offer(&mut self, scores: [L; TILES], idx: L) {
        for (tile, score) in scores.into_iter().enumerate() {
            let [first, second, third] = self.scores[tile];
            let [first_idx, second_idx] = self.idxs[tile];
            // SAFETY: passed on to the caller.
            unsafe {
                let behind_first = score.if_less(second, idx, second_idx);
                self.idxs[tile] = [
                    score.if_less(first, idx, first_idx),
                    score.if_less(first, first_idx, behind_first),
                ];
                self.scores[tile] = [
                    first.min(score),
                    second.min(first.max(score)),
                    third.min(second.max(score)),
                ];
            }
        }
    }
}

/// Through i32, for which every instruction set has a conversion. A loop: closures are not compiled for the instruction set.
#[inline(always)]
fn as_labels(idxs: [f32; LANES]) -> [u16; LANES] {
    let mut labels = [0; LANES];
    for (label, idx) in labels.iter_mut().zip(idxs) {
        *label = idx as i32 as u16;
    }
    labels
}

/// `tiles` [TILES][n_features]; the lines `ahead` are fetched meanwhile.
#[inline(always)]
pub(super) unsafe fn score<L: Lanes, B: Tally<L, TILES>, const TILES: usize>(
    tiles: &[&[[f32; LANES]]; TILES],
    centroids: &PackedCentroids,
    ahead: &[[f32; LANES]],
) -> B {
    // SAFETY: passed on to the caller.
    unsafe {
        let mut best = B::start();
        // Each panel fetches its share: all at once would fill the queue of the memory.
        let (ahead, _) = ahead.as_chunks::<TILES>();
        let share = ahead.len().div_ceil(centroids.panels.len());
        let mut shares = ahead.chunks(share.max(1));
        for panel in &centroids.panels {
            let ahead = shares.next().unwrap_or_default();
            let biases = &centroids.biases;
            macro_rules! score_panel {
                ($width:expr) => {
                    score_panel::<L, B, TILES, { $width }>(tiles, panel, biases, ahead, &mut best)
                };
            }
            match panel.width {
                1 => score_panel!(1),
                2 => score_panel!(2),
                3 => score_panel!(3),
                4 => score_panel!(4),
                5 => score_panel!(5),
                6 => score_panel!(6),
                7 => score_panel!(7),
                _ => score_panel!(MAX_PANEL_WIDTH),
            }
        }
        best
    }
}

/// The scores of one panel stay in registers from the bias to the comparison.
#[inline(always)]
unsafe fn score_panel<L: Lanes, B: Tally<L, TILES>, const TILES: usize, const WIDTH: usize>(
    tiles: &[&[[f32; LANES]]; TILES],
    panel: &Panel,
    biases: &[f32],
    ahead: &[[[f32; LANES]; TILES]],
    best: &mut B,
) {
    let n_features = tiles[0].len();
    let mut same_length = *tiles;
    for tile in &mut same_length {
        *tile = &tile[..n_features];
    }
    let tiles = same_length;
    let values = &panel.values.as_chunks::<WIDTH>().0[..n_features];
    let biases = &biases[panel.first_idx..][..WIDTH];
    // One line after the other: processors foresee a run of lines, and not three at a time.
    let ahead = &ahead[..ahead.len().min(n_features)];
    // SAFETY: passed on to the caller.
    unsafe {
        let mut scores = [[L::splat(0.0); TILES]; WIDTH];
        for (scores, &bias) in scores.iter_mut().zip(biases) {
            *scores = [L::splat(bias); TILES];
        }
        for (feature_idx, lines) in ahead.iter().enumerate() {
            for line in lines {
                L::prefetch(line);
            }
            subtract_products(&tiles, values, feature_idx, &mut scores);
        }
        for feature_idx in ahead.len()..n_features {
            subtract_products(&tiles, values, feature_idx, &mut scores);
        }
        for (member, scores) in scores.into_iter().enumerate() {
            best.offer(scores, L::splat((panel.first_idx + member) as f32));
        }
    }
}

/// One feature's share in the scores of a panel.
#[inline(always)]
unsafe fn subtract_products<L: Lanes, const TILES: usize, const WIDTH: usize>(
    tiles: &[&[[f32; LANES]]; TILES],
    values: &[[f32; WIDTH]],
    feature_idx: usize,
    scores: &mut [[L; TILES]; WIDTH],
) {
    // SAFETY: passed on to the caller.
    unsafe {
        let mut x = [L::splat(0.0); TILES];
        for tile in 0..TILES {
            x[tile] = L::load(&tiles[tile][feature_idx]);
        }
        for member in 0..WIDTH {
            let c = L::splat(values[feature_idx][member]);
            for tile in 0..TILES {
                scores[member][tile] = scores[member][tile].minus_product(x[tile], c);
            }
        }
    }
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
