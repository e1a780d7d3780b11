//! Tiles of raw values on their way to the grid, a few at a time, so that what is done with them next finds them in the cache.

use std::ops::Range;

use crate::LANES;

/// Tiles of a block whose values are not on the grid yet.
pub trait PutOnGrid {
    /// Puts the tiles `tile_idxs` of the block, which `tiles` [n_tiles x n_features x LANES] are, on the grid, in place. Each is put there
    /// once.
    fn place(&mut self, tile_idxs: &[usize], tiles: &mut [f32]);

    /// As [`PutOnGrid::place`], of copies, however often.
    fn try_out(&self, tile_idxs: &[usize], tiles: &mut [f32]);
}

/// Of values that are on the grid already.
pub(crate) struct OnGrid;

impl PutOnGrid for OnGrid {
    fn place(&mut self, _: &[usize], _: &mut [f32]) {}

    fn try_out(&self, _: &[usize], _: &mut [f32]) {}
}

/// Bytes of tiles that pass through the cache at a time.
const STRIP_BYTES: usize = 128 << 10;

/// The tiles of a block, some at a time: few enough to stay in the cache.
pub fn strips(n_tiles: usize, n_features: usize) -> impl Iterator<Item = Range<usize>> {
    let n_together = (STRIP_BYTES / size_of::<f32>() / LANES / n_features).max(1);
    let firsts = (0..n_tiles).step_by(n_together);
    firsts.map(move |first| first..n_tiles.min(first + n_together))
}

/// Puts some tiles on the grid.
pub(crate) fn place_strip<'a>(
    tiles: &'a mut [f32],
    n_features: usize,
    strip: Range<usize>,
    raw: &mut dyn PutOnGrid,
) -> &'a [f32] {
    let stride = LANES * n_features;
    let tiles = &mut tiles[strip.start * stride..strip.end * stride];
    let tile_idxs: Vec<usize> = strip.collect();
    raw.place(&tile_idxs, tiles);
    tiles
}
