//! Rows on the grid, kept across stages and, while memory lasts, across jobs on the same input.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clientele_data::budget::{Budget, Lease};
use clientele_data::ingest::IngestPartial;
use clientele_data::manifest::ShardId;
use clientele_data::store::BlockStore;
use clientele_kmeans::BLOCK_ROWS;

use crate::PASS_MEMORY_SHARE;

/// Memory that a process needs before it holds its first block.
const BASE_BYTES: u64 = 96 << 20;

/// Blocks' worth of memory that a thread works with while it decodes, places and computes.
const BLOCKS_A_THREAD: u64 = 6;

/// Which rows, and which way to the grid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowsKey {
    /// Of the manifest.
    pub input: blake3::Hash,
    /// Of the transform.
    pub transform: blake3::Hash,
}

/// The rows of one input by one transform, as far as they are here.
#[derive(Debug)]
pub struct Rows {
    key: RowsKey,
    /// Their blocks.
    pub store: BlockStore,
    /// Shards whose blocks are all in the store, and what putting them there counted.
    present: Mutex<BTreeMap<ShardId, IngestPartial>>,
}

impl Rows {
    /// What putting a shard on the grid counted, if it is here.
    pub fn counted(&self, shard: ShardId) -> Option<IngestPartial> {
        self.lock().get(&shard).cloned()
    }

    /// Whether a shard is here.
    pub fn has(&self, shard: ShardId) -> bool {
        self.lock().contains_key(&shard)
    }

    /// Notes that all blocks of a shard are in the store.
    pub fn note(&self, shard: ShardId, counted: IngestPartial) {
        self.lock().insert(shard, counted);
    }

    /// Shards that are here.
    pub fn shards(&self) -> Vec<ShardId> {
        self.lock().keys().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ShardId, IngestPartial>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All rows of a worker, those of ended jobs as well.
#[derive(Debug)]
pub struct Residents {
    memory_bytes: u64,
    /// Made for the first job: how much goes to working memory depends on its width.
    budget: Mutex<Option<Arc<Budget>>>,
    /// Least recently used first.
    rows: Mutex<Vec<Arc<Rows>>>,
}

impl Residents {
    pub fn new(memory_bytes: u64) -> Self {
        Self {
            memory_bytes,
            budget: Mutex::default(),
            rows: Mutex::default(),
        }
    }

    /// Memory for rows and labels of a job of that width, in bytes.
    pub fn admit(&self, n_features: usize, n_threads: usize) -> u64 {
        let block_bytes = (BLOCK_ROWS * (n_features + 4) * size_of::<f32>()) as u64;
        let working_bytes = BASE_BYTES + BLOCKS_A_THREAD * block_bytes * n_threads as u64;
        let for_rows = self.memory_bytes.saturating_sub(working_bytes);
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        budget.get_or_insert_with(|| {
            let bytes = for_rows - for_rows / PASS_MEMORY_SHARE;
            Budget::new(usize::try_from(bytes).unwrap_or(usize::MAX))
        });
        for_rows
    }

    /// Takes memory of that for rows, if there is as much.
    pub fn lease(&self, n_bytes: usize) -> Option<Lease> {
        let budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        budget.as_ref()?.lease(n_bytes)
    }

    /// As [`Residents::lease`], if `spare_bytes` are left then.
    pub fn lease_leaving(&self, spare_bytes: usize, n_bytes: usize) -> Option<Lease> {
        let budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        let budget = budget.as_ref()?;
        let is_spare = n_bytes.saturating_add(spare_bytes) <= budget.free_bytes();
        is_spare.then(|| budget.lease(n_bytes)).flatten()
    }

    /// The rows of `key`: those that are here, or none yet, with room made for `wanted_bytes`. Spills go to `spill_dir`.
    pub fn get(&self, key: &RowsKey, wanted_bytes: usize, spill_dir: &Path) -> Arc<Rows> {
        let mut all = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = all.iter().position(|rows| rows.key == *key) {
            let found = all.remove(at);
            all.push(found.clone());
            return found;
        }
        let budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        let budget = budget.clone().unwrap_or_else(|| Budget::new(0));
        // Rows that no job holds make room for those of one that does.
        while budget.free_bytes() < wanted_bytes {
            let Some(at) = all.iter().position(|rows| Arc::strong_count(rows) == 1) else {
                break;
            };
            all.remove(at);
        }
        let rows = Arc::new(Rows {
            key: key.clone(),
            store: BlockStore::new(budget, spill_dir),
            present: Mutex::default(),
        });
        all.push(rows.clone());
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(transform: &str) -> RowsKey {
        RowsKey {
            input: blake3::hash(b"input"),
            transform: blake3::hash(transform.as_bytes()),
        }
    }

    #[test]
    fn rows_of_an_ended_job_serve_the_next_one_until_memory_is_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let residents = Residents::new(1 << 30);
        residents.admit(3, 1);
        let get = |name: &str, bytes: usize| residents.get(&key(name), bytes, folder.path());
        get("a", 0).note(ShardId(4), IngestPartial::zero(3));
        assert!(get("a", 0).has(ShardId(4)), "an ended job's rows are kept");
        let held = get("b", 0);
        assert!(!held.has(ShardId(4)));
        get("c", usize::MAX);
        assert!(!get("a", 0).has(ShardId(4)), "they made room");
        assert!(
            Arc::ptr_eq(&held, &get("b", usize::MAX)),
            "a running job keeps its own"
        );
    }
}
