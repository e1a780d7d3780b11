//! Rows on the grid, in the layout that kernels read.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{BLOCK_ROWS, GRID_LIMIT, LANES, MAX_FEATURES};

/// Up to [`BLOCK_ROWS`] rows on the grid: rectangular and in range by construction.
///
/// Rows lie in tiles of [`LANES`] rows: value `f` of row `r` is at `(r / LANES * n_features + f) * LANES + r % LANES`. The last
/// tile is filled up with zeros. The same bytes go to the CPU kernels and to the GPU.
#[derive(Debug, Clone)]
pub struct Block {
    id: u64,
    serial: u64,
    n_rows: usize,
    n_features: usize,
    tiles: Vec<f32>,
    keys: Vec<u64>,
    tile_norms: Vec<f32>,
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
        let mut tiles = vec![0.0; n_rows.div_ceil(LANES) * LANES * n_features];
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
        tiles: Vec<f32>,
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
        static NEXT_SERIAL: AtomicU64 = AtomicU64::new(0);
        Ok(Self {
            id,
            serial: NEXT_SERIAL.fetch_add(1, Ordering::Relaxed),
            n_rows,
            n_features,
            tiles,
            keys,
            tile_norms,
        })
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
        assert!(Block::from_tiles(0, 1, vec![0.5; 16], vec![1]).is_err());
    }
}
