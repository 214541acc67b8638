//! Portable kernels: the operators that always exist, on any shape and dtype that their schema allows.
//!
//! A kernel is a plain function over borrowed tensors ([`Kernel`]); it is found by the name of its out-variant as `.pte`
//! programs write it (`aten::add.out`). It checks its arguments, sizes its outputs ([`Out::resize`]) and never panics.
//! This crate knows neither graphs nor files. `no_std` + `alloc`.
#![cfg_attr(not(feature = "std"), no_std)]
#![cfg_attr(not(feature = "portable"), allow(dead_code, unused_imports))]

extern crate alloc;

mod accumulate;
mod activation;
mod affine;
mod arg;
mod backward;
mod binary;
mod call;
mod columns;
mod combine;
mod compare;
mod complex;
mod convolution;
mod convolution_backward;
mod copies;
mod creation;
mod distance;
mod elementwise;
mod embedding;
mod embedding_bag;
mod error;
mod fft;
mod fold;
mod gemm;
mod grid_sampler;
mod indexing;
mod join;
mod lanes;
mod llm;
mod masks;
mod math;
mod matmul;
mod norm;
mod parallel;
mod pool;
mod prim;
mod quantized;
mod quantized_choose;
mod quantized_embedding;
mod quantized_fused;
mod random;
mod reduce;
mod registry;
mod remap;
mod resize;
mod rows;
mod scan;
mod scatter;
mod softmax;
mod sort;
mod special;
mod stage;
mod strided;
mod tensor;
mod ternary;
mod unary;
mod upsample;
mod variance;
mod vector;
mod views;
mod wide;

pub use call::{Arg, Call, Results, Scratch};
pub use error::KernelError;
pub use registry::{Kernel, all, find};
pub use tensor::{Buffer, Growable, Lent, Out, Tensor};
