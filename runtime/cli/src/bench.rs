//! `delegraph bench`: times a model. Load, first and steady runs apart, memory before and after.

use crate::args::{BenchArgs, BenchFormat, Global};
use crate::bench_llm::Model;
use crate::inputs::{arguments, leaf, value};
use crate::output::{Output, duration, write_atomically};
use crate::roofline::Roofline;
use delegraph::language_model::{DECODE, PREFILL};
use delegraph::{InputInfo, InputKind, LoadOptions, Session, Source};
use delegraph_runner::Leaf;
use delegraph_types::DType;
use std::sync::Arc;
use std::time::Instant;

/// Most runs that are kept.
const MAX_RUNS: usize = 100_000;
/// Most elements of a made-up input.
const MAX_ELEMENTS: usize = 1 << 30;

/// Runs the command.
///
/// # Errors
/// The model cannot be loaded or run.
pub fn run(args: &BenchArgs, global: &Global, output: &Output) -> anyhow::Result<u8> {
    if args.threads == Some(0) {
        return Err(crate::usage("`--threads 0` leaves nobody to run the model"));
    }
    let mut config = crate::config::resolve(global, &args.backends.backend, &args.backends.target)?;
    if !config.select.order.is_empty() && !args.shapes.is_empty() {
        config.select.shapes.clone_from(&args.shapes);
    }
    let host = Arc::new(crate::devices::discover(&config, global.no_load));
    let base = memory_mb("VmRSS:");
    let options = |method: &str| LoadOptions {
        method: method.to_string(),
        threads: args.threads.map(|threads| threads as usize),
        ..LoadOptions::default()
    };
    let named = crate::of_model(&args.model);
    let source = Source::open(&args.model)?;
    let shapes = made_up_shapes(args, &source).map_err(&named)?;
    let started = Instant::now();
    let open = |method: &str| Session::open(&source, &config, &host, options(method)).map_err(&named);
    if args.llm {
        let split = args.method == "forward"
            && delegraph::methods(&source).is_ok_and(|names| names.iter().any(|name| name == DECODE));
        let mut model = match split {
            true => Model::of(open(DECODE)?, || open(PREFILL))?,
            false => Model::of(open(&args.method)?, || open(&args.method))?,
        };
        let load_ms = started.elapsed().as_secs_f64() * 1e3;
        return llm(&mut model, args, output, base, load_ms);
    }
    let mut session = open(&args.method)?;
    let load_ms = started.elapsed().as_secs_f64() * 1e3;
    let inputs = match &args.inputs {
        Some(file) => arguments(&session, &[], Some(file))?,
        None => {
            let infos = session.inputs();
            check_shapes(&shapes, &infos)?;
            infos
                .iter()
                .map(|info| made_up(info, &shapes))
                .collect::<Result<Vec<_>, _>>()?
        }
    };
    let values = inputs.iter().map(value).collect::<Result<Vec<_>, _>>()?;
    let started = Instant::now();
    session.run(&values).map_err(&named)?;
    let first_ms = started.elapsed().as_secs_f64() * 1e3;
    for _ in 1..args.warmup {
        session.run(&values)?;
    }
    let mut times = Vec::new();
    let begun = Instant::now();
    let enough = |done: usize| match (args.runs, args.secs) {
        (Some(runs), _) => done >= runs.max(1) as usize,
        (None, Some(secs)) => done >= 1 && begun.elapsed().as_secs_f64() >= secs,
        (None, None) => done >= 20 || (done >= 3 && begun.elapsed().as_secs_f64() >= 10.0),
    };
    while !enough(times.len()) && times.len() < MAX_RUNS {
        let started = Instant::now();
        session.run(&values)?;
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    let peak = memory_mb("VmHWM:");
    let mut sorted = times.clone();
    sorted.sort_by(f64::total_cmp);
    let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share).round() as usize];
    let (median, p95, least) = (at(0.5), at(0.95), sorted[0]);
    let header = [
        "model",
        "backends",
        "runs",
        "median ms",
        "p95 ms",
        "min ms",
        "load ms",
        "first ms",
        "rss MB",
    ];
    let backends = if config.select.order.is_empty() {
        "portable".to_string()
    } else {
        config.select.order.join("+")
    };
    let row = [
        args.model.display().to_string(),
        backends,
        times.len().to_string(),
        format!("{median:.3}"),
        format!("{p95:.3}"),
        format!("{least:.3}"),
        format!("{load_ms:.2}"),
        format!("{first_ms:.2}"),
        format!("{peak:.1} (+{:.1})", peak - base),
    ];
    match args.format {
        // Tables of one form alone: that of the steps.
        BenchFormat::Csv if args.roofline => {}
        BenchFormat::Text => header
            .iter()
            .zip(&row)
            .for_each(|(name, cell)| output.data(format!("{name:<10} {cell}"))),
        BenchFormat::Md => {
            output.data(format!("| {} |", header.join(" | ")));
            output.data(format!("|{}", " --- |".repeat(header.len())));
            output.data(format!("| {} |", row.join(" | ")));
        }
        BenchFormat::Csv => {
            output.data(header.join(","));
            output.data(row.join(","));
        }
    }
    if let Some(path) = &args.trace {
        // One run more, so that recording does not slow the timed ones.
        session.start_trace();
        session.run(&values)?;
        write_atomically(path, session.chrome_trace().as_bytes())?;
        output.talk(format!("trace in {}", path.display()));
    }
    let roofline = match args.roofline {
        true => {
            let roofline = Roofline::measure(&mut session, &values, times.len())?;
            roofline.lines(args.format).iter().for_each(|line| output.data(line));
            roofline.json()
        }
        false => serde_json::Value::Null,
    };
    let report = session.report();
    crate::run::warn_of_fallback(&config, &report, output);
    output.json(&serde_json::json!({
        "schema": "delegraph.bench/1", "tool": crate::tool(), "exit_code": 0, "times_ms": times, "load_ms": load_ms,
        "first_ms": first_ms, "rss_base_mb": base, "rss_peak_mb": peak, "median_ms": median, "p95_ms": p95,
        "delegated_nodes": report.delegated_nodes(), "portable_nodes": report.portable_nodes,
        "roofline": roofline,
    }))?;
    output.closing(
        &report.ran(),
        &report.why_portable(),
        &format!("median {} of {} runs", duration(median / 1e3), times.len()),
        &format!("delegraph run {} --trace trace.json", args.model.display()),
    );
    Ok(0)
}

