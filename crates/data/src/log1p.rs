//! `ln(1 + x)` of many numbers at once.
//!
//! The method and the constants are those of `libm::log1p` (FreeBSD's `s_log1p.c`: Copyright (C) 1993 by Sun Microsystems, Inc.,
//! free to use with this notice), the same operations in the same order without a branch, so the bits are the same; a test says so.

/// High and low part of ln 2.
const LN2: [f64; 2] = [6.931_471_803_691_238e-1, 1.908_214_929_270_587_7e-10];
/// Coefficients of the polynomial.
const LG: [f64; 7] = [
    6.666_666_666_666_735e-1,
    3.999_999_999_940_942e-1,
    2.857_142_874_366_239e-1,
    2.222_219_843_214_978_4e-1,
    1.818_357_216_161_805e-1,
    1.531_383_769_920_937_3e-1,
    1.479_819_860_511_658_6e-1,
];
/// Bits of the high half of 1 and of sqrt(2) / 2, in place.
const ONE: u64 = 0x3ff0_0000 << 32;
const ROOT: u64 = 0x3fe6_a09e << 32;
/// Below these bits 1 + x is below sqrt(2); below those, |x| is below 2^-53.
const NEAR: u64 = 0x3fda_827a << 32;
const TINY: u64 = 0x3ca0_0000 << 32;
/// Not finite from here on.
const INFINITE: u64 = 0x7ff0_0000 << 32;
const MANTISSA: u64 = (1 << 52) - 1;

/// `libm::log1p(x)` of an `x` that is not below -0, or NaN.
#[inline(always)]
pub(crate) fn log1p_of_positive(x: f64) -> f64 {
    let magnitude = x.to_bits() & (u64::MAX >> 1);
    let is_near = magnitude < NEAR;
    let u = 1.0 + x;
    let lifted = u.to_bits().wrapping_add(ONE - ROOT);
    let exponent = (lifted >> 52).wrapping_sub(0x3ff);
    // A small integer as a float, by its bits.
    let k = f64::from_bits(exponent & 0xfff | 0x4330 << 48) - 4_503_599_627_370_496.0;
    let correction = if exponent >= 2 {
        1.0 - (u - x)
    } else {
        x - (u - 1.0)
    };
    let correction = if exponent >= 54 { 0.0 } else { correction / u };
    let reduced = f64::from_bits((lifted & MANTISSA).wrapping_add(ROOT)) - 1.0;
    let (k, c, f) = if is_near {
        (0.0, 0.0, x)
    } else {
        (k, correction, reduced)
    };
    let half_square = 0.5 * f * f;
    let s = f / (2.0 + f);
    let z = s * s;
    let w = z * z;
    let t1 = w * (LG[1] + w * (LG[3] + w * LG[5]));
    let t2 = z * (LG[0] + w * (LG[2] + w * (LG[4] + w * LG[6])));
    let r = t2 + t1;
    let log = s * (half_square + r) + (k * LN2[1] + c) - half_square + f + k * LN2[0];
    match (TINY..INFINITE).contains(&magnitude) {
        true => log,
        false => x,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bits_are_those_of_libm() {
        let mut bits = 0x9e37_79b9_7f4a_7c15_u64;
        let mut check = |x: f64| {
            let (found, expected) = (log1p_of_positive(x), libm::log1p(x));
            assert!(
                found.to_bits() == expected.to_bits() || x.is_nan() && found.is_nan(),
                "{x:e}"
            );
        };
        let edges = [
            NEAR,
            TINY,
            ONE,
            ROOT,
            INFINITE,
            54 << 52 | ONE,
            0x434 << 52,
            0x435 << 52,
        ];
        for edge in edges {
            (0..2_000).for_each(|i| check(f64::from_bits(edge - 1_000 + i)));
        }
        [0.0, -0.0, f64::NAN, f64::MAX, f64::MIN_POSITIVE]
            .into_iter()
            .for_each(&mut check);
        for i in 0..400_000_u32 {
            check(f64::from(i) / 128.0);
            check(f64::from(f32::from_bits(i * 5_000)));
            bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            check(f64::from_bits(bits >> 1));
            check(f64::from_bits(ONE - (20 << 52) + (bits >> 7)));
        }
    }

    #[test]
    fn one_wrong_digit_is_noticed() {
        let wrong = |x: f64| f64::from_bits(log1p_of_positive(x).to_bits() ^ 1);
        assert_ne!(wrong(0.7).to_bits(), libm::log1p(0.7).to_bits());
    }
}
