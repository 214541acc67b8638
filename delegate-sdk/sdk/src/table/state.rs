//! Functions of the role [`super::roles::State`].

use super::guard;
use super::run::Loaded;
use crate::sys::{bytes, bytes_mut};
use crate::{Context, Error, Session, Status};
use delegraph_abi::c;
use std::ffi::c_void;

/// Calls a method of a session.
///
/// # Safety
/// `session` and `call` are what the host passed to the function that runs.
unsafe fn on(
    session: *mut c::Session,
    call: *const c::Call,
    body: impl FnOnce(&mut dyn Session, &Context<'_>) -> Result<(), Error>,
) -> Status {
    // SAFETY: the host runs one function of a session at a time.
    unsafe {
        guard(call, |call| {
            let loaded = session.cast::<Loaded>().as_mut();
            let loaded = loaded.ok_or_else(|| Error::invalid("the session is NULL"))?;
            body(&mut *loaded.session, &Context::new(*call))
        })
    }
}

pub(super) unsafe extern "C" fn session_state_commit(
    session: *mut c::Session,
    call: *const c::Call,
    accept: u32,
) -> Status {
    // SAFETY: pointers come from the host under the contract, here and below.
    unsafe {
        on(session, call, |session, context| {
            session.state_commit(accept != 0, context)
        })
    }
}

pub(super) unsafe extern "C" fn session_state_reset(
    session: *mut c::Session,
    call: *const c::Call,
    state: u32,
) -> Status {
    // SAFETY: see above.
    unsafe { on(session, call, |session, context| session.state_reset(state, context)) }
}

pub(super) unsafe extern "C" fn session_state_truncate(
    session: *mut c::Session,
    call: *const c::Call,
    state: u32,
    length: u64,
) -> Status {
    // SAFETY: see above.
    unsafe {
        on(session, call, |session, context| {
            session.state_truncate(state, length, context)
        })
    }
}

pub(super) unsafe extern "C" fn session_state_snapshot(
    session: *mut c::Session,
    call: *const c::Call,
    state: u32,
    out_data: *mut c_void,
    size: u64,
) -> Status {
    // SAFETY: see above; the host gives `size` bytes to write, which are nobody else's.
    unsafe {
        on(session, call, |session, context| {
            let out = bytes_mut(out_data.cast(), size);
            session.state_snapshot(state, out, context)
        })
    }
}

pub(super) unsafe extern "C" fn session_state_restore(
    session: *mut c::Session,
    call: *const c::Call,
    state: u32,
    data: *const c_void,
    size: u64,
) -> Status {
    // SAFETY: see above; `size` bytes can be read.
    unsafe {
        on(session, call, |session, context| {
            session.state_restore(state, bytes(data.cast(), size), context)
        })
    }
}
