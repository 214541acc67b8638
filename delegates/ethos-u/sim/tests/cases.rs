//! Streams that Arm's Vela made, against Arm's TOSA reference model and LiteRT's reference kernels: equal integers.
//!
//! `make_cases.py` makes `cases/`, and `make_tflite_cases.py` makes `cases-tflite/`; their heads say what a case is. `DELEGRAPH_ETHOS_U_CASES` names other folders of cases, separated by `:`.

use delegraph_ethos_u_sim::container::{Block, Io, blocks, io};
use delegraph_ethos_u_sim::{Counts, Extents, Interpreter, Limits, Memory, Stream};
use std::path::{Path, PathBuf};

struct Case<'a> {
    blocks: Vec<Block<'a>>,
}

impl<'a> Case<'a> {
    fn all(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let name = name.to_string();
        self.blocks.iter().filter(move |b| b.name == name).map(|b| b.data)
    }

    fn one(&self, name: &str) -> &'a [u8] {
        self.all(name).next().unwrap_or_else(|| panic!("no block `{name}`"))
    }

    fn number(&self, name: &str) -> usize {
        u32::from_le_bytes(self.one(name).try_into().unwrap()) as usize
    }
}

fn bytes(tensor: &Io) -> usize {
    let elements: i32 = tensor.shape.iter().product();
    elements as usize * tensor.element as usize
}

fn run(file: &[u8]) -> Result<Counts, String> {
    let case = Case {
        blocks: blocks(file).map_err(|e| e.to_string())?,
    };
    let stream = Stream::parse(case.one("cmd_data")).map_err(|e| e.to_string())?;
    let (inputs, outputs) = (io(case.one("inputs")).unwrap(), io(case.one("outputs")).unwrap());
    let extents = Extents::of(&stream).map_err(|e| e.to_string())?;
    let sizes = [
        case.one("weight_data").len(),
        case.number("scratch_size"),
        case.number("fast_size"),
    ];
    for (region, (used, size)) in extents.used.iter().zip(sizes).enumerate() {
        if used.is_some_and(|used| used > size as u64) {
            return Err(format!(
                "{used:?} bytes of region {region} are said to be used, which has {size}"
            ));
        }
    }
    if extents.written[0].is_some() || extents.used[3..].iter().any(Option::is_some) {
        return Err(format!("extents {extents:?}"));
    }
    let mut counts = Counts::default();
    for (set, (given, expected)) in case.all("given").zip(case.all("expected")).enumerate() {
        // What nobody wrote is not zero by luck.
        let mut scratch = vec![0x5a; case.number("scratch_size")];
        let mut fast = vec![0xa5; case.number("fast_size")];
        let mut given = given;
        for tensor in &inputs {
            let (now, rest) = given.split_at(bytes(tensor));
            let start = tensor.offset as usize;
            scratch[start..start + now.len()].copy_from_slice(now);
            given = rest;
        }
        let mut memory = Memory::new();
        memory.map(0, case.one("weight_data"));
        memory.map_mut(1, &mut scratch);
        memory.map_mut(2, &mut fast);
        let mut interpreter = Interpreter::new(stream.config, Limits::default());
        counts = interpreter.run(&stream, &mut memory).map_err(|e| e.to_string())?;
        let mut expected = expected;
        for tensor in &outputs {
            let (now, rest) = expected.split_at(bytes(tensor));
            let start = tensor.offset as usize;
            let got = &scratch[start..start + now.len()];
            let wrong = got.iter().zip(now).filter(|(a, b)| a != b).count();
            if wrong > 0 {
                let at = got.iter().zip(now).position(|(a, b)| a != b).unwrap();
                return Err(format!(
                    "set {set}: {wrong} of {} bytes differ, first at {at}: {} in place of {}",
                    now.len(),
                    got[at] as i8,
                    now[at] as i8
                ));
            }
            expected = rest;
        }
    }
    Ok(counts)
}

fn folders() -> Vec<PathBuf> {
    match std::env::var("DELEGRAPH_ETHOS_U_CASES") {
        Ok(list) => list.split(':').map(PathBuf::from).collect(),
        Err(_) => {
            let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
            let mut folders: Vec<PathBuf> = Vec::new();
            for kind in ["cases", "cases-tflite"] {
                let entries = std::fs::read_dir(tests.join(kind)).unwrap();
                folders.extend(entries.map(|entry| entry.unwrap().path()));
            }
            folders.sort();
            folders
        }
    }
}

#[test]
fn every_case_gives_the_integers_of_the_oracle() {
    let (mut passed, mut failed) = (0, Vec::new());
    for folder in folders() {
        let mut files: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        for file in files {
            match run(&std::fs::read(&file).unwrap()) {
                Ok(_) => passed += 1,
                Err(error) => failed.push(format!("{}: {error}", file.display())),
            }
        }
    }
    println!("{passed} passed");
    assert!(
        failed.is_empty(),
        "{passed} passed, {} failed\n{}",
        failed.len(),
        failed.join("\n")
    );
    assert!(passed > 0, "there are no cases");
}
