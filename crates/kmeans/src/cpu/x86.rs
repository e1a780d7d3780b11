//! AVX-512 and AVX2 lanes, and the sweep compiled for them.

use super::Vectorised;
use super::assign::{Assignment, sweep};
use super::lanes::Lanes;
use super::shorts::Shorts;
use crate::split::CutChunk;
use crate::{Block, LANES};
use core::arch::x86_64::*;

/// Tiles of 3 vectors x 8 centroids: 24 of 32 registers hold scores, of 16-bit products as of `f32`.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) unsafe fn sweep_avx512_vnni(block: &Block, assignments: &mut [Assignment<'_>]) {
    // SAFETY: this function is compiled with what `Avx512Shorts` needs, and its caller has seen that the processor has it.
    unsafe { sweep::<Avx512Shorts<true>, 3>(block, assignments) }
}

/// See [`sweep_avx512_vnni`].
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn sweep_avx512(block: &Block, assignments: &mut [Assignment<'_>]) {
    // SAFETY: as above.
    unsafe { sweep::<Avx512Shorts<false>, 3>(block, assignments) }
}

/// See [`sweep_avx512_vnni`]; a tile of one vector is two registers of 16.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn sweep_avx2(block: &Block, assignments: &mut [Assignment<'_>]) {
    // SAFETY: as above.
    unsafe { sweep::<Avx2Shorts, 1>(block, assignments) }
}

/// Plain loops, in vectors of 32 bytes.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn run_avx2<W: Vectorised>(work: W) -> W::Output {
    // SAFETY: this function is compiled with what `Avx2` needs, and its caller has seen that the processor has it.
    unsafe { work.run::<Avx2>() }
}

