//! Functions of the role [`crate::Compile`].

use super::{bad_struct, guard, instance, sink_status};
use crate::sys::{RawCall, RawWeights, bytes, host_function, pointers, sized, text};
use crate::{
    Compile, Compiled, Context, Error, Partition, Requirement, SetError, Status, TensorPlace, Verdict, Weights,
};
use delegraph_abi::c;
use delegraph_abi::image::{ImageView, verify};

/// # Safety
/// `graph` comes from the host.
unsafe fn graph_of<'a>(graph: *const c::Graph, call: &RawCall) -> Result<Asked<'a>, Error> {
    // SAFETY: the image and the text are valid for the length of the call.
    unsafe {
        let graph = sized(graph, c::Graph::FIRST_SIZE).map_err(|_| bad_struct("dg_graph"))?;
        Ok(Asked {
            image: verify(bytes(graph.image, graph.image_size)).map_err(|e| Error::invalid(e.to_string()))?,
            weights: Weights::new(RawWeights::new(graph.weights, call)),
            // An older host's struct ends before it.
            target: text(graph.target, graph.target_size)?,
        })
    }
}

/// What a `dg_graph` holds.
struct Asked<'a> {
    image: ImageView<'a>,
    weights: Weights<'a>,
    target: &'a str,
}

pub(super) unsafe extern "C" fn partition<D: Compile>(
    delegate: *mut c::Delegate,
    call: *const c::Call,
    graph: *const c::Graph,
    sink: *mut c::PartSink,
) -> Status {
    // SAFETY: see `super::get_info`.
    unsafe {
        guard(call, |call| {
            let Asked { image, target, .. } = graph_of(graph, call)?;
            let answer = instance::<D>(delegate)?
                .delegate
                .partition(&image, &Context::for_target(*call, target))?;
            send_partition(call, sink, &answer)
        })
    }
}

fn send_partition(call: &RawCall, sink: *mut c::PartSink, answer: &Partition) -> Result<(), Error> {
    let missing = || bad_struct("dg_host_api");
    let verdict = host_function!(call.host(), part_node_verdict).ok_or_else(missing)?;
    let atomic_set = host_function!(call.host(), part_atomic_set).ok_or_else(missing)?;
    for (node, answer) in answer.verdicts.iter().enumerate() {
        let (supported, reason, text) = match answer {
            Verdict::Take => (1, c::Reason::NONE, ""),
            Verdict::Refuse(reason, text) => (0, *reason, &**text),
        };
        // SAFETY: the sink is valid until `partition` returns; the host copies the text.
        let status = unsafe { verdict(sink, node as u32, supported, reason, text.as_ptr(), text.len() as u64) };
        sink_status(status, &format!("the verdict on node {node}"))?;
    }
    for set in &answer.atomic_sets {
        let nodes: Vec<u32> = set.iter().map(|n| n.0).collect();
        // SAFETY: as above.
        let status = unsafe { atomic_set(sink, nodes.as_ptr(), nodes.len() as u64) };
        sink_status(status, "an atomic set")?;
    }
    Ok(())
}

pub(super) unsafe extern "C" fn compile<D: Compile>(
    delegate: *mut c::Delegate,
    call: *const c::Call,
    graph: *const c::Graph,
    target: *const c::Target,
    sink: *mut c::BlobSink,
) -> Status {
    // SAFETY: see `super::get_info`.
    unsafe {
        guard(call, |call| {
            let Asked { image, weights, .. } = graph_of(graph, call)?;
            let target = sized(target, c::Target::FIRST_SIZE).map_err(|_| bad_struct("dg_target"))?;
            let target = text(target.name, target.name_size)?;
            let delegate = &instance::<D>(delegate)?.delegate;
            let compiled = delegate.compile(&image, &weights, target, &Context::for_target(*call, target))?;
            send_blob(call, sink, &compiled)
        })
    }
}

