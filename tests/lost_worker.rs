//! The coordinator over real workers, one of which goes away: the others answer what it had not, and the bytes are the same.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Instant;

use clientele_coordinator::drive::drive;
use clientele_coordinator::machine::{Machine, Outcome, Place};
use clientele_coordinator::model::Model;
use clientele_data::Folder;
use clientele_data::manifest::{Columns, Manifest, NullPolicy, TableSpec};
use clientele_data::transform::TransformKind;
use clientele_protocol::{
    ChannelClosed, FitSpec, Job, RunKey, Task, WorkerChannel, WorkerEvent, WorkerId,
};
use clientele_worker::{BackendChoice, EngineOptions, InProcess, Resources, Worker, WorkerOptions};
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

/// A fit over `n_workers`, each of which dies at its task of the given number.
fn fit(dir: &Path, table: &Path, name: &str, lives: &[u32]) -> (Outcome, u32) {
    let table = TableSpec {
        inputs: vec![table.display().to_string()],
        id: Some("customer_id".into()),
        columns: Columns::AllNumeric,
        nulls: NullPolicy::Fail,
        value: None,
    };
    let manifest = Arc::new(Manifest::plan(&table).unwrap());
    let key = RunKey {
        run: name.into(),
        epoch: 0,
    };
    let started = Instant::now();
    let machine = Machine::new(
        key.clone(),
        spec(),
        manifest.clone(),
        Place::InProcess {
            n_workers: lives.len(),
        },
        started.elapsed(),
    )
    .unwrap();
    let work_dir = dir.join(name);
    std::fs::create_dir(&work_dir).unwrap();
    let job = Job {
        key,
        manifest,
        assignments_dir: Folder::local(work_dir.join("assignments")),
        work_dir: Folder::local(&work_dir),
        spill_dir: work_dir,
    };
    let options = WorkerOptions {
        engine: EngineOptions {
            backend: BackendChoice::Cpu,
            ..EngineOptions::default()
        },
        n_threads: 1,
        memory_bytes: 1 << 30,
    };
    let (sender, events) = mpsc::channel::<(WorkerId, WorkerEvent)>();
    let deaths = Arc::new(AtomicU32::new(0));
    let mut workers: BTreeMap<WorkerId, Box<dyn WorkerChannel>> = BTreeMap::new();
    for (nth, tasks) in (0..).zip(lives) {
        let worker = Worker::new(job.clone(), Resources::open(&options).unwrap());
        let inner = InProcess::start(worker, WorkerId(nth), sender.clone());
        let mortal = Mortal {
            inner,
            tasks_left: AtomicU32::new(*tasks),
            deaths: deaths.clone(),
        };
        workers.insert(WorkerId(nth), Box::new(mortal));
    }
    let outcome = drive(machine, &workers, &events, started, &mut |_| ()).unwrap();
    (outcome, deaths.load(Ordering::Relaxed))
}

#[test]
fn workers_lost_at_any_moment_change_nothing() {
    let dir = TempDir::new().unwrap();
    let table = dir.path().join("customers.parquet");
    common::write(&table, &common::blobs(1_200_000, 3, 4), 300_000);
    let hashes = |outcome: &Outcome| {
        let model = Model::new(&spec(), outcome).unwrap();
        (model.model_hash, model.assignments_hash)
    };
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
