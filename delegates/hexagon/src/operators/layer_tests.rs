//! What layers become, on graph data: operators, their parameters, sizes, constants and scales. Where `DELEGRAPH_QNN_DIR` names Qualcomm's
//! library, it is asked about every node and compiles every graph, too.

use crate::builder::{Builder, WeightBytes};
use crate::caps;
use crate::graph::{DataType, Graph, Node, Param, Quantization, Tensor, TensorKind};
use crate::sys::{Library, Qnn};
use delegraph_sdk::image::{Arg, ImageBuilder, Quant, Sizes, Type, ValueIndex, WeightIndex, verify};
use delegraph_sdk::{DType, Error};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// An image with its weights.
pub(super) struct Program {
    image: ImageBuilder,
    bytes: Bytes,
}

#[derive(Default)]
struct Bytes(BTreeMap<u32, Vec<u8>>);

impl WeightBytes for Bytes {
    fn bytes(&self, id: u32) -> Result<&[u8], Error> {
        Ok(&self.0[&id])
    }
}

/// Qualcomm's library for SM8650, where there is one.
fn library() -> Option<&'static Qnn> {
    static CELL: OnceLock<Option<Qnn>> = OnceLock::new();
    let open = || {
        let folder = delegraph_sdk::environment::variable("DELEGRAPH_QNN_DIR")?;
        let library = Library::open(Path::new(&folder), "libQnnHtp.so").unwrap();
        Some(Qnn::open(library, 57, Arc::new(|_, _: &str| {})).unwrap())
    };
    CELL.get_or_init(open).as_ref()
}

fn halves(bytes: &[u8]) -> Vec<f32> {
    let chunks = bytes.as_chunks::<2>().0.iter();
    chunks.map(|b| half::f16::from_le_bytes(*b).to_f32()).collect()
}

fn words(bytes: &[u8]) -> Vec<i32> {
    bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|b| i32::from_le_bytes(*b))
        .collect()
}

pub(super) fn per_tensor(scale: f64, zero_point: i64, quant_min: i64, quant_max: i64) -> Option<Quant> {
    Some(Quant::PerTensor {
        scale,
        zero_point,
        quant_min,
        quant_max,
    })
}

impl Program {
    pub(super) fn new() -> Program {
        Program {
            image: ImageBuilder::new("g"),
            bytes: Bytes::default(),
        }
    }

    pub(super) fn ty(&mut self, dtype: DType, dims: &[i64], quant: Option<Quant>) -> Type {
        let dims = dims.iter().map(|d| self.image.int(*d)).collect();
        Type::Tensor { dtype, dims, quant }
    }

    pub(super) fn input(&mut self, dtype: DType, dims: &[i64], quant: Option<Quant>) -> Arg {
        let ty = self.ty(dtype, dims, quant);
        Arg::Value(self.image.input(&format!("x{}", self.bytes.0.len()), &ty))
    }

    fn stored(&mut self, dtype: DType, dims: &[i64], bytes: Vec<u8>) -> WeightIndex {
        let id = self.bytes.0.len() as u32 + 1;
        self.bytes.0.insert(id, bytes);
        self.image.weight(id, dtype, dims)
    }

    pub(super) fn weight(&mut self, dtype: DType, dims: &[i64], quant: Option<Quant>, bytes: Vec<u8>) -> Arg {
        let ty = self.ty(dtype, dims, quant);
        let weight = self.stored(dtype, dims, bytes);
        let name = format!("w{}", self.bytes.0.len());
        Arg::Value(self.image.weight_value(&name, &ty, weight))
    }

    pub(super) fn floats(&mut self, dims: &[i64], numbers: &[f32]) -> Arg {
        let bytes = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        self.weight(DType::F32, dims, None, bytes)
    }

    fn scales(&mut self, numbers: &[f32], dims: &[i64]) -> WeightIndex {
        let bytes = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        self.stored(DType::F32, dims, bytes)
    }

    pub(super) fn ints(&mut self, list: &[i64]) -> Arg {
        Arg::Ints(list.iter().map(|i| self.image.int(*i)).collect())
    }

