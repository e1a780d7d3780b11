//! What is measured.

mod cpu;
mod gpu;

pub use cpu::CpuDevice;
pub use gpu::{GpuDevice, open_gpus};

use std::sync::Arc;

use clientele_kmeans::cpu::Kernel;
use clientele_kmeans::{BackendError, Block, Centroids, Partial};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::{BenchError, Controls, DeviceKind};

/// Something that computes passes, and whose limits can be measured.
pub trait Device: Send + Sync {
    /// What it is, for people; unique within a run.
    fn name(&self) -> String;

    /// CPU or GPU.
    fn kind(&self) -> DeviceKind;

    /// Driver and version, where there is one.
    fn driver(&self) -> Option<String>;

    /// A GPU that computes on the CPU.
    fn is_software(&self) -> bool;

    /// Threads that compute, or that feed the device.
    fn n_threads(&self) -> usize;

    /// Measures memory bandwidth and multiply-adds a second; a fraction of a second.
    fn controls(&self) -> Controls;

    /// One partial for each candidate over all rows of `blocks`. The first call with these blocks may load them.
    ///
    /// # Errors
    /// When the device cannot go on.
    fn pass(
        &self,
        blocks: &[Block],
        candidates: &[Centroids],
    ) -> Result<Vec<Partial>, BackendError>;

    /// Of rows of `n_bytes`, how many bytes more of this machine's memory they take to stay with the device from pass to pass.
    fn resident_bytes(&self, n_bytes: u64) -> u64 {
        let _ = n_bytes;
        0
    }

    /// Lets go of rows kept from earlier passes; the next ones are over other rows.
    fn forget_rows(&self) {}
}

/// Which devices are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The CPU, and every GPU that is one.
    Auto,
    /// The CPU.
    Cpu,
    /// GPUs, software ones too; none is an error.
    Gpu,
    /// The CPU and GPUs, software ones too; no GPU is an error.
    All,
}

/// What is to be opened.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Which kinds.
    pub choice: Choice,
    /// CPU kernels, each a device of its own; none: the fastest.
    pub kernels: Vec<Kernel>,
    /// Only GPUs whose name contains this.
    pub adapter: Option<String>,
}

/// Threads for devices to share.
///
/// # Errors
/// When the system gives none.
pub fn pool(n_threads: usize) -> Result<Arc<ThreadPool>, BenchError> {
    let pool = ThreadPoolBuilder::new().num_threads(n_threads).build();
    pool.map(Arc::new).map_err(|error| BenchError::Setup {
        reason: error.to_string(),
    })
}

/// The devices that `wanted` asks for: the CPU first, then GPUs, best first.
///
/// # Errors
/// When a kernel or a GPU was asked for and there is none.
pub fn open(wanted: &Wanted, pool: &Arc<ThreadPool>) -> Result<Vec<Box<dyn Device>>, BenchError> {
    let Wanted {
        choice,
        kernels,
        adapter,
    } = wanted;
    let mut devices: Vec<Box<dyn Device>> = Vec::new();
    if *choice != Choice::Gpu {
        devices.extend(open_cpus(kernels, pool)?);
    }
    let allow_software = matches!(choice, Choice::Gpu | Choice::All);
    let gpus = match choice {
        Choice::Cpu => Ok(Vec::new()),
        _ => open_gpus(adapter.as_deref(), allow_software),
    };
    match gpus {
        Ok(gpus) => devices.extend(gpus.into_iter().map(|gpu| Box::new(gpu) as Box<dyn Device>)),
        // Nobody asked for one in particular.
        Err(error) if *choice == Choice::Auto && adapter.is_none() => {
            tracing::info!(
                "no GPU is measured: {error}; `--backend all` measures software ones as well"
            );
        }
        Err(error) => return Err(error.into()),
    }
    Ok(devices)
}

fn open_cpus(
    kernels: &[Kernel],
    pool: &Arc<ThreadPool>,
) -> Result<Vec<Box<dyn Device>>, BenchError> {
    let kernels = match kernels {
        [] => vec![None],
        some => some.iter().copied().map(Some).collect(),
    };
    let open = |kernel: Option<Kernel>| {
        let cpu = CpuDevice::new(kernel, pool.clone());
        let cpu = cpu.map(|cpu| Box::new(cpu) as Box<dyn Device>);
        cpu.ok_or_else(|| BenchError::NoSuchKernel {
            wanted: kernel,
            available: Kernel::available(),
        })
    };
    kernels.into_iter().map(open).collect()
}
