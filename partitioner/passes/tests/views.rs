//! Views that compute the same as the graph: batch norms folded, operators raised, channels last. Both are computed by the
//! portable kernels and compared.

use delegraph_ir::{Arg, Constant, Def, Graph, Module, Node, Op, TensorType, ValueId, fill_defaults, verify};
use delegraph_passes::batch_norm::NormFolder;
use delegraph_passes::channels_last::{channels_last, is_spatial};
use delegraph_passes::decompose::decompose;
use delegraph_passes::raise::raise;
use delegraph_passes::{Folded, run, to_portable};
use delegraph_types::{DType, Dims};
use rustc_hash::FxHashMap;

/// Numbers that differ, from -1 to 1.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn float(&mut self) -> f32 {
        (self.next() % 2001) as f32 / 1000.0 - 1.0
    }

    fn below(&mut self, count: u64) -> u64 {
        self.next() % count
    }
}

struct Build {
    module: Module,
    graph: Graph,
    noise: Noise,
}

impl Build {
    fn new() -> Build {
        Build {
            module: Module::default(),
            graph: Graph::new("forward"),
            noise: Noise(7),
        }
    }

    fn input(&mut self, sizes: &[i64]) -> ValueId {
        let name = format!("x{}", self.graph.inputs.len());
        self.graph.add_input(name, TensorType::fixed(DType::F32, sizes).into())
    }

    /// A constant of noise around a number.
    fn around(&mut self, middle: f32, sizes: &[i64]) -> ValueId {
        let count = sizes.iter().product::<i64>();
        let bytes: Vec<u8> = (0..count)
            .flat_map(|_| (middle + self.noise.float() * 0.9).to_le_bytes())
            .collect();
        let name = format!("c{}", self.module.constants.len());
        let constant = Constant::contiguous(&name, DType::F32, Dims::new(sizes).unwrap(), bytes.into());
        let id = self.module.constants.push(constant);
        self.graph.add_constant(name, TensorType::fixed(DType::F32, sizes), id)
    }

    fn op(&mut self, op: &str, args: Vec<Arg>, sizes: &[i64]) -> ValueId {
        let ty = TensorType::fixed(DType::F32, sizes);
        self.graph.push(op, args, vec![ty.into()]).unwrap()[0]
    }

    fn sizes(&self, value: ValueId) -> Vec<i64> {
        self.graph
            .tensor(value)
            .unwrap()
            .static_dims()
            .unwrap()
            .as_slice()
            .to_vec()
    }

    fn norm(&mut self, x: ValueId, affine: bool, core: bool) -> ValueId {
        let sizes = self.sizes(x);
        let channels = [sizes[1]];
        let mut optional = |middle| match affine {
            true => self.around(middle, &channels).into(),
            false => Arg::None,
        };
        let (gamma, beta) = (optional(1.0), optional(0.0));
        let (mean, variance) = (self.around(0.0, &channels), self.around(1.5, &channels));
        let mut args = vec![x.into(), gamma, beta, mean.into(), variance.into()];
        if core {
            args.extend([Arg::Float(0.1), Arg::Float(1e-3)]);
            let line = || TensorType::fixed(DType::F32, &[0]).into();
            let types = vec![TensorType::fixed(DType::F32, &sizes).into(), line(), line()];
            let op = "aten::_native_batch_norm_legit_no_training";
            return self.graph.push(op, args, types).unwrap()[0];
        }
        args.extend([Arg::Bool(false), Arg::Float(0.1), Arg::Float(1e-3), Arg::Bool(true)]);
        self.op("aten::batch_norm", args, &sizes)
    }

    fn finish(mut self, outputs: &[ValueId]) -> Module {
        outputs.iter().for_each(|v| self.graph.add_output(*v));
        self.module.graphs.push(self.graph);
        verify(&self.module).unwrap();
        self.module
    }
}

