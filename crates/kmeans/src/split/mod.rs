//! Rows cut in two: the upper 16 bits of each value, which are all that most rows of most passes need, and the rest beside them.
//!
//! A value is `(upper << shift) + lower + origin`, the origin one of the block near the middle of its rows, so that the upper bits say as
//! much as they can. Upper bits lie in one run of memory, feature by feature, and lower bits in another, row by row: a pass that reads the
//! former only reads half the bytes, and a row that moves takes one line of the latter.

mod permuting;
mod tile;

use std::ops::Range;

use crate::block::{norm_of_grid_tile, rounded_up_root};
use crate::cpu::{Lanes, Vectorised, join, lanes_of, vectorised};
use crate::to_grid::{PutOnGrid, place_strip, strips};
use crate::{GRID_LIMIT, LANES, Tiles, whole};
pub(crate) use tile::{ChunkRoom, CutChunk, CutPair, CutTile, RowsOfChunks, ShortRows};

/// No row that is scored by its upper bits is longer than this in steps of `2^shift`, nor any value of it: 2^15 less room for roundings.
/// The product of two such rows is below 2^30 then, half a square below 2^29, and scores fit 32 bits with one to spare.
pub(crate) const LONGEST: f64 = 32_704.0;
/// Roundings of a half each, up to this many, stay within that room.
const MAX_FEATURES: usize = 256;
/// Upper bits are kept as pairs of features, and with one there is none.
const MIN_FEATURES: usize = 2;
/// Lower bits are bytes.
const MAX_SHIFT: u32 = 8;
/// Origins stay this far from the edges of the grid, so that no upper half is above 2^15 at the largest shift.
const ORIGIN_LIMIT: i32 = GRID_LIMIT - (1 << 10);
/// Where more rows of a tile are wanted, the lower bits of all are fetched.
const ROWS_FETCHED: u32 = 8;
/// Lower bits in a cache line, by fours.
const QUADS_A_LINE: usize = 16;
/// Tiles that the origin and the shift are chosen by, at least where there are as many.
const SAMPLED_TILES: usize = 128;
/// Of those, so many in a hundred must be short enough.
const SHORT_PERCENT: usize = 97;

/// The rows of a block, cut in two.
#[derive(Debug, Clone)]
pub(crate) struct Split {
    /// [n_tiles x (n_pairs + n_quads)] columns, about three for each four features: the upper bits, then the lower ones.
    lines: Tiles,
    n_tiles: usize,
    shape: Shape,
    /// [n_tiles] as [`crate::Block::tile_norms`], of the rows less the origin.
    norms: Vec<f32>,
}

/// How values are cut.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shape {
    n_features: usize,
    /// [n_chunks] of sixteen features, the last filled up with zeros.
    origin: Vec<[i32; LANES]>,
    shift: u32,
}

/// One tile, as floats.
pub(crate) type Columns = [[f32; LANES]];

impl Shape {
    /// How to cut the rows of `tiles` [n_tiles x n_features x LANES] once `raw` has put them on the grid, if that is worth while.
    pub(crate) fn of(
        tiles: &[f32],
        n_features: usize,
        n_rows: usize,
        raw: &dyn PutOnGrid,
    ) -> Option<Self> {
        // Halves and bytes are read in the order in which these processors write them.
        if cfg!(target_endian = "big") {
            return None;
        }
        if !(MIN_FEATURES..=MAX_FEATURES).contains(&n_features) || n_rows == 0 {
            return None;
        }
        // Whole tiles only, unless there is none: padding is no row.
        let n_tiles = (n_rows / LANES).max(1);
        let step = (n_tiles / SAMPLED_TILES).max(1);
        let sampled_idxs: Vec<usize> = (0..n_tiles).step_by(step).collect();
        let all = tiles.as_chunks::<LANES>().0.chunks_exact(n_features);
        let mut sample: Vec<[f32; LANES]> =
            all.take(n_tiles).step_by(step).flatten().copied().collect();
        raw.try_out(&sampled_idxs, sample.as_flattened_mut());
        let sampled = || sample.chunks_exact(n_features);
        let mut sums = vec![0f64; n_features];
        for tile in sampled() {
            for (sum, column) in sums.iter_mut().zip(tile) {
                *sum += f64::from(column.iter().sum::<f32>());
            }
        }
        let n_sampled = (sampled_idxs.len() * LANES) as f64;
        let limit = f64::from(ORIGIN_LIMIT);
        let mut origin = vec![[0; LANES]; n_features.div_ceil(LANES)];
        for (origin, sum) in origin.as_flattened_mut().iter_mut().zip(sums) {
            *origin = (sum / n_sampled).round().clamp(-limit, limit) as i32;
        }
        let own = origin.as_flattened();
        let mut norms: Vec<f32> = sampled().map(|tile| norm_of(tile, own)).collect();
        norms.sort_by(f32::total_cmp);
        let wanted = f64::from(norms[(norms.len() - 1) * SHORT_PERCENT / 100]);
        let shift = (0..=MAX_SHIFT).find(|shift| wanted <= longest(*shift))?;
        Some(Self {
            n_features,
            origin,
            shift,
        })
    }

