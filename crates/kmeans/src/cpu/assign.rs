//! Finds the nearest centroid of each row in `f32`, and settles in integers the rows it cannot be sure of.
//!
//! Twin of `shaders/assign.wgsl`. The trick: among centroids, `|x - c|^2 / 2` differs from `|c|^2 / 2 - x.c` by a constant, so a score
//! takes one multiply-add a feature; with the best and the second best score the row is certain unless their gap is within the
//! proven error ([`FloatCentroids::certain_gap`](super::centroids::FloatCentroids::certain_gap)).

use super::centroids::{NearestToRow, PackedCentroids};
use super::lanes::Lanes;
use super::memory::Remembering;
use super::score::{Best, BestTwo, Found, score};
use super::short_scores::{BestShort, ShortCentroids, score_short};
use super::shorts::Shorts;
use super::sums::{Rows, TileRows, join, lanes_of};
use super::waiting::{Judged, MOST_TILES, N_ROWS_WAITING, N_TILES_WAITING};
use crate::block::Lines;
use crate::exact::{self, NearestTwo};
use crate::split::{ShortRows, Split};
use crate::{Block, LANES, Partial, TileRoom};

/// Tiles that several assignments go over in turn are those that stay in the second-level cache meanwhile.
const SEGMENT_BYTES: usize = 256 << 10;
/// Tiles that are fetched ahead of those being scored, into the second-level cache; in the first they would push each other out.
const TILES_AHEAD: usize = 9;

/// Where more than one row in so many is scored twice, scoring once in `f32` is cheaper: that depends on how much 16-bit products save,
/// which grows with the clusters.
fn most_in_doubt(n_clusters: usize) -> u64 {
    (256 / n_clusters as u64).clamp(8, 64)
}

/// One candidate's part in a sweep over a block.
pub(super) struct Assignment<'a> {
    pub(super) centroids: &'a PackedCentroids,
    pub(super) wanted: Wanted<'a>,
    /// Rows settled exactly.
    pub(super) n_rechecked: u64,
    n_scored: u64,
    /// Since 16-bit products left them in doubt.
    n_scored_again: u64,
    most_in_doubt: u64,
}

impl<'a> Assignment<'a> {
    pub(super) fn new(centroids: &'a PackedCentroids, wanted: Wanted<'a>) -> Self {
        Self {
            centroids,
            wanted,
            n_rechecked: 0,
            n_scored: 0,
            n_scored_again: 0,
            most_in_doubt: most_in_doubt(centroids.distinct().n_clusters()),
        }
    }

    /// Whether every row is added to a sum.
    #[inline(always)]
    fn adds_all(&self) -> bool {
        match &self.wanted {
            Wanted::Partial(..) => true,
            Wanted::Changes(remembering) => !remembering.knows_labels(),
            Wanted::Labels(_) | Wanted::NearBounds(_) | Wanted::Two(_) => false,
        }
    }

    /// Whether upper bits are enough for most rows of this block, as far as is known.
    #[inline(always)]
    fn shorts_pay(&self) -> bool {
        self.n_scored_again * self.most_in_doubt <= self.n_scored + 64 * self.most_in_doubt
    }
}

