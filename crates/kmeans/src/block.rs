//! Rows on the grid, in the layout that kernels read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::cpu::{Lanes, Vectorised, vectorised};
use crate::permute::{Moves, SEGMENT_ROWS, SEGMENT_TILES};
use crate::split::{Columns, Shape, Split};
use crate::to_grid::{OnGrid, PutOnGrid, place_strip, strips};
use crate::{BLOCK_ROWS, GRID_LIMIT, LANES, MAX_FEATURES, Tiles};

/// Up to [`BLOCK_ROWS`] rows on the grid: rectangular and in range by construction.
///
/// Rows lie in tiles of [`LANES`] rows, feature by feature; the last tile is filled up with zeros. Where the processor is fast at products
/// of 16 bits, values are cut in two, and the halves lie apart; [`Block::tile`] puts a tile together again.
///
/// A block may hold its rows in another order than they were given in ([`Block::reorder`]); whatever is asked of all rows has the
/// same answer in any order.
#[derive(Debug, Clone)]
pub struct Block {
    id: u64,
    serial: u64,
    n_rows: usize,
    n_features: usize,
    values: Values,
    keys: Vec<u64>,
    tile_norms: Vec<f32>,
    order: Option<Arc<RowOrder>>,
}

/// How the values of a block lie in memory.
#[derive(Debug, Clone)]
pub(crate) enum Values {
    /// As floats: value `f` of row `r` at `(r / LANES * n_features + f) * LANES + r % LANES`.
    Whole(Tiles),
    Split(Box<Split>),
}

/// See [`Block::lines`].
pub(crate) struct Lines<'a> {
    all: &'a Columns,
    n_a_tile: usize,
}

impl<'a> Lines<'a> {
    /// Those of a run of tiles.
    #[inline(always)]
    pub(crate) fn of(&self, tiles: std::ops::Range<usize>) -> &'a Columns {
        &self.all[tiles.start * self.n_a_tile..tiles.end * self.n_a_tile]
    }
}

/// Where one tile is put together.
#[derive(Debug, Clone, Default)]
pub struct TileRoom(pub(crate) Vec<[f32; LANES]>);

impl TileRoom {
    /// For a tile of any block.
    pub const fn new() -> Self {
        Self(Vec::new())
    }
}

/// Where rows came from.
#[derive(Debug)]
pub(crate) struct RowOrder {
    /// Of this order, among all of this process; never 0.
    id: u64,
    /// [n_rows] the place that each row was given in.
    given: Vec<u16>,
}

impl RowOrder {
    /// One that this process has made before.
    pub(crate) fn again(id: u64, given: Vec<u16>) -> Self {
        Self { id, given }
    }

    pub(crate) fn given(&self) -> &[u16] {
        &self.given
    }
}

impl PartialEq for RowOrder {
    fn eq(&self, other: &Self) -> bool {
        self.given == other.given
    }
}

/// Numbers blocks and orders of their rows.
static SERIALS: AtomicU64 = AtomicU64::new(1);

fn next_serial() -> u64 {
    SERIALS.fetch_add(1, Ordering::Relaxed)
}

/// Why numbers are not a block.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BlockError {
    /// The lengths do not form a rectangle of permitted size.
    #[error(
        "{n_values} values and {n_keys} keys are not n_rows <= {BLOCK_ROWS} times n_features={n_features}"
    )]
    Shape {
        /// Values given.
        n_values: usize,
        /// Keys given, one a row.
        n_keys: usize,
        /// Columns asked for.
        n_features: usize,
    },
    /// A value is outside the grid or no integer.
    #[error("row {row_idx}, feature {feature_idx}: not an integer below 2^22 in magnitude")]
    OffGrid {
        /// Row in the block.
        row_idx: usize,
        /// Feature.
        feature_idx: usize,
    },
}

