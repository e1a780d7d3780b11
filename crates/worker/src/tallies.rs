//! Histograms of features by cluster, filled column by column from the tiles of blocks, by all threads together.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use clientele_data::vectors::{self, Vectorised};
use clientele_kmeans::{Block, LANES};
use clientele_protocol::{Histograms, profile_bins};

/// Rows whose bins are found before they are filled.
const STRIP_ROWS: usize = 1 << 10;
/// Low bits of a cell: the sum of the steps above the lowest value; rows are counted above them. A value is below 2^23 steps, so
/// [`FLUSH_ROWS`] of them stay below 2^42, and their number below 2^22.
const SUM_BITS: u32 = 42;
const FLUSH_ROWS: usize = 1 << 19;

/// What will be added to [`Histograms`]: one addition a value fills a bin's count and sum.
///
/// A thread fills the cells of one feature from a whole block before it goes to the next: they stay in its cache. Threads begin with
/// different features, so that one set of cells serves them all.
pub struct Tallies {
    n_clusters: usize,
    n_bins: usize,
    /// [n_features]
    features: Vec<Mutex<Cells>>,
    /// Where the next block begins.
    next: AtomicUsize,
    histograms: Mutex<Histograms>,
}

/// One feature.
struct Cells {
    range: Range,
    /// [n_clusters x n_bins]
    cells: Vec<u64>,
    n_rows: usize,
}

/// The grid values of a feature.
#[derive(Clone, Copy)]
struct Range {
    low: i32,
    bins_per_step: f64,
}

impl Tallies {
    /// `ranges` [n_features] are the lowest and highest grid value of each feature.
    pub fn new(n_clusters: usize, ranges: &[(i32, i32)]) -> Self {
        let n_bins = profile_bins(n_clusters, ranges.len());
        let cells = |&(low, high): &(i32, i32)| Cells {
            range: Range {
                low,
                bins_per_step: n_bins as f64 / (f64::from(high) - f64::from(low) + 1.0),
            },
            cells: vec![0; n_clusters * n_bins],
            n_rows: 0,
        };
        Self {
            n_clusters,
            n_bins,
            features: ranges
                .iter()
                .map(|range| Mutex::new(cells(range)))
                .collect(),
            next: AtomicUsize::new(0),
            histograms: Mutex::new(Histograms::zero(n_clusters, ranges.len())),
        }
    }

    /// Adds the rows of a block, which are in the clusters `labels` [n_rows].
    pub fn add(&self, block: &Block, labels: impl ExactSizeIterator<Item = u16>) {
        assert_eq!(labels.len(), block.n_rows(), "one label a row");
        let mut firsts: Vec<u32> = labels
            .map(|label| u32::from(label) * self.n_bins as u32)
            .collect();
        firsts.resize(block.n_rows().next_multiple_of(LANES), 0);
        let n_features = self.features.len();
        // Another feature than the thread before, and far from where it will be for a while.
        let first = self.next.fetch_add(n_features / 2 + 1, Ordering::Relaxed);
        let mut waiting = Vec::new();
        for feature_idx in (0..n_features).map(|nth| (first + nth) % n_features) {
            let mut cells = match self.features[feature_idx].try_lock() {
                Ok(cells) => cells,
                Err(TryLockError::Poisoned(cells)) => cells.into_inner(),
                Err(TryLockError::WouldBlock) => {
                    waiting.push(feature_idx);
                    continue;
                }
            };
            self.add_feature(feature_idx, &mut cells, block, &firsts);
        }
        for feature_idx in waiting {
            let mut cells = lock(&self.features[feature_idx]);
            self.add_feature(feature_idx, &mut cells, block, &firsts);
        }
    }

    /// `firsts` [n_rows, and padding] are the cells of the rows' clusters.
    fn add_feature(&self, feature_idx: usize, to: &mut Cells, block: &Block, firsts: &[u32]) {
        if to.n_rows + block.n_rows() > FLUSH_ROWS {
            self.flush(feature_idx, to);
        }
        to.n_rows += block.n_rows();
        let stride = block.n_features() * LANES;
        let (mut steps, mut places) = ([0; STRIP_ROWS], [0; STRIP_ROWS]);
        let strips = block.tiles()[feature_idx * LANES..].chunks(stride * (STRIP_ROWS / LANES));
        let mut n_left = block.n_rows();
        for (tiles, firsts) in strips.zip(firsts.chunks(STRIP_ROWS)) {
            vectors::run(Place {
                tiles,
                stride,
                range: to.range,
                firsts,
                steps: &mut steps,
                places: &mut places,
            });
            // Padding has no place.
            let n_rows = n_left.min(STRIP_ROWS);
            for (place, steps) in places[..n_rows].iter().zip(&steps) {
                to.cells[*place as usize] += u64::from(*steps) | 1 << SUM_BITS;
            }
            n_left -= n_rows;
        }
    }

    /// Moves the cells of a feature to the histograms.
    fn flush(&self, feature_idx: usize, from: &mut Cells) {
        let mut histograms = lock(&self.histograms);
        for (cluster_idx, cells) in from.cells.chunks_exact_mut(self.n_bins).enumerate() {
            let bins = cells.iter_mut().enumerate();
            for (bin, cell) in bins.filter(|(_, cell)| **cell > 0) {
                let (count, steps) = (*cell >> SUM_BITS, *cell & ((1 << SUM_BITS) - 1));
                let sum = steps as i64 + count as i64 * i64::from(from.range.low);
                histograms.add_bin(cluster_idx, feature_idx, bin, count, sum);
                *cell = 0;
            }
        }
        from.n_rows = 0;
    }

