//! Mutants of real programs that the verifier accepts are loaded and run: an error or a result, never a panic or a hang.

use delegraph_executor::{Executor, Input, Options, ProgramData};
use delegraph_pte::Verified;
use delegraph_pte::model::{EValue, Plan};
use std::sync::Arc;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// Changes a few bytes of the FlatBuffer: small numbers into other small numbers, which is what still verifies.
fn mutate(file: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = file.to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len());
        match random.below(4) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.below(16) as u8,
            2 => bytes[at] = bytes[at].wrapping_add(1),
            _ => {
                let at = at & !3;
                if let Some(slot) = bytes.get_mut(at..at + 4) {
                    let word = [0, 1, u32::MAX, 1 << 20, random.below(200) as u32][random.below(5)];
                    slot.copy_from_slice(&word.to_le_bytes());
                }
            }
        }
    }
    bytes
}

fn inputs<'a>(plan: &'a Plan, zeros: &'a [u8]) -> Option<Vec<Input<'a>>> {
    plan.inputs
        .iter()
        .map(|&value| {
            Some(match &plan.values[value as usize] {
                EValue::Tensor(tensor) => Input::Bytes {
                    dtype: tensor.dtype,
                    sizes: &tensor.sizes,
                    data: zeros.get(..tensor.sizes.numel()? * tensor.dtype.size())?,
                },
                EValue::Int(i) => Input::Int(*i),
                EValue::Bool(b) => Input::Bool(*b),
                EValue::Double(f) => Input::Float(*f),
                _ => Input::None,
            })
        })
        .collect()
}

#[test]
fn mutants_run_or_fail() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../pte/tests/data");
    let mut files: Vec<(String, Vec<u8>)> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            (
                entry.file_name().into_string().unwrap(),
                std::fs::read(entry.path()).unwrap(),
            )
        })
        .filter(|(name, _)| name.ends_with(".pte"))
        .collect();
    files.sort();
    let rounds = std::env::var("DELEGRAPH_MUTANTS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(6_000);
    let zeros = vec![0u8; 1 << 22];
    let mut random = Random(7);
    let (mut ran, mut failed, mut refused) = (0u32, 0u32, 0u32);
    for round in 0..rounds {
        let (name, file) = &files[round % files.len()];
        let mutant = mutate(file, &mut random);
        let Ok(program) = Verified::parse(&mutant) else {
            refused += 1;
            continue;
        };
        let program = Arc::new(program);
        let data: Arc<dyn ProgramData> = Arc::new(mutant.clone());
        let attempt = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let options = Options {
                max_steps: 2_000,
                memory_limit: Some(1 << 26),
                ..Options::default()
            };
            let mut results = [0u32; 2];
            for plan in &program.plans {
                let executor = Executor::new(program.clone(), &plan.name, data.clone(), options.clone());
                let Ok(mut executor) = executor else {
                    results[1] += 1;
                    continue;
                };
                let Some(inputs) = inputs(plan, &zeros) else { continue };
                for _ in 0..2 {
                    results[usize::from(executor.run(&inputs).is_err())] += 1;
                    for index in 0..executor.output_count() {
                        let _ = executor.output(index);
                    }
                }
            }
            results
        }));
        match attempt {
            Ok([good, bad]) => {
                ran += good;
                failed += bad;
            }
            Err(_) => {
                let path = std::env::temp_dir().join(format!("mutant-{round}.pte"));
                std::fs::write(&path, &mutant).unwrap();
                panic!("{name}, round {round}: the mutant in {} panics", path.display());
            }
        }
    }
    println!("{ran} runs succeeded, {failed} failed, {refused} files refused");
    assert!(ran > 1_000 && failed > 100, "{ran} {failed}");
}
