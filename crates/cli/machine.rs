//! What this machine has, and what of it a run may use.

use std::num::NonZeroUsize;

use clientele_gpu::Fault;
use clientele_kmeans::cpu::Kernel;
use clientele_worker::{BackendChoice, EngineOptions};

use crate::args::{BackendArg, MachineArgs};
use crate::failure::Failure;

/// Memory of a machine that does not tell.
const UNKNOWN_MEMORY_BYTES: u64 = 4 << 30;

/// The least with which a run makes sense.
const LEAST_MEMORY_BYTES: u64 = 256 << 20;

/// Resolved settings; none of them changes a result.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Processors.
    pub engine: EngineOptions,
    /// Workers in this process.
    pub n_workers: u32,
    /// Threads over all workers.
    pub n_threads: usize,
    /// Resident memory of the process, in bytes.
    pub memory_bytes: u64,
}

impl Machine {
    /// Fills in what `args` leave open.
    ///
    /// # Errors
    /// Numbers that no run can do with.
    pub fn new(args: &MachineArgs) -> Result<Self, Failure> {
        let n_workers = args.workers.unwrap_or(1);
        let n_threads = args.threads.unwrap_or_else(n_cores);
        let memory_bytes = args
            .memory
            .map_or_else(default_memory_bytes, |bytes| bytes.0);
        if n_workers == 0 || n_threads == 0 {
            return Err(Failure::usage("--workers and --threads must be at least 1"));
        }
        if n_workers > 1_024 || n_threads > 4_096 {
            return Err(Failure::usage(
                "at most 1,024 workers and 4,096 threads fit in one process",
            ));
        }
        if memory_bytes < LEAST_MEMORY_BYTES {
            return Err(Failure::usage(format!(
                "--memory of {memory_bytes} bytes is too little; the least is {} MiB",
                LEAST_MEMORY_BYTES >> 20
            )));
        }
        let engine = EngineOptions {
            backend: match args.backend {
                None | Some(BackendArg::Auto) => BackendChoice::Auto,
                Some(BackendArg::Gpu) => BackendChoice::Gpu,
                Some(BackendArg::Cpu) => BackendChoice::Cpu,
            },
            adapter: args.adapter.clone(),
            kernel: injected_kernel()?,
            // For measurements: what leaving rows out saves.
            reads_everything: std::env::var_os("CLIENTELE_PRUNE").is_some_and(|it| it == "off"),
            fault: injected_fault()?,
        };
        Ok(Self {
            engine,
            n_workers,
            n_threads,
            memory_bytes,
        })
    }

    /// Threads as DataFusion wants them.
    pub fn threads(&self) -> Option<NonZeroUsize> {
        NonZeroUsize::new(self.n_threads)
    }
}

/// Cores this process may use.
pub fn n_cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// Half of the memory of this machine, or of what its container may use, so that it stays usable for others.
pub fn default_memory_bytes() -> u64 {
    let machine =
        status_kib("/proc/meminfo", "MemTotal:").map_or(UNKNOWN_MEMORY_BYTES, |kib| kib * 1_024);
    let total = container_bytes().map_or(machine, |limit| limit.min(machine));
    (total / 2).max(LEAST_MEMORY_BYTES)
}

/// What the control group of this process may use, if it says: version 2, then version 1.
fn container_bytes() -> Option<u64> {
    let files = [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ];
    let limit = |file: &&str| std::fs::read_to_string(file).ok()?.trim().parse().ok();
    files.iter().find_map(limit)
}

/// The most memory this process has had resident, where the system tells.
pub fn peak_rss_bytes() -> Option<u64> {
    status_kib("/proc/self/status", "VmHWM:").map(|kib| kib * 1_024)
}

fn status_kib(file: &str, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// `CLIENTELE_KERNEL=scalar` takes that kernel instead of the best one: for tests and measurements.
fn injected_kernel() -> Result<Option<Kernel>, Failure> {
    let Ok(wanted) = std::env::var("CLIENTELE_KERNEL") else {
        return Ok(None);
    };
    let available = Kernel::available();
    let found = available
        .iter()
        .find(|kernel| format!("{kernel:?}").eq_ignore_ascii_case(&wanted.replace("-", "")));
    found.copied().map(Some).ok_or_else(|| {
        Failure::usage(format!(
            "CLIENTELE_KERNEL={wanted} is not a kernel of this processor; there are {available:?}"
        ))
    })
}

/// `CLIENTELE_INJECT=lose-gpu-after:N` destroys the GPU device in the pass after N good ones; `wrong-self-test` spoils its first answer.
fn injected_fault() -> Result<Option<Fault>, Failure> {
    let Ok(wanted) = std::env::var("CLIENTELE_INJECT") else {
        return Ok(None);
    };
    if wanted == "wrong-self-test" {
        return Ok(Some(Fault::WrongSelfTest));
    }
    let passes = wanted
        .strip_prefix("lose-gpu-after:")
        .and_then(|n| n.parse().ok());
    passes
        .map(|passes| Some(Fault::LoseDeviceAfter { passes }))
        .ok_or_else(|| {
            Failure::usage(format!(
                "CLIENTELE_INJECT={wanted} is neither `lose-gpu-after:N` nor `wrong-self-test`"
            ))
        })
}
