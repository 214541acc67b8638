//! Each predicate, over images that are built here.

use super::*;
use crate::Manifest;
use delegraph_abi::image::{Arg, ImageBuilder, NodeIndex, Type, verify};

/// Three operators of PyTorch, as its signatures have them.
struct Table;

impl OperatorTable for Table {
    fn parameters(&self, op: &str) -> Option<Vec<Parameter>> {
        let one = Some(Literal::Int(1));
        let params: &[(&str, Option<Literal>)] = match op {
            "aten::add.Tensor" => &[("self", None), ("other", None), ("alpha", one)],
            "aten::gelu" => &[("self", None), ("approximate", Some(Literal::Text("none".to_string())))],
            "aten::gather" => &[("self", None), ("dim", None), ("index", None)],
            "aten::convolution" => &[
                ("input", None),
                ("weight", None),
                ("bias", None),
                ("stride", None),
                ("groups", None),
            ],
            _ => return None,
        };
        let parameter = |(name, default): &(&str, Option<Literal>)| Parameter {
            name: (*name).to_string(),
            default: default.clone(),
        };
        Some(params.iter().map(parameter).collect())
    }

    fn names(&self) -> Vec<&'static str> {
        vec!["aten::add.Tensor", "aten::convolution", "aten::gather", "aten::gelu"]
    }
}

/// The claims of a text.
fn claims(text: &str) -> Claims {
    parsed(text).unwrap()
}

fn parsed(text: &str) -> Result<Claims, String> {
    let head = "manifest_version = 1\nname = 'x'\nvendor = 'v'\nversion = '1.0.0'\nlicence = 'MIT'\n\
                library = 'libx.so'\nroles = ['run']\nabi = { major = 0, min_minor = 0 }\n";
    Ok(Manifest::parse(&format!("{head}{text}"))?.claims)
}

/// One `[[op]]` of these keys.
fn of(op: &str, keys: &str) -> Claims {
    claims(&format!("[[op]]\nop = '{op}'\n{keys}"))
}

/// A node, built by `build`, which is given the image and says what its arguments and outputs are.
fn node(op: &str, build: impl FnOnce(&mut ImageBuilder) -> (Vec<Arg>, Vec<Type>)) -> Vec<u8> {
    let mut builder = ImageBuilder::new("forward");
    let (args, types) = build(&mut builder);
    let outputs: Vec<(&str, &Type)> = types.iter().map(|ty| ("y", ty)).collect();
    for output in builder.node("n", op, &args, &outputs, "") {
        builder.output(output);
    }
    builder.finish().unwrap()
}

fn tensor(builder: &mut ImageBuilder, dtype: DType, sizes: &[i64]) -> Type {
    let dims: Vec<_> = sizes.iter().map(|size| builder.int(*size)).collect();
    Type::tensor(dtype, &dims)
}

/// `add(a, b, alpha=1)` of these dtypes and sizes, the output as given last.
fn add(tensors: [(DType, &[i64]); 3]) -> Vec<u8> {
    node("aten::add.Tensor", |builder| {
        let [a, b, y] = tensors.map(|(dtype, sizes)| tensor(builder, dtype, sizes));
        let (a, b) = (builder.input("a", &a), builder.input("b", &b));
        (vec![Arg::Value(a), Arg::Value(b), Arg::Int(1)], vec![y])
    })
}

/// Why it is not claimed; empty where it is.
fn judged(claims: &Claims, image: &[u8]) -> String {
    let view = verify(image).unwrap();
    match claims.judge(&view.node(NodeIndex(0)), &Table) {
        Ok(_) => String::new(),
        Err(unclaimed) => unclaimed.reason,
    }
}

const F32_2: (DType, &[i64]) = (DType::F32, &[2]);

#[test]
fn operators_by_name_and_by_pattern() {
    let image = add([F32_2; 3]);
    assert_eq!(judged(&of("aten::add.Tensor", "dtypes = ['f32']"), &image), "");
    assert_eq!(judged(&of("aten::add*", "dtypes = ['f32']"), &image), "");
    let other = of("aten::add", "dtypes = ['f32']");
    assert_eq!(judged(&other, &image), "the manifest claims no `aten::add.Tensor`");
    assert!(Claims::default().is_empty());
    // The claim that fits better tells, in whatever order.
    let two = "[[op]]\nop = '*'\ndtypes = ['i8']\n[[op]]\nop = '*'\ndtypes = ['f32']\nranks = [4]\n";
    assert_eq!(judged(&claims(two), &image), "`a` has rank 1, not [4]");
    let three = format!("{two}[[op]]\nop = ['aten::x', 'aten::add.Tensor']\ndtypes = ['f32']");
    let view = verify(&image).unwrap();
    assert_eq!(claims(&three).judge(&view.node(NodeIndex(0)), &Table), Ok(2));
}

