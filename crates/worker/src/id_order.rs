//! What a worker without others knows of the order of ids. A table often lies in the order of its ids: then none occurs twice, and there are no
//! fingerprints to file and to compare.

use std::sync::{Mutex, MutexGuard, PoisonError};

use clientele_data::ascending::{Apart, Ascending};
use clientele_data::manifest::ShardId;

/// The shards whose ids ascend, as long as no others have been seen.
#[derive(Default)]
pub struct IdOrder(Mutex<Known>);

#[derive(Default)]
struct Known {
    apart: Apart,
    /// Those in `apart`, which have no fingerprints.
    unfiled: Vec<ShardId>,
    /// Some shard is not apart from the others: the rest will be filed, too.
    is_broken: bool,
}

impl IdOrder {
    /// Notes a shard's ids, if they ascend. Whether they need no fingerprints, as far as is known.
    pub fn note(&self, shard: ShardId, ids: Option<Ascending>) -> bool {
        let mut known = self.lock();
        let is_apart = !known.is_broken && ids.is_some_and(|ids| known.apart.add(ids));
        match is_apart {
            true => known.unfiled.push(shard),
            false => known.is_broken = true,
        }
        is_apart
    }

    /// Whether no id of the shards noted so far, which are `n_shards`, occurs twice.
    pub fn are_unique(&self, n_shards: u32) -> bool {
        let known = self.lock();
        !known.is_broken && known.unfiled.len() == n_shards as usize
    }

    /// Shards that need fingerprints after all, once.
    pub fn take_unfiled(&self) -> Vec<ShardId> {
        let mut known = self.lock();
        known.is_broken = true;
        std::mem::take(&mut known.unfiled)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
