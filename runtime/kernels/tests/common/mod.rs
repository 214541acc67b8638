//! Tensors and calls for the tests of kernels.
#![allow(dead_code, reason = "each test uses some of it")]

use delegraph_kernels::{Arg, Buffer, Call, Growable, KernelError, Out, Scratch, Tensor, find};
use delegraph_types::{DType, Dims, Parallel, Scalar, bf16, f16};

/// A tensor with memory of its own, in any order of its dimensions.
#[derive(Debug)]
pub struct Held {
    pub dtype: DType,
    pub sizes: Dims,
    /// From the outermost dimension to the innermost.
    pub order: Vec<u8>,
    strides: Dims,
    memory: Growable,
}

impl Held {
    /// Elements in row-major order, rounded to the dtype; row-major in memory.
    pub fn new(dtype: DType, sizes: &[i64], items: &[f64]) -> Held {
        let order = (0..sizes.len() as u8).collect();
        Held::ordered(dtype, sizes, order, items)
    }

    /// The same, with another order in memory.
    pub fn ordered(dtype: DType, sizes: &[i64], order: Vec<u8>, items: &[f64]) -> Held {
        let sizes = Dims::new(sizes).unwrap();
        assert_eq!(sizes.numel(), Some(items.len()));
        let strides = sizes.strides_of_dim_order(&order).unwrap();
        let mut held = Held {
            dtype,
            sizes,
            order,
            strides,
            memory: Growable::default(),
        };
        let bytes = held.memory.reserve(items.len() * dtype.size()).unwrap();
        for (i, &x) in items.iter().enumerate() {
            let at = place(i, &sizes, &strides) * dtype.size();
            write(dtype, x, &mut bytes[at..at + dtype.size()]);
        }
        held
    }

    fn strides(&self) -> Dims {
        self.sizes.strides_of_dim_order(&self.order).unwrap()
    }

    pub fn tensor(&self) -> Tensor<'_> {
        let bytes = self.sizes.numel().unwrap() * self.dtype.size();
        Tensor::new(self.dtype, &self.sizes, &self.strides, &self.memory.bytes()[..bytes]).unwrap()
    }

    /// The elements in row-major order.
    pub fn items(&self) -> Vec<f64> {
        let (strides, size) = (self.strides(), self.dtype.size());
        (0..self.sizes.numel().unwrap())
            .map(|i| {
                read(
                    self.dtype,
                    &self.memory.bytes()[place(i, &self.sizes, &strides) * size..][..size],
                )
            })
            .collect()
    }
}

/// An output to be: its dtype, the order of its dimensions, and what it holds before the call.
#[derive(Debug)]
pub enum Wanted {
    New(DType, Vec<u8>),
    Changed(Held),
}

/// Calls a kernel; outputs, and the number if it gives one.
pub fn call(name: &str, args: &[Arg], outs: Vec<Wanted>) -> Result<(Vec<Held>, Option<Scalar>), KernelError> {
    call_with(name, args, outs, &mut Scratch::default())
}

/// The same with what is kept between calls.
pub fn call_with(
    name: &str,
    args: &[Arg],
    outs: Vec<Wanted>,
    scratch: &mut Scratch,
) -> Result<(Vec<Held>, Option<Scalar>), KernelError> {
    call_on(Parallel::SERIAL, name, args, outs, scratch)
}

