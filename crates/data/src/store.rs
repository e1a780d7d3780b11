//! Blocks on the grid, in memory up to a budget and beyond it in a private file on local disk.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::DataError;
use crate::budget::Budget;
use crate::ingest::GridBlock;
use crate::manifest::BlockId;
use crate::positioned::write_all_at;
use crate::spill::{Room, Spilled, encode, will_need};

/// Keeps blocks for as long as a run lasts; may be shared by many threads.
///
/// What does not fit is written once to a file that has no name, so nothing is left behind whatever happens, and read with
/// positioned reads: a mapped file would count as memory of the process.
#[derive(Debug)]
pub struct BlockStore {
    budget: Arc<Budget>,
    spill_dir: PathBuf,
    state: Mutex<State>,
    /// A block has come back from [`BlockStore::modify`].
    returned: Condvar,
    /// As many as blocks that were looked at at one time.
    rooms: Arc<Mutex<Vec<Room>>>,
}

#[derive(Debug, Default)]
struct State {
    slots: BTreeMap<BlockId, Slot>,
    resident_bytes: usize,
    file: Option<Arc<File>>,
    /// Bytes of the file that are given away.
    spilled_bytes: u64,
}

#[derive(Debug, Clone)]
enum Slot {
    Resident(Arc<GridBlock>),
    Spilled(Arc<Spilled>),
    /// In the hands of [`BlockStore::modify`].
    Away,
}

/// A block of a store, for as long as it is looked at.
#[derive(Debug)]
pub struct Held(Holding);

#[derive(Debug)]
enum Holding {
    Resident(Arc<GridBlock>),
    Read {
        /// There until dropped.
        block: Option<GridBlock>,
        rooms: Arc<Mutex<Vec<Room>>>,
    },
}

impl Deref for Held {
    type Target = GridBlock;

    fn deref(&self) -> &GridBlock {
        match &self.0 {
            Holding::Resident(block) => block,
            Holding::Read { block, .. } => block.as_ref().expect("there until dropped"),
        }
    }
}

impl Drop for Held {
    /// What a block was read into serves the next one: fresh memory costs more than decoding.
    fn drop(&mut self) {
        if let Holding::Read { block, rooms } = &mut self.0
            && let Some(block) = block.take()
        {
            let (tiles, keys) = block.block.into_parts();
            let mut rooms = rooms.lock().unwrap_or_else(PoisonError::into_inner);
            rooms.push(Room { tiles, keys });
        }
    }
}

impl BlockStore {
    /// Keeps blocks in memory while there is `budget`; the rest goes to a file in `spill_dir`, made when first needed.
    pub fn new(budget: Arc<Budget>, spill_dir: &Path) -> Self {
        let state = Mutex::default();
        Self {
            budget,
            spill_dir: spill_dir.into(),
            state,
            returned: Condvar::new(),
            rooms: Arc::default(),
        }
    }

    /// Keeps a block, in place of an earlier one of the same id.
    ///
    /// # Errors
    /// [`DataError::DiskFull`] or [`DataError::Io`] when it has to be spilled and cannot be.
    pub fn insert(&self, id: BlockId, block: GridBlock) -> Result<(), DataError> {
        let size_bytes = block.size_bytes();
        {
            let mut state = self.lock();
            self.budget.give_back(state.remove(id));
            if self.budget.take(size_bytes) {
                state.resident_bytes += size_bytes;
                state.slots.insert(id, Slot::Resident(Arc::new(block)));
                return Ok(());
            }
        }
        let (pieces, shape) = encode(&block);
        let (file, offset) = self.reserve(shape.n_bytes())?;
        let mut end = offset;
        for piece in pieces {
            write_all_at(&file, &piece, end)
                .map_err(|error| DataError::io("spill rows to", &self.spill_dir, error))?;
            end += piece.len() as u64;
        }
        let spilled = Slot::Spilled(Arc::new(Spilled {
            file,
            offset,
            shape,
        }));
        self.lock().slots.insert(id, spilled);
        Ok(())
    }

