//! Whole fits: the state machine over blocks equals the reference over rows, in thousands of tiny cases.

mod common;

use clientele_kmeans::cpu::{CpuBackend, Kernel};
use clientele_kmeans::lloyd::StopReason;
use clientele_kmeans::relocate::{FarRow, FarthestRows, drop_empty};
use clientele_kmeans::{Centroids, reference};
use common::{Data, keys};
use proptest::prelude::*;

/// Small numbers: ties, duplicates and empty clusters everywhere.
fn tiny() -> impl Strategy<Value = (usize, Vec<i32>, Vec<i32>)> {
    (1..4usize, 1..14usize, 1..7usize, 1..6i32).prop_flat_map(
        |(n_features, n_rows, n_clusters, spread)| {
            let values = prop::collection::vec(-spread..=spread, n_rows * n_features);
            let centroids = prop::collection::vec(-spread..=spread, n_clusters * n_features);
            (Just(n_features), values, centroids)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_fit_over_blocks_equals_the_reference(
        (n_features, values, initial) in tiny(),
        same_keys in any::<bool>(),
        threshold in 0..4u128,
    ) {
        let rows: Vec<Vec<i32>> = values.chunks(n_features).map(<[i32]>::to_vec).collect();
        let keys = if same_keys { vec![7; rows.len()] } else { keys(rows.len()) };
        let initial = Centroids::new(n_features, initial);
        let expected = reference::fit(&rows, &keys, &initial, threshold, 50);
        let data = Data::new(n_features, &values, &keys, 5);
        let (fit, inertia, reason) = data.fit(&CpuBackend::new(), initial, threshold, 50);
        prop_assert_eq!(fit.centroids().values(), expected.centroids.concat());
        prop_assert_eq!((inertia, fit.n_iter()), (expected.inertia, expected.n_iter));

        // At a fixed point every cluster is used, unless there are fewer distinct rows than clusters.
        let counts = data.pass(&CpuBackend::new(), fit.centroids()).counts;
        let (kept, _) = drop_empty(fit.centroids(), &counts);
        let mut distinct = rows.clone();
        distinct.sort();
        distinct.dedup();
        if reason == StopReason::Converged {
            prop_assert_eq!(kept.n_clusters(), distinct.len().min(counts.len()));
        }
    }

    #[test]
    fn far_rows_are_the_same_however_the_rows_are_cut(
        (n_features, values, centroids) in tiny(),
        block_rows in 1..9usize,
        limit in 1..7usize,
    ) {
        let n_rows = values.len() / n_features;
        let centroids = Centroids::new(n_features, centroids);
        let whole = Data::new(n_features, &values, &keys(n_rows), n_rows);
        let mut cut = Data::new(n_features, &values, &keys(n_rows), block_rows);
        cut.blocks.reverse();
        let backend = CpuBackend::new();
        prop_assert_eq!(cut.far_rows(&backend, &centroids, limit), whole.far_rows(&backend, &centroids, limit));
    }
}

#[test]
fn every_kernel_fits_to_the_same_bytes() {
    let values: Vec<i32> = (0..900)
        .map(|i: i32| i * i * 79 % 100_003 - 50_000)
        .collect();
    let data = Data::new(3, &values, &keys(300), 70);
    let initial = Centroids::new(3, values[..18].to_vec());
    let fits: Vec<Vec<i32>> = Kernel::available()
        .into_iter()
        .filter_map(CpuBackend::with_kernel)
        .map(|backend| {
            data.fit(&backend, initial.clone(), 0, 300)
                .0
                .centroids()
                .values()
                .to_vec()
        })
        .collect();
    assert!(fits.iter().all(|fit| *fit == fits[0]));
}

#[test]
fn one_row_and_constant_rows_end_well() {
    for n_rows in [1, 5] {
        let data = Data::new(2, &vec![3; 2 * n_rows], &keys(n_rows), 2);
        let (fit, inertia, reason) = data.fit(
            &CpuBackend::new(),
            Centroids::new(2, vec![3, 3, 3, 3, 9, 9]),
            0,
            100,
        );
        assert_eq!(
            (inertia, fit.n_iter(), reason),
            (0, 1, StopReason::Converged)
        );
    }
}

#[test]
fn rows_on_their_centroid_are_never_given_away() {
    let mut far = FarthestRows::new(3);
    for (d2, key) in [(0, 1), (4, 9), (4, 2)] {
        far.offer(FarRow {
            d2,
            key,
            donor: 0,
            row: &[key as i32],
        });
    }
    assert_eq!(far.rows().map(|far| far.key).collect::<Vec<_>>(), [2, 9]);
}

#[test]
fn max_iter_ends_a_fit_that_would_go_on() {
    let values: Vec<i32> = (0..100).map(|i| i * i).collect();
    let data = Data::new(1, &values, &keys(100), 33);
    let (fit, _, reason) = data.fit(&CpuBackend::new(), Centroids::new(1, vec![0, 1, 2]), 0, 2);
    assert_eq!((fit.n_iter(), reason), (2, StopReason::MaxIter));
}
