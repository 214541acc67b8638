//! Quantize and dequantize operators folded into types: each pattern, as text before and after.

use delegraph_ir::{Arg, Constant, Graph, Module, Quant, TensorType, Type, ValueId, verify};
use delegraph_passes::quantize::{Copies, Folded, Folder, rejoin, separate};
use delegraph_types::{DType, Dims};
use rustc_hash::FxHashSet;

/// Builds one graph.
struct Build {
    module: Module,
    graph: Graph,
}

/// Scale and zero point.
type Params = (f64, i64);

impl Build {
    fn new() -> Build {
        Build {
            module: Module::default(),
            graph: Graph::new("forward"),
        }
    }

    fn input(&mut self, sizes: &[i64]) -> ValueId {
        let name = format!("x{}", self.graph.inputs.len());
        self.graph.add_input(name, TensorType::fixed(DType::F32, sizes).into())
    }

    fn constant(&mut self, name: &str, dtype: DType, sizes: &[i64], bytes: Vec<u8>) -> ValueId {
        let dims = Dims::new(sizes).unwrap();
        let id = self
            .module
            .constants
            .push(Constant::contiguous(name, dtype, dims, bytes.into()));
        self.graph.add_constant(name, TensorType::fixed(dtype, sizes), id)
    }

    fn floats(&mut self, name: &str, sizes: &[i64], items: &[f32]) -> ValueId {
        let bytes = items.iter().flat_map(|f| f.to_le_bytes()).collect();
        self.constant(name, DType::F32, sizes, bytes)
    }

    fn weight(&mut self, name: &str, sizes: &[i64]) -> ValueId {
        let count = sizes.iter().product::<i64>() as usize;
        self.constant(
            name,
            DType::I8,
            sizes,
            (0..count).map(|i| (i * 37 % 251) as u8).collect(),
        )
    }

    fn op(&mut self, op: &str, args: Vec<Arg>, sizes: &[i64]) -> ValueId {
        self.typed(op, args, TensorType::fixed(DType::F32, sizes))
    }

    fn typed(&mut self, op: &str, args: Vec<Arg>, ty: TensorType) -> ValueId {
        self.graph.push(op, args, vec![ty.into()]).unwrap()[0]
    }

    fn like(&self, value: ValueId, dtype: DType) -> TensorType {
        TensorType::new(dtype, self.graph.tensor(value).unwrap().shape.clone())
    }

    fn q(&mut self, x: ValueId, (scale, zero): Params) -> ValueId {
        let ty = self.like(x, DType::I8);
        let args = vec![
            x.into(),
            scale.into(),
            zero.into(),
            Arg::int(-128),
            Arg::int(127),
            DType::I8.into(),
        ];
        self.typed("quantized_decomposed::quantize_per_tensor", args, ty)
    }

    fn dq(&mut self, x: ValueId, (scale, zero): Params) -> ValueId {
        let ty = self.like(x, DType::F32);
        let args = vec![
            x.into(),
            scale.into(),
            zero.into(),
            Arg::int(-128),
            Arg::int(127),
            DType::I8.into(),
        ];
        self.typed("quantized_decomposed::dequantize_per_tensor", args, ty)
    }

    fn dq_channel(&mut self, w: ValueId, scales: ValueId) -> ValueId {
        let ty = self.like(w, DType::F32);
        let dtype = self.graph.tensor(w).unwrap().dtype;
        let (low, high) = dtype.int_range().unwrap();
        let args = vec![
            w.into(),
            scales.into(),
            Arg::None,
            Arg::int(0),
            Arg::int(low as i64),
            Arg::int(high as i64),
            dtype.into(),
        ];
        self.typed("quantized_decomposed::dequantize_per_channel", args, ty)
    }

    /// A quantized input, dequantized.
    fn real(&mut self, sizes: &[i64], params: Params) -> ValueId {
        let x = self.input(sizes);
        let x = self.q(x, params);
        self.dq(x, params)
    }

    /// The result of folding, with the graph as it was for it.
    fn fold(mut self, outputs: &[ValueId]) -> Seen {
        outputs.iter().for_each(|v| self.graph.add_output(*v));
        self.module.graphs.push(self.graph);
        verify(&self.module).unwrap();
        let before = self.module.graphs[0].clone();
        let mut copies = Copies::default();
        let module = &mut self.module;
        separate(&mut module.graphs[0], &module.constants, &mut copies);
        verify(module).unwrap();
        let folded = Folder::default().fold(&mut module.constants, &module.graphs[0], &|_| false);
        check(&module.graphs[0], &folded);
        Seen {
            module: self.module,
            before,
            copies,
            folded,
        }
    }
}

