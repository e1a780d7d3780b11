//! Rows that do not fit into memory are read from disk as far as a pass needs them, and no further.
#![cfg(target_os = "linux")]

mod common;

use std::path::Path;
use std::sync::{Arc, Mutex};

use clientele_data::transform::TransformKind;
use clientele_protocol::{ChannelClosed, FitSpec, Stage, Task, WorkerChannel};
use clientele_worker::{BackendChoice, InProcess};
use common::in_process::{Fit, fit_by, hashes};
use tempfile::TempDir;

const N_ROWS: usize = 400_000;
const N_FEATURES: usize = 16;
/// Memory of which 25 MB are left for rows and what is remembered of them, which take 21 MB and 2.
const ROOMY: u64 = 1 << 30;
/// As much, less what the rows take: some stay in memory, and of all can be remembered which are safe.
const NARROW: u64 = 148_000_000;

/// What this process has read and written through files when it is handed each pass, in bytes.
type Marks = Arc<Mutex<Vec<[u64; 2]>>>;

struct Metered {
    inner: InProcess,
    marks: Marks,
}

impl WorkerChannel for Metered {
    fn send(&self, task: Task) -> Result<(), ChannelClosed> {
        if matches!(*task.stage, Stage::Pass { .. } | Stage::Final { .. }) {
            self.marks.lock().unwrap().push(bytes_moved());
        }
        self.inner.send(task)
    }
}

fn bytes_moved() -> [u64; 2] {
    let io = std::fs::read_to_string("/proc/self/io").unwrap();
    ["rchar: ", "wchar: "].map(|name| {
        let line = io.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|n| n.parse().ok()).expect("it is counted")
    })
}

fn spec() -> FitSpec {
    FitSpec {
        k_range: (8, 8),
        n_restarts: 1,
        init: None,
        seed: 5,
        transform: TransformKind::Zscore,
        max_iter: 200,
        tol: 0.0,
        halving: true,
    }
}

/// Hashes, and what was read and written in each pass.
fn metered(
    dir: &Path,
    table: &Path,
    name: &str,
    memory_bytes: u64,
) -> ((String, String), Vec<[u64; 2]>) {
    let marks = Marks::default();
    let channel = |_, inner| -> Box<dyn WorkerChannel> {
        let marks = marks.clone();
        Box::new(Metered { inner, marks })
    };
    let fit = Fit {
        spec: spec(),
        dir,
        table,
        name,
    };
    let outcome = fit_by(&[BackendChoice::Cpu], memory_bytes, fit, channel).unwrap();
    let marks = marks.lock().unwrap();
    let of_passes = marks
        .windows(2)
        .map(|two| [two[1][0] - two[0][0], two[1][1] - two[0][1]]);
    (hashes(&spec(), &outcome), of_passes.collect())
}

#[test]
fn late_passes_read_little_of_what_is_on_disk() {
    let dir = TempDir::new().unwrap();
    let table = dir.path().join("customers.parquet");
    common::write(&table, &common::blobs(N_ROWS, N_FEATURES, 5), 100_000);
    let (expected, in_memory) = metered(dir.path(), &table, "roomy", ROOMY);
    let (found, on_disk) = metered(dir.path(), &table, "narrow", NARROW);
    assert_eq!(expected, found);
    let most = |passes: &[[u64; 2]]| passes.iter().map(|pass| pass[0]).max().unwrap();
    assert!(most(&in_memory) < 100_000, "{in_memory:?}");
    // From the first passes on rows are on disk, and are read whole.
    let n_spilled = on_disk[0][0];
    assert!(n_spilled > 4_000_000, "{on_disk:?}");
    let (last, _) = on_disk.split_last().unwrap();
    assert!(last[0] * 10 < n_spilled, "{on_disk:?}");
    // In between they were put in order, once or more.
    let n_written: u64 = on_disk.iter().map(|pass| pass[1]).sum();
    assert!(n_written > n_spilled / 2, "{on_disk:?}");
}
