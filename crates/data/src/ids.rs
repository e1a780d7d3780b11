//! Customer ids as bytes that do not depend on the column's type, and their fingerprints.

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{
    DataType, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};

use crate::short_hash::{HashWords, SHORT_BYTES, ShortHasher};

/// The first 128 bits of the BLAKE3 of an id's canonical bytes, most significant byte first.
pub type Fingerprint = u128;

/// The row key that goes with a fingerprint: its first 8 bytes.
pub fn row_key(fingerprint: Fingerprint) -> u64 {
    (fingerprint >> 64) as u64
}

/// What is shown in place of an id that must not be shown: 16 hexadecimal digits.
pub fn shown(fingerprint: Fingerprint) -> String {
    format!("{:016x}", row_key(fingerprint))
}

const INTEGER_TAG: u8 = b'i';
const TEXT_TAG: u8 = b's';
const ROW_TAG: u8 = b'r';
/// Canonical bytes of an id that is an integer.
pub const INTEGER_BYTES: usize = 1 + size_of::<i128>();

/// Ids of consecutive rows.
#[derive(Debug, Clone)]
pub struct Ids {
    array: ArrayRef,
    is_row_number: bool,
}

impl Ids {
    /// `array` is of a type that [`ColumnType::is_id`](crate::ColumnType::is_id).
    pub fn from_column(array: ArrayRef) -> Self {
        Self {
            array,
            is_row_number: false,
        }
    }

    /// The numbers of `n_rows` rows from `first_row` on, for tables without an id.
    pub(crate) fn from_row_numbers(first_row: u64, n_rows: usize) -> Self {
        let numbers = (first_row..).take(n_rows).map(|row| row as i64);
        Self {
            array: std::sync::Arc::new(Int64Array::from_iter_values(numbers)),
            is_row_number: true,
        }
    }

    /// The ids in the type of their column; [`DataType::Int64`] row numbers for tables without an id.
    pub fn array(&self) -> &ArrayRef {
        &self.array
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.array.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.array.is_empty()
    }

    /// Replaces `out` by the canonical bytes of the id in row `row_idx`: a tag, then the number as 16 bytes (two's complement,
    /// least significant first) or the text as UTF-8. Integers of any width and sign have the bytes of their value, and texts
    /// of all Arrow types those of their characters.
    pub fn canonical(&self, row_idx: usize, out: &mut Vec<u8>) {
        out.clear();
        let array = self.array.as_ref();
        let integer = |value: i128, out: &mut Vec<u8>| {
            out.push(if self.is_row_number {
                ROW_TAG
            } else {
                INTEGER_TAG
            });
            out.extend_from_slice(&value.to_le_bytes());
        };
        let text = |value: &str, out: &mut Vec<u8>| {
            out.push(TEXT_TAG);
            out.extend_from_slice(value.as_bytes());
        };
        match array.data_type() {
            DataType::Int8 => integer(array.as_primitive::<Int8Type>().value(row_idx).into(), out),
            DataType::Int16 => {
                integer(array.as_primitive::<Int16Type>().value(row_idx).into(), out)
            }
            DataType::Int32 => {
                integer(array.as_primitive::<Int32Type>().value(row_idx).into(), out)
            }
            DataType::Int64 => {
                integer(array.as_primitive::<Int64Type>().value(row_idx).into(), out)
            }
            DataType::UInt8 => {
                integer(array.as_primitive::<UInt8Type>().value(row_idx).into(), out)
            }
            DataType::UInt16 => integer(
                array.as_primitive::<UInt16Type>().value(row_idx).into(),
                out,
            ),
            DataType::UInt32 => integer(
                array.as_primitive::<UInt32Type>().value(row_idx).into(),
                out,
            ),
            DataType::UInt64 => integer(
                array.as_primitive::<UInt64Type>().value(row_idx).into(),
                out,
            ),
            DataType::LargeUtf8 => text(array.as_string::<i64>().value(row_idx), out),
            DataType::Utf8View => text(array.as_string_view().value(row_idx), out),
            _ => text(array.as_string::<i32>().value(row_idx), out),
        }
    }

    /// Appends the fingerprint of every row to `out`.
    pub fn fingerprints(&self, out: &mut Vec<Fingerprint>) {
        out.reserve(self.len());
        let mut hasher = ShortHasher::default();
        if let Some(integers) = self.integers() {
            for row_idx in 0..self.len() {
                let [[a, b, c, d], [e, ..]] = integers.canonical(row_idx).map(words);
                let words = [a, b, c, d, e];
                hasher.push_words(words, INTEGER_BYTES, &mut |hashes, n| {
                    append(out, hashes, n);
                });
            }
        } else {
            let mut bytes = Vec::new();
            for row_idx in 0..self.len() {
                self.canonical(row_idx, &mut bytes);
                if bytes.len() <= SHORT_BYTES {
                    hasher.push_bytes(&bytes, &mut |hashes, n| append(out, hashes, n));
                } else {
                    // In the order of the rows.
                    hasher.finish(&mut |hashes, n| append(out, hashes, n));
                    out.push(first_of(blake3::hash(&bytes).as_bytes()));
                }
            }
        }
        hasher.finish(&mut |hashes, n| append(out, hashes, n));
    }

