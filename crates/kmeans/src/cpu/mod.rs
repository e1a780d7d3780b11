//! The CPU backend: certified `f32` kernels for what this processor has, chosen at run time.

mod assign;
mod bounds;
mod centroids;
mod doubts;
mod lanes;
mod memory;
#[cfg(target_arch = "aarch64")]
mod neon;
mod ordering;
mod plan;
mod row_scores;
mod score;
mod short_scores;
mod shorts;
mod sums;
mod travel;
mod waiting;
#[cfg(target_arch = "x86_64")]
mod x86;

use crate::exact::{self, NearestTwo};
use crate::{Backend, BackendError, Block, BlockLabels, Centroids, Outline, Partial};
use assign::{Assignment, Wanted, sweep};
use centroids::{PackedCentroids, PanelWidths};
pub(crate) use lanes::{Lanes, Scalar};
use shorts::PlainShorts;
pub(crate) use sums::{join, lanes_of};

pub use memory::{BlockMemory, Effort};
pub use ordering::Ordered;
pub use plan::PlannedPass;
pub use travel::{Travel, TravelUnits};

/// Instruction sets that the kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// x86-64 with AVX-512 F, BW and VNNI.
    Avx512Vnni,
    /// x86-64 with AVX-512 F and BW.
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
        let all = [
            Self::Avx512Vnni,
            Self::Avx512,
            Self::Avx2,
            Self::Neon,
            Self::Scalar,
        ];
        let available = all.into_iter().filter(|kernel| kernel.is_available());
        available.collect()
    }

    #[cfg(target_arch = "x86_64")]
    fn is_available(self) -> bool {
        match self {
            Self::Avx512Vnni => {
                Self::Avx512.is_available() && is_x86_feature_detected!("avx512vnni")
            }
            Self::Avx512 => {
                is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw")
            }
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            Self::Neon => false,
            Self::Scalar => true,
        }
    }

    #[cfg(target_arch = "aarch64")]
    fn is_available(self) -> bool {
        match self {
            Self::Avx512Vnni | Self::Avx512 | Self::Avx2 => false,
            Self::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            Self::Scalar => true,
        }
    }

    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn is_available(self) -> bool {
        self == Self::Scalar
    }

    /// AVX-512 has 32 registers and scores three vectors at once; the others score one, which takes two registers of 16, four of 32 and
    /// four of 16. 16-bit products take as many, and on AVX2 a panel is narrow enough for best and second best to stay in registers too.
    fn panel_widths(self) -> PanelWidths {
        let (floats, shorts) = match self {
            Self::Avx512Vnni => (8, Some(8)),
            Self::Avx512 => (8, Some(8)),
            Self::Avx2 => (6, Some(4)),
            Self::Neon => (6, None),
            Self::Scalar => (2, None),
        };
        PanelWidths { floats, shorts }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Avx512Vnni => "avx512-vnni",
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Neon => "neon",
            Self::Scalar => "scalar",
        }
    }
}

/// Whether the fastest kernel of this processor scores the upper bits of rows.
pub(crate) fn wants_split() -> bool {
    Kernel::available()[0].panel_widths().shorts.is_some()
}

/// A plain loop; `run` must be `#[inline(always)]` to be compiled anew for wider vectors.
pub(crate) trait Vectorised {
    /// What it answers.
    type Output;
    /// Does it.
    ///
    /// # Safety
    /// As for [`Lanes`].
    unsafe fn run<L: Lanes>(self) -> Self::Output;
}

