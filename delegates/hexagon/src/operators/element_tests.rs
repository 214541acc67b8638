//! What operators on elements, moves and reductions become, on graph data; with Qualcomm's library where there is one (`layer_tests.rs`).

use super::layer_tests::{Program, fixed, operand, ops, param, per_tensor, the};
use crate::graph::{Convert, DataType, Graph, Param, Quantization, ScaleOffset};
use delegraph_sdk::DType;
use delegraph_sdk::image::{Arg, Quant};

/// An operator on tensors of one type.
fn unary(op: &str, dtype: DType, dims: &[i64], rest: &[Arg], result: &[i64]) -> Result<Graph, String> {
    let mut p = Program::new();
    let x = p.input(dtype, dims, None);
    let args: Vec<Arg> = [x].into_iter().chain(rest.iter().cloned()).collect();
    let out = p.ty(dtype, result, None);
    p.lowered(op, &args, out)
}

fn quantized(op: &str, dtype: DType, quants: [Option<Quant>; 2], rest: &[Arg]) -> Result<Graph, String> {
    let mut p = Program::new();
    let x = p.input(dtype, &[2, 6], quants[0].clone());
    let args: Vec<Arg> = [x].into_iter().chain(rest.iter().cloned()).collect();
    let out = p.ty(dtype, &[2, 6], quants[1].clone());
    p.lowered(op, &args, out)
}

#[test]
fn numbers_beside_tensors_are_constants_of_one_element() {
    let graph = unary(
        "aten::add.Tensor",
        DType::F32,
        &[2, 3],
        &[Arg::Float(1.5), Arg::Int(2)],
        &[2, 3],
    )
    .unwrap();
    assert_eq!(ops(&graph), ["ElementWiseAdd"]);
    let number = operand(&graph, the(&graph, "ElementWiseAdd"), 1);
    // 1.5 twice is 3, which is 0x4200.
    assert_eq!(
        (number.dims.as_slice(), fixed(number)),
        ([1].as_slice(), [0, 0x42].as_slice())
    );
}

#[test]
fn integer_arithmetic_is_refused_and_order_is_not() {
    for dtype in [DType::I32, DType::I64, DType::U8] {
        let sum = unary("aten::add.Tensor", dtype, &[4], &[Arg::Int(1), Arg::Int(1)], &[4]);
        assert!(sum.unwrap_err().contains("integer arithmetic"), "{dtype}");
        assert!(unary("aten::clamp", dtype, &[4], &[Arg::Int(1), Arg::Int(3)], &[4]).is_ok());
    }
}

#[test]
fn powers_of_few_exponents_are_roots_and_products() {
    let power = |exponent: f64| {
        let graph = unary(
            "aten::pow.Tensor_Scalar",
            DType::F32,
            &[4],
            &[Arg::Float(exponent)],
            &[4],
        );
        ops(&graph.unwrap())
    };
    assert_eq!(power(0.5), ["ElementWiseSquareRoot"]);
    assert_eq!(power(3.0), ["ElementWiseMultiply", "ElementWiseMultiply"]);
    assert_eq!(power(-1.0), ["ElementWiseDivide"]);
    assert_eq!(power(2.5), ["ElementWisePower"]);
}

#[test]
fn comparisons_with_numbers_that_f16_has_not_keep_their_answers() {
    let compared = |op: &str, number: f64| -> Result<u16, String> {
        let mut p = Program::new();
        let x = p.input(DType::F32, &[4], None);
        let out = p.ty(DType::BOOL, &[4], None);
        let graph = p.lowered(op, &[x, Arg::Float(number)], out)?;
        let bytes = fixed(operand(&graph, &graph.nodes[0], 1));
        Ok(u16::from_le_bytes([bytes[0], bytes[1]]))
    };
    // 0.1 lies between 0x2e66 and 0x2e67: what is above it is what is above the lower one.
    assert_eq!(compared("aten::gt.Scalar", 0.1), Ok(0x2e66));
    assert_eq!(compared("aten::ge.Scalar", 0.1), Ok(0x2e67));
    assert_eq!(compared("aten::lt.Scalar", 0.1), Ok(0x2e67));
    assert_eq!(compared("aten::ge.Scalar", 0.5), Ok(0x3800));
    assert!(compared("aten::eq.Scalar", 0.1).is_err());
}

