//! Graphs that are odd as a whole.

use super::{F, endure_images};
use crate::case::{Failure, Outcome, Trial};
use crate::categories::basis::compiler;
use crate::workload::normal_form;
use delegraph_abi::image::{Arg, ImageBuilder, Type};

pub fn whole(trial: &mut Trial<'_>) -> Outcome {
    let (_, instance) = compiler(trial)?;
    let form = normal_form(trial);
    let mut all: Vec<(String, Vec<u8>)> = Vec::new();
    let mut add = |name: &str, build: &dyn Fn(&mut ImageBuilder, &Type)| -> Outcome {
        let mut image = ImageBuilder::new(name);
        image.normal_form(form);
        let dims = [image.int(3), image.int(5)];
        build(&mut image, &Type::tensor(F, &dims));
        let image = image
            .finish()
            .map_err(|error| Failure::fail(format!("the kit's image {name}: {error}")))?;
        all.push((name.to_string(), image));
        Ok(())
    };
    let relu = |image: &mut ImageBuilder, ty: &Type, name: &str, x| {
        image.node(name, "aten::relu", &[Arg::Value(x)], &[(&format!("{name}.y"), ty)], "")[0]
    };
    add("no inputs", &|image, ty| {
        let three_five = [image.int(3), image.int(5)];
        let args = [
            Arg::Ints(three_five.to_vec()),
            Arg::Float(1.0),
            Arg::DType(F),
            Arg::None,
            Arg::None,
            Arg::None,
        ];
        let y = image.node("full", "aten::full", &args, &[("y", ty)], "")[0];
        let z = relu(image, ty, "relu", y);
        image.output(z);
    })?;
    add("no outputs", &|image, ty| {
        let x = image.input("x", ty);
        relu(image, ty, "relu", x);
    })?;
    add("one value as three outputs", &|image, ty| {
        let x = image.input("x", ty);
        let y = relu(image, ty, "relu", x);
        (0..3).for_each(|_| image.output(y));
    })?;
    add("an input as an output", &|image, ty| {
        let x = image.input("x", ty);
        let y = relu(image, ty, "relu", x);
        image.output(x);
        image.output(y);
    })?;
    add("a weight as an output", &|image, ty| {
        let weight = image.weight(7, F, &[3, 5]);
        let w = image.weight_value("w", ty, weight);
        let y = relu(image, ty, "relu", w);
        image.output(w);
        image.output(y);
    })?;
    add("an input that nobody reads", &|image, ty| {
        let x = image.input("x", ty);
        image.input("unread", ty);
        let y = relu(image, ty, "relu", x);
        image.output(y);
    })?;
    add("a node whose result nobody reads", &|image, ty| {
        let x = image.input("x", ty);
        relu(image, ty, "dead", x);
        let y = relu(image, ty, "relu", x);
        image.output(y);
    })?;
    add("five hundred inputs", &|image, ty| {
        let values: Vec<_> = (0..500).map(|i| image.input(&format!("x{i}"), ty)).collect();
        let mut sum = values[0];
        for (i, value) in values.iter().enumerate().skip(1) {
            let args = [Arg::Value(sum), Arg::Value(*value), Arg::Int(1)];
            sum = image.node(
                &format!("n{i}"),
                "aten::add.Tensor",
                &args,
                &[(&format!("y{i}"), ty)],
                "",
            )[0];
        }
        image.output(sum);
    })?;
    add("a list of a thousand tensors", &|image, ty| {
        let x = image.input("x", ty);
        let dims = [image.int(3000), image.int(5)];
        let out = Type::tensor(F, &dims);
        let y = image.node(
            "cat",
            "aten::cat",
            &[Arg::Values(vec![x; 1000]), Arg::Int(0)],
            &[("y", &out)],
            "",
        )[0];
        image.output(y);
    })?;
    add("one value as both operands, a hundred times", &|image, ty| {
        let mut x = image.input("x", ty);
        for i in 0..100 {
            let args = [Arg::Value(x), Arg::Value(x), Arg::Int(-1)];
            x = image.node(
                &format!("n{i}"),
                "aten::add.Tensor",
                &args,
                &[(&format!("y{i}"), ty)],
                "",
            )[0];
        }
        image.output(x);
    })?;
    add("names of a megabyte, of nothing and in other scripts", &|image, ty| {
        let x = image.input(&"x".repeat(1 << 20), ty);
        let y = image.node(
            "",
            "aten::relu",
            &[Arg::Value(x)],
            &[("", ty)],
            &"f.py:1\n".repeat(1000),
        )[0];
        let z = image.node("\u{1f980}\0\n", "aten::relu", &[Arg::Value(y)], &[("\u{202e}", ty)], "")[0];
        image.output(z);
    })?;
    add("numbers as inputs and outputs", &|image, ty| {
        let n = image.symbol("s0", 1, Some(9));
        let k = image.input("k", &Type::Int(n));
        let f = image.input("f", &Type::Float);
        let b = image.input("b", &Type::Bool);
        let x = image.input("x", ty);
        let args = [Arg::Value(x), Arg::Value(f), Arg::Value(k)];
        let y = image.node("n", "aten::add.Tensor", &args, &[("y", ty)], "")[0];
        image.output(y);
        image.output(k);
        image.output(b);
    })?;
    add("a symbol of negative sizes", &|image, _| {
        let n = image.symbol("s0", i64::MIN, Some(-1));
        let ty = Type::tensor(F, &[n, n]);
        let x = image.input("x", &ty);
        let y = image.node("n", "aten::relu", &[Arg::Value(x)], &[("y", &ty)], "")[0];
        image.output(y);
    })?;
    add("sizes that overflow, and a division by zero", &|image, _| {
        use delegraph_abi::image::ExprOp;
        let (most, zero, two) = (image.int(i64::MAX), image.int(0), image.int(2));
        let product = image.op(ExprOp::MUL, &[most, two]);
        let quotient = image.op(ExprOp::FLOOR_DIV, &[two, zero]);
        let power = image.op(ExprOp::POW, &[most, most]);
        let ty = Type::tensor(F, &[product, quotient, power]);
        let x = image.input("x", &ty);
        let y = image.node("n", "aten::relu", &[Arg::Value(x)], &[("y", &ty)], "")[0];
        image.output(y);
    })?;
    endure_images(trial, &instance, all)
}
