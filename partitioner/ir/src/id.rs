//! Index newtypes. A bare `usize` never crosses a module.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u32);

        impl $name {
            /// The position in the list that the id indexes.
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl From<usize> for $name {
            fn from(index: usize) -> $name {
                $name(index as u32)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

id!(
    /// A value of one graph ([`crate::Graph::values`]).
    ValueId,
    "%"
);
id!(
    /// A node's position in [`crate::Graph::nodes`]. Inserting or removing nodes changes it.
    NodeId,
    "#"
);
id!(
    /// A tensor of [`crate::Constants`].
    ConstantId,
    "c"
);
id!(
    /// A mutable buffer of the module.
    StateId,
    "s"
);
id!(
    /// A delegated region of one graph.
    RegionId,
    "r"
);
