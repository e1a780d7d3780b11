//! What was scored by its upper bits, and is needed whole after all: while others are scored, its lower bits are fetched.

use crate::LANES;

/// Tiles scored between the one that is found to need its rows and their use: as many as a fetch from memory takes, and few enough that
/// all stay in the first-level cache.
pub(super) const N_TILES_WAITING: usize = 8;
/// The same of single rows.
pub(super) const N_ROWS_WAITING: usize = 16;

/// Tiles that are scored together, at most: there is a place for all of them and for all their rows beyond those that wait.
pub(super) const MOST_TILES: usize = 3;

/// Tiles that wait.
pub(super) type WaitingTiles = Line<Judged, { N_TILES_WAITING + MOST_TILES }>;
/// Rows that wait.
pub(super) type WaitingRows = Line<WantedRow, { N_ROWS_WAITING + MOST_TILES * LANES }>;

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

/// A row that comes from one cluster to another; to the same, if its label is uncertain.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct WantedRow {
    /// Where it lies in the block.
    pub(super) row_idx: u32,
    pub(super) from: u16,
    pub(super) to: u16,
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
}
