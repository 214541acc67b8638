//! Images that were changed.

use crate::case::{Failure, Outcome, Trial};
use crate::categories::basis::{Budget, Random, compiler, warn};
use crate::categories::endure::Endured;
use crate::categories::images::Parts;
use crate::categories::partition::mixed;
use crate::categories::small::graphs;
use crate::driver::{Answers, Script};
use crate::workload::{Kind, Workload, normal_form};
use delegraph_abi::DType;
use delegraph_abi::c::{IMAGE_MAJOR, ImageTableKind};
use delegraph_abi::image::verify;

/// Images that mutants are made of.
fn seeds(form: u32) -> Result<Vec<(String, Vec<u8>)>, Failure> {
    let mut all: Vec<(String, Vec<u8>)> = graphs(form)
        .into_iter()
        .map(|small| (small.name, small.image))
        .collect();
    all.push(("16 mixed nodes".to_string(), mixed(form, 16)?));
    for (kind, dtype) in [
        (Kind::QuantizedAdd, DType::I8),
        (Kind::Linear, DType::F32),
        (Kind::Add, DType::F32),
    ] {
        all.push((format!("{kind:?}"), Workload::new(kind, dtype, 3, 5, 2, form).image));
    }
    Ok(all)
}

/// A word that sizes, counts and indices go wrong by. Sizes between 2^20 and 2^40 are left out: they fit in memory, and do harm to others.
fn word(random: &mut Random, old: u64) -> u64 {
    match random.below(12) {
        0 => 0,
        1 => u64::MAX,
        2 => old.wrapping_add(1),
        3 => old.wrapping_sub(1),
        4 => 1 << 40,
        5 => (1u64 << 40).wrapping_neg(),
        6 => i64::MAX as u64,
        7 => i64::MIN as u64,
        8 => old.wrapping_neg(),
        _ => random.below(20) as u64,
    }
}

/// Tables whose records say something: not the texts.
const CHANGED: [ImageTableKind; 9] = [
    ImageTableKind::INDICES,
    ImageTableKind::WORDS,
    ImageTableKind::SYMBOLS,
    ImageTableKind::EXPRS,
    ImageTableKind::QUANTS,
    ImageTableKind::VALUES,
    ImageTableKind::NODES,
    ImageTableKind::ARGS,
    ImageTableKind::WEIGHTS,
];

/// One to three fields of records changed.
fn mutate(parts: &Parts, random: &mut Random) -> Parts {
    let mut parts = parts.clone();
    for _ in 0..=random.below(3) {
        let kind = CHANGED[random.below(CHANGED.len())];
        let table = parts.table(kind);
        let words = table.len() / 4;
        if words == 0 {
            continue;
        }
        let at = random.below(words) * 4;
        let wide = at.is_multiple_of(8) && at + 8 <= table.len() && random.below(2) == 0;
        let size = if wide { 8 } else { 4 };
        let mut old = [0; 8];
        old[..size].copy_from_slice(&table[at..at + size]);
        let new = word(random, u64::from_le_bytes(old)).to_le_bytes();
        table[at..at + size].copy_from_slice(&new[..size]);
    }
    parts
}

pub fn verified(trial: &mut Trial<'_>) -> Outcome {
    let (_, instance) = compiler(trial)?;
    let seeds = seeds(normal_form(trial))?;
    let budget = Budget::seconds(15);
    let mut endured = Endured::default();
    let mut accepted = 0u32;
    for number in 0..200_000u64 {
        if accepted >= 3_000 || budget.spent() {
            break;
        }
        let mut random = Random::new(trial.seed.wrapping_mul(1_000_003).wrapping_add(number));
        let (name, seed) = &seeds[random.below(seeds.len())];
        let image = mutate(&Parts::read(seed)?, &mut random).write();
        if image == *seed || verify(&image).is_err() {
            continue;
        }
        accepted += 1;
        endured.follow(trial, &instance, &format!("mutant {number} of {name}"), &image)?;
    }
    trial.measure("mutants", f64::from(accepted));
    endured.measure(trial);
    warn(&endured.warnings)
}

