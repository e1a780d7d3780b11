//! Finds the nearest centroid of each row in `f32`, and settles in integers the rows it cannot be sure of.
//!
//! Twin of `shaders/assign.wgsl`. The trick: among centroids, `|x - c|^2 / 2` differs from `|c|^2 / 2 - x.c` by a constant, so a score
//! takes one multiply-add a feature; with the best and the second best score the row is certain unless their gap is within the
//! proven error ([`PackedCentroids::certain_gap`]).

use super::centroids::{MAX_PANEL_WIDTH, PackedCentroids, Panel};
use super::lanes::Lanes;
use super::memory::Remembering;
use super::sums::{Rows, add_rows};
use crate::{Block, LANES, Partial};

/// Tiles that several assignments go over in turn are those that stay in the second-level cache meanwhile.
const SEGMENT_BYTES: usize = 256 << 10;
/// Tiles that are fetched ahead of those being scored, into the second-level cache; in the first they would push each other out.
const TILES_AHEAD: usize = 9;

/// One candidate's part in a sweep over a block.
pub(super) struct Assignment<'a> {
    pub(super) centroids: &'a PackedCentroids,
    pub(super) wanted: Wanted<'a>,
    /// Rows settled exactly.
    pub(super) n_rechecked: u64,
}

impl<'a> Assignment<'a> {
    pub(super) fn new(centroids: &'a PackedCentroids, wanted: Wanted<'a>) -> Self {
        Self {
            centroids,
            wanted,
            n_rechecked: 0,
        }
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
    /// What changed since the last pass, and nothing read that cannot have changed.
    Changes(Remembering<'a>),
}

/// Reads the block once, `TILES` tiles at a time, and serves every assignment from each read.
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
pub(super) unsafe fn sweep<L: Lanes, const TILES: usize>(
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
            unsafe { visit::<L, TILES>(block, &list, assignment, &mut rows) };
        }
    }
}

/// Labels the tiles of `list`.
#[inline(always)]
unsafe fn visit<L: Lanes, const TILES: usize>(
    block: &Block,
    list: &[usize],
    assignment: &mut Assignment<'_>,
    rows: &mut Rows,
) {
    let (groups, rest) = list.as_chunks::<TILES>();
    for (group_idx, group) in groups.iter().enumerate() {
        let ahead = groups.get(group_idx + TILES_AHEAD.div_ceil(TILES));
        // SAFETY: passed on to the caller.
        unsafe { label_group::<L, TILES>(block, group, ahead, assignment, rows) };
    }
    for tile_idx in rest {
        // SAFETY: passed on to the caller.
        unsafe { label_group::<L, 1>(block, &[*tile_idx], None, assignment, rows) };
    }
}

#[inline(always)]
unsafe fn label_group<L: Lanes, const TILES: usize>(
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
                    unsafe { L::prefetch(line) };
                }
            }
            &[]
        }
        None => &[],
    };
    let centroids = assignment.centroids;
    // SAFETY: passed on to the caller.
    let best = unsafe { score::<L, TILES>(&tiles, centroids, ahead) };
    for tile in 0..TILES {
        let tile_idx = group[tile];
        if let Wanted::NearBounds(bounds) = &mut assignment.wanted {
            // SAFETY: passed on to the caller.
            let scores = unsafe { best.scores(tile, tiles[tile]) };
            let error = centroids.distance_error(block.tile_norms()[tile_idx]);
            for (lane, bound) in bounds[tile_idx * LANES..]
                .iter_mut()
                .take(LANES)
                .enumerate()
            {
                *bound =
                    (scores.squares[lane] + 2.0 * scores.best[lane] + error.of_square).max(0.0);
            }
            continue;
        }
        let gap = centroids.certain_gap(block.tile_norms()[tile_idx]);
        // SAFETY: passed on to the caller.
        let (mut labels, uncertain) = unsafe { best.read(tile, gap) };
        if !centroids.are_all_distinct() {
            labels = labels.map(|label| centroids.index_of(label.into()));
        }
        let first_row = tile_idx * LANES;
        let n_rows = LANES.min(block.n_rows() - first_row);
        if uncertain != 0 {
            assignment.n_rechecked += settle(
                block,
                first_row..first_row + n_rows,
                uncertain,
                centroids,
                &mut labels,
            );
        }
        match &mut assignment.wanted {
            Wanted::NearBounds(_) => {}
            Wanted::Labels(all) => {
                all[first_row..][..n_rows].copy_from_slice(&labels[..n_rows]);
            }
            Wanted::Partial(partial, all) => {
                // SAFETY: passed on to the caller.
                unsafe { add_rows::<L>(tiles[tile], &labels[..n_rows], rows, partial) };
                if let Some(all) = all {
                    all[first_row..][..n_rows].copy_from_slice(&labels[..n_rows]);
                }
            }
            Wanted::Changes(remembering) => {
                labels[n_rows..].fill(0);
                if remembering.keeps_bounds() {
                    // SAFETY: passed on to the caller.
                    let scores = unsafe { best.scores(tile, tiles[tile]) };
                    let row_norm = block.tile_norms()[tile_idx];
                    remembering.note_bounds(tile_idx, n_rows, &labels, &scores, row_norm);
                }
                // SAFETY: passed on to the caller.
                unsafe {
                    remembering.note_labels::<L>(tile_idx, n_rows, tiles[tile], &labels, rows)
                };
            }
        }
    }
}

