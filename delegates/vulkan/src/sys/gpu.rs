//! A device with its queue, and the pipelines that were made on it.

use super::{Instance, error};
use crate::facts::{Facts, Kind, Limits};
use crate::kernels::{Kernel, Needs};
use ash::vk;
use delegraph_sdk::{Error, Status};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A device.
pub struct Gpu {
    pub(super) instance: Arc<Instance>,
    pub(super) device: ash::Device,
    pub(super) memory: vk::PhysicalDeviceMemoryProperties,
    pub(super) queue: Mutex<vk::Queue>,
    pub(super) family: u32,
    facts: Facts,
    cache: vk::PipelineCache,
    /// By number of buffers.
    layouts: Mutex<HashMap<usize, (vk::DescriptorSetLayout, vk::PipelineLayout)>>,
    /// By index of the kernel.
    pipelines: Mutex<HashMap<usize, vk::Pipeline>>,
}

/// A device of the system, not opened yet.
struct Found {
    physical: vk::PhysicalDevice,
    family: u32,
    facts: Facts,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gpu {
    /// What each device of the system is, in the driver's order, as far as they can compute.
    ///
    /// # Errors
    /// The driver cannot tell.
    pub fn list(instance: &Instance) -> Result<Vec<Facts>, Error> {
        Ok(find(instance)?.into_iter().map(|found| found.facts).collect())
    }

    /// Opens the device of this index in [`Gpu::list`].
    ///
    /// # Errors
    /// `NOT_FOUND`: there is no such device; otherwise what the driver says.
    pub fn open(instance: &Arc<Instance>, index: usize) -> Result<Arc<Gpu>, Error> {
        let found = find(instance)?.into_iter().nth(index);
        let Found {
            physical,
            family,
            facts,
        } = found.ok_or_else(|| Error::new(Status::NOT_FOUND, format!("there is no Vulkan device {index}")))?;
        let priorities = [1.0];
        let queues = [vk::DeviceQueueCreateInfo::default()
            .queue_family_index(family)
            .queue_priorities(&priorities)];
        let mut sixteen = vk::PhysicalDevice16BitStorageFeatures::default()
            .storage_buffer16_bit_access(true)
            .uniform_and_storage_buffer16_bit_access(true);
        let mut halves = vk::PhysicalDeviceShaderFloat16Int8Features::default().shader_float16(true);
        let mut dots = vk::PhysicalDeviceShaderIntegerDotProductFeatures::default().shader_integer_dot_product(true);
        let mut timeline = vk::PhysicalDeviceTimelineSemaphoreFeatures::default().timeline_semaphore(true);
        let plain = vk::PhysicalDeviceFeatures::default().shader_int64(facts.has.has(Needs::I64));
        let mut info = vk::DeviceCreateInfo::default()
            .queue_create_infos(&queues)
            .enabled_features(&plain)
            .push_next(&mut timeline);
        if facts.has.has(Needs::F16) {
            info = info.push_next(&mut sixteen).push_next(&mut halves);
        }
        if facts.has.has(Needs::DOT) {
            info = info.push_next(&mut dots);
        }
        // SAFETY: the physical device is of this instance, and only features that it has are asked for.
        let device =
            unsafe { instance.raw.create_device(physical, &info, None) }.map_err(|r| error("open the device", r))?;
        // SAFETY: the device was made with one queue of this family.
        let queue = unsafe { device.get_device_queue(family, 0) };
        // SAFETY: the device is open.
        let cache = unsafe { device.create_pipeline_cache(&vk::PipelineCacheCreateInfo::default(), None) };
        let cache = cache.map_err(|r| {
            // SAFETY: nothing was made with it yet.
            unsafe { device.destroy_device(None) };
            error("make a pipeline cache", r)
        })?;
        // SAFETY: as above.
        let memory = unsafe { instance.raw.get_physical_device_memory_properties(physical) };
        Ok(Arc::new(Gpu {
            instance: Arc::clone(instance),
            device,
            memory,
            queue: Mutex::new(queue),
            family,
            facts,
            cache,
            layouts: Mutex::default(),
            pipelines: Mutex::default(),
        }))
    }

    /// What it is and can.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The instance that it belongs to.
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// How many pipelines were made.
    pub fn pipeline_count(&self) -> usize {
        lock(&self.pipelines).len()
    }

    pub(super) fn layout(&self, buffers: usize) -> Result<(vk::DescriptorSetLayout, vk::PipelineLayout), Error> {
        let mut layouts = lock(&self.layouts);
        if let Some(layout) = layouts.get(&buffers) {
            return Ok(*layout);
        }
        let bindings: Vec<_> = (0..=buffers as u32)
            .map(|binding| {
                vk::DescriptorSetLayoutBinding::default()
                    .binding(binding)
                    .descriptor_type(vk::DescriptorType::STORAGE_BUFFER)
                    .descriptor_count(1)
                    .stage_flags(vk::ShaderStageFlags::COMPUTE)
            })
            .collect();
        let info = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
        // SAFETY: the device is open; so below.
        let set = unsafe { self.device.create_descriptor_set_layout(&info, None) }
            .map_err(|r| error("make a set layout", r))?;
        let sets = [set];
        let info = vk::PipelineLayoutCreateInfo::default().set_layouts(&sets);
        // SAFETY: as above.
        let layout = unsafe { self.device.create_pipeline_layout(&info, None) }.map_err(|r| {
            // SAFETY: nothing uses it.
            unsafe { self.device.destroy_descriptor_set_layout(set, None) };
            error("make a pipeline layout", r)
        })?;
        layouts.insert(buffers, (set, layout));
        Ok((set, layout))
    }

    /// The pipeline of a kernel, made when it is first asked for.
    pub(super) fn pipeline(&self, kernel: &Kernel) -> Result<vk::Pipeline, Error> {
        if !self.facts.runs(kernel) {
            return Err(Error::internal(format!(
                "the kernel `{}` does not run on `{}`",
                kernel.name, self.facts.name
            )));
        }
        let (_, layout) = self.layout(kernel.writes.len())?;
        let mut pipelines = lock(&self.pipelines);
        if let Some(pipeline) = pipelines.get(&kernel.index) {
            return Ok(*pipeline);
        }
        let words: Vec<u32> = kernel
            .spirv
            .chunks_exact(4)
            .map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]]))
            .collect();
        let info = vk::ShaderModuleCreateInfo::default().code(&words);
        let failed = |r| error(&format!("make a pipeline of `{}`", kernel.name), r);
        // SAFETY: naga validated the module in the build, and the device has what it needs.
        let module = unsafe { self.device.create_shader_module(&info, None) }.map_err(failed)?;
        let stage = vk::PipelineShaderStageCreateInfo::default()
            .stage(vk::ShaderStageFlags::COMPUTE)
            .module(module)
            .name(c"main");
        let info = [vk::ComputePipelineCreateInfo::default().stage(stage).layout(layout)];
        // SAFETY: layout and module are of this device; the module is not needed after.
        let made = unsafe {
            let made = self.device.create_compute_pipelines(self.cache, &info, None);
            self.device.destroy_shader_module(module, None);
            made
        };
        let made = made.map_err(|(_, r)| failed(r))?;
        let pipeline = *made.first().ok_or_else(|| failed(vk::Result::ERROR_UNKNOWN))?;
        pipelines.insert(kernel.index, pipeline);
        Ok(pipeline)
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        // SAFETY: buffers and recordings keep this alive, so none is left, and each waited for its work.
        unsafe {
            let _ = self.device.device_wait_idle();
            for pipeline in lock(&self.pipelines).values() {
                self.device.destroy_pipeline(*pipeline, None);
            }
            for (set, layout) in lock(&self.layouts).values() {
                self.device.destroy_pipeline_layout(*layout, None);
                self.device.destroy_descriptor_set_layout(*set, None);
            }
            self.device.destroy_pipeline_cache(self.cache, None);
            self.device.destroy_device(None);
        }
    }
}

