//! AVX-512 and AVX2 lanes, and the sweep compiled for them.

use super::assign::{Assignment, sweep};
use super::lanes::Lanes;
use crate::{Block, LANES};
use core::arch::x86_64::*;

/// Tiles of 3 vectors x 8 centroids: 24 of 32 registers hold scores.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn sweep_avx512(block: &Block, assignments: &mut [Assignment<'_>]) {
    // SAFETY: this function is compiled with what `Avx512` needs, and its caller has seen that the processor has it.
    unsafe { sweep::<Avx512, 3>(block, assignments) }
}

/// See [`sweep_avx512`]; a tile of one vector is two registers of 16.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn sweep_avx2(block: &Block, assignments: &mut [Assignment<'_>]) {
    // SAFETY: this function is compiled with what `Avx2` needs, and its caller has seen that the processor has it.
    unsafe { sweep::<Avx2, 1>(block, assignments) }
}

#[derive(Clone, Copy)]
struct Avx512(__m512);

impl Lanes for Avx512 {
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller has AVX-512 (contract of the trait).
        Self(unsafe { _mm512_set1_ps(value) })
    }

    #[inline(always)]
    unsafe fn load(values: &[f32; LANES]) -> Self {
        // SAFETY: as above; the reference covers all sixteen values, and the load asks for no alignment.
        Self(unsafe { _mm512_loadu_ps(values.as_ptr()) })
    }

    #[inline(always)]
    unsafe fn prefetch(values: &[f32; LANES]) {
        // SAFETY: the caller has SSE; a prefetch reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(values.as_ptr().cast()) }
    }

    #[inline(always)]
    unsafe fn store(self, values: &mut [f32; LANES]) {
        // SAFETY: as above; the reference covers all sixteen values, and the store asks for no alignment.
        unsafe { _mm512_storeu_ps(values.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    unsafe fn minus_product(self, x: Self, c: Self) -> Self {
        // SAFETY: the caller has AVX-512.
        Self(unsafe { _mm512_fnmadd_ps(x.0, c.0, self.0) })
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: the caller has AVX-512.
        Self(unsafe { _mm512_min_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: the caller has AVX-512.
        Self(unsafe { _mm512_max_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn if_less(self, bound: Self, then: Self, otherwise: Self) -> Self {
        // SAFETY: the caller has AVX-512.
        Self(unsafe {
            let less = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, bound.0);
            _mm512_mask_blend_ps(less, otherwise.0, then.0)
        })
    }

    #[inline(always)]
    unsafe fn any_within(self, low: Self, gap: f32) -> bool {
        // SAFETY: the caller has AVX-512.
        unsafe {
            let gaps = _mm512_sub_ps(self.0, low.0);
            _mm512_cmp_ps_mask::<_CMP_LE_OQ>(gaps, _mm512_set1_ps(gap)) != 0
        }
    }

    #[inline(always)]
    unsafe fn transpose(columns: &[[f32; LANES]; 4], rows: &mut [i32], stride: usize) {
        // SAFETY: the caller's instruction set contains SSE2.
        unsafe { transpose_sse2(columns, rows, stride) }
    }
}

#[derive(Clone, Copy)]
struct Avx2(__m256, __m256);

impl Lanes for Avx2 {
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller has AVX2 and FMA (contract of the trait).
        let value = unsafe { _mm256_set1_ps(value) };
        Self(value, value)
    }

    #[inline(always)]
    unsafe fn load(values: &[f32; LANES]) -> Self {
        // SAFETY: as above; the reference covers both halves, and the loads ask for no alignment.
        unsafe {
            let from = values.as_ptr();
            Self(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8)))
        }
    }

    #[inline(always)]
    unsafe fn prefetch(values: &[f32; LANES]) {
        // SAFETY: the caller has SSE; a prefetch reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(values.as_ptr().cast()) }
    }

    #[inline(always)]
    unsafe fn store(self, values: &mut [f32; LANES]) {
        // SAFETY: as above; the reference covers both halves, and the stores ask for no alignment.
        unsafe {
            let to = values.as_mut_ptr();
            _mm256_storeu_ps(to, self.0);
            _mm256_storeu_ps(to.add(8), self.1);
        }
    }

    #[inline(always)]
    unsafe fn minus_product(self, x: Self, c: Self) -> Self {
        // SAFETY: the caller has AVX2 and FMA.
        unsafe {
            Self(
                _mm256_fnmadd_ps(x.0, c.0, self.0),
                _mm256_fnmadd_ps(x.1, c.1, self.1),
            )
        }
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: the caller has AVX2 and FMA.
        unsafe {
            Self(
                _mm256_min_ps(self.0, other.0),
                _mm256_min_ps(self.1, other.1),
            )
        }
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: the caller has AVX2 and FMA.
        unsafe {
            Self(
                _mm256_max_ps(self.0, other.0),
                _mm256_max_ps(self.1, other.1),
            )
        }
    }

    #[inline(always)]
    unsafe fn if_less(self, bound: Self, then: Self, otherwise: Self) -> Self {
        // SAFETY: the caller has AVX2 and FMA.
        unsafe {
            let less = _mm256_cmp_ps::<_CMP_LT_OQ>(self.0, bound.0);
            let less_too = _mm256_cmp_ps::<_CMP_LT_OQ>(self.1, bound.1);
            Self(
                _mm256_blendv_ps(otherwise.0, then.0, less),
                _mm256_blendv_ps(otherwise.1, then.1, less_too),
            )
        }
    }

    #[inline(always)]
    unsafe fn any_within(self, low: Self, gap: f32) -> bool {
        // SAFETY: the caller has AVX2 and FMA.
        unsafe {
            let gap = _mm256_set1_ps(gap);
            let within = _mm256_cmp_ps::<_CMP_LE_OQ>(_mm256_sub_ps(self.0, low.0), gap);
            let within_too = _mm256_cmp_ps::<_CMP_LE_OQ>(_mm256_sub_ps(self.1, low.1), gap);
            _mm256_movemask_ps(_mm256_or_ps(within, within_too)) != 0
        }
    }

    #[inline(always)]
    unsafe fn transpose(columns: &[[f32; LANES]; 4], rows: &mut [i32], stride: usize) {
        // SAFETY: the caller's instruction set contains SSE2.
        unsafe { transpose_sse2(columns, rows, stride) }
    }
}

/// Four by four in registers: written lane by lane, this would take longer than finding the nearest centroid.
#[inline(always)]
unsafe fn transpose_sse2(columns: &[[f32; LANES]; 4], rows: &mut [i32], stride: usize) {
    for first_lane in (0..LANES).step_by(4) {
        // SAFETY: SSE2 is part of x86-64, and each column covers the four lanes from `first_lane`.
        let transposed = unsafe {
            let [a, b, c, d] = [0, 1, 2, 3].map(|feature_idx: usize| {
                _mm_cvttps_epi32(_mm_loadu_ps(columns[feature_idx][first_lane..].as_ptr()))
            });
            let (ab_low, ab_high) = (_mm_unpacklo_epi32(a, b), _mm_unpackhi_epi32(a, b));
            let (cd_low, cd_high) = (_mm_unpacklo_epi32(c, d), _mm_unpackhi_epi32(c, d));
            [
                _mm_unpacklo_epi64(ab_low, cd_low),
                _mm_unpackhi_epi64(ab_low, cd_low),
                _mm_unpacklo_epi64(ab_high, cd_high),
                _mm_unpackhi_epi64(ab_high, cd_high),
            ]
        };
        for (lane, row) in (first_lane..).zip(transposed) {
            let to = &mut rows[lane * stride..][..4];
            // SAFETY: as above; `to` is four values long.
            unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), row) }
        }
    }
}
