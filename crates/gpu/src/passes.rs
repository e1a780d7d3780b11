//! The passes that are open on the device, as its thread sees them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use clientele_kmeans::cpu::TravelUnits;
use clientele_kmeans::{BackendError, Centroids};

use crate::candidate::Packed;
use crate::device::Gpu;
use crate::memory::{Effort, Memory};
use crate::pipeline::assign::{AssignPipelines, Batch, Meeting};
use crate::pipeline::plan::{self, Group};
use crate::pipeline::remember::{self, RememberPipelines};
use crate::pipeline::transfer::{Download, Pool, Staging};
use crate::residency::{Kept, Residency, Shared};
use crate::settle::Settled;
use crate::shaders::AssignShape;
use crate::slots::Slots;

/// Below this a smaller cut frees no memory worth a retry.
const MIN_CUT_BYTES: u64 = 1 << 20;

/// What a pass is opened for.
pub(crate) struct Opening {
    pub n_features: usize,
    pub candidates: Vec<Centroids>,
    pub packed: Vec<Packed>,
    /// Rows of the one block whose labels are wanted.
    pub label_rows: Option<usize>,
    /// How far the centroids of the one candidate have come, if what earlier passes left behind may be used.
    pub travel: Option<TravelUnits>,
}

/// Where rows are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Arena(u32),
    /// In an arena, with what earlier passes have left behind.
    Remembered(u32),
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
    /// Blocks of which not all pieces have arrived.
    pub arriving: Vec<(u64, Kept)>,
    /// Resident blocks that wait for the end of the pass, to be gone over with what is remembered of them.
    pub postponed: Vec<u64>,
    /// For each arena, where the sums of the blocks that were gone over so begin.
    pub remembered: Vec<(u32, Vec<u32>)>,
    pub effort: Effort,
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
    pub(super) remember: RememberPipelines,
    pub(super) memory: Memory,
    pub(super) pool: Pool,
    pub(super) download: Download,
    pub(super) residency: Residency,
    pub(super) slots: Slots,
    pub(super) staging: Staging,
    open: BTreeMap<u64, OpenPass>,
    next_id: u64,
    /// Bytes of a buffer, at most: what can be bound, and less when memory ran out.
    pub(super) cut_bytes: u64,
    is_software: bool,
}

impl Passes {
    /// Nothing is open.
    pub fn new(
        gpu: Gpu,
        assign: AssignPipelines,
        remember: RememberPipelines,
        shared: Arc<Shared>,
        is_software: bool,
    ) -> Self {
        Self {
            memory: Memory::new(shared.clone()),
            remember,
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
    pub fn begin(&mut self, mut opening: Opening) -> Result<u64, BackendError> {
        opening.travel = opening
            .travel
            .filter(|travel| self.memory.is_wanted(travel))
            .map(|travel| self.gpu.shorten_if_armed(travel));
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
        if opening.travel.is_some() {
            self.remember.prepare(&self.gpu, opening.n_features)?;
        }
        let id = self.next_id;
        self.next_id += 1;
        let pass = OpenPass {
            shape,
            settled: Settled::new(&opening.candidates),
            opening,
            batches,
            table,
            placed: Vec::new(),
            arriving: Vec::new(),
            postponed: Vec::new(),
            remembered: Vec::new(),
            effort: Effort::default(),
            failed: None,
        };
        self.open.insert(id, pass);
        Ok(id)
    }

    /// Goes over resident blocks, an arena at a time. What goes wrong, the pass remembers.
    pub fn run_resident(&mut self, pass: u64, serials: &[u64]) {
        let _ = self.with_pass(pass, |this, pass| {
            if pass.opening.travel.is_some() {
                pass.postponed.extend(serials);
                return Ok(());
            }
            this.run_plain(pass, serials)
        });
    }

    /// Goes over resident blocks as they are.
    pub(super) fn run_plain(
        &mut self,
        pass: &mut OpenPass,
        serials: &[u64],
    ) -> Result<(), BackendError> {
        let mut by_arena: BTreeMap<u32, Vec<Group>> = BTreeMap::new();
        for &serial in serials {
            let kept = self.residency.find(serial).ok_or_else(put_out)?;
            let groups = by_arena.entry(kept.arena).or_default();
            groups.extend(plan::groups(&pass.shape, kept.first_tile, 0, kept.n_rows));
        }
        for (arena, groups) in by_arena {
            self.run(pass, Place::Arena(arena), &groups)?;
        }
        Ok(())
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
        self.memory.forget();
        self.residency.retain(serials);
    }

    /// From now on, passes meet `fault`.
    pub fn arm(&mut self, fault: crate::Fault) {
        self.gpu.arm(fault);
        self.assign.recompile();
        self.remember.recompile();
    }

    /// Forgets a pass.
    pub fn abandon(&mut self, pass: u64) {
        if let Ok(pass) = self.take(pass) {
            self.release(pass);
        }
    }

    pub(super) fn release(&mut self, pass: OpenPass) {
        for (_, kept) in pass.arriving {
            self.residency.abandon(kept);
        }
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
            Place::Arena(arena) | Place::Remembered(arena) => self.residency.buffers(arena),
            Place::Slot(slot) => self.slots.buffers(slot),
        };
        let rows = rows.ok_or_else(put_out)?;
        if let (Place::Remembered(arena), Some(travel)) = (place, &pass.opening.travel) {
            let meeting = remember::Meeting {
                rows: &rows,
                memory: self.memory.buffers(arena).ok_or_else(put_out)?,
                table: &pass.table,
                groups,
                candidate: &pass.opening.packed[0].for_device,
                travel,
            };
            return self.remember.dispatch(&self.gpu, batch, &meeting);
        }
        let meeting = Meeting {
            rows: &rows,
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
                opening.label_rows.unwrap_or(0),
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

    /// Gives up what can be done without, and cuts finer from now on. Whether that is worth a retry.
    pub(super) fn make_room(&mut self) -> bool {
        self.pool.release();
        self.staging.release();
        self.download.release();
        self.memory.give_up();
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

/// What a pass counted on is gone.
pub(super) fn put_out() -> BackendError {
    BackendError::OutOfMemory {
        reason: "rows that were on the device had to make room".to_owned(),
    }
}