/// The results of a graph over inputs of noise, by the portable kernels.
fn results(module: &Module, graph: &Graph) -> Vec<Vec<f32>> {
    let mut module = Module {
        graphs: vec![graph.clone()],
        ..module.clone()
    };
    to_portable(&mut module).unwrap();
    let graph = &module.graphs[0];
    let mut noise = Noise(99);
    let mut known: FxHashMap<ValueId, Constant> = FxHashMap::default();
    for (i, value) in graph.values.iter().enumerate() {
        let id = ValueId::from(i);
        match value.def {
            Def::Constant(constant) => _ = known.insert(id, module.constants[constant].clone()),
            Def::Input => {
                let sizes = graph.tensor(id).unwrap().static_dims().unwrap();
                let count = sizes.numel().unwrap();
                let bytes: Vec<u8> = (0..count).flat_map(|_| noise.float().to_le_bytes()).collect();
                known.insert(id, Constant::contiguous("x", DType::F32, sizes, bytes.into()));
            }
            _ => {}
        }
    }
    for node in &graph.nodes {
        let types: Vec<TensorType> = node.outputs.iter().map(|v| graph.tensor(*v).unwrap().clone()).collect();
        let made = run(node.op, &node.args, &|v| known.get(&v).cloned(), &types);
        let made = made.unwrap_or_else(|error| panic!("{}: {error}", node.name));
        for (value, (dtype, sizes, bytes)) in node.outputs.iter().zip(made) {
            known.insert(*value, Constant::contiguous("y", dtype, sizes, bytes));
        }
    }
    let floats = |value: ValueId| -> Vec<f32> {
        let bytes = known[&value].to_contiguous().unwrap();
        let items = bytes.as_slice().chunks_exact(4);
        items.map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    };
    graph.results().map(floats).collect()
}

/// The largest distance of two results, which have as many elements.
fn distance(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    assert_eq!(
        a.iter().map(Vec::len).collect::<Vec<_>>(),
        b.iter().map(Vec::len).collect::<Vec<_>>()
    );
    let pairs = a.iter().flatten().zip(b.iter().flatten());
    assert!(a.iter().flatten().any(|x| x.abs() > 1e-3), "nothing to compare");
    pairs
        .map(|(a, b)| if a == b { 0.0 } else { (a - b).abs() })
        .fold(0.0, f32::max)
}

fn operators(graph: &Graph) -> Vec<&'static str> {
    graph.nodes.iter().map(|n| n.op.name()).collect()
}

fn covers(view: &Folded) -> Vec<usize> {
    view.origins.iter().map(|o| o.covers.len()).collect()
}

fn fold_norms(module: &mut Module) -> Option<Folded> {
    let graph = module.graphs[0].clone();
    NormFolder::default().fold(&mut module.constants, &graph, &|_| false)
}

/// A layer on an input, as arguments from its weight on.
type Layer = (
    &'static str,
    &'static [i64],
    &'static [i64],
    &'static [i64],
    fn(Arg, Arg, Arg) -> Vec<Arg>,
);

const LAYERS: [Layer; 6] = [
    ("aten::conv1d", &[2, 4, 9], &[6, 2, 3], &[2, 6, 7], |x, w, b| {
        vec![x, w, b, Arg::ints(&[1]), Arg::ints(&[0]), Arg::ints(&[1]), Arg::int(2)]
    }),
    (
        "aten::conv2d",
        &[2, 4, 5, 6],
        &[6, 4, 3, 3],
        &[2, 6, 5, 6],
        |x, w, b| vec![x, w, b, Arg::ints(&[1, 1]), Arg::ints(&[1, 1])],
    ),
    (
        "aten::convolution",
        &[1, 4, 5, 5],
        &[4, 1, 3, 3],
        &[1, 4, 3, 3],
        |x, w, b| {
            let [one, zero] = [1, 0].map(|n| Arg::ints(&[n, n]));
            vec![
                x,
                w,
                b,
                one.clone(),
                zero.clone(),
                one,
                Arg::Bool(false),
                zero,
                Arg::int(4),
            ]
        },
    ),
    (
        "aten::convolution",
        &[2, 4, 3, 3],
        &[4, 3, 2, 2],
        &[2, 6, 4, 4],
        |x, w, b| {
            let [one, zero] = [1, 0].map(|n| Arg::ints(&[n, n]));
            vec![
                x,
                w,
                b,
                one.clone(),
                zero.clone(),
                one,
                Arg::Bool(true),
                zero,
                Arg::int(2),
            ]
        },
    ),
    (
        "aten::conv_transpose2d.input",
        &[1, 3, 3, 3],
        &[3, 5, 2, 2],
        &[1, 5, 4, 4],
        |x, w, b| vec![x, w, b],
    ),
    ("aten::linear", &[7, 4], &[5, 4], &[7, 5], |x, w, b| vec![x, w, b]),
];

