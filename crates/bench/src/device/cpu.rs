//! The processor, on as many threads as asked for.

use std::sync::Arc;

use clientele_kmeans::cpu::{CpuBackend, Kernel};
use clientele_kmeans::{Backend, BackendError, Block, Centroids, Partial};
use rayon::ThreadPool;
use rayon::prelude::*;

use super::Device;
use crate::{Controls, DeviceKind, controls};

/// One kernel on all threads of a pool; blocks are shared out as in a fit.
#[derive(Debug)]
pub struct CpuDevice {
    backend: CpuBackend,
    pool: Arc<ThreadPool>,
}

impl CpuDevice {
    /// `kernel`, or the fastest there is; `None` when this processor cannot run it.
    pub fn new(kernel: Option<Kernel>, pool: Arc<ThreadPool>) -> Option<Self> {
        let backend = match kernel {
            Some(kernel) => CpuBackend::with_kernel(kernel)?,
            None => CpuBackend::new(),
        };
        Some(Self { backend, pool })
    }
}

impl Device for CpuDevice {
    fn name(&self) -> String {
        self.backend.name()
    }

    fn kind(&self) -> DeviceKind {
        DeviceKind::Cpu
    }

    fn driver(&self) -> Option<String> {
        None
    }

    fn is_software(&self) -> bool {
        false
    }

    fn n_threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Of the machine, whatever the kernel: a narrower kernel is judged by what the processor could do.
    fn controls(&self) -> Controls {
        controls::measure(&self.pool)
    }

    fn pass(
        &self,
        blocks: &[Block],
        candidates: &[Centroids],
    ) -> Result<Vec<Partial>, BackendError> {
        self.pool.install(|| {
            blocks
                .par_iter()
                .map(|block| self.backend.pass(block, candidates, None))
                .try_reduce(|| no_rows(candidates), merge)
        })
    }
}

/// Adds up the partials of two sets of rows.
fn merge(mut one: Vec<Partial>, other: Vec<Partial>) -> Result<Vec<Partial>, BackendError> {
    one.iter_mut()
        .zip(&other)
        .for_each(|(one, other)| one.merge(other));
    Ok(one)
}

/// The partials of no rows.
fn no_rows(candidates: &[Centroids]) -> Vec<Partial> {
    let zero = |c: &Centroids| Partial::zero(c.n_clusters(), c.n_features());
    candidates.iter().map(zero).collect()
}