impl Block {
    /// `values` [n_rows x n_features] row-major grid integers; `keys` [n_rows] row keys. `id` names the block within its run.
    pub fn from_rows(
        id: u64,
        n_features: usize,
        values: &[i32],
        keys: Vec<u64>,
    ) -> Result<Self, BlockError> {
        let n_rows = keys.len();
        let mut tiles = Tiles::zeroed(n_rows.div_ceil(LANES) * n_features);
        if n_features > 0 && values.len() == n_rows * n_features {
            for (row_idx, row) in values.chunks_exact(n_features).enumerate() {
                for (feature_idx, &value) in row.iter().enumerate() {
                    // Every |value| < 2^24 is exact; larger ones are refused below whatever they round to.
                    tiles[tile_index(n_features, row_idx, feature_idx)] = value as f32;
                }
            }
        } else {
            return Err(BlockError::Shape {
                n_values: values.len(),
                n_keys: n_rows,
                n_features,
            });
        }
        Self::from_tiles(id, n_features, tiles, keys)
    }

    /// `tiles` [n_tiles x n_features x LANES], the last filled up with zeros, `keys` [n_rows].
    pub fn from_tiles(
        id: u64,
        n_features: usize,
        tiles: Tiles,
        keys: Vec<u64>,
    ) -> Result<Self, BlockError> {
        Self::from_raw_tiles(id, n_features, tiles, keys, &mut OnGrid)
    }

    /// As [`Block::from_tiles`], of tiles that `raw` puts on the grid, a few at a time: what is done with them next finds them in the cache.
    pub fn from_raw_tiles(
        id: u64,
        n_features: usize,
        tiles: Tiles,
        keys: Vec<u64>,
        raw: &mut dyn PutOnGrid,
    ) -> Result<Self, BlockError> {
        Self::made(id, n_features, tiles, keys, raw, crate::cpu::wants_split())
    }

    fn made(
        id: u64,
        n_features: usize,
        mut tiles: Tiles,
        keys: Vec<u64>,
        raw: &mut dyn PutOnGrid,
        may_split: bool,
    ) -> Result<Self, BlockError> {
        let n_rows = keys.len();
        let shape_is_right = (1..=MAX_FEATURES).contains(&n_features)
            && n_rows <= BLOCK_ROWS
            && tiles.len() == n_rows.div_ceil(LANES) * LANES * n_features;
        if !shape_is_right {
            return Err(BlockError::Shape {
                n_values: tiles.len(),
                n_keys: n_rows,
                n_features,
            });
        }
        let n_tiles = tiles.len() / LANES / n_features;
        let mut tile_norms = Vec::with_capacity(n_tiles);
        let shape = may_split.then(|| Shape::of(&tiles, n_features, n_rows, raw));
        let values = match shape.flatten() {
            Some(shape) => {
                let split = Split::new(tiles, shape, raw, &mut tile_norms);
                let split = split.map_err(|(idx, tile)| first_off_grid(idx, &tile))?;
                Values::Split(Box::new(split))
            }
            None => {
                for strip in strips(n_tiles, n_features) {
                    let first = strip.start;
                    let strip = place_strip(&mut tiles, n_features, strip, raw);
                    let columns = strip.as_chunks::<LANES>().0.chunks_exact(n_features);
                    for (tile_idx, tile) in (first..).zip(columns) {
                        match norm_of_grid_tile(tile) {
                            Some(norm) => tile_norms.push(norm),
                            None => return Err(first_off_grid(tile_idx, tile)),
                        }
                    }
                }
                Values::Whole(tiles)
            }
        };
        // Only uniqueness is asked of it.
        Ok(Self {
            id,
            serial: next_serial(),
            n_rows,
            n_features,
            values,
            keys,
            tile_norms,
            order: None,
        })
    }

    /// Of rows that have been cut.
    pub(crate) fn of_split(
        id: u64,
        n_rows: usize,
        split: Split,
        tile_norms: Vec<f32>,
        keys: Vec<u64>,
        order: Option<Arc<RowOrder>>,
    ) -> Self {
        Self {
            id,
            serial: next_serial(),
            n_rows,
            n_features: split.shape().n_features(),
            values: Values::Split(Box::new(split)),
            keys,
            tile_norms,
            order,
        }
    }

