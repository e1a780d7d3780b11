//! A GPU as a [`Backend`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use clientele_kmeans::cpu::{CpuBackend, Travel};
use clientele_kmeans::{
    Backend, BackendError, Block, BlockLabels, Centroids, MAX_CLUSTERS, Partial,
};

use crate::adapter::{self, AdapterReport};
use crate::controls::Control;
use crate::memory::{self, Remembered};
use crate::pass::GpuPass;
use crate::pipeline::plan;
use crate::residency::Shared;
use crate::self_test;
use crate::shaders::Flaw;
use crate::thread::DeviceThread;

/// Rows that software adapters and those that share the computer's memory may hold, unless told otherwise: it is not theirs.
const SHARED_MEMORY_BYTES: u64 = 1 << 30;

/// A pass that remembers goes round its loops this much more often than a plain one, at most: rows one after the other, twice.
const ROUNDS_OF_MEMORY: usize = 4;

/// Which adapter to open, and how.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    /// Also take an adapter that computes on the CPU. Slower than our own CPU kernels: for tests.
    pub allow_software: bool,
    /// Only adapters whose name contains this, in any case.
    pub adapter: Option<String>,
    /// Bytes of the largest buffer the backend may bind; work is cut to fit. `None`: what the device allows.
    pub binding_limit_bytes: Option<u64>,
    /// Bytes of rows that may stay on the device from pass to pass. `None`: what an adapter with its own memory has, as far as it
    /// grants it, and 1 GiB of memory that is shared with the CPU.
    pub resident_limit_bytes: Option<u64>,
    /// Keep wgpu's run-time checks of indices and loops in the shaders; slower, the same answers.
    pub checked_shaders: bool,
    /// Remember in every pass that may ([`GpuBackend::begin_remembering`]), also where it does not pay; for tests.
    pub always_remembers: bool,
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
    /// Compiles the shaders with a mistake in them, after the self-test.
    WrongShaders(Flaw),
    /// Tells passes that remember of two thirds of the way that centroids have come.
    ShortTravel,
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
    shared: Arc<Shared>,
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

    /// Opens every adapter the options allow that answers the self-test rightly, to be used side by side, best first. One that shows
    /// under several interfaces is opened once.
    ///
    /// # Errors
    /// What was wrong with the best one when none can be used.
    pub fn open_all(options: &OpenOptions) -> Result<Vec<Self>, OpenError> {
        let mut first_error = None;
        let mut opened = Vec::new();
        for adapter in adapter::one_interface_each(adapter::choose(options)?) {
            match Self::open_adapter(adapter, options) {
                Ok(backend) => opened.push(backend),
                Err(error) => {
                    tracing::warn!(%error, "a GPU was refused");
                    first_error.get_or_insert(error);
                }
            }
        }
        match first_error {
            Some(error) if opened.is_empty() => Err(error),
            _ => Ok(opened),
        }
    }

    /// Starts a pass on behalf of `candidates`. Any number of blocks are then added; their sums stay on the device until
    /// [`GpuPass::finish`]. Several passes may be open at once.
    ///
    /// # Errors
    /// When the device is lost, or the candidates do not fit it.
    ///
    /// # Panics
    /// When a candidate has no centroid or more than [`MAX_CLUSTERS`], or candidates differ in their features.
    pub fn begin(&self, candidates: &[Centroids]) -> Result<GpuPass<'_>, BackendError> {
        let n_features = candidates.first().map_or(1, Centroids::n_features);
        check(candidates, n_features);
        if candidates.iter().any(|c| self.is_too_long(c)) {
            return Err(BackendError::OutOfMemory {
                reason: "a software device does not go round its loops often enough".to_owned(),
            });
        }
        GpuPass::begin(self, candidates, n_features, None, None)
    }

    /// Starts a pass with the centroids of `travel`, the only candidate of its job, that may leave out rows whose label cannot have changed
    /// since the last such pass: those of resident blocks, when the centroids have come to move little, there is room on the device for
    /// four bytes a row, and the last pass could leave out enough of them. The answer is that of [`GpuBackend::begin`] in any case.
    ///
    /// # Errors
    /// As [`GpuBackend::begin`].
    ///
    /// # Panics
    /// As [`GpuBackend::begin`].
    pub fn begin_remembering(&self, travel: &Travel) -> Result<GpuPass<'_>, BackendError> {
        let centroids = travel.centroids();
        let n_rounds = plan::loop_rounds(centroids.n_clusters(), centroids.n_features());
        let is_too_long =
            self.report.is_software && n_rounds > plan::SOFTWARE_LOOP_ROUNDS / ROUNDS_OF_MEMORY;
        if is_too_long || !memory::can_remember(centroids) {
            return self.begin(std::slice::from_ref(centroids));
        }
        let candidates = std::slice::from_ref(centroids);
        GpuPass::begin(
            self,
            candidates,
            centroids.n_features(),
            None,
            Some(travel.units()),
        )
    }

    /// What passes that remember have done since the device was opened.
    pub fn remembered(&self) -> Remembered {
        self.shared.remembered()
    }

    /// Bytes of rows held on the device from pass to pass.
    pub fn resident_bytes(&self) -> u64 {
        self.shared.held_bytes()
    }

    /// How many it may hold. Shrinks when the device has no more.
    pub fn resident_limit_bytes(&self) -> u64 {
        self.shared.limit_bytes()
    }

    /// Holds no more than this from now on; what is held stays until it is forgotten.
    pub fn set_resident_limit_bytes(&self, limit_bytes: u64) {
        self.shared.set_limit_bytes(limit_bytes);
    }

    /// Forgets the rows of all blocks but those with these [`Block::serial`]s, when a job has ended. No pass may be under way that
    /// has been given one of the others.
    pub fn forget_all_but(&self, serials: &BTreeSet<u64>) {
        self.device.retain(serials.clone());
    }

    /// Bytes a second, read and written, that a plain copy on the device reaches.
    ///
    /// # Errors
    /// When the device is lost.
    pub fn copy_bandwidth(&self) -> Result<f64, BackendError> {
        self.device.measure(Control::Copy)
    }

    /// Multiply-adds a second that independent chains in registers reach.
    ///
    /// # Errors
    /// When the device is lost.
    pub fn multiply_add_peak(&self) -> Result<f64, BackendError> {
        self.device.measure(Control::MultiplyAdd)
    }

    /// Whether it computes on the CPU: good for tests, slower than our own CPU kernels.
    pub fn is_software(&self) -> bool {
        self.report.is_software
    }

    /// What was opened.
    pub fn adapter(&self) -> &AdapterReport {
        &self.report
    }

    /// How many injected faults have really happened.
    pub fn faults_fired(&self) -> u32 {
        self.faults_fired.load(Ordering::Relaxed)
    }

    pub(crate) fn device(&self) -> &DeviceThread {
        &self.device
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Its answer to the part of the self-test in which rows may be left out.
    fn answer_in_steps(&self) -> Result<u64, BackendError> {
        let hash = self_test::answer_in_steps(|block, travel| {
            let mut pass = self.begin_remembering(travel)?;
            pass.add(block)?;
            Ok(pass.finish()?.remove(0))
        });
        self.forget_all_but(&BTreeSet::new());
        tracing::debug!(self_test = ?self.remembered(), "rows left out");
        self.shared.clear_remembered();
        hash
    }

    fn is_too_long(&self, candidate: &Centroids) -> bool {
        let n_rounds = plan::loop_rounds(candidate.n_clusters(), candidate.n_features());
        self.report.is_software && n_rounds > plan::SOFTWARE_LOOP_ROUNDS
    }

    fn open_adapter(adapter: wgpu::Adapter, options: &OpenOptions) -> Result<Self, OpenError> {
        let report = AdapterReport::of(&adapter);
        let refuse = |reason| OpenError::Device {
            adapter: report.name.clone(),
            reason,
        };
        let faults_fired = Arc::new(AtomicU32::new(0));
        let shared = Arc::new(Shared::default());
        shared.set_limit_bytes(options.resident_limit_bytes.unwrap_or(
            match report.has_own_memory() {
                true => u64::MAX,
                false => SHARED_MEMORY_BYTES,
            },
        ));
        let device = DeviceThread::spawn(adapter, options, shared.clone(), faults_fired.clone())
            .map_err(refuse)?;
        let backend = Self {
            report: report.clone(),
            device,
            shared: shared.clone(),
            faults_fired,
        };
        let is_spoilt = options.fault == Some(Fault::WrongSelfTest);
        if is_spoilt {
            backend.faults_fired.fetch_add(1, Ordering::Relaxed);
        }
        let got = self_test::answer_spoilt_if(is_spoilt, &backend)
            .map_err(|error| refuse(error.to_string()))?;
        shared.set_always_remembers(true);
        let in_steps = backend
            .answer_in_steps()
            .map_err(|error| refuse(error.to_string()))?;
        shared.set_always_remembers(options.always_remembers);
        for (expected, got) in [
            (self_test::EXPECTED, got),
            (self_test::EXPECTED_IN_STEPS, in_steps),
        ] {
            if expected != got {
                return Err(OpenError::SelfTest {
                    adapter: report.name,
                    expected,
                    got,
                });
            }
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

    /// Does not make the rows resident, but uses them where they are.
    ///
    /// # Panics
    /// When a candidate has no centroid, more than [`MAX_CLUSTERS`], or other features than `block`.
    fn pass(
        &self,
        block: &Block,
        candidates: &[Centroids],
        labels: Option<&mut BlockLabels>,
    ) -> Result<Vec<Partial>, BackendError> {
        check(candidates, block.n_features());
        // Buffers for labels are never empty.
        if candidates.iter().any(|c| self.is_too_long(c))
            || block.n_rows() == 0
            || candidates.is_empty()
        {
            return CpuBackend::new().pass(block, candidates, labels);
        }
        let label_rows = labels.as_ref().map(|_| block.n_rows());
        let mut pass = GpuPass::begin(self, candidates, block.n_features(), label_rows, None)?;
        pass.add_to(block, false)?;
        pass.finish_with(labels)
    }
}

fn check(candidates: &[Centroids], n_features: usize) {
    for candidate in candidates {
        let n_clusters = candidate.n_clusters();
        assert!(
            (1..=MAX_CLUSTERS).contains(&n_clusters),
            "n_clusters={n_clusters}"
        );
        assert_eq!(
            candidate.n_features(),
            n_features,
            "features of candidate and rows"
        );
    }
}
