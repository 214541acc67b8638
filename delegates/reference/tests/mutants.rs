//! Damaged images are errors: no panic, whatever byte is another.

use delegraph_reference::execute::{Program, WeightBytes};
use delegraph_sdk::image::{Arg, ImageBuilder, Type, verify};
use delegraph_sdk::{DType, Error, TensorView};

struct Ones;

impl WeightBytes for Ones {
    fn bytes(&self, _: u32) -> Result<&[u8], Error> {
        Ok(&[0x3f; 3 * 2 * 3 * 4])
    }
}

/// A graph with an operator of most families.
fn image() -> Vec<u8> {
    let mut image = ImageBuilder::new("forward");
    let ints = |image: &mut ImageBuilder, list: &[i64]| -> Vec<_> { list.iter().map(|i| image.int(*i)).collect() };
    let n = image.symbol("n", 1, Some(4));
    let [two, three, six] = [2, 3, 6].map(|i| image.int(i));
    let x_ty = Type::tensor(DType::F32, &[n, two, six]);
    let x = image.input("x", &x_ty);
    let w_ty = Type::tensor(DType::F32, &[three, two, three]);
    let weight = image.weight(0, DType::F32, &[3, 2, 3]);
    let w = image.weight_value("w", &w_ty, weight);
    let conv_ty = Type::tensor(DType::F32, &[n, three, six]);
    let [one, pad] = [ints(&mut image, &[1]), ints(&mut image, &[1])];
    let args = [
        Arg::Value(x),
        Arg::Value(w),
        Arg::None,
        Arg::Ints(one.clone()),
        Arg::Ints(pad),
        Arg::Ints(one.clone()),
        Arg::Int(1),
    ];
    let y = image.node("conv", "aten::conv1d", &args, &[("y", &conv_ty)], "")[0];
    let args = [Arg::Value(y), Arg::Int(1), Arg::None];
    let y = image.node("soft", "aten::softmax.int", &args, &[("s", &conv_ty)], "")[0];
    let pool_ty = Type::tensor(DType::F32, &[n, three, three]);
    let [kernel, zero] = [ints(&mut image, &[2]), ints(&mut image, &[0])];
    let args = [
        Arg::Value(y),
        Arg::Ints(kernel.clone()),
        Arg::Ints(kernel),
        Arg::Ints(zero),
        Arg::Ints(one),
        Arg::Bool(false),
    ];
    let y = image.node("pool", "aten::max_pool1d", &args, &[("p", &pool_ty)], "")[0];
    let args = [Arg::Value(y), Arg::Int(1), Arg::Int(2)];
    let t = image.node("turn", "aten::transpose.int", &args, &[("t", &pool_ty)], "")[0];
    let y = image.node(
        "bmm",
        "aten::bmm",
        &[Arg::Value(y), Arg::Value(t)],
        &[("b", &pool_ty)],
        "",
    )[0];
    let args = [Arg::Values(vec![y, t]), Arg::Int(2)];
    let y = image.node("cat", "aten::cat", &args, &[("c", &conv_ty)], "")[0];
    let args = [Arg::Value(y), Arg::Int(2), Arg::Int(-3), Arg::None, Arg::Int(1)];
    let y = image.node("slice", "aten::slice.Tensor", &args, &[("l", &pool_ty)], "")[0];
    let sort = [Arg::Value(y), Arg::Int(2), Arg::Bool(true)];
    let places = Type::tensor(DType::I64, &[n, three, three]);
    let sorted = image.node("sort", "aten::sort", &sort, &[("v", &pool_ty), ("i", &places)], "");
    let args = [Arg::Value(y), Arg::Int(2), Arg::Value(sorted[1]), Arg::Bool(false)];
    let y = image.node("gather", "aten::gather", &args, &[("g", &pool_ty)], "")[0];
    let line = Type::tensor(DType::F32, &[n, three]);
    let last = ints(&mut image, &[-1]);
    let args = [Arg::Value(y), Arg::Ints(last), Arg::Bool(false), Arg::None];
    let y = image.node("mean", "aten::mean.dim", &args, &[("m", &line)], "")[0];
    image.output(y);
    image.finish().unwrap()
}

/// Runs it, unless it asks for more memory than a test should take.
fn run(image: &[u8]) -> Result<(), Error> {
    let mut program = Program::new(image)?;
    let view = verify(image).map_err(|e| Error::corrupt(e.to_string()))?;
    let modest = |list: Option<Vec<i64>>| list.is_none_or(|list| list.iter().all(|i| i.unsigned_abs() < 1000));
    let exprs = (0..view.expr_count()).map(delegraph_sdk::image::ExprIndex);
    if !modest(Some(exprs.filter_map(|e| view.const_int(e)).collect())) {
        return Ok(());
    }
    let bytes = [0u8; 2 * 2 * 6 * 4];
    let x = TensorView::new(DType::F32, &[2, 2, 6], &bytes);
    program.run(&[x], &Ones).map(|_| ())
}

#[test]
fn the_image_runs() {
    run(&image()).unwrap();
}

#[test]
fn mutants_do_not_panic() {
    let whole = image();
    for at in 0..whole.len() {
        for flip in [1u8, 2, 4, 0x10, 0x80, 0xff] {
            let mut mutant = whole.clone();
            mutant[at] ^= flip;
            // Whatever comes of it is fine, but a panic.
            let _ = run(&mutant);
        }
    }
}