    /// The same rows, with all bits of a value together, as on processors that are no faster at products of 16 bits.
    pub fn into_whole(self) -> Self {
        let values = match self.values {
            Values::Whole(tiles) => tiles,
            Values::Split(_) => {
                let mut tiles = Tiles::zeroed(self.tile_norms.len() * self.n_features);
                self.copy_tiles(0..self.tile_norms.len(), &mut tiles);
                tiles
            }
        };
        Self {
            values: Values::Whole(values),
            ..self
        }
    }

    /// The same rows cut in two, if they are worth it, also on processors that are no faster for it.
    #[cfg(test)]
    pub(crate) fn into_split(self) -> Self {
        let mut tiles = Tiles::zeroed(self.tile_norms.len() * self.n_features);
        self.copy_tiles(0..self.tile_norms.len(), &mut tiles);
        let split = Self::made(
            self.id,
            self.n_features,
            tiles,
            self.keys,
            &mut OnGrid,
            true,
        );
        split.expect("rows of a block are rows of a block")
    }

    /// Puts the rows into another order, which has each of them once: row i is what was row `order[i]`.
    ///
    /// # Panics
    /// When `order` is not n_rows long or takes a row out of its segment of 4,096 rows.
    pub fn reorder(&mut self, order: &[u16]) {
        let given = order.iter().map(|&row| match &self.order {
            Some(own) => own.given[usize::from(row)],
            None => row,
        });
        let new_order = RowOrder {
            id: next_serial(),
            given: given.collect(),
        };
        self.permute(order);
        self.order = Some(Arc::new(new_order));
    }

    /// Puts what was found of each row, `of_rows` [n_rows], into the order that the rows were given in.
    ///
    /// # Panics
    /// When `of_rows` has another length.
    pub fn put_as_given<T: Clone>(&self, of_rows: &mut [T]) {
        assert_eq!(of_rows.len(), self.n_rows, "one a row");
        if let Some(own) = &self.order {
            let found = of_rows.to_vec();
            for (of_row, &given) in found.into_iter().zip(&own.given) {
                of_rows[usize::from(given)] = of_row;
            }
        }
    }

    /// Names the order of the rows: 0 as they were given, another number for each [`Block::reorder`] of this process.
    pub fn order_id(&self) -> u64 {
        self.order.as_ref().map_or(0, |order| order.id)
    }

    pub(crate) fn order(&self) -> Option<&Arc<RowOrder>> {
        self.order.as_ref()
    }

    fn permute(&mut self, order: &[u16]) {
        self.serial = next_serial();
        assert_eq!(order.len(), self.n_rows, "a place for each row");
        let segments = order.chunks(SEGMENT_ROWS).enumerate();
        let norms = self.tile_norms.chunks_mut(SEGMENT_TILES);
        for ((segment_idx, order), norms) in segments.zip(norms) {
            let moves = Moves::new(segment_idx, order);
            let first_tile = segment_idx * SEGMENT_TILES;
            match &mut self.values {
                Values::Whole(tiles) => {
                    let columns =
                        &mut tiles.as_chunks_mut::<LANES>().0[first_tile * self.n_features..];
                    vectorised(PermuteWhole {
                        columns,
                        moves: &moves,
                        norms,
                        n_features: self.n_features,
                    });
                }
                Values::Split(split) => split.permute(first_tile, &moves, norms),
            }
        }
        self.keys = order
            .iter()
            .map(|&row| self.keys[usize::from(row)])
            .collect();
    }

    /// The memory of its tiles, and its keys, to be filled again.
    pub fn into_parts(self) -> (Tiles, Vec<u64>) {
        let tiles = match self.values {
            Values::Whole(tiles) => tiles,
            Values::Split(split) => split.into_lines(),
        };
        (tiles, self.keys)
    }

    /// Names the block within its run.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Differs from that of every other block made in this process, so that a device knows whether it has these rows already. A clone
    /// has the same rows and the same serial. Part of no answer and no comparison.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// Rows held; the padding of the last tile does not count.
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// Columns.
    pub fn n_features(&self) -> usize {
        self.n_features
    }

