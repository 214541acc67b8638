//! Arguments that are not those of the schema.

use super::{F, boolean, endure, float, int, none};
use crate::case::{Outcome, Trial};
use crate::categories::small::{A, Maker, Ty};
use delegraph_abi::image::Arg;

use A::{C, Is, T, Ts};

pub fn arguments(trial: &mut Trial<'_>) -> Outcome {
    endure(trial, |form| {
        let mut m = Maker::new(form);
        let x: Ty = (F, &[3, 5]);
        let kinds: [(&str, A); 14] = [
            ("None", none()),
            ("an integer", int(1)),
            ("a float", float(0.5)),
            ("a boolean", boolean(true)),
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
            ("aten::sum.dim_IntList", vec![T(0), Is(&[1]), boolean(false), none()]),
            ("aten::mm", vec![T(0), T(0)]),
            ("aten::linear", vec![T(0), T(0), none()]),
            ("aten::cat", vec![Ts(&[0, 0]), int(0)]),
            ("aten::view", vec![T(0), Is(&[5, 3])]),
            ("aten::clamp", vec![T(0), float(-1.0), float(1.0)]),
            ("aten::slice.Tensor", vec![T(0), int(1), int(0), int(5), int(1)]),
            (
                "aten::_to_copy",
                vec![T(0), C(Arg::DType(F)), none(), none(), none(), boolean(false), none()],
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
