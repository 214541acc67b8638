//! Status codes.

use core::fmt;

/// Outcome of a call.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Status(pub i32);

#[allow(missing_docs)]
impl Status {
    pub const OK: Status = Status(0);
    pub const INTERNAL: Status = Status(19);
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DG_{}", self.0)
    }
}
