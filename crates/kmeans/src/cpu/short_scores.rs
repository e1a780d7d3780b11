//! Scores from products of 16-bit integers: half the bytes to read and up to twice as many products a cycle as in `f32`, of the upper
//! bits of rows and of centroids rounded to 15.
//!
//! What they cannot tell apart is scored again in `f32`, and what that cannot, in exact integers. Rows are those of a block less its
//! origin (see [`Split`]), centroids are scaled by a number of their own, so that nothing overflows and few bits are wasted.

use super::centroids::{DistanceError, FloatCentroids, error_of_square};
use super::lanes::Lanes;
use super::score::{Found, Scores};
use super::shorts::Shorts;
use crate::split::{LONGEST, Split};
use crate::{Centroids, LANES};

/// One candidate's centroids, as pairs, for the rows of one block.
pub(super) struct ShortCentroids {
    /// Centroids scored together. The last panel is filled up with such as are out of reach.
    width: usize,
    /// [n_panels x n_pairs x width]
    panels: Vec<i32>,
    /// Pairs of a tile for each panel: what is fetched while it is scored. All at once would fill the queue of the memory.
    share: usize,
    /// [n_panels x width]
    biases: Vec<i32>,
    /// [n_panels x width] as they stand in the low bits of a score. That of a centroid out of reach says nothing, and must fit.
    idxs: Vec<i32>,
    /// How long a row or centroid of rounding errors may be, and what of the error of a score is the same for all rows.
    half: f64,
    least_error: f64,
    /// By powers of the norm of a row, the terms of [`ShortCentroids::certain_gap`].
    gap: [f32; 2],
    /// Grid steps squared in a unit of the scores, and grid steps in one of the rows.
    per_unit: f64,
    step: f64,
    /// Largest norm less the origin, in grid steps.
    max_norm: f64,
    /// See [`error_of_square`].
    of_square: [f64; 3],
    /// What indices take of a score.
    idx_mask: i32,
}

impl ShortCentroids {
    /// Panels are at most `width` wide.
    pub(super) fn new(distinct: &Centroids, split: &Split, width: usize) -> Self {
        let (n_clusters, n_features) = (distinct.n_clusters(), distinct.n_features());
        let origin = split.origin();
        let square = |centroid: &[i32]| {
            let mut square = 0;
            for (&c, &o) in centroid.iter().zip(origin) {
                let c = i64::from(c - o);
                square += c * c;
            }
            square
        };
        let squares: Vec<i64> = distinct.rows().map(square).collect();
        let max_square = squares.iter().copied().max().unwrap_or(0);
        // Three roundings of 2^-53 each; the factor covers thousands.
        let max_norm = (max_square as f64).sqrt() * (1.0 + 1e-12);
        let step = f64::from(1 << split.shift());
        // No centroid is longer than a row may be, and half the square of one takes no more room than a product with a row. Short
        // centroids stay as they are: integers, and exact.
        let factor = (LONGEST / max_norm).min(LONGEST / max_norm * (LONGEST * step / max_norm));
        let factor = factor.min(1.0);
        // The factor covers the roundings of all that is made of this in `f64`.
        let half = (n_features as f64).sqrt() / 2.0 * (1.0 + 1e-9);
        let rounded = |c: i32, o: i32| whole(f64::from(o - c) * factor);
        let pairs = |idx: usize| {
            let pairs = distinct.row(idx).chunks(2).zip(origin.chunks(2));
            pairs.map(|(centroid, origin)| {
                let high = match (centroid.get(1), origin.get(1)) {
                    (Some(&c), Some(&o)) => rounded(c, o),
                    _ => 0,
                };
                (rounded(centroid[0], origin[0]) & 0xffff) | high << 16
            })
        };
        let least_error = half * (factor * max_norm + half) + 0.5;
        // Whole bytes, which any instruction set can put in place at once.
        let idx_mask = if n_clusters <= 1 << 8 { 0xff } else { 0xffff };
        // Four roundings by 2^-24, and one down to a whole number.
        let rounded_up = |term: f64| (term * (1.0 + 1e-6)) as f32;
        let constant = 2.0 * least_error + f64::from(idx_mask) + 2.0;
        let biases = squares.iter();
        let mut biases: Vec<i32> = biases
            .map(|&square| whole(square as f64 / 2.0 * (factor / step)))
            .collect();
        let n_pairs = n_features.div_ceil(2);
        // As few as there must be, and then as narrow as these may be.
        let n_panels = n_clusters.div_ceil(width);
        let width = n_clusters.div_ceil(n_panels);
        let mut panels = vec![0; n_panels * n_pairs * width];
        for (panel_idx, panel) in panels.chunks_exact_mut(n_pairs * width).enumerate() {
            for member in 0..width.min(n_clusters - panel_idx * width) {
                for (values, pair) in panel
                    .chunks_exact_mut(width)
                    .zip(pairs(panel_idx * width + member))
                {
                    values[member] = pair;
                }
            }
        }
        biases.resize(n_panels * width, i32::MAX);
        let idxs = (0..(n_panels * width) as i32).map(|idx| idx & idx_mask);
        Self {
            width,
            panels,
            share: n_pairs.div_ceil(n_panels),
            biases,
            idxs: idxs.collect(),
            half,
            least_error,
            gap: [rounded_up(constant), rounded_up(2.0 * half / step)],
            per_unit: step / factor,
            step,
            max_norm,
            of_square: error_of_square(n_features, max_norm),
            idx_mask,
        }
    }

