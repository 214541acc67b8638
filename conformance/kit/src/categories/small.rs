//! Some seventy graphs of one node over many operators and element types: what cases ask about that are about no operator in particular.

use delegraph_abi::DType;
use delegraph_abi::image::{Arg, ImageBuilder, Type, ValueIndex};

/// A graph of one node.
pub struct Small {
    /// Operator and element type, for people.
    pub name: String,
    /// The image.
    pub image: Vec<u8>,
    /// Element type, sizes of the inputs.
    pub inputs: Vec<(DType, Vec<i64>)>,
    /// The same of the outputs.
    pub outputs: Vec<(DType, Vec<i64>)>,
}

impl Small {
    /// Whether its operator is one that there is not.
    pub fn is_absent(&self) -> bool {
        self.name.contains("custom::") || self.name.contains("no_such_operator")
    }
}

/// Makes a graph of one node.
pub struct Maker {
    normal_form: u32,
    made: Vec<Small>,
}

/// An argument: a tensor input by its number, or something constant.
#[derive(Clone)]
pub enum A {
    /// Input number.
    T(usize),
    /// Inputs as a list.
    Ts(&'static [usize]),
    /// Constant sizes.
    Is(&'static [i64]),
    /// Anything else.
    C(Arg),
}

use A::{C, Is, T, Ts};

/// A tensor type, for short.
pub type Ty = (DType, &'static [i64]);

impl Maker {
    /// Images of a normal form.
    pub fn new(normal_form: u32) -> Maker {
        let made = Vec::new();
        Maker { normal_form, made }
    }

    /// A graph; one that is no image is left out, which the tests would see.
    pub fn add(&mut self, op: &str, note: &str, inputs: &[Ty], args: &[A], outputs: &[Ty]) {
        let mut image = ImageBuilder::new("forward");
        image.normal_form(self.normal_form);
        let ty = |image: &mut ImageBuilder, (dtype, sizes): &Ty| {
            let dims: Vec<_> = sizes.iter().map(|size| image.int(*size)).collect();
            Type::tensor(*dtype, &dims)
        };
        let values: Vec<ValueIndex> = inputs
            .iter()
            .enumerate()
            .map(|(i, input)| {
                let ty = ty(&mut image, input);
                image.input(&format!("x{i}"), &ty)
            })
            .collect();
        let at = |i: &usize| values.get(*i).copied().unwrap_or(ValueIndex(u32::MAX));
        let args: Vec<Arg> = args
            .iter()
            .map(|arg| match arg {
                T(i) => Arg::Value(at(i)),
                Ts(all) => Arg::Values(all.iter().map(at).collect()),
                Is(all) => Arg::Ints(all.iter().map(|size| image.int(*size)).collect()),
                C(arg) => arg.clone(),
            })
            .collect();
        let types: Vec<Type> = outputs.iter().map(|output| ty(&mut image, output)).collect();
        let names: Vec<String> = (0..types.len()).map(|i| format!("y{i}")).collect();
        let pairs: Vec<(&str, &Type)> = names.iter().map(String::as_str).zip(&types).collect();
        for value in image.node("n", op, &args, &pairs, "") {
            image.output(value);
        }
        let Ok(image) = image.finish() else { return };
        let plain = |all: &[Ty]| all.iter().map(|(dtype, sizes)| (*dtype, sizes.to_vec())).collect();
        let dtype = inputs
            .first()
            .or(outputs.first())
            .map_or(DType::F32, |(dtype, _)| *dtype);
        self.made.push(Small {
            name: format!("`{op}` of {dtype}{}{note}", if note.is_empty() { "" } else { " " }),
            image,
            inputs: plain(inputs),
            outputs: plain(outputs),
        });
    }

    /// What was made.
    pub fn finish(self) -> Vec<Small> {
        self.made
    }
}

const F: DType = DType::F32;
const I: DType = DType::I64;

/// The graphs.
pub fn graphs(normal_form: u32) -> Vec<Small> {
    let mut m = Maker::new(normal_form);
    let none = || C(Arg::None);
    let int = |value| C(Arg::Int(value));
    let no = || C(Arg::Bool(false));
    let float = |value| C(Arg::Float(value));
    for op in [
        "aten::relu",
        "aten::sigmoid",
        "aten::tanh",
        "aten::abs",
        "aten::neg",
        "aten::exp",
        "aten::sqrt",
        "aten::rsqrt",
        "aten::floor",
        "aten::silu",
        "aten::erf",
        "aten::log",
        "aten::sin",
    ] {
        m.add(op, "", &[(F, &[3, 5])], &[T(0)], &[(F, &[3, 5])]);
    }
    for dtype in [
        DType::F16,
        DType::BF16,
        DType::F64,
        DType::I8,
        DType::U8,
        DType::I16,
        DType::I32,
        DType::I64,
        DType::BOOL,
        DType::C64,
    ] {
        m.add("aten::abs", "", &[(dtype, &[3, 5])], &[T(0)], &[(dtype, &[3, 5])]);
        let both = [(dtype, &[3i64, 5] as &'static [i64]); 2];
        m.add(
            "aten::add.Tensor",
            "",
            &both,
            &[T(0), T(1), int(1)],
            &[(dtype, &[3, 5])],
        );
    }
    let two: [Ty; 2] = [(F, &[3, 5]), (F, &[3, 5])];
    for op in [
        "aten::mul.Tensor",
        "aten::div.Tensor",
        "aten::maximum",
        "aten::minimum",
        "aten::atan2",
    ] {
        m.add(op, "", &two, &[T(0), T(1)], &[(F, &[3, 5])]);
    }
    m.add("aten::sub.Tensor", "", &two, &[T(0), T(1), int(1)], &[(F, &[3, 5])]);
    m.add("aten::eq.Tensor", "", &two, &[T(0), T(1)], &[(DType::BOOL, &[3, 5])]);
    m.add(
        "aten::add.Tensor",
        "broadcast",
        &[(F, &[3, 5]), (F, &[5])],
        &[T(0), T(1), int(1)],
        &[(F, &[3, 5])],
    );
    m.add(
        "aten::add.Tensor",
        "of rank 0",
        &[(F, &[]), (F, &[])],
        &[T(0), T(1), int(1)],
        &[(F, &[])],
    );
    m.add(
        "aten::add.Tensor",
        "of no elements",
        &[(F, &[0, 5]), (F, &[0, 5])],
        &[T(0), T(1), int(1)],
        &[(F, &[0, 5])],
    );
    m.add(
        "aten::pow.Tensor_Scalar",
        "",
        &[(F, &[3, 5])],
        &[T(0), int(2)],
        &[(F, &[3, 5])],
    );
    m.add(
        "aten::gelu",
        "",
        &[(F, &[3, 5])],
        &[T(0), C(Arg::Str("none".to_string()))],
        &[(F, &[3, 5])],
    );
    m.add(
        "aten::clamp",
        "",
        &[(F, &[3, 5])],
        &[T(0), float(-1.0), float(1.0)],
        &[(F, &[3, 5])],
    );
    m.add(
        "aten::softmax.int",
        "",
        &[(F, &[3, 5])],
        &[T(0), int(-1), none()],
        &[(F, &[3, 5])],
    );
    m.add(
        "aten::_softmax",
        "",
        &[(F, &[3, 5])],
        &[T(0), int(-1), no()],
        &[(F, &[3, 5])],
    );
    m.add(
        "aten::sum.dim_IntList",
        "",
        &[(F, &[3, 5])],
        &[T(0), Is(&[1]), no(), none()],
        &[(F, &[3])],
    );
    m.add(
        "aten::mean.dim",
        "",
        &[(F, &[3, 5])],
        &[T(0), Is(&[-1]), C(Arg::Bool(true)), none()],
        &[(F, &[3, 1])],
    );
    m.add("aten::amax", "", &[(F, &[3, 5])], &[T(0), Is(&[0]), no()], &[(F, &[5])]);
    m.add("aten::argmax", "", &[(F, &[3, 5])], &[T(0), int(1), no()], &[(I, &[3])]);
    m.add(
        "aten::cumsum",
        "",
        &[(F, &[3, 5])],
        &[T(0), int(1), none()],
        &[(F, &[3, 5])],
    );
    m.add(
        "aten::topk",
        "",
        &[(F, &[3, 5])],
        &[T(0), int(2), int(-1), C(Arg::Bool(true)), C(Arg::Bool(true))],
        &[(F, &[3, 2]), (I, &[3, 2])],
    );
    m.add(
        "aten::mm",
        "",
        &[(F, &[3, 5]), (F, &[5, 4])],
        &[T(0), T(1)],
        &[(F, &[3, 4])],
    );
    m.add(
        "aten::bmm",
        "",
        &[(F, &[2, 3, 5]), (F, &[2, 5, 4])],
        &[T(0), T(1)],
        &[(F, &[2, 3, 4])],
    );
    m.add(
        "aten::matmul",
        "",
        &[(F, &[2, 3, 5]), (F, &[5, 4])],
        &[T(0), T(1)],
        &[(F, &[2, 3, 4])],
    );
    m.add(
        "aten::addmm",
        "",
        &[(F, &[4]), (F, &[3, 5]), (F, &[5, 4])],
        &[T(0), T(1), T(2), int(1), int(1)],
        &[(F, &[3, 4])],
    );
    m.add(
        "aten::linear",
        "",
        &[(F, &[3, 5]), (F, &[4, 5]), (F, &[4])],
        &[T(0), T(1), T(2)],
        &[(F, &[3, 4])],
    );
    m.add(
        "aten::linear",
        "without bias",
        &[(F, &[3, 5]), (F, &[4, 5])],
        &[T(0), T(1), none()],
        &[(F, &[3, 4])],
    );
    let conv = [T(0), T(1), none(), Is(&[1, 1]), Is(&[1, 1]), Is(&[1, 1]), int(1)];
    m.add(
        "aten::conv2d",
        "",
        &[(F, &[1, 3, 8, 8]), (F, &[4, 3, 3, 3])],
        &conv,
        &[(F, &[1, 4, 8, 8])],
    );
    let pool = [T(0), Is(&[2, 2]), Is(&[2, 2]), Is(&[0, 0]), Is(&[1, 1]), no()];
    m.add(
        "aten::max_pool2d",
        "",
        &[(F, &[1, 3, 8, 8])],
        &pool,
        &[(F, &[1, 3, 4, 4])],
    );
    let pool = [
        T(0),
        Is(&[2, 2]),
        Is(&[2, 2]),
        Is(&[0, 0]),
        no(),
        C(Arg::Bool(true)),
        none(),
    ];
    m.add(
        "aten::avg_pool2d",
        "",
        &[(F, &[1, 3, 8, 8])],
        &pool,
        &[(F, &[1, 3, 4, 4])],
    );
    m.add("aten::cat", "", &two, &[Ts(&[0, 1]), int(0)], &[(F, &[6, 5])]);
    m.add(
        "aten::permute",
        "",
        &[(F, &[2, 3, 5])],
        &[T(0), Is(&[2, 0, 1])],
        &[(F, &[5, 2, 3])],
    );
    m.add("aten::view", "", &[(F, &[3, 5])], &[T(0), Is(&[5, 3])], &[(F, &[5, 3])]);
    m.add("aten::reshape", "", &[(F, &[3, 5])], &[T(0), Is(&[15])], &[(F, &[15])]);
    m.add(
        "aten::transpose.int",
        "",
        &[(F, &[3, 5])],
        &[T(0), int(0), int(1)],
        &[(F, &[5, 3])],
    );
    m.add(
        "aten::slice.Tensor",
        "",
        &[(F, &[3, 5])],
        &[T(0), int(1), int(1), int(4), int(1)],
        &[(F, &[3, 3])],
    );
    m.add(
        "aten::select.int",
        "",
        &[(F, &[3, 5])],
        &[T(0), int(0), int(1)],
        &[(F, &[5])],
    );
    m.add(
        "aten::unsqueeze",
        "",
        &[(F, &[3, 5])],
        &[T(0), int(0)],
        &[(F, &[1, 3, 5])],
    );
    m.add("aten::squeeze.dim", "", &[(F, &[1, 5])], &[T(0), int(0)], &[(F, &[5])]);
    m.add(
        "aten::expand",
        "",
        &[(F, &[1, 5])],
        &[T(0), Is(&[3, 5]), no()],
        &[(F, &[3, 5])],
    );
    m.add(
        "aten::where.self",
        "",
        &[(DType::BOOL, &[3, 5]), (F, &[3, 5]), (F, &[3, 5])],
        &[T(0), T(1), T(2)],
        &[(F, &[3, 5])],
    );
    m.add(
        "aten::embedding",
        "",
        &[(F, &[9, 4]), (I, &[3])],
        &[T(0), T(1), int(-1), no(), no()],
        &[(F, &[3, 4])],
    );
    m.add(
        "aten::gather",
        "",
        &[(F, &[3, 5]), (I, &[3, 2])],
        &[T(0), int(1), T(1), no()],
        &[(F, &[3, 2])],
    );
    m.add(
        "aten::index_select",
        "",
        &[(F, &[3, 5]), (I, &[2])],
        &[T(0), int(0), T(1)],
        &[(F, &[2, 5])],
    );
    let norm = [T(0), Is(&[5]), T(1), T(2), float(1e-5), no()];
    m.add(
        "aten::layer_norm",
        "",
        &[(F, &[3, 5]), (F, &[5]), (F, &[5])],
        &norm,
        &[(F, &[3, 5])],
    );
    m.add(
        "aten::constant_pad_nd",
        "",
        &[(F, &[3, 5])],
        &[T(0), Is(&[1, 1]), float(0.0)],
        &[(F, &[3, 7])],
    );
    m.add("aten::flip", "", &[(F, &[3, 5])], &[T(0), Is(&[1])], &[(F, &[3, 5])]);
    let cast = [T(0), C(Arg::DType(DType::F16)), none(), none(), none(), no(), none()];
    m.add("aten::_to_copy", "", &[(F, &[3, 5])], &cast, &[(DType::F16, &[3, 5])]);
    m.add(
        "aten::full",
        "without inputs",
        &[],
        &[Is(&[3, 5]), float(1.5), C(Arg::DType(F)), none(), none(), none()],
        &[(F, &[3, 5])],
    );
    m.add("custom::x", "", &[(F, &[3, 5])], &[T(0)], &[(F, &[3, 5])]);
    m.add("aten::no_such_operator", "", &[(F, &[3, 5])], &[T(0)], &[(F, &[3, 5])]);
    m.finish()
}

/// Bytes of an input: zeros for everything but floats, which are ones, so that indices and divisors do no harm.
pub fn bytes(dtype: DType, sizes: &[i64]) -> Vec<u8> {
    let count = sizes.iter().product::<i64>() as usize;
    match dtype {
        DType::F32 => 1f32.to_le_bytes().repeat(count),
        DType::F64 => 1f64.to_le_bytes().repeat(count),
        DType::F16 => half::f16::ONE.to_le_bytes().repeat(count),
        DType::BF16 => half::bf16::ONE.to_le_bytes().repeat(count),
        other => vec![0; count * other.size().unwrap_or(1)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_graph_is_an_image() {
        let graphs = graphs(0);
        assert_eq!(graphs.len(), 84, "one more or fewer of them is an image");
        for (i, small) in graphs.iter().enumerate() {
            assert!(
                !graphs[..i].iter().any(|other| other.image == small.image),
                "{}",
                small.name
            );
        }
    }
}
