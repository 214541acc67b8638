//! Cases of random shapes, attributes and values, judged by the oracle. The same seed gives the same cases.

use super::oracle::{Answer, evaluate};
use super::tolerance::{Class, Policy, Rule};
use delegraph_runner::Leaf;
use delegraph_runner::compare::Tolerance;
use delegraph_runner::corpus::{Argument, OpCase, Want};
use delegraph_runner::fixture::Tensors;
use delegraph_types::{DType, Scalar};

/// Random cases of each operator.
pub const EACH: usize = 3;

/// The operators.
const OPS: [(&str, Class); 30] = [
    ("aten::add.Tensor", Class::Elementwise),
    ("aten::sub.Tensor", Class::Elementwise),
    ("aten::mul.Tensor", Class::Elementwise),
    ("aten::div.Tensor", Class::Elementwise),
    ("aten::maximum", Class::Exact),
    ("aten::minimum", Class::Exact),
    ("aten::relu", Class::Exact),
    ("aten::neg", Class::Exact),
    ("aten::abs", Class::Exact),
    ("aten::sqrt", Class::Elementwise),
    ("aten::exp", Class::Transcendental),
    ("aten::tanh", Class::Transcendental),
    ("aten::sigmoid", Class::Transcendental),
    ("aten::silu", Class::Transcendental),
    ("aten::sum.dim_IntList", Class::Reduction),
    ("aten::mean.dim", Class::Reduction),
    ("aten::amax", Class::Exact),
    ("aten::softmax.int", Class::Transcendental),
    ("aten::log_softmax.int", Class::Transcendental),
    ("aten::cumsum", Class::Reduction),
    ("aten::layer_norm", Class::Reduction),
    ("aten::mm", Class::Reduction),
    ("aten::bmm", Class::Reduction),
    ("aten::linear", Class::Reduction),
    ("aten::conv2d", Class::Reduction),
    ("aten::max_pool2d", Class::Exact),
    ("aten::avg_pool2d", Class::Reduction),
    ("aten::cat", Class::Exact),
    ("aten::permute", Class::Exact),
    ("aten::gather", Class::Exact),
];

/// A random call with what it has to give.
pub struct Case {
    /// The call.
    pub call: OpCase,
    /// Its tensors, the result among them.
    pub tensors: Tensors,
    /// Parameters whose tensors are weights.
    pub constants: Vec<String>,
    /// How it is judged.
    pub rule: Rule,
    /// The result, rounded to f32.
    pub rounded: Leaf,
    /// The result as f64.
    pub precise: Leaf,
    /// See [`Answer::scale`].
    pub scale: Option<Leaf>,
}

/// Ids and operators: they do not depend on the seed.
pub fn ids() -> impl Iterator<Item = (String, &'static str)> {
    let each = |(op, _): (&'static str, Class)| (0..EACH).map(move |i| (format!("op/{op}/f32/random-{i}"), op));
    OPS.into_iter().flat_map(each)
}

/// The case of an id; `None`: it is no random one.
pub fn case(id: &str, seed: u64) -> Option<Result<Case, String>> {
    let (op, rest) = id.strip_prefix("op/")?.split_once('/')?;
    let number: u64 = rest.strip_prefix("f32/random-")?.parse().ok()?;
    let (op, class) = OPS.into_iter().find(|(known, _)| *known == op)?;
    if number >= EACH as u64 {
        return None;
    }
    // Another stream for each case, so that one may be run by itself.
    let name = id.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let maker = Maker {
        source: Source(seed ^ name),
        args: Vec::new(),
        tensors: Tensors::default(),
        constants: Vec::new(),
        k: 1,
    };
    Some(maker.make(op, class))
}

/// SplitMix64.
struct Source(u64);

impl Source {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From `low` to `high`, both among them.
    fn int(&mut self, low: i64, high: i64) -> i64 {
        low + (self.next() % (high - low + 1) as u64) as i64
    }

    fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }

    /// Sum of uniform numbers: near enough to a normal one.
    fn normal(&mut self) -> f32 {
        let sum: f64 = (0..12).map(|_| (self.next() >> 11) as f64 / (1u64 << 53) as f64).sum();
        (sum - 6.0) as f32
    }
}

