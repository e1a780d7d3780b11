//! Floats as integers in the same order, cut into digits.

use std::collections::BTreeMap;

use crate::column::Number;
use crate::vectors::{self, Vectorised};

/// Widths of the digits, from the top. The first two are together the 35 bits that an `f32` has as an `f64` (sign, 11 of the
/// exponent, 23 of the mantissa), so that order statistics of `f32` columns are settled in two rounds.
const DIGIT_BITS: [u32; 4] = [18, 17, 15, 14];

pub(super) const FIRST_DIGIT_BITS: u32 = DIGIT_BITS[0];

/// Distinct values of a digit, at most: those of the first one.
pub const MAX_DIGIT_VALUES: u32 = 1 << FIRST_DIGIT_BITS;

/// The bits of `x` as an integer in the order of the floats; both zeros are one. `x` is no NaN.
#[inline]
pub(super) fn ordered_bits(x: f64) -> u64 {
    // Adding zero makes -0 positive and leaves all others.
    let bits = (x + 0.0).to_bits();
    let sign = (bits as i64 >> 63) as u64;
    bits ^ (sign | 1 << 63)
}

/// The float that [`ordered_bits`] maps to `bits`.
pub(super) fn from_ordered_bits(bits: u64) -> f64 {
    let sign = if bits >> 63 == 1 { 1 << 63 } else { u64::MAX };
    f64::from_bits(bits ^ sign)
}

/// Asks for the histogram of one digit among the values that share the bits above it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digit {
    /// The bits above, right-aligned.
    prefix: u64,
    /// How many digits they are.
    n_above: usize,
}

impl Digit {
    /// The topmost digit, of all values.
    pub(super) const FIRST: Self = Self {
        prefix: 0,
        n_above: 0,
    };

    /// No digit at all: one bucket of all values, that says how many they are, the smallest and the largest.
    pub(super) const NONE: Self = Self {
        prefix: 0,
        n_above: DIGIT_BITS.len(),
    };

    /// The digit below `n_above` others that are `prefix`, right-aligned; `None` where there is no such digit. Below all four, and
    /// without a prefix, is none: all values are in one bucket.
    pub fn from_parts(prefix: u64, n_above: usize) -> Option<Self> {
        if (prefix, n_above) == (0, DIGIT_BITS.len()) {
            return Some(Self::NONE);
        }
        let bits_above: u32 = DIGIT_BITS.get(..n_above)?.iter().sum();
        let exists = n_above < DIGIT_BITS.len() && prefix >> bits_above == 0;
        exists.then_some(Self { prefix, n_above })
    }

    /// The bits above, right-aligned.
    pub fn prefix(self) -> u64 {
        self.prefix
    }

    /// How many digits they are.
    pub fn n_above(self) -> usize {
        self.n_above
    }

    pub(super) fn is_first(self) -> bool {
        self.n_above == 0
    }

    pub(super) fn is_none(self) -> bool {
        self == Self::NONE
    }

    pub(super) fn is_below_another(self) -> bool {
        !self.is_first() && !self.is_none()
    }

    /// The next digit below `value` of this one; `None` below the last.
    pub(super) fn below(self, value: u32) -> Option<Self> {
        let n_above = self.n_above + 1;
        (n_above < DIGIT_BITS.len()).then(|| Self {
            prefix: self.prefix << self.width() | u64::from(value),
            n_above,
        })
    }

    /// Distinct values it can have, at most.
    pub(super) fn n_values(self) -> u64 {
        1 << self.width()
    }

    fn width(self) -> u32 {
        DIGIT_BITS.get(self.n_above).copied().unwrap_or(0)
    }

    /// Counts the values of `column` that share the prefix; few do, so a map will do.
    pub(super) fn count(self, column: &[f64], histogram: &mut BTreeMap<u32, Bucket>) {
        let bits_above: u32 = DIGIT_BITS[..self.n_above].iter().sum();
        let bits_below = 64 - bits_above - self.width();
        let add = &mut |x: f64| {
            let bits = ordered_bits(x);
            if bits.unbounded_shr(64 - bits_above) == self.prefix && !x.is_nan() {
                let digit = (bits >> bits_below & (self.n_values() - 1)) as u32;
                histogram.entry(digit).or_default().add(bits);
            }
        };
        if self.n_above == 0 {
            return column.iter().for_each(|x| add(*x));
        }
        // The prefix holds the whole exponent, so these are the ends of a range of numbers.
        let ends = [0, u64::MAX >> bits_above]
            .map(|below| from_ordered_bits(self.prefix << (64 - bits_above) | below));
        let chunks = column.chunks(CHUNK);
        vectors::run(Matches { chunks, ends, add });
    }
}

