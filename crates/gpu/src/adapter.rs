//! Which adapters there are, and which one to take.

use wgpu::{Backends, DeviceType, Features};

use crate::{OpenError, OpenOptions};

/// An adapter as `clientele doctor` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterReport {
    /// The device's name.
    pub name: String,
    /// The driver and its version, as far as it tells.
    pub driver: String,
    /// The interface it is reached by: `Vulkan`, `Metal`, `DirectX 12`.
    pub backend: String,
    /// `discrete`, `integrated`, `virtual`, `software` or `other`.
    pub device_type: &'static str,
    /// It computes on the CPU.
    pub is_software: bool,
    /// Bytes of a buffer that a shader can see at once.
    pub max_binding_bytes: u64,
    /// Bytes of a buffer.
    pub max_buffer_bytes: u64,
    /// Bytes of memory a workgroup shares.
    pub max_workgroup_bytes: u32,
    /// Invocations of a workgroup.
    pub max_workgroup_invocations: u32,
    /// Storage buffers a shader can see at once.
    pub max_storage_buffers: u32,
    /// Invocations that run in step, at least and at most.
    pub subgroup_sizes: (u32, u32),
    /// What else it has that matters to kernels: `f16`, `int64`, `subgroups`, `timestamps`, `mappable buffers`.
    pub features: Vec<&'static str>,
}

impl AdapterReport {
    /// Whether its memory is not this machine's own.
    pub fn has_own_memory(&self) -> bool {
        ["discrete", "virtual"].contains(&self.device_type)
    }

    pub(crate) fn of(adapter: &wgpu::Adapter) -> Self {
        let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
        let named = [
            (Features::SHADER_F16, "f16"),
            (Features::SHADER_INT64, "int64"),
            (Features::SUBGROUP, "subgroups"),
            (Features::TIMESTAMP_QUERY, "timestamps"),
            (Features::MAPPABLE_PRIMARY_BUFFERS, "mappable buffers"),
        ];
        Self {
            name: info.name,
            driver: format!("{} {}", info.driver, info.driver_info)
                .trim()
                .to_owned(),
            backend: match info.backend {
                wgpu::Backend::Dx12 => "DirectX 12".to_owned(),
                other => format!("{other:?}"),
            },
            device_type: match info.device_type {
                DeviceType::DiscreteGpu => "discrete",
                DeviceType::IntegratedGpu => "integrated",
                DeviceType::VirtualGpu => "virtual",
                DeviceType::Cpu => "software",
                DeviceType::Other => "other",
            },
            is_software: info.device_type == DeviceType::Cpu,
            max_binding_bytes: limits.max_storage_buffer_binding_size,
            max_buffer_bytes: limits.max_buffer_size,
            max_workgroup_bytes: limits.max_compute_workgroup_storage_size,
            max_workgroup_invocations: limits.max_compute_invocations_per_workgroup,
            max_storage_buffers: limits.max_storage_buffers_per_shader_stage,
            subgroup_sizes: (info.subgroup_min_size, info.subgroup_max_size),
            features: named
                .into_iter()
                .filter_map(|(feature, name)| features.contains(feature).then_some(name))
                .collect(),
        }
    }
}

/// All adapters, the one that [`crate::GpuBackend::open`] would try first in front.
pub fn adapters() -> Vec<AdapterReport> {
    enumerate().iter().map(AdapterReport::of).collect()
}

/// Best first; among equals in the order the drivers give.
pub(crate) fn enumerate() -> Vec<wgpu::Adapter> {
    // OpenGL is left out: some of its drivers hang on compute kernels. No flags: validation layers are for wgpu's developers.
    let backends = Backends::VULKAN | Backends::METAL | Backends::DX12;
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends,
        flags: wgpu::InstanceFlags::empty(),
        memory_budget_thresholds: wgpu::MemoryBudgetThresholds {
            // Rows take what memory there is; the rest is for the work itself and for others.
            for_resource_creation: Some(85),
            for_device_loss: None,
        },
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let mut adapters = pollster::block_on(instance.enumerate_adapters(backends));
    adapters.sort_by_key(|adapter| rank(adapter.get_info().device_type));
    adapters
}

/// The adapters to try, best first: never none.
pub(crate) fn choose(options: &OpenOptions) -> Result<Vec<wgpu::Adapter>, OpenError> {
    let all = enumerate();
    if all.is_empty() {
        return Err(OpenError::NoAdapter);
    }
    let names_of = |adapters: &[wgpu::Adapter]| -> Vec<String> {
        adapters.iter().map(|a| a.get_info().name).collect()
    };
    let named = match &options.adapter {
        None => all,
        Some(wanted) => {
            let names = names_of(&all);
            let (wanted_lower, mut found) = (wanted.to_lowercase(), all);
            found.retain(|a| a.get_info().name.to_lowercase().contains(&wanted_lower));
            if found.is_empty() {
                return Err(OpenError::NoSuchAdapter {
                    wanted: wanted.clone(),
                    names,
                });
            }
            found
        }
    };
    let names = names_of(&named);
    let mut permitted = named;
    permitted.retain(|a| options.allow_software || a.get_info().device_type != DeviceType::Cpu);
    if permitted.is_empty() {
        return Err(OpenError::OnlySoftware { names });
    }
    Ok(permitted)
}

/// Each device under the first of the interfaces that show it, so that none is used twice.
pub(crate) fn one_interface_each(mut adapters: Vec<wgpu::Adapter>) -> Vec<wgpu::Adapter> {
    let mut chosen = std::collections::HashMap::new();
    adapters.retain(|adapter| {
        let info = adapter.get_info();
        *chosen
            .entry((info.vendor, info.device))
            .or_insert(info.backend)
            == info.backend
    });
    adapters
}

fn rank(device_type: DeviceType) -> u8 {
    match device_type {
        DeviceType::DiscreteGpu => 0,
        DeviceType::IntegratedGpu => 1,
        DeviceType::VirtualGpu => 2,
        DeviceType::Other => 3,
        DeviceType::Cpu => 4,
    }
}
