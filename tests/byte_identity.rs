//! The same customers, spec and seed give the same bytes, whatever computes them and however they are cut into files.

mod common;

use std::path::Path;
use std::process::Command;

use arrow::record_batch::RecordBatch;
use common::{blobs, fit, has_gpu, hashes, json, parquet, run, shuffled, summary, write};
use serde_json::Value;
use tempfile::TempDir;

const SPEC: [&str; 8] = [
    "--id",
    "customer_id",
    "--k",
    "2..4",
    "--restarts",
    "2",
    "--seed",
    "3",
];

/// The hashes of one fit of `table`, with `set` applied to the command.
fn hashes_of(
    dir: &TempDir,
    name: &str,
    table: &Path,
    set: impl Fn(&mut Command),
) -> (String, String) {
    let mut command = fit(table, &dir.path().join(name));
    command.args(SPEC);
    set(&mut command);
    hashes(&summary(&mut command))
}

fn small() -> (TempDir, std::path::PathBuf, RecordBatch) {
    let dir = TempDir::new().unwrap();
    let batch = blobs(150_000, 5, 4);
    let path = parquet(dir.path(), "customers.parquet", &batch);
    (dir, path, batch)
}

#[test]
fn any_number_of_workers_gives_the_same_bytes() {
    let dir = TempDir::new().unwrap();
    // 2,400,000 rows are ten shards, so that eight workers all have something to do.
    let table = dir.path().join("customers.parquet");
    write(&table, &blobs(2_400_000, 2, 4), 1_000_000);
    let of = |name: &str, flags: [&str; 2]| {
        let out = dir.path().join(name);
        let spec = ["--id", "customer_id", "--k", "3", "--restarts", "2"];
        let hashes = hashes(&summary(fit(&table, &out).args(spec).args(flags)));
        assert!(
            std::fs::read_dir(out.join("assignments")).unwrap().count() >= 10,
            "too few shards to share"
        );
        hashes
    };
    let one = of("w1", ["--workers", "1"]);
    for n in ["2", "3", "8"] {
        assert_eq!(one, of(n, ["--workers", n]), "{n} workers");
    }
    assert_eq!(one, of("t1", ["--threads", "1"]), "one thread");
}