struct Maker {
    source: Source,
    args: Vec<(String, Argument)>,
    tensors: Tensors,
    constants: Vec<String>,
    k: i64,
}

impl Maker {
    fn sizes(&mut self, rank: i64, most: i64) -> Vec<i64> {
        (0..rank).map(|_| self.source.int(1, most)).collect()
    }

    fn key(&mut self, shape: &[i64], make: fn(&mut Source) -> f32) -> String {
        let count: i64 = shape.iter().product();
        let values: Vec<f32> = (0..count).map(|_| make(&mut self.source)).collect();
        let key = format!("t{}", self.tensors.iter().count());
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let leaf = Leaf::Tensor {
            dtype: DType::F32,
            shape: shape.to_vec(),
            bytes,
        };
        self.tensors.insert(&key, leaf);
        key
    }

    fn tensor(&mut self, name: &str, shape: &[i64]) {
        let key = self.key(shape, Source::normal);
        self.args.push((name.to_string(), Argument::Tensor(key)));
    }

    fn weight(&mut self, name: &str, shape: &[i64]) {
        self.tensor(name, shape);
        self.constants.push(name.to_string());
    }

    fn give(&mut self, name: &str, argument: Argument) {
        self.args.push((name.to_string(), argument));
    }

    fn int(&mut self, name: &str, value: i64) {
        self.give(name, Argument::Number(Scalar::Int(value)));
    }

    fn flag(&mut self, name: &str, value: bool) {
        self.give(name, Argument::Number(Scalar::Bool(value)));
    }

    /// A dimension, from the front or from the end.
    fn dim(&mut self, rank: i64) -> (i64, usize) {
        let dim = self.source.int(0, rank - 1);
        let given = if self.source.coin() { dim - rank } else { dim };
        (given, dim as usize)
    }

    fn make(mut self, op: &str, class: Class) -> Result<Case, String> {
        self.arguments(op);
        let mut call = OpCase {
            key: "random".to_string(),
            op: op.to_string(),
            shard: 0,
            args: self.args,
            out: Vec::new(),
            tolerance: Tolerance { rtol: 0.0, atol: 0.0 },
            source: String::new(),
        };
        let answer = evaluate(&call, &self.tensors).ok_or_else(|| format!("the oracle does not know `{op}`"))?;
        let Answer { value, scale } = answer;
        let shape: Vec<i64> = value.shape.iter().map(|&size| size as i64).collect();
        let double = |values: &[f64]| Leaf::Tensor {
            dtype: DType::F64,
            shape: shape.clone(),
            bytes: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        };
        let rounded = Leaf::Tensor {
            dtype: DType::F32,
            shape: shape.clone(),
            bytes: value.data.iter().flat_map(|v| (*v as f32).to_le_bytes()).collect(),
        };
        self.tensors.insert("result", rounded.clone());
        call.out = vec![Want::Tensor("result".to_string())];
        Ok(Case {
            precise: double(&value.data),
            scale: scale.map(|scale| double(&scale)),
            rounded,
            rule: Rule {
                class,
                k: self.k.max(1) as u64,
                policy: Policy::Usual,
            },
            call,
            tensors: self.tensors,
            constants: self.constants,
        })
    }

