//! Numbers to be right about, reached by the built binary.

mod common;

use std::path::Path;

use common::{csv, fit, json, labels, parquet, read_all, shared_data, summary};
use serde_json::Value;
use tempfile::TempDir;

/// Best known inertias over 200 starts of scikit-learn 1.9; z-scores with ddof 0.
#[test]
fn best_known_inertias_are_reached_with_default_seeding_and_ten_restarts() {
    let cases = [
        ("iris", "none", 2, 152.347952),
        ("iris", "none", 3, 78.851441),
        ("iris", "none", 4, 57.228473),
        ("iris", "none", 5, 46.446182),
        ("iris", "none", 6, 39.039987),
        ("iris", "none", 7, 34.298230),
        ("wine", "none", 3, 2370689.686783),
        ("wine", "zscore", 3, 1277.928489),
        ("breast_cancer", "zscore", 2, 11595.461474),
        ("digits", "none", 10, 1165127.462),
    ];
    let dir = TempDir::new().unwrap();
    for (name, transform, k, expected) in cases {
        let text = std::fs::read_to_string(format!("crates/kmeans/tests/data/{name}.csv")).unwrap();
        let table = parquet(
            dir.path(),
            &format!("{name}.parquet"),
            &csv(&format!("{}\n{text}", header(&text))),
        );
        let out = dir.path().join(format!("{name}-{transform}-{k}"));
        let summary = summary(fit(&table, &out).args([
            "--transform",
            transform,
            "--k",
            &k.to_string(),
            "--restarts",
            "10",
        ]));
        let inertia = summary["inertia"].as_f64().unwrap();
        let relative = inertia / expected - 1.0;
        println!("{name} {transform} k={k}: {inertia}, off by {relative:e}");
        // Below is better: digits has minima that 1,500 starts of scikit-learn did not find. So the figure is recomputed, too.
        assert!(
            relative < 1e-5 && relative > -1e-4,
            "{name} {transform} k={k}: {inertia} against {expected}"
        );
        if transform == "none" {
            let recomputed = inertia_of(&text, &json(&out, "model.json")["centroids_original"]);
            assert!(
                (inertia / recomputed - 1.0).abs() < 1e-6,
                "{name} k={k}: {inertia}, recomputed {recomputed}"
            );
        }
    }
}

/// Sum of squared distances to the nearest centroid, in plain f64.
fn inertia_of(text: &str, centroids: &Value) -> f64 {
    let numbers = |line: &str| {
        line.split(',')
            .map(|cell| cell.parse().unwrap())
            .collect::<Vec<f64>>()
    };
    let centroids: Vec<Vec<f64>> = serde_json::from_value(centroids.clone()).unwrap();
    let d2 = |row: &[f64], c: &[f64]| row.iter().zip(c).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
    text.lines()
        .map(|line| {
            centroids
                .iter()
                .map(|c| d2(&numbers(line), c))
                .fold(f64::INFINITY, f64::min)
        })
        .sum()
}

/// Names for the columns of a file that has none.
fn header(text: &str) -> String {
    let n_columns = text.lines().next().unwrap().split(',').count();
    (0..n_columns)
        .map(|column| format!("f{column}"))
        .collect::<Vec<_>>()
        .join(",")
}

/// Plain Lloyd in float64 from the same starts, on 2,102 real households: `lloyd_reference.json` and `labels.parquet`.
#[test]
fn lloyd_from_given_starts_is_the_one_of_float64_libraries() {
    let Some(reference) = shared_data("completejourney_reference") else {
        return;
    };
    let expected: Value =
        serde_json::from_slice(&std::fs::read(reference.join("lloyd_reference.json")).unwrap())
            .unwrap();
    let dir = TempDir::new().unwrap();
    for k in 3..=8 {
        let out = dir.path().join(format!("k{k}"));
        let summary = summary(
            fit(&reference.join("features_scaled.parquet"), &out)
                .args([
                    "--id",
                    "household_id",
                    "--transform",
                    "none",
                    "--tol",
                    "0",
                    "--max-iter",
                    "300",
                    "--init",
                ])
                .arg(reference.join(format!("init_k{k}.parquet"))),
        );
        let expected = &expected[k.to_string()];
        let relative =
            summary["inertia"].as_f64().unwrap() / expected["inertia"].as_f64().unwrap() - 1.0;
        assert!(relative.abs() < 1e-6, "k={k}: inertia off by {relative}");
        let n_iter = summary["n_iter"].as_i64().unwrap() - expected["iterations"].as_i64().unwrap();
        assert!(n_iter.abs() <= 1, "k={k}: {n_iter} iterations more");
        let differing = n_differing(&reference, &out, k);
        assert!(differing <= 2, "k={k}: {differing} labels differ");
        println!(
            "k={k}: inertia off by {relative:e}, {n_iter} iterations more, {differing} of 2,102 labels differ"
        );
    }
}

