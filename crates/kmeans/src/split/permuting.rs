//! Rows of a segment that change places, with what is known of their tiles.

use super::{Split, short_squares_of};
use crate::LANES;
use crate::block::{rounded_up_root, squares_of};
use crate::cpu::{Lanes, Vectorised, join, vectorised};
use crate::permute::{Moves, OfRows, SEGMENT_TILES, pick};

impl Split {
    /// Makes `moves` in the segment that begins at tile `first_tile`. `tile_norms` are those of its tiles as [`crate::Block::tile_norms`], and
    /// become those of the new ones.
    pub(crate) fn permute(&mut self, first_tile: usize, moves: &Moves, tile_norms: &mut [f32]) {
        vectorised(Permuting {
            split: self,
            first_tile,
            moves,
            tile_norms,
        });
    }

    /// The rows `from` of some `tiles`, as a tile.
    fn gather(&self, tiles: &[usize], from: &[u16; LANES]) -> Vec<[f32; LANES]> {
        let mut tile = vec![[0.0; LANES]; self.shape.n_features];
        let mut row = vec![[0; LANES]; self.shape.origin.len()];
        for (lane, &place) in from.iter().enumerate() {
            let place = usize::from(place);
            let given = self.tile(tiles[place / LANES]);
            given.pick(place % LANES, &mut row);
            for (column, &value) in tile.iter_mut().zip(row.as_flattened()) {
                column[lane] = value as f32;
            }
        }
        tile
    }
}

/// See [`Split::permute`].
struct Permuting<'a> {
    split: &'a mut Split,
    first_tile: usize,
    moves: &'a Moves,
    tile_norms: &'a mut [f32],
}

impl Vectorised for Permuting<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let Self {
            split,
            first_tile,
            moves,
            tile_norms,
        } = self;
        let n_features = split.shape.n_features;
        let (n_pairs, n_quads) = (split.n_pairs(), split.n_quads());
        let tiles: Vec<usize> = moves.tiles.iter().map(|tile| first_tile + tile).collect();
        let mut columns = vec![[0.0; LANES]; n_features];
        // Of each row.
        let mut squares: OfRows<f32> = [[0.0; LANES]; SEGMENT_TILES];
        let mut short_squares: OfRows<f32> = [[0.0; LANES]; SEGMENT_TILES];
        let mut shifts: OfRows<u32> = [[0; LANES]; SEGMENT_TILES];
        for (nth, &tile_idx) in tiles.iter().enumerate() {
            let tile = split.tile(tile_idx);
            // SAFETY: passed on to the caller.
            unsafe { join::<L>(tile, &mut columns) };
            squares[nth] = squares_of(&columns);
            short_squares[nth] = short_squares_of(&columns, split.origin());
            shifts[nth] = [tile.shift; LANES];
        }
        // Tiles with a row that was cut in another way than all are now, with that.
        let mut mixed = Vec::new();
        let mut short_norms = Vec::with_capacity(tiles.len());
        for ((&tile_idx, &tile), from) in tiles.iter().zip(&moves.tiles).zip(&moves.from) {
            tile_norms[tile] = rounded_up_root(&pick(&squares, from));
            let short_norm = rounded_up_root(&pick(&short_squares, from));
            short_norms.push(short_norm);
            let shift = split.shape.shift_of(short_norm);
            if pick(&shifts, from) != [shift; LANES] {
                mixed.push((tile_idx, shift, split.gather(&tiles, from)));
            }
        }
        for (&tile_idx, short_norm) in tiles.iter().zip(short_norms) {
            split.norms[tile_idx] = short_norm;
        }
        let n_lower = LANES * n_quads;
        let first_lower = split.first_lower();
        let (upper, lower) = split.lines.split_at_mut(first_lower);
        let (upper, lower): (&mut [[i32; LANES]], &mut [i32]) = (
            bytemuck::cast_slice_mut(upper),
            bytemuck::cast_slice_mut(lower),
        );
        moves.permute(&mut upper[first_tile * n_pairs..], n_pairs);
        moves.permute_rows(&mut lower[first_tile * n_lower..], n_quads);
        for (tile_idx, shift, tile) in mixed {
            let upper = &mut upper[tile_idx * n_pairs..][..n_pairs];
            let lower = &mut lower[tile_idx * n_lower..][..n_lower];
            split.shape.cut(&tile, shift, upper, lower);
        }
    }
}
