//! Blocks on the grid, in memory up to a budget and beyond it in a private file on local disk.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use clientele_kmeans::{Fragment, Outline};

use crate::DataError;
use crate::budget::Budget;
use crate::ingest::GridBlock;
use crate::manifest::BlockId;
use crate::spill::{Room, Spilled, encode, will_need};

/// Keeps blocks for as long as a run lasts; may be shared by many threads.
///
/// What does not fit is written to a file that has no name, so nothing is left behind whatever happens, and again only where its rows are
/// put in another order. It is read with positioned reads: a mapped file would count as memory of the process.
#[derive(Debug)]
pub struct BlockStore {
    budget: Arc<Budget>,
    spill_dir: PathBuf,
    state: Mutex<State>,
    /// A block has come back from [`BlockStore::reorder`].
    returned: Condvar,
    rooms: Rooms,
}

/// What blocks were read into serves the next ones: fresh memory costs more than reading. As many as were looked at at one time.
#[derive(Debug, Clone, Default)]
struct Rooms(Arc<Mutex<Vec<Room>>>);

impl Rooms {
    fn take(&self) -> Room {
        self.lock().pop().unwrap_or_default()
    }

    fn give_back(&self, room: Room) {
        self.lock().push(room);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Room>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
    /// In the hands of [`BlockStore::reorder`].
    Away,
}

impl Slot {
    fn resident_bytes(&self) -> usize {
        match self {
            Self::Resident(block) => block.size_bytes(),
            Self::Spilled(_) | Self::Away => 0,
        }
    }
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
        rooms: Rooms,
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
    fn drop(&mut self) {
        if let Holding::Read { block, rooms } = &mut self.0
            && let Some(block) = block.take()
        {
            let (tiles, keys) = block.block.into_parts();
            rooms.give_back(Room { tiles, keys });
        }
    }
}

/// Some tiles of a block of a store, for as long as they are looked at.
#[derive(Debug)]
pub struct HeldTiles {
    /// There until dropped.
    fragment: Option<Fragment>,
    n_tiles_read: usize,
    /// The rest of the room that it was read into.
    room: Room,
    rooms: Rooms,
}

impl HeldTiles {
    /// Tiles that were read, those between the ones asked for among them.
    pub fn n_tiles_read(&self) -> usize {
        self.n_tiles_read
    }
}

impl Deref for HeldTiles {
    type Target = Fragment;

    fn deref(&self) -> &Fragment {
        self.fragment.as_ref().expect("there until dropped")
    }
}

impl Drop for HeldTiles {
    fn drop(&mut self) {
        if let Some(fragment) = self.fragment.take() {
            let keys = std::mem::take(&mut self.room.keys);
            let tiles = fragment.into_lines();
            self.rooms.give_back(Room { tiles, keys });
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
            rooms: Rooms::default(),
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
        let encoded = encode(&block);
        let (file, offset) = self.reserve(encoded.1.n_bytes())?;
        let spilled = Spilled::write(file, offset, encoded).map_err(|e| self.unwritable(e))?;
        let slot = Slot::Spilled(Arc::new(spilled));
        self.lock().slots.insert(id, slot);
        Ok(())
    }

    fn unwritable(&self, error: std::io::Error) -> DataError {
        DataError::io("spill rows to", &self.spill_dir, error)
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
                let store = self;
                OnDisk { store, id, spilled }.read()
            }
            Some(Slot::Away) | None => Err(DataError::Unknown {
                what: "block",
                id: id.0,
            }),
        }
    }

