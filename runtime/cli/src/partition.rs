//! `delegraph partition` and `delegraph compile`

use crate::args::{CompileArgs, FallbackWeights, Global, PartitionArgs, PartitionFormat};
use crate::families::Found;
use crate::output::{Output, Tint, bytes, duration, write_atomically};
use anyhow::Context;
use delegraph::{Compiled, Source, language_model};
use delegraph_config::Config;
use delegraph_cpu::family::Family;
use delegraph_host::{Host, Manifest};
use delegraph_ir::Module;
use delegraph_lower::{Lowered, LoweredGraph, NodeReport, Progress};
use std::collections::BTreeMap;
use std::time::Instant;

/// `delegraph partition`
///
/// # Errors
/// The model cannot be read, or a delegate cannot be used and fallback is denied.
pub fn partition(args: &PartitionArgs, global: &Global, output: &Output) -> anyhow::Result<u8> {
    let started = Instant::now();
    let config = crate::config::resolve_for(global, &args.backends, &args.shapes)?;
    let host = crate::devices::discover(&config, global.no_load);
    let named = crate::of_model(&args.model);
    let mut module = delegraph::import(&Source::open(&args.model)?).map_err(&named)?;
    let report = if global.no_load {
        by_claims(&mut module, &config, &host, output).map_err(&named)?
    } else {
        delegraph::partition(&mut module, &config, &host, &mut |step| progress(output, &step)).map_err(&named)?
    };
    output.progress_done();
    if let Some(folder) = &args.dump {
        dump(folder, &module, &report, output)?;
    }
    if let Some(name) = &args.why {
        return why(name, &report, output);
    }
    match args.format {
        PartitionFormat::Text => text(&report, output),
        PartitionFormat::Json => output.data(json(&report).to_string()),
        PartitionFormat::Dot => output.data(dot(&module, &report)),
        PartitionFormat::ModelExplorer => output.data(model_explorer(&report).to_string()),
    }
    output.json(&json(&report))?;
    if args.format == PartitionFormat::Text {
        output.closing(
            &owners(&report),
            &refusals_in_short(&report),
            &duration(started.elapsed().as_secs_f64()),
            &format!("delegraph compile {} -o model.pte", args.model.display()),
        );
    }
    Ok(0)
}

/// Without libraries: what the manifests claim.
fn by_claims(module: &mut Module, config: &Config, host: &Host, output: &Output) -> Result<Lowered, delegraph::Error> {
    let candidates = host.candidates();
    let manifests: Vec<&Manifest> = candidates.iter().filter_map(|found| found.manifest.as_ref()).collect();
    output.talk("no library is loaded: what follows is what would be taken by the claims of the manifests");
    delegraph::partition_by_claims(module, config, &manifests, &mut |step| progress(output, &step))
}

