//! Bytes to the device and back, and the buffers they lie in.

use std::collections::VecDeque;
use std::sync::mpsc::{self, Receiver};

use clientele_kmeans::BackendError;
use wgpu::{BufferUsages, MapMode};

use crate::device::Gpu;

/// What the device writes to and the CPU reads from, or the other way round, or only the device.
pub(crate) const ON_DEVICE: BufferUsages = BufferUsages::STORAGE
    .union(BufferUsages::COPY_DST)
    .union(BufferUsages::COPY_SRC);

/// Buffers kept for later, at most; the oldest goes first.
const MAX_IDLE: usize = 48;

/// Staging buffers: one is filled while another is copied from, and one more so that two threads can fill.
const N_STAGING: usize = 3;

/// Device buffers that nobody uses at the moment. Making one costs more than a pass over few rows.
#[derive(Default)]
pub(crate) struct Pool {
    idle: Vec<wgpu::Buffer>,
}

impl Pool {
    /// A buffer of `n_bytes` or up to twice as many, with anything in it.
    pub fn take(
        &mut self,
        gpu: &Gpu,
        label: &'static str,
        n_bytes: u64,
    ) -> Result<wgpu::Buffer, BackendError> {
        let fitting = self
            .idle
            .iter()
            .position(|b| (n_bytes..=2 * n_bytes).contains(&b.size()));
        match fitting {
            Some(idx) => Ok(self.idle.remove(idx)),
            None => gpu.create_buffer(label, n_bytes, ON_DEVICE, false),
        }
    }

    /// Takes a buffer back.
    pub fn put(&mut self, buffer: wgpu::Buffer) {
        if self.idle.len() >= MAX_IDLE {
            self.idle.remove(0);
        }
        self.idle.push(buffer);
    }

    /// Gives the memory back.
    pub fn release(&mut self) {
        self.idle.clear();
    }
}

type MapResult = Result<(), wgpu::BufferAsyncError>;

/// A buffer on its way back to the CPU.
struct InUse {
    buffer: wgpu::Buffer,
    mapped: Receiver<MapResult>,
    last_use: wgpu::SubmissionIndex,
}

/// Buffers that a CPU thread fills and the device copies from. Each is mapped again as soon as the device is done with it, so that
/// its pages are touched for the first time only once: twice as fast as `Queue::write_buffer`.
#[derive(Default)]
pub(crate) struct Staging {
    idle: Vec<wgpu::Buffer>,
    in_use: VecDeque<InUse>,
    n_lent: usize,
}

impl Staging {
    /// A mapped buffer of `n_bytes` or more; waits for the device if need be. `None`: all are lent.
    pub fn lend(&mut self, gpu: &Gpu, n_bytes: u64) -> Result<Option<wgpu::Buffer>, BackendError> {
        if self.idle.is_empty() && self.n_lent + self.in_use.len() >= N_STAGING {
            let Some(oldest) = self.in_use.pop_front() else {
                return Ok(None);
            };
            gpu.wait_for_map(&oldest.mapped, &oldest.last_use)?;
            self.idle.push(oldest.buffer);
        }
        let buffer = match self.idle.pop().filter(|b| b.size() >= n_bytes) {
            Some(buffer) => buffer,
            None => {
                let usage = BufferUsages::MAP_WRITE | BufferUsages::COPY_SRC;
                gpu.create_buffer("staging", n_bytes, usage, true)?
            }
        };
        self.n_lent += 1;
        Ok(Some(buffer))
    }

    /// Takes a buffer back that `last_use` copies from.
    pub fn take_back(&mut self, buffer: wgpu::Buffer, last_use: wgpu::SubmissionIndex) {
        self.n_lent -= 1;
        let mapped = map(&buffer, MapMode::Write, buffer.size());
        self.in_use.push_back(InUse {
            buffer,
            mapped,
            last_use,
        });
    }

    /// A buffer that was lent does not come back.
    pub fn write_off(&mut self) {
        self.n_lent -= 1;
    }

    /// Gives the memory back, except what is lent.
    pub fn release(&mut self) {
        self.idle.clear();
        self.in_use.clear();
    }
}

/// Bytes of a device buffer; both ends are multiples of 4.
pub(crate) struct Region<'a> {
    pub buffer: &'a wgpu::Buffer,
    pub offset: u64,
    pub n_bytes: u64,
}

impl<'a> Region<'a> {
    /// `words` of `buffer`.
    pub fn words(buffer: &'a wgpu::Buffer, words: std::ops::Range<usize>) -> Self {
        Self {
            buffer,
            offset: 4 * words.start as u64,
            n_bytes: 4 * words.len() as u64,
        }
    }
}

/// A buffer that the device copies to and the CPU reads.
#[derive(Default)]
pub(crate) struct Download {
    staging: Option<wgpu::Buffer>,
}

impl Download {
    /// Waits for all work submitted so far; the words of each region.
    pub fn read(&mut self, gpu: &Gpu, regions: &[Region]) -> Result<Vec<Vec<u32>>, BackendError> {
        let n_bytes = regions
            .iter()
            .map(|region| region.n_bytes)
            .sum::<u64>()
            .max(4);
        let staging = match self.staging.take().filter(|b| b.size() >= n_bytes) {
            Some(staging) => staging,
            None => {
                let usage = BufferUsages::MAP_READ | BufferUsages::COPY_DST;
                gpu.create_buffer("download", n_bytes, usage, false)?
            }
        };
        let mut encoder = gpu.encoder("download");
        let mut at = 0;
        for region in regions.iter().filter(|region| region.n_bytes > 0) {
            encoder.copy_buffer_to_buffer(
                region.buffer,
                region.offset,
                &staging,
                at,
                region.n_bytes,
            );
            at += region.n_bytes;
        }
        let last_use = gpu.submit(encoder)?;
        gpu.wait_for_map(&map(&staging, MapMode::Read, n_bytes), &last_use)?;
        let words = {
            let view = staging
                .get_mapped_range(..n_bytes)
                .map_err(|error| gpu.give_up(&error))?;
            let mut rest: &[u8] = &view;
            let mut words = Vec::with_capacity(regions.len());
            for region in regions {
                let n = usize::try_from(region.n_bytes)
                    .unwrap_or(usize::MAX)
                    .min(rest.len());
                let (taken, left) = rest.split_at(n);
                words.push(
                    taken
                        .as_chunks()
                        .0
                        .iter()
                        .map(|&word| u32::from_le_bytes(word))
                        .collect(),
                );
                rest = left;
            }
            words
        };
        staging.unmap();
        self.staging = Some(staging);
        Ok(words)
    }

    /// Gives the memory back.
    pub fn release(&mut self) {
        self.staging = None;
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
