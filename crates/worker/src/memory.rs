//! What passes leave behind, so that the next ones need not look at every row. Droppable at any time: only time is lost with it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clientele_data::manifest::BlockId;
use clientele_kmeans::Centroids;
use clientele_kmeans::cpu::{BlockMemory, CpuBackend, Effort, Ordered, Travel};
use clientele_kmeans::{BLOCK_ROWS, Block, LANES};
use clientele_protocol::CandidateId;

/// Bounds cost a pass a third (32 clusters) to nearly as much again (8), and are of little use while centroids still travel far: they are
/// kept once no more than this share of the rows moved in a pass.
const CALM_SHARE: f64 = 0.005;

/// Where more than this share of the rows must be looked at although they have bounds, these cost more than they save: then so many passes
/// are made without.
const UNSAFE_SHARE: f64 = 0.5;
const RESTING_PASSES: u32 = 4;

/// Rows that are read are put in the order of their bounds once so many passes' worth of them was read for nothing, because they shared a
/// tile with a row that had to be looked at: about what it costs to do so, and passes are the cheaper the fewer clusters there are.
fn waste_before_ordering(n_clusters: usize) -> f64 {
    1.0 + 6.0 / n_clusters as f64
}
/// The same of rows on disk, by how many were read: each block is read and written once more for it.
const WASTE_BEFORE_ORDERING_ON_DISK: f64 = 3.0;

/// Rows in order are not quite apart from the others: of what is read beyond the rows that had to be, so many times that is no waste.
const UNAVOIDABLE: f64 = 0.5;

/// Where no more than this share of a block's tiles can be doubtful, it is not read from end to end.
const MUCH: f64 = 0.1;

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
    n_unsafe: u64,
    /// Passes in a row that kept bounds; from the second on there are some to go by.
    n_bounded: u32,
    /// Passes to go before bounds are kept again.
    n_resting: u32,
    in_memory: Waste,
    on_disk: Waste,
    /// So much was wasted that rows should be put in order, now that the centroids have moved. Only where one candidate is left, for each would
    /// want another order.
    wants_order: Option<Reordering>,
}

/// Rows of one place that were read for nothing.
#[derive(Default)]
struct Waste {
    /// Rows there, since the centroids last moved.
    n_rows: u64,
    /// Since they were last put in order.
    n_wasted: f64,
}

/// Rows that should be put in the order of a candidate's bounds before a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reordering {
    in_memory: bool,
    on_disk: bool,
}

