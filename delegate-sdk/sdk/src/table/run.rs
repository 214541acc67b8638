//! Functions of the role [`crate::Run`].

use super::{bad_struct, guard, instance, sink_status};
use crate::sys::{RawOwner, RawWeights, bytes, host_function, pointers, room_of, sized, text, view_of};
use crate::{Blob, BlobMeta, BlobVerdict, Context, Error, Run, Session, Status, TensorOut, TensorView, Weights};
use delegraph_abi::c;

/// A session that is loaded, with room for its tensors so that a run allocates nothing.
pub(super) struct Loaded {
    pub(super) session: Box<dyn Session>,
    inputs: Vec<TensorView<'static>>,
    outputs: Vec<TensorOut<'static>>,
}

/// # Safety
/// `meta` comes from the host.
unsafe fn meta_of<'a>(meta: *const c::BlobMeta) -> Result<BlobMeta<'a>, Error> {
    // SAFETY: texts and hash are valid for the length of the call.
    unsafe {
        let meta = sized(meta, c::BlobMeta::FIRST_SIZE).map_err(|_| bad_struct("dg_blob_meta"))?;
        let hash = meta.graph_hash.cast::<[u8; 32]>().as_ref();
        Ok(BlobMeta {
            delegate: text(meta.delegate, meta.delegate_size)?,
            delegate_version: text(meta.delegate_version, meta.delegate_version_size)?,
            format: text(meta.format, meta.format_size)?,
            format_version: meta.format_version,
            target: text(meta.target, meta.target_size)?,
            precision: text(meta.precision, meta.precision_size)?,
            graph_hash: hash.ok_or_else(|| bad_struct("graph_hash"))?,
            driver_min: text(meta.driver_min, meta.driver_min_size)?,
            driver_max: text(meta.driver_max, meta.driver_max_size)?,
            options_hash: meta.options_hash.cast::<[u8; 32]>().as_ref(),
            weights_hash: meta.weights_hash.cast::<[u8; 32]>().as_ref(),
        })
    }
}

pub(super) unsafe extern "C" fn blob_check<D: Run>(
    delegate: *mut c::Delegate,
    call: *const c::Call,
    meta: *const c::BlobMeta,
    sink: *mut c::CheckSink,
) -> Status {
    // SAFETY: see `super::get_info`.
    unsafe {
        guard(call, |call| {
            let meta = meta_of(meta)?;
            let (verdict, reason) = match instance::<D>(delegate)?.delegate.check_blob(&meta) {
                BlobVerdict::Optimal => (c::BlobVerdict::OPTIMAL, String::new()),
                BlobVerdict::RecompileBetter(reason) => (c::BlobVerdict::RECOMPILE_BETTER, reason),
                BlobVerdict::UnsupportedHere(reason) => (c::BlobVerdict::UNSUPPORTED_HERE, reason),
                BlobVerdict::NotMine(reason) => (c::BlobVerdict::NOT_MINE, reason),
                BlobVerdict::Corrupt(reason) => (c::BlobVerdict::CORRUPT, reason),
            };
            let set = host_function!(call.host(), blob_set_verdict).ok_or_else(|| bad_struct("dg_host_api"))?;
            sink_status(set(sink, verdict, reason.as_ptr(), reason.len() as u64), "the verdict")
        })
    }
}

pub(super) unsafe extern "C" fn session_load<D: Run>(
    delegate: *mut c::Delegate,
    call: *const c::Call,
    blob: *const c::Blob,
    out_session: *mut *mut c::Session,
) -> Status {
    // SAFETY: see `super::get_info`.
    unsafe {
        guard(call, |call| {
            let blob = sized(blob, c::Blob::FIRST_SIZE).map_err(|_| bad_struct("dg_blob"))?;
            let out = out_session.as_mut().ok_or_else(|| bad_struct("out_session"))?;
            let (mut sections, mut shared) = (Vec::new(), Vec::new());
            for section in pointers(blob.sections, blob.section_count) {
                let section = sized(*section, c::Section::FIRST_SIZE).map_err(|_| bad_struct("dg_section"))?;
                let name = text(section.name, section.name_size)?;
                sections.push((name, bytes(section.data, section.size)));
                // An older host's struct ends before it.
                if let Some(hash) = section.share_hash.cast::<[u8; 32]>().as_ref() {
                    shared.push((name, hash));
                }
            }
            let weights = Weights::new(RawWeights::new(blob.weights, call));
            let blob = Blob {
                meta: meta_of(blob.meta)?,
                sections,
                shared,
                device: (blob.device_chosen != 0).then_some(blob.device),
                // An older host's struct ends before it.
                owner: RawOwner::new(blob.owner, call),
            };
            let session = instance::<D>(delegate)?
                .delegate
                .load(&blob, &weights, &Context::new(*call))?;
            *out = Box::into_raw(Box::new(Loaded {
                session,
                inputs: Vec::new(),
                outputs: Vec::new(),
            }))
            .cast();
            Ok(())
        })
    }
}

pub(super) unsafe extern "C" fn session_unload(session: *mut c::Session, call: *const c::Call) {
    // SAFETY: `session` was made by `session_load` and is not used again.
    unsafe {
        guard(call, |_| {
            if !session.is_null() {
                drop(Box::from_raw(session.cast::<Loaded>()));
            }
            Ok(())
        });
    }
}

pub(super) unsafe extern "C" fn session_execute(
    session: *mut c::Session,
    call: *const c::Call,
    inputs: *const *const c::Tensor,
    input_count: u64,
    outputs: *const *mut c::Tensor,
    output_count: u64,
) -> Status {
    // SAFETY: the host runs one function of a session at a time; tensors are valid until the function returns, and outputs
    // overlap nothing.
    unsafe {
        guard(call, |call| {
            let loaded = session.cast::<Loaded>().as_mut();
            let loaded = loaded.ok_or_else(|| Error::invalid("the session is NULL"))?;
            let mut views: Vec<TensorView<'_>> = std::mem::take(&mut loaded.inputs);
            let mut rooms: Vec<TensorOut<'_>> = std::mem::take(&mut loaded.outputs);
            let missing = || bad_struct("dg_tensor");
            for tensor in pointers(inputs, input_count) {
                let tensor = sized(*tensor, c::Tensor::FIRST_SIZE).map_err(|_| missing())?;
                views.push(view_of(&tensor));
            }
            for tensor in pointers(outputs, output_count) {
                let tensor = sized(tensor.cast_const(), c::Tensor::FIRST_SIZE).map_err(|_| missing())?;
                rooms.push(room_of(&tensor));
            }
            let outcome = loaded.session.execute(&views, &mut rooms, &Context::new(*call));
            (loaded.inputs, loaded.outputs) = (emptied(views), emptied_outputs(rooms));
            outcome
        })
    }
}

/// The room of the list, for the next run: collecting an emptied list in place keeps its allocation.
fn emptied(mut list: Vec<TensorView<'_>>) -> Vec<TensorView<'static>> {
    list.clear();
    list.into_iter()
        .map(|t| TensorView {
            dtype: t.dtype,
            sizes: &[],
            bytes: &[],
            buffer: None,
        })
        .collect()
}

/// As [`emptied`].
fn emptied_outputs(mut list: Vec<TensorOut<'_>>) -> Vec<TensorOut<'static>> {
    list.clear();
    list.into_iter()
        .map(|t| TensorOut {
            dtype: t.dtype,
            sizes: &mut [],
            bytes: &mut [],
            buffer: None,
        })
        .collect()
}
