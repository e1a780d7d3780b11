//! Two saved runs, beside each other.

use std::fmt::Write;

use serde::Serialize;

use crate::text::{count, significant};
use crate::{BenchError, DeviceReport, Point, Report, SCHEMA, Shape};

/// Ratios nearer to 1 than this are called equal: two runs of one machine differ by as much.
const EQUAL: f64 = 0.05;

/// What came out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Shapes that both runs have, with any device.
    pub n_shapes: usize,
    /// Times: of devices of one name, else of one kind, else of all, as far as they are hardware.
    pub pairs: Vec<Pair>,
    /// Shapes at which the two runs found different models: one of the machines computes wrongly.
    pub differing: Vec<Differing>,
    /// Software devices, whose times are not compared.
    pub software: Vec<String>,
}

/// A device of the first run and one of the second.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pair {
    /// Of the first run.
    pub a: String,
    /// Of the second.
    pub b: String,
    /// Times, shape by shape.
    pub lines: Vec<Line>,
    /// Geometric mean of the ratios.
    pub mean_ratio: f64,
}

/// One shape.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// Which.
    #[serde(flatten)]
    pub shape: Shape,
    /// Median of the first, in milliseconds.
    pub a_ms: f64,
    /// Median of the second.
    pub b_ms: f64,
    /// `a_ms / b_ms`: above 1 the second is faster.
    pub ratio: f64,
    /// `a`, `b`, or `equal` within 5 %.
    pub faster: &'static str,
}

/// A shape with two models.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Differing {
    /// Which.
    #[serde(flatten)]
    pub shape: Shape,
    /// Device of the first run.
    pub a: String,
    /// Its model.
    pub a_hash: String,
    /// Device of the second run.
    pub b: String,
    /// Its model.
    pub b_hash: String,
}

/// Compares the times of hardware and the models of everything.
///
/// # Errors
/// When the runs cannot be compared: other arithmetic, other numbers of passes, no shape in common.
pub fn compare(a: &Report, b: &Report) -> Result<Comparison, BenchError> {
    if a.algorithm_version != b.algorithm_version {
        return Err(BenchError::OtherAlgorithm {
            a: a.algorithm_version.clone(),
            b: b.algorithm_version.clone(),
        });
    }
    if a.n_passes != b.n_passes {
        return Err(BenchError::OtherPasses {
            a: a.n_passes,
            b: b.n_passes,
        });
    }
    let common: Vec<Shape> = shapes(a)
        .into_iter()
        .filter(|shape| shapes(b).contains(shape))
        .collect();
    if common.is_empty() {
        return Err(BenchError::NothingInCommon {
            a: list(&shapes(a)),
            b: list(&shapes(b)),
        });
    }
    let pairs = pairs(a, b)
        .into_iter()
        .map(|(one, other)| pair(a, one, b, other));
    Ok(Comparison {
        schema: SCHEMA,
        n_shapes: common.len(),
        pairs: pairs.filter(|pair| !pair.lines.is_empty()).collect(),
        differing: common
            .iter()
            .filter_map(|shape| differing(a, b, *shape))
            .collect(),
        software: a
            .devices
            .iter()
            .chain(&b.devices)
            .filter(|device| device.is_software)
            .map(|device| device.name.clone())
            .collect(),
    })
}

fn shapes(report: &Report) -> Vec<Shape> {
    let mut shapes: Vec<Shape> = Vec::new();
    for point in &report.points {
        if !shapes.contains(&point.shape) {
            shapes.push(point.shape);
        }
    }
    shapes
}

/// The first few, in words.
fn list(shapes: &[Shape]) -> String {
    const SHOWN: usize = 3;
    let mut text: Vec<String> = shapes.iter().take(SHOWN).map(ToString::to_string).collect();
    if shapes.len() > SHOWN {
        text.push(format!("{} more", shapes.len() - SHOWN));
    }
    if text.is_empty() {
        "none".into()
    } else {
        text.join("; ")
    }
}

/// Devices of one name belong together; what is left is paired by kind, and where no kind is common, everything with everything.
fn pairs<'a>(a: &'a Report, b: &'a Report) -> Vec<(&'a DeviceReport, &'a DeviceReport)> {
    let hardware = |report: &'a Report| report.devices.iter().filter(|device| !device.is_software);
    let all = || hardware(a).flat_map(move |one| hardware(b).map(move |other| (one, other)));
    let has_namesake = |report: &Report, name: &str| report.device(name).is_some();
    let by_name_or_kind: Vec<_> = all()
        .filter(|(one, other)| {
            let both_alone = !has_namesake(b, &one.name) && !has_namesake(a, &other.name);
            one.name == other.name || (both_alone && one.kind == other.kind)
        })
        .collect();
    if by_name_or_kind.is_empty() {
        all().collect()
    } else {
        by_name_or_kind
    }
}

