//! A device that binds little at once: nodes with larger tensors are lowered in parts, and the same comes of them. The range is made small by a variable,
//! in processes of their own.

mod common;

use common::*;
use delegraph_abi::DType as Code;
use delegraph_abi::image::{Arg, ImageBuilder, Type, ValueIndex};
use delegraph_host::{CallOptions, Input, Output};
use delegraph_types::{DType, Dims};
use serde_json::json;

/// Most bytes of a binding, where it is made small.
const RANGE: &str = "4096";

#[test]
fn what_is_more_than_a_binding_covers_runs_in_parts() {
    let _alone = alone();
    in_child("in_parts", "DELEGRAPH_VULKAN_RANGE", RANGE);
}

/// The small region of other tests: 16 KiB of rows.
fn rows() {
    let Some(delegate) = available(json!({"validation": true})) else {
        return;
    };
    for image in [image(), fixed_image()] {
        let blob = delegate.compile(&image, &*Numbers::new(), "").unwrap();
        for device in devices(&delegate) {
            let options = CallOptions::default();
            let mut session = delegate
                .load_with(&blob, Numbers::new(), Some(device), &options)
                .unwrap();
            log();
            let x = input(ROWS, 5);
            assert_eq!(run(&mut session, &x, &How::default()).unwrap(), expected(&x));
            let lines = log();
            assert!(count(&lines, "dispatches") >= 4, "{lines:?}");
        }
    }
}

