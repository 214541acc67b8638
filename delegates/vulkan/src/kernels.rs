//! The compute shaders, compiled in the build: `src/shaders`, each in its variants.

/// What a kernel needs of a device beyond plain Vulkan 1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs(u32);

impl Needs {
    /// Nothing.
    pub const NONE: Needs = Needs(0);
    /// 16-bit floats: in storage buffers and in arithmetic.
    pub const F16: Needs = Needs(1);
    /// Integer dot products of four packed bytes.
    pub const DOT: Needs = Needs(2);
    /// Subgroup arithmetic and shuffles in compute shaders, whatever the size of a subgroup is.
    pub const SUBGROUP: Needs = Needs(4);
    /// 64-bit integers.
    pub const I64: Needs = Needs(8);

    /// Both.
    #[must_use]
    pub const fn and(self, other: Needs) -> Needs {
        Needs(self.0 | other.0)
    }

    /// True if all of `needed` is in this.
    pub const fn has(self, needed: Needs) -> bool {
        self.0 & needed.0 == needed.0
    }
}

/// A compiled shader.
#[derive(Debug)]
pub struct Kernel {
    /// Its place in [`ALL`].
    pub index: usize,
    /// File and variant.
    pub name: &'static str,
    /// SPIR-V, little-endian words.
    pub spirv: &'static [u8],
    /// One a buffer, from binding 1 on: whether it is written. Binding 0 has the parameters.
    pub writes: &'static [bool],
    /// Invocations of a workgroup.
    pub workgroup: [u32; 3],
    /// What the device must have.
    pub needs: Needs,
    /// The same without the activations that have an exponential, where it ends with `finish()`.
    pub light: Option<&'static Kernel>,
}

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
