//! `delegraph inspect`: what is inside a file. Nothing of a vendor's runs.

use crate::args::InspectArgs;
use crate::disassemble::Opened;
use crate::families::Found;
use crate::output::{Output, Tint, bytes};
use delegraph::{Format, Source};
use delegraph_ir::{InputKind, Op, Output as GraphOutput};
use delegraph_pte::model::{Dynamism, EValue, Instruction, Plan};
use delegraph_pte::overlay::{Candidate, OVERLAY_KEY, Overlay};
use delegraph_pte::{BundledProgram, DataFile, Verified};
use std::collections::BTreeMap;

/// Runs the command.
///
/// # Errors
/// The file cannot be read or is malformed.
pub fn run(args: &InspectArgs, output: &Output) -> anyhow::Result<u8> {
    let name = args.file.to_string_lossy();
    if name.ends_with(".toml") || name.ends_with(".so") || name.ends_with(".dylib") || name.ends_with(".dll") {
        return delegate(args, output);
    }
    let source = Source::open(&args.file)?;
    let format = source.format()?;
    if args.blob.is_some() && matches!(format, Format::Pt2 | Format::Ptd) {
        return Err(crate::usage(format!(
            "`{}` has no blobs\n  hint: `--blob` is for a .pte file",
            args.file.display()
        )));
    }
    match format {
        Format::Pt2 => archive(&source, args, output),
        Format::Pte => program(source.bytes().as_slice(), &source, args, output),
        Format::Bundled => bundled(&source, args, output),
        Format::Ptd => data(&source, output),
    }
}

fn archive(source: &Source, args: &InspectArgs, output: &Output) -> anyhow::Result<u8> {
    let module = delegraph::import(source).map_err(crate::of_model(&args.file))?;
    let mut methods = Vec::new();
    for graph in &module.graphs {
        output.data(output.tint(
            Tint::Bold,
            format!("method {} ({} nodes)", graph.name, graph.nodes.len()),
        ));
        for input in &graph.inputs {
            match &input.kind {
                InputKind::Value(value) => output.data(format!("  input   {}: {}", input.name, graph.value(*value).ty)),
                InputKind::Literal(arg) => output.data(format!("  input   {}: fixed at {arg:?}", input.name)),
            }
        }
        for item in &graph.outputs {
            match item {
                GraphOutput::Value(value) => {
                    let value = graph.value(*value);
                    output.data(format!("  output  {}: {}", value.name, value.ty));
                }
                GraphOutput::Literal(arg) => output.data(format!("  output  {arg:?}")),
            }
        }
        let counts = count(graph.nodes.iter().map(|node| node.op.name().to_string()));
        for (op, n) in &counts {
            output.data(format!("  {n:>5} x {op}"));
        }
        if args.tree {
            output.data(graph.to_string());
        }
        methods.push(serde_json::json!({ "name": graph.name, "nodes": graph.nodes.len(), "operators": counts }));
    }
    for (symbol, range) in &module.symbols.ranges {
        let max = range.max.map_or("unbounded".to_string(), |max| max.to_string());
        output.data(format!("symbol {symbol}: {} to {max}", range.min));
    }
    for state in &module.states {
        output.data(format!("state {}: {}", state.name, state.ty));
    }
    let total: u64 = module
        .constants
        .iter()
        .map(|(_, c)| c.sizes.numel().unwrap_or(0) as u64 * c.dtype.size() as u64)
        .sum();
    output.data(format!("{} constants, {}", module.constants.len(), bytes(total)));
    output.json(&serde_json::json!({
        "schema": "delegraph.inspect/1", "format": "pt2", "methods": methods, "constants": module.constants.len(),
        "constant_bytes": total, "symbols": module.symbols, "exit_code": 0,
    }))?;
    Ok(0)
}