#[test]
fn a_layer_with_a_folded_batch_norm_computes_what_both_compute() {
    for (op, input, weight, output, args) in LAYERS {
        for case in 0..8 {
            let [biased, affine, core] = [1, 2, 4].map(|bit| case & bit != 0);
            let mut b = Build::new();
            let x = b.input(input);
            let w = b.around(0.0, weight).into();
            let bias = if biased {
                b.around(0.5, &output[1..2]).into()
            } else {
                Arg::None
            };
            let y = b.op(op, args(x.into(), w, bias), output);
            let y = b.norm(y, affine, core);
            let y = b.op("aten::relu", vec![y.into()], output);
            let mut module = b.finish(&[y]);
            let view = fold_norms(&mut module).unwrap();
            assert_eq!(operators(&view.graph), [op, "aten::relu"], "{case}");
            assert_eq!((covers(&view), view.view_of.len()), (vec![2, 1], 3));
            let (plain, folded) = (results(&module, &module.graphs[0]), results(&module, &view.graph));
            let distance = distance(&plain, &folded);
            assert!(distance < 1e-5, "{op} {case}: {distance}");
        }
    }
}

#[test]
fn a_batch_norm_that_is_not_the_layer_s_alone_stays() {
    let conv = |b: &mut Build, x| {
        let w = b.around(0.0, &[4, 4, 1, 1]);
        b.op("aten::conv2d", vec![x, w.into()], &[1, 4, 3, 3])
    };
    let cases: [fn(&mut Build, ValueId, ValueId) -> Vec<ValueId>; 4] = [
        // The layer's result is read besides.
        |b, _, y| vec![b.norm(y, true, false), y],
        // No layer before it.
        |b, x, _| vec![b.norm(x, true, false)],
        |b, _, y| {
            let y = b.op("aten::relu", vec![y.into()], &[1, 4, 3, 3]);
            vec![b.norm(y, true, false)]
        },
        // The statistics are no constants.
        |b, _, y| {
            let mean = b.input(&[4]);
            let variance = b.around(1.0, &[4]);
            let mut args = vec![y.into(), Arg::None, Arg::None, mean.into(), variance.into()];
            args.extend([Arg::Bool(false), Arg::Float(0.1), Arg::Float(1e-3), Arg::Bool(true)]);
            vec![b.op("aten::batch_norm", args, &[1, 4, 3, 3])]
        },
    ];
    for (i, case) in cases.iter().enumerate() {
        let mut b = Build::new();
        let x = b.input(&[1, 4, 3, 3]);
        let y = conv(&mut b, x.into());
        let outputs = case(&mut b, x, y);
        let mut module = b.finish(&outputs);
        assert!(fold_norms(&mut module).is_none(), "{i}");
    }
    // A linear layer over rows of more dimensions has its channels elsewhere.
    let mut b = Build::new();
    let x = b.input(&[2, 5, 4]);
    let w = b.around(0.0, &[5, 4]);
    let y = b.op("aten::linear", vec![x.into(), w.into()], &[2, 5, 5]);
    let y = b.norm(y, true, false);
    assert!(fold_norms(&mut b.finish(&[y])).is_none());
}