    fn arguments(&mut self, op: &str) {
        match op {
            "aten::add.Tensor" | "aten::sub.Tensor" | "aten::mul.Tensor" | "aten::div.Tensor" | "aten::maximum"
            | "aten::minimum" => {
                let rank = self.source.int(1, 4);
                let shape = self.sizes(rank, 9);
                // Some dimensions of the second are 1, and some leading ones are left out.
                let from = self.source.int(0, rank - 1) as usize;
                let other: Vec<i64> = shape[from..]
                    .iter()
                    .map(|&s| if self.source.coin() { s } else { 1 })
                    .collect();
                self.tensor("self", &shape);
                // A divisor that is not near 0.
                let key = self.key(&other, |source| {
                    let x = source.normal();
                    x + 0.25 * if x < 0.0 { -1.0 } else { 1.0 }
                });
                self.give("other", Argument::Tensor(key));
                if op == "aten::add.Tensor" || op == "aten::sub.Tensor" {
                    let alpha = self.source.int(1, 3);
                    self.int("alpha", alpha);
                }
            }
            "aten::sum.dim_IntList" | "aten::mean.dim" | "aten::amax" => {
                let rank = self.source.int(1, 4);
                let shape = self.sizes(rank, 11);
                let (given, dim) = self.dim(rank);
                let keep = self.source.coin();
                self.k = shape[dim];
                self.tensor("self", &shape);
                self.give("dim", Argument::Ints(vec![given]));
                self.flag("keepdim", keep);
                if op != "aten::amax" {
                    self.give("dtype", Argument::None);
                }
            }
            "aten::softmax.int" | "aten::log_softmax.int" | "aten::cumsum" => {
                let rank = self.source.int(1, 4);
                let shape = self.sizes(rank, 13);
                let (given, dim) = self.dim(rank);
                self.k = shape[dim];
                self.tensor("self", &shape);
                self.int("dim", given);
                self.give("dtype", Argument::None);
            }
            "aten::layer_norm" => {
                let shape = [self.source.int(1, 6), self.source.int(2, 40)];
                self.k = shape[1];
                self.tensor("input", &shape);
                self.give("normalized_shape", Argument::Ints(vec![shape[1]]));
                self.weight("weight", &shape[1..]);
                self.weight("bias", &shape[1..]);
                self.give("eps", Argument::Number(Scalar::Float(1e-5)));
                self.flag("cudnn_enable", true);
            }
            "aten::mm" | "aten::bmm" => {
                let [m, k, n] = [self.source.int(1, 19), self.source.int(1, 67), self.source.int(1, 19)];
                let batch = self.source.int(1, 3);
                let count = if op == "aten::bmm" { vec![batch] } else { vec![] };
                self.k = k;
                self.tensor("self", &[count.as_slice(), &[m, k]].concat());
                self.tensor("mat2", &[count.as_slice(), &[k, n]].concat());
            }
            "aten::linear" => {
                let (rank, k, n) = (self.source.int(1, 3), self.source.int(1, 67), self.source.int(1, 19));
                let mut shape = self.sizes(rank - 1, 5);
                shape.push(k);
                self.k = k + 1;
                self.tensor("input", &shape);
                self.weight("weight", &[n, k]);
                match self.source.coin() {
                    true => self.weight("bias", &[n]),
                    false => self.give("bias", Argument::None),
                }
            }
            "aten::conv2d" => self.convolution(),
            "aten::max_pool2d" | "aten::avg_pool2d" => {
                let shape = [
                    self.source.int(1, 2),
                    self.source.int(1, 4),
                    self.source.int(4, 13),
                    self.source.int(4, 13),
                ];
                let kernel = [self.source.int(1, 4), self.source.int(1, 4)];
                let stride = [self.source.int(1, 3), self.source.int(1, 3)];
                let padding = [self.source.int(0, kernel[0] / 2), self.source.int(0, kernel[1] / 2)];
                self.k = kernel[0] * kernel[1];
                self.tensor("self", &shape);
                self.give("kernel_size", Argument::Ints(kernel.to_vec()));
                self.give("stride", Argument::Ints(stride.to_vec()));
                self.give("padding", Argument::Ints(padding.to_vec()));
                if op == "aten::max_pool2d" {
                    self.give("dilation", Argument::Ints(vec![1, 1]));
                }
                self.flag("ceil_mode", false);
                if op == "aten::avg_pool2d" {
                    self.flag("count_include_pad", true);
                    self.give("divisor_override", Argument::None);
                }
            }
            "aten::cat" => {
                let rank = self.source.int(1, 4);
                let mut shape = self.sizes(rank, 7);
                let (given, dim) = self.dim(rank);
                let mut keys = Vec::new();
                for _ in 0..self.source.int(2, 4) {
                    shape[dim] = self.source.int(1, 7);
                    keys.push(Some(self.key(&shape, Source::normal)));
                }
                self.give("tensors", Argument::Tensors(keys));
                self.int("dim", given);
            }
            "aten::permute" => {
                let rank = self.source.int(2, 5);
                let shape = self.sizes(rank, 7);
                let mut order: Vec<i64> = (0..rank).collect();
                for i in (1..rank as usize).rev() {
                    order.swap(i, self.source.int(0, i as i64) as usize);
                }
                // Delegraph leaves out one that changes nothing.
                if order.is_sorted() {
                    order.reverse();
                }
                self.tensor("self", &shape);
                self.give("dims", Argument::Ints(order));
            }
            "aten::gather" => {
                let shape = self.sizes(2, 9);
                let (given, dim) = self.dim(2);
                let mut picked = shape.clone();
                picked[dim] = self.source.int(1, 9);
                self.tensor("self", &shape);
                self.int("dim", given);
                let count: i64 = picked.iter().product();
                let places: Vec<i64> = (0..count).map(|_| self.source.int(0, shape[dim] - 1)).collect();
                let leaf = Leaf::Tensor {
                    dtype: DType::I64,
                    shape: picked,
                    bytes: places.iter().flat_map(|i| i.to_le_bytes()).collect(),
                };
                self.tensors.insert("index", leaf);
                self.give("index", Argument::Tensor("index".to_string()));
                self.flag("sparse_grad", false);
            }
            _ => {
                let rank = self.source.int(0, 5);
                let shape = self.sizes(rank, 9);
                let make = |source: &mut Source| source.normal().abs();
                let key = self.key(&shape, if op == "aten::sqrt" { make } else { Source::normal });
                self.give("self", Argument::Tensor(key));
            }
        }
    }