/// What becomes of the labels.
pub(super) enum Wanted<'a> {
    /// [n_rows] written.
    Labels(&'a mut [u16]),
    /// Counts and sums of all rows, added to; labels [n_rows] written as well if there is room for them.
    Partial(&'a mut Partial, Option<&'a mut [u16]>),
    /// [n_rows] written: a number not below the squared distance to the nearest centroid; nothing is settled for it.
    NearBounds(&'a mut [f32]),
    /// [n_rows] written: the two nearest, with exact distances; of candidates without duplicates only.
    Two(&'a mut [NearestTwo]),
    /// What changed since the last pass, and nothing read that cannot have changed.
    Changes(Remembering<'a>),
}

/// Reads the block once, `TILES` tiles at a time, and serves every assignment from each read.
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
pub(super) unsafe fn sweep<S: Shorts, const TILES: usize>(
    block: &Block,
    assignments: &mut [Assignment<'_>],
) {
    let n_tiles = block.n_rows().div_ceil(LANES);
    let mut rooms = [const { TileRoom::new() }; TILES];
    let tile_bytes = LANES * block.n_features() * size_of::<f32>();
    let segment = match assignments {
        [_] => n_tiles,
        _ => (SEGMENT_BYTES / tile_bytes).max(TILES),
    };
    let mut rows = Rows::default();
    let mut list = Vec::with_capacity(n_tiles);
    // The centroids of each for the upper bits of this block, made when first needed.
    let mut shorts: Vec<Option<ShortCentroids>> = Vec::new();
    shorts.resize_with(assignments.len(), || None);
    for first in (0..n_tiles).step_by(segment.max(1)) {
        for (assignment, shorts) in assignments.iter_mut().zip(&mut shorts) {
            let tiles = first..n_tiles.min(first + segment);
            list.clear();
            match &mut assignment.wanted {
                // SAFETY: passed on to the caller.
                Wanted::Changes(remembering) => unsafe {
                    remembering.list_unsafe::<S::Floats>(tiles, &mut list);
                },
                _ => list.extend(tiles),
            }
            if S::PAY
                && !list.is_empty()
                && shorts.is_none()
                && let (Some(split), Some(width)) =
                    (block.split(), assignment.centroids.short_width)
            {
                let distinct = assignment.centroids.distinct();
                *shorts = Some(ShortCentroids::new(distinct, split, width));
            }
            let shorts = shorts.as_ref();
            // SAFETY: passed on to the caller.
            unsafe {
                visit::<S, TILES>(block, &list, shorts, assignment, &mut rows, &mut rooms);
            }
        }
    }
}

/// Labels the tiles of `list`.
#[inline(always)]
unsafe fn visit<S: Shorts, const TILES: usize>(
    block: &Block,
    list: &[usize],
    shorts: Option<&ShortCentroids>,
    assignment: &mut Assignment<'_>,
    rows: &mut Rows,
    rooms: &mut [TileRoom; TILES],
) {
    const { assert!(TILES <= MOST_TILES, "places for all that may wait") };
    let short_rows = block.split().map(Split::short_rows);
    let short_rows = short_rows.as_ref();
    let lines = block.lines();
    rows.single
        .resize(block.n_features().div_ceil(LANES), [0; LANES]);
    let (groups, rest) = list.as_chunks::<TILES>();
    // Once more than there are groups: for the rest of the tiles, and of those that wait.
    for group_idx in 0..=groups.len() {
        let mut most_waiting = [N_TILES_WAITING, N_ROWS_WAITING];
        if let Some(group) = groups.get(group_idx) {
            let ahead = groups.get(group_idx + TILES_AHEAD.div_ceil(TILES));
            // SAFETY: passed on to the caller.
            unsafe {
                let ahead = fetch_ahead::<S, TILES>(&lines, ahead);
                label_group::<S, TILES>(
                    block, short_rows, group, ahead, shorts, assignment, rows, rooms,
                );
            }
        } else {
            most_waiting = [0, 0];
            if TILES > 1
                && let Some(room) = rooms.as_chunks_mut::<1>().0.first_mut()
            {
                for &idx in rest {
                    // SAFETY: passed on to the caller.
                    unsafe {
                        label_group::<S, 1>(
                            block,
                            short_rows,
                            &[idx],
                            &[],
                            shorts,
                            assignment,
                            rows,
                            room,
                        );
                    }
                }
            }
        }
        while let Some(due) = rows.waiting_tiles.take_beyond(most_waiting[0]) {
            // SAFETY: passed on to the caller.
            unsafe { attend::<S::Floats>(block, due, assignment, rows) };
        }
        if let Some(short_rows) = short_rows {
            while let Some(due) = rows.waiting_rows.take_beyond(most_waiting[1]) {
                // SAFETY: passed on to the caller.
                unsafe { attend_row::<S::Floats>(short_rows, due, assignment, rows) };
            }
            if let Wanted::Changes(remembering) = &mut assignment.wanted
                && (rows.waiting_moves.are_enough() || most_waiting[1] == 0)
            {
                let pending = &mut rows.pending;
                rows.waiting_moves.take_beyond(most_waiting[1], |due| {
                    // SAFETY: passed on to the caller.
                    unsafe { remembering.move_rows::<S::Floats>(short_rows, due, pending) };
                });
            }
        }
    }
    if rows.doubts.are_any() {
        // SAFETY: passed on to the caller.
        unsafe { settle_doubts::<S::Floats>(assignment, rows) };
    }
    match &mut assignment.wanted {
        Wanted::Partial(partial, _) => rows.pending.flush(partial),
        Wanted::Changes(remembering) => remembering.flush(&mut rows.pending),
        Wanted::Labels(_) | Wanted::NearBounds(_) | Wanted::Two(_) => {}
    }
}

/// Labels a group of tiles; the lines `ahead` are fetched meanwhile.
#[inline(always)]
#[expect(
    clippy::too_many_arguments,
    reason = "passes took 1 to 3 % longer with two of them as one"
)]
unsafe fn label_group<S: Shorts, const TILES: usize>(
    block: &Block,
    short_rows: Option<&ShortRows<'_>>,
    group: &[usize; TILES],
    ahead: &[[f32; LANES]],
    shorts: Option<&ShortCentroids>,
    assignment: &mut Assignment<'_>,
    rows: &mut Rows,
    rooms: &mut [TileRoom; TILES],
) {
    let centroids = assignment.centroids;
    let is_coarse =
        S::PAY && assignment.shorts_pay() && !matches!(assignment.wanted, Wanted::Two(_));
    if is_coarse
        && let (Some(short_rows), Some(shorts)) = (short_rows, shorts)
        && let Some(norms) = short_norms(short_rows, group)
    {
        let mut tiles = [&[][..]; TILES];
        for (tile, tile_idx) in tiles.iter_mut().zip(group) {
            *tile = short_rows.pairs(*tile_idx);
        }
        // SAFETY: passed on to the caller.
        let best: BestShort<S, TILES> = unsafe { score_short(&tiles, shorts, ahead) };
        for nth in 0..TILES {
            let found = best.of_tile(nth, tiles[nth], shorts, norms[nth]);
            // SAFETY: passed on to the caller.
            let judged = unsafe { judge(block, group[nth], &[], &found, assignment) };
            match (judged, &mut assignment.wanted) {
                (None, _) => {}
                (Some(judged), Wanted::Changes(remembering)) if remembering.knows_labels() => {
                    remembering.note_certain(
                        &judged,
                        |row_idx| {
                            short_rows.fetch_lower(row_idx as usize);
                            rows.waiting_rows.put(row_idx);
                        },
                        |moved| {
                            short_rows.fetch_lower(moved.row_idx as usize);
                            rows.waiting_moves.put(moved);
                        },
                    );
                }
                (Some(judged), _) => {
                    short_rows.fetch_tile(judged.tile_idx, judged.moved | judged.uncertain);
                    rows.waiting_tiles.put(judged);
                }
            }
        }
        return;
    }
    let mut tiles = [&[][..]; TILES];
    for (nth, room) in rooms.iter_mut().enumerate() {
        // SAFETY: passed on to the caller.
        tiles[nth] = unsafe { whole_tile::<S::Floats>(block, group[nth], room) };
    }
    if let Wanted::Two(all) = &mut assignment.wanted {
        // SAFETY: passed on to the caller.
        let best: BestTwo<S::Floats, TILES> = unsafe { score(&tiles, &centroids.of_tiles, ahead) };
        for (tile, &tile_idx) in group.iter().enumerate() {
            let gap = centroids.of_tiles.certain_gap(block.tile_norms()[tile_idx]);
            let first_row = tile_idx * LANES;
            let out = &mut all[first_row..block.n_rows().min(first_row + LANES)];
            // SAFETY: passed on to the caller.
            unsafe {
                let (labels, uncertain) = best.read(tile, gap);
                rows.of_tile.turn::<S::Floats>(tiles[tile]);
                measure_two(centroids, &rows.of_tile, &labels, uncertain, out);
            }
        }
        return;
    }
    // SAFETY: passed on to the caller.
    let best: Best<S::Floats, TILES> = unsafe { score(&tiles, &centroids.of_tiles, ahead) };
    for nth in 0..TILES {
        let found = best.of_tile(nth);
        // SAFETY: passed on to the caller.
        unsafe {
            let judged = judge(block, group[nth], tiles[nth], &found, assignment);
            if let Some(judged) = judged {
                attend::<S::Floats>(block, judged, assignment, rows);
            }
        }
    }
}

/// A tile as floats, put together in `room` if need be.
#[inline(always)]
unsafe fn whole_tile<'a, L: Lanes>(
    block: &'a Block,
    tile_idx: usize,
    room: &'a mut TileRoom,
) -> &'a [[f32; LANES]] {
    let Some(split) = block.split() else {
        return block.tile(tile_idx, room);
    };
    room.0.resize(block.n_features(), [0.0; LANES]);
    // SAFETY: passed on to the caller.
    unsafe { join::<L>(split.tile(tile_idx), &mut room.0) };
    &room.0
}