#[test]
fn what_was_folded_once_makes_no_constants_again_and_a_refused_layer_stays() {
    let mut b = Build::new();
    let x = b.input(&[1, 4, 3, 3]);
    let w = b.around(0.0, &[4, 4, 1, 1]);
    let y = b.op("aten::conv2d", vec![x.into(), w.into()], &[1, 4, 3, 3]);
    let y = b.norm(y, true, false);
    let mut module = b.finish(&[y]);
    let graph = module.graphs[0].clone();
    let mut folder = NormFolder::default();
    let mut fold = |module: &mut Module, keep: &dyn Fn(&Node) -> bool| {
        let folded = folder.fold(&mut module.constants, &graph, keep).is_some();
        (folded, module.constants.len())
    };
    assert_eq!(fold(&mut module, &|_| false), (true, 7));
    assert_eq!(fold(&mut module, &|_| false), (true, 7));
    assert_eq!(fold(&mut module, &|n| n.name == "conv2d_0"), (false, 7));
}

/// Attention as written by hand: `softmax(q kᵀ / √8 + mask) v`.
fn by_hand(b: &mut Build, masked: bool) -> ValueId {
    let [q, k, v] = [[2, 3, 5, 8], [2, 3, 6, 8], [2, 3, 6, 4]].map(|sizes| b.input(&sizes));
    let k = b.op(
        "aten::transpose.int",
        vec![k.into(), Arg::int(-2), Arg::int(-1)],
        &[2, 3, 8, 6],
    );
    let s = b.op("aten::matmul", vec![q.into(), k.into()], &[2, 3, 5, 6]);
    let mut s = b.op(
        "aten::div.Tensor",
        vec![s.into(), Arg::Float(8f64.sqrt())],
        &[2, 3, 5, 6],
    );
    if masked {
        let mask = b.input(&[5, 6]);
        s = b.op("aten::add.Tensor", vec![s.into(), mask.into()], &[2, 3, 5, 6]);
    }
    let p = b.op("aten::softmax.int", vec![s.into(), Arg::int(-1)], &[2, 3, 5, 6]);
    let p = b.op(
        "aten::dropout",
        vec![p.into(), Arg::Float(0.1), Arg::Bool(false)],
        &[2, 3, 5, 6],
    );
    b.op("aten::matmul", vec![p.into(), v.into()], &[2, 3, 5, 4])
}

fn keeps_attention(graph: &Graph) -> Option<Folded> {
    raise(graph, &|name| name == "aten::scaled_dot_product_attention", &|_| false)
}

const ATTENTION: &str = "aten::scaled_dot_product_attention";

#[test]
fn attention_by_hand_is_raised() {
    for masked in [false, true] {
        let mut b = Build::new();
        let y = by_hand(&mut b, masked);
        let module = b.finish(&[y]);
        let view = keeps_attention(&module.graphs[0]).unwrap();
        assert_eq!(operators(&view.graph), [ATTENTION]);
        let raised = &view.graph.nodes[0];
        let inputs = module.graphs[0].inputs.len();
        assert_eq!(raised.inputs().count(), inputs);
        // The usual scale is not written.
        assert_eq!(raised.arg("scale"), Some(&Arg::None));
        let distance = distance(&results(&module, &module.graphs[0]), &results(&module, &view.graph));
        assert!(distance < 1e-6, "{distance}");
    }
}

#[test]
fn attention_as_it_is_decomposed_here_is_raised_again() {
    for (masked, scale) in [(false, Arg::None), (true, Arg::Float(0.25))] {
        let mut b = Build::new();
        let [q, k, v] = [[2, 3, 5, 8], [2, 3, 6, 8], [2, 3, 6, 4]].map(|sizes| b.input(&sizes));
        let mask = if masked {
            b.input(&[1, 1, 5, 6]).into()
        } else {
            Arg::None
        };
        let args = vec![
            q.into(),
            k.into(),
            v.into(),
            mask,
            Arg::Float(0.0),
            Arg::Bool(false),
            scale.clone(),
        ];
        let y = b.op(ATTENTION, args, &[2, 3, 5, 4]);
        let mut module = b.finish(&[y]);
        let whole = results(&module, &module.graphs[0]);
        decompose(&mut module, &|_, _| false).unwrap();
        let view = keeps_attention(&module.graphs[0]).unwrap();
        assert_eq!(operators(&view.graph), [ATTENTION], "{masked}");
        assert_eq!(view.graph.nodes[0].arg("scale"), Some(&scale));
        assert!(distance(&whole, &results(&module, &view.graph)) < 1e-6);
    }
}

