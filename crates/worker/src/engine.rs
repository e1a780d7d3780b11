//! The processors of one worker: GPUs if there are any that pay, the CPU always.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use clientele_gpu::{Fault, GpuBackend, GpuPass, OpenError, OpenOptions};
use clientele_kmeans::cpu::{CpuBackend, Kernel, Travel};
use clientele_kmeans::{Backend, BackendError, Block, Centroids, Partial};
use clientele_protocol::RowsBy;

use crate::probe;

/// What may compute passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BackendChoice {
    /// Real GPUs, the CPU, or all together, by what a short probe measures.
    #[default]
    Auto,
    /// GPUs, software ones where there are no others; none is an error.
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

/// One GPU, for as long as it works.
pub struct Gpu {
    backend: GpuBackend,
    is_lost: AtomicBool,
    /// Whether it has been said that blocks do not fit.
    said_too_large: AtomicBool,
}

/// Processors that compute passes, with the same bits on each.
pub struct Engine {
    gpus: Vec<Gpu>,
    /// The CPU takes part even while GPUs work.
    cpu_helps: bool,
    cpu: CpuBackend,
    /// Blocks that a GPU was asked for and the CPU finished.
    n_rescued: AtomicU64,
    ran: Mutex<BTreeMap<String, u64>>,
    /// Blocks that jobs have given to GPUs, by job.
    given: Mutex<BTreeMap<JobNo, BTreeSet<u64>>>,
    /// Read by passes on GPUs, written by who makes them forget blocks.
    in_passes: RwLock<()>,
}

/// Names a job among those of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobNo(u64);

impl Engine {
    /// Opens what `options` ask for; the CPU will work with `n_threads`.
    ///
    /// # Errors
    /// [`OpenError`] when a GPU was asked for and there is none. One that fails its self-test is not used, and that is said.
    pub fn open(options: &EngineOptions, n_threads: usize) -> Result<Self, OpenError> {
        let cpu = options
            .kernel
            .and_then(CpuBackend::with_kernel)
            .unwrap_or_default();
        let mut gpus = match (options.backend, open_gpus(options)) {
            (BackendChoice::Cpu, _) => Vec::new(),
            (_, Ok(gpus)) => gpus,
            (_, Err(error @ OpenError::SelfTest { .. })) => {
                tracing::warn!(%error, "the GPU computes wrongly and is not used; the CPU is");
                Vec::new()
            }
            (BackendChoice::Gpu, Err(error)) => return Err(error),
            (_, Err(error)) => {
                tracing::debug!(%error, "no GPU; the CPU is used");
                Vec::new()
            }
        };
        let mut cpu_helps = gpus.is_empty();
        if options.backend == BackendChoice::Auto && !gpus.is_empty() {
            let verdict = probe::judge(&cpu, n_threads, &gpus);
            tracing::info!("backend auto: {verdict}");
            cpu_helps = verdict.cpu_takes_part;
            let mut takes_part = verdict.gpus_take_part.iter();
            gpus.retain(|_| takes_part.next().is_some_and(|takes_part| *takes_part));
        }
        let gpus = gpus.into_iter().map(|backend| Gpu {
            backend,
            is_lost: AtomicBool::new(false),
            said_too_large: AtomicBool::new(false),
        });
        Ok(Self {
            gpus: gpus.collect(),
            cpu_helps,
            cpu,
            n_rescued: AtomicU64::new(0),
            ran: Mutex::default(),
            given: Mutex::default(),
            in_passes: RwLock::default(),
        })
    }

    /// What computes, for people: GPUs first, if there are any.
    pub fn devices(&self) -> Vec<String> {
        let gpus = self.gpus.iter().map(|gpu| gpu.backend.name());
        gpus.chain([self.cpu.name()]).collect()
    }

    /// The CPU's kernels, for what is settled there in any case.
    pub fn cpu(&self) -> &CpuBackend {
        &self.cpu
    }

    /// The GPUs that work.
    pub fn gpus(&self) -> Vec<&Gpu> {
        let works = |gpu: &&Gpu| !gpu.is_lost.load(Ordering::Relaxed);
        self.gpus.iter().filter(works).collect()
    }

    /// Whether the CPU should compute passes: as told, or because no GPU works.
    pub fn cpu_helps(&self) -> bool {
        self.cpu_helps || self.gpus().is_empty()
    }

    /// Blocks that GPUs could not finish and the CPU did, since the last call.
    pub fn take_rescued(&self) -> u64 {
        self.n_rescued.swap(0, Ordering::Relaxed)
    }

    /// One partial a candidate over all rows of `block`, by the CPU and without memory of earlier passes.
    pub fn pass_plain(&self, block: &Block, candidates: &[Centroids]) -> Vec<Partial> {
        self.cpu
            .pass(block, candidates, None)
            .expect("the CPU neither gets lost nor runs out of device memory")
    }

