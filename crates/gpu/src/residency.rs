//! Rows that stay on the device from pass to pass.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use clientele_kmeans::{BackendError, LANES};

use crate::device::Gpu;
use crate::memory::Remembered;
use crate::pipeline::assign::RowBuffers;
use crate::pipeline::transfer::ON_DEVICE;

/// The first arena; each further one is as large as all before it together, up to what can be bound at once.
const FIRST_ARENA_BYTES: u64 = 32 << 20;

/// Rows of many blocks in one pair of buffers, so that one dispatch goes over all of them.
struct Arena {
    id: u32,
    n_features: usize,
    n_tiles: usize,
    n_used_tiles: usize,
    /// Blocks on their way here.
    n_pending: usize,
    buffers: RowBuffers,
    n_bytes: u64,
}

/// Where a block's rows are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kept {
    pub arena: u32,
    pub first_tile: usize,
    pub n_rows: usize,
    pub n_features: usize,
}

/// First come, first kept: a pass goes over the same blocks in the same order each time, and throwing out the least recently used
/// would throw out just the one that comes next.
pub(crate) struct Residency {
    arenas: Vec<Arena>,
    next_id: u32,
    kept: BTreeMap<u64, Kept>,
    shared: Arc<Shared>,
}

/// What callers see without asking the device thread.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    state: Mutex<SharedState>,
}

#[derive(Debug, Default)]
struct SharedState {
    serials: BTreeSet<u64>,
    held_bytes: u64,
    limit_bytes: u64,
    remembered: Remembered,
    always_remembers: bool,
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, SharedState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the rows of this block are on the device.
    pub fn contains(&self, serial: u64) -> bool {
        self.state().serials.contains(&serial)
    }

    /// Bytes of rows held, in buffers that may have room for more.
    pub fn held_bytes(&self) -> u64 {
        self.state().held_bytes
    }

    /// Bytes that may be held.
    pub fn limit_bytes(&self) -> u64 {
        self.state().limit_bytes
    }

    /// What passes that remember have done.
    pub fn remembered(&self) -> Remembered {
        self.state().remembered
    }

    /// Adds what one of them has done.
    pub fn note_remembered(&self, pass: &Remembered) {
        self.state().remembered.add(pass);
    }

    /// Begins to count anew.
    pub fn clear_remembered(&self) {
        self.state().remembered = Remembered::default();
    }

    /// Whether passes remember also where it does not pay.
    pub fn always_remembers(&self) -> bool {
        self.state().always_remembers
    }

    /// From now on they do, or do not.
    pub fn set_always_remembers(&self, always_remembers: bool) {
        self.state().always_remembers = always_remembers;
    }

    /// Holds no more than this from now on; what is held stays.
    pub fn set_limit_bytes(&self, limit_bytes: u64) {
        self.state().limit_bytes = limit_bytes;
    }
}

