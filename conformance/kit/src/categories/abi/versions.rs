//! Hosts of other minors, and values that nobody knows.

use crate::case::{Failure, Outcome, Trial};
use crate::categories::basis::{compiler, life, open, payload, warn};
use crate::categories::images::Parts;
use crate::driver::{HostShape, Library, Refused, Script, Structs};
use crate::workload::{Bench, normal_form};
use delegraph_abi::c::ImageTableKind;
use delegraph_abi::image::{Arg, ImageBuilder, Type};
use delegraph_abi::{DType, Status};
use std::sync::Arc;

pub fn oldest(trial: &mut Trial<'_>) -> Outcome {
    let least = open(trial)?.info()?.abi_min_minor;
    let library = match Library::open_as(trial.subject, HostShape::Oldest) {
        Ok(library) => Arc::new(library),
        // It says so, and says so in time.
        Err(_) if least > 0 => return Ok(()),
        Err(problem) => {
            return Err(Failure::fail(format!(
                "{problem}; `abi_min_minor` of its `dg_delegate_info` says that it works with minor 0"
            )));
        }
    };
    trial.step(&format!("a life with a host of version {}.0", library.major));
    life(&library, trial, &Script::of(Structs::First(library.major)))
}

pub fn newer(trial: &mut Trial<'_>) -> Outcome {
    let library = Arc::new(Library::open_as(trial.subject, HostShape::Newer)?);
    trial.step("a life with a host of a later minor");
    life(&library, trial, &Script::of(Structs::Longer))
}

pub fn extensions(trial: &mut Trial<'_>) -> Outcome {
    let library = open(trial)?;
    trial.step("a life with extensions in every struct");
    life(&library, trial, &Script::of(Structs::Extended))
}

pub fn small(trial: &mut Trial<'_>) -> Outcome {
    let library = open(trial)?;
    let mut problems = Vec::new();
    let mut judge = |function: &str, name: &str, size: u32, outcome: Result<(), Refused>| {
        let what = match outcome {
            Err(refused) if refused.status == Status::BAD_STRUCT => return,
            Err(refused) => refused.to_string(),
            Ok(()) => format!("`{function}` gave {}", Status::OK),
        };
        problems.push(format!(
            "{what} for a `{name}` of {size} bytes, where {} is right",
            Status::BAD_STRUCT
        ));
    };
    const SIZES: [u32; 3] = [0, 4, 15];
    for size in SIZES {
        for name in ["dg_call", "dg_init"] {
            trial.step(&format!("`initialize` with a `{name}` of {size} bytes"));
            let script = Script::of(Structs::Small(name, size));
            judge(
                "initialize",
                name,
                size,
                library.start(&trial.subject.options, &script).map(drop),
            );
        }
    }
    let bench = match Bench::open(trial) {
        Ok(bench) => bench,
        Err(skipped) if skipped.verdict == delegraph_runner::Verdict::Skip => return warn(&problems),
        Err(other) => return Err(other),
    };
    for size in SIZES {
        let script = |name| Script::of(Structs::Small(name, size));
        let (workload, instance) = (&bench.workload, &bench.instance);
        trial.step(&format!("structs of {size} bytes"));
        let asked = instance.partition(&workload.image, workload.nodes, &script("dg_graph"));
        judge("partition", "dg_graph", size, asked.map(drop));
        for name in ["dg_graph", "dg_target"] {
            let compiled = instance.compile(&workload.image, &bench.weights, "", &script(name));
            judge("compile", name, size, compiled.map(drop));
        }
        let checked = instance.blob_check(&bench.blob.meta, payload(&bench), &script("dg_blob_meta"));
        judge("blob_check", "dg_blob_meta", size, checked.map(drop));
        for name in ["dg_blob", "dg_section"] {
            let loaded = instance.load(&bench.blob, &bench.weights, trial.subject.device, &script(name));
            judge("session_load", name, size, loaded.map(drop));
        }
        let mut session = bench.load()?;
        let (_, inputs, mut outputs) = bench.tensors(1, crate::driver::Place::End)?;
        let run = session.run(&inputs, &mut outputs, &script("dg_tensor"));
        judge("session_execute", "dg_tensor", size, run);
    }
    warn(&problems)
}

