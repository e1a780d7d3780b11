//! AVX-512: a tile is one register.

use super::super::Vectorised;
use super::super::lanes::{FEW_CLUSTERS, Lanes};
use super::super::shorts::Shorts;
use super::avx2::differing;
use crate::LANES;
use crate::split::{CutChunk, CutPair};
use core::arch::x86_64::*;

#[derive(Clone, Copy)]
pub(super) struct Avx512(__m512);

impl Avx512 {
    /// In each quarter, four by four words: columns become rows.
    #[inline(always)]
    unsafe fn turn_quarters([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
        // SAFETY: the caller has AVX-512.
        unsafe {
            let (ab, ab_too) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
            let (cd, cd_too) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
            [
                _mm512_unpacklo_epi64(ab, cd),
                _mm512_unpackhi_epi64(ab, cd),
                _mm512_unpacklo_epi64(ab_too, cd_too),
                _mm512_unpackhi_epi64(ab_too, cd_too),
            ]
        }
    }
}

impl Lanes for Avx512 {
    #[inline(always)]
    unsafe fn apart<W: Vectorised>(work: W) -> W::Output {
        // SAFETY: passed on to the caller.
        unsafe { super::run_avx512(work) }
    }

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
    unsafe fn differing(a: &[u16; LANES], b: &[u16; LANES]) -> u32 {
        // SAFETY: the caller has AVX2.
        unsafe { differing(a, b) }
    }

    #[inline(always)]
    unsafe fn look_up(few: &[u16; FEW_CLUSTERS], labels: &[u16; LANES]) -> [u16; LANES] {
        let mut of_rows = [0; LANES];
        // SAFETY: the caller has AVX-512 with BW; the table is two registers, and half of one is read of the labels and written.
        unsafe {
            let labels = _mm512_castsi256_si512(_mm256_loadu_si256(labels.as_ptr().cast()));
            let first = _mm512_loadu_si512(few.as_ptr().cast());
            let second = _mm512_loadu_si512(few.as_ptr().add(32).cast());
            let found = _mm512_permutex2var_epi16(first, labels, second);
            let found = _mm512_castsi512_si256(found);
            _mm256_storeu_si256(of_rows.as_mut_ptr().cast(), found);
        }
        of_rows
    }

    #[inline(always)]
    unsafe fn join(cut: CutPair<'_>, out: &mut [[f32; LANES]; 2]) {
        // SAFETY: the caller has AVX-512; each reference covers all sixteen values.
        unsafe {
            let pair = _mm512_loadu_si512(cut.pair.as_ptr().cast());
            let quads = _mm512_loadu_si512(cut.quads.as_ptr().cast());
            let quads =
                _mm512_sll_epi32(quads, _mm_cvtsi32_si128(if cut.are_last { 0 } else { 16 }));
            let (left, right) = (
                _mm_cvtsi32_si128(cut.shift as i32),
                _mm_cvtsi32_si128(16 - cut.shift as i32),
            );
            let low = _mm512_sra_epi32(_mm512_slli_epi32::<16>(pair), right);
            let high = _mm512_sll_epi32(_mm512_srai_epi32::<16>(pair), left);
            let low_rest = _mm512_srai_epi32::<24>(_mm512_slli_epi32::<8>(quads));
            let high_rest = _mm512_srai_epi32::<24>(quads);
            // An iterator over registers would put them into memory first.
            let (upper, lower) = ([low, high], [low_rest, high_rest]);
            for feature in 0..2 {
                let rest = _mm512_add_epi32(lower[feature], _mm512_set1_epi32(cut.origin[feature]));
                let values = _mm512_cvtepi32_ps(_mm512_add_epi32(upper[feature], rest));
                _mm512_storeu_ps(out[feature].as_mut_ptr(), values);
            }
        }
    }

