//! What was scored by its upper bits, and is needed whole after all: while others are scored, its lower bits are fetched.

use crate::LANES;

/// Tiles scored between the one that is found to need its rows and their use: as many as a fetch from memory takes, and few enough that
/// all stay in the first-level cache.
pub(super) const N_TILES_WAITING: usize = 8;
/// The same of single rows.
pub(super) const N_ROWS_WAITING: usize = 16;
/// So many rows come to other clusters together.
const N_ROWS_TOGETHER: usize = 32;

/// Tiles that are scored together, at most: there is a place for all of them and for all their rows beyond those that wait.
pub(super) const MOST_TILES: usize = 3;

/// Tiles that wait.
pub(super) type WaitingTiles = Line<Judged, { N_TILES_WAITING + MOST_TILES }>;
/// Rows in doubt that wait.
pub(super) type WaitingRows = Line<u32, { N_ROWS_WAITING + MOST_TILES * LANES }>;
/// Places of rows that move.
const N_PLACES: usize = N_ROWS_WAITING + N_ROWS_TOGETHER + MOST_TILES * LANES;

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

/// A row that comes from one cluster to another.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct MovedRow {
    /// Where it lies in the block.
    pub(super) row_idx: u32,
    pub(super) from: u16,
    pub(super) to: u16,
}

/// Rows that wait to come to other clusters, many of them together: in a loop of its own that takes half of the time.
#[derive(Debug)]
pub(super) struct WaitingMoves {
    places: [MovedRow; N_PLACES],
    n_waiting: usize,
}

impl Default for WaitingMoves {
    fn default() -> Self {
        Self {
            places: [MovedRow::default(); N_PLACES],
            n_waiting: 0,
        }
    }
}

impl WaitingMoves {
    /// Puts one at the end. There must be a place left.
    #[inline(always)]
    pub(super) fn put(&mut self, one: MovedRow) {
        self.places[self.n_waiting] = one;
        self.n_waiting += 1;
    }

    /// Whether there are enough for some to be taken.
    #[inline(always)]
    pub(super) fn are_enough(&self) -> bool {
        self.n_waiting >= N_ROWS_WAITING + N_ROWS_TOGETHER
    }

    /// `take`s all in order but for the last `n_waiting`, which wait on.
    #[inline(always)]
    pub(super) fn take_beyond(&mut self, n_waiting: usize, take: impl FnOnce(&[MovedRow])) {
        let n_due = self.n_waiting.saturating_sub(n_waiting);
        take(&self.places[..n_due]);
        self.places.copy_within(n_due..self.n_waiting, 0);
        self.n_waiting -= n_due;
    }
}

/// First come, first served.
#[derive(Debug)]
pub(super) struct Line<T, const N_PLACES: usize> {
    places: [T; N_PLACES],
    n_come: usize,
    n_served: usize,
}

impl<T: Copy + Default, const N_PLACES: usize> Default for Line<T, N_PLACES> {
    fn default() -> Self {
        Self {
            places: [T::default(); N_PLACES],
            n_come: 0,
            n_served: 0,
        }
    }
}

impl<T: Copy, const N_PLACES: usize> Line<T, N_PLACES> {
    /// Puts one at the end. There must be a place left.
    #[inline(always)]
    pub(super) fn put(&mut self, one: T) {
        self.places[self.n_come % N_PLACES] = one;
        self.n_come += 1;
        debug_assert!(self.n_come - self.n_served <= N_PLACES);
    }

    /// The first, if there are more than `n_waiting`.
    #[inline(always)]
    pub(super) fn take_beyond(&mut self, n_waiting: usize) -> Option<T> {
        if self.n_come - self.n_served <= n_waiting {
            return None;
        }
        self.n_served += 1;
        Some(self.places[(self.n_served - 1) % N_PLACES])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_served_in_order() {
        let mut line = Line::<usize, 7>::default();
        let mut served = Vec::new();
        for one in 0..50 {
            line.put(one);
            served.extend(line.take_beyond(4));
            assert_eq!(served.len(), (one + 1).saturating_sub(4));
        }
        served.extend(std::iter::from_fn(|| line.take_beyond(0)));
        assert!(served.into_iter().eq(0..50));
    }

    #[test]
    fn moves_are_taken_in_order_and_the_last_ones_wait() {
        let mut moves = WaitingMoves::default();
        let mut taken = Vec::new();
        for row_idx in 0..500 {
            moves.put(MovedRow {
                row_idx,
                ..MovedRow::default()
            });
            if moves.are_enough() {
                moves.take_beyond(N_ROWS_WAITING, |due| {
                    assert_eq!(due.len(), N_ROWS_TOGETHER);
                    taken.extend(due.iter().map(|moved| moved.row_idx));
                });
            }
        }
        moves.take_beyond(0, |due| taken.extend(due.iter().map(|moved| moved.row_idx)));
        assert!(taken.into_iter().eq(0..500));
        moves.take_beyond(0, |due| assert!(due.is_empty()));
    }
}
