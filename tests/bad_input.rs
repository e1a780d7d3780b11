//! Every bad input gets fact, cause and way out, the exit code of its class, and nothing that looks finished.

mod common;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Date32Array, Float64Array, Int64Array, StringArray};
use common::{Ran, blobs, clientele, fit, json, parquet, run, summary, table, write};
use tempfile::TempDir;

/// The command fails with `code`, says each of `facts`, and leaves no result in `out`.
fn check(command: &mut Command, out: &Path, code: i32, facts: &[&str]) -> Ran {
    let ran = run(command);
    assert_eq!(ran.code, Some(code), "{}", ran.stderr);
    assert!(
        ran.stderr.starts_with("error: ") || ran.stderr.contains("\nerror: "),
        "{}",
        ran.stderr
    );
    for fact in facts {
        assert!(ran.stderr.contains(fact), "no `{fact}` in: {}", ran.stderr);
    }
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
    assert_eq!(ran.stdout, "", "results on standard output of a failed run");
    assert!(
        !out.join("_COMMITTED").exists(),
        "a failed run looks finished"
    );
    ran
}

fn good(dir: &Path) -> std::path::PathBuf {
    parquet(dir, "good.parquet", &blobs(3_000, 3, 3))
}

fn ids(values: Vec<i64>) -> ArrayRef {
    Arc::new(Int64Array::from(values))
}

fn numbers(values: Vec<f64>) -> ArrayRef {
    Arc::new(Float64Array::from(values))
}

#[test]
fn files_that_are_not_there() {
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("out");
    check(
        &mut fit(&dir.path().join("none.parquet"), &out),
        &out,
        3,
        &["no such file", "none.parquet"],
    );
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    check(
        &mut fit(&empty, &out),
        &out,
        3,
        &["holds no *.parquet file"],
    );
    check(
        &mut fit(&dir.path().join("*.parquet"), &out),
        &out,
        3,
        &["no file matches"],
    );
}

#[test]
fn zero_rows() {
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("out");
    let path = parquet(dir.path(), "zero.parquet", &blobs(10, 2, 1).slice(0, 0));
    check(&mut fit(&path, &out), &out, 3, &["rows"]);
}

#[test]
fn broken_and_foreign_files_are_listed_all_at_once() {
    let dir = TempDir::new().unwrap();
    let (out, folder) = (dir.path().join("out"), dir.path().join("in"));
    std::fs::create_dir(&folder).unwrap();
    let good = good(&folder);
    let bytes = std::fs::read(good).unwrap();
    std::fs::write(folder.join("truncated.parquet"), &bytes[..bytes.len() / 2]).unwrap();
    std::fs::write(folder.join("foreign.parquet"), "customer,spend\n1,2\n").unwrap();
    std::fs::write(folder.join("nothing.parquet"), "").unwrap();
    let facts = [
        "3 of 4 files",
        "truncated.parquet",
        "foreign.parquet",
        "nothing.parquet",
    ];
    check(&mut fit(&folder, &out), &out, 3, &facts);
}

#[test]
fn a_column_that_is_missing_or_of_another_type_in_one_file_of_many() {
    let dir = TempDir::new().unwrap();
    let (out, folder) = (dir.path().join("out"), dir.path().join("in"));
    std::fs::create_dir(&folder).unwrap();
    let batch = table(vec![
        ("id", ids(vec![1, 2])),
        ("spend", numbers(vec![1.0, 2.0])),
    ]);
    parquet(&folder, "a.parquet", &batch);
    parquet(&folder, "b.parquet", &batch.project(&[0]).unwrap());
    check(
        &mut fit(&folder, &out),
        &out,
        3,
        &["`spend`", "missing", "b.parquet"],
    );
    let text: ArrayRef = Arc::new(StringArray::from(vec!["1", "2"]));
    parquet(
        &folder,
        "b.parquet",
        &table(vec![("id", ids(vec![3, 4])), ("spend", text)]),
    );
    check(
        &mut fit(&folder, &out),
        &out,
        3,
        &["`spend`", "Utf8", "Float64", "a.parquet", "b.parquet"],
    );
}