#[test]
fn every_kernel_of_this_processor_gives_the_same_bytes() {
    let (dir, table, _) = small();
    let best = hashes_of(&dir, "best", &table, |_| ());
    let report = run(common::clientele().args(["doctor", "--format", "json"]));
    let report: serde_json::Value = serde_json::from_str(&report.stdout).unwrap();
    let kernels: Vec<String> = report["kernels"]
        .as_array()
        .unwrap()
        .iter()
        .map(|kernel| {
            kernel["name"]
                .as_str()
                .unwrap()
                .trim_start_matches("cpu ")
                .to_owned()
        })
        .collect();
    assert!(kernels.contains(&"scalar".to_owned()), "{kernels:?}");
    for kernel in kernels {
        let mut command = fit(&table, &dir.path().join(&kernel));
        let summary = summary(
            command
                .args(SPEC)
                .args(["--backend", "cpu"])
                .env("CLIENTELE_KERNEL", &kernel),
        );
        assert_eq!(best, hashes(&summary), "{kernel}");
        let ran = summary["backend"][0]["backend"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(ran.contains(&kernel), "asked for {kernel}, {ran} ran");
    }
}

#[test]
fn a_gpu_gives_the_same_bytes() {
    if !has_gpu() {
        return;
    }
    let (dir, table, _) = small();
    let cpu = hashes_of(&dir, "cpu", &table, |c| _ = c.args(["--backend", "cpu"]));
    let mut command = fit(&table, &dir.path().join("gpu"));
    let summary = summary(command.args(SPEC).args(["--backend", "gpu"]));
    assert_eq!(cpu, hashes(&summary));
    let ran = summary["backend"].as_array().unwrap();
    assert!(
        ran.iter()
            .all(|b| b["backend"].as_str().unwrap().starts_with("gpu")),
        "{ran:?}"
    );
}

#[test]
fn a_gpu_lost_in_mid_run_gives_the_same_bytes() {
    if !has_gpu() {
        return;
    }
    let (dir, table, _) = small();
    let cpu = hashes_of(&dir, "cpu", &table, |c| _ = c.args(["--backend", "cpu"]));
    let mut command = fit(&table, &dir.path().join("lost"));
    command
        .args(SPEC)
        .args(["--backend", "gpu"])
        .env("CLIENTELE_INJECT", "lose-gpu-after:1");
    let ran = run(command.args(["--format", "json"]));
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let summary: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(cpu, hashes(&summary));
    // The fault has fired: both have computed, and the loss was said once.
    assert!(summary["rescued_blocks"].as_u64().unwrap() >= 1);
    let backends: Vec<&str> = summary["backend"]
        .as_array()
        .unwrap()
        .iter()
        .map(|b| b["backend"].as_str().unwrap())
        .collect();
    assert!(
        backends.iter().any(|b| b.starts_with("gpu"))
            && backends.iter().any(|b| b.starts_with("cpu")),
        "{backends:?}"
    );
    assert_eq!(
        ran.stderr.matches("the GPU is lost").count(),
        1,
        "{}",
        ran.stderr
    );
}

#[test]
fn a_gpu_that_leaves_rows_out_gives_the_same_bytes() {
    if !has_gpu() {
        return;
    }
    let (dir, table, _) = small();
    // More clusters than there are groups: a long fit of one candidate.
    let spec = ["--id", "customer_id", "--k", "9", "--restarts", "1"];
    let to_the_end = ["--seed", "3", "--tol", "0", "--max-iter", "60"];
    let of = |name: &str, set: &dyn Fn(&mut Command)| {
        let mut command = fit(&table, &dir.path().join(name));
        command
            .args(spec)
            .args(to_the_end)
            .args(["--format", "json"]);
        command.env("CLIENTELE_LOG", "clientele=info,clientele_gpu=debug,warn");
        set(&mut command);
        let ran = run(&mut command);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        let summary: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        let n_leaving_out = ran.stderr.matches("a GPU pass left rows out").count();
        (hashes(&summary), n_leaving_out, ran.stderr)
    };
    let (cpu, none, _) = of("cpu", &|c| _ = c.args(["--backend", "cpu"]));
    assert_eq!(none, 0);
    let (leaving_out, n_passes, _) = of("gpu", &|c| _ = c.args(["--backend", "gpu"]));
    assert!(n_passes > 3, "only {n_passes} passes left rows out");
    assert_eq!(leaving_out, cpu);
    let (all, none, _) = of("all", &|c| {
        c.args(["--backend", "gpu"]).env("CLIENTELE_PRUNE", "off");
    });
    assert_eq!((all, none), (cpu.clone(), 0));
    // Lost between two passes that leave rows out.
    let (lost, n_before, stderr) = of("lost", &|c| {
        let after = format!("lose-gpu-after:{n_passes}");
        c.args(["--backend", "gpu"]).env("CLIENTELE_INJECT", after);
    });
    assert_eq!(lost, cpu);
    assert!(
        n_before < n_passes && stderr.contains("the GPU is lost"),
        "{stderr}"
    );
}

#[test]
fn a_gpu_that_computes_wrongly_is_not_used() {
    if !has_gpu() {
        return;
    }
    let (dir, table, _) = small();
    let cpu = hashes_of(&dir, "cpu", &table, |c| _ = c.args(["--backend", "cpu"]));
    let mut command = fit(&table, &dir.path().join("wrong"));
    command
        .args(SPEC)
        .args(["--backend", "gpu", "--format", "json"])
        .env("CLIENTELE_INJECT", "wrong-self-test");
    let ran = run(&mut command);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("computes wrongly and is not used"),
        "{}",
        ran.stderr
    );
    let summary: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(cpu, hashes(&summary));
    assert!(
        !summary["backend"].to_string().contains("gpu"),
        "{}",
        summary["backend"]
    );
}

#[test]
fn rows_in_any_order_and_files_of_any_cut_give_the_same_bytes() {
    let (dir, table, batch) = small();
    let whole = hashes_of(&dir, "whole", &table, |_| ());
    let shuffled_rows = shuffled(&batch);
    for n_files in [1, 7, 50] {
        let folder = dir.path().join(format!("cut{n_files}"));
        std::fs::create_dir(&folder).unwrap();
        let rows = batch.num_rows().div_ceil(n_files);
        for nth in 0..n_files {
            let start = nth * rows;
            let part = shuffled_rows.slice(start, rows.min(batch.num_rows() - start));
            // Row groups of 1,000 rows in every other file.
            write(
                &folder.join(format!("{nth:02}.parquet")),
                &part,
                if nth % 2 == 0 { 1_000 } else { 1_000_000 },
            );
        }
        assert_eq!(
            whole,
            hashes_of(&dir, &format!("out{n_files}"), &folder, |_| ()),
            "{n_files} files"
        );
    }
}

