//! The answer to each question: parts in parallel, then their sum.

use std::sync::{Arc, PoisonError};

use clientele_data::DataError;
use clientele_data::duplicates;
use clientele_data::ingest::{GridBlock, IngestPartial, ingest};
use clientele_data::manifest::{BlockId, ShardId};
use clientele_data::read::{NO_VALUE, Projection, RawBlock, read_ids, read_shard};
use clientele_data::stats::{StatsPartial, StatsRequest};
use clientele_data::transform::Transform;
use clientele_kmeans::exact::{NearestTwo, nearest_two_in_block};
use clientele_kmeans::relocate::FarthestRows;
use clientele_kmeans::seeding::{Race, SeedRound, race_block};
use clientele_kmeans::{Backend, Centroids};
use clientele_protocol::{
    Answer, FinalPartial, Job, MARGIN_BINS, PartId, RelocateRequest, Stage, TaskError,
};
use rayon::prelude::*;

use crate::Worker;
use crate::assignments::{PartWriter, margin};
use crate::rows::{Rows, RowsKey};

/// Blocks to compute on.
pub(crate) struct Blocks {
    pub(crate) ids: Vec<BlockId>,
    /// Where they are.
    pub(crate) rows: Arc<Rows>,
}

impl Worker {
    pub(crate) fn answer(&self, stage: &Stage, parts: &[PartId]) -> Result<Answer, TaskError> {
        let shards: Vec<ShardId> = parts.iter().map(|part| ShardId(part.0)).collect();
        Ok(match stage {
            Stage::Statistics(request) => {
                Answer::Statistics(Box::new(self.statistics(&shards, request)?))
            }
            Stage::Ingest {
                transform,
                fingerprints,
            } => Answer::Ingest(Box::new(self.ingest(&shards, transform, *fingerprints)?)),
            // Here a part is a range of hashes and no shard.
            Stage::Duplicates { n_ranges, n_shards } => {
                Answer::Duplicates(self.duplicates(parts, *n_ranges, *n_shards)?)
            }
            Stage::Seed { transform, round } => {
                Answer::Seed(self.seed(&self.blocks(&shards, transform)?, round)?)
            }
            Stage::Weigh {
                transform,
                candidates,
            } => Answer::Weigh(self.weigh(&self.blocks(&shards, transform)?, candidates)?),
            Stage::Pass {
                transform,
                ids,
                centroids,
            } => Answer::Pass(self.pass(&self.blocks(&shards, transform)?, ids, centroids)?),
            Stage::Relocate {
                transform,
                requests,
            } => Answer::Relocate(self.relocate(&self.blocks(&shards, transform)?, requests)?),
            Stage::Final {
                transform,
                centroids,
            } => {
                self.memory.clear();
                let rows = self.blocks(&shards, transform)?.rows;
                Answer::Final(Box::new(self.finish(&shards, &rows, transform, centroids)?))
            }
        })
    }

    fn statistics(
        &self,
        shards: &[ShardId],
        request: &StatsRequest,
    ) -> Result<StatsPartial, DataError> {
        let zero = || StatsPartial::zero(request);
        shards
            .par_iter()
            .map(|shard| {
                let mut partial = zero();
                read_shard(
                    &self.job.manifest,
                    *shard,
                    &request.projection(),
                    &mut |raw: &mut RawBlock| {
                        partial.add_block(request, raw);
                        Ok::<(), DataError>(())
                    },
                )?;
                Ok(partial)
            })
            .try_reduce(zero, |mut a, b| {
                a.merge(&b);
                Ok(a)
            })
    }

    fn duplicates(
        &self,
        parts: &[PartId],
        n_ranges: u32,
        n_shards: u32,
    ) -> Result<duplicates::Duplicates, DataError> {
        let mut found = duplicates::Duplicates::default();
        for part in parts {
            found.merge(duplicates::find_duplicates(
                &self.job.work_dir,
                n_shards,
                part.0,
                n_ranges,
            )?);
        }
        Ok(found)
    }

