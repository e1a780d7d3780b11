//! Host side of `shaders/remember.wgsl` and `shaders/gather.wgsl`: a pass on behalf of one candidate that looks only at rows that may have
//! changed, and the sums of its blocks together.

use std::collections::HashMap;
use std::ops::Range;

use bytemuck::{Pod, Zeroable};
use clientele_kmeans::cpu::TravelUnits;
use clientele_kmeans::{BackendError, LANES};
use wgpu::BufferBindingType::{Storage, Uniform};

use super::assign::{Batch, RowBuffers, bind_group_layout, compile};
use super::plan::{self, Group, MAX_SLAB_CLUSTERS, SLAB_CELLS, to_u32};
use crate::candidate::DeviceCandidate;
use crate::device::Gpu;
use crate::memory::MemoryBuffers;
use crate::shaders::{self, AssignShape, RememberShape};

/// Cells of a workgroup that gathers, and blocks that it goes over; as in the shader.
const GATHER_CELLS: usize = 64;
const GATHER_BLOCKS: usize = 16;

/// Workgroups of a dispatch, at most.
const MAX_WORKGROUPS: usize = 65_535;

/// What units are made smaller by, for the roundings of grid steps to units on the device.
const UNIT_ROUNDING: f64 = 1.0 / (1u64 << 20) as f64;

/// The compiled shaders, each made once.
pub(crate) struct RememberPipelines {
    is_checked: bool,
    params: wgpu::Buffer,
    gather_params: wgpu::Buffer,
    layout: wgpu::BindGroupLayout,
    gather_layout: wgpu::BindGroupLayout,
    /// By the number of features.
    remember: HashMap<usize, wgpu::ComputePipeline>,
    gather: Option<wgpu::ComputePipeline>,
}

/// As in the shader.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Params {
    first_group: u32,
    n_entries: u32,
    n_clusters: u32,
    n_tiles: u32,
    has_half_tile: u32,
    window: u32,
    first_bound: u32,
    most: u32,
    bound_slope: f32,
    bound_base: f32,
    largest_norm: f32,
    slop: f32,
    per_unit: f32,
    n_features: u32,
    zero: u32,
    padding: u32,
    travel: [u32; MAX_SLAB_CLUSTERS],
}

/// As in the shader.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct GatherParams {
    n_cells: u32,
    first_block: u32,
    end_block: u32,
    padding: u32,
}

/// What is known of a block's rows; the values are those of the shader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Labels and bounds.
    Known = 0,
    /// Labels.
    Stale = 1,
    /// Nothing.
    Unknown = 2,
}

/// Up to [`RememberShape::GROUP_ROWS`] rows of a block, as in the shader.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct RememberedGroup {
    first_tile: u32,
    n_rows: u32,
    first_cell: u32,
    state: u32,
}

impl RememberedGroup {
    /// The groups of `n_rows` rows of one block that begin at tile `first_tile` of a buffer, as they stand in the table of groups.
    pub fn cut(
        first_tile: usize,
        n_rows: usize,
        first_cell: u32,
        state: State,
    ) -> impl Iterator<Item = Group> {
        (0..n_rows)
            .step_by(RememberShape::GROUP_ROWS)
            .map(move |begin| {
                bytemuck::cast(Self {
                    first_tile: to_u32(first_tile + begin / LANES),
                    n_rows: to_u32(RememberShape::GROUP_ROWS.min(n_rows - begin)),
                    first_cell,
                    state: state as u32,
                })
            })
    }
}

/// Groups of the table that are gone over in one dispatch.
pub(crate) struct Meeting<'a> {
    pub rows: &'a RowBuffers,
    pub memory: &'a MemoryBuffers,
    /// The table of groups, filled in at `groups`.
    pub table: &'a wgpu::Buffer,
    pub groups: Range<usize>,
    pub candidate: &'a DeviceCandidate,
    pub travel: &'a TravelUnits,
}

impl RememberPipelines {
    /// Nothing is compiled yet. `is_checked`: with wgpu's run-time checks.
    pub fn new(gpu: &Gpu, is_checked: bool) -> Result<Self, BackendError> {
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let buffer = |n_bytes: usize| gpu.create_buffer("params", n_bytes as u64, usage, false);
        let (read, written) = (Storage { read_only: true }, Storage { read_only: false });
        let types = [
            Uniform, read, read, read, read, written, written, written, written,
        ];
        let gather_types = [Uniform, read, read, written];
        Ok(Self {
            is_checked,
            params: buffer(size_of::<Params>())?,
            gather_params: buffer(size_of::<GatherParams>())?,
            layout: bind_group_layout(&gpu.device, "remember", &types),
            gather_layout: bind_group_layout(&gpu.device, "gather", &gather_types),
            remember: HashMap::new(),
            gather: None,
        })
    }

    /// Forgets what was compiled, so that an injected mistake gets into it.
    pub fn recompile(&mut self) {
        self.remember.clear();
    }

