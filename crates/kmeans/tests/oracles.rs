//! Numbers from outside: worked by hand, or the best known of scikit-learn's data sets.
//!
//! "Best known" is the least inertia of more than 200 starts of scikit-learn 1.9 (`tests/data/make.py` writes the rows).

mod common;

use clientele_kmeans::cpu::CpuBackend;
use clientele_kmeans::{Centroids, GRID_LIMIT};
use common::{Data, keys};

/// Rows as they come, or each column less its mean and by its standard deviation (ddof 0).
#[derive(Clone, Copy, PartialEq)]
enum Scale {
    Raw,
    ZScore,
}

fn read_csv(text: &str, scale: Scale) -> Vec<Vec<f64>> {
    let parse = |line: &str| line.split(',').map(|cell| cell.parse().unwrap()).collect();
    let mut rows: Vec<Vec<f64>> = text.lines().map(parse).collect();
    if scale == Scale::ZScore {
        let n_rows = rows.len() as f64;
        for feature_idx in 0..rows[0].len() {
            let mean = rows.iter().map(|row| row[feature_idx]).sum::<f64>() / n_rows;
            let variance = rows
                .iter()
                .map(|row| (row[feature_idx] - mean).powi(2))
                .sum::<f64>()
                / n_rows;
            rows.iter_mut()
                .for_each(|row| row[feature_idx] = (row[feature_idx] - mean) / variance.sqrt());
        }
    }
    rows
}

/// One power-of-two step for all features, each feature's offset the multiple of it nearest to its midrange.
fn to_grid(rows: &[Vec<f64>]) -> (Vec<i32>, f64) {
    let column = |feature_idx: usize| rows.iter().map(move |row| row[feature_idx]);
    let ranges: Vec<(f64, f64)> = (0..rows[0].len())
        .map(|f| {
            (
                column(f).fold(f64::MAX, f64::min),
                column(f).fold(f64::MIN, f64::max),
            )
        })
        .collect();
    let half_range = ranges
        .iter()
        .map(|(low, high)| (high - low) / 2.0)
        .fold(0.0, f64::max);
    let mut step = 1.0f64;
    let fits = |step: f64| half_range / step < f64::from(GRID_LIMIT - 2);
    while !fits(step) {
        step *= 2.0;
    }
    while fits(step / 2.0) {
        step /= 2.0;
    }
    let to_grid = |x: f64, (low, high): (f64, f64)| {
        let offset = ((low + high) / 2.0 / step).round() * step;
        ((x - offset) / step).round_ties_even() as i32
    };
    let values = rows.iter().flat_map(|row| {
        row.iter()
            .zip(&ranges)
            .map(|(&x, &range)| to_grid(x, range))
    });
    (values.collect(), step)
}

fn check(text: &str, scale: Scale, k: usize, best_known: f64) {
    let rows = read_csv(text, scale);
    let (values, step) = to_grid(&rows);
    let data = Data::new(rows[0].len(), &values, &keys(rows.len()), 1_000);
    for seed in 1..=5 {
        let inertia = data.best_inertia(k, 8, seed, 10) as f64 * step * step;
        // The best of 200 starts is not proven best: for digits the search finds 1165114.394, 1.1e-5 below.
        let excess = inertia / best_known - 1.0;
        assert!(
            (-2e-5..1e-5).contains(&excess),
            "k={k}, seed={seed}: inertia {inertia}, best known {best_known}"
        );
    }
}

const IRIS: &str = include_str!("data/iris.csv");
const WINE: &str = include_str!("data/wine.csv");
const BREAST_CANCER: &str = include_str!("data/breast_cancer.csv");
const DIGITS: &str = include_str!("data/digits.csv");

#[test]
fn iris_reaches_the_best_known_inertia_for_every_k() {
    let best_known = [
        152.347952, 78.851441, 57.228473, 46.446182, 39.039987, 34.298230,
    ];
    for (k, best_known) in (2..).zip(best_known) {
        check(IRIS, Scale::Raw, k, best_known);
    }
}

#[test]
fn wine_reaches_the_best_known_inertia_raw_and_scaled() {
    check(WINE, Scale::Raw, 3, 2_370_689.686783);
    check(WINE, Scale::ZScore, 3, 1_277.928489);
}

#[test]
fn breast_cancer_reaches_the_best_known_inertia() {
    check(BREAST_CANCER, Scale::ZScore, 2, 11_595.461474);
}

#[test]
fn digits_reach_the_best_known_inertia() {
    check(DIGITS, Scale::Raw, 10, 1_165_127.462);
}

#[test]
fn weighted_points_worked_by_hand() {
    // (0,0) x3, (.5,0), (.5,1), (1,1) x3 from (0,0) and (1,1): centres (.125,0) and (.875,1), inertia .375, 2 iterations.
    // In grid steps of 1/8.
    let values = [0, 0, 0, 0, 0, 0, 4, 0, 4, 8, 8, 8, 8, 8, 8, 8];
    let data = Data::new(2, &values, &keys(8), 3);
    let (fit, inertia, _) = data.fit(
        &CpuBackend::new(),
        Centroids::new(2, vec![0, 0, 8, 8]),
        0,
        100,
    );
    assert_eq!(fit.centroids().values(), [1, 0, 7, 8]);
    assert_eq!((inertia, fit.n_iter()), (24, 2));
}

#[test]
fn empty_clusters_take_the_rows_that_scikit_learn_and_one_dal_take() {
    // -10 -9.5 -9 -8.5 -8 -1 1 9 9.5 10, three centres at -10: after relocation -4.5, 10, 9.5. In grid steps of 1/8.
    let values: Vec<i32> = [-20, -19, -18, -17, -16, -2, 2, 18, 19, 20]
        .map(|half: i32| half * 4)
        .to_vec();
    let data = Data::new(1, &values, &keys(10), 4);
    let (fit, _, _) = data.fit(&CpuBackend::new(), Centroids::new(1, vec![-80; 3]), 0, 1);
    assert_eq!(fit.centroids().values(), [-36, 80, 76]);
    assert_eq!(fit.n_relocated(), 2);
}
