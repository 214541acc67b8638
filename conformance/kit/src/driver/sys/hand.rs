//! Structs of the host's, as they are handed over: in the form that a script asks for.

use crate::driver::call::{Refused, Structs};
use crate::driver::sys::library::broken;
use crate::driver::sys::memory::{Guarded, Place};
use crate::driver::sys::raw::{Struct, first_size};
use delegraph_abi::c;
use std::sync::OnceLock;

/// Bytes that a later minor may have appended.
const TAIL: usize = 64;

/// A struct in memory. Its pointer is good as long as it lives, also when it is moved.
pub(crate) enum Handed<T> {
    Plain(Box<T>),
    Placed(Guarded),
}

impl<T: Struct> Handed<T> {
    pub fn new(value: T, structs: Structs) -> Result<Handed<T>, Refused> {
        let mut value = value;
        let size = match structs {
            Structs::Small(name, size) if name == T::NAME => {
                set(&mut value, Some(size), None);
                return Ok(Handed::Plain(Box::new(value)));
            }
            Structs::Ours | Structs::Small(..) => return Ok(Handed::Plain(Box::new(value))),
            Structs::First(major) => first_size::<T>(major),
            Structs::Longer => size_of::<T>() + TAIL,
            Structs::Extended => {
                set(&mut value, None, Some(extensions()));
                return Ok(Handed::Plain(Box::new(value)));
            }
        };
        set(&mut value, Some(size as u32), None);
        let problem = |problem: String| broken("the kit", &problem);
        let mut memory = Guarded::new(size, Place::End, 8).map_err(problem)?;
        // SAFETY: a struct of the ABI is plain bytes to whoever copies it; none of them has padding that is not a field.
        let bytes = unsafe { std::slice::from_raw_parts((&raw const value).cast::<u8>(), size_of::<T>()) };
        memory.fill(bytes);
        Ok(Handed::Placed(memory))
    }

    pub fn as_ptr(&self) -> *const T {
        match self {
            Handed::Plain(value) => &raw const **value,
            Handed::Placed(memory) => memory.as_ptr().cast_const().cast(),
        }
    }
}

/// Pointers to structs, in order.
pub(crate) fn pointers<T: Struct>(handed: &[Handed<T>]) -> Vec<*const T> {
    handed.iter().map(Handed::as_ptr).collect()
}

/// Where a list begins; an empty one is NULL, unless this version's habit is kept.
pub(crate) fn list<T>(items: &[T], structs: Structs) -> *const T {
    match items.is_empty() && structs != Structs::Ours {
        true => std::ptr::null(),
        false => items.as_ptr(),
    }
}

fn set<T: Struct>(value: &mut T, size: Option<u32>, next: Option<*const c::Ext>) {
    let start = (&raw mut *value).cast::<u8>();
    // SAFETY: every struct that is handed over begins with its size, its id, and a pointer to its first extension.
    unsafe {
        if let Some(size) = size {
            start.cast::<u32>().write(size);
        }
        if let Some(next) = next {
            start.add(8).cast::<*const c::Ext>().write(next);
        }
    }
}

/// Two extensions that nobody knows, the first with a tail, read-only, for the life of the process.
pub(crate) fn extensions() -> *const c::Ext {
    static CHAIN: OnceLock<usize> = OnceLock::new();
    let address = *CHAIN.get_or_init(|| {
        let own = size_of::<c::Ext>();
        let build = || {
            let mut memory = Guarded::new(2 * own + 32, Place::End, 8).ok()?;
            let first = memory.as_ptr().cast::<c::Ext>();
            // SAFETY: both records and the first one's tail lie within the memory, at multiples of 8.
            unsafe {
                let second = memory.as_ptr().add(own + 32).cast::<c::Ext>();
                second.write(c::Ext {
                    struct_size: own as u32,
                    ext_id: 0x7fff_fff2,
                    next: std::ptr::null(),
                });
                first.write(c::Ext {
                    struct_size: (own + 32) as u32,
                    ext_id: 0x7fff_fff1,
                    next: second,
                });
            }
            memory.protect().ok()?;
            std::mem::forget(memory);
            Some(first.expose_provenance())
        };
        build().unwrap_or(0)
    });
    std::ptr::with_exposed_provenance(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structs_have_the_form_asked_for() {
        let size = |structs| {
            let handed = Handed::new(c::Blob::new(), structs).unwrap();
            // SAFETY: it is in memory, and begins with its size.
            unsafe { handed.as_ptr().cast::<u32>().read() as usize }
        };
        assert_eq!(size(Structs::Ours), size_of::<c::Blob>());
        assert_eq!(size(Structs::First(0)), c::Blob::FIRST_SIZE);
        assert_eq!(size(Structs::First(1)), c::Blob::MAJOR_SIZE);
        assert_eq!(size(Structs::Longer), size_of::<c::Blob>() + TAIL);
        assert_eq!(size(Structs::Small("dg_blob", 3)), 3);
        assert_eq!(size(Structs::Small("dg_graph", 3)), size_of::<c::Blob>());
        let handed = Handed::new(c::Blob::new(), Structs::Extended).unwrap();
        // SAFETY: two extensions of the kit's.
        unsafe {
            let first = (*handed.as_ptr()).next;
            assert_eq!((*first).ext_id, 0x7fff_fff1);
            assert!((*(*first).next).next.is_null());
        }
    }
}