    /// Tile `tile_idx`: [n_features] columns of [`LANES`] rows, put together in `room` if need be.
    ///
    /// # Panics
    /// When there is no such tile.
    #[inline(always)]
    pub fn tile<'a>(&'a self, tile_idx: usize, room: &'a mut TileRoom) -> &'a [[f32; LANES]] {
        match &self.values {
            Values::Whole(tiles) => {
                let columns = tiles.as_chunks::<LANES>().0;
                &columns[tile_idx * self.n_features..][..self.n_features]
            }
            Values::Split(split) => {
                room.0.resize(self.n_features, [0.0; LANES]);
                split.read(tile_idx, &mut room.0);
                &room.0
            }
        }
    }

    /// `out` [tiles x n_features x LANES] becomes some tiles, one after the other.
    ///
    /// # Panics
    /// When there are no such tiles, or `out` has another length.
    pub fn copy_tiles(&self, tiles: std::ops::Range<usize>, out: &mut [f32]) {
        assert_eq!(out.len(), tiles.len() * self.n_features * LANES);
        match &self.values {
            Values::Whole(all) => {
                out.copy_from_slice(&all[tiles.start * self.n_features * LANES..][..out.len()]);
            }
            Values::Split(split) => {
                let (columns, _) = out.as_chunks_mut::<LANES>();
                for (tile_idx, out) in tiles.zip(columns.chunks_exact_mut(self.n_features)) {
                    split.read(tile_idx, out);
                }
            }
        }
    }

    /// The cache lines that most passes read; only good for fetching them.
    pub(crate) fn lines(&self) -> Lines<'_> {
        let all: &Columns = match &self.values {
            Values::Whole(all) => all.as_chunks::<LANES>().0,
            Values::Split(split) => bytemuck::cast_slice(split.pairs_of(0..self.tile_norms.len())),
        };
        let n_a_tile = all.len() / self.tile_norms.len().max(1);
        Lines { all, n_a_tile }
    }

    /// How the rows lie in memory.
    #[inline(always)]
    pub(crate) fn values(&self) -> &Values {
        &self.values
    }

    /// The rows cut in two, where they are.
    #[inline(always)]
    pub(crate) fn split(&self) -> Option<&Split> {
        match &self.values {
            Values::Whole(_) => None,
            Values::Split(split) => Some(split),
        }
    }

    /// [n_rows] row keys.
    pub fn keys(&self) -> &[u64] {
        &self.keys
    }

    /// [n_tiles] for each tile a number not below the Euclidean norm of any of its rows, and less than 1 % above the largest.
    ///
    /// It bounds the rounding errors of a kernel; a tile each, so that one outlier does not make every row uncertain.
    pub fn tile_norms(&self) -> &[f32] {
        &self.tile_norms
    }

    /// Copies row `row_idx` into `out` [n_features].
    pub fn read_row(&self, row_idx: usize, out: &mut [i32]) {
        for (feature_idx, value) in out.iter_mut().enumerate() {
            *value = self.value(row_idx, feature_idx);
        }
    }

    /// One value, exact.
    pub fn value(&self, row_idx: usize, feature_idx: usize) -> i32 {
        match &self.values {
            Values::Whole(tiles) => tiles[tile_index(self.n_features, row_idx, feature_idx)] as i32,
            Values::Split(split) => split.value(row_idx, feature_idx),
        }
    }

    /// Bytes of memory the rows and keys take.
    pub fn size_bytes(&self) -> usize {
        let n_floats = match &self.values {
            Values::Whole(tiles) => tiles.len() + self.tile_norms.len(),
            Values::Split(split) => split.lines().len() + 2 * self.tile_norms.len(),
        };
        n_floats * size_of::<f32>() + self.keys.len() * size_of::<u64>()
    }
}

/// The same rows under the same names; not the serial, which says only which making of a block it is.
impl PartialEq for Block {
    fn eq(&self, other: &Self) -> bool {
        (self.id, self.n_rows, self.n_features) == (other.id, other.n_rows, other.n_features)
            && self.keys == other.keys
            && self.order == other.order
            && has_same_values(self, other)
    }
}

fn tile_index(n_features: usize, row_idx: usize, feature_idx: usize) -> usize {
    (row_idx / LANES * n_features + feature_idx) * LANES + row_idx % LANES
}