    /// Of all rows.
    pub fn into_histograms(self) -> Histograms {
        for (feature_idx, cells) in self.features.iter().enumerate() {
            self.flush(feature_idx, &mut lock(cells));
        }
        let histograms = self.histograms.into_inner();
        histograms.unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Finds the steps above the lowest value, and the cell, of each row of a strip; of padding, anything.
struct Place<'a> {
    /// From the feature's lanes in the first tile on.
    tiles: &'a [f32],
    stride: usize,
    range: Range,
    firsts: &'a [u32],
    steps: &'a mut [u32; STRIP_ROWS],
    places: &'a mut [u32; STRIP_ROWS],
}

impl Vectorised for Place<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        // The exact place of a value is a multiple of a 2^23rd, so that this rounds down whatever the product's own rounding did.
        const DOWN: f64 = 1.0 / (1_u64 << 30) as f64 - 0.5;
        // Added to a whole number, these leave it in the low bits: conversions by instruction are not vectorised everywhere.
        const LIFT: f64 = 1.5 * (1_u64 << 52) as f64;
        const LIFT_STEPS: f32 = (1_u32 << 23) as f32;
        const STEPS: u32 = (1 << 23) - 1;
        let low = self.range.low as f32;
        let firsts = self.firsts.as_chunks::<LANES>().0;
        let steps = self.steps.as_chunks_mut::<LANES>().0;
        let places = self.places.as_chunks_mut::<LANES>().0;
        let out = steps.iter_mut().zip(places);
        for ((tile, firsts), (steps, places)) in self.tiles.chunks(self.stride).zip(firsts).zip(out)
        {
            let (tile, _) = tile
                .split_first_chunk::<LANES>()
                .expect("tiles of 16 lanes");
            for lane in 0..LANES {
                // Exact: two values on the grid are less than 2^23 apart.
                let above = tile[lane] - low;
                let bin = f64::from(above) * self.range.bins_per_step + DOWN;
                let bin = (bin + LIFT).to_bits() as u32;
                steps[lane] = (above + LIFT_STEPS).to_bits() & STEPS;
                places[lane] = firsts[lane].wrapping_add(bin);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGES: [(i32, i32); 4] = [
        (-4_194_302, 4_194_301),
        (-1_000, 23),
        (0, 0),
        (7, 4_100_000),
    ];

    /// [n_rows x 4] values, some at the ends of bins.
    fn values(n_rows: i32) -> Vec<i32> {
        let value = |row: i32, (low, high): (i32, i32)| {
            let width = i64::from(high) - i64::from(low) + 1;
            let edge = i64::from(row) * width / 1_024 + i64::from(row % 3 - 1);
            low + edge.rem_euclid(width) as i32
        };
        let rows = (0..n_rows).flat_map(|row| RANGES.map(|range| value(row, range)));
        rows.collect()
    }

    fn check(n_rows: usize, labels: &[u16]) -> (Histograms, Histograms) {
        let values = values(n_rows as i32);
        let block = Block::from_rows(0, 4, &values, (0..n_rows as u64).collect()).unwrap();
        let mut expected = Histograms::zero(3, 4);
        let tallies = Tallies::new(3, &RANGES);
        tallies.add(&block, labels.iter().copied());
        for (row, label) in values.chunks(4).zip(labels) {
            for (feature_idx, (q, (low, high))) in row.iter().zip(RANGES).enumerate() {
                expected.add((*label).into(), feature_idx, *q, low, high);
            }
        }
        (tallies.into_histograms(), expected)
    }

    #[test]
    fn they_are_what_adding_value_by_value_makes() {
        for n_rows in [1, 15, 16, 1_024, 1_025, 40_000] {
            let mut labels: Vec<u16> = (0..n_rows).map(|row| (row * 7 % 3) as u16).collect();
            let (found, expected) = check(n_rows, &labels);
            assert_eq!(found, expected, "{n_rows} rows");
            labels[n_rows - 1] = (labels[n_rows - 1] + 1) % 3;
            assert_ne!(check(n_rows, &labels).0, expected, "one label is another");
        }
    }

    #[test]
    fn there_is_room_for_as_many_rows_as_are_flushed() {
        let values = vec![4_194_301; 65_536];
        let block = Block::from_rows(0, 1, &values, (0..65_536).collect()).unwrap();
        let tallies = Tallies::new(1, &[(-4_194_302, 4_194_301)]);
        // From threads that wait for each other.
        std::thread::scope(|scope| {
            let add = || (0..5).for_each(|_| tallies.add(&block, (0..65_536).map(|_| 0)));
            (0..4).for_each(|_| drop(scope.spawn(add)));
        });
        let found = tallies.into_histograms();
        let (counts, sums) = found.raw();
        assert_eq!(counts.last(), Some(&(20 * 65_536)));
        assert_eq!(sums.last(), Some(&(20 * 65_536 * 4_194_301)));
    }
}