/// Those of a group of tiles, if all are short enough for their upper bits to be scored.
#[inline(always)]
fn short_norms<const TILES: usize>(
    short_rows: &ShortRows<'_>,
    group: &[usize; TILES],
) -> Option<[f32; TILES]> {
    let mut norms = [0.0; TILES];
    for (norm, tile_idx) in norms.iter_mut().zip(group) {
        *norm = short_rows.norm(*tile_idx)?;
    }
    Some(norms)
}

/// The lines to fetch while a group is scored, if the tiles `ahead` are a run: one tile after the other, since processors foresee a run of
/// lines, and not three at a time. Scattered ones are fetched at once, since nothing else foresees them.
#[inline(always)]
unsafe fn fetch_ahead<'a, S: Shorts, const TILES: usize>(
    lines: &Lines<'a>,
    ahead: Option<&[usize; TILES]>,
) -> &'a [[f32; LANES]] {
    let Some(ahead) = ahead else {
        return &[];
    };
    if ahead[TILES - 1] - ahead[0] == TILES - 1 {
        return lines.of(ahead[0]..ahead[0] + TILES);
    }
    for &tile_idx in ahead {
        for line in lines.of(tile_idx..tile_idx + 1) {
            // SAFETY: passed on to the caller.
            unsafe { S::Floats::prefetch(line) };
        }
    }
    &[]
}

