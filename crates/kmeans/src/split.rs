//! Rows cut in two: the upper 16 bits of each value, which are all that most rows of most passes need, and the rest beside them.
//!
//! A value is `(upper << shift) + lower + origin`, the origin one of the block near the middle of its rows, so that the upper bits say as
//! much as they can. Upper bits lie in one run of memory and lower bits in another: a pass that reads the former only reads half the
//! bytes.

use crate::block::{norm_of_grid_tile, rounded_up_root};
use crate::cpu::{Lanes, Scalar, Vectorised, join, vectorised};
use crate::permute::{OfRows, SEGMENT_TILES, permute, pick};
use crate::{GRID_LIMIT, LANES, Tiles, whole};

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
/// Tiles that the origin and the shift are chosen by, at least where there are as many.
const SAMPLED_TILES: usize = 128;
/// Of those, so many in a hundred must be short enough.
const SHORT_PERCENT: usize = 97;

/// The rows of a block, cut in two.
#[derive(Debug, Clone)]
pub(crate) struct Split {
    /// Room for [n_tiles x n_features] columns, of which the upper bits take the first half and the lower bits a quarter.
    lines: Tiles,
    n_tiles: usize,
    shape: Shape,
    /// [n_tiles] as [`crate::Block::tile_norms`], of the rows less the origin.
    norms: Vec<f32>,
}

/// How values are cut.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shape {
    /// [n_features]
    origin: Vec<i32>,
    shift: u32,
}

/// One tile, as floats.
pub(crate) type Columns = [[f32; LANES]];