impl Residency {
    /// Nothing yet.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self {
            arenas: Vec::new(),
            next_id: 0,
            kept: BTreeMap::new(),
            shared,
        }
    }

    /// Room for a block. `None`: it does not fit, or is there already.
    pub fn reserve(
        &mut self,
        gpu: &Gpu,
        cut_bytes: u64,
        serial: u64,
        n_rows: usize,
        n_features: usize,
    ) -> Option<Kept> {
        let n_tiles = n_rows.div_ceil(LANES);
        if self.kept.contains_key(&serial) {
            return None;
        }
        let has_room = |arena: &Arena| {
            arena.n_features == n_features && arena.n_tiles - arena.n_used_tiles >= n_tiles
        };
        if !self.arenas.iter().any(has_room) {
            self.add_arena(gpu, cut_bytes, n_tiles, n_features)?;
        }
        let arena = self.arenas.iter_mut().find(|arena| has_room(arena))?;
        let kept = Kept {
            arena: arena.id,
            first_tile: arena.n_used_tiles,
            n_rows,
            n_features,
        };
        arena.n_used_tiles += n_tiles;
        arena.n_pending += 1;
        Some(kept)
    }

    /// The block's rows are all submitted: from now on others may use them.
    pub fn complete(&mut self, serial: u64, kept: Kept) {
        self.abandon(kept);
        self.kept.insert(serial, kept);
        self.shared.state().serials.insert(serial);
    }

    /// The block's rows are not coming; the room is lost until its arena goes.
    pub fn abandon(&mut self, kept: Kept) {
        if let Some(arena) = self.arenas.iter_mut().find(|a| a.id == kept.arena) {
            arena.n_pending = arena.n_pending.saturating_sub(1);
        }
    }

    /// Where a block is.
    pub fn find(&self, serial: u64) -> Option<Kept> {
        self.kept.get(&serial).copied()
    }

    /// The buffers of an arena.
    pub fn buffers(&self, arena: u32) -> Option<RowBuffers> {
        let found = self.arenas.iter().find(|a| a.id == arena);
        found.map(|arena| arena.buffers.clone())
    }

    /// Tiles that an arena has room for, and the blocks in it.
    pub fn arena(&self, arena: u32) -> Option<(usize, Vec<u64>)> {
        let found = self.arenas.iter().find(|a| a.id == arena)?;
        let own = self.kept.iter().filter(|(_, kept)| kept.arena == arena);
        Some((found.n_tiles, own.map(|(serial, _)| *serial).collect()))
    }

    /// Forgets all blocks but these. Memory goes back an arena at a time, when none of its blocks is left.
    pub fn retain(&mut self, serials: &BTreeSet<u64>) {
        self.kept.retain(|serial, _| serials.contains(serial));
        let used: BTreeSet<u32> = self.kept.values().map(|kept| kept.arena).collect();
        self.arenas
            .retain(|arena| used.contains(&arena.id) || arena.n_pending > 0);
        self.publish();
    }

    /// Forgets everything and holds half as much from now on: the device has no memory left for the work itself.
    pub fn release(&mut self) -> bool {
        let held_bytes = self.shared.held_bytes();
        self.shared.set_limit_bytes(held_bytes / 2);
        self.kept.clear();
        self.arenas.clear();
        self.publish();
        held_bytes > 0
    }

    /// Halves what it asks for until the device grants it.
    fn add_arena(
        &mut self,
        gpu: &Gpu,
        cut_bytes: u64,
        n_tiles: usize,
        n_features: usize,
    ) -> Option<()> {
        let tile_bytes = (LANES * n_features * size_of::<f32>()) as u64;
        let needed = n_tiles as u64 * tile_bytes;
        let held_bytes = self.shared.held_bytes();
        let left = self.shared.limit_bytes().saturating_sub(held_bytes);
        let mut n_bytes = held_bytes.max(FIRST_ARENA_BYTES).min(cut_bytes).min(left);
        while n_bytes >= needed {
            let n_tiles = n_bytes / tile_bytes;
            match Self::buffers_of(gpu, n_tiles, tile_bytes) {
                Ok(buffers) => {
                    self.arenas.push(Arena {
                        id: self.next_id,
                        n_features,
                        n_tiles: usize::try_from(n_tiles).unwrap_or(usize::MAX),
                        n_used_tiles: 0,
                        n_pending: 0,
                        buffers,
                        n_bytes: n_tiles * tile_bytes,
                    });
                    self.next_id += 1;
                    self.publish();
                    return Some(());
                }
                Err(BackendError::OutOfMemory { .. }) => n_bytes /= 2,
                Err(_) => return None,
            }
        }
        if left >= needed && cut_bytes >= needed {
            tracing::debug!(
                held_bytes,
                "device memory is full; further rows are brought over anew in each pass"
            );
            self.shared.set_limit_bytes(held_bytes);
        }
        None
    }

    fn buffers_of(gpu: &Gpu, n_tiles: u64, tile_bytes: u64) -> Result<RowBuffers, BackendError> {
        Ok(RowBuffers {
            tiles: gpu.create_buffer("resident rows", n_tiles * tile_bytes, ON_DEVICE, false)?,
            norms: gpu.create_buffer("resident norms", n_tiles * 4, ON_DEVICE, false)?,
        })
    }

    fn publish(&self) {
        let mut state = self.shared.state();
        state.serials = self.kept.keys().copied().collect();
        state.held_bytes = self.arenas.iter().map(|arena| arena.n_bytes).sum();
    }
}
