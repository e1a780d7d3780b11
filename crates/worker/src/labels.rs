//! The labels of the pass before, kept to tell people how many rows moved. Droppable at any time.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use clientele_data::manifest::BlockId;
use clientele_kmeans::BlockLabels;
use clientele_protocol::CandidateId;

/// Labels by block and candidate.
pub struct LabelCache {
    limit_bytes: u64,
    blocks: Mutex<HashMap<BlockId, HashMap<CandidateId, Vec<u16>>>>,
}

impl LabelCache {
    /// Holds at most `limit_bytes`.
    pub fn new(limit_bytes: u64) -> Self {
        Self {
            limit_bytes,
            blocks: Mutex::new(HashMap::new()),
        }
    }

    /// Whether the labels of `n_rows` rows fit for `n_candidates`; all or none, or the count would be of some rows only.
    pub fn fits(&self, n_rows: u64, n_candidates: usize) -> bool {
        n_rows * (n_candidates * size_of::<u16>()) as u64 <= self.limit_bytes
    }

    /// Takes the labels of a block, in the order of `ids`; empty where there are none yet.
    pub fn take(&self, block: BlockId, ids: &[CandidateId]) -> BlockLabels {
        let mut held = self.lock().remove(&block).unwrap_or_default();
        BlockLabels {
            by_candidate: ids
                .iter()
                .map(|id| held.remove(id).unwrap_or_default())
                .collect(),
        }
    }

    /// Puts them back after a pass; candidates that are no longer asked for are forgotten.
    pub fn put(&self, block: BlockId, ids: &[CandidateId], labels: BlockLabels) {
        self.lock().insert(
            block,
            ids.iter().copied().zip(labels.by_candidate).collect(),
        );
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<BlockId, HashMap<CandidateId, Vec<u16>>>> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_follow_their_candidate_when_others_stop() {
        let cache = LabelCache::new(1_000);
        let (block, a, b) = (BlockId(3), CandidateId(0), CandidateId(7));
        let mut labels = cache.take(block, &[a, b]);
        assert_eq!(labels.by_candidate, vec![Vec::<u16>::new(); 2]);
        labels.by_candidate = vec![vec![1, 1], vec![2, 2]];
        cache.put(block, &[a, b], labels);
        assert_eq!(cache.take(block, &[b]).by_candidate, vec![vec![2, 2]]);
    }

    #[test]
    fn what_does_not_fit_is_not_kept() {
        let cache = LabelCache::new(1_000);
        assert!(cache.fits(100, 5));
        assert!(!cache.fits(100, 6));
    }
}
