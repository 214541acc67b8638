//! Fast kernels of the CPU delegate.
//!
//! A kernel is written once, over lanes ([`simd::Simd`]), and compiled for every instruction set that [`Isa`] names; [`simd::dispatch`] picks
//! one at run time. It works on slices and packed weights, and knows no graphs. Weights are packed once, ahead of time, in a form that every
//! instruction set reads: the scalar kernels read what was packed for another machine.
//!
//! Work is divided by a [`Pool`] in parts that depend on sizes and the number of threads alone, and no two parts share a sum: for a fixed
//! number of threads, results are the same bits.

pub mod activation;
pub mod attention;
pub mod conv;
pub mod elementwise;
pub mod gemm;
pub mod isa;
mod lanes;
pub mod layout;
pub mod math;
pub mod norm;
pub mod peak;
pub mod pool;
pub mod pooling;
pub mod quant;
pub mod recurrent;
pub mod resize;
pub mod rope;
pub mod shuffle;
pub mod simd;
pub mod softmax;

pub use activation::{Activation, Epilogue};
pub use isa::Isa;
pub use pool::{Pool, Serial};
