//! Homes of small graphs, by hand.

use super::*;
use delegraph_sdk::image::{Arg, ImageBuilder, Type, verify};

struct Graph(ImageBuilder);

impl Graph {
    fn new() -> Graph {
        Graph(ImageBuilder::new("forward"))
    }

    fn ty(&mut self, dims: &[i64]) -> Type {
        let dims: Vec<_> = dims.iter().map(|d| self.0.int(*d)).collect();
        Type::tensor(DType::F32, &dims)
    }

    fn input(&mut self, dims: &[i64]) -> ValueIndex {
        let ty = self.ty(dims);
        self.0.input("x", &ty)
    }

    fn node(&mut self, op: &str, args: &[Arg], dims: &[i64]) -> ValueIndex {
        let ty = self.ty(dims);
        let name = format!("{op}_{}", args.len());
        self.0.node(&name, op, args, &[(&name, &ty)], "")[0]
    }

    fn relu(&mut self, x: ValueIndex, dims: &[i64]) -> ValueIndex {
        self.node("aten::relu", &[Arg::Value(x)], dims)
    }

    /// A pool, which reads and writes images channels last.
    fn pool(&mut self, x: ValueIndex, dims: &[i64]) -> ValueIndex {
        let [kernel, stride, padding, dilation] =
            [[1, 1], [1, 1], [0, 0], [1, 1]].map(|items| Arg::Ints(items.iter().map(|i| self.0.int(*i)).collect()));
        self.node(
            "aten::max_pool2d",
            &[Arg::Value(x), kernel, stride, padding, dilation, Arg::Bool(false)],
            dims,
        )
    }

    fn homes(mut self, outputs: &[ValueIndex], of: &[ValueIndex]) -> Vec<Option<Layout>> {
        outputs.iter().for_each(|value| self.0.output(*value));
        let bytes = self.0.finish().unwrap();
        let view = verify(&bytes).unwrap();
        let homes = homes(&view, &vec![None; view.node_count() as usize], &Sizes::new(&view));
        of.iter().map(|value| homes[value.0 as usize]).collect()
    }
}

const IMAGE: [i64; 4] = [1, 64, 128, 128];
const LAST: Option<Layout> = Some(Layout::Nhwc4);
const ROWS: Option<Layout> = Some(Layout::RowMajor);

#[test]
fn elementwise_nodes_write_what_is_read_behind_them() {
    // Nothing has to be moved: the first node writes channels last, the last one row-major.
    let mut graph = Graph::new();
    let x = graph.input(&IMAGE);
    let before = graph.relu(x, &IMAGE);
    let pooled = graph.pool(before, &IMAGE);
    let between = graph.relu(pooled, &IMAGE);
    let again = graph.pool(between, &IMAGE);
    let behind = graph.relu(again, &IMAGE);
    assert_eq!(graph.homes(&[behind], &[before, between, behind]), [LAST, LAST, ROWS]);
}

#[test]
fn what_is_read_both_ways_lies_as_what_it_is_made_of() {
    let mut graph = Graph::new();
    let x = graph.input(&IMAGE);
    let pooled = graph.pool(x, &IMAGE);
    let both = graph.relu(pooled, &IMAGE);
    let again = graph.pool(both, &IMAGE);
    assert_eq!(graph.homes(&[both, again], &[both]), [LAST]);
}

#[test]
fn what_is_joined_lies_as_it_is_read() {
    let mut graph = Graph::new();
    let x = graph.input(&IMAGE);
    let (a, b) = (graph.relu(x, &IMAGE), graph.pool(x, &IMAGE));
    let wide = [1, 128, 128, 128];
    let joined = graph.node("aten::cat", &[Arg::Values(vec![a, b]), Arg::Int(1)], &wide);
    let pooled = graph.pool(joined, &wide);
    assert_eq!(graph.homes(&[pooled], &[a, joined]), [LAST, LAST]);
}

#[test]
fn a_graph_without_images_has_no_homes() {
    let mut graph = Graph::new();
    let x = graph.input(&[4, 8]);
    let y = graph.relu(x, &[4, 8]);
    assert_eq!(graph.homes(&[y], &[y]), [None]);
}

#[test]
fn many_readers_of_one_image_take_no_long_time() {
    let mut graph = Graph::new();
    let x = graph.input(&IMAGE);
    let pooled = graph.pool(x, &IMAGE);
    let all: Vec<ValueIndex> = (0..5000).map(|_| graph.relu(pooled, &IMAGE)).collect();
    assert_eq!(graph.homes(&all, &all[..1]), [ROWS]);
}