/// As PyTorch exports it to core ATen: square roots of the scale, `bmm`, and a guard for rows that are hidden.
fn as_exported(b: &mut Build) -> ValueId {
    let [q, k, v] = [[2, 3, 5, 8], [2, 3, 6, 8], [2, 3, 6, 4]].map(|sizes| b.input(&sizes));
    let mask = b.around(0.0, &[5, 6]);
    let root = || Arg::Float(8f64.powf(-0.25));
    let lead = |b: &mut Build, x: ValueId| {
        let sizes = b.sizes(x);
        let x = b.op("aten::expand", vec![x.into(), Arg::ints(&sizes)], &sizes);
        let merged = [6, sizes[2], sizes[3]];
        b.op("aten::view", vec![x.into(), Arg::ints(&merged)], &merged)
    };
    let q = b.op("aten::mul.Scalar", vec![q.into(), root()], &[2, 3, 5, 8]);
    let k = b.op("aten::permute", vec![k.into(), Arg::ints(&[0, 1, 3, 2])], &[2, 3, 8, 6]);
    let k = b.op("aten::mul.Scalar", vec![k.into(), root()], &[2, 3, 8, 6]);
    let (q, k) = (lead(b, q), lead(b, k));
    let s = b.op("aten::bmm", vec![q.into(), k.into()], &[6, 5, 6]);
    let sizes = [2, 3, 5, 6];
    let s = b.op("aten::view", vec![s.into(), Arg::ints(&sizes)], &sizes);
    let s = b.op("aten::add.Tensor", vec![s.into(), mask.into()], &sizes);
    let p = b.op("aten::_softmax", vec![s.into(), Arg::int(-1), Arg::Bool(false)], &sizes);
    let truth = |b: &mut Build, op: &str, args: Vec<Arg>, sizes: &[i64]| {
        let ty = TensorType::fixed(DType::Bool, sizes);
        b.graph.push(op, args, vec![ty.into()]).unwrap()[0]
    };
    let hidden = truth(
        b,
        "aten::eq.Scalar",
        vec![s.into(), Arg::Float(f64::NEG_INFINITY)],
        &sizes,
    );
    let seen = truth(b, "aten::logical_not", vec![hidden.into()], &sizes);
    let some = truth(
        b,
        "aten::any.dim",
        vec![seen.into(), Arg::int(-1), Arg::Bool(true)],
        &[2, 3, 5, 1],
    );
    let none = truth(b, "aten::logical_not", vec![some.into()], &[2, 3, 5, 1]);
    let zeros = b.op("aten::full_like", vec![p.into(), Arg::int(0)], &sizes);
    let p = b.op("aten::where.self", vec![none.into(), zeros.into(), p.into()], &sizes);
    let (p, v) = (lead(b, p), lead(b, v));
    let y = b.op("aten::bmm", vec![p.into(), v.into()], &[6, 5, 4]);
    b.op("aten::view", vec![y.into(), Arg::ints(&[2, 3, 5, 4])], &[2, 3, 5, 4])
}

#[test]
fn attention_as_exported_to_core_aten_is_raised() {
    let mut b = Build::new();
    let y = as_exported(&mut b);
    let module = b.finish(&[y]);
    let view = keeps_attention(&module.graphs[0]).unwrap();
    assert_eq!(operators(&view.graph), [ATTENTION]);
    assert_eq!(covers(&view), [module.graphs[0].nodes.len()]);
    assert_eq!(view.graph.nodes[0].arg("scale"), Some(&Arg::None));
    let distance = distance(&results(&module, &module.graphs[0]), &results(&module, &view.graph));
    assert!(distance < 1e-6, "{distance}");
    // Nobody asked, and one that was refused.
    assert!(raise(&module.graphs[0], &|_| false, &|_| false).is_none());
    assert!(raise(&module.graphs[0], &|_| true, &|n| n.op.name() == "aten::_softmax").is_none());
}