#[test]
fn dtypes_of_all_of_outputs_and_of_parameters() {
    let both = of("aten::add.Tensor", "dtypes = ['f32', 'f16']");
    let f16 = (DType::F16, &[2][..]);
    assert_eq!(judged(&both, &add([f16; 3])), "");
    assert_eq!(
        judged(&both, &add([f16, F32_2, F32_2])),
        "`b` is f32, another tensor f16: tensors of one dtype are claimed"
    );
    let mixed = of("aten::add.Tensor", "dtypes = ['f32', 'f16']\nmixed = true");
    assert_eq!(judged(&mixed, &add([f16, F32_2, F32_2])), "");
    let i8 = (DType::I8, &[2][..]);
    assert_eq!(judged(&both, &add([i8; 3])), "`a` is i8, not f32, f16");
    let outputs = of("aten::add.Tensor", "dtypes = ['f32']\noutputs = ['bool']");
    assert_eq!(judged(&outputs, &add([F32_2; 3])), "`y` is f32, not bool");
    assert_eq!(judged(&outputs, &add([F32_2, F32_2, (DType::BOOL, &[2])])), "");
    let gather = node("aten::gather", |builder| {
        let (x, index) = (tensor(builder, DType::F32, &[3]), tensor(builder, DType::I64, &[2]));
        let y = tensor(builder, DType::F32, &[2]);
        let (x, index) = (builder.input("x", &x), builder.input("index", &index));
        (vec![Arg::Value(x), Arg::Int(0), Arg::Value(index)], vec![y])
    });
    assert_eq!(
        judged(&of("aten::gather", "dtypes = ['f32']"), &gather),
        "`index` is i64, not f32"
    );
    let index = of("aten::gather", "dtypes = ['f32']\nparams = { index = ['i32', 'i64'] }");
    assert_eq!(judged(&index, &gather), "");
}

#[test]
fn ranks_and_shapes() {
    let image = add([(DType::F32, &[1, 2]), F32_2, (DType::F32, &[1, 2])]);
    for (ranks, fits) in [
        ("[2]", true),
        ("'0..=4'", true),
        ("2", true),
        ("[0, 1]", false),
        ("'3..=4'", false),
    ] {
        let claims = of("aten::add.Tensor", &format!("dtypes = ['f32']\nranks = {ranks}"));
        assert_eq!(judged(&claims, &image).is_empty(), fits, "{ranks}");
    }
    let equal = of("aten::add.Tensor", "dtypes = ['f32']\nshapes = 'equal'");
    assert_eq!(judged(&equal, &image), "`b` has other sizes than `y`");
    assert_eq!(judged(&equal, &add([F32_2; 3])), "");
    // The output counts too.
    let wide = add([F32_2, (DType::F32, &[3, 2]), (DType::F32, &[3, 2])]);
    let flat = of("aten::add.Tensor", "dtypes = ['f32']\nranks = [1]");
    assert_eq!(judged(&flat, &wide), "`y` has rank 2, not [1]");
}

/// `add` of two tensors of the size `s`, or `2 * s`, where `s` has a bound or none.
fn dynamic_add(max: Option<i64>) -> Vec<u8> {
    node("aten::add.Tensor", |builder| {
        let s = builder.symbol("s", 1, max);
        let two = builder.int(2);
        let twice = builder.op(delegraph_abi::c::ExprOp::MUL, &[two, s]);
        let ty = Type::tensor(DType::F32, &[s, twice]);
        let (a, b) = (builder.input("a", &ty), builder.input("b", &ty));
        (vec![Arg::Value(a), Arg::Value(b), Arg::Int(1)], vec![ty])
    })
}

