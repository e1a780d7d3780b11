//! The passes that are open on the device, as its thread sees them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use clientele_kmeans::{BackendError, Centroids, LANES};

use crate::candidate::Packed;
use crate::device::Gpu;
use crate::pipeline::assign::{AssignPipelines, Batch, Meeting, RowBuffers};
use crate::pipeline::plan::{self, Group};
use crate::pipeline::transfer::{Download, Pool, Staging};
use crate::residency::{Kept, Residency, Shared};
use crate::settle::Settled;
use crate::shaders::AssignShape;
use crate::slots::Slots;

/// Bytes of rows that go over in one piece, at most.
const PIECE_BYTES: u64 = 32 << 20;

/// Below this a smaller cut frees no memory worth a retry.
const MIN_CUT_BYTES: u64 = 1 << 20;

/// What a pass is opened for.
pub(crate) struct Opening {
    pub n_features: usize,
    pub candidates: Vec<Centroids>,
    pub packed: Vec<Packed>,
    /// Rows of the one block whose labels are wanted.
    pub label_rows: Option<usize>,
}

/// A block that asks for room to put rows into.
pub(crate) struct RoomRequest {
    pub pass: u64,
    pub serial: u64,
    pub n_rows: usize,
    pub n_features: usize,
    /// Whether its rows are to stay on the device, if there is room.
    pub wants_to_stay: bool,
    /// Where the pieces before this one went.
    pub target: Option<Target>,
    /// Tiles in the pieces before this one.
    pub n_done_tiles: usize,
}

/// A mapped buffer for some tiles of a block: first their values, then their norms.
pub(crate) struct Room {
    pub staging: wgpu::Buffer,
    pub tiles: Range<usize>,
    pub target: Target,
    serial: u64,
    n_rows: usize,
}

/// Where rows go.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    /// They stay.
    Arena(Kept),
    /// They are used once.
    Slot,
}

/// Where rows are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Arena(u32),
    Slot(usize),
}

/// One pass.
pub(super) struct OpenPass {
    pub shape: AssignShape,
    pub opening: Opening,
    pub batches: Vec<Batch>,
    table: wgpu::Buffer,
    /// The groups in the table, since the last drain.
    pub placed: Vec<(Place, Group)>,
    /// Rows the device was not sure of, as far as they have been fetched.
    pub settled: Settled,
    failed: Option<BackendError>,
}

impl OpenPass {
    /// Groups the table has room for.
    pub fn capacity(&self) -> usize {
        self.batches
            .iter()
            .map(|b| b.plan.n_groups)
            .min()
            .unwrap_or(usize::MAX)
    }
}

/// Everything on the device.
pub(crate) struct Passes {
    pub gpu: Rc<Gpu>,
    pub(super) assign: AssignPipelines,
    pub(super) pool: Pool,
    pub(super) download: Download,
    pub(super) residency: Residency,
    pub(super) slots: Slots,
    staging: Staging,
    open: BTreeMap<u64, OpenPass>,
    next_id: u64,
    /// Bytes of a buffer, at most: what can be bound, and less when memory ran out.
    cut_bytes: u64,
    is_software: bool,
}

impl Passes {
    /// Nothing is open.
    pub fn new(gpu: Gpu, assign: AssignPipelines, shared: Arc<Shared>, is_software: bool) -> Self {
        Self {
            cut_bytes: gpu.binding_bytes,
            gpu: Rc::new(gpu),
            assign,
            pool: Pool::default(),
            download: Download::default(),
            residency: Residency::new(shared),
            slots: Slots::default(),
            staging: Staging::default(),
            open: BTreeMap::new(),
            next_id: 0,
            is_software,
        }
    }

    /// Brings the candidates over. When device memory runs out, makes room and tries again.
    pub fn begin(&mut self, opening: Opening) -> Result<u64, BackendError> {
        let shape = AssignShape {
            n_features: opening.n_features,
            wants_labels: opening.label_rows.is_some(),
        };
        let (batches, table) = loop {
            match self.buffers_of(&opening) {
                Err(BackendError::OutOfMemory { .. }) if self.make_room() => {}
                other => break other?,
            }
        };
        self.assign.prepare(&self.gpu, &shape)?;
        let id = self.next_id;
        self.next_id += 1;
        let pass = OpenPass {
            shape,
            settled: Settled::new(&opening.candidates),
            opening,
            batches,
            table,
            placed: Vec::new(),
            failed: None,
        };
        self.open.insert(id, pass);
        Ok(id)
    }