    /// In grid steps squared: scores, and `|x|^2` in steps of the rows.
    #[inline(always)]
    fn to_grid(
        &self,
        best: &[i32; LANES],
        second: &[i32; LANES],
        squares: &[i32; LANES],
    ) -> Scores {
        let (per_unit, step) = (self.per_unit as f32, self.step as f32);
        let mut scores = Scores {
            best: [0.0; LANES],
            second: [0.0; LANES],
            squares: [0.0; LANES],
        };
        for lane in 0..LANES {
            scores.best[lane] = best[lane] as f32 * per_unit;
            scores.second[lane] = second[lane] as f32 * per_unit;
            scores.squares[lane] = squares[lane] as f32 * (step * step);
        }
        scores
    }

    /// How far a score of rows of norm `row_norm` at most may be off, in its own units.
    ///
    /// With s the step of the rows and f the factor of the centroids, both less the origin, a rounded value is off by a half at most, and so
    /// a rounded row or centroid by `h = sqrt(d) / 2`. Of `x' = x / s + e` and `c' = f c + g` the product is
    /// `x'.c' - x.f c / s = e.(f c) + x'.g`, which by Cauchy and Schwarz is below `h f C + (X / s + h) h`; the bias is rounded once, and
    /// products and sums of integers are exact.
    #[inline(always)]
    fn error(&self, row_norm: f32) -> f64 {
        self.least_error + self.half * (f64::from(row_norm) / self.step)
    }

    /// If the second best score of a row is more than this above the best, the best centroid is the nearest. Both are in doubt by
    /// [`ShortCentroids::error`], and the low bits of each hold an index.
    #[inline(always)]
    fn certain_gap(&self, row_norm: f32) -> u32 {
        // Below 2^24: an error is below 16 * 2^17, an index below 2^16.
        let [constant, linear] = self.gap;
        (linear * row_norm + constant) as i32 as u32
    }

    /// How far off distances are that follow from scores, of rows of norm `row_norm` at most.
    ///
    /// With X, s, e and h as in [`ShortCentroids::error`], `|x'|^2` is off by `2 X / s h + h^2` at most, in steps squared.
    #[inline(always)]
    fn distance_error(&self, row_norm: f32) -> DistanceError {
        // Three roundings by 2^-24 of numbers below 2^31 are below 2^9 together.
        let of_score = self.error(row_norm) + f64::from(self.idx_mask) + 512.0;
        let of_row = (2.0 * f64::from(row_norm) / self.step + self.half) * self.half;
        let coarse = 2.0 * of_score * self.per_unit + of_row * self.step * self.step;
        DistanceError::new(&self.of_square, self.max_norm, row_norm, coarse)
    }
}