/// Makes of the scores of a tile what is wanted, as far as that goes without its rows; what is left if it does not. `columns` may be
/// empty where scores are of upper bits.
#[inline(always)]
unsafe fn judge<F: Found>(
    block: &Block,
    tile_idx: usize,
    columns: &[[f32; LANES]],
    found: &F,
    assignment: &mut Assignment<'_>,
) -> Option<Judged> {
    let centroids = assignment.centroids;
    let row_norm = block.tile_norms()[tile_idx];
    let first_row = tile_idx * LANES;
    let n_rows = LANES.min(block.n_rows() - first_row);
    if let Wanted::NearBounds(bounds) = &mut assignment.wanted {
        // SAFETY: passed on to the caller.
        let (scores, error) = unsafe { found.scores(columns, &centroids.of_tiles, row_norm) };
        for (lane, bound) in bounds[first_row..][..n_rows].iter_mut().enumerate() {
            *bound = (scores.squares[lane] + 2.0 * scores.best[lane] + error.of_square).max(0.0);
        }
        return None;
    }
    // SAFETY: passed on to the caller.
    let (mut labels, mut uncertain) = unsafe { found.labels(&centroids.of_tiles, row_norm) };
    if n_rows < LANES {
        labels[n_rows..].fill(0);
        uncertain &= (1 << n_rows) - 1;
    }
    if !centroids.are_all_distinct() {
        for label in &mut labels[..n_rows] {
            *label = centroids.index_of((*label).into());
        }
    }
    let mut judged = Judged {
        tile_idx,
        labels,
        uncertain,
        moved: 0,
    };
    let is_done = match &mut assignment.wanted {
        Wanted::Changes(remembering) => {
            if remembering.keeps_bounds() {
                // SAFETY: passed on to the caller.
                let weak = unsafe {
                    let left = remembering.keep_safe::<F::Floats>(&mut judged);
                    let (scores, error) = found.scores(columns, &centroids.of_tiles, row_norm);
                    remembering.note_bounds::<F::Floats>(&judged, n_rows, &scores, error, left)
                };
                judged.uncertain |= if F::IS_COARSE { weak } else { 0 };
            }
            // SAFETY: passed on to the caller.
            judged.moved =
                unsafe { remembering.moved::<F::Floats>(tile_idx, n_rows, &judged.labels) };
            judged.moved | judged.uncertain == 0
        }
        Wanted::Partial(..) => {
            judged.moved = (1 << n_rows) - 1;
            false
        }
        Wanted::Labels(_) | Wanted::NearBounds(_) | Wanted::Two(_) => false,
    };
    assignment.n_scored += LANES as u64;
    if F::IS_COARSE {
        assignment.n_scored_again += u64::from(uncertain.count_ones());
    }
    (!is_done).then_some(judged)
}

