//! What passes leave behind on the device: of each row its label and how long it may keep it unseen, of each block its sums.
//!
//! Sums are those of the rows at the labels they have here, whatever centroids these come from; a pass moves the rows whose label has changed
//! from sum to sum. So labels and sums never become wrong, and bounds do when they are of another epoch of the [`TravelUnits`] they
//! were made with: then all rows are looked at. Droppable at any time.

use std::collections::BTreeMap;
use std::sync::Arc;

use clientele_kmeans::cpu::TravelUnits;
use clientele_kmeans::{BackendError, Centroids, LANES};

use crate::device::Gpu;
use crate::passes::{OpenPass, Passes, Place, put_out};
use crate::pipeline::plan::{Group, MAX_SLAB_CLUSTERS, to_u32};
use crate::pipeline::remember::{RememberedGroup, State};
use crate::pipeline::transfer::ON_DEVICE;
use crate::residency::{Residency, Shared};

/// Centroids that move by more than this share of the widest gap leave too few rows alone for it to pay.
const CALM_SHARE: f64 = 0.02;

/// Where more than one row in so many must be looked at, a plain pass is as fast: nearly every line of 16 values has one of them.
const ROWS_A_LOOK: u64 = 8;

/// Plain passes until it is tried again.
const N_RESTS: u32 = 4;

/// Words of a tile: a mark a row, and a bound that counts where a group begins.
const TILE_WORDS: usize = LANES + 1;

/// What passes that remember have done, and what they have left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Remembered {
    /// Passes.
    pub n_passes: u64,
    /// Groups of up to 512 rows that they were for.
    pub n_groups: u64,
    /// Groups of which more was read than one number.
    pub n_groups_looked_at: u64,
    /// Rows that they were for.
    pub n_rows: u64,
    /// Rows whose values were read.
    pub n_rows_looked_at: u64,
}

impl Remembered {
    /// Adds what other passes have done.
    pub(crate) fn add(&mut self, other: &Self) {
        self.n_passes += other.n_passes;
        self.n_groups += other.n_groups;
        self.n_groups_looked_at += other.n_groups_looked_at;
        self.n_rows += other.n_rows;
        self.n_rows_looked_at += other.n_rows_looked_at;
    }
}

/// What one pass has done.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Effort {
    done: Remembered,
    /// Rows of which nothing was known, or no bound that holds.
    n_new_rows: u64,
}

impl Effort {
    /// Adds what the head of a list says.
    pub fn add_head(&mut self, head: &[u32]) {
        self.done.n_groups_looked_at += u64::from(head[3]);
        self.done.n_rows_looked_at += u64::from(head[4]);
    }

    /// Whether so many rows had to be looked at, of those that there were bounds for, that a plain pass would have been as fast.
    fn is_wasted(&self) -> bool {
        let n_known = self.done.n_rows - self.n_new_rows;
        let n_looked_at = self.done.n_rows_looked_at.saturating_sub(self.n_new_rows);
        n_looked_at * ROWS_A_LOOK > n_known
    }
}

/// Whether passes with these centroids can remember: duplicates leave no gap between them, a single one needs no pass, and too many do not fit
/// the memory of a workgroup.
pub(crate) fn can_remember(centroids: &Centroids) -> bool {
    let mut rows: Vec<&[i32]> = centroids.rows().collect();
    rows.sort_unstable();
    (2..=MAX_SLAB_CLUSTERS).contains(&rows.len()) && rows.windows(2).all(|pair| pair[0] != pair[1])
}

/// Of the blocks of one arena.
#[derive(Debug, Clone)]
pub(crate) struct MemoryBuffers {
    /// [n_tiles x LANES] marks of rows, then [n_tiles] bounds of groups.
    pub marks: wgpu::Buffer,
    /// [n_blocks x n_cells] integers of 64 bits.
    pub sums: wgpu::Buffer,
    /// Where in `marks` the bounds begin.
    pub first_bound: usize,
}

