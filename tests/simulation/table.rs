//! The rows that are clustered, and what an undisturbed run makes of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak, mpsc};
use std::time::Instant;

use arrow::array::{ArrayRef, Float32Array, Int64Array};
use clientele_coordinator::drive::drive;
use clientele_coordinator::machine::{Machine, Outcome, Place};
use clientele_coordinator::model::Model;
use clientele_data::manifest::{Columns, Manifest, NullPolicy, TableSpec};
use clientele_data::transform::TransformKind;
use clientele_data::{Folder, Location, Stores};
use clientele_protocol::jobs::FitJob;
use clientele_protocol::{FitSpec, Job, RunKey, WorkerChannel, WorkerId};
use clientele_worker::{BackendChoice, EngineOptions, InProcess, Resources, Worker, WorkerOptions};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::{Mix, table, write};

/// Rows of a row group: two do not fit into one shard, so each is a shard of its own.
const GROUP_ROWS: usize = 131_073;
/// Shards, and so parts of every stage.
pub const N_SHARDS: usize = 8;
/// Of so many rows one has its features. The others are dropped: decoding nothing is quick, and a shard stays a shard.
const KEPT_EVERY: usize = 997;

/// A table, and what must come of it.
pub struct Fixture {
    dir: TempDir,
    /// As a [`summary`].
    pub expected: Value,
}

impl Fixture {
    /// The one of this process, while somebody has it.
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Fixture>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let made = Arc::new(Self::make());
            *shared = Arc::downgrade(&made);
            made
        })
    }

    fn make() -> Self {
        let memory = Path::new("/dev/shm");
        let parent = match memory.is_dir() {
            true => memory.to_owned(),
            false => std::env::temp_dir(),
        };
        let dir = TempDir::with_prefix_in("clientele-simulation-", parent).unwrap();
        let lake = dir.path().join("lake");
        std::fs::create_dir(&lake).unwrap();
        let rows = GROUP_ROWS * N_SHARDS;
        write(
            &lake.join("customers.parquet"),
            &customers(rows),
            GROUP_ROWS,
        );
        let expected = undisturbed(&lake.join("customers.parquet"), dir.path());
        Self { dir, expected }
    }

    /// A folder of its own for one simulation, and the stores it uses: `lake` with the table, `runs`.
    pub fn room(&self) -> Room {
        let dir = TempDir::new_in(self.dir.path()).unwrap();
        for name in ["runs", "spill"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let lake = self.dir.path().join("lake");
        let stores = Stores::default().with_local("lake", &lake).unwrap();
        let stores = stores.with_local("runs", &dir.path().join("runs")).unwrap();
        Room { dir, stores }
    }
}

/// Storage of one simulation; gone with it.
pub struct Room {
    dir: TempDir,
    pub stores: Stores,
}

impl Room {
    pub fn out(&self) -> PathBuf {
        self.dir.path().join("runs/out")
    }

    pub fn state(&self) -> Folder {
        Folder::local(self.dir.path().join("state"))
    }

    pub fn spill_dir(&self) -> PathBuf {
        self.dir.path().join("spill")
    }
}

/// What the client asks for.
pub fn job() -> FitJob {
    FitJob {
        tables: vec![Location::new("lake", "customers.parquet").unwrap()],
        id: Some("customer_id".into()),
        columns: vec!["f0".into(), "f1".into()],
        value: Some("spend".into()),
        nulls: NullPolicy::Drop,
        out: Location::new("runs", "out").unwrap(),
        spec: FitSpec {
            k_range: (2, 5),
            n_restarts: 2,
            init: None,
            seed: 5,
            transform: TransformKind::Zscore,
            max_iter: 30,
            tol: 0.0,
            halving: true,
        },
        story: "{}".into(),
        adopt_out: false,
        wait_for_workers_ms: 0,
    }
}

/// What must be the same however the answers came together: the model, the assignments, and that every row was counted once a pass.
pub fn summary(spec: &FitSpec, outcome: &Outcome) -> (Model, Value) {
    let model = Model::new(spec, outcome).unwrap();
    let summary = json!({
        "model_hash": model.model_hash,
        "assignments_hash": model.assignments_hash,
        "backends": outcome.backends,
        "certified": outcome.n_rechecked,
    });
    (model, summary)
}

pub fn resources() -> Arc<Resources> {
    let options = WorkerOptions {
        engine: EngineOptions {
            backend: BackendChoice::Cpu,
            ..EngineOptions::default()
        },
        n_threads: 1,
        memory_bytes: 256 << 20,
    };
    Resources::open(&options).unwrap()
}

/// Overlapping groups, so that the passes are some.
fn customers(n_rows: usize) -> arrow::array::RecordBatch {
    let mut mix = Mix(7);
    // The last row of a group is a block of its own.
    let is_kept =
        |row: usize| row.is_multiple_of(KEPT_EVERY) || (row + 1).is_multiple_of(GROUP_ROWS);
    let rows: Vec<Option<[f32; 2]>> = (0..n_rows)
        .map(|row| {
            is_kept(row).then(|| {
                let group = (mix.next() * 3.0).floor();
                let mut noise = || (0..4).map(|_| mix.next()).sum::<f64>() - 2.0;
                [group * 1.5 + noise(), group + noise()].map(|value| value as f32)
            })
        })
        .collect();
    let feature = |f: usize| -> ArrayRef {
        let values = rows.iter().map(|row| row.map(|row| row[f]));
        Arc::new(Float32Array::from_iter(values))
    };
    let spend = (0..)
        .zip(&rows)
        .map(|(row, kept)| kept.map(|_| row % 1_000_i64));
    table(vec![
        (
            "customer_id",
            Arc::new(Int64Array::from_iter_values(
                (0..n_rows as i64).map(|row| row * 37 + 5),
            )),
        ),
        ("f0", feature(0)),
        ("f1", feature(1)),
        ("spend", Arc::new(Int64Array::from_iter(spend))),
    ])
}

/// The same fit with one worker in this process.
fn undisturbed(path: &Path, dir: &Path) -> Value {
    let job = job();
    let manifest = Manifest::plan(&TableSpec {
        inputs: vec![path.display().to_string()],
        id: job.id,
        columns: Columns::Named(job.columns),
        nulls: job.nulls,
        value: job.value,
    });
    let manifest = Arc::new(manifest.unwrap());
    assert_eq!(manifest.n_shards() as usize, N_SHARDS);
    let key = RunKey {
        run: "undisturbed".into(),
        epoch: 0,
    };
    let started = Instant::now();
    let place = Place::InProcess { n_workers: 1 };
    let machine = Machine::new(
        key.clone(),
        job.spec.clone(),
        manifest.clone(),
        place,
        started.elapsed(),
    );
    let work_dir = dir.join("undisturbed");
    std::fs::create_dir(&work_dir).unwrap();
    let in_process = Job {
        key,
        manifest,
        assignments_dir: Folder::local(work_dir.join("assignments")),
        work_dir: Folder::local(&work_dir),
        spill_dir: work_dir,
    };
    let (sender, events) = mpsc::channel();
    let worker = Worker::new(in_process, resources());
    let channel = InProcess::start(worker, WorkerId(0), sender);
    let channel: Box<dyn WorkerChannel> = Box::new(channel);
    let workers = BTreeMap::from([(WorkerId(0), channel)]);
    let outcome = drive(machine.unwrap(), &workers, &events, started, &mut |_| ()).unwrap();
    summary(&job.spec, &outcome).1
}
