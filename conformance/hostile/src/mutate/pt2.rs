//! Changes to what lies inside an archive.

use super::{bytes, json};
use crate::{Random, zip};

/// Changes one member, or the set of them; the container stays right. `None` if it is no archive.
pub fn mutate(seed: &[u8], random: &mut Random) -> Option<Vec<u8>> {
    let mut members = zip::read(seed).filter(|members| !members.is_empty())?;
    let of =
        |wanted: fn(&str) -> bool| -> Vec<usize> { (0..members.len()).filter(|&i| wanted(&members[i].0)).collect() };
    let programs = of(|name| name.contains("/models/") && name.ends_with(".json"));
    let tables = of(|name| name.ends_with("_config.json"));
    let other = of(|name| !name.ends_with(".json"));
    match random.below(20) {
        // The program's graph is where reading goes deep.
        0..=13 => tree(&mut members, *random.pick(&programs)?, random),
        14 | 15 => tree(&mut members, *random.pick(&tables)?, random),
        16 | 17 => {
            // Pickles, payloads, `byteorder` and the like.
            let at = *random.pick(&other)?;
            members[at].1 = bytes::mutate(&members[at].1, &[], random);
        }
        _ => {
            let (at, from) = (random.below(members.len()), random.below(members.len()));
            match random.below(4) {
                0 => drop(members.remove(at)),
                1 => members.push(members[at].clone()),
                2 => members[at].0 = members[from].0.clone(),
                _ => members[at].1 = members[from].1.clone(),
            }
        }
    }
    Some(zip::write(&members))
}

fn tree(members: &mut [zip::Member], at: usize, random: &mut Random) {
    if let Some(changed) = json::mutate(&members[at].1, random) {
        members[at].1 = changed;
    }
}
