//! What was decoded of shards and will be wanted again: rows, from the first statistics until they are put on the grid; ids, from then until
//! rows are labelled.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clientele_data::budget::Lease;
use clientele_data::ids::Ids;
use clientele_data::manifest::{BlockId, ShardId};
use clientele_data::tiles::RawTiles;

/// Rows of one shard.
#[derive(Debug)]
pub struct KeptShard {
    /// Its blocks, in order, and the memory each takes of the budget for rows.
    pub blocks: Vec<(RawTiles, Lease)>,
}

/// Ids of one shard.
#[derive(Debug)]
pub struct KeptIds {
    /// Those of its blocks, in order, and the memory they take of the budget for rows.
    pub blocks: Vec<(BlockId, Ids, Lease)>,
}

/// Something of the shards of one job; droppable at any time: what is not here is decoded again.
#[derive(Debug)]
pub struct Kept<T>(Mutex<BTreeMap<ShardId, Arc<T>>>);

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Kept<T> {
    /// Keeps a shard.
    pub fn put(&self, id: ShardId, shard: T) {
        self.lock().insert(id, Arc::new(shard));
    }

    /// A shard to look at.
    pub fn get(&self, id: ShardId) -> Option<Arc<T>> {
        self.lock().get(&id).cloned()
    }

    /// A shard for good; none while somebody looks at it.
    pub fn take(&self, id: ShardId) -> Option<T> {
        self.lock().remove(&id).and_then(Arc::into_inner)
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ShardId, Arc<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept<KeptShard> {
    /// Bytes taken of the budget.
    pub fn size_bytes(&self) -> usize {
        let shards = self.lock();
        let blocks = shards.values().flat_map(|shard| &shard.blocks);
        blocks.map(|(_, lease)| lease.n_bytes()).sum()
    }
}
