//! AVX2: a tile is two registers.

use super::super::Vectorised;
use super::super::lanes::{FEW_CLUSTERS, Lanes};
use super::super::shorts::Shorts;
use crate::LANES;
use crate::split::{CutChunk, CutPair};
use core::arch::x86_64::*;

/// A bit for each place in which two differ.
#[inline(always)]
pub(super) unsafe fn differing(a: &[u16; LANES], b: &[u16; LANES]) -> u32 {
    // SAFETY: the caller has AVX2; each reference covers all sixteen values, and the loads ask for no alignment.
    unsafe {
        let a = _mm256_loadu_si256(a.as_ptr().cast());
        let b = _mm256_loadu_si256(b.as_ptr().cast());
        let equal = _mm256_cmpeq_epi16(a, b);
        // Sixteen times 0 or -1, as bytes.
        let [low, high] = [
            _mm256_castsi256_si128(equal),
            _mm256_extracti128_si256::<1>(equal),
        ];
        let equal = _mm_movemask_epi8(_mm_packs_epi16(low, high));
        !equal.cast_unsigned() & 0xffff
    }
}

#[derive(Clone, Copy)]
pub(super) struct Avx2(__m256, __m256);

impl Avx2 {
    /// In each half, four by four words: columns become rows.
    #[inline(always)]
    unsafe fn turn_halves([a, b, c, d]: [__m256i; 4]) -> [__m256i; 4] {
        // SAFETY: the caller has AVX2.
        unsafe {
            let (ab, ab_too) = (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
            let (cd, cd_too) = (_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
            [
                _mm256_unpacklo_epi64(ab, cd),
                _mm256_unpackhi_epi64(ab, cd),
                _mm256_unpacklo_epi64(ab_too, cd_too),
                _mm256_unpackhi_epi64(ab_too, cd_too),
            ]
        }
    }
}

impl Lanes for Avx2 {
    #[inline(always)]
    unsafe fn apart<W: Vectorised>(work: W) -> W::Output {
        // SAFETY: passed on to the caller.
        unsafe { super::run_avx2(work) }
    }

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
    unsafe fn differing(a: &[u16; LANES], b: &[u16; LANES]) -> u32 {
        // SAFETY: the caller has AVX2.
        unsafe { differing(a, b) }
    }

    /// Numbers are gathered by twos, and what is not asked for is masked away.
    #[inline(always)]
    unsafe fn look_up(few: &[u16; FEW_CLUSTERS], labels: &[u16; LANES]) -> [u16; LANES] {
        let mut of_rows = [0; LANES];
        // SAFETY: the caller has AVX2; half of the labels is read at a time, words are gathered from within the table, whatever the labels,
        // and all sixteen numbers are written.
        unsafe {
            let mut halves = [_mm256_setzero_si256(); 2];
            for (half, found) in halves.iter_mut().enumerate() {
                let labels = _mm_loadu_si128(labels.as_ptr().add(8 * half).cast());
                let labels = _mm256_cvtepu16_epi32(labels);
                let words = _mm256_and_si256(_mm256_srli_epi32::<1>(labels), _mm256_set1_epi32(31));
                let words = _mm256_i32gather_epi32::<4>(few.as_ptr().cast(), words);
                let is_odd = _mm256_and_si256(labels, _mm256_set1_epi32(1));
                let words = _mm256_srlv_epi32(words, _mm256_slli_epi32::<4>(is_odd));
                *found = _mm256_and_si256(words, _mm256_set1_epi32(0xffff));
            }
            let packed = _mm256_packus_epi32(halves[0], halves[1]);
            let in_order = _mm256_permute4x64_epi64::<0b11_01_10_00>(packed);
            _mm256_storeu_si256(of_rows.as_mut_ptr().cast(), in_order);
        }
        of_rows
    }

    #[inline(always)]
    unsafe fn join(cut: CutPair<'_>, out: &mut [[f32; LANES]; 2]) {
        // SAFETY: the caller has AVX2; each reference covers all sixteen values.
        unsafe {
            let (left, right) = (
                _mm_cvtsi32_si128(cut.shift as i32),
                _mm_cvtsi32_si128(16 - cut.shift as i32),
            );
            let to_top = _mm_cvtsi32_si128(if cut.are_last { 0 } else { 16 });
            let origin = [
                _mm256_set1_epi32(cut.origin[0]),
                _mm256_set1_epi32(cut.origin[1]),
            ];
            for half in 0..2 {
                let pair = _mm256_loadu_si256(cut.pair.as_ptr().add(8 * half).cast());
                let quads = _mm256_loadu_si256(cut.quads.as_ptr().add(8 * half).cast());
                let quads = _mm256_sll_epi32(quads, to_top);
                let low = _mm256_sra_epi32(_mm256_slli_epi32::<16>(pair), right);
                let high = _mm256_sll_epi32(_mm256_srai_epi32::<16>(pair), left);
                let low_rest = _mm256_srai_epi32::<24>(_mm256_slli_epi32::<8>(quads));
                let high_rest = _mm256_srai_epi32::<24>(quads);
                let (upper, lower) = ([low, high], [low_rest, high_rest]);
                for feature in 0..2 {
                    let rest = _mm256_add_epi32(lower[feature], origin[feature]);
                    let values = _mm256_cvtepi32_ps(_mm256_add_epi32(upper[feature], rest));
                    _mm256_storeu_ps(out[feature].as_mut_ptr().add(8 * half), values);
                }
            }
        }
    }

    /// Each half of a register takes every fourth row of eight.
    #[inline(always)]
    unsafe fn turn_quads(rows: &[i32], width: usize, columns: &mut [[i32; LANES]; LANES / 4]) {
        assert!(rows.len() >= (LANES - 1) * width + 4, "sixteen rows");
        for first_lane in [0, 8] {
            // SAFETY: the caller has AVX2; four words of each of sixteen rows have been seen to be there, and no load asks for alignment.
            unsafe {
                let mut x = [_mm256_setzero_si256(); 4];
                for (i, x) in x.iter_mut().enumerate() {
                    let first = rows.as_ptr().add((first_lane + i) * width);
                    let low = _mm256_castsi128_si256(_mm_loadu_si128(first.cast()));
                    let high = _mm_loadu_si128(first.add(4 * width).cast());
                    *x = _mm256_inserti128_si256::<1>(low, high);
                }
                let turned = Self::turn_halves(x);
                for i in 0..4 {
                    let to = columns[i].as_mut_ptr().add(first_lane);
                    _mm256_storeu_si256(to.cast(), turned[i]);
                }
            }
        }
    }

    /// As on AVX-512, eight rows at a time.
    #[inline(always)]
    #[expect(
        clippy::needless_range_loop,
        reason = "an iterator over registers puts them into memory"
    )]
    unsafe fn turn_cut(chunk: CutChunk<'_>, rows: &mut [[i32; LANES]], stride: usize) {
        let (lower, width) = (chunk.lower, chunk.n_quads);
        assert!(lower.len() >= (LANES - 1) * width + 4, "sixteen rows");
        assert!(rows.len() > (LANES - 1) * stride, "room for sixteen rows");
        for first_lane in [0, 8] {
            // SAFETY: the caller has AVX2; each reference covers all sixteen values, and what is read and written of each row has been seen
            // to be there.
            unsafe {
                let mut x = [_mm256_setzero_si256(); LANES / 2];
                for (x, pair) in x.iter_mut().zip(chunk.pairs) {
                    *x = _mm256_loadu_si256(pair.as_ptr().add(first_lane).cast());
                }
                // Half h of register i is row 4 h + i.
                let first = Self::turn_halves([x[0], x[1], x[2], x[3]]);
                let second = Self::turn_halves([x[4], x[5], x[6], x[7]]);
                let shift = _mm_cvtsi32_si128(chunk.shift as i32);
                let origin = [
                    _mm256_loadu_si256(chunk.origin.as_ptr().cast()),
                    _mm256_loadu_si256(chunk.origin.as_ptr().add(8).cast()),
                ];
                for i in 0..4 {
                    let of_rows = [
                        _mm256_permute2x128_si256::<0x20>(first[i], second[i]),
                        _mm256_permute2x128_si256::<0x31>(first[i], second[i]),
                    ];
                    for half in 0..2 {
                        let lane = first_lane + 4 * half + i;
                        let upper = [
                            _mm256_castsi256_si128(of_rows[half]),
                            _mm256_extracti128_si256::<1>(of_rows[half]),
                        ];
                        let row = rows.as_mut_ptr().add(lane * stride).cast::<i32>();
                        for eight in 0..2 {
                            let upper =
                                _mm256_sll_epi32(_mm256_cvtepi16_epi32(upper[eight]), shift);
                            let lower = lower.as_ptr().add(lane * width + 2 * eight);
                            let lower = _mm256_cvtepi8_epi32(_mm_loadl_epi64(lower.cast()));
                            let rest = _mm256_add_epi32(lower, origin[eight]);
                            let to = row.add(8 * eight).cast();
                            _mm256_storeu_si256(to, _mm256_add_epi32(upper, rest));
                        }
                    }
                }
            }
        }
    }

