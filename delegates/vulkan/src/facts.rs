//! What a device is and can: plain data, so that everything above the driver can be tested without one.

use crate::cache::Identity;
use crate::kernels::{Kernel, Needs};
use crate::memory::Table;
use delegraph_sdk::Error;

/// A device, as its driver describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Name for people.
    pub name: String,
    /// Who makes it: the name for well-known vendor ids, else the id in hex.
    pub vendor: String,
    /// Kind of device.
    pub kind: Kind,
    /// Vulkan version: major, minor, patch.
    pub api: [u32; 3],
    /// Name and version of the driver, as text.
    pub driver: String,
    /// Identifies device and driver build: what a pipeline cache is kept under.
    pub cache_uuid: [u8; 16],
    /// What the driver's own pipeline cache says of the device.
    pub identity: Identity,
    /// What kernels may ask for.
    pub has: Needs,
    /// Invocations of a subgroup.
    pub subgroup: u32,
    /// Limits.
    pub limits: Limits,
    /// Kinds of memory and heaps.
    pub memory: Table,
    /// What address and size of memory of the host's must be multiples of to be used in place; 0: it cannot be.
    pub import_alignment: u64,
    /// Memory that it takes and gives by descriptors.
    pub external: External,
}

/// What a device takes and gives by descriptors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct External {
    /// `driverUUID`.
    pub driver_uuid: [u8; 16],
    /// `deviceUUID`: memory of an opaque descriptor is of a device with both.
    pub device_uuid: [u8; 16],
    /// Opaque descriptors.
    pub opaque: Support,
    /// Those of dma-bufs.
    pub dma_buf: Support,
}

/// What can be done with a kind of descriptor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Support {
    /// The device takes it.
    pub import: bool,
    /// The device gives it.
    pub export: bool,
    /// Its memory is one buffer's alone.
    pub dedicated: bool,
}

/// Kind of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    Discrete,
    Integrated,
    Virtual,
    /// A driver that computes on the processor.
    Software,
    Other,
}

/// The limits that lowering looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes that one binding of a storage buffer covers.
    pub storage_range: u64,
    /// What the offset of a binding is a multiple of.
    pub offset_alignment: u64,
    /// Most bytes of one allocation.
    pub allocation: u64,
    /// Bytes of the largest heap of device memory.
    pub memory: u64,
    /// What the driver let this process use of it when the device was looked at, if it says.
    pub budget: Option<u64>,
    /// Most storage buffers that a kernel binds.
    pub bindings: u32,
    /// Most invocations of a workgroup.
    pub invocations: u32,
    /// Most invocations of a workgroup, by dimension.
    pub workgroup: [u32; 3],
    /// Most workgroups of a dispatch, by dimension.
    pub groups: [u32; 3],
    /// Bytes of shared memory of a workgroup.
    pub shared: u32,
    /// Nanoseconds of a tick of timestamps; bits of `f32`. 0: the queue has none.
    pub timestamp_period: u32,
}

impl Facts {
    /// The weakest device that the Vulkan specification allows: what is compiled for it runs anywhere.
    pub fn weakest() -> Facts {
        Facts {
            name: "weakest".to_string(),
            vendor: String::new(),
            kind: Kind::Other,
            api: [1, 1, 0],
            driver: String::new(),
            cache_uuid: [0; 16],
            identity: Identity {
                vendor: 0,
                device: 0,
                uuid: [0; 16],
            },
            has: Needs::NONE,
            subgroup: 1,
            limits: Limits {
                storage_range: 1 << 27,
                offset_alignment: 256,
                allocation: 1 << 30,
                memory: 1 << 30,
                budget: None,
                // The specification grants 4, hardware has more: a device that has fewer than a kernel binds refuses it at load.
                bindings: 16,
                invocations: 128,
                workgroup: [128, 128, 64],
                groups: [65535; 3],
                shared: 16384,
                timestamp_period: 0,
            },
            memory: Table::default(),
            import_alignment: 0,
            external: External::default(),
        }
    }

    /// True if the kernel runs here.
    pub fn runs(&self, kernel: &Kernel) -> bool {
        let [x, y, z] = kernel.workgroup;
        let limits = &self.limits;
        self.has.has(kernel.needs)
            && kernel.writes.len() < limits.bindings as usize
            && x.saturating_mul(y).saturating_mul(z) <= limits.invocations
            && [x, y, z].iter().zip(limits.workgroup).all(|(size, most)| *size <= most)
    }

    /// The first of these kernels that runs here: list the best first, and last one that runs anywhere.
    ///
    /// # Errors
    /// None runs here.
    pub fn pick(&self, kernels: &[&'static Kernel]) -> Result<&'static Kernel, Error> {
        let found = kernels.iter().find(|kernel| self.runs(kernel));
        found.copied().ok_or_else(|| {
            let name = kernels.first().map_or("", |kernel| kernel.name);
            Error::unsupported(format!("`{}` has no variant of the kernel `{name}`", self.name))
        })
    }
}
