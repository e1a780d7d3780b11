//! A short measurement of what each processor would make of a pass, so that `--backend auto` can choose.

use std::fmt::{self, Display};
use std::time::Instant;

use clientele_gpu::GpuBackend;
use clientele_kmeans::cpu::{BlockMemory, CpuBackend};
use clientele_kmeans::{BLOCK_ROWS, Backend, BackendError, Block, Centroids};

/// The shape that is probed: what personas are made of.
const N_FEATURES: usize = 16;
const N_CLUSTERS: usize = 8;
/// A processor takes part when it is not this much slower than the fastest: below, waiting for its last block costs what it brings.
const LEAST_SHARE: f64 = 0.1;
/// The best of so many passes counts.
const N_PASSES: usize = 3;

/// What was measured and what follows from it.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// Rows a second of all its threads.
    pub cpu_rows_per_s: f64,
    /// Names, and rows a second; none where it failed.
    pub gpus: Vec<(String, f64)>,
    /// Whether the CPU computes passes.
    pub cpu_takes_part: bool,
    /// [n_gpus]
    pub gpus_take_part: Vec<bool>,
}

impl Verdict {
    fn of(cpu_rows_per_s: f64, gpus: Vec<(String, f64)>) -> Self {
        let rates = gpus.iter().map(|(_, rate)| *rate);
        let fastest = rates.fold(cpu_rows_per_s, f64::max);
        let pays = |rate: f64| rate > 0.0 && rate >= LEAST_SHARE * fastest;
        Self {
            cpu_rows_per_s,
            cpu_takes_part: pays(cpu_rows_per_s),
            gpus_take_part: gpus.iter().map(|(_, rate)| pays(*rate)).collect(),
            gpus,
        }
    }
}

impl Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let million = |rate: f64| rate / 1e6;
        let choice = |takes_part: bool| if takes_part { "used" } else { "not used" };
        write!(
            f,
            "cpu {:.0} M rows/s ({})",
            million(self.cpu_rows_per_s),
            choice(self.cpu_takes_part)
        )?;
        for ((name, rate), takes_part) in self.gpus.iter().zip(&self.gpus_take_part) {
            write!(
                f,
                ", {name} {:.0} M rows/s ({})",
                million(*rate),
                choice(*takes_part)
            )?;
        }
        write!(
            f,
            ", measured on {N_FEATURES} features and {N_CLUSTERS} clusters"
        )
    }
}

/// Measures the CPU on `n_threads` and each GPU with rows that it holds already.
pub fn judge(cpu: &CpuBackend, n_threads: usize, gpus: &[GpuBackend]) -> Verdict {
    let n_blocks = n_threads.max(4);
    let blocks: Vec<Block> = (0..n_blocks as u64).map(block).collect();
    let values = (0..N_CLUSTERS)
        .flat_map(|row_idx| (0..N_FEATURES).map(move |feature_idx| (row_idx, feature_idx)));
    let first = &blocks[0];
    let values = values.map(|(row_idx, feature_idx)| first.value(row_idx, feature_idx));
    let centroids = Centroids::new(N_FEATURES, values.collect());
    let gpu_rates = gpus.iter().map(|gpu| {
        let rate = of_gpu(gpu, &blocks, &centroids).unwrap_or_else(|error| {
            tracing::warn!(%error, "{} failed in the probe", gpu.name());
            0.0
        });
        (gpu.name(), rate)
    });
    let gpu_rates = gpu_rates.collect();
    for gpu in gpus {
        gpu.forget_all_but(&std::collections::BTreeSet::new());
    }
    Verdict::of(of_cpu(cpu, n_threads, &blocks, &centroids), gpu_rates)
}

fn of_cpu(cpu: &CpuBackend, n_threads: usize, blocks: &[Block], centroids: &Centroids) -> f64 {
    let travel = cpu.travel(centroids.clone());
    let mut memories = vec![BlockMemory::default(); blocks.len()];
    let a_thread = blocks.len().div_ceil(n_threads);
    rows_per_s(blocks, || {
        std::thread::scope(|scope| {
            for (blocks, memories) in blocks.chunks(a_thread).zip(memories.chunks_mut(a_thread)) {
                scope.spawn(|| {
                    for (block, memory) in blocks.iter().zip(memories) {
                        cpu.pass_remembering(block, &mut [(&travel, memory)]);
                    }
                });
            }
        });
        Ok(())
    })
    .unwrap_or(0.0)
}

fn of_gpu(gpu: &GpuBackend, blocks: &[Block], centroids: &Centroids) -> Result<f64, BackendError> {
    rows_per_s(blocks, || {
        let mut pass = gpu.begin(std::slice::from_ref(centroids))?;
        blocks.iter().try_for_each(|block| pass.add(block))?;
        pass.finish().map(drop)
    })
}

/// The best of a few passes, after one that fills caches and compiles shaders.
fn rows_per_s(
    blocks: &[Block],
    mut pass: impl FnMut() -> Result<(), BackendError>,
) -> Result<f64, BackendError> {
    let n_rows: usize = blocks.iter().map(Block::n_rows).sum();
    pass()?;
    let mut best = 0f64;
    for _ in 0..N_PASSES {
        let started = Instant::now();
        pass()?;
        best = best.max(n_rows as f64 / started.elapsed().as_secs_f64());
    }
    Ok(best)
}

/// Rows without any structure.
fn block(id: u64) -> Block {
    let mut state = id;
    let mut value = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 43) as i32 - (1 << 20)
    };
    let values: Vec<i32> = (0..BLOCK_ROWS * N_FEATURES).map(|_| value()).collect();
    let keys = (0..BLOCK_ROWS as u64).collect();
    Block::from_rows(id, N_FEATURES, &values, keys).expect("21 bits are on the grid")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clientele_gpu::OpenOptions;

    #[test]
    fn what_is_ten_times_slower_is_left_out() {
        let verdict = |cpu: f64, gpus: &[f64]| {
            let gpus = gpus.iter().map(|rate| ("gpu".to_owned(), *rate)).collect();
            let verdict = Verdict::of(cpu, gpus);
            (verdict.cpu_takes_part, verdict.gpus_take_part)
        };
        assert_eq!(verdict(1e9, &[]), (true, vec![]));
        assert_eq!(verdict(1e9, &[3e9]), (true, vec![true]));
        assert_eq!(verdict(1e9, &[1e7]), (true, vec![false]));
        assert_eq!(
            verdict(1e7, &[1e9, 5e8, 0.0]),
            (false, vec![true, true, false])
        );
    }

    #[test]
    fn every_device_is_measured_and_the_reason_said() {
        let options = OpenOptions {
            allow_software: true,
            ..OpenOptions::default()
        };
        let gpus = match GpuBackend::open(&options) {
            Ok(gpu) => vec![gpu],
            Err(error) if std::env::var_os("CLIENTELE_REQUIRE_GPU").is_none() => {
                eprintln!("left out: {error}");
                return;
            }
            Err(error) => panic!("{error}"),
        };
        let verdict = judge(&CpuBackend::new(), 2, &gpus);
        assert!(verdict.cpu_rows_per_s > 0.0 && verdict.gpus[0].1 > 0.0);
        assert_eq!(
            gpus[0].resident_bytes(),
            0,
            "the probe leaves nothing behind"
        );
        let said = verdict.to_string();
        assert!(
            said.contains("M rows/s") && said.contains(&gpus[0].name()),
            "{said}"
        );
    }
}