    /// A buffer to fill with the next piece of a block. `None`: all are with others who fill theirs.
    pub fn room(&mut self, request: &mut RoomRequest) -> Result<Option<Room>, BackendError> {
        let pass = request.pass;
        self.with_pass(pass, |this, pass| {
            let cut_bytes = this.cut_bytes;
            let target = *request.target.get_or_insert_with(|| {
                let kept = request.wants_to_stay.then(|| {
                    let (serial, n_rows) = (request.serial, request.n_rows);
                    this.residency
                        .reserve(&this.gpu, cut_bytes, serial, n_rows, request.n_features)
                });
                kept.flatten().map_or(Target::Slot, Target::Arena)
            });
            loop {
                let begin = request.n_done_tiles;
                let n_tiles = this.piece_tiles(&pass.shape, PIECE_BYTES);
                let end = (begin + n_tiles).min(request.n_rows.div_ceil(LANES));
                let n_bytes = (end - begin) as u64 * (tile_bytes(request.n_features) + 4);
                match this.staging.lend(&this.gpu, n_bytes) {
                    Err(BackendError::OutOfMemory { .. }) if this.make_room() => {}
                    lent => {
                        return Ok(lent?.map(|staging| Room {
                            staging,
                            tiles: begin..end,
                            target,
                            serial: request.serial,
                            n_rows: request.n_rows,
                        }));
                    }
                }
            }
        })
    }

    /// Copies what was filled in to where it goes, and goes over it. What goes wrong, the pass remembers.
    pub fn filled(&mut self, pass: u64, room: Room) {
        room.staging.unmap();
        let done = self.with_pass(pass, |this, pass_state| match room.target {
            Target::Arena(kept) => this.keep(pass, pass_state, &room, kept),
            Target::Slot => this.stream(pass, pass_state, &room),
        });
        if let (Err(_), Target::Arena(kept)) = (done, room.target) {
            self.residency.abandon(kept);
        }
        let last_use = self.gpu.queue.submit([]);
        self.staging.take_back(room.staging, last_use);
    }

    /// Goes over resident blocks, an arena at a time. What goes wrong, the pass remembers.
    pub fn run_resident(&mut self, pass: u64, serials: &[u64]) {
        let _ = self.with_pass(pass, |this, pass| {
            let mut by_arena: BTreeMap<u32, Vec<Group>> = BTreeMap::new();
            for &serial in serials {
                let kept = this.residency.find(serial).ok_or_else(put_out)?;
                let groups = by_arena.entry(kept.arena).or_default();
                groups.extend(plan::groups(&pass.shape, kept.first_tile, 0, kept.n_rows));
            }
            for (arena, groups) in by_arena {
                this.run(pass, Place::Arena(arena), &groups)?;
            }
            Ok(())
        });
    }

    /// Takes a pass that is to be finished or abandoned.
    pub(super) fn take(&mut self, pass: u64) -> Result<OpenPass, BackendError> {
        let mut pass = self
            .open
            .remove(&pass)
            .ok_or_else(|| BackendError::DeviceLost {
                reason: "the pass is not open".to_owned(),
            })?;
        match pass.failed.take() {
            None => Ok(pass),
            Some(error) => {
                self.release(pass);
                Err(error)
            }
        }
    }

    /// Forgets all resident blocks but these.
    pub fn retain(&mut self, serials: &std::collections::BTreeSet<u64>) {
        self.residency.retain(serials);
    }

    /// From now on, passes meet `fault`.
    pub fn arm(&mut self, fault: crate::Fault) {
        self.gpu.arm(fault);
        self.assign.recompile();
    }

    /// Forgets a pass.
    pub fn abandon(&mut self, pass: u64) {
        if let Ok(pass) = self.take(pass) {
            self.release(pass);
        }
    }

    pub(super) fn release(&mut self, pass: OpenPass) {
        pass.batches
            .into_iter()
            .for_each(|batch| batch.release(&mut self.pool));
        self.pool.put(pass.table);
    }