fn find(instance: &Instance) -> Result<Vec<Found>, Error> {
    // SAFETY: the instance is alive.
    let all = unsafe { instance.raw.enumerate_physical_devices() }.map_err(|r| error("list the devices", r))?;
    Ok(all
        .into_iter()
        .filter_map(|physical| look_at(instance, physical))
        .collect())
}

/// A device, if it is of Vulkan 1.1 and can compute.
fn look_at(instance: &Instance, physical: vk::PhysicalDevice) -> Option<Found> {
    let raw = &instance.raw;
    let mut ids = vk::PhysicalDeviceIDProperties::default();
    let mut subgroups = vk::PhysicalDeviceSubgroupProperties::default();
    let mut driver = vk::PhysicalDeviceDriverProperties::default();
    let mut allocation = vk::PhysicalDeviceMaintenance3Properties::default();
    let mut all = vk::PhysicalDeviceProperties2::default()
        .push_next(&mut ids)
        .push_next(&mut subgroups)
        .push_next(&mut driver)
        .push_next(&mut allocation);
    let mut sixteen = vk::PhysicalDevice16BitStorageFeatures::default();
    let mut halves = vk::PhysicalDeviceShaderFloat16Int8Features::default();
    let mut dots = vk::PhysicalDeviceShaderIntegerDotProductFeatures::default();
    let mut timeline = vk::PhysicalDeviceTimelineSemaphoreFeatures::default();
    let mut features = vk::PhysicalDeviceFeatures2::default()
        .push_next(&mut sixteen)
        .push_next(&mut halves)
        .push_next(&mut dots)
        .push_next(&mut timeline);
    // SAFETY: the physical device is of this instance; structs that it does not know are left as they are.
    let (families, memory) = unsafe {
        raw.get_physical_device_properties2(physical, &mut all);
        raw.get_physical_device_features2(physical, &mut features);
        (
            raw.get_physical_device_queue_family_properties(physical),
            raw.get_physical_device_memory_properties(physical),
        )
    };
    let (properties, plain) = (all.properties, features.features);
    let compute = |family: &vk::QueueFamilyProperties| family.queue_flags.contains(vk::QueueFlags::COMPUTE);
    // A family that computes and does not draw is free of the screen's work.
    let family = families
        .iter()
        .position(|f| compute(f) && !f.queue_flags.contains(vk::QueueFlags::GRAPHICS))
        .or_else(|| families.iter().position(compute))?;
    if properties.api_version < vk::API_VERSION_1_2 || timeline.timeline_semaphore == vk::FALSE {
        return None;
    }
    let mut has = Needs::NONE;
    if sixteen.storage_buffer16_bit_access != 0
        && sixteen.uniform_and_storage_buffer16_bit_access != 0
        && halves.shader_float16 != 0
    {
        has = has.and(Needs::F16);
    }
    if dots.shader_integer_dot_product != 0 && properties.api_version >= vk::API_VERSION_1_3 {
        has = has.and(Needs::DOT);
    }
    let wanted = vk::SubgroupFeatureFlags::BASIC
        | vk::SubgroupFeatureFlags::VOTE
        | vk::SubgroupFeatureFlags::ARITHMETIC
        | vk::SubgroupFeatureFlags::BALLOT
        | vk::SubgroupFeatureFlags::SHUFFLE
        | vk::SubgroupFeatureFlags::SHUFFLE_RELATIVE;
    if subgroups.supported_operations.contains(wanted)
        && subgroups.supported_stages.contains(vk::ShaderStageFlags::COMPUTE)
    {
        has = has.and(Needs::SUBGROUP);
    }
    if plain.shader_int64 != 0 {
        has = has.and(Needs::I64);
    }
    let heaps = memory
        .memory_heaps_as_slice()
        .iter()
        .filter(|heap| heap.flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL));
    let text = |chars: &[std::ffi::c_char]| -> String {
        chars
            .iter()
            .take_while(|c| **c != 0)
            .map(|c| char::from(*c as u8))
            .collect()
    };
    let driver_text = format!("{} {}", text(&driver.driver_name), text(&driver.driver_info));
    let mut cache_uuid = properties.pipeline_cache_uuid;
    for (byte, other) in cache_uuid.iter_mut().zip(ids.driver_uuid) {
        *byte ^= other;
    }
    let limits = properties.limits;
    let has_timestamps = families.get(family).is_some_and(|f| f.timestamp_valid_bits > 0);
    let facts = Facts {
        name: text(&properties.device_name),
        vendor: vendor(properties.vendor_id),
        kind: match properties.device_type {
            // Kernels for graphics processors are tested on drivers that compute on the processor.
            _ if std::env::var_os("DELEGRAPH_VULKAN_AS_DISCRETE").is_some_and(|v| v == "1") => Kind::Discrete,
            vk::PhysicalDeviceType::DISCRETE_GPU => Kind::Discrete,
            vk::PhysicalDeviceType::INTEGRATED_GPU => Kind::Integrated,
            vk::PhysicalDeviceType::VIRTUAL_GPU => Kind::Virtual,
            vk::PhysicalDeviceType::CPU => Kind::Software,
            _ => Kind::Other,
        },
        api: [
            vk::api_version_major(properties.api_version),
            vk::api_version_minor(properties.api_version),
            vk::api_version_patch(properties.api_version),
        ],
        driver: driver_text.trim().to_string(),
        cache_uuid,
        has,
        subgroup: subgroups.subgroup_size,
        limits: Limits {
            storage_range: u64::from(limits.max_storage_buffer_range),
            offset_alignment: limits.min_storage_buffer_offset_alignment,
            allocation: allocation.max_memory_allocation_size,
            memory: heaps.map(|heap| heap.size).max().unwrap_or(0),
            invocations: limits.max_compute_work_group_invocations,
            workgroup: limits.max_compute_work_group_size,
            groups: limits.max_compute_work_group_count,
            shared: limits.max_compute_shared_memory_size,
            timestamp_period: if has_timestamps {
                limits.timestamp_period.to_bits()
            } else {
                0
            },
        },
    };
    Some(Found {
        physical,
        family: family as u32,
        facts,
    })
}

fn vendor(id: u32) -> String {
    match id {
        0x1002 => "AMD".to_string(),
        0x1010 => "Imagination".to_string(),
        0x10de => "NVIDIA".to_string(),
        0x13b5 => "Arm".to_string(),
        0x5143 => "Qualcomm".to_string(),
        0x8086 => "Intel".to_string(),
        0x1_0005 => "Mesa".to_string(),
        0x1ae0 => "Google".to_string(),
        id => format!("0x{id:04x}"),
    }
}

#[cfg(test)]
mod tests {
    use crate::kernels;

    #[test]
    fn kernels_are_found_by_their_index() {
        for (at, kernel) in kernels::ALL.iter().enumerate() {
            assert_eq!(kernel.index, at, "{}", kernel.name);
            assert_eq!(
                kernel.spirv.get(..4),
                Some(&0x0723_0203u32.to_le_bytes()[..]),
                "{}",
                kernel.name
            );
        }
    }
}