    /// The ids, if they are integers.
    pub fn integers(&self) -> Option<Integers<'_>> {
        let array = self.array.as_ref();
        let values = match array.data_type() {
            DataType::Int8 => IntegerValues::I8(array.as_primitive::<Int8Type>().values()),
            DataType::Int16 => IntegerValues::I16(array.as_primitive::<Int16Type>().values()),
            DataType::Int32 => IntegerValues::I32(array.as_primitive::<Int32Type>().values()),
            DataType::Int64 => IntegerValues::I64(array.as_primitive::<Int64Type>().values()),
            DataType::UInt8 => IntegerValues::U8(array.as_primitive::<UInt8Type>().values()),
            DataType::UInt16 => IntegerValues::U16(array.as_primitive::<UInt16Type>().values()),
            DataType::UInt32 => IntegerValues::U32(array.as_primitive::<UInt32Type>().values()),
            DataType::UInt64 => IntegerValues::U64(array.as_primitive::<UInt64Type>().values()),
            _ => return None,
        };
        Some(Integers {
            values,
            tag: match self.is_row_number {
                true => ROW_TAG,
                false => INTEGER_TAG,
            },
        })
    }
}

/// Ids that are integers.
#[derive(Debug, Clone, Copy)]
pub struct Integers<'a> {
    values: IntegerValues<'a>,
    tag: u8,
}

