//! Changes to the tree of a JSON text.

use super::text;
use crate::Random;
use serde_json::Value;

/// Changes one to three places of a JSON text; `None` if it is none.
pub fn mutate(seed: &[u8], random: &mut Random) -> Option<Vec<u8>> {
    let mut tree: Value = serde_json::from_slice(seed).ok()?;
    for _ in 0..=random.below(3) {
        step(&mut tree, random);
    }
    let mut text = serde_json::to_vec(&tree).ok()?;
    if random.one_in(100) {
        // Deep nesting: a reader that recurses must bound it.
        let depth = 1 << random.below(18);
        let at = random.below(text.len());
        text.splice(at..at, std::iter::repeat_n(b'[', depth));
    }
    Some(text)
}

/// The same for the JSON after a `u64` length; the length is made right again, mostly.
pub fn mutate_after_length(seed: &[u8], random: &mut Random) -> Option<Vec<u8>> {
    let length = u64::from_le_bytes(seed.get(..8)?.try_into().ok()?);
    let end = usize::try_from(length).ok()?.checked_add(8)?;
    let (text, data) = (seed.get(8..end)?, seed.get(end..)?);
    let text = mutate(text, random)?;
    let mut length = text.len() as i64;
    if random.one_in(10) {
        length = random.nasty(length);
    }
    let mut out = length.to_le_bytes().to_vec();
    out.extend(text);
    out.extend(data);
    Some(out)
}

fn count(tree: &Value) -> usize {
    1 + match tree {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(map) => map.values().map(count).sum(),
        _ => 0,
    }
}

/// The `n`-th value in the order of the text.
fn nth<'a>(tree: &'a mut Value, n: &mut usize) -> Option<&'a mut Value> {
    if *n == 0 {
        return Some(tree);
    }
    *n -= 1;
    match tree {
        Value::Array(items) => items.iter_mut().find_map(|item| nth(item, n)),
        Value::Object(map) => map.values_mut().find_map(|item| nth(item, n)),
        _ => None,
    }
}

/// Some value of the tree; mostly of the kind that is wanted, if a few tries find one.
fn any(tree: &mut Value, random: &mut Random, wanted: fn(&Value) -> bool) -> Value {
    let total = count(tree);
    let mut found = Value::Null;
    for _ in 0..12 {
        if let Some(value) = nth(tree, &mut random.below(total)) {
            found = value.clone();
            if wanted(&found) {
                break;
            }
        }
    }
    found
}

fn step(tree: &mut Value, random: &mut Random) {
    let total = count(tree);
    // Something that fits in place of something else is what goes deepest, so it is found before the place is borrowed.
    let string = any(tree, random, Value::is_string);
    let value = any(tree, random, |_| true);
    let Some(place) = nth(tree, &mut random.below(total)) else {
        return;
    };
    if random.one_in(12) {
        *place = match random.below(4) {
            0 => Value::Null,
            1 => Value::from(random.nasty(1)),
            2 => Value::Array(vec![std::mem::take(place)]),
            _ => value,
        };
        return;
    }
    match place {
        Value::Null => *place = Value::from(random.nasty(0)),
        Value::Bool(b) => *b = !*b,
        Value::Number(number) => {
            *place = match (number.as_i64(), random.below(8)) {
                (_, 0) => Value::from(u64::MAX),
                (_, 1) => Value::from([0.5, -0.0, 1e308, -1e308, 5e-324][random.below(5)]),
                (Some(old), _) => Value::from(random.nasty(old)),
                (None, _) => Value::from(random.nasty(1) as f64),
            }
        }
        Value::String(old) => match random.below(6) {
            0 => old.clear(),
            1..=3 => *place = string,
            4 => *old = "x".repeat(random.below(1 << 12)),
            _ => *old = text::change(old, random),
        },
        Value::Array(items) => list(items, value, random),
        Value::Object(map) => {
            let keys: Vec<String> = map.keys().cloned().collect();
            let (Some(from), Some(to)) = (random.pick(&keys).cloned(), random.pick(&keys).cloned()) else {
                return;
            };
            match random.below(4) {
                0 | 1 => drop(map.remove(&from)),
                2 => drop(map.insert(to, map[&from].clone())),
                _ => {
                    let renamed = string.as_str().unwrap_or("other").to_string();
                    if let Some(taken) = map.remove(&from) {
                        map.insert(renamed, taken);
                    }
                }
            }
        }
    }
}

fn list(items: &mut Vec<Value>, value: Value, random: &mut Random) {
    let (at, other) = (random.below(items.len()), random.below(items.len()));
    match random.below(7) {
        0 | 1 if !items.is_empty() => drop(items.remove(at)),
        2 | 3 if !items.is_empty() => items.insert(other, items[at].clone()),
        4 if !items.is_empty() => items.swap(at, other),
        5 => items.clear(),
        6 if !items.is_empty() => {
            // Many of one: limits on counts and ranks.
            let copies = random.below(200);
            let item = items[at].clone();
            items.extend(std::iter::repeat_n(item, copies));
        }
        _ => items.push(value),
    }
}
