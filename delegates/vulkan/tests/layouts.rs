//! Operators that read a tensor wherever it lies: the same numbers come of it row-major and channels last.

mod common;

use common::{Numbers, alone, available, devices};
use delegraph_abi::DType as Code;
use delegraph_abi::image::{Arg, ImageBuilder, Type};
use delegraph_host::{CallOptions, Input, Output};
use delegraph_types::{DType, Dims};
use serde_json::json;

/// Images, channels, rows, columns: channels that fill vectors of four, and channels that do not.
const SIZES: [[i64; 4]; 2] = [[2, 8, 5, 7], [2, 6, 3, 5]];

/// An operator, the arguments after the tensor, and the sizes of its result.
struct Case {
    op: &'static str,
    args: fn(&mut ImageBuilder) -> Vec<Arg>,
    sizes: fn([i64; 4]) -> Vec<i64>,
}

fn ints(image: &mut ImageBuilder, items: &[i64]) -> Arg {
    Arg::Ints(items.iter().map(|item| image.int(*item)).collect())
}

const CASES: &[Case] = &[
    Case {
        op: "aten::mean.dim",
        args: |image| vec![ints(image, &[2, 3]), Arg::Bool(false), Arg::None],
        sizes: |[n, c, _, _]| vec![n, c],
    },
    Case {
        op: "aten::sum.dim_IntList",
        args: |image| vec![ints(image, &[1]), Arg::Bool(true), Arg::None],
        sizes: |[n, _, h, w]| vec![n, 1, h, w],
    },
    Case {
        op: "aten::amax",
        args: |image| vec![ints(image, &[0, 3]), Arg::Bool(false)],
        sizes: |[_, c, h, _]| vec![c, h],
    },
    Case {
        op: "aten::var.correction",
        args: |image| vec![ints(image, &[1, 2]), Arg::Int(1), Arg::Bool(false)],
        sizes: |[n, _, _, w]| vec![n, w],
    },
    Case {
        op: "aten::group_norm",
        args: |_| vec![Arg::Int(2), Arg::None, Arg::None, Arg::Float(1e-5), Arg::Bool(false)],
        sizes: |sizes| sizes.to_vec(),
    },
    Case {
        op: "aten::instance_norm",
        args: |_| {
            let none = || Arg::None;
            let tail = [Arg::Bool(true), Arg::Float(0.1), Arg::Float(1e-5), Arg::Bool(false)];
            [none(), none(), none(), none()].into_iter().chain(tail).collect()
        },
        sizes: |sizes| sizes.to_vec(),
    },
    Case {
        op: "aten::softmax.int",
        args: |_| vec![Arg::Int(1), Arg::None],
        sizes: |sizes| sizes.to_vec(),
    },
];

/// Two outputs: the operator on the input, and on what a pool of windows of one element makes of it.
fn image(case: &Case, sizes: [i64; 4], dtype: Code) -> Vec<u8> {
    let mut image = ImageBuilder::new("forward");
    let of = |image: &mut ImageBuilder, sizes: &[i64]| {
        let sizes: Vec<_> = sizes.iter().map(|size| image.int(*size)).collect();
        Type::tensor(dtype, &sizes)
    };
    let whole = of(&mut image, &sizes);
    let made = of(&mut image, &(case.sizes)(sizes));
    let x = image.input("x", &whole);
    let [one, stride, none, dilation] = [[1, 1], [1, 1], [0, 0], [1, 1]].map(|items| ints(&mut image, &items));
    let pool = [Arg::Value(x), one, stride, none, dilation, Arg::Bool(false)];
    let pooled = image.node("pool", "aten::max_pool2d", &pool, &[("pooled", &whole)], "")[0];
    for (name, value) in [("direct", x), ("moved", pooled)] {
        let args: Vec<Arg> = [Arg::Value(value)].into_iter().chain((case.args)(&mut image)).collect();
        let out = image.node(name, case.op, &args, &[(name, &made)], "")[0];
        image.output(out);
    }
    image.finish().unwrap()
}

