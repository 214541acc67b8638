//! The table of mutants. It is data alone: `cargo xtask mutants` reads this file as it stands.

/// Where a defect lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In what the library does.
    Code,
    /// In the library's file: made in a copy of it.
    File,
    /// In the manifest.
    Manifest,
}

/// A mutant.
#[derive(Debug, Clone, Copy)]
pub struct Defect {
    /// Its name: the value of `DELEGRAPH_MUTANT`.
    pub name: &'static str,
    /// Where the defect lies.
    pub place: Place,
    /// What is wrong.
    pub wrong: &'static str,
    /// The case that is meant to find it, or a pattern with `*`: one of those has to.
    pub case: &'static str,
    /// The verdicts that tell what is wrong.
    pub verdicts: &'static [&'static str],
}

const FAIL: &[&str] = &["fail"];
const CRASH: &[&str] = &["crash"];
const FAIL_OR_CRASH: &[&str] = &["fail", "crash"];
const FAIL_OR_HANG: &[&str] = &["fail", "hang"];
const CLAIMED: &[&str] = &["fail-claimed"];
const WARNING: &[&str] = &["quality-warning"];

const fn code(
    name: &'static str,
    wrong: &'static str,
    case: &'static str,
    verdicts: &'static [&'static str],
) -> Defect {
    let place = Place::Code;
    Defect {
        name,
        place,
        wrong,
        case,
        verdicts,
    }
}

const fn at(place: Place, defect: Defect) -> Defect {
    Defect { place, ..defect }
}

