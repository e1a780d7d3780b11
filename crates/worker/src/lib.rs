//! A worker: holds blocks, answers questions about them, writes assignment parts. Decides nothing about the model.
//!
//! Every answer is a pure function of (job, stage, part). Blocks are kept between stages, in memory or spilled, and made again from
//! the source whenever they are missing, so any worker can answer for any shard at any time.

mod assignments;
mod engine;
mod in_process;
mod labels;
mod stages;

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::Instant;

use clientele_data::manifest::ShardId;
use clientele_data::store::BlockStore;
use clientele_gpu::OpenError;
use clientele_kmeans::BLOCK_ROWS;
use clientele_protocol::{Job, Reply, Task};

pub use engine::{BackendChoice, EngineOptions};

use engine::Engine;
pub use in_process::InProcess;

use labels::LabelCache;

/// Memory that a process needs before it holds its first block.
const BASE_BYTES: u64 = 96 << 20;

/// Blocks' worth of memory that a thread works with while it decodes, places and computes.
const BLOCKS_A_THREAD: u64 = 6;

/// What a worker may use.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// Processors.
    pub engine: EngineOptions,
    /// Threads for decoding and CPU kernels, at least 1.
    pub n_threads: usize,
    /// Resident memory in all, in bytes; blocks that do not fit are spilled.
    pub memory_bytes: u64,
}

/// Why a worker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The GPU that was asked for cannot be used.
    #[error(transparent)]
    Gpu(#[from] OpenError),
    /// The system gives no threads.
    #[error("cannot start {n_threads} threads")]
    Threads {
        /// Asked for.
        n_threads: usize,
        /// What the system said.
        source: rayon::ThreadPoolBuildError,
    },
}

/// One worker, for one job.
pub struct Worker {
    job: Job,
    engine: Engine,
    pool: rayon::ThreadPool,
    store: BlockStore,
    /// Shards whose blocks are in the store.
    present: Mutex<HashSet<ShardId>>,
    labels: LabelCache,
}

impl Worker {
    /// Opens processors and the block store.
    ///
    /// # Errors
    /// [`WorkerError`].
    pub fn new(job: Job, options: &WorkerOptions) -> Result<Self, WorkerError> {
        let n_threads = options.n_threads.max(1);
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(n_threads)
            .thread_name(|nth| format!("worker-{nth}"))
            .build()
            .map_err(|source| WorkerError::Threads { n_threads, source })?;
        let block_bytes = (BLOCK_ROWS * (job.manifest.n_features() + 4) * size_of::<f32>()) as u64;
        let working_bytes = BASE_BYTES + BLOCKS_A_THREAD * block_bytes * n_threads as u64;
        let for_rows = options.memory_bytes.saturating_sub(working_bytes);
        // Old labels only tell people how many rows moved, so they take what is cheap to give.
        let label_bytes = for_rows / 8;
        let store_bytes = usize::try_from(for_rows - label_bytes).unwrap_or(usize::MAX);
        let store = BlockStore::new(store_bytes, &job.spill_dir);
        Ok(Self {
            engine: Engine::open(&options.engine)?,
            pool,
            store,
            present: Mutex::new(HashSet::new()),
            labels: LabelCache::new(label_bytes),
            job,
        })
    }

    /// Answers a task; never panics on data.
    pub fn run(&self, task: &Task) -> Reply {
        let started = Instant::now();
        let body = self.pool.install(|| self.answer(&task.stage, &task.parts));
        Reply {
            key: task.key.clone(),
            seq: task.seq,
            parts: task.parts.clone(),
            body,
            ran: self.engine.take_ran(),
            n_rescued: self.engine.take_rescued(),
            elapsed: started.elapsed(),
        }
    }
}
