//! Linux's `drivers/accel/ethosu`: a node of the kernel for U65 and U85. Layouts and checks are reproduced; nothing of it was ever run on a kernel.
//!
//! The order of calls: ask the device ([`uapi::QUERY`]); give it the command stream without its container; make buffers for the weights (region 0)
//! and the scratch memory (region 1), and map them; write the inputs; submit a job; wait for the scratch buffer; read the outputs. Region 2 is the
//! device's own memory: a job says how much of it the stream uses.

pub mod preflight;
pub mod uapi;
