//! A worker: holds blocks, answers questions about them, writes assignment parts. Decides nothing about the model.
//!
//! Every answer is a pure function of (job, stage, part). Blocks are kept between stages, in memory or spilled, and made again from
//! the source whenever they are missing, so any worker can answer for any shard at any time.

mod assignments;
mod behind;
mod engine;
mod finish;
mod id_order;
mod in_process;
mod ingest;
mod kept;
mod memory;
mod passes;
mod probe;
pub mod remote;
mod rows;
mod shards;
mod stages;
mod tallies;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use clientele_data::manifest::ShardId;
use clientele_gpu::OpenError;
use clientele_protocol::{Job, Reply, Task};

pub use engine::{BackendChoice, EngineOptions};

use engine::{Engine, JobNo};
pub use in_process::InProcess;

use id_order::IdOrder;
use kept::{Kept, KeptIds, KeptShard};
use memory::PassMemory;
use rows::{Residents, Rows};

/// The part of the memory for rows that what passes remember may take.
const PASS_MEMORY_SHARE: u64 = 8;

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

/// Processors and memory of one worker, shared by all its jobs.
pub struct Resources {
    engine: Engine,
    pool: rayon::ThreadPool,
    n_threads: usize,
    prunes: bool,
    /// What blocks, labels and working memory may take.
    memory_bytes: u64,
    rows: Residents,
}

impl Resources {
    /// Opens processors.
    ///
    /// # Errors
    /// [`WorkerError`].
    pub fn open(options: &WorkerOptions) -> Result<Arc<Self>, WorkerError> {
        let n_threads = options.n_threads.max(1);
        clientele_data::memory::keep_small_buffers();
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(n_threads)
            .thread_name(|nth| format!("worker-{nth}"))
            .build()
            .map_err(|source| WorkerError::Threads { n_threads, source })?;
        Ok(Arc::new(Self {
            engine: Engine::open(&options.engine, n_threads)?,
            pool,
            n_threads,
            prunes: !options.engine.reads_everything,
            memory_bytes: options.memory_bytes,
            rows: Residents::new(options.memory_bytes),
        }))
    }

    /// What computes, for people.
    pub fn devices(&self) -> Vec<String> {
        self.engine.devices()
    }

    /// Resident memory in all, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// Threads for decoding and CPU kernels.
    pub fn n_threads(&self) -> usize {
        self.n_threads
    }
}

/// One worker, for one job.
pub struct Worker {
    job: Job,
    resources: Arc<Resources>,
    /// The rows on the grid, once there is a transform.
    rows: Mutex<Option<Arc<Rows>>>,
    memory: PassMemory,
    /// Under which GPUs hold its blocks.
    engine_job: JobNo,
    /// Rows that are not on the grid yet.
    kept: Kept<KeptShard>,
    /// Ids of rows that are.
    kept_ids: Kept<KeptIds>,
    /// Of a worker that answers for all shards.
    id_order: Option<IdOrder>,
}

impl Worker {
    /// A worker for `job`; it computes with `resources`, as those of other jobs do.
    pub fn new(job: Job, resources: Arc<Resources>) -> Self {
        let n_features = job.manifest.n_features();
        let for_rows = resources.rows.admit(n_features, resources.n_threads);
        Self {
            job,
            memory: PassMemory::new(for_rows / PASS_MEMORY_SHARE, resources.prunes),
            engine_job: resources.engine.begin_job(),
            resources,
            rows: Mutex::new(None),
            kept: Kept::default(),
            kept_ids: Kept::default(),
            id_order: None,
        }
    }

    /// As [`Worker::new`], for a job that no other worker has a part in: what it knows need not be filed for others.
    pub fn alone(job: Job, resources: Arc<Resources>) -> Self {
        let mut worker = Self::new(job, resources);
        worker.id_order = Some(IdOrder::default());
        worker
    }

    /// The job.
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// Whether it may compute on GPUs.
    pub fn has_gpus(&self) -> bool {
        !self.resources.engine.gpus().is_empty()
    }

    /// Shards whose rows are on the grid here.
    pub fn resident(&self) -> Vec<ShardId> {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        rows.as_ref().map(|rows| rows.shards()).unwrap_or_default()
    }

    /// Answers a task; never panics on data.
    pub fn run(&self, task: &Task) -> Reply {
        let Resources { engine, pool, .. } = &*self.resources;
        let started = Instant::now();
        let body = pool.install(|| self.answer(&task.stage, &task.parts));
        Reply {
            key: task.key.clone(),
            seq: task.seq,
            parts: task.parts.clone(),
            body,
            ran: engine.take_ran(),
            n_rescued: engine.take_rescued(),
            elapsed: started.elapsed(),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.resources.engine.end_job(self.engine_job);
    }
}