struct Seen {
    module: Module,
    before: Graph,
    copies: Copies,
    folded: Folded,
}

impl Seen {
    /// The nodes of the view, a line each.
    fn lines(&self) -> Vec<String> {
        let text = self.folded.graph.to_string();
        let nodes = text.lines().filter(|l| l.contains("::") && !l.contains("= constant"));
        nodes.map(|l| l.trim().to_string()).collect()
    }

    /// The operators of the view.
    fn ops(&self) -> Vec<&'static str> {
        self.folded.graph.nodes.iter().map(|n| n.op.name()).collect()
    }

    fn quant(&self, value: ValueId) -> Option<&Quant> {
        self.folded.graph.tensor(value).and_then(|t| t.quant.as_ref())
    }
}

/// Every node stands for something, everything is stood for once, and nothing is read that is not made.
fn check(graph: &Graph, folded: &Folded) {
    let mut seen = vec![0; graph.nodes.len()];
    for (i, origin) in folded.origins.iter().enumerate() {
        assert!(origin.covers.contains(&origin.main) && origin.covers.is_sorted());
        for node in &origin.covers {
            seen[node.index()] += 1;
            assert_eq!(folded.view_of[node.index()].index(), i);
        }
    }
    assert!(seen.iter().all(|n| *n == 1), "{seen:?}");
    let mut made: FxHashSet<ValueId> = FxHashSet::default();
    for node in &folded.graph.nodes {
        for value in node.inputs() {
            let leaf = folded.graph.value(value).def != delegraph_ir::Def::Node;
            assert!(leaf || made.contains(&value), "{}", folded.graph);
        }
        made.extend(&node.outputs);
    }
    assert_eq!(graph.outputs, folded.graph.outputs);
}

const X: Params = (0.5, 3);
const Y: Params = (0.25, -7);

const Q: &str = "quantized_decomposed::quantize_per_tensor";
const DQ: &str = "quantized_decomposed::dequantize_per_tensor";

#[test]
fn a_layer_with_its_activation_is_one_node() {
    let mut b = Build::new();
    let x = b.real(&[2, 4], X);
    let (w, scales) = (b.weight("w", &[3, 4]), b.floats("scales", &[3], &[0.1, 0.2, 0.3]));
    let w = b.dq_channel(w, scales);
    // No multiple of what integers would count in: it stays f32.
    let bias = b.floats("bias", &[3], &[0.333, 0.777, 0.123]);
    let y = b.op("aten::linear", vec![x.into(), w.into(), bias.into()], &[2, 3]);
    let y = b.op("aten::relu", vec![y.into()], &[2, 3]);
    let y = b.q(y, Y);
    let y = b.dq(y, Y);
    let seen = b.fold(&[y]);
    assert_eq!(
        seen.lines(),
        [
            "%quantize_per_tensor_0: i8[2,4]:q(0.5,3) = quantized_decomposed::quantize_per_tensor(%x0, 0.5, 3, -128, 127, i8)",
            "%quantize_per_tensor_5: i8[2,3]:q(0.25,-7) = aten::linear(%quantize_per_tensor_0, %w, %bias)",
            "%dequantize_per_tensor_6: f32[2,3] = quantized_decomposed::dequantize_per_tensor(%quantize_per_tensor_5, 0.25, -7, -128, 127, i8)",
        ]
    );
    let node = &seen.folded.graph.nodes[1];
    // The activation is the smallest integer: 0 is -7.
    let quant = seen.quant(node.outputs[0]);
    assert!(
        matches!(
            quant,
            Some(Quant::PerTensor {
                quant_min: -7,
                quant_max: 127,
                ..
            })
        ),
        "{quant:?}"
    );
    let w = node.args[1].as_value().unwrap();
    assert!(matches!(
        seen.quant(w),
        Some(Quant::PerAxis {
            axis: 0,
            zero_points: None,
            ..
        })
    ));
    let names: Vec<&str> = seen.folded.origins[1]
        .covers
        .iter()
        .map(|n| seen.before.node(*n).name.as_str())
        .collect();
    let want = [
        "dequantize_per_tensor_1",
        "dequantize_per_channel_2",
        "linear_3",
        "relu_4",
        "quantize_per_tensor_5",
    ];
    assert_eq!((names.as_slice(), node.name.as_str()), (want.as_slice(), "linear_3"));
    // The plan keeps what it had.
    assert_eq!(seen.module.graphs[0], seen.before);
    assert!(seen.copies.is_empty());
}

