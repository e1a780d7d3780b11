//! One tile cut in two, and what of it is put together again.

use super::{fetch_row, fetch_rows};
use crate::LANES;

/// A tile, as it lies.
#[derive(Clone, Copy)]
pub(crate) struct CutTile<'a> {
    /// [n_features / 2, rounded up] upper bits: those of the first of two features in the lower half.
    pub(crate) pairs: &'a [[i32; LANES]],
    /// [LANES x n_quads] lower bits: those of four features of a row, the first in the lowest byte.
    pub(crate) lower: &'a [i32],
    /// [n_chunks] of sixteen features, the last filled up with zeros.
    pub(crate) origin: &'a [[i32; LANES]],
    /// Upper bits are in steps of two to this power.
    pub(crate) shift: u32,
}

/// Sixteen features of a tile, those beyond the last of which are zeros.
#[derive(Clone, Copy)]
pub(crate) struct CutChunk<'a> {
    pub(crate) pairs: &'a [[i32; LANES]; LANES / 2],
    /// Those of row `lane` are the four from `lane * n_quads` on.
    pub(crate) lower: &'a [i32],
    pub(crate) n_quads: usize,
    pub(crate) origin: &'a [i32; LANES],
    pub(crate) shift: u32,
}

/// Where features that are no sixteen are filled up.
#[derive(Default)]
pub(crate) struct ChunkRoom {
    pairs: [[i32; LANES]; LANES / 2],
    lower: [[i32; LANES / 4]; LANES],
}

impl<'a> CutTile<'a> {
    /// Features `chunk_idx * LANES` and those that follow, if there are sixteen.
    #[inline(always)]
    pub(crate) fn whole_chunk(self, chunk_idx: usize) -> Option<CutChunk<'a>> {
        let (n_quads, first) = (self.lower.len() / LANES, chunk_idx * (LANES / 4));
        if n_quads - first < LANES / 4 {
            return None;
        }
        Some(CutChunk {
            pairs: self.pairs[chunk_idx * (LANES / 2)..].first_chunk()?,
            lower: &self.lower[first..],
            n_quads,
            origin: &self.origin[chunk_idx],
            shift: self.shift,
        })
    }

    /// Features `chunk_idx * LANES` and those that follow.
    #[inline(always)]
    pub(crate) fn chunk(self, chunk_idx: usize, room: &'a mut ChunkRoom) -> CutChunk<'a> {
        if let Some(chunk) = self.whole_chunk(chunk_idx) {
            return chunk;
        }
        let pairs = &self.pairs[chunk_idx * (LANES / 2)..];
        let (n_quads, first) = (self.lower.len() / LANES, chunk_idx * (LANES / 4));
        for (own, pair) in room.pairs.iter_mut().zip(pairs) {
            *own = *pair;
        }
        for (own, row) in room.lower.iter_mut().zip(self.lower.chunks_exact(n_quads)) {
            for (own, quad) in own.iter_mut().zip(&row[first..]) {
                *own = *quad;
            }
        }
        CutChunk {
            pairs: &room.pairs,
            lower: room.lower.as_flattened(),
            n_quads: LANES / 4,
            origin: &self.origin[chunk_idx],
            shift: self.shift,
        }
    }

    /// One value.
    pub(crate) fn value(self, lane: usize, feature_idx: usize) -> i32 {
        let pair = self.pairs[feature_idx / 2][lane];
        let upper = match feature_idx % 2 {
            0 => pair << 16 >> 16,
            _ => pair >> 16,
        };
        let quad = self.lower[lane * (self.lower.len() / LANES) + feature_idx / 4];
        let lower = quad << (24 - 8 * (feature_idx % 4)) >> 24;
        (upper << self.shift) + lower + self.origin.as_flattened()[feature_idx]
    }

    /// Row `lane`: `out` [n_chunks] of sixteen features.
    #[inline(always)]
    pub(crate) fn pick(self, lane: usize, out: &mut [[i32; LANES]]) {
        let n_quads = self.lower.len() / LANES;
        let lower = &self.lower[lane * n_quads..][..n_quads];
        pick(self.pairs, lane, lower, (self.origin, self.shift), out);
    }
}

