//! NEON lanes, and the sweep compiled for them.

use super::assign::{Assignment, sweep};
use super::lanes::Lanes;
use super::shorts::PlainShorts;
use crate::{Block, LANES};
use core::arch::aarch64::*;
use core::arch::asm;

/// Tiles of 4 vectors x 6 centroids: 24 of 32 registers hold scores, 4 hold the tile's values of a feature and 2 those of the centroids.
/// 35 instructions then do 24 multiply-adds, and nothing is spilled; 7 centroids spill. A multiply-add takes about 4 cycles and cores
/// have two to four pipes for it: 8 to 16 scores keep those busy, so that panels of 4 do, into which k = 8 is cut.
#[target_feature(enable = "neon")]
pub(super) unsafe fn sweep_neon(block: &Block, assignments: &mut [Assignment<'_>]) {
    // SAFETY: this function is compiled with what `Neon` needs, and its caller has seen that the processor has it.
    unsafe { sweep::<PlainShorts<Neon>, 1>(block, assignments) }
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
    unsafe fn any_within(mut self, low: Self, gap: f32) -> bool {
        for q in 0..4 {
            // SAFETY: the caller has NEON.
            self.0[q] = unsafe { vsubq_f32(self.0[q], low.0[q]) };
        }
        let [a, b, c, d] = self.0;
        // SAFETY: as above. Across the lanes of a register, which is slow, only once.
        unsafe { vminvq_f32(vminq_f32(vminq_f32(a, b), vminq_f32(c, d))) <= gap }
    }

    #[inline(always)]
    unsafe fn transpose_four(columns: [&[f32; 4]; 4]) -> [[i32; 4]; 4] {
        let mut rows = [[0; 4]; 4];
        // SAFETY: the caller has NEON; each reference covers four values.
        unsafe {
            let a = vcvtq_s32_f32(vld1q_f32(columns[0].as_ptr()));
            let b = vcvtq_s32_f32(vld1q_f32(columns[1].as_ptr()));
            let c = vcvtq_s32_f32(vld1q_f32(columns[2].as_ptr()));
            let d = vcvtq_s32_f32(vld1q_f32(columns[3].as_ptr()));
            let (ab_even, ab_odd) = pairs(a, b);
            let (cd_even, cd_odd) = pairs(c, d);
            let transposed = [
                vtrn1q_s64(ab_even, cd_even),
                vtrn1q_s64(ab_odd, cd_odd),
                vtrn2q_s64(ab_even, cd_even),
                vtrn2q_s64(ab_odd, cd_odd),
            ];
            for (row, values) in rows.iter_mut().zip(transposed) {
                vst1q_s32(row.as_mut_ptr(), vreinterpretq_s32_s64(values));
            }
        }
        rows
    }
}

/// Rows 0 and 2, and rows 1 and 3, of two features: each row's two values side by side.
#[inline(always)]
unsafe fn pairs(x: int32x4_t, y: int32x4_t) -> (int64x2_t, int64x2_t) {
    // SAFETY: the caller has NEON.
    unsafe {
        (
            vreinterpretq_s64_s32(vtrn1q_s32(x, y)),
            vreinterpretq_s64_s32(vtrn2q_s32(x, y)),
        )
    }
}