    /// Runs `work` for a pass, unless it has failed, and remembers if it fails now.
    pub(super) fn with_pass<T>(
        &mut self,
        id: u64,
        work: impl FnOnce(&mut Self, &mut OpenPass) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        let mut pass = self.open.remove(&id).ok_or_else(put_out)?;
        let result = match &pass.failed {
            Some(error) => Err(error.clone()),
            None => {
                let gpu = self.gpu.clone();
                gpu.guarded(|| work(self, &mut pass))
            }
        };
        if let Err(error) = &result {
            pass.failed = Some(error.clone());
        }
        self.open.insert(id, pass);
        result
    }

    /// Goes over groups at one place on behalf of all candidates.
    pub(super) fn run(
        &mut self,
        pass: &mut OpenPass,
        place: Place,
        groups: &[Group],
    ) -> Result<(), BackendError> {
        let mut rest = groups;
        while !rest.is_empty() {
            if pass.placed.len() >= pass.capacity() {
                self.drain(pass)?;
            }
            let (now, later) = rest.split_at(rest.len().min(pass.capacity() - pass.placed.len()));
            let placed = self.place(pass, place, now);
            for batch in &pass.batches {
                let candidates = 0..batch.plan.candidates.len();
                self.meet(pass, batch, place, placed.clone(), candidates)?;
            }
            rest = later;
        }
        Ok(())
    }

    /// Puts groups into the pass's table.
    pub(super) fn place(
        &self,
        pass: &mut OpenPass,
        place: Place,
        groups: &[Group],
    ) -> Range<usize> {
        let begin = pass.placed.len();
        let offset = (begin * size_of::<Group>()) as u64;
        self.gpu
            .queue
            .write_buffer(&pass.table, offset, bytemuck::cast_slice(groups));
        pass.placed
            .extend(groups.iter().map(|group| (place, *group)));
        begin..pass.placed.len()
    }

    /// Groups of the table meet candidates of one batch.
    pub(super) fn meet(
        &self,
        pass: &OpenPass,
        batch: &Batch,
        place: Place,
        groups: Range<usize>,
        candidates: Range<usize>,
    ) -> Result<(), BackendError> {
        let rows = match place {
            Place::Arena(arena) => self.residency.buffers(arena),
            Place::Slot(slot) => self.slots.buffers(slot),
        };
        let meeting = Meeting {
            rows: &rows.ok_or_else(put_out)?,
            table: &pass.table,
            groups,
            candidates,
            label_stride: pass.opening.label_rows.unwrap_or(0),
        };
        self.assign
            .dispatch(&self.gpu, &pass.shape, batch, &meeting)
    }

    fn buffers_of(
        &mut self,
        opening: &Opening,
    ) -> Result<(Vec<Batch>, wgpu::Buffer), BackendError> {
        let gpu = self.gpu.clone();
        let candidates: Vec<_> = opening
            .packed
            .iter()
            .map(|p| p.for_device.clone())
            .collect();
        gpu.guarded(|| {
            let plans = plan::batches(
                &candidates,
                opening.n_features,
                self.cut_bytes,
                self.is_software,
            );
            let n_groups = plans.iter().map(|p| p.n_groups).min().unwrap_or(1);
            let table_bytes = (n_groups * size_of::<Group>()) as u64;
            let table = self.pool.take(&gpu, "groups", table_bytes)?;
            let batch =
                |plan| Batch::new(&gpu, &mut self.pool, plan, &candidates, opening.label_rows);
            Ok((
                plans.into_iter().map(batch).collect::<Result<_, _>>()?,
                table,
            ))
        })
    }

    /// Rows that stay: copied to their arena, and gone over when the last piece is there.
    fn keep(
        &mut self,
        _id: u64,
        pass: &mut OpenPass,
        room: &Room,
        kept: Kept,
    ) -> Result<(), BackendError> {
        let buffers = self.residency.buffers(kept.arena).ok_or_else(put_out)?;
        self.copy(
            room,
            room.tiles.clone(),
            &buffers,
            kept.first_tile + room.tiles.start,
            kept.n_features,
        )?;
        if room.tiles.end == kept.n_rows.div_ceil(LANES) {
            self.residency.complete(room.serial, kept);
            let groups: Vec<Group> =
                plan::groups(&pass.shape, kept.first_tile, 0, kept.n_rows).collect();
            self.run(pass, Place::Arena(kept.arena), &groups)?;
        }
        Ok(())
    }

