//! Host side of `shaders/assign.wgsl`: all candidates over one block, with nothing of size n_rows x n_clusters anywhere.

use std::ops::Range;
use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use clientele_kmeans::{BackendError, LANES};
use wgpu::BufferUsages;

use super::answer::{self, Answer};
use super::plan::{self, BatchSizes, CandidateRow, to_u32};
use super::transfer::{Download, Growing, Region, Upload};
use crate::candidate::DeviceCandidate;
use crate::device::Gpu;

/// Centroids that the shader compares a row with in one sweep over the features.
pub(crate) const CLUSTER_TILE: usize = 8;

/// Rows that an invocation of the shader owns.
pub(super) const QUAD_ROWS: usize = 4;

/// Uncertain rows that come back with the sums; more take a second trip.
const ENTRIES_AT_ONCE: usize = 8_192;

/// Below this a smaller cut frees no memory worth a retry.
const MIN_BINDING_BYTES: u64 = 1 << 20;

/// A pass over one block. At least one row.
pub(crate) struct Job {
    pub n_rows: usize,
    pub n_features: usize,
    /// In the layout of [`clientele_kmeans::Block`].
    pub tiles: Vec<f32>,
    /// [n_tiles] upper bounds of the norms of rows.
    pub tile_norms: Vec<f32>,
    pub candidates: Vec<Arc<DeviceCandidate>>,
    pub wants_labels: bool,
}

impl Job {
    /// Quads of rows that a candidate has in the labels.
    pub fn label_stride(&self) -> usize {
        if self.wants_labels {
            self.n_rows.div_ceil(QUAD_ROWS)
        } else {
            0
        }
    }
}

/// The compiled shader and the buffers it keeps between passes.
pub(crate) struct AssignPipeline {
    pipeline: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
    params: wgpu::Buffer,
    /// Bindings 1 to 8 in the shader's order.
    storage: [Growing; 8],
    upload: Upload,
    download: Download,
    binding_bytes: u64,
}

/// The buffers of one batch, sized for it.
struct Bound {
    rows: wgpu::Buffer,
    tile_norms: wgpu::Buffer,
    candidates: wgpu::Buffer,
    centroids: wgpu::Buffer,
    sums: wgpu::Buffer,
    counts: wgpu::Buffer,
    uncertain: wgpu::Buffer,
    labels: wgpu::Buffer,
    group: wgpu::BindGroup,
}

/// As in the shader.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Params {
    n_rows: u32,
    n_features: u32,
    first_row: u32,
    n_quads: u32,
    first_group: u32,
    label_stride: u32,
    padding: [u32; 2],
}

impl AssignPipeline {
    /// Compiles the shader, with wgpu's run-time checks or without.
    pub fn new(gpu: &Gpu, is_checked: bool) -> Result<Self, BackendError> {
        gpu.guarded(|| {
            let layout = bind_group_layout(&gpu.device);
            let pipeline = compile(&gpu.device, &layout, is_checked);
            let usage = BufferUsages::UNIFORM | BufferUsages::COPY_DST;
            let params = gpu.create_buffer("params", size_of::<Params>() as u64, usage, false)?;
            let (read, written) = (
                BufferUsages::STORAGE | BufferUsages::COPY_DST,
                BufferUsages::STORAGE | BufferUsages::COPY_DST | BufferUsages::COPY_SRC,
            );
            let storage = [
                Growing::new("rows", read),
                Growing::new("tile norms", read),
                Growing::new("candidates", read),
                Growing::new("centroids", read),
                Growing::new("sums", written),
                Growing::new("counts", written),
                Growing::new("uncertain", written),
                Growing::new("labels", written),
            ];
            Ok(Self {
                pipeline,
                layout,
                params,
                storage,
                upload: Upload::default(),
                download: Download::new(),
                binding_bytes: gpu.binding_bytes,
            })
        })
    }

    /// One answer a candidate. When device memory runs out, the work is cut finer and done again.
    pub fn run(&mut self, gpu: &Gpu, job: &Job) -> Result<Vec<Answer>, BackendError> {
        loop {
            let result = gpu.guarded(|| self.run_once(gpu, job));
            let is_out_of_memory = matches!(result, Err(BackendError::OutOfMemory { .. }));
            if !is_out_of_memory || self.binding_bytes <= MIN_BINDING_BYTES {
                return result;
            }
            self.release();
            gpu.wait()?;
            self.binding_bytes /= 2;
            tracing::debug!(self.binding_bytes, "out of device memory, cutting finer");
        }
    }

