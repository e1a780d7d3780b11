//! Histograms of features by cluster, filled column by column from the tiles of blocks.

use std::sync::{Mutex, MutexGuard, PoisonError};

use clientele_data::vectors::{self, Vectorised};
use clientele_kmeans::{Block, LANES, TileRoom};
use clientele_protocol::{Histograms, profile_bins};

/// Rows whose columns, 256 KiB of 32 features, stay in cache from when they are read until they are counted.
const STRIP_ROWS: usize = 1 << 11;
/// A column of a strip. A line more than a page, or all columns would compete for one place in the cache.
const COLUMN_FLOATS: usize = STRIP_ROWS + LANES;
/// Low bits of a cell: the sum of the steps above the lowest value; rows are counted above them. A value is below 2^23 steps, so
/// [`FLUSH_ROWS`] of them stay below 2^42, and their number below 2^22.
const SUM_BITS: u32 = 42;
const FLUSH_ROWS: usize = 1 << 19;

/// A larger set of cells is shared by threads: each is busy with it for a tenth of its time.
const OWN_BYTES: usize = 4 << 20;
const THREADS_A_SHARED_SET: usize = 4;

/// What will be added to [`Histograms`]: one addition a value fills a bin's count and sum.
pub struct Tallies {
    n_clusters: usize,
    n_bins: usize,
    /// [n_features]
    ranges: Vec<Range>,
    /// One for each thread, or some of them.
    sets: Vec<Mutex<Cells>>,
    histograms: Mutex<Histograms>,
}

/// Cells that one thread at a time fills: two would wait for each other's caches at every value.
struct Cells {
    /// [n_features x n_clusters x n_bins]
    cells: Vec<u64>,
    n_rows: usize,
    room: Room,
}

/// Room for a strip, used again and again.
struct Room {
    /// [n_features]
    columns: Vec<[f32; COLUMN_FLOATS]>,
    /// Of one column: what is added, and where.
    addends: Vec<u64>,
    places: Vec<u32>,
}

/// The grid values of a feature.
#[derive(Clone, Copy)]
struct Range {
    low: i32,
    bins_per_step: f64,
}

impl Tallies {
    /// For `n_threads` of a pool. `ranges` [n_features] are the lowest and highest grid value of each feature.
    pub fn new(n_clusters: usize, ranges: &[(i32, i32)], n_threads: usize) -> Self {
        let n_bins = profile_bins(n_clusters, ranges.len());
        let range = |&(low, high): &(i32, i32)| Range {
            low,
            bins_per_step: n_bins as f64 / (f64::from(high) - f64::from(low) + 1.0),
        };
        let n_cells = n_clusters * ranges.len() * n_bins;
        let n_sets = match n_cells * size_of::<u64>() <= OWN_BYTES {
            true => n_threads.max(1),
            false => n_threads.max(1).div_ceil(THREADS_A_SHARED_SET),
        };
        let set = |_| {
            Mutex::new(Cells {
                cells: vec![0; n_cells],
                n_rows: 0,
                room: Room {
                    columns: vec![[0.0; COLUMN_FLOATS]; ranges.len()],
                    addends: vec![0; STRIP_ROWS],
                    places: vec![0; STRIP_ROWS],
                },
            })
        };
        Self {
            n_clusters,
            n_bins,
            ranges: ranges.iter().map(range).collect(),
            sets: (0..n_sets).map(set).collect(),
            histograms: Mutex::new(Histograms::zero(n_clusters, ranges.len())),
        }
    }

    /// Adds the rows of a block, which are in the clusters `labels` [n_rows].
    pub fn add(&self, block: &Block, labels: &[u16]) {
        assert_eq!(labels.len(), block.n_rows(), "one label a row");
        let thread = rayon::current_thread_index().unwrap_or(0);
        let mut to = lock(&self.sets[thread % self.sets.len()]);
        if to.n_rows + block.n_rows() > FLUSH_ROWS {
            self.flush(&mut to);
        }
        to.n_rows += block.n_rows();
        let Cells { cells, room, .. } = &mut *to;
        let mut firsts = [0; STRIP_ROWS];
        for (strip_idx, labels) in labels.chunks(STRIP_ROWS).enumerate() {
            let firsts = &mut firsts[..labels.len()];
            for (first, label) in firsts.iter_mut().zip(labels) {
                *first = u32::from(*label) * self.n_bins as u32;
            }
            vectors::run(Strip {
                block,
                first_tile_idx: strip_idx * STRIP_ROWS / LANES,
                columns: &mut room.columns,
            });
            let cells = cells.chunks_exact_mut(self.n_clusters * self.n_bins);
            for (feature_idx, (range, cells)) in self.ranges.iter().zip(cells).enumerate() {
                room.add_column(feature_idx, *range, firsts, cells);
            }
        }
    }

