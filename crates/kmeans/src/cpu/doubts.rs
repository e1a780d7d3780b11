//! Rows that upper bits left in doubt: scored again in `f32`, sixteen at a time, whatever tiles they are from.

use super::lanes::Lanes;
use super::sums::TileRows;
use crate::LANES;

/// Rows that wait until there are sixteen.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    rows: TileRows,
    /// Where they lie in the block.
    row_idxs: [usize; LANES],
    n_rows: usize,
    /// [n_features] these rows less some origin, as a tile.
    columns: Vec<[f32; LANES]>,
}

/// Up to sixteen of them.
pub(super) struct Doubtful<'a> {
    pub(super) rows: &'a TileRows,
    /// Where they lie in the block.
    pub(super) row_idxs: &'a [usize],
    /// [n_features] less the origin, as a tile; beyond the last row there is anything that once was one.
    pub(super) columns: &'a [[f32; LANES]],
}

impl Doubts {
    /// Takes another row, `row` [n_chunks] of sixteen features, unless there are sixteen.
    #[inline(always)]
    pub(super) fn put(&mut self, row_idx: usize, row: &[[i32; LANES]]) {
        self.rows.put_row(self.n_rows, row);
        self.row_idxs[self.n_rows] = row_idx;
        self.n_rows += 1;
    }

    /// Whether there are sixteen.
    #[inline(always)]
    pub(super) fn are_enough(&self) -> bool {
        self.n_rows == LANES
    }

    /// Whether there are any.
    #[inline(always)]
    pub(super) fn are_any(&self) -> bool {
        self.n_rows > 0
    }

    /// All there are, less `origin` [n_features].
    ///
    /// # Safety
    /// As for [`Lanes`].
    #[inline(always)]
    pub(super) unsafe fn less<L: Lanes>(&mut self, origin: &[i32]) -> Doubtful<'_> {
        self.columns.resize(origin.len(), [0.0; LANES]);
        // SAFETY: passed on to the caller.
        unsafe { self.rows.turn_back::<L>(origin, &mut self.columns) };
        Doubtful {
            rows: &self.rows,
            row_idxs: &self.row_idxs[..self.n_rows],
            columns: &self.columns,
        }
    }

    /// Drops them.
    #[inline(always)]
    pub(super) fn clear(&mut self) {
        self.n_rows = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::super::lanes::Scalar;
    use super::*;
    use crate::Block;

    #[test]
    fn rows_come_sixteen_at_a_time_as_they_were_and_as_a_tile() {
        let (n_rows, n_features) = (5 * LANES, 21);
        let values: Vec<i32> = (0..(n_rows * n_features) as i32).map(|i| i * 31).collect();
        let block = Block::from_rows(0, n_features, &values, vec![0; n_rows]).unwrap();
        let (mut doubts, mut of_tile) = (Doubts::default(), TileRows::default());
        let origin: Vec<i32> = (0..n_features as i32).map(|i| i * i - 9).collect();
        let mut seen = Vec::new();
        let mut settle = |doubts: &mut Doubts| {
            // SAFETY: `Scalar` needs no more than the processor that the crate is compiled for.
            let all = unsafe { doubts.less::<Scalar>(&origin) };
            for (lane, row_idx) in all.row_idxs.iter().enumerate() {
                let row = &values[row_idx * n_features..][..n_features];
                assert_eq!(&all.rows.row(lane)[..n_features], row);
                let columns = all.columns.iter().map(|column| column[lane] as i32);
                let less_origin = row.iter().zip(&origin).map(|(x, origin)| x - origin);
                assert!(columns.eq(less_origin));
            }
            seen.extend_from_slice(all.row_idxs);
            doubts.clear();
        };
        // All but the first of each tile, so that tiles and sixteens never end together.
        for tile_idx in 0..n_rows / LANES {
            // SAFETY: as above.
            unsafe { of_tile.take::<Scalar>(&block, tile_idx, 0xffff) };
            for lane in 1..LANES {
                doubts.put(tile_idx * LANES + lane, of_tile.chunks_of(lane));
                if doubts.are_enough() {
                    settle(&mut doubts);
                    assert!(!doubts.are_any());
                }
            }
        }
        assert!(doubts.are_any());
        settle(&mut doubts);
        assert!(!doubts.are_any());
        let all_but_first = (0..n_rows).filter(|row| row % LANES != 0);
        assert!(all_but_first.eq(seen));
    }
}
