//! The devices of the system, as their drivers describe them.

use super::{Instance, error};
use crate::cache::Identity;
use crate::choice::{self, Family, Queues};
use crate::facts::{External, Facts, Kind, Limits, Support};
use crate::kernels::Needs;
use crate::memory::{Budget, Heap, MemoryType, Table};
use ash::vk;
use delegraph_sdk::Error;
use delegraph_sdk::environment::variable;

/// A device of the system, not opened yet.
pub(super) struct Found {
    pub physical: vk::PhysicalDevice,
    pub queues: Queues,
    pub timestamp_bits: u32,
    pub extensions: Extensions,
    pub facts: Facts,
}

/// Extensions that are used where a device has them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extensions {
    /// Memory of the host's is used in place.
    pub import: bool,
    /// The device's clock can be read at any time.
    pub clock: bool,
    /// The driver says how much of its memory a process may use.
    pub budget: bool,
    /// Memory comes and goes by descriptors.
    pub fd: bool,
    /// Also by those of dma-bufs.
    pub dma_buf: bool,
    /// Queues outside of Vulkan can own memory.
    pub foreign: bool,
}

impl Extensions {
    fn of(instance: &Instance, physical: vk::PhysicalDevice) -> Extensions {
        // SAFETY: the physical device is of this instance.
        let all = unsafe { instance.raw.enumerate_device_extension_properties(physical) }.unwrap_or_default();
        let has = |name| all.iter().any(|e| e.extension_name_as_c_str() == Ok(name));
        let fd = cfg!(unix) && has(ash::khr::external_memory_fd::NAME);
        Extensions {
            fd,
            dma_buf: fd && has(ash::ext::external_memory_dma_buf::NAME),
            foreign: has(ash::ext::queue_family_foreign::NAME),
            import: has(ash::ext::external_memory_host::NAME),
            budget: has(ash::ext::memory_budget::NAME),
            clock: has(ash::ext::calibrated_timestamps::NAME) && reads_clock(instance, physical),
        }
    }
}

/// What a device does with descriptors of a kind, for buffers as all of ours are.
fn support(instance: &Instance, physical: vk::PhysicalDevice, kind: vk::ExternalMemoryHandleTypeFlags) -> Support {
    let info = vk::PhysicalDeviceExternalBufferInfo::default()
        .usage(super::gpu::USAGE)
        .handle_type(kind);
    let mut found = vk::ExternalBufferProperties::default();
    // SAFETY: the physical device is of this instance, which is of version 1.1 at least.
    unsafe {
        instance
            .raw
            .get_physical_device_external_buffer_properties(physical, &info, &mut found);
    }
    let features = found.external_memory_properties.external_memory_features;
    Support {
        import: features.contains(vk::ExternalMemoryFeatureFlags::IMPORTABLE),
        export: features.contains(vk::ExternalMemoryFeatureFlags::EXPORTABLE),
        dedicated: features.contains(vk::ExternalMemoryFeatureFlags::DEDICATED_ONLY),
    }
}

fn reads_clock(instance: &Instance, physical: vk::PhysicalDevice) -> bool {
    let functions = ash::ext::calibrated_timestamps::Instance::new(&instance.entry, &instance.raw);
    // SAFETY: the physical device is of this instance and has the extension.
    let domains = unsafe { functions.get_physical_device_calibrateable_time_domains(physical) };
    domains.unwrap_or_default().contains(&vk::TimeDomainEXT::DEVICE)
}

fn family(family: &vk::QueueFamilyProperties) -> Family {
    let has = |flag| family.queue_flags.contains(flag);
    Family {
        compute: has(vk::QueueFlags::COMPUTE),
        graphics: has(vk::QueueFlags::GRAPHICS),
        transfer: has(vk::QueueFlags::TRANSFER),
        count: family.queue_count,
        timestamp_bits: family.timestamp_valid_bits,
    }
}

fn table(memory: &vk::PhysicalDeviceMemoryProperties) -> Table {
    let kind = |t: &vk::MemoryType| {
        let has = |flag| t.property_flags.contains(flag);
        MemoryType {
            heap: t.heap_index as usize,
            device: has(vk::MemoryPropertyFlags::DEVICE_LOCAL),
            visible: has(vk::MemoryPropertyFlags::HOST_VISIBLE),
            coherent: has(vk::MemoryPropertyFlags::HOST_COHERENT),
            cached: has(vk::MemoryPropertyFlags::HOST_CACHED),
            special: t.property_flags.intersects(
                vk::MemoryPropertyFlags::PROTECTED
                    | vk::MemoryPropertyFlags::LAZILY_ALLOCATED
                    | vk::MemoryPropertyFlags::DEVICE_COHERENT_AMD
                    | vk::MemoryPropertyFlags::DEVICE_UNCACHED_AMD,
            ),
        }
    };
    let heap = |h: &vk::MemoryHeap| Heap {
        bytes: h.size,
        device: h.flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL),
    };
    Table {
        types: memory.memory_types_as_slice().iter().map(kind).collect(),
        heaps: memory.memory_heaps_as_slice().iter().map(heap).collect(),
        ..Table::default()
    }
}

/// What the driver lets this process use of each heap at this moment. The device must have `VK_EXT_memory_budget`.
pub(super) fn budgets(instance: &Instance, physical: vk::PhysicalDevice) -> Vec<Budget> {
    let mut budget = vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
    let mut all = vk::PhysicalDeviceMemoryProperties2::default().push_next(&mut budget);
    // SAFETY: the physical device is of this instance and has the extension.
    unsafe { instance.raw.get_physical_device_memory_properties2(physical, &mut all) };
    let count = all.memory_properties.memory_heap_count as usize;
    let both = budget.heap_budget.iter().zip(budget.heap_usage).take(count);
    both.map(|(most, used)| Budget { most: *most, used }).collect()
}