impl Shape {
    /// How to cut the rows of `tiles` [n_tiles x n_features x LANES], if that is worth while.
    pub(crate) fn of(tiles: &[f32], n_features: usize, n_rows: usize) -> Option<Self> {
        if !(MIN_FEATURES..=MAX_FEATURES).contains(&n_features) || n_rows == 0 {
            return None;
        }
        // Whole tiles only, unless there is none: padding is no row.
        let n_tiles = (n_rows / LANES).max(1);
        let sampled = || {
            let step = (n_tiles / SAMPLED_TILES).max(1);
            let columns = tiles.as_chunks::<LANES>().0.chunks_exact(n_features);
            columns.take(n_tiles).step_by(step)
        };
        let mut sums = vec![0f64; n_features];
        for tile in sampled() {
            for (sum, column) in sums.iter_mut().zip(tile) {
                *sum += f64::from(column.iter().sum::<f32>());
            }
        }
        let n_sampled = (sampled().count() * LANES) as f64;
        let limit = f64::from(ORIGIN_LIMIT);
        let origin: Vec<i32> = sums
            .iter()
            .map(|sum| (sum / n_sampled).round().clamp(-limit, limit) as i32)
            .collect();
        let mut norms: Vec<f32> = sampled().map(|tile| norm_of(tile, &origin)).collect();
        norms.sort_by(f32::total_cmp);
        let wanted = f64::from(norms[(norms.len() - 1) * SHORT_PERCENT / 100]);
        let shift = (0..=MAX_SHIFT).find(|shift| wanted <= longest(*shift))?;
        Some(Self { origin, shift })
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

    /// Cuts a tile: `pairs` [n_features / 2, rounded up], `lower` [n_features].
    #[inline(always)]
    fn cut(
        &self,
        tile: &Columns,
        shift: u32,
        pairs: &mut [[i32; LANES]],
        lower: &mut [[i8; LANES]],
    ) {
        let features = tile.chunks(2).zip(lower.chunks_mut(2));
        for (pair, ((columns, lower), origin)) in
            pairs.iter_mut().zip(features.zip(self.origin.chunks(2)))
        {
            let (low, rest) = cut_column(columns[0], origin[0], shift);
            lower[0] = rest;
            let mut high = [0; LANES];
            if let ([_, column], [_, lower], [_, origin]) = (columns, lower, origin) {
                (high, *lower) = cut_column(*column, *origin, shift);
            }
            let mut both = [0; LANES];
            for lane in 0..LANES {
                both[lane] = (low[lane] & 0xffff) | high[lane] << 16;
            }
            *pair = both;
        }
    }
}

impl Split {
    /// Cuts the tiles of a block in place. `tile_norms` become those of the block; the error is the first tile that is off the grid.
    pub(crate) fn new(
        mut tiles: Tiles,
        shape: Shape,
        tile_norms: &mut Vec<f32>,
    ) -> Result<Self, (usize, Vec<[f32; LANES]>)> {
        let n_features = shape.origin.len();
        let n_tiles = tiles.len() / LANES / n_features;
        let n_pairs = n_features.div_ceil(2);
        let mut norms = Vec::with_capacity(n_tiles);
        // The upper bits of a tile go where those of earlier ones were read; the lower bits wait until all have been.
        let mut lower = vec![[0i8; LANES]; n_tiles * n_features];
        let mut tile = vec![[0f32; LANES]; n_features];
        for (tile_idx, lower) in lower.chunks_exact_mut(n_features).enumerate() {
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
        let first = n_tiles * n_pairs * LANES * size_of::<i32>();
        let bytes: &mut [i8] = bytemuck::cast_slice_mut(&mut tiles);
        bytes[first..][..lower.len() * LANES].copy_from_slice(lower.as_flattened());
        Ok(Self {
            lines: tiles,
            n_tiles,
            shape,
            norms,
        })
    }

    /// Its memory, to be filled again.
    pub(crate) fn into_lines(self) -> Tiles {
        self.lines
    }

    /// [n_features] subtracted from each row before its upper bits are taken.
    pub(crate) fn origin(&self) -> &[i32] {
        &self.shape.origin
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
    pub(crate) fn pairs_of(&self, tiles: std::ops::Range<usize>) -> &[[i32; LANES]] {
        let n_pairs = self.n_pairs();
        let all: &[[i32; LANES]] = bytemuck::cast_slice(&self.lines);
        &all[tiles.start * n_pairs..tiles.end * n_pairs]
    }

    /// A number not below the norm of any row of a tile less the origin; `None` when it has rows too long for their upper bits to be scored.
    #[inline(always)]
    pub(crate) fn short_norm(&self, tile_idx: usize) -> Option<f32> {
        let norm = self.norms[tile_idx];
        self.shape.is_short(norm).then_some(norm)
    }

    /// `out` [n_features] becomes a tile.
    #[inline(always)]
    pub(crate) fn read(&self, tile_idx: usize, out: &mut Columns) {
        // SAFETY: plain Rust needs no more than the processor that the crate is compiled for.
        unsafe { join::<Scalar>(self.tile(tile_idx), out) };
    }

    /// A tile, as it lies.
    #[inline(always)]
    pub(crate) fn tile(&self, tile_idx: usize) -> CutTile<'_> {
        CutTile {
            pairs: self.pairs(tile_idx),
            lower: self.lower(tile_idx),
            origin: self.origin(),
            shift: self.shape.shift_of(self.norms[tile_idx]),
        }
    }

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
        let mut tile = vec![[0.0; LANES]; self.shape.origin.len()];
        let mut row = vec![0; tile.len()];
        for (lane, &place) in from.iter().enumerate() {
            let place = usize::from(place);
            let given = self.tile(first_tile + place / LANES);
            given.pick(place % LANES, &mut row);
            for (column, &value) in tile.iter_mut().zip(&row) {
                column[lane] = value as f32;
            }
        }
        tile
    }

    /// One value.
    pub(crate) fn value(&self, row_idx: usize, feature_idx: usize) -> i32 {
        let (tile, lane) = (self.tile(row_idx / LANES), row_idx % LANES);
        let pair = tile.pairs[feature_idx / 2][lane];
        let upper = match feature_idx % 2 {
            0 => pair << 16 >> 16,
            _ => pair >> 16,
        };
        (upper << tile.shift) + i32::from(tile.lower[feature_idx][lane]) + tile.origin[feature_idx]
    }

