//! How a pass is cut so that every buffer fits a binding and no dispatch runs long enough for a driver's watchdog.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use super::assign::{CLUSTER_TILE, Job, QUAD_ROWS};
use crate::candidate::DeviceCandidate;

/// Rows of a workgroup: as many as cannot overflow 32-bit sums of grid values.
const GROUP_ROWS: usize = 512;

const GROUP_INVOCATIONS: usize = GROUP_ROWS / QUAD_ROWS;

/// `i32` cells in which a workgroup sums, and clusters it counts; as in the shader.
const SLAB_CELLS: usize = 2_048;
const MAX_SLAB_CLUSTERS: usize = 256;

/// Multiply-adds of a dispatch, about: a tenth of a second of a slow integrated GPU, whose watchdog barks after two.
const SLICE_WORK: usize = 1 << 33;

/// Workgroups of a dispatch, at least: fewer leave a GPU idle and take no less time.
const MIN_SLICE_GROUPS: usize = 16;

/// Candidates of a dispatch, at most: one coordinate of the grid, and 16 bits of an entry in the list of uncertain rows.
const MAX_BATCH: usize = 65_535;

/// Candidates that fit the buffers together, in order. A candidate that does not even fit alone stands alone.
pub(super) fn batches(job: &Job, binding_bytes: u64) -> Vec<Range<usize>> {
    let mut batches = Vec::new();
    let mut begin = 0;
    let mut sizes = BatchSizes::default();
    for (idx, candidate) in job.candidates.iter().enumerate() {
        let mut grown = sizes;
        grown.add(candidate, job);
        if idx > begin && (grown.largest_bytes() > binding_bytes || idx - begin >= MAX_BATCH) {
            batches.push(begin..idx);
            begin = idx;
            grown = BatchSizes::default();
            grown.add(candidate, job);
        }
        sizes = grown;
    }
    if begin < job.candidates.len() {
        batches.push(begin..job.candidates.len());
    }
    batches
}

/// Rows that the device holds at a time: whole groups, at least one.
pub(super) fn pieces(n_rows: usize, n_features: usize, binding_bytes: u64) -> Vec<Range<usize>> {
    let row_bytes = n_features * size_of::<f32>();
    let n_fitting = usize::try_from(binding_bytes).unwrap_or(usize::MAX) / row_bytes;
    let n_piece_rows = (n_fitting / GROUP_ROWS).max(1) * GROUP_ROWS;
    cut(n_rows, n_piece_rows)
}

/// Groups of rows of one dispatch, for a batch of `n_clusters` in all.
pub(super) fn slices(n_rows: usize, n_features: usize, n_clusters: usize) -> Vec<Range<usize>> {
    let group_work = GROUP_ROWS * n_features * n_clusters;
    let n_slice_groups = (SLICE_WORK / group_work).max(MIN_SLICE_GROUPS);
    cut(n_rows.div_ceil(GROUP_ROWS), n_slice_groups)
}

fn cut(total: usize, step: usize) -> Vec<Range<usize>> {
    (0..total)
        .step_by(step)
        .map(|begin| begin..(begin + step).min(total))
        .collect()
}

/// What a batch of candidates needs, in units of each buffer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct BatchSizes {
    pub n_candidates: usize,
    pub n_clusters: usize,
    /// Lines of 8 `f32` in the centroids.
    pub n_lines: usize,
    /// 64-bit sums.
    pub n_cells: usize,
    /// Entries the list of uncertain rows may get.
    pub n_entries: usize,
}

impl BatchSizes {
    /// Makes room for one more and says where it goes.
    pub fn add(&mut self, candidate: &DeviceCandidate, job: &Job) -> CandidateRow {
        let row = CandidateRow {
            n_clusters: to_u32(candidate.n_clusters),
            first_line: to_u32(self.n_lines),
            first_cell: to_u32(self.n_cells),
            first_count: to_u32(self.n_clusters),
            window: to_u32(window(candidate.n_clusters, job.n_features)),
            bound_slope: candidate.bound_slope,
            bound_base: candidate.bound_base,
            padding: 0,
        };
        self.n_candidates += 1;
        self.n_clusters += candidate.n_clusters;
        self.n_lines += candidate.lines.len() / CLUSTER_TILE;
        self.n_cells += candidate.n_clusters * job.n_features;
        self.n_entries += job.n_rows;
        row
    }

    /// Bytes of the largest buffer.
    fn largest_bytes(&self) -> u64 {
        let words = [
            self.n_lines * CLUSTER_TILE,
            self.n_cells * 2,
            self.n_entries + 1,
            self.n_candidates * 8,
        ];
        words.into_iter().max().unwrap_or(0) as u64 * 4
    }
}