/// The same on several threads.
pub fn call_on(
    parallel: Parallel,
    name: &str,
    args: &[Arg],
    outs: Vec<Wanted>,
    scratch: &mut Scratch,
) -> Result<(Vec<Held>, Option<Scalar>), KernelError> {
    let kernel = find(name).unwrap_or_else(|| panic!("no kernel `{name}`"));
    let mut held: Vec<Held> = outs
        .into_iter()
        .map(|out| match out {
            Wanted::New(dtype, order) => Held {
                dtype,
                sizes: Dims::filled(1, 0),
                order,
                strides: Dims::SCALAR,
                memory: Growable::default(),
            },
            Wanted::Changed(held) => held,
        })
        .collect();
    let orders: Vec<Dims> = held
        .iter()
        .map(|held| {
            let order: Vec<i64> = held.order.iter().map(|&d| i64::from(d)).collect();
            Dims::new(&order).unwrap()
        })
        .collect();
    let mut written: Vec<Out> = held
        .iter_mut()
        .zip(&orders)
        .map(|(held, order)| {
            let memory = Buffer::Growable(&mut held.memory);
            Out::new(held.dtype, held.sizes, order, memory).on(parallel)
        })
        .collect();
    let mut call = Call {
        args,
        outs: &mut written,
        scratch,
        result: None,
    };
    kernel(&mut call)?;
    let result = call.result;
    let sizes: Vec<Dims> = written.iter().map(|out| *out.sizes()).collect();
    for (held, sizes) in held.iter_mut().zip(sizes) {
        held.sizes = sizes;
        if held.order.len() != sizes.rank() {
            held.order = (0..sizes.rank() as u8).collect();
        }
        held.strides = held.strides();
    }
    Ok((held, result))
}

/// A row-major output.
pub fn new(dtype: DType) -> Wanted {
    Wanted::New(dtype, Vec::new())
}

/// Offset of the `linear`th element in row-major order.
fn place(mut linear: usize, sizes: &Dims, strides: &Dims) -> usize {
    let mut at = 0;
    for d in (0..sizes.rank()).rev() {
        let size = sizes[d].max(1) as usize;
        at += linear % size * strides[d] as usize;
        linear /= size;
    }
    at
}

fn write(dtype: DType, x: f64, to: &mut [u8]) {
    match dtype {
        DType::F64 => to.copy_from_slice(&x.to_ne_bytes()),
        DType::F32 => to.copy_from_slice(&(x as f32).to_ne_bytes()),
        DType::F16 => to.copy_from_slice(&f16::from_f64(x).to_ne_bytes()),
        DType::BF16 => to.copy_from_slice(&bf16::from_f64(x).to_ne_bytes()),
        DType::I64 => to.copy_from_slice(&(x as i64).to_ne_bytes()),
        DType::I32 => to.copy_from_slice(&(x as i64 as i32).to_ne_bytes()),
        DType::I16 => to.copy_from_slice(&(x as i64 as i16).to_ne_bytes()),
        DType::I8 => to.copy_from_slice(&(x as i64 as i8).to_ne_bytes()),
        DType::U8 => to[0] = x as i64 as u8,
        DType::Bool => to[0] = u8::from(x != 0.0),
        other => panic!("no test makes {other}"),
    }
}

fn read(dtype: DType, from: &[u8]) -> f64 {
    match dtype {
        DType::F64 => f64::from_ne_bytes(from.try_into().unwrap()),
        DType::F32 => f64::from(f32::from_ne_bytes(from.try_into().unwrap())),
        DType::F16 => f16::from_ne_bytes(from.try_into().unwrap()).to_f64(),
        DType::BF16 => bf16::from_ne_bytes(from.try_into().unwrap()).to_f64(),
        DType::I64 => i64::from_ne_bytes(from.try_into().unwrap()) as f64,
        DType::I32 => f64::from(i32::from_ne_bytes(from.try_into().unwrap())),
        DType::I16 => f64::from(i16::from_ne_bytes(from.try_into().unwrap())),
        DType::I8 => f64::from(from[0] as i8),
        DType::U8 | DType::Bool => f64::from(from[0]),
        other => panic!("no test reads {other}"),
    }
}

/// Within `rtol` of the wanted value, or `atol` near zero; NaN is NaN.
pub fn close(got: f64, want: f64, rtol: f64, atol: f64) -> bool {
    got == want || (got.is_nan() && want.is_nan()) || (got - want).abs() <= atol + rtol * want.abs()
}
