//! The processors of one worker: a GPU if there is one, the CPU always.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use clientele_gpu::{Fault, GpuBackend, OpenError, OpenOptions};
use clientele_kmeans::cpu::{CpuBackend, Kernel};
use clientele_kmeans::{Backend, BackendError, Block, Centroids, Partial};
use clientele_protocol::RowsBy;

/// What may compute passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BackendChoice {
    /// A real GPU if there is one, else the CPU.
    #[default]
    Auto,
    /// A GPU, a software one too; none is an error.
    Gpu,
    /// The CPU.
    Cpu,
}

/// How a worker's processors are opened.
#[derive(Debug, Clone, Default)]
pub struct EngineOptions {
    /// Which.
    pub backend: BackendChoice,
    /// Only the GPU whose name contains this.
    pub adapter: Option<String>,
    /// Only this CPU kernel instead of the best one; for tests and measurements.
    pub kernel: Option<Kernel>,
    /// The CPU looks at every row in every pass, also at those that cannot have changed; for measurements.
    pub reads_everything: bool,
    /// A fault to inject into the GPU; for tests.
    pub fault: Option<Fault>,
}

/// Computes passes on the best processor that works, with the same bits on each.
pub struct Engine {
    gpu: Option<GpuBackend>,
    gpu_lost: AtomicBool,
    cpu: CpuBackend,
    /// Blocks that the GPU was asked for and the CPU finished.
    n_rescued: AtomicU64,
    /// Whether it has been said that blocks do not fit.
    said_too_large: AtomicBool,
    ran: Mutex<BTreeMap<String, u64>>,
}

impl Engine {
    /// Opens what `options` ask for.
    ///
    /// # Errors
    /// [`OpenError`] when a GPU was asked for and there is none. One that fails its self-test is not used, and that is said.
    pub fn open(options: &EngineOptions) -> Result<Self, OpenError> {
        let cpu = options
            .kernel
            .and_then(CpuBackend::with_kernel)
            .unwrap_or_default();
        let gpu = match (options.backend, open_gpu(options)) {
            (BackendChoice::Cpu, _) => None,
            (_, Some(Ok(gpu))) => Some(gpu),
            (_, Some(Err(error @ OpenError::SelfTest { .. }))) => {
                tracing::warn!(%error, "the GPU computes wrongly and is not used; the CPU is");
                None
            }
            (BackendChoice::Gpu, Some(Err(error))) => return Err(error),
            (_, other) => {
                tracing::debug!(?other, "no GPU; the CPU is used");
                None
            }
        };
        Ok(Self {
            gpu,
            gpu_lost: AtomicBool::new(false),
            cpu,
            n_rescued: AtomicU64::new(0),
            said_too_large: AtomicBool::new(false),
            ran: Mutex::new(BTreeMap::new()),
        })
    }

    /// What computes, for people: the GPU first, if there is one.
    pub fn devices(&self) -> Vec<String> {
        let gpu = self.gpu.as_ref().map(GpuBackend::name);
        gpu.into_iter().chain([self.cpu.name()]).collect()
    }

    /// The CPU's kernels, for what is settled there in any case.
    pub fn cpu(&self) -> &CpuBackend {
        &self.cpu
    }

    /// Whether passes run on a GPU at the moment.
    pub fn is_gpu(&self) -> bool {
        self.gpu.is_some() && !self.gpu_lost.load(Ordering::Relaxed)
    }

    /// Blocks that the GPU could not finish and the CPU did, since the last call.
    pub fn take_rescued(&self) -> u64 {
        self.n_rescued.swap(0, Ordering::Relaxed)
    }

    /// One partial a candidate over all rows of `block`.
    pub fn pass(&self, block: &Block, candidates: &[Centroids]) -> Vec<Partial> {
        if let Some(gpu) = &self.gpu
            && !self.gpu_lost.load(Ordering::Relaxed)
        {
            match gpu.pass(block, candidates, None) {
                Ok(partials) => {
                    self.note(gpu.name(), block.n_rows() as u64);
                    return partials;
                }
                Err(error) => self.give_up(&error),
            }
        }
        self.note_cpu(block.n_rows() as u64);
        self.cpu
            .pass(block, candidates, None)
            .expect("the CPU neither gets lost nor runs out of device memory")
    }

    /// The rows each backend went over since the last call.
    pub fn take_ran(&self) -> Vec<RowsBy> {
        let ran = std::mem::take(
            &mut *self
                .ran
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        );
        ran.into_iter()
            .map(|(backend, n_rows)| RowsBy { backend, n_rows })
            .collect()
    }

    fn give_up(&self, error: &BackendError) {
        self.n_rescued.fetch_add(1, Ordering::Relaxed);
        match error {
            BackendError::DeviceLost { .. } => {
                if !self.gpu_lost.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "the GPU is lost; the CPU goes on, with the same result");
                }
            }
            BackendError::OutOfMemory { .. } => {
                if !self.said_too_large.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "a block does not fit on the GPU; the CPU computes it, with the same result");
                }
            }
        }
    }

    /// The CPU has answered for these rows.
    pub fn note_cpu(&self, n_rows: u64) {
        self.note(self.cpu.name(), n_rows);
    }

    fn note(&self, backend: String, n_rows: u64) {
        let mut ran = self
            .ran
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        *ran.entry(backend).or_default() += n_rows;
    }
}

/// The GPU, if one is wanted at all; a software one only when it is asked for.
fn open_gpu(options: &EngineOptions) -> Option<Result<GpuBackend, OpenError>> {
    let allow_software = match options.backend {
        BackendChoice::Cpu => return None,
        BackendChoice::Auto => false,
        BackendChoice::Gpu => true,
    };
    Some(GpuBackend::open(&OpenOptions {
        allow_software,
        adapter: options.adapter.clone(),
        fault: options.fault,
        ..OpenOptions::default()
    }))
}