    /// Puts shards on the grid and keeps their blocks.
    fn ingest(
        &self,
        shards: &[ShardId],
        transform: &Transform,
        fingerprints: bool,
    ) -> Result<IngestPartial, DataError> {
        let zero = || IngestPartial::zero(transform.n_features());
        let rows = self.rows(transform)?;
        shards
            .par_iter()
            .map(|shard| self.ingest_shard(*shard, transform, fingerprints, &rows))
            .try_reduce(zero, |mut a, b| {
                a.merge(&b);
                Ok(a)
            })
    }

    fn ingest_shard(
        &self,
        shard: ShardId,
        transform: &Transform,
        fingerprints: bool,
        rows: &Rows,
    ) -> Result<IngestPartial, DataError> {
        let manifest = &self.job.manifest;
        let known = rows.counted(shard);
        if let Some(counted) = &known
            && !fingerprints
        {
            return Ok(counted.clone());
        }
        let projection = match known {
            // An earlier job has left the rows here; only their ids are wanted.
            Some(_) => Projection {
                features: vec![false; manifest.n_features()],
                ids: true,
                value: false,
            },
            None => Projection::all(manifest),
        };
        let mut counted = IngestPartial::zero(transform.n_features());
        let mut ids = Vec::new();
        read_shard(manifest, shard, &projection, &mut |raw: &mut RawBlock| {
            let id = raw.id;
            if fingerprints {
                ids.extend_from_slice(&raw.ids);
            }
            if known.is_some() {
                return Ok(());
            }
            let grid = ingest(raw, transform, &mut counted)?;
            rows.store.insert(id, grid)
        })?;
        if fingerprints {
            let Job {
                work_dir,
                spill_dir,
                ..
            } = &self.job;
            duplicates::write_fingerprints(work_dir, spill_dir, shard, ids)?;
        }
        let counted = known.unwrap_or(counted);
        rows.note(shard, counted.clone());
        Ok(counted)
    }

    /// The rows of this job by `transform`, as far as they are here.
    fn rows(&self, transform: &Transform) -> Result<Arc<Rows>, DataError> {
        let mut held = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(rows) = &*held {
            return Ok(rows.clone());
        }
        let key = RowsKey {
            input: self.job.manifest.hash(),
            transform: transform.hash(),
        };
        let manifest = &self.job.manifest;
        let row_bytes = (manifest.n_features() + 4) * size_of::<f32>();
        let wanted = usize::try_from(manifest.n_rows()).unwrap_or(usize::MAX);
        let rows =
            self.resources
                .rows
                .get(&key, wanted.saturating_mul(row_bytes), &self.job.spill_dir);
        Ok(held.insert(rows).clone())
    }

    /// The blocks of `shards`, all of them in the store: what another worker has ingested, or a lost one had, is ingested here.
    fn blocks(&self, shards: &[ShardId], transform: &Transform) -> Result<Blocks, DataError> {
        let rows = self.rows(transform)?;
        let missing: Vec<ShardId> = shards
            .iter()
            .filter(|shard| !rows.has(**shard))
            .copied()
            .collect();
        self.ingest(&missing, transform, false)?;
        let ids = shards
            .iter()
            .flat_map(|shard| self.job.manifest.shard_blocks(*shard));
        Ok(Blocks {
            ids: ids.collect(),
            rows,
        })
    }

    fn seed(&self, blocks: &Blocks, round: &SeedRound) -> Result<Race, DataError> {
        self.over_blocks(
            blocks,
            || Race::new(round.limit),
            |_, grid| race_block(self.resources.engine.cpu(), &grid.block, round),
            |a, b| a.merge(b),
        )
    }

    fn weigh(&self, blocks: &Blocks, candidates: &Centroids) -> Result<Vec<u64>, DataError> {
        let count = |_, grid: &GridBlock| {
            let partials = self.resources.engine.cpu().pass(
                &grid.block,
                std::slice::from_ref(candidates),
                None,
            );
            partials
                .map(|mut partials| partials.remove(0).counts)
                .expect("the CPU always answers")
        };
        self.over_blocks(
            blocks,
            || vec![0; candidates.n_clusters()],
            count,
            |a, b| a.iter_mut().zip(b).for_each(|(a, b)| *a += b),
        )
    }