#[test]
fn dynamic_sizes() {
    for (word, fixed, bounded, unbounded) in [
        ("static", true, false, false),
        ("bounded", true, true, false),
        ("any", true, true, true),
    ] {
        let claims = of("*", &format!("dtypes = ['f32']\nshapes = 'equal'\ndynamic = '{word}'"));
        assert_eq!(judged(&claims, &add([F32_2; 3])).is_empty(), fixed, "{word}");
        assert_eq!(judged(&claims, &dynamic_add(Some(8))).is_empty(), bounded, "{word}");
        assert_eq!(judged(&claims, &dynamic_add(None)).is_empty(), unbounded, "{word}");
    }
    let unsaid = of("*", "dtypes = ['f32']");
    assert_eq!(
        judged(&unsaid, &dynamic_add(Some(8))),
        "`a` has dynamic sizes with a bound, and the claim is of fixed sizes"
    );
}

/// A convolution of `[1, 4, 5]`; its weight is a constant or not.
fn convolution(constant: bool, groups: i64, strides: &[i64], bias: bool) -> Vec<u8> {
    node("aten::convolution", |builder| {
        let (x, w) = (
            tensor(builder, DType::F32, &[1, 4, 5]),
            tensor(builder, DType::F32, &[4, 4 / groups, 1]),
        );
        let x = builder.input("x", &x);
        let weight = match constant {
            true => {
                let index = builder.weight(0, DType::F32, &[4, 4 / groups, 1]);
                builder.weight_value("w", &w, index)
            }
            false => builder.input("w", &w),
        };
        let bias = match bias {
            true => {
                let ty = tensor(builder, DType::F32, &[4]);
                Arg::Value(builder.input("bias", &ty))
            }
            false => Arg::None,
        };
        let strides = Arg::Ints(strides.iter().map(|s| builder.int(*s)).collect());
        let y = tensor(builder, DType::F32, &[1, 4, 5]);
        let args = vec![Arg::Value(x), Arg::Value(weight), bias, strides, Arg::Int(groups)];
        (args, vec![y])
    })
}

#[test]
fn constants() {
    let constant = of("aten::convolution", "dtypes = ['f32']\nweights = ['weight', 'bias']");
    assert_eq!(judged(&constant, &convolution(true, 1, &[1], false)), "");
    assert_eq!(
        judged(&constant, &convolution(false, 1, &[1], false)),
        "`weight` is no constant"
    );
    assert_eq!(
        judged(&constant, &convolution(true, 1, &[1], true)),
        "`bias` is no constant"
    );
    let none = of("aten::convolution", "dtypes = ['f32']\nweights = 'none'");
    assert_eq!(judged(&none, &convolution(true, 1, &[1], false)), "`w` is a constant");
    assert_eq!(judged(&none, &convolution(false, 1, &[1], true)), "");
}

#[test]
fn arguments() {
    let cases: [(&str, Vec<u8>, &str); 15] = [
        ("groups = 1", convolution(true, 1, &[1], false), ""),
        (
            "groups = 1",
            convolution(true, 2, &[1], false),
            "`groups` is 2, and the claim is of 1",
        ),
        ("groups = [1, 'channels']", convolution(true, 4, &[1], false), ""),
        (
            "groups = [1, 'channels']",
            convolution(true, 2, &[1], false),
            "`groups` is 2, and the claim is of 1, \"channels\"",
        ),
        ("groups = 1.0", convolution(true, 1, &[1], false), ""),
        ("groups = '!=1'", convolution(true, 1, &[1], false), "`groups` is 1"),
        ("stride = '<=2'", convolution(true, 1, &[1, 2], false), ""),
        (
            "stride = '<2'",
            convolution(true, 1, &[1, 2], false),
            "`stride` is [1, 2], and the claim is of \"<2\"",
        ),
        ("stride = [1, 2]", convolution(true, 1, &[2, 1], false), ""),
        (
            "stride = [[1, 2]]",
            convolution(true, 1, &[2, 1], false),
            "`stride` is [2, 1]",
        ),
        ("stride = [[1, 2], [2, 1]]", convolution(true, 1, &[2, 1], false), ""),
        ("bias = 'absent'", convolution(true, 1, &[1], false), ""),
        (
            "bias = 'absent'",
            convolution(true, 1, &[1], true),
            "`bias` is a tensor",
        ),
        ("bias = 'present'", convolution(true, 1, &[1], true), ""),
        (
            "bias = 'present'",
            convolution(true, 1, &[1], false),
            "`bias` is \"absent\", and",
        ),
    ];
    for (text, image, reason) in cases {
        let claims = of("*", &format!("dtypes = ['f32']\nwhere = {{ {text} }}"));
        let judged = judged(&claims, &image);
        match reason {
            "" => assert_eq!(judged, "", "{text}"),
            reason => assert!(judged.starts_with(reason), "{text}: {judged}"),
        }
    }
    // A text, and an argument that the image leaves out.
    let gelu = |args: usize| {
        node("aten::gelu", |builder| {
            let ty = tensor(builder, DType::F32, &[2]);
            let x = builder.input("x", &ty);
            let all = vec![Arg::Value(x), Arg::Str("tanh".to_string())];
            (all.into_iter().take(args).collect(), vec![ty])
        })
    };
    let exact = of("aten::gelu", "dtypes = ['f32']\nwhere = { approximate = ['none'] }");
    assert_eq!(judged(&exact, &gelu(1)), "");
    assert_eq!(
        judged(&exact, &gelu(2)),
        "`approximate` is \"tanh\", and the claim is of \"none\""
    );
    let number = of("aten::gelu", "dtypes = ['f32']\nwhere = { self = 'tensor' }");
    assert_eq!(judged(&number, &gelu(1)), "");
    let unknown = of("aten::gelu", "dtypes = ['f32']\nwhere = { alpha = 1 }");
    assert_eq!(judged(&unknown, &gelu(1)), "`aten::gelu` has no parameter `alpha`");
}