#[test]
fn softmax_moves_its_dimension_behind_and_takes_the_largest_away() {
    let graph = unary(
        "aten::softmax.int",
        DType::F32,
        &[2, 3, 4],
        &[Arg::Int(0), Arg::None],
        &[2, 3, 4],
    )
    .unwrap();
    let wanted = [
        "Transpose",
        "ReduceMax",
        "ElementWiseSubtract",
        "ReluMinMax",
        "ElementWiseExp",
        "ReduceSum",
        "ElementWiseDivide",
        "Transpose",
    ];
    assert_eq!(ops(&graph), wanted);
    assert_eq!(param(&graph.nodes[0], "perm"), &Param::list(&[1, 2, 0]));
    assert_eq!(param(&graph.nodes[7], "perm"), &Param::list(&[2, 0, 1]));
    let last = unary(
        "aten::softmax.int",
        DType::F32,
        &[2, 3, 4],
        &[Arg::Int(-1), Arg::None],
        &[2, 3, 4],
    )
    .unwrap();
    assert_eq!(last.count("Transpose"), 0);
}

#[test]
fn what_lies_channels_last_is_reduced_and_permuted_as_it_lies() {
    let mut p = Program::new();
    let x = p.input(DType::F32, &[1, 3, 8, 8], None);
    let pool = [
        x,
        p.ints(&[2, 2]),
        p.ints(&[2, 2]),
        p.ints(&[0, 0]),
        Arg::Bool(false),
        Arg::Bool(true),
        Arg::None,
    ];
    let pooled = p.ty(DType::F32, &[1, 3, 4, 4], None);
    let pooled = Arg::Value(p.node("aten::avg_pool2d", &pool, &[pooled])[0]);
    let (dims, order) = (p.ints(&[2, 3]), p.ints(&[0, 2, 3, 1]));
    let means = p.ty(DType::F32, &[1, 3], None);
    let means = p.node(
        "aten::mean.dim",
        &[pooled.clone(), dims, Arg::Bool(false), Arg::None],
        &[means],
    )[0];
    let turned = p.ty(DType::F32, &[1, 4, 4, 3], None);
    let turned = p.node("aten::permute", &[pooled, order], &[turned])[0];
    let graph = p.finished(&[means, turned]).unwrap();
    // The image is turned at its entry, and nothing after that.
    assert_eq!(ops(&graph), ["Transpose", "PoolAvg2d", "ReduceMean"]);
    assert_eq!(param(the(&graph, "ReduceMean"), "axes"), &Param::list(&[1, 2]));
    assert_eq!(graph.tensor(graph.outputs[1].tensor.unwrap()).dims, [1, 4, 4, 3]);
}

#[test]
fn booleans_are_sliced_as_bytes() {
    let args = [Arg::Int(1), Arg::Int(1), Arg::Int(6), Arg::Int(2)];
    let graph = unary("aten::slice.Tensor", DType::BOOL, &[2, 6], &args, &[2, 3]).unwrap();
    assert_eq!(ops(&graph), ["Cast", "StridedSlice", "Cast"]);
    let ranges = Param::I32s(vec![2, 3], vec![0, 2, 1, 1, 6, 2]);
    assert_eq!(param(&graph.nodes[1], "ranges"), &ranges);
}

