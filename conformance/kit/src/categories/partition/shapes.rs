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

/// Time that passed, and time of the processor that the process took.
#[derive(Clone, Copy)]
struct Took {
    wall: Duration,
    work: Duration,
}

fn work() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(now.tv_sec).unwrap_or(0),
        u32::try_from(now.tv_nsec).unwrap_or(0),
    )
}

pub fn ten_thousand(trial: &mut Trial<'_>) -> Outcome {
    let (_, instance) = compiler(trial)?;
    let form = normal_form(trial);
    // The best of a few: what else the machine does is nobody's fault here.
    let time = |nodes: u32, times: u32| -> Result<Took, Failure> {
        let image = mixed(form, nodes)?;
        let mut best: Option<Took> = None;
        for _ in 0..times {
            let (started, before) = (Instant::now(), work());
            let answers = instance.partition(&image, nodes, &Script::default())?;
            let took = Took {
                wall: started.elapsed(),
                work: work().saturating_sub(before),
            };
            // The kit's own look at the answers is not timed.
            answers.complete(nodes)?;
            best = Some(best.map_or(took, |best| Took {
                wall: best.wall.min(took.wall),
                work: best.work.min(took.work),
            }));
            if took.wall > Duration::from_secs(5) {
                break;
            }
        }
        best.ok_or_else(|| Failure::fail("nothing was timed"))
    };
    // Whatever is made once is made before.
    time(100, 1)?;
    let (quarter, whole) = (time(2_500, 3)?, time(10_000, 3)?);
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    trial.measure("2500 nodes (ms)", ms(quarter.wall));
    trial.measure("10000 nodes (ms)", ms(whole.wall));
    if whole.wall > Duration::from_secs(10) {
        return Err(Failure::fail(format!(
            "`partition` took {:.1} s for 10,000 nodes",
            whole.wall.as_secs_f64()
        )));
    }
    // Below a fifth of a second nobody waits, and the clock is in the way. On a busy machine the work tells, where there is any here.
    let grows = |quarter: Duration, whole: Duration| whole > Duration::from_millis(200) && whole > quarter * 10;
    let elsewhere = whole.work < whole.wall / 10;
    if grows(quarter.wall, whole.wall) && (elsewhere || grows(quarter.work, whole.work)) {
        return Err(Failure::fail(format!(
            "`partition` took {:.0} ms for 2,500 nodes, and {:.0} ms for 10,000",
            ms(quarter.wall),
            ms(whole.wall)
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