#[test]
fn numbers_known_at_run_time_only_are_not_covered() {
    let image = node("aten::add.Tensor", |builder| {
        let s = builder.symbol("s", 1, Some(4));
        let ty = Type::tensor(DType::F32, &[s]);
        let a = builder.input("a", &ty);
        (vec![Arg::Value(a), Arg::Value(a), Arg::Expr(s)], vec![ty])
    });
    let keys = "dtypes = ['f32']\ndynamic = 'bounded'\nwhere = { alpha = '>0' }";
    assert_eq!(judged(&of("*", keys), &image), "`alpha` is known at run time only");
    let present = "dtypes = ['f32']\ndynamic = 'bounded'\nwhere = { alpha = 'present' }";
    assert_eq!(judged(&of("*", present), &image), "");
}

#[test]
fn quantized_tensors() {
    let image = node("aten::add.Tensor", |builder| {
        let two = builder.int(2);
        let ty = Type::Tensor {
            dtype: DType::I8,
            dims: vec![two],
            quant: Some(Quant::PerTensor {
                scale: 0.5,
                zero_point: 0,
                quant_min: -128,
                quant_max: 127,
            }),
        };
        let (a, b) = (builder.input("a", &ty), builder.input("b", &ty));
        (vec![Arg::Value(a), Arg::Value(b), Arg::Int(1)], vec![ty])
    });
    for (keys, reason) in [
        ("quant = ['per-tensor']\nstorage = ['i8', 'u8']", ""),
        (
            "dtypes = ['i8']",
            "`a` is i8 quantized per-tensor, which is not claimed",
        ),
        ("dtypes = ['i8']\nquant = 'none'", "`a` is i8 quantized per-tensor"),
        ("quant = 'per-axis'\nstorage = ['i8']", "`a` is i8 quantized per-tensor"),
        (
            "quant = 'per-tensor'\nstorage = ['u8']",
            "`a` is i8 quantized per-tensor",
        ),
    ] {
        let judged = judged(&of("*", keys), &image);
        assert!(
            judged.starts_with(reason) && judged.is_empty() == reason.is_empty(),
            "{keys}: {judged}"
        );
    }
    let plain = add([F32_2; 3]);
    assert_eq!(
        judged(&of("*", "quant = 'per-tensor'\nstorage = ['i8']"), &plain),
        "`a` is f32, not quantized"
    );
}