#[test]
fn a_column_that_nobody_has_is_answered_with_the_nearest() {
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("out");
    let path = good(dir.path());
    check(
        fit(&path, &out).args(["--columns", "f0,f11"]),
        &out,
        3,
        &["`f11`", "f1"],
    );
    check(
        fit(&path, &out).args(["--id", "customer"]),
        &out,
        3,
        &["`customer`", "customer_id"],
    );
}

#[test]
fn a_feature_that_is_no_number() {
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("out");
    let days: ArrayRef = Arc::new(Date32Array::from(vec![1, 2, 3]));
    let path = parquet(
        dir.path(),
        "t.parquet",
        &table(vec![("id", ids(vec![1, 2, 3])), ("signup_date", days)]),
    );
    let facts = [
        "column `signup_date` cannot be a feature",
        "caused by: its type is Date32",
        "hint: ",
    ];
    check(
        fit(&path, &out).args(["--columns", "signup_date"]),
        &out,
        3,
        &facts,
    );
}

#[test]
fn duplicate_ids_are_counted_and_shown_hashed() {
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("out");
    let mut all: Vec<i64> = (1_000_000..1_000_100).collect();
    all[7] = 1_000_050;
    all[9] = 1_000_050;
    let values: Vec<f64> = (0..100).map(f64::from).collect();
    let path = parquet(
        dir.path(),
        "t.parquet",
        &table(vec![("id", ids(all)), ("x", numbers(values))]),
    );
    let ran = check(
        fit(&path, &out).args(["--id", "id"]),
        &out,
        3,
        &["not unique", "2 surplus", "hint: "],
    );
    assert!(
        !ran.stderr.contains("1000050"),
        "an id is in the log: {}",
        ran.stderr
    );
}

#[test]
fn nan_and_null_are_imputed_and_counted_by_column() {
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("out");
    // Of 60 values 15 are null and 1 is NaN: enough to be told on a board, which is silent about fewer than 11 customers.
    let value = |i: u32| match i {
        7 => Some(f64::NAN),
        i if i % 4 == 0 => None,
        i => Some(f64::from(i)),
    };
    let x: ArrayRef = Arc::new((0..60).map(value).collect::<Float64Array>());
    let batch = table(vec![
        ("x", x),
        ("y", numbers((0..60).map(f64::from).collect())),
    ]);
    let path = parquet(dir.path(), "t.parquet", &batch);
    let summary = summary(fit(&path, &out).args(["--k", "2"]));
    assert_eq!(summary["n_rows"], 60);
    let board = std::fs::read_to_string(out.join("board.html")).unwrap();
    assert!(
        board.contains("16"),
        "the board does not say that 16 values were imputed"
    );
    // The lower median of the 44 values: 1, 2, 3, 5, 6, 9, ...; the 22nd is 30.
    assert_eq!(
        json(&out, "model.json")["transform"]["features"][0]["impute"],
        30.0
    );
    let out = dir.path().join("fail");
    check(
        fit(&path, &out).args(["--k", "2", "--nulls", "fail"]),
        &out,
        3,
        &["`x`", "15 null", "1 NaN"],
    );
    let out = dir.path().join("drop");
    let dropped = common::summary(fit(&path, &out).args(["--k", "2", "--nulls", "drop"]));
    assert_eq!(dropped["n_rows"], 44);
    let kept = common::read_all(&out.join("assignments"));
    assert_eq!(kept.num_rows(), 44);
    let ids = kept
        .column(0)
        .as_any()
        .downcast_ref::<Int64Array>()
        .unwrap();
    assert_eq!(
        ids.values()[..4],
        [1, 2, 3, 5],
        "labels must stay with their rows"
    );
}

#[test]
fn infinities_end_the_run_by_column_and_reason() {
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("out");
    let batch = table(vec![
        (
            "x",
            numbers(vec![1.0, f64::INFINITY, f64::NEG_INFINITY, f64::INFINITY]),
        ),
        ("y", numbers(vec![0.0, 1.0, 2.0, 3.0])),
    ]);
    let path = parquet(dir.path(), "t.parquet", &batch);
    check(&mut fit(&path, &out), &out, 3, &["`x`", "2 +inf", "1 -inf"]);
}

