//! What products become, without a device: which kernels, how many dispatches, which parts.

use crate::encoder::Encoder;
use crate::facts::{Facts, Kind};
use crate::program::Plan;
use crate::schedule::Schedule;
use delegraph_sdk::DType;
use delegraph_sdk::image::{Arg, ImageBuilder, Sizes, Type, ValueIndex, verify};

fn tensor(image: &mut ImageBuilder, dtype: DType, sizes: &[i64]) -> Type {
    Type::Tensor {
        dtype,
        dims: sizes.iter().map(|s| image.int(*s)).collect(),
        quant: None,
    }
}

struct Graph {
    image: ImageBuilder,
}

impl Graph {
    fn new() -> Graph {
        Graph {
            image: ImageBuilder::new("g"),
        }
    }

    fn input(&mut self, name: &str, sizes: &[i64]) -> ValueIndex {
        let ty = tensor(&mut self.image, DType::F32, sizes);
        self.image.input(name, &ty)
    }

    fn node(&mut self, op: &str, args: &[Arg], sizes: &[i64]) -> ValueIndex {
        let ty = tensor(&mut self.image, DType::F32, sizes);
        self.image.node(op, op, args, &[("y", &ty)], "")[0]
    }

    fn lowered(mut self, output: ValueIndex, facts: &Facts) -> Schedule {
        self.image.output(output);
        let bytes = self.image.finish().unwrap();
        let view = verify(&bytes).unwrap();
        Encoder::encode(view, &Plan::default(), &Sizes::new(&view), facts).unwrap()
    }
}

fn device(kind: Kind) -> Facts {
    Facts {
        kind,
        ..Facts::weakest()
    }
}

/// The kernels; without the mark of those that have nothing behind them.
fn kernels(schedule: &Schedule) -> Vec<&'static str> {
    let names = schedule.dispatches.iter().map(|d| d.kernel.name);
    names.map(|name| name.strip_suffix("_light").unwrap_or(name)).collect()
}

fn param(schedule: &Schedule, dispatch: usize, at: usize) -> u32 {
    schedule.params[schedule.dispatches[dispatch].params.start + at]
}

#[test]
fn a_weight_that_no_device_binds_is_read_in_parts() {
    let (n, k) = (100_003u32, 512u32);
    let mut graph = Graph::new();
    let x = graph.input("x", &[1, i64::from(k)]);
    let ty = tensor(&mut graph.image, DType::F32, &[i64::from(n), i64::from(k)]);
    let weight = graph.image.weight(0, DType::F32, &[i64::from(n), i64::from(k)]);
    let weight = graph.image.weight_value("w", &ty, weight);
    let args = [Arg::Value(x), Arg::Value(weight), Arg::None];
    let y = graph.node("aten::linear", &args, &[1, i64::from(n)]);
    let facts = device(Kind::Software);
    let schedule = graph.lowered(y, &facts);
    assert!(schedule.dispatches.len() > 1);
    let (mut columns, mut bytes) = (0, 0);
    for (i, dispatch) in schedule.dispatches.iter().enumerate() {
        let part = dispatch.bindings[1];
        assert!(part.bytes <= facts.limits.storage_range);
        assert_eq!(part.offset % 256, 0);
        assert_eq!(part.offset, bytes);
        assert_eq!(param(&schedule, i, 28), columns);
        columns += param(&schedule, i, 1);
        bytes += part.bytes;
    }
    assert_eq!((columns, bytes), (n, u64::from(n) * u64::from(k) * 4));
}

#[test]
fn the_kind_of_device_and_the_shape_choose_the_kernel() {
    let chosen = |kind, m: i64, n: i64, k: i64| {
        let mut graph = Graph::new();
        let (a, b) = (graph.input("a", &[m, k]), graph.input("b", &[k, n]));
        let y = graph.node("aten::mm", &[Arg::Value(a), Arg::Value(b)], &[m, n]);
        kernels(&graph.lowered(y, &device(kind)))[0]
    };
    assert_eq!(chosen(Kind::Software, 64, 64, 64), "gemm_nn_f32");
    assert_eq!(chosen(Kind::Discrete, 64, 64, 64), "gemm_tile_f32");
    assert_eq!(chosen(Kind::Discrete, 2, 64, 64), "gemm_nn_f32");
    assert_eq!(chosen(Kind::Software, 64, 63, 64), "gemm_any_f32");
    assert_eq!(chosen(Kind::Software, 64, 64, 62), "gemm_any_f32");
}

