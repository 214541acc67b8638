//! What products are made of: types that are stored, types that panels hold, types that are summed in.

use super::few::Few;
use super::tile::Micro;
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx2_few, avx512};
use crate::wide::Wide;
use bytemuck::Pod;
use delegraph_types::{bf16, f16};

/// A type to sum products in. Integers wrap.
pub(crate) trait Sum: Pod + Default + PartialEq + Send + Sync {
    /// What panels hold.
    type Packed: Pod + Default + Send + Sync;
    /// Steps of depth that lie side by side in a panel, because one instruction multiplies and adds that many.
    const GROUP: usize;
    /// 1
    const UNIT: Self;
    /// `self + a * b`
    fn with(self, a: Self::Packed, b: Self::Packed) -> Self;
    /// `self + other`
    fn added(self, other: Self) -> Self;
    /// `self * other`
    fn scaled(self, other: Self) -> Self;
    /// The tiles of this machine.
    fn micro() -> &'static Micro<Self>;
}

/// A type of the elements of a factor.
pub(crate) trait Factor: Copy + Default + Send + Sync + 'static {
    /// What its products are summed in.
    type Sum: Sum;
    /// The value as panels hold it, exact.
    fn widen(self) -> Packed<Self>;
    /// The elements as panels hold them, if that is how they are.
    fn packed(_: &[Self]) -> Option<&[Packed<Self>]> {
        None
    }
    /// What this machine has for few rows and for making panels.
    fn few() -> &'static Few<Self>;
}

/// A type that is stored, packed and summed as it is.
pub(crate) trait Plain: Wide + Sum<Packed = Self> + Factor<Sum = Self> {}

impl<T: Wide + Sum<Packed = T> + Factor<Sum = T>> Plain for T {}

/// What panels of a factor hold.
pub(crate) type Packed<T> = <<T as Factor>::Sum as Sum>::Packed;

/// The best of the modules for x86_64 if the machine has what they need, else the portable one.
macro_rules! choose {
    ($portable:expr $(, $have:path => $fast:expr)*) => {{
        #[cfg(target_arch = "x86_64")]
        {
            $(if $have() {
                return const { &$fast };
            })*
        }
        const { &$portable }
    }};
}

macro_rules! float_sum {
    ($ty:ty, $lanes:literal $(, $have:path => $fast:expr)*) => {
        impl Sum for $ty {
            type Packed = $ty;
            const GROUP: usize = 1;
            const UNIT: $ty = 1.0;
            fn with(self, a: $ty, b: $ty) -> $ty {
                self + a * b
            }
            fn added(self, other: $ty) -> $ty {
                self + other
            }
            fn scaled(self, other: $ty) -> $ty {
                self * other
            }
            fn micro() -> &'static Micro<$ty> {
                choose!(Micro::<$ty>::portable::<$lanes, { 2 * $lanes }>() $(, $have => $fast)*)
            }
        }
    };
}
float_sum!(f32, 4, avx512::have => avx512::F32, avx2::have => avx2::F32);
float_sum!(f64, 2, avx512::have => avx512::F64, avx2::have => avx2::F64);

macro_rules! integer_sum {
    ($ty:ty, $packed:ty, $group:literal, $lanes:literal $(, $have:path => $fast:expr)*) => {
        impl Sum for $ty {
            type Packed = $packed;
            const GROUP: usize = $group;
            const UNIT: $ty = 1;
            fn with(self, a: $packed, b: $packed) -> $ty {
                self.wrapping_add(<$ty>::from(a).wrapping_mul(<$ty>::from(b)))
            }
            fn added(self, other: $ty) -> $ty {
                self.wrapping_add(other)
            }
            fn scaled(self, other: $ty) -> $ty {
                self.wrapping_mul(other)
            }
            fn micro() -> &'static Micro<$ty> {
                choose!(Micro::<$ty>::portable::<$lanes, { 2 * $lanes }>() $(, $have => $fast)*)
            }
        }
    };
}
// 16 bits hold every i8, every u8 and every difference of two, and 32 bits a sum of two products of those: nothing saturates.
integer_sum!(i32, i16, 2, 4, avx512::have_vnni => avx512::I32, avx2::have => avx2::I32);
integer_sum!(i64, i64, 1, 2);

macro_rules! factor {
    ($ty:ty, $sum:ty, $widen:expr $(, $have:path => $fast:expr)*) => {
        impl Factor for $ty {
            type Sum = $sum;
            fn widen(self) -> Packed<$ty> {
                $widen(self)
            }
            fn few() -> &'static Few<$ty> {
                choose!(Few::<$ty>::portable() $(, $have => $fast)*)
            }
        }
    };
    ($ty:ty $(, $have:path => $fast:expr)*) => {
        impl Factor for $ty {
            type Sum = $ty;
            fn widen(self) -> $ty {
                self
            }
            fn packed(elements: &[$ty]) -> Option<&[$ty]> {
                Some(elements)
            }
            fn few() -> &'static Few<$ty> {
                choose!(Few::<$ty>::portable() $(, $have => $fast)*)
            }
        }
    };
}
factor!(f32, avx2::have => avx2_few::floats::<f32>());
factor!(f64);
factor!(i64);
factor!(f16, f32, f16::to_f32, avx2::have => avx2_few::floats::<f16>());
factor!(bf16, f32, bf16::to_f32, avx2::have => avx2_few::floats::<bf16>());
factor!(i8, i32, i16::from, avx2::have => avx2_few::bytes::<i8>());
factor!(u8, i32, i16::from, avx2::have => avx2_few::bytes::<u8>());