/// The whole number nearest to one below 2^31 in magnitude: added to this, it lies in the low bits.
#[inline(always)]
fn whole(value: f64) -> i32 {
    const ROUNDER: f64 = 1.5 * (1_u64 << 52) as f64;
    (value + ROUNDER).to_bits() as i32
}

/// Best and second best score of each row of a group, with the index of the centroid in their low bits.
pub(super) struct BestShort<S, const TILES: usize> {
    score: [S; TILES],
    second_score: [S; TILES],
}

impl<S: Shorts, const TILES: usize> BestShort<S, TILES> {
    /// What concerns one tile, whose rows less the origin are of norm `row_norm` at most.
    #[inline(always)]
    pub(super) fn of_tile<'a>(
        &self,
        tile: usize,
        pairs: &'a [[i32; LANES]],
        centroids: &'a ShortCentroids,
        row_norm: f32,
    ) -> FoundShort<'a, S> {
        FoundShort {
            score: self.score[tile],
            second_score: self.second_score[tile],
            pairs,
            centroids,
            row_norm,
        }
    }
}

/// [`BestShort`] of one tile.
pub(super) struct FoundShort<'a, S> {
    score: S,
    second_score: S,
    pairs: &'a [[i32; LANES]],
    centroids: &'a ShortCentroids,
    row_norm: f32,
}

impl<S: Shorts> Found for FoundShort<'_, S> {
    type Floats = S::Floats;
    const IS_COARSE: bool = true;

    #[inline(always)]
    unsafe fn labels(&self, _: &FloatCentroids, _: f32) -> ([u16; LANES], u32) {
        let mut scores = [0; LANES];
        let gap = self.centroids.certain_gap(self.row_norm);
        // SAFETY: passed on to the caller.
        let uncertain = unsafe {
            self.score.store(&mut scores);
            self.second_score.within(self.score, gap)
        };
        let mut labels = [0; LANES];
        for (label, score) in labels.iter_mut().zip(scores) {
            *label = (score & self.centroids.idx_mask) as u16;
        }
        (labels, uncertain)
    }

    #[inline(always)]
    unsafe fn scores(
        &self,
        _: &[[f32; LANES]],
        _: &FloatCentroids,
        _: f32,
    ) -> (Scores, DistanceError) {
        let (mut best, mut second) = ([0; LANES], [0; LANES]);
        // SAFETY: passed on to the caller.
        let squares = unsafe {
            self.score.store(&mut best);
            self.second_score.store(&mut second);
            squares::<S>(self.pairs)
        };
        let scores = self.centroids.to_grid(&best, &second, &squares);
        (scores, self.centroids.distance_error(self.row_norm))
    }
}

/// `|x|^2` of the upper bits of the rows of a tile.
#[inline(always)]
unsafe fn squares<S: Shorts>(pairs: &[[i32; LANES]]) -> [i32; LANES] {
    let mut squares = [0; LANES];
    // SAFETY: passed on to the caller.
    unsafe {
        // Two sums side by side: one would wait for itself with each pair.
        let mut sums = [S::splat(0); 2];
        for (pair_idx, pair) in pairs.iter().enumerate() {
            let x = S::load(pair);
            sums[pair_idx % 2] = sums[pair_idx % 2].plus_products(x, x);
        }
        sums[0].plus(sums[1]).store(&mut squares);
    }
    squares
}

/// `tiles` [TILES][n_pairs]; the lines `ahead` are fetched meanwhile.
#[inline(always)]
pub(super) unsafe fn score_short<S: Shorts, const TILES: usize>(
    tiles: &[&[[i32; LANES]]; TILES],
    centroids: &ShortCentroids,
    ahead: &[[f32; LANES]],
) -> BestShort<S, TILES> {
    macro_rules! score_panels {
        ($width:literal) => {
            // SAFETY: passed on to the caller.
            unsafe { score_panels::<S, TILES, $width>(tiles, centroids, ahead) }
        };
    }
    match centroids.width {
        1 => score_panels!(1),
        2 => score_panels!(2),
        3 => score_panels!(3),
        4 => score_panels!(4),
        5 => score_panels!(5),
        6 => score_panels!(6),
        7 => score_panels!(7),
        _ => score_panels!(8),
    }
}

