//! The unsafe part of the driver: memory with guards, the host's functions, calls into a library.

pub(crate) mod external;
pub(crate) mod hand;
pub(crate) mod host;
pub(crate) mod instance;
pub(crate) mod library;
pub(crate) mod memory;
pub mod process;
pub(crate) mod raw;
pub(crate) mod session;