    /// [n_features]
    fn origin(&self) -> &[i32] {
        &self.origin.as_flattened()[..self.n_features]
    }

    pub(crate) fn n_features(&self) -> usize {
        self.n_features
    }

    /// Columns that a tile takes.
    pub(crate) fn n_columns(&self) -> usize {
        self.n_pairs() + self.n_quads()
    }

    /// Where the words of a run of tiles lie, of a block of `n_tiles`: upper bits, lower bits.
    pub(crate) fn words_of(&self, n_tiles: usize, tiles: Range<usize>) -> [Range<usize>; 2] {
        let [upper, lower] = [self.n_pairs(), self.n_quads()].map(|columns| columns * LANES);
        let first_lower = n_tiles * upper;
        [
            tiles.start * upper..tiles.end * upper,
            first_lower + tiles.start * lower..first_lower + tiles.end * lower,
        ]
    }

    fn n_pairs(&self) -> usize {
        self.n_features.div_ceil(2)
    }

    fn n_quads(&self) -> usize {
        self.n_features.div_ceil(4)
    }

    /// That of a tile with rows of this norm at most.
    #[inline(always)]
    fn shift_of(&self, norm: f32) -> u32 {
        match self.is_short(norm) {
            true => self.shift,
            false => MAX_SHIFT,
        }
    }

    #[inline(always)]
    fn is_short(&self, norm: f32) -> bool {
        f64::from(norm) <= longest(self.shift)
    }

    /// Cuts a tile: `pairs` [n_features / 2, rounded up], `lower` [LANES x n_quads].
    #[inline(always)]
    fn cut(&self, tile: &Columns, shift: u32, pairs: &mut [[i32; LANES]], lower: &mut [i32]) {
        let n_quads = tile.len().div_ceil(4);
        let quads = tile.chunks(4).zip(self.origin().chunks(4));
        for (quad_idx, ((columns, origin), pairs)) in quads.zip(pairs.chunks_mut(2)).enumerate() {
            let mut quads = [0; LANES];
            let features = columns.chunks(2).zip(origin.chunks(2));
            for (pair_idx, ((columns, origin), pair)) in features.zip(pairs).enumerate() {
                let [low, rest] = cut_column(columns[0], origin[0], shift);
                let (mut high, mut high_rest) = ([0; LANES], [0; LANES]);
                if let ([_, column], [_, origin]) = (columns, origin) {
                    [high, high_rest] = cut_column(*column, *origin, shift);
                }
                let mut both = [0; LANES];
                for lane in 0..LANES {
                    both[lane] = (low[lane] & 0xffff) | high[lane] << 16;
                    quads[lane] |= (rest[lane] | high_rest[lane] << 8) << (16 * pair_idx);
                }
                *pair = both;
            }
            for (row, quad) in lower.chunks_exact_mut(n_quads).zip(quads) {
                row[quad_idx] = quad;
            }
        }
    }
}

