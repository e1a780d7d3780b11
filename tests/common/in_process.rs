//! Fits in this process, by workers that a test has its hand in.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Instant;

use clientele_coordinator::FitError;
use clientele_coordinator::drive::drive;
use clientele_coordinator::machine::{Machine, Outcome, Place};
use clientele_coordinator::model::Model;
use clientele_data::Folder;
use clientele_data::manifest::{Columns, Manifest, NullPolicy, TableSpec};
use clientele_protocol::{FitSpec, Job, RunKey, WorkerChannel, WorkerEvent, WorkerId};
use clientele_worker::{BackendChoice, EngineOptions, InProcess, Resources, Worker, WorkerOptions};

/// What is fitted, and where.
pub struct Fit<'a> {
    pub spec: FitSpec,
    pub dir: &'a Path,
    pub table: &'a Path,
    /// Of its run, below `dir`.
    pub name: &'a str,
}

/// A fit by workers of one thread on these `backends`, with so much memory each, which `channel` makes of what they are started as.
pub fn fit_by(
    backends: &[BackendChoice],
    memory_bytes: u64,
    fit: Fit<'_>,
    channel: impl Fn(usize, InProcess) -> Box<dyn WorkerChannel>,
) -> Result<Outcome, FitError> {
    let Fit {
        spec,
        dir,
        table,
        name,
    } = fit;
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
        spec,
        manifest.clone(),
        Place::InProcess {
            n_workers: backends.len(),
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
    let (sender, events) = mpsc::channel::<(WorkerId, WorkerEvent)>();
    let mut workers: BTreeMap<WorkerId, Box<dyn WorkerChannel>> = BTreeMap::new();
    for (nth, (backend, id)) in backends.iter().zip(0..).enumerate() {
        let options = WorkerOptions {
            engine: EngineOptions {
                backend: *backend,
                ..EngineOptions::default()
            },
            n_threads: 1,
            memory_bytes,
        };
        let worker = Worker::new(job.clone(), Resources::open(&options).unwrap());
        let inner = InProcess::start(worker, WorkerId(id), sender.clone());
        workers.insert(WorkerId(id), channel(nth, inner));
    }
    drive(machine, &workers, &events, started, &mut |_| ())
}

/// Of the model and of the assignments.
pub fn hashes(spec: &FitSpec, outcome: &Outcome) -> (String, String) {
    let model = Model::new(spec, outcome).unwrap();
    (model.model_hash, model.assignments_hash)
}
