//! Rows of a tile one by one, and what they add to the sums of their cluster, in integers and while the tile is still in cache.
//!
//! On the GPU the same happens within `shaders/assign.wgsl`.

use super::Vectorised;
use super::doubts::Doubts;
use super::lanes::Lanes;
use super::waiting::{MovedRow, WaitingMoves, WaitingRows, WaitingTiles};
use crate::block::Values;
use crate::split::{ChunkRoom, CutPair, CutTile, RowsOfChunks, ShortRows};
use crate::{Block, LANES, Partial, whole};

/// So many rows of a tile are picked out one by one; for more, the tile is turned into rows.
const FEW_ROWS: u32 = 3;

/// Room that is kept from tile to tile.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) of_tile: TileRows,
    /// [n_features] one of them, on its way to be scored.
    pub(super) less_middle: Vec<f32>,
    /// Of the assignment at work.
    pub(super) waiting_tiles: WaitingTiles,
    pub(super) waiting_rows: WaitingRows,
    pub(super) waiting_moves: WaitingMoves,
    /// [n_chunks] of sixteen features: one that has waited.
    pub(super) single: Vec<[i32; LANES]>,
    pub(super) doubts: Doubts,
    pub(super) pending: Pending,
}

/// Rows of one tile, as integers.
#[derive(Debug, Default)]
pub(super) struct TileRows {
    /// [LANES x n_chunks] of sixteen features, the last filled up with zeros.
    chunks: Vec<[i32; LANES]>,
    n_chunks: usize,
}