    pub(super) fn node(&mut self, op: &str, args: &[Arg], results: &[Type]) -> Vec<ValueIndex> {
        let names: Vec<String> = (0..results.len()).map(|i| format!("{op}.{i}")).collect();
        let outputs: Vec<(&str, &Type)> = names.iter().map(String::as_str).zip(results).collect();
        let name = format!("{op}.n{}", self.bytes.0.len());
        self.image.node(&name, op, args, &outputs, "")
    }

    /// The graph as it is compiled, and whether each node alone is taken.
    pub(super) fn lowered(mut self, op: &str, args: &[Arg], result: Type) -> Result<Graph, String> {
        let out = self.node(op, args, &[result]);
        self.finished(&out[..1])
    }

    pub(super) fn finished(mut self, outputs: &[ValueIndex]) -> Result<Graph, String> {
        outputs.iter().for_each(|v| self.image.output(*v));
        let bytes = self.image.finish().unwrap();
        let view = verify(&bytes).unwrap();
        let sizes = Sizes::new(&view);
        for node in view.nodes() {
            let graph = caps::alone(&view, &node, &sizes).map_err(|refusal| format!("alone: {}", refusal.text))?;
            for node in library().iter().flat_map(|_| &graph.nodes) {
                let taken = library().map_or(Ok(()), |library| library.validate(&graph, node));
                taken.map_err(|words| format!("`{}`: {words}", node.op))?;
            }
        }
        let mut builder = Builder::new(view, &self.bytes, "g");
        for node in view.nodes() {
            caps::lower(&node, &sizes, &mut builder).map_err(|refusal| refusal.text)?;
        }
        let graph = builder.finish(outputs).map_err(|refusal| refusal.text)?;
        if let Some(library) = library() {
            let compiled = library.compile(&[&graph], &Default::default());
            compiled.map_err(|error| format!("compiling {:?}: {}", ops(&graph), error.error.message))?;
        }
        Ok(graph)
    }
}

pub(super) fn ops(graph: &Graph) -> Vec<&'static str> {
    graph.nodes.iter().map(|node| node.op).collect()
}

pub(super) fn the<'g>(graph: &'g Graph, op: &str) -> &'g Node {
    graph.nodes.iter().find(|node| node.op == op).unwrap()
}

pub(super) fn operand<'g>(graph: &'g Graph, node: &Node, i: usize) -> &'g Tensor {
    graph.tensor(node.inputs[i])
}

pub(super) fn param<'g>(node: &'g Node, name: &str) -> &'g Param {
    &node.params.iter().find(|(n, _)| *n == name).unwrap().1
}

pub(super) fn fixed(tensor: &Tensor) -> &[u8] {
    match &tensor.kind {
        TensorKind::Static(bytes) => bytes,
        _ => panic!("{} is no constant", tensor.name),
    }
}

fn conv_args(p: &mut Program, x: Arg, w: Arg, bias: Arg, padding: i64) -> Vec<Arg> {
    vec![
        x,
        w,
        bias,
        p.ints(&[1, 1]),
        p.ints(&[padding, padding]),
        p.ints(&[1, 1]),
        Arg::Int(1),
    ]
}