#[test]
fn a_matrix_that_is_turned_over_is_not_copied() {
    let mut graph = Graph::new();
    let (x, w) = (graph.input("x", &[3, 64]), graph.input("w", &[16, 64]));
    let turned = graph.node("aten::t", &[Arg::Value(w)], &[64, 16]);
    let y = graph.node("aten::mm", &[Arg::Value(x), Arg::Value(turned)], &[3, 16]);
    assert_eq!(kernels(&graph.lowered(y, &device(Kind::Software))), ["gemm_nt_f32"]);

    let mut graph = Graph::new();
    let (x, w) = (graph.input("x", &[1, 64]), graph.input("w", &[16, 64]));
    let turned = graph.node("aten::t", &[Arg::Value(w)], &[64, 16]);
    let y = graph.node("aten::mm", &[Arg::Value(x), Arg::Value(turned)], &[1, 16]);
    assert_eq!(kernels(&graph.lowered(y, &device(Kind::Discrete))), ["gemv_f32"]);
}

#[test]
fn batches_that_share_a_matrix_are_rows() {
    let mut graph = Graph::new();
    let (x, w) = (graph.input("x", &[2, 3, 4, 8]), graph.input("w", &[8, 8]));
    let y = graph.node("aten::matmul", &[Arg::Value(x), Arg::Value(w)], &[2, 3, 4, 8]);
    let schedule = graph.lowered(y, &device(Kind::Software));
    assert_eq!((param(&schedule, 0, 0), param(&schedule, 0, 5)), (24, 1));
}

fn attention(graph: &mut Graph, query: ValueIndex, key: ValueIndex, sizes: &[i64]) -> ValueIndex {
    let tensors = [query, key, key].map(Arg::Value);
    let rest = [
        Arg::None,
        Arg::Float(0.0),
        Arg::Bool(false),
        Arg::None,
        Arg::Bool(false),
    ];
    let args: Vec<Arg> = tensors.into_iter().chain(rest).collect();
    graph.node("aten::scaled_dot_product_attention", &args, sizes)
}

#[test]
fn a_few_queries_are_one_dispatch_where_barriers_cost_little() {
    let lowered = |kind, rows: i64| {
        let mut graph = Graph::new();
        let query = graph.input("q", &[1, 2, rows, 64]);
        let key = graph.input("k", &[1, 2, 100, 64]);
        let y = attention(&mut graph, query, key, &[1, 2, rows, 64]);
        kernels(&graph.lowered(y, &device(kind)))
    };
    assert_eq!(lowered(Kind::Discrete, 1), ["attention_few_f32"]);
    assert_eq!(
        lowered(Kind::Discrete, 32),
        ["gemm_tile_f32", "attention_softmax_group", "gemm_tile_f32"]
    );
    assert_eq!(
        lowered(Kind::Software, 1),
        ["gemm_row_f32", "attention_softmax_line", "gemm_nn_f32"]
    );
}

#[test]
fn heads_that_were_moved_forward_are_not_copied() {
    let mut graph = Graph::new();
    let swap = [1, 2].map(Arg::Int);
    let mut moved = |name, length| {
        let x = graph.input(name, &[1, length, 2, 8]);
        let args: Vec<Arg> = [Arg::Value(x)].into_iter().chain(swap.clone()).collect();
        graph.node("aten::transpose.int", &args, &[1, 2, length, 8])
    };
    let (query, key) = (moved("q", 3), moved("k", 12));
    let y = attention(&mut graph, query, key, &[1, 2, 3, 8]);
    let schedule = graph.lowered(y, &device(Kind::Software));
    assert_eq!(
        kernels(&schedule),
        ["gemm_nt_f32", "attention_softmax_line", "gemm_nn_f32"]
    );
    // Rows of a head are as far apart as both heads are wide.
    assert_eq!((param(&schedule, 0, 11), param(&schedule, 0, 18)), (16, 16));
}
