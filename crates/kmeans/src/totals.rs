//! What all rows together say, whatever their labels.

use crate::{Block, LANES, TileRoom};

/// Count, sums and sum of squares of rows: taken once, at ingest, and needed for inertia, the stop threshold and quality.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Totals {
    /// Rows seen, at most [`crate::MAX_ROWS`].
    pub n_rows: u64,
    /// [n_features] sums of the grid values.
    pub sums: Vec<i64>,
    /// Sum over rows and features of the squared grid value.
    pub squares: i128,
}

impl Totals {
    /// No rows seen yet.
    pub fn zero(n_features: usize) -> Self {
        Self {
            n_rows: 0,
            sums: vec![0; n_features],
            squares: 0,
        }
    }

    /// The rows of one block.
    pub fn of_block(block: &Block) -> Self {
        let mut totals = Self::zero(block.n_features());
        totals.n_rows = block.n_rows() as u64;
        // The padding rows are zeros, which no sum notices.
        let mut room = TileRoom::default();
        for tile_idx in 0..block.n_rows().div_ceil(LANES) {
            let tile = block.tile(tile_idx, &mut room);
            let mut squares = 0i64; // 2^4 rows x 2^12 features x 2^44 fit.
            for (sum, values) in totals.sums.iter_mut().zip(tile) {
                for &value in values {
                    let value = i64::from(value as i32);
                    *sum += value;
                    squares += value * value;
                }
            }
            totals.squares += i128::from(squares);
        }
        totals
    }

    /// Adds the rows that `other` has seen.
    pub fn merge(&mut self, other: &Self) {
        assert_eq!(self.sums.len(), other.sums.len(), "totals of one job");
        self.n_rows += other.n_rows;
        self.sums
            .iter_mut()
            .zip(&other.sums)
            .for_each(|(a, b)| *a += b);
        self.squares += other.squares;
    }

    /// `n_rows^2` times the variance summed over features: `N Q - |S|^2`, exact and never negative.
    ///
    /// At most `n_rows^2 x n_features x 2^44 <= 2^126` by [`crate::MAX_ROWS`] and [`crate::MAX_FEATURES`].
    pub fn scatter(&self) -> i128 {
        let squared_sums: i128 = self.sums.iter().map(|&s| i128::from(s).pow(2)).sum();
        i128::from(self.n_rows) * self.squares - squared_sums
    }
}
