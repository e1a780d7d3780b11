//! Real shops: CDNOW, which is in the repository, and The Complete Journey, which is not and may be absent.
//!
//! Goldens are from `golden/golden.py`: plain Python over the raw lines, decimals and sets, nothing shared with the SQL.

use std::path::{Path, PathBuf};

use arrow::util::display::array_value_to_string;
use clientele_features::{BuildOptions, Config, FeatureTable, build, propose};
use serde_json::Value;

use crate::common::{Sum, read, sum};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn golden(name: &str) -> Value {
    let golden: Value = serde_json::from_str(include_str!("golden/golden.json")).unwrap();
    golden[name].clone()
}

/// The folder with `completejourney/`: of the environment, or beside the repository. None, with a reason printed, when it is
/// absent; in CI that is a failure.
fn shared_data() -> Option<PathBuf> {
    let folder = match std::env::var_os("CLIENTELE_SHARED_DATA") {
        Some(folder) => PathBuf::from(folder),
        None => repository().join("../shared/data"),
    };
    if folder.join("completejourney/transactions.parquet").exists() {
        return Some(folder);
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "no completejourney/ in `{}`",
        folder.display()
    );
    println!(
        "skipped: no completejourney/ in `{}`; set CLIENTELE_SHARED_DATA",
        folder.display()
    );
    None
}

fn run(toml: &str, base_dir: &Path) -> (tempfile::TempDir, FeatureTable) {
    let out = tempfile::tempdir().unwrap();
    let config = Config::from_toml(toml, base_dir).unwrap();
    let table = build(&config, out.path(), &BuildOptions::default()).unwrap();
    (out, table)
}

/// Holds a table against its golden: sums of all columns and every value of a few customers.
fn differences(table: &FeatureTable, golden: &Value) -> Vec<String> {
    let rows = read(&table.path);
    let mut differences = Vec::new();
    let mut compare = |what: String, found: String, expected: String| {
        if found != expected {
            differences.push(format!("{what}: {found}, expected {expected}"));
        }
    };
    compare(
        "customers".into(),
        rows.num_rows().to_string(),
        golden["n_customers"].to_string(),
    );
    for (feature, expected) in golden["sums"].as_object().unwrap() {
        let expected = expected.as_str().unwrap();
        match sum(&rows, feature) {
            Sum::Exact(sum) => compare(
                format!("sum of {feature}"),
                sum.to_string(),
                expected.replace('.', ""),
            ),
            // The golden is the exact sum; this one is in order, with at most 2^-53 of error a term.
            Sum::Float(sum) => {
                let near = (sum / expected.parse::<f64>().unwrap() - 1.0).abs() < 1e-11;
                compare(
                    format!("sum of {feature} ({sum} for {expected})"),
                    near.to_string(),
                    true.to_string(),
                );
            }
        }
    }
    let ids = rows.column_by_name(&table.id_column).unwrap();
    for (customer, features) in golden["rows"].as_object().unwrap() {
        let row = (0..rows.num_rows())
            .find(|row| array_value_to_string(ids, *row).unwrap() == *customer)
            .unwrap();
        for (feature, expected) in features.as_object().unwrap() {
            let found = array_value_to_string(rows.column_by_name(feature).unwrap(), row).unwrap();
            compare(
                format!("{feature} of {customer}"),
                found,
                expected.as_str().unwrap_or_default().to_owned(),
            );
        }
    }
    differences
}

