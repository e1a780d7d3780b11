//! Distances in exact integers: the arithmetic that settles what floats cannot.

use crate::{Block, Centroids, LANES, TileRoom};

/// Features summed in `f64` before the sum moves to an integer: a squared difference is below 2^46, so 128 of them stay below
/// 2^53, up to which `f64` counts exactly. This is integer arithmetic on the unit that every machine has wide and fast.
const EXACT_FEATURES: usize = 128;

/// `sum_f (a_f - b_f)^2` of two grid rows [n_features]; below 2^58.
#[inline]
pub fn squared_distance(a: &[i32], b: &[i32]) -> u64 {
    a.iter()
        .zip(b)
        .map(|(&a, &b)| {
            let difference = i64::from(a - b);
            (difference * difference) as u64
        })
        .sum()
}

/// Label and squared distance of the centroid nearest to `row` [n_features]; ties go to the lowest index.
///
/// # Panics
/// When there is no centroid, or more than 65,536.
pub fn nearest(row: &[i32], centroids: &Centroids) -> (u16, u64) {
    let nearest = nearest_two(row, centroids);
    (nearest.label, nearest.d2)
}

/// The nearest centroid of a row and the runner-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NearestTwo {
    /// Index of the nearest centroid; ties go to the lowest.
    pub label: u16,
    /// Squared distance to it, in grid steps squared.
    pub d2: u64,
    /// Index of the next best by (distance, index); `None` with a single centroid.
    pub second: Option<u16>,
    /// Squared distance to `second`; `u64::MAX` without one.
    pub second_d2: u64,
}

impl NearestTwo {
    pub(crate) const NOTHING: Self = Self {
        label: 0,
        d2: u64::MAX,
        second: None,
        second_d2: u64::MAX,
    };

    /// Centroids come in index order, so strict comparisons leave ties with the lower index.
    #[inline(always)]
    fn offer(&mut self, label: u16, d2: u64) {
        if d2 < self.d2 {
            self.second = (self.d2 < u64::MAX).then_some(self.label);
            self.second_d2 = self.d2;
            (self.label, self.d2) = (label, d2);
        } else if d2 < self.second_d2 {
            (self.second, self.second_d2) = (Some(label), d2);
        }
    }
}

/// The two centroids nearest to `row` [n_features].
///
/// # Panics
/// When there is no centroid, or more than 65,536.
pub fn nearest_two(row: &[i32], centroids: &Centroids) -> NearestTwo {
    check_count(centroids);
    let mut two = NearestTwo::NOTHING;
    for (label, centroid) in (0..=u16::MAX).zip(centroids.rows()) {
        two.offer(label, squared_distance(row, centroid));
    }
    two
}

/// The two centroids nearest to every row of `block`; `out` becomes [n_rows].
///
/// # Panics
/// When there is no centroid, or more than 65,536.
pub fn nearest_two_in_block(block: &Block, centroids: &Centroids, out: &mut Vec<NearestTwo>) {
    check_count(centroids);
    out.clear();
    out.resize(block.n_rows(), NearestTwo::NOTHING);
    let mut room = TileRoom::default();
    for (tile_idx, rows) in out.chunks_mut(LANES).enumerate() {
        let tile = block.tile(tile_idx, &mut room);
        for (label, centroid) in (0..=u16::MAX).zip(centroids.rows()) {
            let distances = tile_distances(tile, centroid);
            for (two, d2) in rows.iter_mut().zip(distances) {
                two.offer(label, d2);
            }
        }
    }
}

/// Squared distances from `centroid` [n_features] to every row of `block`; `out` becomes [n_rows].
pub fn distances_in_block(block: &Block, centroid: &[i32], out: &mut Vec<u64>) {
    out.clear();
    let mut room = TileRoom::default();
    for tile_idx in 0..block.n_rows().div_ceil(LANES) {
        out.extend(tile_distances(block.tile(tile_idx, &mut room), centroid));
    }
    out.truncate(block.n_rows());
}