impl Reordering {
    /// Which rows of a block. Where a block is written anew, all of them are worth it.
    pub fn of_block(self, is_on_disk: bool) -> Option<Ordered> {
        match is_on_disk {
            true => self.on_disk.then_some(Ordered::All),
            false => self.in_memory.then_some(Ordered::TilesRead),
        }
    }
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

/// What a pass over one block did on behalf of one candidate.
pub struct Done {
    pub n_rows: usize,
    pub n_moved: u64,
    pub effort: Effort,
    /// Rows that were read from disk, if that is where the block is.
    pub n_read_on_disk: Option<u64>,
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
            let candidate = candidates
                .entry(*id)
                .or_insert_with(|| Candidate::new(cpu.travel(centroids.clone())));
            if candidate.travel.centroids() != centroids {
                let keeps_bounds = self.prunes && candidate.bounds_pay();
                candidate.wants_order = match ids {
                    [_] => candidate.should_be_ordered(),
                    _ => None,
                };
                Arc::make_mut(&mut candidate.travel).advance(centroids, keeps_bounds);
                (candidate.n_rows, candidate.n_moved, candidate.n_unsafe) = (0, 0, 0);
                (candidate.in_memory.n_rows, candidate.on_disk.n_rows) = (0, 0);
            }
        }
    }

    /// How far the centroids of a pass have come, if GPUs may go by that too: one candidate is left, and rows may be left out.
    pub fn travel_of_last(
        &self,
        ids: &[CandidateId],
        centroids: &[Centroids],
    ) -> Option<Arc<Travel>> {
        let ([id], [centroids], true) = (ids, centroids, self.prunes) else {
            return None;
        };
        let travel = self.lock().candidates.get(id)?.travel.clone();
        // Another pass may have begun meanwhile.
        (travel.centroids() == centroids).then_some(travel)
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

    /// Whether a pass for `ids` may well read much of a block.
    pub fn reads_much(&self, block: BlockId, ids: &[CandidateId]) -> bool {
        let state = self.lock();
        ids.iter().any(|id| {
            let candidate = state.candidates.get(id);
            let memory = candidate.and_then(|candidate| {
                let memory = candidate.blocks.get(&block)?.memory.as_ref()?;
                Some((memory, &candidate.travel))
            });
            memory.is_none_or(|(memory, travel)| memory.doubtful_share(travel) > MUCH)
        })
    }

    /// Puts back what a pass over a block has left of one candidate, and notes how calm it was and what it took.
    pub fn put(&self, block: BlockId, id: CandidateId, memory: BlockMemory, done: Done) {
        if let Some(candidate) = self.lock().candidates.get_mut(&id) {
            candidate.n_rows += done.n_rows as u64;
            candidate.n_moved += done.n_moved;
            candidate.n_unsafe += done.effort.n_unsafe_rows;
            let (place, n_read) = match done.n_read_on_disk {
                Some(n_read) => (&mut candidate.on_disk, n_read),
                None => {
                    let n_read = done.effort.n_tiles_read * LANES as u64;
                    (&mut candidate.in_memory, n_read)
                }
            };
            let n_needed = done.effort.n_unsafe_rows as f64 * (1.0 + UNAVOIDABLE);
            place.n_rows += done.n_rows as u64;
            place.n_wasted += (n_read as f64 - n_needed).max(0.0);
            if let Some(slot) = candidate.blocks.get_mut(&block) {
                slot.memory = Some(memory);
            }
        }
    }

    /// The candidate whose bounds rows should be put in order of before this pass, and which rows, if that is worth while.
    pub fn wants_order(&self) -> Option<(CandidateId, Reordering)> {
        let state = self.lock();
        let mut candidates = state.candidates.iter();
        candidates.find_map(|(id, candidate)| Some((*id, candidate.wants_order?)))
    }

    /// Puts the rows of a block in the order of the bounds of a candidate, as far as they are known.
    pub fn order(&self, id: CandidateId, block_id: BlockId, block: &mut Block, ordered: Ordered) {
        let taken = self.take(block_id, &[id], BLOCK_ROWS);
        for mut remembered in taken {
            remembered
                .memory
                .reorder(block, &remembered.travel, ordered);
            if let Some(candidate) = self.lock().candidates.get_mut(&id)
                && let Some(slot) = candidate.blocks.get_mut(&block_id)
            {
                slot.memory = Some(remembered.memory);
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
    fn new(travel: Travel) -> Self {
        Self {
            travel: Arc::new(travel),
            blocks: HashMap::new(),
            n_rows: 0,
            n_moved: 0,
            n_unsafe: 0,
            n_bounded: 0,
            n_resting: 0,
            in_memory: Waste::default(),
            on_disk: Waste::default(),
            wants_order: None,
        }
    }

    /// Where as much was wasted as ordering costs; then that is forgotten.
    fn should_be_ordered(&mut self) -> Option<Reordering> {
        let n_passes = waste_before_ordering(self.travel.centroids().n_clusters());
        let reordering = Reordering {
            in_memory: self.in_memory.is_above(n_passes),
            on_disk: self.on_disk.is_above(WASTE_BEFORE_ORDERING_ON_DISK),
        };
        (reordering.in_memory || reordering.on_disk).then_some(reordering)
    }

    /// Whether the next pass should keep bounds, going by the last.
    fn bounds_pay(&mut self) -> bool {
        let share = |n: u64| n as f64 / self.n_rows.max(1) as f64;
        if self.n_bounded > 1 && share(self.n_unsafe) > UNSAFE_SHARE {
            self.n_resting = RESTING_PASSES;
        }
        let is_calm = self.n_rows > 0 && share(self.n_moved) <= CALM_SHARE;
        let pay = is_calm && self.n_resting == 0;
        self.n_bounded = if pay { self.n_bounded + 1 } else { 0 };
        self.n_resting = self.n_resting.saturating_sub(1);
        pay
    }

    fn n_bytes(&self) -> u64 {
        self.blocks.values().map(|slot| slot.n_bytes).sum()
    }
}

impl Waste {
    /// Whether so many passes' worth of rows was wasted; then that is forgotten.
    fn is_above(&mut self, n_passes: f64) -> bool {
        let is_above = self.n_wasted > n_passes * self.n_rows as f64;
        if is_above {
            self.n_wasted = 0.0;
        }
        is_above
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether each of ten passes after the first keeps bounds, when `n_moved` of 1,000 rows move in each, and `n_unsafe` of those that have
    /// bounds must be looked at.
    fn kept(n_moved: u64, n_unsafe: u64) -> Vec<bool> {
        let cpu = CpuBackend::new();
        let mut candidate = Candidate::new(cpu.travel(Centroids::new(1, vec![0])));
        assert!(!candidate.bounds_pay(), "nothing is known yet");
        let passes = (0..10).map(|_| {
            candidate.n_rows = 1_000;
            candidate.n_moved = n_moved;
            candidate.n_unsafe = if candidate.n_bounded > 1 {
                n_unsafe
            } else {
                1_000
            };
            candidate.bounds_pay()
        });
        passes.collect()
    }

    #[test]
    fn bounds_are_kept_while_they_pay() {
        assert_eq!(kept(5, 100), [true; 10]);
        assert_eq!(kept(6, 100), [false; 10]);
        let rests = [
            true, true, false, false, false, false, true, true, false, false,
        ];
        assert_eq!(kept(5, 501), rests);
    }
}