/// Times a language model.
fn llm(model: &mut Model, args: &BenchArgs, output: &Output, base: f64, load_ms: f64) -> anyhow::Result<u8> {
    let measured = crate::bench_llm::measure(model, args, output)?;
    let peak = memory_mb("VmHWM:");
    output.data(format!(
        "prefill    {:.1} tokens/s ({} tokens)",
        measured.prefill, args.prompt
    ));
    output.data(format!(
        "decode     {:.2} tokens/s ({} tokens)",
        measured.decode, args.generate
    ));
    output.data(format!("load ms    {load_ms:.2}"));
    output.data(format!("rss MB     {peak:.1} (+{:.1})", peak - base));
    if let Some(path) = &args.trace {
        model.behind().start_trace();
        crate::bench_llm::once(model, args)?;
        write_atomically(path, model.behind().chrome_trace().as_bytes())?;
        output.talk(format!("trace in {}", path.display()));
    }
    let report = model.behind().report();
    output.json(&serde_json::json!({
        "schema": "delegraph.bench/1", "tool": crate::tool(), "exit_code": 0, "times_ms": measured.times_ms, "load_ms": load_ms,
        "rss_base_mb": base, "rss_peak_mb": peak, "prefill_tok_s": measured.prefill, "decode_tok_s": measured.decode,
        "prefill_ms": measured.prefill_ms, "prompt": args.prompt, "generate": args.generate,
        "delegated_nodes": report.delegated_nodes(), "portable_nodes": report.portable_nodes,
    }))?;
    output.closing(
        &report.ran(),
        &report.why_portable(),
        &format!("{:.1} and {:.2} tokens a second", measured.prefill, measured.decode),
        &format!("delegraph bench {} --llm --trace trace.json", args.model.display()),
    );
    Ok(0)
}