/// Squared distance of every row of `block` to the centroid of its label; `labels` [n_rows], `out` becomes [n_rows].
pub fn label_distances_in_block(
    block: &Block,
    centroids: &Centroids,
    labels: &[u16],
    out: &mut Vec<u64>,
) {
    assert_eq!(block.n_rows(), labels.len(), "one label a row");
    out.clear();
    let mut room = TileRoom::default();
    for (tile_idx, labels) in labels.chunks(LANES).enumerate() {
        let columns = block.tile(tile_idx, &mut room);
        // Fewer labels than lanes: the last tile's padding is left out.
        out.extend((0..LANES).zip(labels).map(|(lane, &label)| {
            let values = columns.iter().zip(centroids.row(label.into()));
            let square = |(column, &c): (&[f32; LANES], &i32)| {
                let difference = i64::from(column[lane] as i32 - c);
                (difference * difference) as u64
            };
            values.map(square).sum::<u64>()
        }));
    }
}

/// `columns` and `centroid` [n_features]: squared distances of the tile's rows.
#[inline(always)]
fn tile_distances(columns: &[[f32; LANES]], centroid: &[i32]) -> [u64; LANES] {
    let mut distances = [0u64; LANES];
    for (columns, centroid) in columns
        .chunks(EXACT_FEATURES)
        .zip(centroid.chunks(EXACT_FEATURES))
    {
        let mut sums = [0f64; LANES];
        for (column, &c) in columns.iter().zip(centroid) {
            let c = c as f32;
            for lane in 0..LANES {
                // Exact: the difference of two grid values is below 2^23.
                let difference = f64::from(column[lane] - c);
                sums[lane] += difference * difference;
            }
        }
        for lane in 0..LANES {
            distances[lane] += sums[lane] as u64;
        }
    }
    distances
}

fn check_count(centroids: &Centroids) {
    let n_clusters = centroids.n_clusters();
    assert!(
        (1..=usize::from(u16::MAX) + 1).contains(&n_clusters),
        "labels are u16 and n_clusters={n_clusters}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_the_lowest_index_and_the_runner_up_is_the_next() {
        let centroids = Centroids::new(1, vec![4, 2, -2, 0, 0]);
        let two = nearest_two(&[1], &centroids);
        assert_eq!((two.label, two.d2), (1, 1));
        assert_eq!((two.second, two.second_d2), (Some(3), 1));
        assert_eq!(nearest(&[0], &centroids), (3, 0));
        let alone = nearest_two(&[1], &Centroids::new(1, vec![4]));
        assert_eq!((alone.second, alone.second_d2), (None, u64::MAX));
    }

    #[test]
    fn a_block_answers_as_its_rows_do_at_the_edge_of_the_grid() {
        let n_features = 300;
        let edge = crate::GRID_LIMIT - 1;
        let values: Vec<i32> = (0..33 * n_features)
            .map(|i| {
                if i * i % 7 < 3 {
                    edge
                } else {
                    -edge + (i % 2) as i32
                }
            })
            .collect();
        let block = Block::from_rows(0, n_features, &values, (0..33).collect()).unwrap();
        let centroids =
            Centroids::new(n_features, values[5 * n_features..12 * n_features].to_vec());
        let mut twos = Vec::new();
        nearest_two_in_block(&block, &centroids, &mut twos);
        let mut distances = Vec::new();
        distances_in_block(&block, centroids.row(3), &mut distances);
        let labels: Vec<u16> = twos.iter().map(|two| two.label).collect();
        let mut own = Vec::new();
        label_distances_in_block(&block, &centroids, &labels, &mut own);
        assert!(own.iter().eq(twos.iter().map(|two| &two.d2)));
        for ((row, two), d2) in values.chunks(n_features).zip(twos).zip(distances) {
            assert_eq!(two, nearest_two(row, &centroids));
            assert_eq!(d2, squared_distance(row, centroids.row(3)));
        }
    }
}
