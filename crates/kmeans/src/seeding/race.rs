//! Sampling without replacement, by squared distance, as a race with exact comparisons.

use super::SeedRound;
use crate::Block;
use crate::best_rows::BestRows;
use crate::cpu::CpuBackend;
use crate::exact::label_distances_in_block;
use std::cmp::Ordering;

/// The exponential draw of a row: `round(2^40 x -ln u)`, `u` in (0, 1] a function of the arguments; below 2^46.
///
/// `libm`'s logarithm, because std's is the platform's and its last bit is nobody's promise.
pub fn draw(seed: u64, round: u32, key: u64) -> u64 {
    let bits = mix(mix(mix(seed).wrapping_add(u64::from(round))).wrapping_add(key));
    let u = ((bits >> 11) + 1) as f64 / (1u64 << 53) as f64;
    libm::round((1u64 << 40) as f64 * -libm::log(u)) as u64
}

/// One step of SplitMix64 (Steele, Lea, Flood 2014): a bijection that passes for random.
pub(super) fn mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The `limit` distinct grid positions of smallest `e / d2`; lists of blocks merge in any order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Race {
    best: BestRows<Rank>,
}

/// A row in the race.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RaceEntry<'a> {
    /// Its [`draw`].
    pub e: u64,
    /// Squared distance to the nearest candidate, in grid steps squared; above 0.
    pub d2: u64,
    /// Row key.
    pub key: u64,
    /// [n_features] grid values.
    pub row: &'a [i32],
}

#[derive(Debug, Clone, Copy)]
struct Rank {
    e: u64,
    d2: u64,
    key: u64,
}

impl Ord for Rank {
    /// By `e / d2` and then key, compared as fractions: 46 + 58 bits fit.
    fn cmp(&self, other: &Self) -> Ordering {
        let left = u128::from(self.e) * u128::from(other.d2);
        let right = u128::from(other.e) * u128::from(self.d2);
        left.cmp(&right).then(self.key.cmp(&other.key))
    }
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Rank {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Rank {}

impl Race {
    /// An empty race with `limit` winners.
    pub fn new(limit: usize) -> Self {
        Self {
            best: BestRows::new(limit),
        }
    }

    /// Winners kept, at most.
    pub fn limit(&self) -> usize {
        self.best.limit()
    }

    /// Lets one row run; one that lies on a candidate (`d2` = 0) does not.
    pub fn offer(&mut self, entry: RaceEntry<'_>) {
        let RaceEntry { e, d2, key, row } = entry;
        if d2 > 0 {
            self.best.offer(Rank { e, d2, key }, row);
        }
    }

    /// Adds what another part of the rows has found.
    pub fn merge(&mut self, other: Self) {
        self.best.merge(other.best);
    }

    /// Winners, best first.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = RaceEntry<'_>> {
        self.best
            .iter()
            .map(|(&Rank { e, d2, key }, row)| RaceEntry { e, d2, key, row })
    }
}

/// Runs the race of one round over one block.
pub fn race_block(backend: &CpuBackend, block: &Block, round: &SeedRound) -> Race {
    let mut race = Race::new(round.limit);
    // Without candidates all rows are equally far from nothing.
    let mut distances = vec![1; block.n_rows()];
    if let Some(candidates) = &round.candidates {
        let mut labels = Vec::new();
        backend.labels(block, candidates, &mut labels);
        label_distances_in_block(block, candidates, &labels, &mut distances);
    }
    let mut row = vec![0; block.n_features()];
    for (row_idx, (&d2, &key)) in distances.iter().zip(block.keys()).enumerate() {
        let e = draw(round.seed, round.round, key);
        if d2 > 0 && race.best.may_enter(&Rank { e, d2, key }) {
            block.read_row(row_idx, &mut row);
            race.offer(RaceEntry {
                e,
                d2,
                key,
                row: &row,
            });
        }
    }
    race
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Centroids, exact};
    use proptest::prelude::*;

    #[test]
    fn draws_are_exponential_with_mean_one() {
        let n = 200_000u64;
        let unit = (1u64 << 40) as f64;
        let draws = || (0..n).map(|key| draw(7, 3, key) as f64 / unit);
        let mean = draws().sum::<f64>() / n as f64;
        let above_two = draws().filter(|&e| e > 2.0).count() as f64 / n as f64;
        assert!((mean - 1.0).abs() < 0.01, "{mean}");
        assert!((above_two - (-2.0f64).exp()).abs() < 0.003, "{above_two}");
    }

    #[test]
    fn draws_are_the_same_on_every_machine() {
        // Recomputed with Python: SplitMix64 as written, math.log, round.
        assert_eq!(draw(1, 0, 0), 402_406_451_282);
        assert_eq!(draw(1, 5, 0xdead_beef), 871_962_339_132);
    }

    #[test]
    fn rows_win_in_proportion_to_their_squared_distance() {
        // Candidate 0, rows at 1 and 2 (squared distances 1 and 4): the first place goes to 2 in four races of five.
        let round = |seed| SeedRound {
            round: 1,
            seed,
            candidates: Some(Centroids::new(1, vec![0])),
            limit: 1,
        };
        let block = Block::from_rows(0, 1, &[0, 1, 2], vec![10, 11, 12]).unwrap();
        let backend = CpuBackend::new();
        let n_won = (0..4_000)
            .filter(|&seed| {
                race_block(&backend, &block, &round(seed))
                    .entries()
                    .all(|entry| entry.row == [2])
            })
            .count();
        assert!((3_100..3_300).contains(&n_won), "{n_won}");
    }

    proptest! {
        #[test]
        fn a_race_is_the_same_however_the_rows_are_cut(
            values in prop::collection::vec(-4..4i32, 0..120),
            cut in 0..60usize,
            limit in 1..9usize,
        ) {
            let n_rows = values.len() / 2;
            let values = &values[..n_rows * 2];
            let keys: Vec<u64> = (0..n_rows as u64).map(|key| key / 3).collect();
            let round = SeedRound { round: 2, seed: 5, candidates: Some(Centroids::new(2, vec![0, 0, 3, 3])), limit };
            let race = |from: usize, to: usize| {
                let block = Block::from_rows(0, 2, &values[from * 2..to * 2], keys[from..to].to_vec()).unwrap();
                race_block(&CpuBackend::new(), &block, &round)
            };
            let cut = cut.min(n_rows);
            let mut merged = race(cut, n_rows);
            merged.merge(race(0, cut));
            prop_assert_eq!(&merged, &race(0, n_rows));
            for entry in merged.entries() {
                let (_, d2) = exact::nearest(entry.row, round.candidates.as_ref().unwrap());
                prop_assert_eq!((entry.d2, entry.e), (d2, draw(5, 2, entry.key)));
            }
        }
    }
}
