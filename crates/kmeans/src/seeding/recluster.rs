//! From weighted candidate rows to starting centroids: greedy k-means++, then a search by swaps.

use super::race::{draw, mix};
use crate::cpu::CpuBackend;
use crate::exact::{distances_in_block, nearest_two_in_block};
use crate::lloyd::{inertia, update};
use crate::{BLOCK_ROWS, Block, Centroids, Partial};

/// Weighted Lloyd steps after a swap, at most.
const LLOYD_STEPS: i128 = 20;

/// Swaps tried, at most. Fewer for large problems, by [`SWAPS_BUDGET`].
const MAX_SWAPS: u64 = 100;

/// Sweeps over the candidates that a swap takes, more or less: most are given up after a few.
const SWEEPS_A_SWAP: u64 = 4;

/// Multiply-adds worth spending on swaps: some tens of milliseconds. A function of the problem and not of the clock, so that answers
/// repeat.
const SWAPS_BUDGET: u64 = 1 << 29;

/// Starting centroids of the `restart`-th model of `n_clusters`: all `candidates` when there are no more than that.
///
/// `candidates` [n_candidates x n_features] distinct rows, `weights` [n_candidates] rows that each attracts. Weighted greedy k-means++
/// (Arthur and Vassilvitskii 2007, with `2 + ln k` trials a centroid as in scikit-learn), then local search: a row drawn by its share of
/// the inertia replaces the centroid that is missed least, a few Lloyd steps follow, and what is better stays (after Lattanzi and
/// Sohler 2019). Candidates are few, so this costs next to nothing beside a pass, and it finds what hundreds of restarts do not.
///
/// Draws are integers and depend on (seed, n_clusters, restart) only. Every second restart multiplies the weights by exponential draws
/// (the Bayesian bootstrap, Rubin 1981): the search is good enough to end at the same place each time, which need not be the best place
/// for the rows that the candidates stand for.
///
/// # Panics
/// When `weights` has another length, or there are more than 65,536 candidates.
pub fn recluster(
    candidates: &Centroids,
    weights: &[u64],
    n_clusters: usize,
    seed: u64,
    restart: u32,
) -> Centroids {
    let n_candidates = candidates.n_clusters();
    assert_eq!(n_candidates, weights.len(), "one weight a candidate");
    assert!(
        n_candidates <= BLOCK_ROWS,
        "n_candidates={n_candidates} is above {BLOCK_ROWS}"
    );
    if n_candidates <= n_clusters || n_clusters == 0 {
        return candidates.clone();
    }
    let mut draws = Draws::new(seed, n_clusters, restart);
    let mut weights = weights.to_vec();
    if restart % 2 == 1 {
        draws.perturb(&mut weights);
    }
    let keys = (0..n_candidates as u64).collect();
    let points = Points {
        rows: candidates,
        block: &Block::from_rows(0, candidates.n_features(), candidates.values(), keys)
            .expect("centroids lie on the grid"),
        weights: &weights,
        total_squares: total_squares(candidates, &weights),
        backend: CpuBackend::new(),
    };
    let start = points.plus_plus(n_clusters, &mut draws);
    points.search(start, &mut draws)
}

fn n_trials(n_clusters: usize) -> usize {
    2 + libm::log(n_clusters as f64) as usize
}

fn n_swaps(candidates: &Centroids, n_clusters: usize) -> u64 {
    if n_clusters < 2 {
        return 0;
    }
    let cost = candidates.values().len() as u64 * n_clusters as u64 * SWEEPS_A_SWAP;
    (SWAPS_BUDGET / cost.max(1)).min(MAX_SWAPS)
}

fn total_squares(rows: &Centroids, weights: &[u64]) -> i128 {
    let square = |row: &[i32]| row.iter().map(|&v| i128::from(v).pow(2)).sum::<i128>();
    let weighted = rows.rows().zip(weights);
    weighted
        .map(|(row, &weight)| i128::from(weight) * square(row))
        .sum()
}

struct Points<'a> {
    rows: &'a Centroids,
    block: &'a Block,
    weights: &'a [u64],
    /// Weighted sum of squared grid values.
    total_squares: i128,
    backend: CpuBackend,
}

