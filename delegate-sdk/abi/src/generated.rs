//! Stand-in until the generator writes this file.
use core::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident($ty:ty) { $($item:ident = $value:expr),* $(,)? })*) => {
        $($(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name(pub $ty);
        #[allow(missing_docs)]
        impl $name {
            $(pub const $item: $name = $name($value);)*
            /// The name of a known code.
            pub fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some(stringify!($item)),)*
                    _ => None,
                }
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, "{}({})", stringify!($name), self.0),
                }
            }
        })*
    };
}

codes! {
    /// Outcome of a call.
    Status(i32) {
        OK = 0, BAD_STRUCT = 1, INVALID_ARGUMENT = 2, UNSUPPORTED = 3, NOT_FOUND = 4, OUT_OF_MEMORY = 5,
        DEVICE_MEMORY_EXHAUSTED = 6, DEVICE_BUSY = 7, DEVICE_LOST = 8, TIMEOUT = 9, CANCELLED = 10, BLOB_CORRUPT = 11,
        BLOB_INCOMPATIBLE = 12, DEPENDENCY_MISSING = 13, PERMISSION = 14, SHAPE_OUT_OF_RANGE = 15, BUFFER_TOO_SMALL = 16,
        NOT_READY = 17, INTERNAL = 18, VENDOR = 19,
    }
    /// Element type: the ScalarType code of `.pte` files.
    DType(u32) {
        U8 = 0, I8 = 1, I16 = 2, I32 = 3, I64 = 4, F16 = 5, F32 = 6, F64 = 7, BOOL = 11, BF16 = 15, F8E5M2 = 23,
        F8E4M3 = 24, U16 = 27, U32 = 28, U64 = 29,
    }
    /// Operator of a size expression.
    ExprOp(u32) {
        ADD = 1, MUL = 2, FLOOR_DIV = 3, CEIL_DIV = 4, MOD = 5, MAX = 6, MIN = 7, POW = 8, TRUE_DIV = 9, EQ = 10, NE = 11,
        LT = 12, LE = 13, GT = 14, GE = 15, AND = 16, OR = 17, NOT = 18, WHERE = 19, TO_FLOAT = 20, TRUNC = 21, FLOOR = 22,
        CEIL = 23, ROUND = 24,
    }
    /// Memory format of an argument (`c10::MemoryFormat`).
    MemoryFormat(u32) {
        CONTIGUOUS = 0, PRESERVE = 1, CHANNELS_LAST = 2, CHANNELS_LAST_3D = 3,
    }
    /// Why a delegate does not take a node.
    Reason(u32) {
        NONE = 0, UNKNOWN_OP = 1, DTYPE = 2, RANK = 3, SHAPE = 4, DYNAMIC_SHAPE = 5, ATTRIBUTE = 6, QUANTIZATION = 7,
        MEMORY = 8, COST = 9, TARGET = 10, OTHER = 11,
    }
}
