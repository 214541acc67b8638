//! No kernel panics, whatever it is called with: seeded random arguments of the kinds in its schema, and of other kinds.

use delegraph_kernels::{Arg, Buffer, Call, Growable, Out, Scratch, Tensor, all};
use delegraph_opset::{BaseType, Op, ParamType};
use delegraph_types::{DType, Dims};

/// xorshift64*: any generator will do, as long as a seed gives the same calls for ever.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn one_of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len() as u64) as usize]
    }
}

const DTYPES: [DType; 18] = [
    DType::F32,
    DType::F32,
    DType::F16,
    DType::BF16,
    DType::F64,
    DType::I64,
    DType::I64,
    DType::I32,
    DType::I16,
    DType::I8,
    DType::U8,
    DType::Bool,
    DType::U64,
    DType::U16,
    DType::F8E4M3,
    DType::C64,
    DType::C64,
    DType::C128,
];

const INTS: [i64; 16] = [0, 0, 1, 1, 1, 2, 2, 3, 4, -1, -1, -2, 7, 1 << 40, i64::MAX, i64::MIN];
const FLOATS: [f64; 8] = [0.0, 1.0, 0.5, -2.5, 1e-5, 1e300, f64::NAN, f64::NEG_INFINITY];
const SIZES: [i64; 8] = [0, 1, 1, 2, 2, 3, 4, 5];

/// Memory of tensors, made once; small numbers in every dtype, some of them NaN.
fn memory(random: &mut Random) -> Growable {
    let mut memory = Growable::default();
    let bytes = memory.reserve(1 << 16).unwrap();
    for chunk in bytes.chunks_mut(8) {
        let word = match random.below(4) {
            0 => random.next() << 8,
            1 => 1,
            2 => 0,
            _ => random.below(5),
        };
        chunk.copy_from_slice(&word.to_ne_bytes());
    }
    memory
}

fn tensor<'a>(random: &mut Random, memory: &'a Growable, sizes: Option<Dims>) -> Tensor<'a> {
    let dtype = random.one_of(&DTYPES);
    let sizes = sizes.filter(|_| random.below(4) > 0).unwrap_or_else(|| {
        let rank = random.below(6);
        let sizes: Vec<i64> = (0..rank).map(|_| random.one_of(&SIZES)).collect();
        Dims::new(&sizes).unwrap()
    });
    let strides = match random.below(3) {
        0 => {
            let order: Vec<u8> = (0..sizes.rank() as u8).rev().collect();
            sizes.strides_of_dim_order(&order).unwrap()
        }
        _ => sizes.contiguous_strides(),
    };
    // They stay for as long as the process: arguments of a call borrow them.
    let [sizes, strides] = Box::leak(Box::new([sizes, strides]));
    Tensor::new(dtype, sizes, strides, memory.bytes()).unwrap()
}

/// Lists that arguments borrow.
struct Lists<'a> {
    ints: Vec<i64>,
    floats: Vec<f64>,
    bools: Vec<bool>,
    tensors: Vec<Tensor<'a>>,
    optional: Vec<Option<Tensor<'a>>>,
}

impl<'a> Lists<'a> {
    fn new(random: &mut Random, memory: &'a Growable, sizes: Dims, length: Option<u8>) -> Lists<'a> {
        let count = match length {
            Some(length) if random.below(4) > 0 => u64::from(length),
            _ => random.below(5),
        };
        let tensors: Vec<Tensor> = (0..count).map(|_| tensor(random, memory, Some(sizes))).collect();
        Lists {
            ints: (0..count).map(|_| random.one_of(&INTS)).collect(),
            floats: (0..count).map(|_| random.one_of(&FLOATS)).collect(),
            bools: (0..count).map(|_| random.below(2) == 0).collect(),
            optional: tensors.iter().map(|&t| (random.below(3) > 0).then_some(t)).collect(),
            tensors,
        }
    }
}

fn argument<'a>(
    random: &mut Random,
    memory: &'a Growable,
    lists: &'a Lists<'a>,
    sizes: Dims,
    ty: ParamType,
) -> Arg<'a> {
    if ty.optional && random.below(3) == 0 {
        return Arg::None;
    }
    let kind = if random.below(30) == 0 { random.below(11) } else { 11 };
    match (kind, ty.base, ty.list) {
        (0, ..) => Arg::None,
        (1, ..) | (11, BaseType::Int | BaseType::MemoryFormat, false) => Arg::Int(random.one_of(&INTS)),
        (2, ..) | (11, BaseType::Float, false) => Arg::Float(random.one_of(&FLOATS)),
        (3, ..) | (11, BaseType::Bool, false) => Arg::Bool(random.below(2) == 0),
        (4, ..) | (11, BaseType::Str, _) => {
            Arg::Str(random.one_of(&["none", "tanh", "floor", "trunc", "sum", "amax", "mean", "?"]))
        }
        (5, ..) | (11, BaseType::Tensor, false) => match random.below(20) {
            0 => Arg::Int(random.one_of(&INTS)),
            1 => Arg::Float(random.one_of(&FLOATS)),
            _ => Arg::Tensor(tensor(random, memory, Some(sizes))),
        },
        (6, ..) | (11, BaseType::Int, true) => Arg::Ints(&lists.ints),
        (7, ..) | (11, BaseType::Float, true) => Arg::Floats(&lists.floats),
        (8, ..) | (11, BaseType::Bool, true) => Arg::Bools(&lists.bools),
        (9, ..) => Arg::Tensors(&lists.tensors),
        (10, ..) => Arg::OptionalTensors(&lists.optional),
        (_, BaseType::Tensor, true) if ty.optional_items => Arg::OptionalTensors(&lists.optional),
        (_, BaseType::Tensor, true) => Arg::Tensors(&lists.tensors),
        (_, BaseType::DType, _) => Arg::Int(i64::from(random.one_of(&DTYPES).pte_code())),
        _ => match random.below(3) {
            0 => Arg::Float(random.one_of(&FLOATS)),
            1 => Arg::Bool(random.below(2) == 0),
            _ => Arg::Int(random.one_of(&INTS)),
        },
    }
}

