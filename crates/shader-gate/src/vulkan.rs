//! A Vulkan device that compiles pipelines and tells what came out. Nothing is ever submitted, so no hardware is needed.

use std::ffi::CStr;

use ash::{khr, vk};

/// The first device the loader shows.
pub struct Compiler {
    device: ash::Device,
    executables: khr::pipeline_executable_properties::Device,
    /// The driver's name and version, `Mesa 22.3.6` for one.
    pub driver: String,
    // Last, because the fields before it stop working when it goes.
    _instance: ash::Instance,
    _entry: ash::Entry,
}

/// What a driver says about one pipeline.
#[derive(Debug, Clone, Default)]
pub struct Compiled {
    /// By the driver's names: `VGPRs`, `Spilled VGPRs`, ...
    pub statistics: Vec<(String, u64)>,
    /// The instructions, if the driver shows them.
    pub assembly: String,
}

impl Compiled {
    /// A statistic by its name; 0 when the driver does not have it.
    pub fn statistic(&self, name: &str) -> u64 {
        let found = self.statistics.iter().find(|(n, _)| n == name);
        found.map_or(0, |(_, value)| *value)
    }
}

impl Compiler {
    /// Opens the first device.
    ///
    /// # Errors
    /// In words, when there is no loader, no driver, or one without `VK_KHR_pipeline_executable_properties`.
    pub fn open() -> Result<Self, String> {
        // SAFETY: the loader is a system library without requirements on its caller; every pointer below lives until the call that
        // it is passed to returns, and nothing outlives the instance.
        unsafe {
            let entry = ash::Entry::load().map_err(|error| error.to_string())?;
            let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
            let instance = entry
                .create_instance(
                    &vk::InstanceCreateInfo::default().application_info(&application),
                    None,
                )
                .map_err(|error| format!("no Vulkan instance: {error}"))?;
            let physical = *instance
                .enumerate_physical_devices()
                .map_err(|error| error.to_string())?
                .first()
                .ok_or("no Vulkan device")?;
            let mut driver = vk::PhysicalDeviceDriverProperties::default();
            let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut driver);
            instance.get_physical_device_properties2(physical, &mut properties);
            let device_name = text(&properties.properties.device_name);
            let driver = text(&driver.driver_info);
            let extensions = [khr::pipeline_executable_properties::NAME.as_ptr()];
            let mut info_feature =
                vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default()
                    .pipeline_executable_info(true);
            let priorities = [1.0];
            let queues = [vk::DeviceQueueCreateInfo::default()
                .queue_family_index(0)
                .queue_priorities(&priorities)];
            let device = instance
                .create_device(
                    physical,
                    &vk::DeviceCreateInfo::default()
                        .queue_create_infos(&queues)
                        .enabled_extension_names(&extensions)
                        .push_next(&mut info_feature),
                    None,
                )
                .map_err(|error| format!("{device_name} ({driver}): {error}"))?;
            let executables = khr::pipeline_executable_properties::Device::new(&instance, &device);
            Ok(Self {
                device,
                executables,
                driver,
                _instance: instance,
                _entry: entry,
            })
        }
    }

    /// Compiles a compute pipeline with `n_bindings` buffers: the first uniform, the others storage.
    ///
    /// # Errors
    /// What the driver says.
    pub fn compile(
        &self,
        spirv: &[u32],
        entry_point: &CStr,
        n_bindings: u32,
    ) -> Result<Compiled, vk::Result> {
        // SAFETY: the module was validated by naga, the layout has every binding it uses, all structures live until the calls
        // return, and each object is destroyed after its last use.
        unsafe {
            let bindings: Vec<_> = (0..n_bindings)
                .map(|binding| {
                    vk::DescriptorSetLayoutBinding::default()
                        .binding(binding)
                        .descriptor_count(1)
                        .stage_flags(vk::ShaderStageFlags::COMPUTE)
                        .descriptor_type(if binding == 0 {
                            vk::DescriptorType::UNIFORM_BUFFER
                        } else {
                            vk::DescriptorType::STORAGE_BUFFER
                        })
                })
                .collect();
            let module = self
                .device
                .create_shader_module(&vk::ShaderModuleCreateInfo::default().code(spirv), None)?;
            let set = self.device.create_descriptor_set_layout(
                &vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings),
                None,
            )?;
            let layout = self.device.create_pipeline_layout(
                &vk::PipelineLayoutCreateInfo::default().set_layouts(&[set]),
                None,
            )?;
            let stage = vk::PipelineShaderStageCreateInfo::default()
                .stage(vk::ShaderStageFlags::COMPUTE)
                .module(module)
                .name(entry_point);
            let created = self.device.create_compute_pipelines(
                vk::PipelineCache::null(),
                &[vk::ComputePipelineCreateInfo::default()
                    .stage(stage)
                    .layout(layout)
                    .flags(
                        vk::PipelineCreateFlags::CAPTURE_STATISTICS_KHR
                            | vk::PipelineCreateFlags::CAPTURE_INTERNAL_REPRESENTATIONS_KHR,
                    )],
                None,
            );
            let compiled = match created {
                Ok(pipelines) => {
                    let compiled = self.describe(pipelines[0]);
                    self.device.destroy_pipeline(pipelines[0], None);
                    compiled
                }
                Err((_, error)) => Err(error),
            };
            self.device.destroy_pipeline_layout(layout, None);
            self.device.destroy_descriptor_set_layout(set, None);
            self.device.destroy_shader_module(module, None);
            compiled
        }
    }

    /// # Safety
    /// `pipeline` belongs to the device and was made with both capture flags.
    unsafe fn describe(&self, pipeline: vk::Pipeline) -> Result<Compiled, vk::Result> {
        let executable = vk::PipelineExecutableInfoKHR::default()
            .pipeline(pipeline)
            .executable_index(0);
        // SAFETY: as the caller promises; a compute pipeline has one executable.
        let statistics = unsafe {
            self.executables
                .get_pipeline_executable_statistics(&executable)?
        };
        let statistics = statistics
            .iter()
            .map(|statistic| {
                // SAFETY: the format names the member of the union that the driver wrote.
                let value = unsafe {
                    match statistic.format {
                        vk::PipelineExecutableStatisticFormatKHR::UINT64 => statistic.value.u64,
                        vk::PipelineExecutableStatisticFormatKHR::INT64 => {
                            statistic.value.i64.max(0).cast_unsigned()
                        }
                        vk::PipelineExecutableStatisticFormatKHR::FLOAT64 => {
                            statistic.value.f64 as u64
                        }
                        _ => u64::from(statistic.value.b32),
                    }
                };
                (text(&statistic.name), value)
            })
            .collect();
        Ok(Compiled {
            statistics,
            // SAFETY: as above.
            assembly: unsafe { self.assembly(&executable)? },
        })
    }

    /// # Safety
    /// `executable` is one of a pipeline of the device that was made to capture its representations.
    unsafe fn assembly(
        &self,
        executable: &vk::PipelineExecutableInfoKHR<'_>,
    ) -> Result<String, vk::Result> {
        let get = self
            .executables
            .fp()
            .get_pipeline_executable_internal_representations_khr;
        let device = self.device.handle();
        let mut count = 0;
        // SAFETY: asks for the number of representations, then for their sizes, then for their texts, into vectors of just that
        // size.
        unsafe {
            get(device, executable, &mut count, std::ptr::null_mut()).result()?;
            let mut found =
                vec![vk::PipelineExecutableInternalRepresentationKHR::default(); count as usize];
            get(device, executable, &mut count, found.as_mut_ptr()).result()?;
            let mut texts: Vec<Vec<u8>> = found.iter().map(|r| vec![0; r.data_size]).collect();
            for (representation, text) in found.iter_mut().zip(&mut texts) {
                representation.p_data = text.as_mut_ptr().cast();
            }
            get(device, executable, &mut count, found.as_mut_ptr()).result()?;
            let assembly = found
                .iter()
                .zip(&texts)
                .find(|(representation, _)| text(&representation.name) == "Assembly");
            Ok(assembly.map_or_else(String::new, |(_, bytes)| {
                let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
                String::from_utf8_lossy(&bytes[..end]).into_owned()
            }))
        }
    }
}

impl Drop for Compiler {
    fn drop(&mut self) {
        // SAFETY: nothing made by the device is left.
        unsafe { self.device.destroy_device(None) };
    }
}

/// A text in a fixed array that ends with a zero.
fn text(characters: &[std::ffi::c_char]) -> String {
    let bytes = characters.iter().map(|&c| c.cast_unsigned());
    let bytes: Vec<u8> = bytes.take_while(|&b| b != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}
