//! Adds rows to the sums of their cluster, in integers, while the tile is still in cache.
//!
//! On the GPU the same happens within `shaders/assign.wgsl`.

use super::lanes::Lanes;
use crate::{LANES, Partial};

/// Room that is kept from tile to tile.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// A tile turned into rows: [LANES x n_chunks] of sixteen features, the last filled up with zeros.
    exact: Vec<[i32; LANES]>,
    n_chunks: usize,
    /// A group of tiles as pairs: see [`super::short_scores::round_rows`].
    pub(super) rounded: Vec<[i32; LANES]>,
    /// Of the assignment at work.
    pub(super) pending: Pending,
}

impl Rows {
    /// Takes the rows of a tile: `columns` [n_features].
    ///
    /// # Safety
    /// As for [`Lanes`].
    #[inline(always)]
    pub(super) unsafe fn read<L: Lanes>(&mut self, columns: &[[f32; LANES]]) {
        self.n_chunks = columns.len().div_ceil(LANES);
        self.exact.resize(LANES * self.n_chunks, [0; LANES]);
        let (whole, rest) = columns.as_chunks::<LANES>();
        // SAFETY: passed on to the caller.
        unsafe {
            for (chunk_idx, chunk) in whole.iter().enumerate() {
                L::transpose(chunk, &mut self.exact[chunk_idx..], self.n_chunks);
            }
            if !rest.is_empty() {
                L::transpose(
                    &filled_up(rest),
                    &mut self.exact[whole.len()..],
                    self.n_chunks,
                );
            }
        }
    }

    /// [LANES] rows of [n_features].
    #[inline(always)]
    pub(super) fn rows(&self, n_features: usize) -> impl Iterator<Item = &[i32]> {
        let rows = self.exact.chunks_exact(self.n_chunks.max(1));
        rows.map(move |row| &row.as_flattened()[..n_features])
    }
}

/// Sums of clusters in 32 bits, with room for so many tiles of grid values: 496 of them are below 2^31.
const MOST_TILES: u32 = 31;
/// So many rows of a tile are picked out one by one; for more, the tile is turned into rows.
const FEW_ROWS: u32 = 3;

/// What a run of tiles adds to the sums, before it is added: half the bytes to read and write a row.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// [n_clusters x n_chunks] of sixteen features.
    sums: Vec<[i32; LANES]>,
    n_tiles: u32,
}

impl Pending {
    /// Adds the rows of a tile to counts and sums: `columns` [n_features]; labels beyond `n_rows` are of rows of zeros.
    /// [`Pending::flush`] must follow before `partial` is read.
    ///
    /// # Safety
    /// As for [`Lanes`].
    #[inline(always)]
    pub(super) unsafe fn add_rows<L: Lanes>(
        &mut self,
        columns: &[[f32; LANES]],
        n_rows: usize,
        labels: &[u16; LANES],
        partial: &mut Partial,
    ) {
        let n_chunks = columns.len().div_ceil(LANES);
        self.make_room(n_chunks, partial);
        for &label in &labels[..n_rows] {
            partial.counts[usize::from(label)] += 1;
        }
        let (whole, rest) = columns.as_chunks::<LANES>();
        for (chunk_idx, chunk) in whole.iter().enumerate() {
            // SAFETY: passed on to the caller.
            unsafe { add_chunk::<L>(chunk, labels, &mut self.sums[chunk_idx..], n_chunks) };
        }
        if !rest.is_empty() {
            let sums = &mut self.sums[whole.len()..];
            // SAFETY: passed on to the caller.
            unsafe { add_chunk::<L>(&filled_up(rest), labels, sums, n_chunks) };
        }
    }

