//! How a pass is cut so that every buffer fits a binding and no dispatch runs long enough for a driver's watchdog.

use std::ops::Range;
use std::sync::Arc;

use bytemuck::{Pod, Zeroable};

use crate::candidate::DeviceCandidate;
use crate::shaders::{AssignShape, FEATURE_CHUNK};

/// Cells in which a workgroup sums, and clusters it can sum there; as in the shader.
pub(crate) const SLAB_CELLS: usize = 2_048;
pub(crate) const MAX_SLAB_CLUSTERS: usize = 256;

/// Rows that run in step on most hardware: so many places for the sums of one feature, and they seldom queue.
const SUBGROUP_ROWS: usize = 32;

/// Multiply-adds of a dispatch, about: a tenth of a second of a slow integrated GPU, whose watchdog barks after two.
const SLICE_WORK: usize = 1 << 33;

/// Workgroups of a dispatch: fewer than the first leave a GPU idle and take no less time; more than the second are not allowed.
const MIN_SLICE_GROUPS: usize = 16;
const MAX_SLICE_GROUPS: usize = 65_535;

/// Workgroups that keep a large GPU busy to the end. Where there are fewer groups of rows, candidates are spread as well.
const BUSY_WORKGROUPS: usize = 2_048;

/// Candidates of a batch, at most.
const MAX_BATCH: usize = 4_096;

/// Groups of rows between two looks at the list of uncertain ones, at most.
const MAX_GROUPS: usize = 65_536;

/// Bytes of the list of uncertain rows, if the device has them.
const LIST_BYTES: u64 = 32 << 20;

/// Words in front of the rejections.
pub(crate) const HEADER_WORDS: usize = 8;

/// Mesa's llvmpipe leaves every loop once an invocation has gone round this often in all, and tells nobody. Hardware has no such
/// limit, and the self-test of hardware goes round more often.
pub(crate) const SOFTWARE_LOOP_ROUNDS: usize = 65_535;

/// A candidate in the shader's table.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct CandidateRow {
    n_clusters: u32,
    n_tiles: u32,
    has_half_tile: u32,
    first_vector: u32,
    first_cell: u32,
    window: u32,
    copy_stride: u32,
    cluster_stride: u32,
    copy_mask: u32,
    bound_slope: f32,
    bound_base: f32,
    padding: u32,
}

/// Up to [`AssignShape::group_rows`] rows of a block, as in the shader.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Group {
    pub first_vector: u32,
    pub first_norm: u32,
    pub n_rows: u32,
    pub first_row: u32,
}

/// The groups of `n_rows` rows that begin at tile `first_tile` of a buffer and are the block's from `first_row` on.
pub(crate) fn groups(
    shape: &AssignShape,
    first_tile: usize,
    first_row: usize,
    n_rows: usize,
) -> impl Iterator<Item = Group> {
    let shape = *shape;
    let tile_rows = clientele_kmeans::LANES;
    let tile_vectors = tile_rows / shape.lanes() * shape.n_features;
    (0..n_rows).step_by(shape.group_rows()).map(move |begin| {
        let tile = first_tile + begin / tile_rows;
        Group {
            first_vector: to_u32(tile * tile_vectors),
            first_norm: to_u32(tile),
            n_rows: to_u32(shape.group_rows().min(n_rows - begin)),
            first_row: to_u32(first_row + begin),
        }
    })
}

/// Candidates that share buffers, and what these hold.
#[derive(Debug)]
pub(crate) struct BatchPlan {
    /// Among all candidates of the pass.
    pub candidates: Range<usize>,
    pub table: Vec<CandidateRow>,
    pub n_centroid_values: usize,
    /// 64-bit integers: sums and counts.
    pub n_cells: usize,
    pub n_clusters: usize,
    /// Words of rejections a group has.
    pub rejection_words: usize,
    /// Groups there is room for between two drains.
    pub n_groups: usize,
    /// Uncertain rows there is room for between two drains.
    pub n_entries: usize,
    /// Candidates of one workgroup, at most.
    pub max_chunk: usize,
}

impl BatchPlan {
    /// Words in front of the cells.
    pub fn first_cell_word(&self) -> usize {
        HEADER_WORDS + self.rejection_words * self.n_groups
    }

    pub fn totals_bytes(&self) -> u64 {
        4 * (self.first_cell_word() + 2 * self.n_cells) as u64
    }

    pub fn list_bytes(&self, n_features: usize) -> u64 {
        (self.n_entries * entry_bytes(n_features)) as u64
    }

    /// Candidates of one workgroup when the dispatch has `n_groups` groups of rows.
    pub fn chunk(&self, n_groups: usize, n_candidates: usize) -> usize {
        let n_chunks = BUSY_WORKGROUPS.div_ceil(n_groups.max(1)).min(n_candidates);
        n_candidates
            .div_ceil(n_chunks.max(1))
            .min(self.max_chunk)
            .max(1)
    }
}

