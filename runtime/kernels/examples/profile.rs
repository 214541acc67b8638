//! Times the operators that models use most, each on about a million elements.
//!
//! `cargo run --release -p delegraph-kernels --example profile [-- NAME]`
//!
//! A line: median milliseconds of nine runs, gigabytes read and written a second, operator and arguments. What moves memory should
//! come near the machine's memory; what computes a transcendental function takes a few nanoseconds an element.

use delegraph_kernels::{Arg, Buffer, Call, Growable, Out, Scratch, Tensor, find};
use delegraph_types::{DType, Dims};
use std::time::Instant;

/// A tensor of small numbers.
struct Held {
    dtype: DType,
    sizes: Dims,
    strides: Dims,
    memory: Growable,
}

impl Held {
    fn new(dtype: DType, sizes: &[i64]) -> Held {
        let sizes = Dims::new(sizes).expect("few dimensions");
        let count = sizes.numel().expect("a size");
        let mut memory = Growable::default();
        let bytes = memory.reserve(count * dtype.size()).expect("memory");
        for (i, slot) in bytes.chunks_exact_mut(dtype.size()).enumerate() {
            let x = (i * 7919 % 1013) as f32 / 1013.0 + 0.1;
            match dtype {
                DType::F32 => slot.copy_from_slice(&x.to_ne_bytes()),
                DType::F16 => slot.copy_from_slice(&delegraph_types::f16::from_f32(x).to_ne_bytes()),
                DType::I64 => slot.copy_from_slice(&((i * 7919 % 1013) as i64).to_ne_bytes()),
                _ => slot.fill((i * 31 % 2) as u8),
            }
        }
        Held {
            dtype,
            sizes,
            strides: sizes.contiguous_strides(),
            memory,
        }
    }

    fn tensor(&self) -> Tensor<'_> {
        let bytes = self.sizes.numel().unwrap_or(0) * self.dtype.size();
        let memory = &self.memory.bytes()[..bytes];
        Tensor::new(self.dtype, &self.sizes, &self.strides, memory).expect("memory of its size")
    }
}

fn time(label: &str, name: &str, args: &[Arg], outs: &[DType]) {
    if std::env::args().nth(1).is_some_and(|wanted| !name.contains(&wanted)) {
        return;
    }
    let Some(kernel) = find(name) else {
        println!("no kernel `{name}`");
        return;
    };
    let (mut scratch, mut times) = (Scratch::default(), Vec::new());
    let mut memories: Vec<Growable> = outs.iter().map(|_| Growable::default()).collect();
    let mut written = 0usize;
    for _ in 0..10 {
        let mut made: Vec<Out> = memories
            .iter_mut()
            .zip(outs)
            .map(|(memory, &dtype)| Out::new(dtype, Dims::filled(1, 0), &Dims::SCALAR, Buffer::Growable(memory)))
            .collect();
        let mut call = Call {
            args,
            outs: &mut made,
            scratch: &mut scratch,
            result: None,
        };
        let start = Instant::now();
        if let Err(error) = kernel(&mut call) {
            println!("{name}: {error}");
            return;
        }
        times.push(start.elapsed().as_secs_f64());
        written = made.iter_mut().map(|out| out.bytes_mut().len()).sum();
    }
    let read: usize = args
        .iter()
        .map(|arg| match arg {
            Arg::Tensor(tensor) => tensor.bytes().len(),
            Arg::Tensors(all) => all.iter().map(|tensor| tensor.bytes().len()).sum(),
            _ => 0,
        })
        .sum();
    // The first run allocates.
    times.remove(0);
    times.sort_by(f64::total_cmp);
    let median = times[times.len() / 2];
    println!(
        "{:8.3} ms {:6.2} GB/s  {name} {label}",
        median * 1e3,
        (read + written) as f64 / median / 1e9
    );
}

