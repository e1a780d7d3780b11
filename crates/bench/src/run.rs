//! Over the grid of shapes, on every device.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clientele_kmeans::cpu::CpuBackend;
use clientele_kmeans::lloyd::{Candidate, Step, inertia};
use clientele_kmeans::relocate::FarthestRows;
use clientele_kmeans::{ALGORITHM_VERSION, BLOCK_ROWS, Block, Centroids, Partial, Totals};
use rayon::ThreadPool;
use rayon::prelude::*;
use serde::Serialize;

use crate::{
    BenchError, Controls, Data, Device, DeviceKind, DeviceReport, Machine, PassMillis, Point,
    Report, SCHEMA, Settings, Shape,
};

/// Limits are measured again when this has passed.
const CONTROLS_EVERY: Duration = Duration::from_secs(2);

/// Measures everything that `settings` ask for on all `devices`, in turn at each shape, and tells `on_point` of each result.
/// Rows are made, and far rows looked for, on `pool`.
///
/// # Errors
/// When a device cannot go on, and when two of them find different models.
pub fn run(
    settings: &Settings,
    devices: &[Box<dyn Device>],
    machine: Machine,
    pool: &ThreadPool,
    mut on_point: impl FnMut(&Point),
) -> Result<Report, BenchError> {
    let mut report = measure_controls(devices, machine)?;
    report.n_passes = settings.n_passes;
    let mut measured = Instant::now();
    for &data in &settings.data {
        for &n_rows in &settings.rows {
            for &n_features in &settings.features {
                let table = Table::new(data, n_rows, n_features, pool)?;
                for &n_clusters in &settings.clusters {
                    for (device, entry) in devices.iter().zip(&report.devices) {
                        let device = Named {
                            device: device.as_ref(),
                            name: &entry.name,
                        };
                        let point = table.measure(&device, n_clusters, settings.n_passes, pool)?;
                        agree(report.points.last(), &point)?;
                        on_point(&point);
                        report.points.push(point);
                    }
                }
                devices.iter().for_each(|device| device.forget_rows());
                // Again and again, so that one busy moment does not set a limit; but not more than there is to measure.
                if measured.elapsed() > CONTROLS_EVERY {
                    update_controls(&mut report, devices);
                    measured = Instant::now();
                }
            }
        }
    }
    update_controls(&mut report, devices);
    place_under_limits(&mut report);
    Ok(report)
}

/// A report without points: what the devices can do at most.
///
/// # Errors
/// When there is no device.
pub fn measure_controls(
    devices: &[Box<dyn Device>],
    machine: Machine,
) -> Result<Report, BenchError> {
    if devices.is_empty() {
        return Err(BenchError::NoDevice);
    }
    let since_1970 = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let each = devices.iter().map(AsRef::as_ref);
    let entries = each.zip(names(devices)).zip(controls(devices));
    let describe = |((device, name), controls): ((&dyn Device, String), Controls)| DeviceReport {
        name,
        kind: device.kind(),
        driver: device.driver(),
        is_software: device.is_software(),
        n_threads: device.n_threads(),
        controls,
        controls_before: controls,
        controls_after: Controls::default(),
    };
    Ok(Report {
        schema: SCHEMA,
        clientele: env!("CARGO_PKG_VERSION").into(),
        algorithm_version: ALGORITHM_VERSION.into(),
        started_unix_s: since_1970.as_secs(),
        machine,
        n_passes: 0,
        devices: entries.map(describe).collect(),
        points: Vec::new(),
    })
}

/// A device under the name that it has in this run.
struct Named<'a> {
    device: &'a dyn Device,
    name: &'a str,
}

/// One name each: of two equal cards the second is called so.
fn names(devices: &[Box<dyn Device>]) -> Vec<String> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let name = |device: &dyn Device| {
        let name = device.name();
        let nth = seen.entry(name.clone()).or_default();
        *nth += 1;
        if *nth == 1 {
            name
        } else {
            format!("{name} #{nth}")
        }
    };
    devices.iter().map(AsRef::as_ref).map(name).collect()
}

fn update_controls(report: &mut Report, devices: &[Box<dyn Device>]) {
    for (entry, controls) in report.devices.iter_mut().zip(controls(devices)) {
        entry.controls = entry.controls.best_of(&controls);
        entry.controls_after = controls;
    }
}