#[derive(Clone, Copy)]
struct Avx512(__m512);

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
    unsafe fn join(
        pair: &[i32; LANES],
        quads: &[i32; LANES],
        are_last: bool,
        origin: [i32; 2],
        shift: u32,
        out: &mut [[f32; LANES]; 2],
    ) {
        // SAFETY: the caller has AVX-512; each reference covers all sixteen values.
        unsafe {
            let pair = _mm512_loadu_si512(pair.as_ptr().cast());
            let quads = _mm512_loadu_si512(quads.as_ptr().cast());
            let quads = _mm512_sll_epi32(quads, _mm_cvtsi32_si128(if are_last { 0 } else { 16 }));
            let (left, right) = (
                _mm_cvtsi32_si128(shift as i32),
                _mm_cvtsi32_si128(16 - shift as i32),
            );
            let low = _mm512_sra_epi32(_mm512_slli_epi32::<16>(pair), right);
            let high = _mm512_sll_epi32(_mm512_srai_epi32::<16>(pair), left);
            let low_rest = _mm512_srai_epi32::<24>(_mm512_slli_epi32::<8>(quads));
            let high_rest = _mm512_srai_epi32::<24>(quads);
            // An iterator over registers would put them into memory first.
            let (upper, lower) = ([low, high], [low_rest, high_rest]);
            for feature in 0..2 {
                let rest = _mm512_add_epi32(lower[feature], _mm512_set1_epi32(origin[feature]));
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
            for i in 0..4 {
                let first = rows.as_ptr().add(i * width);
                x[i] = _mm512_castsi128_si512(_mm_loadu_si128(first.cast()));
                x[i] = _mm512_inserti32x4::<1>(x[i], _mm_loadu_si128(first.add(4 * width).cast()));
                x[i] = _mm512_inserti32x4::<2>(x[i], _mm_loadu_si128(first.add(8 * width).cast()));
                x[i] = _mm512_inserti32x4::<3>(x[i], _mm_loadu_si128(first.add(12 * width).cast()));
            }
            let turned = Self::turn_quarters(x);
            for i in 0..4 {
                _mm512_storeu_si512(columns[i].as_mut_ptr().cast(), turned[i]);
            }
        }
    }

    /// Upper bits as pairs of features, eight of a row in half a register, are all features of it in order.
    #[inline(always)]
    unsafe fn turn_cut(chunk: CutChunk<'_>, rows: &mut [[i32; LANES]], stride: usize) {
        let (lower, width) = (chunk.lower, chunk.n_quads);
        assert!(lower.len() >= (LANES - 1) * width + 4, "sixteen rows");
        assert!(rows.len() > (LANES - 1) * stride, "room for sixteen rows");
        // SAFETY: the caller has AVX-512; each reference covers all sixteen values, and what is read and written of each row has been seen to
        // be there.
        unsafe {
            let nothing = _mm512_setzero_si512();
            let mut x = [nothing; LANES / 2];
            for i in 0..LANES / 2 {
                x[i] = _mm512_loadu_si512(chunk.pairs[i].as_ptr().cast());
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

/// A bit for each place in which two differ.
#[inline(always)]
unsafe fn differing(a: &[u16; LANES], b: &[u16; LANES]) -> u32 {
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
struct Avx2(__m256, __m256);

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

    #[inline(always)]
    unsafe fn join(
        pair: &[i32; LANES],
        quads: &[i32; LANES],
        are_last: bool,
        origin: [i32; 2],
        shift: u32,
        out: &mut [[f32; LANES]; 2],
    ) {
        // SAFETY: the caller has AVX2; each reference covers all sixteen values.
        unsafe {
            let (left, right) = (
                _mm_cvtsi32_si128(shift as i32),
                _mm_cvtsi32_si128(16 - shift as i32),
            );
            let to_top = _mm_cvtsi32_si128(if are_last { 0 } else { 16 });
            let origin = [_mm256_set1_epi32(origin[0]), _mm256_set1_epi32(origin[1])];
            for half in 0..2 {
                let pair = _mm256_loadu_si256(pair.as_ptr().add(8 * half).cast());
                let quads = _mm256_loadu_si256(quads.as_ptr().add(8 * half).cast());
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
                for i in 0..4 {
                    let first = rows.as_ptr().add((first_lane + i) * width);
                    let low = _mm256_castsi128_si256(_mm_loadu_si128(first.cast()));
                    let high = _mm_loadu_si128(first.add(4 * width).cast());
                    x[i] = _mm256_inserti128_si256::<1>(low, high);
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
    unsafe fn turn_cut(chunk: CutChunk<'_>, rows: &mut [[i32; LANES]], stride: usize) {
        let (lower, width) = (chunk.lower, chunk.n_quads);
        assert!(lower.len() >= (LANES - 1) * width + 4, "sixteen rows");
        assert!(rows.len() > (LANES - 1) * stride, "room for sixteen rows");
        for first_lane in [0, 8] {
            // SAFETY: the caller has AVX2; each reference covers all sixteen values, and what is read and written of each row has been seen
            // to be there.
            unsafe {
                let mut x = [_mm256_setzero_si256(); LANES / 2];
                for i in 0..LANES / 2 {
                    x[i] = _mm256_loadu_si256(chunk.pairs[i].as_ptr().add(first_lane).cast());
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

/// With VNNI a pair of products is added by the instruction that makes it.
#[derive(Clone, Copy)]
struct Avx512Shorts<const VNNI: bool>(__m512i);

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

#[derive(Clone, Copy)]
struct Avx2Shorts(__m256i, __m256i);

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
                _mm256_or_si256(_mm256_andnot_si256(mask.0, self.0), bits.0),
                _mm256_or_si256(_mm256_andnot_si256(mask.1, self.1), bits.1),
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

#[cfg(test)]
mod tests {
    use super::super::Kernel;
    use super::super::lanes::Scalar;
    use super::super::shorts::PlainShorts;
    use super::super::shorts::tests::{numbers, outcomes};
    use super::super::sums::join;
    use super::*;
    use crate::split::{ChunkRoom, CutTile};

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn outcomes_vnni(numbers: &[[i32; LANES]]) -> Vec<[i32; LANES]> {
        // SAFETY: as for `sweep_avx512_vnni`.
        unsafe { outcomes::<Avx512Shorts<true>>(numbers) }
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn outcomes_avx512(numbers: &[[i32; LANES]]) -> Vec<[i32; LANES]> {
        // SAFETY: as for `sweep_avx512`.
        unsafe { outcomes::<Avx512Shorts<false>>(numbers) }
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn outcomes_avx2(numbers: &[[i32; LANES]]) -> Vec<[i32; LANES]> {
        // SAFETY: as for `sweep_avx2`.
        unsafe { outcomes::<Avx2Shorts>(numbers) }
    }

    #[inline(always)]
    unsafe fn transposed<L: Lanes>(columns: &[[f32; LANES]; LANES]) -> [[i32; LANES]; LANES] {
        let mut rows = [[0; LANES]; LANES];
        // SAFETY: passed on to the caller.
        unsafe { L::transpose(columns, &mut rows, 1) };
        rows
    }

    /// What is made of tiles cut in two, of rows of every width: columns, rows, and where labels differ.
    #[inline(always)]
    unsafe fn put_together<L: Lanes>() -> (Vec<[f32; LANES]>, Vec<[i32; LANES]>, Vec<u32>) {
        let (mut all_columns, mut all_rows, mut all_differing) =
            (Vec::new(), Vec::new(), Vec::new());
        for (shift, n_features) in (0..=8u32).zip([2usize, 3, 8, 15, 16, 17, 31, 32, 50]) {
            let word = |at: usize| (at as i32 * 0x1234_5677).rotate_left(shift);
            let pairs: Vec<[i32; LANES]> = (0..n_features.div_ceil(2))
                .map(|pair| std::array::from_fn(|lane| word(pair * LANES + lane)))
                .collect();
            let lower: Vec<i32> = (0..LANES * n_features.div_ceil(4))
                .map(|at| word(at + 77).rotate_left(9))
                .collect();
            let mut origin = vec![[0; LANES]; n_features.div_ceil(LANES)];
            for (f, origin) in origin.as_flattened_mut()[..n_features]
                .iter_mut()
                .enumerate()
            {
                *origin = f as i32 * 90_001 - 70_001;
            }
            let tile = CutTile {
                pairs: &pairs,
                lower: &lower,
                origin: &origin,
                shift,
            };
            let mut columns = vec![[0.0; LANES]; n_features];
            let mut rows = vec![[0; LANES]; LANES * origin.len()];
            // SAFETY: passed on to the caller.
            unsafe {
                join::<L>(tile, &mut columns);
                for chunk_idx in 0..origin.len() {
                    let mut room = ChunkRoom::default();
                    let chunk = tile.chunk(chunk_idx, &mut room);
                    L::turn_cut(chunk, &mut rows[chunk_idx..], origin.len());
                }
                for bit in 0..LANES {
                    let (labels, mut other) = ([7; LANES], [7; LANES]);
                    other[bit] = 7 | 1 << bit;
                    other[LANES - 1 - bit] = 0x8007;
                    all_differing.push(L::differing(&labels, &other));
                }
            }
            for lane in 0..LANES {
                let row = rows[lane * origin.len()..][..origin.len()].as_flattened();
                assert!((0..n_features).all(|f| row[f] as f32 == columns[f][lane]));
            }
            all_columns.extend(columns);
            all_rows.extend(rows);
        }
        (all_columns, all_rows, all_differing)
    }

    type Everything = (
        [[i32; LANES]; LANES],
        (Vec<[f32; LANES]>, Vec<[i32; LANES]>, Vec<u32>),
    );

    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn on_avx512(columns: &[[f32; LANES]; LANES]) -> Everything {
        // SAFETY: as for `sweep_avx512`.
        unsafe { (transposed::<Avx512>(columns), put_together::<Avx512>()) }
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn on_avx2(columns: &[[f32; LANES]; LANES]) -> Everything {
        // SAFETY: as for `sweep_avx2`.
        unsafe { (transposed::<Avx2>(columns), put_together::<Avx2>()) }
    }

    #[test]
    fn sixteen_bit_products_are_those_of_plain_rust() {
        type Outcomes = unsafe fn(&[[i32; LANES]]) -> Vec<[i32; LANES]>;
        let kernels: [(Kernel, Outcomes); 3] = [
            (Kernel::Avx512Vnni, outcomes_vnni),
            (Kernel::Avx512, outcomes_avx512),
            (Kernel::Avx2, outcomes_avx2),
        ];
        let numbers = numbers();
        // SAFETY: `Scalar` needs nothing.
        let plain = unsafe { outcomes::<PlainShorts<Scalar>>(&numbers) };
        for (kernel, outcomes) in kernels {
            if !Kernel::available().contains(&kernel) {
                eprintln!("not checked: this processor has no {kernel:?}");
                continue;
            }
            // SAFETY: just seen.
            let own = unsafe { outcomes(&numbers) };
            let first_wrong = own.iter().zip(&plain).position(|(own, plain)| own != plain);
            assert_eq!(first_wrong, None, "{kernel:?}");
        }
    }

    #[test]
    fn a_tile_is_joined_and_turns_into_rows() {
        let columns: [[f32; LANES]; LANES] =
            std::array::from_fn(|f| std::array::from_fn(|lane| (f * 100 + lane) as f32 - 777.0));
        let rows = std::array::from_fn(|lane| std::array::from_fn(|f| columns[f][lane] as i32));
        // SAFETY: `Scalar` needs nothing.
        let expected = (rows, unsafe { put_together::<Scalar>() });
        let available = Kernel::available();
        if available.contains(&Kernel::Avx2) {
            // SAFETY: just seen.
            assert_eq!(unsafe { on_avx2(&columns) }, expected);
        }
        if available.contains(&Kernel::Avx512) {
            // SAFETY: just seen.
            assert_eq!(unsafe { on_avx512(&columns) }, expected);
        }
    }
}
