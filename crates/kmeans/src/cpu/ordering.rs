//! An order in which rows that must be looked at lie together.

use crate::LANES;
use crate::permute::SEGMENT_ROWS;

/// 16 bits, each with a half.
const N_CLASSES_OF_BOUNDS: usize = 36;

/// Rows that change places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ordered {
    /// Those of tiles with a row that must be looked at: the least work.
    TilesRead,
    /// All: it stays good for longer.
    All,
}

/// [n_rows] which row is to lie where: those that are to be `ordered` change places within their segment, in order of bound, of which so much
/// is `left` [n_rows], and of label; the others stay.
///
/// By bound first: the rows of one cluster that are looked at are too few in a segment to fill a tile.
pub(super) fn order_by_bounds(
    left: &[u16],
    labels: &[u16],
    n_clusters: usize,
    ordered: Ordered,
) -> Vec<u16> {
    let class_of = |row: u16| {
        let row = usize::from(row);
        // To half a power of two: a sort by counting, and finer would not read less.
        let n_bits = u16::BITS - left[row].leading_zeros();
        let half = usize::from((u32::from(left[row]) << 1 >> n_bits.saturating_sub(1)) & 1 == 1);
        (2 * n_bits as usize + half) * n_clusters + usize::from(labels[row])
    };
    let mut order: Vec<u16> = (0..=u16::MAX).take(left.len()).collect();
    for (segment_idx, segment) in left.chunks(SEGMENT_ROWS).enumerate() {
        let tiles = (segment_idx * SEGMENT_ROWS..)
            .step_by(LANES)
            .zip(segment.chunks(LANES));
        let chosen = tiles.filter(|(_, left)| ordered == Ordered::All || left.contains(&0));
        let places: Vec<u16> = chosen
            .flat_map(|(first, left)| first..first + left.len())
            .map(|place| place as u16)
            .collect();
        let sorted = by_class(&places, class_of, N_CLASSES_OF_BOUNDS * n_clusters);
        for (place, row) in places.into_iter().zip(sorted) {
            order[usize::from(place)] = row;
        }
    }
    order
}

/// `rows` in order of class, those of one class as they come.
fn by_class(rows: &[u16], class_of: impl Fn(u16) -> usize, n_classes: usize) -> Vec<u16> {
    let classes: Vec<usize> = rows.iter().map(|&row| class_of(row)).collect();
    let mut ends = vec![0u16; n_classes + 1];
    for &class in &classes {
        ends[class + 1] += 1;
    }
    for class in 1..ends.len() {
        ends[class] += ends[class - 1];
    }
    let mut sorted = vec![0; rows.len()];
    for (&row, class) in rows.iter().zip(classes) {
        let place = &mut ends[class];
        sorted[usize::from(*place)] = row;
        *place += 1;
    }
    sorted
}

/// `values` in the order of `rows`; 0 beyond.
pub(super) fn in_order(values: &[u16], rows: &[u16]) -> Vec<u16> {
    let moved = rows.iter().map(|&row| values[usize::from(row)]);
    moved
        .chain(std::iter::repeat_n(0, values.len() - rows.len()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rows_of_tiles_that_are_read_change_places_and_the_shortest_bounds_come_first() {
        // The last block there can be: places go up to the last of 16 bits.
        let n_rows = 1 << 16;
        let mut left = vec![100; n_rows];
        let labels = vec![3; n_rows];
        let looked_at = [5, 40, 4_000, 4_096, 65_535];
        for row in looked_at {
            left[row] = 0;
        }
        let order = order_by_bounds(&left, &labels, 4, Ordered::TilesRead);
        let mut all = order.clone();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..=u16::MAX));
        assert_eq!(order[..3], [5, 40, 4_000]);
        assert_eq!(order[4_096], 4_096);
        assert_eq!(order[65_520], 65_535);
        let stays = |tile: usize| looked_at.iter().all(|row| row / LANES != tile);
        for (place, row) in order
            .into_iter()
            .enumerate()
            .filter(|(place, _)| stays(place / LANES))
        {
            assert_eq!(place, usize::from(row));
        }
    }

    #[test]
    fn of_all_rows_the_shortest_bounds_come_first_in_each_segment() {
        let left: Vec<u16> = (0..10_000u16).map(|row| row.wrapping_mul(7_919)).collect();
        let order = order_by_bounds(&left, &vec![0; 10_000], 1, Ordered::All);
        let bounds: Vec<u16> = order.iter().map(|&row| left[usize::from(row)]).collect();
        let n_bits = |bound: &u16| bound.checked_ilog2();
        for segment in bounds.chunks(SEGMENT_ROWS) {
            assert!(segment.is_sorted_by_key(n_bits));
        }
        assert!(!left.is_sorted_by_key(n_bits));
    }
}