impl TileRows {
    /// Takes the rows of a tile whose bit is set, and maybe others.
    ///
    /// # Safety
    /// As for [`Lanes`].
    #[inline(always)]
    pub(super) unsafe fn take<L: Lanes>(&mut self, block: &Block, tile_idx: usize, wanted: u32) {
        self.make_room(block.n_features());
        let are_few = wanted.count_ones() <= FEW_ROWS;
        match block.values() {
            Values::Whole(tiles) => {
                let columns = tiles.as_chunks::<LANES>().0;
                let columns = &columns[tile_idx * block.n_features()..][..block.n_features()];
                // SAFETY: passed on to the caller.
                unsafe {
                    match are_few {
                        true => self.pick(columns, wanted),
                        false => self.turn::<L>(columns),
                    }
                }
            }
            Values::Split(split) => {
                let tile = split.tile(tile_idx);
                // SAFETY: passed on to the caller.
                unsafe {
                    match are_few {
                        true => self.pick_cut(tile, wanted),
                        false => self.turn_cut::<L>(tile),
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn pick(&mut self, columns: &[[f32; LANES]], wanted: u32) {
        for lane in lanes_of(wanted) {
            let row = self.chunks[lane * self.n_chunks..][..self.n_chunks].as_flattened_mut();
            for (value, column) in row.iter_mut().zip(columns) {
                *value = whole(column[lane]);
            }
        }
    }

    #[inline(always)]
    fn pick_cut(&mut self, tile: CutTile<'_>, wanted: u32) {
        for lane in lanes_of(wanted) {
            tile.pick(
                lane,
                &mut self.chunks[lane * self.n_chunks..][..self.n_chunks],
            );
        }
    }

    #[inline(always)]
    fn make_room(&mut self, n_features: usize) {
        self.n_chunks = n_features.div_ceil(LANES);
        self.chunks.resize(LANES * self.n_chunks, [0; LANES]);
    }

    /// Takes the rows of `columns` [n_features]: four or sixteen features at a time, in registers.
    ///
    /// # Safety
    /// As for [`Lanes`].
    #[inline(always)]
    pub(super) unsafe fn turn<L: Lanes>(&mut self, columns: &[[f32; LANES]]) {
        self.make_room(columns.len());
        let (whole, rest) = columns.as_chunks::<LANES>();
        for (chunk_idx, chunk) in whole.iter().enumerate() {
            // SAFETY: passed on to the caller.
            unsafe { L::transpose(chunk, &mut self.chunks[chunk_idx..], self.n_chunks) };
        }
        for (chunk_idx, chunk) in (whole.len()..).zip(rest.chunks(LANES)) {
            let mut filled_up = [[0.0; LANES]; LANES];
            filled_up[..chunk.len()].copy_from_slice(chunk);
            // SAFETY: passed on to the caller.
            unsafe { L::transpose(&filled_up, &mut self.chunks[chunk_idx..], self.n_chunks) };
        }
    }

    #[inline(always)]
    unsafe fn turn_cut<L: Lanes>(&mut self, tile: CutTile<'_>) {
        for chunk_idx in 0..self.n_chunks {
            let rows = &mut self.chunks[chunk_idx..];
            match tile.whole_chunk(chunk_idx) {
                // SAFETY: passed on to the caller.
                Some(chunk) => unsafe { L::turn_cut(chunk, rows, self.n_chunks) },
                None => {
                    let mut room = ChunkRoom::default();
                    // SAFETY: passed on to the caller.
                    unsafe { L::turn_cut(tile.chunk(chunk_idx, &mut room), rows, self.n_chunks) };
                }
            }
        }
    }

    /// Row `lane` becomes `row` [n_chunks].
    #[inline(always)]
    pub(super) fn put_row(&mut self, lane: usize, row: &[[i32; LANES]]) {
        if self.n_chunks != row.len() {
            self.n_chunks = row.len();
            self.chunks.resize(LANES * self.n_chunks, [0; LANES]);
        }
        let own = &mut self.chunks[lane * self.n_chunks..][..self.n_chunks];
        for (own, chunk) in own.iter_mut().zip(row) {
            *own = *chunk;
        }
    }

    /// The rows less `origin` [n_features], feature by feature: `columns` [n_features].
    ///
    /// # Safety
    /// As for [`Lanes`].
    #[inline(always)]
    pub(super) unsafe fn turn_back<L: Lanes>(&self, origin: &[i32], columns: &mut [[f32; LANES]]) {
        let rows = self.chunks.as_flattened();
        let fours = columns.chunks_mut(4).zip(origin.chunks(4));
        for (four_idx, (columns, origin)) in fours.enumerate() {
            let mut turned = [[0; LANES]; LANES / 4];
            // SAFETY: passed on to the caller.
            unsafe { L::turn_quads(&rows[4 * four_idx..], LANES * self.n_chunks, &mut turned) };
            for ((column, turned), origin) in columns.iter_mut().zip(turned).zip(origin) {
                let mut values = [0.0; LANES];
                for lane in 0..LANES {
                    values[lane] = (turned[lane] - origin) as f32;
                }
                *column = values;
            }
        }
    }

    /// Row `lane`: [n_chunks] of sixteen features.
    #[inline(always)]
    pub(super) fn chunks_of(&self, lane: usize) -> &[[i32; LANES]] {
        &self.chunks[lane * self.n_chunks..][..self.n_chunks]
    }

    /// Row `lane`: [n_features], and zeros.
    #[inline(always)]
    pub(super) fn row(&self, lane: usize) -> &[i32] {
        self.chunks_of(lane).as_flattened()
    }
}

/// Puts a tile together: `out` [n_features].
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
pub(crate) unsafe fn join<L: Lanes>(tile: CutTile<'_>, out: &mut [[f32; LANES]]) {
    let mut room = ChunkRoom::default();
    for (chunk_idx, out) in out.chunks_mut(LANES).enumerate() {
        let chunk = tile.chunk(chunk_idx, &mut room);
        let mut quads = [[0; LANES]; LANES / 4];
        // SAFETY: passed on to the caller.
        unsafe { L::turn_quads(chunk.lower, chunk.n_quads, &mut quads) };
        for (idx, out) in out.chunks_mut(2).enumerate() {
            let cut = CutPair {
                pair: &chunk.pairs[idx],
                quads: &quads[idx / 2],
                are_last: idx % 2 == 1,
                origin: chunk.origin.as_chunks::<2>().0[idx],
                shift: chunk.shift,
            };
            // SAFETY: passed on to the caller.
            unsafe {
                match out {
                    [column] => {
                        let mut both = [[0.0; LANES]; 2];
                        L::join(cut, &mut both);
                        *column = both[0];
                    }
                    both => {
                        if let Some(both) = both.first_chunk_mut() {
                            L::join(cut, both);
                        }
                    }
                }
            }
        }
    }
}

/// Sums of clusters in 32 bits, with room for so many grid values, which are below 2^22.
const MOST_ROWS: u32 = 511;

/// What some rows add to the sums, before it is added: half the bytes to read and write a row.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// [n_clusters x n_chunks] of sixteen features.
    sums: Vec<[i32; LANES]>,
    n_rows: u32,
}

impl Pending {
    /// Adds `n_rows` rows of a tile to counts and sums. [`Pending::flush`] must follow before `partial` is read.
    #[inline(always)]
    pub(super) fn add_rows(
        &mut self,
        rows: &TileRows,
        n_rows: usize,
        labels: &[u16; LANES],
        partial: &mut Partial,
    ) {
        let n_chunks = rows.n_chunks;
        self.make_room(n_rows as u32, n_chunks, partial);
        for (lane, &label) in labels[..n_rows].iter().enumerate() {
            partial.counts[usize::from(label)] += 1;
            add(
                of_cluster(&mut self.sums, label, n_chunks),
                rows.chunks_of(lane),
            );
        }
    }

    /// As [`Pending::add_rows`], of a tile that is still cut in two.
    ///
    /// # Safety
    /// As for [`Lanes`].
    #[inline(always)]
    pub(super) unsafe fn add_tile<L: Lanes>(
        &mut self,
        tile: CutTile<'_>,
        room: &mut TileRows,
        labels: &[u16],
        partial: &mut Partial,
    ) {
        room.make_room(2 * tile.pairs.len());
        self.make_room(labels.len() as u32, room.n_chunks, partial);
        let adding = Adding {
            tile,
            room,
            labels,
            counts: &mut partial.counts,
            sums: &mut self.sums,
        };
        // SAFETY: passed on to the caller.
        unsafe { L::apart(adding) }
    }

    /// Takes the rows of a tile whose bit is set from the clusters `from` to the clusters `to`, as [`Pending::add_rows`] adds them.
    #[inline(always)]
    pub(super) fn move_rows(
        &mut self,
        rows: &TileRows,
        moved: u32,
        [from, to]: [&[u16; LANES]; 2],
        partial: &mut Partial,
    ) {
        for lane in lanes_of(moved) {
            self.move_row(rows.chunks_of(lane), [from[lane], to[lane]], partial);
        }
    }

    /// Takes `row` [n_chunks] from a cluster to another.
    #[inline(always)]
    pub(super) fn move_row(
        &mut self,
        row: &[[i32; LANES]],
        [from, to]: [u16; 2],
        partial: &mut Partial,
    ) {
        let n_chunks = row.len();
        self.make_room(1, n_chunks, partial);
        partial.counts[usize::from(from)] -= 1;
        partial.counts[usize::from(to)] += 1;
        subtract(of_cluster(&mut self.sums, from, n_chunks), row);
        add(of_cluster(&mut self.sums, to, n_chunks), row);
    }

    /// Takes some of `rows` from a cluster to another, as [`Pending::move_row`] does each of them.
    ///
    /// # Safety
    /// As for [`Lanes`].
    #[inline(always)]
    pub(super) unsafe fn move_short_rows<L: Lanes>(
        &mut self,
        rows: &ShortRows<'_>,
        moves: &[MovedRow],
        partial: &mut Partial,
    ) {
        self.make_room(moves.len() as u32, rows.n_chunks(), partial);
        let moving = Moving {
            rows,
            moves,
            counts: &mut partial.counts,
            sums: &mut self.sums,
        };
        // SAFETY: passed on to the caller.
        unsafe { L::apart(moving) }
    }

    /// For so many rows more.
    #[inline(always)]
    fn make_room(&mut self, n_rows: u32, n_chunks: usize, partial: &mut Partial) {
        if self.n_rows + n_rows > MOST_ROWS {
            self.flush(partial);
        }
        self.n_rows += n_rows;
        self.sums
            .resize(partial.counts.len() * n_chunks, [0; LANES]);
    }

    /// Adds what is pending.
    pub(super) fn flush(&mut self, partial: &mut Partial) {
        if self.n_rows == 0 {
            return;
        }
        self.n_rows = 0;
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

/// A tile whose rows are added to sums, see [`Moving`].
struct Adding<'a> {
    tile: CutTile<'a>,
    room: &'a mut TileRows,
    /// [n_rows]
    labels: &'a [u16],
    /// [n_clusters]
    counts: &'a mut [u64],
    /// [n_clusters x n_chunks]
    sums: &'a mut [[i32; LANES]],
}

impl Vectorised for Adding<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        // SAFETY: passed on to the caller.
        unsafe { self.room.turn_cut::<L>(self.tile) };
        for &label in self.labels {
            self.counts[usize::from(label)] += 1;
        }
        // Of a known number of features the compiler makes registers.
        match self.room.n_chunks {
            1 => self.of_chunks::<1>(),
            2 => self.of_chunks::<2>(),
            3 => self.of_chunks::<3>(),
            4 => self.of_chunks::<4>(),
            n_chunks => {
                let rows = self.room.chunks.chunks_exact(n_chunks);
                for (row, &label) in rows.zip(self.labels) {
                    add(of_cluster(self.sums, label, n_chunks), row);
                }
            }
        }
    }
}

impl Adding<'_> {
    #[inline(always)]
    fn of_chunks<const N_CHUNKS: usize>(self) {
        let (rows, _) = self.room.chunks.as_chunks::<N_CHUNKS>();
        let (sums, _) = self.sums.as_chunks_mut::<N_CHUNKS>();
        for (row, &label) in rows.iter().zip(self.labels) {
            add(&mut sums[usize::from(label)], row);
        }
    }
}

/// Rows that come from a cluster to another: a loop of its own, in which everything stays in registers.
struct Moving<'a> {
    rows: &'a ShortRows<'a>,
    moves: &'a [MovedRow],
    /// [n_clusters]
    counts: &'a mut [u64],
    /// [n_clusters x n_chunks]
    sums: &'a mut [[i32; LANES]],
}

impl Vectorised for Moving<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        for moved in self.moves {
            self.counts[usize::from(moved.from)] -= 1;
            self.counts[usize::from(moved.to)] += 1;
        }
        if let Some(rows) = self.rows.of_chunks::<1>() {
            self.of_chunks(&rows);
        } else if let Some(rows) = self.rows.of_chunks::<2>() {
            self.of_chunks(&rows);
        } else if let Some(rows) = self.rows.of_chunks::<3>() {
            self.of_chunks(&rows);
        } else if let Some(rows) = self.rows.of_chunks::<4>() {
            self.of_chunks(&rows);
        } else {
            let n_chunks = self.rows.n_chunks();
            let mut row = vec![[0; LANES]; n_chunks];
            for moved in self.moves {
                self.rows.pick(moved.row_idx as usize, &mut row);
                subtract(of_cluster(self.sums, moved.from, n_chunks), &row);
                add(of_cluster(self.sums, moved.to, n_chunks), &row);
            }
        }
    }
}