/// Adds values to the one bucket of [`Digit::NONE`].
pub(super) fn count_ends<V: Number>(column: &[V], histogram: &mut BTreeMap<u32, Bucket>) {
    let Ends { n_values, min, max } = vectors::run(Column(column));
    if n_values > 0 {
        let (min, max) = (ordered_bits(min.into()), ordered_bits(max.into()));
        histogram
            .entry(0)
            .or_default()
            .merge(&Bucket { n_values, min, max });
    }
}

/// How many values are no NaN, the smallest and the largest of them.
struct Ends<V> {
    n_values: u64,
    min: V,
    max: V,
}

struct Column<'a, V>(&'a [V]);

impl<V: Number> Vectorised for Column<'_, V> {
    type Output = Ends<V>;

    #[inline(always)]
    fn run(self) -> Ends<V> {
        const LANES: usize = 32;
        let (mut min, mut max) = ([V::MAX; LANES], [V::MIN; LANES]);
        let mut n_nans = 0;
        let (chunks, rest) = self.0.as_chunks::<LANES>();
        for chunk in chunks {
            let mut is_nan = false;
            for lane in 0..LANES {
                let x = chunk[lane];
                // No comparison with NaN is true.
                min[lane] = if x < min[lane] { x } else { min[lane] };
                max[lane] = if x > max[lane] { x } else { max[lane] };
                is_nan |= x.is_nan();
            }
            if is_nan {
                n_nans += chunk.iter().filter(|x| x.is_nan()).count();
            }
        }
        for x in rest {
            n_nans += usize::from(x.is_nan());
            min[0] = if *x < min[0] { *x } else { min[0] };
            max[0] = if *x > max[0] { *x } else { max[0] };
        }
        let smaller = |a: V, b: &V| if *b < a { *b } else { a };
        let larger = |a: V, b: &V| if *b > a { *b } else { a };
        Ends {
            n_values: (self.0.len() - n_nans) as u64,
            min: min.iter().fold(V::MAX, smaller),
            max: max.iter().fold(V::MIN, larger),
        }
    }
}

/// Values looked at together.
const CHUNK: usize = 32;

/// Calls `add` with all values of the chunks in which one lies between the `ends`.
struct Matches<'a, A> {
    chunks: std::slice::Chunks<'a, f64>,
    ends: [f64; 2],
    add: &'a mut A,
}

impl<A: FnMut(f64)> Vectorised for Matches<'_, A> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let [low, high] = self.ends;
        for chunk in self.chunks {
            let is_match = |x: &f64| (*x >= low) & (*x <= high);
            if chunk.iter().fold(false, |any, x| any | is_match(x)) {
                chunk.iter().for_each(|x| (self.add)(*x));
            }
        }
    }
}

/// The values that share all digits down to one. When they are all equal, no digit below need be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// How many.
    pub n_values: u64,
    /// Smallest, in ordered bits.
    pub min: u64,
    /// Largest, in ordered bits.
    pub max: u64,
}

impl Default for Bucket {
    fn default() -> Self {
        Self {
            n_values: 0,
            min: u64::MAX,
            max: 0,
        }
    }
}

impl Bucket {
    #[inline]
    pub(super) fn add(&mut self, bits: u64) {
        self.n_values += 1;
        self.min = self.min.min(bits);
        self.max = self.max.max(bits);
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.n_values += other.n_values;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }
}

/// An order statistic on the way to being known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum OrderStatistic {
    /// Among the values that share the digits above `digit`, it is number `rank`, counted from 0, of `n_values`.
    Open {
        digit: Digit,
        rank: u64,
        n_values: u64,
    },
    /// Found.
    Known(f64),
}

impl OrderStatistic {
    /// Value number `rank`, counted from 0 and from below, of `n_values`.
    pub(super) fn new(rank: u64, n_values: u64) -> Self {
        Self::Open {
            digit: Digit::FIRST,
            rank,
            n_values,
        }
    }

    pub(super) fn known(self) -> Option<f64> {
        match self {
            Self::Known(value) => Some(value),
            Self::Open { .. } => None,
        }
    }

