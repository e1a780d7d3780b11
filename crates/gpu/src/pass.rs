//! One pass over any number of blocks.

use clientele_kmeans::cpu::TravelUnits;
use clientele_kmeans::{BackendError, Block, BlockLabels, Centroids, LANES, Partial};

use crate::GpuBackend;
use crate::candidate::Packed;
use crate::passes::Opening;
use crate::settle;
use crate::upload::{Room, RoomRequest};

/// Resident blocks that are handed over together: few enough to keep the device busy while more are added.
const RUN_BLOCKS: usize = 64;

/// Tiles that are put together before they are copied: few enough to stay in a cache.
const FILL_TILES: usize = 32;

/// A pass in progress: candidates on one side, any number of blocks on the other. Sums stay on the device until [`GpuPass::finish`].
///
/// Dropped unfinished, it is forgotten.
#[derive(Debug)]
pub struct GpuPass<'a> {
    gpu: &'a GpuBackend,
    id: u64,
    n_features: usize,
    n_candidates: usize,
    n_rows: u64,
    /// Serials of resident blocks that the device thread has not been told of yet.
    resident: Vec<u64>,
    is_finished: bool,
}

impl<'a> GpuPass<'a> {
    /// `candidates` of one width. `label_rows`: rows of the one block whose labels are wanted. `travel`: of the one candidate, if what
    /// its earlier passes left behind may be used.
    pub(crate) fn begin(
        gpu: &'a GpuBackend,
        candidates: &[Centroids],
        n_features: usize,
        label_rows: Option<usize>,
        travel: Option<TravelUnits>,
    ) -> Result<Self, BackendError> {
        let id = gpu.device().begin(Opening {
            n_features,
            candidates: candidates.to_vec(),
            packed: candidates.iter().map(Packed::from).collect(),
            label_rows,
            travel,
        })?;
        Ok(Self {
            gpu,
            id,
            n_features,
            n_candidates: candidates.len(),
            n_rows: 0,
            resident: Vec::new(),
            is_finished: false,
        })
    }

    /// Goes over the rows of `block` too. Brings them to the device if they are not there, to stay if there is room. Returns once the
    /// bytes of the block are no longer needed; waits only while all staging buffers are on their way.
    ///
    /// # Errors
    /// When the device cannot go on: no block of this pass counts.
    ///
    /// # Panics
    /// When the block has other features than the candidates.
    pub fn add(&mut self, block: &Block) -> Result<(), BackendError> {
        self.add_to(block, true)
    }

    /// As [`GpuPass::add`]; `wants_to_stay` says whether the rows may become resident.
    pub(crate) fn add_to(
        &mut self,
        block: &Block,
        wants_to_stay: bool,
    ) -> Result<(), BackendError> {
        if self.n_candidates == 0 || block.n_rows() == 0 {
            return Ok(());
        }
        assert_eq!(
            block.n_features(),
            self.n_features,
            "features of candidates and block"
        );
        self.n_rows += block.n_rows() as u64;
        if self.gpu.shared().contains(block.serial()) {
            self.resident.push(block.serial());
            if self.resident.len() >= RUN_BLOCKS {
                self.gpu
                    .device()
                    .run(self.id, std::mem::take(&mut self.resident));
            }
            return Ok(());
        }
        let mut target = None;
        let mut n_done_tiles = 0;
        while n_done_tiles < block.n_rows().div_ceil(LANES) {
            let room = self.gpu.device().room(RoomRequest {
                pass: self.id,
                serial: block.serial(),
                n_rows: block.n_rows(),
                n_features: self.n_features,
                wants_to_stay,
                target,
                n_done_tiles,
            })?;
            if let Err(reason) = fill(&room, block) {
                self.gpu.device().returned(room);
                return Err(BackendError::DeviceLost { reason });
            }
            (target, n_done_tiles) = (Some(room.target), room.tiles.end);
            self.gpu.device().filled(self.id, room);
        }
        Ok(())
    }

    /// One partial for each candidate, over all blocks added; `n_moved` is `None`.
    ///
    /// # Errors
    /// When the device could not go on at any time since the pass began: no block of it counts.
    pub fn finish(self) -> Result<Vec<Partial>, BackendError> {
        self.finish_with(None)
    }

    pub(crate) fn finish_with(
        mut self,
        labels: Option<&mut BlockLabels>,
    ) -> Result<Vec<Partial>, BackendError> {
        self.is_finished = true;
        let outcome = self
            .gpu
            .device()
            .finish(self.id, std::mem::take(&mut self.resident))?;
        settle::finish(outcome, self.n_rows, labels)
    }
}

impl Drop for GpuPass<'_> {
    fn drop(&mut self) {
        if !self.is_finished {
            self.gpu.device().abandon(self.id);
        }
    }
}

/// Copies the tiles that there is room for, then their norms. The error is what the driver said.
fn fill(room: &Room, block: &Block) -> Result<(), String> {
    let mut at = 0;
    let mut put = |values: &[f32]| {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        let end = at + bytes.len() as u64;
        let place = room.staging.get_mapped_range_mut(at..end);
        place
            .map_err(|error| error.to_string())?
            .copy_from_slice(bytes);
        at = end;
        Ok::<_, String>(())
    };
    let tile_len = LANES * block.n_features();
    let mut values = vec![0.0; FILL_TILES.min(room.tiles.len()) * tile_len];
    for first in room.tiles.clone().step_by(FILL_TILES) {
        let tiles = first..room.tiles.end.min(first + FILL_TILES);
        let values = &mut values[..tiles.len() * tile_len];
        block.copy_tiles(tiles, values);
        put(values)?;
    }
    put(&block.tile_norms()[room.tiles.clone()])
}
