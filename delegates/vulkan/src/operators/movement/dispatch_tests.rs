//! What moving elements costs: the dispatches that operators of this family become.

use crate::encoder::Encoder;
use crate::facts::Facts;
use crate::program::Plan;
use delegraph_sdk::DType;
use delegraph_sdk::image::{Arg, ImageBuilder, Sizes, Type, ValueIndex, verify};

/// A graph with its nodes, and the names of the kernels that it becomes.
struct Graph(ImageBuilder);

impl Graph {
    fn new() -> Graph {
        Graph(ImageBuilder::new("forward"))
    }

    fn ty(&mut self, dtype: DType, dims: &[i64]) -> Type {
        let dims: Vec<_> = dims.iter().map(|d| self.0.int(*d)).collect();
        Type::tensor(dtype, &dims)
    }

    fn input(&mut self, dtype: DType, dims: &[i64]) -> ValueIndex {
        let ty = self.ty(dtype, dims);
        self.0.input("x", &ty)
    }

    fn ints(&mut self, items: &[i64]) -> Arg {
        Arg::Ints(items.iter().map(|i| self.0.int(*i)).collect())
    }

    fn node(&mut self, op: &str, args: &[Arg], dtype: DType, dims: &[i64]) -> ValueIndex {
        let ty = self.ty(dtype, dims);
        let made = self.0.node("node", op, args, &[("y", &ty)], "");
        made.into_iter().next().expect("one output")
    }

    #[track_caller]
    fn becomes(mut self, outputs: &[ValueIndex], kernels: &[&str]) {
        outputs.iter().for_each(|value| self.0.output(*value));
        let image = self.0.finish().expect("a graph");
        let view = verify(&image).expect("a sound graph");
        let facts = Facts::weakest();
        let schedule = Encoder::encode(view, &Plan::default(), &Sizes::new(&view), &facts).expect("it is lowered");
        let names: Vec<&str> = schedule.dispatches.iter().map(|d| d.kernel.name).collect();
        assert_eq!(names, kernels);
    }
}

#[test]
fn views_cost_nothing() {
    let mut graph = Graph::new();
    let x = graph.input(DType::F32, &[4, 1, 64]);
    let sizes = graph.ints(&[4, 64]);
    let flat = graph.node("aten::view", &[Arg::Value(x), sizes], DType::F32, &[4, 64]);
    let order = graph.ints(&[1, 0, 2]);
    let turned = graph.node("aten::permute", &[Arg::Value(x), order], DType::F32, &[1, 4, 64]);
    let slice = |value, start| [Arg::Value(value), Arg::Int(0), Arg::Int(start), Arg::None, Arg::Int(1)];
    // A row is 256 bytes: any of them may be where a binding begins.
    let rows = graph.node("aten::slice.Tensor", &slice(flat, 1), DType::F32, &[3, 64]);
    let select = [Arg::Value(rows), Arg::Int(0), Arg::Int(2)];
    let row = graph.node("aten::select.int", &select, DType::F32, &[64]);
    let start = graph.node("aten::slice.Tensor", &slice(row, 0), DType::F32, &[64]);
    graph.becomes(&[flat, turned, rows, row, start], &[]);
}

#[test]
fn what_begins_between_is_moved() {
    let mut graph = Graph::new();
    let x = graph.input(DType::F32, &[4, 63]);
    let slice = [Arg::Value(x), Arg::Int(0), Arg::Int(1), Arg::None, Arg::Int(1)];
    let rows = graph.node("aten::slice.Tensor", &slice, DType::F32, &[3, 63]);
    graph.becomes(&[rows], &["move_words"]);
}

#[test]
fn tensors_are_joined_four_at_once() {
    for (count, columns, kernels) in [
        (2, 8, &["join_wide"][..]),
        (4, 3, &["join_words"]),
        (5, 8, &["join_wide", "join_wide"]),
        (1, 8, &[]),
    ] {
        let mut graph = Graph::new();
        let all = (0..count).map(|_| graph.input(DType::F32, &[2, columns])).collect();
        let args = [Arg::Values(all), Arg::Int(1)];
        let out = graph.node("aten::cat", &args, DType::F32, &[2, count * columns]);
        graph.becomes(&[out], kernels);
    }
}

/// `index_copy` of two rows into what `make` makes.
fn rows_into(make: impl Fn(&mut Graph) -> ValueIndex, read_later: bool, kernels: &[&str]) {
    let mut graph = Graph::new();
    let index = graph.input(DType::I64, &[2]);
    let rows = graph.input(DType::F32, &[2, 64]);
    let cache = make(&mut graph);
    let args = [Arg::Value(cache), Arg::Int(0), Arg::Value(index), Arg::Value(rows)];
    let out = graph.node("aten::index_copy", &args, DType::F32, &[1000, 64]);
    match read_later {
        true => graph.becomes(&[out, cache], kernels),
        false => graph.becomes(&[out], kernels),
    }
}

#[test]
fn rows_are_written_in_place_where_nobody_needs_the_old_ones() {
    let made = |graph: &mut Graph| {
        let sizes = graph.ints(&[1000, 64]);
        let args = [sizes, Arg::None, Arg::None, Arg::None, Arg::None];
        graph.node("aten::zeros", &args, DType::F32, &[1000, 64])
    };
    rows_into(made, false, &["fill", "words", "scatter_wide"]);
    rows_into(made, true, &["fill", "move_wide", "words", "scatter_wide"]);
    // An input is the caller's.
    let given = |graph: &mut Graph| graph.input(DType::F32, &[1000, 64]);
    rows_into(given, false, &["move_wide", "words", "scatter_wide"]);
    // A view of what is read later shares its memory.
    let mut graph = Graph::new();
    let sizes = graph.ints(&[8, 64]);
    let cache = {
        let args = [graph.ints(&[1000, 64]), Arg::None, Arg::None, Arg::None, Arg::None];
        graph.node("aten::zeros", &args, DType::F32, &[1000, 64])
    };
    let view = graph.ints(&[64000]);
    let flat = graph.node("aten::view", &[Arg::Value(cache), view], DType::F32, &[64000]);
    let source = graph.node(
        "aten::zeros",
        &[sizes, Arg::None, Arg::None, Arg::None, Arg::None],
        DType::F32,
        &[8, 64],
    );
    let args = [
        Arg::Value(cache),
        Arg::Value(source),
        Arg::Int(0),
        Arg::Int(8),
        Arg::Int(16),
        Arg::Int(1),
    ];
    let out = graph.node("aten::slice_scatter", &args, DType::F32, &[1000, 64]);
    graph.becomes(&[out, flat], &["fill", "move_wide", "part_wide"]);
}
