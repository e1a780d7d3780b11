//! The device against the definition, by equality.

use crate::problem::{Problem, Values, open};
use clientele_gpu::{GpuBackend, OpenOptions};
use clientele_kmeans::{Backend, Block, BlockLabels, Centroids};

fn check(gpu: &GpuBackend, values: Values, n_rows: usize, n_features: usize, n_clusters: &[usize]) {
    let what = format!("{values:?} {n_rows} x {n_features}, k = {n_clusters:?}");
    match Problem::new(values, n_rows, n_features, n_clusters).compare(gpu, None) {
        Ok(share) => println!("{what}: {:.4} % settled exactly", share * 100.0),
        Err(difference) => panic!("{what}: {difference}"),
    }
}

#[test]
fn every_shape_gives_the_integers_of_the_definition() {
    let Some(gpu) = open(OpenOptions::default()) else {
        return;
    };
    let shapes: [(usize, usize, &[usize]); 24] = [
        (1, 1, &[1]),
        (1, 64, &[2, 7]),
        (2, 3, &[2]),
        (15, 3, &[1, 2, 7]),
        (16, 17, &[7]),
        (17, 1, &[1, 2, 64]),
        (17, 130, &[300]),
        (63, 3, &[2, 3, 4, 5, 6, 7, 8]),
        (255, 17, &[2, 9]),
        (256, 4, &[8, 16]),
        (257, 64, &[7, 64]),
        (257, 300, &[2, 17]),
        (511, 3, &[256, 257]),
        (512, 32, &[8]),
        (513, 32, &[8, 9]),
        (1_000, 1_000, &[3, 70]),
        (1_023, 2, &[1_000]),
        (1_025, 130, &[64, 300]),
        (2_000, 64, &[64, 65, 1_000]),
        (4_096, 300, &[7]),
        (33, 4_096, &[2, 40]),
        (65_535, 3, &[2, 64]),
        (65_536, 1, &[1, 2, 7]),
        (65_536, 17, &[2, 3, 4, 5, 6, 7, 8, 300]),
    ];
    for (n_rows, n_features, n_clusters) in shapes {
        check(&gpu, Values::Blobs, n_rows, n_features, n_clusters);
    }
}

#[test]
fn data_made_to_mislead_gives_the_integers_of_the_definition() {
    let Some(gpu) = open(OpenOptions::default()) else {
        return;
    };
    use Values::{Constant, Duplicates, Extremes, NearTies, Ties};
    for values in [Ties, NearTies, Constant, Extremes, Duplicates] {
        for (n_rows, n_features) in [(1_000, 1), (1_025, 3), (3_000, 17), (600, 130)] {
            check(&gpu, values, n_rows, n_features, &[1, 2, 7, 64, 300]);
        }
    }
    // So many uncertain rows that the list takes a second trip.
    check(&gpu, Ties, 65_536, 2, &[8, 9]);
    // The sum of a whole block at the edge of the grid needs 39 bits.
    check(&gpu, Extremes, 65_536, 1, &[2]);
}

#[test]
fn a_model_with_more_rounds_of_loops_than_software_devices_make_is_right_as_well() {
    let Some(gpu) = open(OpenOptions::default()) else {
        return;
    };
    check(&gpu, Values::Blobs, 64, 4_096, &[2, 136]);
}

#[test]
fn a_flipped_label_is_noticed() {
    let Some(gpu) = open(OpenOptions::default()) else {
        return;
    };
    let problem = Problem::new(Values::Blobs, 1_025, 17, &[3, 8]);
    assert!(problem.compare(&gpu, None).is_ok());
    let complaint = problem.compare(&gpu, Some(1_024)).unwrap_err();
    assert_eq!(complaint, "candidate 0: counts, sums, labels differ");
}

#[test]
fn few_rows_of_overlapping_groups_are_uncertain() {
    let Some(gpu) = open(OpenOptions::default()) else {
        return;
    };
    let problem = Problem::new(Values::Blobs, 20_000, 32, &[2, 5, 8]);
    let share = problem.compare(&gpu, None).unwrap();
    assert!(share < 0.01, "{share} of the rows were settled exactly");
}

#[test]
fn work_cut_into_many_pieces_gives_the_same_answer_as_in_one() {
    let n_clusters = [1, 2, 7, 64, 300, 8, 9];
    let problem = Problem::new(Values::Blobs, 3_000, 33, &n_clusters);
    // 64 KiB: rows in six pieces, candidates in ones and twos. 1 byte: the finest cut there is.
    for binding_limit_bytes in [None, Some(1 << 16), Some(1)] {
        let Some(gpu) = open(OpenOptions {
            binding_limit_bytes,
            ..OpenOptions::default()
        }) else {
            return;
        };
        problem.compare(&gpu, None).unwrap();
    }
}

#[test]
fn checked_shaders_give_the_same_answer() {
    let Some(gpu) = open(OpenOptions {
        checked_shaders: true,
        ..OpenOptions::default()
    }) else {
        return;
    };
    check(&gpu, Values::Blobs, 1_025, 17, &[1, 2, 7, 64, 300]);
    check(&gpu, Values::Ties, 777, 3, &[8, 1_000]);
}

#[test]
fn moved_rows_are_counted_only_when_labels_are_kept() {
    let Some(gpu) = open(OpenOptions::default()) else {
        return;
    };
    let problem = Problem::new(Values::Blobs, 500, 3, &[4, 6]);
    let (block, candidates) = (&problem.block, &problem.candidates);
    let mut labels = BlockLabels::default();
    let first = gpu.pass(block, candidates, Some(&mut labels)).unwrap();
    assert_eq!(first[1].n_moved, Some(500));
    labels.by_candidate[1][17] ^= 1;
    labels.by_candidate[1][499] ^= 1;
    let second = gpu.pass(block, candidates, Some(&mut labels)).unwrap();
    assert_eq!((second[0].n_moved, second[1].n_moved), (Some(0), Some(2)));
    let without = gpu.pass(block, candidates, None).unwrap();
    assert_eq!(without[0].n_moved, None);
    assert_eq!(without[0].sums, second[0].sums);
}

#[test]
fn no_rows_and_no_candidates_end_well() {
    let Some(gpu) = open(OpenOptions::default()) else {
        return;
    };
    let empty = Block::from_rows(0, 3, &[], Vec::new()).unwrap();
    let centroids = Centroids::new(3, vec![1, 2, 3, 1, 2, 3]);
    let mut labels = BlockLabels::default();
    let partials = gpu.pass(&empty, &[centroids], Some(&mut labels)).unwrap();
    assert_eq!((partials[0].counts.len(), partials[0].sums.len()), (2, 6));
    assert_eq!((partials[0].n_rows(), partials[0].n_moved), (0, Some(0)));
    let block = Block::from_rows(0, 1, &[5], vec![0]).unwrap();
    assert_eq!(gpu.pass(&block, &[], None), Ok(Vec::new()));
}

#[test]
fn threads_share_a_device_and_each_gets_its_own_answer() {
    let Some(gpu) = open(OpenOptions::default()) else {
        return;
    };
    std::thread::scope(|scope| {
        for n_features in [1, 2, 3, 5, 8, 13] {
            let gpu = &gpu;
            scope.spawn(move || {
                for n_rows in [100, 1_000, 300] {
                    check(gpu, Values::Blobs, n_rows, n_features, &[2, 5]);
                }
            });
        }
    });
}
