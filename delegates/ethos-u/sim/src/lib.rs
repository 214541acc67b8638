//! A functional interpreter and disassembler of Arm Ethos-U command streams, as Arm's compiler Vela writes them.
//!
//! It runs the real binary: registers, weight streams, scales and tables. It is no model of time or of the hardware's buffers, and it was compared
//! with the models of the operators that Arm and Google publish, never with a chip. What it does not know is an error with the place in the
//! stream.
//!
//! ```no_run
//! use delegraph_ethos_u_sim::{Interpreter, Limits, Memory, Stream};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let stream = Stream::parse(&std::fs::read("cmd_data.bin")?)?;
//! let weights = std::fs::read("weight_data.bin")?;
//! let mut scratch = vec![0; 4096];
//! let mut memory = Memory::new();
//! memory.map(0, &weights);
//! memory.map_mut(1, &mut scratch);
//! Interpreter::new(stream.config, Limits::default()).run(&stream, &mut memory)?;
//! # Ok(())
//! # }
//! ```

mod arithmetic;
pub mod command;
pub mod container;
mod disassemble;
mod error;
mod execute;
mod feature_map;
mod memory;
mod state;
pub mod weights;

pub use container::{Config, Product, Stream};
pub use disassemble::disassemble;
pub use error::{Error, Offset};
pub use execute::{Counts, Extents, Interpreter, Limits};
pub use memory::{Memory, REGIONS};
