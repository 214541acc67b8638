//! Kernels by name.

use crate::{Call, KernelError};

/// A kernel: reads the call's arguments, sizes and writes its outputs.
pub type Kernel = fn(&mut Call) -> Result<(), KernelError>;

/// One list a family file, each sorted or not: the look-up is done once a program.
const FAMILIES: &[&[(&str, Kernel)]] = &[];

/// The kernel of an out-variant, in-place or prim operator as `.pte` programs name it: `aten::add.out`, `aten::copy_`.
pub fn find(name: &str) -> Option<Kernel> {
    all().find(|(have, _)| *have == name).map(|(_, kernel)| kernel)
}

/// Every kernel with its name.
pub fn all() -> impl Iterator<Item = (&'static str, Kernel)> {
    FAMILIES.iter().flat_map(|family| family.iter().copied())
}
