//! The CPU kernels on one thread and one block of 65,536 rows, which stays in the caches: what the arithmetic costs, not the memory.
//!
//! `cargo bench --bench kernels` in the repository runs all; `-- pass/avx512` some; `-- --quick` less exactly. Every kernel must find
//! the scalar kernel's sums before it is timed, and the inertia is printed beside the shape.

use std::hint::black_box;
use std::slice::from_ref;

use clientele_kernels::{block, centroids};
use clientele_kmeans::cpu::{BlockMemory, CpuBackend, Kernel, Ordered, Travel};
use clientele_kmeans::lloyd::{inertia, update};
use clientele_kmeans::seeding::{SeedRound, race_block};
use clientele_kmeans::{Backend, Block, Centroids, Partial, Totals};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

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

/// Passes that a fit makes before a pass of it is timed.
const EARLY_PASSES: usize = 20;

/// A pass with memory, at three times of a fit: it knows the labels of the pass before, it leaves bounds behind as well, and it reads only
/// the tiles whose bounds have run out. The share of tiles that it reads is printed.
fn remember(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("remember");
    for (n_features, n_clusters) in [(8, 8), (32, 8), (32, 64)] {
        let block = block(n_features);
        group.throughput(Throughput::Elements(block.n_rows() as u64));
        for kernel in Kernel::available() {
            let mut fit = Fit::new(kernel, &block, centroids(&block, n_clusters, 5));
            let mut time = |fit: &Fit, stage: &str| {
                let shape = format!("d{n_features}/k{n_clusters}/{stage}");
                let read = fit.check();
                eprintln!(
                    "{kernel:?} {shape}: reads {:.1} % of the tiles",
                    read * 100.0
                );
                let id = BenchmarkId::new(format!("{kernel:?}").to_lowercase(), shape);
                group.bench_function(id, |bencher| {
                    bencher.iter_batched_ref(
                        || fit.memory.clone(),
                        |memory| {
                            let mut asked = [(&fit.travel, memory)];
                            fit.backend
                                .pass_remembering(black_box(&fit.block), &mut asked)
                        },
                        BatchSize::LargeInput,
                    );
                });
            };
            fit.step(EARLY_PASSES, false);
            time(&fit, "labels");
            let here = fit.travel.centroids().clone();
            fit.travel.advance(&here, true);
            time(&fit, "bounds");
            fit.step(EARLY_PASSES, true);
            fit.memory
                .reorder(&mut fit.block, &fit.travel, Ordered::TilesRead);
            fit.step(2, true);
            time(&fit, "settled");
        }
    }
}

/// A fit of one block, just before a pass.
struct Fit {
    backend: CpuBackend,
    block: Block,
    travel: Travel,
    memory: BlockMemory,
}

impl Fit {
    fn new(kernel: Kernel, block: &Block, start: Centroids) -> Self {
        let backend = backend(kernel);
        Self {
            travel: backend.travel(start),
            backend,
            block: block.clone(),
            memory: BlockMemory::default(),
        }
    }

    fn step(&mut self, n_passes: usize, keeps_bounds: bool) {
        for _ in 0..n_passes {
            let mut asked = [(&self.travel, &mut self.memory)];
            let answers = self.backend.pass_remembering(&self.block, &mut asked);
            let (centroids, _) = update(&answers[0].0, self.travel.centroids());
            self.travel.advance(&centroids, keeps_bounds);
        }
    }

    /// Holds the next pass against the scalar kernel's over every row. Returns the share of the tiles that it reads.
    fn check(&self) -> f64 {
        let mut memory = self.memory.clone();
        let mut asked = [(&self.travel, &mut memory)];
        let (found, effort) = self
            .backend
            .pass_remembering(&self.block, &mut asked)
            .remove(0);
        let centroids = from_ref(self.travel.centroids());
        let expected = partials(Kernel::Scalar, &self.block, centroids);
        check(self.backend.kernel(), &expected, from_ref(&found));
        effort.n_tiles_read as f64 / effort.n_tiles as f64
    }
}

/// What a move of the centroids costs before a pass with memory: there and back again.
fn advance(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("advance");
    for (n_features, n_clusters) in [(8, 8), (32, 64), (64, 1_024)] {
        let block = block(n_features);
        let here = centroids(&block, n_clusters, 5);
        let there = update(&partials(Kernel::Scalar, &block, from_ref(&here))[0], &here).0;
        let mut travel = CpuBackend::new().travel(here.clone());
        group.bench_function(format!("d{n_features}/k{n_clusters}"), |bencher| {
            bencher.iter(|| {
                travel.advance(black_box(&there), true);
                travel.advance(black_box(&here), true);
            });
        });
    }
}

/// The two nearest centroids of every row with exact distances, once a fit.
fn nearest_two(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("nearest_two");
    for (n_features, n_clusters) in [(8, 8), (32, 8), (32, 64)] {
        let block = block(n_features);
        let centroids = centroids(&block, n_clusters, 5);
        group.throughput(Throughput::Elements(block.n_rows() as u64));
        let (mut expected, mut found) = (Vec::new(), Vec::new());
        backend(Kernel::Scalar).nearest_two(&block, &centroids, &mut expected);
        for kernel in Kernel::available() {
            let backend = backend(kernel);
            backend.nearest_two(&block, &centroids, &mut found);
            assert_eq!(expected, found, "{kernel:?}");
            let id = BenchmarkId::new(
                format!("{kernel:?}").to_lowercase(),
                format!("d{n_features}/k{n_clusters}"),
            );
            group.bench_function(id, |bencher| {
                bencher.iter(|| backend.nearest_two(black_box(&block), &centroids, &mut found));
            });
        }
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

criterion_group!(
    kernels,
    pass,
    sweep,
    remember,
    advance,
    nearest_two,
    race,
    new_centroids
);
criterion_main!(kernels);