/// Of each device, now. All kernels of the CPU share one measurement: it is the processor's.
fn controls(devices: &[Box<dyn Device>]) -> Vec<Controls> {
    let mut cpu: Option<Controls> = None;
    let of = |device: &dyn Device| match device.kind() {
        DeviceKind::Cpu => *cpu.get_or_insert_with(|| device.controls()),
        DeviceKind::Gpu => device.controls(),
    };
    devices.iter().map(AsRef::as_ref).map(of).collect()
}

/// Devices follow each other at a shape, so comparing neighbours compares all.
fn agree(before: Option<&Point>, point: &Point) -> Result<(), BenchError> {
    match before {
        Some(before) if before.shape == point.shape && before.model_hash != point.model_hash => {
            Err(BenchError::Disagree {
                shape: point.shape.to_string(),
                first: before.device.clone(),
                first_hash: before.model_hash.clone(),
                second: point.device.clone(),
                second_hash: point.model_hash.clone(),
            })
        }
        _ => Ok(()),
    }
}

fn place_under_limits(report: &mut Report) {
    let Report {
        devices, points, ..
    } = report;
    for point in points {
        let device = devices.iter().find(|device| device.name == point.device);
        point.limit = device.and_then(|device| point.shape.limit(&device.controls));
        point.roofline_share = point.limit.map(|limit| limit.ms / point.pass_ms.median);
    }
}

/// Rows, made once for all devices and numbers of clusters.
struct Table {
    data: Data,
    n_rows: u64,
    n_features: usize,
    blocks: Vec<Block>,
    totals: Totals,
}

impl Table {
    fn new(
        data: Data,
        n_rows: u64,
        n_features: usize,
        pool: &ThreadPool,
    ) -> Result<Self, BenchError> {
        let blocks = pool
            .install(|| data.blocks(n_rows, n_features))
            .map_err(|error| BenchError::Setup {
                reason: error.to_string(),
            })?;
        let mut totals = Totals::zero(n_features);
        let each: Vec<Totals> = pool.install(|| blocks.par_iter().map(Totals::of_block).collect());
        each.iter().for_each(|part| totals.merge(part));
        Ok(Self {
            data,
            n_rows,
            n_features,
            blocks,
            totals,
        })
    }

    fn measure(
        &self,
        device: &Named<'_>,
        n_clusters: usize,
        n_passes: u32,
        pool: &ThreadPool,
    ) -> Result<Point, BenchError> {
        let shape = Shape {
            data: self.data,
            n_rows: self.n_rows,
            n_features: self.n_features,
            n_clusters,
        };
        let pass = |centroids: &Centroids| -> Result<(Partial, f64), BenchError> {
            let started = Instant::now();
            let partials = device
                .device
                .pass(&self.blocks, std::slice::from_ref(centroids));
            let ms = started.elapsed().as_secs_f64() * 1e3;
            let failed = |source| BenchError::Device {
                device: device.name.to_owned(),
                shape: shape.to_string(),
                source,
            };
            let partial = partials
                .map_err(failed)?
                .pop()
                .ok_or_else(|| BenchError::Setup {
                    reason: format!("{} answered nothing", device.name),
                })?;
            Ok((partial, ms))
        };
        let start = self.start(n_clusters);
        // Not timed: memory is touched, shaders are compiled, rows are loaded.
        pass(&start)?;
        let mut candidate = Candidate::new(start, 0, n_passes);
        let (mut times, mut n_rechecked) = (Vec::new(), 0);
        loop {
            let (partial, ms) = pass(candidate.centroids())?;
            times.push(ms);
            n_rechecked += partial.n_rechecked;
            let mut step = candidate.absorb(&partial, self.totals.squares);
            if let Step::NeedsRows { limit } = step {
                step = candidate.relocate(&self.farthest(candidate.centroids(), limit, pool));
            }
            if let Step::Done(_) = step {
                break;
            }
        }
        let (last, _) = pass(candidate.centroids())?;
        // A fixed point came early: the same pass again, which must find the same.
        while times.len() < n_passes as usize {
            let (again, ms) = pass(candidate.centroids())?;
            if (&again.counts, &again.sums) != (&last.counts, &last.sums) {
                return Err(BenchError::Unrepeatable {
                    device: device.name.to_owned(),
                    shape: shape.to_string(),
                });
            }
            times.push(ms);
            n_rechecked += again.n_rechecked;
        }
        let inertia_grid = inertia(self.totals.squares, &last, candidate.centroids());
        let pass_ms = PassMillis::of(&mut times);
        Ok(Point {
            device: device.name.to_owned(),
            shape,
            pass_ms,
            rows_per_s: self.n_rows as f64 / pass_ms.median * 1e3,
            limit: None,
            roofline_share: None,
            certified_share: 1.0 - n_rechecked as f64 / (self.n_rows as f64 * times.len() as f64),
            n_iter: candidate.n_iter(),
            inertia: inertia_grid as f64 * self.data.grid_step().powi(2),
            inertia_grid: inertia_grid.to_string(),
            model_hash: hash(shape, &candidate, &last, inertia_grid)?,
        })
    }