#[inline(always)]
unsafe fn score_panels<S: Shorts, const TILES: usize, const WIDTH: usize>(
    tiles: &[&[[i32; LANES]]; TILES],
    centroids: &ShortCentroids,
    ahead: &[[f32; LANES]],
) -> BestShort<S, TILES> {
    let n_pairs = tiles[0].len();
    let mut same_length = *tiles;
    for tile in &mut same_length {
        *tile = &tile[..n_pairs];
    }
    let tiles = same_length;
    let (biases, _) = centroids.biases.as_chunks::<WIDTH>();
    let (idxs, _) = centroids.idxs.as_chunks::<WIDTH>();
    let (mut ahead, _) = ahead.as_chunks::<TILES>();
    // SAFETY: passed on to the caller.
    unsafe {
        let mut best = BestShort {
            score: [S::splat(i32::MAX); TILES],
            second_score: [S::splat(i32::MAX); TILES],
        };
        let mask = S::splat(centroids.idx_mask);
        let (mut panels, _) = centroids.panels.as_chunks::<WIDTH>();
        for (biases, idxs) in biases.iter().zip(idxs) {
            let (panel, others) = panels.split_at(n_pairs);
            panels = others;
            let mut scores = [[S::splat(0); TILES]; WIDTH];
            for (scores, &bias) in scores.iter_mut().zip(biases) {
                *scores = [S::splat(bias); TILES];
            }
            let (own, others) = ahead.split_at(centroids.share.min(ahead.len()));
            ahead = others;
            let mut products = panel.iter().zip(tiles[0]).enumerate();
            for (lines, (pair_idx, (values, pair))) in own.iter().zip(&mut products) {
                for line in lines {
                    S::Floats::prefetch(line);
                }
                add_products(pairs_of(&tiles, pair_idx, pair), values, &mut scores);
            }
            for (pair_idx, (values, pair)) in products {
                add_products(pairs_of(&tiles, pair_idx, pair), values, &mut scores);
            }
            for (scores, &idx) in scores.into_iter().zip(idxs) {
                let idx = S::splat(idx);
                for (tile, score) in scores.into_iter().enumerate() {
                    let score = score.with_bits(mask, idx);
                    let least = best.score[tile];
                    best.second_score[tile] = best.second_score[tile].min(least.max(score));
                    best.score[tile] = least.min(score);
                }
            }
        }
        best
    }
}

/// A pair of features of all tiles, that of the first tile being `pair`: a group of one needs no index.
#[inline(always)]
fn pairs_of<'a, const TILES: usize>(
    tiles: &[&'a [[i32; LANES]]; TILES],
    pair_idx: usize,
    pair: &'a [i32; LANES],
) -> [&'a [i32; LANES]; TILES] {
    let mut pairs = [pair; TILES];
    for tile in 1..TILES {
        pairs[tile] = &tiles[tile][pair_idx];
    }
    pairs
}

/// The share of one pair of features in the scores of a panel.
#[inline(always)]
unsafe fn add_products<S: Shorts, const TILES: usize, const WIDTH: usize>(
    pairs: [&[i32; LANES]; TILES],
    values: &[i32; WIDTH],
    scores: &mut [[S; TILES]; WIDTH],
) {
    // SAFETY: passed on to the caller.
    unsafe {
        let mut x = [S::splat(0); TILES];
        for tile in 0..TILES {
            x[tile] = S::load(pairs[tile]);
        }
        for member in 0..WIDTH {
            let c = S::splat(values[member]);
            for tile in 0..TILES {
                scores[member][tile] = scores[member][tile].plus_products(x[tile], c);
            }
        }
    }
}

#[cfg(test)]
mod tests;
