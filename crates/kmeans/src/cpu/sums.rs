//! Adds rows to the sums of their cluster, in integers, while the tile is still in cache.
//!
//! On the GPU the same happens within `shaders/assign.wgsl`.

use super::lanes::Lanes;
use crate::{LANES, Partial};

/// Room for a tile turned into rows, kept from tile to tile: [LANES x n_features].
#[derive(Debug, Default)]
pub(super) struct Rows(Vec<i32>);

impl Rows {
    /// Takes the rows of a tile: `columns` [n_features].
    ///
    /// # Safety
    /// As for [`Lanes`].
    #[inline(always)]
    pub(super) unsafe fn read<L: Lanes>(&mut self, columns: &[[f32; LANES]]) {
        self.0.resize(LANES * columns.len(), 0);
        // SAFETY: passed on to the caller.
        unsafe { to_rows::<L>(columns, &mut self.0) };
    }

    /// [LANES] rows of [n_features].
    #[inline(always)]
    pub(super) fn rows(&self, n_features: usize) -> impl Iterator<Item = &[i32]> {
        self.0.chunks_exact(n_features)
    }
}

/// Adds the rows of a tile to counts and sums: `columns` [n_features], `labels` [n_rows in the tile].
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
pub(super) unsafe fn add_rows<L: Lanes>(
    columns: &[[f32; LANES]],
    labels: &[u16],
    rows: &mut Rows,
    partial: &mut Partial,
) {
    let n_features = columns.len();
    // SAFETY: passed on to the caller.
    unsafe { rows.read::<L>(columns) };
    for (row, &label) in rows.rows(n_features).zip(labels) {
        let label = usize::from(label);
        partial.counts[label] += 1;
        let sums = &mut partial.sums[label * n_features..][..n_features];
        for (sum, &value) in sums.iter_mut().zip(row) {
            *sum += i64::from(value);
        }
    }
}

/// Takes row `lane` of a tile from one cluster to another.
#[inline(always)]
pub(super) fn move_row(
    columns: &[[f32; LANES]],
    lane: usize,
    from: u16,
    to: u16,
    partial: &mut Partial,
) {
    let n_features = columns.len();
    let (from, to) = (usize::from(from), usize::from(to));
    partial.counts[from] -= 1;
    partial.counts[to] += 1;
    let of_cluster = |cluster: usize| cluster * n_features..(cluster + 1) * n_features;
    let ranges = [of_cluster(from), of_cluster(to)];
    let [from, to] = partial
        .sums
        .get_disjoint_mut(ranges)
        .expect("a row moves from one cluster to another");
    for ((column, from), to) in columns.iter().zip(from).zip(to) {
        let value = i64::from(whole(column[lane]));
        *from -= value;
        *to += value;
    }
}

/// A grid value as an integer, in one addition: the sum's last bit is worth one. A cast would ask after NaN.
#[inline(always)]
fn whole(value: f32) -> i32 {
    const ROUNDER: f32 = 12_582_912.0;
    (value + ROUNDER).to_bits() as i32 - ROUNDER.to_bits() as i32
}

/// Turns a tile into rows: `columns` [n_features], `rows` [LANES x n_features].
#[inline(always)]
unsafe fn to_rows<L: Lanes>(columns: &[[f32; LANES]], rows: &mut [i32]) {
    let n_features = columns.len();
    let (fours, rest) = columns.as_chunks::<4>();
    for (four_idx, four) in fours.iter().enumerate() {
        let rows = &mut rows[4 * four_idx..];
        // SAFETY: the caller keeps the contract of `Lanes`.
        unsafe { L::transpose(four, rows, n_features) };
    }
    for (column, feature_idx) in rest.iter().zip(4 * fours.len()..) {
        for (lane, &value) in column.iter().enumerate() {
            rows[lane * n_features + feature_idx] = value as i32;
        }
    }
}