    fn run_once(&mut self, gpu: &Gpu, job: &Job) -> Result<Vec<Answer>, BackendError> {
        let pieces = plan::pieces(job.n_rows, job.n_features, self.binding_bytes);
        let mut held_piece = None;
        let mut answers = Vec::with_capacity(job.candidates.len());
        for batch in plan::batches(job, self.binding_bytes) {
            let candidates = &job.candidates[batch];
            let mut sizes = BatchSizes::default();
            let table: Vec<CandidateRow> = candidates.iter().map(|c| sizes.add(c, job)).collect();
            let largest_piece = pieces.first().map_or(0, Range::len);
            let bound = self.bind(gpu, job, &sizes, largest_piece)?;
            begin_batch(gpu, &bound, candidates, &table, &sizes);
            for piece in &pieces {
                if held_piece.as_ref() != Some(piece) {
                    self.upload_piece(gpu, job, &bound, piece)?;
                    held_piece = Some(piece.clone());
                }
                self.dispatch_piece(gpu, job, &bound, piece, &sizes)?;
            }
            gpu.lose_device_if_due();
            answers.extend(self.collect(gpu, job, &bound, candidates, &sizes)?);
        }
        Ok(answers)
    }

    /// Buffers that hold the batch and `n_piece_rows` rows, each bound by exactly the bytes in use.
    fn bind(
        &mut self,
        gpu: &Gpu,
        job: &Job,
        sizes: &BatchSizes,
        n_piece_rows: usize,
    ) -> Result<Bound, BackendError> {
        let n_held_rows = n_piece_rows.next_multiple_of(LANES);
        let n_label_quads = job.label_stride() * sizes.n_candidates;
        let words = [
            n_held_rows * job.n_features,
            n_held_rows / LANES,
            sizes.n_candidates * size_of::<CandidateRow>() / 4,
            sizes.n_lines * CLUSTER_TILE,
            sizes.n_cells * 2,
            sizes.n_clusters,
            sizes.n_entries + 1,
            n_label_quads.max(1) * 2,
        ]
        .map(|n_words| n_words as u64 * 4);
        let mut grown = Vec::with_capacity(words.len());
        for (growing, &n_bytes) in self.storage.iter_mut().zip(&words) {
            grown.push(growing.at_least(gpu, n_bytes)?);
        }
        let buffers = <[wgpu::Buffer; 8]>::try_from(grown)
            .map_err(|grown| gpu.give_up(&format!("{} buffers of 8", grown.len())))?;
        let whole = |buffer, n_bytes| wgpu::BufferBinding {
            buffer,
            offset: 0,
            size: wgpu::BufferSize::new(n_bytes),
        };
        let resources = std::iter::once(whole(&self.params, size_of::<Params>() as u64))
            .chain(buffers.iter().zip(words).map(|(b, n)| whole(b, n)));
        let entries: Vec<_> = (0..)
            .zip(resources)
            .map(|(binding, buffer)| wgpu::BindGroupEntry {
                binding,
                resource: wgpu::BindingResource::Buffer(buffer),
            })
            .collect();
        let group = gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("assign"),
            layout: &self.layout,
            entries: &entries,
        });
        drop(entries);
        let [
            rows,
            tile_norms,
            candidates,
            centroids,
            sums,
            counts,
            uncertain,
            labels,
        ] = buffers;
        Ok(Bound {
            rows,
            tile_norms,
            candidates,
            centroids,
            sums,
            counts,
            uncertain,
            labels,
            group,
        })
    }

    fn upload_piece(
        &mut self,
        gpu: &Gpu,
        job: &Job,
        bound: &Bound,
        piece: &Range<usize>,
    ) -> Result<(), BackendError> {
        let held = piece.start..piece.end.next_multiple_of(LANES);
        let tiles = &job.tiles[held.start * job.n_features..held.end * job.n_features];
        let norms = &job.tile_norms[held.start / LANES..held.end / LANES];
        self.upload.write(
            gpu,
            &[
                (bytemuck::cast_slice(tiles), &bound.rows),
                (bytemuck::cast_slice(norms), &bound.tile_norms),
            ],
        )
    }

    fn dispatch_piece(
        &self,
        gpu: &Gpu,
        job: &Job,
        bound: &Bound,
        piece: &Range<usize>,
        sizes: &BatchSizes,
    ) -> Result<(), BackendError> {
        let slices = plan::slices(piece.len(), job.n_features, sizes.n_clusters);
        for slice in &slices {
            let params = Params {
                n_rows: to_u32(job.n_rows),
                n_features: to_u32(job.n_features),
                first_row: to_u32(piece.start),
                n_quads: to_u32(piece.len().next_multiple_of(LANES) / QUAD_ROWS),
                first_group: to_u32(slice.start),
                label_stride: to_u32(job.label_stride()),
                padding: [0; 2],
            };
            gpu.queue
                .write_buffer(&self.params, 0, bytemuck::bytes_of(&params));
            let mut encoder = gpu.encoder("assign");
            {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                    label: Some("assign"),
                    timestamp_writes: None,
                });
                pass.set_pipeline(&self.pipeline);
                pass.set_bind_group(0, &bound.group, &[]);
                pass.dispatch_workgroups(to_u32(slice.len()), to_u32(sizes.n_candidates), 1);
            }
            gpu.queue.submit([encoder.finish()]);
            // A queue of long dispatches looks like a hang to drivers; the reading at the end waits for a single one.
            if slices.len() > 1 {
                gpu.wait()?;
            }
        }
        Ok(())
    }

    fn collect(
        &mut self,
        gpu: &Gpu,
        job: &Job,
        bound: &Bound,
        candidates: &[Arc<DeviceCandidate>],
        sizes: &BatchSizes,
    ) -> Result<Vec<Answer>, BackendError> {
        let n_entries_read = sizes.n_entries.min(ENTRIES_AT_ONCE);
        let region = |buffer, n_words: usize| Region {
            buffer,
            offset: 0,
            n_bytes: n_words as u64 * 4,
        };
        let regions = [
            region(&bound.sums, sizes.n_cells * 2),
            region(&bound.counts, sizes.n_clusters),
            region(&bound.uncertain, 1 + n_entries_read),
            region(&bound.labels, job.label_stride() * sizes.n_candidates * 2),
        ];
        let (mut answers, n_uncertain, mut entries) =
            self.download.read(gpu, &regions, |mut bytes| {
                let [sums, counts, list, labels] = regions.each_ref().map(|region| {
                    let n_bytes = usize::try_from(region.n_bytes).unwrap_or(usize::MAX);
                    let (taken, rest) = bytes.split_at(n_bytes.min(bytes.len()));
                    bytes = rest;
                    taken
                });
                let answers = answer::split(job, candidates, sums, counts, labels);
                let list = answer::words(list);
                (answers, list[0] as usize, list[1..].to_vec())
            })?;
        if n_uncertain > sizes.n_entries {
            return Err(gpu.give_up(&format!(
                "{n_uncertain} uncertain rows of {} listed",
                sizes.n_entries
            )));
        }
        if n_uncertain > n_entries_read {
            let rest = Region {
                buffer: &bound.uncertain,
                offset: 4 * (1 + n_entries_read) as u64,
                n_bytes: 4 * (n_uncertain - n_entries_read) as u64,
            };
            let more = self.download.read(gpu, &[rest], answer::words)?;
            entries.extend(more);
        }
        entries.truncate(n_uncertain);
        answer::distribute(&mut answers, &entries);
        answer::check(job, candidates, &answers).map_err(|nonsense| gpu.give_up(&nonsense))?;
        Ok(answers)
    }

    fn release(&mut self) {
        self.storage.iter_mut().for_each(Growing::release);
        self.upload.release();
        self.download.release();
    }
}

