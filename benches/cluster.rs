//! What a cluster costs: bytes on the wire a pass, and how two workers compare with one, beside what two processors can do at that
//! moment. Real processes on this machine, with the answer beside the time.
//!
//! `cargo bench --bench cluster` runs both; `-- wire` or `-- scaling` one. Needs 2 GB of disk in the temporary folder.

#[path = "../tests/common/mod.rs"]
mod common;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::cluster::Cluster;
use common::{Mix, write_groups};
use serde_json::Value;

const N_FEATURES: usize = 16;
const LARGE: usize = 10_000_000;
const SMALL: usize = 100_000;

/// Times each side is measured, in turn.
const N_TIMES: usize = 5;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "control") {
        println!("{}", control());
        return;
    }
    let wanted: Vec<&String> = arguments.iter().filter(|a| !a.starts_with('-')).collect();
    let runs = |name: &str| wanted.is_empty() || wanted.iter().any(|w| *w == name);
    let dir = tempfile::TempDir::new().expect("a temporary folder");
    write_table(dir.path(), "large", LARGE);
    if runs("wire") {
        write_table(dir.path(), "small", SMALL);
        wire(dir.path());
    }
    if runs("scaling") {
        scaling(dir.path());
    }
}

/// An overlapping mixture: it takes many passes.
fn write_table(dir: &Path, name: &str, n_rows: usize) {
    let mut mix = Mix(11);
    let centres: Vec<f32> = (0..40 * N_FEATURES)
        .map(|_| (mix.next() * 4.0) as f32)
        .collect();
    let path = dir.join(format!("{name}.parquet"));
    write_groups(&path, n_rows, N_FEATURES, |mix, feature, row| {
        let group = (row.wrapping_mul(0x9e37_79b9) >> 7) % 40;
        centres[group * N_FEATURES + feature] + (mix.next() + mix.next() - 1.0) as f32 * 2.5
    });
}

/// Fits eight clusters in `n_passes` rounds on the workers of `cluster`.
fn fit(cluster: &Cluster, table: &str, n_passes: u32) -> Value {
    static N_RUNS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let nth = N_RUNS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let run = format!("{table}-{nth}");
    let rounds = n_passes.to_string();
    let model = [
        "--id",
        "customer_id",
        "--k",
        "8",
        "--restarts",
        "1",
        "--tol",
        "0",
        "--transform",
        "zscore",
        "--max-iter",
        &rounds,
    ];
    cluster.submit(&run, &format!("{table}.parquet"), &run, &model);
    cluster.watch(&run)
}

/// Bytes a pass, over what a longer run costs more than a shorter one.
fn wire(dir: &Path) {
    println!("bytes on the wire a pass, one worker, k = 8, d = {N_FEATURES}");
    for (table, n_rows) in [("small", SMALL), ("large", LARGE)] {
        let mut cluster = Cluster::start(dir);
        cluster.add_workers(1);
        let cost = |n_passes| {
            let before = bytes(&cluster);
            let summary = fit(&cluster, table, n_passes);
            let after = bytes(&cluster);
            let passes = summary["n_passes"].as_u64().unwrap_or(0);
            ((after.0 - before.0, after.1 - before.1), passes, summary)
        };
        let (short, few, _) = cost(10);
        let (long, many, summary) = cost(30);
        let n = many - few;
        println!(
            "  n = {n_rows:>10}  to the worker {:>6}  from the worker {:>6}  ({few} and {many} passes, model {:.16})",
            (long.0 - short.0) / n,
            (long.1 - short.1) / n,
            summary["model_hash"].as_str().unwrap_or("?")
        );
    }
}

fn bytes(cluster: &Cluster) -> (u64, u64) {
    let total = |way: &str| cluster.metric(&format!("clientele_{way}_bytes_total"));
    (total("sent"), total("received"))
}

/// Passes a second of one worker and of two, with one thread each, and the same of processes that only multiply and add.
fn scaling(dir: &Path) {
    println!("two workers with one thread each against one, {LARGE} x {N_FEATURES}, k = 8");
    let (mut passes, mut controls) = (Vec::new(), Vec::new());
    let mut answers = std::collections::BTreeSet::new();
    let mut one = Cluster::start(dir);
    one.add_workers(1);
    let mut two = Cluster::start(dir);
    two.add_workers(2);
    let mut rate = |cluster: &Cluster| {
        let summary = fit(cluster, "large", 30);
        answers.insert(summary["model_hash"].to_string());
        let seconds = summary["seconds"]["passes"].as_f64().unwrap_or(f64::NAN);
        summary["n_passes"].as_f64().unwrap_or(0.0) / seconds
    };
    for nth in 0..N_TIMES {
        let (one, two) = (rate(&one), rate(&two));
        let (alone, together) = (multiply_add(1), multiply_add(2));
        println!(
            "  {nth}: passes/s {one:.2} and {two:.2} = {:.2} x; multiply-add {:.2} x",
            two / one,
            together / alone
        );
        passes.push(two / one);
        controls.push(together / alone);
    }
    let (passes, controls) = (median(passes), median(controls));
    println!(
        "  median: {passes:.2} x, of {controls:.2} x that the processors gave: {:.0} %; models {answers:?}",
        passes / controls * 100.0
    );
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What `n` processes at once get done, in all.
fn multiply_add(n: usize) -> f64 {
    let this = std::env::current_exe().expect("this program has a path");
    let children: Vec<_> = (0..n)
        .map(|_| {
            let mut command = Command::new(&this);
            command.arg("control").stdout(Stdio::piped());
            command.spawn().expect("it starts")
        })
        .collect();
    let done = children.into_iter().map(|child| {
        let output = child.wait_with_output().expect("it ends");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.trim().parse::<f64>().expect("it prints a number")
    });
    done.sum()
}

/// Multiplies and adds in registers for a second and a half; rounds done.
fn control() -> u64 {
    let started = Instant::now();
    let mut lanes = [1.000_001_f32; 64];
    let mut n_rounds = 0;
    while started.elapsed() < Duration::from_millis(1_500) {
        for _ in 0..10_000 {
            for lane in &mut lanes {
                *lane = *lane * 0.999_999 + 0.000_001;
            }
        }
        n_rounds += 1;
        std::hint::black_box(&mut lanes);
    }
    n_rounds
}