    /// A block that is on disk, as it is there.
    pub fn on_disk(&self, id: BlockId) -> Option<OnDisk<'_>> {
        let spilled = self.spilled(id)?;
        Some(OnDisk {
            store: self,
            id,
            spilled,
        })
    }

    /// Whether a block is on disk.
    pub fn is_spilled(&self, id: BlockId) -> bool {
        self.spilled(id).is_some()
    }

    fn spilled(&self, id: BlockId) -> Option<Arc<Spilled>> {
        match self.lock().slots.get(&id) {
            Some(Slot::Spilled(spilled)) => Some(spilled.clone()),
            Some(Slot::Resident(_) | Slot::Away) | None => None,
        }
    }

    /// Puts the rows of a block into the order that `change` gives them, if nobody looks at it and, where it is on disk, they are cut in two;
    /// whoever wants to look at it meanwhile waits.
    ///
    /// # Errors
    /// As [`BlockStore::get`] and [`BlockStore::insert`], of a block on disk.
    pub fn reorder(
        &self,
        id: BlockId,
        change: impl FnOnce(&mut GridBlock),
    ) -> Result<(), DataError> {
        let mut state = self.lock();
        let taken = match state.slots.get_mut(&id) {
            None | Some(Slot::Away) => return Ok(()),
            Some(slot) => std::mem::replace(slot, Slot::Away),
        };
        drop(state);
        let mut guard = Return {
            store: self,
            id,
            resident_bytes: taken.resident_bytes(),
            slot: None,
        };
        let (slot, result) = match taken {
            Slot::Resident(mut block) => {
                if let Some(block) = Arc::get_mut(&mut block) {
                    change(block);
                }
                (Slot::Resident(block), Ok(()))
            }
            Slot::Spilled(mut spilled) => {
                let result = match Arc::get_mut(&mut spilled) {
                    // Rows that are packed have no room for where they were given.
                    Some(spilled) if spilled.outline().is_some() => {
                        self.reorder_spilled(id, spilled, change)
                    }
                    _ => Ok(()),
                };
                // If it was half written, its sum will say so.
                (Slot::Spilled(spilled), result)
            }
            Slot::Away => (Slot::Away, Ok(())),
        };
        guard.slot = Some(slot);
        result
    }

    fn reorder_spilled(
        &self,
        id: BlockId,
        spilled: &mut Spilled,
        change: impl FnOnce(&mut GridBlock),
    ) -> Result<(), DataError> {
        let mut block = spilled.read(id, self.rooms.take(), &self.spill_dir)?;
        let order_id = block.block.order_id();
        change(&mut block);
        let written = match block.block.order_id() == order_id {
            true => Ok(()),
            false => spilled
                .rewrite(&block)
                .map(|rewritten| *spilled = rewritten),
        };
        let (tiles, keys) = block.block.into_parts();
        self.rooms.give_back(Room { tiles, keys });
        written.map_err(|error| self.unwritable(error))
    }

    /// Lets the system read spilled blocks that will be asked for soon while others are computed on. Those that are in memory cost
    /// nothing, and no answer depends on it.
    pub fn read_ahead(&self, ids: &[BlockId]) {
        let spilled = ids.iter().filter_map(|id| self.spilled(*id));
        spilled.for_each(|spilled| will_need(&spilled));
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

/// A block on disk, whose rows stay where they are for as long as this is held.
#[derive(Debug)]
pub struct OnDisk<'a> {
    store: &'a BlockStore,
    id: BlockId,
    spilled: Arc<Spilled>,
}

impl OnDisk<'_> {
    /// What a pass must know of the rows, if tiles of them can be read alone: they are cut in two.
    pub fn outline(&self) -> Option<Outline> {
        self.spilled.outline()
    }

    /// All of the block.
    ///
    /// # Errors
    /// [`DataError::SpillDamaged`] when the file holds other bytes than were written; [`DataError::Io`].
    pub fn read(&self) -> Result<Held, DataError> {
        let rooms = self.store.rooms.clone();
        let spill_dir = &self.store.spill_dir;
        let block = Some(self.spilled.read(self.id, rooms.take(), spill_dir)?);
        Ok(Held(Holding::Read { block, rooms }))
    }

    /// Some tiles, given in order; `None` where it is quicker to read all, or they cannot be read alone.
    ///
    /// # Errors
    /// As [`OnDisk::read`].
    pub fn read_tiles(&self, tiles: &[usize]) -> Result<Option<HeldTiles>, DataError> {
        let rooms = self.store.rooms.clone();
        let spill_dir = &self.store.spill_dir;
        let room = rooms.take();
        let (fragment, n_tiles_read, room) =
            self.spilled.read_tiles(self.id, tiles, room, spill_dir)?;
        if fragment.is_none() {
            rooms.give_back(room);
            return Ok(None);
        }
        Ok(Some(HeldTiles {
            fragment,
            n_tiles_read,
            room,
            rooms,
        }))
    }
}

