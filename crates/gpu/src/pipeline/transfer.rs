//! Bytes to the device and back.

use std::sync::mpsc::{self, Receiver};

use clientele_kmeans::BackendError;
use wgpu::{BufferUsages, MapMode};

use crate::device::Gpu;

/// A device buffer that is replaced by a larger one when it must be.
pub(super) struct Growing {
    label: &'static str,
    usage: BufferUsages,
    buffer: Option<wgpu::Buffer>,
}

impl Growing {
    pub fn new(label: &'static str, usage: BufferUsages) -> Self {
        Self {
            label,
            usage,
            buffer: None,
        }
    }

    /// A buffer of `n_bytes` or more; what an earlier one held is lost when it grows.
    pub fn at_least(&mut self, gpu: &Gpu, n_bytes: u64) -> Result<wgpu::Buffer, BackendError> {
        if let Some(buffer) = self.buffer.as_ref().filter(|b| b.size() >= n_bytes) {
            return Ok(buffer.clone());
        }
        // Let go of the old one first: both may not fit.
        self.buffer = None;
        let buffer = gpu.create_buffer(self.label, n_bytes, self.usage, false)?;
        self.buffer = Some(buffer.clone());
        Ok(buffer)
    }

    /// Gives the memory back.
    pub fn release(&mut self) {
        self.buffer = None;
    }
}

/// A buffer that the CPU fills and the device copies from. It is mapped again as soon as the device is done with it, so that
/// its pages are touched for the first time only once: twice as fast as `Queue::write_buffer`.
#[derive(Default)]
pub(super) struct Upload {
    idle: Option<(wgpu::Buffer, Receiver<MapResult>)>,
}

type MapResult = Result<(), wgpu::BufferAsyncError>;

impl Upload {
    /// Copies each slice to the start of its buffer; lengths are multiples of 4 bytes.
    pub fn write(
        &mut self,
        gpu: &Gpu,
        parts: &[(&[u8], &wgpu::Buffer)],
    ) -> Result<(), BackendError> {
        let n_bytes = parts.iter().map(|(bytes, _)| bytes.len() as u64).sum();
        let staging = self.mapped(gpu, n_bytes)?;
        let mut encoder = gpu.encoder("upload");
        let mut offset = 0;
        for (bytes, target) in parts {
            let end = offset + bytes.len() as u64;
            staging
                .get_mapped_range_mut(offset..end)
                .map_err(|error| gpu.give_up(&error))?
                .copy_from_slice(bytes);
            encoder.copy_buffer_to_buffer(&staging, offset, target, 0, end - offset);
            offset = end;
        }
        staging.unmap();
        gpu.queue.submit([encoder.finish()]);
        let mapped = map(&staging, MapMode::Write, staging.size());
        self.idle = Some((staging, mapped));
        Ok(())
    }

    /// Gives the memory back.
    pub fn release(&mut self) {
        self.idle = None;
    }

    fn mapped(&mut self, gpu: &Gpu, n_bytes: u64) -> Result<wgpu::Buffer, BackendError> {
        match self.idle.take() {
            Some((buffer, mapped)) if buffer.size() >= n_bytes => {
                gpu.wait_for_map(&mapped)?;
                Ok(buffer)
            }
            _ => gpu.create_buffer(
                "upload",
                n_bytes,
                BufferUsages::MAP_WRITE | BufferUsages::COPY_SRC,
                true,
            ),
        }
    }
}

/// A buffer that the device copies to and the CPU reads.
pub(super) struct Download {
    staging: Growing,
}

/// Bytes of a device buffer; both ends are multiples of 4.
pub(super) struct Region<'a> {
    pub buffer: &'a wgpu::Buffer,
    pub offset: u64,
    pub n_bytes: u64,
}

impl Download {
    pub fn new() -> Self {
        let usage = BufferUsages::MAP_READ | BufferUsages::COPY_DST;
        Self {
            staging: Growing::new("download", usage),
        }
    }

    /// Waits for all work submitted so far and hands the regions, one after the other, to `parse`.
    pub fn read<T>(
        &mut self,
        gpu: &Gpu,
        regions: &[Region],
        parse: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, BackendError> {
        let n_bytes = regions.iter().map(|region| region.n_bytes).sum();
        let staging = self.staging.at_least(gpu, n_bytes)?;
        let mut encoder = gpu.encoder("download");
        let mut at = 0;
        for region in regions {
            let (buffer, offset) = (region.buffer, region.offset);
            encoder.copy_buffer_to_buffer(buffer, offset, &staging, at, region.n_bytes);
            at += region.n_bytes;
        }
        gpu.queue.submit([encoder.finish()]);
        gpu.wait_for_map(&map(&staging, MapMode::Read, n_bytes))?;
        let parsed = {
            let view = staging
                .get_mapped_range(..n_bytes)
                .map_err(|error| gpu.give_up(&error))?;
            parse(&view)
        };
        staging.unmap();
        Ok(parsed)
    }

    /// Gives the memory back.
    pub fn release(&mut self) {
        self.staging.release();
    }
}

fn map(buffer: &wgpu::Buffer, mode: MapMode, n_bytes: u64) -> Receiver<MapResult> {
    let (sender, receiver) = mpsc::channel();
    buffer.map_async(mode, ..n_bytes, move |result| {
        // Nobody listens any more when the pass failed in between.
        let _ = sender.send(result);
    });
    receiver
}