    /// Eight by eight: pairs, pairs of pairs, and halves change places.
    #[inline(always)]
    unsafe fn transpose(columns: &[[f32; LANES]; LANES], rows: &mut [[i32; LANES]], stride: usize) {
        for first_lane in [0, 8] {
            for first_feature in [0, 8] {
                // SAFETY: the caller has AVX2; loads and stores are of half a column and half a row.
                unsafe {
                    let nothing = _mm256_setzero_ps();
                    let (mut x, mut y) = ([nothing; 8], [nothing; 8]);
                    for i in 0..8 {
                        x[i] = _mm256_loadu_ps(columns[first_feature + i].as_ptr().add(first_lane));
                    }
                    for i in (0..8).step_by(2) {
                        y[i] = _mm256_unpacklo_ps(x[i], x[i + 1]);
                        y[i + 1] = _mm256_unpackhi_ps(x[i], x[i + 1]);
                    }
                    for i in [0, 4] {
                        for half in 0..2 {
                            let (low, high) = (y[i + half], y[i + half + 2]);
                            x[i + 2 * half] = _mm256_shuffle_ps::<0x44>(low, high);
                            x[i + 2 * half + 1] = _mm256_shuffle_ps::<0xee>(low, high);
                        }
                    }
                    for i in 0..4 {
                        y[i] = _mm256_permute2f128_ps::<0x20>(x[i], x[i + 4]);
                        y[i + 4] = _mm256_permute2f128_ps::<0x31>(x[i], x[i + 4]);
                    }
                    for (i, y) in y.into_iter().enumerate() {
                        let row = rows[(first_lane + i) * stride].as_mut_ptr();
                        let values = _mm256_cvttps_epi32(y);
                        _mm256_storeu_si256(row.add(first_feature).cast(), values);
                    }
                }
            }
        }
    }
}

