//! Blocks that are kept elsewhere as they lie in memory, and put together again without being cut anew.

use std::sync::Arc;

use crate::block::{Block, RowOrder};
use crate::split::{Shape, Split};
use crate::{LANES, Tiles};

/// The rows of a block, cut in two, as they lie.
#[derive(Debug)]
pub struct CutRows<'a> {
    /// What else there is to say of them.
    pub frame: Frame,
    /// [n_columns x LANES] words that may be anything as floats.
    pub lines: &'a [f32],
    /// [2 x n_tiles] norms of the tiles, and those of the same less the origin.
    pub norms: [&'a [f32]; 2],
}

/// What makes a block of the words of [`CutRows`] again: little, however many rows there are, unless they have changed places.
#[derive(Debug, Clone)]
pub struct Frame {
    id: u64,
    n_rows: usize,
    shape: Shape,
    order: Option<Arc<RowOrder>>,
}

impl Frame {
    /// Columns of [`LANES`] words.
    pub fn n_columns(&self) -> usize {
        self.n_tiles() * self.shape.n_columns()
    }

    /// Norms of both kinds.
    pub fn n_norms(&self) -> usize {
        2 * self.n_tiles()
    }

    fn n_tiles(&self) -> usize {
        self.n_rows.div_ceil(LANES)
    }

    /// The block, of the `lines` [n_columns x LANES], `norms` [n_norms] and `keys` [n_rows] that it had. Of any others it becomes a block that
    /// answers with wrong numbers.
    ///
    /// # Panics
    /// When there are more or fewer of them.
    pub fn block(&self, lines: Tiles, mut norms: Vec<f32>, keys: Vec<u64>) -> Block {
        assert_eq!((norms.len(), keys.len()), (self.n_norms(), self.n_rows));
        let short_norms = norms.split_off(self.n_tiles());
        let split = Split::from_lines(lines, self.shape.clone(), short_norms);
        Block::of_split(self.id, split, norms, keys, self.order.clone())
    }
}

impl Block {
    /// The rows as they lie; `None` where they are not cut in two.
    pub fn cut_rows(&self) -> Option<CutRows<'_>> {
        let split = self.split()?;
        Some(CutRows {
            frame: Frame {
                id: self.id(),
                n_rows: self.n_rows(),
                shape: split.shape().clone(),
                order: self.order().cloned(),
            },
            lines: split.lines(),
            norms: [self.tile_norms(), split.norms()],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_comes_back_as_it_lay_in_whatever_order() {
        for (n_rows, n_features) in [(1, 2), (16, 5), (5_000, 3), (9_001, 32)] {
            let value = |at: usize| (at * 7_919 % 800_001) as i32 - 400_000;
            let values: Vec<i32> = (0..n_rows * n_features).map(value).collect();
            let keys = (0..n_rows as u64).rev().collect();
            let block = Block::from_rows(9, n_features, &values, keys).unwrap();
            let mut reordered = block.clone().into_split();
            let mut order: Vec<u16> = (0..n_rows as u16).collect();
            order.chunks_mut(4_096).for_each(<[u16]>::reverse);
            reordered.reorder(&order);
            for given in [block.into_split(), reordered] {
                let cut = given.cut_rows().expect("they are cut");
                let mut lines = Tiles::zeroed(cut.frame.n_columns());
                lines.copy_from_slice(cut.lines);
                let norms = cut.norms.concat();
                let back = cut.frame.block(lines, norms, given.keys().to_vec());
                assert_eq!(back, given);
                assert_eq!(back.order_id(), given.order_id());
                assert_eq!(back.size_bytes(), given.size_bytes());
                let whole_bytes = given.clone().into_whole().size_bytes();
                assert!(n_features < 32 || given.size_bytes() < whole_bytes * 4 / 5);
                let both = |block: &Block| block.cut_rows().unwrap().norms.concat();
                assert_eq!(both(&back), both(&given));
                // Words that are no numbers as floats are unequal to themselves.
                let words = |lines: &[f32]| lines.iter().map(|word| word.to_bits()).collect();
                let [back, given]: [Vec<u32>; 2] =
                    [&back, &given].map(|block| words(block.cut_rows().unwrap().lines));
                assert_eq!(back, given);
            }
        }
    }
}
