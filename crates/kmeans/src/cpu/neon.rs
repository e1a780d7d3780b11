//! NEON lanes, and the sweep compiled for them.

use super::assign::{Assignment, sweep};
use super::lanes::Lanes;
use crate::{Block, LANES};
use core::arch::aarch64::*;
use core::arch::asm;

/// Tiles of 4 vectors x 6 centroids: 24 of 32 registers hold scores, 4 hold the tile's values of a feature and 2 those of the centroids.
/// 35 instructions then do 24 multiply-adds, and nothing is spilled; 7 centroids spill, and so do two tiles of 3. A multiply-add takes
/// about 4 cycles and cores have two to four pipes for it: 8 to 16 scores keep those busy, so that a panel of 4 does, as of k = 8.
#[target_feature(enable = "neon")]
pub(super) unsafe fn sweep_neon(block: &Block, assignments: &mut [Assignment<'_>]) {
    // SAFETY: this function is compiled with what `Neon` needs, and its caller has seen that the processor has it.
    unsafe { sweep::<Neon, 1>(block, assignments) }
}

#[derive(Clone, Copy)]
struct Neon([float32x4_t; 4]);

impl Lanes for Neon {
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller has NEON (contract of the trait).
        Self([unsafe { vdupq_n_f32(value) }; 4])
    }

    #[inline(always)]
    unsafe fn load(values: &[f32; LANES]) -> Self {
        // SAFETY: as above; the reference covers all four quarters.
        unsafe {
            let from = values.as_ptr();
            Self([
                vld1q_f32(from),
                vld1q_f32(from.add(4)),
                vld1q_f32(from.add(8)),
                vld1q_f32(from.add(12)),
            ])
        }
    }

    /// In assembly: `_prefetch` is not stable on Arm.
    #[inline(always)]
    unsafe fn prefetch(values: &[f32; LANES]) {
        // SAFETY: part of every 64-bit Arm; a hint, which reads nothing that a program could see and cannot fault.
        unsafe {
            asm!(
                "prfm pldl2keep, [{line}]",
                line = in(reg) values.as_ptr(),
                options(nomem, nostack, preserves_flags),
            )
        }
    }

    #[inline(always)]
    unsafe fn store(self, values: &mut [f32; LANES]) {
        for (quarter, to) in self.0.into_iter().zip(values.chunks_exact_mut(4)) {
            // SAFETY: as above; `to` is four values long.
            unsafe { vst1q_f32(to.as_mut_ptr(), quarter) }
        }
    }

    #[inline(always)]
    unsafe fn minus_product(mut self, x: Self, c: Self) -> Self {
        for q in 0..4 {
            // SAFETY: the caller has NEON.
            self.0[q] = unsafe { vfmsq_f32(self.0[q], x.0[q], c.0[q]) };
        }
        self
    }

    #[inline(always)]
    unsafe fn min(mut self, other: Self) -> Self {
        for q in 0..4 {
            // SAFETY: the caller has NEON.
            self.0[q] = unsafe { vminq_f32(self.0[q], other.0[q]) };
        }
        self
    }

    #[inline(always)]
    unsafe fn max(mut self, other: Self) -> Self {
        for q in 0..4 {
            // SAFETY: the caller has NEON.
            self.0[q] = unsafe { vmaxq_f32(self.0[q], other.0[q]) };
        }
        self
    }

    #[inline(always)]
    unsafe fn if_less(self, bound: Self, then: Self, mut otherwise: Self) -> Self {
        for q in 0..4 {
            // SAFETY: the caller has NEON.
            otherwise.0[q] =
                unsafe { vbslq_f32(vcltq_f32(self.0[q], bound.0[q]), then.0[q], otherwise.0[q]) };
        }
        otherwise
    }

    #[inline(always)]
    unsafe fn any_within(self, low: Self, gap: f32) -> bool {
        // SAFETY: the caller has NEON.
        unsafe {
            let [a, b, c, d] = [0, 1, 2, 3].map(|q: usize| vsubq_f32(self.0[q], low.0[q]));
            // Across one register, which is slow, only once.
            vminvq_f32(vminq_f32(vminq_f32(a, b), vminq_f32(c, d))) <= gap
        }
    }

    /// Four by four in registers, as on x86-64.
    #[inline(always)]
    unsafe fn transpose(columns: &[[f32; LANES]; 4], rows: &mut [i32], stride: usize) {
        for first_lane in (0..LANES).step_by(4) {
            // SAFETY: the caller has NEON, and each column covers the four lanes from `first_lane`.
            let transposed = unsafe {
                let [a, b, c, d] = [0, 1, 2, 3].map(|feature_idx: usize| {
                    vcvtq_s32_f32(vld1q_f32(columns[feature_idx][first_lane..].as_ptr()))
                });
                // Lanes 0 and 2 of two features, lanes 1 and 3; then pairs of them.
                let pair = |x, y| {
                    (
                        vreinterpretq_s64_s32(vtrn1q_s32(x, y)),
                        vreinterpretq_s64_s32(vtrn2q_s32(x, y)),
                    )
                };
                let ((ab_even, ab_odd), (cd_even, cd_odd)) = (pair(a, b), pair(c, d));
                [
                    vtrn1q_s64(ab_even, cd_even),
                    vtrn1q_s64(ab_odd, cd_odd),
                    vtrn2q_s64(ab_even, cd_even),
                    vtrn2q_s64(ab_odd, cd_odd),
                ]
            };
            for (lane, row) in (first_lane..).zip(transposed) {
                let to = &mut rows[lane * stride..][..4];
                // SAFETY: as above; `to` is four values long.
                unsafe { vst1q_s32(to.as_mut_ptr(), vreinterpretq_s32_s64(row)) }
            }
        }
    }
}
