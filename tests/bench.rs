//! Promises about `clientele bench`. No time is looked at: a busy machine must not break a build.

mod common;

use std::path::Path;
use std::process::Command;

use common::{Ran, clientele, run};
use serde_json::Value;
use tempfile::TempDir;

/// A bench that is over at once, where `args` do not say otherwise.
fn bench(args: &[&str]) -> Command {
    let small = [
        ("--rows", "2000"),
        ("--features", "4"),
        ("--clusters", "3,7"),
        ("--passes", "2"),
    ];
    let mut command = clientele();
    command.arg("bench");
    for (name, value) in small {
        if !args.contains(&name) {
            command.args([name, value]);
        }
    }
    command.args(args);
    command
}

fn ok(args: &[&str]) -> Ran {
    let ran = run(&mut bench(args));
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    ran
}

fn json(args: &[&str]) -> Value {
    let ran = ok(&[args, &["--format", "json"]].concat());
    serde_json::from_str(&ran.stdout).expect("standard output is one JSON value")
}

/// Ends with `code`, and says each of `words` on standard error and nothing on standard output.
fn refused(command: &mut Command, code: i32, words: &[&str]) {
    let ran = run(command);
    assert_eq!(ran.code, Some(code), "{}{}", ran.stdout, ran.stderr);
    for word in words {
        assert!(
            ran.stderr.contains(word),
            "{word} is missing in: {}",
            ran.stderr
        );
    }
    assert_eq!(ran.stdout, "");
}

#[test]
fn every_kernel_finds_the_same_models() {
    let found = json(&["--backend", "cpu", "--kernel", "scalar"]);
    let points = found["points"].as_array().expect("points");
    assert_eq!(
        points.len(),
        4,
        "two kinds of rows, two numbers of clusters"
    );
    let best = json(&["--backend", "cpu"]);
    for (scalar, best) in points
        .iter()
        .zip(best["points"].as_array().expect("points"))
    {
        for field in [
            "data",
            "n_rows",
            "n_features",
            "n_clusters",
            "n_iter",
            "inertia_grid",
            "model_hash",
        ] {
            assert_eq!(scalar[field], best[field], "{field}");
        }
        assert!(
            scalar["pass_ms"]["median"]
                .as_f64()
                .is_some_and(|ms| ms > 0.0)
        );
        assert!(
            scalar["certified_share"]
                .as_f64()
                .is_some_and(|share| (0.0..=1.0).contains(&share))
        );
        assert!(
            scalar["roofline_share"]
                .as_f64()
                .is_some_and(|share| share > 0.0)
        );
    }
    assert_eq!(found["schema"], 1);
    assert_eq!(found["devices"][0]["is_software"], false);
    assert!(
        found["devices"][0]["controls"]["copy_bytes_per_s"]
            .as_f64()
            .is_some_and(|x| x > 0.0)
    );
}

#[test]
fn models_are_those_of_every_other_machine() {
    let found = json(&["--backend", "cpu", "--clusters", "3"]);
    // crates/bench/tests/golden.py, which makes rows and models again in Python.
    assert_eq!(found["points"][0]["inertia_grid"], "879914337978452");
    assert_eq!(found["points"][1]["inertia_grid"], "16958180540");
}