#[derive(Debug, Clone, Copy)]
enum IntegerValues<'a> {
    I8(&'a [i8]),
    I16(&'a [i16]),
    I32(&'a [i32]),
    I64(&'a [i64]),
    U8(&'a [u8]),
    U16(&'a [u16]),
    U32(&'a [u32]),
    U64(&'a [u64]),
}

impl Integers<'_> {
    /// As [`Ids::canonical`]: [`INTEGER_BYTES`], least significant first.
    #[inline(always)]
    pub fn canonical(&self, row_idx: usize) -> [u128; 2] {
        let value = self.value(row_idx);
        [
            (value as u128) << 8 | u128::from(self.tag),
            (value >> 120) as u8 as u128,
        ]
    }

    #[inline(always)]
    pub(crate) fn value(&self, row_idx: usize) -> i128 {
        match self.values {
            IntegerValues::I8(values) => values[row_idx].into(),
            IntegerValues::I16(values) => values[row_idx].into(),
            IntegerValues::I32(values) => values[row_idx].into(),
            IntegerValues::I64(values) => values[row_idx].into(),
            IntegerValues::U8(values) => values[row_idx].into(),
            IntegerValues::U16(values) => values[row_idx].into(),
            IntegerValues::U32(values) => values[row_idx].into(),
            IntegerValues::U64(values) => values[row_idx].into(),
        }
    }

    /// Whether each is greater than the one before.
    pub(crate) fn ascend(&self) -> bool {
        fn ascend<T: PartialOrd>(values: &[T]) -> bool {
            values.is_sorted_by(|a, b| a < b)
        }
        match self.values {
            IntegerValues::I8(values) => ascend(values),
            IntegerValues::I16(values) => ascend(values),
            IntegerValues::I32(values) => ascend(values),
            IntegerValues::I64(values) => ascend(values),
            IntegerValues::U8(values) => ascend(values),
            IntegerValues::U16(values) => ascend(values),
            IntegerValues::U32(values) => ascend(values),
            IntegerValues::U64(values) => ascend(values),
        }
    }
}

/// The words of 16 bytes, least significant first.
#[inline(always)]
pub fn words(bytes: u128) -> [u32; 4] {
    std::array::from_fn(|at| (bytes >> (32 * at)) as u32)
}

/// Appends the fingerprints that the first `n` hashes begin with.
#[inline(always)]
fn append(out: &mut Vec<Fingerprint>, [a, b, c, d, ..]: &HashWords, n: usize) {
    out.extend((0..n).map(|lane| {
        let words = [a[lane], b[lane], c[lane], d[lane]];
        let word = |word: u32| u128::from(word.swap_bytes());
        words.iter().fold(0, |print, w| print << 32 | word(*w))
    }));
}

fn first_of(hash: &[u8; 32]) -> Fingerprint {
    let (first, _) = hash.as_chunks::<{ size_of::<Fingerprint>() }>();
    Fingerprint::from_be_bytes(first[0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{
        Int8Array, LargeStringArray, StringArray, StringViewArray, UInt16Array, UInt64Array,
    };
    use std::sync::Arc;

    fn of(array: impl Array + 'static) -> Vec<Fingerprint> {
        let mut out = Vec::new();
        Ids::from_column(Arc::new(array)).fingerprints(&mut out);
        out
    }

    #[test]
    fn a_number_is_the_same_customer_in_every_integer_type() {
        let expected = of(Int64Array::from(vec![0, 7, 100]));
        assert_eq!(of(Int8Array::from(vec![0, 7, 100])), expected);
        assert_eq!(of(UInt16Array::from(vec![0, 7, 100])), expected);
        assert_eq!(of(UInt64Array::from(vec![0, 7, 100])), expected);
        assert_ne!(
            of(UInt64Array::from(vec![u64::MAX])),
            of(Int64Array::from(vec![-1]))
        );
    }

    #[test]
    fn a_text_is_the_same_customer_in_every_text_type_and_never_a_number() {
        let expected = of(StringArray::from(vec!["7", "", "é"]));
        assert_eq!(of(LargeStringArray::from(vec!["7", "", "é"])), expected);
        assert_eq!(of(StringViewArray::from(vec!["7", "", "é"])), expected);
        assert_ne!(of(Int64Array::from(vec![7]))[0], expected[0]);
    }

    #[test]
    fn the_key_is_the_beginning_of_the_hash() {
        let hash = blake3::hash(b"s7");
        let fingerprint = of(StringArray::from(vec!["7"]))[0];
        assert_eq!(row_key(fingerprint).to_be_bytes(), hash.as_bytes()[..8]);
        assert_eq!(shown(fingerprint), hash.to_hex().as_str()[..16]);
    }

    #[test]
    fn integers_are_hashed_as_their_bytes() {
        let check = |ids: Ids| {
            let (mut bytes, mut found) = (Vec::new(), Vec::new());
            ids.fingerprints(&mut found);
            let expected = (0..ids.len()).map(|row_idx| {
                ids.canonical(row_idx, &mut bytes);
                assert_eq!(bytes.len(), INTEGER_BYTES);
                let [low, high] = ids.integers().unwrap().canonical(row_idx);
                assert_eq!(bytes[..16], low.to_le_bytes());
                assert_eq!([bytes[16]], high.to_le_bytes()[..1]);
                assert_eq!(high >> 8, 0);
                first_of(blake3::hash(&bytes).as_bytes())
            });
            assert_eq!(found, expected.collect::<Vec<_>>());
        };
        let integers = [i64::MIN, -1, 0, 1, 255, 256, i64::MAX];
        check(Ids::from_column(Arc::new(Int64Array::from(
            integers.repeat(5),
        ))));
        check(Ids::from_column(Arc::new(UInt64Array::from(vec![
            u64::MAX,
            3,
        ]))));
        check(Ids::from_column(Arc::new(Int8Array::from(vec![-128, 127]))));
        check(Ids::from_row_numbers(1 << 40, 19));
        assert!(
            Ids::from_column(Arc::new(StringArray::from(vec!["7"])))
                .integers()
                .is_none()
        );
    }

    #[test]
    fn texts_are_hashed_as_their_bytes_however_long() {
        // With its tag, a text of 63 bytes is as long as a short input may be.
        let texts: Vec<String> = (0..200)
            .map(|n: usize| "kä".repeat(n * 7 % 50) + &n.to_string())
            .chain([62, 63, 64, 65, 0].map(|length| "x".repeat(length)))
            .collect();
        let is_long = |text: &&String| text.len() >= SHORT_BYTES;
        let n_long = texts.iter().filter(is_long).count();
        assert!((50..150).contains(&n_long), "some are long");
        let expected = texts
            .iter()
            .map(|text| first_of(blake3::hash(format!("s{text}").as_bytes()).as_bytes()));
        let mut found = vec![5];
        let ids = Ids::from_column(Arc::new(StringArray::from(texts.clone())));
        ids.fingerprints(&mut found);
        assert_eq!(found[0], 5, "they are appended");
        assert_eq!(found[1..], expected.collect::<Vec<_>>());
    }

    #[test]
    fn row_numbers_are_no_ids() {
        let mut rows = Vec::new();
        Ids::from_row_numbers(5, 3).fingerprints(&mut rows);
        assert_eq!(rows.len(), 3);
        assert_ne!(rows, of(Int64Array::from(vec![5, 6, 7])));
    }
}
