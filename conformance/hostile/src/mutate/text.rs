//! Changes to texts: TOML lines, and expressions inside strings.

use crate::Random;

/// Changes one to three lines of a text; `None` if it is not UTF-8.
pub fn mutate(seed: &[u8], random: &mut Random) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(seed).ok()?;
    let mut lines: Vec<String> = text.lines().map(str::to_string).collect();
    for _ in 0..=random.below(3) {
        let (at, other) = (random.below(lines.len()), random.below(lines.len()));
        match random.below(10) {
            0 if !lines.is_empty() => drop(lines.remove(at)),
            1 if !lines.is_empty() => lines.insert(other, lines[at].clone()),
            2 if !lines.is_empty() => lines.swap(at, other),
            3 => {
                // Deep nesting: a reader that recurses must bound it.
                let depth = 1 << random.below(14);
                let line = ["x = ".to_string() + &"[".repeat(depth), "a.".repeat(depth) + "a = 1"];
                lines.insert(at, line[random.below(2)].clone());
            }
            _ => {
                if let Some(line) = lines.get_mut(at) {
                    *line = change(line, random);
                }
            }
        }
    }
    Some(lines.join("\n").into_bytes())
}

/// Changes a number, a quoted part or a character.
pub fn change(line: &str, random: &mut Random) -> String {
    let characters: Vec<char> = line.chars().collect();
    let start = random.below(characters.len());
    let digits = |from: usize| (from..characters.len()).find(|&i| characters[i].is_ascii_digit());
    let put = |from: usize, to: usize, text: &str| -> String {
        let before: String = characters[..from].iter().collect();
        let after: String = characters[to..].iter().collect();
        before + text + &after
    };
    match (digits(start), random.below(6)) {
        (Some(from), 0..=2) => {
            let length = characters[from..].iter().take_while(|c| c.is_ascii_digit()).count();
            let old: String = characters[from..from + length].iter().collect();
            let value = random.nasty(old.parse().unwrap_or(0)).to_string();
            put(from, from + length, &value)
        }
        (_, 3) => {
            let end = (start + random.below(8)).min(characters.len());
            put(start, end, "")
        }
        (_, 4) => {
            let end = (start + random.below(20)).min(characters.len());
            let piece: String = characters[start..end].iter().collect();
            put(start, start, &piece.repeat(1 << random.below(8)))
        }
        _ => {
            let odd = [
                "\"", "'", "(", ")", ",", "=", "[", "]", "{", "}", ".", "-", "\u{0}", "\u{e9}", "*", "#", "1e999",
                "nan",
            ];
            put(start, start, odd[random.below(odd.len())])
        }
    }
}
