//! One node as a graph, for the tests of operator families.

use crate::caps::{self, Refusal};
use crate::execute::{Program, WeightBytes};
use crate::tensor::{Data, Tensor};
use delegraph_sdk::image::{Arg, ImageBuilder, NodeIndex, Type, verify};
use delegraph_sdk::{DType, Error, TensorOut, TensorView};

/// An argument: a tensor becomes an input of the graph.
pub enum Item {
    Tensor(Tensor),
    Tensors(Vec<Tensor>),
    Ints(Vec<i64>),
    Arg(Arg),
}

impl From<&Tensor> for Item {
    fn from(tensor: &Tensor) -> Item {
        Item::Tensor(tensor.clone())
    }
}

impl From<Arg> for Item {
    fn from(arg: Arg) -> Item {
        Item::Arg(arg)
    }
}

impl From<&[i64]> for Item {
    fn from(items: &[i64]) -> Item {
        Item::Ints(items.to_vec())
    }
}

pub fn f32s(sizes: &[usize], values: &[f32]) -> Tensor {
    let values = values.iter().map(|v| f64::from(*v)).collect();
    Tensor::new(DType::F32, sizes.to_vec(), Data::Float(values)).unwrap()
}

pub fn i64s(sizes: &[usize], values: &[i64]) -> Tensor {
    Tensor::new(DType::I64, sizes.to_vec(), Data::Int(values.to_vec())).unwrap()
}

pub fn bools(sizes: &[usize], values: &[i64]) -> Tensor {
    Tensor::new(DType::BOOL, sizes.to_vec(), Data::Int(values.to_vec())).unwrap()
}

struct NoWeights;

impl WeightBytes for NoWeights {
    fn bytes(&self, _: u32) -> Result<&[u8], Error> {
        Err(Error::invalid("there are no weights"))
    }
}

fn build(op: &str, items: &[Item], wants: &[Tensor]) -> (Vec<u8>, Vec<Tensor>) {
    let mut image = ImageBuilder::new("forward");
    let mut inputs = Vec::new();
    fn ty(image: &mut ImageBuilder, tensor: &Tensor) -> Type {
        let dims: Vec<_> = tensor.sizes().iter().map(|s| image.int(*s as i64)).collect();
        Type::tensor(tensor.dtype(), &dims)
    }
    let mut args = Vec::new();
    for item in items {
        let mut input = |tensor: &Tensor| {
            let ty = ty(&mut image, tensor);
            inputs.push(tensor.clone());
            image.input("x", &ty)
        };
        args.push(match item {
            Item::Tensor(tensor) => Arg::Value(input(tensor)),
            Item::Tensors(tensors) => Arg::Values(tensors.iter().map(&mut input).collect()),
            Item::Ints(items) => Arg::Ints(items.iter().map(|i| image.int(*i)).collect()),
            Item::Arg(arg) => arg.clone(),
        });
    }
    let types: Vec<Type> = wants.iter().map(|want| ty(&mut image, want)).collect();
    let outputs: Vec<(&str, &Type)> = types.iter().map(|ty| ("y", ty)).collect();
    for value in image.node("node", op, &args, &outputs, "") {
        image.output(value);
    }
    (image.finish().unwrap(), inputs)
}

/// Runs an operator whose outputs have the types of `wants`.
pub fn try_run(op: &str, items: &[Item], wants: &[Tensor]) -> Result<Vec<Tensor>, Error> {
    let (image, inputs) = build(op, items, wants);
    let mut program = Program::new(&image)?;
    let stored: Vec<(Vec<i64>, Vec<u8>)> = inputs
        .iter()
        .map(|tensor| {
            let mut sizes: Vec<i64> = tensor.sizes().iter().map(|s| *s as i64).collect();
            let mut bytes = vec![0; tensor.len() * tensor.dtype().size().unwrap()];
            let mut out = TensorOut::new(tensor.dtype(), &mut sizes, &mut bytes);
            tensor.write(&mut out).unwrap();
            (sizes, bytes)
        })
        .collect();
    let views: Vec<TensorView<'_>> = inputs
        .iter()
        .zip(&stored)
        .map(|(tensor, (sizes, bytes))| TensorView::new(tensor.dtype(), sizes, bytes))
        .collect();
    let made = program.run(&views, &NoWeights)?;
    Ok(made.iter().map(|tensor| (**tensor).clone()).collect())
}

/// Runs an operator and expects this of it, floats to six digits.
#[track_caller]
pub fn gives(op: &str, items: &[Item], wants: &[Tensor]) {
    let made = try_run(op, items, wants).unwrap();
    for (have, want) in made.iter().zip(wants) {
        assert_eq!((have.dtype(), have.sizes()), (want.dtype(), want.sizes()));
        let pairs = || have.to_floats().into_iter().zip(want.to_floats());
        let close =
            |(a, b): (f64, f64)| a == b || (a - b).abs() <= 1e-6 * b.abs().max(1.0) || (a.is_nan() && b.is_nan());
        assert!(pairs().all(close), "{:?} instead of {:?}", have.data(), want.data());
    }
}

/// Why an operator is refused.
#[track_caller]
pub fn refusal(op: &str, items: &[Item], wants: &[Tensor]) -> Refusal {
    let (image, _) = build(op, items, wants);
    let view = verify(&image).unwrap();
    match caps::accept(&view.node(NodeIndex(0))) {
        Ok(_) => panic!("`{op}` is taken"),
        Err(refusal) => refusal,
    }
}
