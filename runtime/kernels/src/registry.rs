//! Kernels by name.

use crate::{Call, KernelError};

/// A kernel: reads the call's arguments, sizes and writes its outputs.
pub type Kernel = fn(&mut Call) -> Result<(), KernelError>;

/// One list a family file, each sorted or not: the look-up is done once a program.
#[cfg(feature = "portable")]
const FAMILIES: &[&[(&str, Kernel)]] = &[
    crate::activation::KERNELS,
    crate::arg::KERNELS,
    crate::backward::KERNELS,
    crate::binary::FLOATING,
    crate::binary::KERNELS,
    crate::compare::KERNELS,
    crate::compare::LOGICAL,
    crate::complex::KERNELS,
    crate::convolution::KERNELS,
    crate::convolution_backward::KERNELS,
    crate::copies::KERNELS,
    crate::masks::KERNELS,
    crate::indexing::KERNELS,
    crate::scatter::KERNELS,
    crate::embedding::KERNELS,
    crate::embedding_bag::KERNELS,
    crate::creation::KERNELS,
    crate::distance::KERNELS,
    crate::fft::KERNELS,
    crate::fold::KERNELS,
    crate::grid_sampler::KERNELS,
    crate::join::KERNELS,
    crate::llm::KERNELS,
    crate::matmul::KERNELS,
    crate::norm::KERNELS,
    crate::pool::KERNELS,
    crate::prim::KERNELS,
    crate::quantized::KERNELS,
    crate::quantized_choose::KERNELS,
    crate::quantized_embedding::KERNELS,
    crate::quantized_fused::KERNELS,
    crate::random::KERNELS,
    crate::reduce::KERNELS,
    crate::remap::KERNELS,
    crate::resize::KERNELS,
    crate::scan::KERNELS,
    crate::softmax::KERNELS,
    crate::sort::KERNELS,
    crate::ternary::KERNELS,
    crate::unary::ASKING,
    crate::unary::FLOATING,
    crate::unary::IN_BULK,
    crate::unary::KEEPING,
    crate::unary::KERNELS,
    crate::upsample::KERNELS,
    crate::variance::KERNELS,
    crate::views::KERNELS,
];

/// What plans are made of beside the operators of models: sizes, and copies of states.
#[cfg(not(feature = "portable"))]
const FAMILIES: &[&[(&str, Kernel)]] = &[crate::copies::KERNELS, crate::prim::KERNELS];

/// The kernel of an out-variant, in-place or prim operator as `.pte` programs name it: `aten::add.out`, `aten::copy_`.
pub fn find(name: &str) -> Option<Kernel> {
    all().find(|(have, _)| *have == name).map(|(_, kernel)| kernel)
}

/// Every kernel with its name.
pub fn all() -> impl Iterator<Item = (&'static str, Kernel)> {
    FAMILIES.iter().flat_map(|family| family.iter().copied())
}
