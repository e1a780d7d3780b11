//! Sampling without replacement, by squared distance, as a race with exact comparisons.

use super::SeedRound;
use crate::best_rows::BestRows;
use crate::cpu::CpuBackend;
use crate::exact::label_distances_in_block;
use crate::{Block, Centroids};
use std::cmp::Ordering;

/// The exponential draw of a row: `round(2^40 x -ln u)`, `u` in (0, 1] a function of the arguments; below 2^46.
///
/// `libm`'s logarithm, because std's is the platform's and its last bit is nobody's promise.
pub fn draw(seed: u64, round: u32, key: u64) -> u64 {
    exponential(uniform(stream(seed, round), key))
}

/// What an exponential of 1 is in draws.
const DRAW_UNIT: f64 = (1u64 << 40) as f64;

/// Where the numbers of a round begin.
fn stream(seed: u64, round: u32) -> u64 {
    mix(mix(seed).wrapping_add(u64::from(round)))
}

/// The uniform number of a row, in (0, 1].
fn uniform(stream: u64, key: u64) -> f64 {
    let bits = mix(stream.wrapping_add(key));
    ((bits >> 11) + 1) as f64 / (1u64 << 53) as f64
}

fn exponential(u: f64) -> u64 {
    libm::round(DRAW_UNIT * -libm::log(u)) as u64
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

    /// A number above the `e / d2` of every row that may still win, by more than `f64` can be wrong about either.
    fn worst(&self) -> f64 {
        match self.best.worst() {
            Some(rank) => rank.e as f64 / rank.d2 as f64 * (1.0 + 1e-9),
            None => f64::INFINITY,
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

/// Candidates whose distances bound those of all: what a row is read for anyway leaves time for so many.
const N_BOUNDING: usize = 16;
/// Rows whose distances are taken at once.
const BATCH_ROWS: usize = 256;

/// Runs the race of one round over one block.
///
/// Few rows can win, and most are known not to without a logarithm or an exact distance: `-ln u` is at least `1 - u`, and the distance to the
/// nearest candidate at most that to the nearest of some. What these make of `e / d2` is compared with the worst winner so far.
pub fn race_block(backend: &CpuBackend, block: &Block, round: &SeedRound) -> Race {
    let mut race = Race::new(round.limit);
    // Without candidates all rows are equally far from nothing.
    let mut bounds = vec![1.0; block.n_rows()];
    if let Some(candidates) = &round.candidates {
        backend.near_bounds(block, &every_nth(candidates), &mut bounds);
    }
    let stream = stream(round.seed, round.round);
    let mut batch = Batch {
        backend,
        block,
        candidates: round.candidates.as_ref(),
        entrants: Vec::with_capacity(BATCH_ROWS),
        values: Vec::new(),
    };
    // The worst winner's `e / d2`, a little more.
    let mut worst = f64::INFINITY;
    for (row_idx, (&bound, &key)) in bounds.iter().zip(block.keys()).enumerate() {
        let most = f64::from(bound) * worst;
        let u = uniform(stream, key);
        // One less for rounding to an integer; the errors of `f64` are within the margin of `worst`.
        if (1.0 - u) * DRAW_UNIT - 1.0 > most {
            continue;
        }
        let e = exponential(u);
        if e as f64 <= most {
            batch.entrants.push((row_idx, e));
            if batch.entrants.len() == BATCH_ROWS {
                batch.run(&mut race);
                worst = race.worst();
            }
        }
    }
    batch.run(&mut race);
    race
}

/// At most [`N_BOUNDING`] of the candidates, spread over their order.
fn every_nth(candidates: &Centroids) -> Centroids {
    let n_candidates = candidates.n_clusters();
    let n_chosen = n_candidates.min(N_BOUNDING);
    let values = (0..n_chosen).flat_map(|nth| candidates.row(nth * n_candidates / n_chosen));
    Centroids::new(candidates.n_features(), values.copied().collect())
}

/// Rows that may win.
struct Batch<'a> {
    backend: &'a CpuBackend,
    block: &'a Block,
    candidates: Option<&'a Centroids>,
    /// Their index in the block, and their draw.
    entrants: Vec<(usize, u64)>,
    /// [n_entrants x n_features].
    values: Vec<i32>,
}

impl Batch<'_> {
    /// Lets them run, and makes room for others.
    fn run(&mut self, race: &mut Race) {
        let n_features = self.block.n_features();
        self.values.resize(self.entrants.len() * n_features, 0);
        for (row, (row_idx, _)) in self.values.chunks_exact_mut(n_features).zip(&self.entrants) {
            self.block.read_row(*row_idx, row);
        }
        let mut distances = vec![1; self.entrants.len()];
        if let Some(candidates) = self.candidates {
            let keys = vec![0; self.entrants.len()];
            let rows = Block::from_rows(0, n_features, &self.values, keys);
            let rows = rows.expect("rows of a block are rows of a block");
            let mut labels = Vec::new();
            self.backend.labels(&rows, candidates, &mut labels);
            label_distances_in_block(&rows, candidates, &labels, &mut distances);
        }
        let rows = self.values.chunks_exact(n_features);
        for ((row, (row_idx, e)), d2) in rows.zip(self.entrants.drain(..)).zip(distances) {
            let key = self.block.keys()[row_idx];
            race.offer(RaceEntry { e, d2, key, row });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exact;
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

    /// Every row runs, with its draw and its exact distance.
    fn race_of_all(block: &Block, round: &SeedRound) -> Race {
        let mut race = Race::new(round.limit);
        let mut row = vec![0; block.n_features()];
        for (row_idx, &key) in block.keys().iter().enumerate() {
            block.read_row(row_idx, &mut row);
            let d2 = round
                .candidates
                .as_ref()
                .map_or(1, |c| exact::nearest(&row, c).1);
            let e = draw(round.seed, round.round, key);
            race.offer(RaceEntry {
                e,
                d2,
                key,
                row: &row,
            });
        }
        race
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn rows_that_are_left_out_could_not_have_won(
            seed in 0..1_000u64,
            scale in prop_oneof![Just(3), Just(1_000), Just(4_000_000)],
            n_candidates in 0..40usize,
            n_rows in 0..4_000usize,
            limit in 1..70usize,
        ) {
            let values: Vec<i32> = (0..n_rows as u64 * 3).map(|i| (mix(seed + i) % (scale + 1)) as i32).collect();
            let keys = (0..n_rows as u64).map(|row| mix(row / 2)).collect();
            let block = Block::from_rows(0, 3, &values, keys).unwrap();
            let n_candidates = n_candidates.min(n_rows);
            let candidates = (n_candidates > 0).then(|| Centroids::new(3, values[..3 * n_candidates].to_vec()));
            let round = SeedRound { round: u32::from(n_candidates > 0), seed, candidates, limit };
            for kernel in crate::cpu::Kernel::available() {
                let backend = CpuBackend::with_kernel(kernel).unwrap();
                prop_assert_eq!(race_block(&backend, &block, &round), race_of_all(&block, &round));
            }
        }
    }

    #[test]
    fn most_rows_are_left_out() {
        // What a wrong filter would do: a bound of a tenth of the distance loses winners.
        let values: Vec<i32> = (0..60_000u64)
            .map(|i| (mix(i) % 2_000_000) as i32)
            .collect();
        let block = Block::from_rows(0, 3, &values, (0..20_000).collect()).unwrap();
        let candidates = Centroids::new(3, values[..300].to_vec());
        let round = SeedRound {
            round: 1,
            seed: 4,
            candidates: Some(candidates.clone()),
            limit: 64,
        };
        let right = race_block(&CpuBackend::new(), &block, &round);
        assert_eq!(right, race_of_all(&block, &round));
        let worst = right.worst();
        let mut bounds = Vec::new();
        CpuBackend::new().near_bounds(&block, &candidates, &mut bounds);
        let enter = |share: f64| {
            let may = |(bound, key): (&f32, &u64)| {
                draw(4, 1, *key) as f64 <= f64::from(*bound) * share * worst
            };
            bounds
                .iter()
                .zip(block.keys())
                .filter(|row| may(*row))
                .count()
        };
        assert!((64..2_000).contains(&enter(1.0)), "{}", enter(1.0));
        assert!(enter(0.1) < 64);
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
