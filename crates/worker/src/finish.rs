//! Labels of the final model: one part a shard, and what the rows of each cluster add up to.

use std::sync::{Mutex, MutexGuard, PoisonError};

use clientele_data::DataError;
use clientele_data::budget::Lease;
use clientele_data::ids::Ids;
use clientele_data::ingest::GridBlock;
use clientele_data::manifest::{BlockId, ShardId};
use clientele_data::read::{NO_VALUE, read_ids};
use clientele_data::transform::Transform;
use clientele_kmeans::Centroids;
use clientele_kmeans::exact::NearestTwo;
use clientele_protocol::{FinalPartial, Histograms, MARGIN_BINS};
use rayon::prelude::*;

use crate::Worker;
use crate::assignments::{Encoded, PartWriter, hash_rows, margin};
use crate::behind::Behind;
use crate::rows::Rows;
use crate::shards;
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
        let ranges: Vec<(i32, i32)> = (0..transform.n_features())
            .map(|f| transform.grid_range(f))
            .collect();
        let labelling = Labelling {
            worker: self,
            rows,
            centroids,
            grid_step: transform.grid_step(),
            tallies: Tallies::new(centroids.n_clusters(), &ranges, self.resources.n_threads()),
            partials: Mutex::default(),
            rooms: Mutex::default(),
        };
        let n_threads = self.resources.n_threads();
        Behind::run(n_threads, |behind| {
            let write_part = |shard| labelling.write_part(shard, behind);
            shards::each(shards, n_threads, write_part)?;
            // Meanwhile the last parts are on their way to the disk.
            labelling.tallies.settle();
            Ok(())
        })?;
        Ok(labelling.total())
    }
}

/// All shards of one answer.
struct Labelling<'a> {
    worker: &'a Worker,
    rows: &'a Rows,
    centroids: &'a Centroids,
    grid_step: f64,
    tallies: Tallies,
    /// One a thread, without histograms.
    partials: Mutex<Vec<FinalPartial>>,
    /// What the rows of a block are nearest to: one a thread, used again and again.
    rooms: Mutex<Vec<Vec<NearestTwo>>>,
}

impl Labelling<'_> {
    /// Labels the blocks of a shard, side by side, and leaves behind to write them in order.
    fn write_part(&self, shard: ShardId, behind: &Behind) -> Result<(), DataError> {
        let job = self.worker.job();
        let blocks = self.ids(shard)?;
        let Some((_, ids, _)) = blocks.first() else {
            return Ok(());
        };
        let (dir, spill_dir) = (job.assignments_dir.clone(), &job.spill_dir);
        let mut part = PartWriter::begin(dir, spill_dir, shard, ids)?;
        let encoded = blocks.par_iter().enumerate().with_max_len(1);
        let encoded = encoded.map(|(nth, (id, ids, _))| self.label(*id, ids, &part, nth));
        let encoded: Vec<Encoded> = encoded.collect::<Result<_, _>>()?;
        behind.leave(move || {
            let mut blocks = encoded.into_iter();
            blocks.try_for_each(|block| part.append(block))?;
            part.finish()
        });
        Ok(())
    }

    /// Of the blocks of a shard, in order, with the memory that they have taken: as they were kept, or read again.
    fn ids(&self, shard: ShardId) -> Result<Vec<(BlockId, Ids, Option<Lease>)>, DataError> {
        if let Some(kept) = self.worker.kept_ids.take(shard) {
            let blocks = kept.blocks.into_iter();
            return Ok(blocks
                .map(|(id, ids, lease)| (id, ids, Some(lease)))
                .collect());
        }
        let mut blocks = Vec::new();
        read_ids(&self.worker.job().manifest, shard, &mut |id, ids| {
            blocks.push((id, ids, None));
            Ok::<_, DataError>(())
        })?;
        Ok(blocks)
    }

    fn label(
        &self,
        id: BlockId,
        ids: &Ids,
        part: &PartWriter,
        nth: usize,
    ) -> Result<Encoded, DataError> {
        let grid = &*self.rows.store.get(id)?;
        let mut rows = lock(&self.rooms).pop().unwrap_or_default();
        let cpu = self.worker.resources.engine.cpu();
        cpu.nearest_two(&grid.block, self.centroids, &mut rows);
        let labels: Vec<u16> = rows.iter().map(|row| row.label).collect();
        self.tallies.add(&grid.block, &labels);
        // Passes may have left the rows in the order of their bounds; ids come in that of the file.
        grid.block.put_as_given(&mut rows);
        let source_rows = grid.source_rows.as_deref();
        let hashes = hash_rows(ids, &rows, source_rows);
        let partial = lock(&self.partials).pop();
        let mut partial = partial.unwrap_or_else(|| self.no_rows());
        add_rows(&mut partial, grid, &rows);
        partial.row_hashes.merge(&hashes);
        lock(&self.partials).push(partial);
        let encoded = part.encode(nth, ids, &rows, source_rows, self.grid_step);
        lock(&self.rooms).push(rows);
        encoded
    }

    fn total(self) -> FinalPartial {
        let mut total = self.no_rows();
        lock(&self.partials)
            .iter()
            .for_each(|partial| total.merge(partial));
        total.histograms = self.tallies.into_histograms();
        total
    }

    fn no_rows(&self) -> FinalPartial {
        let has_values = self.worker.job().manifest.value().is_some();
        let n_clusters = self.centroids.n_clusters();
        FinalPartial {
            // Of all threads together: they are large.
            histograms: Histograms::zero(0, 0),
            ..FinalPartial::zero(n_clusters, self.centroids.n_features(), has_values)
        }
    }
}

/// Nothing is left half done under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
