//! Histograms of the first digit, in which every value of a column has a place: a map would be too slow.

use std::collections::BTreeMap;

use super::digits::{Bucket, FIRST_DIGIT_BITS, ordered_bits};
use crate::vectors::{self, Vectorised};

/// Bits of an `f32` that are its first digit as an `f64`: sign, exponent, and as much of the mantissa.
const NARROW_BITS: u32 = FIRST_DIGIT_BITS - 3;
const NARROW_BELOW: u32 = 32 - NARROW_BITS;

/// Room for one histogram at a time, empty between columns.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scratch {
    buckets: Vec<Bucket>,
    used: Vec<u32>,
    narrow: Vec<NarrowBucket>,
    narrow_used: Vec<u32>,
}

/// As [`Bucket`], in ordered bits of `f32`.
#[derive(Debug, Clone, Copy)]
struct NarrowBucket {
    n_values: u32,
    min: u32,
    max: u32,
}

impl NarrowBucket {
    #[cold]
    #[inline(never)]
    fn widen(&mut self, bits: u32) {
        self.min = self.min.min(bits);
        self.max = self.max.max(bits);
    }
}

const NO_VALUES: NarrowBucket = NarrowBucket {
    n_values: 0,
    min: u32::MAX,
    max: 0,
};

impl PartialEq for Scratch {
    /// Holds nothing between columns.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Scratch {
    /// Counts values; NaN is left out.
    pub(super) fn count(&mut self, column: &[f64]) {
        self.buckets
            .resize(1 << FIRST_DIGIT_BITS, Bucket::default());
        for x in column.iter().filter(|x| !x.is_nan()) {
            let bits = ordered_bits(*x);
            let digit = (bits >> (64 - FIRST_DIGIT_BITS)) as u32;
            let bucket = &mut self.buckets[digit as usize];
            if bucket.n_values == 0 {
                self.used.push(digit);
            }
            bucket.add(bits);
        }
    }

    /// As [`Scratch::count`]: an `f32` shows its first digit without being made an `f64`, unless its exponent is the lowest.
    pub(super) fn count_narrow(&mut self, column: &[f32]) {
        self.narrow.resize(1 << NARROW_BITS, NO_VALUES);
        let mut room = [0; CHUNK];
        for values in column.chunks(CHUNK) {
            let ordered = &mut room[..values.len()];
            if vectors::run(Order { values, ordered }) {
                ordered.iter().for_each(|bits| self.count_ordered(*bits));
                continue;
            }
            for x in values {
                match x.is_subnormal() || x.is_nan() {
                    true => self.count(&[(*x).into()]),
                    false => self.count_ordered(ordered_narrow(*x)),
                }
            }
        }
    }

    #[inline(always)]
    fn count_ordered(&mut self, bits: u32) {
        let digit = bits >> NARROW_BELOW;
        let bucket = &mut self.narrow[digit as usize];
        bucket.n_values += 1;
        // Seldom, after the first values: a branch costs less than two stores that the next value of the bucket waits for.
        if bits < bucket.min || bits > bucket.max {
            if bucket.n_values == 1 {
                self.narrow_used.push(digit);
            }
            bucket.widen(bits);
        }
    }

    /// Moves what was counted to `histogram`.
    pub(super) fn drain(&mut self, histogram: &mut BTreeMap<u32, Bucket>) {
        for digit in self.used.drain(..) {
            let bucket = std::mem::take(&mut self.buckets[digit as usize]);
            histogram.entry(digit).or_default().merge(&bucket);
        }
        for digit in self.narrow_used.drain(..) {
            let bucket = std::mem::replace(&mut self.narrow[digit as usize], NO_VALUES);
            let [min, max] = [bucket.min, bucket.max].map(|bits| {
                let sign = if bits >> 31 == 1 { 1 << 31 } else { u32::MAX };
                ordered_bits(f32::from_bits(bits ^ sign).into())
            });
            let bucket = Bucket {
                n_values: bucket.n_values.into(),
                min,
                max,
            };
            let digit = (min >> (64 - FIRST_DIGIT_BITS)) as u32;
            histogram.entry(digit).or_default().merge(&bucket);
        }
    }
}

/// Values looked at together.
const CHUNK: usize = 1 << 10;

/// As [`ordered_bits`], of an `f32`.
#[inline(always)]
fn ordered_narrow(x: f32) -> u32 {
    // Adding zero makes -0 positive and leaves all others.
    let bits = (x + 0.0).to_bits();
    bits ^ ((bits as i32 >> 31) as u32 | 1 << 31)
}

/// Puts `values` in ordered bits; whether all are zero or normal numbers, or infinite.
struct Order<'a> {
    values: &'a [f32],
    ordered: &'a mut [u32],
}

impl Vectorised for Order<'_> {
    type Output = bool;

    #[inline(always)]
    fn run(self) -> bool {
        let mut is_usual = true;
        for (x, ordered) in self.values.iter().zip(self.ordered) {
            *ordered = ordered_narrow(*x);
            is_usual &= (*x == 0.0) | (x.abs() >= f32::MIN_POSITIVE);
        }
        is_usual
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns() -> Vec<Vec<f32>> {
        let edges = [
            0.0,
            -0.0,
            1.0,
            -1.0,
            f32::MIN_POSITIVE,
            1e-45,
            -1e-45,
            3e-39,
            f32::MAX,
            f32::MIN,
        ];
        let specials = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
        let many = (0..70_000_u32).map(|i| f32::from_bits(i.wrapping_mul(2_654_435_761)));
        vec![
            edges.to_vec(),
            edges.into_iter().chain(specials).collect(),
            many.filter(|x| x.is_finite()).collect(),
        ]
    }

    #[test]
    fn floats_of_32_bits_are_counted_as_floats_of_64_bits_are() {
        let mut scratch = Scratch::default();
        for column in columns() {
            let wide: Vec<f64> = column.iter().map(|x| f64::from(*x)).collect();
            let (mut expected, mut found) = (BTreeMap::new(), BTreeMap::new());
            scratch.count(&wide);
            scratch.drain(&mut expected);
            scratch.count_narrow(&column);
            scratch.drain(&mut found);
            assert_eq!(found, expected);
            // One value more is noticed.
            scratch.count_narrow(&[1.5]);
            scratch.drain(&mut found);
            assert_ne!(found, expected);
        }
    }
}
