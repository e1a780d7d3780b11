//! Rows that are the same on every machine: integers, and `libm` where a function is needed.

use std::fmt;

use clientele_kmeans::seeding::draw;
use clientele_kmeans::{BLOCK_ROWS, Block, BlockError};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Decides everything random. Part of what a hash means, and therefore no option.
const SEED: u64 = 7;

/// Groups that the rows are drawn from; they overlap.
const N_GROUPS: usize = 40;

/// One unit of a centre or of noise, which have 16 binary places.
const UNIT: i32 = 1 << 16;

/// What the generated customers look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Data {
    /// Forty overlapping round groups of unequal size.
    Mixture,
    /// The same, with group sizes by Zipf's law and every other feature log-normal, as retail is.
    Skewed,
}

impl fmt::Display for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Mixture => "mixture",
            Self::Skewed => "skewed",
        })
    }
}

impl Data {
    /// Data units of one grid step: the largest power of two with which no value leaves the grid.
    pub(crate) fn grid_step(self) -> f64 {
        match self {
            Self::Mixture => 1.0 / f64::from(1 << 18),
            Self::Skewed => 1.0 / f64::from(1 << 10),
        }
    }

    /// `n_rows` rows of `n_features` in blocks; the first rows of a longer table are those of a shorter one.
    pub(crate) fn blocks(self, n_rows: u64, n_features: usize) -> Result<Vec<Block>, BlockError> {
        let recipe = Recipe::new(self, n_features);
        let n_blocks = n_rows.div_ceil(BLOCK_ROWS as u64);
        // A device may keep rows under their block's id: no two tables of a run share one.
        let table = mix(n_rows ^ (n_features as u64) << 40 ^ (self as u64) << 60) << 24;
        (0..n_blocks)
            .into_par_iter()
            .map(|nth| {
                let from = nth * BLOCK_ROWS as u64;
                recipe.block(table | nth, from..n_rows.min(from + BLOCK_ROWS as u64))
            })
            .collect()
    }
}

/// What the rows of one table are drawn with.
struct Recipe {
    data: Data,
    n_features: usize,
    /// [N_GROUPS x n_features], 16 binary places.
    centres: Vec<i32>,
    /// [N_GROUPS] where each group ends in the sum of all weights.
    ends: Vec<u64>,
}

impl Recipe {
    fn new(data: Data, n_features: usize) -> Self {
        let mut random = SplitMix(mix(SEED));
        // Standard deviation 1.2.
        let centres = (0..N_GROUPS * n_features)
            .map(|_| random.normal() * 6 / 5)
            .collect();
        let ends = (0..N_GROUPS as u64).scan(0, |end, group| {
            *end += match data {
                // The sum of three exponential draws: a Dirichlet distribution with parameter 3.
                Data::Mixture => (0..3).map(|nth| draw(SEED, nth, group)).sum::<u64>() >> 24,
                Data::Skewed => (1 << 20) / (group + 1),
            };
            Some(*end)
        });
        Self {
            data,
            n_features,
            centres,
            ends: ends.collect(),
        }
    }

    fn block(&self, id: u64, rows: std::ops::Range<u64>) -> Result<Block, BlockError> {
        let n_rows = (rows.end - rows.start) as usize;
        let mut values = Vec::with_capacity(n_rows * self.n_features);
        for row in rows.clone() {
            self.push_row(row, &mut values);
        }
        Block::from_rows(id, self.n_features, &values, rows.map(mix).collect())
    }