    /// A block, from memory or disk; a spilled one is read anew each time.
    ///
    /// # Errors
    /// [`DataError::Unknown`] for a block never inserted; [`DataError::SpillDamaged`] when the file holds other bytes than were
    /// written; [`DataError::Io`].
    pub fn get(&self, id: BlockId) -> Result<Held, DataError> {
        let is_away = |state: &mut State| matches!(state.slots.get(&id), Some(Slot::Away));
        let state = self.returned.wait_while(self.lock(), is_away);
        let state = state.unwrap_or_else(PoisonError::into_inner);
        let slot = state.slots.get(&id).cloned();
        drop(state);
        match slot {
            Some(Slot::Resident(block)) => Ok(Held(Holding::Resident(block))),
            Some(Slot::Spilled(spilled)) => {
                let rooms = self.rooms.clone();
                let room = rooms.lock().unwrap_or_else(PoisonError::into_inner).pop();
                let block = spilled.read(id, room.unwrap_or_default(), &self.spill_dir)?;
                let block = Some(block);
                Ok(Held(Holding::Read { block, rooms }))
            }
            Some(Slot::Away) | None => Err(DataError::Unknown {
                what: "block",
                id: id.0,
            }),
        }
    }

    /// Changes a block in place, its size excepted, if it is in memory and nobody looks at it; whoever wants to meanwhile waits.
    pub fn modify(&self, id: BlockId, change: impl FnOnce(&mut GridBlock)) {
        let mut state = self.lock();
        let Some(slot @ Slot::Resident(_)) = state.slots.get_mut(&id) else {
            return;
        };
        let Slot::Resident(block) = std::mem::replace(slot, Slot::Away) else {
            return;
        };
        drop(state);
        let mut guard = Return {
            store: self,
            id,
            size_bytes: block.size_bytes(),
            slot: None,
        };
        let mut block = block;
        if let Some(block) = Arc::get_mut(&mut block) {
            change(block);
        }
        guard.slot = Some(Slot::Resident(block));
    }

    /// Lets the system read spilled blocks that will be asked for soon while others are computed on. Those that are in memory cost
    /// nothing, and no answer depends on it.
    pub fn read_ahead(&self, ids: &[BlockId]) {
        let spilled: Vec<Arc<Spilled>> = {
            let state = self.lock();
            let slots = ids.iter().filter_map(|id| state.slots.get(id));
            let spilled = slots.filter_map(|slot| match slot {
                Slot::Resident(_) | Slot::Away => None,
                Slot::Spilled(spilled) => Some(spilled.clone()),
            });
            spilled.collect()
        };
        spilled.iter().for_each(|spilled| will_need(spilled));
    }

    /// Whether the block is here.
    pub fn contains(&self, id: BlockId) -> bool {
        self.lock().slots.contains_key(&id)
    }

    /// Bytes of blocks in memory.
    pub fn resident_bytes(&self) -> usize {
        self.lock().resident_bytes
    }

    /// Bytes written to disk.
    pub fn spilled_bytes(&self) -> u64 {
        self.lock().spilled_bytes
    }

    fn reserve(&self, n_bytes: u64) -> Result<(Arc<File>, u64), DataError> {
        let mut state = self.lock();
        let file = match &state.file {
            Some(file) => file.clone(),
            None => {
                let file = tempfile::tempfile_in(&self.spill_dir).map_err(|error| {
                    DataError::io("make a spill file in", &self.spill_dir, error)
                })?;
                state.file.insert(Arc::new(file)).clone()
            }
        };
        let offset = state.spilled_bytes;
        state.spilled_bytes += n_bytes;
        Ok((file, offset))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is one assignment or insertion, so a thread that panicked has left nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a [`BlockStore::modify`]; without a slot, since the change panicked, the block is forgotten.
struct Return<'a> {
    store: &'a BlockStore,
    id: BlockId,
    size_bytes: usize,
    slot: Option<Slot>,
}

impl Drop for Return<'_> {
    fn drop(&mut self) {
        let mut state = self.store.lock();
        match self.slot.take() {
            Some(slot) => {
                state.slots.insert(self.id, slot);
            }
            None => {
                state.slots.remove(&self.id);
                state.resident_bytes -= self.size_bytes;
                self.store.budget.give_back(self.size_bytes);
            }
        }
        drop(state);
        self.store.returned.notify_all();
    }
}

