//! The device against the definition, by equality.

use crate::problem::{Problem, Values, open, shared};
use clientele_gpu::shaders::Flaw;
use clientele_gpu::{Fault, GpuBackend, OpenOptions};
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
    let Some(gpu) = shared() else { return };
    let shapes: [(usize, usize, &[usize]); 40] = [
        (1, 1, &[1, 2]),
        (15, 1, &[1, 7]),
        (17, 1, &[1, 2, 64]),
        (513, 1, &[9, 255, 300]),
        (65_536, 1, &[1, 2, 7]),
        (1_023, 2, &[1_000]),
        (1, 3, &[2, 9]),
        (15, 3, &[1, 2, 7]),
        (63, 3, &[2, 3, 4, 5, 6, 7, 8]),
        (511, 3, &[255, 256, 257]),
        (65_535, 3, &[2, 64]),
        (256, 4, &[8, 16]),
        (512, 8, &[8, 12, 227, 228]),
        (16, 17, &[7]),
        (17, 17, &[9, 300]),
        (255, 17, &[2, 9]),
        (513, 17, &[1, 255]),
        (65_536, 17, &[2, 3, 4, 5, 6, 7, 8, 300]),
        (4_000, 28, &[7, 13]),
        (1_025, 29, &[7, 13]),
        (512, 32, &[8]),
        (513, 32, &[8, 9]),
        (1, 63, &[2, 300]),
        (511, 63, &[7, 255]),
        (513, 63, &[1, 9]),
        (1, 64, &[2, 7]),
        (257, 64, &[7, 64]),
        (2_000, 64, &[64, 65, 1_000]),
        (65_536, 64, &[2, 9]),
        (15, 65, &[1, 7]),
        (511, 65, &[2, 255]),
        (513, 65, &[9, 300]),
        (17, 100, &[7, 9]),
        (1_025, 100, &[2, 300]),
        (17, 130, &[300]),
        (257, 300, &[2, 17]),
        (511, 300, &[1, 255]),
        (2_048, 300, &[7]),
        (1_000, 1_000, &[3, 70]),
        (33, 4_096, &[2, 40]),
    ];
    assert!(
        shapes
            .iter()
            .map(|(_, _, n_clusters)| n_clusters.len())
            .sum::<usize>()
            >= 90
    );
    for (n_rows, n_features, n_clusters) in shapes {
        check(gpu, Values::Blobs, n_rows, n_features, n_clusters);
    }
}

#[test]
fn data_made_to_mislead_gives_the_integers_of_the_definition() {
    let Some(gpu) = shared() else { return };
    use Values::{Constant, Duplicates, Extremes, NearTies, Ties};
    for values in [Ties, NearTies, Constant, Extremes, Duplicates] {
        for (n_rows, n_features) in [(1_000, 1), (1_025, 3), (3_000, 17), (600, 130)] {
            check(gpu, values, n_rows, n_features, &[1, 2, 7, 64, 300]);
        }
    }
    // So many uncertain rows that the list takes a second trip.
    check(gpu, Ties, 65_536, 2, &[8, 9]);
    // The sum of a whole block at the edge of the grid needs 39 bits.
    check(gpu, Extremes, 65_536, 1, &[2]);
}

#[test]
fn a_model_with_more_rounds_of_loops_than_software_devices_make_is_right_as_well() {
    let Some(gpu) = shared() else { return };
    check(gpu, Values::Blobs, 17, 4_096, &[2, 1_030]);
}

#[test]
fn a_flipped_label_is_noticed() {
    let Some(gpu) = shared() else { return };
    let problem = Problem::new(Values::Blobs, 1_025, 17, &[3, 8]);
    assert!(problem.compare(gpu, None).is_ok());
    let complaint = problem.compare(gpu, Some(1_024)).unwrap_err();
    assert_eq!(complaint, "candidate 0: counts, sums, labels differ");
}

#[test]
fn few_rows_of_overlapping_groups_are_uncertain() {
    let Some(gpu) = shared() else { return };
    let problem = Problem::new(Values::Blobs, 20_000, 32, &[2, 5, 8]);
    let share = problem.compare(gpu, None).unwrap();
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
    check(&gpu, Values::NearTies, 600, 40, &[2, 9]);
    check(&gpu, Values::Blobs, 600, 75, &[5, 64]);
}

#[test]
fn a_mistake_in_the_shaders_is_noticed() {
    // Doubts are many and real where scores agree in all but their last bits; sums need the high half where values are extreme.
    let misled = Problem::new(Values::NearTies, 5_000, 20, &[9, 40]);
    let large = Problem::new(Values::Extremes, 65_536, 1, &[2]);
    for (flaw, problem) in [(Flaw::NoDoubt, misled), (Flaw::NoCarry, large)] {
        let Some(gpu) = shared() else { return };
        problem.compare(gpu, None).unwrap();
        let Some(flawed) = open(OpenOptions {
            fault: Some(Fault::WrongShaders(flaw)),
            ..OpenOptions::default()
        }) else {
            return;
        };
        let complaint = problem.compare(&flawed, None);
        assert!(complaint.is_err(), "{flaw:?} went unnoticed");
        assert!(flawed.faults_fired() > 0);
    }
}

#[test]
fn moved_rows_are_counted_only_when_labels_are_kept() {
    let Some(gpu) = shared() else { return };
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
    let Some(gpu) = shared() else { return };
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
    let Some(gpu) = shared() else { return };
    std::thread::scope(|scope| {
        for n_features in [1, 2, 3, 5, 8, 13] {
            scope.spawn(move || {
                for n_rows in [100, 1_000, 300] {
                    check(gpu, Values::Blobs, n_rows, n_features, &[2, 5]);
                }
            });
        }
    });
}