/// A candidate in the shader's table.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct CandidateRow {
    n_clusters: u32,
    first_line: u32,
    first_cell: u32,
    first_count: u32,
    window: u32,
    bound_slope: f32,
    bound_base: f32,
    padding: u32,
}

/// How often an invocation goes round the shader's loops, all of them together, at most.
pub(crate) fn loop_rounds(n_clusters: usize, n_features: usize) -> usize {
    let assigning = n_clusters.div_ceil(CLUSTER_TILE) * (n_features + 1);
    let summing = match window(n_clusters, n_features) {
        0 => QUAD_ROWS * (n_features + 1),
        width => n_features + n_features.div_ceil(width) * (SLAB_CELLS / GROUP_INVOCATIONS + 2),
    };
    let clearing_and_counting = 100;
    assigning + summing + clearing_and_counting
}

/// Features that the slab holds at a time, 0 for so many clusters that a group's rows seldom share a cell.
fn window(n_clusters: usize, n_features: usize) -> usize {
    if n_clusters > MAX_SLAB_CLUSTERS {
        0
    } else {
        n_features.min(SLAB_CELLS / n_clusters)
    }
}

/// Sizes on the device: a block and the buffers of a batch stay far below 2^32 of anything.
pub(super) fn to_u32(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn job(n_rows: usize, n_features: usize, n_clusters: &[usize]) -> Job {
        let candidate = |&n_clusters: &usize| {
            Arc::new(DeviceCandidate {
                n_clusters,
                lines: vec![0.0; n_clusters.div_ceil(8) * 8 * (n_features + 1)],
                bound_slope: 0.0,
                bound_base: 0.0,
            })
        };
        Job {
            n_rows,
            n_features,
            tiles: Vec::new(),
            tile_norms: Vec::new(),
            candidates: n_clusters.iter().map(candidate).collect(),
            wants_labels: false,
        }
    }

    /// Begin and end of each, for an assertion to show.
    fn ends(ranges: Vec<Range<usize>>) -> Vec<(usize, usize)> {
        ranges.into_iter().map(|r| (r.start, r.end)).collect()
    }

    #[test]
    fn every_candidate_is_in_one_batch_that_fits() {
        // The list of uncertain rows takes 4 x 1,000 bytes a candidate and 4 for its length: two fit 8,004 bytes.
        let job = job(1_000, 2, &[3; 5]);
        assert_eq!(ends(batches(&job, 8_004)), [(0, 2), (2, 4), (4, 5)]);
        assert_eq!(batches(&job, 8_003).len(), 5);
        assert_eq!(ends(batches(&job, 1 << 27)), [(0, 5)]);
        assert_eq!(batches(&job, 0).len(), 5);
        assert!(batches(&self::job(1_000, 2, &[]), 0).is_empty());
    }

    #[test]
    fn the_largest_model_fits_the_portable_binding() {
        let mut sizes = BatchSizes::default();
        let job = job(65_536, 4_096, &[4_096]);
        sizes.add(&job.candidates[0], &job);
        assert!(sizes.largest_bytes() <= 128 << 20);
    }

    #[test]
    fn pieces_and_slices_cover_all_rows_in_whole_groups() {
        assert_eq!(ends(pieces(65_536, 512, 128 << 20)), [(0, 65_536)]);
        let cut = ends(pieces(65_536, 513, 128 << 20));
        assert_eq!(cut, [(0, 65_024), (65_024, 65_536)]);
        assert_eq!(ends(pieces(700, 4_096, 1)), [(0, 512), (512, 700)]);

        assert_eq!(ends(slices(65_536, 32, 140)), [(0, 128)]);
        assert_eq!(
            ends(slices(65_536, 4_096, 256)),
            [
                (0, 16),
                (16, 32),
                (32, 48),
                (48, 64),
                (64, 80),
                (80, 96),
                (96, 112),
                (112, 128)
            ]
        );
        assert_eq!(ends(slices(513, 1, 1)), [(0, 2)]);
    }

    #[test]
    fn a_window_of_all_clusters_fits_the_slab() {
        for n_clusters in 1..=MAX_SLAB_CLUSTERS {
            for n_features in [1, 7, 64, 4_096] {
                let window = window(n_clusters, n_features);
                assert!((1..=n_features).contains(&window) && window * n_clusters <= SLAB_CELLS);
            }
        }
        assert_eq!(window(MAX_SLAB_CLUSTERS + 1, 4), 0);
    }

    #[test]
    fn loop_rounds_are_not_underestimated() {
        // llvmpipe, which stops after 65,535, was seen to manage 104 clusters of 4,096 features and not 112.
        assert!(loop_rounds(104, 4_096) < 65_535);
        assert!(loop_rounds(112, 4_096) > 65_535);
        assert!(loop_rounds(512, 1_024) > 65_535);
        assert!(loop_rounds(4_096, 8) < 65_535);
    }
}
