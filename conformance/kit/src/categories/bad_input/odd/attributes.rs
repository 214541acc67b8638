//! Values of arguments that an operator cannot have.

use super::{F, I, boolean, endure, float, int, none};
use crate::case::{Outcome, Trial};
use crate::categories::small::{A, Maker, Ty};
use delegraph_abi::DType;
use delegraph_abi::image::Arg;

use A::{C, Is, T, Ts};

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
                &[T(0), one(n), boolean(false), none()],
                &[(F, &[3])],
            );
            m.add(
                "aten::mean.dim",
                &note,
                &[x],
                &[T(0), list(n), boolean(false), none()],
                &[(F, &[3])],
            );
            m.add(
                "aten::argmax",
                &note,
                &[x],
                &[T(0), int(n), boolean(false)],
                &[(I, &[3])],
            );
            m.add("aten::cumsum", &note, &[x], &[T(0), int(n), none()], &[x]);
            m.add(
                "aten::topk",
                &note,
                &[x],
                &[T(0), int(n), int(1), boolean(true), boolean(true)],
                &[(F, &[3, 2]), (I, &[3, 2])],
            );
            m.add(
                "aten::topk",
                &format!("along {n}"),
                &[x],
                &[T(0), int(2), int(n), boolean(true), boolean(true)],
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
                &[T(0), list(n), boolean(false)],
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
                &[T(0), one(n), none(), none(), float(1e-5), boolean(false)],
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
                    boolean(false),
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
                    boolean(true),
                    boolean(true),
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
                &[T(0), Is(&[5]), none(), none(), float(n), boolean(false)],
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