/// Every mutant, by category of the case that is meant for it.
#[rustfmt::skip]
pub const DEFECTS: &[Defect] = &[
    // What the file and the table are.
    code("missing-function", "the table has no `blob_check`", "abi/mandatory-functions", FAIL),
    code("small-table", "the table says that it is smaller than the first minor's", "abi/table", FAIL),
    code("import-without-functions", "a feature bit is set, its functions are NULL", "abi/mandatory-functions", FAIL),
    code("external-without-functions", "the feature bit of memory by handle is set, a function of it is NULL", "abi/mandatory-functions", FAIL),
    code("wrong-layout-hash", "the layout hash is of another header", "abi/info", FAIL),
    code("wrong-struct-id", "`dg_delegate_info` has the id of another struct", "abi/info", FAIL),
    code("other-name", "`get_info` gives another name than the manifest", "abi/info-is-manifest", FAIL),
    code("other-version", "`get_info` gives another version than the manifest", "abi/info-is-manifest", FAIL),
    code("refuses-larger-host", "a newer host, whose table is larger, is refused", "abi/newer-host", FAIL),
    code("reads-behind-structs", "a field that a later minor may append is read without asking for the size", "abi/oldest-host", FAIL_OR_CRASH),
    code("reads-behind-host", "a function that a later minor may append to the host's table is looked for without asking for the size", "abi/oldest-host", FAIL_OR_CRASH),
    code("refuses-extensions", "an unknown extension of a struct is an error, not stepped over", "abi/extensions", FAIL),
    code("accepts-unknown-option", "an option that it does not know is ignored", "abi/options-unknown", FAIL),
    code("table-varies", "each call of the entry gives another table", "abi/entry-again", FAIL),
    code("ignores-capacity", "more devices are written than there is room for", "abi/devices-room", FAIL_OR_CRASH),
    code("unknown-device-kind", "a device is of a kind that there is not", "abi/devices", FAIL),
    code("any-extension", "`get_extension` gives a table for every name", "abi/extension", FAIL),
    code("writes-standard-output", "it writes to standard output", "abi/stdout", FAIL),
    code("installs-signal-handler", "it installs a signal handler", "abi/signal-handlers", FAIL),
    code("leaves-folder", "it changes the working folder of the process", "abi/process-state", FAIL),
    at(Place::File, code("executable-stack", "the library asks for an executable stack", "abi/executable-stack", FAIL)),
    at(Place::File, code("exports-more", "the library exports a symbol beside its entry", "abi/exports", WARNING)),
    at(Place::File, code("relative-runpath", "the library looks for others in a folder of no absolute path", "abi/search-path", WARNING)),
    // Beginnings and ends.
    code("one-at-a-time", "a second `initialize` fails while the first delegate lives", "lifecycle/two-instances", FAIL),
    code("starts-once", "it cannot be initialized again after `shutdown`", "lifecycle/again", FAIL),
    code("leaves-thread", "`shutdown` leaves a thread running", "lifecycle/threads-end", FAIL),
    code("unloads-in-order", "sessions can only be unloaded in the order opposite to loading", "lifecycle/unload-out-of-order", FAIL_OR_CRASH),
    code("frees-twice", "a load that fails frees its memory twice", "lifecycle/load-after-failed-load", FAIL_OR_CRASH),
    code("crashes-at-100th-run", "the 100th run of a process crashes", "leak/runs", CRASH),
    // Verdicts on nodes.
    code("no-verdict", "the last node gets no verdict", "partition/every-node", FAIL),
    code("two-verdicts", "the first node gets two verdicts", "partition/every-node", FAIL),
    code("verdicts-vary", "every second answer about one graph is another", "partition/deterministic", FAIL),
    code("refuses-claimed", "additions are refused, which the manifest claims", "partition/claims-taken", CLAIMED),
    code("takes-everything", "what cannot be compiled is taken", "partition/taken-compiles", FAIL),
    code("slow-partition", "time grows with the square of the number of nodes", "partition/ten-thousand-nodes", FAIL_OR_HANG),
    code("refuses-without-reason", "a refusal gives no reason", "partition/reasons", FAIL),
    code("mute-about-target", "a target that it does not have is refused without a word", "partition/target", FAIL),
    code("foreign-atomic-set", "a set of nodes names one that the graph has not", "partition/atomic-sets", FAIL),
    at(Place::Manifest, code("claims-absent-operator", "the manifest claims an operator that there is not", "partition/claims-exist", FAIL)),
    at(Place::Manifest, code("claims-what-it-refuses", "the manifest claims an operator that is refused", "partition/claims-taken", CLAIMED)),
    // Numbers.
    code("loses-tail", "elements after the last whole vector of 8 are 0", "op/aten::add.Tensor/f32/odd-sizes", FAIL),
    code("flushes-denormals", "small numbers become 0, and the manifest does not say so", "op/aten::relu/f32/denormal", CLAIMED),
    code("casts-by-truncation", "casts to f16 and bf16 cut bits off instead of rounding", "op/aten::_to_copy/f32/rounding-to-f16", FAIL),
    code("repeats-instead-of-broadcasting", "a size of 1 in the middle is read as if it were the first", "op/aten::add.Tensor/f32/broadcast-both", FAIL),
    code("softmax-overflows", "softmax does not take off the largest value first", "op/aten::softmax.int/f32/large-magnitude", FAIL),
    code("relu-loses-nan", "relu makes 0 of NaN", "op/aten::relu/f32/non-finite", FAIL),
    code("maximum-loses-nan", "maximum takes the other operand where one is NaN", "op/aten::maximum/f32/non-finite", FAIL),
    code("accumulates-in-f16", "matrix products in f32 add up in f16", "op/aten::mm/f32/long-row", FAIL),
    code("variance-without-correction", "`correction` of a variance is ignored", "op/aten::var.correction/f32/last", FAIL),
    code("divides-towards-zero", "`rounding_mode=\"floor\"` rounds towards 0", "op/aten::div.Tensor_mode/f32/floor", FAIL),
    code("ignores-dilation", "the dilation of a convolution is ignored", "op/aten::conv2d/f32/dilation2", FAIL),
    code("ignores-groups", "every group of a convolution reads the first group's channels", "op/aten::conv2d/f32/groups", FAIL),
    code("pads-max-pool-with-zero", "max_pool takes what lies outside for 0", "op/aten::max_pool2d/f32/kernel3-stride2-pad1", FAIL),
    code("ignores-negative-dim", "a negative `dim` is taken for 0", "op/aten::softmax.int/f32/last", FAIL),
    code("ignores-gelu-tanh", "`approximate=\"tanh\"` is ignored", "op/aten::gelu/f32/tanh", FAIL),
    at(Place::Manifest, code("ignores-normal-form", "channels are asked for last, and given back first", "op/aten::conv2d/f32/plain", FAIL)),
    code("truncates-when-quantizing", "quantizing cuts off instead of rounding", "quantized/sigmoid/int8/odd-sizes", FAIL),
    code("saturates-by-wrapping", "what is larger than the largest integer becomes the smallest", "quantized/add/int8/saturation", FAIL),
    code("loses-quant-limits", "`quant_min` and `quant_max` are ignored", "quantized/linear/int8-per-axis/fused-relu6", FAIL),
    code("loses-fused-relu", "a relu after another node is fused away", "model/conv-net/float", FAIL),
    code("one-scale-for-all", "scales per axis are all taken for the first", "quantized/linear/int8-per-axis/rank2", FAIL),
    code("ignores-zero-point", "zero points are taken for 0", "quantized/add/int8-zero-point-min/two-scales", FAIL),
    code("stale-output", "a run gives the outputs of the run before", "memory/tensors-move", FAIL),
    code("remembers-input", "a run depends on the input of the run before", "memory/tensors-move", FAIL),
    code("last-bit-varies", "every second run has another last bit", "lifecycle/again", FAIL),
    code("loses-reused-value", "a value that two nodes read is overwritten between them", "model/encoder/float", FAIL),
    code("gives-up-at-run-time", "what was taken is refused by `session_execute`", "model/encoder/float", FAIL),
    // Sizes of a run.
    code("sizes-not-written", "outputs keep their largest sizes", "dynamic/relu/batch", FAIL),
    code("keeps-first-sizes", "the sizes of the first run are kept for all", "dynamic/relu/batch", FAIL),
    code("answers-beyond-bounds", "an input beyond its bound is no error", "fault/wrong-sizes", FAIL),
    // Memory.
    code("writes-behind-output", "16 bytes behind each output are written", "memory/guard-behind", FAIL_OR_CRASH),
    code("reads-behind-input", "16 bytes behind each input are read", "memory/guard-behind", FAIL_OR_CRASH),
    code("writes-input", "inputs are written", "memory/inputs-read-only", FAIL_OR_CRASH),
    code("writes-weight", "weights are written", "memory/weights-read-only", FAIL_OR_CRASH),
    code("needs-alignment", "tensors have to lie at multiples of 64, which no blob says", "memory/element-alignment", FAIL),
    code("keeps-pointer", "an input is read again in the next run", "memory/tensors-move", FAIL_OR_CRASH),
    code("skips-last-element", "the last element of an output is not written", "memory/outputs-written", FAIL),
    code("keeps-section", "a section of the blob is read after the load", "memory/sections-are-gone-after-load", CRASH),
    code("reads-released-blob", "a blob that was retained is read after it was released", "memory/blob-kept", CRASH),
    code("releases-blob-twice", "a blob that was retained once is released twice", "memory/blob-kept", FAIL),
    code("never-releases-blob", "a blob that was retained is not released", "memory/blob-kept", FAIL),
    code("needs-kept-blob", "a host that cannot keep a blob is refused", "memory/blob-not-kept", FAIL),
    code("weights-not-retained", "weights are read after the load, and were not retained", "memory/weights-lifetime", FAIL_OR_CRASH),
    // Blobs.
    code("accepts-damaged-blob", "a blob that is none loads, and runs to nothing", "blob/garbage", FAIL),
    code("trusts-blob", "a bit that is turned over in a blob crashes it", "blob/flipped-bits", CRASH),
    code("accepts-foreign-blob", "another delegate's blob is judged optimal", "blob/check-foreign", FAIL),
    code("accepts-newer-blob", "a blob of a newer version of its form is judged optimal", "blob/check-newer-format", FAIL),
    code("set-in-reverse", "graphs that are compiled together get each other's blobs", "blob/compile-set", FAIL),
    code("compile-counts", "how often the process has compiled is written into blobs", "blob/reproducible-again", WARNING),
    code("compile-varies", "the time is written into blobs", "blob/reproducible", FAIL),
    // Runs that end later.
    code("fence-twice", "a fence is signalled twice", "async/fence-once", FAIL),
    code("fence-never", "a fence is never signalled", "async/result", FAIL_OR_HANG),
    code("fence-and-error", "a fence is signalled, and `session_submit` returns an error", "async/fence-once", FAIL),
    code("cancel-hangs", "a run that is cancelled never ends", "async/cancelled-before", FAIL_OR_HANG),
    code("ignores-cancel", "a run that is cancelled goes on for longer than the manifest says", "async/cancelled-during", CLAIMED),
    code("ignores-deadline", "a run whose deadline passes ends after it, with OK", "async/deadline", FAIL),
    code("writes-after-fence", "outputs are written after the fence was signalled", "async/outputs-rest", FAIL_OR_CRASH),
    // States.
    code("reset-does-nothing", "`session_state_reset` changes nothing", "state/reset", FAIL),
    code("truncates-one-too-few", "`session_state_truncate` keeps one entry too many", "state/truncate", FAIL),
    code("restores-inexactly", "a state that is restored is not the one that was taken", "state/restore", FAIL),
    code("shares-state", "all sessions share their states", "state/isolated", FAIL),
    code("keeps-refused-state", "what `session_state_commit` refuses is kept", "state/refused-run", FAIL),
    code("state-not-zero", "a new session's states are not 0", "state/begins-at-zero", FAIL),
    // Threads.
    code("races-on-buffer", "all sessions use one buffer", "threading/sessions", FAIL),
    code("deadlocks", "two sessions that run at once wait for one another", "threading/sessions", FAIL_OR_HANG),
    code("holds-lock", "the host is called while a lock of all sessions is held", "threading/host-functions-without-locks", FAIL_OR_HANG),
    // What is left behind.
    code("leaks-run", "each run leaves 16 KiB behind", "leak/runs", FAIL),
    code("leaks-descriptor", "each load leaves a file open", "leak/descriptors", FAIL),
    code("leaks-start", "each start leaves 64 KiB behind", "leak/starts", FAIL),
    code("leaks-session", "`session_unload` frees nothing", "leak/loads", FAIL),
    // A host that fails.
    code("ignores-weight-failure", "a weight that cannot be mapped is read all the same", "fault/weight-map-in-load", CRASH),
    code("ignores-blob-sink", "a blob that the host did not take is reported as compiled", "fault/blob-write", FAIL),
    code("ignores-verdict-sink", "verdicts that the host did not take are reported as given", "fault/part-node-verdict", FAIL),
    code("aborts-on-error", "an error of a load or run ends the process", "fault/damaged-blob", CRASH),
    code("hangs", "a run never ends", "lifecycle/again", FAIL_OR_HANG),
    // Images that no host would give.
    code("crashes-on-damaged-image", "a damaged image crashes it; no host in order hands one over, so that this is a warning", "bad-input/broken-images", WARNING),
    code("accepts-newer-image", "an image of a newer major is answered as if it had been read", "bad-input/newer-major", FAIL),
    code("counts-elements", "time grows with the number of elements that sizes claim", "partition/huge-sizes", FAIL_OR_HANG),
    code("crashes-on-empty", "a tensor without elements crashes it", "memory/no-elements", CRASH),
    // Memory by handle.
    code("ignores-offset", "tensors are looked for at the beginning of an imported memory", "memory/external-import", FAIL),
    code("imports-a-copy", "what an imported memory held at its import is read in every run", "memory/external-import", FAIL),
    code("closes-descriptor", "the host's descriptor is closed by the import", "memory/external-descriptor", FAIL),
    code("leaks-import-descriptor", "each import keeps a descriptor for ever", "memory/external-descriptor", FAIL),
    code("borrows-descriptor", "the host's descriptor is used after the import, when the host has closed it", "memory/external-descriptor", FAIL_OR_CRASH),
    code("takes-any-handle", "handle types that it does not state are taken", "memory/external-unstated", FAIL),
    code("exports-too-little", "an exported memory is smaller than was asked for", "memory/external-export", FAIL),
    code("leaks-export-descriptor", "each export keeps a descriptor for ever", "memory/external-export", FAIL),
];
