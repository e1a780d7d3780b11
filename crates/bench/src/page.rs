//! A run as one HTML page that opens from disk: no script, no other file, no network.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior};
use serde::Serialize;

use crate::chart::{Plot, plots};
use crate::text::{certified, controls, count, device_detail, percent, share, si, significant};
use crate::{BenchError, Data, DeviceReport, Point, Report};

#[derive(Serialize)]
struct Page<'a> {
    title: String,
    cpu: &'a str,
    detail: String,
    n_passes: u32,
    several: bool,
    devices: Vec<Device<'a>>,
    plots: Vec<PlotCell>,
    has_limits: bool,
    heats: Vec<Heat<'a>>,
    clientele: &'a str,
    algorithm_version: &'a str,
    started: String,
}

#[derive(Serialize)]
struct Device<'a> {
    idx: usize,
    name: &'a str,
    detail: String,
    controls: String,
    is_software: bool,
    /// By how much the limits changed meanwhile; empty on a quiet machine.
    busy: String,
    best_rows_per_s: String,
    best_shape: String,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct PlotCell {
    #[serde(flatten)]
    plot: Plot,
    rows: String,
}

/// Shares of the limit of one device for one kind of rows: features down, clusters across.
#[derive(Serialize)]
struct Heat<'a> {
    device: &'a str,
    data: Data,
    rows: String,
    clusters: Vec<usize>,
    lines: Vec<HeatLine>,
}

#[derive(Serialize)]
struct HeatLine {
    n_features: usize,
    cells: Vec<HeatCell>,
}

#[derive(Serialize)]
struct HeatCell {
    text: String,
    /// 0 to 4, of how near the limit is; decides the colour.
    level: usize,
    bound: &'static str,
}

#[derive(Serialize)]
struct Row {
    data: Data,
    n_rows: String,
    n_features: usize,
    n_clusters: usize,
    median: String,
    range: String,
    rows_per_s: String,
    share: String,
    certified: String,
    inertia: String,
    hash: String,
}

/// Renders `report`.
///
/// # Errors
/// When the template is wrong.
pub fn page(report: &Report) -> Result<String, BenchError> {
    let names: Vec<&str> = report
        .devices
        .iter()
        .map(|device| device.name.as_str())
        .collect();
    let machine = &report.machine;
    let page = Page {
        title: names.join(", "),
        cpu: &machine.cpu,
        detail: format!("{} cores, {} {}", machine.n_cores, machine.os, machine.arch),
        n_passes: report.n_passes,
        several: names.len() > 1,
        devices: report
            .devices
            .iter()
            .enumerate()
            .map(|(idx, device)| of_device(report, idx, device))
            .collect(),
        plots: plots(report)
            .into_iter()
            .map(|plot| PlotCell {
                rows: count(plot.n_rows),
                plot,
            })
            .collect(),
        has_limits: report.points.iter().any(|point| point.limit.is_some()),
        heats: report
            .devices
            .iter()
            .flat_map(|device| heats(report, device))
            .collect(),
        clientele: &report.clientele,
        algorithm_version: &report.algorithm_version,
        started: date(report.started_unix_s),
    };
    Ok(environment()?
        .get_template("bench.html")?
        .render(Serde(page))?)
}

fn environment() -> Result<Environment<'static>, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_syntax(
        SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()?,
    );
    // A field that the template misspells is an error, not an empty place on the page.
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    // Names that end in .html are escaped; the style sheet holds no data.
    environment.add_template("bench.html", include_str!("../templates/bench.html"))?;
    environment.add_template("bench.css", include_str!("../templates/bench.css"))?;
    Ok(environment)
}

fn of_device<'a>(report: &'a Report, idx: usize, device: &'a DeviceReport) -> Device<'a> {
    let rows = report.points_of(&device.name).map(row);
    let best = report
        .points_of(&device.name)
        .max_by(|a, b| a.rows_per_s.total_cmp(&b.rows_per_s));
    Device {
        idx,
        name: &device.name,
        detail: device_detail(device),
        controls: controls(&device.controls),
        is_software: device.is_software,
        busy: device.busy().map_or_else(String::new, percent),
        best_rows_per_s: best.map_or_else(String::new, |point| si(point.rows_per_s)),
        best_shape: best.map_or_else(String::new, |point| point.shape.to_string()),
        rows: rows.collect(),
    }
}

fn row(point: &Point) -> Row {
    let ms = point.pass_ms;
    Row {
        data: point.shape.data,
        n_rows: count(point.shape.n_rows),
        n_features: point.shape.n_features,
        n_clusters: point.shape.n_clusters,
        median: significant(ms.median),
        range: format!("{}\u{2013}{}", significant(ms.min), significant(ms.max)),
        rows_per_s: si(point.rows_per_s),
        share: share(point),
        certified: certified(point.certified_share),
        inertia: format!("{:.6e}", point.inertia),
        hash: point.model_hash.chars().take(16).collect(),
    }
}

fn heats<'a>(report: &'a Report, device: &'a DeviceReport) -> Vec<Heat<'a>> {
    let points: Vec<&Point> = report
        .points_of(&device.name)
        .filter(|point| point.roofline_share.is_some())
        .collect();
    let mut tables: Vec<(Data, u64)> = points
        .iter()
        .map(|p| (p.shape.data, p.shape.n_rows))
        .collect();
    tables.dedup();
    let heat = |(data, n_rows)| {
        let of_table: Vec<&Point> = points
            .iter()
            .copied()
            .filter(|p| (p.shape.data, p.shape.n_rows) == (data, n_rows))
            .collect();
        let mut clusters: Vec<usize> = of_table.iter().map(|p| p.shape.n_clusters).collect();
        clusters.sort_unstable();
        clusters.dedup();
        let mut features: Vec<usize> = of_table.iter().map(|p| p.shape.n_features).collect();
        features.dedup();
        let line = |n_features| HeatLine {
            n_features,
            cells: of_table
                .iter()
                .filter(|p| p.shape.n_features == n_features)
                .map(|p| cell(p))
                .collect(),
        };
        Heat {
            device: &device.name,
            data,
            rows: count(n_rows),
            lines: features.into_iter().map(line).collect(),
            clusters,
        }
    };
    tables.into_iter().map(heat).collect()
}

fn cell(point: &Point) -> HeatCell {
    let share = point.roofline_share.unwrap_or(0.0);
    HeatCell {
        text: percent(share),
        level: [0.2, 0.4, 0.6, 0.8]
            .iter()
            .filter(|step| share >= **step)
            .count(),
        bound: point.bound().map_or("", crate::text::bound_word),
    }
}

/// Day of a moment, in UTC; empty for one that no calendar has.
fn date(unix_s: u64) -> String {
    let moment = i64::try_from(unix_s)
        .ok()
        .and_then(|s| chrono::DateTime::from_timestamp(s, 0));
    moment.map_or_else(String::new, |moment| moment.date_naive().to_string())
}