fn main() {
    use DType::{F16, F32, I64};
    let [a, b] = [0, 1].map(|_| Held::new(F32, &[1024, 1024]));
    let half = Held::new(F16, &[1024, 1024]);
    let ints = Held::new(I64, &[1024, 1024]);
    let mask = Held::new(DType::Bool, &[1024, 1024]);
    let row = Held::new(F32, &[1024]);
    let column = Held::new(F32, &[1024, 1]);
    let image = Held::new(F32, &[1, 64, 128, 128]);
    let places = Held::new(I64, &[1024]);
    let (x, y, r, c) = (a.tensor(), b.tensor(), row.tensor(), column.tensor());
    let one = Arg::Int(1);
    let tensor = Arg::Tensor;
    let (row_size, axis, swapped) = ([1024i64], [1i64], [1i64, 0]);
    let pair = [x, y];
    let add = |a, b| [tensor(a), tensor(b), one];
    time("f32, f32", "aten::add.out", &add(x, y), &[F32]);
    time("f32, row", "aten::add.out", &add(x, r), &[F32]);
    time("f32, column", "aten::add.out", &add(x, c), &[F32]);
    time("f16, f16", "aten::add.out", &add(half.tensor(), half.tensor()), &[F16]);
    time("i64, i64", "aten::add.out", &add(ints.tensor(), ints.tensor()), &[I64]);
    time("f32", "aten::mul.out", &[tensor(x), tensor(y)], &[F32]);
    time("f32", "aten::div.out", &[tensor(x), tensor(y)], &[F32]);
    time("f32", "aten::relu.out", &[tensor(x)], &[F32]);
    time("f32", "aten::sigmoid.out", &[tensor(x)], &[F32]);
    time("f32", "aten::tanh.out", &[tensor(x)], &[F32]);
    time("f32", "aten::exp.out", &[tensor(x)], &[F32]);
    time("f32", "aten::gelu.out", &[tensor(x), Arg::Str("none")], &[F32]);
    time(
        "f32, 2",
        "aten::pow.Tensor_Scalar_out",
        &[tensor(x), Arg::Int(2)],
        &[F32],
    );
    time(
        "f32",
        "aten::where.self_out",
        &[tensor(mask.tensor()), tensor(x), tensor(y)],
        &[F32],
    );
    time(
        "f32, f32",
        "aten::lt.Tensor_out",
        &[tensor(x), tensor(y)],
        &[DType::Bool],
    );
    time("f32 to f16", "aten::_to_copy.out", &[tensor(x)], &[F16]);
    time("f16 to f32", "aten::_to_copy.out", &[tensor(half.tensor())], &[F32]);
    time(
        "rows",
        "aten::sum.IntList_out",
        &[tensor(x), Arg::Ints(&axis), Arg::Bool(false), Arg::None],
        &[F32],
    );
    time(
        "columns",
        "aten::sum.IntList_out",
        &[tensor(x), Arg::Ints(&[0]), Arg::Bool(false), Arg::None],
        &[F32],
    );
    time(
        "rows",
        "aten::mean.out",
        &[tensor(x), Arg::Ints(&axis), Arg::Bool(true), Arg::None],
        &[F32],
    );
    time(
        "rows",
        "aten::amax.out",
        &[tensor(x), Arg::Ints(&axis), Arg::Bool(false)],
        &[F32],
    );
    time(
        "columns",
        "aten::amax.out",
        &[tensor(x), Arg::Ints(&[0]), Arg::Bool(false)],
        &[F32],
    );
    time("rows", "aten::argmax.out", &[tensor(x), one, Arg::Bool(false)], &[I64]);
    time(
        "rows",
        "aten::_softmax.out",
        &[tensor(x), one, Arg::Bool(false)],
        &[F32],
    );
    time(
        "columns",
        "aten::_softmax.out",
        &[tensor(x), Arg::Int(0), Arg::Bool(false)],
        &[F32],
    );
    let norm = [tensor(x), Arg::Ints(&row_size), tensor(r), tensor(r), Arg::Float(1e-5)];
    time("rows", "aten::native_layer_norm.out", &norm, &[F32; 3]);
    time("rows", "aten::cumsum.out", &[tensor(x), one, Arg::None], &[F32]);
    time(
        "columns",
        "aten::cumsum.out",
        &[tensor(x), Arg::Int(0), Arg::None],
        &[F32],
    );
    time(
        "f32",
        "aten::permute_copy.out",
        &[tensor(x), Arg::Ints(&swapped)],
        &[F32],
    );
    time("f32", "aten::cat.out", &[Arg::Tensors(&pair), one], &[F32]);
    let slice = [tensor(x), one, Arg::Int(1), Arg::Int(1000), Arg::Int(2)];
    time("every second", "aten::slice_copy.Tensor_out", &slice, &[F32]);
    time(
        "rows",
        "aten::embedding.out",
        &[tensor(x), tensor(places.tensor())],
        &[F32],
    );
    time(
        "rows",
        "aten::index_select.out",
        &[tensor(x), Arg::Int(0), tensor(places.tensor())],
        &[F32],
    );
    time(
        "columns",
        "aten::index_select.out",
        &[tensor(x), one, tensor(places.tensor())],
        &[F32],
    );
    time(
        "rows",
        "aten::gather.out",
        &[tensor(x), one, tensor(ints.tensor()), Arg::Bool(false)],
        &[F32],
    );
    let scatter = [tensor(x), one, tensor(ints.tensor()), tensor(y)];
    time("rows", "aten::scatter_add.out", &scatter, &[F32]);
    let indices = [Some(places.tensor())];
    time(
        "rows",
        "aten::index.Tensor_out",
        &[tensor(x), Arg::OptionalTensors(&indices)],
        &[F32],
    );
    time(
        "rows",
        "aten::sort.values_stable",
        &[tensor(x), Arg::Bool(true), one, Arg::Bool(false)],
        &[F32, I64],
    );
    time(
        "rows, 8",
        "aten::topk.values",
        &[tensor(x), Arg::Int(8), one, Arg::Bool(true), Arg::Bool(true)],
        &[F32, I64],
    );
    let pool = [
        tensor(image.tensor()),
        Arg::Ints(&[3, 3]),
        Arg::Ints(&[2, 2]),
        Arg::Ints(&[1, 1]),
    ];
    let max = [&pool[..], &[Arg::Ints(&[1, 1]), Arg::Bool(false)]].concat();
    time("3x3", "aten::max_pool2d_with_indices.out", &max, &[F32, I64]);
    let average = [&pool[..], &[Arg::Bool(false), Arg::Bool(true), Arg::None]].concat();
    time("3x3", "aten::avg_pool2d.out", &average, &[F32]);
    let to = [256i64, 256];
    let resize = [tensor(image.tensor()), Arg::Ints(&to), Arg::Bool(false), Arg::None];
    time("twice", "aten::upsample_bilinear2d.vec_out", &resize, &[F32]);
    time(
        "f32",
        "aten::constant_pad_nd.out",
        &[tensor(x), Arg::Ints(&[1, 1, 1, 1]), Arg::Int(0)],
        &[F32],
    );
    time("f32", "aten::tril.out", &[tensor(x), Arg::Int(0)], &[F32]);
    let million = [1_000_000i64];
    time("f32", "aten::randn.out", &[Arg::Ints(&million)], &[F32]);
}
