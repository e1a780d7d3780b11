//! Arrow columns as numbers.

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, Float16Type,
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type, i256,
};
use arrow::error::ArrowError;

/// Digits after the point of a value: 1/10,000 of its unit.
const VALUE_SCALE: i32 = 4;
const VALUE_UNIT: i64 = 10_i64.pow(VALUE_SCALE as u32);

/// A customer's value that is null or NaN; no number maps to it.
pub const NO_VALUE: i64 = i64::MIN;

/// Values of a column that are not finite numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ColumnCounts {
    /// Nulls.
    pub nulls: u64,
    /// NaN, which counts as null.
    pub nans: u64,
    /// Positive infinities.
    pub pos_inf: u64,
    /// Negative infinities.
    pub neg_inf: u64,
}

impl ColumnCounts {
    /// Adds other rows.
    pub fn merge(&mut self, other: &Self) {
        self.nulls += other.nulls;
        self.nans += other.nans;
        self.pos_inf += other.pos_inf;
        self.neg_inf += other.neg_inf;
    }

    /// Nulls and NaN.
    pub fn missing(&self) -> u64 {
        self.nulls + self.nans
    }

    /// Infinities of both signs.
    pub fn infinite(&self) -> u64 {
        self.pos_inf + self.neg_inf
    }
}

/// The array as `data_type`: dictionaries unpacked, texts of another file in the text type of the first.
pub(crate) fn unpack(array: &ArrayRef, data_type: &DataType) -> Result<ArrayRef, ArrowError> {
    match array.data_type() == data_type {
        true => Ok(array.clone()),
        false => cast(array, data_type),
    }
}

/// Appends the values of a numeric `array` to `out`, nulls as NaN, and counts what is not finite.
pub(crate) fn append_f64(array: &dyn Array, out: &mut Vec<f64>) -> ColumnCounts {
    let start = out.len();
    match array.data_type() {
        DataType::Float64 => out.extend_from_slice(array.as_primitive::<Float64Type>().values()),
        DataType::Float32 => extend::<Float32Type>(array, out, f64::from),
        DataType::Float16 => extend::<Float16Type>(array, out, |v| v.to_f64()),
        DataType::Int8 => extend::<Int8Type>(array, out, f64::from),
        DataType::Int16 => extend::<Int16Type>(array, out, f64::from),
        DataType::Int32 => extend::<Int32Type>(array, out, f64::from),
        // To nearest, ties to even: the float nearest to the integer.
        DataType::Int64 => extend::<Int64Type>(array, out, |v| v as f64),
        DataType::UInt8 => extend::<UInt8Type>(array, out, f64::from),
        DataType::UInt16 => extend::<UInt16Type>(array, out, f64::from),
        DataType::UInt32 => extend::<UInt32Type>(array, out, f64::from),
        DataType::UInt64 => extend::<UInt64Type>(array, out, |v| v as f64),
        &DataType::Decimal32(_, scale) => {
            extend::<Decimal32Type>(array, out, |v| decimal_to_f64(v.into(), scale));
        }
        &DataType::Decimal64(_, scale) => {
            extend::<Decimal64Type>(array, out, |v| decimal_to_f64(v.into(), scale));
        }
        &DataType::Decimal128(_, scale) => {
            extend::<Decimal128Type>(array, out, |v| decimal_to_f64(v, scale));
        }
        &DataType::Decimal256(_, scale) => {
            extend::<Decimal256Type>(array, out, |v| match v.to_i128() {
                Some(v) => decimal_to_f64(v, scale),
                None => parse_decimal(&v.to_string(), scale),
            });
        }
        _ => out.extend(array.as_boolean().values().iter().map(f64::from)),
    }
    let appended = &mut out[start..];
    let nulls = array
        .logical_nulls()
        .map_or(0, |nulls| blank(&nulls, appended));
    count_special(appended, nulls)
}

fn extend<T: ArrowPrimitiveType>(
    array: &dyn Array,
    out: &mut Vec<f64>,
    to_f64: impl Fn(T::Native) -> f64,
) {
    out.extend(
        array
            .as_primitive::<T>()
            .values()
            .iter()
            .map(|v| to_f64(*v)),
    );
}

/// What lies under a null is arbitrary, so it is overwritten before anything is counted.
fn blank(nulls: &NullBuffer, values: &mut [f64]) -> u64 {
    if nulls.null_count() > 0 {
        let (with_flag, flags) = (values.iter_mut(), nulls.iter());
        with_flag.zip(flags).for_each(|(value, is_valid)| {
            if !is_valid {
                *value = f64::NAN;
            }
        });
    }
    nulls.null_count() as u64
}

/// `f32` or `f64`.
pub(crate) trait Number: Copy + PartialOrd + Into<f64> {
    const NAN: Self;
    /// Infinity.
    const MAX: Self;
    /// Its opposite.
    const MIN: Self;
    fn is_finite(self) -> bool;
    fn is_nan(self) -> bool;
}

