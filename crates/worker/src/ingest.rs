//! From files to rows on the grid: each is decoded once where memory allows.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use clientele_data::ascending::Ascending;
use clientele_data::budget::Lease;
use clientele_data::duplicates::Fingerprints;
use clientele_data::ids::Fingerprint;
use clientele_data::ingest::{IngestPartial, ingest};
use clientele_data::manifest::{BlockId, ShardId};
use clientele_data::read::{Projection, RawBlock, read_ids, read_shard};
use clientele_data::stats::{StatsPartial, StatsRequest};
use clientele_data::tiles::{self, RawTiles, Spread, read_statistics, read_tiles};
use clientele_data::transform::Transform;
use clientele_data::{DataError, NullPolicy};
use rayon::prelude::*;

use crate::Worker;
use crate::behind::Behind;
use crate::kept::{KeptIds, KeptShard};
use crate::rows::Rows;
use crate::shards;

/// What belongs to the rows of a shard and is no feature, by block.
#[derive(Default)]
struct Companions {
    ids: BTreeMap<BlockId, Vec<Fingerprint>>,
    /// Of the whole shard, where that is wanted.
    ascending: Option<Ascending>,
    values: BTreeMap<BlockId, Vec<i64>>,
}

/// What becomes of the ids of shards that are put on the grid.
#[derive(Clone, Copy)]
struct Filing<'a> {
    /// Where their fingerprints are written.
    behind: &'a Behind,
    /// Whether they are kept as long as there is memory.
    are_kept: bool,
}

impl Worker {
    /// The answer to a request for statistics over some shards.
    pub(crate) fn statistics(
        &self,
        shards: &[ShardId],
        request: &StatsRequest,
    ) -> Result<StatsPartial, DataError> {
        // One partial a thread: merging maps of thousands of buckets for each shard would take longer than filling them.
        let partials = Mutex::new(Vec::new());
        let lock = || partials.lock().unwrap_or_else(PoisonError::into_inner);
        let of_shard = |shard: ShardId| {
            let partial = lock().pop();
            let mut partial = partial.unwrap_or_else(|| StatsPartial::zero(request));
            self.statistics_of(shard, self.spread(), request, &mut partial)?;
            lock().push(partial);
            Ok::<_, DataError>(())
        };
        shards::each(shards, self.resources.n_threads(), of_shard)?;
        let partials = partials.into_inner();
        let partials = partials.unwrap_or_else(PoisonError::into_inner).into_iter();
        let merged = partials.reduce(|mut a, b| {
            a.merge(&b);
            a
        });
        Ok(merged.unwrap_or_else(|| StatsPartial::zero(request)))
    }

    /// Columns and blocks of a shard are work for all threads, or one would wait for the other at the end of every stage.
    fn spread(&self) -> Spread {
        match self.resources.n_threads() > 1 && self.job().manifest.n_features() > 1 {
            true => Spread::Columns,
            false => Spread::Here,
        }
    }

    fn statistics_of(
        &self,
        shard: ShardId,
        spread: Spread,
        request: &StatsRequest,
        partial: &mut StatsPartial,
    ) -> Result<(), DataError> {
        let manifest = &self.job().manifest;
        if manifest.nulls() == NullPolicy::Drop {
            let each = &mut |raw: &mut RawBlock| {
                partial.add_block(request, raw);
                Ok(())
            };
            return read_shard(manifest, shard, &request.projection(), each);
        }
        if let Some(kept) = self.kept.get(shard) {
            let blocks = kept.blocks.iter();
            blocks.for_each(|(block, _)| block.add_statistics(request, partial));
            return Ok(());
        }
        let size_bytes = tiles::size_bytes(manifest, shard);
        let Some(mut lease) = self.resources.rows.lease(size_bytes) else {
            return read_statistics(manifest, shard, spread, request, partial);
        };
        let mut blocks = Vec::new();
        let statistics = Some((request, partial));
        read_tiles(manifest, shard, spread, statistics, &mut |block| {
            let share = lease.split(block.size_bytes());
            blocks.push((block, share));
            Ok::<_, DataError>(())
        })?;
        self.kept.put(shard, KeptShard { blocks });
        Ok(())
    }

