//! How far off scores may be, and that it shows when a bound is too small.

use super::super::centroids::{PackedCentroids, PanelWidths};
use super::super::lanes::Scalar;
use super::super::shorts::PlainShorts;
use super::super::{BlockMemory, CpuBackend, Kernel};
use super::*;
use crate::{Backend, Block, GRID_LIMIT};

const WIDTHS: PanelWidths = PanelWidths {
    floats: 8,
    shorts: Some(8),
};

/// `rows` cut in two, and `centroids` with what scores them.
fn problem(n_features: usize, rows: &[i32], centroids: &[i32]) -> (Block, PackedCentroids) {
    let keys = (0..(rows.len() / n_features) as u64).collect();
    let block = Block::from_rows(0, n_features, rows, keys).unwrap();
    let centroids = Centroids::new(n_features, centroids.to_vec());
    (block.into_split(), PackedCentroids::new(&centroids, WIDTHS))
}

/// What is found in the rows of a tile, if they are short enough.
fn found<'a>(
    split: &'a Split,
    tile_idx: usize,
    shorts: &'a ShortCentroids,
) -> Option<FoundShort<'a, PlainShorts<Scalar>>> {
    let short_rows = split.short_rows();
    let (norm, pairs) = (short_rows.norm(tile_idx)?, short_rows.pairs(tile_idx));
    // SAFETY: `Scalar` needs no more than the processor that the crate is compiled for.
    let best: BestShort<PlainShorts<Scalar>, 1> = unsafe { score_short(&[pairs], shorts, &[]) };
    Some(best.of_tile(0, pairs, shorts, norm))
}

/// The largest error there is among the scores of `rows`, as a share of what it may be; and the share of tiles that are scored.
fn worst_error(n_features: usize, rows: &[i32], centroids: &[i32]) -> (f64, f64) {
    let (block, packed) = problem(n_features, rows, centroids);
    let split = block.split().unwrap();
    let shorts = ShortCentroids::new(packed.distinct(), split, 8);
    let n_tiles = block.tile_norms().len();
    let (mut worst, mut n_scored) = (0f64, 0.0);
    for tile_idx in 0..n_tiles {
        let Some(found) = found(split, tile_idx, &shorts) else {
            continue;
        };
        n_scored += 1.0;
        let mut scores = [0; LANES];
        // SAFETY: as above.
        unsafe { found.score.store(&mut scores) };
        let rows = rows.chunks(n_features).skip(tile_idx * LANES);
        for (row, score) in rows.zip(scores) {
            let idx = (score & shorts.idx_mask) as usize;
            let (mut square, mut product) = (0i64, 0i64);
            let centroid = packed.distinct().row(idx).iter().zip(split.origin());
            for ((&c, &o), &x) in centroid.zip(row) {
                let (c, x) = (i64::from(c - o), i64::from(x - o));
                (square, product) = (square + c * c, product + c * x);
            }
            let exact = (square as f64 / 2.0 - product as f64) / shorts.per_unit;
            let error = (f64::from(score) - exact).abs() - f64::from(shorts.idx_mask);
            worst = worst.max(error / shorts.error(found.row_norm));
        }
    }
    (worst, n_scored / n_tiles as f64)
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
    let widths = |limit| match limit {
        // More features at the edges of the grid are too long for 16 bits.
        GRID_LIMIT => &[2, 3][..],
        _ => &[2, 7, 32, 150],
    };
    for limit in [30, 40_000, 900_000, GRID_LIMIT] {
        for &n_features in widths(limit) {
            let rows: Vec<i32> = (0..64 * n_features).map(|_| next(limit)).collect();
            let centroids: Vec<i32> = (0..19 * n_features).map(|_| next(limit)).collect();
            let (worst, scored) = worst_error(n_features, &rows, &centroids);
            assert!(worst <= 1.0, "limit={limit} d={n_features}: {worst}");
            assert!(scored >= 0.75, "limit={limit} d={n_features}: {scored}");
        }
    }
}

#[test]
fn centroids_far_from_all_rows_are_no_further_off() {
    let rows: Vec<i32> = (0..64 * 5).map(|i| i * 7_919 % 1_001 - 500).collect();
    for far in [100_000, 1_000_000, GRID_LIMIT - 1] {
        let centroids: Vec<i32> = (0..9 * 5)
            .map(|i| if i % 4 == 0 { far } else { -far + i })
            .collect();
        let (worst, scored) = worst_error(5, &rows, &centroids);
        assert!(worst <= 1.0 && scored == 1.0, "{far}: {worst} {scored}");
    }
}

