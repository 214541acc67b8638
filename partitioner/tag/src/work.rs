//! How much a node computes, as far as its operator tells. Estimates for choosing and reporting, never for correctness.

use delegraph_ir::{Arg, Expr, Graph, Node, Symbols, TensorType, ValueId};

/// Sizes that are not bounded count as this many.
const UNBOUNDED: i64 = 128;

/// What a node computes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Multiply-accumulates of matrix products, convolutions, attention and recurrent layers; 0 for others.
    pub macs: u64,
    /// Elements that it computes, 0 for operators that only move data.
    pub elements: u64,
}

impl Work {
    /// One number to weigh against bytes moved.
    pub fn operations(self) -> u64 {
        self.macs.max(self.elements)
    }
}

/// True if the operator computes nothing: a view, a copy or a change of shape.
pub fn moves_only(node: &Node) -> bool {
    node.op.is_view()
        || matches!(
            base(node),
            "clone"
                | "contiguous"
                | "reshape"
                | "flatten"
                | "unflatten"
                | "_unsafe_view"
                | "_reshape_copy"
                | "lift_fresh_copy"
                | "_clone_dim_order"
                | "detach_copy"
                | "alias_copy"
                | "view_copy"
                | "permute_copy"
                | "transpose_copy"
                | "t_copy"
                | "squeeze_copy"
                | "unsqueeze_copy"
                | "expand_copy"
                | "slice_copy"
                | "select_copy"
                | "split_copy"
                | "split_with_sizes_copy"
                | "unbind_copy"
                | "as_strided_copy"
                | "narrow_copy"
        )
}

/// Estimates the work of a node. A symbol counts as its upper bound, or as 128 if it has none.
pub fn work(graph: &Graph, node: &Node, symbols: &Symbols) -> Work {
    if moves_only(node) {
        return Work::default();
    }
    let context = Context { graph, node, symbols };
    let made: u64 = node
        .outputs
        .iter()
        .fold(0, |sum, v| sum.saturating_add(context.numel(*v)));
    let read = node.inputs().map(|v| match graph.value(v).def {
        delegraph_ir::Def::Constant(_) => 0,
        _ => context.numel(v),
    });
    Work {
        macs: context.macs().unwrap_or(0),
        // A reduction works on what it reads; a gather on what it makes.
        elements: match base(node) {
            "embedding" | "index" | "index_select" | "gather" | "select_scatter" | "slice_scatter" => made,
            _ => made.max(read.max().unwrap_or(0)),
        },
    }
}

/// Bytes of a tensor under the same estimate of its sizes.
pub(crate) fn bytes(ty: &TensorType, symbols: &Symbols) -> u64 {
    numel(ty, symbols).saturating_mul(ty.dtype.size() as u64)
}

/// `aten::conv2d.padding` -> `conv2d`
fn base(node: &Node) -> &'static str {
    let name = node.op.name();
    let name = name.rsplit_once("::").map_or(name, |(_, n)| n);
    name.split('.').next().unwrap_or(name)
}

fn size(expr: &Expr, symbols: &Symbols) -> u64 {
    let value = match expr.as_int() {
        Some(value) => Some(value),
        None => expr
            .upper_bound(symbols)
            .or_else(|| expr.eval(&|s| Some(symbols.range(s).max.unwrap_or(UNBOUNDED.max(symbols.range(s).min))))),
    };
    u64::try_from(value.unwrap_or(UNBOUNDED)).unwrap_or(0)
}

fn product<'a>(sizes: impl IntoIterator<Item = &'a Expr>, symbols: &Symbols) -> u64 {
    sizes.into_iter().fold(1, |n, e| n.saturating_mul(size(e, symbols)))
}

fn numel(ty: &TensorType, symbols: &Symbols) -> u64 {
    product(&ty.shape, symbols)
}

struct Context<'a> {
    graph: &'a Graph,
    node: &'a Node,
    symbols: &'a Symbols,
}