impl Points<'_> {
    /// Greedy k-means++: each centroid is the best of a few rows drawn by weight and squared distance.
    fn plus_plus(&self, n_clusters: usize, draws: &mut Draws) -> Centroids {
        let mut chosen = Vec::with_capacity(n_clusters);
        let mut d2 = vec![1u64; self.weights.len()];
        let mut trial_d2 = Vec::new();
        let mut best_d2 = Vec::new();
        for n_chosen in 0..n_clusters {
            let cumulative = self.cumulative(&d2);
            // The first row is drawn by weight alone, and there is nothing to be greedy about.
            let n_trials = if n_chosen == 0 {
                1
            } else {
                n_trials(n_clusters)
            };
            let mut best: Option<(u128, usize)> = None;
            for _ in 0..n_trials {
                let idx = draws.pick(&cumulative);
                distances_in_block(self.block, self.rows.row(idx), &mut trial_d2);
                if n_chosen > 0 {
                    trial_d2
                        .iter_mut()
                        .zip(&d2)
                        .for_each(|(trial, &d2)| *trial = d2.min(*trial));
                }
                let potential = self.potential(&trial_d2);
                if best.is_none_or(|(least, _)| potential < least) {
                    best = Some((potential, idx));
                    std::mem::swap(&mut best_d2, &mut trial_d2);
                }
            }
            if let Some((_, idx)) = best {
                chosen.push(idx);
                std::mem::swap(&mut d2, &mut best_d2);
            }
        }
        let values = chosen
            .iter()
            .flat_map(|&idx| self.rows.row(idx))
            .copied()
            .collect();
        Centroids::new(self.rows.n_features(), values)
    }

    fn potential(&self, d2: &[u64]) -> u128 {
        let products = d2.iter().zip(self.weights);
        products
            .map(|(&d2, &weight)| u128::from(d2) * u128::from(weight))
            .sum()
    }

    fn cumulative(&self, d2: &[u64]) -> Vec<u128> {
        let mut total = 0;
        let products = d2.iter().zip(self.weights);
        products
            .map(|(&d2, &weight)| {
                total += u128::from(d2) * u128::from(weight);
                total
            })
            .collect()
    }

    /// Tries swaps, and keeps those that pay.
    fn search(&self, start: Centroids, draws: &mut Draws) -> Centroids {
        let n_swaps = n_swaps(self.rows, start.n_clusters());
        let mut best = self.refine(start, None);
        for _ in 0..n_swaps {
            let trial = self.refine(self.swap(&best.1, draws), Some(best.0));
            if trial.0 < best.0 {
                best = trial;
            }
        }
        best.1
    }

    /// A row, drawn by its share of the inertia, in place of the centroid whose loss then costs least.
    fn swap(&self, centroids: &Centroids, draws: &mut Draws) -> Centroids {
        let mut nearest = Vec::new();
        nearest_two_in_block(self.block, centroids, &mut nearest);
        let d2: Vec<u64> = nearest.iter().map(|two| two.d2).collect();
        let row = self.rows.row(draws.pick(&self.cumulative(&d2)));
        let mut new_d2 = Vec::new();
        distances_in_block(self.block, row, &mut new_d2);
        let mut losses = vec![0u128; centroids.n_clusters()];
        for ((two, &new_d2), &weight) in nearest.iter().zip(&new_d2).zip(self.weights) {
            let loss = two.second_d2.min(new_d2) - two.d2.min(new_d2);
            losses[usize::from(two.label)] += u128::from(weight) * u128::from(loss);
        }
        let least_missed = (0..losses.len())
            .min_by_key(|&idx| losses[idx])
            .unwrap_or(0);
        let n_features = centroids.n_features();
        let mut values = centroids.values().to_vec();
        values[least_missed * n_features..][..n_features].copy_from_slice(row);
        Centroids::new(n_features, values)
    }

    /// Weighted Lloyd steps, and the weighted inertia of the centroids they end with, given up when it will hardly get below `target`:
    /// steps gain less and less.
    fn refine(&self, mut centroids: Centroids, target: Option<i128>) -> (i128, Centroids) {
        let mut labels = Vec::new();
        let mut last_inertia = None;
        let mut steps_left = LLOYD_STEPS;
        loop {
            self.backend.labels(self.block, &centroids, &mut labels);
            let partial = self.weighted_partial(&labels, &centroids);
            let inertia = inertia(self.total_squares, &partial, &centroids);
            let gain: Option<i128> = last_inertia.map(|last: i128| last - inertia);
            let hopeless = match (target, gain) {
                (Some(target), Some(gain)) => inertia - target > gain * steps_left,
                _ => false,
            };
            let (next, center_shift) = update(&partial, &centroids);
            if steps_left == 0 || hopeless || center_shift == 0 {
                return (inertia, centroids);
            }
            last_inertia = Some(inertia);
            centroids = next;
            steps_left -= 1;
        }
    }

    fn weighted_partial(&self, labels: &[u16], centroids: &Centroids) -> Partial {
        let n_features = centroids.n_features();
        let mut partial = Partial::zero(centroids.n_clusters(), n_features);
        for ((row, &label), &weight) in self.rows.rows().zip(labels).zip(self.weights) {
            let label = usize::from(label);
            partial.counts[label] += weight;
            let sums = &mut partial.sums[label * n_features..][..n_features];
            for (sum, &value) in sums.iter_mut().zip(row) {
                *sum += i64::from(value) * weight as i64;
            }
        }
        partial
    }
}