#[test]
fn what_is_no_attention_or_is_read_inside_stays() {
    let changes: [(&str, fn(&mut Graph)); 7] = [
        ("softmax over another dimension", |g| {
            let at = g.nodes.iter().position(|n| n.op.name() == "aten::softmax.int").unwrap();
            g.nodes[at].args[1] = Arg::int(0);
        }),
        ("the weights are a result", |g| {
            let at = g.nodes.iter().position(|n| n.op.name() == "aten::softmax.int").unwrap();
            let value = g.nodes[at].outputs[0];
            g.add_output(value);
        }),
        ("the scores are a result", |g| {
            let value = g.nodes[1].outputs[0];
            g.add_output(value);
        }),
        ("dropout in training", |g| {
            let at = g.nodes.iter().position(|n| n.op.name() == "aten::dropout").unwrap();
            g.nodes[at].args[2] = Arg::Bool(true);
        }),
        ("the weights stand second", |g| {
            let at = g.nodes.len() - 1;
            g.nodes[at].args.swap(0, 1);
        }),
        ("a sum with a factor", |g| {
            let at = g.nodes.iter().position(|n| n.op.name() == "aten::add.Tensor").unwrap();
            g.nodes[at].args[2] = Arg::int(2);
        }),
        ("a key that is not turned", |g| {
            let at = g
                .nodes
                .iter()
                .position(|n| n.op.name() == "aten::transpose.int")
                .unwrap();
            g.nodes[at].args[2] = Arg::int(1);
        }),
    ];
    for (what, change) in changes {
        let mut b = Build::new();
        let y = by_hand(&mut b, true);
        let mut module = b.finish(&[y]);
        change(&mut module.graphs[0]);
        assert!(keeps_attention(&module.graphs[0]).is_none(), "{what}");
    }
}

#[test]
fn a_product_with_a_turned_weight_is_raised_to_a_linear_layer() {
    let wanted = |name: &str| name == "aten::linear";
    for biased in [false, true] {
        for rows in [false, true] {
            let mut b = Build::new();
            let x = b.input(if rows { &[2, 3, 4] } else { &[6, 4] });
            let w = b.around(0.0, &[5, 4]);
            let w = b.op("aten::permute", vec![w.into(), Arg::ints(&[1, 0])], &[4, 5]);
            let x = match rows {
                true => b.op("aten::view", vec![x.into(), Arg::ints(&[6, 4])], &[6, 4]),
                false => x,
            };
            let mut y = match biased {
                true => {
                    let bias = b.around(0.0, &[5]);
                    b.op("aten::addmm", vec![bias.into(), x.into(), w.into()], &[6, 5])
                }
                false => b.op("aten::mm", vec![x.into(), w.into()], &[6, 5]),
            };
            if rows {
                y = b.op("aten::view", vec![y.into(), Arg::ints(&[2, 3, 5])], &[2, 3, 5]);
            }
            let module = b.finish(&[y]);
            let view = raise(&module.graphs[0], &wanted, &|_| false).unwrap();
            assert_eq!(operators(&view.graph), ["aten::linear"]);
            let distance = distance(&results(&module, &module.graphs[0]), &results(&module, &view.graph));
            assert!(distance < 1e-6, "{distance}");
        }
    }
}

