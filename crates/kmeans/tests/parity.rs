//! Every kernel gives what the reference gives, by equality, on data made to be hard.

use clientele_kmeans::cpu::{CpuBackend, Kernel};
use clientele_kmeans::{
    Backend, Block, BlockLabels, Centroids, GRID_LIMIT, Partial, exact, reference,
};
use proptest::prelude::*;

const EDGE: i32 = GRID_LIMIT - 1;

/// Rows [n_rows][n_features] and centroids [n_clusters][n_features].
#[derive(Debug, Clone)]
struct Problem {
    n_features: usize,
    rows: Vec<Vec<i32>>,
    centroids: Vec<Vec<i32>>,
}

impl Problem {
    fn block(&self) -> Block {
        Block::from_rows(
            0,
            self.n_features,
            &self.rows.concat(),
            keys(self.rows.len()),
        )
        .unwrap()
    }

    fn centroids(&self) -> Centroids {
        Centroids::new(self.n_features, self.centroids.concat())
    }
}

/// Value generators that make ties, near ties, lines, constants and the edges of the grid likely.
fn problems() -> impl Strategy<Value = Problem> {
    let n_rows = prop_oneof![
        Just(0usize),
        Just(1),
        Just(15),
        Just(16),
        Just(17),
        0..150usize
    ];
    (1..=70usize, n_rows, 1..=70usize, 0..6u8, any::<u64>()).prop_map(
        |(n_features, n_rows, n_clusters, kind, seed)| {
            let mut state = seed;
            let mut next = move |n: i32| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                ((state >> 33) % n as u64) as i32
            };
            let mut row = || -> Vec<i32> {
                let along = next(9) - 4;
                let near = next(3);
                let mut value = || match kind {
                    0 => next(3) - 1,
                    1 => [-EDGE, EDGE, 0, 1][next(4) as usize],
                    2 => along * 1_000,
                    3 => EDGE - next(2),
                    4 => 3_000_000 + near + next(2),
                    _ => next(2 * EDGE) - EDGE,
                };
                (0..n_features).map(|_| value()).collect()
            };
            let mut rows: Vec<Vec<i32>> = (0..n_rows).map(|_| row()).collect();
            let mut centroids: Vec<Vec<i32>> = (0..n_clusters).map(|_| row()).collect();
            // Half of the centroids are rows, and some rows lie half-way between two centroids.
            for idx in (0..n_clusters.min(n_rows)).step_by(2) {
                centroids[idx].clone_from(&rows[idx]);
            }
            for idx in (0..n_rows).step_by(5) {
                let (a, b) = (
                    &centroids[idx % n_clusters],
                    &centroids[(idx + 1) % n_clusters],
                );
                rows[idx] = a.iter().zip(b).map(|(a, b)| (a + b) / 2).collect();
            }
            Problem {
                n_features,
                rows,
                centroids,
            }
        },
    )
}

fn keys(n_rows: usize) -> Vec<u64> {
    (0..n_rows as u64).collect()
}

fn backends() -> Vec<CpuBackend> {
    Kernel::available()
        .into_iter()
        .filter_map(CpuBackend::with_kernel)
        .collect()
}

/// What must be equal: labels, counts, sums.
type Answer = (Vec<usize>, Vec<i64>, Vec<Vec<i64>>);

fn expected(problem: &Problem) -> Answer {
    let labels = reference::labels(&problem.rows, &problem.centroids);
    let (counts, sums) = reference::partial(
        &problem.rows,
        &labels,
        problem.centroids.len(),
        problem.n_features,
    );
    (labels, counts, sums)
}