/// Puts the rows of a segment in another order.
struct PermuteWhole<'a> {
    /// [tiles of the segment x n_features], or more.
    columns: &'a mut Columns,
    moves: &'a Moves,
    /// [tiles of the segment]
    norms: &'a mut [f32],
    n_features: usize,
}

impl Vectorised for PermuteWhole<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let (columns, n_features) = (self.columns, self.n_features);
        self.moves.permute(columns, n_features);
        for &tile in &self.moves.tiles {
            let columns = &columns[tile * n_features..][..n_features];
            // On the grid they are: they were before.
            self.norms[tile] = norm_of_grid_tile(columns).unwrap_or(f32::INFINITY);
        }
    }
}

fn has_same_values(a: &Block, b: &Block) -> bool {
    let (mut room, mut other_room) = (TileRoom::default(), TileRoom::default());
    (0..a.tile_norms.len()).all(|idx| a.tile(idx, &mut room) == b.tile(idx, &mut other_room))
}

/// The largest row norm of a tile, rounded up; `None` when a value is off the grid.
#[inline(always)]
pub(crate) fn norm_of_grid_tile(tile: &Columns) -> Option<f32> {
    is_grid_tile(tile).then(|| rounded_up_root(&squares_of(tile)))
}

/// `|x|^2` of the rows of a tile.
#[inline(always)]
pub(crate) fn squares_of(tile: &Columns) -> [f32; LANES] {
    let mut squares = [0f32; LANES];
    for column in tile {
        // A copy: of what may lie in one place the compiler makes no vectors.
        let column = *column;
        for lane in 0..LANES {
            squares[lane] += column[lane] * column[lane];
        }
    }
    squares
}

/// Whether all values are on the grid. A word for each lane and no branch, so that it vectorises: one truth for all does not.
#[inline(always)]
fn is_grid_tile(tile: &Columns) -> bool {
    let mut off = [0u32; LANES];
    for column in tile {
        let column = *column;
        for lane in 0..LANES {
            off[lane] |= u32::from(!is_on_grid(column[lane]));
        }
    }
    let mut any = 0;
    for off in off {
        any |= off;
    }
    any == 0
}

/// Not below the root of any of `squares`, which may be 4,097 roundings of 2^-24 too small.
#[inline(always)]
pub(crate) fn rounded_up_root(squares: &[f32; LANES]) -> f32 {
    // By halves: one after the other, each would wait for the one before.
    let mut largest = *squares;
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            largest[lane] = largest[lane].max(largest[lane + half]);
        }
    }
    rounded_up(largest[0])
}

/// As [`rounded_up_root`], of one.
#[inline(always)]
pub(crate) fn rounded_up(square: f32) -> f32 {
    square.sqrt() * 1.001
}

#[inline(always)]
fn is_on_grid(value: f32) -> bool {
    // Adding 1.5 x 2^23 rounds every |value| < 2^22 to an integer; NaN equals nothing.
    const ROUNDER: f32 = 12_582_912.0;
    (value.abs() < GRID_LIMIT as f32) & ((value + ROUNDER) - ROUNDER == value)
}