/// Rows of short tiles, as they lie, with all that is asked for one of them at hand.
#[derive(Clone, Copy)]
pub(crate) struct ShortRows<'a> {
    /// [n_tiles x n_pairs]
    pub(super) pairs: &'a [[i32; LANES]],
    pub(super) n_pairs: usize,
    /// [n_tiles x LANES x n_quads]
    pub(super) lower: &'a [i32],
    pub(super) n_quads: usize,
    /// [n_tiles], see [`ShortRows::norm`].
    pub(super) norms: &'a [f32],
    /// Rows of this norm and less are short.
    pub(super) longest: f32,
    /// [n_chunks]
    pub(super) origin: &'a [[i32; LANES]],
    pub(super) shift: u32,
}

impl<'a> ShortRows<'a> {
    /// A number not below the norm of any row of a tile less the origin; `None` when it has rows too long for their upper bits to be scored.
    #[inline(always)]
    pub(crate) fn norm(&self, tile_idx: usize) -> Option<f32> {
        let norm = self.norms[tile_idx];
        (norm <= self.longest).then_some(norm)
    }

    /// [n_pairs] upper bits of a tile.
    #[inline(always)]
    pub(crate) fn pairs(&self, tile_idx: usize) -> &'a [[i32; LANES]] {
        &self.pairs[tile_idx * self.n_pairs..][..self.n_pairs]
    }

    /// Sixteens of features in a row.
    #[inline(always)]
    pub(crate) fn n_chunks(&self) -> usize {
        self.origin.len()
    }

    /// The same, if they have so many, none of them filled up.
    #[inline(always)]
    pub(crate) fn of_chunks<const N_CHUNKS: usize>(&self) -> Option<RowsOfChunks<'_, N_CHUNKS>> {
        if self.n_pairs != N_CHUNKS * (LANES / 2) {
            return None;
        }
        Some(RowsOfChunks {
            pairs: self.pairs.as_chunks().0.as_chunks().0,
            lower: self.lower.as_chunks().0.as_chunks().0,
            origin: self.origin.as_array()?,
            shift: self.shift,
        })
    }

    /// Fetches the lower bits of a row into the nearest cache.
    #[inline(always)]
    pub(crate) fn fetch_lower(&self, row_idx: usize) {
        fetch_row(&self.lower[row_idx * self.n_quads..][..self.n_quads]);
    }

    /// The same of the rows of a tile whose bit is set.
    #[inline(always)]
    pub(crate) fn fetch_tile(&self, tile_idx: usize, rows: u32) {
        let n_lower = LANES * self.n_quads;
        fetch_rows(
            &self.lower[tile_idx * n_lower..][..n_lower],
            self.n_quads,
            rows,
        );
    }

    /// A row: `out` [n_chunks] of sixteen features.
    #[inline(always)]
    pub(crate) fn pick(&self, row_idx: usize, out: &mut [[i32; LANES]]) {
        let tile_idx = row_idx / LANES;
        let pairs = self.pairs(tile_idx);
        let lower = &self.lower[row_idx * self.n_quads..][..self.n_quads];
        let cut = (self.origin, self.shift);
        pick(pairs, row_idx % LANES, lower, cut, out);
    }
}

/// [`ShortRows`] of a known number of features.
pub(crate) struct RowsOfChunks<'a, const N_CHUNKS: usize> {
    /// [n_tiles]
    pairs: &'a [[[[i32; LANES]; LANES / 2]; N_CHUNKS]],
    /// [n_rows]
    lower: &'a [[[i32; LANES / 4]; N_CHUNKS]],
    origin: &'a [[i32; LANES]; N_CHUNKS],
    shift: u32,
}

impl<const N_CHUNKS: usize> RowsOfChunks<'_, N_CHUNKS> {
    /// A row.
    #[inline(always)]
    pub(crate) fn pick(&self, row_idx: usize) -> [[i32; LANES]; N_CHUNKS] {
        let pairs = &self.pairs[row_idx / LANES];
        let lower = &self.lower[row_idx];
        let mut row = [[0; LANES]; N_CHUNKS];
        for chunk_idx in 0..N_CHUNKS {
            let upper = upper_of(&pairs[chunk_idx], row_idx % LANES);
            row[chunk_idx] = join_row(upper, lower[chunk_idx], &self.origin[chunk_idx], self.shift);
        }
        row
    }
}

