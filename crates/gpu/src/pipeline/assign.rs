//! Host side of `shaders/assign.wgsl`: all candidates over groups of rows, with nothing of size n_rows x n_clusters anywhere.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use clientele_kmeans::BackendError;

use super::plan::{self, BatchPlan, to_u32};
use super::transfer::Pool;
use crate::candidate::DeviceCandidate;
use crate::device::Gpu;
use crate::shaders::AssignShape;

/// The compiled shaders, a pipeline a shape, each made once.
pub(crate) struct AssignPipelines {
    is_checked: bool,
    params: wgpu::Buffer,
    /// Without labels and with them.
    layouts: [wgpu::BindGroupLayout; 2],
    by_shape: HashMap<AssignShape, wgpu::ComputePipeline>,
}

/// The buffers of one batch of candidates during one pass.
pub(crate) struct Batch {
    pub plan: BatchPlan,
    candidates: wgpu::Buffer,
    pub centroids: wgpu::Buffer,
    pub totals: wgpu::Buffer,
    pub list: wgpu::Buffer,
    pub labels: Option<wgpu::Buffer>,
}

/// Rows on the device, in the layout of a block.
#[derive(Debug, Clone)]
pub(crate) struct RowBuffers {
    pub tiles: wgpu::Buffer,
    pub norms: wgpu::Buffer,
}

/// As in the shader.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Params {
    first_group: u32,
    first_candidate: u32,
    end_candidate: u32,
    candidates_a_chunk: u32,
    n_entries: u32,
    rejection_words: u32,
    first_cell_word: u32,
    label_stride: u32,
    n_features: u32,
    zero: u32,
    padding: [u32; 2],
}

/// Groups of the table and candidates of the batch that meet in one dispatch.
pub(crate) struct Meeting<'a> {
    pub rows: &'a RowBuffers,
    /// The table of groups, filled in at `groups`.
    pub table: &'a wgpu::Buffer,
    pub groups: Range<usize>,
    /// Among those of the batch.
    pub candidates: Range<usize>,
    pub label_stride: usize,
}

impl AssignPipelines {
    /// Nothing is compiled yet. `is_checked`: with wgpu's run-time checks.
    pub fn new(gpu: &Gpu, is_checked: bool) -> Result<Self, BackendError> {
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        Ok(Self {
            is_checked,
            params: gpu.create_buffer("params", size_of::<Params>() as u64, usage, false)?,
            layouts: [false, true].map(|wants_labels| layout(&gpu.device, wants_labels)),
            by_shape: HashMap::new(),
        })
    }

    /// Forgets what was compiled, so that an injected mistake gets into it.
    pub fn recompile(&mut self) {
        self.by_shape.clear();
    }

    /// Compiles what is not yet compiled for `shape`.
    pub fn prepare(&mut self, gpu: &Gpu, shape: &AssignShape) -> Result<(), BackendError> {
        if self.by_shape.contains_key(shape) {
            return Ok(());
        }
        let text = match gpu.flaw() {
            None => shape.wgsl(),
            Some(flaw) => shape.wgsl_with(flaw),
        };
        let layout = &self.layouts[usize::from(shape.wants_labels)];
        let pipeline = gpu.guarded(|| {
            Ok(compile(
                &gpu.device,
                layout,
                text,
                "assign",
                self.is_checked,
            ))
        })?;
        self.by_shape.insert(*shape, pipeline);
        Ok(())
    }

    /// Goes over groups of rows on behalf of candidates. Submits, and does not wait.
    pub fn dispatch(
        &self,
        gpu: &Gpu,
        shape: &AssignShape,
        batch: &Batch,
        meeting: &Meeting,
    ) -> Result<(), BackendError> {
        let n_clusters = batch.plan.n_clusters;
        let group = self.bind(gpu, shape, batch, meeting);
        let pipeline = self
            .by_shape
            .get(shape)
            .ok_or_else(|| gpu.give_up(&"no pipeline of this shape"))?;
        let n_candidates = meeting.candidates.len();
        for slice in plan::slices(shape, meeting.groups.len(), n_clusters) {
            let chunk = batch.plan.chunk(slice.len(), n_candidates);
            let params = Params {
                first_group: to_u32(meeting.groups.start + slice.start),
                first_candidate: to_u32(meeting.candidates.start),
                end_candidate: to_u32(meeting.candidates.end),
                candidates_a_chunk: to_u32(chunk),
                n_entries: to_u32(batch.plan.n_entries),
                rejection_words: to_u32(batch.plan.rejection_words),
                first_cell_word: to_u32(batch.plan.first_cell_word()),
                label_stride: to_u32(meeting.label_stride),
                n_features: to_u32(shape.n_features),
                zero: 0,
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
                pass.set_pipeline(pipeline);
                pass.set_bind_group(0, &group, &[]);
                pass.dispatch_workgroups(
                    to_u32(slice.len()),
                    to_u32(n_candidates.div_ceil(chunk)),
                    1,
                );
            }
            gpu.submit(encoder)?;
        }
        Ok(())
    }

