//! Bringing rows over: to where they stay, or to where they are used once.

use std::ops::Range;

use clientele_kmeans::{BackendError, LANES};

use crate::passes::{OpenPass, Passes, Place, put_out};
use crate::pipeline::assign::RowBuffers;
use crate::pipeline::plan::{self, Group};
use crate::residency::Kept;
use crate::shaders::AssignShape;

/// Bytes of rows that go over in one piece, at most.
const PIECE_BYTES: u64 = 32 << 20;

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

impl Passes {
    /// A buffer to fill with the next piece of a block. `None`: all are with others who fill theirs.
    pub fn room(&mut self, request: &mut RoomRequest) -> Result<Option<Room>, BackendError> {
        let pass = request.pass;
        self.with_pass(pass, |this, pass| {
            let cut_bytes = this.cut_bytes;
            let mut target = *request.target.get_or_insert_with(|| {
                let kept = request.wants_to_stay.then(|| {
                    let (serial, n_rows) = (request.serial, request.n_rows);
                    this.residency
                        .reserve(&this.gpu, cut_bytes, serial, n_rows, request.n_features)
                });
                let kept = kept.flatten();
                pass.arriving
                    .extend(kept.map(|kept| (request.serial, kept)));
                kept.map_or(Target::Slot, Target::Arena)
            });
            loop {
                let begin = request.n_done_tiles;
                let n_tiles = this.piece_tiles(&pass.shape, PIECE_BYTES);
                let end = (begin + n_tiles).min(request.n_rows.div_ceil(LANES));
                let n_bytes = (end - begin) as u64 * (tile_bytes(request.n_features) + 4);
                match this.staging.lend(&this.gpu, n_bytes) {
                    Err(BackendError::OutOfMemory { .. }) if begin == 0 && this.make_room() => {
                        // The rows that stayed are gone, and so is the place for these.
                        pass.arriving
                            .retain(|(serial, _)| *serial != request.serial);
                        target = Target::Slot;
                        request.target = Some(target);
                    }
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
        let _ = self.with_pass(pass, |this, state| match room.target {
            Target::Arena(kept) => this.keep(state, &room, kept),
            Target::Slot => this.stream(pass, state, &room),
        });
        let last_use = self.gpu.queue.submit([]);
        self.staging.take_back(room.staging, last_use);
    }

    /// A buffer that nobody filled is let go; another is made when one is asked for.
    pub fn returned(&mut self, room: Room) {
        drop(room.staging);
        self.staging.write_off();
    }

    /// Rows that stay: copied to their arena, and gone over when the last piece is there.
    fn keep(&mut self, pass: &mut OpenPass, room: &Room, kept: Kept) -> Result<(), BackendError> {
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
            pass.arriving.retain(|(serial, _)| *serial != room.serial);
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
}

/// Bytes of a tile's values.
fn tile_bytes(n_features: usize) -> u64 {
    (LANES * n_features * size_of::<f32>()) as u64
}
