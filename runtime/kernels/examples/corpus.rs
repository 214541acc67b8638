//! Runs a corpus of operator calls over the registered kernels and compares with the recorded results.
//!
//! `cargo run -p delegraph-kernels --example corpus -- FOLDER [--op GLOB] [--fails N] [--strided] [--missing]`
//!
//! FOLDER holds `index.jsonl` and its `.safetensors` shards. `--strided` lays inputs and outputs out in memory with the
//! last dimension outermost; `--missing` lists operators that have no kernel; `--fails` is how many failures of an operator to print.

#[path = "../tests/recorded/mod.rs"]
mod recorded;

use delegraph_kernels::Tensor;
use delegraph_types::{Complex, DType, Element, Scalar, bf16, f16};
use recorded::{Corpus, Problem, Recorded, Stored, Want, float, position};
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::ExitCode;

struct Options {
    folder: String,
    glob: String,
    fails: usize,
    strided: bool,
    missing: bool,
}

#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
    no_kernel: usize,
}

/// What became of a case.
enum Verdict {
    Passed,
    Failed(String),
    NoKernel,
}

fn main() -> ExitCode {
    match options().and_then(|options| run(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::from(2)
        }
    }
}

fn options() -> Result<Options, Problem> {
    let mut options = Options {
        folder: String::new(),
        glob: "*".into(),
        fails: 3,
        strided: false,
        missing: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--op" => options.glob = words.next().ok_or("--op needs a pattern")?,
            "--fails" => options.fails = words.next().ok_or("--fails needs a number")?.parse()?,
            "--strided" => options.strided = true,
            "--missing" => options.missing = true,
            _ => options.folder = word,
        }
    }
    if options.folder.is_empty() {
        return Err("usage: corpus FOLDER [--op GLOB] [--fails N] [--strided] [--missing]".into());
    }
    Ok(options)
}

/// True if every case with a kernel passed.
fn run(options: &Options) -> Result<bool, Problem> {
    let (mut corpus, cases) = Corpus::open(&options.folder)?;
    let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
    std::panic::set_hook(Box::new(|_| {}));
    for case in &cases {
        let name = case["op"].as_str().ok_or("case without op")?;
        if !options
            .glob
            .split(',')
            .any(|glob| matches(glob.as_bytes(), name.as_bytes()))
        {
            continue;
        }
        let verdict = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            check(case, &mut corpus, options.strided)
        }))
        .unwrap_or_else(|cause| {
            let text = cause.downcast_ref::<String>().map(String::as_str);
            let text = text.or(cause.downcast_ref::<&str>().copied()).unwrap_or("no message");
            Ok(Verdict::Failed(format!("PANIC: {text}")))
        })?;
        let tally = tallies.entry(name.to_string()).or_default();
        match verdict {
            Verdict::Passed => tally.passed += 1,
            Verdict::NoKernel => tally.no_kernel += 1,
            Verdict::Failed(why) => {
                if tally.failed < options.fails {
                    println!(
                        "FAIL {name} {}: {why}\n     {}",
                        case["id"].as_str().unwrap_or(""),
                        case["args"]
                    );
                }
                tally.failed += 1;
            }
        }
    }
    let mut sum = Tally::default();
    for (name, tally) in &tallies {
        let done = tally.failed == 0 && tally.no_kernel == 0;
        if tally.failed > 0 || (options.missing && !done) || options.glob != "*" {
            println!(
                "{name}: {} passed, {} failed, {} no kernel",
                tally.passed, tally.failed, tally.no_kernel
            );
        }
        sum.passed += tally.passed;
        sum.failed += tally.failed;
        sum.no_kernel += tally.no_kernel;
    }
    println!(
        "{} operators; cases: {} passed, {} failed, {} no kernel",
        tallies.len(),
        sum.passed,
        sum.failed,
        sum.no_kernel
    );
    Ok(sum.failed == 0)
}

/// `*` stands for any text.
fn matches(glob: &[u8], text: &[u8]) -> bool {
    match glob.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|i| matches(rest, &text[i..])),
        Some((c, rest)) => text
            .split_first()
            .is_some_and(|(t, tail)| t == c && matches(rest, tail)),
    }
}