impl Number for f32 {
    const NAN: Self = Self::NAN;
    const MAX: Self = Self::INFINITY;
    const MIN: Self = Self::NEG_INFINITY;
    fn is_finite(self) -> bool {
        Self::is_finite(self)
    }
    fn is_nan(self) -> bool {
        Self::is_nan(self)
    }
}

impl Number for f64 {
    const NAN: Self = Self::NAN;
    const MAX: Self = Self::INFINITY;
    const MIN: Self = Self::NEG_INFINITY;
    fn is_finite(self) -> bool {
        Self::is_finite(self)
    }
    fn is_nan(self) -> bool {
        Self::is_nan(self)
    }
}

/// What of `values`, of which `nulls` are nulls, is not a finite number.
pub(crate) fn count_special<V: Number>(values: &[V], nulls: u64) -> ColumnCounts {
    // No early end, so that it vectorises.
    if values.iter().fold(true, |all, v| all & v.is_finite()) {
        return ColumnCounts::default();
    }
    let count = |is: fn(f64) -> bool| {
        let flags = values.iter().map(|v| u64::from(is((*v).into())));
        flags.sum::<u64>()
    };
    ColumnCounts {
        nulls,
        nans: count(f64::is_nan) - nulls,
        pos_inf: count(|v| v == f64::INFINITY),
        neg_inf: count(|v| v == f64::NEG_INFINITY),
    }
}

/// The float nearest to `unscaled / 10^scale`.
fn decimal_to_f64(unscaled: i128, scale: i8) -> f64 {
    // Both operands are exact in f64, so the quotient is rounded once; 10^22 is the last exact power of ten.
    const EXACT: i128 = 1 << 53;
    match u32::try_from(scale) {
        Ok(scale @ 0..=22) if unscaled.abs() <= EXACT => {
            unscaled as f64 / 10_u128.pow(scale) as f64
        }
        _ => parse_decimal(&unscaled.to_string(), scale),
    }
}

fn parse_decimal(unscaled: &str, scale: i8) -> f64 {
    let exponent = -i32::from(scale);
    format!("{unscaled}e{exponent}")
        .parse()
        .expect("digits with an exponent are a float")
}

/// Appends the values of a numeric `array` in 1/10,000 of their unit, ties to even; null and NaN as [`NO_VALUE`]. Returns how many
/// are infinite or do not fit.
pub(crate) fn append_fixed(array: &dyn Array, out: &mut Vec<i64>) -> usize {
    let mut n_unfit = 0;
    let mut push = |value: Option<i64>| {
        n_unfit += usize::from(value.is_none());
        out.push(value.unwrap_or(NO_VALUE));
    };
    match array.data_type() {
        DataType::Float16 | DataType::Float32 | DataType::Float64 => {
            let mut values = Vec::with_capacity(array.len());
            append_f64(array, &mut values);
            values.iter().for_each(|v| push(float_to_fixed(*v)));
        }
        DataType::Boolean => {
            let values = array.as_boolean();
            values
                .iter()
                .for_each(|v| push(Some(v.map_or(NO_VALUE, |v| i64::from(v) * VALUE_UNIT))));
        }
        DataType::Int8 => fix::<Int8Type>(array, 0, &mut push),
        DataType::Int16 => fix::<Int16Type>(array, 0, &mut push),
        DataType::Int32 => fix::<Int32Type>(array, 0, &mut push),
        DataType::Int64 => fix::<Int64Type>(array, 0, &mut push),
        DataType::UInt8 => fix::<UInt8Type>(array, 0, &mut push),
        DataType::UInt16 => fix::<UInt16Type>(array, 0, &mut push),
        DataType::UInt32 => fix::<UInt32Type>(array, 0, &mut push),
        DataType::UInt64 => fix::<UInt64Type>(array, 0, &mut push),
        &DataType::Decimal32(_, scale) => fix::<Decimal32Type>(array, scale, &mut push),
        &DataType::Decimal64(_, scale) => fix::<Decimal64Type>(array, scale, &mut push),
        &DataType::Decimal128(_, scale) => fix::<Decimal128Type>(array, scale, &mut push),
        &DataType::Decimal256(_, scale) => fix::<Decimal256Type>(array, scale, &mut push),
        other => unreachable!("{other} is no value: the manifest takes numbers only"),
    }
    n_unfit
}

fn fix<T: ArrowPrimitiveType>(array: &dyn Array, scale: i8, push: &mut impl FnMut(Option<i64>))
where
    T::Native: Widen,
{
    let values: &PrimitiveArray<T> = array.as_primitive();
    values.iter().for_each(|value| {
        push(match value {
            None => Some(NO_VALUE),
            Some(value) => decimal_to_fixed(value.widen(), scale),
        });
    });
}

fn float_to_fixed(value: f64) -> Option<i64> {
    if value.is_nan() {
        return Some(NO_VALUE);
    }
    let scaled = (value * VALUE_UNIT as f64).round_ties_even();
    // 2^63 is exact in f64 and the first float that does not fit; the lowest i64 is taken.
    let limit = -(i64::MIN as f64);
    (scaled.abs() < limit).then_some(scaled as i64)
}

