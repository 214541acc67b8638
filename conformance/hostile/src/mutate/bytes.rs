//! Blind changes: bits, bytes, words that may be offsets or lengths, pieces cut, doubled, moved or taken from elsewhere.

use crate::Random;

/// Changes one to four places.
pub fn mutate(seed: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(4) {
        step(&mut bytes, other, random);
    }
    bytes
}

fn step(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let at = random.below(bytes.len());
    match random.below(20) {
        0 => bytes.truncate(at),
        1..=5 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        6..=8 => {
            // Small numbers into small numbers is what still verifies.
            let value = [0, 1, 0x7f, 0x80, 0xff, random.below(16) as u8][random.below(6)];
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        9..=13 => word::<4>(bytes, at, random),
        14..=16 => word::<8>(bytes, at, random),
        17 => {
            let end = (at + random.below(64)).min(bytes.len());
            bytes.drain(at..end);
        }
        18 => {
            let end = (at + random.below(64)).min(bytes.len());
            let piece = bytes[at..end].to_vec();
            let to = random.below(bytes.len() + 1);
            bytes.splice(to..to, piece);
        }
        _ => {
            let from = random.below(other.len());
            let piece = &other[from..(from + random.below(256)).min(other.len())];
            let end = (at + piece.len()).min(bytes.len());
            bytes.splice(at..end, piece.iter().copied());
        }
    }
}

/// A little-endian word, aligned nine times in ten: none, all, one more or less than it was, or the file's length and about.
fn word<const SIZE: usize>(bytes: &mut [u8], at: usize, random: &mut Random) {
    let length = bytes.len() as u64;
    let at = if random.one_in(10) { at } else { at - at % SIZE };
    let Some(slot) = bytes.get_mut(at..at + SIZE) else {
        return;
    };
    let mut old = [0; 8];
    old[..SIZE].copy_from_slice(slot);
    let old = u64::from_le_bytes(old);
    let value = match random.below(10) {
        0 => 0,
        1 => u64::MAX,
        2 => old.wrapping_add(1),
        3 => old.wrapping_sub(1),
        4 => length,
        5 => length.wrapping_add(random.below(9) as u64).wrapping_sub(4),
        6 => random.below(64) as u64,
        7 => random.below(length as usize) as u64,
        8 => random.nasty(old as i64) as u64,
        _ => random.next_u64(),
    };
    slot.copy_from_slice(&value.to_le_bytes()[..SIZE]);
}