/// All candidates, in order, in batches whose buffers are not larger than `cut_bytes`. A candidate that does not fit stands alone.
/// `label_rows`: labels that are wanted of each candidate.
pub(crate) fn batches(
    candidates: &[Arc<DeviceCandidate>],
    n_features: usize,
    label_rows: usize,
    cut_bytes: u64,
    is_software: bool,
) -> Vec<BatchPlan> {
    let mut plans: Vec<BatchPlan> = Vec::new();
    let mut begin = 0;
    while begin < candidates.len() {
        let mut end = begin + 1;
        while end < candidates.len() && end - begin < MAX_BATCH {
            let grown = plan(
                candidates,
                begin..end + 1,
                n_features,
                cut_bytes,
                is_software,
            );
            let labels_bytes = 4 * (label_rows * (end + 1 - begin)) as u64;
            let centroids_bytes = 4 * grown.n_centroid_values as u64;
            if grown.totals_bytes().max(centroids_bytes).max(labels_bytes) > cut_bytes {
                break;
            }
            end += 1;
        }
        plans.push(plan(
            candidates,
            begin..end,
            n_features,
            cut_bytes,
            is_software,
        ));
        begin = end;
    }
    plans
}

fn plan(
    all: &[Arc<DeviceCandidate>],
    range: Range<usize>,
    n_features: usize,
    cut_bytes: u64,
    is_software: bool,
) -> BatchPlan {
    let rejection_words = range.len().div_ceil(32);
    let cut_words = usize::try_from(cut_bytes / 4).unwrap_or(usize::MAX);
    let n_groups = (cut_words / 4 / rejection_words).clamp(1, MAX_GROUPS);
    let list_bytes = usize::try_from(cut_bytes.min(LIST_BYTES)).unwrap_or(usize::MAX);
    let mut plan = BatchPlan {
        candidates: range.clone(),
        table: Vec::with_capacity(range.len()),
        n_centroid_values: 0,
        n_cells: 0,
        n_clusters: 0,
        rejection_words,
        n_groups,
        // A group that finds the list empty must find room, or it would be rejected for ever.
        n_entries: (list_bytes / entry_bytes(n_features)).max(512),
        max_chunk: usize::MAX,
    };
    for candidate in &all[range] {
        let slab = Slab::new(candidate.n_clusters, n_features);
        plan.table.push(CandidateRow {
            n_clusters: to_u32(candidate.n_clusters),
            n_tiles: to_u32(candidate.n_tiles),
            has_half_tile: u32::from(candidate.has_half_tile),
            first_vector: to_u32(plan.n_centroid_values / 4),
            first_cell: to_u32(plan.n_cells),
            window: to_u32(slab.window),
            copy_stride: to_u32(slab.stride),
            cluster_stride: to_u32(slab.stride * slab.copies),
            copy_mask: to_u32(slab.copies - 1),
            bound_slope: candidate.bound_slope,
            bound_base: candidate.bound_base,
            padding: 0,
        });
        plan.n_centroid_values += candidate.tiles.len();
        plan.n_cells += candidate.n_clusters * (n_features + 1);
        plan.n_clusters += candidate.n_clusters;
        if is_software {
            let rounds = loop_rounds(candidate.n_clusters, n_features);
            plan.max_chunk = plan.max_chunk.min(SOFTWARE_LOOP_ROUNDS / rounds).max(1);
        }
    }
    plan
}

/// How the sums of a workgroup lie in its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slab {
    /// Features at a time, 0 for so many clusters that a group's rows seldom share a cell.
    window: usize,
    /// Cells of a copy of one cluster's sums: odd where there is room, so that clusters lie in different banks.
    stride: usize,
    /// A power of two.
    copies: usize,
}

impl Slab {
    fn new(n_clusters: usize, n_features: usize) -> Self {
        if n_clusters > MAX_SLAB_CLUSTERS {
            return Self {
                window: 0,
                stride: 1,
                copies: 1,
            };
        }
        let fits = |width: usize| n_clusters * width <= SLAB_CELLS;
        let window = if fits(n_features) {
            n_features
        } else {
            SLAB_CELLS / n_clusters / FEATURE_CHUNK * FEATURE_CHUNK
        };
        let stride = if fits(window | 1) { window | 1 } else { window };
        let wanted = SUBGROUP_ROWS.div_ceil(n_clusters).next_power_of_two();
        let mut copies = wanted;
        while copies > 1 && n_clusters * stride * copies > SLAB_CELLS {
            copies /= 2;
        }
        Self {
            window,
            stride,
            copies,
        }
    }
}

/// Groups of one dispatch, for `n_clusters` in all.
pub(crate) fn slices(shape: &AssignShape, n_groups: usize, n_clusters: usize) -> Vec<Range<usize>> {
    let group_work = shape.group_rows() * shape.n_features * n_clusters.max(1);
    let step = (SLICE_WORK / group_work).clamp(MIN_SLICE_GROUPS, MAX_SLICE_GROUPS);
    (0..n_groups)
        .step_by(step)
        .map(|begin| begin..(begin + step).min(n_groups))
        .collect()
}