/// `delegraph compile`
///
/// # Errors
/// As [`partition`]; or the file cannot be written.
pub fn compile(args: &CompileArgs, global: &Global, output: &Output) -> anyhow::Result<u8> {
    let started = Instant::now();
    let mut config = crate::config::resolve_for(global, &args.backends, &args.shapes)?;
    override_backends(&mut config, args)?;
    let host = crate::devices::discover(&config, global.no_load);
    let named = crate::of_model(&args.model);
    let read = |path: &std::path::Path, quantized: &mut Option<_>| -> anyhow::Result<Module> {
        let mut module = delegraph::import(&Source::open(path)?).map_err(crate::of_model(path))?;
        if args.llm {
            language_model::last_logits(&mut module).map_err(|error| not_one(path, &error))?;
        }
        *quantized = crate::quantize::quantize(args, &mut module, output)?;
        Ok(module)
    };
    let mut quantized = None;
    let single = args
        .decode
        .as_deref()
        .map(|path| read(path, &mut quantized))
        .transpose()?;
    let mut module = read(&args.model, &mut quantized)?;
    if args.llm {
        module = language_model::methods(module, single).map_err(|error| not_one(&args.model, &error))?;
    }
    let compiled = delegraph::compile(module, &config, &host, &mut |step| progress(output, &step)).map_err(&named)?;
    output.progress_done();
    write_atomically(&args.output, &compiled.bytes)?;
    let Compiled { purposes, report, .. } = &compiled;
    if args.explain {
        text(report, output);
    }
    let packed = Found::of_file(&compiled.bytes).packed;
    for (name, count) in purposes_of(&compiled) {
        output.data(format!("{name:<10} {:>12}  {}", count, bytes(count)));
        if name == "blobs" {
            for packed in &packed {
                output.data(format!("{:<10} {:>12}  {}", "  packed", packed.bytes, packed.line()));
            }
        }
    }
    output.data(format!(
        "{:<10} {:>12}  {}",
        "total",
        compiled.bytes.len(),
        args.output.display()
    ));
    if purposes.left_out > 0 {
        output.talk(format!(
            "{} of weights are not in the file: the delegates have them packed, and the portable kernels cannot run these regions \
             (`--fallback-weights keep` writes them)",
            bytes(purposes.left_out)
        ));
    }
    let mut object = json(report);
    object["output"] = args.output.display().to_string().into();
    object["bytes"] = serde_json::json!({
        "total": compiled.bytes.len(), "constants": purposes.constants, "states": purposes.states,
        "blobs": purposes.blobs, "ir": purposes.ir, "overlay": purposes.overlay, "program": purposes.program,
        "left_out": purposes.left_out, "packed": packed,
    });
    if let Some(quantized) = &quantized {
        object["quantize"] = serde_json::to_value(quantized)?;
    }
    output.json(&object)?;
    for problem in report
        .backends
        .iter()
        .filter_map(|state| state.problem.as_ref().map(|p| (&state.backend, p)))
    {
        output.talk(format!("warning: `{}` took no part: {}", problem.0, problem.1));
    }
    output.closing(
        &owners(report),
        &refusals_in_short(report),
        &duration(started.elapsed().as_secs_f64()),
        &format!("delegraph run {}", args.output.display()),
    );
    Ok(0)
}

/// The file is no language model.
fn not_one(path: &std::path::Path, error: &language_model::LanguageModelError) -> anyhow::Error {
    crate::bad_input(format!("{}: {error}", path.display()))
}

/// What the command line says of backends, over the configuration.
///
/// # Errors
/// A family of processors that there is not.
fn override_backends(config: &mut Config, args: &CompileArgs) -> anyhow::Result<()> {
    if let Some(isa) = &args.isa {
        Family::list(isa)
            .map_err(|error| crate::usage(format!("`--isa {isa}`: {}\n  hint: {}", error.message, error.hint)))?;
        let cpu = config.backend.entry("cpu".to_string()).or_default();
        cpu.options.insert("isa".to_string(), isa.clone().into());
    }
    if let Some(choice) = args.fallback_weights {
        for name in config.select.order.clone() {
            config.backend.entry(name).or_default().fallback_weights = Some(match choice {
                FallbackWeights::Keep => delegraph_config::FallbackWeights::Keep,
                FallbackWeights::Drop => delegraph_config::FallbackWeights::Drop,
            });
        }
    }
    Ok(())
}

