//! The host's table of functions.

use crate::Status;
use delegraph_abi::c;

/// The host's table, of which as much is there as its own size says: an older host has a shorter one.
#[derive(Clone, Copy)]
pub(crate) struct HostTable(*const c::HostApi);

// SAFETY: the table is constant and lives as long as the process.
unsafe impl Send for HostTable {}
// SAFETY: as above.
unsafe impl Sync for HostTable {}

impl HostTable {
    /// Checks what can be checked.
    ///
    /// # Safety
    /// `host` is NULL or a host table that lives as long as the process.
    pub unsafe fn new(host: *const c::HostApi) -> Result<HostTable, Status> {
        // SAFETY: only the leading size is read, which every table has; then it is known that the first minor is there.
        unsafe {
            let size = host.cast::<u32>().as_ref().ok_or(Status::BAD_STRUCT)?;
            if (*size as usize) < c::HostApi::FIRST_SIZE || (&raw const (*host).major).read() != c::ABI_MAJOR {
                return Err(Status::BAD_STRUCT);
            }
        }
        Ok(HostTable(host))
    }

    /// The function at an offset, if the host has it.
    ///
    /// # Safety
    /// `offset` and `F` are those of an optional function of the table.
    pub unsafe fn function<F: Copy>(self, offset: usize) -> Option<F> {
        // SAFETY: the table begins with its size; a function that lies within it may be read. NULL is `None`.
        unsafe {
            if self.0.cast::<u32>().read() as usize >= offset + size_of::<Option<F>>() {
                self.0.cast::<u8>().add(offset).cast::<Option<F>>().read()
            } else {
                None
            }
        }
    }
}

/// `host_function!(host, log_emit)`: the function, if this host has it.
macro_rules! host_function {
    ($host:expr, $name:ident) => {{
        // The type is the member's, which the closure's inference ties to the offset.
        fn typed<F: Copy>(host: $crate::sys::HostTable, offset: usize, _: fn(&c::HostApi) -> Option<F>) -> Option<F> {
            // SAFETY: offset and type are of one member.
            unsafe { host.function::<F>(offset) }
        }
        typed($host, std::mem::offset_of!(c::HostApi, $name), |table| table.$name)
    }};
}
pub(crate) use host_function;