    fn push_row(&self, row: u64, values: &mut Vec<i32>) {
        let mut random = SplitMix(mix(SEED ^ mix(row)));
        // Weights are below 2^28 in all, so the product fits.
        let total = self.ends[N_GROUPS - 1];
        let at = ((random.next() >> 32) * total) >> 32;
        let group = self.ends.partition_point(|&end| end <= at);
        let centre = &self.centres[group * self.n_features..][..self.n_features];
        for (feature, &centre) in centre.iter().enumerate() {
            let x = centre + random.normal();
            values.push(match self.data {
                // At most 13.2 in magnitude, by 2^18.
                Data::Mixture => x * 4 + (random.0 >> 62) as i32,
                Data::Skewed if feature % 2 == 1 => x / 64,
                // exp(0.6 x 13.2) = 2,752, by 2^10.
                Data::Skewed => {
                    let x = f64::from(x) / f64::from(UNIT);
                    libm::round(libm::exp(0.6 * x) * 1_024.0) as i32
                }
            });
        }
    }
}

/// Steele, Lea and Flood (2014).
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        let out = mix(self.0);
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        out
    }

    /// Nearly normal, mean 0 and standard deviation 1, 16 binary places: the sum of twelve uniform numbers. Below 6 in magnitude.
    fn normal(&mut self) -> i32 {
        let mut sum = 0;
        for _ in 0..3 {
            let bits = self.next();
            sum += (0..4)
                .map(|lane| (bits >> (16 * lane)) as u16 as i32)
                .sum::<i32>();
        }
        sum - 6 * (UNIT - 1)
    }
}

/// One step of SplitMix64: a bijection that passes for random.
fn mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use clientele_kmeans::LANES;

    use super::*;
    use clientele_kmeans::Totals;

    fn moments(data: Data, feature: usize) -> (f64, f64) {
        let blocks = data.blocks(200_000, 3).unwrap();
        let n = 200_000.0;
        let values = || {
            let of_block = |block: &Block| {
                (0..block.n_rows())
                    .map(|row| f64::from(block.value(row, feature)) * data.grid_step())
                    .collect::<Vec<_>>()
            };
            blocks.iter().flat_map(of_block)
        };
        let mean = values().sum::<f64>() / n;
        let variance = values().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
        (mean, variance)
    }

    #[test]
    fn a_mixture_has_groups_as_wide_as_their_noise() {
        // Centres of variance 1.44 and noise of variance 1; forty groups leave the first one uncertain.
        let (mean, variance) = moments(Data::Mixture, 1);
        assert!(mean.abs() < 0.8, "{mean}");
        assert!((1.6..3.6).contains(&variance), "{variance}");
    }

    #[test]
    fn skewed_rows_have_a_long_tail() {
        let (mean, variance) = moments(Data::Skewed, 0);
        assert!(mean > 0.5 && variance > mean, "{mean} {variance}");
    }

    #[test]
    fn a_longer_table_begins_with_the_shorter_one_and_shares_no_block_id() {
        let (short, long) = (
            Data::Skewed.blocks(70_000, 5).unwrap(),
            Data::Skewed.blocks(140_000, 5).unwrap(),
        );
        let rows = |block: &Block| {
            let mut rows = vec![0.0; BLOCK_ROWS * 5];
            block.copy_tiles(0..BLOCK_ROWS / LANES, &mut rows);
            rows
        };
        assert!(rows(&short[0]) == rows(&long[0]));
        assert_eq!(short.len(), 2);
        assert!(short.iter().all(|s| long.iter().all(|l| s.id() != l.id())));
    }

    #[test]
    fn rows_are_the_same_on_every_machine() {
        // crates/bench/tests/golden.py, which makes them again in Python.
        for (data, expected) in GOLDEN {
            let mut totals = Totals::zero(4);
            for block in data.blocks(70_000, 4).unwrap() {
                totals.merge(&Totals::of_block(&block));
            }
            assert_eq!(
                (totals.sums[0], totals.sums[1], totals.squares),
                expected,
                "{data}"
            );
        }
    }

    const GOLDEN: [(Data, (i64, i64, i128)); 2] = [
        (
            Data::Mixture,
            (4_464_001_422, 6_570_762_007, 46_638_005_254_431_893),
        ),
        (Data::Skewed, (114_255_897, 13_780_988, 1_270_831_416_314)),
    ];
}
