//! Passes over many blocks, rows that stay on the device, and what becomes of them.

use std::collections::BTreeSet;

use crate::problem::{Problem, Values, open, shared};
use clientele_gpu::{Fault, GpuBackend, OpenOptions};
use clientele_kmeans::cpu::CpuBackend;
use clientele_kmeans::{Backend, BackendError, Block, Centroids, Partial};

/// Blocks of `n_rows` each and candidates for all of them.
struct Table {
    blocks: Vec<Block>,
    candidates: Vec<Centroids>,
}

impl Table {
    fn new(values: Values, n_rows: &[usize], n_features: usize, n_clusters: &[usize]) -> Self {
        let candidates = Problem::new(values, 1, n_features, n_clusters).candidates;
        let block = |&n: &usize| Problem::new(values, n, n_features, &[]).block;
        Self {
            blocks: n_rows.iter().map(block).collect(),
            candidates,
        }
    }

    /// Merged over all blocks, by the CPU.
    fn expected(&self) -> Vec<Partial> {
        let cpu = CpuBackend::new();
        let zero = |c: &Centroids| Partial::zero(c.n_clusters(), c.n_features());
        let mut merged: Vec<Partial> = self.candidates.iter().map(zero).collect();
        for block in &self.blocks {
            let partials = cpu.pass(block, &self.candidates, None).unwrap();
            merged
                .iter_mut()
                .zip(&partials)
                .for_each(|(sum, part)| sum.merge(part));
        }
        merged
    }

    fn on(&self, gpu: &GpuBackend) -> Result<Vec<Partial>, BackendError> {
        let mut pass = gpu.begin(&self.candidates)?;
        for block in &self.blocks {
            pass.add(block)?;
        }
        pass.finish()
    }

    /// Share of rows that were settled exactly.
    fn check(&self, gpu: &GpuBackend) -> f64 {
        let (got, expected) = (self.on(gpu).unwrap(), self.expected());
        assert_eq!(got.len(), expected.len());
        for (idx, (got, expected)) in got.iter().zip(&expected).enumerate() {
            assert_eq!(got.counts, expected.counts, "candidate {idx}");
            assert_eq!(got.sums, expected.sums, "candidate {idx}");
            assert_eq!(got.n_moved, None);
        }
        let n_rechecked: u64 = got.iter().map(|p| p.n_rechecked).sum();
        n_rechecked as f64 / got.iter().map(Partial::n_rows).sum::<u64>().max(1) as f64
    }

    fn serials(&self) -> BTreeSet<u64> {
        self.blocks.iter().map(Block::serial).collect()
    }
}

#[test]
fn many_blocks_and_many_candidates_merge_on_the_device() {
    // Its own: other tests use rows that this one makes it forget.
    let Some(gpu) = &open(OpenOptions::default()) else {
        return;
    };
    // A sweep as people run it, on blocks of all lengths.
    let sweep: Vec<usize> = (2..=12).flat_map(|k| [k; 2]).collect();
    Table::new(Values::Blobs, &[4_000, 1, 513, 0, 16, 2_047], 12, &sweep).check(gpu);
    Table::new(Values::Blobs, &[300, 255, 257, 256], 48, &[1, 255, 300, 9]).check(gpu);
    Table::new(Values::Blobs, &[300, 600], 100, &[1, 40, 300, 9, 4]).check(gpu);
    // 41 bits and a sign.
    Table::new(Values::Extremes, &[65_536; 5], 1, &[1, 2, 3]).check(gpu);
    // No candidates, and no blocks.
    assert_eq!(
        Table::new(Values::Blobs, &[100], 3, &[]).on(gpu),
        Ok(vec![])
    );
    assert_eq!(
        Table::new(Values::Blobs, &[], 3, &[2]).on(gpu).unwrap()[0].n_rows(),
        0
    );
    gpu.forget_all_but(&BTreeSet::new());
}

#[test]
fn resident_rows_serve_pass_after_pass_and_go_when_they_are_forgotten() {
    let Some(gpu) = open(OpenOptions::default()) else {
        return;
    };
    let mut table = Table::new(Values::Blobs, &[3_000, 700, 65_536, 1], 17, &[3, 9]);
    assert_eq!(gpu.resident_bytes(), 0);
    table.check(&gpu);
    let held = gpu.resident_bytes();
    assert!(held >= 4 * 17 * 69_237, "{held}");
    for n_clusters in [&[2][..], &[7, 40], &[300]] {
        table.candidates = Problem::new(Values::Duplicates, 1, 17, n_clusters).candidates;
        table.check(&gpu);
        assert_eq!(gpu.resident_bytes(), held, "nothing was brought over again");
    }
    // A pass of one block uses its resident rows, and gives labels.
    let problem = Problem {
        block: table.blocks[1].clone(),
        candidates: table.candidates.clone(),
    };
    problem.compare(&gpu, None).unwrap();
    // Other blocks come on top, also of another width.
    let other = Table::new(Values::Blobs, &[900, 100], 5, &[4]);
    other.check(&gpu);
    assert!(gpu.resident_bytes() > held);
    gpu.forget_all_but(&other.serials());
    other.check(&gpu);
    assert!(gpu.resident_bytes() > 0);
    gpu.forget_all_but(&BTreeSet::new());
    table.check(&gpu);
}