#[test]
fn limits_of_every_activation_become_integers() {
    type Make = fn(ValueId) -> Vec<Arg>;
    let cases: &[(&str, Make, (i64, i64))] = &[
        ("aten::relu", |y| vec![y.into()], (-7, 127)),
        ("aten::relu6", |y| vec![y.into()], (-7, 17)),
        (
            "aten::hardtanh",
            |y| vec![y.into(), (-1.0).into(), 1.0.into()],
            (-11, -3),
        ),
        ("aten::clamp", |y| vec![y.into(), Arg::None, 0.125.into()], (-128, -7)),
        ("aten::clamp_min", |y| vec![y.into(), 0.375.into()], (-5, 127)),
    ];
    for (op, args, want) in cases {
        let mut b = Build::new();
        let (x, z) = (b.real(&[4], X), b.real(&[4], X));
        let y = b.op("aten::add.Tensor", vec![x.into(), z.into()], &[4]);
        let y = b.op(op, args(y), &[4]);
        let y = b.q(y, Y);
        let seen = b.fold(&[y]);
        assert_eq!(seen.ops(), [Q, Q, "aten::add.Tensor"], "{op}");
        let Some(Quant::PerTensor {
            quant_min, quant_max, ..
        }) = seen.quant(y)
        else {
            panic!("{op}")
        };
        assert_eq!((*quant_min, *quant_max), *want, "{op}");
    }
    // One that bends stays outside, and the operator with it.
    let mut b = Build::new();
    let x = b.real(&[4], X);
    let y = b.op("aten::mul.Tensor", vec![x.into(), x.into()], &[4]);
    let y = b.op("aten::sigmoid", vec![y.into()], &[4]);
    let y = b.q(y, Y);
    assert_eq!(b.fold(&[y]).ops(), [Q, DQ, "aten::mul.Tensor", "aten::sigmoid", Q]);
}

#[test]
fn a_bias_is_integers_where_that_is_exact() {
    let layer = |bias: &dyn Fn(&mut Build) -> ValueId, scales: &[f32]| {
        let mut b = Build::new();
        let x = b.real(&[2, 4], X);
        let w = b.weight("w", &[2, 4]);
        let scales = b.floats("scales", &[2], scales);
        let w = b.dq_channel(w, scales);
        let bias = bias(&mut b);
        let y = b.op("aten::linear", vec![x.into(), w.into(), bias.into()], &[2, 2]);
        let y = b.q(y, Y);
        let seen = b.fold(&[y]);
        let node = seen
            .folded
            .graph
            .nodes
            .iter()
            .find(|n| n.op.name() == "aten::linear")
            .unwrap();
        let bias = node.args[2].as_value().unwrap();
        let ty = seen.folded.graph.tensor(bias).unwrap().clone();
        let delegraph_ir::Def::Constant(id) = seen.folded.graph.value(bias).def else {
            return (seen, ty, vec![]);
        };
        let bytes = seen.module.constants[id].to_contiguous().unwrap().as_slice().to_vec();
        (seen, ty, bytes)
    };
    let integers = |list: [i32; 2]| -> Vec<u8> { list.iter().flat_map(|i| i.to_le_bytes()).collect() };
    // 0.5 * 0.25 and 0.5 * 0.5.
    let (_, ty, bytes) = layer(&|b| b.floats("bias", &[2], &[-3.0 * 0.125, 5.0 * 0.25]), &[0.25, 0.5]);
    assert_eq!((ty.dtype, bytes), (DType::I32, integers([-3, 5])));
    assert!(matches!(ty.quant, Some(Quant::PerAxis { axis: 0, .. })));
    let (_, ty, _) = layer(&|b| b.floats("bias", &[2], &[-3.0 * 0.125, 5.1 * 0.25]), &[0.25, 0.5]);
    assert_eq!((ty.dtype, ty.quant), (DType::F32, None));
    // Integers from the start.
    let given = |scales: [f32; 2]| {
        move |b: &mut Build| {
            let ints = b.constant("bias", DType::I32, &[2], vec![7, 0, 0, 0, 9, 0, 0, 0]);
            let scales = b.floats("bias scales", &[2], &scales);
            b.dq_channel(ints, scales)
        }
    };
    let (seen, ty, bytes) = layer(&given([0.125, 0.25]), &[0.25, 0.5]);
    assert_eq!((ty.dtype, bytes), (DType::I32, integers([7, 9])));
    assert_eq!(seen.ops().len(), 2);
    // In another scale, it is dequantized before.
    let (seen, ty, _) = layer(&given([0.125, 0.5]), &[0.25, 0.5]);
    assert_eq!((ty.dtype, seen.ops().len()), (DType::F32, 3));
}

