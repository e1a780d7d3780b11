//! What a run of `clientele bench` found, as it is saved and read back.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{BenchError, Bound, Data, Limit};

/// Version of the saved form; another one is refused.
pub const SCHEMA: u32 = 1;

/// Bytes of a saved run, at most: a thousand times what is usual.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// Everything that one run found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Version of the program.
    pub clientele: String,
    /// Names the arithmetic; models of different arithmetic have different hashes.
    pub algorithm_version: String,
    /// When it began, in seconds since 1970.
    pub started_unix_s: u64,
    /// Where.
    pub machine: Machine,
    /// Passes timed for each point.
    pub n_passes: u32,
    /// In the order they were opened.
    pub devices: Vec<DeviceReport>,
    /// Every device at every shape.
    pub points: Vec<Point>,
}

/// The machine, without its name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Model of its processor.
    pub cpu: String,
    /// `linux`, `macos`, `windows`.
    pub os: String,
    /// `x86_64`, `aarch64`.
    pub arch: String,
    /// Cores that this process may use.
    pub n_cores: usize,
}

/// CPU or GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// Kernels of a processor.
    Cpu,
    /// A wgpu adapter, a software one too.
    Gpu,
}

/// A device, and what it can do at most.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceReport {
    /// `cpu avx512`, `gpu NVIDIA H100 (Vulkan)`; unique within the run.
    pub name: String,
    /// What it is.
    pub kind: DeviceKind,
    /// Driver and version, where there is one.
    pub driver: Option<String>,
    /// A GPU that computes on the CPU: its times say nothing about hardware.
    pub is_software: bool,
    /// Threads that compute, or that feed the device.
    pub n_threads: usize,
    /// The best of what was measured before, between and after the points.
    pub controls: Controls,
    /// Measured before the points.
    pub controls_before: Controls,
    /// Measured after the points; far from `controls_before` when something else ran on the machine.
    pub controls_after: Controls,
}

/// Two measurements of a device's limits that differ by more than this were not made on a quiet machine.
const QUIET: f64 = 0.2;

impl DeviceReport {
    /// By what share the limits before and after the points differ, if that is too much for a quiet machine.
    pub fn busy(&self) -> Option<f64> {
        let drift = self.controls_before.drift(&self.controls_after);
        Some(drift).filter(|drift| *drift > QUIET)
    }
}

/// Limits of a device, measured; `None` where it was not or could not be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Controls {
    /// Bytes read and bytes written a second, added up, in a copy that is much larger than the caches.
    pub copy_bytes_per_s: Option<f64>,
    /// Bytes read a second when nothing is written.
    pub read_bytes_per_s: Option<f64>,
    /// `f32` multiply-adds a second, in registers.
    pub multiply_adds_per_s: Option<f64>,
}

impl Controls {
    /// The better of copying and reading: a pass only reads, and no device is judged by the slower of the two.
    pub fn bandwidth(&self) -> Option<f64> {
        best(self.copy_bytes_per_s, self.read_bytes_per_s)
    }

    /// Each at its best.
    pub fn best_of(&self, other: &Self) -> Self {
        Self {
            copy_bytes_per_s: best(self.copy_bytes_per_s, other.copy_bytes_per_s),
            read_bytes_per_s: best(self.read_bytes_per_s, other.read_bytes_per_s),
            multiply_adds_per_s: best(self.multiply_adds_per_s, other.multiply_adds_per_s),
        }
    }

    /// The largest share by which two measurements of one device differ; 0 where there is nothing to compare.
    pub fn drift(&self, other: &Self) -> f64 {
        let pairs = [
            (self.bandwidth(), other.bandwidth()),
            (self.multiply_adds_per_s, other.multiply_adds_per_s),
        ];
        let drift = |(a, b): (Option<f64>, Option<f64>)| {
            let (a, b) = a.zip(b)?;
            Some(1.0 - a.min(b) / a.max(b))
        };
        pairs.into_iter().filter_map(drift).fold(0.0, f64::max)
    }
}

fn best(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    [a, b].into_iter().flatten().reduce(f64::max)
}

/// One problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Kind of rows.
    pub data: Data,
    /// Rows.
    pub n_rows: u64,
    /// Features.
    pub n_features: usize,
    /// Clusters.
    pub n_clusters: usize,
}

/// Times of the passes of one point, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PassMillis {
    /// The middle one, or the mean of the middle two.
    pub median: f64,
    /// The shortest.
    pub min: f64,
    /// The longest.
    pub max: f64,
}

/// One device at one shape.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Name of the device.
    pub device: String,
    /// The problem.
    #[serde(flatten)]
    pub shape: Shape,
    /// Times of a pass.
    pub pass_ms: PassMillis,
    /// Rows a second, by the median.
    pub rows_per_s: f64,
    /// The least time possible on this device.
    pub limit: Option<Limit>,
    /// `limit` by the median; above 1 where the rows fit in a cache.
    pub roofline_share: Option<f64>,
    /// Share of the rows whose nearest centroid was proved in `f32`; the others were settled in exact integers.
    pub certified_share: f64,
    /// Lloyd iterations made; fewer than passes timed when a fixed point came first.
    pub n_iter: u32,
    /// Inertia of the final centroids in data units squared.
    pub inertia: f64,
    /// The same in grid steps squared, exact, in decimal: too long for a JSON number.
    pub inertia_grid: String,
    /// BLAKE3 of everything the model means: the same on every device of every machine.
    pub model_hash: String,
}

impl Point {
    /// What the limit comes from.
    pub fn bound(&self) -> Option<Bound> {
        self.limit.map(|limit| limit.bound)
    }
}

impl Report {
    /// Reads a saved run.
    ///
    /// # Errors
    /// When `file` cannot be read, is no saved run, or one of another schema.
    pub fn read(file: &Path) -> Result<Self, BenchError> {
        let unreadable = |source| BenchError::Unreadable {
            file: file.to_owned(),
            source,
        };
        let not_a_run = |source| BenchError::NotARun {
            file: file.to_owned(),
            source,
        };
        let mut text = String::new();
        let open = File::open(file).map_err(unreadable)?;
        BufReader::new(open)
            .take(MAX_FILE_BYTES)
            .read_to_string(&mut text)
            .map_err(unreadable)?;
        let value: serde_json::Value = serde_json::from_str(&text).map_err(not_a_run)?;
        // The version first: another one may have other fields.
        if let Some(found) = value.get("schema").and_then(serde_json::Value::as_u64)
            && found != u64::from(SCHEMA)
        {
            return Err(BenchError::OtherSchema {
                file: file.to_owned(),
                found,
            });
        }
        let report: Self = serde_json::from_value(value).map_err(not_a_run)?;
        match report
            .points
            .iter()
            .find(|point| report.device(&point.device).is_none())
        {
            Some(point) => Err(BenchError::UnknownDevice {
                file: file.to_owned(),
                device: point.device.clone(),
            }),
            None => Ok(report),
        }
    }

    /// The device of that name.
    pub fn device(&self, name: &str) -> Option<&DeviceReport> {
        self.devices.iter().find(|device| device.name == name)
    }

    /// Points of one device, in the order they were measured.
    pub fn points_of<'a>(&'a self, device: &'a str) -> impl Iterator<Item = &'a Point> {
        self.points
            .iter()
            .filter(move |point| point.device == device)
    }
}
