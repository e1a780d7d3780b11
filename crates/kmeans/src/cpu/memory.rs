//! What a pass may leave out: rows whose label provably cannot have changed since they were last looked at.
//!
//! Hamerly's bound (*Making k-means even faster*, 2010), kept as one number a row. When row x is labelled a, its gap is how much
//! nearer centroid a is than any other: `|x - c_j| - |x - c_a|` at least, j any other. A pass that moves centroid j by `m_j` makes the
//! gap smaller by `m_a + max m_j` at most (j other than a), by the triangle inequality. [`Travel`] adds these up by cluster; a row
//! keeps the sum at which its gap may be used up, and is not read before. Everything is rounded to the safe side.

use std::ops::Range;

use super::bounds::{Bounds, left_of};
use super::centroids::DistanceError;
use super::lanes::{Lanes, Scalar};
use super::ordering::{Ordered, in_order, order_by_bounds};
use super::score::Scores;
use super::sums::{Pending, TileRows, lanes_of};
use super::travel::Travel;
use super::waiting::{Judged, MovedRow};
use super::{Vectorised, vectorised};
use crate::split::ShortRows;
use crate::{Block, LANES, Outline, Partial};

/// Taken off a bound for what is rounded when a gap is turned into units: a half for the whole number nearest, one for the travel that is
/// rounded up, and for ulps of `f32` at 2^16, which are 2^-7.
const UNIT_ROUNDINGS: f32 = 1.55;
/// Added to a number from 0 to 65,535 this leaves it, rounded to nearest, in the low 16 bits.
const WHOLE: f32 = 8_388_608.0;
/// A row is scored again in `f32`, which takes some hundreds of cycles, where that makes its bound longer by the travel of so many passes.
const PASSES_WORTH_A_SCORE: f64 = 4.0;

/// What passes on behalf of one candidate leave behind for one block. Private to a worker; droppable at any time.
#[derive(Debug, Clone, Default)]
pub struct BlockMemory {
    /// [`Block::order_id`] of the rows.
    order_id: u64,
    /// [n_tiles x LANES]; 0 beyond the last row. Empty before the first pass.
    labels: Vec<u16>,
    /// Counts and sums of these labels.
    partial: Option<Partial>,
    bounds: Bounds,
}

/// What one pass did for one block, beside its answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Effort {
    /// Tiles of the block.
    pub n_tiles: u64,
    /// Tiles that were read.
    pub n_tiles_read: u64,
    /// Rows that had to be looked at, those that happened to lie in the same tiles left out.
    pub n_unsafe_rows: u64,
}

impl Effort {
    /// Adds that of another block.
    pub fn merge(&mut self, other: Self) {
        self.n_tiles += other.n_tiles;
        self.n_tiles_read += other.n_tiles_read;
        self.n_unsafe_rows += other.n_unsafe_rows;
    }
}

impl BlockMemory {
    /// Bytes that a block of `n_rows` takes.
    pub fn bytes_for(n_rows: usize, n_clusters: usize, n_features: usize) -> usize {
        n_rows * 2 * size_of::<u16>() + n_clusters * (n_features + 1) * size_of::<i64>()
    }

    /// [n_rows] labels of the last pass; `None` before the first.
    pub fn labels(&self, n_rows: usize) -> Option<&[u16]> {
        self.labels.get(..n_rows).filter(|_| self.partial.is_some())
    }

    /// Whether a pass with the centroids of `travel` need not read the block.
    pub fn is_safe(&self, travel: &Travel) -> bool {
        let of_block = self.bounds.of_block(travel);
        of_block.is_some_and(|bound| f64::from(bound) > travel.most_units())
    }

    /// The share of tiles that a pass with the centroids of `travel` has to look at, at most: a quick look, with no row's bound in it.
    pub fn doubtful_share(&self, travel: &Travel) -> f64 {
        let bounds = &self.bounds;
        if self.is_safe(travel) {
            return 0.0;
        }
        if !travel.keeps_bounds || !bounds.hold(travel) || bounds.epoch != travel.epoch {
            return 1.0;
        }
        let most = travel.most_units() as u16;
        let is_doubtful = |&&bound: &&u16| bound <= most;
        let n_doubtful = bounds.of_tile.iter().filter(is_doubtful).count();
        n_doubtful as f64 / bounds.of_tile.len() as f64
    }

