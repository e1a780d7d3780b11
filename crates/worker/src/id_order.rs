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

    /// Shards that need fingerprints after all, until [`IdOrder::note_filed`].
    pub fn unfiled(&self) -> Vec<ShardId> {
        self.lock().unfiled.clone()
    }

    /// All have fingerprints now.
    pub fn note_filed(&self) {
        let mut known = self.lock();
        known.is_broken = true;
        known.unfiled.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::Int64Array;
    use clientele_data::ids::Ids;

    use super::*;

    #[test]
    fn shards_without_fingerprints_are_named_until_they_have_them() {
        let order = IdOrder::default();
        let from_to = |first, last| {
            let ids = Int64Array::from_iter_values(first..=last);
            Ascending::of(&Ids::from_column(Arc::new(ids)))
        };
        assert!(order.note(ShardId(4), from_to(10, 19)));
        assert!(order.are_unique(1) && !order.are_unique(2));
        assert!(!order.note(ShardId(5), from_to(15, 25)));
        assert!(!order.note(ShardId(6), from_to(30, 39)), "too late");
        assert!(!order.are_unique(1) && !order.are_unique(3));
        // Filing may fail: then it is tried again.
        assert_eq!([order.unfiled(), order.unfiled()], [[ShardId(4)]; 2]);
        order.note_filed();
        assert_eq!(order.unfiled(), []);
        assert!(!order.are_unique(0));
    }
}