/// A stream of integers that depends on its three names only.
struct Draws {
    state: u64,
}

impl Draws {
    fn new(seed: u64, n_clusters: usize, restart: u32) -> Self {
        Self {
            state: mix(
                mix(mix(seed).wrapping_add(n_clusters as u64)).wrapping_add(u64::from(restart))
            ),
        }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// Multiplies each weight by an exponential draw of mean 8.
    fn perturb(&mut self, weights: &mut [u64]) {
        let round = self.next() as u32;
        for (idx, weight) in (0..).zip(weights) {
            // Draws end at four times the mean, so that 2^35 rows weigh at most 2^40 and their sums fit 64 bits.
            let factor = draw(self.state, round, idx).min(1 << 42);
            let product = (u128::from(*weight) * u128::from(factor)) >> 37;
            *weight = u64::try_from(product).unwrap_or(u64::MAX).max(1);
        }
    }

    /// An index, with probability in proportion to its step of `cumulative`; the last one when all steps are 0.
    fn pick(&mut self, cumulative: &[u128]) -> usize {
        let total = cumulative.last().copied().unwrap_or(0).max(1);
        // The total is below 2^93 (35 bits of rows, 58 of distance): the remainder's bias is below 2^-35.
        let at = (u128::from(self.next()) << 64 | u128::from(self.next())) % total;
        cumulative
            .partition_point(|&sum| sum <= at)
            .min(cumulative.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three heaps of candidates on a line, of very different weights.
    fn heaps() -> (Centroids, Vec<u64>) {
        let values: Vec<i32> = [0, 1_000, 100_000]
            .iter()
            .flat_map(|&at| (0..20).map(move |i| at + i))
            .collect();
        (
            Centroids::new(1, values),
            (0..60).map(|i| 1 + i * i * i).collect(),
        )
    }

    #[test]
    fn each_heap_gets_a_centroid_whatever_the_restart() {
        let (candidates, weights) = heaps();
        for restart in 0..8 {
            let start = recluster(&candidates, &weights, 3, 1, restart);
            let mut values = start.values().to_vec();
            values.sort_unstable();
            assert!(
                (0..20).contains(&values[0]) && (1_000..1_020).contains(&values[1]),
                "{values:?}"
            );
            assert!((100_000..100_020).contains(&values[2]), "{values:?}");
        }
    }

    #[test]
    fn the_same_names_give_the_same_start_and_restarts_differ() {
        let (candidates, weights) = heaps();
        let start = |seed, restart| recluster(&candidates, &weights, 7, seed, restart);
        assert_eq!(start(1, 0), start(1, 0));
        let starts: std::collections::HashSet<Centroids> =
            (0..6).map(|restart| start(1, restart)).collect();
        assert!(starts.len() > 2);
    }

    #[test]
    fn few_candidates_are_all_taken() {
        let (candidates, weights) = heaps();
        assert_eq!(recluster(&candidates, &weights, 60, 1, 0), candidates);
        assert_eq!(recluster(&candidates, &weights, 4_096, 1, 0), candidates);
        assert_eq!(recluster(&candidates, &weights, 1, 1, 0).n_clusters(), 1);
    }
}