fn check(case: &Value, corpus: &mut Corpus, strided: bool) -> Result<Verdict, Problem> {
    let Some(recorded) = Recorded::of_case(case, &corpus.shard(case)?, strided)? else {
        return Ok(Verdict::NoKernel);
    };
    let given = match recorded.call(strided, |dtype| dtype) {
        Ok(given) => given,
        Err(error) => return Ok(Verdict::Failed(error.to_string())),
    };
    let rtol = case.get("rtol").map_or(0.0, float);
    let atol = case.get("atol").map_or(0.0, float);
    let mut written = given.tensors.iter();
    for (i, want) in recorded.wants.iter().enumerate() {
        let mut next = || written.next().ok_or("an output for each tensor");
        let problem = match want {
            Want::Number(value) => number_differs(given.number, value, rtol, atol),
            Want::Anything => next().map(|_| None)?,
            Want::Meta(_, sizes) => {
                let out = next()?;
                (out.sizes != *sizes).then(|| format!("shape {} instead of {sizes}", out.sizes))
            }
            Want::Tensor(stored) => tensor_differs(next()?, stored, rtol, atol),
        };
        if let Some(problem) = problem {
            return Ok(Verdict::Failed(format!("output {i}: {problem}")));
        }
    }
    Ok(Verdict::Passed)
}

fn number_differs(got: Option<Scalar>, want: &Value, rtol: f64, atol: f64) -> Option<String> {
    let same = match (got, want.get("i"), want.get("f"), want.get("b")) {
        (Some(Scalar::Int(got)), Some(want), _, _) => Some(got) == want.as_i64(),
        (Some(Scalar::Float(got)), _, Some(want), _) => close(got, float(want), rtol, atol),
        (Some(Scalar::Bool(got)), _, _, Some(want)) => Some(got) == want.as_bool(),
        _ => false,
    };
    (!same).then(|| format!("{got:?} instead of {want}"))
}

fn tensor_differs(out: &Stored, want: &Stored, rtol: f64, atol: f64) -> Option<String> {
    if out.sizes != want.sizes {
        return Some(format!("shape {} instead of {}", out.sizes, want.sizes));
    }
    let have = out.tensor();
    let (mut wrong, mut first, count) = (0usize, None, want.sizes.numel().unwrap_or(0));
    for i in 0..count {
        let at = position(i, have.sizes(), have.strides());
        if let (Some(a), Some(b)) = (complex(&have, at), complex(&want.tensor(), i)) {
            if !close_in_plane(a, b, rtol, atol) {
                wrong += 1;
                first.get_or_insert((i, a.to_string(), b.to_string()));
            }
            continue;
        }
        let (a, b) = (element(&have, at), element(&want.tensor(), i));
        let same = match want.dtype.is_float() {
            true => close(a.as_f64(), b.as_f64(), rtol, atol),
            false => a.as_i64() == b.as_i64(),
        };
        if !same {
            wrong += 1;
            first.get_or_insert((i, a.to_string(), b.to_string()));
        }
    }
    let (i, a, b) = first?;
    Some(format!(
        "{wrong} of {count} wrong, at {i} {a} instead of {b} ({}, {})",
        want.dtype, want.sizes
    ))
}

fn close(got: f64, want: f64, rtol: f64, atol: f64) -> bool {
    got == want || (got.is_nan() && want.is_nan()) || (got - want).abs() <= atol + rtol * want.abs() && want.is_finite()
}

/// As exact as real numbers are, by the distance from zero and from each other.
fn close_in_plane(got: Complex<f64>, want: Complex<f64>, rtol: f64, atol: f64) -> bool {
    let length = |z: Complex<f64>| z.re.hypot(z.im);
    got == want
        || (got.is_nan() && want.is_nan())
        || length(got - want) <= atol + rtol * length(want) && want.is_finite()
}

fn read<T: Element>(tensor: &Tensor, at: usize) -> T {
    tensor.data::<T>().expect("its dtype")[at]
}

/// An element of a complex tensor.
fn complex(tensor: &Tensor, at: usize) -> Option<Complex<f64>> {
    match tensor.dtype() {
        DType::C64 => {
            let z = read::<Complex<f32>>(tensor, at);
            Some(Complex::new(z.re.into(), z.im.into()))
        }
        DType::C128 => Some(read(tensor, at)),
        _ => None,
    }
}

fn element(tensor: &Tensor, at: usize) -> Scalar {
    match tensor.dtype() {
        DType::Bool => Scalar::Int(i64::from(read::<u8>(tensor, at))),
        DType::U8 => Scalar::Int(i64::from(read::<u8>(tensor, at))),
        DType::I8 => Scalar::Int(i64::from(read::<i8>(tensor, at))),
        DType::I16 => Scalar::Int(i64::from(read::<i16>(tensor, at))),
        DType::I32 => Scalar::Int(i64::from(read::<i32>(tensor, at))),
        DType::I64 => Scalar::Int(read::<i64>(tensor, at)),
        DType::F16 => Scalar::Float(f64::from(read::<f16>(tensor, at))),
        DType::BF16 => Scalar::Float(f64::from(read::<bf16>(tensor, at))),
        DType::F32 => Scalar::Float(f64::from(read::<f32>(tensor, at))),
        DType::F64 => Scalar::Float(read::<f64>(tensor, at)),
        _ => Scalar::Float(f64::NAN),
    }
}
