//! Complex tensors: what is refused, and how it is said. What is computed is held against PyTorch's results by the corpora.

use delegraph_kernels::{Arg, Buffer, Call, Growable, KernelError, Out, Scratch, Tensor, find};
use delegraph_types::{Complex, DType, Dims};

/// Calls a kernel with one output of this dtype; its sizes and bytes.
fn call(name: &str, args: &[Arg], dtype: DType) -> Result<(Dims, Vec<u8>), KernelError> {
    let mut memory = Growable::default();
    let mut outs = [Out::new(
        dtype,
        Dims::filled(1, 0),
        &Dims::SCALAR,
        Buffer::Growable(&mut memory),
    )];
    let mut call = Call {
        args,
        outs: &mut outs,
        scratch: &mut Scratch::default(),
        result: None,
    };
    find(name).unwrap_or_else(|| panic!("no kernel `{name}`"))(&mut call)?;
    let sizes = *outs[0].sizes();
    let bytes = outs[0].bytes_mut().to_vec();
    Ok((sizes, bytes))
}

/// A row-major tensor. Its sizes stay for as long as the process.
fn tensor<'a>(dtype: DType, sizes: &[i64], bytes: &'a [u8]) -> Tensor<'a> {
    let sizes = Dims::new(sizes).unwrap();
    let [sizes, strides] = Box::leak(Box::new([sizes, sizes.contiguous_strides()]));
    Tensor::new(dtype, sizes, strides, bytes).unwrap()
}

fn numbers() -> Vec<Complex<f32>> {
    (0..12).map(|i| Complex::new(i as f32, 1.0 - i as f32)).collect()
}

#[test]
fn what_is_wrong_is_named() {
    let memory = numbers();
    let bytes: &[u8] = bytemuck::cast_slice(&memory);
    let whole = |dtype, sizes: &[i64]| Arg::Tensor(tensor(dtype, sizes, bytes));
    let (real, complex) = (whole(DType::F32, &[3, 4]), whole(DType::C64, &[3, 4]));
    let ints = |items: &'static [i64]| Arg::Ints(items);
    let (c2r, r2c, c2c) = ("aten::_fft_c2r.out", "aten::_fft_r2c.out", "aten::_fft_c2c.out");
    for (name, args, out, argument, text) in [
        (
            r2c,
            vec![complex, ints(&[1]), Arg::Int(0), Arg::Bool(true)],
            DType::C64,
            "self",
            "c64",
        ),
        (
            r2c,
            vec![real, ints(&[]), Arg::Int(0), Arg::Bool(true)],
            DType::C64,
            "dim",
            "no dimension",
        ),
        (
            r2c,
            vec![real, ints(&[1, -1]), Arg::Int(0), Arg::Bool(true)],
            DType::C64,
            "dim",
            "twice",
        ),
        (
            r2c,
            vec![real, ints(&[2]), Arg::Int(0), Arg::Bool(true)],
            DType::C64,
            "dim",
            "out of range",
        ),
        (
            r2c,
            vec![real, ints(&[1]), Arg::Int(3), Arg::Bool(true)],
            DType::C64,
            "normalization",
            "3",
        ),
        (
            r2c,
            vec![whole(DType::F32, &[3, 0]), ints(&[1]), Arg::Int(0), Arg::Bool(true)],
            DType::C64,
            "self",
            "no elements",
        ),
        (
            r2c,
            vec![whole(DType::F16, &[3]), ints(&[0]), Arg::Int(0), Arg::Bool(true)],
            DType::C64,
            "self",
            "f16",
        ),
        (
            c2c,
            vec![real, ints(&[1]), Arg::Int(0), Arg::Bool(true)],
            DType::C64,
            "self",
            "f32",
        ),
        (
            c2r,
            vec![complex, ints(&[1]), Arg::Int(0), Arg::Int(0)],
            DType::F32,
            "last_dim_size",
            "0",
        ),
        (
            c2r,
            vec![complex, ints(&[1]), Arg::Int(0), Arg::Int(8)],
            DType::F32,
            "last_dim_size",
            "5",
        ),
        (
            "aten::lt.Tensor_out",
            vec![complex, complex],
            DType::Bool,
            "self",
            "order",
        ),
        ("aten::erf.out", vec![complex], DType::C64, "self", "c64"),
        (
            "aten::cumsum.out",
            vec![complex, Arg::Int(0), Arg::None],
            DType::C64,
            "self",
            "c64",
        ),
        (
            "aten::view_as_complex_copy.out",
            vec![real],
            DType::C64,
            "self",
            "size 2",
        ),
        ("aten::view_as_real_copy.out", vec![real], DType::F32, "self", "f32"),
        ("aten::complex.out", vec![real, complex], DType::C64, "imag", "c64"),
    ] {
        let error = call(name, &args, out).unwrap_err();
        let (KernelError::Invalid { argument: named, .. } | KernelError::Unsupported { argument: named, .. }) = &error
        else {
            panic!("{name}: {error}");
        };
        assert!(
            *named == argument && error.to_string().contains(text),
            "{name}: {error}"
        );
    }
}

#[test]
fn a_result_that_would_lose_its_imaginary_part_is_refused() {
    let memory = numbers();
    let bytes: &[u8] = bytemuck::cast_slice(&memory);
    let tensor = Arg::Tensor(tensor(DType::C64, &[12], bytes));
    let one = Arg::Int(1);
    for (name, args) in [
        ("aten::add.out", vec![tensor, tensor, one]),
        ("aten::exp.out", vec![tensor]),
        (
            "aten::sum.IntList_out",
            vec![tensor, Arg::None, Arg::Bool(false), Arg::None],
        ),
        ("aten::cat.out", vec![tensor, Arg::Int(0)]),
    ] {
        assert!(call(name, &args, DType::F32).is_err(), "{name}");
    }
    // A cast is what drops it.
    let args = [tensor, Arg::Bool(false), Arg::None];
    let (_, real) = call("aten::_to_copy.out", &args, DType::F32).unwrap();
    assert_eq!(
        bytemuck::pod_collect_to_vec::<u8, f32>(&real),
        (0..12).map(|i| i as f32).collect::<Vec<_>>()
    );
}

/// A row with an infinity or a NaN spoils itself and no other: rows share the engine.
#[test]
fn rows_do_not_touch_each_other() {
    let mut rows = [[1f32, 2.0, 3.0, 4.0]; 3];
    let clean = rows;
    rows[1][2] = f32::NAN;
    let spectrum = |rows: &[[f32; 4]; 3]| {
        let tensor = tensor(DType::F32, &[3, 4], bytemuck::cast_slice(rows));
        let args = [Arg::Tensor(tensor), Arg::Ints(&[1]), Arg::Int(0), Arg::Bool(true)];
        let (sizes, bytes) = call("aten::_fft_r2c.out", &args, DType::C64).unwrap();
        assert_eq!(sizes.as_slice(), &[3, 3]);
        bytemuck::pod_collect_to_vec::<u8, Complex<f32>>(&bytes)
    };
    let (got, want) = (spectrum(&rows), spectrum(&clean));
    assert_eq!(
        want[..3],
        [
            Complex::new(10.0, 0.0),
            Complex::new(-2.0, 2.0),
            Complex::new(-2.0, 0.0)
        ]
    );
    assert_eq!((&got[..3], &got[6..]), (&want[..3], &want[6..]));
    assert!(got[3..6].iter().all(|z| z.re.is_nan()));
}
