//! Finds the nearest centroid of each row in `f32`, and settles in integers the rows it cannot be sure of.
//!
//! Twin of `shaders/assign.wgsl`. The trick: among centroids, `|x - c|^2 / 2` differs from `|c|^2 / 2 - x.c` by a constant, so a score
//! takes one multiply-add a feature; with the best and the second best score the row is certain unless their gap is within the
//! proven error ([`PackedCentroids::certain_gap`]).

use super::accumulate::{accumulate, to_rows};
use super::centroids::{MAX_PANEL_WIDTH, PackedCentroids, Panel};
use super::lanes::Lanes;
use crate::{Block, Centroids, LANES, Partial};

/// One candidate's part in a sweep over a block.
pub(super) struct Assignment<'a> {
    centroids: PackedCentroids,
    /// [n_rows] written, if wanted.
    labels: Option<&'a mut [u16]>,
    /// Counts and sums, added to, if wanted.
    partial: Option<&'a mut Partial>,
    /// Rows settled exactly.
    pub(super) n_rechecked: u64,
}

impl<'a> Assignment<'a> {
    pub(super) fn new(
        block: &Block,
        centroids: &Centroids,
        panel_width: usize,
        labels: Option<&'a mut [u16]>,
        partial: Option<&'a mut Partial>,
    ) -> Self {
        assert_eq!(
            block.n_features(),
            centroids.n_features(),
            "features of rows and centroids"
        );
        Self {
            centroids: PackedCentroids::new(centroids, panel_width),
            labels,
            partial,
            n_rechecked: 0,
        }
    }
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
    let mut scratch = Scratch {
        rows: vec![0; TILES * LANES * block.n_features()],
        labels: vec![0; TILES * LANES],
        row: vec![0; block.n_features()],
    };
    let mut tile_idx = 0;
    while tile_idx < n_tiles {
        // SAFETY: passed on to the caller.
        unsafe {
            if tile_idx + TILES <= n_tiles {
                group::<L, TILES>(block, tile_idx, assignments, &mut scratch);
                tile_idx += TILES;
            } else {
                group::<L, 1>(block, tile_idx, assignments, &mut scratch);
                tile_idx += 1;
            }
        }
    }
}

struct Scratch {
    /// [TILES x LANES x n_features] the group's rows.
    rows: Vec<i32>,
    /// [TILES x LANES] their labels.
    labels: Vec<u16>,
    /// [n_features] a row to settle.
    row: Vec<i32>,
}

