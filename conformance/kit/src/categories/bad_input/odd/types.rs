//! Sizes and element types.

use super::{F, boolean, endure, float, int, none};
use crate::case::{Outcome, Trial};
use crate::categories::small::{A, Maker, Ty};
use delegraph_abi::DType;
use delegraph_abi::image::Arg;

use A::{C, Is, T, Ts};

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
                &[T(0), Is(&[-1]), boolean(true), none()],
                &[x],
            );
            if i < 9 {
                m.add("aten::amax", &note, &[x], &[T(0), Is(&[0]), boolean(true)], &[x]);
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
                    &[T(0), Is(&[1]), boolean(false), none()],
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
                &[T(1), T(0), int(-1), boolean(false), boolean(false)],
                &[(F, &[3, 4])],
            );
            m.add(
                "aten::gather",
                "as indices",
                &[(a, &[3, 2]), (F, &[3, 5])],
                &[T(1), int(1), T(0), boolean(false)],
                &[(F, &[3, 2])],
            );
            m.add(
                "aten::layer_norm",
                "",
                &[x],
                &[T(0), Is(&[5]), none(), none(), float(1e-5), boolean(false)],
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
                &[T(0), Is(&[1]), boolean(false), none()],
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
            &[T(0), int(2), int(-1), boolean(true), boolean(true)],
            &[(F, &[3, 2])],
        );
        m.add(
            "aten::max.dim",
            "with no result",
            &[x],
            &[T(0), int(1), boolean(false)],
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
