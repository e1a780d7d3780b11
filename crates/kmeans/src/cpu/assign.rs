//! Finds the nearest centroid of each row in `f32`, and settles in integers the rows it cannot be sure of.
//!
//! Twin of `shaders/assign.wgsl`. The trick: among centroids, `|x - c|^2 / 2` differs from `|c|^2 / 2 - x.c` by a constant, so a score
//! takes one multiply-add a feature; with the best and the second best score the row is certain unless their gap is within the
//! proven error ([`PackedCentroids::certain_gap`]).

use super::centroids::PackedCentroids;
use super::lanes::Lanes;
use super::memory::Remembering;
use super::score::{Best, BestTwo, Found, score};
use super::short_scores::{BestShort, ShortCentroids, round_rows, score_short};
use super::shorts::Shorts;
use super::sums::Rows;
use crate::exact::{self, NearestTwo};
use crate::{Block, LANES, Partial};

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
    /// In `f32`, since 16-bit products left them in doubt.
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

    /// The centroids as pairs, unless too many rows of this block have been left in doubt.
    #[inline(always)]
    fn shorts_that_pay(&self) -> Option<&'a ShortCentroids> {
        let too_many = self.n_scored / self.most_in_doubt + 64;
        let shorts = self.centroids.shorts.as_ref();
        shorts.filter(|_| self.n_scored_again <= too_many)
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
    let tile_bytes = LANES * block.n_features() * size_of::<f32>();
    let segment = match assignments {
        [_] => n_tiles,
        _ => (SEGMENT_BYTES / tile_bytes).max(TILES),
    };
    let mut rows = Rows::default();
    let mut list = Vec::with_capacity(n_tiles);
    for first in (0..n_tiles).step_by(segment.max(1)) {
        for assignment in &mut *assignments {
            let tiles = first..n_tiles.min(first + segment);
            list.clear();
            match &mut assignment.wanted {
                Wanted::Changes(remembering) => remembering.list_unsafe(tiles, &mut list),
                _ => list.extend(tiles),
            }
            // SAFETY: passed on to the caller.
            unsafe { visit::<S, TILES>(block, &list, assignment, &mut rows) };
        }
    }
}

/// Labels the tiles of `list`.
#[inline(always)]
unsafe fn visit<S: Shorts, const TILES: usize>(
    block: &Block,
    list: &[usize],
    assignment: &mut Assignment<'_>,
    rows: &mut Rows,
) {
    let (groups, rest) = list.as_chunks::<TILES>();
    for (group_idx, group) in groups.iter().enumerate() {
        let ahead = groups.get(group_idx + TILES_AHEAD.div_ceil(TILES));
        // SAFETY: passed on to the caller.
        unsafe { label_group::<S, TILES>(block, group, ahead, assignment, rows) };
    }
    for tile_idx in rest {
        // SAFETY: passed on to the caller.
        unsafe { label_group::<S, 1>(block, &[*tile_idx], None, assignment, rows) };
    }
    match &mut assignment.wanted {
        Wanted::Partial(partial, _) => rows.pending.flush(partial),
        Wanted::Changes(remembering) => remembering.flush(&mut rows.pending),
        Wanted::Labels(_) | Wanted::NearBounds(_) | Wanted::Two(_) => {}
    }
}

#[inline(always)]
unsafe fn label_group<S: Shorts, const TILES: usize>(
    block: &Block,
    group: &[usize; TILES],
    ahead: Option<&[usize; TILES]>,
    assignment: &mut Assignment<'_>,
    rows: &mut Rows,
) {
    let mut tiles = [&[][..]; TILES];
    for (tile, tile_idx) in tiles.iter_mut().zip(group) {
        *tile = block.tile(*tile_idx);
    }
    // One tile after the other: processors foresee a run of lines, and not three at a time.
    // A run of tiles is fetched while this group is scored; scattered ones at once, since nothing else foresees them.
    let ahead = match ahead {
        Some(ahead) if ahead[TILES - 1] - ahead[0] == TILES - 1 => {
            block.columns(ahead[0]..ahead[0] + TILES)
        }
        Some(ahead) => {
            for tile_idx in ahead {
                for line in block.tile(*tile_idx) {
                    // SAFETY: passed on to the caller.
                    unsafe { S::Floats::prefetch(line) };
                }
            }
            &[]
        }
        None => &[],
    };
    let centroids = assignment.centroids;
    if let Wanted::Two(all) = &mut assignment.wanted {
        // SAFETY: passed on to the caller.
        let best: BestTwo<S::Floats, TILES> = unsafe { score(&tiles, centroids, ahead) };
        for (tile, &tile_idx) in group.iter().enumerate() {
            let gap = centroids.certain_gap(block.tile_norms()[tile_idx]);
            let first_row = tile_idx * LANES;
            let out = &mut all[first_row..block.n_rows().min(first_row + LANES)];
            // SAFETY: passed on to the caller.
            unsafe {
                let (labels, uncertain) = best.read(tile, gap);
                rows.read::<S::Floats>(tiles[tile]);
                measure_two(centroids, rows, &labels, uncertain, out);
            }
        }
        return;
    }
    if S::PAY
        && let Some(shorts) = assignment.shorts_that_pay()
    {
        let scales = group.map(|tile_idx| shorts.scale(block.tile_norms()[tile_idx]));
        // SAFETY: passed on to the caller.
        let best: BestShort<S, TILES> = unsafe {
            round_rows::<S, TILES>(&tiles, &scales, &mut rows.rounded);
            score_short(&rows.rounded, &scales, shorts, ahead)
        };
        for tile in 0..TILES {
            let found = best.of_tile(tile, shorts, scales[tile]);
            // SAFETY: passed on to the caller.
            unsafe { take_tile(block, group[tile], tiles[tile], &found, assignment, rows) };
        }
        return;
    }
    // SAFETY: passed on to the caller.
    let best: Best<S::Floats, TILES> = unsafe { score(&tiles, centroids, ahead) };
    for tile in 0..TILES {
        // SAFETY: passed on to the caller.
        unsafe {
            let found = best.of_tile(tile);
            take_tile(block, group[tile], tiles[tile], &found, assignment, rows);
        }
    }
}