#[test]
fn rows_whose_roundings_all_point_one_way_come_near_the_bound() {
    // A shift of 6, an origin of 0, and rows that are all rounded down by 31 of 64.
    let row = |i: i32| (if i % 2 == 0 { 15_000 } else { -15_000 } - i32::from(i < 31)) * 64 + 31;
    let rows: Vec<i32> = (0..64).flat_map(|i| [row(i); 4]).collect();
    let centroids: Vec<i32> = (0..6).flat_map(|c| [900_000 + 50_000 * c; 4]).collect();
    let (block, _) = problem(4, &rows, &centroids);
    let split = block.split().unwrap();
    assert_eq!((split.origin(), split.tile(0).shift), (&[0; 4][..], 6));
    let (worst, _) = worst_error(4, &rows, &centroids);
    assert!((0.2..=1.0).contains(&worst), "{worst}");
}

/// 2,000 rows half-way between two of twelve centroids, a few steps nearer to one; nothing is further out than 450,000 times `reach`.
fn half_way_rows(reach: i32) -> (Block, PackedCentroids) {
    let centroids: Vec<i32> = (0..4 * 12)
        .map(|i| (i * i * 7_919 % 900_001 - 450_000) * reach)
        .collect();
    let of = |idx: i32, f: i32| centroids[(idx % 12 * 4 + f) as usize];
    let rows: Vec<i32> = (0..4 * 2_000)
        .map(|i| (i / 4, i % 4))
        .map(|(row, f)| (of(row, f) + of(row + 1 + row % 5, f)) / 2 + row % 7 - 3)
        .collect();
    problem(4, &rows, &centroids)
}

#[test]
fn rows_in_doubt_are_settled_whatever_tiles_they_are_from() {
    settle_half_way_rows(1);
}

#[test]
fn rows_in_doubt_at_the_edge_of_the_grid_are_settled() {
    // There `f32` rounds more than they differ by.
    settle_half_way_rows(9);
}

fn settle_half_way_rows(reach: i32) {
    let (block, packed) = half_way_rows(reach);
    let split = block.split().unwrap();
    let shorts = ShortCentroids::new(packed.distinct(), split, 8);
    let n_in_doubt = (0..block.tile_norms().len()).map(|tile_idx| {
        let found = found(split, tile_idx, &shorts).unwrap();
        // SAFETY: as above.
        unsafe { found.labels(&packed.of_tiles, 0.0) }
            .1
            .count_ones()
    });
    let per_tile: Vec<u32> = n_in_doubt.collect();
    assert!(per_tile.iter().sum::<u32>() as usize > 20 * LANES);
    assert!(per_tile.iter().any(|n| n % LANES as u32 != 0));
    let scalar = CpuBackend::with_kernel(Kernel::Scalar).unwrap();
    for backend in Kernel::available()
        .into_iter()
        .filter_map(CpuBackend::with_kernel)
    {
        let mut travel = backend.travel(packed.distinct().clone());
        let mut memory = BlockMemory::default();
        let mut n_moved = 0;
        for pass in 0..12 {
            let centroids = travel.centroids().clone();
            let (partial, _) = backend
                .pass_remembering(&block, &mut [(&travel, &mut memory)])
                .remove(0);
            let plain = scalar
                .pass(&block, std::slice::from_ref(&centroids), None)
                .unwrap();
            assert_eq!(
                partial.sums,
                plain[0].sums,
                "{:?} pass {pass}",
                backend.kernel()
            );
            let mut expected = Vec::new();
            scalar.labels(&block, &centroids, &mut expected);
            assert!(memory.labels(block.n_rows()) == Some(&expected[..]));
            n_moved += if pass > 0 {
                partial.n_moved.unwrap()
            } else {
                0
            };
            // A step or two: enough for rows that are half-way.
            let values = centroids.values().iter().enumerate();
            let values = values.map(|(i, v)| v + (i as i32 * 5 + pass) % 5 - 2);
            travel.advance(&Centroids::new(4, values.collect()), pass > 2);
        }
        assert!(n_moved > 1_000, "{n_moved}");
    }
}

#[test]
fn a_gap_that_is_too_small_is_noticed() {
    let (block, packed) = half_way_rows(1);
    let mut expected = Vec::new();
    let scalar = CpuBackend::with_kernel(Kernel::Scalar).unwrap();
    scalar.labels(&block, packed.distinct(), &mut expected);
    let split = block.split().unwrap();
    let mut shorts = ShortCentroids::new(packed.distinct(), split, 8);
    let n_wrong = |shorts: &ShortCentroids| {
        let mut n_wrong = 0;
        for (tile_idx, expected) in expected.chunks(LANES).enumerate() {
            let found = found(split, tile_idx, shorts).unwrap();
            // SAFETY: as above.
            let (labels, uncertain) = unsafe { found.labels(&packed.of_tiles, 0.0) };
            for (lane, &expected) in expected.iter().enumerate() {
                let is_certain = (uncertain >> lane) & 1 == 0;
                n_wrong += usize::from(is_certain && labels[lane] != expected);
            }
        }
        n_wrong
    };
    assert_eq!(n_wrong(&shorts), 0);
    shorts.gap = [0.0; 2];
    assert!(n_wrong(&shorts) > 0, "the comparison must be able to fail");
}