    /// Moves cells to the histograms.
    fn flush(&self, from: &mut Cells) {
        let mut histograms = lock(&self.histograms);
        let features = from.cells.chunks_exact_mut(self.n_clusters * self.n_bins);
        for (feature_idx, (range, cells)) in self.ranges.iter().zip(features).enumerate() {
            for (cluster_idx, cells) in cells.chunks_exact_mut(self.n_bins).enumerate() {
                let bins = cells.iter_mut().enumerate();
                for (bin, cell) in bins.filter(|(_, cell)| **cell > 0) {
                    let (count, steps) = (*cell >> SUM_BITS, *cell & ((1 << SUM_BITS) - 1));
                    let sum = steps as i64 + count as i64 * i64::from(range.low);
                    histograms.add_bin(cluster_idx, feature_idx, bin, count, sum);
                    *cell = 0;
                }
            }
        }
        from.n_rows = 0;
    }

    /// Moves all cells to the histograms: what takes a while of [`Tallies::into_histograms`], while there is something to wait for.
    pub fn settle(&self) {
        let used = self.sets.iter().map(lock).filter(|set| set.n_rows > 0);
        used.into_iter().for_each(|mut set| self.flush(&mut set));
    }

    /// Of all rows.
    pub fn into_histograms(self) -> Histograms {
        self.settle();
        let histograms = self.histograms.into_inner();
        histograms.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Room {
    /// Adds a feature of rows whose clusters' first cells are `firsts`.
    fn add_column(&mut self, feature_idx: usize, range: Range, firsts: &[u32], cells: &mut [u64]) {
        vectors::run(Place {
            values: &self.columns[feature_idx],
            firsts,
            range,
            addends: &mut self.addends,
            places: &mut self.places,
        });
        for (place, addend) in self.places[..firsts.len()].iter().zip(&self.addends) {
            cells[*place as usize] += *addend;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Copies the columns of a strip, tile after tile: that is the order of memory, which the processor foresees; a feature's lines alone are
/// too far apart for that.
struct Strip<'a> {
    block: &'a Block,
    first_tile_idx: usize,
    /// [n_features]
    columns: &'a mut [[f32; COLUMN_FLOATS]],
}

impl Vectorised for Strip<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let mut room = TileRoom::default();
        let n_tiles = self.block.n_rows().div_ceil(LANES) - self.first_tile_idx;
        for nth in 0..n_tiles.min(STRIP_ROWS / LANES) {
            let tile = self.block.tile(self.first_tile_idx + nth, &mut room);
            for (column, lanes) in self.columns.iter_mut().zip(tile) {
                column[nth * LANES..][..LANES].copy_from_slice(lanes);
            }
        }
    }
}

/// Finds the cell of each value of a strip, and what is added to it: the loop that adds has nothing left to do but that.
struct Place<'a> {
    /// [rows], or more.
    values: &'a [f32],
    /// [rows]
    firsts: &'a [u32],
    range: Range,
    /// [rows], or more.
    addends: &'a mut [u64],
    /// [rows], or more.
    places: &'a mut [u32],
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
        let rows = self.values.iter().zip(self.firsts);
        let out = self.addends.iter_mut().zip(self.places);
        for ((value, first), (addend, place)) in rows.zip(out) {
            // Exact: two values on the grid are less than 2^23 apart.
            let above = value - low;
            let bin = f64::from(above) * self.range.bins_per_step + DOWN;
            *place = first.wrapping_add((bin + LIFT).to_bits() as u32);
            *addend = u64::from((above + LIFT_STEPS).to_bits() & STEPS) | 1 << SUM_BITS;
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
        let tallies = Tallies::new(3, &RANGES, 2);
        tallies.add(&block, labels);
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
        let tallies = Tallies::new(1, &[(-4_194_302, 4_194_301)], 1);
        // From threads that wait for each other.
        std::thread::scope(|scope| {
            let add = || (0..5).for_each(|_| tallies.add(&block, &[0; 65_536]));
            (0..4).for_each(|_| drop(scope.spawn(add)));
        });
        let found = tallies.into_histograms();
        let (counts, sums) = found.raw();
        assert_eq!(counts.last(), Some(&(20 * 65_536)));
        assert_eq!(sums.last(), Some(&(20 * 65_536 * 4_194_301)));
    }
}