/// Does the rest, with the rows of the tile. What was left uncertain, by upper bits or far from the middle of the grid, is scored again in
/// `f32`, one by one; and what that leaves, settled in integers.
#[inline(always)]
unsafe fn attend<L: Lanes>(
    block: &Block,
    judged: Judged,
    assignment: &mut Assignment<'_>,
    rows: &mut Rows,
) {
    let Judged {
        tile_idx,
        mut labels,
        uncertain,
        mut moved,
    } = judged;
    let first_row = tile_idx * LANES;
    let n_rows = LANES.min(block.n_rows() - first_row);
    let of_tile = &mut rows.of_tile;
    // Rows that are all added to sums are put together where they are added.
    let adds_all = assignment.adds_all();
    let cut = block
        .split()
        .filter(|_| adds_all)
        .map(|split| split.tile(tile_idx));
    let wanted = if cut.is_some() { 0 } else { moved } | uncertain;
    if wanted != 0 {
        // SAFETY: passed on to the caller.
        unsafe { of_tile.take::<L>(block, tile_idx, wanted) };
    }
    if uncertain != 0 {
        for lane in lanes_of(uncertain) {
            let row = of_tile.row(lane);
            let row_idx = first_row + lane;
            // SAFETY: passed on to the caller.
            labels[lane] = unsafe { decide::<L>(row_idx, row, assignment, &mut rows.less_middle) };
        }
        if let Wanted::Changes(remembering) = &assignment.wanted {
            // SAFETY: passed on to the caller.
            moved = unsafe { remembering.moved::<L>(tile_idx, n_rows, &labels) };
        }
    }
    let pending = &mut rows.pending;
    let added_to = match &mut assignment.wanted {
        Wanted::NearBounds(_) | Wanted::Two(_) => None,
        Wanted::Labels(all) => {
            all[first_row..][..n_rows].copy_from_slice(&labels[..n_rows]);
            None
        }
        Wanted::Partial(partial, all) => {
            if let Some(all) = all {
                all[first_row..][..n_rows].copy_from_slice(&labels[..n_rows]);
            }
            Some(&mut **partial)
        }
        Wanted::Changes(remembering) if adds_all => {
            Some(remembering.note_first_labels(tile_idx, n_rows, &labels))
        }
        Wanted::Changes(remembering) => {
            remembering.note_labels(tile_idx, moved, of_tile, &labels, pending);
            None
        }
    };
    match (added_to, cut) {
        (None, _) => {}
        (Some(partial), None) => pending.add_rows(of_tile, n_rows, &labels, partial),
        (Some(partial), Some(tile)) => {
            // SAFETY: passed on to the caller.
            unsafe { pending.add_tile::<L>(tile, of_tile, &labels[..n_rows], partial) }
        }
    }
}

