//! Candidates fitted side by side over rows on a line.

use clientele_kmeans::cpu::CpuBackend;
use clientele_kmeans::{Backend, Block};

use super::*;

const MAX_ITER: u32 = 40;

/// Two heaps far apart, a thousand rows in each, one grid step after the other.
fn two_heaps() -> Block {
    let values: Vec<i32> = (0..1_000).chain(1_000_000..1_001_000).collect();
    let keys = (0..values.len() as u64).collect();
    Block::from_rows(0, 1, &values, keys).unwrap()
}

/// Fits of four clusters from `starts`, to their end; the summaries, and the candidates of each pass.
fn fit(
    starts: &[[i32; 4]],
    twins_are_one: bool,
    halving: bool,
) -> (Vec<CandidateSummary>, Vec<usize>) {
    let block = two_heaps();
    let totals = Totals::of_block(&block);
    let mut candidates = Candidates::default();
    for (restart, start) in (0..).zip(starts) {
        let centroids = Centroids::new(1, start.to_vec());
        candidates.add(restart, Candidate::new(centroids, 0, MAX_ITER));
    }
    let mut asked = Vec::new();
    loop {
        if twins_are_one {
            candidates.merge_twins();
        }
        if halving {
            let n_passes = u32::try_from(asked.len()).unwrap();
            candidates.halve(n_passes, MAX_ITER);
        }
        let ids = candidates.wanting_a_pass();
        if ids.is_empty() {
            return (candidates.summaries(&totals, 1.0), asked);
        }
        asked.push(ids.len());
        let centroids: Vec<Centroids> = ids
            .iter()
            .map(|id| candidates.centroids(*id).clone())
            .collect();
        let partials = CpuBackend::new().pass(&block, &centroids, None).unwrap();
        let requests = candidates.absorb(&ids, &partials, &totals).unwrap();
        let farthest = |request: &RelocateRequest| {
            let (centroids, limit) = (&request.centroids, request.limit);
            FarthestRows::of_block(&CpuBackend::new(), &block, centroids, limit)
        };
        let rows: Vec<FarthestRows> = requests.iter().map(farthest).collect();
        candidates.relocate(&requests, &rows);
    }
}

/// Two clusters in each heap; the second takes longer.
const GOOD: [[i32; 4]; 2] = [
    [250, 740, 1_000_260, 1_000_750],
    [0, 1, 1_000_000, 1_000_001],
];
/// Three in one heap, where they are on their way for long, and one in the other: the inertia is twice that of the good ones for ever.
const HOPELESS: [[i32; 4]; 2] = [[0, 1, 2, 1_000_500], [0, 1_000_997, 1_000_998, 1_000_999]];

fn four_starts() -> Vec<[i32; 4]> {
    [HOPELESS[0], GOOD[0], HOPELESS[1], GOOD[1]].to_vec()
}

#[test]
fn hopeless_starts_are_given_up_and_the_winner_is_the_same() {
    let (all, asked_all) = fit(&four_starts(), true, false);
    let (some, asked_some) = fit(&four_starts(), true, true);
    assert!(all.iter().all(|summary| summary.given_up.is_none()));
    assert!(asked_some.iter().sum::<usize>() < asked_all.iter().sum());
    for restart in [1, 3] {
        let (a, b) = (&all[restart], &some[restart]);
        assert_eq!((a.inertia_grid, a.n_iter), (b.inertia_grid, b.n_iter));
        assert_eq!((a.stop_reason, b.given_up), (b.stop_reason, None));
    }
    for restart in [0, 2] {
        let (a, b) = (&all[restart], &some[restart]);
        assert_eq!(b.stop_reason, StopReason::GivenUp);
        let why = b.given_up.unwrap();
        assert!(b.n_iter < a.n_iter && halving::is_due(b.n_iter));
        assert_eq!(why.n_rounds_left, MAX_ITER - b.n_iter);
        let forecast = b.inertia_grid - i128::from(why.n_rounds_left) * why.decrease_grid;
        assert!(forecast > why.leader_inertia_grid);
        // It would indeed have lost.
        assert!(a.inertia_grid > why.leader_inertia_grid);
    }
}

#[test]
fn starts_that_have_come_to_the_same_centroids_share_their_passes() {
    let starts = [GOOD[1], GOOD[0], GOOD[1], [0, 2, 1_000_000, 1_000_001]];
    let (apart, asked_apart) = fit(&starts, false, false);
    let (together, asked_together) = fit(&starts, true, false);
    assert_eq!(
        (asked_apart[0], asked_together[0]),
        (4, 3),
        "the same start"
    );
    let meets = asked_together.iter().position(|n| *n < 3).unwrap();
    assert!(meets > 0 && asked_apart[meets] == 4, "the same way, later");
    let told = |summaries: &[CandidateSummary]| serde_json::to_string(summaries).unwrap();
    assert_eq!(told(&apart), told(&together));
    assert_eq!(together[2].restart, 2);
}

#[test]
fn a_start_whose_clusters_came_out_empty_in_this_round_is_not_judged_by_it() {
    let block = two_heaps();
    let totals = Totals::of_block(&block);
    let mut candidates = Candidates::default();
    for (restart, start) in (0..).zip(four_starts()) {
        let centroids = Centroids::new(1, start.to_vec());
        candidates.add(restart, Candidate::new(centroids, 0, MAX_ITER));
    }
    let ids = candidates.wanting_a_pass();
    let mut pass = |sizes: [u64; 4], sum: i64| {
        let partial = |counts: [u64; 4]| Partial {
            counts: counts.to_vec(),
            sums: vec![sum; 4],
            ..Partial::zero(4, 1)
        };
        let mut partials = vec![partial([500; 4]); 4];
        partials[2] = partial(sizes);
        candidates.absorb(&ids, &partials, &totals).unwrap()
    };
    assert!(pass([500; 4], 5_000).is_empty());
    let requests = pass([1_000, 500, 500, 0], 50_000);
    let asked: Vec<CandidateId> = requests.iter().map(|r| r.candidate).collect();
    assert_eq!(asked, [ids[2]]);
    let is_judged = |id| candidates.by_id[&id].standing().decrease.is_some();
    let judged: Vec<bool> = ids.iter().map(|id| is_judged(*id)).collect();
    assert_eq!(judged, [true, true, false, true]);
}

#[test]
fn a_start_that_has_converged_is_not_given_up_for_its_inertia() {
    let settled = [
        [163, 500, 836, 1_000_500],
        [500, 1_000_163, 1_000_500, 1_000_836],
    ];
    let (summaries, asked) = fit(&[GOOD[1], GOOD[0], settled[0], settled[1]], true, true);
    assert!(asked[3] < 4 && asked.len() > 4, "{asked:?}");
    for summary in &summaries {
        assert_eq!(summary.stop_reason, StopReason::Converged);
        assert_eq!(summary.given_up, None);
    }
    assert!(summaries[2].inertia_grid > summaries[0].inertia_grid * 3 / 2);
}
