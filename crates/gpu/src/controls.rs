//! What the device can do at best: how fast it copies and how fast it multiplies and adds.

use std::time::Instant;

use clientele_kmeans::BackendError;
use wgpu::BufferBindingType::Storage;
use wgpu::util::DeviceExt as _;

use crate::device::Gpu;
use crate::pipeline::assign::{bind_group_layout, compile};
use crate::pipeline::transfer::ON_DEVICE;
use crate::shaders;

/// Measurements of each; the best counts, because everything that disturbs makes it slower.
const N_REPEATS: usize = 5;

/// Workgroups of a dispatch: enough to fill any device.
const MAX_WORKGROUPS: u32 = 2_048;

/// Workgroups to begin with where each has its own work, so that slow devices are asked for less.
const FEW_WORKGROUPS: u32 = 8;

/// A measurement takes about this long, so that submitting and waiting are a small part of it.
const LONG_ENOUGH_SECONDS: f64 = 0.05;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Control {
    /// Bytes read and written a second.
    Copy,
    /// Multiply-adds a second.
    MultiplyAdd,
}

/// The best of several measurements, a second.
pub(crate) fn measure(gpu: &Gpu, control: Control) -> Result<f64, BackendError> {
    gpu.guarded(|| match control {
        Control::Copy => copy(gpu),
        Control::MultiplyAdd => multiply_add(gpu),
    })
}

fn copy(gpu: &Gpu) -> Result<f64, BackendError> {
    let mut n_bytes = gpu.binding_bytes.min(256 << 20);
    let buffers = loop {
        let buffer = |label| gpu.create_buffer(label, n_bytes, ON_DEVICE, false);
        match buffer("source").and_then(|source| Ok((source, buffer("copied")?))) {
            Err(BackendError::OutOfMemory { .. }) if n_bytes > 1 << 20 => n_bytes /= 2,
            other => break other?,
        }
    };
    // Both read and written: two ways, whoever does it.
    let units = |_| 2.0 * n_bytes as f64;
    // They share the same bytes: fewer would take longer, and leave most of the device idle.
    let at_least = MAX_WORKGROUPS;
    let buffers = [&buffers.0, &buffers.1];
    time(gpu, "copy", shaders::COPY, buffers, at_least, units)
}

fn multiply_add(gpu: &Gpu) -> Result<f64, BackendError> {
    const INVOCATIONS: u32 = 256;
    // 4,096 steps of 4 vectors of 4.
    const EACH: u32 = 4_096 * 16;
    // A factor of about one keeps the chains in range.
    let seeds: Vec<f32> = [0.999_9, 0.000_1, 1.0]
        .into_iter()
        .flat_map(|seed| [seed; 4])
        .collect();
    let seeds = gpu
        .device
        .create_buffer_init(&wgpu::util::BufferInitDescriptor {
            label: Some("seeds"),
            contents: bytemuck::cast_slice(&seeds),
            usage: ON_DEVICE,
        });
    let n_invocations = MAX_WORKGROUPS * INVOCATIONS;
    let results = gpu.create_buffer("results", 16 * u64::from(n_invocations), ON_DEVICE, false)?;
    let units = |n_workgroups: u32| f64::from(n_workgroups * INVOCATIONS) * f64::from(EACH);
    time(
        gpu,
        "multiply_add",
        shaders::MULTIPLY_ADD,
        [&seeds, &results],
        FEW_WORKGROUPS,
        units,
    )
}

/// Units a second, at best. `buffers`: one that is read and one that is written; `at_least`: workgroups to begin with; `units` of so many
/// workgroups.
fn time(
    gpu: &Gpu,
    name: &str,
    text: &str,
    buffers: [&wgpu::Buffer; 2],
    at_least: u32,
    units: impl Fn(u32) -> f64,
) -> Result<f64, BackendError> {
    let types = [Storage { read_only: true }, Storage { read_only: false }];
    let layout = bind_group_layout(&gpu.device, name, &types);
    let pipeline = compile(&gpu.device, &layout, text.to_owned(), name, false);
    let entries = [0, 1].map(|binding| wgpu::BindGroupEntry {
        binding: binding as u32,
        resource: buffers[binding].as_entire_binding(),
    });
    let group = gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: Some(name),
        layout: &layout,
        entries: &entries,
    });
    let run = |n_workgroups: u32, n_dispatches: usize| {
        let begun = Instant::now();
        for _ in 0..n_dispatches {
            let mut encoder = gpu.encoder("control");
            {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                pass.set_pipeline(&pipeline);
                pass.set_bind_group(0, &group, &[]);
                pass.dispatch_workgroups(n_workgroups, 1, 1);
            }
            gpu.submit(encoder)?;
        }
        gpu.wait()?;
        Ok::<f64, BackendError>(begun.elapsed().as_secs_f64())
    };
    run(at_least, 1)?;
    let (n_workgroups, once) = long_enough(at_least, |n_workgroups| run(n_workgroups, 1))?;
    let n_dispatches = ((LONG_ENOUGH_SECONDS / once.max(1e-6)).ceil() as usize).clamp(1, 1_000);
    let mut best = f64::INFINITY;
    for _ in 0..N_REPEATS {
        best = best.min(run(n_workgroups, n_dispatches)?);
    }
    Ok(units(n_workgroups) * n_dispatches as f64 / best)
}

/// Workgroups that take long enough, or as many as there may be, and how long they took.
fn long_enough(
    at_least: u32,
    mut run: impl FnMut(u32) -> Result<f64, BackendError>,
) -> Result<(u32, f64), BackendError> {
    let mut n_workgroups = at_least;
    let mut once = run(n_workgroups)?;
    while once < LONG_ENOUGH_SECONDS && n_workgroups < MAX_WORKGROUPS {
        n_workgroups = (2 * n_workgroups).min(MAX_WORKGROUPS);
        once = run(n_workgroups)?;
    }
    Ok((n_workgroups, once))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_device_copies_with_all_it_has_and_multiplies_less() {
        // 64 workgroups run at a time; all of them together copy the buffer in 0.1 s.
        let copying = |n: u32| Ok(0.1 * 64.0 / f64::from(n.min(64)));
        assert_eq!(
            long_enough(MAX_WORKGROUPS, copying),
            Ok((MAX_WORKGROUPS, 0.1))
        );
        // Each workgroup takes a millisecond of its own.
        let multiplying = |n: u32| Ok(0.001 * f64::from(n.div_ceil(64)));
        assert_eq!(
            long_enough(FEW_WORKGROUPS, multiplying),
            Ok((MAX_WORKGROUPS, 0.032))
        );
        let slowly = |n: u32| Ok(0.1 * f64::from(n.div_ceil(64)));
        assert_eq!(
            long_enough(FEW_WORKGROUPS, slowly),
            Ok((FEW_WORKGROUPS, 0.1))
        );
    }
}