#[test]
fn rows_that_find_no_room_are_brought_over_in_each_pass() {
    let Some(gpu) = open(OpenOptions {
        resident_limit_bytes: Some(400_000),
        ..OpenOptions::default()
    }) else {
        return;
    };
    let table = Table::new(Values::Blobs, &[2_000, 3_000, 1_500, 4_000], 33, &[5, 8]);
    for _ in 0..3 {
        table.check(&gpu);
        assert!(gpu.resident_bytes() <= 400_000);
    }
    assert!(gpu.resident_bytes() > 0);
    gpu.set_resident_limit_bytes(0);
    gpu.forget_all_but(&BTreeSet::new());
    table.check(&gpu);
    assert_eq!(gpu.resident_bytes(), 0);
}

#[test]
fn more_uncertain_rows_than_the_list_has_room_for_are_settled_all_the_same() {
    // 64 KiB of list: a fraction of what these rows fill. Blocks that stay, then the same that do not.
    for resident_limit_bytes in [None, Some(0)] {
        let Some(gpu) = open(OpenOptions {
            binding_limit_bytes: Some(1 << 16),
            resident_limit_bytes,
            ..OpenOptions::default()
        }) else {
            return;
        };
        let n_clusters = [8, 3, 2, 5];
        let table = Table::new(Values::Ties, &[4_000, 3_000, 4_000, 700], 2, &n_clusters);
        let share = table.check(&gpu);
        assert!(share > 0.1, "{share}");
        table.check(&gpu);
        Table::new(Values::Constant, &[3_000, 600], 70, &[2, 40]).check(&gpu);
        Table::new(Values::Ties, &[2_000], 40, &[300, 2]).check(&gpu);
    }
}

#[test]
fn passes_side_by_side_keep_their_sums_apart() {
    // Its own: other tests use rows that this one makes it forget.
    let Some(gpu) = &open(OpenOptions::default()) else {
        return;
    };
    let tables: Vec<Table> = [(2, 3), (4, 5), (20, 7), (40, 2)]
        .map(|(n_features, k)| Table::new(Values::Blobs, &[700, 5_000, 90], n_features, &[k, 9]))
        .into();
    std::thread::scope(|scope| {
        for table in &tables {
            scope.spawn(move || {
                for _ in 0..3 {
                    table.check(gpu);
                }
            });
        }
    });
    // Two in one thread, block by block in turn.
    let (a, b) = (&tables[0], &tables[2]);
    let (mut pass_a, mut pass_b) = (
        gpu.begin(&a.candidates).unwrap(),
        gpu.begin(&b.candidates).unwrap(),
    );
    for (block_a, block_b) in a.blocks.iter().zip(&b.blocks) {
        pass_a.add(block_a).unwrap();
        pass_b.add(block_b).unwrap();
    }
    let (got_b, got_a) = (pass_b.finish().unwrap(), pass_a.finish().unwrap());
    assert_eq!(got_a[1].sums, a.expected()[1].sums);
    assert_eq!(got_b[1].sums, b.expected()[1].sums);
    gpu.forget_all_but(&BTreeSet::new());
}

#[test]
fn a_pass_that_is_dropped_leaves_nothing_behind() {
    // Its own: other tests use rows that this one makes it forget.
    let Some(gpu) = &open(OpenOptions::default()) else {
        return;
    };
    let table = Table::new(Values::Blobs, &[2_000, 300], 6, &[4]);
    let mut pass = gpu.begin(&table.candidates).unwrap();
    pass.add(&table.blocks[0]).unwrap();
    drop(pass);
    table.check(gpu);
    gpu.forget_all_but(&BTreeSet::new());
}

#[test]
fn a_device_lost_in_mid_pass_spoils_the_pass_and_all_after_it() {
    let Some(gpu) = open(OpenOptions {
        fault: Some(Fault::LoseDeviceAfter { passes: 1 }),
        ..OpenOptions::default()
    }) else {
        return;
    };
    let table = Table::new(Values::Blobs, &[2_000, 300], 6, &[4, 2]);
    table.check(&gpu);
    for _ in 0..2 {
        let lost = table.on(&gpu);
        assert!(
            matches!(lost, Err(BackendError::DeviceLost { .. })),
            "{lost:?}"
        );
    }
    assert_eq!(gpu.faults_fired(), 1);
}

#[test]
fn a_device_that_has_little_memory_is_used_as_far_as_it_goes() {
    let Some(gpu) = open(OpenOptions {
        fault: Some(Fault::RefuseBuffersAbove { n_bytes: 3 << 20 }),
        ..OpenOptions::default()
    }) else {
        return;
    };
    let table = Table::new(Values::Blobs, &[20_000, 60_000, 20_000], 16, &[4, 2]);
    table.check(&gpu);
    assert!(gpu.faults_fired() > 0);
    table.check(&gpu);
}

#[test]
fn controls_are_measured() {
    let Some(gpu) = shared() else { return };
    let (bytes, multiply_adds) = (
        gpu.copy_bandwidth().unwrap(),
        gpu.multiply_add_peak().unwrap(),
    );
    println!(
        "{:.2} GB/s, {:.2} billion multiply-adds a second",
        bytes / 1e9,
        multiply_adds / 1e9
    );
    // Between a very slow CPU and no machine there is.
    assert!((1e7..1e15).contains(&bytes) && (1e6..1e16).contains(&multiply_adds));
    assert!(!gpu.is_software() || gpu.adapter().device_type == "software");
}

#[test]
fn every_permitted_adapter_is_opened_once() {
    if shared().is_none() {
        return;
    }
    let all = GpuBackend::open_all(&OpenOptions {
        allow_software: true,
        ..OpenOptions::default()
    })
    .unwrap();
    let table = Table::new(Values::Blobs, &[600, 70], 6, &[4, 2]);
    for gpu in &all {
        table.check(gpu);
    }
}