    /// Takes the rows of a tile whose bit is set from the clusters `from` to the clusters `to`, as [`Pending::add_rows`] adds them.
    ///
    /// # Safety
    /// As for [`Lanes`].
    #[inline(always)]
    pub(super) unsafe fn move_rows<L: Lanes>(
        &mut self,
        columns: &[[f32; LANES]],
        moved: u32,
        [from, to]: [&[u16; LANES]; 2],
        partial: &mut Partial,
    ) {
        let n_chunks = columns.len().div_ceil(LANES);
        self.make_room(n_chunks, partial);
        for lane in lanes_of(moved) {
            partial.counts[usize::from(from[lane])] -= 1;
            partial.counts[usize::from(to[lane])] += 1;
        }
        for (chunk_idx, chunk) in columns.chunks(LANES).enumerate() {
            let mut rows = [[0; LANES]; LANES];
            if moved.count_ones() > FEW_ROWS {
                // SAFETY: passed on to the caller.
                unsafe { L::transpose(&filled_up(chunk), &mut rows, 1) };
            } else {
                for lane in lanes_of(moved) {
                    for (value, column) in rows[lane].iter_mut().zip(chunk) {
                        *value = whole(column[lane]);
                    }
                }
            }
            for lane in lanes_of(moved) {
                let row = &rows[lane];
                let at = |label: u16| usize::from(label) * n_chunks + chunk_idx;
                for (sum, value) in self.sums[at(from[lane])].iter_mut().zip(row) {
                    *sum -= value;
                }
                for (sum, value) in self.sums[at(to[lane])].iter_mut().zip(row) {
                    *sum += value;
                }
            }
        }
    }

    /// For a tile more.
    #[inline(always)]
    fn make_room(&mut self, n_chunks: usize, partial: &mut Partial) {
        if self.n_tiles == MOST_TILES {
            self.flush(partial);
        }
        self.n_tiles += 1;
        self.sums
            .resize(partial.counts.len() * n_chunks, [0; LANES]);
    }

    /// Adds what is pending.
    pub(super) fn flush(&mut self, partial: &mut Partial) {
        if self.n_tiles == 0 {
            return;
        }
        self.n_tiles = 0;
        let n_clusters = partial.counts.len();
        let n_features = partial.sums.len() / n_clusters;
        let n_chunks = self.sums.len() / n_clusters;
        let all = partial.sums.chunks_exact_mut(n_features);
        for (sums, pending) in all.zip(self.sums.chunks_exact_mut(n_chunks)) {
            for (sum, pending) in sums.iter_mut().zip(pending.as_flattened_mut()) {
                *sum += i64::from(std::mem::take(pending));
            }
        }
    }
}

/// Adds sixteen features of a tile: those of row `lane` to `sums[labels[lane] * stride]`.
#[inline(always)]
unsafe fn add_chunk<L: Lanes>(
    chunk: &[[f32; LANES]; LANES],
    labels: &[u16; LANES],
    sums: &mut [[i32; LANES]],
    stride: usize,
) {
    let mut rows = [[0; LANES]; LANES];
    // SAFETY: passed on to the caller.
    unsafe { L::transpose(chunk, &mut rows, 1) };
    for lane in 0..LANES {
        let sums = &mut sums[usize::from(labels[lane]) * stride];
        for (sum, value) in sums.iter_mut().zip(rows[lane]) {
            *sum += value;
        }
    }
}

/// The positions of the bits that are set.
#[inline(always)]
pub(super) fn lanes_of(mut bits: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lane = bits.trailing_zeros();
        bits &= bits.wrapping_sub(1);
        (lane < u32::BITS).then_some(lane as usize % LANES)
    })
}

/// Features of zeros behind those of `columns`.
#[inline(always)]
fn filled_up(columns: &[[f32; LANES]]) -> [[f32; LANES]; LANES] {
    let mut all = [[0.0; LANES]; LANES];
    all[..columns.len()].copy_from_slice(columns);
    all
}

/// A grid value as an integer, in one addition: the sum's last bit is worth one. A cast would ask after NaN.
#[inline(always)]
fn whole(value: f32) -> i32 {
    const ROUNDER: f32 = 12_582_912.0;
    (value + ROUNDER).to_bits() as i32 - ROUNDER.to_bits() as i32
}