    /// Compiles what is not yet compiled for rows of `n_features`.
    pub fn prepare(&mut self, gpu: &Gpu, n_features: usize) -> Result<(), BackendError> {
        let is_checked = self.is_checked;
        if self.gather.is_none() {
            let text = shaders::GATHER.to_owned();
            let layout = &self.gather_layout;
            self.gather =
                Some(gpu.guarded(|| Ok(compile(&gpu.device, layout, text, "gather", is_checked)))?);
        }
        if self.remember.contains_key(&n_features) {
            return Ok(());
        }
        let shape = RememberShape { n_features };
        let text = match gpu.flaw() {
            None => shape.wgsl(),
            Some(flaw) => shape.wgsl_with(flaw),
        };
        let layout = &self.layout;
        let pipeline =
            gpu.guarded(|| Ok(compile(&gpu.device, layout, text, "remember", is_checked)))?;
        self.remember.insert(n_features, pipeline);
        Ok(())
    }

    /// Goes over groups of rows. Submits, and does not wait.
    pub fn dispatch(
        &self,
        gpu: &Gpu,
        batch: &Batch,
        meeting: &Meeting,
    ) -> Result<(), BackendError> {
        let (candidate, n_features) = (meeting.candidate, meeting.candidate.n_features);
        let pipeline = self
            .remember
            .get(&n_features)
            .ok_or_else(|| gpu.give_up(&"no pipeline of this shape"))?;
        let group = bind(
            gpu,
            &self.layout,
            &[
                &self.params,
                &meeting.rows.tiles,
                &meeting.rows.norms,
                meeting.table,
                &batch.centroids,
                &meeting.memory.marks,
                &meeting.memory.sums,
                &batch.totals,
                &batch.list,
            ],
        );
        let mut params = Params {
            first_group: 0,
            n_entries: to_u32(batch.plan.n_entries),
            n_clusters: to_u32(candidate.n_clusters),
            n_tiles: to_u32(candidate.n_tiles),
            has_half_tile: u32::from(candidate.has_half_tile),
            window: to_u32((SLAB_CELLS / candidate.n_clusters).min(n_features + 1)),
            first_bound: to_u32(meeting.memory.first_bound),
            most: u32::from(meeting.travel.most),
            bound_slope: candidate.bound_slope,
            bound_base: candidate.bound_base,
            largest_norm: candidate.largest_norm,
            slop: candidate.distance_slop,
            per_unit: ((1.0 - UNIT_ROUNDING) / meeting.travel.unit) as f32,
            n_features: to_u32(n_features),
            zero: 0,
            padding: 0,
            travel: [0; MAX_SLAB_CLUSTERS],
        };
        for (word, &(low, high)) in params.travel.iter_mut().zip(&meeting.travel.of_cluster) {
            *word = u32::from(low) | u32::from(high) << 16;
        }
        let shape = AssignShape {
            n_features,
            wants_labels: false,
        };
        for slice in plan::slices(&shape, meeting.groups.len(), candidate.n_clusters) {
            params.first_group = to_u32(meeting.groups.start + slice.start);
            gpu.queue
                .write_buffer(&self.params, 0, bytemuck::bytes_of(&params));
            submit(gpu, pipeline, &group, (slice.len(), 1))?;
        }
        Ok(())
    }

    /// Adds the sums of `n_blocks` blocks, which begin where `blocks` says, to `gathered`. Submits, and does not wait.
    pub fn gather(
        &self,
        gpu: &Gpu,
        n_cells: usize,
        blocks: &wgpu::Buffer,
        n_blocks: usize,
        sums: &wgpu::Buffer,
        gathered: &wgpu::Buffer,
    ) -> Result<(), BackendError> {
        let pipeline = self
            .gather
            .as_ref()
            .ok_or_else(|| gpu.give_up(&"no pipeline that gathers"))?;
        let buffers = [&self.gather_params, blocks, sums, gathered];
        let group = bind(gpu, &self.gather_layout, &buffers);
        let step = GATHER_BLOCKS * MAX_WORKGROUPS;
        for first_block in (0..n_blocks).step_by(step) {
            let end_block = n_blocks.min(first_block + step);
            let params = GatherParams {
                n_cells: to_u32(n_cells),
                first_block: to_u32(first_block),
                end_block: to_u32(end_block),
                padding: 0,
            };
            gpu.queue
                .write_buffer(&self.gather_params, 0, bytemuck::bytes_of(&params));
            let n_runs = (end_block - first_block).div_ceil(GATHER_BLOCKS);
            submit(
                gpu,
                pipeline,
                &group,
                (n_cells.div_ceil(GATHER_CELLS), n_runs),
            )?;
        }
        Ok(())
    }
}

/// Buffers from binding 0 on.
fn bind(gpu: &Gpu, layout: &wgpu::BindGroupLayout, buffers: &[&wgpu::Buffer]) -> wgpu::BindGroup {
    let entries: Vec<_> = (0..)
        .zip(buffers)
        .map(|(binding, buffer)| wgpu::BindGroupEntry {
            binding,
            resource: buffer.as_entire_binding(),
        })
        .collect();
    gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout,
        entries: &entries,
    })
}

fn submit(
    gpu: &Gpu,
    pipeline: &wgpu::ComputePipeline,
    group: &wgpu::BindGroup,
    n_workgroups: (usize, usize),
) -> Result<(), BackendError> {
    let mut encoder = gpu.encoder("remember");
    {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_pipeline(pipeline);
        pass.set_bind_group(0, group, &[]);
        pass.dispatch_workgroups(to_u32(n_workgroups.0), to_u32(n_workgroups.1), 1);
    }
    gpu.submit(encoder).map(drop)
}
