//! Damaged streams, weights and containers: an error, or wrong numbers, but no panic, no access outside and no hang.
//!
//! `DELEGRAPH_ETHOS_U_MUTANTS` says how many for each case; what is done is the same each time.

use delegraph_ethos_u_sim::container::{blocks, io};
use delegraph_ethos_u_sim::{Extents, Interpreter, Limits, Memory, Stream, disassemble};
use std::path::Path;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

const LIMITS: Limits = Limits {
    work: 1 << 22,
    elements: 1 << 18,
};

fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        match random.below(6) {
            0 => bytes.truncate(at),
            1 => bytes[at] = random.next() as u8,
            2 => bytes[at] ^= 1 << random.below(8),
            3 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
            _ => {
                // A word of a command: mostly another parameter, sometimes another command.
                let word = at & !3;
                if let Some(chunk) = bytes.get_mut(word..word + 4) {
                    let half = 2 * random.below(2);
                    chunk[half..half + 2].copy_from_slice(&(random.next() as u16).to_le_bytes());
                }
            }
        }
        if bytes.is_empty() {
            return;
        }
    }
}

fn run(commands: &[u8], weights: &[u8], scratch: usize, fast: usize) {
    let Ok(stream) = Stream::parse(commands) else { return };
    let _ = (disassemble(&stream), Extents::of(&stream));
    let (mut scratch, mut fast) = (vec![1; scratch], vec![2; fast]);
    let mut memory = Memory::new();
    memory.map(0, weights);
    memory.map_mut(1, &mut scratch);
    memory.map_mut(2, &mut fast);
    let _ = Interpreter::new(stream.config, LIMITS).run(&stream, &mut memory);
}

#[test]
fn damaged_cases_are_refused_or_wrong() {
    let count: usize = std::env::var("DELEGRAPH_ETHOS_U_MUTANTS").map_or(40, |text| text.parse().unwrap());
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut done = 0;
    for folder in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")).unwrap() {
        let mut files: Vec<_> = std::fs::read_dir(folder.unwrap().path())
            .unwrap()
            .map(|f| f.unwrap().path())
            .collect();
        files.sort();
        for file in files {
            let bytes = std::fs::read(file).unwrap();
            let found = blocks(&bytes).unwrap();
            let one = |name: &str| found.iter().find(|b| b.name == name).unwrap().data.to_vec();
            let number = |name: &str| u32::from_le_bytes(one(name).try_into().unwrap()) as usize;
            let (commands, weights) = (one("cmd_data"), one("weight_data"));
            for turn in 0..count {
                let (mut commands, mut weights, mut whole) = (commands.clone(), weights.clone(), bytes.clone());
                match turn % 4 {
                    0 if !weights.is_empty() => damage(&mut weights, &mut random),
                    1 => {
                        damage(&mut whole, &mut random);
                        for block in blocks(&whole).unwrap_or_default() {
                            let _ = io(block.data);
                        }
                    }
                    _ => damage(&mut commands, &mut random),
                }
                run(&commands, &weights, number("scratch_size"), number("fast_size"));
                done += 1;
            }
        }
    }
    println!("{done} damaged streams");
    assert!(done > 0);
}
