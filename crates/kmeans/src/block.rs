//! Rows on the grid, in the layout that kernels read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{BLOCK_ROWS, GRID_LIMIT, LANES, MAX_FEATURES, Tiles};

/// Up to [`BLOCK_ROWS`] rows on the grid: rectangular and in range by construction.
///
/// Rows lie in tiles of [`LANES`] rows: value `f` of row `r` is at `(r / LANES * n_features + f) * LANES + r % LANES`. The last
/// tile is filled up with zeros. The same bytes go to the CPU kernels and to the GPU.
///
/// A block may hold its rows in another order than they were given in ([`Block::reorder`]); whatever is asked of all rows has the
/// same answer in any order.
#[derive(Debug, Clone)]
pub struct Block {
    id: u64,
    serial: u64,
    n_rows: usize,
    n_features: usize,
    tiles: Tiles,
    keys: Vec<u64>,
    tile_norms: Vec<f32>,
    order: Option<Arc<RowOrder>>,
}

/// Where rows came from.
#[derive(Debug)]
struct RowOrder {
    /// Of this order, among all of this process; never 0.
    id: u64,
    /// [n_rows] the place that each row was given in.
    given: Vec<u16>,
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

/// Rows that change places with each other only: few enough for the second-level cache, enough to find like with like.
pub(crate) const SEGMENT_ROWS: usize = 4_096;

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

    /// `tiles` in the layout of the type, `keys` [n_rows].
    pub fn from_tiles(
        id: u64,
        n_features: usize,
        tiles: Tiles,
        keys: Vec<u64>,
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
        let tile_len = LANES * n_features;
        let mut tile_norms = Vec::with_capacity(tiles.len() / tile_len);
        for (tile_idx, tile) in tiles.chunks_exact(tile_len).enumerate() {
            match norm_of_grid_tile(tile) {
                Some(norm) => tile_norms.push(norm),
                None => return Err(first_off_grid(tile_idx, tile)),
            }
        }
        // Only uniqueness is asked of it.
        Ok(Self {
            id,
            serial: next_serial(),
            n_rows,
            n_features,
            tiles,
            keys,
            tile_norms,
            order: None,
        })
    }

    /// Puts the rows into another order: row i is what was row `order[i]`.
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

    /// Puts the rows back into the order they were given in.
    pub fn restore_order(&mut self) {
        if let Some(own) = self.order.take() {
            let mut back = vec![0; self.n_rows];
            for (row, &given) in (0..=u16::MAX).zip(&own.given) {
                back[usize::from(given)] = row;
            }
            self.permute(&back);
        }
    }

    /// Names the order of the rows: 0 as they were given, another number for each [`Block::reorder`] of this process.
    pub fn order_id(&self) -> u64 {
        self.order.as_ref().map_or(0, |order| order.id)
    }

    fn permute(&mut self, order: &[u16]) {
        self.serial = next_serial();
        assert_eq!(order.len(), self.n_rows, "a place for each row");
        let n_features = self.n_features;
        let tile_len = n_features * LANES;
        // A segment is first laid out feature by feature: then its tiles are read in one go, and values are picked from few lines.
        let mut features = vec![0.0; n_features * SEGMENT_ROWS];
        for (segment_idx, order) in order.chunks(SEGMENT_ROWS).enumerate() {
            let first_row = segment_idx * SEGMENT_ROWS;
            let is_here = |row: &u16| usize::from(*row) / SEGMENT_ROWS == segment_idx;
            assert!(order.iter().all(is_here), "rows stay in their segment");
            let n_tiles = order.len().div_ceil(LANES);
            let tiles = &mut self.tiles[first_row / LANES * tile_len..][..n_tiles * tile_len];
            for (tile_idx, tile) in tiles.chunks_exact(tile_len).enumerate() {
                for (column, feature) in tile
                    .chunks_exact(LANES)
                    .zip(features.chunks_exact_mut(SEGMENT_ROWS))
                {
                    feature[tile_idx * LANES..][..LANES].copy_from_slice(column);
                }
            }
            // Masked, an index needs no check: a segment is a power of two of rows.
            let within: Vec<u16> = order.iter().map(|row| row % SEGMENT_ROWS as u16).collect();
            for (feature_idx, feature) in features.as_chunks::<SEGMENT_ROWS>().0.iter().enumerate()
            {
                for (tile, within) in tiles.chunks_exact_mut(tile_len).zip(within.chunks(LANES)) {
                    let column = &mut tile[feature_idx * LANES..][..LANES];
                    for (value, row) in column.iter_mut().zip(within) {
                        *value = feature[usize::from(*row) % SEGMENT_ROWS];
                    }
                }
            }
            let norms = &mut self.tile_norms[first_row / LANES..][..n_tiles];
            for (norm, tile) in norms.iter_mut().zip(tiles.chunks_exact(tile_len)) {
                // On the grid they are: they were before.
                *norm = norm_of_grid_tile(tile).unwrap_or(f32::INFINITY);
            }
        }
        self.keys = order
            .iter()
            .map(|&row| self.keys[usize::from(row)])
            .collect();
    }