#[test]
fn small_integers_are_fixed_point_of_scale_one() {
    let graph = unary("aten::neg", DType::I8, &[4], &[], &[4]);
    assert!(graph.is_err());
    let mut p = Program::new();
    let x = p.input(DType::I8, &[2, 3], None);
    let order = p.ints(&[1, 0]);
    let out = p.ty(DType::I8, &[3, 2], None);
    let graph = p.lowered("aten::permute", &[x, order], out).unwrap();
    let tensor = graph.tensor(graph.inputs[0].tensor.unwrap());
    let pair = ScaleOffset {
        scale: 1.0,
        offset: -128,
    };
    assert_eq!(tensor.data_type, DataType::UFixed8);
    assert_eq!(tensor.quantization, Quantization::PerTensor(pair));
    assert_eq!(graph.inputs[0].convert, Convert::FlipSign);
}

#[test]
fn limits_of_integers_are_the_larger_and_the_smaller() {
    let quant = || per_tensor(0.5, 10, -128, 127);
    let bounds = [Arg::Float(-1.0), Arg::Float(4.0)];
    let graph = quantized("aten::hardtanh", DType::I8, [quant(), quant()], &bounds).unwrap();
    assert_eq!(ops(&graph), ["ElementWiseMaximum", "ElementWiseMinimum"]);
    // -1 is 8 of int8, which is 136 of uint8; 4 is 18, which is 146.
    assert_eq!(fixed(operand(&graph, &graph.nodes[0], 1)), [136]);
    assert_eq!(fixed(operand(&graph, &graph.nodes[1], 1)), [146]);
    let wide = quantized("aten::relu", DType::I8, [quant(), per_tensor(0.25, 0, -128, 127)], &[]).unwrap();
    assert_eq!(ops(&wide), ["Relu"]);
}

#[test]
fn what_is_less_exact_than_sixteen_bits_is_refused() {
    let quant = || per_tensor(0.001, 0, -32768, 32767);
    assert!(quantized("aten::tanh", DType::I16, [quant(), quant()], &[]).is_ok());
    for op in ["aten::silu", "aten::hardsigmoid"] {
        let refused = quantized(op, DType::I16, [quant(), quant()], &[]).unwrap_err();
        assert!(refused.contains("16 bits"), "{op}: {refused}");
    }
    assert!(
        quantized(
            "aten::silu",
            DType::I8,
            [per_tensor(0.1, 0, -128, 127), per_tensor(0.1, 0, -128, 127)],
            &[]
        )
        .is_ok()
    );
}

fn quantize_args(x: Arg, scale: f64, zero_point: i64, low: i64, high: i64, dtype: DType) -> Vec<Arg> {
    vec![
        x,
        Arg::Float(scale),
        Arg::Int(zero_point),
        Arg::Int(low),
        Arg::Int(high),
        Arg::DType(dtype),
    ]
}

#[test]
fn quantizing_at_the_border_is_no_node() {
    let mut p = Program::new();
    let x = p.input(DType::F32, &[4, 4], None);
    let quant = per_tensor(0.25, 3, -128, 127);
    let integers = p.ty(DType::I8, &[4, 4], quant);
    let args = quantize_args(x, 0.25, 3, -128, 127, DType::I8);
    let q = p.node(
        "quantized_decomposed::quantize_per_tensor",
        &args,
        std::slice::from_ref(&integers),
    )[0];
    let order = p.ints(&[1, 0]);
    let moved = p.node("aten::permute", &[Arg::Value(q), order], &[integers])[0];
    let floats = p.ty(DType::F32, &[4, 4], None);
    let mut args = quantize_args(Arg::Value(moved), 0.25, 3, -128, 127, DType::I8);
    args.push(Arg::None);
    let y = p.node("quantized_decomposed::dequantize_per_tensor", &args, &[floats])[0];
    let graph = p.finished(&[y]).unwrap();
    assert_eq!(ops(&graph), ["Transpose"]);
    assert_eq!(
        (graph.inputs[0].convert, graph.outputs[0].convert),
        (Convert::Quantize, Convert::Quantize)
    );
    let pair = ScaleOffset {
        scale: 0.25,
        offset: -131,
    };
    let tensor = graph.tensor(graph.inputs[0].tensor.unwrap());
    assert_eq!(tensor.quantization, Quantization::PerTensor(pair));
    assert_eq!(graph.outputs[0].dtype, DType::F32);
}

