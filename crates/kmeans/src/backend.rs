//! What computes a pass.

use crate::{Block, Centroids, Partial};

/// Labels of one block's rows in the pass before, one list a candidate (empty: no pass yet). Private to a worker, droppable.
#[derive(Debug, Clone, Default)]
pub struct BlockLabels {
    /// [n_candidates][n_rows].
    pub by_candidate: Vec<Vec<u16>>,
}

/// A processor that assigns rows to centroids. Implementations: `cpu::CpuBackend` and `clientele_gpu::GpuBackend`.
///
/// Sound, not approximate: whatever the arithmetic inside, counts and sums equal those of `reference`.
pub trait Backend: Send + Sync {
    /// What ran, for people: `"cpu avx512"`, `"gpu NVIDIA H100 (Vulkan)"`.
    fn name(&self) -> String;

    /// One partial for each candidate, over all rows of `block`. With `labels`, also counts the rows that moved and leaves the
    /// new labels there; a backend that keeps no labels answers `n_moved: None`.
    ///
    /// # Errors
    /// [`BackendError`] when the device cannot go on: nothing of this block counts, and the caller computes it elsewhere.
    fn pass(
        &self,
        block: &Block,
        candidates: &[Centroids],
        labels: Option<&mut BlockLabels>,
    ) -> Result<Vec<Partial>, BackendError>;
}

/// Why a device did not answer.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum BackendError {
    /// The device is gone; further calls will fail as well.
    #[error("device lost: {reason}")]
    DeviceLost {
        /// What the driver said.
        reason: String,
    },
    /// This block does not fit; a smaller one may.
    #[error("out of device memory: {reason}")]
    OutOfMemory {
        /// What the driver said.
        reason: String,
    },
}