impl Split {
    /// Cuts the tiles of a block in place, as `raw` puts them on the grid. `tile_norms` become those of the block; the error is the first
    /// tile that is off the grid.
    pub(crate) fn new(
        mut tiles: Tiles,
        shape: Shape,
        raw: &mut dyn PutOnGrid,
        tile_norms: &mut Vec<f32>,
    ) -> Result<Self, (usize, Vec<[f32; LANES]>)> {
        let n_features = shape.n_features;
        let n_tiles = tiles.len() / LANES / n_features;
        let n_pairs = shape.n_pairs();
        let n_lower = LANES * shape.n_quads();
        let mut norms = Vec::with_capacity(n_tiles);
        // The upper bits of a tile go where those of earlier ones were read; the lower bits wait until all have been.
        let mut lower = vec![0; n_tiles * n_lower];
        let mut tile = vec![[0f32; LANES]; n_features];
        let mut strips = strips(n_tiles, n_features);
        let mut n_placed = 0;
        for (tile_idx, lower) in lower.chunks_exact_mut(n_lower).enumerate() {
            if tile_idx == n_placed
                && let Some(strip) = strips.next()
            {
                n_placed = strip.end;
                place_strip(&mut tiles, n_features, strip, raw);
            }
            let (columns, _) = tiles.as_chunks::<LANES>();
            tile.copy_from_slice(&columns[tile_idx * n_features..][..n_features]);
            let all: &mut [[i32; LANES]] = bytemuck::cast_slice_mut(&mut tiles);
            let seen = vectorised(Cutting {
                shape: &shape,
                tile: &tile,
                pairs: &mut all[tile_idx * n_pairs..][..n_pairs],
                lower,
            });
            match seen.norm {
                Some(norm) => tile_norms.push(norm),
                None => return Err((tile_idx, tile)),
            }
            norms.push(seen.short_norm);
        }
        let all: &mut [i32] = bytemuck::cast_slice_mut(&mut tiles);
        all[n_tiles * n_pairs * LANES..][..lower.len()].copy_from_slice(&lower);
        tiles.shorten(n_tiles * shape.n_columns());
        Ok(Self {
            lines: tiles,
            n_tiles,
            shape,
            norms,
        })
    }

    /// As they were, of the memory and the norms that they had.
    pub(crate) fn from_lines(lines: Tiles, shape: Shape, norms: Vec<f32>) -> Self {
        let n_tiles = norms.len();
        assert_eq!(lines.len(), n_tiles * shape.n_columns() * LANES);
        Self {
            lines,
            n_tiles,
            shape,
            norms,
        }
    }

    /// Its memory, to be filled again.
    pub(crate) fn into_lines(self) -> Tiles {
        self.lines
    }

    /// Its memory, as it lies.
    pub(crate) fn lines(&self) -> &[f32] {
        &self.lines
    }

    /// How values are cut.
    pub(crate) fn shape(&self) -> &Shape {
        &self.shape
    }

    /// [n_tiles] a number not below the norm of any row of a tile less the origin.
    pub(crate) fn norms(&self) -> &[f32] {
        &self.norms
    }

    /// [n_features] subtracted from each row before its upper bits are taken.
    pub(crate) fn origin(&self) -> &[i32] {
        self.shape.origin()
    }

    /// Upper bits are in steps of two to this power.
    pub(crate) fn shift(&self) -> u32 {
        self.shape.shift
    }

    /// [n_features / 2, rounded up] upper bits of a tile: those of the first of two features in the lower half.
    #[inline(always)]
    pub(crate) fn pairs(&self, tile_idx: usize) -> &[[i32; LANES]] {
        self.pairs_of(tile_idx..tile_idx + 1)
    }

    /// Those of some tiles, one after the other.
    #[inline(always)]
    pub(crate) fn pairs_of(&self, tiles: Range<usize>) -> &[[i32; LANES]] {
        let n_pairs = self.n_pairs();
        let all: &[[i32; LANES]] = bytemuck::cast_slice(&self.lines);
        &all[tiles.start * n_pairs..tiles.end * n_pairs]
    }