/// Does the rest of a row that upper bits left in doubt, in a pass that knows labels: it waits with others to be scored again.
#[inline(always)]
unsafe fn attend_row<L: Lanes>(
    short_rows: &ShortRows<'_>,
    row_idx: u32,
    assignment: &mut Assignment<'_>,
    rows: &mut Rows,
) {
    let row_idx = row_idx as usize;
    let row = &mut rows.single[..];
    short_rows.pick(row_idx, row);
    rows.doubts.put(row_idx, row);
    if rows.doubts.are_enough() {
        // SAFETY: passed on to the caller.
        unsafe { settle_doubts::<L>(assignment, rows) };
    }
}

/// The label of a single row, `row` [n_features] or more.
#[inline(always)]
unsafe fn decide<L: Lanes>(
    row_idx: usize,
    row: &[i32],
    assignment: &mut Assignment<'_>,
    room: &mut Vec<f32>,
) -> u16 {
    let centroids = assignment.centroids;
    // SAFETY: passed on to the caller.
    let found = unsafe { centroids.of_rows.nearest::<L>(row, room) };
    conclude(row_idx, row, found, assignment)
}

/// The label that follows from what was `found` of a row, which integers settle if need be; its bound is noted.
#[inline(always)]
fn conclude(
    row_idx: usize,
    row: &[i32],
    found: NearestToRow,
    assignment: &mut Assignment<'_>,
) -> u16 {
    let centroids = assignment.centroids;
    if !found.is_certain {
        assignment.n_rechecked += 1;
        return centroids.settle(row);
    }
    let label = centroids.index_of(found.idx.into());
    if let Wanted::Changes(remembering) = &mut assignment.wanted {
        remembering.note_bound(row_idx, label, found.gap);
    }
    label
}

/// Scores up to sixteen rows again that upper bits left in doubt.
#[inline(always)]
unsafe fn settle_doubts<L: Lanes>(assignment: &mut Assignment<'_>, rows: &mut Rows) {
    let centroids = assignment.centroids;
    let of_sixteen = &centroids.of_rows.of_sixteen;
    // SAFETY: passed on to the caller.
    let doubtful = unsafe { rows.doubts.less::<L>(&centroids.of_rows.middle) };
    let row_idxs = doubtful.row_idxs;
    // SAFETY: passed on to the caller.
    let found = unsafe {
        let best: Best<L, 1> = score(&[doubtful.columns], of_sixteen, &[]);
        best.of_rows(doubtful.columns, of_sixteen)
    };
    let mut labels = [0; LANES];
    for (lane, row_idx) in row_idxs.iter().enumerate() {
        labels[lane] = conclude(*row_idx, doubtful.rows.row(lane), found[lane], assignment);
    }
    if let Wanted::Changes(remembering) = &mut assignment.wanted {
        // SAFETY: passed on to the caller.
        unsafe {
            remembering.note_labels_of::<L>(row_idxs, doubtful.rows, &labels, &mut rows.pending);
        }
    }
    rows.doubts.clear();
}

/// The exact distances of a tile's rows to what is nearest and second; those whose bit is set are compared with all.
#[inline(always)]
fn measure_two(
    centroids: &PackedCentroids,
    rows: &TileRows,
    [labels, seconds]: &[[u16; LANES]; 2],
    uncertain: u32,
    out: &mut [NearestTwo],
) {
    let centroids = centroids.distinct();
    for (lane, two) in out.iter_mut().enumerate() {
        let row = &rows.row(lane)[..centroids.n_features()];
        if (uncertain >> lane) & 1 == 1 {
            *two = exact::nearest_two(row, centroids);
            continue;
        }
        // Field by field: put together first, and then copied as a whole, a row would wait for its own stores.
        let (label, second) = (labels[lane], seconds[lane]);
        two.label = label;
        two.d2 = exact::squared_distance(row, centroids.row(label.into()));
        two.second = None;
        two.second_d2 = u64::MAX;
        if centroids.n_clusters() > 1 {
            two.second = Some(second);
            two.second_d2 = exact::squared_distance(row, centroids.row(second.into()));
        }
    }
}