#[test]
fn mistakes_are_named() {
    for (keys, expected) in [
        ("dtypes = ['f32']", "`op[1].op` in the manifest is missing"),
        (
            "op = 'add'\ndtypes = ['f32']",
            "no namespace; did you mean `aten::add`?",
        ),
        ("op = '*'", "`op[1].dtypes` in the manifest is missing"),
        (
            "op = '*'\ndtypes = ['f3']",
            "holds `f3`, which is no dtype; did you mean",
        ),
        ("op = '*'\ndtypes = []", "`op[1].dtypes` in the manifest is neither"),
        (
            "op = '*'\ndtypes = ['f32']\nranks = '4..0'",
            "`4..0`; a range is written",
        ),
        (
            "op = '*'\ndtypes = ['f32']\nranks = '0..=99999999999'",
            "a range is written",
        ),
        (
            "op = '*'\ndtypes = ['f32']\nranks = [-1]",
            "which is no number of dimensions",
        ),
        (
            "op = '*'\ndtypes = ['f32']\nshapes = 'same'",
            "is none of `any`, `equal`",
        ),
        ("op = '*'\ndtypes = ['f32']\nweights = 1", "is none of `any`, `none`"),
        (
            "op = '*'\ndtypes = ['f32']\ndynamic = 'no'",
            "is none of `static`, `bounded`, `any`",
        ),
        (
            "op = '*'\nquant = 'per-row'\nstorage = ['i8']",
            "`per-row`, which is none of",
        ),
        ("op = '*'\nquant = 'per-axis'", "goes with `quant`"),
        (
            "op = '*'\ndtypes = ['f32']\nwhere = { k = '<=x' }",
            "`op[1].where.k` in the manifest is `<=x`",
        ),
        (
            "op = '*'\ndtypes = ['f32']\nwhere = { k = [] }",
            "`op[1].where.k` in the manifest allows nothing",
        ),
        ("op = '*'\ndtypes = ['f32']\nwhere = { k = { a = 1 } }", "holds a table"),
        ("op = '*'\ndtypes = ['f32']\nmixed = 1", "neither true nor false"),
        (
            "op = '*'\ndtypes = ['f32']\nwher = 1",
            "unknown key `op[1].wher`; did you mean `where`?",
        ),
    ] {
        let error = parsed(&format!("[[op]]\n{keys}")).unwrap_err();
        assert!(error.contains(expected), "{keys}: {error}");
    }
}

#[test]
fn what_cannot_be_true_is_found() {
    let text = "[[op]]\nop = ['aten::gelus', 'aten::gelu']\ndtypes = ['f32']\nwhere = { approximat = 'none' }\n\
                [[op]]\nop = '*'\ndtypes = ['f32']\nweights = ['weight']\n";
    assert_eq!(
        claims(text).problems(&Table),
        [
            "`[[op]]` 1 of the manifest claims `aten::gelus`, and there is no such operator; did you mean `aten::gelu`?",
            "`[[op]]` 1 of the manifest: `aten::gelu` has no parameter `approximat`; did you mean `approximate`?",
        ]
    );
}

#[test]
fn what_is_written_is_read_again() {
    let text = "[[op]]\nop = ['aten::a', 'aten::b.*']\ndtypes = ['f32', 'bf16']\nmixed = true\noutputs = ['bool']\n\
                params = { index = ['i64'] }\nranks = '1..=4'\nshapes = 'equal'\nweights = ['weight']\ndynamic = 'bounded'\n\
                quant = ['per-tensor', 'per-block']\nstorage = ['i8']\n\
                where = { a = [1, 2.5, true, 'x'], b = '<=7', c = [[1, 2]], d = 'absent', e = ['channels', 1], f = '>-0.5' }\n\
                [[op]]\nop = 'aten::c'\ndtypes = ['f64']\nranks = [0, 3]\nweights = 'none'\ndynamic = 'any'\n";
    let first = claims(text);
    let written = first.to_string();
    assert_eq!(claims(&written), first, "{written}");
    assert!(
        written.contains("ranks = \"1..=4\"") && written.contains("ranks = [0, 3]"),
        "{written}"
    );
    let many = Claims {
        entries: vec![Claim {
            ops: (0..100).map(|i| format!("aten::operator_{i}")).collect(),
            dtypes: vec![DType::F32],
            ..Claim::default()
        }],
    };
    let written = many.to_string();
    assert_eq!(claims(&written), many);
    assert!(written.lines().all(|line| line.len() <= 144), "{written}");
}

#[test]
fn the_manifest_of_the_documentation_is_read() {
    let page = include_str!("../../../../vendor-docs/claims.md");
    let (_, rest) = page.split_once("```toml\n").unwrap();
    let (text, _) = rest.split_once("```").unwrap();
    let manifest = Manifest::parse(text).unwrap();
    assert_eq!(manifest.claims.entries.len(), 4);
    assert_eq!(claims(&manifest.claims.to_string()), manifest.claims);
    assert!(!manifest.numeric.denormals && manifest.numeric.nan);
    assert_eq!(judged(&manifest.claims, &add([F32_2; 3])), "");
}