    /// `out` [n_features] becomes a tile.
    pub(crate) fn read(&self, tile_idx: usize, out: &mut Columns) {
        vectorised(Joining {
            tile: self.tile(tile_idx),
            out,
        });
    }

    /// A tile, as it lies.
    #[inline(always)]
    pub(crate) fn tile(&self, tile_idx: usize) -> CutTile<'_> {
        CutTile {
            pairs: self.pairs(tile_idx),
            lower: self.lower(tile_idx),
            origin: &self.shape.origin,
            shift: self.shape.shift_of(self.norms[tile_idx]),
        }
    }

    /// One value.
    pub(crate) fn value(&self, row_idx: usize, feature_idx: usize) -> i32 {
        let tile = self.tile(row_idx / LANES);
        tile.value(row_idx % LANES, feature_idx)
    }

    /// [LANES x n_quads] of a tile.
    #[inline(always)]
    fn lower(&self, tile_idx: usize) -> &[i32] {
        let all: &[i32] = bytemuck::cast_slice(&self.lines);
        let n_lower = LANES * self.n_quads();
        &all[self.first_lower() + tile_idx * n_lower..][..n_lower]
    }

    /// Rows, as they lie. Only those of tiles that have a [`ShortRows::norm`] may be asked for.
    #[inline(always)]
    pub(crate) fn short_rows(&self) -> ShortRows<'_> {
        ShortRows {
            pairs: self.pairs_of(0..self.n_tiles),
            n_pairs: self.n_pairs(),
            lower: &bytemuck::cast_slice(&self.lines)[self.first_lower()..],
            n_quads: self.n_quads(),
            norms: &self.norms,
            // A number of 15 bits and zeros.
            longest: longest(self.shape.shift) as f32,
            origin: &self.shape.origin,
            shift: self.shape.shift,
        }
    }

    fn n_pairs(&self) -> usize {
        self.shape.n_pairs()
    }

    fn n_quads(&self) -> usize {
        self.shape.n_quads()
    }

    /// Where lower bits begin, in words of four.
    fn first_lower(&self) -> usize {
        self.n_tiles * self.n_pairs() * LANES
    }
}

/// Asks for the lines of a row.
#[inline(always)]
fn fetch_row(row: &[i32]) {
    row.chunks(QUADS_A_LINE).for_each(fetch);
    // It may begin in the middle of a line.
    fetch(&row[row.len() - 1..]);
}

/// Asks for the lines of the rows whose bit is set of a tile whose lower bits these are, [LANES x n_quads].
#[inline(always)]
fn fetch_rows(lower: &[i32], n_quads: usize, rows: u32) {
    if rows.count_ones() > ROWS_FETCHED {
        return lower.chunks(QUADS_A_LINE).for_each(fetch);
    }
    for lane in lanes_of(rows) {
        fetch_row(&lower[lane * n_quads..][..n_quads]);
    }
}

/// Asks for the line at which some words begin.
#[inline(always)]
fn fetch(words: &[i32]) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is part of x86-64; a prefetch reads nothing.
    unsafe {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(words.as_ptr().cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = words;
}

/// Puts a tile together.
struct Joining<'a> {
    tile: CutTile<'a>,
    out: &'a mut Columns,
}

impl Vectorised for Joining<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        // SAFETY: passed on to the caller.
        unsafe { join::<L>(self.tile, self.out) };
    }
}

/// Cuts a tile: a loop for [`vectorised`] to compile for the vectors at hand.
struct Cutting<'a> {
    shape: &'a Shape,
    tile: &'a Columns,
    pairs: &'a mut [[i32; LANES]],
    lower: &'a mut [i32],
}

/// What was seen of a tile while it was cut.
pub(crate) struct Seen {
    /// A number not below the norm of any row, and less than 1 % above the largest; `None` when a value is off the grid.
    pub(crate) norm: Option<f32>,
    /// Of the rows less the origin.
    short_norm: f32,
}

impl Vectorised for Cutting<'_> {
    type Output = Seen;

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) -> Seen {
        let short_norm = norm_of(self.tile, self.shape.origin());
        let shift = self.shape.shift_of(short_norm);
        self.shape.cut(self.tile, shift, self.pairs, self.lower);
        Seen {
            norm: norm_of_grid_tile(self.tile),
            short_norm,
        }
    }
}

