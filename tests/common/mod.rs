//! What the tests of the built binary share: tables to give it, and ways to run it.
#![allow(dead_code, reason = "each test file uses its own part")]

pub mod cluster;
pub mod in_process;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Float32Array, Float64Array, Int64Array, RecordBatch, StringArray, UInt32Array,
};
use arrow::datatypes::Schema;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::properties::WriterProperties;
use serde_json::Value;

/// The binary, ready to be given arguments; no setting of the caller's environment reaches it.
pub fn clientele() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clientele"));
    for name in [
        "CLIENTELE_COORDINATOR",
        "CLIENTELE_INJECT",
        "CLIENTELE_KERNEL",
        "CLIENTELE_LOG",
        "CLIENTELE_PRUNE",
        "CLIENTELE_TLS_CA",
        "CLIENTELE_TLS_CERT",
        "CLIENTELE_TLS_KEY",
        "CLIENTELE_TOKEN_FILE",
    ] {
        command.env_remove(name);
    }
    command
}

/// What a command printed and how it ended.
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs to the end.
pub fn run(command: &mut Command) -> Ran {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().expect("the binary starts");
    Ran {
        code: status.code(),
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    }
}

/// Runs a command that must end well and print JSON.
pub fn summary(command: &mut Command) -> Value {
    let ran = run(command.args(["--format", "json"]));
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    serde_json::from_str(&ran.stdout).expect("standard output is one JSON value")
}

/// `fit` of `table` into `out`.
pub fn fit(table: &Path, out: &Path) -> Command {
    let mut command = clientele();
    command.arg("fit").arg(table).arg("--out").arg(out);
    command
}

/// A file of the run directory, parsed.
pub fn json(run: &Path, name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(run.join(name)).expect("the file is there"))
        .expect("it is JSON")
}

/// Model and assignments, as hashes.
pub fn hashes(summary: &Value) -> (String, String) {
    let hash = |name: &str| summary[name].as_str().expect("a hash").to_owned();
    (hash("model_hash"), hash("assignments_hash"))
}

/// A table of columns.
pub fn table(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter(columns).expect("columns of one length")
}

/// Writes `batch` to a file with row groups of `group_rows`.
pub fn write(path: &Path, batch: &RecordBatch, group_rows: usize) {
    let file = std::fs::File::create(path).expect("the folder is writable");
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(group_rows))
        .build();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties))
        .expect("a schema Parquet knows");
    writer.write(batch).expect("written");
    writer.close().expect("closed");
}

/// Writes `batch` to a new file in `dir` and names it.
pub fn parquet(dir: &Path, name: &str, batch: &RecordBatch) -> PathBuf {
    let path = dir.join(name);
    write(&path, batch, 1 << 20);
    path
}

/// All rows of a folder of Parquet files, files in order of name.
pub fn read_all(dir: &Path) -> RecordBatch {
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)
        .expect("a folder")
        .map(|e| e.expect("an entry").path())
        .collect();
    files.sort();
    let mut batches = Vec::new();
    for file in files {
        let file = std::fs::File::open(file).expect("it opens");
        let reader = ParquetRecordBatchReaderBuilder::try_new(file)
            .expect("it is Parquet")
            .build()
            .expect("it reads");
        batches.extend(reader.map(|batch| batch.expect("it decodes")));
    }
    let schema: Arc<Schema> = batches[0].schema();
    arrow::compute::concat_batches(&schema, &batches).expect("parts of one schema")
}

/// Pseudo-random numbers in [0, 1), the same for ever.
pub struct Mix(pub u64);