    /// Its tiles and keys, to be filled again.
    pub fn into_parts(self) -> (Tiles, Vec<u64>) {
        (self.tiles, self.keys)
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

    /// All tiles, in the layout of the type.
    pub fn tiles(&self) -> &[f32] {
        &self.tiles
    }

    /// Tile `tile_idx`: [n_features] columns of [`LANES`] rows.
    ///
    /// # Panics
    /// When there is no such tile.
    #[inline]
    pub fn tile(&self, tile_idx: usize) -> &[[f32; LANES]] {
        self.columns(tile_idx..tile_idx + 1)
    }

    /// The columns of some tiles, one tile after the other.
    ///
    /// # Panics
    /// When there are no such tiles.
    #[inline]
    pub fn columns(&self, tiles: std::ops::Range<usize>) -> &[[f32; LANES]] {
        let columns = self.tiles.as_chunks::<LANES>().0;
        &columns[tiles.start * self.n_features..tiles.end * self.n_features]
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
        self.tiles[tile_index(self.n_features, row_idx, feature_idx)] as i32
    }

    /// Bytes of memory the rows and keys take.
    pub fn size_bytes(&self) -> usize {
        (self.tiles.len() + self.tile_norms.len()) * size_of::<f32>()
            + self.keys.len() * size_of::<u64>()
    }
}

/// The same rows under the same names; not the serial, which says only which making of a block it is.
impl PartialEq for Block {
    fn eq(&self, other: &Self) -> bool {
        (self.id, self.n_rows, self.n_features) == (other.id, other.n_rows, other.n_features)
            && self.keys == other.keys
            && self.tiles == other.tiles
            && self.order == other.order
    }
}

fn tile_index(n_features: usize, row_idx: usize, feature_idx: usize) -> usize {
    (row_idx / LANES * n_features + feature_idx) * LANES + row_idx % LANES
}

/// The largest row norm of a tile, rounded up; `None` when a value is off the grid. No branch inside, so that it vectorises.
fn norm_of_grid_tile(tile: &[f32]) -> Option<f32> {
    let mut squares = [0f32; LANES];
    let mut on_grid = true;
    for column in tile.as_chunks::<LANES>().0 {
        for lane in 0..LANES {
            on_grid &= is_on_grid(column[lane]);
            squares[lane] += column[lane] * column[lane];
        }
    }
    // At most 4,097 roundings of 2^-24, upwards or downwards, under the root.
    let largest = squares.iter().copied().fold(0.0, f32::max);
    on_grid.then(|| largest.sqrt() * 1.001)
}

fn is_on_grid(value: f32) -> bool {
    // Adding 1.5 x 2^23 rounds every |value| < 2^22 to an integer; NaN equals nothing.
    const ROUNDER: f32 = 12_582_912.0;
    value.abs() < GRID_LIMIT as f32 && (value + ROUNDER) - ROUNDER == value
}

#[cold]
fn first_off_grid(tile_idx: usize, tile: &[f32]) -> BlockError {
    let at = tile
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
        assert_eq!(block.tiles().len(), 48 * 3);
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
            block.restore_order();
            assert_eq!((block.order_id(), &block), (0, &given));
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
}