/// The upper bits, and the lower ones.
#[inline(always)]
fn cut_column(column: [f32; LANES], origin: i32, shift: u32) -> [[i32; LANES]; 2] {
    let half = 1 << shift >> 1;
    let (mut upper, mut lower) = ([0; LANES], [0; LANES]);
    for lane in 0..LANES {
        let value = whole(column[lane]) - origin;
        upper[lane] = (value + half) >> shift;
        lower[lane] = (value - (upper[lane] << shift)) & 0xff;
    }
    [upper, lower]
}

/// The largest norm of the rows of a tile less `origin`, rounded up.
#[inline(always)]
fn norm_of(tile: &Columns, origin: &[i32]) -> f32 {
    rounded_up_root(&short_squares_of(tile, origin))
}

/// `|x - origin|^2` of the rows of a tile. Apart from [`squares_of`]: of two sums in one loop the compiler makes no vectors.
#[inline(always)]
fn short_squares_of(tile: &Columns, origin: &[i32]) -> [f32; LANES] {
    let mut squares = [0f32; LANES];
    for (column, &origin) in tile.iter().zip(origin) {
        let (mut column, origin) = (*column, origin as f32);
        for lane in 0..LANES {
            // Exact: less than 2^23.
            column[lane] -= origin;
            squares[lane] += column[lane] * column[lane];
        }
    }
    squares
}

