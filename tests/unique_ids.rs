//! Ids that occur twice are found whatever their order; where a worker is alone and ids lie in order, without filing a fingerprint.

mod common;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, Int64Array, StringArray};
use clientele_data::Folder;
use clientele_data::manifest::{Columns, Manifest, NullPolicy, TableSpec};
use clientele_data::stats::StatsPlanner;
use clientele_data::transform::TransformKind;
use clientele_protocol::{Answer, Job, PartId, RunKey, Stage, StageSeq, Task};
use clientele_worker::{BackendChoice, EngineOptions, Resources, Worker, WorkerOptions};
use tempfile::TempDir;

/// Rows of a file, which is a shard then: two of them are too many for one.
const N_ROWS: i64 = 150_000;
const MEMORY_BYTES: u64 = 1 << 30;

/// What a worker has found: rows beyond the first of their id, and the files that it has left for that.
#[derive(Debug, PartialEq)]
struct Found {
    n_surplus: u64,
    n_files: usize,
}

fn find(
    dir: &Path,
    job: Job,
    memory_bytes: u64,
    start: fn(Job, Arc<Resources>) -> Worker,
) -> Found {
    let manifest = job.manifest.clone();
    let options = WorkerOptions {
        engine: EngineOptions {
            backend: BackendChoice::Cpu,
            ..EngineOptions::default()
        },
        n_threads: 2,
        memory_bytes,
    };
    let worker = start(job.clone(), Resources::open(&options).unwrap());
    let ask = |stage: Stage, n_parts: u32| {
        let task = Task {
            key: job.key.clone(),
            seq: StageSeq(0),
            stage: Arc::new(stage),
            parts: (0..n_parts).map(PartId).collect(),
        };
        worker.run(&task).body.unwrap()
    };
    let n_shards = manifest.n_shards();
    let mut planner = StatsPlanner::new(&manifest, TransformKind::None);
    while let Some(request) = planner.request() {
        let Answer::Statistics(answer) = ask(Stage::Statistics(request), n_shards) else {
            panic!("an answer to another question");
        };
        planner.absorb(*answer).unwrap();
    }
    let ingest = Stage::Ingest {
        transform: Arc::new(planner.finish().unwrap()),
        fingerprints: true,
    };
    ask(ingest, n_shards);
    let n_ranges = clientele_data::duplicates::n_ranges(manifest.n_rows());
    let duplicates = Stage::Duplicates { n_ranges, n_shards };
    let Answer::Duplicates(answer) = ask(duplicates, n_ranges) else {
        panic!("an answer to another question");
    };
    let files = std::fs::read_dir(dir.join("fingerprints"));
    Found {
        n_surplus: answer.n_surplus,
        n_files: files.map_or(0, Iterator::count),
    }
}

/// A table of one file for each of `shards`. `expected` of a worker alone; of another, the same with a file for each shard.
fn check(shards: &[ArrayRef], expected: &Found) {
    let dir = TempDir::new().unwrap();
    let inputs = shards.iter().enumerate().map(|(nth, ids)| {
        let values = Float32Array::from_iter_values((0..ids.len()).map(|row| (row % 7) as f32));
        let columns = vec![("id", ids.clone()), ("f0", Arc::new(values) as ArrayRef)];
        let path = common::parquet(
            dir.path(),
            &format!("{nth}.parquet"),
            &common::table(columns),
        );
        path.display().to_string()
    });
    let table = TableSpec {
        inputs: inputs.collect(),
        id: Some("id".into()),
        columns: Columns::AllNumeric,
        nulls: NullPolicy::Fail,
        value: None,
    };
    let manifest = Arc::new(Manifest::plan(&table).unwrap());
    assert_eq!(manifest.n_shards() as usize, shards.len());
    let job = |name: &str| Job {
        key: RunKey {
            run: name.into(),
            epoch: 0,
        },
        manifest: manifest.clone(),
        assignments_dir: Folder::local(dir.path().join(name).join("assignments")),
        work_dir: Folder::local(dir.path().join(name)),
        spill_dir: dir.path().to_owned(),
    };
    let in_dir = |name: &str| dir.path().join(name);
    // With and without memory for ids that are wanted again.
    for (name, memory_bytes) in [("roomy", MEMORY_BYTES), ("narrow", 0)] {
        let alone = find(&in_dir(name), job(name), memory_bytes, Worker::alone);
        assert_eq!(alone, *expected, "{name}");
    }
    let one_of_some = find(&in_dir("shared"), job("shared"), MEMORY_BYTES, Worker::new);
    let filed = Found {
        n_files: shards.len(),
        ..*expected
    };
    assert_eq!(one_of_some, filed);
}

fn from(first: i64) -> Range<i64> {
    first..first + N_ROWS
}

fn integers(ids: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(ids))
}

#[test]
fn ids_in_order_need_no_files() {
    let expected = Found {
        n_surplus: 0,
        n_files: 0,
    };
    let [a, b, c] = [-N_ROWS, 0, N_ROWS].map(from);
    check(&[integers(a.clone()), integers(b.clone())], &expected);
    // Files come in any order; ids do not all have to be there.
    let sparse = (2 * N_ROWS..).step_by(3).take(N_ROWS as usize);
    check(
        &[integers(sparse), integers(c), integers(a), integers(b)],
        &expected,
    );
    let texts = |ids: Range<i64>| -> ArrayRef {
        let ids = ids.map(|id| format!("customer {id:09}"));
        Arc::new(StringArray::from_iter_values(ids))
    };
    check(&[texts(from(0)), texts(from(N_ROWS))], &expected);
}

#[test]
fn an_id_that_ends_a_file_and_begins_another_occurs_twice() {
    let expected = Found {
        n_surplus: 1,
        n_files: 2,
    };
    check(&[integers(from(0)), integers(from(N_ROWS - 1))], &expected);
}

#[test]
fn files_in_order_that_overlap_are_compared() {
    let even = || (0..).step_by(2).take(N_ROWS as usize);
    let between = even().map(|id| id + 1);
    let after = || integers(from(4 * N_ROWS));
    let expected = |n_surplus| Found {
        n_surplus,
        n_files: 3,
    };
    check(
        &[after(), integers(even()), integers(between)],
        &expected(0),
    );
    let hits = even().map(|id| if id == 1_000 { id } else { id + 1 });
    check(&[after(), integers(even()), integers(hits)], &expected(1));
}

#[test]
fn one_file_out_of_order_has_all_compared() {
    let mut ids: Vec<i64> = from(N_ROWS).collect();
    ids.swap(70_000, 70_001);
    // An id of another file that lies in order, and one that is twice in its own.
    (ids[3], ids[90_000]) = (17, ids[90_001]);
    let shards = [
        integers(from(2 * N_ROWS)),
        integers(from(0)),
        integers(ids),
        integers(from(3 * N_ROWS)),
    ];
    let expected = Found {
        n_surplus: 2,
        n_files: 4,
    };
    check(&shards, &expected);
}