/// A graph with channels last, as one that says the same by the table: each spatial operator between permutations.
fn by_the_table(laid: &Graph) -> Graph {
    let mut graph = laid.clone();
    let permute = Op::find("aten::permute").unwrap();
    graph.nodes.clear();
    let turn = |graph: &mut Graph, from: ValueId, order: [i64; 4], to: Option<ValueId>| {
        let shape = &graph.tensor(from).unwrap().shape;
        let shape = order.map(|d| shape[d as usize].clone()).to_vec();
        let ty = TensorType::new(graph.tensor(from).unwrap().dtype, shape);
        let name = format!("t{}", graph.values.len());
        let to = to.unwrap_or_else(|| graph.add_value(name.clone(), ty.into(), Def::Node));
        graph.nodes.push(Node {
            name,
            op: permute,
            args: fill_defaults(permute, vec![from.into(), Arg::ints(&order)]),
            outputs: vec![to],
            source: None,
            region: None,
        });
        to
    };
    for node in &laid.nodes {
        let rank = |v: ValueId| laid.tensor(v).map_or(0, TensorType::rank);
        let input = node.args[0]
            .as_value()
            .filter(|v| is_spatial(node.op.name()) && rank(*v) == 4);
        let Some(input) = input else {
            graph.nodes.push(node.clone());
            continue;
        };
        let mut node = node.clone();
        node.args[0] = turn(&mut graph, input, [0, 3, 1, 2], None).into();
        let turned: Vec<ValueId> = node.outputs.clone();
        for output in node.outputs.iter_mut().filter(|v| rank(**v) == 4) {
            let shape = &laid.tensor(*output).unwrap().shape;
            let shape = [0, 3, 1, 2].map(|d: usize| shape[d].clone()).to_vec();
            let ty = TensorType::new(laid.tensor(*output).unwrap().dtype, shape);
            *output = graph.add_value(format!("s{}", graph.values.len()), ty.into(), Def::Node);
        }
        let made = node.outputs.clone();
        graph.nodes.push(node);
        for (made, turned) in made.into_iter().zip(turned).filter(|(_, t)| rank(*t) == 4) {
            turn(&mut graph, made, [0, 2, 3, 1], Some(turned));
        }
    }
    graph
}

fn laid_out(module: &Module) -> Graph {
    let graph = &module.graphs[0];
    let nodes: Vec<_> = graph.node_ids().collect();
    let outputs: Vec<ValueId> = graph.results().collect();
    let (mut laid, origins) = channels_last(graph, &nodes, &outputs);
    assert_eq!(laid.nodes.len(), origins.len());
    laid.inputs.clone_from(&graph.inputs);
    laid.outputs.clone_from(&graph.outputs);
    laid
}

fn same_laid_out(module: &Module) -> Graph {
    let laid = laid_out(module);
    let table = by_the_table(&laid);
    let (plain, turned) = (results(module, &module.graphs[0]), results(module, &table));
    assert!(distance(&plain, &turned) < 1e-5);
    laid
}

fn conv(b: &mut Build, x: ValueId, channels: i64) -> ValueId {
    let mut sizes = b.sizes(x);
    let w = b.around(0.0, &[channels, sizes[1], 3, 3]);
    sizes[1] = channels;
    let args = vec![x.into(), w.into(), Arg::None, Arg::ints(&[1, 1]), Arg::ints(&[1, 1])];
    b.op("aten::conv2d", args, &sizes)
}

#[test]
fn permutations_stand_at_the_border_alone() {
    let mut b = Build::new();
    let x = b.input(&[2, 3, 6, 4]);
    let y = conv(&mut b, x, 5);
    let y = b.op("aten::relu", vec![y.into()], &[2, 5, 6, 4]);
    let z = conv(&mut b, y, 5);
    let y = b.op("aten::add.Tensor", vec![z.into(), y.into()], &[2, 5, 6, 4]);
    let y = b.norm(y, true, false);
    let y = b.op("aten::cat", vec![Arg::Values(vec![y, z]), Arg::int(1)], &[2, 10, 6, 4]);
    let args = vec![y.into(), Arg::ints(&[2, 2]), Arg::ints(&[2, 2])];
    let y = b.op("aten::max_pool2d", args, &[2, 10, 3, 2]);
    let mean = b.op("aten::mean.dim", vec![y.into(), Arg::ints(&[-1, -2])], &[2, 10]);
    let module = b.finish(&[y, mean]);
    let laid = same_laid_out(&module);
    let permutes = operators(&laid).iter().filter(|op| **op == "aten::permute").count();
    // One for the input, one for the result of four dimensions.
    assert_eq!((permutes, laid.nodes.len()), (2, module.graphs[0].nodes.len() + 2));
    let cat = laid.nodes.iter().find(|n| n.op.name() == "aten::cat").unwrap();
    assert_eq!(cat.args[1], Arg::int(3));
    let pool = laid.nodes.iter().find(|n| n.op.name() == "aten::max_pool2d").unwrap();
    let sizes = laid.tensor(pool.outputs[0]).unwrap().static_dims().unwrap();
    assert_eq!(sizes.as_slice(), [2, 3, 2, 10]);
}