impl State {
    /// Forgets a block; the memory it took.
    fn remove(&mut self, id: BlockId) -> usize {
        let size_bytes = match self.slots.remove(&id) {
            Some(Slot::Resident(block)) => block.size_bytes(),
            _ => 0,
        };
        self.resident_bytes -= size_bytes;
        size_bytes
    }
}

impl Drop for BlockStore {
    fn drop(&mut self) {
        self.budget.give_back(self.lock().resident_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::positioned::read_exact_at;
    use clientele_kmeans::{Block, GRID_LIMIT};

    fn block(id: u32, n_rows: usize, has_rest: bool) -> GridBlock {
        let limit = GRID_LIMIT - 1;
        let value = |i: usize| match i % 5 {
            0 => limit,
            1 => -limit,
            _ => (i * 7_919 % 65_537) as i32 - 30_000,
        };
        let values: Vec<i32> = (0..n_rows * 3).map(value).collect();
        let keys = (0..n_rows as u64).map(|i| u64::MAX - i * 31).collect();
        GridBlock {
            block: Block::from_rows(id.into(), 3, &values, keys).unwrap(),
            values: has_rest.then(|| (0..n_rows as i64).map(|i| i64::MIN + i).collect()),
            source_rows: has_rest.then(|| (0..n_rows as u32).map(|i| i * 2).collect()),
        }
    }

    /// The same rows, not cut in two.
    fn whole(grid: GridBlock) -> GridBlock {
        GridBlock {
            block: grid.block.into_whole(),
            ..grid
        }
    }

    fn cut_norms(grid: &GridBlock) -> Option<Vec<f32>> {
        grid.block.cut_rows().map(|cut| cut.norms.concat())
    }

    /// Of each shape one as it is on this processor and one that is whole.
    fn blocks() -> Vec<GridBlock> {
        let shapes = [
            (1, true),
            (40_000, false),
            (0, true),
            (16, true),
            (17, false),
        ];
        let both = (0..).step_by(2).zip(shapes);
        both.flat_map(|(id, (n_rows, has_rest))| {
            let make = |id| block(id, n_rows, has_rest);
            [make(id), whole(make(id + 1))]
        })
        .collect()
    }

    #[test]
    fn blocks_come_back_the_same_whatever_the_budget() {
        let folder = tempfile::tempdir().unwrap();
        let blocks = blocks();
        for budget_bytes in [0, 500, usize::MAX] {
            let store = BlockStore::new(Budget::new(budget_bytes), folder.path());
            for (id, block) in (0..).map(BlockId).zip(&blocks) {
                store.insert(id, block.clone()).unwrap();
            }
            assert!(store.resident_bytes() <= budget_bytes);
            assert_eq!(store.spilled_bytes() > 0, budget_bytes < usize::MAX);
            std::thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| {
                        store.read_ahead(&[BlockId(2), BlockId(1), BlockId(77)]);
                        for (id, block) in (0..).map(BlockId).zip(&blocks) {
                            let read = store.get(id).unwrap();
                            assert_eq!(*read, *block);
                            assert_eq!(read.block.tile_norms(), block.block.tile_norms());
                            if let Some(norms) = cut_norms(block) {
                                assert_eq!(cut_norms(&read), Some(norms));
                            }
                        }
                    });
                }
            });
        }
        assert_eq!(
            std::fs::read_dir(folder.path()).unwrap().count(),
            0,
            "the file has no name"
        );
    }

    #[test]
    fn a_block_inserted_again_replaces_the_first_and_its_memory() {
        let folder = tempfile::tempdir().unwrap();
        let store = BlockStore::new(Budget::new(1 << 20), folder.path());
        store.insert(BlockId(1), block(1, 100, false)).unwrap();
        let bytes = store.resident_bytes();
        store.insert(BlockId(1), block(1, 100, false)).unwrap();
        assert_eq!(store.resident_bytes(), bytes);
    }

    #[test]
    fn stores_share_one_budget_and_give_back_what_they_took() {
        let folder = tempfile::tempdir().unwrap();
        let size_bytes = block(1, 100, false).size_bytes();
        let budget = Budget::new(size_bytes);
        let first = BlockStore::new(budget.clone(), folder.path());
        let second = BlockStore::new(budget.clone(), folder.path());
        first.insert(BlockId(1), block(1, 100, false)).unwrap();
        second.insert(BlockId(1), block(1, 100, false)).unwrap();
        assert_eq!(
            (first.spilled_bytes() > 0, second.spilled_bytes() > 0),
            (false, true)
        );
        drop(first);
        assert_eq!(budget.free_bytes(), size_bytes);
        second.insert(BlockId(2), block(2, 100, false)).unwrap();
        assert_eq!(second.resident_bytes(), size_bytes);
    }

    #[test]
    fn one_flipped_bit_on_disk_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let given = block(4, 100, true);
        for given in [given.clone(), whole(given)] {
            let store = BlockStore::new(Budget::new(0), folder.path());
            store.insert(BlockId(4), given).unwrap();
            let file = store.lock().file.clone().unwrap();
            // Every part of it, the norms of its tiles and the padding of the last among them.
            for offset in 0..store.spilled_bytes() {
                let mut byte = [0];
                read_exact_at(&file, &mut byte, offset).unwrap();
                write_all_at(&file, &[byte[0] ^ 4], offset).unwrap();
                let refused = store.get(BlockId(4)).unwrap_err();
                assert!(
                    matches!(refused, DataError::SpillDamaged { block: BlockId(4) }),
                    "{refused}"
                );
                write_all_at(&file, &byte, offset).unwrap();
            }
            store.get(BlockId(4)).unwrap();
        }
    }

    #[test]
    fn a_block_is_changed_in_place_unless_somebody_looks_at_it() {
        let folder = tempfile::tempdir().unwrap();
        let given = block(1, 5_000, false);
        let store = BlockStore::new(Budget::new(usize::MAX), folder.path());
        store.insert(BlockId(1), given.clone()).unwrap();
        let backwards = |grid: &mut GridBlock| {
            let mut order: Vec<u16> = (0..5_000).collect();
            order.chunks_mut(4_096).for_each(<[u16]>::reverse);
            grid.block.reorder(&order);
        };
        let looked_at = store.get(BlockId(1)).unwrap();
        store.modify(BlockId(1), backwards);
        assert_eq!(*looked_at, given);
        drop(looked_at);
        let bytes = store.resident_bytes();
        std::thread::scope(|scope| {
            scope.spawn(|| store.modify(BlockId(1), backwards));
            for _ in 0..50 {
                scope.spawn(|| assert_eq!(store.get(BlockId(1)).unwrap().block.n_rows(), 5_000));
            }
        });
        // Back again, unless somebody looked at it all the time.
        store.modify(BlockId(1), |grid| match grid.block.order_id() {
            0 => {}
            _ => backwards(grid),
        });
        let back = store.get(BlockId(1)).unwrap();
        let ends = [0, 4_999].map(|row| back.block.value(row, 1));
        assert_eq!(ends, [0, 4_999].map(|row| given.block.value(row, 1)));
        assert_eq!(back.block.keys(), given.block.keys());
        drop(back);
        assert_eq!(store.resident_bytes(), bytes);
        let panics =
            std::panic::AssertUnwindSafe(|| store.modify(BlockId(1), |_| panic!("on purpose")));
        assert!(std::panic::catch_unwind(panics).is_err());
        assert!(store.get(BlockId(1)).is_err());
        assert_eq!(store.resident_bytes(), 0);
    }

    #[test]
    fn a_block_that_is_not_there_is_an_error() {
        let store = BlockStore::new(Budget::new(0), Path::new("."));
        assert!(matches!(
            store.get(BlockId(9)),
            Err(DataError::Unknown { id: 9, .. })
        ));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_said_to_be_full() {
        let store = BlockStore::new(Budget::new(0), Path::new("/tmp"));
        let full = File::options()
            .read(true)
            .write(true)
            .open("/dev/full")
            .unwrap();
        store.lock().file = Some(Arc::new(full));
        let refused = store.insert(BlockId(0), block(0, 10, false)).unwrap_err();
        assert!(matches!(refused, DataError::DiskFull { .. }), "{refused}");
        assert_eq!(refused.kind(), ErrorKind::Transient);
        assert!(!store.contains(BlockId(0)));
    }
}
