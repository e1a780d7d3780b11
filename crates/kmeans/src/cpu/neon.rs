//! NEON lanes, and the sweep compiled for them.

use super::assign::{Assignment, sweep};
use super::lanes::Lanes;
use crate::{Block, LANES};
use core::arch::aarch64::*;

/// One tile at a time is four registers of 32.
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

    /// Rust has no stable prefetch for Arm, whose processors see a sequential read coming.
    #[inline(always)]
    unsafe fn prefetch(_: &[f32; LANES]) {}

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
        let mut any = false;
        for q in 0..4 {
            // SAFETY: the caller has NEON.
            any |= unsafe { vminvq_f32(vsubq_f32(self.0[q], low.0[q])) } <= gap;
        }
        any
    }
}