    #[inline(always)]
    fn lower(&self, tile_idx: usize) -> &[[i8; LANES]] {
        let n_features = self.shape.origin.len();
        let bytes: &[i8] = bytemuck::cast_slice(&self.lines);
        let all = bytes[self.first_lower()..].as_chunks::<LANES>().0;
        &all[tile_idx * n_features..][..n_features]
    }

    /// Asks for the lower bits of a tile.
    #[inline(always)]
    pub(crate) fn fetch_lower(&self, tile_idx: usize) {
        let lower = self.lower(tile_idx).as_flattened();
        for line in lower.chunks(64) {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: SSE is part of x86-64; a prefetch reads nothing.
            unsafe {
                use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
                _mm_prefetch::<_MM_HINT_T0>(line.as_ptr());
            }
            #[cfg(not(target_arch = "x86_64"))]
            let _ = line;
        }
    }

    fn n_pairs(&self) -> usize {
        self.shape.origin.len().div_ceil(2)
    }

    /// Byte at which the lower bits begin.
    fn first_lower(&self) -> usize {
        self.n_tiles * self.n_pairs() * LANES * size_of::<i32>()
    }
}

/// A tile, or some features of one.
#[derive(Clone, Copy)]
pub(crate) struct CutTile<'a> {
    /// [n_features / 2, rounded up] upper bits: those of the first of two features in the lower half.
    pub(crate) pairs: &'a [[i32; LANES]],
    /// [n_features]
    pub(crate) lower: &'a [[i8; LANES]],
    /// [n_features]
    pub(crate) origin: &'a [i32],
    /// Upper bits are in steps of two to this power.
    pub(crate) shift: u32,
}

impl<'a> CutTile<'a> {
    /// `N` features at a time, an even number.
    #[inline(always)]
    pub(crate) fn chunks<const N: usize>(self) -> impl Iterator<Item = CutTile<'a>> {
        let rest = self.lower.chunks(N).zip(self.origin.chunks(N));
        let chunks = self.pairs.chunks(N / 2).zip(rest);
        chunks.map(move |(pairs, (lower, origin))| CutTile {
            pairs,
            lower,
            origin,
            shift: self.shift,
        })
    }

    /// Row `lane`: `out` [n_features], or more.
    #[inline(always)]
    pub(crate) fn pick(self, lane: usize, out: &mut [i32]) {
        let rest = self.lower.chunks(2).zip(self.origin.chunks(2));
        for ((out, pair), (lower, origin)) in out.chunks_mut(2).zip(self.pairs).zip(rest) {
            let (low, high) = (pair[lane] << 16 >> 16, pair[lane] >> 16);
            out[0] = (low << self.shift) + i32::from(lower[0][lane]) + origin[0];
            if let ([_, out], [_, lower], [_, origin]) = (out, lower, origin) {
                *out = (high << self.shift) + i32::from(lower[lane]) + origin;
            }
        }
    }
}

/// Puts two features of a tile together.
#[inline(always)]
pub(crate) fn join_pair(
    pair: &[i32; LANES],
    lower: &[[i8; LANES]; 2],
    origin: [i32; 2],
    shift: u32,
    out: &mut [[f32; LANES]; 2],
) {
    // Copies: of what may lie in one place the compiler makes no vectors.
    let (pair, [low, high]) = (*pair, *lower);
    let mut upper = [[0; LANES]; 2];
    for lane in 0..LANES {
        upper[0][lane] = pair[lane] << 16 >> 16;
        upper[1][lane] = pair[lane] >> 16;
    }
    out[0] = join_column(upper[0], low, shift, origin[0]);
    out[1] = join_column(upper[1], high, shift, origin[1]);
}

