//! Operators on images with channels last: pools, other sizes, channels that become pixels and the other way round.

use super::layout::{FIRST, PERMUTE, Pass};
use crate::graph::{Graph, Node, ValueId, arg, float};
use crate::steps::{pooling, resize};
use delegraph_sdk::DType;
use delegraph_sdk::image::Arg;

impl Pass<'_, '_> {
    /// Pools with channels last; says whether it did.
    pub(super) fn pooled(&mut self, node: &Node, reads: &[ValueId]) -> bool {
        let (graph, is_max) = (&*self.graph, node.op.starts_with("aten::max"));
        let ints = |at: usize| graph.int_list(node.args.get(at));
        let pair = |list: Option<Vec<i64>>, default: [i64; 2]| match list?[..] {
            [] => Some(default),
            [a] => Some([a; 2]),
            [a, b] => Some([a, b]),
            _ => None,
        };
        let sizes = || {
            let kernel = pair(ints(1), [1; 2])?;
            let dilation = if is_max { pair(ints(4), [1; 2])? } else { [1; 2] };
            Some([kernel, pair(ints(2), kernel)?, pair(ints(3), [0; 2])?, dilation])
        };
        let Some(sizes) = sizes() else {
            return false;
        };
        let (reduce, divisor) = match (is_max, float(node.args.get(6))) {
            (true, _) => ("max", 0.0),
            (false, Some(divisor)) if divisor != 0.0 => ("sum", divisor),
            (false, Some(_)) => return false,
            (false, None) => match node.args.get(5) {
                Some(Arg::Bool(false) | Arg::Int(0)) => ("mean", 0.0),
                _ => ("mean_padded", 0.0),
            },
        };
        self.windows(node, reads, reduce, divisor, sizes)
    }

    /// Pools to a number of places that divides that of the image, with channels last; says whether it did.
    pub(super) fn pooled_to(&mut self, node: &Node, reads: &[ValueId]) -> bool {
        let is_max = node.op.contains("max");
        let wanted = match self.graph.int_list(node.args.get(1)).as_deref() {
            Some(&[size]) => [size; 2],
            Some(&[rows, columns]) => [rows, columns],
            _ => return false,
        };
        let sizes = |which: usize| {
            let size = self.graph.size(reads[0], 2 + which)?;
            (wanted[which] > 0 && size > 0 && size % wanted[which] == 0).then(|| size / wanted[which])
        };
        let (Some(down), Some(across)) = (sizes(0), sizes(1)) else {
            return false;
        };
        let kernel = [down, across];
        let reduce = if is_max { "max" } else { "mean" };
        self.windows(node, reads, reduce, 0.0, [kernel, kernel, [0; 2], [1; 2]])
    }

    /// Pools windows of these kernels, strides, paddings and dilations.
    fn windows(&mut self, node: &Node, reads: &[ValueId], reduce: &str, divisor: f64, sizes: [[i64; 2]; 4]) -> bool {
        // Places of the largest are wanted by nobody, or this is not it.
        let unread = |value: &ValueId| !self.read.contains(value);
        if self.graph.values[reads[0]].dtype != DType::F32 || !node.outputs.iter().skip(1).all(unread) {
            return false;
        }
        let mut args = vec![arg(reads[0]), Arg::Str(reduce.to_string()), Arg::Float(divisor)];
        for pair in sizes {
            args.push(self.graph.ints(&pair));
        }
        let node = Node {
            op: pooling::NAME.to_string(),
            outputs: vec![node.outputs[0]],
            ..node.clone()
        };
        self.replaced(&node, reads, args, 4)
    }

    /// Resizes with channels last; says whether it did.
    pub(super) fn resized(&mut self, node: &Node, reads: &[ValueId]) -> bool {
        let (op, is_list) = match node.op.strip_suffix(".vec") {
            Some(op) => (op, true),
            None => (node.op.as_str(), false),
        };
        let (sampling, factors) = match (op, node.args.get(2)) {
            ("aten::upsample_nearest2d", _) => ("nearest", 2),
            ("aten::_upsample_nearest_exact2d", _) => ("nearest_exact", 2),
            ("aten::upsample_bilinear2d", Some(Arg::Bool(true) | Arg::Int(1))) => ("bilinear_corners", 3),
            ("aten::upsample_bilinear2d", Some(Arg::Bool(false) | Arg::Int(0))) => ("bilinear", 3),
            _ => return false,
        };
        let factor = |at: usize| match node.args.get(at) {
            None | Some(Arg::None) => Some(0.0),
            given => float(given),
        };
        let factors = match (is_list, node.args.get(factors)) {
            (true, None | Some(Arg::None)) => Some([0.0; 2]),
            (true, Some(Arg::Floats(all))) => <[f64; 2]>::try_from(all.as_slice()).ok(),
            (true, Some(_)) => None,
            (false, _) => factor(factors).zip(factor(factors + 1)).map(|(a, b)| [a, b]),
        };
        let Some([down, across]) = factors.filter(|_| self.graph.values[reads[0]].dtype == DType::F32) else {
            return false;
        };
        let args = vec![
            arg(reads[0]),
            Arg::Str(sampling.to_string()),
            Arg::Float(down),
            Arg::Float(across),
        ];
        let node = Node {
            op: resize::NAME.to_string(),
            ..node.clone()
        };
        self.replaced(&node, reads, args, 4)
    }

    /// Channels become pixels, or pixels channels, with channels last; says whether it did.
    pub(super) fn shuffled(&mut self, node: &Node, x: ValueId) -> bool {
        let (Some(last), Some(factor)) = (self.last.get(&x).copied(), float(node.args.get(1))) else {
            return false;
        };
        let output = node.outputs[0];
        if self.graph.values[output].dims.len() != 4 || factor < 1.0 {
            return false;
        }
        let (dtype, name) = (self.graph.values[output].dtype, self.graph.values[output].name.clone());
        let (&[n, h, w, c], &[_, channels, tall, wide]) = (
            self.graph.values[last].dims.as_slice(),
            self.graph.values[output].dims.as_slice(),
        ) else {
            return false;
        };
        let r = self.graph.int(factor as i64);
        let (split, order, moved) = match node.op.as_str() {
            "aten::pixel_shuffle" => ([n, h, w, channels, r, r], [0, 1, 4, 2, 5, 3], [n, h, r, w, r, channels]),
            _ => ([n, tall, r, wide, r, c], [0, 1, 3, 5, 2, 4], [n, tall, wide, c, r, r]),
        };
        let mut value = |word: &str, dims: Vec<_>| self.graph.value(&format!("{name} {word}"), dtype, dims);
        let (split, moved) = (value("split", split.to_vec()), value("moved", moved.to_vec()));
        let turned = value("nhwc", vec![n, tall, wide, channels]);
        let order = self.graph.ints(&order);
        let back = self.graph.ints(&FIRST);
        let view = |graph: &Graph, of: ValueId, to: ValueId| {
            (
                "aten::view",
                vec![arg(of), Arg::Ints(graph.values[to].dims.clone())],
                to,
            )
        };
        let steps = [
            view(self.graph, last, split),
            (PERMUTE, vec![arg(split), order], moved),
            view(self.graph, moved, turned),
            (PERMUTE, vec![arg(turned), back], output),
        ];
        for (op, args, output) in steps {
            self.graph.nodes.push(Node {
                op: op.to_string(),
                args,
                outputs: vec![output],
                source: node.source,
            });
        }
        self.pair(output, turned);
        true
    }
}
