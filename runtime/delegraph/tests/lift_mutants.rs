//! Programs with mistakes in their memory and their calls are lifted to programs that do the same, mistakes and all, or are
//! refused: a plan that overlaps, reads what it should not, or runs in another order may not become other numbers.

use delegraph::{LoadOptions, Session, Source, Value};
use delegraph_config::Config;
use delegraph_pte::model::{EValue, Instruction, Plan, Storage, Tensor};
use delegraph_pte::{Contents, Verified, write};
use delegraph_types::DType;
use std::path::Path;
use std::sync::Arc;

/// Straight-line programs with buffers, views through memory, changed inputs, dynamic sizes and layouts.
const PROGRAMS: &[&str] = &[
    "arch-kv-cache/model.pte",
    "arch-multi-output/model.pte",
    "arch-variety/model.pte",
    "arch-mlp-dynamic-batch/model.pte",
    "arch-tiny-llama/model.pte",
    "arch-int8-convnet/model.pte",
    "pte-samples/mutable-buffer.pte",
    "pte-samples/mutable-buffer-initialised.pte",
    "pte-samples/dim-order.pte",
];

/// Mutants of each program; more can be asked for in `DELEGRAPH_MUTANTS`.
fn mutants() -> u64 {
    let asked = std::env::var("DELEGRAPH_MUTANTS").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(60)
}

/// Numbers that look random and are the same everywhere.
struct Noise(u64);

impl Noise {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        ((self.0 >> 33) % limit.max(1) as u64) as usize
    }

    fn pick(&mut self, items: &[u32]) -> u32 {
        items[self.below(items.len())]
    }
}

fn tensor(plan: &Plan, value: u32) -> Option<&Tensor> {
    match plan.values.get(value as usize) {
        Some(EValue::Tensor(tensor)) => Some(tensor),
        _ => None,
    }
}

/// Makes one mistake.
fn mutate(plan: &mut Plan, noise: &mut Noise) {
    let planned: Vec<u32> = (0..plan.values.len() as u32)
        .filter(|&v| {
            let storage = tensor(plan, v).map(|t| t.storage);
            matches!(storage, Some(Storage::Arena(_) | Storage::MutableWithState(..)))
        })
        .collect();
    let count = plan.instructions.len();
    let at = noise.below(count);
    match noise.below(6) {
        // One tensor at another's place, or near it.
        0 | 1 => {
            let (moved, target) = (noise.pick(&planned), noise.pick(&planned));
            let place = tensor(plan, target).map(|t| t.storage);
            let shift = if noise.below(3) == 0 {
                16 * noise.below(4) as u64
            } else {
                0
            };
            if let EValue::Tensor(tensor) = &mut plan.values[moved as usize]
                && let (Storage::Arena(have), Some(Storage::Arena(place))) = (&mut tensor.storage, place)
            {
                *have = place;
                have.offset += shift;
            }
        }
        // A tensor of the same type in place of another, wherever the call names it.
        2 => {
            let same = |v: u32, old: u32| {
                let (new, old) = (tensor(plan, v), tensor(plan, old));
                new.zip(old)
                    .is_some_and(|(a, b)| a.sizes == b.sizes && a.dtype == b.dtype)
            };
            let Some(Instruction::Kernel { args, .. }) = plan.instructions.get(at) else {
                return;
            };
            let old = args[noise.below(args.len())];
            let choice: Vec<u32> = planned.iter().copied().filter(|&v| same(v, old)).collect();
            if choice.is_empty() {
                return;
            }
            let new = noise.pick(&choice);
            if let Some(Instruction::Kernel { args, .. }) = plan.instructions.get_mut(at) {
                args.iter_mut().filter(|arg| **arg == old).for_each(|arg| *arg = new);
            }
        }
        3 => plan.instructions.swap(at, noise.below(count)),
        4 if count > 1 => drop(plan.instructions.remove(at)),
        _ => {
            let again = plan.instructions[at].clone();
            plan.instructions.insert(noise.below(count + 1), again);
        }
    }
}