    /// Rows that are used once: copied to a slot, in smaller pieces if need be, and gone over.
    fn stream(&mut self, id: u64, pass: &mut OpenPass, room: &Room) -> Result<(), BackendError> {
        let n_features = pass.opening.n_features;
        let mut begin = room.tiles.start;
        while begin < room.tiles.end {
            self.settle_next_slot(id, pass)?;
            let n_tiles = self
                .piece_tiles(&pass.shape, self.cut_bytes)
                .min(room.tiles.end - begin);
            let slot = match self
                .slots
                .prepare(&self.gpu, n_tiles, tile_bytes(n_features))
            {
                Err(BackendError::OutOfMemory { .. }) if self.make_room() => continue,
                prepared => prepared?,
            };
            let buffers = self.slots.buffers(slot).ok_or_else(put_out)?;
            self.copy(room, begin..begin + n_tiles, &buffers, 0, n_features)?;
            let first_row = begin * LANES;
            let n_rows = (n_tiles * LANES).min(room.n_rows - first_row);
            let groups: Vec<Group> = plan::groups(&pass.shape, 0, first_row, n_rows).collect();
            self.run(pass, Place::Slot(slot), &groups)?;
            self.slots.watch(&self.gpu, slot, id, &pass.batches)?;
            begin += n_tiles;
        }
        Ok(())
    }

    /// Before a slot is filled anew, the groups in it that found no room in the list are done again.
    fn settle_next_slot(&mut self, id: u64, pass: &mut OpenPass) -> Result<(), BackendError> {
        let Some((owner, needs_drain)) = self.slots.settle_next(&self.gpu)? else {
            return Ok(());
        };
        match (needs_drain, owner == id) {
            (false, _) => Ok(()),
            (true, true) => self.drain(pass),
            // Whatever goes wrong there is that pass's business, and it remembers.
            (true, false) => {
                let _ = self.with_pass(owner, Self::drain);
                Ok(())
            }
        }
    }

    /// Copies tiles of a staging buffer to the tiles from `first_tile` on of rows on the device.
    fn copy(
        &self,
        room: &Room,
        tiles: Range<usize>,
        to: &RowBuffers,
        first_tile: usize,
        n_features: usize,
    ) -> Result<(), BackendError> {
        let tile_bytes = tile_bytes(n_features);
        let n_staged = room.tiles.len() as u64;
        let (skipped, n) = ((tiles.start - room.tiles.start) as u64, tiles.len() as u64);
        let mut encoder = self.gpu.encoder("rows");
        let to_tile = first_tile as u64;
        let source = &room.staging;
        encoder.copy_buffer_to_buffer(
            source,
            skipped * tile_bytes,
            &to.tiles,
            to_tile * tile_bytes,
            n * tile_bytes,
        );
        let norms = n_staged * tile_bytes + 4 * skipped;
        encoder.copy_buffer_to_buffer(source, norms, &to.norms, 4 * to_tile, 4 * n);
        self.gpu.submit(encoder).map(drop)
    }

    /// Tiles of a piece of at most `n_bytes`: whole groups, at least one.
    fn piece_tiles(&self, shape: &AssignShape, n_bytes: u64) -> usize {
        let group_tiles = shape.group_rows() / LANES;
        let n_fitting = n_bytes.min(self.cut_bytes) / tile_bytes(shape.n_features);
        let n_groups = usize::try_from(n_fitting).unwrap_or(usize::MAX) / group_tiles;
        n_groups.max(1) * group_tiles
    }

    /// Gives up what can be done without, and cuts finer from now on. Whether that is worth a retry.
    fn make_room(&mut self) -> bool {
        self.pool.release();
        self.staging.release();
        self.download.release();
        let had_rows = self.residency.release();
        if !had_rows && self.cut_bytes <= MIN_CUT_BYTES {
            return false;
        }
        // What was let go is only freed when nothing uses it any more.
        if self.gpu.wait().is_err() {
            return false;
        }
        self.cut_bytes = (self.cut_bytes / 2).max(MIN_CUT_BYTES.min(self.cut_bytes));
        tracing::debug!(self.cut_bytes, "out of device memory, cutting finer");
        true
    }
}

/// Bytes of a tile's values.
fn tile_bytes(n_features: usize) -> u64 {
    (LANES * n_features * size_of::<f32>()) as u64
}

/// What a pass counted on is gone.
fn put_out() -> BackendError {
    BackendError::OutOfMemory {
        reason: "rows that were on the device had to make room".to_owned(),
    }
}