/// Makes of the scores of a tile what is wanted.
#[inline(always)]
unsafe fn take_tile<F: Found>(
    block: &Block,
    tile_idx: usize,
    columns: &[[f32; LANES]],
    found: &F,
    assignment: &mut Assignment<'_>,
    rows: &mut Rows,
) {
    let centroids = assignment.centroids;
    let row_norm = block.tile_norms()[tile_idx];
    let first_row = tile_idx * LANES;
    let n_rows = LANES.min(block.n_rows() - first_row);
    if let Wanted::NearBounds(bounds) = &mut assignment.wanted {
        // SAFETY: passed on to the caller.
        let (scores, error) = unsafe { found.scores(columns, centroids, row_norm) };
        for (lane, bound) in bounds[first_row..][..n_rows].iter_mut().enumerate() {
            *bound = (scores.squares[lane] + 2.0 * scores.best[lane] + error.of_square).max(0.0);
        }
        return;
    }
    // SAFETY: passed on to the caller.
    let (mut labels, uncertain) = unsafe { found.labels(columns, centroids, row_norm) };
    assignment.n_scored += LANES as u64;
    if uncertain.scored_again != 0 {
        assignment.n_scored_again += u64::from(uncertain.scored_again.count_ones());
    }
    if !centroids.are_all_distinct() {
        labels = labels.map(|label| centroids.index_of(label.into()));
    }
    if uncertain.still != 0 {
        // SAFETY: passed on to the caller.
        assignment.n_rechecked += unsafe {
            settle::<F::Floats>(
                columns,
                n_rows,
                uncertain.still,
                centroids,
                rows,
                &mut labels,
            )
        };
    }
    match &mut assignment.wanted {
        Wanted::NearBounds(_) | Wanted::Two(_) => {}
        Wanted::Labels(all) => {
            all[first_row..][..n_rows].copy_from_slice(&labels[..n_rows]);
        }
        Wanted::Partial(partial, all) => {
            // SAFETY: passed on to the caller.
            unsafe {
                let pending = &mut rows.pending;
                pending.add_rows::<F::Floats>(columns, n_rows, &labels, partial);
            }
            if let Some(all) = all {
                all[first_row..][..n_rows].copy_from_slice(&labels[..n_rows]);
            }
        }
        Wanted::Changes(remembering) => {
            labels[n_rows..].fill(0);
            if remembering.keeps_bounds() {
                // SAFETY: passed on to the caller.
                let (scores, error) = unsafe { found.scores(columns, centroids, row_norm) };
                remembering.note_bounds(tile_idx, n_rows, &labels, &scores, error);
            }
            // SAFETY: passed on to the caller.
            unsafe {
                let pending = &mut rows.pending;
                remembering.note_labels::<F::Floats>(tile_idx, n_rows, columns, &labels, pending)
            };
        }
    }
}

/// The exact labels of the rows of a tile whose bit is set; how many there are.
///
/// Not kept out of line: compiled with the vectors of the kernel it takes a quarter of the time.
#[inline(always)]
unsafe fn settle<L: Lanes>(
    columns: &[[f32; LANES]],
    n_rows: usize,
    uncertain: u32,
    centroids: &PackedCentroids,
    rows: &mut Rows,
    labels: &mut [u16; LANES],
) -> u64 {
    // SAFETY: passed on to the caller.
    unsafe { rows.read::<L>(columns) };
    let mut n_settled = 0;
    for (lane, row) in rows.rows(columns.len()).take(n_rows).enumerate() {
        if (uncertain >> lane) & 1 == 1 {
            labels[lane] = centroids.settle(row);
            n_settled += 1;
        }
    }
    n_settled
}

/// The exact distances of a tile's rows to what is nearest and second; those whose bit is set are compared with all.
#[inline(always)]
fn measure_two(
    centroids: &PackedCentroids,
    rows: &Rows,
    [labels, seconds]: &[[u16; LANES]; 2],
    uncertain: u32,
    out: &mut [NearestTwo],
) {
    let centroids = centroids.distinct();
    for (lane, (two, row)) in out
        .iter_mut()
        .zip(rows.rows(centroids.n_features()))
        .enumerate()
    {
        *two = if (uncertain >> lane) & 1 == 1 {
            exact::nearest_two(row, centroids)
        } else {
            let (label, second) = (labels[lane], seconds[lane]);
            let has_second = centroids.n_clusters() > 1;
            NearestTwo {
                label,
                d2: exact::squared_distance(row, centroids.row(label.into())),
                second: has_second.then_some(second),
                second_d2: match has_second {
                    true => exact::squared_distance(row, centroids.row(second.into())),
                    false => u64::MAX,
                },
            }
        };
    }
}
