//! Adds each row to the sums of its cluster, in integers, while the tile is still in cache.
//!
//! Twin of `shaders/accumulate.wgsl`.

use crate::{LANES, Partial};

/// Turns tiles into rows, once for all candidates: `tiles` [n_tiles x n_features x LANES], `rows` [n_tiles x LANES x n_features].
#[inline(always)]
pub(super) fn to_rows(tiles: &[f32], n_features: usize, rows: &mut [i32]) {
    let tile_len = LANES * n_features;
    for (tile, rows) in tiles
        .chunks_exact(tile_len)
        .zip(rows.chunks_exact_mut(tile_len))
    {
        let (columns, _) = tile.as_chunks::<LANES>();
        for (feature_idx, column) in columns.iter().enumerate() {
            for lane in 0..LANES {
                rows[lane * n_features + feature_idx] = column[lane] as i32;
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
