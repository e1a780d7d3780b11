//! wgpu devices. The only file that knows how a GPU is fed.

use std::collections::BTreeSet;

use clientele_gpu::{GpuBackend, OpenError, OpenOptions};
use clientele_kmeans::{Backend, BackendError, Block, Centroids, Partial};

use super::Device;
use crate::{Controls, DeviceKind};

/// One open adapter.
#[derive(Debug)]
pub struct GpuDevice {
    backend: GpuBackend,
}

/// Every adapter that opens and passes its self-test, best first; with `allow_software` those that compute on the CPU as well. Only
/// adapters whose name contains `named`, if given. One that does not open is left out and said.
///
/// # Errors
/// What was wrong with the first one when none is left.
pub fn open_gpus(named: Option<&str>, allow_software: bool) -> Result<Vec<GpuDevice>, OpenError> {
    let opened = GpuBackend::open_all(&OpenOptions {
        allow_software,
        adapter: named.map(str::to_owned),
        ..OpenOptions::default()
    })?;
    Ok(opened
        .into_iter()
        .map(|backend| GpuDevice { backend })
        .collect())
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
        self.backend.is_software()
    }

    /// The one that copies rows; another one talks to the driver.
    fn n_threads(&self) -> usize {
        1
    }

    /// Of the device's own memory: rows that do not fit there come over a slower way. Reading alone is not measured.
    fn controls(&self) -> Controls {
        let or_said = |measured: Result<f64, BackendError>| {
            measured
                .inspect_err(|error| {
                    tracing::warn!(%error, device = self.name(), "a limit could not be measured");
                })
                .ok()
        };
        Controls {
            copy_bytes_per_s: or_said(self.backend.copy_bandwidth()),
            read_bytes_per_s: None,
            multiply_adds_per_s: or_said(self.backend.multiply_add_peak()),
        }
    }

    fn pass(
        &self,
        blocks: &[Block],
        candidates: &[Centroids],
    ) -> Result<Vec<Partial>, BackendError> {
        match self.pass_once(blocks, candidates) {
            // Rows had to make room for the work itself. From now on fewer of them stay.
            Err(BackendError::OutOfMemory { .. }) => self.pass_once(blocks, candidates),
            other => other,
        }
    }

    fn resident_bytes(&self, n_bytes: u64) -> u64 {
        match self.backend.adapter().has_own_memory() {
            true => 0,
            false => n_bytes.min(self.backend.resident_limit_bytes()),
        }
    }

    fn forget_rows(&self) {
        self.backend.forget_all_but(&BTreeSet::new());
    }
}

impl GpuDevice {
    fn pass_once(
        &self,
        blocks: &[Block],
        candidates: &[Centroids],
    ) -> Result<Vec<Partial>, BackendError> {
        let mut pass = self.backend.begin(candidates)?;
        for block in blocks {
            pass.add(block)?;
        }
        pass.finish()
    }
}