#[test]
fn threads_do_not_matter() {
    let hashes = |threads: &str| {
        let found = json(&["--backend", "cpu", "--rows", "70000", "--threads", threads]);
        let points = found["points"].as_array().expect("points").clone();
        points
            .iter()
            .map(|point| point["model_hash"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(hashes("1"), hashes("3"));
}

#[test]
fn the_table_fits_a_hundred_columns() {
    let ran = ok(&["--backend", "cpu"]);
    assert!(
        ran.stdout.lines().all(|line| line.chars().count() <= 100),
        "{}",
        ran.stdout
    );
    for word in [
        "multiply-add",
        "certified",
        "mixture",
        "skewed",
        "The model is the same on every machine",
    ] {
        assert!(ran.stdout.contains(word), "{word}");
    }
}

#[test]
fn software_devices_run_only_when_forced_and_say_what_they_are() {
    let forced = run(&mut bench(&["--backend", "all", "--data", "mixture"]));
    if forced.code == Some(2) && std::env::var_os("CLIENTELE_REQUIRE_GPU").is_none() {
        assert!(
            forced.stderr.contains("no GPU adapter"),
            "{}",
            forced.stderr
        );
        return;
    }
    assert_eq!(forced.code, Some(0), "{}", forced.stderr);
    assert!(
        forced
            .stdout
            .contains("All devices found the same model at every shape")
    );
    let limits = forced.stdout.matches(", multiply-add ").count();
    let devices = forced.stdout.matches("\ndata  ").count();
    assert!(limits >= 2 && limits == devices, "{}", forced.stdout);
    if forced.stdout.contains("SOFTWARE") {
        let auto = ok(&["--data", "mixture"]);
        assert!(!auto.stdout.contains("SOFTWARE"), "{}", auto.stdout);
    }
}

#[test]
fn controls_come_without_points() {
    let found = json(&["--backend", "cpu", "--controls"]);
    assert_eq!(found["points"], Value::Array(Vec::new()));
    assert!(
        found["devices"][0]["controls"]["multiply_adds_per_s"]
            .as_f64()
            .is_some_and(|x| x > 0.0)
    );
}

#[test]
fn a_page_opens_from_disk_alone() {
    let dir = TempDir::new().expect("a temporary folder");
    let file = dir.path().join("bench.html");
    ok(&["--backend", "cpu", "--html", text(&file)]);
    let html = std::fs::read_to_string(&file).expect("the page");
    for forbidden in ["http:", "https:", "<script", "src=", "url("] {
        assert!(!html.contains(forbidden), "{forbidden}");
    }
    assert!(html.contains("<svg") && html.contains("width=device-width"));
}

#[test]
fn saved_runs_are_compared_and_a_different_model_is_an_error() {
    let dir = TempDir::new().expect("a temporary folder");
    let (a, b) = (dir.path().join("a.json"), dir.path().join("b.json"));
    ok(&["--backend", "cpu", "--out", text(&a)]);
    ok(&["--backend", "cpu", "--kernel", "scalar", "--out", text(&b)]);
    let compared = run(clientele().args(["bench", "--compare", text(&a), text(&b)]));
    assert_eq!(compared.code, Some(0), "{}", compared.stderr);
    assert!(
        compared.stdout.contains("Same model at all 4 shapes"),
        "{}",
        compared.stdout
    );
    assert!(
        compared.stdout.contains("geometric mean"),
        "{}",
        compared.stdout
    );

    let mut spoilt: Value =
        serde_json::from_slice(&std::fs::read(&b).expect("saved")).expect("JSON");
    spoilt["points"][2]["model_hash"] = "0123456789abcdef".into();
    std::fs::write(&b, spoilt.to_string()).expect("written");
    let compared = run(clientele().args(["bench", "--compare", text(&a), text(&b)]));
    assert_eq!(compared.code, Some(1));
    assert!(
        compared
            .stdout
            .contains("DIFFERENT MODELS at 1 of 4 shapes"),
        "{}",
        compared.stdout
    );
    assert!(
        compared.stderr.contains("computes wrongly"),
        "{}",
        compared.stderr
    );
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let dir = TempDir::new().expect("a temporary folder");
    let file = |name: &str| dir.path().join(name);
    let (a, passes, shapes) = (file("a.json"), file("passes.json"), file("shapes.json"));
    ok(&["--backend", "cpu", "--out", text(&a)]);
    ok(&["--backend", "cpu", "--passes", "3", "--out", text(&passes)]);
    ok(&[
        "--backend",
        "cpu",
        "--features",
        "5",
        "--out",
        text(&shapes),
    ]);
    let mut later: Value =
        serde_json::from_slice(&std::fs::read(&a).expect("saved")).expect("JSON");
    later["schema"] = 2.into();
    std::fs::write(file("later.json"), later.to_string()).expect("written");
    std::fs::write(file("other.json"), "{\"answer\": 42}").expect("written");

    let cases: [(&str, i32, &[&str]); 5] = [
        (
            "none.json",
            2,
            &["none.json` cannot be read", "caused by", "hint"],
        ),
        (
            "other.json",
            3,
            &["is not a saved run", "missing field", "--out FILE"],
        ),
        ("later.json", 3, &["schema 2", "reads schema 1"]),
        ("passes.json", 2, &["2 and 3 passes", "--passes"]),
        (
            "shapes.json",
            2,
            &["no shape in common", "mixture 2,000 x 5, k = 3"],
        ),
    ];
    for (name, code, words) in cases {
        refused(
            clientele().args(["bench", "--compare", text(&a), text(&file(name))]),
            code,
            words,
        );
    }
}

#[test]
fn what_cannot_be_measured_is_refused_before_anything_is() {
    let cases: [(&[&str], i32, &[&str]); 9] = [
        (
            &["--rows", "0"],
            2,
            &["--rows needs numbers of at least 1", "hint"],
        ),
        (
            &["--rows", "6"],
            2,
            &["n_rows=6 must be at least n_clusters=7", "fewer --clusters"],
        ),
        (&["--features", "5000"], 7, &["n_features 5,000", "4,096"]),
        (
            &["--clusters", "5000", "--rows", "9000"],
            7,
            &["n_clusters 5,000"],
        ),
        (
            &["--rows", "30000000000", "--features", "4000"],
            7,
            &["MiB", "fewer --rows"],
        ),
        (&["--passes", "0"], 2, &["--passes needs"]),
        (&["--threads", "0"], 2, &["--threads 0"]),
        (&["--backend", "cpu", "--adapter", "x"], 2, &["names a GPU"]),
        (
            &["--out", "no/such/folder/a.json"],
            2,
            &["cannot be written", "caused by", "folder that exists"],
        ),
    ];
    for (args, code, words) in cases {
        refused(&mut bench(args), code, words);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary folder has a plain name")
}
