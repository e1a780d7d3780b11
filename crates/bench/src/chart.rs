//! Geometry of the page's plots. Only numbers leave this module; words are put in place, and escaped, by the template.

use std::fmt::Write;

use serde::Serialize;

use crate::text::significant;
use crate::{Data, Point, Report};

/// Size of a plot, axes included, in user units.
const WIDTH: f64 = 340.0;
const HEIGHT: f64 = 220.0;

/// Room for the axes' labels.
const LEFT: f64 = 46.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 26.0;

/// Milliseconds by number of clusters, for one table of rows.
#[derive(Debug, Serialize)]
pub(crate) struct Plot {
    pub data: Data,
    pub n_rows: u64,
    pub n_features: usize,
    pub width: f64,
    pub height: f64,
    /// Where the plot's area begins and ends: left, right, top, bottom.
    pub area: [f64; 4],
    pub x_ticks: Vec<Tick>,
    pub y_ticks: Vec<Tick>,
    pub lines: Vec<PlotLine>,
}

#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Tick {
    pub at: f64,
    pub text: String,
}

/// One device in a plot.
#[derive(Debug, Serialize)]
pub(crate) struct PlotLine {
    /// Position among the devices; decides the colour.
    pub device_idx: usize,
    /// SVG path through the medians.
    pub medians: String,
    /// SVG path of the limits; empty where there are none.
    pub limits: String,
    pub dots: Vec<Dot>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Dot {
    pub x: f64,
    pub y: f64,
    /// Ends of the whisker: the shortest and the longest pass.
    pub low: f64,
    pub high: f64,
    pub n_clusters: usize,
    pub ms: String,
}

/// A plot for each table of rows, in the order they were measured.
pub(crate) fn plots(report: &Report) -> Vec<Plot> {
    let mut tables: Vec<(Data, u64, usize)> = Vec::new();
    for point in &report.points {
        let table = (point.shape.data, point.shape.n_rows, point.shape.n_features);
        if !tables.contains(&table) {
            tables.push(table);
        }
    }
    // One vertical scale for all plots, so that they can be compared at a glance.
    let ms = report.points.iter().flat_map(|point| {
        let limit = point.limit.map_or(point.pass_ms.min, |limit| limit.ms);
        // One slow pass of a busy machine would press all lines together; its whisker ends at the border.
        [
            point.pass_ms.max.min(1.5 * point.pass_ms.median),
            point.pass_ms.min,
            limit,
        ]
    });
    let vertical = Scale::new(ms, HEIGHT - BOTTOM, TOP);
    let clusters = report
        .points
        .iter()
        .map(|point| point.shape.n_clusters as f64);
    let horizontal = Scale::new(clusters, LEFT + 12.0, WIDTH - RIGHT - 12.0);
    tables
        .into_iter()
        .map(|table| plot(report, table, &horizontal, &vertical))
        .collect()
}

fn plot(report: &Report, table: (Data, u64, usize), horizontal: &Scale, vertical: &Scale) -> Plot {
    let (data, n_rows, n_features) = table;
    let of_table =
        |point: &&Point| (point.shape.data, point.shape.n_rows, point.shape.n_features) == table;
    let lines = report
        .devices
        .iter()
        .enumerate()
        .filter_map(|(device_idx, device)| {
            let points: Vec<&Point> = report.points_of(&device.name).filter(of_table).collect();
            (!points.is_empty()).then(|| line(device_idx, &points, horizontal, vertical))
        });
    let mut clusters: Vec<usize> = report
        .points
        .iter()
        .filter(of_table)
        .map(|point| point.shape.n_clusters)
        .collect();
    clusters.sort_unstable();
    clusters.dedup();
    let tick = |k: &usize| Tick {
        at: horizontal.place(*k as f64),
        text: k.to_string(),
    };
    Plot {
        data,
        n_rows,
        n_features,
        width: WIDTH,
        height: HEIGHT,
        area: [LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM],
        x_ticks: spaced(clusters.iter().map(tick)),
        y_ticks: vertical.ticks(),
        lines: lines.collect(),
    }
}

fn line(device_idx: usize, points: &[&Point], horizontal: &Scale, vertical: &Scale) -> PlotLine {
    let dot = |point: &&Point| Dot {
        x: horizontal.place(point.shape.n_clusters as f64),
        y: vertical.place(point.pass_ms.median),
        low: vertical.place(point.pass_ms.min),
        high: vertical.place(point.pass_ms.max),
        n_clusters: point.shape.n_clusters,
        ms: significant(point.pass_ms.median),
    };
    let dots: Vec<Dot> = points.iter().map(dot).collect();
    let limits = points.iter().filter_map(|point| {
        let limit = point.limit?;
        Some((
            horizontal.place(point.shape.n_clusters as f64),
            vertical.place(limit.ms),
        ))
    });
    PlotLine {
        device_idx,
        medians: path(dots.iter().map(|dot| (dot.x, dot.y))),
        limits: path(limits),
        dots,
    }
}

fn path(points: impl Iterator<Item = (f64, f64)>) -> String {
    let mut path = String::new();
    for (nth, (x, y)) in points.enumerate() {
        // Writing to a string cannot fail.
        let _ = write!(path, "{}{x} {y}", if nth == 0 { 'M' } else { 'L' });
    }
    path
}

/// Leaves out ticks whose labels would touch the one before.
fn spaced(ticks: impl Iterator<Item = Tick>) -> Vec<Tick> {
    const GAP: f64 = 24.0;
    let mut kept: Vec<Tick> = Vec::new();
    for tick in ticks {
        if kept
            .last()
            .is_none_or(|last| (tick.at - last.at).abs() >= GAP)
        {
            kept.push(tick);
        }
    }
    kept
}

/// A logarithmic axis.
struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Scale {
    /// Spans `values`, all above 0, between the positions `from` and `to`.
    fn new(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (low, high) = values
            .filter(|x| x.is_finite() && *x > 0.0)
            .fold((f64::INFINITY, 0.0), |(low, high): (f64, f64), x| {
                (low.min(x), high.max(x))
            });
        // A single value stands in the middle.
        let (low, high) = match high {
            h if h <= 0.0 => (0.5, 2.0),
            h if h <= low => (low / 2.0, high * 2.0),
            _ => (low, high),
        };
        Self {
            low,
            high,
            from,
            to,
        }
    }

    fn place(&self, x: f64) -> f64 {
        let share = (x.max(self.low) / self.low).ln() / (self.high / self.low).ln();
        ((self.from + share.min(1.0) * (self.to - self.from)) * 10.0).round() / 10.0
    }

    /// 1, 2, 5, 10 ... within the span; powers of ten only where there are many.
    fn ticks(&self) -> Vec<Tick> {
        let decades = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
        let many = decades.clone().count() > 4;
        let steps: &[f64] = if many { &[1.0] } else { &[1.0, 2.0, 5.0] };
        decades
            .flat_map(|power| steps.iter().map(move |step| step * 10f64.powi(power)))
            .filter(|x| (self.low..=self.high).contains(x))
            .map(|x| Tick {
                at: self.place(x),
                text: tick_text(x),
            })
            .collect()
    }
}

fn tick_text(x: f64) -> String {
    if x >= 1.0 {
        crate::text::count(x as u64)
    } else {
        format!("{x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_places_powers_at_equal_distances() {
        let scale = Scale::new([1.0, 100.0].into_iter(), 0.0, 200.0);
        assert_eq!(
            (scale.place(1.0), scale.place(10.0), scale.place(100.0)),
            (0.0, 100.0, 200.0)
        );
        let texts: Vec<String> = scale.ticks().into_iter().map(|tick| tick.text).collect();
        assert_eq!(texts, ["1", "2", "5", "10", "20", "50", "100"]);
    }

    #[test]
    fn one_value_and_none_are_no_reason_to_divide_by_zero() {
        assert_eq!(Scale::new([8.0].into_iter(), 0.0, 100.0).place(8.0), 50.0);
        assert!(
            Scale::new(std::iter::empty(), 0.0, 100.0)
                .place(1.0)
                .is_finite()
        );
    }
}