    fn relocate(
        &self,
        blocks: &Blocks,
        requests: &[RelocateRequest],
    ) -> Result<Vec<FarthestRows>, DataError> {
        let farthest = |_, grid: &GridBlock| -> Vec<FarthestRows> {
            requests
                .iter()
                .map(|r| {
                    FarthestRows::of_block(
                        self.resources.engine.cpu(),
                        &grid.block,
                        &r.centroids,
                        r.limit,
                    )
                })
                .collect()
        };
        let zero = || {
            requests
                .iter()
                .map(|request| FarthestRows::new(request.limit))
                .collect()
        };
        self.over_blocks(blocks, zero, farthest, |a: &mut Vec<FarthestRows>, b| {
            a.iter_mut().zip(b).for_each(|(a, b)| a.merge(b));
        })
    }

    /// Computes something for each block and adds it up, in parallel and in any order.
    fn over_blocks<T: Send>(
        &self,
        blocks: &Blocks,
        zero: impl Fn() -> T + Sync + Send,
        of_block: impl Fn(BlockId, &GridBlock) -> T + Sync,
        merge: impl Fn(&mut T, T) + Sync + Send,
    ) -> Result<T, DataError> {
        blocks
            .ids
            .par_iter()
            .map(|id| Ok(of_block(*id, &*blocks.rows.store.get(*id)?)))
            .try_reduce(&zero, |mut a, b| {
                merge(&mut a, b);
                Ok(a)
            })
    }

    /// Labels of the final model: one part a shard, and what the rows of each cluster add up to.
    fn finish(
        &self,
        shards: &[ShardId],
        rows: &Rows,
        transform: &Transform,
        centroids: &Centroids,
    ) -> Result<FinalPartial, DataError> {
        let has_values = self.job.manifest.value().is_some();
        let zero =
            || FinalPartial::zero(centroids.n_clusters(), centroids.n_features(), has_values);
        shards
            .par_iter()
            .map(|shard| {
                let mut partial = zero();
                self.finish_shard(*shard, rows, transform, centroids, &mut partial)?;
                Ok(partial)
            })
            .try_reduce(zero, |mut a, b| {
                a.merge(&b);
                Ok(a)
            })
    }

    fn finish_shard(
        &self,
        shard: ShardId,
        held: &Rows,
        transform: &Transform,
        centroids: &Centroids,
        partial: &mut FinalPartial,
    ) -> Result<(), DataError> {
        let job = &self.job;
        let ranges: Vec<(i32, i32)> = (0..transform.n_features())
            .map(|f| transform.grid_range(f))
            .collect();
        let mut part = PartWriter::new(
            job.assignments_dir.clone(),
            job.spill_dir.clone(),
            shard,
            transform.grid_step(),
        );
        let mut rows = Vec::new();
        read_ids(&job.manifest, shard, &mut |id, ids| {
            let grid = held.store.get(id)?;
            nearest_two_in_block(&grid.block, centroids, &mut rows);
            add_rows(partial, &grid, &rows, &ranges);
            let hashes = part.write(&ids, &rows, grid.source_rows.as_deref())?;
            partial.row_hashes.merge(&hashes);
            Ok::<(), DataError>(())
        })?;
        part.finish()
    }
}

/// Adds the rows of one block to the profile of their clusters. `ranges` [n_features] are the grid ranges of the features.
fn add_rows(
    partial: &mut FinalPartial,
    grid: &GridBlock,
    rows: &[NearestTwo],
    ranges: &[(i32, i32)],
) {
    let n_clusters = partial.sizes.len();
    for (row_idx, row) in rows.iter().enumerate() {
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
        if let Some(value) = grid
            .values
            .as_ref()
            .map(|values| values[row_idx])
            .filter(|value| *value != NO_VALUE)
        {
            partial.values[cluster_idx] += i128::from(value);
            partial.valued[cluster_idx] += 1;
        }
    }
    for (feature_idx, (low, high)) in ranges.iter().enumerate() {
        for (row_idx, row) in rows.iter().enumerate() {
            let q = grid.block.value(row_idx, feature_idx);
            partial
                .histograms
                .add(usize::from(row.label), feature_idx, q, *low, *high);
        }
    }
}
