//! Rows of a segment that change places, with what is known of their tiles.

use super::{Split, short_squares_of};
use crate::LANES;
use crate::block::{rounded_up_root, squares_of};
use crate::cpu::{Lanes, Vectorised, join, vectorised};
use crate::permute::{OfRows, SEGMENT_TILES, permute, permute_rows, pick};

impl Split {
    /// Puts the rows of a segment, which begins at tile `first_tile`, in the order of `from` ([`crate::permute::places`]). `tile_norms` are those
    /// of its tiles as [`crate::Block::tile_norms`], and become those of the new ones.
    pub(crate) fn permute(
        &mut self,
        first_tile: usize,
        from: &[[u16; LANES]],
        tile_norms: &mut [f32],
    ) {
        vectorised(Permuting {
            split: self,
            first_tile,
            from,
            tile_norms,
        });
    }

    /// The rows `from` of the segment that begins at tile `first_tile`, as a tile.
    fn gather(&self, first_tile: usize, from: &[u16; LANES]) -> Vec<[f32; LANES]> {
        let mut tile = vec![[0.0; LANES]; self.shape.n_features];
        let mut row = vec![[0; LANES]; self.shape.origin.len()];
        for (lane, &place) in from.iter().enumerate() {
            let place = usize::from(place);
            let given = self.tile(first_tile + place / LANES);
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
    from: &'a [[u16; LANES]],
    tile_norms: &'a mut [f32],
}

impl Vectorised for Permuting<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let Self {
            split,
            first_tile,
            from,
            tile_norms,
        } = self;
        let n_features = split.shape.n_features;
        let (n_pairs, n_quads) = (split.n_pairs(), split.n_quads());
        let mut tile = vec![[0.0; LANES]; n_features];
        // Of each row.
        let mut squares: OfRows<f32> = [[0.0; LANES]; SEGMENT_TILES];
        let mut short_squares: OfRows<f32> = [[0.0; LANES]; SEGMENT_TILES];
        let mut shifts: OfRows<u32> = [[0; LANES]; SEGMENT_TILES];
        for nth in 0..from.len() {
            // SAFETY: passed on to the caller.
            unsafe { join::<L>(split.tile(first_tile + nth), &mut tile) };
            squares[nth] = squares_of(&tile);
            short_squares[nth] = short_squares_of(&tile, split.origin());
            shifts[nth] = [split.tile(first_tile + nth).shift; LANES];
        }
        // Tiles with a row that was cut in another way than all are now, with that.
        let mut mixed = Vec::new();
        let mut short_norms = Vec::with_capacity(from.len());
        for ((nth, from), norm) in from.iter().enumerate().zip(tile_norms) {
            *norm = rounded_up_root(&pick(&squares, from));
            let short_norm = rounded_up_root(&pick(&short_squares, from));
            short_norms.push(short_norm);
            let shift = split.shape.shift_of(short_norm);
            if pick(&shifts, from) != [shift; LANES] {
                mixed.push((nth, shift, split.gather(first_tile, from)));
            }
        }
        split.norms[first_tile..][..from.len()].copy_from_slice(&short_norms);
        let n_lower = LANES * n_quads;
        let first_lower = split.first_lower();
        let (upper, lower) = split.lines.split_at_mut(first_lower);
        let (upper, lower): (&mut [[i32; LANES]], &mut [i32]) = (
            bytemuck::cast_slice_mut(upper),
            bytemuck::cast_slice_mut(lower),
        );
        let upper = &mut upper[first_tile * n_pairs..][..from.len() * n_pairs];
        let lower = &mut lower[first_tile * n_lower..][..from.len() * n_lower];
        permute(upper, n_pairs, from);
        permute_rows(lower, n_quads, from);
        for (nth, shift, tile) in mixed {
            let upper = &mut upper[nth * n_pairs..][..n_pairs];
            let lower = &mut lower[nth * n_lower..][..n_lower];
            split.shape.cut(&tile, shift, upper, lower);
        }
    }
}
