//! What operators of this family become: how many dispatches, and what these move, by a model of the kernel `move`.

use crate::encoder::Encoder;
use crate::facts::Facts;
use crate::program::Plan;
use crate::schedule::Schedule;
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

    /// Runs a graph whose first input holds 0, 1, 2, … as i32, and expects these elements of its outputs.
    #[track_caller]
    fn gives(self, outputs: &[(ValueIndex, &[i32])]) {
        let values: Vec<ValueIndex> = outputs.iter().map(|(value, _)| *value).collect();
        let (_, schedule) = self.lowered(&values);
        let mut memory: Vec<Vec<i32>> = schedule
            .storages
            .iter()
            .map(|s| (0..s.bytes as i32 / 4).collect())
            .collect();
        for dispatch in &schedule.dispatches {
            let run: usize = match dispatch.kernel.name {
                "move_words" => 1,
                "move_wide" => 4,
                name => panic!("no model of `{name}`"),
            };
            let params = &schedule.params[dispatch.params.clone()];
            let [source, out] = dispatch.bindings[..] else {
                panic!("two operands");
            };
            for i in 0..params[0] {
                let (mut at, mut rest) = (params[4], i);
                for axis in params[6..].chunks_exact(2).take(params[5] as usize).rev() {
                    at = at.wrapping_add((rest % axis[0]).wrapping_mul(axis[1]));
                    rest /= axis[0];
                }
                for lane in 0..run {
                    let from = source.offset as usize / 4 + at as usize * run + lane;
                    let value = memory[source.storage][from];
                    memory[out.storage][out.offset as usize / 4 + i as usize * run + lane] = value;
                }
            }
        }
        for ((_, want), have) in outputs.iter().zip(&schedule.outputs) {
            let first = have.binding.offset as usize / 4;
            let have = &memory[have.binding.storage][first..first + want.len()];
            assert_eq!(have, *want);
        }
    }

    /// The kernels that a graph becomes, and all about it.
    #[track_caller]
    fn lowered(mut self, outputs: &[ValueIndex]) -> (Vec<&'static str>, Schedule) {
        outputs.iter().for_each(|value| self.0.output(*value));
        let image = self.0.finish().expect("a graph");
        let view = verify(&image).expect("a sound graph");
        let facts = Facts::weakest();
        let schedule = Encoder::encode(view, &Plan::default(), &Sizes::new(&view), &facts).expect("it is lowered");
        let names = schedule.dispatches.iter().map(|d| d.kernel.name).collect();
        (names, schedule)
    }

    #[track_caller]
    fn becomes(self, outputs: &[ValueIndex], kernels: &[&str]) {
        assert_eq!(self.lowered(outputs).0, kernels);
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

#[test]
fn what_readers_look_behind_is_not_written_in_place() {
    let mut graph = Graph::new();
    let sizes = graph.ints(&[128, 64]);
    let zeros = [sizes, Arg::None, Arg::None, Arg::None, Arg::None];
    let x = graph.node("aten::zeros", &zeros, DType::F32, &[128, 64]);
    let stretched = graph.ints(&[2, 128, 64]);
    let turned = graph.node("aten::expand", &[Arg::Value(x), stretched], DType::F32, &[2, 128, 64]);
    let row = graph.input(DType::F32, &[64]);
    let put = [Arg::Value(x), Arg::Value(row), Arg::Int(0), Arg::Int(3)];
    let put = graph.node("aten::select_scatter", &put, DType::F32, &[128, 64]);
    // The product reads `x` in place of what was made of it.
    let y = graph.input(DType::F32, &[2, 64, 64]);
    let product = graph.node(
        "aten::bmm",
        &[Arg::Value(turned), Arg::Value(y)],
        DType::F32,
        &[2, 128, 64],
    );
    let (names, _) = graph.lowered(&[put, product]);
    // The move is the copy that is written to; the expansion is dropped, since the product looks behind it.
    assert_eq!(names[..3], ["fill", "move_wide", "part_wide"]);
    assert!(names[3..].iter().any(|name| name.starts_with("gemm")), "{names:?}");
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
    // Otherwise one dispatch copies the others and brings these.
    rows_into(made, true, &["fill", "words", "rows_wide"]);
    // An input is the caller's.
    let given = |graph: &mut Graph| graph.input(DType::F32, &[1000, 64]);
    rows_into(given, false, &["words", "rows_wide"]);
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

#[test]
fn views_show_the_right_elements() {
    const I32: DType = DType::I32;
    let mut graph = Graph::new();
    let x = graph.input(I32, &[3, 4]);
    let all = |more: &[Arg]| [&[Arg::Value(x)], more].concat();
    let turned = graph.node("aten::t", &all(&[]), I32, &[4, 3]);
    let windows = all(&[Arg::Int(1), Arg::Int(3), Arg::Int(1)]);
    let windows = graph.node("aten::unfold", &windows, I32, &[3, 2, 3]);
    let diagonal = all(&[Arg::Int(1), Arg::Int(0), Arg::Int(1)]);
    let diagonal = graph.node("aten::diagonal", &diagonal, I32, &[3]);
    let below = all(&[Arg::Int(-1), Arg::Int(0), Arg::Int(1)]);
    let below = graph.node("aten::diagonal", &below, I32, &[2]);
    let narrow = all(&[Arg::Int(-1), Arg::Int(-3), Arg::Int(2)]);
    let narrow = graph.node("aten::narrow", &narrow, I32, &[3, 2]);
    let steps = all(&[Arg::Int(1), Arg::Int(-3), Arg::None, Arg::Int(2)]);
    let steps = graph.node("aten::slice.Tensor", &steps, I32, &[3, 2]);
    let (sizes, strides) = (graph.ints(&[2, 3]), graph.ints(&[1, 4]));
    let strided = graph.node("aten::as_strided", &all(&[sizes, strides, Arg::Int(2)]), I32, &[2, 3]);
    let column = graph.node("aten::select.int", &all(&[Arg::Int(1), Arg::Int(-1)]), I32, &[3]);
    let sizes = graph.ints(&[2, 3, 2]);
    let stretched = graph.node("aten::expand", &[Arg::Value(narrow), sizes], I32, &[2, 3, 2]);
    let mirrored = graph.ints(&[0]);
    let mirrored = graph.node("aten::flip", &all(&[mirrored]), I32, &[3, 4]);
    graph.gives(&[
        (turned, &[0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]),
        (windows, &[0, 1, 2, 1, 2, 3, 4, 5, 6, 5, 6, 7, 8, 9, 10, 9, 10, 11]),
        (diagonal, &[1, 6, 11]),
        (below, &[4, 9]),
        (narrow, &[1, 2, 5, 6, 9, 10]),
        (steps, &[1, 3, 5, 7, 9, 11]),
        (strided, &[2, 6, 10, 3, 7, 11]),
        (column, &[3, 7, 11]),
        (stretched, &[1, 2, 5, 6, 9, 10, 1, 2, 5, 6, 9, 10]),
        (mirrored, &[8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3]),
    ]);
}

#[test]
fn dimensions_are_moved_and_parted() {
    const I32: DType = DType::I32;
    let mut graph = Graph::new();
    let x = graph.input(I32, &[2, 3, 2]);
    let (from, to) = (graph.ints(&[0]), graph.ints(&[-1]));
    let moved = graph.node("aten::movedim.intlist", &[Arg::Value(x), from, to], I32, &[3, 2, 2]);
    let quarter = [Arg::Value(x), Arg::Int(1), graph.ints(&[0, 2])];
    let quarter = graph.node("aten::rot90", &quarter, I32, &[2, 3, 2]);
    let parts = [Arg::Value(x), graph.ints(&[1, 2]), Arg::Int(1)];
    let types = [graph.ty(I32, &[2, 1, 2]), graph.ty(I32, &[2, 2, 2])];
    let outputs = [("a", &types[0]), ("b", &types[1])];
    let parts = graph.0.node("split", "aten::split_with_sizes", &parts, &outputs, "");
    let again = [Arg::Value(parts[0]), Arg::Int(2), Arg::Int(2), Arg::None];
    let again = graph.node("aten::repeat_interleave.self_int", &again, I32, &[2, 1, 4]);
    graph.gives(&[
        (moved, &[0, 6, 1, 7, 2, 8, 3, 9, 4, 10, 5, 11]),
        (quarter, &[1, 7, 3, 9, 5, 11, 0, 6, 2, 8, 4, 10]),
        (parts[0], &[0, 1, 6, 7]),
        (parts[1], &[2, 3, 4, 5, 8, 9, 10, 11]),
        (again, &[0, 0, 1, 1, 6, 6, 7, 7]),
    ]);
}

#[test]
fn channels_become_space() {
    const I32: DType = DType::I32;
    let mut graph = Graph::new();
    let x = graph.input(I32, &[1, 4, 2, 1]);
    let wide = graph.node("aten::pixel_shuffle", &[Arg::Value(x), Arg::Int(2)], I32, &[1, 1, 4, 2]);
    let back = graph.node(
        "aten::pixel_unshuffle",
        &[Arg::Value(wide), Arg::Int(2)],
        I32,
        &[1, 4, 2, 1],
    );
    let dealt = graph.node(
        "aten::channel_shuffle",
        &[Arg::Value(x), Arg::Int(2)],
        I32,
        &[1, 4, 2, 1],
    );
    graph.gives(&[
        (wide, &[0, 2, 4, 6, 1, 3, 5, 7]),
        (back, &[0, 1, 2, 3, 4, 5, 6, 7]),
        (dealt, &[0, 1, 4, 5, 2, 3, 6, 7]),
    ]);
}
