//! The function of runs that end later.

use super::guard;
use super::run::Loaded;
use crate::sys::{RawRun, pointers};
use crate::{Error, Status, SubmittedRun};
use delegraph_abi::c;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub(super) unsafe extern "C" fn session_submit(
    session: *mut c::Session,
    call: *const c::Call,
    inputs: *const *const c::Tensor,
    input_count: u64,
    outputs: *const *mut c::Tensor,
    output_count: u64,
    fence: *mut c::Fence,
) -> Status {
    // SAFETY: as in `run::session_execute`; call and tensors are valid until the fence is signalled.
    unsafe {
        guard(call, |call| {
            let loaded = session.cast::<Loaded>().as_mut();
            let loaded = loaded.ok_or_else(|| Error::invalid("the session is NULL"))?;
            let inputs = pointers(inputs, input_count);
            let outputs = pointers(outputs, output_count);
            let run = SubmittedRun::new(RawRun::new(*call, inputs, outputs, fence)?);
            // From here on the run may have ended, and its call with it: neither is touched, and whatever happens is told through
            // the fence. A panic drops the run, or has left it with somebody who ends it.
            let _ = catch_unwind(AssertUnwindSafe(|| loaded.session.submit(run)));
            Ok(())
        })
    }
}