#[test]
fn kernels_never_panic() {
    let mut random = Random(0x5eed);
    let memory = memory(&mut random);
    let mut scratch = Scratch::default();
    let (mut calls, mut done, mut names) = (0usize, 0usize, 0usize);
    let rounds = std::env::var("DELEGRAPH_ROUNDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(60usize);
    let mut panicked: Vec<String> = Vec::new();
    let orders: [Dims; 5] = core::array::from_fn(|rank| {
        let order: Vec<i64> = (0..rank as i64).rev().collect();
        Dims::new(&order).unwrap()
    });
    for (name, kernel) in all() {
        let Some(op) = Op::find(name) else {
            panicked.push(format!("`{name}` is not in the table"));
            continue;
        };
        let schema = op.schema();
        names += 1;
        for round in 0..rounds {
            let rank = random.below(5);
            let sizes: Vec<i64> = (0..rank).map(|_| random.one_of(&SIZES)).collect();
            let sizes = Dims::new(&sizes).unwrap();
            let lists: Vec<Lists> = schema
                .inputs()
                .map(|param| Lists::new(&mut random, &memory, sizes, param.ty.length))
                .collect();
            let mut args: Vec<Arg> = schema
                .inputs()
                .zip(&lists)
                .map(|(param, lists)| argument(&mut random, &memory, lists, sizes, param.ty))
                .collect();
            for (arg, param) in args.iter_mut().zip(schema.inputs()) {
                if param.mutated {
                    *arg = Arg::None;
                }
            }
            let changed = schema.inputs().filter(|param| param.mutated).count();
            let mut memories: Vec<Growable> = (0..8).map(|_| Growable::default()).collect();
            let mut fixed = vec![0u128; 64];
            let outs = changed + schema.outs().count();
            let outs = if schema.outs().any(|p| p.ty.list) {
                random.below(6) as usize
            } else {
                outs
            };
            let same = (schema.returns.len() == 1 || changed > 0) && random.below(3) > 0;
            let natural = args.iter().find_map(|arg| match arg {
                Arg::Tensor(tensor) if same => Some(tensor.dtype()),
                _ => None,
            });
            let mut outputs: Vec<Out> = memories
                .iter_mut()
                .take(outs)
                .enumerate()
                .map(|(i, memory)| {
                    let dtype = natural.unwrap_or(random.one_of(&DTYPES));
                    let rank = random.below(5);
                    let mut out = Out::new(
                        dtype,
                        Dims::filled(1, 0),
                        &orders[rank as usize],
                        Buffer::Growable(memory),
                    );
                    if i < changed {
                        out.resize(&sizes).unwrap();
                        out.bytes_mut().fill(0);
                    }
                    out
                })
                .collect();
            if round % 5 == 4 && outs == 1 && !schema.is_in_place() {
                let dtype = outputs[0].dtype();
                let bytes = bytemuck::cast_slice_mut(&mut fixed);
                outputs[0] = Out::new(
                    dtype,
                    Dims::filled(1, 0),
                    &Dims::SCALAR,
                    Buffer::Fixed(&mut bytes[..64]),
                );
            }
            let text = format!("{name} {args:.200?}");
            let mut call = Call {
                args: &args,
                outs: &mut outputs,
                scratch: &mut scratch,
                result: None,
            };
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| kernel(&mut call)));
            calls += 1;
            match result {
                Ok(result) => done += usize::from(result.is_ok()),
                Err(_) => {
                    if !panicked.iter().any(|have| have.starts_with(&format!("{name} "))) {
                        panicked.push(text);
                    }
                    scratch = Scratch::default();
                }
            }
        }
    }
    assert!(panicked.is_empty(), "{}", panicked.join("\n"));
    // The arguments must be good often enough that the loops run, and not only the checks.
    assert!(
        names > 200 && done * 20 > calls,
        "{names} kernels, {calls} calls, {done} done"
    );
}
