//! What decoding checks, again and again.

use std::ops::RangeInclusive;

use clientele_data::Location;
use clientele_kmeans::{GRID_LIMIT, MAX_FEATURES, MAX_ROWS};
use clientele_protocol::cluster::Digest;
use prost::Message;

use crate::WireError;

/// Rows or values, at most.
pub(crate) const ROWS: RangeInclusive<i128> = 0..=MAX_ROWS as i128;
/// Grid values.
pub(crate) const GRID: RangeInclusive<i128> = 1 - GRID_LIMIT as i128..=GRID_LIMIT as i128 - 1;
/// Columns.
pub(crate) const FEATURES: RangeInclusive<i128> = 1..=MAX_FEATURES as i128;

const SHOWN_CHARS: usize = 80;

pub(crate) fn decode<M: Message + Default>(
    message: &'static str,
    bytes: &[u8],
) -> Result<M, WireError> {
    M::decode(bytes).map_err(|source| WireError::Malformed {
        message,
        n_bytes: bytes.len(),
        source,
    })
}

pub(crate) fn required<T>(field: &'static str, value: Option<T>) -> Result<T, WireError> {
    value.ok_or(WireError::Missing { field })
}

pub(crate) fn shape(field: &'static str, found: usize, expected: usize) -> Result<(), WireError> {
    match found == expected {
        true => Ok(()),
        false => Err(WireError::Shape {
            field,
            found,
            expected,
        }),
    }
}

pub(crate) fn within<T: Copy + Into<i128>>(
    field: &'static str,
    value: T,
    range: RangeInclusive<i128>,
) -> Result<T, WireError> {
    let found = value.into();
    if range.contains(&found) {
        return Ok(value);
    }
    let (low, high) = range.into_inner();
    Err(WireError::Range {
        field,
        found,
        low,
        high,
    })
}

pub(crate) fn all_within<T: Copy + Into<i128>>(
    field: &'static str,
    values: &[T],
    range: RangeInclusive<i128>,
) -> Result<(), WireError> {
    values
        .iter()
        .try_for_each(|value| within(field, *value, range.clone()).map(drop))
}

/// Checks a sum of `n_terms` numbers of at most `largest` in magnitude.
pub(crate) fn sum(
    field: &'static str,
    sum: i128,
    n_terms: u64,
    largest: i128,
) -> Result<(), WireError> {
    // No term is above 2^80 and no number of rows above 2^35 when this is reached.
    let bound = i128::from(n_terms.min(MAX_ROWS)) * largest;
    within(field, sum, -bound..=bound).map(drop)
}

/// A count or limit from 32 bits to what memory is counted in.
pub(crate) fn size(
    field: &'static str,
    value: u32,
    range: RangeInclusive<i128>,
) -> Result<usize, WireError> {
    Ok(within(field, value, range)? as usize)
}

/// Features of `n_rows` rows that lie in `values`, row-major, all of them on the grid.
pub(crate) fn grid_rows(
    field: &'static str,
    n_rows: usize,
    n_features: u32,
    values: &[i32],
) -> Result<usize, WireError> {
    let n_features = size("n_features", n_features, FEATURES)?;
    shape(field, values.len(), n_rows.saturating_mul(n_features))?;
    all_within(field, values, GRID)?;
    Ok(n_features)
}

pub(crate) fn digest(field: &'static str, bytes: &[u8]) -> Result<Digest, WireError> {
    let bytes: [u8; blake3::OUT_LEN] = array(field, bytes)?;
    Ok(bytes.into())
}

pub(crate) fn array<const N: usize>(
    field: &'static str,
    bytes: &[u8],
) -> Result<[u8; N], WireError> {
    bytes.try_into().map_err(|_| WireError::Shape {
        field,
        found: bytes.len(),
        expected: N,
    })
}

pub(crate) fn text(field: &'static str, bytes: Vec<u8>) -> Result<String, WireError> {
    String::from_utf8(bytes).map_err(|error| bad_text(field, &error.to_string(), "text in UTF-8"))
}

/// A run's id, as clients choose it: 1 to 64 letters, digits, `-` and `_`.
///
/// # Errors
/// [`WireError::Text`].
pub fn run_name(run: String) -> Result<String, WireError> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    match (1..=64).contains(&run.len()) && run.chars().all(is_name) {
        true => Ok(run),
        false => Err(bad_text(
            "run",
            &run,
            "1 to 64 letters, digits, `-` and `_`",
        )),
    }
}

pub(crate) fn location(
    field: &'static str,
    location: Option<crate::v1::Location>,
) -> Result<Location, WireError> {
    let crate::v1::Location { store, key } = required(field, location)?;
    Location::new(&store, &key).map_err(|_| {
        bad_text(
            field,
            &format!("{store}:{key}"),
            "an alias of a store and a relative key",
        )
    })
}

pub(crate) fn bad_text(field: &'static str, found: &str, expected: &'static str) -> WireError {
    WireError::Text {
        field,
        found: found.chars().take(SHOWN_CHARS).collect(),
        expected,
    }
}

/// A length for the wire. What does not fit becomes a number that every receiver refuses.
pub(crate) fn wire_size(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}

/// An enum's number that has no name here.
pub(crate) fn unknown(field: &'static str, found: i32, known: RangeInclusive<i128>) -> WireError {
    let (low, high) = known.into_inner();
    WireError::Range {
        field,
        found: found.into(),
        low,
        high,
    }
}
