//! Which starts of one number of clusters are given up before they have converged: successive halving (Jamieson and Talwalkar 2016),
//! held back by a forecast.
//!
//! Plain halving gives up whoever is in the worse half, and in k-means that half holds the later winner of one k in three. So one of the
//! worse half is only given up if it would end above where the leader stands now even if every round it has left lowered its inertia as
//! much as the last one did. Decreases shrink from round to round as a rule, though not always: what that may lose is measured in
//! `docs/decisions/0011-successive-halving.md`.
//!
//! All numbers are exact integers of a pass over all rows, so that every machine gives up the same starts at the same time.

use serde::Serialize;

/// Passes before anything is given up: the first ones tell how good the seeds were, not how good the model will be.
const FIRST_PASS: u32 = 4;

/// One start among those of as many clusters, after a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Which start.
    pub(crate) restart: u32,
    /// Of the last pass it took part in, in grid steps squared.
    pub(crate) inertia: i128,
    /// How much lower that is than the pass before found it. None if it must not be given up: it has stopped, or its last inertia tells
    /// little of the next.
    pub(crate) decrease: Option<i128>,
}

/// Why a start was given up: `inertia - n_rounds_left * decrease > leader_inertia`, all of the same pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct GivenUp {
    /// The start of lowest inertia then.
    pub leader_restart: u32,
    /// Its inertia then, in grid steps squared. It can only have become lower.
    pub leader_inertia_grid: i128,
    /// How much the last round had lowered the inertia of the one that was given up, in grid steps squared.
    pub decrease_grid: i128,
    /// Rounds it had left.
    pub n_rounds_left: u32,
}

/// Whether starts are compared after pass `n_passes`: after 4, 8, 16, 32 and so on.
pub(crate) fn is_due(n_passes: u32) -> bool {
    n_passes >= FIRST_PASS && n_passes.is_power_of_two()
}

/// Who of `standings`, all of as many clusters, is given up with `n_rounds_left` to go, by position, and why.
///
/// The better half, rounded up, goes on whatever happens; of equals the earlier is the better.
pub(crate) fn given_up(standings: &[Standing], n_rounds_left: u32) -> Vec<(usize, GivenUp)> {
    let mut ranked: Vec<usize> = (0..standings.len()).collect();
    ranked.sort_by_key(|&idx| (standings[idx].inertia, idx));
    let Some(leader) = ranked.first().map(|&idx| standings[idx]) else {
        return Vec::new();
    };
    let worse_half = ranked.into_iter().skip(standings.len().div_ceil(2));
    let judged = worse_half.filter_map(|idx| {
        let Standing {
            inertia, decrease, ..
        } = standings[idx];
        let decrease_grid = decrease?;
        let forecast = inertia - i128::from(n_rounds_left) * decrease_grid;
        let why = GivenUp {
            leader_restart: leader.restart,
            leader_inertia_grid: leader.inertia,
            decrease_grid,
            n_rounds_left,
        };
        (forecast > leader.inertia).then_some((idx, why))
    });
    judged.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standings(of: &[(i128, Option<i128>)]) -> Vec<Standing> {
        (0..)
            .zip(of)
            .map(|(restart, &(inertia, decrease))| Standing {
                restart,
                inertia,
                decrease,
            })
            .collect()
    }

    fn restarts_given_up(of: &[(i128, Option<i128>)], n_rounds_left: u32) -> Vec<usize> {
        let given_up = given_up(&standings(of), n_rounds_left);
        given_up.into_iter().map(|(idx, _)| idx).collect()
    }

    #[test]
    fn the_hopeless_go_and_whoever_could_still_arrive_stays() {
        // The leader stands at 1,000; ten rounds are left. 1,101 - 10 x 10 is above it, 1,100 - 10 x 10 is not.
        let field = [
            (1_000, Some(1)),
            (1_005, Some(0)),
            (1_101, Some(10)),
            (1_100, Some(10)),
        ];
        assert_eq!(restarts_given_up(&field, 10), [2]);
        assert_eq!(restarts_given_up(&field, 11), [0; 0]);
        assert_eq!(
            given_up(&standings(&field), 10)[0].1,
            GivenUp {
                leader_restart: 0,
                leader_inertia_grid: 1_000,
                decrease_grid: 10,
                n_rounds_left: 10
            }
        );
    }

    #[test]
    fn a_late_bloomer_that_falls_fast_stays_however_far_behind() {
        let field = [
            (1_000, Some(0)),
            (1_000, Some(0)),
            (1_000, Some(0)),
            (9_000, Some(500)),
        ];
        assert_eq!(restarts_given_up(&field, 16), [0; 0]);
        assert_eq!(restarts_given_up(&field, 15), [3]);
    }

    #[test]
    fn the_better_half_rounded_up_always_goes_on() {
        let hopeless = |n: i128| (1_000 + n, Some(0));
        for (n_starts, n_kept) in [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (16, 8)] {
            let field: Vec<_> = (0..n_starts).map(|n| hopeless(10 * n)).collect();
            let gone = restarts_given_up(&field, 90);
            assert_eq!(gone, (n_kept..n_starts as usize).collect::<Vec<_>>());
        }
        assert_eq!(restarts_given_up(&[], 90), [0; 0]);
    }

    #[test]
    fn equals_of_the_leader_and_those_that_have_stopped_are_never_given_up() {
        let field = [(7, Some(0)), (7, Some(0)), (7, Some(0)), (7, Some(0))];
        assert_eq!(restarts_given_up(&field, 0), [0; 0]);
        assert_eq!(
            restarts_given_up(&[(7, Some(0)), (9, None)], 5),
            [0; 0],
            "it costs no pass"
        );
        // One that has stopped leads as well as any other.
        assert_eq!(restarts_given_up(&[(9, Some(0)), (7, None)], 5), [0]);
    }

    #[test]
    fn the_order_of_equals_is_that_of_restarts() {
        let field = [(8, Some(0)), (7, Some(0)), (8, Some(0)), (8, Some(0))];
        assert_eq!(restarts_given_up(&field, 3), [2, 3]);
    }

    #[test]
    fn comparisons_are_after_passes_that_double() {
        let due: Vec<u32> = (0..=100).filter(|n| is_due(*n)).collect();
        assert_eq!(due, [4, 8, 16, 32, 64]);
    }
}