/// Bytes, of which those from the place on are aligned as the delegate asks.
fn room(bytes: usize) -> (Vec<u8>, usize) {
    let room = vec![0xff; bytes + 256];
    let at = room.as_ptr().align_offset(256);
    (room, at)
}

/// A half as a float: normal numbers and zero.
fn half(bits: u16) -> f32 {
    let (sign, rest) = (u32::from(bits >> 15) << 31, u32::from(bits & 0x7fff));
    let shifted = if rest == 0 { 0 } else { (rest << 13) + (112 << 23) };
    f32::from_bits(sign | shifted)
}

/// A whole number of at most 11 bits as a half.
fn to_half(x: f32) -> u16 {
    let bits = x.to_bits();
    let rest = if x == 0.0 {
        0
    } else {
        ((bits & 0x7fff_ffff) - (112 << 23)) >> 13
    };
    ((bits >> 16) & 0x8000 | rest) as u16
}

#[test]
fn the_same_comes_of_either_layout() {
    let _alone = alone();
    let Some(delegate) = available(json!({})) else { return };
    for (case, sizes, (code, dtype, limit)) in CASES.iter().flat_map(|case| {
        let dtypes = [(Code::F32, DType::F32, 1e-5), (Code::F16, DType::F16, 2e-3)];
        SIZES
            .iter()
            .flat_map(move |sizes| dtypes.map(|dtype| (case, *sizes, dtype)))
    }) {
        let wide = dtype == DType::F32;
        let encode = |x: f32| match wide {
            true => x.to_ne_bytes().to_vec(),
            false => to_half(x).to_ne_bytes().to_vec(),
        };
        let decode = |bytes: &[u8]| -> Vec<f32> {
            match wide {
                true => bytes
                    .chunks_exact(4)
                    .map(|b| f32::from_ne_bytes(b.try_into().unwrap()))
                    .collect(),
                false => bytes
                    .chunks_exact(2)
                    .map(|b| half(u16::from_ne_bytes(b.try_into().unwrap())))
                    .collect(),
            }
        };
        let element = if wide { 4 } else { 2 };
        let given: Vec<u8> = (0..sizes.iter().product::<i64>())
            .flat_map(|i| encode(((i * 37 + 11) % 61) as f32 - 30.0))
            .collect();
        let made = (case.sizes)(sizes);
        let bytes = made.iter().product::<i64>() as usize * element;
        let blob = delegate
            .compile(&image(case, sizes, code), &*Numbers::new(), "")
            .unwrap();
        for device in devices(&delegate) {
            let mut session = delegate
                .load_with(&blob, Numbers::new(), Some(device), &CallOptions::default())
                .unwrap();
            let ((mut from, a), (mut direct, b), (mut moved, c)) = (room(given.len()), room(bytes), room(bytes));
            from[a..a + given.len()].copy_from_slice(&given);
            let inputs = [Input {
                dtype,
                sizes: &sizes,
                bytes: &from[a..a + given.len()],
            }];
            let mut outputs = [(&mut direct, b), (&mut moved, c)].map(|(room, at)| Output {
                dtype,
                sizes: Dims::new(&made).unwrap(),
                bytes: &mut room[at..at + bytes],
            });
            session
                .execute_with(&inputs, &mut outputs, &CallOptions::default())
                .unwrap();
            let (direct, moved) = (decode(&direct[b..b + bytes]), decode(&moved[c..c + bytes]));
            assert!(direct.iter().any(|x| *x != 0.0));
            for (i, (a, b)) in direct.iter().zip(&moved).enumerate() {
                let close = (a - b).abs() <= limit * a.abs().max(1.0);
                assert!(
                    close,
                    "{} of {sizes:?} in {dtype} on {device}: {a} and {b} at {i}",
                    case.op
                );
            }
        }
    }
}