    /// Rows at equal distances: they are in no order, so that is a random choice.
    fn start(&self, n_clusters: usize) -> Centroids {
        let mut values = vec![0; n_clusters * self.n_features];
        for (cluster, row) in values.chunks_exact_mut(self.n_features).enumerate() {
            let at = (cluster as u64 * self.n_rows / n_clusters as u64) as usize;
            self.blocks[at / BLOCK_ROWS].read_row(at % BLOCK_ROWS, row);
        }
        Centroids::new(self.n_features, values)
    }

    fn farthest(&self, centroids: &Centroids, limit: usize, pool: &ThreadPool) -> FarthestRows {
        let backend = CpuBackend::new();
        let of_blocks: Vec<FarthestRows> = pool.install(|| {
            self.blocks
                .par_iter()
                .map(|block| FarthestRows::of_block(&backend, block, centroids, limit))
                .collect()
        });
        let mut far = FarthestRows::new(limit);
        of_blocks.into_iter().for_each(|part| far.merge(part));
        far
    }
}

/// Everything a model means and nothing about how it was computed.
#[derive(Serialize)]
struct Meaning<'a> {
    algorithm_version: &'static str,
    #[serde(flatten)]
    shape: Shape,
    n_iter: u32,
    centroids: &'a [i32],
    sizes: &'a [u64],
    inertia: String,
}

fn hash(
    shape: Shape,
    candidate: &Candidate,
    last: &Partial,
    inertia: i128,
) -> Result<String, BenchError> {
    let meaning = Meaning {
        algorithm_version: ALGORITHM_VERSION,
        shape,
        n_iter: candidate.n_iter(),
        centroids: candidate.centroids().values(),
        sizes: &last.counts,
        inertia: inertia.to_string(),
    };
    let bytes = serde_json::to_vec(&meaning).map_err(BenchError::Json)?;
    Ok(blake3::hash(&bytes).to_hex().to_string())
}

impl PassMillis {
    /// Sorts `times`, of which there is at least one.
    fn of(times: &mut [f64]) -> Self {
        times.sort_unstable_by(f64::total_cmp);
        let n = times.len();
        Self {
            median: (times[(n - 1) / 2] + times[n / 2]) / 2.0,
            min: times[0],
            max: times[n - 1],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{self, CpuDevice};

    #[test]
    fn empty_clusters_are_filled_as_in_a_fit() {
        // Both centroids start at 0, so one gets no row until the farthest one is given to it; then every row lies on its centroid.
        let pool = device::pool(1).unwrap();
        let block = Block::from_rows(0, 1, &[0, 0, 0, 5], (0..4).collect()).unwrap();
        let table = Table {
            data: Data::Mixture,
            n_rows: 4,
            n_features: 1,
            totals: Totals::of_block(&block),
            blocks: vec![block],
        };
        let cpu = CpuDevice::new(None, pool.clone()).unwrap();
        let named = Named {
            device: &cpu,
            name: "cpu",
        };
        let point = table.measure(&named, 2, 5, &pool).unwrap();
        assert_eq!(point.inertia_grid, "0");
        // One round with the relocation and one that finds nothing moves; five passes are timed all the same.
        assert_eq!(point.n_iter, 2);
    }

    #[test]
    fn the_median_is_between_the_middle_two() {
        let ms = PassMillis::of(&mut [4.0, 1.0, 3.0, 100.0]);
        assert_eq!(
            ms,
            PassMillis {
                median: 3.5,
                min: 1.0,
                max: 100.0
            }
        );
    }
}