impl Moving<'_> {
    #[inline(always)]
    fn of_chunks<const N_CHUNKS: usize>(self, rows: &RowsOfChunks<'_, N_CHUNKS>) {
        let (sums, _) = self.sums.as_chunks_mut::<N_CHUNKS>();
        for moved in self.moves {
            let row = rows.pick(moved.row_idx as usize);
            subtract(&mut sums[usize::from(moved.from)], &row);
            add(&mut sums[usize::from(moved.to)], &row);
        }
    }
}

/// Those of a cluster among `sums` [n_clusters x n_chunks].
#[inline(always)]
fn of_cluster(sums: &mut [[i32; LANES]], label: u16, n_chunks: usize) -> &mut [[i32; LANES]] {
    &mut sums[usize::from(label) * n_chunks..][..n_chunks]
}

/// Adds a row to sums, both [n_chunks]. On a copy: of what may lie in one place the compiler makes no vectors.
#[inline(always)]
fn add(sums: &mut [[i32; LANES]], row: &[[i32; LANES]]) {
    for (sums, row) in sums.iter_mut().zip(row) {
        let mut more = *sums;
        for feature in 0..LANES {
            more[feature] += row[feature];
        }
        *sums = more;
    }
}

/// Takes a row from sums, as [`add`] adds it.
#[inline(always)]
fn subtract(sums: &mut [[i32; LANES]], row: &[[i32; LANES]]) {
    for (sums, row) in sums.iter_mut().zip(row) {
        let mut less = *sums;
        for feature in 0..LANES {
            less[feature] -= row[feature];
        }
        *sums = less;
    }
}