/// Brings the candidates over and sets what is added to back to zero.
fn begin_batch(
    gpu: &Gpu,
    bound: &Bound,
    candidates: &[Arc<DeviceCandidate>],
    table: &[CandidateRow],
    sizes: &BatchSizes,
) {
    gpu.queue
        .write_buffer(&bound.candidates, 0, bytemuck::cast_slice(table));
    let mut offset = 0;
    for candidate in candidates {
        let bytes: &[u8] = bytemuck::cast_slice(&candidate.lines);
        gpu.queue.write_buffer(&bound.centroids, offset, bytes);
        offset += bytes.len() as u64;
    }
    let mut encoder = gpu.encoder("clear");
    encoder.clear_buffer(&bound.sums, 0, Some(sizes.n_cells as u64 * 8));
    encoder.clear_buffer(&bound.counts, 0, Some(sizes.n_clusters as u64 * 4));
    encoder.clear_buffer(&bound.uncertain, 0, Some(4));
    gpu.queue.submit([encoder.finish()]);
}

/// Explicit, because an automatic layout drops bindings that a shader happens not to use.
fn bind_group_layout(device: &wgpu::Device) -> wgpu::BindGroupLayout {
    use wgpu::BufferBindingType::{Storage, Uniform};
    let (read, written) = (Storage { read_only: true }, Storage { read_only: false });
    let types = [
        Uniform, read, read, read, read, written, written, written, written,
    ];
    let entries: Vec<_> = (0..)
        .zip(types)
        .map(|(binding, ty)| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty,
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        })
        .collect();
    device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
        label: Some("assign"),
        entries: &entries,
    })
}

fn compile(
    device: &wgpu::Device,
    layout: &wgpu::BindGroupLayout,
    is_checked: bool,
) -> wgpu::ComputePipeline {
    let source = wgpu::ShaderModuleDescriptor {
        label: Some("assign"),
        source: wgpu::ShaderSource::Wgsl(include_str!("../../../../shaders/assign.wgsl").into()),
    };
    let module = if is_checked {
        device.create_shader_module(source)
    } else {
        // SAFETY: the shader's loops all end (their bounds are fixed before they start) and every index it forms is below a
        // size of this module's own making: `bind` sizes each binding from the same numbers that `Params` and `CandidateRow`
        // carry. No number from outside reaches the shader except values of rows and centroids, and none of them is an index.
        unsafe {
            device.create_shader_module_trusted(source, wgpu::ShaderRuntimeChecks::unchecked())
        }
    };
    let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: Some("assign"),
        bind_group_layouts: &[Some(layout)],
        immediate_size: 0,
    });
    device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some("assign"),
        layout: Some(&pipeline_layout),
        module: &module,
        entry_point: Some("assign"),
        compilation_options: wgpu::PipelineCompilationOptions {
            // The shader clears its own, and only when it uses it.
            zero_initialize_workgroup_memory: false,
            ..Default::default()
        },
        cache: None,
    })
}