    /// The answer of a pass with the centroids of `travel`, if the block need not be read for it.
    pub fn answer_unread(&self, travel: &Travel) -> Option<Partial> {
        let partial = self.partial.as_ref().filter(|_| self.is_safe(travel))?;
        Some(Partial {
            n_moved: Some(0),
            n_rechecked: 0,
            ..partial.clone()
        })
    }

    /// Puts rows of `block` in order of bound and cluster, so that those which must be looked at together lie together, and the memory with
    /// them. Does nothing when there are no bounds to go by, or they are of rows in another order.
    pub fn reorder(&mut self, block: &mut Block, travel: &Travel, ordered: Ordered) {
        if !self.bounds.hold(travel) || self.order_id != block.order_id() {
            return;
        }
        self.bounds.carry_on(&self.labels, travel);
        let bounds = self.bounds.of_row.as_chunks::<LANES>().0.iter();
        let labels = self.labels.as_chunks::<LANES>().0;
        let left: Vec<[u16; LANES]> = bounds
            .zip(labels)
            // SAFETY: `Scalar` needs no more than the processor that the crate is compiled for.
            .map(|(bounds, labels)| unsafe {
                left_of::<Scalar>(bounds, &travel.shrunk_units, labels)
            })
            .collect();
        let left = &left.as_flattened()[..block.n_rows()];
        let n_clusters = travel.centroids().n_clusters();
        let order = order_by_bounds(left, &self.labels, n_clusters, ordered);
        block.reorder(&order);
        self.order_id = block.order_id();
        self.labels = in_order(&self.labels, &order);
        self.bounds.of_row = in_order(&self.bounds.of_row, &order);
        // Made anew from the rows by the next pass.
        self.bounds.of_tile.fill(0);
        self.bounds.of_block = 0;
    }

    /// Ready for a pass over such rows with the centroids of `travel`.
    pub(super) fn remember<'a>(
        &'a mut self,
        rows: &Outline,
        travel: &'a Travel,
    ) -> Remembering<'a> {
        let n_tiles = rows.n_rows.div_ceil(LANES);
        let (n_clusters, n_features) = (travel.centroids().n_clusters(), rows.n_features);
        let fits = |partial: &Partial| {
            (partial.counts.len(), partial.sums.len()) == (n_clusters, n_clusters * n_features)
        };
        let knows_labels = self.partial.as_ref().is_some_and(fits)
            && self.labels.len() == n_tiles * LANES
            && self.order_id == rows.order_id;
        if !knows_labels {
            self.order_id = rows.order_id;
            self.labels.clear();
            self.labels.resize(n_tiles * LANES, 0);
            self.bounds = Bounds::default();
        }
        let goes_by_bounds = knows_labels && self.bounds.hold(travel);
        if !travel.keeps_bounds {
            self.bounds = Bounds::default();
        } else if !goes_by_bounds {
            self.bounds = Bounds {
                epoch: travel.epoch,
                n_steps: 0,
                of_row: vec![0; n_tiles * LANES],
                of_tile: vec![0; n_tiles],
                of_block: 0,
            };
        } else {
            self.bounds.carry_on(&self.labels, travel);
        }
        self.bounds.n_steps = travel.n_steps;
        let partial = self.partial.take().filter(|_| knows_labels);
        let partial = partial.unwrap_or_else(|| Partial::zero(n_clusters, n_features));
        Remembering {
            travel,
            memory: self,
            partial,
            knows_labels,
            goes_by_bounds: goes_by_bounds && travel.keeps_bounds,
            n_rows: rows.n_rows,
            listed: None,
            n_moved: 0,
            effort: Effort {
                n_tiles: n_tiles as u64,
                ..Effort::default()
            },
        }
    }
}

/// One candidate's pass over one block, on the memory of earlier ones.
pub(super) struct Remembering<'a> {
    travel: &'a Travel,
    memory: &'a mut BlockMemory,
    partial: Partial,
    /// The labels are those of an earlier pass.
    knows_labels: bool,
    /// There are bounds from an earlier pass.
    goes_by_bounds: bool,
    n_rows: usize,
    /// What [`Remembering::list_unsafe`] answers, once it is known of all tiles.
    listed: Option<Vec<usize>>,
    n_moved: u64,
    effort: Effort,
}