    fn convolution(&mut self) {
        let groups = [1, 1, 2, 3][self.source.int(0, 3) as usize];
        let (per_group, each) = (self.source.int(1, 4), self.source.int(1, 4));
        let kernel = [self.source.int(1, 4), self.source.int(1, 4)];
        let dilation = [self.source.int(1, 2), self.source.int(1, 2)];
        let padding = [self.source.int(0, 2), self.source.int(0, 2)];
        let stride = [self.source.int(1, 3), self.source.int(1, 3)];
        let least = |d: usize| dilation[d] * (kernel[d] - 1) + 1;
        let sizes = [least(0) + self.source.int(0, 7), least(1) + self.source.int(0, 7)];
        let batch = self.source.int(1, 2);
        self.k = per_group * kernel[0] * kernel[1] + 1;
        self.tensor("input", &[batch, groups * per_group, sizes[0], sizes[1]]);
        self.weight("weight", &[groups * each, per_group, kernel[0], kernel[1]]);
        self.weight("bias", &[groups * each]);
        for (name, pair) in [("stride", stride), ("padding", padding), ("dilation", dilation)] {
            self.give(name, Argument::Ints(pair.to_vec()));
        }
        self.int("groups", groups);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_case_and_another_seed_another() {
        let mut differ = 0;
        for (id, _) in ids() {
            let of = |seed: u64| match case(&id, seed) {
                Some(Ok(case)) => (case.call, case.rounded),
                _ => panic!("{id}"),
            };
            assert_eq!(of(1), of(1), "{id}");
            differ += usize::from(of(1) != of(2));
        }
        assert_eq!(differ, OPS.len() * EACH);
        assert!(case("op/aten::add.Tensor/f32/random-3", 1).is_none());
        assert!(case("op/aten::add.Tensor/f32/rank3", 1).is_none());
    }
}