pub(super) unsafe extern "C" fn compile_set<D: Compile>(
    delegate: *mut c::Delegate,
    call: *const c::Call,
    graphs: *const *const c::Graph,
    target: *const c::Target,
    sinks: *const *mut c::BlobSink,
    count: u64,
) -> Status {
    // SAFETY: see `super::get_info`; both lists have `count` pointers.
    unsafe {
        guard(call, |call| {
            let target = sized(target, c::Target::FIRST_SIZE).map_err(|_| bad_struct("dg_target"))?;
            let target = text(target.name, target.name_size)?;
            let sinks = pointers(sinks, count);
            let graphs: Vec<(ImageView<'_>, Weights<'_>)> = pointers(graphs, count)
                .iter()
                .map(|graph| graph_of(*graph, call).map(|asked| (asked.image, asked.weights)))
                .collect::<Result<_, _>>()?;
            if sinks.len() != graphs.len() {
                return Err(Error::invalid("as many sinks as graphs are needed"));
            }
            let delegate = &instance::<D>(delegate)?.delegate;
            let compiled = delegate.compile_set(&graphs, target, &Context::for_target(*call, target));
            let compiled = compiled.map_err(|SetError { graph, error }| {
                if let Some(graph) = graph {
                    call.set_error_graph(graph as u64);
                }
                error
            })?;
            if compiled.len() != graphs.len() {
                let (made, wanted) = (compiled.len(), graphs.len());
                return Err(Error::internal(format!(
                    "`compile_set` made {made} blobs of {wanted} graphs"
                )));
            }
            let mut pairs = sinks.iter().zip(&compiled);
            pairs.try_for_each(|(sink, compiled)| send_blob(call, *sink, compiled))
        })
    }
}

fn send_blob(call: &RawCall, sink: *mut c::BlobSink, compiled: &Compiled) -> Result<(), Error> {
    let missing = || bad_struct("dg_host_api");
    let precision = host_function!(call.host(), blob_set_precision).ok_or_else(missing)?;
    let begin = host_function!(call.host(), blob_begin_section).ok_or_else(missing)?;
    let write = host_function!(call.host(), blob_write).ok_or_else(missing)?;
    // SAFETY: the sink is valid until `compile` returns; the host copies texts and bytes.
    unsafe {
        let text = &compiled.precision;
        sink_status(precision(sink, text.as_ptr(), text.len() as u64), "the precision")?;
        send_drivers(call, sink, compiled)?;
        send_states(call, sink, compiled)?;
        for section in &compiled.sections {
            let name = &section.name;
            let status = begin(sink, name.as_ptr(), name.len() as u64, section.align);
            sink_status(status, &format!("section `{name}`"))?;
            let status = write(sink, section.bytes.as_ptr(), section.bytes.len() as u64);
            sink_status(status, &format!("the bytes of section `{name}`"))?;
        }
    }
    compiled
        .requirements
        .iter()
        .try_for_each(|requirement| send_requirement(call, sink, requirement))
}

fn send_drivers(call: &RawCall, sink: *mut c::BlobSink, compiled: &Compiled) -> Result<(), Error> {
    let (min, max) = (&compiled.driver_min, &compiled.driver_max);
    if min.is_empty() && max.is_empty() {
        return Ok(());
    }
    let Some(set) = host_function!(call.host(), blob_set_driver_range) else {
        // The blob is as good as those of delegates that state nothing.
        let lost = "this host does not record which drivers a blob runs on";
        call.log(c::LogLevel::WARN.0, lost);
        return Ok(());
    };
    // SAFETY: the sink is valid until `compile` returns; the host copies the texts.
    let status = unsafe { set(sink, min.as_ptr(), min.len() as u64, max.as_ptr(), max.len() as u64) };
    sink_status(status, "the range of drivers")
}

fn send_states(call: &RawCall, sink: *mut c::BlobSink, compiled: &Compiled) -> Result<(), Error> {
    if compiled.kept_states.is_empty() {
        return Ok(());
    }
    let keep = host_function!(call.host(), blob_keep_state).ok_or_else(|| {
        Error::unsupported("the blob keeps states, of which this host knows nothing")
            .hint("use a host of ABI 0.1 or later")
    })?;
    for state in &compiled.kept_states {
        // SAFETY: the sink is valid until `compile` returns.
        let status = unsafe { keep(sink, *state) };
        sink_status(status, &format!("that the blob keeps state {state}"))?;
    }
    Ok(())
}

fn send_requirement(call: &RawCall, sink: *mut c::BlobSink, requirement: &Requirement) -> Result<(), Error> {
    // Without it, runs would bring tensors that the blob cannot use.
    let require = host_function!(call.host(), blob_require).ok_or_else(|| {
        Error::unsupported("the blob needs tensors placed in a way that this host does not know")
            .hint("use a host of ABI 0.1 or later")
    })?;
    let (is_output, index) = match requirement.tensor {
        TensorPlace::Input(index) => (0, index),
        TensorPlace::Output(index) => (1, index),
    };
    // SAFETY: the sink is valid until `compile` returns.
    let status = unsafe { require(sink, is_output, index, requirement.alignment, requirement.size_multiple) };
    sink_status(status, &format!("what {:?} needs", requirement.tensor))
}
