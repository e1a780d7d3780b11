//! Sixteen pairs of 16-bit integers side by side: one row of a tile in each lane, two features of it.

use std::marker::PhantomData;

use super::lanes::Lanes;
use crate::LANES;

/// Sixteen `i32` side by side, or sixteen pairs of `i16`.
///
/// # Safety
/// As for [`Lanes`].
pub(super) trait Shorts: Copy {
    /// Of the same instruction set.
    type Floats: Lanes;
    /// Whether these are faster than those.
    const PAY: bool;

    /// All lanes `value`.
    unsafe fn splat(value: i32) -> Self;
    /// One a lane.
    unsafe fn load(values: &[i32; LANES]) -> Self;
    /// One a lane.
    unsafe fn store(self, values: &mut [i32; LANES]);
    /// `self + other`.
    unsafe fn plus(self, other: Self) -> Self;
    /// `self + a.low * b.low + a.high * b.high`.
    unsafe fn plus_products(self, a: Self, b: Self) -> Self;
    /// `bits` in place of the bits of `mask`, which has all of them, and is of whole bytes.
    unsafe fn with_bits(self, mask: Self, bits: Self) -> Self;
    /// The smaller.
    unsafe fn min(self, other: Self) -> Self;
    /// The larger.
    unsafe fn max(self, other: Self) -> Self;
    /// A bit for each lane in which `self - low <= gap`, where `low` is at most `self`; the difference may take 32 bits.
    unsafe fn within(self, low: Self, gap: u32) -> u32;
}

/// Plain Rust, beside any [`Lanes`]: not fast, and the twin that the others are tested against.
#[derive(Clone, Copy)]
pub(super) struct PlainShorts<L>([i32; LANES], PhantomData<L>);

impl<L> PlainShorts<L> {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(i32, i32) -> i32) -> Self {
        let mut out = self.0;
        for (a, b) in out.iter_mut().zip(other.0) {
            *a = f(*a, b);
        }
        Self(out, PhantomData)
    }
}

impl<L: Lanes> Shorts for PlainShorts<L> {
    type Floats = L;
    const PAY: bool = false;

    #[inline(always)]
    unsafe fn splat(value: i32) -> Self {
        Self([value; LANES], PhantomData)
    }

    #[inline(always)]
    unsafe fn load(values: &[i32; LANES]) -> Self {
        Self(*values, PhantomData)
    }

    #[inline(always)]
    unsafe fn store(self, values: &mut [i32; LANES]) {
        *values = self.0;
    }

    #[inline(always)]
    unsafe fn plus(self, other: Self) -> Self {
        self.zip(other, i32::wrapping_add)
    }

    #[inline(always)]
    unsafe fn plus_products(self, a: Self, b: Self) -> Self {
        let products = a.zip(b, |a, b| {
            let low = i32::from(a as i16) * i32::from(b as i16);
            low.wrapping_add((a >> 16) * (b >> 16))
        });
        self.zip(products, i32::wrapping_add)
    }

    #[inline(always)]
    unsafe fn with_bits(self, mask: Self, bits: Self) -> Self {
        self.zip(mask, |own, mask| own & !mask)
            .zip(bits, |own, bits| own | bits)
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        self.zip(other, i32::min)
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        self.zip(other, i32::max)
    }

    #[inline(always)]
    unsafe fn within(self, low: Self, gap: u32) -> u32 {
        let mut within = 0;
        for lane in 0..LANES {
            let is_within = self.0[lane].wrapping_sub(low.0[lane]) as u32 <= gap;
            within |= u32::from(is_within) << lane;
        }
        within
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
pub(super) mod tests {
    use super::*;

    /// What every operation makes of `numbers`, and of the same a place further on.
    #[inline(always)]
    pub(in super::super) unsafe fn outcomes<S: Shorts>(
        numbers: &[[i32; LANES]],
    ) -> Vec<[i32; LANES]> {
        let mut all = Vec::new();
        for three in numbers.windows(3) {
            let mut keep = |result: S| {
                let mut out = [0; LANES];
                // SAFETY: passed on to the caller.
                unsafe { result.store(&mut out) };
                all.push(out);
            };
            // SAFETY: passed on to the caller.
            let within = unsafe {
                let [a, b, c] = [S::load(&three[0]), S::load(&three[1]), S::load(&three[2])];
                keep(a.plus(b));
                keep(a.plus_products(b, c));
                let mask = [0xff, 0xffff, 0x00ff_ff00][three[2][0].rem_euclid(3) as usize];
                keep(a.with_bits(S::splat(mask), S::splat(mask & three[1][0])));
                keep(a.min(b));
                keep(a.max(b));
                a.max(b).within(a.min(b), three[2][0].unsigned_abs())
            };
            all.push([within.cast_signed(); LANES]);
        }
        all
    }

    /// Numbers of all sizes.
    pub(in super::super) fn numbers() -> Vec<[i32; LANES]> {
        let mut state = 5u64;
        let next = |_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(9);
            (state >> 32) as i32 >> (state >> 20 & 15)
        };
        let flat: Vec<i32> = (0..500 * LANES).map(next).collect();
        flat.as_chunks().0.to_vec()
    }
}