#[derive(Clone, Copy)]
pub(super) struct Avx2Shorts(__m256i, __m256i);

impl Avx2Shorts {
    /// A bit for each of eight lanes in which `gap` is at most `most`, both unsigned.
    #[inline(always)]
    unsafe fn at_most(gap: __m256i, most: __m256i) -> u32 {
        // SAFETY: the caller has AVX2.
        unsafe {
            let is_least = _mm256_cmpeq_epi32(_mm256_min_epu32(gap, most), gap);
            _mm256_movemask_ps(_mm256_castsi256_ps(is_least)).cast_unsigned()
        }
    }
}

impl Shorts for Avx2Shorts {
    type Floats = Avx2;
    const PAY: bool = true;

    #[inline(always)]
    unsafe fn splat(value: i32) -> Self {
        // SAFETY: the caller has AVX2 (contract of the trait).
        let value = unsafe { _mm256_set1_epi32(value) };
        Self(value, value)
    }

    #[inline(always)]
    unsafe fn load(values: &[i32; LANES]) -> Self {
        // SAFETY: as above; the reference covers both halves, and the loads ask for no alignment.
        unsafe {
            let from: *const __m256i = values.as_ptr().cast();
            Self(_mm256_loadu_si256(from), _mm256_loadu_si256(from.add(1)))
        }
    }

    #[inline(always)]
    unsafe fn store(self, values: &mut [i32; LANES]) {
        // SAFETY: as above; the reference covers both halves, and the stores ask for no alignment.
        unsafe {
            let to: *mut __m256i = values.as_mut_ptr().cast();
            _mm256_storeu_si256(to, self.0);
            _mm256_storeu_si256(to.add(1), self.1);
        }
    }

    #[inline(always)]
    unsafe fn plus(self, other: Self) -> Self {
        // SAFETY: as above.
        unsafe {
            Self(
                _mm256_add_epi32(self.0, other.0),
                _mm256_add_epi32(self.1, other.1),
            )
        }
    }

    #[inline(always)]
    unsafe fn plus_products(self, a: Self, b: Self) -> Self {
        // SAFETY: as above.
        unsafe {
            self.plus(Self(
                _mm256_madd_epi16(a.0, b.0),
                _mm256_madd_epi16(a.1, b.1),
            ))
        }
    }

    #[inline(always)]
    unsafe fn with_bits(self, mask: Self, bits: Self) -> Self {
        // SAFETY: as above.
        unsafe {
            Self(
                _mm256_blendv_epi8(self.0, bits.0, mask.0),
                _mm256_blendv_epi8(self.1, bits.1, mask.1),
            )
        }
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: as above.
        unsafe {
            Self(
                _mm256_min_epi32(self.0, other.0),
                _mm256_min_epi32(self.1, other.1),
            )
        }
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: as above.
        unsafe {
            Self(
                _mm256_max_epi32(self.0, other.0),
                _mm256_max_epi32(self.1, other.1),
            )
        }
    }

    #[inline(always)]
    unsafe fn within(self, low: Self, gap: u32) -> u32 {
        // SAFETY: as above.
        unsafe {
            let most = _mm256_set1_epi32(gap.cast_signed());
            let within = Self::at_most(_mm256_sub_epi32(self.0, low.0), most);
            within | Self::at_most(_mm256_sub_epi32(self.1, low.1), most) << 8
        }
    }
}