/// Runs `work`, compiled for this processor.
pub(crate) fn vectorised<W: Vectorised>(work: W) -> W::Output {
    #[cfg(target_arch = "x86_64")]
    if Kernel::Avx512.is_available() {
        // SAFETY: just seen.
        return unsafe { x86::run_avx512(work) };
    }
    #[cfg(target_arch = "x86_64")]
    if Kernel::Avx2.is_available() {
        // SAFETY: just seen.
        return unsafe { x86::run_avx2(work) };
    }
    // SAFETY: `Scalar` needs no more than the processor that the crate is compiled for.
    unsafe { work.run::<Scalar>() }
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
        let packed = self.pack(block, centroids);
        self.sweep(
            block,
            &mut [Assignment::new(&packed, Wanted::Labels(labels))],
        );
    }

    /// The two centroids nearest to every row of `block`, with their exact distances; `out` becomes [n_rows].
    ///
    /// # Panics
    /// As [`CpuBackend::labels`].
    pub fn nearest_two(&self, block: &Block, centroids: &Centroids, out: &mut Vec<NearestTwo>) {
        let packed = self.pack(block, centroids);
        if !packed.are_all_distinct() {
            // Of twins one is the nearest of many rows and the other its second: nothing that scores could tell apart.
            return exact::nearest_two_in_block(block, centroids, out);
        }
        // All are written, whatever they were.
        out.resize(block.n_rows(), NearestTwo::NOTHING);
        self.sweep(block, &mut [Assignment::new(&packed, Wanted::Two(out))]);
    }

    /// For each row of `block` a number not below its squared distance to the nearest of `centroids`, and close to it: `bounds` becomes
    /// [n_rows], in grid steps squared.
    ///
    /// # Panics
    /// As [`CpuBackend::labels`].
    pub(crate) fn near_bounds(&self, block: &Block, centroids: &Centroids, bounds: &mut Vec<f32>) {
        bounds.clear();
        bounds.resize(block.n_rows(), 0.0);
        let packed = self.pack(block, centroids);
        self.sweep(
            block,
            &mut [Assignment::new(&packed, Wanted::NearBounds(bounds))],
        );
    }

    /// The first of a candidate's passes will be one with `centroids`; see [`Travel::advance`] for the others.
    ///
    /// # Panics
    /// When there is no centroid, or more than 65,536.
    pub fn travel(&self, centroids: Centroids) -> Travel {
        Travel::new(centroids, self.kernel.panel_widths())
    }

    /// A pass with the centroids of each of `asked`, on the memory of its passes over this block. The partials are those of a pass without
    /// memory; only what was done for them differs.
    ///
    /// # Panics
    /// When a candidate has other features than `block`.
    pub fn pass_remembering(
        &self,
        block: &Block,
        asked: &mut [(&Travel, &mut BlockMemory)],
    ) -> Vec<(Partial, Effort)> {
        PlannedPass::new(*self, block.outline(), asked).run(block)
    }

    /// As [`CpuBackend::pass_remembering`], over rows that are not there yet: which tiles of them it is going to look at is known before.
    ///
    /// # Panics
    /// When a candidate has other features than the rows.
    pub fn plan<'a>(
        &self,
        rows: Outline,
        asked: &'a mut [(&Travel, &mut BlockMemory)],
    ) -> PlannedPass<'a> {
        let mut planned = PlannedPass::new(*self, rows, asked);
        planned.list_tiles();
        planned
    }

    fn pack(&self, block: &Block, centroids: &Centroids) -> PackedCentroids {
        check_features(&block.outline(), centroids);
        PackedCentroids::new(centroids, self.kernel.panel_widths())
    }

    fn sweep(&self, block: &Block, assignments: &mut [Assignment<'_>]) {
        match self.kernel {
            // SAFETY: `with_kernel` and `new` make a backend only for kernels that this processor has been seen to support.
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512Vnni => unsafe { x86::sweep_avx512_vnni(block, assignments) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512 => unsafe { x86::sweep_avx512(block, assignments) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2 => unsafe { x86::sweep_avx2(block, assignments) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Kernel::Neon => unsafe { neon::sweep_neon(block, assignments) },
            // SAFETY: `Scalar` needs no more than the processor that the crate is compiled for.
            _ => unsafe { sweep::<PlainShorts<Scalar>, 1>(block, assignments) },
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
        let packed: Vec<PackedCentroids> = candidates.iter().map(|c| self.pack(block, c)).collect();
        let mut partials: Vec<Partial> = candidates
            .iter()
            .map(|centroids| Partial::zero(centroids.n_clusters(), centroids.n_features()))
            .collect();
        let mut new_labels = vec![vec![0; block.n_rows()]; candidates.len()];
        let mut assignments: Vec<Assignment<'_>> = packed
            .iter()
            .zip(partials.iter_mut().zip(&mut new_labels))
            .map(|(packed, (partial, new))| {
                let new = labels.is_some().then_some(new.as_mut_slice());
                Assignment::new(packed, Wanted::Partial(partial, new))
            })
            .collect();
        self.sweep(block, &mut assignments);
        let n_rechecked: Vec<u64> = assignments.iter().map(|a| a.n_rechecked).collect();
        drop(assignments);

        for (idx, (partial, n_rechecked)) in partials.iter_mut().zip(n_rechecked).enumerate() {
            partial.n_rechecked = n_rechecked;
            partial.n_moved = labels
                .as_ref()
                .map(|old| n_moved(old.by_candidate.get(idx), &new_labels[idx]));
        }
        if let Some(labels) = labels {
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

fn check_features(rows: &Outline, centroids: &Centroids) {
    assert_eq!(
        rows.n_features,
        centroids.n_features(),
        "features of rows and centroids"
    );
}
