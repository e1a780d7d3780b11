//! Labels of the final model: one part a shard, and what the rows of each cluster add up to.

use std::sync::{Mutex, PoisonError};

use clientele_data::DataError;
use clientele_data::ingest::GridBlock;
use clientele_data::manifest::ShardId;
use clientele_data::read::{NO_VALUE, read_ids};
use clientele_data::transform::Transform;
use clientele_kmeans::Centroids;
use clientele_kmeans::exact::NearestTwo;
use clientele_protocol::{FinalPartial, MARGIN_BINS};
use rayon::prelude::*;

use crate::Worker;
use crate::assignments::{PartWriter, margin};
use crate::rows::Rows;
use crate::tallies::Tallies;

impl Worker {
    /// Labels the rows of `shards` and writes their parts.
    pub(crate) fn finish(
        &self,
        shards: &[ShardId],
        rows: &Rows,
        transform: &Transform,
        centroids: &Centroids,
    ) -> Result<FinalPartial, DataError> {
        let has_values = self.job().manifest.value().is_some();
        let zero =
            || FinalPartial::zero(centroids.n_clusters(), centroids.n_features(), has_values);
        // One partial a thread: histograms are large.
        let partials = Mutex::new(Vec::new());
        let lock = || partials.lock().unwrap_or_else(PoisonError::into_inner);
        shards.par_iter().try_for_each(|shard| {
            let partial = lock().pop();
            let mut partial = partial.unwrap_or_else(zero);
            self.finish_shard(*shard, rows, transform, centroids, &mut partial)?;
            lock().push(partial);
            Ok::<_, DataError>(())
        })?;
        let partials = partials.into_inner();
        let partials = partials.unwrap_or_else(PoisonError::into_inner).into_iter();
        let merged = partials.reduce(|mut a, b| {
            a.merge(&b);
            a
        });
        Ok(merged.unwrap_or_else(zero))
    }

    fn finish_shard(
        &self,
        shard: ShardId,
        held: &Rows,
        transform: &Transform,
        centroids: &Centroids,
        partial: &mut FinalPartial,
    ) -> Result<(), DataError> {
        let job = self.job();
        let ranges: Vec<(i32, i32)> = (0..transform.n_features())
            .map(|f| transform.grid_range(f))
            .collect();
        let mut tallies = Tallies::new(centroids.n_clusters(), &ranges);
        let mut part = PartWriter::new(
            job.assignments_dir.clone(),
            job.spill_dir.clone(),
            shard,
            transform.grid_step(),
        );
        let mut rows = Vec::new();
        read_ids(&job.manifest, shard, &mut |id, ids| {
            let in_store = held.store.get(id)?;
            // Passes may have left the rows in the order of their bounds; ids come in that of the file.
            let in_file_order;
            let grid = match in_store.block.order_id() {
                0 => &*in_store,
                _ => {
                    let mut copy = in_store.clone();
                    copy.block.restore_order();
                    in_file_order = copy;
                    &in_file_order
                }
            };
            self.resources
                .engine
                .cpu()
                .nearest_two(&grid.block, centroids, &mut rows);
            add_rows(partial, grid, &rows);
            tallies.add(
                &grid.block,
                rows.iter().map(|row| row.label),
                &mut partial.histograms,
            );
            let hashes = part.write(&ids, &rows, grid.source_rows.as_deref())?;
            partial.row_hashes.merge(&hashes);
            Ok::<(), DataError>(())
        })?;
        tallies.flush(&mut partial.histograms);
        part.finish()
    }
}

/// Adds the rows of one block to their clusters, all but the histograms.
fn add_rows(partial: &mut FinalPartial, grid: &GridBlock, rows: &[NearestTwo]) {
    let n_clusters = partial.sizes.len();
    for row in rows {
        let cluster_idx = usize::from(row.label);
        partial.sizes[cluster_idx] += 1;
        partial.inertia += u128::from(row.d2);
        if let Some(second) = row.second {
            partial.seconds[cluster_idx * n_clusters + usize::from(second)] += 1;
        }
        if let Some(margin) = margin(row) {
            let bin = ((margin * MARGIN_BINS as f64) as usize).min(MARGIN_BINS - 1);
            partial.margins[cluster_idx * MARGIN_BINS + bin] += 1;
        }
    }
    let values = grid.values.iter().flatten().zip(rows);
    for (value, row) in values.filter(|(value, _)| **value != NO_VALUE) {
        let cluster_idx = usize::from(row.label);
        partial.values[cluster_idx] += i128::from(*value);
        partial.valued[cluster_idx] += 1;
    }
}