#[test]
fn an_input_that_is_read_as_a_float_too_is_quantized_inside() {
    let mut p = Program::new();
    let x = p.input(DType::F32, &[4], None);
    let integers = p.ty(DType::U8, &[4], per_tensor(0.5, 0, 0, 255));
    let args = quantize_args(x.clone(), 0.5, 0, 0, 255, DType::U8);
    let q = p.node("quantized_decomposed::quantize_per_tensor", &args, &[integers])[0];
    let floats = p.ty(DType::F32, &[4], None);
    let y = p.node("aten::tanh", &[x], &[floats])[0];
    let graph = p.finished(&[q, y]).unwrap();
    assert_eq!(graph.inputs[0].convert, Convert::Half);
    // By 16 bits, which the library rounds right.
    assert_eq!(ops(&graph), ["Quantize", "Convert", "Tanh"]);
    let wide = ScaleOffset {
        scale: 0.5 / 256.0,
        offset: 0,
    };
    let wide_tensor = graph.tensor(graph.nodes[0].outputs[0]);
    assert_eq!(wide_tensor.quantization, Quantization::PerTensor(wide));
}

#[test]
fn requantizing_is_one_node() {
    let mut p = Program::new();
    let x = p.input(DType::U8, &[4], per_tensor(0.5, 0, 0, 255));
    let floats = p.ty(DType::F32, &[4], None);
    let mut args = quantize_args(x, 0.5, 0, 0, 255, DType::U8);
    args.push(Arg::None);
    let f = p.node("quantized_decomposed::dequantize_per_tensor", &args, &[floats])[0];
    let integers = p.ty(DType::U8, &[4], per_tensor(0.25, 7, 0, 255));
    let args = quantize_args(Arg::Value(f), 0.25, 7, 0, 255, DType::U8);
    let y = p.node("quantized_decomposed::quantize_per_tensor", &args, &[integers])[0];
    let graph = p.finished(&[y]).unwrap();
    assert_eq!(ops(&graph), ["Convert"]);
}

#[test]
fn constant_indices_count_from_the_end_here() {
    let mut p = Program::new();
    let x = p.input(DType::F16, &[5, 2], None);
    let bytes = [-1i64, 0, -5].iter().flat_map(|i| i.to_le_bytes()).collect();
    let index = p.weight(DType::I64, &[3], None, bytes);
    let Arg::Value(index) = index else { panic!() };
    let out = p.ty(DType::F16, &[3, 2], None);
    let graph = p
        .lowered("aten::index.Tensor", &[x, Arg::OptionalValues(vec![Some(index)])], out)
        .unwrap();
    assert_eq!(ops(&graph), ["Gather"]);
    let wanted: Vec<u8> = [4i32, 0, 0].iter().flat_map(|i| i.to_le_bytes()).collect();
    assert_eq!(fixed(operand(&graph, the(&graph, "Gather"), 1)), wanted);
}

#[test]
fn an_edge_is_copied_by_an_index() {
    let mut p = Program::new();
    let x = p.input(DType::F16, &[1, 1, 2, 3], None);
    let sizes = p.ints(&[2, 1, 0, 0]);
    let out = p.ty(DType::F16, &[1, 1, 2, 6], None);
    let graph = p.lowered("aten::replication_pad2d", &[x, sizes], out).unwrap();
    let wanted: Vec<u8> = [0i32, 0, 0, 1, 2, 2].iter().flat_map(|i| i.to_le_bytes()).collect();
    assert_eq!(fixed(operand(&graph, the(&graph, "Gather"), 1)), wanted);
}
