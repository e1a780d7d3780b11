//! Adds each row to the sums of its cluster, in integers, while the tile is still in cache.
//!
//! On the GPU the same happens within `shaders/assign.wgsl`.

use super::lanes::Lanes;
use crate::{LANES, Partial};

/// Turns tiles into rows, once for all candidates: `tiles` [n_tiles x n_features x LANES], `rows` [n_tiles x LANES x n_features].
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
pub(super) unsafe fn to_rows<L: Lanes>(tiles: &[f32], n_features: usize, rows: &mut [i32]) {
    let tile_len = LANES * n_features;
    for (tile, rows) in tiles
        .chunks_exact(tile_len)
        .zip(rows.chunks_exact_mut(tile_len))
    {
        let (columns, _) = tile.as_chunks::<LANES>();
        let (fours, rest) = columns.as_chunks::<4>();
        for (four_idx, four) in fours.iter().enumerate() {
            let rows = &mut rows[4 * four_idx..];
            // SAFETY: the caller keeps the contract of `Lanes`.
            unsafe { L::transpose(four, rows, n_features) };
        }
        for (column, feature_idx) in rest.iter().zip(4 * fours.len()..) {
            for (lane, &value) in column.iter().enumerate() {
                rows[lane * n_features + feature_idx] = value as i32;
            }
        }
    }
}

/// `rows` [at least n_labels x n_features], `labels` [n_labels]; counts and sums of `partial` are added to.
///
/// The prototype added in i32 and flushed every 511 rows; with 64-bit adds there is nothing to flush and nothing to prove.
#[inline(always)]
pub(super) fn accumulate(rows: &[i32], labels: &[u16], n_features: usize, partial: &mut Partial) {
    for (row, &label) in rows.chunks_exact(n_features).zip(labels) {
        let label = usize::from(label);
        partial.counts[label] += 1;
        let sums = &mut partial.sums[label * n_features..][..n_features];
        for (sum, &value) in sums.iter_mut().zip(row) {
            *sum += i64::from(value);
        }
    }
}
