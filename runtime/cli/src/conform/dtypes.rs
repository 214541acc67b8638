//! The operator table says which dtypes an operator runs on. The kernels' own test asks the kernels; here the operators that only
//! a decomposition computes are asked, each recorded call as a program of one node, with its first tensor in every dtype there is.

use delegraph_config::Config;
use delegraph_kernels::{Arg, Buffer, Call, Growable, Out, Scratch, Tensor, find};
use delegraph_kit::call::Caller;
use delegraph_opset::{BaseType, DTypes, Default, Op};
use delegraph_runner::compare::Tolerance;
use delegraph_runner::corpus::{Argument, Corpus, OpCase, Want};
use delegraph_runner::fixture::Tensors;
use delegraph_runner::{CaseRecord, Leaf, Verdict};
use delegraph_types::{DType, Dims, Scalar};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Rows of decompositions that no call reaches: nobody checks what the table says of their dtypes. These take no tensor.
const UNASKED: [&str; 6] = [
    "aten::fft_fftfreq",
    "aten::fft_rfftfreq",
    "aten::hamming_window",
    "aten::hann_window",
    "aten::tril_indices",
    "aten::triu_indices",
];

#[test]
fn decompositions_take_the_dtypes_of_the_table_and_no_others() {
    let with_kernel: BTreeSet<&str> = delegraph_kernels::all()
        .filter_map(|(name, _)| Op::find(name)?.row_name())
        .collect();
    let with_rule: BTreeSet<&str> = Op::all()
        .filter(|op| delegraph_passes::decompose::has_rule(*op))
        .filter_map(Op::row_name)
        .filter(|row| !with_kernel.contains(row))
        .collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut corpus = Corpus::open(&root.join("conformance/corpus")).unwrap();
    let caller = Caller::new(Config::default(), crate::devices::discover(&Config::default(), true));
    let mut taken: BTreeMap<&str, (DTypes, DTypes)> = BTreeMap::new();
    let mut ask = |case: &OpCase, tensors: &Tensors| {
        let Some(op) = Op::find(&case.op) else {
            return;
        };
        let Some(row) = op.row_name().filter(|row| with_rule.contains(row)) else {
            return;
        };
        // A program without elements may look at no dtype.
        let first = case.inputs().first().map(|key| tensors.get(key));
        if !matches!(first, Some(Some(Leaf::Tensor { shape, .. })) if !shape.contains(&0)) {
            return;
        }
        let (_, taken) = taken.entry(row).or_insert((op.dtypes(), DTypes::default()));
        let more = DType::all().filter(|&dtype| !taken.contains(dtype) && accepts(&caller, case, tensors, dtype));
        let more: DTypes = more.collect();
        taken.extend(more.iter());
    };
    for i in 0..corpus.cases.len() {
        let case = corpus.cases[i].clone();
        ask(&case, corpus.tensors(i).unwrap());
    }
    for (name, given) in written() {
        let (case, tensors) = case_of(name, &given);
        ask(&case, &tensors);
    }
    let wrong: Vec<String> = taken
        .iter()
        .filter(|(_, (claimed, taken))| claimed != taken)
        .map(|(row, (claimed, taken))| format!("`{row}`: the table says `{claimed}`, it runs on `{taken}`"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let other_names = Op::all().filter(|op| op.doc().is_some_and(|doc| doc.contains("another name of `")));
    let other_names: BTreeSet<&str> = other_names.filter_map(Op::row_name).collect();
    // Those of other names are compared with the first name's where the table is.
    let unasked = with_rule.into_iter().filter(|row| !taken.contains_key(row));
    let unasked: Vec<&str> = unasked.filter(|row| !other_names.contains(row)).collect();
    assert_eq!(unasked, UNASKED);
}

#[test]
fn both_parts_of_a_complex_number_are_asked() {
    let caller = Caller::new(Config::default(), crate::devices::discover(&Config::default(), true));
    // Finite parts of an infinite length, one infinite part, one NaN, no imaginary part, a negative zero.
    let parts = [3e38f32, 3e38, 1.0, f32::INFINITY, f32::NAN, 0.0, 2.0, 0.0, 2.0, -0.0];
    for (name, want) in [("aten::isfinite", [1, 0, 0, 1, 1]), ("aten::isreal", [0, 0, 1, 1, 1])] {
        let (case, mut tensors) = case_of(name, &[Given::F32(&[5])]);
        let key = case.inputs()[0].to_string();
        let leaf = Leaf::Tensor {
            dtype: DType::C64,
            shape: vec![5],
            bytes: parts.iter().flat_map(|part| part.to_ne_bytes()).collect(),
        };
        tensors.insert(&key, leaf);
        let given = caller.execute(&case, &tensors, &mut CaseRecord::new(case.id(), Verdict::Pass, ""));
        let want = Leaf::Tensor {
            dtype: DType::Bool,
            shape: vec![5],
            bytes: want.to_vec(),
        };
        assert_eq!(given.unwrap(), [want], "{name}");
    }
}

#[test]
fn what_has_no_complex_form_says_so() {
    let caller = Caller::new(Config::default(), crate::devices::discover(&Config::default(), true));
    let two = || Given::F32(&[2]);
    for (name, given) in [
        ("aten::mse_loss", vec![two(), two()]),
        ("aten::smooth_l1_loss", vec![two(), two()]),
        ("aten::huber_loss", vec![two(), two()]),
        ("aten::kl_div", vec![two(), two()]),
        ("aten::nll_loss", vec![two(), Given::I64(&[])]),
        ("aten::isin.Tensor_Tensor", vec![two(), two()]),
        ("aten::one_hot", vec![two(), Given::Number(Scalar::Int(3))]),
        ("aten::cdist", vec![Given::F32(&[1, 2]), Given::F32(&[1, 2])]),
        ("aten::maximum", vec![two(), two()]),
        ("aten::sort", vec![two()]),
        ("aten::lt.Scalar", vec![two(), Given::Number(Scalar::Int(1))]),
        ("aten::cumsum", vec![two(), Given::Number(Scalar::Int(0))]),
    ] {
        let (case, mut tensors) = case_of(name, &given);
        let mut record = CaseRecord::new(case.id(), Verdict::Pass, "");
        caller.execute(&case, &tensors, &mut record).expect(name);
        let key = case.inputs()[0].to_string();
        let complex = convert(tensors.get(&key).unwrap(), DType::C64);
        tensors.insert(&key, complex);
        let refused = caller.execute(&case, &tensors, &mut record).expect_err(name);
        assert!(
            refused.contains("c64") || refused.contains("complex"),
            "{name}: {refused}"
        );
    }
}

/// Whether a call compiles and runs with its first tensor in this dtype: alone, or with every tensor that shares its dtype.
fn accepts(caller: &Caller, case: &OpCase, tensors: &Tensors, to: DType) -> bool {
    let keys = case.inputs();
    let dtype = |key: &str| match tensors.get(key) {
        Some(Leaf::Tensor { dtype, .. }) => Some(*dtype),
        _ => None,
    };
    let first = keys.first().copied().and_then(dtype);
    [true, false].into_iter().any(|all| {
        let mut converted = tensors.clone();
        for (i, key) in keys.iter().copied().enumerate() {
            if i == 0 || all && dtype(key) == first {
                converted.insert(key, convert(&tensors.get(key).cloned().unwrap_or(Leaf::None), to));
            }
        }
        // What comes out is not looked at, but where a size depends on data, its rank has to be known.
        let unknown = case.out.iter().flat_map(|want| match want {
            Want::Tensors(keys) => vec![Want::Skip; keys.len()],
            Want::Number(number) => vec![Want::Number(*number)],
            _ => vec![Want::Skip],
        });
        let unknown = OpCase {
            out: unknown.collect(),
            ..case.clone()
        };
        let mut record = CaseRecord::new(case.id(), Verdict::Pass, "");
        let mut runs = |case| caller.execute(case, &converted, &mut record).is_ok();
        runs(&unknown) || runs(case)
    })
}

/// The same elements as `aten::_to_copy` converts them; it knows no 8-bit floats, which get bytes.
fn convert(leaf: &Leaf, to: DType) -> Leaf {
    let Leaf::Tensor { dtype, shape, bytes } = leaf else {
        return leaf.clone();
    };
    let as_bytes = matches!(to, DType::F8E5M2 | DType::F8E4M3);
    let made = if as_bytes { DType::U8 } else { to };
    let (mut from, mut memory) = (Growable::default(), Growable::default());
    from.reserve(bytes.len()).unwrap().copy_from_slice(bytes);
    let sizes = Dims::new(shape).unwrap();
    let strides = sizes.contiguous_strides();
    let tensor = Tensor::new(*dtype, &sizes, &strides, &from.bytes()[..bytes.len()]).unwrap();
    let mut out = Out::new(made, Dims::filled(1, 0), &Dims::SCALAR, Buffer::Growable(&mut memory));
    find("aten::_to_copy.out").unwrap()(&mut Call {
        args: &[Arg::Tensor(tensor), Arg::Bool(false), Arg::None],
        outs: std::slice::from_mut(&mut out),
        scratch: &mut Scratch::default(),
        result: None,
    })
    .unwrap();
    Leaf::Tensor {
        dtype: to,
        shape: shape.clone(),
        bytes: memory.bytes()[..sizes.numel().unwrap() * to.size()].to_vec(),
    }
}

/// An argument of a call that is written here.
enum Given {
    /// A tensor of these sizes; its elements are 1, 2, 3 and again.
    F32(&'static [i64]),
    /// Likewise.
    I8(&'static [i64]),
    /// A tensor of zeros: indices.
    I64(&'static [i64]),
    /// Tensors of `f32`.
    List(&'static [&'static [i64]]),
    /// One tensor of indices.
    Indices(&'static [i64]),
    Number(Scalar),
    Ints(&'static [i64]),
    Str(&'static str),
    Type(&'static str),
    Absent,
}

/// Calls of decompositions that nobody recorded, one at least for each; missing arguments have their defaults.
fn written() -> Vec<(&'static str, Vec<Given>)> {
    use Given::*;
    let int = |i: i64| Number(Scalar::Int(i));
    let float = |x: f64| Number(Scalar::Float(x));
    let bool = |b: bool| Number(Scalar::Bool(b));
    let layer = || [bool(true), int(1), float(0.0), bool(false), bool(false), bool(false)];
    let mut calls = vec![
        (
            "aten::_convolution_mode",
            vec![
                F32(&[1, 1, 3]),
                F32(&[1, 1, 2]),
                Absent,
                Ints(&[1]),
                Str("valid"),
                Ints(&[1]),
                int(1),
            ],
        ),
        ("aten::_index_put_impl", vec![F32(&[2]), Indices(&[1]), F32(&[1])]),
        ("aten::_pad_circular", vec![F32(&[1, 1, 3]), Ints(&[1, 1])]),
        ("aten::_pad_enum", vec![F32(&[1, 1, 3]), Ints(&[1, 1]), int(1)]),
        ("aten::_reshape_alias", vec![F32(&[2, 2]), Ints(&[4]), Ints(&[1])]),
        (
            "aten::_scaled_dot_product_attention_math",
            vec![F32(&[1, 1, 2, 2]), F32(&[1, 1, 2, 2]), F32(&[1, 1, 2, 2])],
        ),
        ("aten::_unsafe_index.Tensor", vec![F32(&[2]), Indices(&[1])]),
        ("aten::_unsafe_index_put", vec![F32(&[2]), Indices(&[1]), F32(&[1])]),
        ("aten::_weight_norm", vec![F32(&[2, 2]), F32(&[2, 1])]),
        ("aten::_weight_norm_interface", vec![F32(&[2, 2]), F32(&[2, 1])]),
        ("aten::adjoint", vec![F32(&[2, 3])]),
        ("aten::bilinear", vec![F32(&[1, 2]), F32(&[1, 3]), F32(&[1, 2, 3])]),
        ("aten::chain_matmul", vec![List(&[&[2, 2], &[2, 2], &[2, 2]])]),
        ("aten::conj", vec![F32(&[2])]),
        ("aten::contiguous", vec![F32(&[2])]),
        (
            "aten::fake_quantize_per_tensor_affine",
            vec![F32(&[2]), float(0.5), int(0), int(-128), int(127)],
        ),
        ("aten::ger", vec![F32(&[2]), F32(&[2])]),
        ("aten::fliplr", vec![F32(&[2, 2])]),
        ("aten::flipud", vec![F32(&[2, 2])]),
        ("aten::float_power.Tensor_Scalar", vec![F32(&[2]), float(2.0)]),
        ("aten::frobenius_norm.dim", vec![F32(&[2, 2]), Ints(&[0, 1])]),
        (
            "aten::gru_cell",
            vec![F32(&[1, 1]), F32(&[1, 1]), F32(&[3, 1]), F32(&[3, 1])],
        ),
        ("aten::imag", vec![F32(&[2])]),
        ("aten::isfinite", vec![F32(&[2])]),
        ("aten::isreal", vec![F32(&[2])]),
        ("aten::istft", vec![F32(&[3, 2]), int(4)]),
        ("aten::kron", vec![F32(&[2]), F32(&[2])]),
        ("aten::lift", vec![F32(&[2])]),
        ("aten::linalg_diagonal", vec![F32(&[2, 2])]),
        ("aten::linalg_matrix_norm", vec![F32(&[2, 2]), int(1)]),
        ("aten::linalg_matrix_norm.str_ord", vec![F32(&[2, 2])]),
        ("aten::linalg_multi_dot", vec![List(&[&[2, 2], &[2, 2], &[2, 2]])]),
        ("aten::linalg_vecdot", vec![F32(&[2]), F32(&[2])]),
        (
            "aten::lstm_cell",
            vec![F32(&[1, 1]), List(&[&[1, 1], &[1, 1]]), F32(&[4, 1]), F32(&[4, 1])],
        ),
        ("aten::native_channel_shuffle", vec![F32(&[1, 4, 1, 1]), int(2)]),
        ("aten::nll_loss", vec![F32(&[1, 2]), I64(&[1])]),
        ("aten::nll_loss2d", vec![F32(&[1, 2, 1, 1]), I64(&[1, 1, 1])]),
        ("aten::norm_except_dim", vec![F32(&[2, 2])]),
        ("aten::pad", vec![F32(&[1, 1, 3]), Ints(&[1, 1])]),
        ("aten::pad", vec![F32(&[1, 1, 3]), Ints(&[1, 1]), Str("reflect")]),
        ("aten::pin_memory", vec![F32(&[2])]),
        ("aten::real", vec![F32(&[2])]),
        ("aten::relu6", vec![F32(&[2])]),
        (
            "aten::rnn_relu_cell",
            vec![F32(&[1, 1]), F32(&[1, 1]), F32(&[1, 1]), F32(&[1, 1])],
        ),
        (
            "aten::rnn_tanh_cell",
            vec![F32(&[1, 1]), F32(&[1, 1]), F32(&[1, 1]), F32(&[1, 1])],
        ),
        ("aten::searchsorted.Tensor", vec![F32(&[3]), F32(&[2])]),
        (
            "aten::slow_conv3d",
            vec![F32(&[1, 1, 2, 2, 2]), F32(&[1, 1, 1, 1, 1]), Ints(&[1, 1, 1])],
        ),
        ("aten::stft", vec![F32(&[8]), int(4)]),
        ("aten::tensor_split.sections", vec![F32(&[2]), int(2)]),
        (
            "aten::thnn_conv2d",
            vec![F32(&[1, 1, 2, 2]), F32(&[1, 1, 1, 1]), Ints(&[1, 1])],
        ),
        ("aten::tile", vec![F32(&[2]), Ints(&[2])]),
        ("aten::type_as", vec![F32(&[2]), I64(&[1])]),
        ("aten::unsafe_split_with_sizes", vec![F32(&[2]), Ints(&[1, 1])]),
        (
            "torchao::choose_qparams_affine",
            vec![
                F32(&[1, 2]),
                Str("ASYMMETRIC"),
                Ints(&[1, 2]),
                Type("int8"),
                int(-128),
                int(127),
                float(1e-6),
                Type("float32"),
                Type("int32"),
            ],
        ),
        (
            "torchao::dequantize_affine",
            vec![I8(&[1, 2]), Ints(&[1, 2]), F32(&[1]), Absent, Type("int8")],
        ),
        (
            "torchao::quantize_affine",
            vec![F32(&[1, 2]), Ints(&[1, 2]), F32(&[1]), Absent, Type("int8")],
        ),
    ];
    for (name, gates) in [
        ("aten::gru.input", 3),
        ("aten::rnn_relu.input", 1),
        ("aten::rnn_tanh.input", 1),
    ] {
        let params = match gates {
            3 => List(&[&[3, 1], &[3, 1], &[3], &[3]]),
            _ => List(&[&[1, 1], &[1, 1], &[1], &[1]]),
        };
        let mut args = vec![F32(&[2, 1, 1]), F32(&[1, 1, 1]), params];
        args.extend(layer());
        calls.push((name, args));
    }
    for name in [
        "aten::fft_fft",
        "aten::fft_fft2",
        "aten::fft_fftn",
        "aten::fft_fftshift",
        "aten::fft_hfft",
        "aten::fft_ifft",
        "aten::fft_ifft2",
        "aten::fft_ifftn",
        "aten::fft_ifftshift",
        "aten::fft_ihfft",
        "aten::fft_irfft",
        "aten::fft_irfft2",
        "aten::fft_irfftn",
        "aten::fft_rfft",
        "aten::fft_rfft2",
        "aten::fft_rfftn",
    ] {
        calls.push((name, vec![F32(&[2, 4])]));
    }
    let state = List(&[&[1, 1, 1], &[1, 1, 1]]);
    let mut args = vec![F32(&[2, 1, 1]), state, List(&[&[4, 1], &[4, 1], &[4], &[4]])];
    args.extend(layer());
    calls.push(("aten::lstm.input", args));
    for name in ["Byte", "Char", "Double", "Float", "Half", "Int", "Long", "Short"] {
        let op = Op::all()
            .map(Op::name)
            .find(|op| op.strip_prefix("aten::_cast_") == Some(name));
        calls.push((op.unwrap(), vec![F32(&[2])]));
    }
    calls
}

/// A call that is written here, as a case.
fn case_of(name: &str, given: &[Given]) -> (OpCase, Tensors) {
    let mut tensors = Tensors::default();
    let mut tensor = |sizes: &[i64], dtype: DType, element: fn(usize) -> usize| {
        let key = format!("{}", tensors.iter().count());
        let count = sizes.iter().product::<i64>() as usize;
        let leaf = Leaf::Tensor {
            dtype: DType::U8,
            shape: sizes.to_vec(),
            bytes: (0..count).map(|i| element(i) as u8).collect(),
        };
        tensors.insert(&key, convert(&leaf, dtype));
        key
    };
    let schema = Op::find(name).unwrap().schema();
    let mut args = Vec::new();
    for (i, param) in schema.params.iter().enumerate() {
        let arg = match given.get(i) {
            Some(Given::F32(sizes)) => Argument::Tensor(tensor(sizes, DType::F32, |i| i % 3 + 1)),
            Some(Given::I8(sizes)) => Argument::Tensor(tensor(sizes, DType::I8, |i| i % 3 + 1)),
            Some(Given::I64(sizes)) => Argument::Tensor(tensor(sizes, DType::I64, |_| 0)),
            Some(Given::List(all)) => {
                let keys = all.iter().map(|sizes| Some(tensor(sizes, DType::F32, |i| i % 3 + 1)));
                Argument::Tensors(keys.collect())
            }
            Some(Given::Indices(sizes)) => Argument::Tensors(vec![Some(tensor(sizes, DType::I64, |_| 0))]),
            Some(Given::Number(number)) => Argument::Number(*number),
            Some(Given::Ints(items)) => Argument::Ints(items.to_vec()),
            Some(Given::Str(text)) => Argument::Str(text.to_string()),
            Some(Given::Type(name)) => Argument::DType(name.to_string()),
            Some(Given::Absent) => Argument::None,
            None => match &param.default {
                Some(Default::Bool(b)) => Argument::Number(Scalar::Bool(*b)),
                Some(Default::Int(_)) if param.ty.base == BaseType::MemoryFormat => {
                    Argument::MemoryFormat("contiguous_format".to_string())
                }
                Some(Default::Int(code)) if param.ty.base == BaseType::DType => {
                    Argument::DType(DType::from_pte(*code as i8).unwrap().torch_name().to_string())
                }
                Some(Default::Int(i)) => Argument::Number(Scalar::Int(*i)),
                Some(Default::Float(x)) => Argument::Number(Scalar::Float(*x)),
                Some(Default::Str(text)) => Argument::Str(text.clone()),
                Some(Default::Ints(items)) => Argument::Ints(items.clone()),
                _ => Argument::None,
            },
        };
        args.push((param.name.clone(), arg));
    }
    // How many tensors a list has is not said by the schema: two, in these calls.
    let results = schema
        .returns
        .iter()
        .map(|returned| if returned.ty.list { 2 } else { 1 });
    let case = OpCase {
        key: String::new(),
        op: name.to_string(),
        shard: 0,
        args,
        out: vec![Want::Skip; results.sum()],
        tolerance: Tolerance { rtol: 0.0, atol: 0.0 },
        source: String::new(),
    };
    (case, tensors)
}
