//! Tiles that were scored by their upper bits, and whose rows are needed after all: while others are scored, their lower bits are fetched.

use crate::{Block, LANES};

/// Tiles scored between the one that is found to need its rows and their use: as many as a fetch from memory takes, and few enough that
/// all stay in the first-level cache.
pub(super) const N_WAITING: usize = 8;
/// Room for a group of tiles, and a few that are left of another, beyond those.
const N_PLACES: usize = 2 * N_WAITING;

/// What is known of a tile whose rows are needed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Judged {
    pub(super) tile_idx: usize,
    /// 0 beyond the last row.
    pub(super) labels: [u16; LANES],
    /// A bit for each row that comes to another cluster, if these are the labels.
    pub(super) moved: u32,
    /// A bit for each row whose is not certain.
    pub(super) uncertain: u32,
}

/// A line of tiles, first come first served.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    line: [Judged; N_PLACES],
    n_come: usize,
    n_served: usize,
}

impl Waiting {
    /// Puts a tile at the end of the line, which must have been served by [`Waiting::take_beyond`] [`N_WAITING`] less than that many tiles ago.
    #[inline(always)]
    pub(super) fn put(&mut self, block: &Block, judged: Judged) {
        block.fetch_lower(judged.tile_idx, judged.moved | judged.uncertain);
        self.line[self.n_come % N_PLACES] = judged;
        self.n_come += 1;
        debug_assert!(self.n_come - self.n_served <= N_PLACES);
    }

    /// The first of the line, if there are more than `n_waiting`.
    #[inline(always)]
    pub(super) fn take_beyond(&mut self, n_waiting: usize) -> Option<Judged> {
        if self.n_come - self.n_served <= n_waiting {
            return None;
        }
        self.n_served += 1;
        Some(self.line[(self.n_served - 1) % N_PLACES])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_served_in_order() {
        let block = Block::from_rows(0, 2, &[7; 2 * 50 * LANES], vec![0; 50 * LANES]).unwrap();
        let mut waiting = Waiting::default();
        let mut served = Vec::new();
        for tile_idx in 0..50 {
            let judged = Judged {
                tile_idx,
                ..Judged::default()
            };
            waiting.put(&block, judged);
            let due = waiting.take_beyond(N_WAITING).map(|due| due.tile_idx);
            served.extend(due);
            assert_eq!(served.len(), (tile_idx + 1).saturating_sub(N_WAITING));
        }
        served.extend(std::iter::from_fn(|| waiting.take_beyond(0)).map(|due| due.tile_idx));
        assert!(served.into_iter().eq(0..50));
    }
}
