//! Images that verify, and make no sense.

use crate::case::{Failure, Outcome, Trial};
use crate::categories::basis::{compiler, warn};
use crate::categories::endure::Endured;
use crate::categories::small::{A, Maker, Small, Ty};
use crate::driver::Instance;
use crate::workload::normal_form;
use delegraph_abi::DType;
use delegraph_abi::image::{Arg, ImageBuilder, Type};

use A::{C, Is, T, Ts};

const F: DType = DType::F32;
const I: DType = DType::I64;

/// Hands over every graph.
fn endure(trial: &mut Trial<'_>, graphs: impl FnOnce(u32) -> Vec<Small>) -> Outcome {
    let (_, instance) = compiler(trial)?;
    let all = graphs(normal_form(trial));
    let all: Vec<_> = all.into_iter().map(|small| (small.name, small.image)).collect();
    endure_images(trial, &instance, all)
}

fn endure_images(trial: &mut Trial<'_>, instance: &Instance, all: Vec<(String, Vec<u8>)>) -> Outcome {
    let mut endured = Endured::default();
    for (name, image) in all {
        endured.follow(trial, instance, &format!("a graph of {name}"), &image)?;
    }
    endured.measure(trial);
    warn(&endured.warnings)
}

fn int(value: i64) -> A {
    C(Arg::Int(value))
}

fn none() -> A {
    C(Arg::None)
}

fn yes(value: bool) -> A {
    C(Arg::Bool(value))
}

fn float(value: f64) -> A {
    C(Arg::Float(value))
}

/// Integers that sizes, counts and dimensions go wrong by.
const NASTY: [i64; 10] = [
    0,
    -1,
    -2,
    3,
    64,
    1 << 40,
    -(1 << 40),
    1_000_000_000_000_000_000,
    i64::MAX,
    i64::MIN,
];