/// A config with the features it uses taken out: all that can be made are.
fn all_features(toml: &str) -> String {
    let lines = toml.lines().filter(|line| !line.starts_with("use = "));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn cdnow_has_the_features_that_plain_python_finds() {
    let demo = repository().join("crates/cli/demo");
    let toml = std::fs::read_to_string(demo.join("clientele.toml")).unwrap();
    let (_out, table) = run(&all_features(&toml), &demo);
    assert_eq!(differences(&table, &golden("cdnow")), Vec::<String>::new());
    // Fader and Hardie: 23,570 customers, 69,659 purchases, to 30 June 1998.
    assert_eq!(
        (table.lines.read, table.lines.kept, table.customers.kept),
        (69_659, 69_659, 23_570)
    );
    assert_eq!(table.as_of, "1998-07-01");
}

#[test]
fn a_wrong_golden_is_noticed() {
    let demo = repository().join("crates/cli/demo");
    let toml = std::fs::read_to_string(demo.join("clientele.toml")).unwrap();
    let (_out, table) = run(&all_features(&toml), &demo);
    let mut golden = golden("cdnow");
    golden["sums"]["spend"] = "2500315.6400".into();
    golden["rows"]["00002"]["frequency"] = "2".into();
    golden["sums"]["basket_value"] = "780558.328".into();
    assert_eq!(differences(&table, &golden).len(), 3);
}

#[test]
fn the_demo_describes_when_and_how_much() {
    let demo = repository().join("crates/cli/demo");
    let toml = std::fs::read_to_string(demo.join("clientele.toml")).unwrap();
    let (_out, table) = run(&toml, &demo);
    let names: Vec<&str> = table
        .features
        .iter()
        .map(|entry| entry.name.as_str())
        .collect();
    assert_eq!(names, ["recency", "basket_value"]);
    assert_eq!(
        table.value.map(|entry| entry.name).as_deref(),
        Some("spend")
    );
    let config = Config::from_toml(&toml, &demo).unwrap();
    assert_eq!(config.fit.k.as_deref(), Some("2..5"));
}

#[test]
fn the_first_draft_for_cdnow_runs_as_it_is() {
    let toml = propose(&[repository().join("crates/cli/demo/cdnow.parquet")]).unwrap();
    let (_out, table) = run(&toml, Path::new(""));
    assert_eq!(differences(&table, &golden("cdnow")), Vec::<String>::new());
}

#[test]
fn the_complete_journey_has_the_features_that_plain_python_finds() {
    let Some(shared) = shared_data() else { return };
    let example = repository().join("docs/examples/completejourney.toml");
    let toml = std::fs::read_to_string(example).unwrap();
    let toml = toml.replace("${CLIENTELE_SHARED_DATA}", &shared.to_string_lossy());
    let (_out, table) = run(&all_features(&toml), Path::new(""));
    let golden = golden("completejourney");
    assert_eq!(differences(&table, &golden), Vec::<String>::new());
    let counts = &golden["counts"];
    assert_eq!(table.lines.read, counts["read"]);
    assert_eq!(table.lines.filtered, counts["filtered"]);
    assert_eq!(table.lines.unknown_product, counts["unknown_product"]);
    assert_eq!(table.customers.seen, counts["seen"]);
    assert_eq!(table.customers.below_activity, 365);
}

#[test]
fn the_first_draft_for_the_complete_journey_runs_as_it_is_and_adds_up() {
    let Some(shared) = shared_data() else { return };
    let toml = propose(&[shared.join("completejourney")]).unwrap();
    let (_out, table) = run(&toml, Path::new(""));
    let rows = read(&table.path);
    let exact = |feature: &str| match sum(&rows, feature) {
        Sum::Exact(sum) => sum,
        Sum::Float(sum) => panic!("{feature} is a float: {sum}"),
    };
    // The whole year, nothing filtered: 1,469,307 lines, 155,848 baskets, 2,469 households, $4,596,039.58 (recomputed from the
    // raw table for this project).
    assert_eq!(table.lines.kept, 1_469_307);
    assert_eq!(table.customers.kept, 2_469);
    assert_eq!(exact("frequency"), 155_848);
    assert_eq!(exact("spend"), 45_960_395_800);
    let names: Vec<&str> = table
        .features
        .iter()
        .map(|entry| entry.name.as_str())
        .collect();
    assert!(
        names.contains(&"coupon_share") && names.contains(&"private_label_share"),
        "{toml}"
    );
}

#[test]
fn the_complete_journey_has_the_coupons_that_were_counted() {
    let Some(shared) = shared_data() else { return };
    let toml = "[tables.transactions]\npath = \"completejourney/transactions.parquet\"\ncustomer = \"household_id\"\n\
                timestamp = \"date\"\namount = \"coupon_disc\"\n[features]\nuse = [\"spend\"]\n";
    let (_out, table) = run(toml, &shared);
    // $26,359.90 (recomputed from the raw table for this project).
    assert!(matches!(
        sum(&read(&table.path), "spend"),
        Sum::Exact(263_599_000)
    ));
}