/// Row `lane` of the tile `pairs` [n_pairs], whose lower bits are `lower` [n_quads]: `out` [n_chunks].
#[inline(always)]
fn pick(
    pairs: &[[i32; LANES]],
    lane: usize,
    lower: &[i32],
    (origin, shift): (&[[i32; LANES]], u32),
    out: &mut [[i32; LANES]],
) {
    for (chunk_idx, (out, origin)) in out.iter_mut().zip(origin).enumerate() {
        let pairs = &pairs[chunk_idx * (LANES / 2)..];
        let quads = &lower[chunk_idx * (LANES / 4)..];
        // Of a known number the compiler makes registers: what is written value by value must not be read at once as a vector.
        let (upper, quads) = match (pairs.first_chunk(), quads.first_chunk()) {
            (Some(pairs), Some(quads)) => (upper_of(pairs, lane), *quads),
            _ => filled_up(pairs, lane, quads),
        };
        *out = join_row(upper, quads, origin, shift);
    }
}

/// Upper bits of a row.
#[inline(always)]
fn upper_of(pairs: &[[i32; LANES]; LANES / 2], lane: usize) -> [i32; LANES / 2] {
    let mut upper = [0; LANES / 2];
    for (upper, pair) in upper.iter_mut().zip(pairs) {
        *upper = pair[lane];
    }
    upper
}

/// Upper and lower bits of the last features of a row.
#[inline(always)]
fn filled_up(
    pairs: &[[i32; LANES]],
    lane: usize,
    quads: &[i32],
) -> ([i32; LANES / 2], [i32; LANES / 4]) {
    let (mut upper, mut lower) = ([0; LANES / 2], [0; LANES / 4]);
    for (upper, pair) in upper.iter_mut().zip(pairs) {
        *upper = pair[lane];
    }
    for (own, quad) in lower.iter_mut().zip(quads) {
        *own = *quad;
    }
    (upper, lower)
}

impl CutChunk<'_> {
    /// Row `lane`.
    #[inline(always)]
    pub(crate) fn row(self, lane: usize) -> [i32; LANES] {
        let mut quads = [0; LANES / 4];
        quads.copy_from_slice(&self.lower[lane * self.n_quads..][..LANES / 4]);
        join_row(upper_of(self.pairs, lane), quads, self.origin, self.shift)
    }
}

/// Sixteen features of a row.
#[inline(always)]
fn join_row(
    upper: [i32; LANES / 2],
    quads: [i32; LANES / 4],
    origin: &[i32; LANES],
    shift: u32,
) -> [i32; LANES] {
    // Halves and bytes of words, in the order of features ([`super::Shape::of`]).
    let upper: [i16; LANES] = bytemuck::cast(upper);
    let lower: [i8; LANES] = bytemuck::cast(quads);
    let mut row = [0; LANES];
    for feature in 0..LANES {
        row[feature] =
            (i32::from(upper[feature]) << shift) + i32::from(lower[feature]) + origin[feature];
    }
    row
}

/// Two features of a tile.
#[derive(Clone, Copy)]
pub(crate) struct CutPair<'a> {
    pub(crate) pair: &'a [i32; LANES],
    /// Lower bits of four features of each row, of which these are the first two or the last.
    pub(crate) quads: &'a [i32; LANES],
    pub(crate) are_last: bool,
    pub(crate) origin: [i32; 2],
    pub(crate) shift: u32,
}

impl CutPair<'_> {
    /// Both put together.
    #[inline(always)]
    pub(crate) fn join(self) -> [[f32; LANES]; 2] {
        // Copies: of what may lie in one place the compiler makes no vectors.
        let (pair, quads) = (*self.pair, *self.quads);
        let (mut upper, mut lower) = ([[0; LANES]; 2], [[0; LANES]; 2]);
        for lane in 0..LANES {
            let quad = match self.are_last {
                true => quads[lane],
                false => quads[lane] << 16,
            };
            upper[0][lane] = pair[lane] << 16 >> 16;
            upper[1][lane] = pair[lane] >> 16;
            lower[0][lane] = quad << 8 >> 24;
            lower[1][lane] = quad >> 24;
        }
        [
            join_column(upper[0], lower[0], self.shift, self.origin[0]),
            join_column(upper[1], lower[1], self.shift, self.origin[1]),
        ]
    }
}

#[inline(always)]
fn join_column(upper: [i32; LANES], lower: [i32; LANES], shift: u32, origin: i32) -> [f32; LANES] {
    let mut column = [0.0; LANES];
    for lane in 0..LANES {
        column[lane] = ((upper[lane] << shift) + lower[lane] + origin) as f32;
    }
    column
}