    /// Each quarter of a register takes every fourth row; four by four, quarters are turned.
    #[inline(always)]
    unsafe fn turn_quads(rows: &[i32], width: usize, columns: &mut [[i32; LANES]; LANES / 4]) {
        assert!(rows.len() >= (LANES - 1) * width + 4, "sixteen rows");
        // SAFETY: the caller has AVX-512; four words of each of sixteen rows have been seen to be there, and no load asks for alignment.
        unsafe {
            let mut x = [_mm512_setzero_si512(); 4];
            for (i, x) in x.iter_mut().enumerate() {
                let first = rows.as_ptr().add(i * width);
                *x = _mm512_castsi128_si512(_mm_loadu_si128(first.cast()));
                *x = _mm512_inserti32x4::<1>(*x, _mm_loadu_si128(first.add(4 * width).cast()));
                *x = _mm512_inserti32x4::<2>(*x, _mm_loadu_si128(first.add(8 * width).cast()));
                *x = _mm512_inserti32x4::<3>(*x, _mm_loadu_si128(first.add(12 * width).cast()));
            }
            let turned = Self::turn_quarters(x);
            for i in 0..4 {
                _mm512_storeu_si512(columns[i].as_mut_ptr().cast(), turned[i]);
            }
        }
    }

    /// Upper bits as pairs of features, eight of a row in half a register, are all features of it in order.
    #[inline(always)]
    #[expect(
        clippy::needless_range_loop,
        reason = "an iterator over registers puts them into memory"
    )]
    unsafe fn turn_cut(chunk: CutChunk<'_>, rows: &mut [[i32; LANES]], stride: usize) {
        let (lower, width) = (chunk.lower, chunk.n_quads);
        assert!(lower.len() >= (LANES - 1) * width + 4, "sixteen rows");
        assert!(rows.len() > (LANES - 1) * stride, "room for sixteen rows");
        // SAFETY: the caller has AVX-512; each reference covers all sixteen values, and what is read and written of each row has been seen to
        // be there.
        unsafe {
            let nothing = _mm512_setzero_si512();
            let mut x = [nothing; LANES / 2];
            for (x, pair) in x.iter_mut().zip(chunk.pairs) {
                *x = _mm512_loadu_si512(pair.as_ptr().cast());
            }
            // Quarter q of register i is row 4 q + i.
            let first = Self::turn_quarters([x[0], x[1], x[2], x[3]]);
            let second = Self::turn_quarters([x[4], x[5], x[6], x[7]]);
            let shift = _mm_cvtsi32_si128(chunk.shift as i32);
            let origin = _mm512_loadu_si512(chunk.origin.as_ptr().cast());
            let quarters = [
                _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11),
                _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15),
            ];
            for i in 0..4 {
                for two in 0..2 {
                    let both = _mm512_permutex2var_epi64(first[i], quarters[two], second[i]);
                    let halves = [
                        _mm512_castsi512_si256(both),
                        _mm512_extracti64x4_epi64::<1>(both),
                    ];
                    for half in 0..2 {
                        let lane = 8 * two + 4 * half + i;
                        let upper = _mm512_sll_epi32(_mm512_cvtepi16_epi32(halves[half]), shift);
                        let lower = _mm_loadu_si128(lower.as_ptr().add(lane * width).cast());
                        let rest = _mm512_add_epi32(_mm512_cvtepi8_epi32(lower), origin);
                        let row = rows.as_mut_ptr().add(lane * stride);
                        _mm512_storeu_si512(row.cast(), _mm512_add_epi32(upper, rest));
                    }
                }
            }
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

/// With VNNI a pair of products is added by the instruction that makes it.
#[derive(Clone, Copy)]
pub(super) struct Avx512Shorts<const VNNI: bool>(__m512i);

impl<const VNNI: bool> Shorts for Avx512Shorts<VNNI> {
    type Floats = Avx512;
    const PAY: bool = true;

    #[inline(always)]
    unsafe fn splat(value: i32) -> Self {
        // SAFETY: the caller has AVX-512 with BW, and VNNI if need be (contract of the trait).
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
    unsafe fn plus(self, other: Self) -> Self {
        // SAFETY: as above.
        Self(unsafe { _mm512_add_epi32(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn plus_products(self, a: Self, b: Self) -> Self {
        // SAFETY: as above.
        unsafe {
            match VNNI {
                true => Self(_mm512_dpwssd_epi32(self.0, a.0, b.0)),
                false => self.plus(Self(_mm512_madd_epi16(a.0, b.0))),
            }
        }
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