/// Labels that differ from those of the reference, whose clusters are numbered alike because the starts are.
fn n_differing(reference: &Path, run: &Path, k: usize) -> usize {
    let only = TempDir::new().unwrap();
    std::fs::copy(
        reference.join("labels.parquet"),
        only.path().join("labels.parquet"),
    )
    .unwrap();
    let rows = read_all(only.path());
    let column = |name: &str| {
        let found = rows
            .column_by_name(name)
            .unwrap_or_else(|| panic!("no {name} in {:?}", rows.schema()));
        let as_text = arrow::compute::cast(found, &arrow::datatypes::DataType::Utf8).unwrap();
        as_text
            .as_any()
            .downcast_ref::<arrow::array::StringArray>()
            .unwrap()
            .clone()
    };
    let (ids, expected) = (column("household_id"), column(&format!("lloyd_k{k}")));
    let ours = labels(run);
    assert_eq!(ours.len(), rows.num_rows());
    (0..rows.num_rows())
        .filter(|row| ours[ids.value(*row)].to_string() != expected.value(*row))
        .count()
}

/// Points (0,0) (.5,0) (.5,1) (1,1) with weights 3 1 1 3 and starts (0,0) (1,1): centres (.125,0) (.875,1), inertia .375.
#[test]
fn the_hand_worked_case_comes_out() {
    let dir = TempDir::new().unwrap();
    let text = "x,y\n0,0\n0,0\n0,0\n0.5,0\n0.5,1\n1,1\n1,1\n1,1\n";
    let table = parquet(dir.path(), "points.parquet", &csv(text));
    let init = parquet(dir.path(), "init.parquet", &csv("x,y\n0,0\n1,1\n"));
    let out = dir.path().join("out");
    let summary = summary(
        fit(&table, &out)
            .args(["--transform", "none", "--init"])
            .arg(&init),
    );
    assert_eq!(summary["inertia"].as_f64(), Some(0.375));
    assert_eq!(summary["n_iter"].as_i64(), Some(2));
    let model = json(&out, "model.json");
    assert_eq!(
        model["centroids_original"],
        serde_json::json!([[0.125, 0.0], [0.875, 1.0]])
    );
}

/// All three centres at -10: after relocation of empty clusters -4.5, 10, 9.5 (scikit-learn and oneDAL agree).
#[test]
fn empty_clusters_take_the_farthest_rows() {
    let dir = TempDir::new().unwrap();
    let table = parquet(
        dir.path(),
        "ten.parquet",
        &csv("x\n-10\n-9.5\n-9\n-8.5\n-8\n-1\n1\n9\n9.5\n10\n"),
    );
    let init = parquet(dir.path(), "init.parquet", &csv("x\n-10\n-10\n-10\n"));
    let out = dir.path().join("out");
    summary(
        fit(&table, &out)
            .args(["--transform", "none", "--max-iter", "1", "--init"])
            .arg(&init),
    );
    let centroids = json(&out, "model.json")["centroids_original"].clone();
    let values: Vec<f64> = centroids
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row[0].as_f64().unwrap())
        .collect();
    for (value, expected) in values.iter().zip([-4.5, 10.0, 9.5]) {
        assert!((value - expected).abs() < 1e-5, "{values:?}");
    }
}
