//! Promises that only large data can keep or break, measured on the built binary, with the answer beside the time.
//!
//! `cargo bench --bench large` runs both; `-- counting` or `-- streaming` one. Needs 4 GB of disk in the temporary folder.

#[path = "../tests/common/mod.rs"]
mod common;

use std::path::Path;

use common::{Mix, fit, hashes, json, summary, write_groups};
use serde_json::Value;

fn main() {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    let runs = |name: &str| wanted.is_empty() || wanted.iter().any(|w| w == name);
    let dir = tempfile::TempDir::new().expect("a temporary folder");
    if runs("counting") {
        counting(dir.path());
    }
    if runs("streaming") {
        streaming(dir.path());
    }
}

/// 4e7 rows of one feature around 1.0 and 5.0. Float libraries that sum in f32 stop counting at 2^24 rows a thread: scikit-learn 1.9
/// returns 0.615 and 5.384.
fn counting(dir: &Path) {
    let table = dir.join("counting.parquet");
    write_groups(&table, 40_000_000, 1, |mix, _, row| {
        let centre = if row % 2 == 0 { 1.0 } else { 5.0 };
        centre + (mix.next() + mix.next() + mix.next() - 1.5) as f32 * 0.2
    });
    let out = dir.join("counting");
    let summary = summary(fit(&table, &out).args([
        "--columns",
        "f0",
        "--transform",
        "none",
        "--k",
        "2",
        "--restarts",
        "1",
    ]));
    let model = json(&out, "model.json");
    report("counting: 40,000,000 x 1, k = 2", &summary);
    println!(
        "  centres       {}  sizes {}",
        model["centroids_original"], model["sizes"]
    );
    println!(
        "  float32 sums  0.615 and 5.384 (scikit-learn 1.9, measured elsewhere on the same shape)"
    );
}

/// 10,000,000 x 32 customers are 1.28 GB of numbers: with 1 GiB of memory they are streamed, to the same bytes.
fn streaming(dir: &Path) {
    let table = dir.join("streaming.parquet");
    let mut mix = Mix(11);
    let centres: Vec<f32> = (0..12 * 32).map(|_| (mix.next() * 4.0) as f32).collect();
    write_groups(&table, 10_000_000, 32, |mix, feature, row| {
        let group = (row.wrapping_mul(0x9e37_79b9) >> 7) % 12;
        centres[group * 32 + feature] + (mix.next() + mix.next() - 1.0) as f32 * 2.5
    });
    let mut answers = Vec::new();
    for (name, memory) in [("plenty", "8GiB"), ("little", "1GiB")] {
        let spec = [
            "--id",
            "customer_id",
            "--k",
            "8",
            "--restarts",
            "1",
            "--tol",
            "0",
            "--max-iter",
            "20",
            "--transform",
            "zscore",
        ];
        let summary = summary(
            fit(&table, &dir.join(name))
                .args(spec)
                .args(["--memory", memory]),
        );
        report(
            &format!("streaming: 10,000,000 x 32, k = 8, 20 rounds, --memory {memory}"),
            &summary,
        );
        answers.push(hashes(&summary));
    }
    println!("  same bytes    {}", answers[0] == answers[1]);
    assert_eq!(answers[0], answers[1], "memory has changed the answer");
}

fn report(what: &str, summary: &Value) {
    println!("{what}");
    println!("  seconds       {}", summary["seconds"]);
    println!(
        "  inertia       {}  n_iter {}  passes {}",
        summary["inertia"], summary["n_iter"], summary["n_passes"]
    );
    println!(
        "  rechecked     {} rows  peak {} MiB",
        summary["certified"],
        summary["peak_rss_bytes"].as_u64().unwrap_or(0) >> 20
    );
    println!("  model         {}", summary["model_hash"]);
}