/// The exact labels of the rows whose bit is set; how many there are among `tile_rows`.
#[cold]
fn settle(
    block: &Block,
    tile_rows: std::ops::Range<usize>,
    uncertain: u32,
    centroids: &PackedCentroids,
    labels: &mut [u16; LANES],
) -> u64 {
    let mut n_settled = 0;
    let mut row = vec![0; block.n_features()];
    for (lane, row_idx) in tile_rows.enumerate() {
        if (uncertain >> lane) & 1 == 1 {
            block.read_row(row_idx, &mut row);
            labels[lane] = centroids.settle(&row);
            n_settled += 1;
        }
    }
    n_settled
}

/// Best and second best score of each row of a group, and the position of the best.
struct Best<L, const TILES: usize> {
    score: [L; TILES],
    second_score: [L; TILES],
    /// Positions as floats: 65,535 and less are exact, and one kind of register is enough.
    idx: [L; TILES],
}

/// What bounds on the rows of a tile follow from.
pub(super) struct Scores {
    pub(super) best: [f32; LANES],
    pub(super) second: [f32; LANES],
    /// `|x|^2`, rounded with each feature.
    pub(super) squares: [f32; LANES],
}

impl<L: Lanes, const TILES: usize> Best<L, TILES> {
    /// The positions of a tile's rows, and a bit for each row whose position is not certain.
    #[inline(always)]
    unsafe fn read(&self, tile: usize, gap: f32) -> ([u16; LANES], u32) {
        let mut idxs = [0f32; LANES];
        let mut uncertain = 0;
        // SAFETY: passed on to the caller.
        unsafe {
            self.idx[tile].store(&mut idxs);
            if self.second_score[tile].any_within(self.score[tile], gap) {
                let (mut scores, mut second_scores) = ([0f32; LANES], [0f32; LANES]);
                self.score[tile].store(&mut scores);
                self.second_score[tile].store(&mut second_scores);
                for lane in 0..LANES {
                    uncertain |= u32::from(second_scores[lane] - scores[lane] <= gap) << lane;
                }
            }
        }
        // Through i32, for which every instruction set has a conversion. A loop: closures are not compiled for the instruction set.
        let mut labels = [0; LANES];
        for (label, idx) in labels.iter_mut().zip(idxs) {
            *label = idx as i32 as u16;
        }
        (labels, uncertain)
    }

    /// The scores of a tile, and the squared norms of its rows.
    #[inline(always)]
    unsafe fn scores(&self, tile: usize, columns: &[[f32; LANES]]) -> Scores {
        let mut scores = Scores {
            best: [0.0; LANES],
            second: [0.0; LANES],
            squares: [0.0; LANES],
        };
        // SAFETY: passed on to the caller.
        unsafe {
            self.score[tile].store(&mut scores.best);
            self.second_score[tile].store(&mut scores.second);
            // Four sums side by side: one would wait for itself with each feature.
            let mut negated = [L::splat(0.0); 4];
            let (fours, rest) = columns.as_chunks::<4>();
            for four in fours {
                for (negated, column) in negated.iter_mut().zip(four) {
                    let x = L::load(column);
                    *negated = negated.minus_product(x, x);
                }
            }
            for column in rest {
                let x = L::load(column);
                negated[0] = negated[0].minus_product(x, x);
            }
            let minus_one = L::splat(-1.0);
            let [a, b, c, d] = negated;
            let sum = a
                .minus_product(b, minus_one)
                .minus_product(c.minus_product(d, minus_one), minus_one);
            L::splat(0.0)
                .minus_product(sum, L::splat(1.0))
                .store(&mut scores.squares);
        }
        scores
    }
}