pub fn sizes(trial: &mut Trial<'_>) -> Outcome {
    endure(trial, |form| {
        let mut m = Maker::new(form);
        let all: [&'static [i64]; 14] = [
            &[],
            &[0],
            &[0, 5],
            &[5, 0],
            &[0, 0, 0],
            &[1],
            &[1, 1, 1, 1, 1, 1, 1, 1],
            &[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
            &[2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1],
            &[1 << 40],
            &[1 << 40, 1 << 40],
            &[i64::MAX, i64::MAX, i64::MAX],
            &[0, i64::MAX],
            &[1 << 62, 2],
        ];
        for (i, sizes) in all.into_iter().enumerate() {
            let note = format!("over {sizes:?}");
            let x: Ty = (F, sizes);
            m.add("aten::relu", &note, &[x], &[T(0)], &[x]);
            m.add("aten::add.Tensor", &note, &[x, x], &[T(0), T(1), int(1)], &[x]);
            m.add("aten::softmax.int", &note, &[x], &[T(0), int(-1), none()], &[x]);
            m.add("aten::clone", &note, &[x], &[T(0), none()], &[x]);
            m.add(
                "aten::sum.dim_IntList",
                &note,
                &[x],
                &[T(0), Is(&[-1]), yes(true), none()],
                &[x],
            );
            if i < 9 {
                m.add("aten::amax", &note, &[x], &[T(0), Is(&[0]), yes(true)], &[x]);
            }
        }
        for (rows, inner, columns) in [(0, 5, 4), (3, 0, 4), (3, 5, 0), (0, 0, 0), (1 << 31, 1 << 31, 1 << 31)] {
            // The maker borrows sizes for good: there are few.
            let leak = |sizes: Vec<i64>| -> &'static [i64] { sizes.leak() };
            let (a, b, c) = (
                leak(vec![rows, inner]),
                leak(vec![inner, columns]),
                leak(vec![rows, columns]),
            );
            let note = format!("of {a:?} by {b:?}");
            m.add("aten::mm", &note, &[(F, a), (F, b)], &[T(0), T(1)], &[(F, c)]);
        }
        m.finish()
    })
}

pub fn attributes(trial: &mut Trial<'_>) -> Outcome {
    endure(trial, |form| {
        let mut m = Maker::new(form);
        let x: Ty = (F, &[3, 5]);
        let image: Ty = (F, &[1, 3, 8, 8]);
        for n in NASTY {
            let list = |n: i64| -> A { Is(vec![n, n].leak()) };
            let one = |n: i64| -> A { Is(vec![n].leak()) };
            let note = format!("with {n}");
            m.add("aten::softmax.int", &note, &[x], &[T(0), int(n), none()], &[x]);
            m.add(
                "aten::sum.dim_IntList",
                &note,
                &[x],
                &[T(0), one(n), yes(false), none()],
                &[(F, &[3])],
            );
            m.add(
                "aten::mean.dim",
                &note,
                &[x],
                &[T(0), list(n), yes(false), none()],
                &[(F, &[3])],
            );
            m.add("aten::argmax", &note, &[x], &[T(0), int(n), yes(false)], &[(I, &[3])]);
            m.add("aten::cumsum", &note, &[x], &[T(0), int(n), none()], &[x]);
            m.add(
                "aten::topk",
                &note,
                &[x],
                &[T(0), int(n), int(1), yes(true), yes(true)],
                &[(F, &[3, 2]), (I, &[3, 2])],
            );
            m.add(
                "aten::topk",
                &format!("along {n}"),
                &[x],
                &[T(0), int(2), int(n), yes(true), yes(true)],
                &[(F, &[3, 2]), (I, &[3, 2])],
            );
            m.add("aten::permute", &note, &[x], &[T(0), list(n)], &[x]);
            m.add(
                "aten::transpose.int",
                &note,
                &[x],
                &[T(0), int(n), int(0)],
                &[(F, &[5, 3])],
            );
            m.add("aten::view", &note, &[x], &[T(0), list(n)], &[(F, &[5, 3])]);
            m.add("aten::reshape", &note, &[x], &[T(0), one(n)], &[(F, &[15])]);
            m.add(
                "aten::expand",
                &note,
                &[(F, &[1, 5])],
                &[T(0), list(n), yes(false)],
                &[x],
            );
            m.add("aten::repeat", &note, &[x], &[T(0), list(n)], &[(F, &[6, 10])]);
            m.add("aten::select.int", &note, &[x], &[T(0), int(0), int(n)], &[(F, &[5])]);
            m.add(
                "aten::select.int",
                &format!("along {n}"),
                &[x],
                &[T(0), int(n), int(0)],
                &[(F, &[5])],
            );
            m.add("aten::unsqueeze", &note, &[x], &[T(0), int(n)], &[(F, &[3, 1, 5])]);
            m.add(
                "aten::squeeze.dim",
                &note,
                &[(F, &[1, 5])],
                &[T(0), int(n)],
                &[(F, &[5])],
            );
            m.add("aten::flip", &note, &[x], &[T(0), list(n)], &[x]);
            m.add("aten::roll", &note, &[x], &[T(0), one(n), one(0)], &[x]);
            m.add("aten::cat", &note, &[x, x], &[Ts(&[0, 1]), int(n)], &[(F, &[6, 5])]);
            m.add(
                "aten::stack",
                &note,
                &[x, x],
                &[Ts(&[0, 1]), int(n)],
                &[(F, &[2, 3, 5])],
            );
            m.add("aten::split.Tensor", &note, &[x], &[T(0), int(n), int(0)], &[x]);
            m.add(
                "aten::constant_pad_nd",
                &note,
                &[x],
                &[T(0), list(n), float(0.0)],
                &[(F, &[3, 7])],
            );
            m.add(
                "aten::unfold",
                &note,
                &[x],
                &[T(0), int(1), int(n), int(1)],
                &[(F, &[3, 4, 2])],
            );
            m.add(
                "aten::full",
                &note,
                &[],
                &[list(n), float(1.0), C(Arg::DType(F)), none(), none(), none()],
                &[x],
            );
            m.add(
                "aten::arange",
                &note,
                &[],
                &[int(n), C(Arg::DType(F)), none(), none(), none()],
                &[(F, &[5])],
            );
            m.add(
                "aten::add.Tensor",
                &format!("and alpha {n}"),
                &[x, x],
                &[T(0), T(1), int(n)],
                &[x],
            );
            m.add("aten::pow.Tensor_Scalar", &note, &[x], &[T(0), int(n)], &[x]);
            m.add(
                "aten::layer_norm",
                &note,
                &[x],
                &[T(0), one(n), none(), none(), float(1e-5), yes(false)],
                &[x],
            );
            m.add(
                "aten::pixel_shuffle",
                &note,
                &[(F, &[1, 4, 2, 2])],
                &[T(0), int(n)],
                &[(F, &[1, 1, 4, 4])],
            );
            for (start, end, step) in [(n, 4, 1), (0, n, 1), (0, 4, n)] {
                let args = [T(0), int(1), int(start), int(end), int(step)];
                m.add(
                    "aten::slice.Tensor",
                    &format!("from {start} to {end} by {step}"),
                    &[x],
                    &args,
                    &[(F, &[3, 4])],
                );
            }
            let weight: Ty = (F, &[4, 3, 3, 3]);
            for (what, stride, padding, dilation, groups) in [
                ("stride", n, 1, 1, 1),
                ("padding", 1, n, 1, 1),
                ("dilation", 1, 1, n, 1),
                ("groups", 1, 1, 1, n),
            ] {
                let args = [
                    T(0),
                    T(1),
                    none(),
                    list(stride),
                    list(padding),
                    list(dilation),
                    int(groups),
                ];
                m.add(
                    "aten::conv2d",
                    &format!("and {what} {n}"),
                    &[image, weight],
                    &args,
                    &[(F, &[1, 4, 8, 8])],
                );
            }
            for (what, kernel, stride, padding, dilation) in [
                ("kernel", n, 2, 0, 1),
                ("stride", 2, n, 0, 1),
                ("padding", 2, 2, n, 1),
                ("dilation", 2, 2, 0, n),
            ] {
                let args = [
                    T(0),
                    list(kernel),
                    list(stride),
                    list(padding),
                    list(dilation),
                    yes(false),
                ];
                m.add(
                    "aten::max_pool2d",
                    &format!("and {what} {n}"),
                    &[image],
                    &args,
                    &[(F, &[1, 3, 4, 4])],
                );
                let args = [
                    T(0),
                    list(kernel),
                    list(stride),
                    list(padding),
                    yes(true),
                    yes(true),
                    int(n),
                ];
                m.add(
                    "aten::avg_pool2d",
                    &format!("and {what} {n}"),
                    &[image],
                    &args,
                    &[(F, &[1, 3, 4, 4])],
                );
            }
            m.add(
                "aten::adaptive_avg_pool2d",
                &note,
                &[image],
                &[T(0), list(n)],
                &[(F, &[1, 3, 2, 2])],
            );
            m.add(
                "aten::upsample_nearest2d.vec",
                &note,
                &[image],
                &[T(0), list(n), none()],
                &[(F, &[1, 3, 16, 16])],
            );
        }
        for n in [
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            0.0,
            -0.0,
            1e308,
            5e-324,
            -1.0,
        ] {
            let note = format!("with {n:e}");
            m.add("aten::clamp", &note, &[x], &[T(0), float(n), float(-n)], &[x]);
            m.add("aten::pow.Tensor_Scalar", &note, &[x], &[T(0), float(n)], &[x]);
            m.add("aten::add.Tensor", &note, &[x, x], &[T(0), T(1), float(n)], &[x]);
            m.add("aten::leaky_relu", &note, &[x], &[T(0), float(n)], &[x]);
            m.add(
                "aten::layer_norm",
                &note,
                &[x],
                &[T(0), Is(&[5]), none(), none(), float(n), yes(false)],
                &[x],
            );
            m.add(
                "aten::full",
                &note,
                &[],
                &[Is(&[3, 5]), float(n), C(Arg::DType(DType::I32)), none(), none(), none()],
                &[(DType::I32, &[3, 5])],
            );
            let scales = C(Arg::Floats(vec![n, n]));
            m.add(
                "aten::upsample_nearest2d.vec",
                &note,
                &[image],
                &[T(0), none(), scales],
                &[(F, &[1, 3, 16, 16])],
            );
            m.add(
                "aten::arange.start_step",
                &note,
                &[],
                &[
                    float(0.0),
                    float(4.0),
                    float(n),
                    C(Arg::DType(F)),
                    none(),
                    none(),
                    none(),
                ],
                &[(F, &[4])],
            );
        }
        m.add(
            "aten::gelu",
            "with `sigmoid`",
            &[x],
            &[T(0), C(Arg::Str("sigmoid".to_string()))],
            &[x],
        );
        m.add(
            "aten::gelu",
            "with a text of 64 KiB",
            &[x],
            &[T(0), C(Arg::Str("tanh".repeat(16384)))],
            &[x],
        );
        m.add("aten::permute", "with no dimensions", &[x], &[T(0), Is(&[])], &[x]);
        m.add(
            "aten::conv2d",
            "with empty lists",
            &[image, (F, &[4, 3, 3, 3])],
            &[T(0), T(1), none(), Is(&[]), Is(&[]), Is(&[]), int(1)],
            &[(F, &[1, 4, 8, 8])],
        );
        m.add("aten::cat", "of nothing", &[], &[Ts(&[]), int(0)], &[x]);
        m.finish()
    })
}

pub fn arguments(trial: &mut Trial<'_>) -> Outcome {
    endure(trial, |form| {
        let mut m = Maker::new(form);
        let x: Ty = (F, &[3, 5]);
        let kinds: [(&str, A); 14] = [
            ("None", none()),
            ("an integer", int(1)),
            ("a float", float(0.5)),
            ("a boolean", yes(true)),
            ("a text", C(Arg::Str("x".to_string()))),
            ("a dtype", C(Arg::DType(F))),
            (
                "a memory format",
                C(Arg::MemoryFormat(delegraph_abi::c::MemoryFormat(99))),
            ),
            ("a tensor", T(0)),
            ("sizes", Is(&[3, 5])),
            ("no sizes", Is(&[])),
            ("floats", C(Arg::Floats(vec![0.5, f64::NAN]))),
            ("booleans", C(Arg::Bools(vec![true]))),
            ("scalars", C(Arg::Scalars(vec![Arg::Int(1), Arg::Float(0.5)]))),
            ("tensors", Ts(&[0, 0])),
        ];
        // The operator, how many parameters its schema has, and arguments that are right.
        let right: [(&str, Vec<A>); 12] = [
            ("aten::relu", vec![T(0)]),
            ("aten::add.Tensor", vec![T(0), T(0), int(1)]),
            ("aten::mul.Tensor", vec![T(0), T(0)]),
            ("aten::softmax.int", vec![T(0), int(-1), none()]),
            ("aten::sum.dim_IntList", vec![T(0), Is(&[1]), yes(false), none()]),
            ("aten::mm", vec![T(0), T(0)]),
            ("aten::linear", vec![T(0), T(0), none()]),
            ("aten::cat", vec![Ts(&[0, 0]), int(0)]),
            ("aten::view", vec![T(0), Is(&[5, 3])]),
            ("aten::clamp", vec![T(0), float(-1.0), float(1.0)]),
            ("aten::slice.Tensor", vec![T(0), int(1), int(0), int(5), int(1)]),
            (
                "aten::_to_copy",
                vec![T(0), C(Arg::DType(F)), none(), none(), none(), yes(false), none()],
            ),
        ];
        for (op, args) in &right {
            for count in 0..args.len() {
                m.add(
                    op,
                    &format!("with {count} of {} arguments", args.len()),
                    &[x],
                    &args[..count],
                    &[x],
                );
            }
            let mut more = args.clone();
            more.extend((0..40).map(int));
            m.add(op, "with 40 arguments more", &[x], &more, &[x]);
            for at in 0..args.len() {
                for (what, kind) in &kinds {
                    let mut changed = args.clone();
                    changed[at] = kind.clone();
                    m.add(op, &format!("with {what} as argument {at}"), &[x], &changed, &[x]);
                }
            }
        }
        m.finish()
    })
}

pub fn dtypes(trial: &mut Trial<'_>) -> Outcome {
    endure(trial, |form| {
        let mut m = Maker::new(form);
        let all = [
            F,
            DType::F16,
            DType::BF16,
            DType::F64,
            DType::I8,
            DType::U8,
            DType::I16,
            DType::U16,
            DType::I32,
            DType::U32,
            DType::I64,
            DType::U64,
            DType::BOOL,
            DType::C64,
            DType::C128,
            DType::F8E4M3,
            DType::F8E5M2,
        ];
        for a in all {
            let x: Ty = (a, &[3, 5]);
            for b in all {
                let y: Ty = (b, &[3, 5]);
                m.add("aten::relu", &format!("to {b}"), &[x], &[T(0)], &[y]);
                m.add(
                    "aten::add.Tensor",
                    &format!("and {b}"),
                    &[x, y],
                    &[T(0), T(1), int(1)],
                    &[x],
                );
                m.add("aten::eq.Tensor", &format!("to {b}"), &[x, x], &[T(0), T(1)], &[y]);
                m.add(
                    "aten::sum.dim_IntList",
                    &format!("to {b}"),
                    &[x],
                    &[T(0), Is(&[1]), yes(false), none()],
                    &[(b, &[3])],
                );
                m.add(
                    "aten::where.self",
                    &format!("and {b}"),
                    &[x, y, y],
                    &[T(0), T(1), T(2)],
                    &[y],
                );
            }
            m.add("aten::sqrt", "", &[x], &[T(0)], &[x]);
            m.add("aten::softmax.int", "", &[x], &[T(0), int(-1), none()], &[x]);
            m.add("aten::mm", "", &[x, (a, &[5, 4])], &[T(0), T(1)], &[(a, &[3, 4])]);
            m.add(
                "aten::embedding",
                "as indices",
                &[(a, &[3]), (F, &[9, 4])],
                &[T(1), T(0), int(-1), yes(false), yes(false)],
                &[(F, &[3, 4])],
            );
            m.add(
                "aten::gather",
                "as indices",
                &[(a, &[3, 2]), (F, &[3, 5])],
                &[T(1), int(1), T(0), yes(false)],
                &[(F, &[3, 2])],
            );
            m.add(
                "aten::layer_norm",
                "",
                &[x],
                &[T(0), Is(&[5]), none(), none(), float(1e-5), yes(false)],
                &[x],
            );
            m.add("aten::bitwise_not", "", &[x], &[T(0)], &[x]);
        }
        m.finish()
    })
}

pub fn results(trial: &mut Trial<'_>) -> Outcome {
    endure(trial, |form| {
        let mut m = Maker::new(form);
        let x: Ty = (F, &[3, 5]);
        let others: [&'static [i64]; 9] = [&[], &[1], &[0], &[3], &[2, 5], &[3, 4], &[5, 3], &[4, 6], &[1, 3, 5]];
        for sizes in others {
            let note = format!("that gives {sizes:?}");
            let y: Ty = (F, sizes);
            m.add("aten::relu", &note, &[x], &[T(0)], &[y]);
            m.add("aten::add.Tensor", &note, &[x, x], &[T(0), T(1), int(1)], &[y]);
            m.add("aten::softmax.int", &note, &[x], &[T(0), int(-1), none()], &[y]);
            m.add(
                "aten::sum.dim_IntList",
                &note,
                &[x],
                &[T(0), Is(&[1]), yes(false), none()],
                &[y],
            );
            m.add("aten::mm", &note, &[x, (F, &[5, 5])], &[T(0), T(1)], &[y]);
            m.add(
                "aten::mm",
                &format!("of sizes that do not fit {note}"),
                &[x, (F, &[4, 5])],
                &[T(0), T(1)],
                &[y],
            );
            m.add("aten::linear", &note, &[x, (F, &[5, 5])], &[T(0), T(1), none()], &[y]);
            m.add("aten::cat", &note, &[x, x], &[Ts(&[0, 1]), int(0)], &[y]);
            m.add("aten::view", &note, &[x], &[T(0), Is(&[5, 3])], &[y]);
            m.add("aten::permute", &note, &[x], &[T(0), Is(&[1, 0])], &[y]);
            m.add(
                "aten::add.Tensor",
                &format!("and {sizes:?}"),
                &[x, y],
                &[T(0), T(1), int(1)],
                &[x],
            );
            m.add(
                "aten::full",
                &note,
                &[],
                &[Is(&[3, 5]), float(1.0), C(Arg::DType(F)), none(), none(), none()],
                &[y],
            );
        }
        m.add("aten::relu", "without a result", &[x], &[T(0)], &[]);
        m.add("aten::relu", "with two results", &[x], &[T(0)], &[x, x]);
        m.add(
            "aten::add.Tensor",
            "with nine results",
            &[x, x],
            &[T(0), T(1), int(1)],
            &[x; 9],
        );
        m.add(
            "aten::topk",
            "with one result",
            &[x],
            &[T(0), int(2), int(-1), yes(true), yes(true)],
            &[(F, &[3, 2])],
        );
        m.add(
            "aten::max.dim",
            "with no result",
            &[x],
            &[T(0), int(1), yes(false)],
            &[],
        );
        m.add(
            "aten::split.Tensor",
            "with too few results",
            &[x],
            &[T(0), int(1), int(0)],
            &[(F, &[1, 5]), (F, &[1, 5])],
        );
        m.add(
            "aten::split.Tensor",
            "with too many results",
            &[x],
            &[T(0), int(2), int(0)],
            &[(F, &[2, 5]), (F, &[1, 5]), (F, &[1, 5])],
        );
        m.finish()
    })
}

pub fn whole(trial: &mut Trial<'_>) -> Outcome {
    let (_, instance) = compiler(trial)?;
    let form = normal_form(trial);
    let mut all: Vec<(String, Vec<u8>)> = Vec::new();
    let mut add = |name: &str, build: &dyn Fn(&mut ImageBuilder, &Type)| -> Outcome {
        let mut image = ImageBuilder::new(name);
        image.normal_form(form);
        let dims = [image.int(3), image.int(5)];
        build(&mut image, &Type::tensor(F, &dims));
        let image = image
            .finish()
            .map_err(|error| Failure::fail(format!("the kit's image {name}: {error}")))?;
        all.push((name.to_string(), image));
        Ok(())
    };
    let relu = |image: &mut ImageBuilder, ty: &Type, name: &str, x| {
        image.node(name, "aten::relu", &[Arg::Value(x)], &[(&format!("{name}.y"), ty)], "")[0]
    };
    add("no inputs", &|image, ty| {
        let three_five = [image.int(3), image.int(5)];
        let args = [
            Arg::Ints(three_five.to_vec()),
            Arg::Float(1.0),
            Arg::DType(F),
            Arg::None,
            Arg::None,
            Arg::None,
        ];
        let y = image.node("full", "aten::full", &args, &[("y", ty)], "")[0];
        let z = relu(image, ty, "relu", y);
        image.output(z);
    })?;
    add("no outputs", &|image, ty| {
        let x = image.input("x", ty);
        relu(image, ty, "relu", x);
    })?;
    add("one value as three outputs", &|image, ty| {
        let x = image.input("x", ty);
        let y = relu(image, ty, "relu", x);
        (0..3).for_each(|_| image.output(y));
    })?;
    add("an input as an output", &|image, ty| {
        let x = image.input("x", ty);
        let y = relu(image, ty, "relu", x);
        image.output(x);
        image.output(y);
    })?;
    add("a weight as an output", &|image, ty| {
        let weight = image.weight(7, F, &[3, 5]);
        let w = image.weight_value("w", ty, weight);
        let y = relu(image, ty, "relu", w);
        image.output(w);
        image.output(y);
    })?;
    add("an input that nobody reads", &|image, ty| {
        let x = image.input("x", ty);
        image.input("unread", ty);
        let y = relu(image, ty, "relu", x);
        image.output(y);
    })?;
    add("a node whose result nobody reads", &|image, ty| {
        let x = image.input("x", ty);
        relu(image, ty, "dead", x);
        let y = relu(image, ty, "relu", x);
        image.output(y);
    })?;
    add("five hundred inputs", &|image, ty| {
        let values: Vec<_> = (0..500).map(|i| image.input(&format!("x{i}"), ty)).collect();
        let mut sum = values[0];
        for (i, value) in values.iter().enumerate().skip(1) {
            let args = [Arg::Value(sum), Arg::Value(*value), Arg::Int(1)];
            sum = image.node(
                &format!("n{i}"),
                "aten::add.Tensor",
                &args,
                &[(&format!("y{i}"), ty)],
                "",
            )[0];
        }
        image.output(sum);
    })?;
    add("a list of a thousand tensors", &|image, ty| {
        let x = image.input("x", ty);
        let dims = [image.int(3000), image.int(5)];
        let out = Type::tensor(F, &dims);
        let y = image.node(
            "cat",
            "aten::cat",
            &[Arg::Values(vec![x; 1000]), Arg::Int(0)],
            &[("y", &out)],
            "",
        )[0];
        image.output(y);
    })?;
    add("one value as both operands, a hundred times", &|image, ty| {
        let mut x = image.input("x", ty);
        for i in 0..100 {
            let args = [Arg::Value(x), Arg::Value(x), Arg::Int(-1)];
            x = image.node(
                &format!("n{i}"),
                "aten::add.Tensor",
                &args,
                &[(&format!("y{i}"), ty)],
                "",
            )[0];
        }
        image.output(x);
    })?;
    add("names of a megabyte, of nothing and in other scripts", &|image, ty| {
        let x = image.input(&"x".repeat(1 << 20), ty);
        let y = image.node(
            "",
            "aten::relu",
            &[Arg::Value(x)],
            &[("", ty)],
            &"f.py:1\n".repeat(1000),
        )[0];
        let z = image.node("\u{1f980}\0\n", "aten::relu", &[Arg::Value(y)], &[("\u{202e}", ty)], "")[0];
        image.output(z);
    })?;
    add("numbers as inputs and outputs", &|image, ty| {
        let n = image.symbol("s0", 1, Some(9));
        let k = image.input("k", &Type::Int(n));
        let f = image.input("f", &Type::Float);
        let b = image.input("b", &Type::Bool);
        let x = image.input("x", ty);
        let args = [Arg::Value(x), Arg::Value(f), Arg::Value(k)];
        let y = image.node("n", "aten::add.Tensor", &args, &[("y", ty)], "")[0];
        image.output(y);
        image.output(k);
        image.output(b);
    })?;
    add("a symbol of negative sizes", &|image, _| {
        let n = image.symbol("s0", i64::MIN, Some(-1));
        let ty = Type::tensor(F, &[n, n]);
        let x = image.input("x", &ty);
        let y = image.node("n", "aten::relu", &[Arg::Value(x)], &[("y", &ty)], "")[0];
        image.output(y);
    })?;
    add("sizes that overflow, and a division by zero", &|image, _| {
        use delegraph_abi::image::ExprOp;
        let (most, zero, two) = (image.int(i64::MAX), image.int(0), image.int(2));
        let product = image.op(ExprOp::MUL, &[most, two]);
        let quotient = image.op(ExprOp::FLOOR_DIV, &[two, zero]);
        let power = image.op(ExprOp::POW, &[most, most]);
        let ty = Type::tensor(F, &[product, quotient, power]);
        let x = image.input("x", &ty);
        let y = image.node("n", "aten::relu", &[Arg::Value(x)], &[("y", &ty)], "")[0];
        image.output(y);
    })?;
    endure_images(trial, &instance, all)
}