struct ArenaMemory {
    buffers: MemoryBuffers,
    /// By serial.
    blocks: BTreeMap<u64, BlockMemory>,
}

struct BlockMemory {
    /// Where in `sums` its own begin.
    first_cell: usize,
    /// Epoch and steps of its bounds; none before the first pass.
    last: Option<(u64, u64)>,
}

impl BlockMemory {
    fn state(&self, travel: &TravelUnits) -> State {
        match self.last {
            None => State::Unknown,
            Some((epoch, n_steps)) if epoch == travel.epoch && n_steps <= travel.n_steps => {
                State::Known
            }
            Some(_) => State::Stale,
        }
    }
}

/// The memory of the candidate that was last asked for.
pub(crate) struct Memory {
    shared: Arc<Shared>,
    n_clusters: usize,
    n_features: usize,
    arenas: BTreeMap<u32, ArenaMemory>,
    /// The device had none left.
    lacks_room: bool,
    n_rests: u32,
}

impl Memory {
    /// Nothing yet.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            n_clusters: 0,
            n_features: 0,
            arenas: BTreeMap::new(),
            lacks_room: false,
            n_rests: 0,
        }
    }

    /// Whether a pass after these moves should remember.
    pub fn is_wanted(&mut self, travel: &TravelUnits) -> bool {
        if self.shared.always_remembers() {
            return !self.lacks_room;
        }
        if self.lacks_room || travel.last_share > CALM_SHARE {
            return false;
        }
        let rests = self.n_rests > 0;
        self.n_rests = self.n_rests.saturating_sub(1);
        !rests
    }

    /// What a pass has done, which says whether the next should do it again.
    pub fn note(&mut self, effort: &Effort) {
        if effort.done.n_rows > 0 {
            // Those of the self-test are not worth a word.
            if !self.shared.always_remembers() {
                tracing::debug!(done = ?effort.done, "a GPU pass left rows out");
            }
            self.shared.note_remembered(&effort.done);
            if effort.is_wasted() {
                self.n_rests = N_RESTS;
            }
        }
    }

    /// Whether it is of candidates of this shape. If not, it will be when a few plain passes have gone by: fits side by side must not take
    /// it from each other in every pass.
    fn is_for(&mut self, (n_clusters, n_features): (usize, usize)) -> bool {
        let is_same = (n_clusters, n_features) == (self.n_clusters, self.n_features);
        let is_free = self.arenas.is_empty();
        if !is_same {
            self.forget();
            (self.n_clusters, self.n_features) = (n_clusters, n_features);
            self.n_rests = if is_free { 0 } else { N_RESTS };
        }
        is_same || is_free
    }

    /// Forgets everything.
    pub fn forget(&mut self) {
        self.arenas.clear();
        self.lacks_room = false;
        self.n_rests = 0;
    }

    /// Forgets everything, and remembers nothing more before it is told to forget again.
    pub fn give_up(&mut self) {
        self.forget();
        self.lacks_room = true;
    }

    /// The buffers of an arena.
    pub fn buffers(&self, arena: u32) -> Option<&MemoryBuffers> {
        self.arenas.get(&arena).map(|memory| &memory.buffers)
    }

    /// Sums and numbers of rows of a block.
    fn n_cells(&self) -> usize {
        self.n_clusters * (self.n_features + 1)
    }

    /// Makes room for what is remembered of some blocks of an arena. Whether there is room.
    fn prepare(
        &mut self,
        gpu: &Gpu,
        residency: &Residency,
        cut_bytes: u64,
        arena: u32,
        serials: &[u64],
    ) -> Result<bool, BackendError> {
        let has_all = self
            .arenas
            .get(&arena)
            .is_some_and(|memory| serials.iter().all(|s| memory.blocks.contains_key(s)));
        if has_all {
            return Ok(true);
        }
        self.arenas.remove(&arena);
        let (n_tiles, own) = residency.arena(arena).ok_or_else(put_out)?;
        let marks_bytes = (4 * TILE_WORDS * n_tiles) as u64;
        let sums_bytes = (8 * self.n_cells() * own.len()) as u64;
        let held = self.arenas.values().map(|memory| &memory.buffers);
        let held_bytes: u64 = held.map(|b| b.marks.size() + b.sums.size()).sum();
        let wanted_bytes = self.shared.held_bytes() + held_bytes + marks_bytes + sums_bytes;
        if marks_bytes.max(sums_bytes) > cut_bytes || wanted_bytes > self.shared.limit_bytes() {
            return Ok(false);
        }
        let buffer = |label, n_bytes| gpu.create_buffer(label, n_bytes, ON_DEVICE, false);
        let buffers = match (buffer("marks", marks_bytes), buffer("sums", sums_bytes)) {
            (Ok(marks), Ok(sums)) => MemoryBuffers {
                marks,
                sums,
                first_bound: LANES * n_tiles,
            },
            (Err(BackendError::OutOfMemory { .. }), _)
            | (_, Err(BackendError::OutOfMemory { .. })) => return Ok(false),
            (Err(error), _) | (_, Err(error)) => return Err(error),
        };
        let firsts = (0..).step_by(self.n_cells());
        let blocks = own.into_iter().zip(firsts).map(|(serial, first_cell)| {
            let last = None;
            (serial, BlockMemory { first_cell, last })
        });
        let blocks = blocks.collect();
        self.arenas.insert(arena, ArenaMemory { buffers, blocks });
        Ok(true)
    }
}

