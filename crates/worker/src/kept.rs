//! Shards as they were decoded, kept from the first statistics until they are put on the grid.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clientele_data::budget::Lease;
use clientele_data::manifest::ShardId;
use clientele_data::tiles::RawTiles;

/// One shard.
#[derive(Debug)]
pub struct KeptShard {
    /// Its blocks, in order, and the memory each takes of the budget for rows.
    pub blocks: Vec<(RawTiles, Lease)>,
}

/// The shards of one job; droppable at any time: what is not here is decoded again.
#[derive(Debug, Default)]
pub struct Kept(Mutex<BTreeMap<ShardId, Arc<KeptShard>>>);

impl Kept {
    /// Keeps a shard.
    pub fn put(&self, id: ShardId, shard: KeptShard) {
        self.lock().insert(id, Arc::new(shard));
    }

    /// A shard to look at.
    pub fn get(&self, id: ShardId) -> Option<Arc<KeptShard>> {
        self.lock().get(&id).cloned()
    }

    /// A shard for good; none while somebody looks at it.
    pub fn take(&self, id: ShardId) -> Option<KeptShard> {
        self.lock().remove(&id).and_then(Arc::into_inner)
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// Bytes taken of the budget.
    pub fn size_bytes(&self) -> usize {
        let shards = self.lock();
        let blocks = shards.values().flat_map(|shard| &shard.blocks);
        blocks.map(|(_, lease)| lease.n_bytes()).sum()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ShardId, Arc<KeptShard>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