fn pair(a: &Report, one: &DeviceReport, b: &Report, other: &DeviceReport) -> Pair {
    let lines: Vec<Line> = a
        .points_of(&one.name)
        .filter_map(|left| {
            let right = b
                .points_of(&other.name)
                .find(|right| right.shape == left.shape)?;
            Some(line(left, right))
        })
        .collect();
    let logarithms: f64 = lines.iter().map(|line| line.ratio.ln()).sum();
    Pair {
        a: one.name.clone(),
        b: other.name.clone(),
        mean_ratio: (logarithms / lines.len().max(1) as f64).exp(),
        lines,
    }
}

fn line(left: &Point, right: &Point) -> Line {
    let (a_ms, b_ms) = (left.pass_ms.median, right.pass_ms.median);
    let ratio = a_ms / b_ms;
    Line {
        shape: left.shape,
        a_ms,
        b_ms,
        ratio,
        faster: faster(ratio),
    }
}

fn faster(ratio: f64) -> &'static str {
    if ratio > 1.0 + EQUAL {
        "b"
    } else if ratio < 1.0 / (1.0 + EQUAL) {
        "a"
    } else {
        "equal"
    }
}

/// Any two points that disagree, software included: answers must be the same everywhere.
fn differing(a: &Report, b: &Report, shape: Shape) -> Option<Differing> {
    let points: Vec<&Point> = a
        .points
        .iter()
        .chain(&b.points)
        .filter(|p| p.shape == shape)
        .collect();
    let first = points.first()?;
    let other = points
        .iter()
        .find(|point| point.model_hash != first.model_hash)?;
    Some(Differing {
        shape,
        a: first.device.clone(),
        a_hash: first.model_hash.clone(),
        b: other.device.clone(),
        b_hash: other.model_hash.clone(),
    })
}

impl Comparison {
    /// For a terminal, 100 columns wide at most. `a` and `b` are what the user calls the runs.
    pub fn to_text(&self, a: &str, b: &str) -> String {
        let mut text = format!("A  {a}\nB  {b}\n");
        for pair in &self.pairs {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "\nA: {}\nB: {}", pair.a, pair.b);
            text += "data           rows     d     k      A ms      B ms     ratio  faster\n";
            for line in &pair.lines {
                let shape = line.shape;
                let _ = writeln!(
                    text,
                    "{:<8}{:>11} {:>5} {:>5} {:>9} {:>9} {:>9}  {}",
                    shape.data,
                    count(shape.n_rows),
                    shape.n_features,
                    shape.n_clusters,
                    significant(line.a_ms),
                    significant(line.b_ms),
                    format!("{} x", significant(line.ratio)),
                    match line.faster {
                        "a" => "A",
                        "b" => "B",
                        _ => "equal",
                    }
                );
            }
            let _ = writeln!(text, "{}", in_words(pair));
        }
        if self.pairs.is_empty() {
            text += "\nNo times to compare: one of the runs has software devices only.\n";
        }
        for name in &self.software {
            let _ = writeln!(
                text,
                "\n{name}: in software; its answers are compared and its times are not"
            );
        }
        let _ = match self.differing.len() {
            0 if self.n_shapes == 1 => {
                writeln!(text, "\nSame model at the one shape that both runs have.")
            }
            0 => writeln!(
                text,
                "\nSame model at all {} shapes that both runs have.",
                self.n_shapes
            ),
            n => writeln!(
                text,
                "\nDIFFERENT MODELS at {n} of {} shapes:",
                self.n_shapes
            ),
        };
        for at in &self.differing {
            let _ = writeln!(
                text,
                "  {}: {} found {:.16}, {} found {:.16}",
                at.shape, at.a, at.a_hash, at.b, at.b_hash
            );
        }
        text
    }
}

/// What the mean ratio says.
fn in_words(pair: &Pair) -> String {
    let over = match pair.lines.len() {
        1 => "at one shape".to_owned(),
        n => format!("over {n} shapes (geometric mean)"),
    };
    match faster(pair.mean_ratio) {
        "b" => format!("B is {} times as fast {over}", significant(pair.mean_ratio)),
        "a" => format!(
            "A is {} times as fast {over}",
            significant(1.0 / pair.mean_ratio)
        ),
        _ => format!("equally fast {over}"),
    }
}