fn program(file: &[u8], source: &Source, args: &InspectArgs, output: &Output) -> anyhow::Result<u8> {
    let verified = Verified::parse(file).map_err(|error| delegraph::Error::Program {
        name: source.name().to_string(),
        source: error,
    })?;
    let overlay: Overlay = match verified.named(file, OVERLAY_KEY) {
        None => Overlay::default(),
        Some(json) => serde_json::from_slice(json)
            .map_err(|error| crate::bad_input(format!("{}: segment `{OVERLAY_KEY}`: {error}", source.name())))?,
    };
    let mut methods = Vec::new();
    let mut foreign: BTreeMap<String, u64> = BTreeMap::new();
    let mut packed = Found::default();
    for plan in &verified.plans {
        output.data(output.tint(
            Tint::Bold,
            format!(
                "method {} ({} instructions, {} values)",
                plan.name,
                plan.instructions.len(),
                plan.values.len()
            ),
        ));
        for (kind, list) in [("input", &plan.inputs), ("output", &plan.outputs)] {
            for &index in list {
                output.data(format!("  {kind:<7} {}", describe(plan, index)));
            }
        }
        for (id, size) in plan.buffer_sizes.iter().enumerate().skip(1) {
            output.data(format!("  memory {id}: {}", bytes(*size)));
        }
        let counts = count(plan.instructions.iter().map(|i| operator(plan, i)));
        for (op, n) in &counts {
            let known = Op::find(op).is_some_and(Op::in_executorch) || !op.contains("::");
            if !known {
                *foreign.entry(op.clone()).or_default() += n;
            }
            output.data(format!(
                "  {n:>5} x {op}{}",
                if known { "" } else { "  (not in stock ExecuTorch)" }
            ));
        }
        for delegate in &plan.delegates {
            output.data(format!("  delegate {} (of the plan itself)", delegate.id));
        }
        let unbounded = plan
            .values
            .iter()
            .any(|v| matches!(v, EValue::Tensor(t) if t.dynamism == Dynamism::Unbounded));
        if unbounded {
            output.data("  has unbounded sizes: stock ExecuTorch refuses it");
        }
        if args.tree {
            for (i, instruction) in plan.instructions.iter().enumerate() {
                output.data(format!("  {i:>5} {}", instruction_line(plan, instruction)));
            }
        }
        for method in overlay.methods.iter().filter(|m| m.method == plan.name) {
            for (i, region) in method.regions.iter().enumerate() {
                let bucketed = region.bucketed.iter().map(|entry| &entry.candidate);
                let mut backends: Vec<&str> = region
                    .candidates
                    .iter()
                    .chain(bucketed)
                    .map(|c| c.backend.as_str())
                    .collect();
                backends.dedup();
                let nodes: u32 = region.operators.iter().map(|(_, n)| n).sum();
                output.data(format!(
                    "  region {i}: instructions {}..{}, {nodes} nodes, candidates {}",
                    region.start,
                    region.end,
                    backends.join(", ")
                ));
                for candidate in &region.candidates {
                    let blob = verified.named(file, &candidate.blob).unwrap_or_default();
                    for line in delegraph::blob_requirements(blob) {
                        output.data(format!("    {} needs {line}", candidate.backend));
                    }
                }
                let programs = packed.add_region(region, &verified, file);
                if !programs.is_empty() {
                    let of: Vec<String> = programs
                        .iter()
                        .map(|families| crate::families::names(families))
                        .collect();
                    output.data(format!("    cpu compiled for {}", of.join("; ")));
                }
                for entry in &region.bucketed {
                    let Candidate { backend, blob, .. } = &entry.candidate;
                    let sizes = method.bucket_name(entry.bucket);
                    output.data(format!("    {backend} for {sizes}: {blob}"));
                }
            }
        }
        methods.push(serde_json::json!({
            "name": plan.name, "instructions": plan.instructions.len(), "operators": counts, "unbounded": unbounded,
            "memory": plan.buffer_sizes, "delegates": plan.delegates.iter().map(|d| &d.id).collect::<Vec<_>>(),
        }));
    }
    for packed in &packed.packed {
        output.data(packed.line());
    }
    let mut named = Vec::new();
    for item in &verified.named_data {
        let size = verified
            .segments
            .get(item.segment as usize)
            .map_or(0, |s| s.end - s.start);
        named.push(serde_json::json!({ "key": item.key, "bytes": size }));
        if args.segments {
            output.data(format!("named {:<28} {:>12}  {}", item.key, size, bytes(size)));
        }
    }
    if args.segments {
        for (i, segment) in verified.segments.iter().enumerate() {
            output.data(format!(
                "segment {i}: {}..{} ({})",
                segment.start,
                segment.end,
                bytes(segment.end - segment.start)
            ));
        }
    }
    let blob = match args.blob {
        None => serde_json::Value::Null,
        Some(n) => blob(&verified, file, n, args.disasm, output)?,
    };
    let stock = foreign.is_empty() && verified.plans.iter().all(|plan| plan.delegates.is_empty());
    output.data(match stock {
        true => "every operator is registered by stock ExecuTorch 1.5.1".to_string(),
        false => format!("stock ExecuTorch lacks {} operators of it", foreign.len()),
    });
    output.json(&serde_json::json!({
        "schema": "delegraph.inspect/1", "format": "pte", "methods": methods, "overlay": overlay, "named": named,
        "not_in_executorch": foreign, "file_bytes": file.len(), "blob": blob, "packed": packed.packed, "exit_code": 0,
    }))?;
    Ok(0)
}

fn blob(
    verified: &Verified,
    file: &[u8],
    n: u32,
    disassembled: bool,
    output: &Output,
) -> anyhow::Result<serde_json::Value> {
    let key = format!("delegraph.blob.{n}");
    let Some(bytes) = verified.named(file, &key) else {
        return Err(crate::usage(format!("the program has no blob {n}")));
    };
    output.data(delegraph::describe_blob(bytes));
    let opened = match Opened::new(n, bytes, &|key| verified.named(file, key)) {
        Ok(opened) => opened,
        Err(error) if disassembled => return Err(error),
        // The description says it.
        Err(_) => return Ok(serde_json::Value::Null),
    };
    let mut json = opened.json();
    if disassembled {
        let text = opened.disassemble()?;
        output.data(text.trim_end());
        json["disassembly"] = text.into();
    }
    Ok(json)
}