impl Remembering<'_> {
    pub(super) fn keeps_bounds(&self) -> bool {
        self.travel.keeps_bounds
    }

    /// Whether some tiles may turn out to be safe.
    pub(super) fn goes_by_bounds(&self) -> bool {
        self.goes_by_bounds
    }

    /// All tiles that have a row whose label may have changed, in order.
    pub(super) fn list_all(&mut self) -> &[usize] {
        if self.listed.is_none() {
            let mut list = Vec::new();
            vectorised(Listing {
                remembering: self,
                list: &mut list,
            });
            self.listed = Some(list);
        }
        self.listed.as_deref().unwrap_or_default()
    }

    /// Appends to `list` those of `tiles` that have a row whose label may have changed.
    ///
    /// # Safety
    /// As for [`Lanes`].
    #[inline(always)]
    pub(super) unsafe fn list_unsafe<L: Lanes>(
        &mut self,
        tiles: Range<usize>,
        list: &mut Vec<usize>,
    ) {
        if let Some(listed) = &self.listed {
            let [first, end] = [tiles.start, tiles.end]
                .map(|tile_idx| listed.partition_point(|listed| *listed < tile_idx));
            return list.extend_from_slice(&listed[first..end]);
        }
        let n_before = list.len();
        let bounds = &mut self.memory.bounds;
        if !self.goes_by_bounds {
            list.extend(tiles);
            self.effort.n_unsafe_rows += ((list.len() - n_before) * LANES) as u64;
        } else {
            // A whole number is above `most_units` if it is above the whole part of it.
            let most = self.travel.most_units() as u16;
            let shrunk = &self.travel.shrunk_units;
            let (labels, _) = self.memory.labels.as_chunks::<LANES>();
            let (of_rows, _) = bounds.of_row.as_chunks::<LANES>();
            for tile_idx in tiles {
                if bounds.of_tile[tile_idx] > most {
                    continue;
                }
                // SAFETY: passed on to the caller.
                let (mut left, is_left) = unsafe {
                    let left = left_of::<L>(&of_rows[tile_idx], shrunk, &labels[tile_idx]);
                    (left, L::differing(&left, &[0; LANES]))
                };
                // What is beyond the last row has no label that could change.
                let n_rows = (self.n_rows - tile_idx * LANES).min(LANES);
                let n_unsafe = (!is_left & ((1 << n_rows) - 1)).count_ones();
                if n_unsafe == 0 {
                    left[n_rows..].fill(u16::MAX);
                    let mut least = u16::MAX;
                    for left in left {
                        least = least.min(left);
                    }
                    bounds.of_tile[tile_idx] = most.saturating_add(least);
                    continue;
                }
                self.effort.n_unsafe_rows += u64::from(n_unsafe);
                list.push(tile_idx);
            }
        }
        self.effort.n_tiles_read += (list.len() - n_before) as u64;
    }

    /// Makes use of the bounds of a tile that is looked at for the sake of other rows than these: their labels stay, and are certain. What is
    /// left of the bounds of all.
    ///
    /// # Safety
    /// As for [`Lanes`].
    #[inline(always)]
    pub(super) unsafe fn keep_safe<L: Lanes>(&self, judged: &mut Judged) -> [u16; LANES] {
        if !self.goes_by_bounds {
            return [0; LANES];
        }
        let known = &self.memory.labels.as_chunks::<LANES>().0[judged.tile_idx];
        let bounds = &self.memory.bounds.of_row.as_chunks::<LANES>().0[judged.tile_idx];
        // SAFETY: passed on to the caller.
        let left = unsafe { left_of::<L>(bounds, &self.travel.shrunk_units, known) };
        if judged.uncertain != 0 {
            // SAFETY: passed on to the caller.
            let safe = unsafe { L::differing(&left, &[0; LANES]) };
            for lane in lanes_of(judged.uncertain & safe) {
                judged.labels[lane] = known[lane];
            }
            judged.uncertain &= !safe;
        }
        left
    }

    /// Bounds of the rows of a tile, from their scores, and what distances that follow from these are off by; those of which more is `left`
    /// stay, and those whose label is uncertain get none. A bit for each row of which better scores would give a bound that is worth it.
    ///
    /// # Safety
    /// As for [`Lanes`].
    #[inline(always)]
    pub(super) unsafe fn note_bounds<L: Lanes>(
        &mut self,
        judged: &Judged,
        n_rows: usize,
        scores: &Scores,
        error: DistanceError,
        mut left: [u16; LANES],
    ) -> u32 {
        let Judged {
            tile_idx,
            labels,
            uncertain,
            ..
        } = *judged;
        let travel = self.travel;
        let own = &mut self.memory.bounds;
        let at = tile_idx * LANES;
        // A twin of the nearest centroid leaves no gap, and twins were merged before the scores.
        if !travel.packed().are_all_distinct() {
            own.of_row[at..at + LANES].fill(0);
            own.of_tile[tile_idx] = 0;
            return 0;
        }
        let per_unit = (1.0 / travel.unit) as f32;
        let rounding = error.of_root * per_unit + UNIT_ROUNDINGS;
        // In steps that vectorise, each for all lanes.
        let (mut nears, mut gaps) = ([0f32; LANES], [0f32; LANES]);
        for lane in 0..LANES {
            let [near, far] =
                error.near_and_far(scores.squares[lane], scores.best[lane], scores.second[lane]);
            (nears[lane], gaps[lane]) = (near, far - near);
        }
        let mut is_weak = [0u16; LANES];
        let worth = (PASSES_WORTH_A_SCORE * travel.last_units()) as f32;
        for lane in 0..LANES {
            let units = (gaps[lane] * per_unit - rounding).clamp(f32::from(left[lane]), 65_535.0);
            // The low bits of the sum are the whole number nearest, in one addition: a cast would ask after NaN.
            left[lane] = (units + WHOLE).to_bits() as u16;
            // The error of two squares is about this, by the distance, in the gap.
            is_weak[lane] = u16::from(units.max(worth) * nears[lane] < error.of_square * per_unit);
        }
        // SAFETY: passed on to the caller.
        let shrunk = unsafe { travel.shrunk_units.of_labels::<L>(&labels) };
        let of_row = &mut own.of_row[at..][..LANES];
        let mut bounds = [0u16; LANES];
        for lane in 0..LANES {
            bounds[lane] = left[lane].saturating_add(shrunk[lane]);
        }
        of_row.copy_from_slice(&bounds);
        // Whatever cluster they turn out to be in.
        for lane in lanes_of(uncertain) {
            (of_row[lane], left[lane]) = (0, 0);
        }
        let mut least = u16::MAX;
        for &left in &left[..n_rows] {
            least = least.min(left);
        }
        of_row[n_rows..].fill(u16::MAX);
        own.of_tile[tile_idx] = match least {
            0 => 0,
            least => (travel.most_units() as u16).saturating_add(least),
        };
        let mut any = 0;
        for is_weak in is_weak {
            any |= is_weak;
        }
        let mut weak = 0;
        if any != 0 {
            for (lane, is_weak) in is_weak[..n_rows].iter().enumerate() {
                weak |= u32::from(*is_weak) << lane;
            }
        }
        weak
    }

    /// The bound of one row, which is `gap` grid steps nearer to the centroid of its label than to any other; after [`Remembering::note_bounds`]
    /// for its tile, which may be found to be safe when it is next asked after.
    #[inline(always)]
    pub(super) fn note_bound(&mut self, row_idx: usize, label: u16, gap: f32) {
        let travel = self.travel;
        if travel.keeps_bounds && travel.packed().are_all_distinct() {
            let left = (gap * (1.0 / travel.unit) as f32 - UNIT_ROUNDINGS).clamp(0.0, 65_535.0);
            let left = (left + WHOLE).to_bits() as u16;
            self.memory.bounds.of_row[row_idx] = left.saturating_add(travel.shrunk_units.of(label));
        }
    }

    /// Whether there are labels of the pass before.
    #[inline(always)]
    pub(super) fn knows_labels(&self) -> bool {
        self.knows_labels
    }

    /// The labels of a tile, in a pass that knows those of the pass before. Rows whose label is uncertain keep the one they have, and are
    /// `doubtful`; those that come to another cluster have `moved`: see [`Remembering::move_rows`].
    #[inline(always)]
    pub(super) fn note_certain(
        &mut self,
        judged: &Judged,
        mut doubtful: impl FnMut(u32),
        mut moved: impl FnMut(MovedRow),
    ) {
        let Judged {
            tile_idx,
            mut labels,
            uncertain,
            ..
        } = *judged;
        let known = &mut self.memory.labels.as_chunks_mut::<LANES>().0[tile_idx];
        let row_idx = |lane| (tile_idx * LANES + lane) as u32;
        for lane in lanes_of(uncertain) {
            labels[lane] = known[lane];
            doubtful(row_idx(lane));
        }
        for lane in lanes_of(judged.moved & !uncertain) {
            moved(MovedRow {
                row_idx: row_idx(lane),
                from: known[lane],
                to: labels[lane],
            });
        }
        *known = labels;
    }

    /// Some of the `rows` of a block, whose labels were noted, come from one cluster to another.
    ///
    /// # Safety
    /// As for [`Lanes`].
    #[inline(always)]
    pub(super) unsafe fn move_rows<L: Lanes>(
        &mut self,
        rows: &ShortRows<'_>,
        moves: &[MovedRow],
        pending: &mut Pending,
    ) {
        self.n_moved += moves.len() as u64;
        // SAFETY: passed on to the caller.
        unsafe { pending.move_short_rows::<L>(rows, moves, &mut self.partial) };
    }

    /// The labels of the rows `row_idxs` of any tiles, in a pass that knows those of the pass before; `rows` are these rows.
    ///
    /// # Safety
    /// As for [`Lanes`].
    #[inline(always)]
    pub(super) unsafe fn note_labels_of<L: Lanes>(
        &mut self,
        row_idxs: &[usize],
        rows: &TileRows,
        labels: &[u16; LANES],
        pending: &mut Pending,
    ) {
        let mut known = *labels;
        for (known, &row_idx) in known.iter_mut().zip(row_idxs) {
            *known = self.memory.labels[row_idx];
        }
        // SAFETY: passed on to the caller.
        let moved = unsafe { L::differing(&known, labels) };
        if moved != 0 {
            self.n_moved += u64::from(moved.count_ones());
            pending.move_rows(rows, moved, [&known, labels], &mut self.partial);
            for lane in lanes_of(moved) {
                self.memory.labels[row_idxs[lane]] = labels[lane];
            }
        }
    }

    /// A bit for each row of a tile that comes to another cluster if these are the labels.
    ///
    /// # Safety
    /// As for [`Lanes`].
    #[inline(always)]
    pub(super) unsafe fn moved<L: Lanes>(
        &self,
        tile_idx: usize,
        n_rows: usize,
        labels: &[u16; LANES],
    ) -> u32 {
        let all = (1 << n_rows) - 1;
        if !self.knows_labels {
            return all;
        }
        let known = &self.memory.labels.as_chunks::<LANES>().0[tile_idx];
        // SAFETY: passed on to the caller.
        unsafe { L::differing(known, labels) & all }
    }

    /// The labels of a tile's `n_rows` rows, in a pass that knows none; 0 beyond the last. What they are to be added to.
    #[inline(always)]
    pub(super) fn note_first_labels(
        &mut self,
        tile_idx: usize,
        n_rows: usize,
        labels: &[u16; LANES],
    ) -> &mut Partial {
        self.n_moved += n_rows as u64;
        self.memory.labels[tile_idx * LANES..][..LANES].copy_from_slice(labels);
        &mut self.partial
    }

    /// The labels of a tile's rows, of which `moved` come to another cluster, in a pass that knows those of the pass before; 0 beyond the
    /// last. `rows` has those that do.
    #[inline(always)]
    pub(super) fn note_labels(
        &mut self,
        tile_idx: usize,
        moved: u32,
        rows: &TileRows,
        labels: &[u16; LANES],
        pending: &mut Pending,
    ) {
        if moved == 0 {
            return;
        }
        self.n_moved += u64::from(moved.count_ones());
        let known = &mut self.memory.labels.as_chunks_mut::<LANES>().0[tile_idx];
        pending.move_rows(rows, moved, [known, labels], &mut self.partial);
        *known = *labels;
    }

    /// Adds what [`Remembering::note_labels`] left pending.
    pub(super) fn flush(&mut self, pending: &mut Pending) {
        pending.flush(&mut self.partial);
    }

    /// The answer, after all tiles.
    pub(super) fn finish(self, n_rechecked: u64) -> (Partial, Effort) {
        let bounds = &mut self.memory.bounds;
        bounds.of_block = bounds.of_tile.iter().copied().min().unwrap_or(u16::MAX);
        self.memory.partial = Some(self.partial.clone());
        let partial = Partial {
            n_moved: Some(self.n_moved),
            n_rechecked,
            ..self.partial
        };
        (partial, self.effort)
    }
}