/// The devices, in the driver's order.
///
/// # Errors
/// The driver cannot tell.
pub(super) fn find(instance: &Instance) -> Result<Vec<Found>, Error> {
    // SAFETY: the instance is alive.
    let all = unsafe { instance.raw.enumerate_physical_devices() }.map_err(|r| error("list the devices", r))?;
    Ok(all
        .into_iter()
        .filter_map(|physical| look_at(instance, physical))
        .collect())
}

/// A device, if it is of Vulkan 1.2 and can compute.
fn look_at(instance: &Instance, physical: vk::PhysicalDevice) -> Option<Found> {
    let raw = &instance.raw;
    let mut ids = vk::PhysicalDeviceIDProperties::default();
    let mut subgroups = vk::PhysicalDeviceSubgroupProperties::default();
    let mut driver = vk::PhysicalDeviceDriverProperties::default();
    let mut allocation = vk::PhysicalDeviceMaintenance3Properties::default();
    let mut buffers = vk::PhysicalDeviceMaintenance4Properties::default();
    let mut import = vk::PhysicalDeviceExternalMemoryHostPropertiesEXT::default();
    let mut all = vk::PhysicalDeviceProperties2::default()
        .push_next(&mut ids)
        .push_next(&mut subgroups)
        .push_next(&mut driver)
        .push_next(&mut allocation)
        .push_next(&mut buffers)
        .push_next(&mut import);
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
    let families: Vec<Family> = families.iter().map(family).collect();
    let queues = choice::queues(&families)?;
    let extensions = Extensions::of(instance, physical);
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
    // Kernels for graphics processors are tested on drivers that compute on the processor: `1`, or `plain` for a device without anything.
    let as_discrete = variable("DELEGRAPH_VULKAN_AS_DISCRETE").and_then(|how| how.into_string().ok());
    let as_discrete = as_discrete.filter(|how| how == "1" || how == "plain");
    if as_discrete.as_deref() == Some("plain") {
        has = Needs::NONE;
    }
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
    let has_timestamps = families.get(queues.compute).is_some_and(|f| f.timestamp_bits > 0);
    let kind = match properties.device_type {
        _ if as_discrete.is_some() => Kind::Discrete,
        vk::PhysicalDeviceType::DISCRETE_GPU => Kind::Discrete,
        vk::PhysicalDeviceType::INTEGRATED_GPU => Kind::Integrated,
        vk::PhysicalDeviceType::VIRTUAL_GPU => Kind::Virtual,
        vk::PhysicalDeviceType::CPU => Kind::Software,
        _ => Kind::Other,
    };
    let largest = [allocation.max_memory_allocation_size, buffers.max_buffer_size];
    let mut memory = Table {
        count: limits.max_memory_allocation_count,
        largest: largest.into_iter().filter(|size| *size > 0).min().unwrap_or(1 << 30),
        atom: limits.non_coherent_atom_size,
        ..table(&memory)
    };
    let by = |has: bool, kind| match has {
        true => support(instance, physical, kind),
        false => Support::default(),
    };
    let external = External {
        driver_uuid: ids.driver_uuid,
        device_uuid: ids.device_uuid,
        opaque: by(extensions.fd, vk::ExternalMemoryHandleTypeFlags::OPAQUE_FD),
        dma_buf: by(extensions.dma_buf, vk::ExternalMemoryHandleTypeFlags::DMA_BUF_EXT),
    };
    memory.unified = memory.is_unified(kind) && !instance.staged;
    let device_heaps = memory.heaps.iter().enumerate().filter(|(_, heap)| heap.device);
    let largest = device_heaps.max_by_key(|(_, heap)| heap.bytes);
    let (at, device_bytes) = largest.map_or((0, 0), |(at, heap)| (at, heap.bytes));
    let budget = match extensions.budget {
        true => budgets(instance, physical).get(at).map(|budget| budget.most),
        false => None,
    };
    let facts = Facts {
        name: text(&properties.device_name),
        vendor: vendor(properties.vendor_id),
        kind,
        api: [
            vk::api_version_major(properties.api_version),
            vk::api_version_minor(properties.api_version),
            vk::api_version_patch(properties.api_version),
        ],
        driver: driver_text.trim().to_string(),
        cache_uuid,
        identity: Identity {
            vendor: properties.vendor_id,
            device: properties.device_id,
            uuid: properties.pipeline_cache_uuid,
        },
        has,
        subgroup: subgroups.subgroup_size,
        limits: Limits {
            storage_range: storage_range(u64::from(limits.max_storage_buffer_range)),
            offset_alignment: limits.min_storage_buffer_offset_alignment,
            allocation: allocation.max_memory_allocation_size,
            memory: device_bytes,
            budget,
            bindings: limits.max_per_stage_descriptor_storage_buffers,
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
        memory,
        import_alignment: match extensions.import {
            true => import.min_imported_host_pointer_alignment,
            false => 0,
        },
        external,
    };
    Some(Found {
        physical,
        queues,
        timestamp_bits: families.get(queues.compute).map_or(0, |f| f.timestamp_bits),
        extensions,
        facts,
    })
}

/// What one binding covers: for tests less than the device says.
fn storage_range(most: u64) -> u64 {
    let wanted = variable("DELEGRAPH_VULKAN_RANGE").and_then(|bytes| bytes.into_string().ok()?.parse::<u64>().ok());
    wanted.map_or(most, |bytes| bytes.max(4096).min(most))
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