#[test]
fn k_out_of_range() {
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("out");
    let path = good(dir.path());
    check(
        fit(&path, &out).args(["--k", "0"]),
        &out,
        2,
        &["0 personas"],
    );
    check(fit(&path, &out).args(["--k", "5..2"]), &out, 2, &["empty"]);
    check(
        fit(&path, &out).args(["--k", "4097"]),
        &out,
        7,
        &["4097", "4096"],
    );
    check(
        fit(&path, &out).args(["--k", "4096", "--restarts", "4000"]),
        &out,
        7,
        &["limit"],
    );
}

#[test]
fn k_above_the_distinct_rows_gives_fewer_personas_and_a_warning() {
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("out");
    let values: Vec<f64> = (0..300).map(|i| f64::from(i % 3)).collect();
    let path = parquet(
        dir.path(),
        "t.parquet",
        &table(vec![("x", numbers(values))]),
    );
    let summary = summary(fit(&path, &out).args(["--k", "8", "--transform", "none"]));
    assert_eq!(summary["n_clusters"], 3);
    assert_eq!(summary["inertia"], 0.0);
    assert!(
        summary["warnings"].to_string().contains("distinct"),
        "{}",
        summary["warnings"]
    );
    assert_eq!(
        json(&out, "personas.json")["personas"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
}

#[test]
fn one_row_constant_columns_and_one_persona_end_well() {
    let dir = TempDir::new().unwrap();
    let one = parquet(
        dir.path(),
        "one.parquet",
        &table(vec![("x", numbers(vec![4.5])), ("y", numbers(vec![1.0]))]),
    );
    let summary_of = |path: &Path, name: &str, args: &[&str]| {
        summary(fit(path, &dir.path().join(name)).args(args))
    };
    assert_eq!(summary_of(&one, "one", &[])["n_clusters"], 1);
    let constant = table(vec![
        ("x", numbers(vec![2.0; 50])),
        ("flag", Arc::new(BooleanArray::from(vec![true; 50]))),
    ]);
    let constant = parquet(dir.path(), "constant.parquet", &constant);
    let summary = summary_of(&constant, "constant", &[]);
    assert_eq!(summary["n_clusters"], 1);
    assert!(
        summary["warnings"].to_string().contains("`x`"),
        "{}",
        summary["warnings"]
    );
    assert_eq!(
        summary_of(&good(dir.path()), "k1", &["--k", "1"])["n_clusters"],
        1
    );
    let seconds = common::read_all(&dir.path().join("k1/assignments"));
    assert_eq!(
        seconds
            .column_by_name("second_persona_id")
            .unwrap()
            .null_count(),
        3_000
    );
}

#[test]
fn three_hundred_columns_end_well() {
    let dir = TempDir::new().unwrap();
    let path = parquet(dir.path(), "wide.parquet", &blobs(2_000, 300, 3));
    let out = dir.path().join("out");
    assert_eq!(
        summary(fit(&path, &out).args(["--id", "customer_id", "--k", "3"]))["n_clusters"],
        3
    );
    assert!(std::fs::metadata(out.join("board.html")).unwrap().len() > 10_000);
}

#[test]
fn conflicting_starts() {
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("out");
    let path = good(dir.path());
    let init = parquet(dir.path(), "init.parquet", &blobs(3, 3, 3));
    let mut command = fit(&path, &out);
    command
        .args(["--id", "customer_id", "--k", "4", "--init"])
        .arg(&init);
    check(&mut command, &out, 2, &["--init has 3 centroids"]);
    let narrow = parquet(dir.path(), "narrow.parquet", &blobs(3, 2, 3));
    check(
        fit(&path, &out)
            .args(["--id", "customer_id", "--init"])
            .arg(&narrow),
        &out,
        3,
        &["`f2`", "missing"],
    );
}

#[test]
fn a_committed_run_is_never_overwritten() {
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("out");
    let path = good(dir.path());
    summary(fit(&path, &out).args(["--k", "2"]));
    let before = std::fs::read(out.join("model.json")).unwrap();
    let ran = run(fit(&path, &out).args(["--k", "3"]));
    assert_eq!(ran.code, Some(6), "{}", ran.stderr);
    assert_eq!(before, std::fs::read(out.join("model.json")).unwrap());
    // Nor is a folder that holds something else.
    let other = dir.path().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("thesis.txt"), "years of work").unwrap();
    let ran = run(&mut fit(&path, &other));
    assert_eq!(ran.code, Some(6), "{}", ran.stderr);
    assert_eq!(
        std::fs::read(other.join("thesis.txt")).unwrap(),
        b"years of work"
    );
}

#[cfg(unix)]
#[test]
fn a_killed_run_leaves_nothing_that_looks_finished_and_can_be_run_again() {
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("out");
    let path = parquet(dir.path(), "t.parquet", &blobs(400_000, 8, 5));
    let mut child = fit(&path, &out)
        .stderr(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while !out.exists() {
        assert!(
            child.try_wait().unwrap().is_none(),
            "the run ended before it could be killed"
        );
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!out.join("_COMMITTED").exists());
    assert_eq!(
        summary(fit(&path, &out).args(["--k", "3"]))["n_clusters"],
        3
    );
}

#[test]
fn an_output_folder_that_cannot_be_written() {
    let dir = TempDir::new().unwrap();
    let path = good(dir.path());
    let file = dir.path().join("a-file");
    std::fs::write(&file, "").unwrap();
    let out = file.join("out");
    check(&mut fit(&path, &out), &out, 2, &["a-file"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_named() {
    let dir = TempDir::new().unwrap();
    let path = good(dir.path());
    // A file system of 64 KiB; only root may mount one.
    let disk = dir.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"])
        .arg(&disk)
        .output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        println!("skipped: this user cannot mount a small file system");
        return;
    }
    let out = disk.join("out");
    let ran = run(fit(&path, &out).args(["--id", "customer_id"]));
    let unmounted = Command::new("umount").arg(&disk).status();
    assert_eq!(ran.code, Some(5), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("No space left") || ran.stderr.contains("full"),
        "{}",
        ran.stderr
    );
    assert!(unmounted.is_ok_and(|status| status.success()));
}

#[test]
fn config_mistakes_name_line_and_nearest_key() {
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("out");
    let config = dir.path().join("clientele.toml");
    std::fs::write(&config, "[tables.transactions]\npath = \"t.parquet\"\ncustomer = \"c\"\ntimestamp = \"t\"\nammount = \"a\"\n").unwrap();
    let run_it = |out: &Path| {
        let mut command = clientele();
        command
            .arg("run")
            .arg("-c")
            .arg(&config)
            .arg("--out")
            .arg(out);
        command
    };
    check(
        &mut run_it(&out),
        &out,
        2,
        &["line 5", "`ammount`", "`amount`"],
    );
    // A setting that makes no sense is refused before a folder is made.
    std::fs::write(
        &config,
        "[tables.transactions]\npath = \"t.parquet\"\ncustomer = \"c\"\ntimestamp = \"t\"\n[fit]\nk = \"5..2\"\n",
    )
    .unwrap();
    check(&mut run_it(&out), &out, 2, &["fit.k", "empty"]);
    assert!(!out.exists());
    std::fs::remove_file(&config).unwrap();
    check(&mut run_it(&out), &out, 2, &["cannot read config"]);
}

#[test]
fn a_file_that_changes_between_plan_and_read_ends_the_run() {
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("out");
    let path = dir.path().join("t.parquet");
    let batch = blobs(600_000, 12, 5);
    write(&path, &batch, 50_000);
    let changed = dir.path().join("changed");
    write(&changed, &batch.slice(0, batch.num_rows() - 1), 50_000);
    let mut child = fit(&path, &out)
        .args(["--id", "customer_id", "--threads", "1"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // The run has planned its input when its folder is there.
    while !out.exists() {
        assert!(
            child.try_wait().unwrap().is_none(),
            "the run ended before its input could change"
        );
        std::thread::yield_now();
    }
    std::fs::rename(&changed, &path).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{stderr}");
    assert!(
        stderr.contains("t.parquet") && stderr.contains("hint: "),
        "{stderr}"
    );
    assert!(!out.join("_COMMITTED").exists());
}