fn decimal_to_fixed(unscaled: i256, scale: i8) -> Option<i64> {
    let power = VALUE_SCALE - i32::from(scale);
    let ten = i256::from_i128(10);
    let fixed = match u32::try_from(power) {
        Ok(power) => unscaled.checked_mul(ten.checked_pow(power)?)?,
        Err(_) => match ten.checked_pow(power.unsigned_abs()) {
            Some(divisor) => divide_ties_even(unscaled, divisor)?,
            // A divisor beyond 256 bits leaves less than half a unit of any 256-bit number.
            None => i256::ZERO,
        },
    };
    let fixed = i64::try_from(fixed.to_i128()?).ok()?;
    (fixed != NO_VALUE).then_some(fixed)
}

/// `divisor` is a positive power of ten, so an even number, or one.
fn divide_ties_even(value: i256, divisor: i256) -> Option<i256> {
    let (quotient, rest) = (value.checked_div(divisor)?, value.checked_rem(divisor)?);
    let twice = rest.checked_abs()?.checked_mul(i256::from_i128(2))?;
    let is_odd = quotient.checked_rem(i256::from_i128(2))? != i256::ZERO;
    if twice > divisor || (twice == divisor && is_odd) {
        return quotient.checked_add(i256::from_i128(if value < i256::ZERO { -1 } else { 1 }));
    }
    Some(quotient)
}

/// Integers as the widest one.
trait Widen {
    fn widen(self) -> i256;
}

impl Widen for i256 {
    fn widen(self) -> i256 {
        self
    }
}

macro_rules! widen {
    ($($integer:ty),*) => {$(
        impl Widen for $integer {
            fn widen(self) -> i256 {
                i256::from_i128(i128::from(self))
            }
        }
    )*};
}
widen!(i8, i16, i32, i64, i128, u8, u16, u32, u64);

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{
        BooleanArray, Decimal128Array, Decimal256Array, Float64Array, Int32Array, UInt64Array,
    };

    #[test]
    fn decimals_become_the_nearest_float() {
        for (unscaled, scale, expected) in [
            (12_345_i128, 2, 123.45),
            (-1, 4, -0.0001),
            (7, -3, 7000.0),
            (12_345_678_901_234_567_890_123, 10, 1_234_567_890_123.456_7),
            (1, 38, 1e-38),
        ] {
            assert_eq!(decimal_to_f64(unscaled, scale), expected);
        }
        let huge = i256::from_string(&"9".repeat(60)).unwrap();
        let array = Decimal256Array::from(vec![huge])
            .with_precision_and_scale(76, 20)
            .unwrap();
        let mut out = Vec::new();
        append_f64(&array, &mut out);
        assert_eq!(out, [1e40]);
    }

    #[test]
    fn what_lies_under_a_null_is_neither_read_nor_counted() {
        let values = vec![1.0, f64::INFINITY, f64::NAN, f64::NEG_INFINITY].into();
        let nulls = NullBuffer::from(vec![true, false, true, true]);
        let mut out = Vec::new();
        let counts = append_f64(&Float64Array::new(values, Some(nulls)), &mut out);
        let expected = ColumnCounts {
            nulls: 1,
            nans: 1,
            pos_inf: 0,
            neg_inf: 1,
        };
        assert_eq!(counts, expected);
        assert!(out[1].is_nan() && out[2].is_nan());
        assert_eq!((counts.missing(), counts.infinite()), (2, 1));
    }

    fn fixed(array: &dyn Array) -> (Vec<i64>, usize) {
        let mut out = Vec::new();
        let n_unfit = append_fixed(array, &mut out);
        (out, n_unfit)
    }

    #[test]
    fn values_are_fixed_to_four_digits_ties_to_even() {
        let floats = Float64Array::from(vec![
            Some(1.5),
            None,
            Some(f64::NAN),
            Some(0.000_25),
            Some(-2.0),
        ]);
        assert_eq!(
            fixed(&floats),
            (vec![15_000, NO_VALUE, NO_VALUE, 2, -20_000], 0)
        );
        let decimals = Decimal128Array::from(vec![25, 35, -25, 26, -1_000])
            .with_precision_and_scale(10, 5)
            .unwrap();
        assert_eq!(fixed(&decimals), (vec![2, 4, -2, 3, -100], 0));
        let cents = Decimal128Array::from(vec![1999])
            .with_precision_and_scale(10, 2)
            .unwrap();
        assert_eq!(fixed(&cents), (vec![199_900], 0));
        assert_eq!(fixed(&Int32Array::from(vec![3])), (vec![30_000], 0));
        assert_eq!(fixed(&BooleanArray::from(vec![true])), (vec![10_000], 0));
    }

    #[test]
    fn values_that_do_not_fit_are_counted() {
        assert_eq!(
            fixed(&Float64Array::from(vec![f64::INFINITY, 1e15, 1.0])).1,
            2
        );
        assert_eq!(
            fixed(&UInt64Array::from(vec![u64::MAX, 922_337_203_685_477])).1,
            1
        );
    }
}
