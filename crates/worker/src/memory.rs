//! What passes leave behind, so that the next ones need not look at every row. Droppable at any time: only time is lost with it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clientele_data::manifest::BlockId;
use clientele_kmeans::Centroids;
use clientele_kmeans::cpu::{BlockMemory, CpuBackend, Travel};
use clientele_protocol::CandidateId;

/// Bounds cost a pass a tenth and more, and are of no use while centroids still travel far: they are kept once no more than this share
/// of the rows moved in a pass.
const CALM_SHARE: f64 = 0.05;

/// The memory of all candidates of one job.
pub struct PassMemory {
    limit_bytes: u64,
    prunes: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    used_bytes: u64,
    candidates: HashMap<CandidateId, Candidate>,
}

struct Candidate {
    travel: Arc<Travel>,
    blocks: HashMap<BlockId, Slot>,
    /// Since the centroids last moved.
    n_rows: u64,
    n_moved: u64,
}

struct Slot {
    n_bytes: u64,
    /// Taken while a pass works on it.
    memory: Option<BlockMemory>,
}

/// One candidate's part in a pass over a block.
pub struct Remembered {
    /// Its position among those asked for.
    pub idx: usize,
    pub travel: Arc<Travel>,
    pub memory: BlockMemory,
}

impl PassMemory {
    /// Holds at most `limit_bytes`; without `prunes` every row is looked at in every pass, for measurements.
    pub fn new(limit_bytes: u64, prunes: bool) -> Self {
        Self {
            limit_bytes,
            prunes,
            state: Mutex::default(),
        }
    }

    /// A pass on behalf of `ids` with these centroids begins, or goes on; candidates no longer asked for are forgotten.
    pub fn begin(&self, ids: &[CandidateId], centroids: &[Centroids], cpu: &CpuBackend) {
        let mut state = self.lock();
        let State {
            used_bytes,
            candidates,
        } = &mut *state;
        candidates.retain(|id, candidate| {
            let stays = ids.contains(id);
            if !stays {
                *used_bytes -= candidate.n_bytes();
            }
            stays
        });
        for (id, centroids) in ids.iter().zip(centroids) {
            let candidate = candidates.entry(*id).or_insert_with(|| Candidate {
                travel: Arc::new(cpu.travel(centroids.clone())),
                blocks: HashMap::new(),
                n_rows: 0,
                n_moved: 0,
            });
            if candidate.travel.centroids() != centroids {
                let is_calm = candidate.n_moved as f64 <= CALM_SHARE * candidate.n_rows as f64;
                Arc::make_mut(&mut candidate.travel).advance(centroids, self.prunes && is_calm);
                (candidate.n_rows, candidate.n_moved) = (0, 0);
            }
        }
    }

    /// Takes what is remembered of a block, for as many of `ids` as there is room for; put back after the pass.
    pub fn take(&self, block: BlockId, ids: &[CandidateId], n_rows: usize) -> Vec<Remembered> {
        let mut state = self.lock();
        let State {
            used_bytes,
            candidates,
        } = &mut *state;
        let mut taken = Vec::with_capacity(ids.len());
        for (idx, id) in ids.iter().enumerate() {
            let Some(candidate) = candidates.get_mut(id) else {
                continue;
            };
            let slot = match candidate.blocks.get_mut(&block) {
                Some(slot) => slot,
                None => {
                    let centroids = candidate.travel.centroids();
                    let (n_clusters, n_features) = (centroids.n_clusters(), centroids.n_features());
                    let n_bytes = BlockMemory::bytes_for(n_rows, n_clusters, n_features) as u64;
                    if *used_bytes + n_bytes > self.limit_bytes {
                        continue;
                    }
                    *used_bytes += n_bytes;
                    let memory = None;
                    candidate
                        .blocks
                        .entry(block)
                        .or_insert(Slot { n_bytes, memory })
                }
            };
            taken.push(Remembered {
                idx,
                travel: candidate.travel.clone(),
                memory: slot.memory.take().unwrap_or_default(),
            });
        }
        taken
    }

    /// Puts back what a pass over a block has left of one candidate, and notes how calm it was.
    pub fn put(
        &self,
        block: BlockId,
        id: CandidateId,
        memory: BlockMemory,
        n_rows: usize,
        n_moved: u64,
    ) {
        if let Some(candidate) = self.lock().candidates.get_mut(&id) {
            candidate.n_rows += n_rows as u64;
            candidate.n_moved += n_moved;
            if let Some(slot) = candidate.blocks.get_mut(&block) {
                slot.memory = Some(memory);
            }
        }
    }

    /// Forgets everything.
    pub fn clear(&self) {
        *self.lock() = State::default();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Candidate {
    fn n_bytes(&self) -> u64 {
        self.blocks.values().map(|slot| slot.n_bytes).sum()
    }
}