pub fn unverified(trial: &mut Trial<'_>) -> Outcome {
    let (_, instance) = compiler(trial)?;
    let seeds = seeds(normal_form(trial))?;
    let budget = Budget::seconds(10);
    let script = Script::default();
    let mut counts = [0u32; 2];
    let mut offer = |what: &str, image: &[u8]| {
        if verify(image).is_ok() {
            return;
        }
        trial.step(what);
        // What nodes such an image has is anybody's guess: the answers are not looked at.
        let refused = instance.partition(image, u32::MAX, &script).is_err();
        counts[usize::from(refused)] += 1;
    };
    offer("an image of no bytes", &[]);
    for (name, seed) in seeds.iter().take(3).chain(seeds.iter().rev().take(3)) {
        for length in (0..seed.len()).step_by(1 + seed.len() / 64) {
            offer(&format!("{name}, cut to {length} bytes"), &seed[..length]);
        }
    }
    for number in 0..3_000u64 {
        if budget.spent() {
            break;
        }
        let mut random = Random::new(trial.seed.wrapping_mul(999_983).wrapping_add(number));
        let (name, seed) = &seeds[random.below(seeds.len())];
        let mut image = seed.clone();
        for _ in 0..=random.below(3) {
            let at = random.below(image.len() / 4) * 4;
            // Half of the changes go to the header and the directory.
            let at = if random.below(2) == 0 { at % 360 } else { at };
            if let Some(slot) = image.get_mut(at..at + 4) {
                let old = u32::from_le_bytes([slot[0], slot[1], slot[2], slot[3]]);
                slot.copy_from_slice(&(word(&mut random, u64::from(old)) as u32).to_le_bytes());
            }
        }
        offer(&format!("broken image {number} of {name}"), &image);
    }
    trial.measure("answered", f64::from(counts[0]));
    trial.measure("refused", f64::from(counts[1]));
    // What it said of nodes that do not exist is not its fault.
    crate::driver::take_violations();
    Ok(())
}

pub fn newer(trial: &mut Trial<'_>) -> Outcome {
    let (_, instance) = compiler(trial)?;
    let script = Script::default();
    let mut compared = 0;
    for (name, image) in seeds(normal_form(trial))? {
        let view = verify(&image).map_err(|error| Failure::fail(format!("the kit's image: {error}")))?;
        let nodes = view.node_count();
        let base = instance.partition(&image, nodes, &script)?;
        let parts = Parts::read(&image)?;
        let mut changed: Vec<(&str, Parts)> = Vec::new();
        let mut unknown = parts.clone();
        unknown.tables.insert(0, (0x7ffe, 24, vec![0xa5; 240]));
        unknown.tables.push((0x7fff, 1, b"later".to_vec()));
        changed.push(("two unknown tables", unknown));
        let mut longer = parts.clone();
        for kind in [
            ImageTableKind::SYMBOLS,
            ImageTableKind::EXPRS,
            ImageTableKind::QUANTS,
            ImageTableKind::WEIGHTS,
            ImageTableKind::VALUES,
            ImageTableKind::NODES,
            ImageTableKind::ARGS,
        ] {
            longer.lengthen(kind, 16, 0xa5);
        }
        changed.push(("longer records", longer));
        let mut header = parts.clone();
        header.header.extend([0xa5; 16]);
        header.table_size += 8;
        changed.push(("a longer header and directory", header));
        let mut minor = parts.clone();
        minor.header[6..8].copy_from_slice(&7u16.to_le_bytes());
        changed.push(("minor 7", minor));
        for (what, parts) in changed {
            let newer = parts.write();
            verify(&newer).map_err(|error| Failure::fail(format!("the kit's image with {what}: {error}")))?;
            trial.step(&format!("{name} with {what}"));
            let asked = instance.partition(&newer, nodes, &script);
            let answers = asked.map_err(|refused| Failure::fail(format!("{name} with {what}: {refused}")))?;
            answers.complete(nodes)?;
            let taken = |answers: &Answers| (0..nodes).map(|node| answers.takes(node)).collect::<Vec<_>>();
            if taken(&answers) != taken(&base) {
                trial.keep("graph.dgg", newer);
                return Err(Failure::fail(format!(
                    "{name}: `partition` answers otherwise with {what}"
                )));
            }
            compared += 1;
        }
    }
    trial.measure("images", f64::from(compared));
    Ok(())
}

pub fn newer_major(trial: &mut Trial<'_>) -> Outcome {
    let (library, instance) = compiler(trial)?;
    let reads = library.info()?.image_version;
    let mut image = Workload::new(Kind::Add, DType::F32, 3, 5, 1, normal_form(trial)).image;
    for major in [IMAGE_MAJOR as u16 + 1, u16::MAX] {
        image[4..6].copy_from_slice(&major.to_le_bytes());
        if u32::from(major) <= reads {
            continue;
        }
        trial.step(&format!("an image of major {major}"));
        if instance.partition(&image, 1, &Script::default()).is_ok() {
            return Err(Failure::fail(format!(
                "`partition` reads an image of major {major}; `image_version` of its `dg_delegate_info` is {reads}"
            )));
        }
    }
    Ok(())
}
