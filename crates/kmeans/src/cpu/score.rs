//! Scores of tiles of rows against panels of centroids, in registers, and the best of them.

use super::centroids::{DistanceError, FloatCentroids, MAX_PANEL_WIDTH, NearestToRow, Panel};
use super::lanes::Lanes;
use crate::{LANES, whole};

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
    unsafe fn labels(&self, centroids: &FloatCentroids, row_norm: f32) -> ([u16; LANES], u32);
    /// The scores, and how far off the distances are that follow from them. `columns` [n_features], where scores are of whole values.
    unsafe fn scores(
        &self,
        columns: &[[f32; LANES]],
        centroids: &FloatCentroids,
        row_norm: f32,
    ) -> (Scores, DistanceError);
}

/// Best and second best score of each row of a group, and the position of the best.
pub(super) struct Best<L, const TILES: usize> {
    pub(super) score: [L; TILES],
    pub(super) second_score: [L; TILES],
    /// Positions as floats: 65,535 and less are exact, and one kind of register is enough.
    pub(super) idx: [L; TILES],
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

impl<L: Lanes> Best<L, 1> {
    /// Of each of the rows `columns` [n_features] that were scored, by its own norm.
    #[inline(always)]
    pub(super) unsafe fn of_rows(
        &self,
        columns: &[[f32; LANES]],
        centroids: &FloatCentroids,
    ) -> [NearestToRow; LANES] {
        let (mut best, mut second, mut idxs) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
        // SAFETY: passed on to the caller.
        let squares = unsafe {
            self.score[0].store(&mut best);
            self.second_score[0].store(&mut second);
            self.idx[0].store(&mut idxs);
            squared_norms::<L>(columns)
        };
        let labels = as_labels(idxs);
        let mut nearest = [NearestToRow::default(); LANES];
        for lane in 0..LANES {
            nearest[lane] =
                centroids.nearest(squares[lane], labels[lane], best[lane], second[lane]);
        }
        nearest
    }
}

impl<L: Lanes> Found for Best<L, 1> {
    type Floats = L;
    const IS_COARSE: bool = false;

    #[inline(always)]
    unsafe fn labels(&self, centroids: &FloatCentroids, row_norm: f32) -> ([u16; LANES], u32) {
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
        centroids: &FloatCentroids,
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
pub(super) unsafe fn sum_of_four<L: Lanes>([a, b, c, d]: [L; 4]) -> L {
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

/// Not by `as`, which looks at each number for what is too large. A loop: closures are not compiled for the instruction set.
#[inline(always)]
fn as_labels(idxs: [f32; LANES]) -> [u16; LANES] {
    let mut labels = [0; LANES];
    for (label, idx) in labels.iter_mut().zip(idxs) {
        *label = whole(idx) as u16;
    }
    labels
}

/// `tiles` [TILES][n_features]; the lines `ahead` are fetched meanwhile.
#[inline(always)]
pub(super) unsafe fn score<L: Lanes, B: Tally<L, TILES>, const TILES: usize>(
    tiles: &[&[[f32; LANES]]; TILES],
    centroids: &FloatCentroids,
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