fn bundled(source: &Source, args: &InspectArgs, output: &Output) -> anyhow::Result<u8> {
    let file = source.bytes().as_slice();
    let bundle = BundledProgram::parse(file).map_err(|error| delegraph::Error::Program {
        name: source.name().to_string(),
        source: error,
    })?;
    for suite in &bundle.suites {
        output.data(format!("method {}: {} recorded cases", suite.method, suite.cases.len()));
    }
    program(bundle.program, source, args, output)
}

fn data(source: &Source, output: &Output) -> anyhow::Result<u8> {
    let file = DataFile::parse(source.bytes().as_slice()).map_err(|error| delegraph::Error::Program {
        name: source.name().to_string(),
        source: error,
    })?;
    let mut rows = Vec::new();
    for tensor in &file.entries {
        let layout = tensor
            .layout
            .as_ref()
            .map_or("opaque".to_string(), |(dtype, sizes, _)| format!("{dtype}[{sizes}]"));
        output.data(format!("{:<40} {layout}", tensor.name));
        rows.push(serde_json::json!({ "name": tensor.name, "type": layout }));
    }
    output.json(
        &serde_json::json!({ "schema": "delegraph.inspect/1", "format": "ptd", "tensors": rows, "exit_code": 0 }),
    )?;
    Ok(0)
}

/// A library or its manifest: what can be said without loading it.
fn delegate(args: &InspectArgs, output: &Output) -> anyhow::Result<u8> {
    let host = delegraph_host::Host::discover(delegraph_host::HostOptions {
        manifests: vec![args.file.clone()],
        no_load: true,
        ..delegraph_host::HostOptions::default()
    });
    let Some(candidate) = host.candidates().into_iter().next() else {
        return Err(crate::bad_input(format!("`{}` is no delegate", args.file.display())));
    };
    if let Some(reason) = &candidate.refusal {
        return Err(crate::bad_input(format!("`{}`: {reason}", args.file.display())));
    }
    output.data(format!("backend  {}", candidate.backend));
    if let Some(library) = &candidate.library {
        output.data(format!("library  {}", library.display()));
    }
    if let Some(manifest) = &candidate.manifest {
        output.data(format!(
            "vendor   {}\nversion  {}\nlicence  {}",
            manifest.vendor, manifest.version, manifest.licence
        ));
        output.data(format!(
            "abi      {}.{} or a later minor",
            manifest.abi_major, manifest.abi_min_minor
        ));
        output.data(format!("roles    {}", manifest.roles.join(", ")));
        if !manifest.contact.is_empty() {
            output.data(format!("contact  {}", manifest.contact));
        }
    }
    output.json(&serde_json::json!({
        "schema": "delegraph.inspect/1", "format": "delegate", "backend": candidate.backend, "library": candidate.library,
        "abi": candidate.manifest.as_ref().map(|m| serde_json::json!({ "major": m.abi_major, "min_minor": m.abi_min_minor })),
        "exit_code": 0,
    }))?;
    Ok(0)
}

fn count(names: impl Iterator<Item = String>) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for name in names {
        *counts.entry(name).or_default() += 1;
    }
    counts
}

fn operator(plan: &Plan, instruction: &Instruction) -> String {
    match instruction {
        Instruction::Kernel { op, .. } => match plan.operators.get(*op as usize) {
            Some(op) if op.overload.is_empty() => op.name.clone(),
            Some(op) => format!("{}.{}", op.name, op.overload),
            None => "?".to_string(),
        },
        Instruction::Delegate { .. } => "delegate call".to_string(),
        Instruction::Move { .. } => "move".to_string(),
        Instruction::JumpFalse { .. } => "jump if false".to_string(),
        Instruction::Free { .. } => "free".to_string(),
    }
}

fn instruction_line(plan: &Plan, instruction: &Instruction) -> String {
    let list = |args: &[u32]| args.iter().map(|&a| format!("%{a}")).collect::<Vec<_>>().join(" ");
    match instruction {
        Instruction::Kernel { args, .. } => format!("{} {}", operator(plan, instruction), list(args)),
        Instruction::Delegate { delegate, args } => format!("delegate {delegate} {}", list(args)),
        Instruction::Move { from, to } => format!("move %{from} to %{to}"),
        Instruction::JumpFalse { condition, destination } => format!("jump to {destination} if not %{condition}"),
        Instruction::Free { value } => format!("free %{value}"),
    }
}

fn describe(plan: &Plan, index: u32) -> String {
    match plan.values.get(index as usize) {
        Some(EValue::Tensor(tensor)) => {
            let bound = match tensor.dynamism {
                Dynamism::Static => "",
                Dynamism::Bounded => " at most",
                Dynamism::Unbounded => " unbounded",
            };
            let name = tensor.name.as_deref().map_or(String::new(), |n| format!(" {n}"));
            format!("%{index}{name}: {}[{}]{bound}", tensor.dtype, tensor.sizes)
        }
        Some(other) => format!("%{index}: {other:?}"),
        None => format!("%{index}: ?"),
    }
}
