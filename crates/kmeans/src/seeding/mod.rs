//! Where the centroids start: k-means|| (Bahmani et al. 2012) by exact races, then greedy k-means++ over what it found.
//!
//! Each round samples about `limit` rows with probability proportional to their squared distance `d2` from the candidates so far. It
//! does so by a race: every row draws an exponential `e`, and the rows of smallest `e / d2` win (Efraimidis and Spirakis 2006). Draws
//! are functions of (seed, round, row key) and the comparison is exact, so the winners depend on the rows alone: neither on their
//! order, nor on the blocks they lie in, nor on who looks at them.

mod race;
mod recluster;

pub use race::{Race, RaceEntry, draw, race_block};
pub use recluster::recluster;

use crate::{Centroids, Totals};

/// Races over all rows after the first one. Five are enough in practice (Bahmani et al., section 5).
const N_ROUNDS: u32 = 5;

/// Tables of no more rows than this are not sampled: all their distinct rows are candidates, after a single race.
const SMALL_TABLE_ROWS: u64 = 2_048;

/// Collects candidate rows, race by race, for all numbers of clusters up to `k_max` at once.
#[derive(Debug, Clone)]
pub struct Seeding {
    k_max: usize,
    n_rows: u64,
    seed: u64,
    round: u32,
    candidates: Centroids,
    done: bool,
}

/// One race to be run over all rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeedRound {
    /// Part of every draw.
    pub round: u32,
    /// Part of every draw.
    pub seed: u64,
    /// What distances are measured from; `None` in the first round, in which all rows are equally likely.
    pub candidates: Option<Centroids>,
    /// Winners to keep.
    pub limit: usize,
}

impl Seeding {
    /// For models of up to `k_max` clusters of the rows that `totals` has seen.
    pub fn new(k_max: usize, totals: &Totals, seed: u64) -> Self {
        Self {
            k_max,
            n_rows: totals.n_rows,
            seed,
            round: 0,
            candidates: Centroids::new(totals.sums.len(), Vec::new()),
            done: k_max == 0,
        }
    }

    /// The next race to run; `None` when [`Seeding::candidates`] are complete.
    pub fn request(&self) -> Option<SeedRound> {
        (!self.done).then(|| SeedRound {
            round: self.round,
            seed: self.seed,
            candidates: (self.round > 0).then(|| self.candidates.clone()),
            limit: self.limit(),
        })
    }

    /// Takes the race of the round asked for, merged over all rows.
    ///
    /// # Panics
    /// When no race was asked for, or this is another one.
    pub fn absorb(&mut self, race: Race) {
        assert!(!self.done, "a race was not asked for");
        assert_eq!(race.limit(), self.limit(), "the race asked for");
        let mut rows: Vec<&[i32]> = self.candidates.rows().collect();
        let n_found = race.entries().len();
        rows.extend(race.entries().map(|entry| entry.row));
        rows.sort_unstable();
        rows.dedup();
        let candidates = Centroids::new(self.candidates.n_features(), rows.concat());
        // A race that was not filled has let every distinct row in; so has the only race of a small table.
        let exhausted = n_found < self.limit() || self.n_rows <= SMALL_TABLE_ROWS;
        let enough = self.round >= N_ROUNDS && candidates.n_clusters() >= self.k_max;
        self.done = exhausted || enough;
        self.candidates = candidates;
        self.round += 1;
    }

    /// The rows found so far: distinct, in grid-row order. Fewer than `k_max` only if there are no more distinct rows.
    pub fn candidates(&self) -> &Centroids {
        &self.candidates
    }

    /// Twice the clusters, rounded up so that neighbouring k share their candidates; less for very many clusters, where five rounds of
    /// half the clusters still give more than twice as many candidates as are needed and reclustering them would take minutes.
    fn limit(&self) -> usize {
        if self.n_rows <= SMALL_TABLE_ROWS {
            return SMALL_TABLE_ROWS as usize;
        }
        if self.round == 0 {
            return 1;
        }
        let clusters = self.k_max.max(32).next_power_of_two();
        (2 * clusters).min((clusters / 2).max(1024))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Block, Totals, cpu::CpuBackend};

    fn candidates_of(k_max: usize, values: &[i32]) -> Centroids {
        let block = Block::from_rows(0, 1, values, (0..values.len() as u64).collect()).unwrap();
        let mut seeding = Seeding::new(k_max, &Totals::of_block(&block), 1);
        while let Some(round) = seeding.request() {
            seeding.absorb(race_block(&CpuBackend::new(), &block, &round));
        }
        seeding.candidates().clone()
    }

    #[test]
    fn candidates_are_distinct_and_sorted_and_as_many_as_there_are() {
        assert_eq!(candidates_of(4, &[7, 7, 7]).values(), [7]);
        assert_eq!(candidates_of(4, &[7, 9, 7, -1, 9]).values(), [-1, 7, 9]);
        assert_eq!(candidates_of(4, &[]).n_clusters(), 0);
        let many: Vec<i32> = (0..5_000).map(|v| v * v % 4_096).collect();
        let candidates = candidates_of(4, &many);
        assert!(candidates.values().is_sorted());
        assert!((5 * 60..=5 * 64 + 1).contains(&candidates.n_clusters()));
    }

    #[test]
    fn very_many_clusters_find_enough_candidates() {
        let many: Vec<i32> = (0..20_000).collect();
        let n_candidates = candidates_of(3_000, &many).n_clusters();
        assert!((3_000..20_000).contains(&n_candidates), "{n_candidates}");
    }
}