    /// The rows each backend went over since the last call.
    pub fn take_ran(&self) -> Vec<RowsBy> {
        let ran = std::mem::take(&mut *lock(&self.ran));
        ran.into_iter()
            .map(|(backend, n_rows)| RowsBy { backend, n_rows })
            .collect()
    }

    /// The CPU has answered for these rows.
    pub fn note_cpu(&self, n_rows: u64) {
        self.note(self.cpu.name(), n_rows);
    }

    /// `gpu` has answered for these rows.
    pub fn note_gpu(&self, gpu: &Gpu, n_rows: u64) {
        self.note(gpu.backend.name(), n_rows);
    }

    /// `gpu` could not go on; the CPU has these blocks of it to do.
    pub fn give_up(&self, gpu: &Gpu, error: &BackendError, n_blocks: usize) {
        self.n_rescued.fetch_add(n_blocks as u64, Ordering::Relaxed);
        match error {
            BackendError::DeviceLost { .. } => {
                if !gpu.is_lost.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "the GPU is lost; the CPU goes on, with the same result");
                }
            }
            BackendError::OutOfMemory { .. } => {
                if !gpu.said_too_large.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "rows do not fit on the GPU; the CPU computes them, with the same result");
                }
            }
        }
    }

    /// A job begins that may give blocks to GPUs.
    pub fn begin_job(&self) -> JobNo {
        static JOBS: AtomicU64 = AtomicU64::new(0);
        JobNo(JOBS.fetch_add(1, Ordering::Relaxed))
    }

    /// A job has ended: GPUs need not hold its blocks any longer.
    pub fn end_job(&self, job: JobNo) {
        if self.gpus.is_empty() {
            return;
        }
        // In this order: a pass holds the one while it asks for the other.
        let _no_pass = self.in_passes.write();
        let mut given = lock(&self.given);
        if given.remove(&job).is_some() {
            let kept: BTreeSet<u64> = given.values().flatten().copied().collect();
            for gpu in self.gpus() {
                gpu.backend.forget_all_but(&kept);
            }
        }
    }

    /// Held while blocks are given to GPUs.
    pub fn passing(&self) -> RwLockReadGuard<'_, ()> {
        self.in_passes
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// `job` gives a block to GPUs.
    pub fn note_given(&self, job: JobNo, block: &Block) {
        lock(&self.given)
            .entry(job)
            .or_default()
            .insert(block.serial());
    }

    fn note(&self, backend: String, n_rows: u64) {
        *lock(&self.ran).entry(backend).or_default() += n_rows;
    }
}

impl Gpu {
    /// A pass on behalf of `candidates` begins, on what earlier ones have left if there is the `travel` of the only one.
    ///
    /// # Errors
    /// As [`GpuBackend::begin`].
    pub fn begin(
        &self,
        candidates: &[Centroids],
        travel: Option<&Travel>,
    ) -> Result<GpuPass<'_>, BackendError> {
        match travel {
            Some(travel) => self.backend.begin_remembering(travel),
            None => self.backend.begin(candidates),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The GPUs that may be used: software ones only when a GPU is asked for and there is no other.
fn open_gpus(options: &EngineOptions) -> Result<Vec<GpuBackend>, OpenError> {
    if options.backend == BackendChoice::Cpu {
        return Ok(Vec::new());
    }
    if options.backend == BackendChoice::Auto && !may_have_gpus() {
        tracing::debug!("the system has no GPU; the CPU is used");
        return Ok(Vec::new());
    }
    let mut gpus = GpuBackend::open_all(&OpenOptions {
        allow_software: options.backend == BackendChoice::Gpu,
        adapter: options.adapter.clone(),
        fault: options.fault,
        ..OpenOptions::default()
    })?;
    if gpus.iter().any(|gpu| !gpu.is_software()) {
        gpus.retain(|gpu| !gpu.is_software());
    } else {
        gpus.truncate(1);
    }
    Ok(gpus)
}

/// Whether the system shows anything that a driver could find a GPU behind. To load drivers takes tens of milliseconds, those of
/// software devices most, only to hear that there is none.
fn may_have_gpus() -> bool {
    // What the drivers of desktops, servers, WSL and boards open; any other system is asked.
    const NODES: [&str; 9] = [
        "dri", "dxg", "galcore", "kfd", "kgsl", "mali", "nvhost", "nvidia", "pvr",
    ];
    if !cfg!(target_os = "linux") {
        return true;
    }
    let Ok(mut nodes) = std::fs::read_dir("/dev") else {
        return true;
    };
    nodes.any(|node| match node {
        Ok(node) => {
            let name = node.file_name();
            let name = name.to_string_lossy();
            NODES.iter().any(|known| name.starts_with(known))
        }
        Err(_) => true,
    })
}