#[test]
fn a_convolution_is_channels_last() {
    let mut p = Program::new();
    let x = p.input(DType::F32, &[1, 2, 4, 5], None);
    let w = p.floats(&[1, 2, 1, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let args = conv_args(&mut p, x, w, Arg::None, 0);
    let out = p.ty(DType::F32, &[1, 1, 4, 3], None);
    let graph = p.lowered("aten::conv2d", &args, out).unwrap();
    // One channel lies alike both ways.
    assert_eq!(ops(&graph), ["Transpose", "Conv2d", "Reshape"]);
    let conv = the(&graph, "Conv2d");
    assert_eq!(operand(&graph, conv, 0).dims, [1, 4, 5, 2]);
    let weight = operand(&graph, conv, 1);
    assert_eq!(
        (&weight.dims[..], weight.data_type),
        (&[1, 3, 2, 1][..], DataType::Float16)
    );
    assert_eq!(halves(fixed(weight)), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    assert_eq!(graph.tensor(conv.outputs[0]).dims, [1, 4, 3, 1]);
    assert_eq!(*param(conv, "pad_amount"), Param::U32s(vec![2, 2], vec![0; 4]));
}

#[test]
fn a_chain_is_transposed_at_its_ends() {
    let mut p = Program::new();
    let x = p.input(DType::F32, &[1, 2, 4, 4], None);
    let w = p.floats(&[2, 2, 1, 1], &[1.0; 4]);
    let args = conv_args(&mut p, x, w.clone(), Arg::None, 0);
    let ty = p.ty(DType::F32, &[1, 2, 4, 4], None);
    let first = p.node("aten::conv2d", &args, std::slice::from_ref(&ty))[0];
    let args = conv_args(&mut p, Arg::Value(first), w, Arg::None, 0);
    let second = p.node("aten::conv2d", &args, &[ty])[0];
    let ty = p.ty(DType::F32, &[1, 2, 2, 2], None);
    let args = vec![
        Arg::Value(second),
        p.ints(&[2, 2]),
        p.ints(&[]),
        p.ints(&[0, 0]),
        p.ints(&[1, 1]),
        Arg::Bool(false),
    ];
    let third = p.node("aten::max_pool2d", &args, &[ty])[0];
    let graph = p.finished(&[third]).unwrap();
    assert_eq!(ops(&graph), ["Transpose", "Conv2d", "Conv2d", "PoolMax2d", "Transpose"]);
}

#[test]
fn a_line_is_a_plane_and_same_pads_more_behind() {
    let mut p = Program::new();
    let x = p.input(DType::F32, &[2, 3, 10], None);
    let w = p.floats(&[3, 1, 4], &[1.0; 12]);
    let args = vec![
        x,
        w,
        Arg::None,
        p.ints(&[1]),
        Arg::Str("same".to_string()),
        p.ints(&[1]),
        Arg::Int(3),
    ];
    let out = p.ty(DType::F32, &[2, 3, 10], None);
    let graph = p.lowered("aten::conv1d.padding", &args, out).unwrap();
    assert_eq!(
        ops(&graph),
        ["Transpose", "Reshape", "DepthWiseConv2d", "Reshape", "Transpose"]
    );
    let conv = the(&graph, "DepthWiseConv2d");
    assert_eq!(operand(&graph, conv, 0).dims, [2, 1, 10, 3]);
    assert_eq!(operand(&graph, conv, 1).dims, [1, 4, 1, 3]);
    assert_eq!(*param(conv, "pad_amount"), Param::U32s(vec![2, 2], vec![0, 0, 1, 2]));
}

#[test]
fn without_a_batch_there_is_one() {
    let mut p = Program::new();
    let x = p.input(DType::F32, &[2, 4, 4], None);
    let w = p.floats(&[1, 2, 1, 1], &[1.0; 2]);
    let args = conv_args(&mut p, x, w, Arg::None, 0);
    let out = p.ty(DType::F32, &[1, 4, 4], None);
    let graph = p.lowered("aten::conv2d", &args, out).unwrap();
    assert_eq!(ops(&graph), ["Reshape", "Transpose", "Conv2d", "Transpose", "Reshape"]);
    assert_eq!(graph.tensor(graph.outputs[0].tensor.unwrap()).dims, [1, 4, 4]);
}

#[test]
fn a_dilated_transposed_kernel_has_zeros() {
    let mut p = Program::new();
    let x = p.input(DType::F32, &[1, 1, 4], None);
    let w = p.floats(&[1, 1, 3], &[1.0, 2.0, 3.0]);
    let args = vec![
        x,
        w,
        Arg::None,
        p.ints(&[2]),
        p.ints(&[1]),
        p.ints(&[1]),
        Arg::Int(1),
        p.ints(&[2]),
    ];
    // (4 - 1) * 2 - 2 + 2 * 2 + 1 + 1
    let out = p.ty(DType::F32, &[1, 1, 10], None);
    let graph = p.lowered("aten::conv_transpose1d", &args, out).unwrap();
    let conv = the(&graph, "TransposeConv2d");
    let weight = operand(&graph, conv, 1);
    assert_eq!(weight.dims, [1, 5, 1, 1]);
    assert_eq!(halves(fixed(weight)), [1.0, 0.0, 2.0, 0.0, 3.0]);
    assert_eq!(*param(conv, "output_padding"), Param::list(&[0, 1]));
    assert_eq!(*param(conv, "stride"), Param::list(&[1, 2]));
}

/// A quantized point of a convolution with two outputs: scales 0.5 and 0.25 of the weight.
fn quantized(bias: impl FnOnce(&mut Program) -> Arg, range: (i64, i64), output: (i64, i64)) -> Graph {
    let mut p = Program::new();
    let x = p.input(DType::I8, &[1, 2, 1, 1], per_tensor(0.1, 3, -128, 127));
    let scales = p.scales(&[0.5, 0.25], &[2]);
    let quant = Quant::PerAxis {
        axis: 0,
        scales,
        zero_points: None,
        quant_min: range.0,
        quant_max: range.1,
    };
    let w = p.weight(DType::I8, &[2, 2, 1, 1], Some(quant), vec![1, 0xfe, 3, 0xfc]);
    let bias = bias(&mut p);
    let args = conv_args(&mut p, x, w, bias, 0);
    let out = p.ty(DType::I8, &[1, 2, 1, 1], per_tensor(0.2, -1, output.0, output.1));
    p.lowered("aten::conv2d", &args, out).unwrap()
}

#[test]
fn integers_keep_their_scales() {
    let graph = quantized(|p| p.floats(&[2], &[1.0, -1.0]), (-127, 127), (-128, 127));
    let conv = the(&graph, "Conv2d");
    let x = operand(&graph, conv, 0);
    let Quantization::PerTensor(pair) = x.quantization else {
        panic!()
    };
    // A signed byte is an unsigned one that is 128 more: the zero point 3 is 131.
    assert_eq!((x.data_type, pair.offset), (DataType::UFixed8, -131));
    let weight = operand(&graph, conv, 1);
    let Quantization::PerAxis { axis: 3, pairs } = &weight.quantization else {
        panic!("{:?}", weight.quantization)
    };
    assert_eq!((pairs[0].scale, pairs[1].scale, pairs[1].offset), (0.5, 0.25, 0));
    // [H, W, in, out]
    assert_eq!(fixed(weight), [1, 3, 0xfe, 0xfc]);
    let bias = operand(&graph, conv, 2);
    assert_eq!(bias.data_type, DataType::SFixed32);
    // 1 / (0.1 * 0.5) and -1 / (0.1 * 0.25).
    assert_eq!(words(fixed(bias)), [20, -40]);
    assert_eq!(ops(&graph), ["Reshape", "Conv2d", "Reshape"]);
}

#[test]
fn a_bias_of_integers_stays_as_it_is() {
    let graph = quantized(
        |p| {
            let scales = p.scales(&[0.1 * 0.5, 0.1 * 0.25], &[2]);
            let quant = Quant::PerAxis {
                axis: 0,
                scales,
                zero_points: None,
                quant_min: i64::from(i32::MIN),
                quant_max: i64::from(i32::MAX),
            };
            let bytes = [1_000_003i32, -7].iter().flat_map(|i| i.to_le_bytes()).collect();
            p.weight(DType::I32, &[2], Some(quant), bytes)
        },
        (-127, 127),
        (-128, 127),
    );
    let bias = operand(&graph, the(&graph, "Conv2d"), 2);
    assert_eq!(words(fixed(bias)), [1_000_003, -7]);
}

#[test]
fn four_bits_and_a_narrow_result() {
    let graph = quantized(|_| Arg::None, (-8, 7), (-1, 29));
    let conv = the(&graph, "Conv2d");
    assert!(matches!(
        operand(&graph, conv, 1).quantization,
        Quantization::NarrowPerAxis { bits: 4, axis: 3, .. }
    ));
    // -1 is 127 as an unsigned byte, 29 is 157.
    let (low, high) = (the(&graph, "ElementWiseMaximum"), the(&graph, "ElementWiseMinimum"));
    assert_eq!((low.inputs[0], high.inputs[0]), (conv.outputs[0], low.outputs[0]));
    assert_eq!(fixed(operand(&graph, low, 1)), [127]);
    assert_eq!(fixed(operand(&graph, high, 1)), [157]);
    assert_eq!(
        operand(&graph, low, 1).quantization,
        graph.tensor(conv.outputs[0]).quantization
    );
}

#[test]
fn a_relu_alone_is_one() {
    let graph = quantized(|_| Arg::None, (-127, 127), (-1, 127));
    assert_eq!(ops(&graph).iter().filter(|op| **op == "Relu").count(), 1);
}

#[test]
fn blocks_become_a_point_of_a_convolution() {
    let linear = |scales: &[f32], step: f64| {
        let mut p = Program::new();
        let x = p.input(DType::I16, &[3, 4], per_tensor(0.001, 0, -32768, 32767));
        let scales = p.scales(scales, &[2, 2]);
        let quant = Quant::PerBlock {
            block: vec![1, 2],
            scales,
            zero_points: None,
            quant_min: -8,
            quant_max: 7,
        };
        let w = p.weight(DType::I8, &[2, 4], Some(quant), vec![1, 2, 3, 4, 5, 6, 7, 0xf8]);
        let out = p.ty(DType::I16, &[3, 2], per_tensor(step, 0, -32768, 32767));
        p.lowered("aten::linear", &[x, w, Arg::None], out)
    };
    let graph = linear(&[0.5, 0.25, 0.125, 1.0], 0.05).unwrap();
    assert_eq!(ops(&graph), ["Reshape", "Conv2d", "Reshape"]);
    let weight = operand(&graph, the(&graph, "Conv2d"), 1);
    let Quantization::Blocks {
        axis: 3,
        channels,
        blocks: 2,
        scale_bits: 4,
        block_scales,
    } = &weight.quantization
    else {
        panic!("{:?}", weight.quantization)
    };
    assert_eq!((channels[0].scale, channels[1].scale), (0.25, 0.125));
    assert_eq!(block_scales, &[2, 1, 1, 8]);
    assert_eq!(
        (&weight.dims[..], fixed(weight)),
        (&[1, 1, 4, 2][..], &[1, 5, 2, 6, 3, 7, 4, 0xf8][..])
    );
    let error = linear(&[0.5, 0.37, 0.125, 1.0], 0.05).unwrap_err();
    assert!(error.contains("channel 0"), "{error}");
    // Sums are cut to 256 * 0.001 * (0.25 + 0.125) / 2 in the mean: by 0.024.
    let error = linear(&[0.5, 0.25, 0.125, 1.0], 0.02).unwrap_err();
    assert!(error.contains("finer than"), "{error}");
}

#[test]
fn a_weight_alone_becomes_numbers() {
    let mut p = Program::new();
    let x = p.input(DType::F32, &[1, 4], None);
    let scales = p.scales(&[0.5, 0.25, 2.0, 1.0], &[2, 2]);
    let zeros = p.stored(DType::I8, &[2, 2], vec![0, 1, 0, 0]);
    let quant = Quant::PerBlock {
        block: vec![1, 2],
        scales,
        zero_points: Some(zeros),
        quant_min: -8,
        quant_max: 7,
    };
    let w = p.weight(DType::I8, &[2, 4], Some(quant), vec![1, 2, 3, 4, 5, 6, 7, 0xf8]);
    let out = p.ty(DType::F32, &[1, 2], None);
    let graph = p.lowered("aten::linear", &[x, w, Arg::None], out).unwrap();
    assert_eq!(ops(&graph), ["FullyConnected"]);
    let weight = operand(&graph, &graph.nodes[0], 1);
    assert_eq!(halves(fixed(weight)), [0.5, 1.0, 0.5, 0.75, 10.0, 12.0, 7.0, -8.0]);
}

#[test]
fn zero_points_of_a_weight_are_taken_off() {
    let weight = |zero_point: i64| {
        let mut p = Program::new();
        let x = p.input(DType::U8, &[1, 2], per_tensor(0.1, 0, 0, 255));
        let w = p.weight(DType::U8, &[1, 2], per_tensor(0.5, zero_point, 0, 255), vec![10, 130]);
        let out = p.ty(DType::U8, &[1, 1], per_tensor(0.2, 0, 0, 255));
        let graph = p.lowered("aten::linear", &[x, w, Arg::None], out).unwrap();
        operand(&graph, &graph.nodes[0], 1).clone()
    };
    let signed = weight(20);
    assert_eq!(
        (signed.data_type, fixed(&signed)),
        (DataType::SFixed8, &[0xf6, 110][..])
    );
    // 130 - 0 has no place beside a sign.
    let unsigned = weight(0);
    assert_eq!(
        (unsigned.data_type, fixed(&unsigned)),
        (DataType::UFixed8, &[10, 130][..])
    );
}

#[test]
fn products_of_a_constant_are_layers() {
    let mut p = Program::new();
    let x = p.input(DType::F32, &[5, 2], None);
    let w = p.floats(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let bias = p.floats(&[3], &[1.0; 3]);
    let out = p.ty(DType::F32, &[5, 3], None);
    let graph = p
        .lowered("aten::addmm", &[bias, x, w, Arg::Int(1), Arg::Int(1)], out)
        .unwrap();
    assert_eq!(ops(&graph), ["FullyConnected"]);
    let weight = operand(&graph, &graph.nodes[0], 1);
    assert_eq!(weight.dims, [3, 2]);
    assert_eq!(halves(fixed(weight)), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
}

#[test]
fn factors_get_the_same_number_of_dimensions() {
    let mut p = Program::new();
    let x = p.input(DType::F32, &[4], None);
    let y = p.input(DType::F32, &[2, 4, 3], None);
    let out = p.ty(DType::F32, &[2, 3], None);
    let graph = p.lowered("aten::matmul", &[x, y], out).unwrap();
    assert_eq!(ops(&graph), ["Reshape", "MatMul", "Reshape"]);
    let product = the(&graph, "MatMul");
    assert_eq!(operand(&graph, product, 0).dims, [1, 1, 4]);
    assert_eq!(graph.tensor(product.outputs[0]).dims, [2, 1, 3]);
}

#[test]
fn heads_that_share_keys_are_one() {
    let mut p = Program::new();
    let q = p.input(DType::F32, &[1, 4, 3, 8], None);
    let k = p.input(DType::F32, &[1, 2, 5, 8], None);
    let v = p.input(DType::F32, &[1, 2, 5, 6], None);
    let mask = p.input(DType::BOOL, &[3, 5], None);
    let out = p.ty(DType::F32, &[1, 4, 3, 6], None);
    let args = [
        q,
        k,
        v,
        mask,
        Arg::Float(0.0),
        Arg::Bool(false),
        Arg::None,
        Arg::Bool(true),
    ];
    let graph = p.lowered("aten::scaled_dot_product_attention", &args, out).unwrap();
    let product = the(&graph, "MatMul");
    assert_eq!(graph.tensor(product.outputs[0]).dims, [1, 2, 6, 5]);
    assert_eq!(operand(&graph, the(&graph, "ReduceMax"), 0).dims, [1, 4, 3, 5]);
    // Scores behind the mask, and rows that it hides as a whole.
    assert!(graph.count("ElementWiseSelect") >= 2);
}

#[test]
fn statistics_of_a_batch_norm_are_folded() {
    let mut p = Program::new();
    let x = p.input(DType::F32, &[1, 2, 3, 3], None);
    let gamma = p.floats(&[2], &[2.0, 1.0]);
    let beta = p.floats(&[2], &[1.0, 0.0]);
    let mean = p.floats(&[2], &[3.0, -1.0]);
    let variance = p.floats(&[2], &[4.0, 0.25]);
    let out = p.ty(DType::F32, &[1, 2, 3, 3], None);
    let none = p.ty(DType::F32, &[0], None);
    let args = [x, gamma, beta, mean, variance, Arg::Float(0.1), Arg::Float(0.0)];
    let made = p.node(
        "aten::_native_batch_norm_legit_no_training",
        &args,
        &[out, none.clone(), none],
    );
    let graph = p.finished(&made[..1]).unwrap();
    let norm = the(&graph, "Batchnorm");
    assert_eq!(halves(fixed(operand(&graph, norm, 1))), [1.0, 2.0]);
    assert_eq!(halves(fixed(operand(&graph, norm, 2))), [-2.0, 2.0]);
}

#[test]
fn results_that_are_not_made_are_not_promised() {
    let program = |read_both: bool| {
        let mut p = Program::new();
        let x = p.input(DType::F32, &[1, 2, 4, 4], None);
        let ty = p.ty(DType::F32, &[1, 2, 2, 2], None);
        let places = p.ty(DType::I64, &[1, 2, 2, 2], None);
        let args = vec![
            x,
            p.ints(&[2, 2]),
            p.ints(&[2, 2]),
            p.ints(&[0, 0]),
            p.ints(&[1, 1]),
            Arg::Bool(false),
        ];
        let made = p.node("aten::max_pool2d_with_indices", &args, &[ty, places]);
        p.finished(if read_both { &made } else { &made[..1] })
    };
    assert_eq!(ops(&program(false).unwrap()), ["Transpose", "PoolMax2d", "Transpose"]);
    assert!(program(true).unwrap_err().contains("only the first result"));
}

#[test]
fn means_that_are_halves_are_refused() {
    let mean = |kernel: i64, scale: f64| {
        let mut p = Program::new();
        let x = p.input(DType::U8, &[1, 1, 6, 6], per_tensor(0.1, 3, 0, 255));
        let (size, none) = (p.ints(&[kernel, kernel]), p.ints(&[0, 0]));
        let args = [
            x,
            size.clone(),
            size,
            none,
            Arg::Bool(false),
            Arg::Bool(true),
            Arg::None,
        ];
        let sides = 6 / kernel;
        let out = p.ty(DType::U8, &[1, 1, sides, sides], per_tensor(scale, 3, 0, 255));
        p.lowered("aten::avg_pool2d", &args, out).map(|_| ())
    };
    // A quarter of all sums of four is a half; no sum of nine is.
    assert!(mean(2, 0.1).unwrap_err().contains("halfway"));
    assert_eq!(mean(3, 0.1), Ok(()));
    assert!(mean(2, 0.2).unwrap_err().contains("halfway"));
    assert_eq!(mean(2, 0.0823), Ok(()));
}

#[test]
fn what_is_not_exact_is_refused() {
    let mut p = Program::new();
    let x = p.input(DType::F32, &[1, 1, 5, 5], None);
    let size = p.ints(&[3, 3]);
    let out = p.ty(DType::F32, &[1, 1, 3, 3], None);
    let error = p.lowered("aten::adaptive_avg_pool2d", &[x, size], out).unwrap_err();
    assert!(error.contains("windows of one size"), "{error}");

    let mut p = Program::new();
    let x = p.input(DType::I64, &[2, 2], None);
    let y = p.input(DType::I64, &[2, 2], None);
    let out = p.ty(DType::I64, &[2, 2], None);
    let error = p.lowered("aten::mm", &[x, y], out).unwrap_err();
    assert!(error.contains("Int32"), "{error}");

    let mut p = Program::new();
    let x = p.input(DType::F32, &[1, 1, 2, 2], None);
    let w = p.floats(&[1, 1, 1, 1], &[1e6]);
    let args = conv_args(&mut p, x, w, Arg::None, 0);
    let out = p.ty(DType::F32, &[1, 1, 2, 2], None);
    let error = p.lowered("aten::conv2d", &args, out).unwrap_err();
    assert!(error.contains("does not fit f16"), "{error}");
}