#[inline(always)]
unsafe fn group<L: Lanes, const TILES: usize>(
    block: &Block,
    tile_idx: usize,
    assignments: &mut [Assignment<'_>],
    scratch: &mut Scratch,
) {
    let n_features = block.n_features();
    let tile_len = LANES * n_features;
    let tiles = &block.tiles()[tile_idx * tile_len..][..TILES * tile_len];
    let first_row = tile_idx * LANES;
    let n_rows = (TILES * LANES).min(block.n_rows() - first_row);
    // Three groups ahead is what the caches hold and the memory needs; only the first candidate's read comes from memory.
    let ahead = block.tiles().get((tile_idx + 3 * TILES) * tile_len..);
    let mut ahead = ahead.map_or(&[][..], |ahead| {
        ahead.as_chunks::<LANES>().0.as_chunks::<TILES>().0
    });
    if assignments
        .iter()
        .any(|assignment| assignment.partial.is_some())
    {
        // SAFETY: passed on to the caller.
        unsafe { to_rows::<L>(tiles, n_features, &mut scratch.rows) };
    }
    for assignment in assignments {
        // SAFETY: passed on to the caller.
        let best = unsafe { score::<L, TILES>(tiles, n_features, &assignment.centroids, ahead) };
        ahead = &[];
        let labels = &mut scratch.labels[..n_rows];
        for tile in 0..TILES {
            let gap = assignment
                .centroids
                .certain_gap(block.tile_norms()[tile_idx + tile]);
            // SAFETY: passed on to the caller.
            let (idxs, uncertain) = unsafe { best.read(tile, gap) };
            for (label, idx) in labels[tile * LANES..].iter_mut().zip(idxs) {
                *label = assignment.centroids.index_of(idx as usize);
            }
            for (lane, label) in labels.iter_mut().skip(tile * LANES).take(LANES).enumerate() {
                if (uncertain >> lane) & 1 == 1 {
                    block.read_row(first_row + tile * LANES + lane, &mut scratch.row);
                    *label = assignment.centroids.settle(&scratch.row);
                    assignment.n_rechecked += 1;
                }
            }
        }
        if let Some(partial) = assignment.partial.as_deref_mut() {
            accumulate(&scratch.rows, labels, n_features, partial);
        }
        if let Some(all_labels) = assignment.labels.as_deref_mut() {
            all_labels[first_row..][..n_rows].copy_from_slice(labels);
        }
    }
}

/// Best and second best score of each row of a group, and the position of the best.
struct Best<L, const TILES: usize> {
    score: [L; TILES],
    second_score: [L; TILES],
    /// Positions as floats: 65,535 and less are exact, and one kind of register is enough.
    idx: [L; TILES],
}

impl<L: Lanes, const TILES: usize> Best<L, TILES> {
    /// The positions of a tile's rows, and a bit for each row whose position is not certain.
    #[inline(always)]
    unsafe fn read(&self, tile: usize, gap: f32) -> ([u32; LANES], u32) {
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
        // Through i32, for which every instruction set has a conversion.
        (idxs.map(|idx| idx as i32 as u32), uncertain)
    }
}

/// `tiles` [TILES x n_features x LANES]; the first lines of `ahead` are fetched meanwhile.
#[inline(always)]
unsafe fn score<L: Lanes, const TILES: usize>(
    tiles: &[f32],
    n_features: usize,
    centroids: &PackedCentroids,
    mut ahead: &[[[f32; LANES]; TILES]],
) -> Best<L, TILES> {
    let (columns, _) = tiles.as_chunks::<LANES>();
    let tiles: [&[[f32; LANES]]; TILES] =
        std::array::from_fn(|tile| &columns[tile * n_features..][..n_features]);
    // SAFETY: passed on to the caller.
    unsafe {
        let mut best = Best {
            score: [L::splat(f32::INFINITY); TILES],
            second_score: [L::splat(f32::INFINITY); TILES],
            idx: [L::splat(0.0); TILES],
        };
        for panel in &centroids.panels {
            match panel.bias.len() {
                1 => score_panel::<L, TILES, 1>(&tiles, panel, ahead, &mut best),
                2 => score_panel::<L, TILES, 2>(&tiles, panel, ahead, &mut best),
                3 => score_panel::<L, TILES, 3>(&tiles, panel, ahead, &mut best),
                4 => score_panel::<L, TILES, 4>(&tiles, panel, ahead, &mut best),
                5 => score_panel::<L, TILES, 5>(&tiles, panel, ahead, &mut best),
                6 => score_panel::<L, TILES, 6>(&tiles, panel, ahead, &mut best),
                7 => score_panel::<L, TILES, 7>(&tiles, panel, ahead, &mut best),
                _ => score_panel::<L, TILES, MAX_PANEL_WIDTH>(&tiles, panel, ahead, &mut best),
            }
            ahead = &[];
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
    let values = &panel.values.as_chunks::<WIDTH>().0[..n_features];
    let bias = &panel.bias[..WIDTH];
    // SAFETY: passed on to the caller.
    unsafe {
        let mut scores = [[L::splat(0.0); TILES]; WIDTH];
        for (scores, &bias) in scores.iter_mut().zip(bias) {
            *scores = [L::splat(bias); TILES];
        }
        for feature_idx in 0..n_features {
            if let Some(lines) = ahead.get(feature_idx) {
                for line in lines {
                    L::prefetch(line);
                }
            }
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
