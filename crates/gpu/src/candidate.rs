//! Centroids and rows as the assignment shader reads them, and the bound on its error.

use std::collections::HashMap;
use std::sync::Arc;

use clientele_kmeans::Centroids;

use crate::shaders::CLUSTER_TILE;

const HALF_TILE: usize = CLUSTER_TILE / 2;

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
    /// Values of a centroid.
    pub n_features: usize,
    /// Tiles of 8 centroids; up to 4 left over make half a tile, more than 4 a whole one.
    pub n_tiles: usize,
    /// Whether half a tile follows.
    pub has_half_tile: bool,
    /// For each tile a line of biases |c|^2 / 2 and then, a feature at a time, a line of values -c; a line is as long as the tile.
    pub tiles: Vec<f32>,
    /// Rows whose best two scores differ by more than `bound_slope * norm + bound_base` are certain.
    pub bound_slope: f32,
    pub bound_base: f32,
    /// Not below the norm of any centroid.
    pub largest_norm: f32,
    /// Squared distances that follow from scores are off by no more than this times `(norm + largest_norm)^2`.
    pub distance_slop: f32,
}

impl From<&Centroids> for Packed {
    fn from(centroids: &Centroids) -> Self {
        let original_idx = distinct(centroids);
        let rows: Vec<&[i32]> = original_idx
            .iter()
            .map(|&idx| centroids.row(usize::from(idx)))
            .collect();
        let (bound_slope, bound_base) = error_bound(&rows);
        let largest_square = rows.iter().map(|row| square_norm(row)).fold(0.0, f64::max);
        let for_device = Arc::new(DeviceCandidate {
            n_clusters: rows.len(),
            n_features: centroids.n_features(),
            n_tiles: (rows.len() + HALF_TILE - 1) / CLUSTER_TILE,
            has_half_tile: (1..=HALF_TILE).contains(&(rows.len() % CLUSTER_TILE)),
            tiles: tiles(&rows, centroids.n_features()),
            bound_slope,
            bound_base,
            // A few roundings of 2^-53; this covers thousands.
            largest_norm: at_least(largest_square.sqrt() * (1.0 + 1e-12)),
            distance_slop: distance_slop(centroids.n_features()),
        });
        Self {
            for_device,
            original_idx,
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

fn tiles(rows: &[&[i32]], n_features: usize) -> Vec<f32> {
    let mut tiles = Vec::with_capacity(rows.len().next_multiple_of(HALF_TILE) * (n_features + 1));
    for tile in rows.chunks(CLUSTER_TILE) {
        let width = if tile.len() > HALF_TILE {
            CLUSTER_TILE
        } else {
            HALF_TILE
        };
        let padded = || (0..width).map(|idx| tile.get(idx));
        tiles.extend(padded().map(|row| row.map_or(FAR, |row| (square_norm(row) / 2.0) as f32)));
        for feature_idx in 0..n_features {
            tiles.extend(padded().map(|row| row.map_or(0.0, |row| -row[feature_idx] as f32)));
        }
    }
    tiles
}

/// How far apart the best two scores must be to be in the right order: `slope * X + base`, for any X not below |x|.
///
/// A score `|c|^2 / 2 - x.c` is a sum of d + 1 terms. Whatever the order of summation, and fused or not, no term passes through
/// more than d + 1 roundings of relative size u, so the score is off by at most
/// `E(x) = g (|c|^2 / 2 + sum_f |x_f c_f|) <= g S` with `g = (d + 1) u / (1 - (d + 1) u)`, `S = C^2 / 2 + |x| C`, `C = max |c|` and
/// Cauchy-Schwarz (Higham, Accuracy and Stability of Numerical Algorithms, 2nd edition, section 3.1). Two scores further apart
/// than `2 E` are in the right order. The device compares with the best score plus the bound, a sum that is itself rounded, by at
/// most `u (S + g S + bound)`; so the bound is `(2 g + u) S` and a little more: it also rounds the product and the sum that make
/// the bound, and 2^-18 is more than all the rest and than the roundings made here.
fn error_bound(rows: &[&[i32]]) -> (f32, f32) {
    let n_terms = rows.first().map_or(0, |row| row.len()) as f64 + 1.0;
    let g = n_terms * UNIT_ROUNDOFF / (1.0 - n_terms * UNIT_ROUNDOFF);
    let largest_square = rows.iter().map(|row| square_norm(row)).fold(0.0, f64::max);
    let slack = 1.0 + g + 1.0 / f64::from(1 << 18);
    let factor = (2.0 * g + UNIT_ROUNDOFF) * slack;
    (
        at_least(factor * largest_square.sqrt()),
        at_least(factor * largest_square / 2.0),
    )
}

/// How far squared distances are off that are made of scores, for each unit of `(X + C)^2`, for any X not below |x| and C not below |c|.
///
/// The square of a distance is `|x|^2 + 2 score`. With g as in [`error_bound`], `|x|^2`, a sum of d squares, is off by `g X^2` at most, and
/// twice a score by `2 g (C^2 / 2 + X C)`: together `g (X + C)^2`. The addition, and that of the slop itself, round numbers of about
/// `(X + C)^2` by u each. A factor of 1 + 2^-10 covers what g is above `(d + 1) u`, what the slop adds to the numbers rounded, and the three
/// roundings that make it on the device.
fn distance_slop(n_features: usize) -> f32 {
    let n_roundings = n_features as f64 + 4.0;
    at_least(n_roundings * UNIT_ROUNDOFF * (1.0 + 1.0 / 1024.0))
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
        let packed = Packed::from(&Centroids::new(2, vec![1, 2, -3, 4])).for_device;
        assert_eq!((packed.n_tiles, packed.has_half_tile), (0, true));
        assert_eq!(packed.tiles.len(), 3 * HALF_TILE);
        assert_eq!(packed.tiles[..3], [2.5, 12.5, FAR]);
        assert_eq!(packed.tiles[HALF_TILE..][..3], [-1.0, 3.0, 0.0]);
        assert_eq!(packed.tiles[2 * HALF_TILE..][..3], [-2.0, -4.0, 0.0]);
    }

    #[test]
    fn what_is_left_over_takes_half_a_tile_or_a_whole_one() {
        let expected = [
            (1, 0, true),
            (4, 0, true),
            (5, 1, false),
            (8, 1, false),
            (9, 1, true),
            (12, 1, true),
            (13, 2, false),
        ];
        for (n_clusters, n_tiles, has_half_tile) in expected {
            let packed = Packed::from(&Centroids::new(1, (0..n_clusters).collect())).for_device;
            assert_eq!(
                (packed.n_tiles, packed.has_half_tile),
                (n_tiles, has_half_tile),
                "{n_clusters}"
            );
            let width = n_tiles * CLUSTER_TILE + if has_half_tile { HALF_TILE } else { 0 };
            assert_eq!(packed.tiles.len(), 2 * width);
        }
    }

    #[test]
    fn the_bound_is_never_rounded_down() {
        // d = 2, C = 5: g is a little above 3 u.
        let (slope, base) = error_bound(&[&[3, 4], &[0, 1]]);
        let u = UNIT_ROUNDOFF;
        assert!(f64::from(slope) > 7.0 * u * 5.0 && f64::from(slope) < 35.01 * u);
        assert!(f64::from(base) > 7.0 * u * 12.5 && f64::from(base) < 87.51 * u);
    }
}
