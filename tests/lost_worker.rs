//! The coordinator over real workers, of whatever kind: when one goes away, the others answer what it had not, and the bytes are the same; when the input does,
//! they need no more of it than they have not read.

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use clientele_coordinator::machine::Outcome;
use clientele_data::transform::TransformKind;
use clientele_protocol::{ChannelClosed, FitSpec, Stage, Task, WorkerChannel};
use clientele_worker::{BackendChoice, InProcess};
use common::in_process::{Fit, fit_by};
use tempfile::TempDir;

/// Dies when it is handed its `n`th task, without a word of answer.
struct Mortal {
    inner: InProcess,
    tasks_left: AtomicU32,
    deaths: Arc<AtomicU32>,
}

impl WorkerChannel for Mortal {
    fn send(&self, task: Task) -> Result<(), ChannelClosed> {
        let died = self
            .tasks_left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
            .is_err();
        if died {
            self.deaths.fetch_add(1, Ordering::Relaxed);
            return Err(ChannelClosed);
        }
        self.inner.send(task)
    }
}

/// Takes the input away when rows have been put on the grid.
struct Thief {
    inner: InProcess,
    input: PathBuf,
}

impl WorkerChannel for Thief {
    fn send(&self, task: Task) -> Result<(), ChannelClosed> {
        if matches!(*task.stage, Stage::Pass { .. }) && self.input.exists() {
            std::fs::remove_file(&self.input).unwrap();
        }
        self.inner.send(task)
    }
}

fn spec() -> FitSpec {
    FitSpec {
        k_range: (2, 3),
        n_restarts: 2,
        init: None,
        seed: 5,
        transform: TransformKind::Zscore,
        max_iter: 20,
        tol: 1e-4,
        halving: true,
    }
}

/// A fit over workers of which each dies at its task of the given number, and how many have.
fn fit(dir: &Path, table: &Path, name: &str, lives: &[u32]) -> (Outcome, u32) {
    let deaths = Arc::new(AtomicU32::new(0));
    let mortal = |nth: usize, inner| -> Box<dyn WorkerChannel> {
        Box::new(Mortal {
            inner,
            tasks_left: AtomicU32::new(lives[nth]),
            deaths: deaths.clone(),
        })
    };
    let cpus = vec![BackendChoice::Cpu; lives.len()];
    let outcome = fit_by(&cpus, 1 << 30, fit_of(dir, table, name), mortal).unwrap();
    (outcome, deaths.load(Ordering::Relaxed))
}

fn hashes(outcome: &Outcome) -> (String, String) {
    common::in_process::hashes(&spec(), outcome)
}

fn fit_of<'a>(dir: &'a Path, table: &'a Path, name: &'a str) -> Fit<'a> {
    Fit {
        spec: spec(),
        dir,
        table,
        name,
    }
}

#[test]
fn workers_lost_at_any_moment_change_nothing() {
    let dir = TempDir::new().unwrap();
    let table = dir.path().join("customers.parquet");
    common::write(&table, &common::blobs(1_200_000, 3, 4), 300_000);
    let (whole, deaths) = fit(dir.path(), &table, "whole", &[u32::MAX]);
    assert_eq!(deaths, 0);
    // In the statistics, at ingest, while seeding, in the passes: one worker is left each time.
    for tasks in [0, 1, 3, 5, 9] {
        let (outcome, deaths) = fit(
            dir.path(),
            &table,
            &format!("dies-at-{tasks}"),
            &[u32::MAX, tasks, tasks + 2],
        );
        assert_eq!(deaths, 2, "the faults have not fired");
        assert_eq!(
            hashes(&whole),
            hashes(&outcome),
            "a worker that dies at task {tasks}"
        );
    }
}

#[test]
fn where_memory_allows_nothing_is_read_twice() {
    let dir = TempDir::new().unwrap();
    let table = dir.path().join("customers.parquet");
    common::write(&table, &common::blobs(400_000, 3, 4), 100_000);
    let (whole, _) = fit(dir.path(), &table, "whole", &[u32::MAX]);
    let stolen = |name: &str, memory_bytes| {
        let input = dir.path().join(format!("{name}.parquet"));
        std::fs::copy(&table, &input).unwrap();
        let thief = |_, inner| -> Box<dyn WorkerChannel> {
            let input = input.clone();
            Box::new(Thief { inner, input })
        };
        let cpu = [BackendChoice::Cpu];
        let outcome = fit_by(&cpu, memory_bytes, fit_of(dir.path(), &input, name), thief);
        assert!(!input.exists(), "the fault has not fired");
        outcome
    };
    assert_eq!(hashes(&whole), hashes(&stolen("roomy", 1 << 30).unwrap()));
    let refused = stolen("narrow", 0).unwrap_err().to_string();
    assert!(refused.contains("narrow.parquet"), "{refused}");
}

#[test]
fn a_gpu_beside_cpus_gives_the_same_bytes() {
    if !common::has_gpu() {
        return;
    }
    let dir = TempDir::new().unwrap();
    let table = dir.path().join("customers.parquet");
    common::write(&table, &common::blobs(600_000, 3, 4), 100_000);
    let (whole, _) = fit(dir.path(), &table, "whole", &[u32::MAX]);
    // In one process nobody else is given what a worker is late with, as a software device is.
    let workers = [BackendChoice::Gpu, BackendChoice::Cpu, BackendChoice::Cpu];
    let as_they_are = |_, inner| -> Box<dyn WorkerChannel> { Box::new(inner) };
    let place = fit_of(dir.path(), &table, "mixed");
    let mixed = fit_by(&workers, 1 << 30, place, as_they_are).unwrap();
    assert_eq!(hashes(&whole), hashes(&mixed));
    let has_computed = |kind: &str| mixed.backends.keys().any(|name| name.starts_with(kind));
    assert!(
        has_computed("gpu") && has_computed("cpu"),
        "both have computed: {:?}",
        mixed.backends
    );
}