/// Two nodes, of which the second has something that nobody knows.
struct Odd {
    what: &'static str,
    image: Vec<u8>,
}

fn relu_and(normal_form: u32, odd: impl FnOnce(&mut ImageBuilder, &Type)) -> Result<Vec<u8>, Failure> {
    let mut image = ImageBuilder::new("forward");
    image.normal_form(normal_form);
    let dims = [image.int(3), image.int(5)];
    let ty = Type::tensor(DType::F32, &dims);
    let x = image.input("x", &ty);
    let y = image.node("plain", "aten::relu", &[Arg::Value(x)], &[("y", &ty)], "")[0];
    image.output(y);
    odd(&mut image, &ty);
    image
        .finish()
        .map_err(|error| Failure::fail(format!("the kit's image: {error}")))
}

fn odd_images(normal_form: u32) -> Result<Vec<Odd>, Failure> {
    let mut all = Vec::new();
    for (what, dtype) in [
        ("a dtype of code 99", DType(99)),
        ("a dtype of code 8, which is unused", DType(8)),
    ] {
        let image = relu_and(normal_form, |image, ty| {
            let Type::Tensor { dims, .. } = ty else { return };
            let odd = Type::tensor(dtype, dims);
            let z = image.input("z", &odd);
            let out = image.node("odd", "aten::relu", &[Arg::Value(z)], &[("w", &odd)], "")[0];
            image.output(out);
        })?;
        all.push(Odd { what, image });
    }
    let cast = |dtype, format| {
        relu_and(normal_form, |image, ty| {
            let z = image.input("z", ty);
            let args = [
                Arg::Value(z),
                dtype,
                Arg::None,
                Arg::None,
                Arg::None,
                Arg::Bool(false),
                format,
            ];
            let out = image.node("odd", "aten::_to_copy", &args, &[("w", ty)], "")[0];
            image.output(out);
        })
    };
    all.push(Odd {
        what: "an argument that is a dtype of code 99",
        image: cast(Arg::DType(DType(99)), Arg::None)?,
    });
    all.push(Odd {
        what: "an operator that nobody has",
        image: relu_and(normal_form, |image, ty| {
            let z = image.input("z", ty);
            let out = image.node("odd", "x.delegraph-kit::nothing", &[Arg::Value(z)], &[("w", ty)], "")[0];
            image.output(out);
        })?,
    });
    // An argument of an unknown kind, in a node that is taken without it.
    let plain = relu_and(normal_form, |image, ty| {
        let z = image.input("z", ty);
        let args = [Arg::Value(z), Arg::Value(z), Arg::Int(1)];
        let out = image.node("odd", "aten::add.Tensor", &args, &[("w", ty)], "")[0];
        image.output(out);
    })?;
    let mut parts = Parts::read(&plain)?;
    let record = parts.record_size(ImageTableKind::ARGS);
    let args = parts.table(ImageTableKind::ARGS);
    let last = args.len().saturating_sub(record);
    if let Some(kind) = args.get_mut(last..last + 4) {
        kind.copy_from_slice(&0x7fff_u32.to_le_bytes());
    }
    all.push(Odd {
        what: "an argument of kind 0x7fff",
        image: parts.write(),
    });
    Ok(all)
}

pub fn unknown_values(trial: &mut Trial<'_>) -> Outcome {
    let (_, instance) = compiler(trial)?;
    let script = Script::default();
    let plain = relu_and(normal_form(trial), |_, _| {})?;
    let alone = instance.partition(&plain, 1, &script)?.takes(0);
    for odd in odd_images(normal_form(trial))? {
        trial.step(odd.what);
        trial.keep("graph.dgg", odd.image.clone());
        let answers = instance
            .partition(&odd.image, 2, &script)
            .map_err(|refused| Failure::fail(format!("a graph with {}: {refused}", odd.what)))?;
        answers
            .complete(2)
            .map_err(|problem| format!("a graph with {}: {problem}", odd.what))?;
        if answers.takes(1) {
            return Err(Failure::fail(format!(
                "`partition` takes node 1, which has {}",
                odd.what
            )));
        }
        if answers.takes(0) != alone {
            return Err(Failure::fail(format!(
                "`partition` answers otherwise for node 0 (`aten::relu`) because node 1 has {}",
                odd.what
            )));
        }
    }
    Ok(())
}