#[test]
fn leaving_rows_out_gives_the_same_bytes() {
    let dir = TempDir::new().unwrap();
    let table = parquet(dir.path(), "customers.parquet", &blobs(70_000, 5, 6));
    let cases: [(&str, &[&str]); 2] = [
        // Candidates side by side; the best of each k is picked while others still move.
        ("sweep", &["--k", "2..6", "--restarts", "3"]),
        // One, until nothing moves: bounds run out, and rows are put in their order on the way.
        (
            "one",
            &[
                "--k",
                "7",
                "--restarts",
                "1",
                "--tol",
                "0",
                "--max-iter",
                "300",
            ],
        ),
    ];
    for (name, spec) in cases {
        let of = |name: String, prune: Option<&str>| {
            let mut command = fit(&table, &dir.path().join(name));
            command.args(["--id", "customer_id", "--seed", "3", "--backend", "cpu"]);
            command
                .args(spec)
                .envs(prune.map(|it| ("CLIENTELE_PRUNE", it)));
            summary(&mut command)
        };
        let all = of(format!("{name}-all"), Some("off"));
        let some = of(name.to_owned(), None);
        assert_eq!(hashes(&all), hashes(&some), "{name}");
    }
}

#[test]
fn the_same_starts_are_given_up_everywhere_or_none() {
    let dir = TempDir::new().unwrap();
    let table = dir.path().join("customers.parquet");
    // 600,000 rows are three shards, for three workers.
    write(&table, &blobs(600_000, 4, 30), 100_000);
    let of = |name: &str, flags: &[&str]| {
        let out = dir.path().join(name);
        let mut command = fit(&table, &out);
        command.args(["--id", "customer_id", "--k", "3..8", "--restarts", "3"]);
        command.args(["--tol", "0", "--max-iter", "40", "--seed", "5"]);
        let summary = summary(command.args(flags));
        (hashes(&summary), summary, json(&out, "model.json"))
    };
    let (one, summary, model) = of("one", &[]);
    let candidates = model["candidates"].as_array().unwrap();
    let n_given_up = candidates.iter().filter(|it| !it["given_up"].is_null());
    assert_eq!(summary["n_given_up"], n_given_up.count());
    assert_ne!(summary["n_given_up"], 0);
    for candidate in candidates {
        let why = &candidate["given_up"];
        assert_eq!(why.is_null(), candidate["stop_reason"] != "given_up");
        if !why.is_null() {
            let number = |it: &Value| it.as_i64().unwrap();
            let left = number(&why["n_rounds_left"]);
            assert_eq!(number(&candidate["n_iter"]) + left, 40);
            let forecast =
                number(&candidate["inertia_grid"]) - left * number(&why["decrease_grid"]);
            assert!(
                forecast > number(&why["leader_inertia_grid"]),
                "{candidate}"
            );
        }
    }
    assert_eq!(one, of("three", &["--workers", "3", "--threads", "3"]).0);
    let (all, summary, model) = of("all", &["--no-halving"]);
    assert_eq!(summary["n_given_up"], 0);
    assert!(!model.to_string().contains("given_up"));
    // What the version before halving made of this table.
    let before = "e79f683a8f77147b49b8a2da6c3d51dcd4c36e15c2e2371e6be7bcb17c5a5808";
    assert_eq!(all.0, before);
    assert_eq!(one.1, all.1, "here nothing is lost by it");
}

#[test]
fn little_memory_gives_the_same_bytes() {
    let dir = TempDir::new().unwrap();
    // 400,000 x 64 are 102 MB on the grid; of 256 MiB nothing is left for them, so that every block is spilled.
    let batch = blobs(400_000, 64, 4);
    let path = dir.path().join("wide.parquet");
    write(&path, &batch, 50_000);
    let spec = [
        "--id",
        "customer_id",
        "--k",
        "3",
        "--restarts",
        "1",
        "--max-iter",
        "5",
    ];
    let of = |name: &str, memory: &str| {
        summary(fit(&path, &dir.path().join(name)).args(spec).args([
            "--memory",
            memory,
            "--backend",
            "cpu",
        ]))
    };
    let (plenty, little) = (of("plenty", "8GiB"), of("little", "256MiB"));
    assert_eq!(hashes(&plenty), hashes(&little));
    if let (Some(a), Some(b)) = (
        plenty["peak_rss_bytes"].as_u64(),
        little["peak_rss_bytes"].as_u64(),
    ) {
        assert!(b < a, "nothing was streamed: {a} bytes against {b}");
    }
}

#[test]
fn another_seed_or_one_changed_value_gives_other_bytes() {
    let (dir, table, batch) = small();
    let whole = hashes_of(&dir, "whole", &table, |_| ());
    let mut columns = batch.columns().to_vec();
    let f0 = columns[1]
        .as_any()
        .downcast_ref::<arrow::array::Float32Array>()
        .unwrap();
    let mut values: Vec<f32> = f0.values().to_vec();
    values[77] += 3.0;
    columns[1] = std::sync::Arc::new(arrow::array::Float32Array::from(values));
    let changed = RecordBatch::try_new(batch.schema(), columns).unwrap();
    let changed = parquet(dir.path(), "changed.parquet", &changed);
    let (model, labels) = hashes_of(&dir, "changed", &changed, |_| ());
    assert_ne!(whole.0, model);
    assert_ne!(whole.1, labels);
}