/// How often an invocation goes round the shader's loops for one candidate, all of them together, at most.
pub(crate) fn loop_rounds(n_clusters: usize, n_features: usize) -> usize {
    let shape = AssignShape {
        n_features,
        wants_labels: false,
    };
    let n_tiles = n_clusters.div_ceil(crate::shaders::CLUSTER_TILE);
    let n_chunks = if shape.is_in_registers() {
        0
    } else {
        n_features / FEATURE_CHUNK
    };
    let slab = Slab::new(n_clusters, n_features);
    let summing = if slab.window == 0 {
        shape.lanes() * n_features
    } else {
        let n_windows = n_features.div_ceil(slab.window);
        let n_flushed = n_clusters.div_ceil(shape.invocations() / shape.flush_lanes());
        let n_columns = slab.window.div_ceil(shape.flush_lanes());
        n_chunks + n_windows * (1 + n_flushed * (1 + n_columns * (1 + slab.copies)))
    };
    let listing = shape.lanes() * n_features;
    let clearing = 100;
    n_tiles * (1 + n_chunks) + summing + listing + clearing
}

/// Candidate, row, values.
pub(crate) fn entry_words(n_features: usize) -> usize {
    n_features + 2
}

fn entry_bytes(n_features: usize) -> usize {
    4 * entry_words(n_features)
}

/// Sizes on the device: a block and the buffers of a batch stay far below 2^32 of anything.
pub(crate) fn to_u32(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use clientele_kmeans::Centroids;

    use super::*;
    use crate::candidate::Packed;

    fn candidates(n_features: usize, n_clusters: &[usize]) -> Vec<Arc<DeviceCandidate>> {
        let of = |&k: &usize| {
            let values = (0..k * n_features).map(|v| (v / n_features) as i32);
            Packed::from(&Centroids::new(n_features, values.collect())).for_device
        };
        n_clusters.iter().map(of).collect()
    }

    #[test]
    fn every_candidate_is_in_one_batch_that_fits() {
        let all = candidates(20, &[30; 50]);
        for cut_bytes in [1, 4_096, 20_000, 100_000, 1 << 27] {
            let plans = batches(&all, 20, 0, cut_bytes, false);
            let covered: Vec<usize> = plans.iter().flat_map(|p| p.candidates.clone()).collect();
            assert!(covered.into_iter().eq(0..50), "{cut_bytes}");
            for plan in plans.iter().filter(|p| p.candidates.len() > 1) {
                assert!(
                    plan.totals_bytes() <= cut_bytes
                        && 4 * plan.n_centroid_values as u64 <= cut_bytes
                );
            }
            assert!(plans.iter().all(|p| p.n_groups > 0 && p.n_entries >= 512));
        }
        assert_eq!(batches(&all, 20, 0, 1 << 27, false).len(), 1);
        assert_eq!(batches(&all, 20, 1 << 20, 1 << 27, false).len(), 2);
        assert!(batches(&[], 20, 0, 1 << 27, false).is_empty());
    }

    #[test]
    fn groups_and_slices_cover_all_rows() {
        let shape = AssignShape {
            n_features: 40,
            wants_labels: false,
        };
        let cut: Vec<Group> = groups(&shape, 10, 160, 700).collect();
        let rows: Vec<_> = cut
            .iter()
            .map(|g| (g.first_row, g.n_rows, g.first_norm))
            .collect();
        assert_eq!(rows, [(160, 256, 10), (416, 256, 26), (672, 188, 42)]);
        assert_eq!(cut[1].first_vector, 26 * 16 * 40);
        let slices = slices(&shape, 100_000, 8);
        assert_eq!(slices.iter().map(Range::len).sum::<usize>(), 100_000);
        assert!(slices.iter().all(|s| s.len() <= MAX_SLICE_GROUPS));
    }

    #[test]
    fn a_window_of_all_clusters_fits_the_slab() {
        for n_clusters in 1..=MAX_SLAB_CLUSTERS {
            for n_features in [1, 7, 8, 63, 64, 65, 4_096] {
                let slab = Slab::new(n_clusters, n_features);
                assert!(
                    slab.window == n_features
                        || slab.window.is_multiple_of(FEATURE_CHUNK) && slab.window > 0
                );
                assert!(slab.stride >= slab.window && slab.copies.is_power_of_two());
                assert!(
                    slab.stride * slab.copies * n_clusters <= SLAB_CELLS,
                    "{n_clusters} {n_features}"
                );
            }
        }
        assert_eq!(Slab::new(MAX_SLAB_CLUSTERS + 1, 4).window, 0);
        assert_eq!(
            Slab::new(8, 32),
            Slab {
                window: 32,
                stride: 33,
                copies: 4
            }
        );
    }

    #[test]
    fn few_groups_are_spread_over_candidates() {
        let plan = &batches(&candidates(4, &[3; 40]), 4, 0, 1 << 27, false)[0];
        assert_eq!(plan.chunk(128, 40), 3);
        assert_eq!(plan.chunk(4_096, 40), 40);
        assert_eq!(plan.chunk(1, 40), 1);
        assert_eq!(plan.chunk(128, 1), 1);
    }
}