/// Cuts a tile: a loop for [`vectorised`] to compile for the vectors at hand.
struct Cutting<'a> {
    shape: &'a Shape,
    tile: &'a Columns,
    pairs: &'a mut [[i32; LANES]],
    lower: &'a mut [[i8; LANES]],
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
        let n_features = split.shape.origin.len();
        let n_pairs = split.n_pairs();
        let mut tile = vec![[0.0; LANES]; n_features];
        // Of each row.
        let mut squares: OfRows<f32> = [[0.0; LANES]; SEGMENT_TILES];
        let mut short_squares: OfRows<f32> = [[0.0; LANES]; SEGMENT_TILES];
        let mut shifts: OfRows<u32> = [[0; LANES]; SEGMENT_TILES];
        for nth in 0..from.len() {
            // SAFETY: passed on to the caller.
            unsafe { join::<L>(split.tile(first_tile + nth), &mut tile) };
            [squares[nth], short_squares[nth]] = squares_of(&tile, split.origin());
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
        let first_lower = split.first_lower();
        let (upper, lower) = planes_mut(&mut split.lines, first_lower);
        let upper = &mut upper[first_tile * n_pairs..][..from.len() * n_pairs];
        let lower = &mut lower[first_tile * n_features..][..from.len() * n_features];
        permute(upper, n_pairs, from);
        permute(lower, n_features, from);
        for (nth, shift, tile) in mixed {
            let upper = &mut upper[nth * n_pairs..][..n_pairs];
            let lower = &mut lower[nth * n_features..][..n_features];
            split.shape.cut(&tile, shift, upper, lower);
        }
    }
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
        let short_norm = norm_of(self.tile, &self.shape.origin);
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
fn cut_column(column: [f32; LANES], origin: i32, shift: u32) -> ([i32; LANES], [i8; LANES]) {
    let half = 1 << shift >> 1;
    let (mut upper, mut lower) = ([0; LANES], [0; LANES]);
    for lane in 0..LANES {
        let value = whole(column[lane]) - origin;
        upper[lane] = (value + half) >> shift;
        lower[lane] = (value - (upper[lane] << shift)) as i8;
    }
    (upper, lower)
}

#[inline(always)]
fn join_column(upper: [i32; LANES], lower: [i8; LANES], shift: u32, origin: i32) -> [f32; LANES] {
    let mut column = [0.0; LANES];
    for lane in 0..LANES {
        column[lane] = ((upper[lane] << shift) + i32::from(lower[lane]) + origin) as f32;
    }
    column
}

/// The largest norm of the rows of a tile less `origin`, rounded up.
#[inline(always)]
fn norm_of(tile: &Columns, origin: &[i32]) -> f32 {
    rounded_up_root(&squares_of(tile, origin)[1])
}

/// `|x|^2` and `|x - origin|^2` of the rows of a tile.
#[inline(always)]
fn squares_of(tile: &Columns, origin: &[i32]) -> [[f32; LANES]; 2] {
    let [mut squares, mut short] = [[0f32; LANES]; 2];
    for (column, &origin) in tile.iter().zip(origin) {
        let origin = origin as f32;
        for lane in 0..LANES {
            // Exact: less than 2^23.
            let value = column[lane] - origin;
            squares[lane] += column[lane] * column[lane];
            short[lane] += value * value;
        }
    }
    [squares, short]
}

/// The upper bits of all tiles, and the lower ones, which begin at byte `first_lower`.
#[inline(always)]
fn planes_mut(lines: &mut Tiles, first_lower: usize) -> (&mut [[i32; LANES]], &mut [[i8; LANES]]) {
    let (upper, lower) = lines.split_at_mut(first_lower / size_of::<f32>());
    (
        bytemuck::cast_slice_mut(upper),
        bytemuck::cast_slice_mut(lower),
    )
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
                let mut row = vec![0; whole.n_features()];
                cut.tile(tile_idx).pick(lane, &mut row);
                let expected: Vec<i32> = expected.iter().map(|c| c[lane] as i32).collect();
                assert_eq!(row, expected);
                let row_idx = tile_idx * LANES + lane;
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
        split.split().unwrap().short_norm(tile_idx).is_some()
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
                    let short = block.split().and_then(|split| split.short_norm(tile_idx));
                    *n_long += usize::from(short.is_none());
                }
            }
            assert!(n_long[0] > 8 && n_long[1] > 8, "{n_long:?}");
            reordered.restore_order();
            assert_eq!(reordered, given);
            assert_eq!(
                reordered.split().unwrap().norms,
                given.split().unwrap().norms
            );
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