/// Rows of this norm and less are short.
fn longest(shift: u32) -> f64 {
    LONGEST * f64::from(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::permute::SEGMENT_ROWS;
    use crate::{Block, TileRoom};

    fn block(n_features: usize, n_rows: usize, value: impl Fn(usize, usize) -> i32) -> Block {
        let values: Vec<i32> = (0..n_rows * n_features)
            .map(|at| value(at / n_features, at % n_features))
            .collect();
        Block::from_rows(3, n_features, &values, (0..n_rows as u64).collect()).unwrap()
    }

    /// Reads a block in every way there is, whole and cut in two; how many of its tiles are short.
    fn check(whole: Block) -> usize {
        let whole = whole.into_whole();
        let split = whole.clone().into_split();
        let cut = split.split().expect("worth while");
        assert_eq!(split, whole);
        assert_eq!(split.tile_norms(), whole.tile_norms());
        let (mut room, mut other_room) = (TileRoom::new(), TileRoom::new());
        let n_tiles = whole.tile_norms().len();
        for tile_idx in 0..n_tiles {
            let expected = whole.tile(tile_idx, &mut other_room);
            assert_eq!(split.tile(tile_idx, &mut room), expected);
            for lane in 0..LANES {
                let mut row = vec![[1; LANES]; whole.n_features().div_ceil(LANES)];
                let row_idx = tile_idx * LANES + lane;
                cut.tile(tile_idx).pick(lane, &mut row);
                let mut expected: Vec<i32> = expected.iter().map(|c| c[lane] as i32).collect();
                expected.resize(row.as_flattened().len(), 0);
                assert_eq!(row.as_flattened(), expected);
                if cut.short_rows().norm(tile_idx).is_some() {
                    row.fill([1; LANES]);
                    cut.short_rows().pick(row_idx, &mut row);
                    assert_eq!(row.as_flattened(), expected);
                }
                expected.truncate(whole.n_features());
                let value = |f| split.value(row_idx, f);
                assert!((0..whole.n_features()).map(value).eq(expected));
            }
        }
        assert_eq!(split.into_whole(), whole);
        (0..n_tiles)
            .filter(|tile_idx| cut_is_short(&whole, *tile_idx))
            .count()
    }

    fn cut_is_short(whole: &Block, tile_idx: usize) -> bool {
        let split = whole.clone().into_split();
        let split = split.split().unwrap();
        split.short_rows().norm(tile_idx).is_some()
    }

    #[test]
    fn values_come_back_to_the_last_bit() {
        let edge = GRID_LIMIT - 1;
        for n_features in [2, 3, 4, 17] {
            let spread =
                |row: usize, f: usize| ((row * 7_919 + f * 104_729) % 800_001) as i32 - 400_000;
            assert_eq!(check(block(n_features, 16 * 9, spread)), 9);
            check(block(n_features, 1, |_, f| f as i32 - 5));
            check(block(n_features, 37, |_, _| edge));
            let far = if n_features < 4 { edge } else { edge / 3 };
            let corners = |row: usize, f: usize| {
                if (row + f).is_multiple_of(2) {
                    far
                } else {
                    -far
                }
            };
            check(block(n_features, 16 * 4, corners));
            // All rows lie at one end of the grid, but for one.
            let lonely = |row: usize, _: usize| if row == 777 { edge } else { -edge + row as i32 };
            let n_short = check(block(n_features, 16 * 200, lonely));
            assert_eq!(n_short, 199);
        }
    }

    #[test]
    fn rows_in_another_order_are_cut_as_they_would_be_there() {
        for n_features in [2, 5, 16] {
            // One row in 700 makes its tile a long one; each order makes others of them.
            let value = |row: usize, f: usize| match row % 700 {
                699 => 3_000_000 - f as i32,
                _ => ((row * 7_919 + f * 104_729) % 50_001) as i32,
            };
            let n_rows = 2 * SEGMENT_ROWS + 1_003;
            let given = block(n_features, n_rows, value).into_split();
            let mut order: Vec<u16> = (0..n_rows as u16).collect();
            order.chunks_mut(SEGMENT_ROWS).for_each(|rows| {
                rows.sort_by_key(|row| row.wrapping_mul(40_503));
            });
            let mut reordered = given.clone();
            reordered.reorder(&order);
            let split = reordered.split().expect("as before");
            let mut room = TileRoom::new();
            let mut n_long = [0; 2];
            for tile_idx in 0..n_rows.div_ceil(LANES) {
                let tile = reordered.tile(tile_idx, &mut room);
                for (lane, &from) in order[tile_idx * LANES..].iter().take(LANES).enumerate() {
                    let expected = (0..n_features).map(|f| value(from.into(), f));
                    assert!(tile.iter().map(|column| column[lane] as i32).eq(expected));
                }
                let norm = norm_of_grid_tile(tile).expect("on the grid");
                assert_eq!(reordered.tile_norms()[tile_idx], norm);
                assert_eq!(split.norms[tile_idx], norm_of(tile, split.origin()));
                for (n_long, block) in n_long.iter_mut().zip([&given, &reordered]) {
                    let short = block
                        .split()
                        .and_then(|split| split.short_rows().norm(tile_idx));
                    *n_long += usize::from(short.is_none());
                }
            }
            assert!(n_long[0] > 8 && n_long[1] > 8, "{n_long:?}");
            let mut back = order.clone();
            for (row, &from) in (0..).zip(&order) {
                back[usize::from(from)] = row;
            }
            reordered.reorder(&back);
            let split = |block: &Block| block.split().unwrap().clone();
            let ([back, given], n_tiles) = (
                [reordered, given].map(|b| split(&b)),
                n_rows.div_ceil(LANES),
            );
            assert_eq!(back.norms, given.norms);
            for tile_idx in 0..n_tiles {
                assert_eq!(back.pairs(tile_idx), given.pairs(tile_idx));
                assert_eq!(back.lower(tile_idx), given.lower(tile_idx));
            }
        }
    }

    #[test]
    fn one_feature_and_very_long_rows_stay_whole() {
        let is_split = |block: Block| block.into_split().split().is_some();
        assert!(!is_split(block(1, 100, |row, _| row as i32)));
        assert!(!is_split(block(257, 100, |row, _| row as i32)));
        let edges = |row: usize, _: usize| {
            if row.is_multiple_of(2) {
                GRID_LIMIT - 1
            } else {
                1 - GRID_LIMIT
            }
        };
        assert!(!is_split(block(64, 100, edges)));
        assert!(is_split(block(32, 100, |row, _| row as i32)));
    }
}