#[test]
fn what_is_shared_is_taken_apart_and_put_together() {
    let mut b = Build::new();
    let x = b.input(&[4, 4]);
    let qx = b.q(x, X);
    // One dequantization for two operators that fold, and one that does not.
    let real = b.dq(qx, X);
    let y = b.op("aten::relu", vec![real.into()], &[4, 4]);
    let y = b.q(y, X);
    let y = b.dq(y, X);
    let z = b.op("aten::add.Tensor", vec![real.into(), y.into()], &[4, 4]);
    let z = b.q(z, Y);
    let island = b.op("aten::cos", vec![real.into()], &[4, 4]);
    let mut seen = b.fold(&[z, island]);
    assert_eq!(seen.ops(), [Q, DQ, "aten::relu", "aten::add.Tensor", "aten::cos"]);
    assert_eq!(seen.copies.len(), 2);
    let graph = &mut seen.module.graphs[0];
    let remaining = rejoin(graph, &seen.copies, &FxHashSet::default());
    assert_eq!(remaining.len(), seen.before.nodes.len());
    assert_eq!(graph.nodes, seen.before.nodes);
}

#[test]
fn copies_at_a_border_stay() {
    let mut b = Build::new();
    let x = b.real(&[4], X);
    let y = b.op("aten::relu", vec![x.into()], &[4]);
    let y = b.q(y, X);
    let island = b.op("aten::cos", vec![x.into()], &[4]);
    let mut seen = b.fold(&[y, island]);
    let graph = &mut seen.module.graphs[0];
    let copy = graph
        .nodes
        .iter()
        .find(|n| seen.copies.contains_key(&n.name))
        .unwrap()
        .outputs[0];
    let count = graph.nodes.len();
    let border: FxHashSet<ValueId> = [copy].into_iter().collect();
    assert_eq!(rejoin(graph, &seen.copies, &border).len(), count);
    graph.nodes[1].region = Some(delegraph_ir::RegionId(0));
    assert_eq!(rejoin(graph, &seen.copies, &FxHashSet::default()).len(), count);
}

#[test]
fn moves_pass_through_on_equal_scales() {
    type Make = fn(&mut Build, ValueId) -> ValueId;
    let cases: &[(&str, Make)] = &[
        ("aten::view", |b, x| {
            b.op("aten::view", vec![x.into(), Arg::ints(&[4, 2, 4])], &[4, 2, 4])
        }),
        ("aten::permute", |b, x| {
            b.op("aten::permute", vec![x.into(), Arg::ints(&[2, 0, 1])], &[4, 2, 4])
        }),
        ("aten::cat", |b, x| {
            b.op("aten::cat", vec![Arg::Values(vec![x, x]), Arg::int(0)], &[4, 4, 4])
        }),
        ("aten::max_pool2d", |b, x| {
            b.op("aten::max_pool2d", vec![x.into(), Arg::ints(&[2, 2])], &[2, 2, 2])
        }),
    ];
    for (op, make) in cases {
        for other in [X, Y] {
            let mut b = Build::new();
            let x = b.real(&[2, 4, 4], X);
            let y = make(&mut b, x);
            let y = b.q(y, other);
            let ops = b.fold(&[y]).ops();
            let want: &[&str] = if other == X { &[Q, *op] } else { &[Q, DQ, *op, Q] };
            assert_eq!(ops, want, "{op}");
        }
    }
}

