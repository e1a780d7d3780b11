//! A GPU as a [`Backend`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use clientele_kmeans::cpu::CpuBackend;
use clientele_kmeans::{
    Backend, BackendError, Block, BlockLabels, Centroids, MAX_CLUSTERS, Partial,
};

use crate::adapter::{self, AdapterReport};
use crate::candidate::Packed;
use crate::device::DeviceThread;
use crate::pipeline::assign::Job;
use crate::pipeline::plan;
use crate::{self_test, settle};

/// Mesa's llvmpipe leaves every loop once an invocation has gone round this often in all, and tells nobody. Hardware has no such
/// limit, and the self-test of hardware goes round more often.
const SOFTWARE_LOOP_ROUNDS: usize = 65_535;

/// Which adapter to open, and how.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    /// Also take an adapter that computes on the CPU. Slower than our own CPU kernels: for tests.
    pub allow_software: bool,
    /// Only adapters whose name contains this, in any case.
    pub adapter: Option<String>,
    /// Bytes of the largest buffer the backend may bind; work is cut to fit. `None`: what the device allows.
    pub binding_limit_bytes: Option<u64>,
    /// Keep wgpu's run-time checks of indices and loops in the shaders; slower, the same answers.
    pub checked_shaders: bool,
    /// A fault to inject, for tests.
    pub fault: Option<Fault>,
}

/// Something that goes wrong on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Destroys the device in the middle of the pass that follows this many good ones.
    LoseDeviceAfter {
        /// Passes answered before the loss; the self-test does not count.
        passes: u32,
    },
    /// Refuses every buffer larger than this, as a device does that is out of memory.
    RefuseBuffersAbove {
        /// The largest that is granted.
        n_bytes: u64,
    },
    /// Gives the device another problem than the self-test's.
    WrongSelfTest,
}

/// Why no GPU was opened.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum OpenError {
    /// Neither Vulkan nor Metal nor DirectX 12 shows an adapter.
    #[error("no GPU adapter found")]
    NoAdapter,
    /// No adapter has the wanted name.
    #[error("no GPU adapter is named like `{wanted}`; there are: {}", names.join(", "))]
    NoSuchAdapter {
        /// The name asked for.
        wanted: String,
        /// The names there are.
        names: Vec<String>,
    },
    /// All adapters compute on the CPU, and that was not asked for.
    #[error("only software GPU adapters found: {}", names.join(", "))]
    OnlySoftware {
        /// Their names.
        names: Vec<String>,
    },
    /// The driver would not give a device or a pipeline.
    #[error("{adapter} cannot be used: {reason}")]
    Device {
        /// Which adapter.
        adapter: String,
        /// What the driver said.
        reason: String,
    },
    /// The device gives wrong answers.
    #[error("{adapter} answered the self-test with {got:016x} instead of {expected:016x}")]
    SelfTest {
        /// Which adapter.
        adapter: String,
        /// Hash of the right answer.
        expected: u64,
        /// Hash of what it answered.
        got: u64,
    },
}

/// An open device that has passed its self-test.
///
/// [`Backend::pass`] may be called from any number of threads; one device thread serves them in turn. Models too large for a
/// software adapter (from about 500,000 values in the centroids) are computed by the CPU backend instead.
#[derive(Debug)]
pub struct GpuBackend {
    report: AdapterReport,
    device: DeviceThread,
    faults_fired: Arc<AtomicU32>,
}

impl GpuBackend {
    /// Opens the best adapter the options allow (discrete before integrated before virtual before software) that answers the
    /// self-test rightly.
    ///
    /// # Errors
    /// What was wrong with the best one when none can be used.
    pub fn open(options: &OpenOptions) -> Result<Self, OpenError> {
        let mut first_error = None;
        for adapter in adapter::choose(options)? {
            match Self::open_adapter(adapter, options) {
                Ok(backend) => return Ok(backend),
                Err(error) => {
                    tracing::warn!(%error, "a GPU was refused");
                    first_error.get_or_insert(error);
                }
            }
        }
        Err(first_error.unwrap_or(OpenError::NoAdapter))
    }

    /// What was opened.
    pub fn adapter(&self) -> &AdapterReport {
        &self.report
    }

    /// How many injected faults have really happened.
    pub fn faults_fired(&self) -> u32 {
        self.faults_fired.load(Ordering::Relaxed)
    }

    fn is_too_long(&self, candidate: &Centroids) -> bool {
        let n_rounds = plan::loop_rounds(candidate.n_clusters(), candidate.n_features());
        self.report.is_software && n_rounds > SOFTWARE_LOOP_ROUNDS
    }

    fn open_adapter(adapter: wgpu::Adapter, options: &OpenOptions) -> Result<Self, OpenError> {
        let report = AdapterReport::of(&adapter);
        let refuse = |reason| OpenError::Device {
            adapter: report.name.clone(),
            reason,
        };
        let faults_fired = Arc::new(AtomicU32::new(0));
        let device = DeviceThread::spawn(adapter, options, faults_fired.clone()).map_err(refuse)?;
        let backend = Self {
            report: report.clone(),
            device,
            faults_fired,
        };
        let is_spoilt = options.fault == Some(Fault::WrongSelfTest);
        if is_spoilt {
            backend.faults_fired.fetch_add(1, Ordering::Relaxed);
        }
        let got = self_test::answer_spoilt_if(is_spoilt, &backend)
            .map_err(|error| refuse(error.to_string()))?;
        if got != self_test::EXPECTED {
            return Err(OpenError::SelfTest {
                adapter: report.name,
                expected: self_test::EXPECTED,
                got,
            });
        }
        if let Some(fault) = options.fault {
            backend.device.arm(fault);
        }
        Ok(backend)
    }
}

/// Every adapter with the result of opening it, self-test included.
pub fn doctor() -> Vec<(AdapterReport, Result<(), OpenError>)> {
    adapter::enumerate()
        .into_iter()
        .map(|adapter| {
            let report = AdapterReport::of(&adapter);
            let opened = GpuBackend::open_adapter(adapter, &OpenOptions::default());
            (report, opened.map(drop))
        })
        .collect()
}

impl Backend for GpuBackend {
    fn name(&self) -> String {
        format!("gpu {} ({})", self.report.name, self.report.backend)
    }

    /// # Panics
    /// When a candidate has no centroid, more than [`MAX_CLUSTERS`], or other features than `block`.
    fn pass(
        &self,
        block: &Block,
        candidates: &[Centroids],
        labels: Option<&mut BlockLabels>,
    ) -> Result<Vec<Partial>, BackendError> {
        for candidate in candidates {
            let n_clusters = candidate.n_clusters();
            assert!(
                (1..=MAX_CLUSTERS).contains(&n_clusters),
                "n_clusters={n_clusters}"
            );
            assert_eq!(
                candidate.n_features(),
                block.n_features(),
                "features of candidate and block"
            );
        }
        if candidates.iter().any(|c| self.is_too_long(c)) {
            return CpuBackend::new().pass(block, candidates, labels);
        }
        let packed: Vec<Packed> = candidates.iter().map(Packed::from).collect();
        let answers = if block.n_rows() == 0 {
            packed.iter().map(Packed::answer_for_no_rows).collect()
        } else {
            self.device.run(Job {
                n_rows: block.n_rows(),
                n_features: block.n_features(),
                tiles: block.tiles().to_vec(),
                tile_norms: block.tile_norms().to_vec(),
                candidates: packed.iter().map(|p| p.for_device.clone()).collect(),
                wants_labels: labels.is_some(),
            })?
        };
        Ok(settle::finish(block, candidates, &packed, answers, labels))
    }
}