/// Lists tiles: a loop for [`vectorised`] to compile for the vectors at hand.
struct Listing<'a, 'b> {
    remembering: &'a mut Remembering<'b>,
    list: &'a mut Vec<usize>,
}

impl Vectorised for Listing<'_, '_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let tiles = 0..self.remembering.effort.n_tiles as usize;
        // SAFETY: passed on to the caller.
        unsafe { self.remembering.list_unsafe::<L>(tiles, self.list) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::CpuBackend;
    use crate::{Backend, Centroids};

    /// Passes with centroids that move less and less, and then go on and on, plain and remembering; `spoil` may change what the second ones go by.
    fn n_wrong_passes(spoil: impl Fn(&mut Travel)) -> usize {
        let mut state = 1u64;
        let mut next = |n: i32| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) % n as u64) as i32
        };
        let values: Vec<i32> = (0..4_000 * 5)
            .map(|_| next(2_000_000) - 1_000_000)
            .collect();
        let block = Block::from_rows(0, 5, &values, (0..4_000).collect()).unwrap();
        let backend = CpuBackend::new();
        let mut travel = backend.travel(Centroids::new(5, values[..7 * 5].to_vec()));
        let mut memory = BlockMemory::default();
        let mut n_wrong = 0;
        for pass in 0..90 {
            let centroids = travel.centroids().clone();
            let plain = backend
                .pass(&block, std::slice::from_ref(&centroids), None)
                .unwrap();
            let (partial, _) = backend
                .pass_remembering(&block, &mut [(&travel, &mut memory)])
                .remove(0);
            n_wrong += usize::from(partial.sums != plain[0].sums);
            let reach = (1_000_000 >> pass.min(20)).max(400);
            let values = centroids.values().iter();
            let values = values.map(|v| v + next(2 * reach + 1) - reach).collect();
            travel.advance(&Centroids::new(5, values), true);
            spoil(&mut travel);
        }
        n_wrong
    }

    #[test]
    fn a_travel_that_is_counted_too_short_is_noticed() {
        assert_eq!(n_wrong_passes(|_| ()), 0);
        let by_a_third = |travel: &mut Travel| {
            travel.shrunk.iter_mut().for_each(|shrunk| *shrunk *= 0.66);
            travel.count_units();
        };
        assert!(
            n_wrong_passes(by_a_third) > 0,
            "the comparison must be able to fail"
        );
        let own_only = |travel: &mut Travel| {
            travel.shrunk.iter_mut().for_each(|shrunk| *shrunk = 0.0);
            travel.most_shrunk = 0.0;
            travel.count_units();
        };
        assert!(n_wrong_passes(own_only) > 0);
    }

    #[test]
    fn bounds_that_are_carried_too_far_into_the_next_epoch_are_noticed() {
        let n_carried = std::cell::Cell::new(0);
        let count = |travel: &mut Travel| n_carried.set(n_carried.get().max(travel.n_past()));
        assert_eq!(n_wrong_passes(count), 0);
        assert!(
            n_carried.get() > 0,
            "units must change for this to say anything"
        );
        let spoiled = |travel: &mut Travel| travel.lengthen_carried_bounds();
        assert!(n_wrong_passes(spoiled) > 0);
    }
}