/// The sizes of made-up inputs, as INPUT:DIM=SIZE each. What symbols stand for is told by the model.
fn made_up_shapes(args: &BenchArgs, source: &Source) -> Result<Vec<String>, delegraph::Error> {
    let items = args.shapes.iter().flat_map(|text| text.split(','));
    let items: Vec<String> = items.map(|item| item.trim().to_string()).collect();
    if items.iter().all(|item| item.contains(':')) {
        return Ok(items);
    }
    delegraph::input_sizes(source, &args.method, &args.shapes)
}

/// `INPUT:DIM=SIZE`
fn parse_shape(item: &str) -> anyhow::Result<(&str, usize, i64)> {
    let parsed = item.split_once('=').and_then(|(place, size)| {
        let (name, dim) = place.split_once(':')?;
        Some((name, dim.parse().ok()?, size.parse().ok().filter(|size| *size >= 0)?))
    });
    parsed.ok_or_else(|| crate::usage(format!("`--shapes {item}` is not INPUT:DIM=SIZE")))
}

/// Every given size is of an input that there is.
fn check_shapes(shapes: &[String], infos: &[InputInfo]) -> anyhow::Result<()> {
    for item in shapes {
        let (name, ..) = parse_shape(item)?;
        if !infos.iter().any(|info| info.name == name) {
            let names: Vec<&str> = infos.iter().map(|info| info.name.as_str()).collect();
            return Err(crate::usage(format!(
                "the method has no input `{name}`\n  hint: it has `{}`",
                names.join("`, `")
            )));
        }
    }
    Ok(())
}

/// An input of small numbers: indices stay in range, floats differ from each other.
pub fn made_up(info: &InputInfo, shapes: &[String]) -> anyhow::Result<Leaf> {
    let (dtype, sizes) = match &info.kind {
        InputKind::Literal(value) => return Ok(leaf(value.clone())),
        InputKind::Int => return Ok(Leaf::Int(1)),
        InputKind::Float => return Ok(Leaf::Float(1.0)),
        InputKind::Bool => return Ok(Leaf::Bool(true)),
        InputKind::Tensor { dtype, sizes, .. } => (*dtype, *sizes),
    };
    let mut shape = sizes.to_vec();
    for item in shapes {
        let (name, dim, size) = parse_shape(item)?;
        if name == info.name {
            match shape.get_mut(dim) {
                Some(slot) => *slot = size,
                None => return Err(crate::usage(format!("input `{name}` has no dimension {dim}"))),
            }
        }
    }
    let count = shape
        .iter()
        .try_fold(1usize, |n, size| n.checked_mul(usize::try_from(*size).ok()?));
    let count = count.filter(|n| *n <= MAX_ELEMENTS).ok_or_else(|| {
        crate::usage(format!(
            "input `{}` of {shape:?} is too large to make up\n  hint: give `--shapes` or `--inputs`",
            info.name
        ))
    })?;
    let bytes = (0..count).flat_map(|i| element(dtype, i)).collect();
    Ok(Leaf::Tensor { dtype, shape, bytes })
}

fn element(dtype: DType, i: usize) -> Vec<u8> {
    let x = ((i * 37 + 11) % 101) as f32 / 101.0 - 0.5;
    match dtype {
        DType::F32 => x.to_le_bytes().to_vec(),
        DType::C64 => [element(DType::F32, 2 * i), element(DType::F32, 2 * i + 1)].concat(),
        DType::C128 => [element(DType::F64, 2 * i), element(DType::F64, 2 * i + 1)].concat(),
        DType::F64 => f64::from(x).to_le_bytes().to_vec(),
        DType::F16 => delegraph_types::f16::from_f32(x).to_le_bytes().to_vec(),
        DType::BF16 => delegraph_types::bf16::from_f32(x).to_le_bytes().to_vec(),
        other => {
            let mut bytes = vec![0u8; other.size()];
            bytes[0] = (i % 2) as u8;
            bytes
        }
    }
}

/// A line of `/proc/self/status` in MB; 0 where there is none.
fn memory_mb(key: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(key));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok())
        .map_or(0.0, |kb| kb / 1024.0)
}