/// The positions of the bits that are set.
#[inline(always)]
pub(crate) fn lanes_of(mut bits: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lane = bits.trailing_zeros();
        bits &= bits.wrapping_sub(1);
        (lane < u32::BITS).then_some(lane as usize % LANES)
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::GRID_LIMIT;

    /// Counts and sums of blocks of several widths, whose rows were added tile by tile and then moved, seventy at a time.
    ///
    /// # Safety
    /// As for [`Lanes`].
    #[inline(always)]
    pub(in super::super) unsafe fn added_and_moved<L: Lanes>() -> Vec<Partial> {
        const N_CLUSTERS: usize = 5;
        let mut found = Vec::new();
        for n_features in [2, 15, 16, 17, 32, 48, 64, 80] {
            let n_rows = 20 * LANES - 3;
            let value = |at: usize| (at * 7_919 % 90_001) as i32 - 40_000;
            let values: Vec<i32> = (0..n_rows * n_features).map(value).collect();
            let block = Block::from_rows(0, n_features, &values, vec![0; n_rows]).unwrap();
            let block = block.into_whole().into_split();
            let split = block.split().expect("worth while");
            let from = |row_idx: usize| (row_idx * row_idx % N_CLUSTERS) as u16;
            let to = |row_idx: usize| (row_idx * 3 % N_CLUSTERS) as u16;
            let mut expected = Partial::zero(N_CLUSTERS, n_features);
            for (row_idx, row) in values.chunks_exact(n_features).enumerate() {
                let label = usize::from(if row_idx % 3 == 0 { from } else { to }(row_idx));
                expected.counts[label] += 1;
                let sums = expected.sums[label * n_features..].iter_mut();
                sums.zip(row).for_each(|(sum, x)| *sum += i64::from(*x));
            }
            let mut partial = Partial::zero(N_CLUSTERS, n_features);
            let (mut pending, mut room) = (Pending::default(), TileRows::default());
            let moves: Vec<MovedRow> = (0..n_rows)
                .filter(|row_idx| row_idx % 3 != 0)
                .map(|row_idx| MovedRow {
                    row_idx: row_idx as u32,
                    from: from(row_idx),
                    to: to(row_idx),
                })
                .collect();
            // SAFETY: passed on to the caller.
            unsafe {
                for tile_idx in 0..n_rows.div_ceil(LANES) {
                    let labels: [u16; LANES] =
                        std::array::from_fn(|lane| from(tile_idx * LANES + lane));
                    let n_rows = LANES.min(n_rows - tile_idx * LANES);
                    let tile = split.tile(tile_idx);
                    pending.add_tile::<L>(tile, &mut room, &labels[..n_rows], &mut partial);
                }
                for moves in moves.chunks(70) {
                    pending.move_short_rows::<L>(&split.short_rows(), moves, &mut partial);
                }
            }
            pending.flush(&mut partial);
            assert_eq!(partial, expected, "{n_features} features");
            found.push(partial);
        }
        found
    }

    #[test]
    fn rows_are_added_and_moved() {
        // SAFETY: `Scalar` needs no more than the processor that the crate is compiled for.
        unsafe { added_and_moved::<super::super::Scalar>() };
    }

    #[test]
    fn sums_of_the_largest_values_have_room_until_they_are_flushed() {
        const N_FEATURES: usize = 2 * LANES + 3;
        for edge in [GRID_LIMIT - 1, 1 - GRID_LIMIT] {
            let mut rows = TileRows::default();
            let row = [[edge; LANES]; 3];
            for lane in 0..LANES {
                rows.put_row(lane, &row);
            }
            let mut partial = Partial::zero(3, N_FEATURES);
            let mut pending = Pending::default();
            for _ in 0..100 {
                pending.add_rows(&rows, LANES, &[2; LANES], &mut partial);
            }
            for _ in 0..1_000 {
                pending.move_row(&row, [2, 0], &mut partial);
            }
            pending.flush(&mut partial);
            assert_eq!(partial.counts, [1_000, 0, 600]);
            let sums = [1_000, 0, 600].map(|n| vec![n * i64::from(edge); N_FEATURES]);
            assert_eq!(partial.sums, sums.concat());
        }
    }
}
