//! wgpu devices. The only file that knows how a GPU is fed.

use std::sync::Arc;

use clientele_gpu::{GpuBackend, OpenError, OpenOptions, adapters};
use clientele_kmeans::{Backend, BackendError, Block, Centroids, Partial};
use rayon::ThreadPool;
use rayon::prelude::*;

use super::{Device, merge, no_rows};
use crate::{Controls, DeviceKind};

/// One open adapter.
#[derive(Debug)]
pub struct GpuDevice {
    backend: GpuBackend,
    pool: Arc<ThreadPool>,
}

/// Every adapter that opens and passes its self-test, best first; with `allow_software` those that compute on the CPU as well. Only
/// adapters whose name contains `named`, if given. One that does not open is left out and said.
///
/// # Errors
/// What was wrong with the first one when none is left.
pub fn open_gpus(
    named: Option<&str>,
    allow_software: bool,
    pool: &Arc<ThreadPool>,
) -> Result<Vec<GpuDevice>, OpenError> {
    let options = |adapter: Option<String>| OpenOptions {
        allow_software,
        adapter,
        ..OpenOptions::default()
    };
    let wanted = named.map(str::to_lowercase);
    let mut names: Vec<String> = adapters()
        .into_iter()
        .filter(|adapter| allow_software || !adapter.is_software)
        .map(|adapter| adapter.name)
        .filter(|name| {
            wanted
                .as_ref()
                .is_none_or(|w| name.to_lowercase().contains(w))
        })
        .collect();
    names.dedup();
    if names.is_empty() {
        // It names what there is instead.
        let backend = GpuBackend::open(&options(named.map(str::to_owned)))?;
        return Ok(vec![GpuDevice {
            backend,
            pool: pool.clone(),
        }]);
    }
    let mut opened = Vec::new();
    let mut first_error = None;
    for name in names {
        match GpuBackend::open(&options(Some(name))) {
            Ok(backend) => opened.push(GpuDevice {
                backend,
                pool: pool.clone(),
            }),
            Err(error) => {
                tracing::warn!(%error, "a GPU is left out");
                first_error.get_or_insert(error);
            }
        }
    }
    match first_error {
        Some(error) if opened.is_empty() => Err(error),
        _ => Ok(opened),
    }
}

impl Device for GpuDevice {
    fn name(&self) -> String {
        self.backend.name()
    }

    fn kind(&self) -> DeviceKind {
        DeviceKind::Gpu
    }

    fn driver(&self) -> Option<String> {
        Some(self.backend.adapter().driver.clone()).filter(|driver| !driver.is_empty())
    }

    fn is_software(&self) -> bool {
        self.backend.adapter().is_software
    }

    fn n_threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Not measured: rows are sent with every pass, so the device's own limits are not what holds it up.
    fn controls(&self) -> Controls {
        Controls::default()
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