    fn bind(
        &self,
        gpu: &Gpu,
        shape: &AssignShape,
        batch: &Batch,
        meeting: &Meeting,
    ) -> wgpu::BindGroup {
        let buffers = [
            &self.params,
            &meeting.rows.tiles,
            &meeting.rows.norms,
            meeting.table,
            &batch.candidates,
            &batch.centroids,
            &batch.totals,
            &batch.list,
        ];
        let labels = batch.labels.as_ref().filter(|_| shape.wants_labels);
        let entries: Vec<_> = (0..)
            .zip(buffers.into_iter().chain(labels))
            .map(|(binding, buffer)| wgpu::BindGroupEntry {
                binding,
                resource: buffer.as_entire_binding(),
            })
            .collect();
        gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("assign"),
            layout: &self.layouts[usize::from(shape.wants_labels)],
            entries: &entries,
        })
    }
}

impl Batch {
    /// Brings the candidates over and sets what is added to back to zero. `label_rows`: labels wanted of each candidate.
    pub fn new(
        gpu: &Gpu,
        pool: &mut Pool,
        plan: BatchPlan,
        candidates: &[Arc<DeviceCandidate>],
        label_rows: Option<usize>,
    ) -> Result<Self, BackendError> {
        let own = &candidates[plan.candidates.clone()];
        let n_features = own.first().map_or(1, |c| c.n_features);
        let table_bytes = size_of_val(plan.table.as_slice()) as u64;
        let label_bytes = |n_rows: usize| (4 * n_rows * own.len()) as u64;
        let labels = label_rows
            .map(|n| pool.take(gpu, "labels", label_bytes(n)))
            .transpose()?;
        let batch = Self {
            candidates: pool.take(gpu, "candidates", table_bytes)?,
            centroids: pool.take(gpu, "centroids", 4 * plan.n_centroid_values as u64)?,
            totals: pool.take(gpu, "totals", plan.totals_bytes())?,
            list: pool.take(gpu, "uncertain rows", plan.list_bytes(n_features))?,
            labels,
            plan,
        };
        gpu.queue.write_buffer(
            &batch.candidates,
            0,
            bytemuck::cast_slice(&batch.plan.table),
        );
        let mut offset = 0;
        for candidate in own {
            let bytes: &[u8] = bytemuck::cast_slice(&candidate.tiles);
            gpu.queue.write_buffer(&batch.centroids, offset, bytes);
            offset += bytes.len() as u64;
        }
        let mut encoder = gpu.encoder("clear totals");
        encoder.clear_buffer(&batch.totals, 0, Some(batch.plan.totals_bytes()));
        gpu.submit(encoder)?;
        Ok(batch)
    }

    /// Empties the list of uncertain rows and takes the rejections back.
    pub fn clear_list(&self, gpu: &Gpu) -> Result<(), BackendError> {
        let mut encoder = gpu.encoder("clear list");
        encoder.clear_buffer(
            &self.totals,
            0,
            Some(4 * self.plan.first_cell_word() as u64),
        );
        gpu.submit(encoder).map(drop)
    }

    /// Gives the buffers back.
    pub fn release(self, pool: &mut Pool) {
        let buffers = [self.candidates, self.centroids, self.totals, self.list];
        buffers
            .into_iter()
            .chain(self.labels)
            .for_each(|buffer| pool.put(buffer));
    }
}

/// Explicit, because an automatic layout drops bindings that a shader happens not to use.
fn layout(device: &wgpu::Device, wants_labels: bool) -> wgpu::BindGroupLayout {
    use wgpu::BufferBindingType::{Storage, Uniform};
    let (read, written) = (Storage { read_only: true }, Storage { read_only: false });
    let mut types = vec![Uniform, read, read, read, read, read, written, written];
    if wants_labels {
        types.push(written);
    }
    bind_group_layout(device, "assign", &types)
}

/// A layout of buffers, bound from 0 on.
pub(crate) fn bind_group_layout(
    device: &wgpu::Device,
    label: &str,
    types: &[wgpu::BufferBindingType],
) -> wgpu::BindGroupLayout {
    let entries: Vec<_> = (0..)
        .zip(types)
        .map(|(binding, &ty)| wgpu::BindGroupLayoutEntry {
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
        label: Some(label),
        entries: &entries,
    })
}

/// Compiles one of our own shaders, with wgpu's run-time checks or without.
pub(crate) fn compile(
    device: &wgpu::Device,
    layout: &wgpu::BindGroupLayout,
    text: String,
    name: &str,
    is_checked: bool,
) -> wgpu::ComputePipeline {
    let source = wgpu::ShaderModuleDescriptor {
        label: Some(name),
        source: wgpu::ShaderSource::Wgsl(text.into()),
    };
    let module = if is_checked {
        device.create_shader_module(source)
    } else {
        // SAFETY: the shaders are our own. Their loops all end (their bounds are fixed before they start) and every index they form
        // is below a size of this crate's own making: buffers are sized from the same numbers that `Params`, `CandidateRow` and
        // `Group` carry. No number from outside reaches a shader except values of rows and centroids, and none is an index.
        unsafe {
            device.create_shader_module_trusted(source, wgpu::ShaderRuntimeChecks::unchecked())
        }
    };
    let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: Some(name),
        bind_group_layouts: &[Some(layout)],
        immediate_size: 0,
    });
    device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(name),
        layout: Some(&pipeline_layout),
        module: &module,
        entry_point: Some(name),
        compilation_options: wgpu::PipelineCompilationOptions {
            // The shaders clear their own.
            zero_initialize_workgroup_memory: false,
            ..Default::default()
        },
        cache: None,
    })
}