    /// Puts shards on the grid and keeps their blocks.
    pub(crate) fn ingest(
        &self,
        shards: &[ShardId],
        transform: &Transform,
        fingerprints: bool,
    ) -> Result<IngestPartial, DataError> {
        let rows = self.rows(transform)?;
        let spread = self.spread();
        let total = Mutex::new(IngestPartial::zero(transform.n_features()));
        // The memory that decoded rows take is that of their rows on the grid. Where all are decoded, the rest is for other things. Numbers of
        // rows are no such thing.
        let are_decoded = || shards.iter().all(|shard| self.kept.get(*shard).is_some());
        let are_kept = self.job().manifest.id().is_some() && are_decoded();
        Behind::run(self.resources.n_threads(), |behind| {
            shards::each(shards, self.resources.n_threads(), |shard| {
                let filing = fingerprints.then_some(Filing { behind, are_kept });
                let counted = self.ingest_shard(shard, spread, transform, filing, &rows)?;
                let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
                total.merge(&counted);
                Ok(())
            })
        })?;
        Ok(total.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// With `filing`, leaves behind to write fingerprints of the ids, unless it knows without them that none occurs twice.
    fn ingest_shard(
        &self,
        shard: ShardId,
        spread: Spread,
        transform: &Transform,
        filing: Option<Filing<'_>>,
        rows: &Rows,
    ) -> Result<IngestPartial, DataError> {
        let known = rows.counted(shard);
        let kept = self.kept.take(shard);
        let leave = |ids: &BTreeMap<BlockId, Vec<Fingerprint>>, ascending| {
            let Some(Filing { behind, .. }) = filing else {
                return;
            };
            let order = self.id_order.as_ref();
            if order.is_some_and(|order| order.note(shard, ascending)) {
                return;
            }
            let job = self.job();
            let (work_dir, spill_dir) = (job.work_dir.clone(), job.spill_dir.clone());
            let ids = Fingerprints::of_blocks(ids.values());
            behind.leave(move || ids.write(&work_dir, &spill_dir, shard));
        };
        let counted = match known {
            Some(counted) if filing.is_none() => return Ok(counted),
            // An earlier job has left the rows here; only their ids are wanted.
            Some(counted) => {
                let Companions { ids, ascending, .. } = self.companions(shard, false)?;
                leave(&ids, ascending);
                counted
            }
            None if self.job().manifest.nulls() == NullPolicy::Drop => {
                let (ids, counted) = self.ingest_complete_rows(shard, transform, rows)?;
                leave(&ids, None);
                counted
            }
            None => {
                let are_kept = filing.is_some_and(|filing| filing.are_kept);
                let mut companions = self.companions(shard, are_kept)?;
                // Before the rows, which other threads can help with: nobody would be left to wait for these.
                leave(&companions.ids, companions.ascending.take());
                self.ingest_tiles(shard, kept, companions, spread, transform, rows)?
            }
        };
        rows.note(shard, counted.clone());
        Ok(counted)
    }

    /// Files fingerprints of shards whose ids were known without them, and are not any more.
    pub(crate) fn file_ids(&self, shards: &[ShardId]) -> Result<(), DataError> {
        let job = self.job();
        shards::each(shards, self.resources.n_threads(), |shard| {
            let mut found = Vec::new();
            match self.kept_ids.get(shard) {
                Some(kept) => {
                    let blocks = kept.blocks.iter();
                    blocks.for_each(|(_, ids, _)| ids.fingerprints(&mut found));
                }
                None => read_ids(&job.manifest, shard, &mut |_, ids| {
                    ids.fingerprints(&mut found);
                    Ok::<_, DataError>(())
                })?,
            }
            let ids = Fingerprints::of_blocks([&found]);
            ids.write(&job.work_dir, &job.spill_dir, shard)
        })
    }

    /// Leaves out the rows with nulls: which they are depends on all columns of a block.
    fn ingest_complete_rows(
        &self,
        shard: ShardId,
        transform: &Transform,
        rows: &Rows,
    ) -> Result<(BTreeMap<BlockId, Vec<Fingerprint>>, IngestPartial), DataError> {
        let manifest = &self.job().manifest;
        let mut counted = IngestPartial::zero(transform.n_features());
        let mut ids = BTreeMap::new();
        let each = &mut |raw: &mut RawBlock| {
            ids.insert(raw.id, raw.ids.clone());
            let id = raw.id;
            let grid = ingest(raw, transform, &mut counted)?;
            rows.store.insert(id, grid)
        };
        read_shard(manifest, shard, &Projection::all(manifest), each)?;
        Ok((ids, counted))
    }

    fn ingest_tiles(
        &self,
        shard: ShardId,
        kept: Option<KeptShard>,
        Companions { ids, values, .. }: Companions,
        spread: Spread,
        transform: &Transform,
        rows: &Rows,
    ) -> Result<IngestPartial, DataError> {
        let values = Mutex::new(values);
        let place = |block: RawTiles, lease: Option<Lease>| {
            let (id, mut counted) = (block.id(), IngestPartial::zero(transform.n_features()));
            let ids = ids.get(&id).map_or(&[][..], Vec::as_slice);
            let values = {
                let mut values = values.lock().unwrap_or_else(PoisonError::into_inner);
                values.remove(&id)
            };
            let grid = block.place(ids, values, transform, &mut counted)?;
            // The block's memory becomes that of its rows on the grid.
            drop(lease);
            rows.store.insert(id, grid)?;
            Ok(counted)
        };
        match kept {
            Some(KeptShard { blocks }) => {
                let zero = || IngestPartial::zero(transform.n_features());
                let blocks = blocks.into_par_iter().with_max_len(1);
                let counted = blocks.map(|(block, lease)| place(block, Some(lease)));
                counted.try_reduce(zero, |mut a, b| {
                    a.merge(&b);
                    Ok(a)
                })
            }
            None => {
                let mut counted = IngestPartial::zero(transform.n_features());
                let manifest = &self.job().manifest;
                read_tiles(manifest, shard, spread, None, &mut |block| {
                    counted.merge(&place(block, None)?);
                    Ok::<_, DataError>(())
                })?;
                Ok(counted)
            }
        }
    }

    /// Of all rows of a shard; its ids `are_kept` if there is memory for them.
    fn companions(&self, shard: ShardId, are_kept: bool) -> Result<Companions, DataError> {
        let manifest = &self.job().manifest;
        // On their way to the grid, blocks are for a moment in nobody's memory.
        let spare_bytes = self.resources.n_threads() * tiles::size_bytes(manifest, shard);
        let mut found = Companions::default();
        let mut kept = are_kept.then(Vec::new);
        let mut ascending = Vec::new();
        read_ids(manifest, shard, &mut |id, ids| {
            ids.fingerprints(found.ids.entry(id).or_default());
            if self.id_order.is_some() {
                ascending.push(Ascending::of(&ids));
            }
            if let Some(blocks) = &mut kept {
                let n_bytes = ids.array().get_array_memory_size();
                match self.resources.rows.lease_leaving(spare_bytes, n_bytes) {
                    Some(lease) => blocks.push((id, ids, lease)),
                    // All of them, or none.
                    None => kept = None,
                }
            }
            Ok::<_, DataError>(())
        })?;
        if let Some(blocks) = kept {
            self.kept_ids.put(shard, KeptIds { blocks });
        }
        let whole = ascending.into_iter().reduce(|all, next| all?.and(next?));
        found.ascending = whole.flatten();
        if manifest.value().is_none() {
            return Ok(found);
        }
        let projection = Projection {
            features: vec![false; manifest.n_features()],
            ids: false,
            value: true,
        };
        read_shard(manifest, shard, &projection, &mut |raw: &mut RawBlock| {
            if let Some(values) = raw.values.take() {
                found.values.insert(raw.id, values);
            }
            Ok::<_, DataError>(())
        })?;
        Ok(found)
    }
}