#[test]
fn a_pool_with_indices_folds_while_nobody_reads_them() {
    for read in [false, true] {
        let mut b = Build::new();
        let x = b.real(&[1, 2, 4, 4], X);
        let types: Vec<Type> = vec![
            TensorType::fixed(DType::F32, &[1, 2, 2, 2]).into(),
            TensorType::fixed(DType::I64, &[1, 2, 2, 2]).into(),
        ];
        let args = vec![x.into(), Arg::ints(&[2, 2]), Arg::ints(&[2, 2])];
        let pool = b.graph.push("aten::max_pool2d_with_indices", args, types).unwrap();
        let y = b.q(pool[0], X);
        let outputs = if read { vec![y, pool[1]] } else { vec![y] };
        let seen = b.fold(&outputs);
        assert_eq!(seen.ops().len(), if read { 4 } else { 2 });
    }
}

#[test]
fn a_product_with_a_transposed_weight_is_a_linear_layer() {
    for biased in [true, false] {
        let mut b = Build::new();
        let x = b.real(&[2, 4], X);
        let (w, scales) = (b.weight("w", &[3, 4]), b.floats("scales", &[3], &[0.25, 0.5, 1.0]));
        let w = b.dq_channel(w, scales);
        let w = b.op("aten::permute", vec![w.into(), Arg::ints(&[1, 0])], &[4, 3]);
        let y = if biased {
            let bias = b.floats("bias", &[3], &[0.125, 0.25, -0.5]);
            b.op("aten::addmm", vec![bias.into(), x.into(), w.into()], &[2, 3])
        } else {
            b.op("aten::mm", vec![x.into(), w.into()], &[2, 3])
        };
        let y = b.q(y, Y);
        let seen = b.fold(&[y]);
        assert_eq!(seen.ops(), [Q, "aten::linear"]);
        let bias = &seen.folded.graph.nodes[1].args[2];
        assert_eq!(*bias == Arg::None, !biased);
        if let Some(bias) = bias.as_value() {
            assert_eq!(seen.folded.graph.tensor(bias).unwrap().dtype, DType::I32);
        }
        assert_eq!(seen.folded.origins[1].covers.len(), 5);
    }
}

#[test]
fn the_weight_of_a_layer_in_floats_is_folded_alone() {
    let mut b = Build::new();
    let x = b.input(&[2, 8]);
    let w = b.weight("w", &[3, 8]);
    let (scales, zeros) = (
        b.floats("scales", &[3, 2], &[0.5; 6]),
        b.constant("zeros", DType::I8, &[3, 2], vec![1; 6]),
    );
    let (block, low, high) = (Arg::ints(&[1, 4]), Arg::int(-8), Arg::int(7));
    let args = vec![
        w.into(),
        block,
        scales.into(),
        zeros.into(),
        DType::I8.into(),
        low,
        high,
    ];
    let real = b.op("torchao::dequantize_affine", args, &[3, 8]);
    let y = b.op("aten::linear", vec![x.into(), real.into()], &[2, 3]);
    let seen = b.fold(&[y]);
    assert_eq!(seen.ops(), ["aten::linear"]);
    let quant = seen.quant(w);
    let Some(Quant::PerBlock {
        block,
        zero_points: Some(_),
        quant_min: -8,
        quant_max: 7,
        ..
    }) = quant
    else {
        panic!("{quant:?}")
    };
    assert_eq!(block, &[1, 4]);
    assert_eq!(seen.lines(), ["%linear_1: f32[2,3] = aten::linear(%x0, %w)"]);
}