impl Mix {
    pub fn next(&mut self) -> f64 {
        // SplitMix64 (Steele, Lea, Flood 2014).
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// `n_rows` customers around `n_groups` overlapping centres: `customer_id` and `f0`, `f1`, ...
pub fn blobs(n_rows: usize, n_features: usize, n_groups: usize) -> RecordBatch {
    let mut mix = Mix(7);
    let centres: Vec<f64> = (0..n_groups * n_features)
        .map(|_| mix.next() * 6.0)
        .collect();
    let groups: Vec<usize> = (0..n_rows)
        .map(|_| (mix.next() * n_groups as f64) as usize)
        .collect();
    let mut columns: Vec<(String, ArrayRef)> = vec![(
        "customer_id".into(),
        Arc::new(Int64Array::from_iter_values(
            (0..n_rows as i64).map(|i| i * 37 + 5),
        )),
    )];
    for f in 0..n_features {
        let noise = |mix: &mut Mix| (0..4).map(|_| mix.next()).sum::<f64>() - 2.0;
        let values: Vec<f32> = groups
            .iter()
            .map(|g| (centres[g * n_features + f] + noise(&mut mix)) as f32)
            .collect();
        columns.push((format!("f{f}"), Arc::new(Float32Array::from(values))));
    }
    RecordBatch::try_from_iter(columns).expect("columns of one length")
}

/// The rows of `batch` in another order.
pub fn shuffled(batch: &RecordBatch) -> RecordBatch {
    let mut order: Vec<u32> = (0..batch.num_rows() as u32).collect();
    let mut mix = Mix(99);
    for i in (1..order.len()).rev() {
        order.swap(i, (mix.next() * (i + 1) as f64) as usize);
    }
    let order = UInt32Array::from(order);
    let columns = batch
        .columns()
        .iter()
        .map(|c| arrow::compute::take(c, &order, None).expect("indices in range"));
    RecordBatch::try_new(batch.schema(), columns.collect()).expect("the same schema")
}

/// A CSV of numbers with a header, as a table of `f64` columns.
pub fn csv(text: &str) -> RecordBatch {
    let mut lines = text.lines().filter(|line| !line.starts_with('#'));
    let names: Vec<String> = lines
        .next()
        .expect("a header")
        .split(',')
        .map(str::to_owned)
        .collect();
    let rows: Vec<Vec<f64>> = lines
        .map(|line| {
            line.split(',')
                .map(|cell| cell.parse().expect("a number"))
                .collect()
        })
        .collect();
    let columns = names.into_iter().enumerate().map(|(i, name)| {
        let values: ArrayRef = Arc::new(Float64Array::from_iter_values(
            rows.iter().map(|row| row[i]),
        ));
        (name, values)
    });
    RecordBatch::try_from_iter(columns).expect("a rectangle")
}

/// The real retail data, if this machine has it: `CLIENTELE_SHARED_DATA`, else beside the checkout.
///
/// # Panics
/// In CI, where a test that needs them must not be skipped.
pub fn shared_data(of: &str) -> Option<PathBuf> {
    let base = std::env::var_os("CLIENTELE_SHARED_DATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"),
        PathBuf::from,
    );
    let found = base.join(of);
    if found.exists() {
        return Some(found);
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "CI must have {}; set CLIENTELE_SHARED_DATA",
        found.display()
    );
    println!(
        "skipped: {} is not there; set CLIENTELE_SHARED_DATA",
        found.display()
    );
    None
}

/// Whether GPU tests may run here; a software device will do.
///
/// # Panics
/// With `CLIENTELE_REQUIRE_GPU=1`, when there is none.
pub fn has_gpu() -> bool {
    let report = run(clientele().args(["doctor", "--format", "json"]));
    let report: Value = serde_json::from_str(&report.stdout).expect("doctor prints JSON");
    let found = report["adapters"]
        .as_array()
        .is_some_and(|all| all.iter().any(|a| a["self_test"] == "right"));
    let required = std::env::var("CLIENTELE_REQUIRE_GPU").is_ok_and(|v| v == "1");
    assert!(
        found || !required,
        "CLIENTELE_REQUIRE_GPU=1 and no adapter passes its self-test"
    );
    if !found {
        println!("skipped: no GPU adapter, not even a software one");
    }
    found
}

/// `customer_id` as text to `persona_id`.
pub fn labels(run: &Path) -> std::collections::BTreeMap<String, u32> {
    let rows = read_all(&run.join("assignments"));
    let ids = arrow::compute::cast(
        rows.column_by_name("customer_id").expect("ids"),
        &arrow::datatypes::DataType::Utf8,
    )
    .expect("ids print");
    let ids = ids.as_any().downcast_ref::<StringArray>().expect("text");
    let personas = arrow::compute::cast(
        rows.column_by_name("persona_id").expect("labels"),
        &arrow::datatypes::DataType::UInt32,
    )
    .expect("labels are integers");
    let personas = personas
        .as_any()
        .downcast_ref::<UInt32Array>()
        .expect("integers");
    (0..rows.num_rows())
        .map(|row| (ids.value(row).to_owned(), personas.value(row)))
        .collect()
}

/// Writes a table that need not fit into memory: `customer_id` and `f0`, `f1`, ...; `value` of (feature, row).
pub fn write_groups(
    path: &Path,
    n_rows: usize,
    n_features: usize,
    value: impl Fn(&mut Mix, usize, usize) -> f32,
) {
    /// Rows of a row group.
    const GROUP_ROWS: usize = 250_000;
    let mut mix = Mix(5);
    let mut writer: Option<ArrowWriter<std::fs::File>> = None;
    for start in (0..n_rows).step_by(GROUP_ROWS) {
        let rows = start..(start + GROUP_ROWS).min(n_rows);
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(
            rows.clone().map(|row| row as i64),
        ));
        let mut columns = vec![("customer_id".to_owned(), ids)];
        for f in 0..n_features {
            let values = rows.clone().map(|row| value(&mut mix, f, row));
            columns.push((
                format!("f{f}"),
                Arc::new(Float32Array::from_iter_values(values)),
            ));
        }
        let batch = RecordBatch::try_from_iter(columns).expect("columns of one length");
        let writer = writer.get_or_insert_with(|| {
            let properties = WriterProperties::builder()
                .set_max_row_group_row_count(Some(GROUP_ROWS))
                .set_dictionary_enabled(false)
                .build();
            let file = std::fs::File::create(path).expect("the temporary folder is writable");
            ArrowWriter::try_new(file, batch.schema(), Some(properties))
                .expect("a schema Parquet knows")
        });
        writer.write(&batch).expect("written");
    }
    writer.expect("there are rows").close().expect("closed");
}
