//! Scores from products of 16-bit integers: twice as many a cycle as multiply-adds of `f32`, of rows and centroids rounded to 15 bits.
//!
//! What they cannot tell apart is scored again in `f32`, and what that cannot, in exact integers. Rows are scaled by a power of two a
//! tile, centroids by a number a candidate, so that nothing overflows and no bit is wasted.

use super::centroids::{DistanceError, PackedCentroids, Panel, cut_in_panels};
use super::lanes::Lanes;
use super::score::{CentroidTile, Found, Scores, Uncertain, score_row, squared_norms};
use super::shorts::Shorts;
use super::sums::lanes_of;
use crate::{Centroids, LANES};

/// No scaled row or centroid is longer than this, nor any value of theirs: 2^15 less room for roundings. The product of two is below 2^30
/// then, half a square below 2^29, and scores fit 32 bits with one to spare.
const LONGEST: f64 = 32_704.0;
/// Roundings of a half each, up to this many, stay within that room. Above, the rounded rows of a group leave the first-level cache.
pub(super) const MAX_FEATURES: usize = 256;
/// Below, rounding the rows costs more than it saves.
pub(super) const MIN_CLUSTERS: usize = 3;
/// Rows are scaled by 2^0 to 2^-12: grid values are below 2^22, so that rows of [`MAX_FEATURES`] of them are shorter than 2^26.
const N_SCALES: usize = 13;

/// One candidate's centroids, as pairs.
#[derive(Clone)]
pub(super) struct ShortCentroids {
    pub(super) panels: Vec<Panel<i32>>,
    /// [N_SCALES x n_distinct] biases at each scale of the rows.
    biases: Vec<i32>,
    /// As they are, for rows that are left in doubt.
    tiles: Vec<CentroidTile>,
    n_clusters: usize,
    /// How long a row or centroid of rounding errors may be, and what of the error of a score is the same for all rows.
    half: f64,
    least_error: f64,
    /// What centroids are multiplied by.
    factor: f64,
    /// Largest norm, in grid steps.
    max_norm: f64,
    /// What indices take of a score.
    idx_mask: i32,
}

/// How the rows of a tile are scaled.
#[derive(Clone, Copy)]
pub(super) struct Scale {
    /// Position among the scales: rows are divided by two to this power.
    exponent: usize,
    row_norm: f64,
}

impl Scale {
    /// What rows are multiplied by.
    pub(super) fn of_rows(self) -> f32 {
        f32::from_bits((127 - self.exponent as u32) << 23)
    }
}

impl ShortCentroids {
    /// `squares` [n_distinct] squared norms, of which `max_norm` is the root of the largest; panels are at most `width` wide, `tiles` the
    /// same centroids.
    pub(super) fn new(
        distinct: &Centroids,
        squares: &[u64],
        max_norm: f64,
        width: usize,
        tiles: Vec<CentroidTile>,
    ) -> Self {
        let n_clusters = distinct.n_clusters();
        // Short centroids stay as they are: integers, and exact.
        let factor = (LONGEST / max_norm).min(1.0);
        let rounded = |value: i32| -(f64::from(value) * factor).round() as i32;
        // The factor covers the roundings of all that is made of this in `f64`.
        let half = (distinct.n_features() as f64).sqrt() / 2.0 * (1.0 + 1e-9);
        let pair = |pair: &[i32]| {
            let high = pair.get(1).map_or(0, |&value| rounded(value));
            (rounded(pair[0]) & 0xffff) | high << 16
        };
        let biases = (0..N_SCALES as i32).flat_map(|exponent| {
            let scale = factor / 2f64.powi(exponent);
            // Those of scales too large for these centroids are never asked for.
            squares
                .iter()
                .map(move |&square| (square as f64 / 2.0 * scale).round() as i32)
        });
        Self {
            panels: cut_in_panels(n_clusters, width, |idx| {
                distinct.row(idx).chunks(2).map(pair)
            }),
            biases: biases.collect(),
            tiles,
            n_clusters,
            half,
            least_error: half * (factor * max_norm + half) + 0.5,
            factor,
            max_norm,
            idx_mask: n_clusters.next_power_of_two() as i32 - 1,
        }
    }

    /// How to scale rows of norm `row_norm` at most, so that scores with these centroids fit.
    #[inline(always)]
    pub(super) fn scale(&self, row_norm: f32) -> Scale {
        let row_norm = f64::from(row_norm);
        let ratio = row_norm.max(self.max_norm) / LONGEST;
        let above = (ratio.to_bits() >> 52) as i64 - 1022;
        Scale {
            exponent: (above.max(0) as usize).min(N_SCALES - 1),
            row_norm,
        }
    }

    /// [n_distinct] the biases at a scale.
    #[inline(always)]
    pub(super) fn biases(&self, scale: Scale) -> &[i32] {
        &self.biases[scale.exponent * self.n_clusters..][..self.n_clusters]
    }

