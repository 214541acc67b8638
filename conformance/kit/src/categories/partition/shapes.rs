//! Graphs of other sizes than the usual.

use super::{ask, finish, judge, mixed};
use crate::case::{Failure, Outcome, Trial};
use crate::categories::basis::compiler;
use crate::driver::Script;
use crate::workload::normal_form;
use delegraph_abi::DType;
use delegraph_abi::image::{Arg, ExprOp, ImageBuilder, Type};
use std::time::{Duration, Instant};

pub fn empty(trial: &mut Trial<'_>) -> Outcome {
    let (_, instance) = compiler(trial)?;
    let form = normal_form(trial);
    let mut nothing = ImageBuilder::new("");
    nothing.normal_form(form);
    ask(&instance, "a graph of nothing", &finish(nothing)?, 0)?;
    let mut through = ImageBuilder::new("forward");
    through.normal_form(form);
    let dims = [through.int(3)];
    let ty = Type::tensor(DType::F32, &dims);
    let x = through.input("x", &ty);
    through.output(x);
    through.output(x);
    ask(&instance, "a graph whose outputs are its input", &finish(through)?, 0)?;
    Ok(())
}

pub fn ten_thousand(trial: &mut Trial<'_>) -> Outcome {
    let (_, instance) = compiler(trial)?;
    let form = normal_form(trial);
    let time = |nodes: u32| -> Result<Duration, Failure> {
        let image = mixed(form, nodes)?;
        let started = Instant::now();
        let answers = instance.partition(&image, nodes, &Script::default())?;
        let took = started.elapsed();
        // The kit's own look at the answers is not timed.
        answers.complete(nodes)?;
        Ok(took)
    };
    // Whatever is made once is made before.
    time(100)?;
    let quarter = time(2_500)?.min(time(2_500)?);
    let whole = time(10_000)?;
    trial.measure("2500 nodes (ms)", quarter.as_secs_f64() * 1e3);
    trial.measure("10000 nodes (ms)", whole.as_secs_f64() * 1e3);
    if whole > Duration::from_secs(10) {
        return Err(Failure::fail(format!(
            "`partition` took {:.1} s for 10,000 nodes",
            whole.as_secs_f64()
        )));
    }
    // Below a fifth of a second nobody waits, and the clock is in the way.
    if whole > Duration::from_millis(200) && whole > quarter * 10 {
        return Err(Failure::fail(format!(
            "`partition` took {:.0} ms for 2,500 nodes, and {:.0} ms for 10,000",
            quarter.as_secs_f64() * 1e3,
            whole.as_secs_f64() * 1e3
        )));
    }
    Ok(())
}

pub fn dynamic_sizes(trial: &mut Trial<'_>) -> Outcome {
    let (_, instance) = compiler(trial)?;
    for (what, max) in [("bounded", Some(512)), ("unbounded", None)] {
        let mut image = ImageBuilder::new("forward");
        image.normal_form(normal_form(trial));
        let (n, m) = (image.symbol("s0", 1, max), image.symbol("s1", 0, max));
        let two = image.int(2);
        // Deep, as sizes of exported models are: (((s0 * 2 + s1) // 2) * 2 + s1) // 2 ...
        let mut deep = n;
        for _ in 0..200 {
            let product = image.op(ExprOp::MUL, &[deep, two]);
            let sum = image.op(ExprOp::ADD, &[product, m]);
            deep = image.op(ExprOp::FLOOR_DIV, &[sum, two]);
        }
        let ty = Type::tensor(DType::F32, &[n, m]);
        let other = Type::tensor(DType::F32, &[deep]);
        let x = image.input("x", &ty);
        let k = image.input("k", &Type::Int(n));
        let y = image.node("relu", "aten::relu", &[Arg::Value(x)], &[("y", &ty)], "")[0];
        let view = [Arg::Value(y), Arg::Ints(vec![deep])];
        let z = image.node("view", "aten::view", &view, &[("z", &other)], "")[0];
        let add = [Arg::Value(z), Arg::Value(k), Arg::Expr(n)];
        let w = image.node("add", "aten::add.Tensor", &add, &[("w", &other)], "")[0];
        image.output(w);
        let what = format!("a graph with {what} sizes");
        judge(&what, &ask(&instance, &what, &finish(image)?, 3)?)?;
    }
    Ok(())
}

pub fn huge_sizes(trial: &mut Trial<'_>) -> Outcome {
    let (_, instance) = compiler(trial)?;
    for sizes in [
        vec![1i64 << 40],
        vec![1 << 40, 1 << 40],
        vec![1 << 62],
        vec![i64::MAX, i64::MAX, 2],
        vec![0, i64::MAX],
    ] {
        let mut image = ImageBuilder::new("forward");
        image.normal_form(normal_form(trial));
        let dims: Vec<_> = sizes.iter().map(|size| image.int(*size)).collect();
        let ty = Type::tensor(DType::F32, &dims);
        let x = image.input("x", &ty);
        let y = image.node("relu", "aten::relu", &[Arg::Value(x)], &[("y", &ty)], "")[0];
        let add = [Arg::Value(y), Arg::Value(x), Arg::Int(1)];
        let z = image.node("add", "aten::add.Tensor", &add, &[("z", &ty)], "")[0];
        image.output(z);
        let what = format!("a graph of f32{sizes:?}");
        trial.step(&what);
        judge(&what, &ask(&instance, &what, &finish(image)?, 2)?)?;
    }
    Ok(())
}