/// Bytes by purpose, in the order of the file.
pub fn purposes_of(compiled: &Compiled) -> [(&'static str, u64); 6] {
    let p = &compiled.purposes;
    [
        ("program", p.program),
        ("constants", p.constants),
        ("states", p.states),
        ("blobs", p.blobs),
        ("overlay", p.overlay),
        ("ir", p.ir),
    ]
}

/// One line of progress.
pub fn progress(output: &Output, step: &Progress<'_>) {
    let line = match step {
        Progress::Asking { backend, graph, nodes } => format!("{graph}: asking {backend} about {nodes} nodes"),
        Progress::Decomposing { nodes } => format!("decomposing {nodes} nodes that nobody takes whole"),
        Progress::Compiling { backend, graph, nodes } => format!("{graph}: {backend} compiles {nodes} nodes"),
        Progress::CompilingTogether { backend, graphs } => format!("{backend} compiles {graphs} graphs together"),
        Progress::Within {
            backend,
            done,
            total,
            text,
        } => match *total > 1 {
            true => format!("{backend}: {text} ({done} of {total})"),
            false => format!("{backend}: {text}"),
        },
        Progress::Compiled {
            backend,
            graph,
            bytes: count,
        } => format!("{graph}: {backend} made {}", bytes(*count as u64)),
        Progress::Refused { backend, message, .. } => format!("{backend} refused: {message}"),
    };
    output.progress(&line);
    output.detail(&line);
}

/// `reference 120 of 182 nodes, portable 62`
pub fn owners(report: &Lowered) -> String {
    let coverage = report.coverage();
    let mut by_owner: BTreeMap<&str, u64> = BTreeMap::new();
    for node in report.graphs.iter().flat_map(|graph| &graph.nodes) {
        *by_owner.entry(node.owner.as_deref().unwrap_or("portable")).or_default() += 1;
    }
    let parts: Vec<String> = by_owner
        .iter()
        .map(|(owner, count)| format!("{owner} {count}"))
        .collect();
    format!(
        "{} of {} nodes delegated ({})",
        coverage.delegated_nodes,
        coverage.nodes,
        parts.join(", ")
    )
}

/// The most frequent refusal, or that there is none.
pub fn refusals_in_short(report: &Lowered) -> String {
    let mut reasons: BTreeMap<(&str, &str, &str), u64> = BTreeMap::new();
    for node in report
        .graphs
        .iter()
        .flat_map(|graph| &graph.nodes)
        .filter(|node| node.owner.is_none())
    {
        for refusal in &node.refusals {
            *reasons.entry((&refusal.backend, node.op, &refusal.reason)).or_default() += 1;
        }
    }
    match reasons.iter().max_by_key(|(_, count)| **count) {
        None => "nothing fell back".to_string(),
        Some(((backend, op, reason), count)) => {
            let others = reasons.len() - 1;
            let more = if others > 0 {
                format!(" (and {others} other reasons)")
            } else {
                String::new()
            };
            format!("{count} of `{op}`: {backend} says \"{reason}\"{more}")
        }
    }
}

fn text(report: &Lowered, output: &Output) {
    for graph in &report.graphs {
        output.data(output.tint(Tint::Bold, format!("{} ({} regions)", graph.name, graph.regions.len())));
        for node in &graph.nodes {
            output.data(node_line(graph, node, output));
        }
        for region in &graph.regions {
            for candidate in &region.candidates {
                for line in delegraph::blob_requirements(&candidate.blob) {
                    output.data(format!("  region {}: {} needs {line}", region.id, candidate.backend));
                }
                if let Some(of) = &candidate.bucket {
                    output.data(format!(
                        "  region {}: {} compiled for {}",
                        region.id, candidate.backend, of.bucket
                    ));
                }
            }
        }
        for problem in &graph.problems {
            output.data(format!(
                "  {} did not compile {} nodes: {}",
                problem.backend,
                problem.nodes.len(),
                problem.message
            ));
        }
    }
    for state in &report.backends {
        if let Some(problem) = &state.problem {
            output.data(format!("{}: {problem}", state.backend));
        }
    }
}

fn node_line(graph: &LoweredGraph, node: &NodeReport, output: &Output) -> String {
    let (letter, owner) = match &node.owner {
        Some(owner) => (owner.chars().next().unwrap_or('?').to_ascii_uppercase(), owner.as_str()),
        None => ('.', "portable"),
    };
    let tint = if node.owner.is_some() { Tint::Green } else { Tint::Dim };
    let region = node.region.map_or_else(String::new, |id| id.to_string());
    let reasons: Vec<String> = node
        .refusals
        .iter()
        .map(|r| format!("{}: {}", r.backend, r.reason))
        .collect();
    let _ = graph;
    format!(
        "  {} {:<28} {:<44} {:<5} {}",
        output.tint(tint, format!("{letter} {owner:<10}")),
        node.name,
        node.op,
        region,
        match (&node.owner, &node.folded_into) {
            (None, _) => reasons.join("; "),
            (Some(_), Some(into)) => format!("folded into {into}"),
            (Some(_), None) => String::new(),
        }
    )
    .trim_end()
    .to_string()
}

fn why(name: &str, report: &Lowered, output: &Output) -> anyhow::Result<u8> {
    let found: Vec<&NodeReport> = report.graphs.iter().flat_map(|graph| graph.why(name)).collect();
    if found.is_empty() {
        let names = report
            .graphs
            .iter()
            .flat_map(|graph| &graph.nodes)
            .map(|node| node.name.as_str());
        let hint =
            delegraph_types::nearest(name, names).map_or(String::new(), |n| format!("\n  hint: did you mean `{n}`?"));
        return Err(crate::usage(format!("the model has no node `{name}`{hint}")));
    }
    for node in &found {
        output.data(format!("{} = {}", node.name, node.op));
        if let Some(source) = &node.source {
            output.data(format!("  from {source}"));
        }
        output.data(format!("  owner: {}", node.owner.as_deref().unwrap_or("portable")));
        if let Some(into) = &node.folded_into {
            output.data(format!("  folded into {into}"));
        }
        for refusal in &node.refusals {
            output.data(format!("  {}: {}", refusal.backend, refusal.reason));
        }
    }
    output.json(&serde_json::json!({ "schema": "delegraph.why/1", "nodes": found, "exit_code": 0 }))?;
    Ok(0)
}

/// The report as JSON.
pub fn json(report: &Lowered) -> serde_json::Value {
    let graphs: Vec<serde_json::Value> = report
        .graphs
        .iter()
        .map(|graph| {
            serde_json::json!({
                "name": graph.name, "coverage": graph.coverage, "nodes": graph.nodes, "decomposed": graph.decomposed,
                "problems": graph.problems,
                "regions": graph.regions.iter().map(|region| serde_json::json!({
                    "id": region.id, "operators": region.operators,
                    "candidates": region.candidates.iter().map(|c| serde_json::json!({
                        "backend": c.backend, "target": c.target, "precision": c.precision, "bytes": c.blob.len(),
                        "bucket": c.bucket.as_ref().map(|of| of.bucket.to_string()),
                        "requirements": delegraph::blob_requirements(&c.blob),
                    })).collect::<Vec<_>>(),
                })).collect::<Vec<_>>(),
            })
        })
        .collect();
    serde_json::json!({
        "schema": "delegraph.partition/1", "tool": crate::tool(), "coverage": report.coverage(),
        "backends": report.backends, "graphs": graphs, "exit_code": 0,
    })
}

/// GraphViz: one cluster a region.
fn dot(module: &Module, report: &Lowered) -> String {
    let mut text = String::from("digraph delegraph {\n  node [shape=box, fontname=\"monospace\"];\n");
    for (g, (graph, lowered)) in module.graphs.iter().zip(&report.graphs).enumerate() {
        let mut clusters: BTreeMap<Option<u32>, Vec<String>> = BTreeMap::new();
        for (i, node) in graph.nodes.iter().enumerate() {
            let line = format!("n{g}_{i} [label=\"{}\\n{}\"];", escape(&node.name), node.op.name());
            clusters.entry(node.region.map(|r| r.0)).or_default().push(line);
        }
        for (region, lines) in clusters {
            match region {
                None => lines.iter().for_each(|line| text += &format!("  {line}\n")),
                Some(id) => {
                    let owner = lowered
                        .nodes
                        .iter()
                        .find(|n| n.region.is_some_and(|r| r.0 == id))
                        .and_then(|n| n.owner.clone());
                    text += &format!(
                        "  subgraph cluster_{g}_{id} {{ label=\"{} r{id}\"; style=filled; color=lightgrey;\n",
                        owner.unwrap_or_default()
                    );
                    lines.iter().for_each(|line| text += &format!("    {line}\n"));
                    text += "  }\n";
                }
            }
        }
        let users = graph.users();
        for (i, producer) in graph.producers().iter().enumerate() {
            let Some(producer) = producer else { continue };
            for user in &users[i] {
                text += &format!("  n{g}_{} -> n{g}_{};\n", producer.0, user.0);
            }
        }
    }
    text + "}\n"
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

/// Model Explorer's custom node data: one value a node.
fn model_explorer(report: &Lowered) -> serde_json::Value {
    let mut results = serde_json::Map::new();
    for node in report.graphs.iter().flat_map(|graph| &graph.nodes) {
        results.insert(
            node.name.clone(),
            serde_json::json!({ "value": node.owner.as_deref().unwrap_or("portable") }),
        );
    }
    serde_json::json!({ "delegraph": { "results": results } })
}

fn dump(folder: &std::path::Path, module: &Module, report: &Lowered, output: &Output) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make `{}`", folder.display()))?;
    for (graph, lowered) in module.graphs.iter().zip(&report.graphs) {
        for region in &lowered.regions {
            let path = folder.join(format!("{}.{}.dgg", graph.name, region.id));
            write_atomically(&path, &region.image)?;
            output.detail(format!("wrote {}", path.display()));
            for (bucket, image) in (1..).zip(&region.more_images) {
                let path = folder.join(format!("{}.{}.{bucket}.dgg", graph.name, region.id));
                write_atomically(&path, image)?;
                output.detail(format!("wrote {}", path.display()));
            }
        }
    }
    Ok(())
}