/// Bytes of tensors of the largest sizes, or the file's own number.
fn arguments(plan: &Plan, noise: &mut Noise) -> Vec<Vec<u8>> {
    let arguments = plan.inputs.iter().map(|&input| {
        let Some(tensor) = tensor(plan, input) else {
            return Vec::new();
        };
        let elements = (0..tensor.sizes.numel().unwrap_or(0)).map(|_| match tensor.dtype {
            DType::F32 => (noise.below(4000) as f32 / 1000.0 - 2.0).to_le_bytes().to_vec(),
            dtype => (noise.below(3) as i64).to_le_bytes()[..dtype.size()].to_vec(),
        });
        elements.collect::<Vec<_>>().concat()
    });
    arguments.collect()
}

fn values<'a>(plan: &Plan, bytes: &'a [Vec<u8>]) -> Vec<Value<'a>> {
    let values = plan
        .inputs
        .iter()
        .zip(bytes)
        .map(|(&input, bytes)| match &plan.values[input as usize] {
            EValue::Tensor(tensor) => Value::tensor(tensor.dtype, tensor.sizes, bytes),
            EValue::Int(i) => Value::Int(*i),
            EValue::Bool(b) => Value::Bool(*b),
            EValue::Double(f) => Value::Float(*f),
            _ => Value::None,
        });
    values.collect()
}

/// Equal, but for the last bits of floats.
fn alike(a: &Value<'_>, b: &Value<'_>) -> bool {
    let (Value::Tensor(a), Value::Tensor(b)) = (a, b) else {
        return a == b;
    };
    let (x, y) = (a.to_contiguous(), b.to_contiguous());
    if a.dtype != b.dtype || a.shape != b.shape {
        return false;
    }
    let float = |bytes: &[u8]| bytes.try_into().map(f32::from_le_bytes).unwrap_or(f32::NAN);
    x == y
        || a.dtype == DType::F32
            && x.chunks(4).zip(y.chunks(4)).all(|(x, y)| {
                let (p, q) = (float(x), float(y));
                x == y || (p - q).abs() <= 1e-4 * (1.0 + p.abs()) || p.is_nan() && q.is_nan()
            })
}

#[test]
fn mutants_do_the_same_or_are_refused() {
    let config = Config::default();
    let host = Arc::new(delegraph::discover(&config, true));
    let open = |source: &Source| Session::open(source, &config, &host, LoadOptions::default());
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conformance/fixtures");
    let (mut lifted, mut refused, mut runs) = (0, 0, 0);
    for name in PROGRAMS {
        let file = std::fs::read(root.join(name)).unwrap();
        let program = Verified::parse(&file).unwrap();
        let contents = Contents::of(&program, &file).unwrap();
        for seed in 0..mutants() {
            let mut noise = Noise(seed * 7919 + 13);
            let mut plans = program.plans.clone();
            for _ in 0..1 + noise.below(3) {
                mutate(&mut plans[0], &mut noise);
            }
            let plan = plans[0].clone();
            let mut bytes = Vec::new();
            // A mistake that the reader itself finds is not of interest here.
            if write(&contents.with_plans(&plans), &mut bytes).is_err() {
                continue;
            }
            let source = Source::from_bytes(bytes, format!("{name}, mutant {seed}"));
            let module = match delegraph::import(&source) {
                Ok(module) => module,
                Err(delegraph::Error::Import { .. }) => {
                    refused += 1;
                    continue;
                }
                Err(error) => panic!("{error}"),
            };
            let compiled = delegraph::compile(module, &config, &host, &mut |_| {}).unwrap();
            let again = Source::from_bytes(compiled.bytes, format!("{name}, mutant {seed} lifted"));
            lifted += 1;
            // What cannot be loaded as it is has no meaning to compare with.
            let Ok(mut before) = open(&source) else { continue };
            let mut after = open(&again).unwrap();
            // A second run sees what the first left in memory.
            for step in 0..2 {
                let bytes = arguments(&plan, &mut noise);
                let given = values(&plan, &bytes);
                if before.run(&given).is_err() {
                    break;
                }
                after
                    .run(&given)
                    .unwrap_or_else(|error| panic!("{}, step {step}: {error}", again.name()));
                runs += 1;
                for i in 0..before.output_count() {
                    let (want, got) = (before.output(i).unwrap(), after.output(i).unwrap());
                    assert!(alike(&want, &got), "{}, step {step}, output {i}", again.name());
                }
            }
        }
    }
    println!("{lifted} mutants lifted and run {runs} times, {refused} refused");
    assert!(lifted >= mutants() && runs >= mutants() && refused >= mutants());
}