/// A graph of one input, and what comes of it.
struct Case {
    name: &'static str,
    sizes: &'static [i64],
    node: fn(&mut ImageBuilder, ValueIndex) -> (&'static str, Vec<Arg>),
    out: &'static [i64],
    expected: fn(&[f32]) -> Vec<f32>,
}

fn ints(image: &mut ImageBuilder, items: &[i64]) -> Arg {
    Arg::Ints(items.iter().map(|item| image.int(*item)).collect())
}

const CASES: &[Case] = &[
    Case {
        name: "a line whose parts have no rows",
        sizes: &[5003],
        node: |_, x| ("aten::abs", vec![Arg::Value(x)]),
        out: &[5003],
        expected: |x| x.iter().map(|x| x.abs()).collect(),
    },
    Case {
        name: "rows that are too much by themselves",
        sizes: &[3, 1040],
        node: |_, x| ("aten::neg", vec![Arg::Value(x)]),
        out: &[3, 1040],
        expected: |x| x.iter().map(|x| -x).collect(),
    },
    Case {
        name: "a sum of all",
        sizes: &[40, 100],
        node: |_, x| ("aten::sum", vec![Arg::Value(x), Arg::None]),
        out: &[],
        expected: |x| vec![x.iter().sum()],
    },
    Case {
        name: "the largest of all",
        sizes: &[40, 100],
        node: |_, x| ("aten::max", vec![Arg::Value(x)]),
        out: &[],
        expected: |x| vec![x.iter().copied().fold(f32::NEG_INFINITY, f32::max)],
    },
    Case {
        name: "sums of rows",
        sizes: &[64, 100],
        node: |image, x| {
            let dims = ints(image, &[1]);
            (
                "aten::sum.dim_IntList",
                vec![Arg::Value(x), dims, Arg::Bool(false), Arg::None],
            )
        },
        out: &[64],
        expected: |x| x.chunks(100).map(|row| row.iter().sum()).collect(),
    },
    Case {
        name: "a matrix turned over",
        sizes: &[48, 52],
        node: |image, x| {
            let dims = ints(image, &[1, 0]);
            ("aten::permute", vec![Arg::Value(x), dims])
        },
        out: &[52, 48],
        expected: |x| (0..52 * 48).map(|i| x[i % 48 * 52 + i / 48]).collect(),
    },
    Case {
        name: "joined with itself along rows",
        sizes: &[30, 50],
        node: |_, x| ("aten::cat", vec![Arg::Values(vec![x, x]), Arg::Int(1)]),
        out: &[30, 100],
        expected: |x| x.chunks(50).flat_map(|row| [row, row].concat()).collect(),
    },
    Case {
        name: "running sums",
        sizes: &[64, 40],
        node: |_, x| ("aten::cumsum", vec![Arg::Value(x), Arg::Int(1), Arg::None]),
        out: &[64, 40],
        expected: |x| {
            let line = |row: &[f32]| -> Vec<f32> {
                let mut sum = 0.0;
                let next = |x: &f32| {
                    sum += x;
                    sum
                };
                row.iter().map(next).collect()
            };
            x.chunks(40).flat_map(line).collect()
        },
    },
    Case {
        name: "the product with itself",
        sizes: &[4, 32, 32],
        node: |_, x| ("aten::bmm", vec![Arg::Value(x), Arg::Value(x)]),
        out: &[4, 32, 32],
        expected: |x| {
            let product = |m: &[f32]| -> Vec<f32> {
                let at = |i: usize, j: usize| (0..32).map(|k| m[i * 32 + k] * m[k * 32 + j]).sum();
                (0..1024).map(|i| at(i / 32, i % 32)).collect()
            };
            x.chunks(1024).flat_map(product).collect()
        },
    },
    Case {
        name: "windows of images",
        sizes: &[6, 3, 16, 16],
        node: |image, x| {
            let [kernel, stride, padding, dilation] = [[2, 2], [2, 2], [0, 0], [1, 1]].map(|items| ints(image, &items));
            (
                "aten::max_pool2d",
                vec![Arg::Value(x), kernel, stride, padding, dilation, Arg::Bool(false)],
            )
        },
        out: &[6, 3, 8, 8],
        expected: |x| {
            let at = |plane: &[f32], i: usize| {
                let first = i / 8 * 32 + i % 8 * 2;
                [0, 1, 16, 17]
                    .iter()
                    .map(|by| plane[first + by])
                    .fold(f32::NEG_INFINITY, f32::max)
            };
            x.chunks(256)
                .flat_map(|plane| (0..64).map(|i| at(plane, i)).collect::<Vec<_>>())
                .collect()
        },
    },
];

/// A sum over windows of 3 by 3 of one image, in steps of 2 with padding: rows of parts need rows of others.
const CONVOLUTION: Case = Case {
    name: "windows of one image",
    sizes: &[1, 3, 40, 12],
    node: |image, x| {
        let [one, two] = [[1, 1], [2, 2]].map(|items| ints(image, &items));
        let dims: Vec<_> = [3, 1, 3, 3].iter().map(|size| image.int(*size)).collect();
        let weight = image.weight(1, Code::F32, &[3, 1, 3, 3]);
        let w = image.weight_value("w", &Type::tensor(Code::F32, &dims), weight);
        let args = [
            Arg::Value(x),
            Arg::Value(w),
            Arg::None,
            two,
            one.clone(),
            one,
            Arg::Int(3),
        ];
        ("aten::conv2d", args.to_vec())
    },
    out: &[1, 3, 20, 6],
    expected: |x| {
        let at = |c: usize, o: usize| -> f32 {
            let (row, column) = (o / 6 * 2, o % 6 * 2);
            let near = |i: usize, most: usize| (i.max(1) - 1..(i + 2).min(most)).collect::<Vec<_>>();
            let all = near(row, 40)
                .into_iter()
                .flat_map(|y| near(column, 12).into_iter().map(move |z| (y, z)));
            all.map(|(y, z)| x[c * 480 + y * 12 + z]).sum()
        };
        (0..360).map(|o| at(o / 120, o % 120)).collect()
    },
};

/// Weights of ones under the second name.
struct Ones(Vec<u8>);

impl delegraph_host::Weights for Ones {
    fn bytes(&self, id: u32) -> Option<&[u8]> {
        (id == 1).then_some(&self.0)
    }
}

fn image_of(case: &Case) -> Vec<u8> {
    let mut image = ImageBuilder::new("forward");
    let ty = |image: &mut ImageBuilder, sizes: &[i64]| {
        let dims: Vec<_> = sizes.iter().map(|size| image.int(*size)).collect();
        Type::tensor(Code::F32, &dims)
    };
    let whole = ty(&mut image, case.sizes);
    let x = image.input("x", &whole);
    let (op, args) = (case.node)(&mut image, x);
    let out = ty(&mut image, case.out);
    let made = image.node("node", op, &args, &[("out", &out)], "")[0];
    image.output(made);
    image.finish().unwrap()
}

fn operators() {
    let Some(delegate) = available(json!({"validation": true})) else {
        return;
    };
    let weights = std::sync::Arc::new(Ones(bytes(&[1.0; 27])));
    for case in CASES.iter().chain([&CONVOLUTION]) {
        let blob = delegate.compile(&image_of(case), &*weights, "").unwrap();
        let count: i64 = case.sizes.iter().product();
        // Whole numbers, whose sums are exact.
        let x: Vec<f32> = (0..count).map(|i| ((i * 37 + 11) % 61) as f32 - 30.0).collect();
        for device in devices(&delegate) {
            let options = CallOptions::default();
            let session = delegate.load_with(&blob, weights.clone(), Some(device), &options);
            let mut session = session.unwrap_or_else(|error| panic!("{}: {error}", case.name));
            let given = bytes(&x);
            let mut made = vec![0xff; 4 * case.out.iter().product::<i64>() as usize];
            let inputs = [Input {
                dtype: DType::F32,
                sizes: case.sizes,
                bytes: &given,
            }];
            let mut outputs = [Output {
                dtype: DType::F32,
                sizes: Dims::new(case.out).unwrap(),
                bytes: &mut made,
            }];
            session
                .execute_with(&inputs, &mut outputs, &options)
                .unwrap_or_else(|error| panic!("{}: {error}", case.name));
            let made: Vec<f32> = made
                .chunks_exact(4)
                .map(|b| f32::from_ne_bytes(b.try_into().unwrap()))
                .collect();
            assert_eq!(made, (case.expected)(&x), "{} on {device}", case.name);
        }
    }
}

#[test]
#[ignore = "runs in a process of its own, with a small range"]
fn in_parts() {
    rows();
    operators();
}