/// `tiles` [TILES][n_features]; the lines `ahead` are fetched meanwhile.
#[inline(always)]
unsafe fn score<L: Lanes, const TILES: usize>(
    tiles: &[&[[f32; LANES]]; TILES],
    centroids: &PackedCentroids,
    ahead: &[[f32; LANES]],
) -> Best<L, TILES> {
    // SAFETY: passed on to the caller.
    unsafe {
        let mut best = Best {
            score: [L::splat(f32::INFINITY); TILES],
            second_score: [L::splat(f32::INFINITY); TILES],
            idx: [L::splat(0.0); TILES],
        };
        // Each panel fetches its share: all at once would fill the queue of the memory.
        let (ahead, _) = ahead.as_chunks::<TILES>();
        let share = ahead.len().div_ceil(centroids.panels.len());
        let mut shares = ahead.chunks(share.max(1));
        for panel in &centroids.panels {
            let ahead = shares.next().unwrap_or_default();
            match panel.bias.len() {
                1 => score_panel::<L, TILES, 1>(tiles, panel, ahead, &mut best),
                2 => score_panel::<L, TILES, 2>(tiles, panel, ahead, &mut best),
                3 => score_panel::<L, TILES, 3>(tiles, panel, ahead, &mut best),
                4 => score_panel::<L, TILES, 4>(tiles, panel, ahead, &mut best),
                5 => score_panel::<L, TILES, 5>(tiles, panel, ahead, &mut best),
                6 => score_panel::<L, TILES, 6>(tiles, panel, ahead, &mut best),
                7 => score_panel::<L, TILES, 7>(tiles, panel, ahead, &mut best),
                _ => score_panel::<L, TILES, MAX_PANEL_WIDTH>(tiles, panel, ahead, &mut best),
            }
        }
        best
    }
}

/// The scores of one panel stay in registers from the bias to the comparison.
#[inline(always)]
unsafe fn score_panel<L: Lanes, const TILES: usize, const WIDTH: usize>(
    tiles: &[&[[f32; LANES]]; TILES],
    panel: &Panel,
    ahead: &[[[f32; LANES]; TILES]],
    best: &mut Best<L, TILES>,
) {
    let n_features = tiles[0].len();
    let mut same_length = *tiles;
    for tile in &mut same_length {
        *tile = &tile[..n_features];
    }
    let tiles = same_length;
    let values = &panel.values.as_chunks::<WIDTH>().0[..n_features];
    let bias = &panel.bias[..WIDTH];
    // One line after the other: processors foresee a run of lines, and not three at a time.
    let ahead = &ahead[..ahead.len().min(n_features)];
    // SAFETY: passed on to the caller.
    unsafe {
        let mut scores = [[L::splat(0.0); TILES]; WIDTH];
        for (scores, &bias) in scores.iter_mut().zip(bias) {
            *scores = [L::splat(bias); TILES];
        }
        for (feature_idx, lines) in ahead.iter().enumerate() {
            for line in lines {
                L::prefetch(line);
            }
            subtract_products(&tiles, values, feature_idx, &mut scores);
        }
        for feature_idx in ahead.len()..n_features {
            subtract_products(&tiles, values, feature_idx, &mut scores);
        }
        for (member, scores) in scores.into_iter().enumerate() {
            let idx = L::splat((panel.first_idx + member) as f32);
            for (tile, score) in scores.into_iter().enumerate() {
                let least = best.score[tile];
                best.idx[tile] = score.if_less(least, idx, best.idx[tile]);
                best.second_score[tile] = best.second_score[tile].min(least.max(score));
                best.score[tile] = least.min(score);
            }
        }
    }
}

/// One feature's share in the scores of a panel.
#[inline(always)]
unsafe fn subtract_products<L: Lanes, const TILES: usize, const WIDTH: usize>(
    tiles: &[&[[f32; LANES]]; TILES],
    values: &[[f32; WIDTH]],
    feature_idx: usize,
    scores: &mut [[L; TILES]; WIDTH],
) {
    // SAFETY: passed on to the caller.
    unsafe {
        let mut x = [L::splat(0.0); TILES];
        for tile in 0..TILES {
            x[tile] = L::load(&tiles[tile][feature_idx]);
        }
        for member in 0..WIDTH {
            let c = L::splat(values[feature_idx][member]);
            for tile in 0..TILES {
                scores[member][tile] = scores[member][tile].minus_product(x[tile], c);
            }
        }
    }
}
