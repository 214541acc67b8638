//! What crosses to the kernel: ioctl numbers and structures of the driver's interface (its header is under the MIT licence), size by size.

/// Direction, size, type and number of an ioctl, as Linux packs them on x86 and Arm: read and write.
pub const fn read_write(number: u8, size: usize) -> u32 {
    (3 << 30) | ((size as u32) << 16) | ((b'd' as u32) << 8) | (COMMAND_BASE + number as u32)
}

/// Where a driver's own numbers begin.
const COMMAND_BASE: u32 = 0x40;

/// What is asked by [`QUERY`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct DevQuery {
    /// 0: [`NpuInfo`].
    pub kind: u32,
    /// Bytes of the answer.
    pub size: u32,
    /// Address of it; 0 asks for its size.
    pub pointer: u64,
}

/// The answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct NpuInfo {
    /// The id word: architecture and product.
    pub id: u32,
    /// The config word.
    pub config: u32,
    /// Bytes of the device's own memory.
    pub sram_size: u32,
}

/// Makes a buffer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct BoCreate {
    /// Bytes.
    pub size: u64,
    /// 1: it is never mapped.
    pub flags: u32,
    /// Out: its handle.
    pub handle: u32,
}

/// Waits until no job uses a buffer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct BoWait {
    /// The buffer.
    pub handle: u32,
    /// Zero.
    pub pad: u32,
    /// Point of the monotonic clock, in nanoseconds.
    pub timeout_ns: i64,
}

/// Where in the node's file a buffer is mapped from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct BoMmapOffset {
    /// The buffer.
    pub handle: u32,
    /// Zero.
    pub pad: u32,
    /// Out: the offset.
    pub offset: u64,
}

/// Gives the kernel a command stream, which it reads and checks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct CmdstreamBoCreate {
    /// Bytes.
    pub size: u32,
    /// Zero.
    pub flags: u32,
    /// Address of the bare words.
    pub data: u64,
    /// Out: its handle.
    pub handle: u32,
    /// Zero.
    pub pad: u32,
}

/// Hands jobs over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Submit {
    /// Address of [`Job`]s.
    pub jobs: u64,
    /// How many.
    pub job_count: u32,
    /// Zero.
    pub pad: u32,
}

/// A job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Job {
    /// The command stream.
    pub command_bo: u32,
    /// Bytes of the device's own memory that it uses as region 2.
    pub sram_size: u32,
    /// A buffer a region; 0: none.
    pub region_bo_handles: [u32; 8],
}

/// Asks the device.
pub const QUERY: u32 = read_write(0, size_of::<DevQuery>());
/// Makes a buffer.
pub const BO_CREATE: u32 = read_write(1, size_of::<BoCreate>());
/// Waits for a buffer.
pub const BO_WAIT: u32 = read_write(2, size_of::<BoWait>());
/// Asks where a buffer is mapped from.
pub const BO_MMAP_OFFSET: u32 = read_write(3, size_of::<BoMmapOffset>());
/// Gives a command stream.
pub const CMDSTREAM_BO_CREATE: u32 = read_write(4, size_of::<CmdstreamBoCreate>());
/// Hands jobs over.
pub const SUBMIT: u32 = read_write(5, size_of::<Submit>());

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    /// Sizes and offsets as the kernel's documentation has them, by hand.
    #[test]
    fn structures_have_the_sizes_of_the_interface() {
        assert_eq!(size_of::<DevQuery>(), 16);
        assert_eq!(offset_of!(DevQuery, pointer), 8);
        assert_eq!(size_of::<NpuInfo>(), 12);
        assert_eq!(size_of::<BoCreate>(), 16);
        assert_eq!((offset_of!(BoCreate, flags), offset_of!(BoCreate, handle)), (8, 12));
        assert_eq!(size_of::<BoWait>(), 16);
        assert_eq!(offset_of!(BoWait, timeout_ns), 8);
        assert_eq!(size_of::<BoMmapOffset>(), 16);
        assert_eq!(offset_of!(BoMmapOffset, offset), 8);
        assert_eq!(size_of::<CmdstreamBoCreate>(), 24);
        let offsets = (
            offset_of!(CmdstreamBoCreate, data),
            offset_of!(CmdstreamBoCreate, handle),
        );
        assert_eq!(offsets, (8, 16));
        assert_eq!(size_of::<Submit>(), 16);
        assert_eq!(size_of::<Job>(), 40);
        assert_eq!(offset_of!(Job, region_bo_handles), 8);
    }

    #[test]
    fn numbers_are_those_of_drm() {
        // DRM_IOWR(0x40, 16 bytes).
        assert_eq!(QUERY, 0xc010_6440);
        assert_eq!(CMDSTREAM_BO_CREATE, 0xc018_6444);
        assert_eq!(SUBMIT, 0xc010_6445);
    }
}