impl Context<'_> {
    fn numel(&self, value: ValueId) -> u64 {
        self.graph.tensor(value).map_or(1, |t| numel(t, self.symbols))
    }

    fn output(&self) -> Option<u64> {
        self.node.outputs.first().map(|v| self.numel(*v))
    }

    /// The tensor at an argument position.
    fn tensor(&self, at: usize) -> Option<&TensorType> {
        self.graph.tensor(self.node.args.get(at)?.as_value()?)
    }

    /// Size of a dimension of the tensor at an argument position; counted from the end if negative.
    fn dim(&self, at: usize, dim: isize) -> Option<u64> {
        let shape = &self.tensor(at)?.shape;
        let dim = if dim < 0 {
            shape.len().checked_add_signed(dim)?
        } else {
            dim as usize
        };
        Some(size(shape.get(dim)?, self.symbols))
    }

    /// Elements of the tensor at an argument position for each index of its first dimension.
    fn per_row(&self, at: usize) -> Option<u64> {
        Some(product(self.tensor(at)?.shape.get(1..)?, self.symbols))
    }

    /// Elements of all matrices in the arguments from this position.
    fn matrices(&self, from: usize) -> u64 {
        let values = self
            .node
            .args
            .get(from..)
            .unwrap_or_default()
            .iter()
            .flat_map(Arg::values);
        let tensors = values.filter_map(|v| self.graph.tensor(v)).filter(|t| t.rank() == 2);
        tensors.fold(0, |sum, t| sum.saturating_add(numel(t, self.symbols)))
    }

    fn macs(&self) -> Option<u64> {
        let times = |a: Option<u64>, b: Option<u64>| Some(a?.saturating_mul(b?));
        match base(self.node) {
            // Every output element sums over the last dimension of the left operand.
            "linear"
            | "matmul"
            | "linalg_matmul"
            | "mm"
            | "bmm"
            | "_int_mm"
            | "int_matmul"
            | "int_scaled_matmul"
            | "mv"
            | "dot"
            | "vdot"
            | "inner"
            | "mixed_mm"
            | "mixed_linear"
            | "_weight_int4pack_mm"
            | "_weight_int8pack_mm"
            | "_scaled_mm"
            | "da8w4_linear_cpu"
            | "float8_linear_cpu" => times(self.output(), self.dim(0, -1)),
            "addmm" | "baddbmm" | "addmv" | "_addmm_activation" => times(self.output(), self.dim(1, -1)),
            "addbmm" => times(times(self.output(), self.dim(1, 0)), self.dim(1, -1)),
            "outer" | "ger" | "addr" => self.output(),
            "bilinear" => times(self.output(), self.per_row(2)),
            "conv1d" | "conv2d" | "conv3d" => times(self.output(), self.per_row(1)),
            "conv_transpose1d" | "conv_transpose2d" | "conv_transpose3d" => {
                times(Some(self.numel_at(0)?), self.per_row(1))
            }
            "convolution" | "_convolution" | "convolution_overrideable" => {
                match self.node.arg("transposed").and_then(Arg::as_bool) {
                    Some(true) => times(Some(self.numel_at(0)?), self.per_row(1)),
                    _ => times(self.output(), self.per_row(1)),
                }
            }
            name if name.starts_with("_scaled_dot_product") || name == "scaled_dot_product_attention" => {
                let rows = times(Some(self.numel_at(0)?), self.dim(1, -2));
                let depth = self.dim(0, -1)?.max(1);
                let widths = self.dim(0, -1)?.saturating_add(self.dim(2, -1)?);
                times(rows.map(|r| r / depth), Some(widths))
            }
            "lstm" | "gru" | "rnn_tanh" | "rnn_relu" => {
                let steps = self.numel_at(0)? / self.dim(0, -1)?.max(1);
                Some(steps.saturating_mul(self.matrices(2)))
            }
            "lstm_cell" | "gru_cell" | "rnn_tanh_cell" | "rnn_relu_cell" => {
                let batch = self.numel_at(0)? / self.dim(0, -1)?.max(1);
                Some(batch.saturating_mul(self.matrices(2)))
            }
            "einsum" => self.einsum(),
            _ => None,
        }
    }

    fn numel_at(&self, at: usize) -> Option<u64> {
        Some(numel(self.tensor(at)?, self.symbols))
    }

    /// The product of the sizes of all letters, and of the output's leading dimensions that `...` stands for.
    fn einsum(&self) -> Option<u64> {
        let (Arg::Str(equation), Arg::Values(operands)) = (self.node.args.first()?, self.node.args.get(1)?) else {
            return None;
        };
        let inputs = equation.split("->").next()?;
        let mut sizes = std::collections::BTreeMap::new();
        let mut dots = 1;
        for (term, value) in inputs.split(',').zip(operands) {
            let shape = &self.graph.tensor(*value)?.shape;
            let letters = term.chars().filter(|c| c.is_alphabetic()).count();
            let mut at = 0;
            for c in term.chars() {
                if c.is_alphabetic() {
                    sizes.insert(c, size(shape.get(at)?, self.symbols));
                    at += 1;
                } else if c == '.' && letters < shape.len() && at <= letters {
                    let end = at + shape.len() - letters;
                    dots = product(shape.get(at..end)?, self.symbols).max(dots);
                    at = end;
                }
            }
        }
        Some(sizes.values().fold(dots, |n, s| n.saturating_mul(*s)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use delegraph_ir::{Symbol, SymbolRange};
    use delegraph_types::DType;

    fn count(op: &str, shapes: &[&[i64]], rest: Vec<Arg>, out: &[i64]) -> Work {
        let mut graph = Graph::new("forward");
        let ty = |s: &[i64]| TensorType::fixed(DType::F32, s);
        let inputs: Vec<ValueId> = shapes.iter().map(|s| graph.add_input("x", ty(s).into())).collect();
        let args = match op {
            "aten::einsum" => vec![rest[0].clone(), Arg::Values(inputs)],
            "aten::lstm.input" => {
                let (hx, params) = (Arg::Values(inputs[1..3].to_vec()), Arg::Values(inputs[3..].to_vec()));
                [vec![inputs[0].into(), hx, params], rest].concat()
            }
            _ => inputs.into_iter().map(Arg::Value).chain(rest).collect(),
        };
        graph.push(op, args, vec![ty(out).into()]).unwrap();
        work(&graph, &graph.nodes[0], &Symbols::default())
    }

    #[test]
    fn macs_of_the_heavy_operators() {
        // Expectations by hand from the definitions: multiplications of the plain algorithm.
        let conv = |transposed| {
            let list = |v: &[i64]| Arg::ints(v);
            vec![
                Arg::None,
                list(&[1, 1]),
                list(&[0, 0]),
                list(&[1, 1]),
                Arg::Bool(transposed),
                list(&[0, 0]),
                Arg::int(1),
            ]
        };
        let cases: Vec<(&str, Vec<&[i64]>, Vec<Arg>, &[i64], u64)> = vec![
            (
                "aten::linear",
                vec![&[2, 5, 8], &[16, 8]],
                vec![],
                &[2, 5, 16],
                2 * 5 * 16 * 8,
            ),
            (
                "aten::addmm",
                vec![&[16], &[4, 8], &[8, 16]],
                vec![],
                &[4, 16],
                4 * 16 * 8,
            ),
            (
                "aten::bmm",
                vec![&[3, 4, 8], &[3, 8, 16]],
                vec![],
                &[3, 4, 16],
                3 * 4 * 16 * 8,
            ),
            ("aten::dot", vec![&[9], &[9]], vec![], &[], 9),
            (
                "aten::conv2d",
                vec![&[1, 4, 8, 8], &[6, 2, 3, 3]],
                vec![],
                &[1, 6, 6, 6],
                6 * 36 * 2 * 9,
            ),
            (
                "aten::convolution",
                vec![&[1, 4, 8, 8], &[6, 4, 3, 3]],
                conv(false),
                &[1, 6, 6, 6],
                6 * 36 * 4 * 9,
            ),
            (
                "aten::convolution",
                vec![&[1, 4, 8, 8], &[4, 6, 3, 3]],
                conv(true),
                &[1, 6, 10, 10],
                4 * 64 * 6 * 9,
            ),
            (
                "aten::scaled_dot_product_attention",
                vec![&[2, 3, 7, 8], &[2, 3, 5, 8], &[2, 3, 5, 4]],
                vec![],
                &[2, 3, 7, 4],
                2 * 3 * 7 * 5 * (8 + 4),
            ),
            (
                "aten::einsum",
                vec![&[2, 3, 4], &[4, 5]],
                vec![Arg::Str("bij,jk->bik".into())],
                &[2, 3, 5],
                2 * 3 * 4 * 5,
            ),
            (
                "aten::einsum",
                vec![&[2, 3, 4], &[4, 5]],
                vec![Arg::Str("...j,jk->...k".into())],
                &[2, 3, 5],
                2 * 3 * 4 * 5,
            ),
            (
                "aten::lstm.input",
                vec![&[7, 2, 3], &[1, 2, 4], &[1, 2, 4], &[16, 3], &[16, 4], &[16], &[16]],
                vec![],
                &[7, 2, 4],
                7 * 2 * (16 * 3 + 16 * 4),
            ),
            ("aten::relu", vec![&[5]], vec![], &[5], 0),
        ];
        for (op, shapes, rest, out, expected) in cases {
            assert_eq!(count(op, &shapes, rest, out).macs, expected, "{op} {shapes:?}");
        }
    }

    #[test]
    fn views_are_free_and_reductions_cost_what_they_read() {
        let dims = |v: &[i64]| vec![Arg::ints(v)];
        assert_eq!(
            count("aten::permute", &[&[4, 5]], dims(&[1, 0]), &[5, 4]),
            Work::default()
        );
        assert_eq!(count("aten::reshape", &[&[4, 5]], dims(&[20]), &[20]), Work::default());
        assert_eq!(
            count("aten::sum.dim_IntList", &[&[4, 5]], dims(&[1]), &[4]).elements,
            20
        );
        assert_eq!(
            count("aten::embedding", &[&[1000, 8], &[3]], vec![], &[3, 8]).elements,
            24
        );
    }

    #[test]
    fn symbols_count_as_their_bound() {
        let mut symbols = Symbols::default();
        symbols
            .ranges
            .insert(Symbol::new("s1"), SymbolRange { min: 1, max: Some(10) });
        let ty = |name: &str| TensorType::new(DType::F16, vec![Expr::symbol(name) * Expr::Int(2)]);
        assert_eq!(bytes(&ty("s1"), &symbols), 40);
        assert_eq!(bytes(&ty("s2"), &symbols), 512);
    }
}
