//! AVX-512 and AVX2 lanes, and the sweep compiled for them.

use super::assign::{Assignment, sweep};
use super::lanes::Lanes;
use super::shorts::{PlainShorts, Shorts};
use crate::{Block, LANES};
use core::arch::x86_64::*;

/// Tiles of 3 vectors x 8 centroids: 24 of 32 registers hold scores, of 16-bit products as of `f32`.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) unsafe fn sweep_avx512_vnni(block: &Block, assignments: &mut [Assignment<'_>]) {
    // SAFETY: this function is compiled with what `Avx512Shorts` needs, and its caller has seen that the processor has it.
    unsafe { sweep::<Avx512Shorts, 3>(block, assignments) }
}

/// See [`sweep_avx512_vnni`]. Without the instruction for it, 16-bit products take two, and little or nothing is gained.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn sweep_avx512(block: &Block, assignments: &mut [Assignment<'_>]) {
    // SAFETY: as above.
    unsafe { sweep::<PlainShorts<Avx512>, 3>(block, assignments) }
}

/// See [`sweep_avx512_vnni`]; a tile of one vector is two registers of 16.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn sweep_avx2(block: &Block, assignments: &mut [Assignment<'_>]) {
    // SAFETY: as above.
    unsafe { sweep::<PlainShorts<Avx2>, 1>(block, assignments) }
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

    /// Four steps, each of which puts pairs, pairs of pairs and so on into one register.
    #[inline(always)]
    unsafe fn transpose(columns: &[[f32; LANES]; LANES], rows: &mut [[i32; LANES]], stride: usize) {
        // SAFETY: the caller has AVX-512; each reference covers all sixteen values.
        unsafe {
            let nothing = _mm512_setzero_ps();
            let (mut x, mut y) = ([nothing; LANES], [nothing; LANES]);
            for (x, column) in x.iter_mut().zip(columns) {
                *x = _mm512_loadu_ps(column.as_ptr());
            }
            for i in (0..LANES).step_by(2) {
                y[i] = _mm512_unpacklo_ps(x[i], x[i + 1]);
                y[i + 1] = _mm512_unpackhi_ps(x[i], x[i + 1]);
            }
            for i in (0..LANES).step_by(4) {
                for half in 0..2 {
                    let low = _mm512_castps_pd(y[i + half]);
                    let high = _mm512_castps_pd(y[i + half + 2]);
                    x[i + 2 * half] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
                    x[i + 2 * half + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
                }
            }
            for i in 0..4 {
                let even = _mm512_shuffle_f32x4::<0x88>(x[i], x[i + 4]);
                let odd = _mm512_shuffle_f32x4::<0xdd>(x[i], x[i + 4]);
                let even_too = _mm512_shuffle_f32x4::<0x88>(x[i + 8], x[i + 12]);
                let odd_too = _mm512_shuffle_f32x4::<0xdd>(x[i + 8], x[i + 12]);
                y[i] = _mm512_shuffle_f32x4::<0x88>(even, even_too);
                y[i + 4] = _mm512_shuffle_f32x4::<0x88>(odd, odd_too);
                y[i + 8] = _mm512_shuffle_f32x4::<0xdd>(even, even_too);
                y[i + 12] = _mm512_shuffle_f32x4::<0xdd>(odd, odd_too);
            }
            for (row, y) in rows.iter_mut().step_by(stride).zip(y) {
                _mm512_storeu_si512(row.as_mut_ptr().cast(), _mm512_cvttps_epi32(y));
            }
        }
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
    unsafe fn transpose_four(columns: [&[f32; 4]; 4]) -> [[i32; 4]; 4] {
        // SAFETY: the caller's instruction set contains SSE2, and each reference covers four values.
        unsafe {
            let a = _mm_cvttps_epi32(_mm_loadu_ps(columns[0].as_ptr()));
            let b = _mm_cvttps_epi32(_mm_loadu_ps(columns[1].as_ptr()));
            let c = _mm_cvttps_epi32(_mm_loadu_ps(columns[2].as_ptr()));
            let d = _mm_cvttps_epi32(_mm_loadu_ps(columns[3].as_ptr()));
            let (ab_low, ab_high) = (_mm_unpacklo_epi32(a, b), _mm_unpackhi_epi32(a, b));
            let (cd_low, cd_high) = (_mm_unpacklo_epi32(c, d), _mm_unpackhi_epi32(c, d));
            bytemuck::cast([
                _mm_unpacklo_epi64(ab_low, cd_low),
                _mm_unpackhi_epi64(ab_low, cd_low),
                _mm_unpacklo_epi64(ab_high, cd_high),
                _mm_unpackhi_epi64(ab_high, cd_high),
            ])
        }
    }
}

/// Adding this to a number below 2^22 in magnitude rounds it to an integer, which the low bits then hold, in two's complement.
const ROUNDER: f32 = 12_582_912.0;

#[derive(Clone, Copy)]
struct Avx512Shorts(__m512i);

impl Shorts for Avx512Shorts {
    type Floats = Avx512;
    const PAY: bool = true;

    #[inline(always)]
    unsafe fn splat(value: i32) -> Self {
        // SAFETY: the caller has AVX-512 with BW and VNNI (contract of the trait).
        Self(unsafe { _mm512_set1_epi32(value) })
    }

    #[inline(always)]
    unsafe fn load(values: &[i32; LANES]) -> Self {
        // SAFETY: as above; the reference covers all sixteen values, and the load asks for no alignment.
        Self(unsafe { _mm512_loadu_si512(values.as_ptr().cast()) })
    }

    #[inline(always)]
    unsafe fn store(self, values: &mut [i32; LANES]) {
        // SAFETY: as above; the reference covers all sixteen values, and the store asks for no alignment.
        unsafe { _mm512_storeu_si512(values.as_mut_ptr().cast(), self.0) }
    }

    #[inline(always)]
    unsafe fn round_pairs(low: &[f32; LANES], high: &[f32; LANES], scale: f32) -> Self {
        // SAFETY: as above; the references cover all sixteen values.
        Self(unsafe {
            let (scale, rounder) = (_mm512_set1_ps(scale), _mm512_set1_ps(ROUNDER));
            let low = _mm512_fmadd_ps(_mm512_loadu_ps(low.as_ptr()), scale, rounder);
            let high = _mm512_fmadd_ps(_mm512_loadu_ps(high.as_ptr()), scale, rounder);
            let high = _mm512_slli_epi32::<16>(_mm512_castps_si512(high));
            _mm512_mask_blend_epi16(0xaaaa_aaaa, _mm512_castps_si512(low), high)
        })
    }

    #[inline(always)]
    unsafe fn plus_products(self, a: Self, b: Self) -> Self {
        // SAFETY: as above.
        Self(unsafe { _mm512_dpwssd_epi32(self.0, a.0, b.0) })
    }

    #[inline(always)]
    unsafe fn with_bits(self, mask: Self, bits: Self) -> Self {
        // SAFETY: as above. The table takes the third where the second has a bit, the first elsewhere.
        Self(unsafe { _mm512_ternarylogic_epi32::<0xb8>(self.0, mask.0, bits.0) })
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: as above.
        Self(unsafe { _mm512_min_epi32(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: as above.
        Self(unsafe { _mm512_max_epi32(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn within(self, low: Self, gap: u32) -> u32 {
        // SAFETY: as above.
        unsafe {
            let gaps = _mm512_sub_epi32(self.0, low.0);
            _mm512_cmple_epu32_mask(gaps, _mm512_set1_epi32(gap.cast_signed())).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Kernel;
    use super::super::lanes::Scalar;
    use super::super::shorts::tests::{numbers, outcomes};
    use super::*;

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn outcomes_avx512(numbers: &[[i32; LANES]]) -> Vec<[i32; LANES]> {
        // SAFETY: as for `sweep_avx512_vnni`.
        unsafe { outcomes::<Avx512Shorts>(numbers) }
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn transposed_avx512(columns: &[[f32; LANES]; LANES]) -> [[i32; LANES]; LANES] {
        let mut rows = [[0; LANES]; LANES];
        // SAFETY: as for `sweep_avx512`.
        unsafe { Avx512::transpose(columns, &mut rows, 1) };
        rows
    }

    #[test]
    fn sixteen_bit_products_are_those_of_plain_rust() {
        if !Kernel::available().contains(&Kernel::Avx512Vnni) {
            return eprintln!("not checked: this processor has no AVX-512 VNNI");
        }
        let numbers = numbers();
        // SAFETY: seen above; and `Scalar` needs nothing.
        let (own, plain) = unsafe {
            (
                outcomes_avx512(&numbers),
                outcomes::<PlainShorts<Scalar>>(&numbers),
            )
        };
        let first_wrong = own.iter().zip(&plain).position(|(own, plain)| own != plain);
        assert_eq!(first_wrong, None);
    }

    #[test]
    fn a_tile_turns_into_rows() {
        let columns: [[f32; LANES]; LANES] =
            std::array::from_fn(|f| std::array::from_fn(|lane| (f * 100 + lane) as f32 - 777.0));
        let rows = std::array::from_fn(|lane| std::array::from_fn(|f| columns[f][lane] as i32));
        let mut by_fours = [[0; LANES]; LANES];
        // SAFETY: SSE2, which is all that this needs, is part of x86-64.
        unsafe { Avx2::transpose(&columns, &mut by_fours, 1) };
        assert_eq!(by_fours, rows);
        if Kernel::available().contains(&Kernel::Avx512) {
            // SAFETY: just seen.
            assert_eq!(unsafe { transposed_avx512(&columns) }, rows);
        }
    }
}
