//! Rows in another order, a segment at a time: what [`crate::Block::reorder`] is made of.

use crate::LANES;

/// Rows that change places with each other only: few enough for the second-level cache, enough to find like with like.
pub(crate) const SEGMENT_ROWS: usize = 4_096;
pub(crate) const SEGMENT_TILES: usize = SEGMENT_ROWS / LANES;

/// Where the row in each lane of a segment's tiles comes from: its place in the segment. Lanes beyond the last row keep what they have.
///
/// # Panics
/// When a row of `order` is not of segment `segment_idx`.
pub(crate) fn places(segment_idx: usize, order: &[u16]) -> Vec<[u16; LANES]> {
    let first = segment_idx * SEGMENT_ROWS;
    let places = order.iter().map(|&row| {
        let place = usize::from(row).wrapping_sub(first);
        assert!(place < SEGMENT_ROWS, "rows stay in their segment");
        place as u16
    });
    let padding = order.len() as u16..;
    let mut from = vec![[0; LANES]; order.len().div_ceil(LANES)];
    for (from, place) in from
        .as_flattened_mut()
        .iter_mut()
        .zip(places.chain(padding))
    {
        *from = place;
    }
    from
}

/// `columns` [tiles of a segment x n_columns] in the order of `from`.
///
/// Column by column: then what is picked from lies in the first-level cache.
#[inline(always)]
pub(crate) fn permute<T: Copy + Default>(
    columns: &mut [[T; LANES]],
    n_columns: usize,
    from: &[[u16; LANES]],
) {
    let mut given = [[T::default(); LANES]; SEGMENT_TILES];
    for column_idx in 0..n_columns {
        let own = columns[column_idx..].iter().step_by(n_columns);
        for (given, column) in given.iter_mut().zip(own) {
            *given = *column;
        }
        let own = columns[column_idx..].iter_mut().step_by(n_columns);
        for (column, from) in own.zip(from) {
            *column = pick(&given, from);
        }
    }
}

/// `rows` [rows of a segment x width] in the order of `from`.
pub(crate) fn permute_rows(rows: &mut [i32], width: usize, from: &[[u16; LANES]]) {
    let given = rows.to_vec();
    for (row, &place) in rows.chunks_exact_mut(width).zip(from.as_flattened()) {
        row.copy_from_slice(&given[usize::from(place) * width..][..width]);
    }
}

/// The values of the rows `from` of a segment.
#[inline(always)]
pub(crate) fn pick<T: Copy + Default>(
    column: &[[T; LANES]; SEGMENT_TILES],
    from: &[u16; LANES],
) -> [T; LANES] {
    let rows = column.as_flattened();
    let mut picked = [T::default(); LANES];
    for lane in 0..LANES {
        // Masked, an index needs no check: a segment is a power of two of rows.
        picked[lane] = rows[usize::from(from[lane]) % SEGMENT_ROWS];
    }
    picked
}

/// Room for a number of each row of a segment.
pub(crate) type OfRows<T> = [[T; LANES]; SEGMENT_TILES];
