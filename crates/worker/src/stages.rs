//! The answer to each question: parts in parallel, then their sum.

use std::sync::{Arc, PoisonError};

use clientele_data::DataError;
use clientele_data::duplicates;
use clientele_data::ingest::GridBlock;
use clientele_data::manifest::{BlockId, ShardId};
use clientele_data::store::Held;
use clientele_data::transform::Transform;
use clientele_kmeans::relocate::FarthestRows;
use clientele_kmeans::seeding::{Race, SeedRound, race_block};
use clientele_kmeans::{Backend, Centroids};
use clientele_protocol::{Answer, PartId, RelocateRequest, Stage, TaskError};
use rayon::prelude::*;

use crate::Worker;
use crate::rows::{Rows, RowsKey};

/// Pieces that a range of hashes is looked at in.
const DUPLICATE_PIECES: u32 = 16;

/// Blocks to compute on.
pub(crate) struct Blocks {
    pub(crate) ids: Vec<BlockId>,
    /// Where they are.
    pub(crate) rows: Arc<Rows>,
}

/// Spilled blocks that the system is asked to read while a thread computes on one.
const BLOCKS_AHEAD: usize = 2;
/// How far it is looked for those.
const MOST_AHEAD: usize = 8;

impl Blocks {
    /// The block at `at`; those after it that are `wanted` are fetched meanwhile if they are on disk.
    pub(crate) fn get(
        &self,
        at: usize,
        wanted: impl Fn(&BlockId) -> bool,
    ) -> Result<Held, DataError> {
        self.read_ahead(at, wanted);
        self.rows.store.get(self.ids[at])
    }

    /// Has those after the block at `at` that are `wanted` fetched if they are on disk.
    pub(crate) fn read_ahead(&self, at: usize, wanted: impl Fn(&BlockId) -> bool) {
        let next = self.ids[at + 1..].iter().take(MOST_AHEAD);
        let ahead: Vec<BlockId> = next
            .filter(|id| wanted(id))
            .take(BLOCKS_AHEAD)
            .copied()
            .collect();
        self.rows.store.read_ahead(&ahead);
    }
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

    fn duplicates(
        &self,
        parts: &[PartId],
        n_ranges: u32,
        n_shards: u32,
    ) -> Result<duplicates::Duplicates, DataError> {
        let mut found = duplicates::Duplicates::default();
        if let Some(order) = &self.id_order {
            if order.are_unique(n_shards) {
                return Ok(found);
            }
            self.file_ids(&order.unfiled())?;
            order.note_filed();
        }
        for part in parts {
            // A part in pieces, so that one is work for all threads.
            let pieces = n_ranges.checked_mul(DUPLICATE_PIECES);
            let (n_pieces, n_ranges) = match pieces {
                Some(n_ranges) => (DUPLICATE_PIECES, n_ranges),
                None => (1, n_ranges),
            };
            let (work_dir, first) = (&self.job.work_dir, part.0 * n_pieces);
            let of_piece =
                |piece| duplicates::find_duplicates(work_dir, n_shards, first + piece, n_ranges);
            let merged = |mut a: duplicates::Duplicates, b| {
                a.merge(b);
                Ok(a)
            };
            let pieces = (0..n_pieces).into_par_iter().map(of_piece);
            found.merge(pieces.try_reduce(duplicates::Duplicates::default, merged)?);
        }
        Ok(found)
    }

    /// The rows of this job by `transform`, as far as they are here.
    pub(crate) fn rows(&self, transform: &Transform) -> Result<Arc<Rows>, DataError> {
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
        // What is kept as it was decoded is in the budget already, and becomes rows.
        let wanted = wanted
            .saturating_mul(row_bytes)
            .saturating_sub(self.kept.size_bytes());
        let rows = self.resources.rows.get(&key, wanted, &self.job.spill_dir);
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
        // What other workers have put on the grid is not needed here.
        self.kept.clear();
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
            .enumerate()
            .map(|(at, id)| Ok(of_block(*id, &*blocks.get(at, |_| true)?)))
            .try_reduce(&zero, |mut a, b| {
                merge(&mut a, b);
                Ok(a)
            })
    }
}