    /// How far a score at this scale may be off, in its own units.
    ///
    /// With s the scale of the rows and f the factor of the centroids, a rounded value is off by a half at most, and so a rounded row or
    /// centroid by `h = sqrt(d) / 2`. Of `x' = s x + e` and `c' = f c + g` the product is `x'.c' - s x.f c = e.(f c) + x'.g`, which by Cauchy
    /// and Schwarz is below `h f C + (s X + h) h`; the bias is rounded once, and products and sums of integers are exact.
    #[inline(always)]
    fn error(&self, scale: Scale) -> f64 {
        self.least_error + self.half * f64::from(scale.of_rows()) * scale.row_norm
    }

    /// If the second best score of a row is more than this above the best, the best centroid is the nearest. Both are in doubt by
    /// [`ShortCentroids::error`], and the low bits of each hold an index.
    #[inline(always)]
    pub(super) fn certain_gap(&self, scale: Scale) -> u32 {
        // Below 2^24: an error is below 16 * 2^17, an index below 2^16.
        (2.0 * self.error(scale)) as u32 + 1 + self.idx_mask as u32
    }
}

/// Best and second best score of each row of a group, with the index of the centroid in their low bits.
pub(super) struct BestShort<S, const TILES: usize> {
    score: [S; TILES],
    second_score: [S; TILES],
}

impl<S: Shorts, const TILES: usize> BestShort<S, TILES> {
    /// What concerns one tile.
    #[inline(always)]
    pub(super) fn of_tile<'a>(
        &self,
        tile: usize,
        centroids: &'a ShortCentroids,
        scale: Scale,
    ) -> FoundShort<'a, S> {
        FoundShort {
            score: self.score[tile],
            second_score: self.second_score[tile],
            centroids,
            scale,
        }
    }
}

/// [`BestShort`] of one tile.
pub(super) struct FoundShort<'a, S> {
    score: S,
    second_score: S,
    centroids: &'a ShortCentroids,
    scale: Scale,
}

impl<S: Shorts> Found for FoundShort<'_, S> {
    type Floats = S::Floats;

    #[inline(always)]
    unsafe fn labels(
        &self,
        columns: &[[f32; LANES]],
        centroids: &PackedCentroids,
        row_norm: f32,
    ) -> ([u16; LANES], Uncertain) {
        let mut scores = [0; LANES];
        let gap = self.centroids.certain_gap(self.scale);
        // SAFETY: passed on to the caller.
        let scored_again = unsafe {
            self.score.store(&mut scores);
            self.second_score.within(self.score, gap)
        };
        let mut labels = [0; LANES];
        for (label, score) in labels.iter_mut().zip(scores) {
            *label = (score & self.centroids.idx_mask) as u16;
        }
        let mut still = 0;
        if scored_again != 0 {
            let gap = centroids.certain_gap(row_norm);
            for lane in lanes_of(scored_again) {
                // SAFETY: passed on to the caller.
                let (label, is_certain) =
                    unsafe { score_row::<S::Floats>(columns, lane, &self.centroids.tiles, gap) };
                labels[lane] = label;
                still |= u32::from(!is_certain) << lane;
            }
        }
        let uncertain = Uncertain {
            still,
            scored_again,
        };
        (labels, uncertain)
    }

    #[inline(always)]
    unsafe fn scores(
        &self,
        columns: &[[f32; LANES]],
        centroids: &PackedCentroids,
        row_norm: f32,
    ) -> (Scores, DistanceError) {
        let (mut best, mut second) = ([0; LANES], [0; LANES]);
        // SAFETY: passed on to the caller.
        let squares = unsafe {
            self.score.store(&mut best);
            self.second_score.store(&mut second);
            squared_norms::<S::Floats>(columns)
        };
        let per_unit = 1.0 / (self.centroids.factor * f64::from(self.scale.of_rows()));
        let to_grid = per_unit as f32;
        let mut scores = Scores {
            best: [0.0; LANES],
            second: [0.0; LANES],
            squares,
        };
        for lane in 0..LANES {
            scores.best[lane] = best[lane] as f32 * to_grid;
            scores.second[lane] = second[lane] as f32 * to_grid;
        }
        // Three roundings by 2^-24 of numbers below 2^31 are below 2^9 together.
        let own = self.centroids.error(self.scale) + f64::from(self.centroids.idx_mask) + 512.0;
        let mut error = centroids.distance_error(row_norm);
        error.of_square = (error.of_square + (2.0 * own * per_unit) as f32) * (1.0 + 1e-6);
        (scores, error)
    }
}

