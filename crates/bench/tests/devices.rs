//! Promises about a run, with devices that lie.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use clientele_bench::device::{CpuDevice, open_gpus};
use clientele_bench::{
    BenchError, Controls, Data, Device, DeviceKind, Machine, Report, Settings, compare, page, run,
};
use clientele_kmeans::cpu::Kernel;
use clientele_kmeans::{BackendError, Block, Centroids, Partial};
use rayon::{ThreadPool, ThreadPoolBuilder};

/// A device that is right, except where it is told not to be.
struct Faulty {
    inner: CpuDevice,
    name: &'static str,
    is_software: bool,
    fault: Option<Fault>,
    /// Serials of the blocks it holds.
    held: Mutex<BTreeSet<u64>>,
}

#[derive(Clone, Copy)]
enum Fault {
    /// One row of each pass is counted for another cluster.
    WrongCount,
    /// The device is gone.
    Lost,
}

impl Device for Faulty {
    fn name(&self) -> String {
        self.name.into()
    }
    fn kind(&self) -> DeviceKind {
        DeviceKind::Gpu
    }
    fn driver(&self) -> Option<String> {
        None
    }
    fn is_software(&self) -> bool {
        self.is_software
    }
    fn n_threads(&self) -> usize {
        1
    }
    fn controls(&self) -> Controls {
        Controls::default()
    }
    fn pass(
        &self,
        blocks: &[Block],
        candidates: &[Centroids],
    ) -> Result<Vec<Partial>, BackendError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.extend(blocks.iter().map(Block::serial));
        assert_eq!(
            held.len(),
            blocks.len(),
            "rows of an earlier table are held"
        );
        let mut partials = self.inner.pass(blocks, candidates)?;
        match self.fault {
            Some(Fault::WrongCount) => {
                partials[0].counts[0] -= 1;
                partials[0].counts[1] += 1;
            }
            Some(Fault::Lost) => {
                return Err(BackendError::DeviceLost {
                    reason: "injected".into(),
                });
            }
            None => {}
        }
        Ok(partials)
    }
    fn forget_rows(&self) {
        self.held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

fn pool() -> Arc<ThreadPool> {
    Arc::new(ThreadPoolBuilder::new().num_threads(2).build().unwrap())
}

fn cpu(kernel: Option<Kernel>, pool: &Arc<ThreadPool>) -> Box<dyn Device> {
    Box::new(CpuDevice::new(kernel, pool.clone()).unwrap())
}

fn other(name: &'static str, fault: Option<Fault>, pool: &Arc<ThreadPool>) -> Box<Faulty> {
    let inner = CpuDevice::new(Some(Kernel::Scalar), pool.clone()).unwrap();
    Box::new(Faulty {
        inner,
        name,
        is_software: false,
        fault,
        held: Mutex::default(),
    })
}

fn machine() -> Machine {
    Machine {
        cpu: "a <processor>".into(),
        os: "linux".into(),
        arch: "x86_64".into(),
        n_cores: 2,
    }
}

fn settings() -> Settings {
    Settings {
        data: vec![Data::Mixture, Data::Skewed],
        rows: vec![3_000],
        features: vec![3],
        clusters: vec![1, 5],
        n_passes: 3,
    }
}

fn measured(devices: &[Box<dyn Device>], pool: &ThreadPool) -> Result<Report, BenchError> {
    run(&settings(), devices, machine(), pool, |_| {})
}

#[test]
fn all_devices_find_one_model_and_a_liar_is_named() {
    let pool = pool();
    let honest = [cpu(None, &pool), other("gpu honest", None, &pool)];
    let report = measured(&honest, &pool).unwrap();
    assert_eq!(report.points.len(), 2 * 4);
    assert!(
        report
            .points
            .iter()
            .all(|point| point.pass_ms.min <= point.pass_ms.median)
    );

    let lying = [
        cpu(None, &pool),
        other("gpu liar", Some(Fault::WrongCount), &pool),
    ];
    let shapes = Settings {
        clusters: vec![5],
        ..settings()
    };
    let found = run(&shapes, &lying, machine(), &pool, |_| {}).unwrap_err();
    let BenchError::Disagree { first, second, .. } = &found else {
        panic!("{found}");
    };
    assert!(first.starts_with("cpu ") && second == "gpu liar", "{found}");
}

#[test]
fn a_gpu_finds_the_model_of_the_processor_and_has_limits() {
    let gpus = match open_gpus(None, true) {
        Ok(gpus) => gpus,
        Err(error) => {
            let required = std::env::var("CLIENTELE_REQUIRE_GPU").is_ok_and(|it| it == "1");
            assert!(!required, "CLIENTELE_REQUIRE_GPU=1 and {error}");
            println!("skipped: {error}");
            return;
        }
    };
    let pool = pool();
    let mut devices = vec![cpu(None, &pool)];
    devices.extend(gpus.into_iter().map(|gpu| Box::new(gpu) as Box<dyn Device>));
    // More than one block, and a table after the other.
    let shapes = Settings {
        rows: vec![70_000],
        clusters: vec![5],
        ..settings()
    };
    // Two devices that disagree are an error.
    let report = run(&shapes, &devices, machine(), &pool, |_| {}).unwrap();
    assert_eq!(report.points.len(), 2 * devices.len());
    for device in &report.devices {
        assert!(device.controls.bandwidth().is_some_and(|it| it > 0.0));
        assert!(
            device
                .controls
                .multiply_adds_per_s
                .is_some_and(|it| it > 0.0)
        );
    }
    assert!(report.points.iter().all(|it| it.roofline_share.is_some()));
}

#[test]
fn two_equal_cards_have_two_names() {
    let pool = pool();
    let twins: [Box<dyn Device>; 2] = [
        other("gpu twin", None, &pool),
        other("gpu twin", None, &pool),
    ];
    let report = measured(&twins, &pool).unwrap();
    assert_eq!(report.devices[1].name, "gpu twin #2");
    assert_eq!(report.points_of("gpu twin #2").count(), 4);
}

#[test]
fn a_lost_device_ends_the_run_with_its_name() {
    let pool = pool();
    let found = measured(&[other("gpu gone", Some(Fault::Lost), &pool)], &pool).unwrap_err();
    assert!(
        matches!(&found, BenchError::Device { device, .. } if device == "gpu gone"),
        "{found}"
    );
}

#[test]
fn a_saved_run_reads_back_as_it_was() {
    let pool = pool();
    let report = measured(&[cpu(None, &pool)], &pool).unwrap();
    let text = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
}

#[test]
fn times_of_software_are_never_compared_and_its_models_are() {
    let pool = pool();
    let mut soft = other("gpu soft", None, &pool);
    soft.is_software = true;
    let software = measured(&[soft], &pool).unwrap();
    let hardware = measured(&[cpu(None, &pool)], &pool).unwrap();
    let comparison = compare(&hardware, &software).unwrap();
    assert!(comparison.pairs.is_empty() && comparison.differing.is_empty());
    assert_eq!(comparison.software, ["gpu soft"]);

    let mut spoilt = software;
    spoilt.points[1].model_hash.replace_range(0..1, "x");
    let comparison = compare(&hardware, &spoilt).unwrap();
    assert_eq!(comparison.differing.len(), 1);
    assert!(
        comparison
            .to_text("a.json", "b.json")
            .contains("DIFFERENT MODELS at 1 of 4 shapes")
    );
}

#[test]
fn the_faster_run_is_named() {
    let pool = pool();
    let slow = measured(&[cpu(None, &pool)], &pool).unwrap();
    let mut fast = slow.clone();
    fast.points
        .iter_mut()
        .for_each(|point| point.pass_ms.median /= 2.0);
    let comparison = compare(&slow, &fast).unwrap();
    assert!((comparison.pairs[0].mean_ratio - 2.0).abs() < 1e-9);
    assert!(
        comparison.pairs[0]
            .lines
            .iter()
            .all(|line| line.faster == "b")
    );
    assert!(
        comparison
            .to_text("a", "b")
            .contains("B is 2.00 times as fast over 4 shapes")
    );
    let other_way = compare(&fast, &slow).unwrap();
    assert!(
        other_way
            .to_text("a", "b")
            .contains("A is 2.00 times as fast")
    );
}

#[test]
fn tables_fit_a_hundred_columns_whatever_the_numbers() {
    let pool = pool();
    let mut report = measured(&[cpu(None, &pool)], &pool).unwrap();
    for point in &mut report.points {
        point.shape.n_rows = 1_000_000_000;
        point.shape.n_features = 4_096;
        point.shape.n_clusters = 4_096;
        point.pass_ms = clientele_bench::PassMillis {
            median: 9_876.5,
            min: 1_234.5,
            max: 12_345.6,
        };
        point.certified_share = 0.999_987;
        point.inertia = 1.234e12;
    }
    let text = report.to_text();
    let widest = text
        .lines()
        .max_by_key(|line| line.chars().count())
        .unwrap();
    assert!(
        widest.chars().count() <= 100,
        "{}: {widest}",
        widest.chars().count()
    );
}

#[test]
fn the_page_needs_nothing_else_and_escapes_names() {
    let pool = pool();
    let report = measured(&[cpu(None, &pool), other("gpu <b>", None, &pool)], &pool).unwrap();
    let html = page(&report).unwrap();
    for forbidden in [
        "http:",
        "https:",
        "<script",
        "src=",
        "@import",
        "gpu <b>",
        "a <processor>",
    ] {
        assert!(!html.contains(forbidden), "{forbidden}");
    }
    assert_eq!(html.matches("<svg viewBox=\"0 0 340").count(), 2);
    assert!(html.contains("gpu &lt;b&gt;") && html.contains("prefers-color-scheme:dark"));
}
