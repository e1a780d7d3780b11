//! Blocks that are kept elsewhere as they lie in memory, and put together again without being cut anew, whole or in part.

use std::ops::Range;
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
    /// [n_given] the place that each row was given in.
    pub given: &'a [u16],
}

/// What makes a block of the words of [`CutRows`] again: little, however many rows there are.
#[derive(Debug, Clone)]
pub struct Frame {
    id: u64,
    n_rows: usize,
    shape: Shape,
    /// As [`Block::order_id`].
    order_id: u64,
}

/// What a pass must know of rows before they are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outline {
    pub(crate) n_rows: usize,
    pub(crate) n_features: usize,
    pub(crate) order_id: u64,
}

/// A block of which some tiles are there, for the pass that was planned to look at no others.
#[derive(Debug)]
pub struct Fragment {
    block: Block,
    tiles: Vec<usize>,
}

impl Frame {
    /// What a pass must know of the rows.
    pub fn outline(&self) -> Outline {
        Outline {
            n_rows: self.n_rows,
            n_features: self.shape.n_features(),
            order_id: self.order_id,
        }
    }

    /// Columns of [`LANES`] words.
    pub fn n_columns(&self) -> usize {
        self.n_tiles() * self.shape.n_columns()
    }

    /// Norms of both kinds.
    pub fn n_norms(&self) -> usize {
        2 * self.n_tiles()
    }

    /// Places that rows were given in: none where they lie as they were given.
    pub fn n_given(&self) -> usize {
        match self.order_id {
            0 => 0,
            _ => self.n_rows,
        }
    }

    /// Of [`LANES`] rows, the last filled up.
    pub fn n_tiles(&self) -> usize {
        self.n_rows.div_ceil(LANES)
    }

    /// Where the words of a run of tiles lie among [`CutRows::lines`]: in two places, since upper and lower bits lie apart.
    pub fn words_of(&self, tiles: Range<usize>) -> [Range<usize>; 2] {
        self.shape.words_of(self.n_tiles(), tiles)
    }

    /// The block, of the `lines` [n_columns x LANES], `norms` [n_norms], `given` [n_given] and `keys` [n_rows] that it had. Of any others it
    /// becomes a block that answers with wrong numbers.
    ///
    /// # Panics
    /// When there are more or fewer of them.
    pub fn block(&self, lines: Tiles, norms: Vec<f32>, given: Vec<u16>, keys: Vec<u64>) -> Block {
        assert_eq!((given.len(), keys.len()), (self.n_given(), self.n_rows));
        self.of_parts(lines, norms, given, keys)
    }

    fn of_parts(
        &self,
        lines: Tiles,
        mut norms: Vec<f32>,
        given: Vec<u16>,
        keys: Vec<u64>,
    ) -> Block {
        assert_eq!(norms.len(), self.n_norms());
        let short_norms = norms.split_off(self.n_tiles());
        let split = Split::from_lines(lines, self.shape.clone(), short_norms);
        let order = (self.order_id != 0).then(|| Arc::new(RowOrder::again(self.order_id, given)));
        Block::of_split(self.id, self.n_rows, split, norms, keys, order)
    }

    /// The block, as far as `lines` [n_columns x LANES] has those of some `tiles`; the others may be anything. The `norms` [n_norms] are those
    /// of all.
    ///
    /// # Panics
    /// As [`Frame::block`].
    pub fn fragment(&self, lines: Tiles, norms: Vec<f32>, tiles: Vec<usize>) -> Fragment {
        // Passes ask neither where rows were given nor for their keys.
        let block = self.of_parts(lines, norms, Vec::new(), Vec::new());
        Fragment { block, tiles }
    }
}

impl Fragment {
    /// The block, whose other tiles are not to be looked at.
    pub(crate) fn block(&self) -> &Block {
        &self.block
    }

    /// Those that are there, in order.
    pub fn tiles(&self) -> &[usize] {
        &self.tiles
    }

    /// As [`CutRows::lines`], of which those of [`Fragment::tiles`] may be looked at.
    pub fn lines(&self) -> &[f32] {
        self.block.cut_rows().map_or(&[], |cut| cut.lines)
    }

    /// Its memory, to be filled again.
    pub fn into_lines(self) -> Tiles {
        self.block.into_parts().0
    }
}

impl Block {
    /// What a pass must know of the rows before it looks at them.
    pub fn outline(&self) -> Outline {
        Outline {
            n_rows: self.n_rows(),
            n_features: self.n_features(),
            order_id: self.order_id(),
        }
    }

    /// The rows as they lie; `None` where they are not cut in two.
    pub fn cut_rows(&self) -> Option<CutRows<'_>> {
        let split = self.split()?;
        Some(CutRows {
            frame: Frame {
                id: self.id(),
                n_rows: self.n_rows(),
                shape: split.shape().clone(),
                order_id: self.order_id(),
            },
            lines: split.lines(),
            norms: [self.tile_norms(), split.norms()],
            given: self.order().map_or(&[], |order| order.given()),
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
                let places = cut.given.to_vec();
                let back = cut.frame.block(lines, norms, places, given.keys().to_vec());
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
