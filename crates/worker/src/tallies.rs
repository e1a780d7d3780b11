//! Histograms of features by cluster, filled column by column from the tiles of blocks.

use clientele_data::vectors::{self, Vectorised};
use clientele_kmeans::{Block, LANES};
use clientele_protocol::{Histograms, profile_bins};

/// Rows of a strip: its tiles, and what is known of each row, stay in cache while the features go over them.
const STRIP_ROWS: usize = 1 << 10;
/// Low bits of a cell: the sum of the steps above the lowest value; rows are counted above them. A value is below 2^23 steps, so
/// [`FLUSH_ROWS`] of them stay below 2^42, and their number below 2^22.
const SUM_BITS: u32 = 42;
const FLUSH_ROWS: usize = 1 << 19;

/// What will be added to [`Histograms`]: one addition a value fills a bin's count and sum.
pub struct Tallies {
    n_clusters: usize,
    n_bins: usize,
    /// [n_features]
    ranges: Vec<Range>,
    /// [n_features x n_clusters x n_bins]
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
        let range = |&(low, high): &(i32, i32)| Range {
            low,
            bins_per_step: n_bins as f64 / (f64::from(high) - f64::from(low) + 1.0),
        };
        Self {
            n_clusters,
            n_bins,
            ranges: ranges.iter().map(range).collect(),
            cells: vec![0; n_clusters * ranges.len() * n_bins],
            n_rows: 0,
        }
    }

    /// Adds the rows of a block, which are in the clusters `labels` [n_rows]; to `histograms` goes what there is no room for.
    pub fn add(
        &mut self,
        block: &Block,
        labels: impl ExactSizeIterator<Item = u16>,
        histograms: &mut Histograms,
    ) {
        assert_eq!(labels.len(), block.n_rows(), "one label a row");
        if self.n_rows + block.n_rows() > FLUSH_ROWS {
            self.flush(histograms);
        }
        self.n_rows += block.n_rows();
        let stride = block.n_features() * LANES;
        let firsts: Vec<u32> = labels
            .map(|label| u32::from(label) * self.n_bins as u32)
            .collect();
        let (mut steps, mut bins) = ([0; STRIP_ROWS], [0; STRIP_ROWS]);
        let strips = block.tiles().chunks(stride * (STRIP_ROWS / LANES));
        for (strip, firsts) in strips.zip(firsts.chunks(STRIP_ROWS)) {
            let features = self.cells.chunks_exact_mut(self.n_clusters * self.n_bins);
            for (feature_idx, (range, cells)) in self.ranges.iter().zip(features).enumerate() {
                vectors::run(Bin {
                    tiles: &strip[feature_idx * LANES..],
                    stride,
                    range: *range,
                    n_bins: self.n_bins,
                    steps: &mut steps,
                    bins: &mut bins,
                });
                for ((first, bin), steps) in firsts.iter().zip(&bins).zip(&steps) {
                    cells[(first + bin) as usize] += u64::from(*steps) | 1 << SUM_BITS;
                }
            }
        }
    }

    /// Moves everything to `histograms`.
    pub fn flush(&mut self, histograms: &mut Histograms) {
        let features = self.cells.chunks_exact_mut(self.n_clusters * self.n_bins);
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
        self.n_rows = 0;
    }
}

/// Finds the steps above the lowest value, and the bin, of each row of a strip.
struct Bin<'a> {
    /// From the feature's lanes in the first tile on.
    tiles: &'a [f32],
    stride: usize,
    range: Range,
    n_bins: usize,
    steps: &'a mut [u32; STRIP_ROWS],
    bins: &'a mut [u32; STRIP_ROWS],
}

impl Vectorised for Bin<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        // The exact place of a value is a multiple of a 2^23rd. Rounding may leave a whole one a little below itself, never this much.
        const NUDGE: f64 = 1.0 / (1_u64 << 30) as f64;
        // Added to a whole number, it leaves the number in the low bits: conversions by instruction are not vectorised everywhere.
        const LIFT: f64 = (1_u64 << 52) as f64;
        let (low, last) = (f64::from(self.range.low), self.n_bins as f64 - 1.0);
        let steps = self.steps.as_chunks_mut::<LANES>().0;
        let bins = self.bins.as_chunks_mut::<LANES>().0;
        for ((tile, steps), bins) in self.tiles.chunks(self.stride).zip(steps).zip(bins) {
            let (tile, _) = tile
                .split_first_chunk::<LANES>()
                .expect("tiles of 16 lanes");
            for lane in 0..LANES {
                let above = f64::from(tile[lane]) - low;
                // Padding may lie outside of the range, rows do not.
                let above = if above > 0.0 { above } else { 0.0 };
                let place = above * self.range.bins_per_step + NUDGE;
                let place = if place < last { place } else { last };
                let nearest = (place + LIFT) - LIFT;
                let bin = if nearest > place {
                    nearest - 1.0
                } else {
                    nearest
                };
                steps[lane] = (above + LIFT).to_bits() as u32;
                bins[lane] = (bin + LIFT).to_bits() as u32;
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
        let (mut found, mut expected) = (Histograms::zero(3, 4), Histograms::zero(3, 4));
        let mut tallies = Tallies::new(3, &RANGES);
        tallies.add(&block, labels.iter().copied(), &mut found);
        tallies.flush(&mut found);
        for (row, label) in values.chunks(4).zip(labels) {
            for (feature_idx, (q, (low, high))) in row.iter().zip(RANGES).enumerate() {
                expected.add((*label).into(), feature_idx, *q, low, high);
            }
        }
        (found, expected)
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
        let mut found = Histograms::zero(1, 1);
        let mut tallies = Tallies::new(1, &[(-4_194_302, 4_194_301)]);
        for _ in 0..20 {
            tallies.add(&block, (0..65_536).map(|_| 0), &mut found);
        }
        tallies.flush(&mut found);
        let (counts, sums) = found.raw();
        assert_eq!(counts.last(), Some(&(20 * 65_536)));
        assert_eq!(sums.last(), Some(&(20 * 65_536 * 4_194_301)));
    }
}