#[cold]
fn first_off_grid(tile_idx: usize, tile: &Columns) -> BlockError {
    let at = tile
        .as_flattened()
        .iter()
        .position(|&value| !is_on_grid(value))
        .unwrap_or(0);
    BlockError::OffGrid {
        row_idx: tile_idx * LANES + at % LANES,
        feature_idx: at / LANES,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_as_they_went_in() {
        let values: Vec<i32> = (0..37 * 3).map(|v| v * 1_000 - 50_000).collect();
        let block = Block::from_rows(7, 3, &values, (0..37).collect()).unwrap();
        let mut row = [0; 3];
        for (row_idx, expected) in values.chunks(3).enumerate() {
            block.read_row(row_idx, &mut row);
            assert_eq!(row, expected);
        }
    }

    #[test]
    fn rows_may_change_places_and_come_back() {
        for (n_rows, n_features) in [(1, 3), (5_000, 2), (4_096, 1), (9_001, 5)] {
            let values: Vec<i32> = (0..n_rows * n_features)
                .map(|v| v as i32 * 37 % 4_001 - 2_000)
                .collect();
            let given =
                Block::from_rows(9, n_features, &values, (0..n_rows as u64).collect()).unwrap();
            let mut order: Vec<u16> = (0..n_rows as u16).collect();
            order.chunks_mut(SEGMENT_ROWS).for_each(<[u16]>::reverse);
            let mut block = given.clone();
            assert_eq!(block.order_id(), 0);
            block.reorder(&order);
            let first_id = block.order_id();
            let (mut row, mut expected) = (vec![0; n_features], vec![0; n_features]);
            for (row_idx, &from) in order.iter().enumerate() {
                block.read_row(row_idx, &mut row);
                given.read_row(from.into(), &mut expected);
                assert_eq!((&row, block.keys()[row_idx]), (&expected, u64::from(from)));
            }
            order
                .chunks_mut(SEGMENT_ROWS)
                .for_each(|rows| rows.rotate_left(1));
            block.reorder(&order);
            assert!(![0, first_id].contains(&block.order_id()));
            let mut keys = block.keys().to_vec();
            block.put_as_given(&mut keys);
            assert_eq!(keys, given.keys());
        }
    }

    #[test]
    fn each_block_made_has_its_own_serial_and_equal_blocks_are_equal() {
        let make = || Block::from_rows(1, 1, &[5, 6], vec![8, 9]).unwrap();
        let (a, b) = (make(), make());
        assert_ne!(a.serial(), b.serial());
        assert_eq!(a.serial(), a.clone().serial());
        assert_eq!(a, b);
        assert_ne!(a, Block::from_rows(1, 1, &[5, 7], vec![8, 9]).unwrap());
        assert_ne!(a, Block::from_rows(1, 1, &[5, 6], vec![8, 0]).unwrap());
    }

    #[test]
    fn what_is_off_the_grid_is_refused() {
        let refused = Block::from_rows(0, 2, &[0, 1, 2, GRID_LIMIT], vec![1, 2]);
        assert_eq!(
            refused,
            Err(BlockError::OffGrid {
                row_idx: 1,
                feature_idx: 1
            })
        );
        assert!(Block::from_rows(0, 2, &[0, 1, 2], vec![1, 2]).is_err());
        let mut half = Tiles::zeroed(1);
        half.fill(0.5);
        assert!(Block::from_tiles(0, 1, half, vec![1]).is_err());
    }

    /// Values that are half of what they will be; which tiles have been put on the grid.
    struct Halves(usize, Vec<usize>);

    impl PutOnGrid for Halves {
        fn place(&mut self, tile_idxs: &[usize], tiles: &mut [f32]) {
            self.1.extend(tile_idxs);
            self.try_out(tile_idxs, tiles);
        }

        fn try_out(&self, tile_idxs: &[usize], tiles: &mut [f32]) {
            assert_eq!(tiles.len(), tile_idxs.len() * LANES * self.0);
            tiles.iter_mut().for_each(|value| *value *= 2.0);
        }
    }

    #[test]
    fn tiles_are_put_on_the_grid_once_and_in_order() {
        for (n_features, n_tiles) in [(1, 3), (2, 1), (5, 875), (32, 563), (300, 63_usize)] {
            let n_rows = n_tiles * LANES;
            let tiles = |scale: i32| {
                let mut tiles = Tiles::zeroed(n_tiles * n_features);
                for (at, value) in tiles.iter_mut().enumerate() {
                    *value = (scale * (at as i32 * 7_919 % 60_000 - 30_000)) as f32;
                }
                tiles
            };
            let keys = || (0..n_rows as u64).collect::<Vec<_>>();
            for may_split in [false, true] {
                let expected =
                    Block::made(0, n_features, tiles(2), keys(), &mut OnGrid, may_split).unwrap();
                let mut halves = Halves(n_features, Vec::new());
                let block =
                    Block::made(0, n_features, tiles(1), keys(), &mut halves, may_split).unwrap();
                assert_eq!(block, expected);
                assert_eq!(block.tile_norms(), expected.tile_norms());
                assert!(halves.1.into_iter().eq(0..n_tiles));
            }
        }
    }
}