    /// Follows the rank down into the histogram of its digit.
    pub(super) fn descend(self, histogram: &BTreeMap<u32, Bucket>) -> Self {
        let Self::Open {
            digit, mut rank, ..
        } = self
        else {
            return self;
        };
        for (value, bucket) in histogram {
            if rank >= bucket.n_values {
                rank -= bucket.n_values;
                continue;
            }
            let single = bucket.min == bucket.max;
            return match digit.below(*value) {
                Some(digit) if !single => Self::Open {
                    digit,
                    rank,
                    n_values: bucket.n_values,
                },
                _ => Self::Known(from_ordered_bits(bucket.min)),
            };
        }
        unreachable!("a rank is below the number of values")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordered_bits_are_in_the_order_of_the_floats() {
        let ascending = [
            f64::NEG_INFINITY,
            f64::MIN,
            -2.0,
            -1.0,
            -f64::MIN_POSITIVE,
            -5e-324,
            0.0,
            5e-324,
            1e-3,
            1.0,
            1.5,
            f64::MAX,
            f64::INFINITY,
        ];
        assert!(ascending.is_sorted_by_key(|x| ordered_bits(*x)));
        for x in ascending {
            assert_eq!(from_ordered_bits(ordered_bits(x)), x);
        }
        assert_eq!(ordered_bits(-0.0), ordered_bits(0.0));
    }

    #[test]
    fn every_order_statistic_is_that_of_a_sort() {
        let noise = |i: u64| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) as f64;
        let columns: [Vec<f64>; 4] = [
            (0..500).map(|i| noise(i) - 1e13).collect(),
            (0..500)
                .map(|i| (noise(i) / 1e10).floor() / 100.0)
                .collect(),
            // Equal down to the last digit, so that all four rounds are needed.
            (0..500)
                .map(|i| f64::from_bits(1.0_f64.to_bits() + i * 37 % 501))
                .collect(),
            vec![-0.0, 0.0, 0.0, -0.0, 7.0],
        ];
        for column in columns {
            let mut sorted = column.clone();
            sorted.sort_by(f64::total_cmp);
            for (rank, expected) in sorted.iter().enumerate() {
                assert_eq!(find(&column, rank as u64), *expected, "rank {rank}");
            }
        }
    }

    fn count_first(column: &[f64], histogram: &mut BTreeMap<u32, Bucket>) {
        let mut scratch = crate::stats::Scratch::default();
        scratch.count(column);
        scratch.drain(histogram);
    }

    fn find(column: &[f64], rank: u64) -> f64 {
        let mut statistic = OrderStatistic::new(rank, column.len() as u64);
        for _ in 0..DIGIT_BITS.len() {
            let OrderStatistic::Open { digit, .. } = statistic else {
                break;
            };
            let mut histogram = BTreeMap::new();
            match digit.is_first() {
                true => count_first(column, &mut histogram),
                false => digit.count(column, &mut histogram),
            }
            statistic = statistic.descend(&histogram);
        }
        statistic.known().expect("known after the last digit")
    }

    #[test]
    fn without_a_digit_all_values_are_in_one_bucket() {
        let check = |column: &[f64]| {
            let (mut all, mut expected) = (BTreeMap::new(), BTreeMap::new());
            count_ends(column, &mut all);
            for x in column.iter().filter(|x| !x.is_nan()) {
                let bucket: &mut Bucket = expected.entry(0).or_default();
                bucket.add(ordered_bits(*x));
            }
            assert_eq!(all, expected);
            let narrow: Vec<f32> = column.iter().map(|x| *x as f32).collect();
            let wide: Vec<f64> = narrow.iter().map(|x| f64::from(*x)).collect();
            let (mut found, mut expected) = (BTreeMap::new(), BTreeMap::new());
            count_ends(&narrow, &mut found);
            count_ends(&wide, &mut expected);
            assert_eq!(found, expected);
        };
        check(&[]);
        check(&[f64::NAN; 40]);
        check(&[f64::NEG_INFINITY, f64::INFINITY, f64::NAN]);
        check(&[f64::INFINITY; 33]);
        check(&[-0.0; 65]);
        let many: Vec<f64> = (0..1_000)
            .map(|i| (f64::from(i) * 0.7).sin() * 3.0)
            .collect();
        (0..70).for_each(|n| check(&many[n..10 * n + 33]));
        let mut with_nans = many;
        with_nans.iter_mut().step_by(37).for_each(|x| *x = f64::NAN);
        check(&with_nans);
    }

    #[test]
    fn floats_of_32_bits_are_settled_in_two_rounds() {
        let column: Vec<f64> = (0..10_000_u32)
            .map(|i| f64::from((i as f32 * 0.37).sin()))
            .collect();
        let mut first = BTreeMap::new();
        count_first(&column, &mut first);
        let after_one = OrderStatistic::new(7_777, 10_000).descend(&first);
        let OrderStatistic::Open { digit, .. } = after_one else {
            panic!("known too early")
        };
        let mut second = BTreeMap::new();
        digit.count(&column, &mut second);
        assert!(after_one.descend(&second).known().is_some());
    }
}