impl Passes {
    /// Goes over the resident blocks of a pass that remembers. What goes wrong, the pass remembers.
    pub(super) fn run_postponed(&mut self, pass: u64) {
        let _ = self.with_pass(pass, |this, pass| {
            let serials = std::mem::take(&mut pass.postponed);
            let Some(travel) = pass.opening.travel.clone() else {
                return Ok(());
            };
            let centroids = &pass.opening.candidates[0];
            let shape = (centroids.n_clusters(), centroids.n_features());
            if !this.memory.is_for(shape) {
                return this.run_plain(pass, &serials);
            }
            let mut by_arena: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
            for serial in serials {
                let kept = this.residency.find(serial).ok_or_else(put_out)?;
                by_arena.entry(kept.arena).or_default().push(serial);
            }
            for (arena, serials) in by_arena {
                let (gpu, residency) = (this.gpu.clone(), &this.residency);
                let has_room =
                    this.memory
                        .prepare(&gpu, residency, this.cut_bytes, arena, &serials)?;
                if has_room {
                    this.run_remembering(pass, &travel, arena, &serials)?;
                } else {
                    this.memory.lacks_room = true;
                    this.run_plain(pass, &serials)?;
                }
            }
            Ok(())
        });
    }

    fn run_remembering(
        &mut self,
        pass: &mut OpenPass,
        travel: &TravelUnits,
        arena: u32,
        serials: &[u64],
    ) -> Result<(), BackendError> {
        let memory = self.memory.arenas.get_mut(&arena).ok_or_else(put_out)?;
        let mut groups: Vec<Group> = Vec::new();
        let mut first_cells = Vec::with_capacity(serials.len());
        for serial in serials {
            let kept = self.residency.find(*serial).ok_or_else(put_out)?;
            let block = memory.blocks.get_mut(serial).ok_or_else(put_out)?;
            let state = block.state(travel);
            block.last = Some((travel.epoch, travel.n_steps));
            let first_cell = to_u32(block.first_cell);
            first_cells.push(first_cell);
            groups.extend(RememberedGroup::cut(
                kept.first_tile,
                kept.n_rows,
                first_cell,
                state,
            ));
            let n_rows = kept.n_rows as u64;
            pass.effort.done.n_rows += n_rows;
            pass.effort.n_new_rows += if state == State::Known { 0 } else { n_rows };
        }
        pass.effort.done.n_passes = 1;
        pass.effort.done.n_groups += groups.len() as u64;
        pass.remembered.push((arena, first_cells));
        self.run(pass, Place::Remembered(arena), &groups)
    }

