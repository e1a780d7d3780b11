//! Two places on the device for rows that are used once, taken in turn.

use std::sync::mpsc::{self, Receiver};

use clientele_kmeans::BackendError;
use wgpu::{BufferUsages, MapMode};

use crate::device::Gpu;
use crate::pipeline::assign::{Batch, RowBuffers};
use crate::pipeline::plan::HEADER_WORDS;
use crate::pipeline::transfer::ON_DEVICE;

const HEADER_BYTES: u64 = 4 * HEADER_WORDS as u64;

#[derive(Default)]
pub(crate) struct Slots {
    slots: [Slot; 2],
    next: usize,
}

#[derive(Default)]
struct Slot {
    buffers: Option<RowBuffers>,
    reports: Option<wgpu::Buffer>,
    watch: Option<Watch>,
}

/// The heads of a pass's lists, on their way back since its groups in a slot were gone over.
struct Watch {
    pass: u64,
    /// Entries each list has room for.
    n_entries: Vec<usize>,
    mapped: Receiver<Result<(), wgpu::BufferAsyncError>>,
    last_use: wgpu::SubmissionIndex,
}

impl Slots {
    /// The buffers of a slot.
    pub fn buffers(&self, slot: usize) -> Option<RowBuffers> {
        self.slots[slot].buffers.clone()
    }

    /// Waits until the next slot has been gone over: the pass it was for, and whether its lists must be drained before the rows go,
    /// because groups were rejected or room becomes scarce.
    pub fn settle_next(&mut self, gpu: &Gpu) -> Result<Option<(u64, bool)>, BackendError> {
        let slot = &mut self.slots[self.next];
        let (Some(watch), Some(reports)) = (slot.watch.take(), &slot.reports) else {
            return Ok(None);
        };
        gpu.wait_for_map(&watch.mapped, &watch.last_use)?;
        let needs_drain = {
            let n_bytes = HEADER_BYTES * watch.n_entries.len() as u64;
            let view = reports
                .get_mapped_range(..n_bytes)
                .map_err(|error| gpu.give_up(&error))?;
            let words: Vec<u32> = view
                .as_chunks()
                .0
                .iter()
                .map(|&w| u32::from_le_bytes(w))
                .collect();
            words
                .chunks_exact(HEADER_WORDS)
                .zip(&watch.n_entries)
                .any(|(header, &n_entries)| {
                    let [n_asked, _, n_rejected, _] = [header[0], header[1], header[2], header[3]];
                    n_rejected > 0 || n_asked as usize > n_entries / 2
                })
        };
        reports.unmap();
        Ok(Some((watch.pass, needs_drain)))
    }

    /// The next slot, with room for `n_tiles`. It must have been settled.
    pub fn prepare(
        &mut self,
        gpu: &Gpu,
        n_tiles: usize,
        tile_bytes: u64,
    ) -> Result<usize, BackendError> {
        let idx = self.next;
        let slot = &mut self.slots[idx];
        let n_bytes = n_tiles as u64 * tile_bytes;
        let fits =
            |b: &RowBuffers| b.tiles.size() >= n_bytes && b.norms.size() >= 4 * n_tiles as u64;
        if !slot.buffers.as_ref().is_some_and(fits) {
            // Let go of the old ones first: both may not fit.
            slot.buffers = None;
            slot.buffers = Some(RowBuffers {
                tiles: gpu.create_buffer("rows", n_bytes, ON_DEVICE, false)?,
                norms: gpu.create_buffer("norms", 4 * n_tiles as u64, ON_DEVICE, false)?,
            });
        }
        self.next = (idx + 1) % self.slots.len();
        Ok(idx)
    }

    /// Has the heads of the lists sent back when the work submitted so far is done.
    pub fn watch(
        &mut self,
        gpu: &Gpu,
        slot: usize,
        pass: u64,
        batches: &[Batch],
    ) -> Result<(), BackendError> {
        let slot = &mut self.slots[slot];
        let n_bytes = HEADER_BYTES * batches.len().max(1) as u64;
        let reports = match slot.reports.take().filter(|b| b.size() >= n_bytes) {
            Some(reports) => reports,
            None => {
                let usage = BufferUsages::MAP_READ | BufferUsages::COPY_DST;
                gpu.create_buffer("reports", n_bytes, usage, false)?
            }
        };
        let mut encoder = gpu.encoder("reports");
        for (at, batch) in (0..).step_by(HEADER_WORDS * 4).zip(batches) {
            encoder.copy_buffer_to_buffer(&batch.totals, 0, &reports, at, HEADER_BYTES);
        }
        let last_use = gpu.submit(encoder)?;
        let (sender, mapped) = mpsc::channel();
        reports.map_async(MapMode::Read, ..n_bytes, move |result| {
            // Nobody listens any more when the pass failed in between.
            let _ = sender.send(result);
        });
        slot.watch = Some(Watch {
            pass,
            n_entries: batches.iter().map(|b| b.plan.n_entries).collect(),
            mapped,
            last_use,
        });
        slot.reports = Some(reports);
        Ok(())
    }
}