#[test]
fn torchao_blocks_that_span_dimensions_are_simpler_types() {
    for (block, scales, per_axis) in [([1, 8], vec![3], true), ([3, 8], vec![], false)] {
        let mut b = Build::new();
        let x = b.input(&[2, 8]);
        let w = b.weight("w", &[3, 8]);
        let count = scales.iter().product::<i64>() as usize;
        let scales = b.floats("scales", &scales, &vec![0.5; count]);
        let args = vec![w.into(), Arg::ints(&block), scales.into(), Arg::None, DType::I8.into()];
        let real = b.op("torchao::dequantize_affine", args, &[3, 8]);
        let y = b.op("aten::linear", vec![x.into(), real.into()], &[2, 3]);
        let seen = b.fold(&[y]);
        match seen.quant(w) {
            Some(Quant::PerAxis {
                axis: 0,
                quant_min: -128,
                ..
            }) => assert!(per_axis),
            Some(Quant::PerTensor {
                zero_point: 0,
                quant_max: 127,
                ..
            }) => assert!(!per_axis),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn scales_of_the_run_stay_operators() {
    let mut b = Build::new();
    let x = b.input(&[2, 4]);
    let one = |dtype| Type::from(TensorType::fixed(dtype, &[1]));
    let args = vec![
        x.into(),
        Arg::int(-128),
        Arg::int(127),
        Arg::Float(1e-5),
        DType::I8.into(),
    ];
    let chosen = b
        .graph
        .push(
            "quantized_decomposed::choose_qparams.tensor",
            args,
            vec![one(DType::F64), one(DType::I64)],
        )
        .unwrap();
    let args = |x: ValueId| {
        let (low, high) = (Arg::int(-128), Arg::int(127));
        vec![
            x.into(),
            chosen[0].into(),
            chosen[1].into(),
            low,
            high,
            DType::I8.into(),
        ]
    };
    let ty = b.like(x, DType::I8);
    let q = b.typed("quantized_decomposed::quantize_per_tensor.tensor", args(x), ty);
    let real = b.op("quantized_decomposed::dequantize_per_tensor.tensor", args(q), &[2, 4]);
    let (w, scales) = (b.weight("w", &[3, 4]), b.floats("scales", &[3], &[0.25, 0.5, 1.0]));
    let w = b.dq_channel(w, scales);
    let y = b.op("aten::linear", vec![real.into(), w.into()], &[2, 3]);
    let seen = b.fold(&[y]);
    // The weight is folded, the input is not.
    assert_eq!(seen.ops().len(), 4);
    assert_eq!(seen.quant(q), None);
    assert_eq!(*seen.ops().last().unwrap(), "aten::linear");
}

#[test]
fn islands_stay() {
    // Numbers that do not agree.
    let mut b = Build::new();
    let x = b.input(&[4]);
    let x = b.q(x, X);
    let x = b.dq(x, Y);
    let y = b.op("aten::relu", vec![x.into()], &[4]);
    let y = b.q(y, Y);
    let seen = b.fold(&[y]);
    assert_eq!(seen.ops(), [Q, DQ, "aten::relu", Q]);
    assert!(seen.quant(y).is_some());
    // A result that somebody reads in f32.
    let mut b = Build::new();
    let x = b.real(&[4], X);
    let y = b.op("aten::mul.Tensor", vec![x.into(), x.into()], &[4]);
    let z = b.q(y, Y);
    assert_eq!(b.fold(&[y, z]).ops(), [Q, DQ, "aten::mul.Tensor", Q]);
    // An operand in f32.
    let mut b = Build::new();
    let (x, f) = (b.real(&[4], X), b.input(&[4]));
    let y = b.op("aten::add.Tensor", vec![x.into(), f.into()], &[4]);
    let y = b.q(y, Y);
    assert_eq!(b.fold(&[y]).ops(), [Q, DQ, "aten::add.Tensor", Q]);
    // Integers that somebody else reads.
    let mut b = Build::new();
    let x = b.input(&[4]);
    let qx = b.q(x, X);
    let real = b.dq(qx, X);
    let y = b.op("aten::relu", vec![real.into()], &[4]);
    let y = b.q(y, X);
    let ty = TensorType::fixed(DType::I8, &[4]);
    let odd = b.typed("aten::neg", vec![qx.into()], ty);
    assert_eq!(b.fold(&[y, odd]).ops(), [Q, DQ, "aten::relu", Q, "aten::neg"]);
    // A number is none.
    let mut b = Build::new();
    let x = b.real(&[4], X);
    let y = b.op("aten::mul.Tensor", vec![x.into(), 3.0.into()], &[4]);
    let y = b.q(y, Y);
    assert_eq!(b.fold(&[y]).ops(), [Q, "aten::mul.Tensor"]);
}

#[test]
fn what_is_kept_is_not_folded_and_the_rest_is() {
    let mut b = Build::new();
    let x = b.real(&[4], X);
    let y = b.op("aten::relu", vec![x.into()], &[4]);
    let y = b.q(y, X);
    let y = b.dq(y, X);
    let y = b.op("aten::tanh", vec![y.into()], &[4]);
    let y = b.q(y, Y);
    let mut seen = b.fold(&[y]);
    assert_eq!(seen.ops(), [Q, "aten::relu", "aten::tanh"]);
    let module = &mut seen.module;
    let folded = Folder::default().fold(&mut module.constants, &module.graphs[0], &|n| {
        n.op.name() == "aten::tanh"
    });
    let ops: Vec<&str> = folded.graph.nodes.iter().map(|n| n.op.name()).collect();
    assert_eq!(ops, [Q, "aten::relu", DQ, "aten::tanh", Q]);
    // What the view relies on: the quantization before `relu`, its own, and the dequantizations of both values.
    assert_eq!(folded.holds, [true, true, false, true, true, false, false]);
}

#[test]
fn a_wide_concatenation_and_a_long_chain_take_linear_time() {
    let mut b = Build::new();
    let x = b.input(&[1]);
    let qx = b.q(x, X);
    let parts: Vec<ValueId> = (0..20_000).map(|_| b.dq(qx, X)).collect();
    let y = b.op("aten::cat", vec![Arg::Values(parts), Arg::int(0)], &[20_000]);
    let mut y = b.q(y, X);
    for _ in 0..20_000 {
        let real = b.dq(y, X);
        let z = b.op("aten::relu", vec![real.into()], &[20_000]);
        y = b.q(z, X);
    }
    let started = std::time::Instant::now();
    let seen = b.fold(&[y]);
    assert_eq!(seen.ops().len(), 20_002);
    assert!(started.elapsed().as_secs() < 20);
}

#[test]
fn unsigned_sixteen_bits_fold_as_eight_do() {
    let mut b = Build::new();
    let args = |x: ValueId| -> Vec<Arg> {
        vec![
            x.into(),
            0.5.into(),
            Arg::int(32768),
            Arg::int(0),
            Arg::int(65535),
            DType::U16.into(),
        ]
    };
    let x = b.input(&[2, 4]);
    let ty = b.like(x, DType::U16);
    let q = b.typed(Q, args(x), ty.clone());
    let x = b.op(DQ, args(q), &[2, 4]);
    let gamma = b.floats("gamma", &[4], &[1.0; 4]);
    let y = b.op(
        "aten::layer_norm",
        vec![x.into(), Arg::ints(&[4]), gamma.into()],
        &[2, 4],
    );
    let q = b.typed(Q, args(y), ty);
    let seen = b.fold(&[q]);
    assert_eq!(seen.ops(), [Q, "aten::layer_norm"]);
    assert!(matches!(
        seen.quant(q),
        Some(Quant::PerTensor {
            zero_point: 32768,
            quant_max: 65535,
            ..
        })
    ));
}

#[test]
fn a_transposed_convolution_has_the_scales_of_a_group_once_a_group() {
    let mut b = Build::new();
    let x = b.real(&[1, 2, 4], X);
    // Two groups of one input and two output channels.
    let (w, scales) = (b.weight("w", &[2, 2, 3]), b.floats("scales", &[2], &[0.25, 0.5]));
    let args = vec![
        w.into(),
        scales.into(),
        Arg::None,
        Arg::int(1),
        Arg::int(-128),
        Arg::int(127),
        DType::I8.into(),
    ];
    let w = b.op("quantized_decomposed::dequantize_per_channel", args, &[2, 2, 3]);
    let bias = b.floats("bias", &[4], &[0.125, 0.5, -0.25, 0.75]);
    let one = || Arg::ints(&[1]);
    let args = vec![
        x.into(),
        w.into(),
        bias.into(),
        one(),
        Arg::ints(&[0]),
        Arg::ints(&[0]),
        Arg::int(2),
        one(),
    ];
    let y = b.op("aten::conv_transpose1d", args, &[1, 4, 6]);
    let y = b.q(y, Y);
    let seen = b.fold(&[y]);
    assert_eq!(seen.ops(), [Q, "aten::conv_transpose1d"]);
    let bias = seen.folded.graph.nodes[1].args[2].as_value().unwrap();
    let delegraph_ir::Def::Constant(id) = seen.folded.graph.value(bias).def else {
        panic!("{}", seen.folded.graph)
    };
    // In steps of 0.5 times 0.25, 0.5, 0.25, 0.5.
    let want: Vec<u8> = [1i32, 2, -2, 3].iter().flat_map(|i| i.to_le_bytes()).collect();
    assert_eq!(seen.module.constants[id].to_contiguous().unwrap().as_slice(), want);
}
