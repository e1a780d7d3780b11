//! How far off scores may be, and that it shows when a bound is too small.

use super::super::assign::{Assignment, Wanted};
use super::super::centroids::PanelWidths;
use super::super::lanes::Scalar;
use super::super::shorts::PlainShorts;
use super::super::{CpuBackend, Kernel};
use super::*;
use crate::{Block, GRID_LIMIT};

const WIDTHS: PanelWidths = PanelWidths {
    floats: 8,
    shorts: Some(8),
};

/// The largest error there is among the scores of `rows`, as a share of what it may be.
fn worst_error(n_features: usize, rows: &[i32], centroids: &[i32]) -> f64 {
    let n_rows = rows.len() / n_features;
    let keys = (0..n_rows as u64).collect();
    let block = Block::from_rows(0, n_features, rows, keys).unwrap();
    let centroids = Centroids::new(n_features, centroids.to_vec());
    let packed = PackedCentroids::new(&centroids, WIDTHS);
    let shorts = packed.shorts.as_ref().unwrap();
    let mut rounded = Vec::new();
    let mut worst = 0f64;
    for (tile_idx, norm) in block.tile_norms().iter().enumerate() {
        let scale = shorts.scale(*norm);
        // SAFETY: `Scalar` needs no more than the processor that the crate is compiled for.
        let found = unsafe {
            round_rows::<PlainShorts<Scalar>, 1>(&[block.tile(tile_idx)], &[scale], &mut rounded);
            let best: BestShort<PlainShorts<Scalar>, 1> =
                score_short(&rounded, &[scale], shorts, &[]);
            best.of_tile(0, shorts, scale)
        };
        let mut scores = [0; LANES];
        // SAFETY: as above.
        unsafe { found.score.store(&mut scores) };
        for (row, score) in rows.chunks(n_features).skip(tile_idx * LANES).zip(scores) {
            let idx = (score & shorts.idx_mask) as usize;
            let (square, product) = packed.distinct().row(idx).iter().zip(row).fold(
                (0i64, 0i64),
                |(square, product), (&c, &x)| {
                    let (c, x) = (i64::from(c), i64::from(x));
                    (square + c * c, product + c * x)
                },
            );
            let per_unit = shorts.factor * f64::from(scale.of_rows());
            let exact = (square as f64 / 2.0 - product as f64) * per_unit;
            let error = (f64::from(score) - exact).abs() - f64::from(shorts.idx_mask);
            worst = worst.max(error / shorts.error(scale));
        }
    }
    worst
}

#[test]
fn no_score_is_further_off_than_the_bound_says() {
    let mut state = 7u64;
    let mut next = |limit: i32| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(3);
        ((state >> 33) % (2 * limit as u64 - 1)) as i32 - limit + 1
    };
    for limit in [30, 40_000, 900_000, GRID_LIMIT] {
        for n_features in [1, 2, 7, 32, MAX_FEATURES] {
            let rows: Vec<i32> = (0..64 * n_features).map(|_| next(limit)).collect();
            let centroids: Vec<i32> = (0..19 * n_features).map(|_| next(limit)).collect();
            let worst = worst_error(n_features, &rows, &centroids);
            assert!(worst <= 1.0, "limit={limit} d={n_features}: {worst}");
        }
    }
}

#[test]
fn rows_whose_roundings_all_point_one_way_come_near_the_bound() {
    // A scale of 2^-6, and rows that are rounded by 31 of 64 each, all down.
    let n_features = 4;
    let rows: Vec<i32> = (0..64 * n_features)
        .map(|i| (15_000 - i % 7) * 64 + 31)
        .collect();
    let centroids: Vec<i32> = (0..6).flat_map(|c| [900_000 + 50_000 * c; 4]).collect();
    let worst = worst_error(n_features as usize, &rows, &centroids);
    assert!((0.2..=1.0).contains(&worst), "{worst}");
}

#[test]
fn a_gap_that_is_too_small_is_noticed() {
    let Some(backend) = Kernel::available()
        .into_iter()
        .find(|kernel| kernel.panel_widths().shorts.is_some())
        .and_then(CpuBackend::with_kernel)
    else {
        return eprintln!("not checked: this processor has no kernel with 16-bit products");
    };
    // On a coarse lattice, many rows are nearly as near to one centroid as to another.
    let values: Vec<i32> = (0..20_000i32)
        .map(|i| (i * 7_919 + i / 7 * 104_729) % 9 * 100_003 + i % 2)
        .collect();
    let block = Block::from_rows(0, 4, &values, (0..5_000).collect()).unwrap();
    let centroids = Centroids::new(4, values[..4 * 12].to_vec());
    let mut expected = Vec::new();
    let scalar = CpuBackend::with_kernel(Kernel::Scalar).unwrap();
    scalar.labels(&block, &centroids, &mut expected);
    let n_wrong = |packed: &PackedCentroids| {
        let mut labels = vec![0; block.n_rows()];
        let assignment = Assignment::new(packed, Wanted::Labels(&mut labels));
        backend.sweep(&block, &mut [assignment]);
        labels.iter().zip(&expected).filter(|(a, b)| a != b).count()
    };
    let mut packed = PackedCentroids::new(&centroids, WIDTHS);
    assert_eq!(n_wrong(&packed), 0);
    let shorts = packed.shorts.as_mut().unwrap();
    (shorts.half, shorts.least_error) = (0.0, 0.0);
    assert!(n_wrong(&packed) > 0, "the comparison must be able to fail");
}
