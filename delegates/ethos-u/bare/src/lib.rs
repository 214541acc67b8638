//! The Ethos-U delegate for bare metal: it runs blobs that the delegate compiled elsewhere, by a driver of the board.
//!
//! No `std`, and no allocator is used: the caller gives all memory. There are two ways in, which do the same:
//!
//! - [`Session`]: a network is read where it lies, tensors are copied to and from the scratch memory of the caller, and a [`Driver`] runs
//!   the command stream.
//! - [`table`]: the table of functions that any host of Delegraph loads, in the role that only runs. A [`Board`] says where driver and memory are.
//!
//! It knows no registers of the processor, no caches and no interrupts: those are the driver's. **It was never run on a chip.** Its tests run it
//! with a driver that interprets the stream, and it is type-checked for Cortex-M.
//!
//! ```
//! use delegraph_ethos_u_bare::{Driver, Fault, Job, Memory, Session, blob};
//!
//! /// What a board has: here, one that ends each job without having done it.
//! struct Npu;
//!
//! impl Driver for Npu {
//!     fn config(&self) -> u32 {
//!         0x1807 // What the register CONFIG of an Ethos-U55-128 says.
//!     }
//!
//!     fn submit(&mut self, job: Job<'_>) -> Result<(), Fault> {
//!         // Bases of regions 0 to 2, address and size of the stream, and go.
//!         let _ = (job.weights, job.scratch, job.fast, job.commands);
//!         Ok(())
//!     }
//! }
//!
//! # fn main() -> Result<(), delegraph_ethos_u_bare::Error> {
//! # static BLOB: &[u8] = &[];
//! # if BLOB.is_empty() { return Ok(()); }
//! let session = Session::new(blob::section(BLOB, "network")?)?;
//! let (mut scratch, mut fast) = ([0; 4096], [0; 0]);
//! let mut memory = Memory { scratch: &mut scratch, fast: &mut fast };
//! session.write_input(0, &[1, 2, 3], &mut memory)?;
//! session.run(&mut Npu, &mut memory)?;
//! let mut output = [0; 10];
//! session.read_output(0, &memory, &mut output)?;
//! # Ok(())
//! # }
//! ```
#![no_std]

pub mod blob;
mod driver;
mod error;
mod network;
mod session;
mod sys;

pub use driver::{Driver, Fault, Job, Memory};
pub use error::Error;
pub use network::{Network, Tensor};
pub use session::Session;
pub use sys::{Board, Place, SESSIONS, entry, static_entry, table};
