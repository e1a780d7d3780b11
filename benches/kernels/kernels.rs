//! The CPU kernels on one thread and one block of 65,536 rows, which stays in the caches: what the arithmetic costs, not the memory.
//!
//! `cargo bench --bench kernels` in the repository runs all; `-- pass/avx512` some; `-- --quick` less exactly. Every kernel must find
//! the scalar kernel's sums before it is timed, and the inertia is printed beside the shape.

use std::hint::black_box;
use std::slice::from_ref;

use clientele_kernels::{block, centroids};
use clientele_kmeans::cpu::{CpuBackend, Kernel};
use clientele_kmeans::lloyd::{inertia, update};
use clientele_kmeans::seeding::{SeedRound, race_block};
use clientele_kmeans::{Backend, Block, Centroids, Partial, Totals};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const FEATURES: [usize; 4] = [8, 16, 32, 64];
const CLUSTERS: [usize; 4] = [8, 16, 32, 64];

/// One candidate: kernel, features, clusters.
fn pass(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pass");
    for n_features in FEATURES {
        let block = block(n_features);
        group.throughput(Throughput::Elements(block.n_rows() as u64));
        for n_clusters in CLUSTERS {
            let centroids = centroids(&block, n_clusters, 5);
            let expected = partials(Kernel::Scalar, &block, from_ref(&centroids));
            let squares = Totals::of_block(&block).squares;
            eprintln!(
                "d={n_features} k={n_clusters}: inertia {:.9e}",
                inertia(squares, &expected[0], &centroids) as f64
            );
            for kernel in Kernel::available() {
                check(
                    kernel,
                    &expected,
                    &partials(kernel, &block, from_ref(&centroids)),
                );
                let id = BenchmarkId::new(
                    format!("{kernel:?}").to_lowercase(),
                    format!("d{n_features}/k{n_clusters}"),
                );
                let backend = backend(kernel);
                group.bench_function(id, |bencher| {
                    bencher.iter(|| backend.pass(black_box(&block), from_ref(&centroids), None));
                });
            }
        }
    }
}

/// The sweep k = 2..12 with 4 restarts: 44 candidates at once.
fn sweep(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sweep");
    let block = block(32);
    group.throughput(Throughput::Elements(block.n_rows() as u64));
    let candidates: Vec<Centroids> = (2..=12)
        .flat_map(|k| (0..4).map(move |restart| (k, restart)))
        .map(|(k, restart)| centroids(&block, k, 11 * restart))
        .collect();
    let expected = partials(Kernel::Scalar, &block, &candidates);
    for kernel in Kernel::available() {
        check(kernel, &expected, &partials(kernel, &block, &candidates));
        let backend = backend(kernel);
        group.bench_function(format!("{kernel:?}").to_lowercase(), |bencher| {
            bencher.iter(|| backend.pass(black_box(&block), &candidates, None));
        });
    }
}

/// One round of seeding against 64 and 1,024 candidates.
fn race(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("race");
    for n_features in [8, 32] {
        let block = block(n_features);
        group.throughput(Throughput::Elements(block.n_rows() as u64));
        for n_candidates in [64, 1_024] {
            let round = SeedRound {
                round: 2,
                seed: 1,
                candidates: Some(centroids(&block, n_candidates, 0)),
                limit: 64,
            };
            let backend = CpuBackend::new();
            group.bench_function(format!("d{n_features}/{n_candidates}"), |bencher| {
                bencher.iter(|| race_block(&backend, black_box(&block), &round));
            });
        }
    }
}

/// Sums to centroids, once an iteration.
fn new_centroids(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("update");
    for (n_features, n_clusters) in [(8, 8), (32, 64), (64, 1_024)] {
        let block = block(n_features);
        let centroids = centroids(&block, n_clusters, 5);
        let partial = &partials(Kernel::Scalar, &block, from_ref(&centroids))[0];
        group.bench_function(format!("d{n_features}/k{n_clusters}"), |bencher| {
            bencher.iter(|| update(black_box(partial), black_box(&centroids)));
        });
    }
}

fn backend(kernel: Kernel) -> CpuBackend {
    CpuBackend::with_kernel(kernel).expect("one of the available kernels")
}

fn partials(kernel: Kernel, block: &Block, candidates: &[Centroids]) -> Vec<Partial> {
    backend(kernel)
        .pass(block, candidates, None)
        .expect("the CPU does not get lost")
}

fn check(kernel: Kernel, expected: &[Partial], found: &[Partial]) {
    for (expected, found) in expected.iter().zip(found) {
        assert_eq!(
            (&expected.counts, &expected.sums),
            (&found.counts, &found.sums),
            "{kernel:?}"
        );
    }
}

criterion_group!(kernels, pass, sweep, race, new_centroids);
criterion_main!(kernels);