#[test]
fn an_exporter_s_own_permutation_cancels() {
    let mut b = Build::new();
    let x = b.input(&[1, 4, 5, 3]);
    let x = b.op(
        "aten::permute",
        vec![x.into(), Arg::ints(&[0, 3, 1, -2 + 4])],
        &[1, 3, 4, 5],
    );
    let y = conv(&mut b, x, 2);
    let y = b.op("aten::mean.dim", vec![y.into(), Arg::ints(&[2, 3])], &[1, 2]);
    let laid = same_laid_out(&b.finish(&[y]));
    assert_eq!(operators(&laid), ["aten::conv2d", "aten::mean.dim"]);
}

#[test]
fn made_up_networks_are_the_same_with_channels_last() {
    let mut turned = 0;
    for seed in 0..150 {
        let mut b = Build::new();
        b.noise = Noise(seed);
        let mut made = vec![b.input(&[1, 3, 4, 4])];
        for _ in 0..b.noise.below(9) + 2 {
            let at = b.noise.below(made.len() as u64) as usize;
            let x = made[at];
            let sizes = b.sizes(x);
            let same = |b: &mut Build, op: &str, args: Vec<Arg>| b.op(op, args, &sizes);
            let y = match b.noise.below(11) {
                0 | 1 => conv(&mut b, x, 3),
                2 => same(&mut b, "aten::relu", vec![x.into()]),
                3 | 4 => {
                    let other = made[b.noise.below(made.len() as u64) as usize];
                    same(&mut b, "aten::mul.Tensor", vec![x.into(), other.into()])
                }
                5 => b.norm(x, true, seed % 2 == 0),
                6 => {
                    let args = vec![x.into(), Arg::ints(&[3, 3]), Arg::ints(&[1, 1]), Arg::ints(&[1, 1])];
                    same(&mut b, "aten::avg_pool2d", args)
                }
                // Not on single elements: the layout ends here.
                7 => same(&mut b, "aten::softmax.int", vec![x.into(), Arg::int(1)]),
                8 => {
                    let mean = b.op(
                        "aten::mean.dim",
                        vec![x.into(), Arg::ints(&[2, 3]), Arg::Bool(true)],
                        &[1, 3, 1, 1],
                    );
                    same(&mut b, "aten::add.Tensor", vec![x.into(), mean.into()])
                }
                9 => {
                    let other = made[b.noise.below(made.len() as u64) as usize];
                    let dim = [1, -3][b.noise.below(2) as usize];
                    let y = b.op(
                        "aten::cat",
                        vec![Arg::Values(vec![x, other]), Arg::int(dim)],
                        &[1, 6, 4, 4],
                    );
                    let w = b.around(0.0, &[3, 6, 1, 1]);
                    b.op("aten::conv2d", vec![y.into(), w.into()], &[1, 3, 4, 4])
                }
                _ => {
                    let w = b.around(0.0, &[1, 3, 1, 1]);
                    same(&mut b, "aten::add.Tensor", vec![x.into(), w.into()])
                }
            };
            made.push(y);
        }
        let last = *made.last().unwrap();
        let first = made[b.noise.below(made.len() as u64) as usize];
        let module = b.finish(&[last, first]);
        let laid = same_laid_out(&module);
        turned += laid
            .nodes
            .iter()
            .filter(|n| n.outputs.iter().any(|v| v.index() >= module.graphs[0].values.len()))
            .count();
    }
    assert!(turned > 300, "{turned}");
}
