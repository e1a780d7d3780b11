//! Integers of 128 bits, as 16 little-endian bytes each.

use crate::{WireError, check};

const WIDTH: usize = size_of::<i128>();

pub(crate) fn bytes(values: &[i128]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

pub(crate) fn one(field: &'static str, bytes: &[u8]) -> Result<i128, WireError> {
    Ok(i128::from_le_bytes(check::array(field, bytes)?))
}

pub(crate) fn many(
    field: &'static str,
    bytes: &[u8],
    n_values: usize,
) -> Result<Vec<i128>, WireError> {
    check::shape(field, bytes.len(), n_values.saturating_mul(WIDTH))?;
    let (values, _) = bytes.as_chunks::<WIDTH>();
    Ok(values
        .iter()
        .map(|bytes| i128::from_le_bytes(*bytes))
        .collect())
}