fn answer(backend: &CpuBackend, problem: &Problem) -> Answer {
    let (block, centroids) = (problem.block(), problem.centroids());
    let mut kept = BlockLabels::default();
    let partials = backend
        .pass(&block, std::slice::from_ref(&centroids), Some(&mut kept))
        .unwrap();
    let mut labels = Vec::new();
    backend.labels(&block, &centroids, &mut labels);
    assert_eq!(
        labels, kept.by_candidate[0],
        "labels alone and labels of a pass"
    );
    let Partial { counts, sums, .. } = &partials[0];
    (
        labels.into_iter().map(usize::from).collect(),
        counts.iter().map(|&count| count as i64).collect(),
        sums.chunks(problem.n_features)
            .map(<[i64]>::to_vec)
            .collect(),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_kernel_equals_the_reference(problem in problems()) {
        let expected = expected(&problem);
        for backend in backends() {
            prop_assert_eq!(&answer(&backend, &problem), &expected, "{}", backend.name());
        }
    }

    #[test]
    fn exact_distances_of_a_block_equal_the_reference(problem in problems()) {
        let mut twos = Vec::new();
        exact::nearest_two_in_block(&problem.block(), &problem.centroids(), &mut twos);
        let labels: Vec<usize> = twos.iter().map(|two| two.label.into()).collect();
        prop_assert_eq!(&labels, &reference::labels(&problem.rows, &problem.centroids));
        for (row, two) in problem.rows.iter().zip(&twos) {
            prop_assert_eq!(*two, exact::nearest_two(row, &problem.centroids()));
        }
        for backend in backends() {
            let mut certified = Vec::new();
            backend.nearest_two(&problem.block(), &problem.centroids(), &mut certified);
            prop_assert_eq!(&certified, &twos, "{}", backend.name());
        }
    }

    #[test]
    fn candidates_of_one_pass_do_not_disturb_each_other(a in problems(), n_clusters in 1..9usize) {
        let block = a.block();
        let all = a.centroids();
        let few = Centroids::new(a.n_features, a.centroids.iter().take(n_clusters).flatten().copied().collect());
        let backend = CpuBackend::new();
        let both = backend.pass(&block, &[all.clone(), few.clone()], None).unwrap();
        prop_assert_eq!(&both[..1], &backend.pass(&block, &[all], None).unwrap()[..]);
        prop_assert_eq!(&both[1..], &backend.pass(&block, &[few], None).unwrap()[..]);
    }
}

/// Rows on the edge of the grid whose two nearest centroids differ by one step: beyond what `f32` can tell.
fn close_calls() -> Problem {
    let n_features = 40;
    let far = |last: i32| -> Vec<i32> {
        (0..n_features as i32)
            .map(|f| if f == 39 { last } else { EDGE - f })
            .collect()
    };
    Problem {
        n_features,
        rows: (0..64).map(|i| far(i % 5)).collect(),
        centroids: vec![far(4), far(3), far(0), far(1)],
    }
}

#[test]
fn a_single_flipped_label_is_noticed() {
    let problem = close_calls();
    let good = expected(&problem);
    let mut flipped = good.clone();
    flipped.0[17] = (flipped.0[17] + 1) % 4;
    let (counts, sums) = reference::partial(&problem.rows, &flipped.0, 4, problem.n_features);
    assert_ne!((&counts, &sums), (&good.1, &good.2), "sums alone show it");
    for backend in backends() {
        assert_eq!(answer(&backend, &problem), good);
        assert_ne!(answer(&backend, &problem), flipped);
    }
}

#[test]
fn floats_alone_would_get_some_labels_wrong() {
    let problem = close_calls();
    let score = |x: &[i32], c: &[i32]| {
        let square: i64 = c.iter().map(|&c| i64::from(c).pow(2)).sum();
        x.iter()
            .zip(c)
            .fold(square as f32 / 2.0, |score, (&x, &c)| {
                score - x as f32 * c as f32
            })
    };
    let (labels, _, _) = expected(&problem);
    let wrong = problem.rows.iter().zip(labels).filter(|(row, label)| {
        let scores: Vec<f32> = problem.centroids.iter().map(|c| score(row, c)).collect();
        let best = (0..4).min_by(|&a, &b| scores[a].total_cmp(&scores[b]));
        best != Some(*label)
    });
    assert!(
        wrong.count() > 0,
        "the exact fallback must be needed, or its test proves nothing"
    );
    for backend in backends() {
        let partials = backend
            .pass(&problem.block(), &[problem.centroids()], None)
            .unwrap();
        assert!(partials[0].n_rechecked > 0);
    }
}

#[test]
fn ordinary_rows_are_rarely_rechecked_and_duplicates_cost_nothing() {
    let n_rows = 20_000;
    let mut state = 1u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 42) as i32 - (1 << 21)
    };
    let values: Vec<i32> = (0..n_rows * 8).map(|_| next()).collect();
    let block = Block::from_rows(0, 8, &values, keys(n_rows)).unwrap();
    let centroids = Centroids::new(8, [&values[..64], &values[..64]].concat());
    for backend in backends() {
        let partials = backend
            .pass(&block, std::slice::from_ref(&centroids), None)
            .unwrap();
        assert!(
            partials[0].n_rechecked < n_rows as u64 / 1_000,
            "{} rows",
            partials[0].n_rechecked
        );
        assert_eq!(
            partials[0].counts[8..],
            [0; 8],
            "ties go to the first of the twins"
        );
    }
}

#[test]
fn moved_rows_are_counted_only_when_labels_are_kept() {
    let block = Block::from_rows(0, 1, &[0, 1, 9, 10], keys(4)).unwrap();
    let backend = CpuBackend::new();
    let mut kept = BlockLabels::default();
    let mut moved = |values: &[i32]| {
        let candidate = Centroids::new(1, values.to_vec());
        backend.pass(&block, &[candidate], Some(&mut kept)).unwrap()[0].n_moved
    };
    assert_eq!(moved(&[0, 10]), Some(4), "no labels from before");
    assert_eq!(moved(&[0, 10]), Some(0));
    assert_eq!(moved(&[0, 1]), Some(1));
    assert_eq!(
        backend
            .pass(&block, &[Centroids::new(1, vec![0])], None)
            .unwrap()[0]
            .n_moved,
        None
    );
}

#[test]
fn sixty_five_thousand_centroids_and_four_thousand_features_are_within_reach() {
    let many = Centroids::new(1, (0..65_535).map(|c| c * 3 - 100_000).collect());
    let rows: Vec<i32> = (0..40).map(|i| i * 5_003 - 99_000).collect();
    let block = Block::from_rows(0, 1, &rows, keys(40)).unwrap();
    let wide_rows: Vec<i32> = (0..20 * 4_096)
        .map(|i: i32| EDGE - i % 3 * (i % 97))
        .collect();
    let wide = Block::from_rows(0, 4_096, &wide_rows, keys(20)).unwrap();
    let wide_centroids = Centroids::new(4_096, wide_rows[..9 * 4_096].to_vec());
    for backend in backends() {
        for (block, centroids) in [(&block, &many), (&wide, &wide_centroids)] {
            let mut labels = Vec::new();
            backend.labels(block, centroids, &mut labels);
            let mut row = vec![0; block.n_features()];
            for (row_idx, label) in labels.into_iter().enumerate() {
                block.read_row(row_idx, &mut row);
                assert_eq!(
                    label,
                    exact::nearest(&row, centroids).0,
                    "{}",
                    backend.name()
                );
            }
        }
    }
}
