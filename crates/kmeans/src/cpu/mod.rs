//! The CPU backend: certified `f32` kernels for what this processor has, chosen at run time.

mod accumulate;
mod assign;
mod centroids;
mod lanes;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod x86;

use crate::{Backend, BackendError, Block, BlockLabels, Centroids, Partial};
use assign::{Assignment, sweep};
use lanes::Scalar;

/// Instruction sets that the kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// x86-64 with AVX-512 F.
    Avx512,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// 64-bit Arm.
    Neon,
    /// Any processor.
    Scalar,
}

impl Kernel {
    /// The kernels that this processor can run, fastest first; the last is always [`Kernel::Scalar`].
    pub fn available() -> Vec<Self> {
        [Self::Avx512, Self::Avx2, Self::Neon, Self::Scalar]
            .into_iter()
            .filter(|kernel| kernel.is_available())
            .collect()
    }

    #[cfg(target_arch = "x86_64")]
    fn is_available(self) -> bool {
        match self {
            Self::Avx512 => is_x86_feature_detected!("avx512f"),
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            Self::Neon => false,
            Self::Scalar => true,
        }
    }

    #[cfg(target_arch = "aarch64")]
    fn is_available(self) -> bool {
        match self {
            Self::Avx512 | Self::Avx2 => false,
            Self::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            Self::Scalar => true,
        }
    }

    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn is_available(self) -> bool {
        self == Self::Scalar
    }

    /// Centroids scored together: as many as leave their scores in registers. AVX-512 has 32 registers and scores three vectors at once;
    /// the others score one, which takes two registers of 16, four of 32 and four of 16.
    fn panel_width(self) -> usize {
        match self {
            Self::Avx512 => 8,
            Self::Avx2 => 6,
            Self::Neon => 6,
            Self::Scalar => 2,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Neon => "neon",
            Self::Scalar => "scalar",
        }
    }
}

/// Passes on the calling thread. Cheap to make and to copy; threads are the caller's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuBackend {
    kernel: Kernel,
}

impl Default for CpuBackend {
    fn default() -> Self {
        Self::new()
    }
}

impl CpuBackend {
    /// The fastest kernel that this processor can run.
    pub fn new() -> Self {
        let kernel = Kernel::available()[0];
        Self { kernel }
    }

    /// A certain kernel; `None` when this processor cannot run it.
    pub fn with_kernel(kernel: Kernel) -> Option<Self> {
        kernel.is_available().then_some(Self { kernel })
    }

    /// The kernel in use.
    pub fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// Label of every row of `block`; `labels` becomes [n_rows].
    ///
    /// # Panics
    /// When there is no centroid, more than 65,536, or `centroids` has other features than `block`.
    pub fn labels(&self, block: &Block, centroids: &Centroids, labels: &mut Vec<u16>) {
        labels.clear();
        labels.resize(block.n_rows(), 0);
        let mut assignments = [Assignment::new(
            block,
            centroids,
            self.kernel.panel_width(),
            Some(labels),
            None,
        )];
        self.sweep(block, &mut assignments);
    }

    fn sweep(&self, block: &Block, assignments: &mut [Assignment<'_>]) {
        match self.kernel {
            // SAFETY: `with_kernel` and `new` make a backend only for kernels that this processor has been seen to support.
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512 => unsafe { x86::sweep_avx512(block, assignments) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2 => unsafe { x86::sweep_avx2(block, assignments) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Kernel::Neon => unsafe { neon::sweep_neon(block, assignments) },
            // SAFETY: `Scalar` needs no more than the processor that the crate is compiled for.
            _ => unsafe { sweep::<Scalar, 1>(block, assignments) },
        }
    }
}

impl Backend for CpuBackend {
    fn name(&self) -> String {
        format!("cpu {}", self.kernel.name())
    }

    /// # Panics
    /// When a candidate has no centroid, more than 65,536, or other features than `block`.
    fn pass(
        &self,
        block: &Block,
        candidates: &[Centroids],
        labels: Option<&mut BlockLabels>,
    ) -> Result<Vec<Partial>, BackendError> {
        let mut partials: Vec<Partial> = candidates
            .iter()
            .map(|centroids| Partial::zero(centroids.n_clusters(), centroids.n_features()))
            .collect();
        let mut new_labels = labels
            .is_some()
            .then(|| vec![vec![0; block.n_rows()]; candidates.len()]);
        let label_slots = match &mut new_labels {
            Some(lists) => lists
                .iter_mut()
                .map(|list| Some(list.as_mut_slice()))
                .collect(),
            None => Vec::new(),
        };
        let mut label_slots = label_slots.into_iter();
        let mut assignments: Vec<Assignment<'_>> = candidates
            .iter()
            .zip(&mut partials)
            .map(|(centroids, partial)| {
                Assignment::new(
                    block,
                    centroids,
                    self.kernel.panel_width(),
                    label_slots.next().flatten(),
                    Some(partial),
                )
            })
            .collect();
        self.sweep(block, &mut assignments);
        let n_rechecked: Vec<u64> = assignments.iter().map(|a| a.n_rechecked).collect();
        drop(assignments);

        for (idx, (partial, n_rechecked)) in partials.iter_mut().zip(n_rechecked).enumerate() {
            partial.n_rechecked = n_rechecked;
            partial.n_moved = match (&labels, &new_labels) {
                (Some(old), Some(new)) => Some(n_moved(old.by_candidate.get(idx), &new[idx])),
                _ => None,
            };
        }
        if let (Some(labels), Some(new_labels)) = (labels, new_labels) {
            labels.by_candidate = new_labels;
        }
        Ok(partials)
    }
}

/// Without labels from before, every row has moved.
fn n_moved(old: Option<&Vec<u16>>, new: &[u16]) -> u64 {
    match old {
        Some(old) if old.len() == new.len() => {
            old.iter().zip(new).filter(|(a, b)| a != b).count() as u64
        }
        _ => new.len() as u64,
    }
}