    /// The sums of all blocks of the pass that were gone over with what is remembered of them.
    pub(super) fn gather(&mut self, pass: &OpenPass) -> Result<Option<wgpu::Buffer>, BackendError> {
        if pass.remembered.is_empty() {
            return Ok(None);
        }
        let n_cells = self.memory.n_cells();
        let gathered = self.pool.take(&self.gpu, "gathered", 8 * n_cells as u64)?;
        let mut encoder = self.gpu.encoder("clear gathered");
        encoder.clear_buffer(&gathered, 0, Some(8 * n_cells as u64));
        self.gpu.submit(encoder)?;
        for (arena, blocks) in &pass.remembered {
            let sums = &self.memory.buffers(*arena).ok_or_else(put_out)?.sums;
            let list = self
                .pool
                .take(&self.gpu, "blocks", 4 * blocks.len() as u64)?;
            self.gpu
                .queue
                .write_buffer(&list, 0, bytemuck::cast_slice(blocks));
            self.remember
                .gather(&self.gpu, n_cells, &list, blocks.len(), sums, &gathered)?;
            self.pool.put(list);
        }
        Ok(Some(gathered))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn travel(epoch: u64, n_steps: u64, last_share: f64) -> TravelUnits {
        TravelUnits {
            epoch,
            n_steps,
            unit: 1.0,
            of_cluster: vec![(0, 0); 2],
            most: 0,
            last_share,
        }
    }

    #[test]
    fn only_calm_centroids_are_worth_remembering_and_waste_is_followed_by_a_rest() {
        let mut memory = Memory::new(Arc::default());
        assert!(!memory.is_wanted(&travel(1, 0, f64::INFINITY)));
        assert!(!memory.is_wanted(&travel(1, 1, 0.1)));
        let calm = travel(1, 2, 0.002);
        assert!(memory.is_wanted(&calm));
        let mut effort = Effort::default();
        effort.done.n_rows = 1_000;
        // Rows that nothing was known of say nothing.
        effort.n_new_rows = 600;
        effort.add_head(&[0, 0, 0, 2, 600 + 50]);
        memory.note(&effort);
        assert!(memory.is_wanted(&calm));
        effort.add_head(&[0, 0, 0, 2, 1]);
        memory.note(&effort);
        assert_eq!(
            [(); 5].map(|()| memory.is_wanted(&calm)),
            [false, false, false, false, true]
        );
        assert_eq!(memory.shared.remembered().n_rows_looked_at, 650 + 651);
        memory.give_up();
        assert!(!memory.is_wanted(&calm));
        memory.forget();
        assert!(memory.is_wanted(&calm));
    }

    #[test]
    fn bounds_hold_for_their_own_epoch_and_not_before_they_were_made() {
        let state = |last, travel| {
            BlockMemory {
                first_cell: 0,
                last,
            }
            .state(&travel)
        };
        assert_eq!(state(None, travel(3, 5, 0.0)), State::Unknown);
        assert_eq!(state(Some((3, 5)), travel(3, 5, 0.0)), State::Known);
        assert_eq!(state(Some((3, 5)), travel(3, 9, 0.0)), State::Known);
        assert_eq!(state(Some((3, 5)), travel(3, 4, 0.0)), State::Stale);
        assert_eq!(state(Some((3, 5)), travel(4, 9, 0.0)), State::Stale);
    }

    #[test]
    fn twins_singles_and_crowds_are_not_remembered() {
        let of = |values: Vec<i32>| can_remember(&Centroids::new(1, values));
        assert!(of(vec![3, 1, 2]) && of((0..256).collect()));
        assert!(!of(vec![3, 1, 3]) && !of(vec![3]) && !of((0..257).collect()));
    }
}