/// Ends a [`BlockStore::reorder`]; without a slot, since the change panicked, the block is forgotten.
struct Return<'a> {
    store: &'a BlockStore,
    id: BlockId,
    resident_bytes: usize,
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
                state.resident_bytes -= self.resident_bytes;
                self.store.budget.give_back(self.resident_bytes);
            }
        }
        drop(state);
        self.store.returned.notify_all();
    }
}

impl State {
    /// Forgets a block; the memory it took.
    fn remove(&mut self, id: BlockId) -> usize {
        let slot = self.slots.remove(&id);
        let size_bytes = slot.map_or(0, |slot| slot.resident_bytes());
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
    use crate::positioned::{read_exact_at, write_all_at};
    use bytemuck::cast_slice;
    use clientele_kmeans::{Block, GRID_LIMIT, LANES};

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
        let mut reordered = given.clone();
        reordered.block.reorder(&(0..100).rev().collect::<Vec<_>>());
        for given in [given.clone(), reordered, whole(given)] {
            let store = BlockStore::new(Budget::new(0), folder.path());
            let has_reserve = given
                .block
                .cut_rows()
                .is_some_and(|cut| cut.given.is_empty());
            store.insert(BlockId(4), given).unwrap();
            let file = store.lock().file.clone().unwrap();
            // Every part of it, the norms of its tiles and the padding of the last among them; what is kept free at the end is not read.
            let n_reserved = if has_reserve { 100 * 2 } else { 0 };
            for offset in 0..store.spilled_bytes() - n_reserved {
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
        store.reorder(BlockId(1), backwards).unwrap();
        assert_eq!(*looked_at, given);
        drop(looked_at);
        let bytes = store.resident_bytes();
        std::thread::scope(|scope| {
            scope.spawn(|| store.reorder(BlockId(1), backwards).unwrap());
            for _ in 0..50 {
                scope.spawn(|| assert_eq!(store.get(BlockId(1)).unwrap().block.n_rows(), 5_000));
            }
        });
        // Back again, unless somebody looked at it all the time.
        let back = |grid: &mut GridBlock| match grid.block.order_id() {
            0 => {}
            _ => backwards(grid),
        };
        store.reorder(BlockId(1), back).unwrap();
        let back = store.get(BlockId(1)).unwrap();
        let ends = [0, 4_999].map(|row| back.block.value(row, 1));
        assert_eq!(ends, [0, 4_999].map(|row| given.block.value(row, 1)));
        assert_eq!(back.block.keys(), given.block.keys());
        drop(back);
        assert_eq!(store.resident_bytes(), bytes);
        let panics =
            std::panic::AssertUnwindSafe(|| store.reorder(BlockId(1), |_| panic!("on purpose")));
        assert!(std::panic::catch_unwind(panics).is_err());
        assert!(store.get(BlockId(1)).is_err());
        assert_eq!(store.resident_bytes(), 0);
    }

    /// Tiles of a block that a pass might ask for: few, far apart, the first and the last among them.
    fn some_tiles(grid: &GridBlock) -> Vec<usize> {
        let n_tiles = grid.block.n_rows().div_ceil(LANES);
        vec![0, 1, n_tiles / 2, n_tiles - 1]
    }

    fn wide_block(n_features: usize) -> GridBlock {
        let n_rows = 50_001;
        let value = |i: usize| (i * 7_919 % 65_537) as i32 - 30_000;
        let values: Vec<i32> = (0..n_rows * n_features).map(value).collect();
        let keys = (0..n_rows as u64).collect();
        GridBlock {
            block: Block::from_rows(1, n_features, &values, keys).unwrap(),
            values: None,
            source_rows: None,
        }
    }

    #[test]
    fn tiles_are_read_alone_where_that_is_quicker() {
        let folder = tempfile::tempdir().unwrap();
        for n_features in [9, 32, 70] {
            let given = wide_block(n_features);
            let Some(cut) = given.block.cut_rows() else {
                return;
            };
            let store = BlockStore::new(Budget::new(0), folder.path());
            store.insert(BlockId(1), given.clone()).unwrap();
            let outline = store.on_disk(BlockId(1)).unwrap().outline();
            assert_eq!(outline, Some(given.block.outline()));
            let n_tiles = cut.frame.n_tiles();
            let tiles = some_tiles(&given);
            let on_disk = store.on_disk(BlockId(1)).unwrap();
            let some = on_disk.read_tiles(&tiles).unwrap().unwrap();
            assert_eq!(some.tiles(), tiles);
            let n_read = some.n_tiles_read();
            assert!((tiles.len()..n_tiles / 10).contains(&n_read), "{n_read}");
            let lines = some.lines();
            for &tile_idx in &tiles {
                for words in cut.frame.words_of(tile_idx..tile_idx + 1) {
                    // Some of them are no numbers as floats.
                    let bits = |lines: &[f32]| lines[words.clone()].to_vec();
                    let [found, given] = [lines, cut.lines].map(bits);
                    assert_eq!(
                        cast_slice::<f32, u32>(&found),
                        cast_slice::<f32, u32>(&given)
                    );
                }
            }
            drop(some);
            let every_tenth: Vec<usize> = (0..n_tiles).step_by(10).collect();
            assert!(on_disk.read_tiles(&every_tenth).unwrap().is_none());
            // Rows stay where they are for as long as somebody goes by that.
            store.reorder(BlockId(1), |_| panic!("it is held")).unwrap();
            assert_eq!(*store.get(BlockId(1)).unwrap(), given);
            // Blocks in memory, and packed ones, have no tiles to be read.
            let store = BlockStore::new(Budget::new(usize::MAX), folder.path());
            store.insert(BlockId(1), given.clone()).unwrap();
            assert!(store.on_disk(BlockId(1)).is_none());
            let store = BlockStore::new(Budget::new(0), folder.path());
            store.insert(BlockId(1), whole(given.clone())).unwrap();
            let packed = store.on_disk(BlockId(1)).unwrap();
            assert_eq!(packed.outline(), None);
            assert!(packed.read_tiles(&tiles).unwrap().is_none());
        }
    }

    #[test]
    fn one_flipped_bit_of_a_tile_is_noticed_by_whoever_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let given = wide_block(9);
        let Some(cut) = given.block.cut_rows() else {
            return;
        };
        let store = BlockStore::new(Budget::new(0), folder.path());
        store.insert(BlockId(1), given.clone()).unwrap();
        let file = store.lock().file.clone().unwrap();
        let tiles = some_tiles(&given);
        let read_with_flip = |offset: u64| {
            let mut byte = [0];
            read_exact_at(&file, &mut byte, offset).unwrap();
            write_all_at(&file, &[byte[0] ^ 4], offset).unwrap();
            let read = store.on_disk(BlockId(1)).unwrap().read_tiles(&tiles);
            let read = read.map(|_| ());
            write_all_at(&file, &byte, offset).unwrap();
            read
        };
        let norms = cut.lines.len()..cut.lines.len() + cut.frame.n_norms();
        let of_tiles = tiles.iter().map(|&tile| cut.frame.words_of(tile..tile + 1));
        let read = of_tiles.flatten().chain([norms]);
        for words in read {
            for word in [words.start, words.end - 1] {
                let refused = read_with_flip(word as u64 * 4 + 1).unwrap_err();
                assert!(
                    matches!(refused, DataError::SpillDamaged { block: BlockId(1) }),
                    "{refused}"
                );
            }
        }
        // What is not read is not noticed.
        let far = cut
            .frame
            .words_of(cut.frame.n_tiles() / 4..cut.frame.n_tiles());
        read_with_flip(far[0].start as u64 * 4).unwrap();
    }

    #[test]
    fn rows_on_disk_change_places_where_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let given = wide_block(9);
        if given.block.cut_rows().is_none() {
            return;
        }
        let store = BlockStore::new(Budget::new(0), folder.path());
        store.insert(BlockId(1), given.clone()).unwrap();
        store.insert(BlockId(2), given.clone()).unwrap();
        let n_bytes = store.spilled_bytes();
        let mut order: Vec<u16> = (0..50_001).map(|row| row as u16).collect();
        order.chunks_mut(4_096).for_each(<[u16]>::reverse);
        let mut expected = given.clone();
        expected.block.reorder(&order);
        for turn in [1, 2] {
            store
                .reorder(BlockId(1), |grid| grid.block.reorder(&order))
                .unwrap();
            store.reorder(BlockId(2), |_| ()).unwrap();
            let found = store.get(BlockId(1)).unwrap();
            let [found_rows, expected_rows] = [&*found, &expected].map(|grid| {
                let rows = (0..50_001).step_by(997);
                rows.map(|row| grid.block.value(row, 3)).collect::<Vec<_>>()
            });
            match turn {
                1 => assert_eq!((&*found, found_rows), (&expected, expected_rows)),
                _ => assert_eq!(found.block.keys(), given.block.keys()),
            }
            let mut keys = found.block.keys().to_vec();
            found.block.put_as_given(&mut keys);
            assert_eq!(keys, given.block.keys());
            let order_id = found.block.order_id();
            drop(found);
            // Found by the same name until they are put in order again.
            assert_eq!(store.get(BlockId(1)).unwrap().block.order_id(), order_id);
            assert_eq!(*store.get(BlockId(2)).unwrap(), given);
            let outline = store.on_disk(BlockId(1)).unwrap().outline();
            let block = &store.get(BlockId(1)).unwrap().block;
            assert!(outline.is_none_or(|outline| outline == block.outline()));
        }
        assert_eq!(store.spilled_bytes(), n_bytes);
        // Packed rows stay where they are.
        let packed = whole(given);
        store.insert(BlockId(1), packed.clone()).unwrap();
        store
            .reorder(BlockId(1), |grid| grid.block.reorder(&order))
            .unwrap();
        assert_eq!(*store.get(BlockId(1)).unwrap(), packed);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn rows_that_cannot_be_written_in_order_are_an_error_and_never_wrong_rows() {
        let folder = tempfile::tempdir().unwrap();
        let given = wide_block(9);
        if given.block.cut_rows().is_none() {
            return;
        }
        let store = BlockStore::new(Budget::new(0), folder.path());
        store.insert(BlockId(1), given.clone()).unwrap();
        // The same file, through a handle that may only read it.
        let own = store.lock().file.clone().unwrap();
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&*own));
        let read_only = Arc::new(File::open(path).unwrap());
        if let Some(Slot::Spilled(spilled)) = store.lock().slots.get_mut(&BlockId(1)) {
            Arc::get_mut(spilled).unwrap().file = read_only;
        }
        let order: Vec<u16> = (0..50_001).map(|row| (row as u16) ^ 1).collect();
        let mut order = order;
        order[50_000] = 50_000;
        let refused = store
            .reorder(BlockId(1), |grid| grid.block.reorder(&order))
            .unwrap_err();
        assert!(refused.to_string().contains("spill rows to"), "{refused}");
        assert_eq!(*store.get(BlockId(1)).unwrap(), given);
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
