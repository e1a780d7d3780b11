//! Times passes over one block on every adapter, software ones included, with the answer beside the time.
//!
//! `cargo run --release -p clientele-gpu --example pass_time [N_FEATURES]`

use std::collections::BTreeSet;
use std::time::Instant;

use clientele_gpu::{GpuBackend, OpenOptions, adapters};
use clientele_kmeans::cpu::CpuBackend;
use clientele_kmeans::{BLOCK_ROWS, Backend, BackendError, Block, Centroids, Partial};

const N_REPEATS: usize = 7;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let n_features = match std::env::args().nth(1) {
        Some(text) => text.parse()?,
        None => 32,
    };
    let (block, draw) = overlapping_groups(n_features)?;
    let default_sweep: Vec<usize> = (2..=8).flat_map(|k| [k; 4]).collect();
    let workloads: [&[usize]; 4] = [&[8], &default_sweep, &[64], &[300]];

    let cpu = CpuBackend::new();
    let gpus: Vec<GpuBackend> = adapters()
        .into_iter()
        .map(|adapter| {
            GpuBackend::open(&OpenOptions {
                allow_software: true,
                adapter: Some(adapter.name),
                ..OpenOptions::default()
            })
        })
        .collect::<Result<_, _>>()?;
    println!("{BLOCK_ROWS} rows x {n_features} features, median of {N_REPEATS}");
    for n_clusters in workloads {
        let candidates: Vec<Centroids> = n_clusters
            .iter()
            .enumerate()
            .map(|(idx, &k)| {
                let rows =
                    (0..k).flat_map(|j| draw(&block, (idx * 7_919 + j * 104_729) % BLOCK_ROWS));
                Centroids::new(n_features, rows.collect())
            })
            .collect();
        time(&cpu.name(), &block, &candidates, || {
            cpu.pass(&block, &candidates, None)
        })?;
        for gpu in &gpus {
            let name = format!("{}, brought over", gpu.name());
            time(&name, &block, &candidates, || {
                gpu.pass(&block, &candidates, None)
            })?;
            let name = format!("{}, resident", gpu.name());
            time(&name, &block, &candidates, || {
                let mut pass = gpu.begin(&candidates)?;
                pass.add(&block)?;
                pass.finish()
            })?;
            gpu.forget_all_but(&BTreeSet::new());
        }
    }
    Ok(())
}

fn time(
    name: &str,
    block: &Block,
    candidates: &[Centroids],
    pass: impl Fn() -> Result<Vec<Partial>, BackendError>,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut partials = pass()?;
    let mut times_ms = Vec::new();
    for _ in 0..N_REPEATS {
        let begun = Instant::now();
        partials = pass()?;
        times_ms.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    times_ms.sort_by(f64::total_cmp);
    let n_clusters: usize = candidates.iter().map(Centroids::n_clusters).sum();
    let n_rechecked: u64 = partials.iter().map(|p| p.n_rechecked).sum();
    // Weighted by position, so that swapped sums show.
    let answer = partials
        .iter()
        .flat_map(|p| &p.sums)
        .fold(0i64, |sum, s| sum.wrapping_mul(31).wrapping_add(*s));
    println!(
        "{:3} candidates, {n_clusters:3} clusters: {:8.1} ms, {:.4} % settled exactly, answer {answer:016x}, {name}",
        candidates.len(),
        times_ms[N_REPEATS / 2],
        100.0 * n_rechecked as f64 / (block.n_rows() * candidates.len()) as f64,
    );
    Ok(())
}

type ReadRow = fn(&Block, usize) -> Vec<i32>;

/// Ten groups, as wide as they are far apart.
fn overlapping_groups(n_features: usize) -> Result<(Block, ReadRow), Box<dyn std::error::Error>> {
    let mut state = 1u64;
    let mut draw = move |limit: i64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as i64 % limit
    };
    let mut values = Vec::with_capacity(BLOCK_ROWS * n_features);
    for row_idx in 0..BLOCK_ROWS {
        for feature_idx in 0..n_features {
            let centre = ((row_idx % 10 * 7 + feature_idx * 3) % 11) as i64 * 200_000 - 1_000_000;
            let noise = draw(400_000) + draw(400_000) - 400_000;
            values.push(i32::try_from(centre + noise)?);
        }
    }
    let block = Block::from_rows(0, n_features, &values, vec![0; BLOCK_ROWS])?;
    let read: ReadRow = |block, row_idx| {
        let mut row = vec![0; block.n_features()];
        block.read_row(row_idx, &mut row);
        row
    };
    Ok((block, read))
}