/// Rounds the rows of a group: `rounded` becomes [n_pairs x TILES].
#[inline(always)]
pub(super) unsafe fn round_rows<S: Shorts, const TILES: usize>(
    tiles: &[&[[f32; LANES]]; TILES],
    scales: &[Scale; TILES],
    rounded: &mut Vec<[i32; LANES]>,
) {
    const NOTHING: [f32; LANES] = [0.0; LANES];
    let n_features = tiles[0].len();
    rounded.resize(n_features.div_ceil(2) * TILES, [0; LANES]);
    for tile in 0..TILES {
        let (pairs, odd) = tiles[tile].as_chunks::<2>();
        let mut places = rounded.iter_mut().skip(tile).step_by(TILES);
        // SAFETY: passed on to the caller.
        unsafe {
            let scale = scales[tile].of_rows();
            for ([low, high], place) in pairs.iter().zip(&mut places) {
                S::round_pairs(low, high, scale).store(place);
            }
            if let ([low], Some(place)) = (odd, places.next()) {
                S::round_pairs(low, &NOTHING, scale).store(place);
            }
        }
    }
}

/// `rounded` [n_pairs x TILES] as [`round_rows`] leaves it; the lines `ahead` are fetched meanwhile.
#[inline(always)]
pub(super) unsafe fn score_short<S: Shorts, const TILES: usize>(
    rounded: &[[i32; LANES]],
    scales: &[Scale; TILES],
    centroids: &ShortCentroids,
    ahead: &[[f32; LANES]],
) -> BestShort<S, TILES> {
    let mut biases = [&[][..]; TILES];
    for (biases, scale) in biases.iter_mut().zip(scales) {
        *biases = centroids.biases(*scale);
    }
    let (rounded, _) = rounded.as_chunks::<TILES>();
    // SAFETY: passed on to the caller.
    unsafe {
        let mut best = BestShort {
            score: [S::splat(i32::MAX); TILES],
            second_score: [S::splat(i32::MAX); TILES],
        };
        let share = ahead.len().div_ceil(centroids.panels.len());
        let mut shares = ahead.chunks(share.max(1));
        for panel in &centroids.panels {
            let ahead = shares.next().unwrap_or_default();
            macro_rules! score_panel {
                ($width:literal) => {
                    score_panel::<S, TILES, $width>(
                        rounded,
                        &biases,
                        panel,
                        centroids.idx_mask,
                        ahead,
                        &mut best,
                    )
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
                _ => score_panel!(8),
            }
        }
        best
    }
}

#[inline(always)]
unsafe fn score_panel<S: Shorts, const TILES: usize, const WIDTH: usize>(
    rounded: &[[[i32; LANES]; TILES]],
    biases: &[&[i32]; TILES],
    panel: &Panel<i32>,
    idx_mask: i32,
    ahead: &[[f32; LANES]],
    best: &mut BestShort<S, TILES>,
) {
    let n_pairs = rounded.len();
    let values = &panel.values.as_chunks::<WIDTH>().0[..n_pairs];
    // Two features are scored at a time.
    let (ahead, _) = ahead.as_chunks::<TILES>();
    let (ahead, _) = ahead.as_chunks::<2>();
    let ahead = &ahead[..ahead.len().min(n_pairs)];
    // SAFETY: passed on to the caller.
    unsafe {
        let mut scores = [[S::splat(0); TILES]; WIDTH];
        for tile in 0..TILES {
            let biases = &biases[tile][panel.first_idx..][..WIDTH];
            for member in 0..WIDTH {
                scores[member][tile] = S::splat(biases[member]);
            }
        }
        for (pair_idx, lines) in ahead.iter().enumerate() {
            for line in lines.as_flattened() {
                S::Floats::prefetch(line);
            }
            add_products(&rounded[pair_idx], &values[pair_idx], &mut scores);
        }
        for pair_idx in ahead.len()..n_pairs {
            add_products(&rounded[pair_idx], &values[pair_idx], &mut scores);
        }
        let mask = S::splat(idx_mask);
        for (member, scores) in scores.into_iter().enumerate() {
            let idx = S::splat((panel.first_idx + member) as i32);
            for (tile, score) in scores.into_iter().enumerate() {
                let score = score.with_bits(mask, idx);
                let least = best.score[tile];
                best.second_score[tile] = best.second_score[tile].min(least.max(score));
                best.score[tile] = least.min(score);
            }
        }
    }
}

/// The share of one pair of features in the scores of a panel.
#[inline(always)]
unsafe fn add_products<S: Shorts, const TILES: usize, const WIDTH: usize>(
    rounded: &[[i32; LANES]; TILES],
    values: &[i32; WIDTH],
    scores: &mut [[S; TILES]; WIDTH],
) {
    // SAFETY: passed on to the caller.
    unsafe {
        let mut x = [S::splat(0); TILES];
        for tile in 0..TILES {
            x[tile] = S::load(&rounded[tile]);
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
