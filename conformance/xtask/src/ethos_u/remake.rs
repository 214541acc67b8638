//! The cases of the interpreter, made anew by Vela and the oracles as they are today, compared with the committed ones, and given to the interpreter.
//!
//! A stream that Vela makes otherwise than before is told, and is no failure: the interpreter has to run it all the same. An oracle that gives other
//! integers, a case that cannot be made any more, and a disagreement of interpreter and oracle are failures.

use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

const TESTS: &str = "delegates/ethos-u/sim/tests";
/// Scripts, the folder that they make and the committed folder.
const KINDS: [([&str; 2], &str); 2] = [
    (["make_cases.py", "make_more_cases.py"], "cases"),
    (["make_tflite_cases.py", "make_more_tflite_cases.py"], "cases-tflite"),
];
/// Python packages whose versions decide what comes out.
const TOOLS: &str = "import importlib.metadata as m; \
    print(', '.join(f'{n} {m.version(n)}' for n in ('ethos-u-vela', 'tosa-tools', 'ai-edge-litert', 'numpy')))";

/// Makes the cases and compares.
///
/// # Errors
/// The tools cannot be started, or there are failures.
pub fn run(root: &Path, python: &Path, targets: &[String]) -> Result<()> {
    let made = root.join("target/ethos-u");
    let tools = Command::new(python).args(["-c", TOOLS]).output();
    let tools = tools.with_context(|| format!("cannot start {}", python.display()))?;
    if !tools.status.success() {
        bail!(
            "{} lacks a tool: {}",
            python.display(),
            String::from_utf8_lossy(&tools.stderr).trim()
        );
    }
    let mut report = format!("made by {}", String::from_utf8_lossy(&tools.stdout));
    let (mut folders, mut failures) = (Vec::new(), 0);
    for (scripts, kind) in KINDS {
        let out = made.join(kind);
        // What is left of another day would pass for what is made today.
        if out.exists() {
            std::fs::remove_dir_all(&out).with_context(|| format!("cannot remove {}", out.display()))?;
        }
        for script in scripts {
            let mut command = Command::new(python);
            command.arg(root.join(TESTS).join(script)).arg("--out").arg(&out);
            targets.iter().for_each(|target| {
                command.args(["--target", target]);
            });
            // Its status says that some case cannot be made, which some never could; the comparison says which of those that are kept.
            command.status().with_context(|| format!("cannot start {script}"))?;
        }
        for target in targets {
            let compared = Compared::of(
                &read(&root.join(TESTS).join(kind).join(target))?,
                &read(&out.join(target))?,
            );
            compared.tell(&format!("{kind}/{target}"), &mut report);
            failures += compared.failures();
            folders.push(out.join(target).display().to_string());
        }
    }
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(root)
        .args(["test", "-p", "delegraph-ethos-u-sim", "--test", "cases"]);
    command.env("DELEGRAPH_ETHOS_U_CASES", folders.join(":"));
    let agree = command.status().context("cannot start cargo")?.success();
    report += match agree {
        true => "the interpreter gives the oracles' integers for all of them\n",
        false => "the interpreter and the oracles do not agree\n",
    };
    print!("\n{report}");
    let file = made.join("remake.txt");
    std::fs::write(&file, &report).with_context(|| format!("cannot write {}", file.display()))?;
    match (agree, failures) {
        (true, 0) => Ok(()),
        (false, _) => bail!("the interpreter and the oracles do not agree on cases that are made today"),
        (true, failures) => bail!("{failures} cases are not what they were; {} says which", file.display()),
    }
}

/// The cases of a folder by name; none where there is no folder.
fn read(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut cases = BTreeMap::new();
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Ok(cases);
    };
    for entry in entries {
        let path: PathBuf = entry?.path();
        let content = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        cases.insert(name, content);
    }
    Ok(cases)
}

/// What became of the cases that are kept.
#[derive(Debug, Default, PartialEq, Eq)]
struct Compared {
    same: usize,
    /// Made and not kept.
    new: usize,
    /// Kept and not made.
    missing: Vec<String>,
    /// The script makes other inputs: nothing can be compared.
    other_inputs: Vec<String>,
    /// The oracle gives other integers.
    other_results: Vec<String>,
    /// The graph is written, or Vela compiles it, otherwise than before.
    other_stream: Vec<String>,
}

impl Compared {
    fn of(kept: &BTreeMap<String, Vec<u8>>, made: &BTreeMap<String, Vec<u8>>) -> Compared {
        let mut compared = Compared {
            new: made.keys().filter(|name| !kept.contains_key(*name)).count(),
            ..Compared::default()
        };
        for (name, before) in kept {
            let Some(now) = made.get(name) else {
                compared.missing.push(name.clone());
                continue;
            };
            let (before, now) = (blocks(before), blocks(now));
            let differ = |names: &[&str]| {
                let of = |all: &[(String, Vec<u8>)]| -> Vec<(String, Vec<u8>)> {
                    all.iter()
                        .filter(|(name, _)| names.contains(&name.as_str()))
                        .cloned()
                        .collect()
                };
                of(&before) != of(&now)
            };
            let list = if differ(&["given"]) {
                &mut compared.other_inputs
            } else if differ(&["expected"]) {
                &mut compared.other_results
            } else if before != now {
                &mut compared.other_stream
            } else {
                compared.same += 1;
                continue;
            };
            list.push(name.clone());
        }
        compared
    }

    fn failures(&self) -> usize {
        self.missing.len() + self.other_inputs.len() + self.other_results.len()
    }

    fn tell(&self, folder: &str, report: &mut String) {
        *report += &format!("{folder}: {} as before, {} that are not kept\n", self.same, self.new);
        for (what, names) in [
            ("not made any more", &self.missing),
            ("with other inputs", &self.other_inputs),
            ("with other integers by the oracle", &self.other_results),
            (
                "written or compiled otherwise than before, which is no failure",
                &self.other_stream,
            ),
        ] {
            if !names.is_empty() {
                *report += &format!("  {} {what}: {}\n", names.len(), names.join(", "));
            }
        }
    }
}

/// The blocks of a case: a name of 16 bytes, a size, 12 bytes more, content, padded to 16. What is no block ends the list.
fn blocks(mut file: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    while let Some((head, rest)) = file.split_first_chunk::<32>() {
        let name = String::from_utf8_lossy(&head[..16]).trim_end_matches('\0').to_string();
        let size = u32::from_le_bytes([head[16], head[17], head[18], head[19]]) as usize;
        let Some(content) = rest.get(..size) else { break };
        all.push((name, content.to_vec()));
        file = rest.get(size.next_multiple_of(16)..).unwrap_or_default();
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(parts: &[(&str, &[u8])]) -> Vec<u8> {
        let mut file = Vec::new();
        for (name, content) in parts {
            let mut head = [0; 32];
            head[..name.len()].copy_from_slice(name.as_bytes());
            head[16..20].copy_from_slice(&(content.len() as u32).to_le_bytes());
            file.extend(head);
            file.extend(*content);
            file.resize(file.len().next_multiple_of(16), 0);
        }
        file
    }

    #[test]
    fn each_difference_is_told_by_its_kind() {
        let of = |stream: &[u8], given: &[u8], expected: &[u8]| {
            case(&[
                ("cmd_data", stream),
                ("graph", b"hash"),
                ("given", given),
                ("expected", expected),
            ])
        };
        let kept: BTreeMap<String, Vec<u8>> = ["a", "b", "c", "d", "e"]
            .map(|name| (name.to_string(), of(b"stream of 18 bytes", b"in", b"out")))
            .into();
        let mut made = kept.clone();
        made.remove("a");
        made.insert("b".to_string(), of(b"stream of 18 bytes", b"on", b"out"));
        made.insert("c".to_string(), of(b"stream of 18 bytes", b"in", b"oui"));
        made.insert("d".to_string(), of(b"stream", b"in", b"out"));
        made.insert("f".to_string(), Vec::new());
        let compared = Compared::of(&kept, &made);
        let names = |name: &str| vec![name.to_string()];
        let expected = Compared {
            same: 1,
            new: 1,
            missing: names("a"),
            other_inputs: names("b"),
            other_results: names("c"),
            other_stream: names("d"),
        };
        assert_eq!(compared, expected);
        assert_eq!(compared.failures(), 3);
        let mut report = String::new();
        compared.tell("cases/x", &mut report);
        assert!(
            report.contains("1 as before") && report.contains("1 with other integers by the oracle: c"),
            "{report}"
        );
        // Where nothing was made, everything is missing.
        assert_eq!(Compared::of(&kept, &BTreeMap::new()).failures(), 5);
    }

    #[test]
    fn what_is_no_block_ends_the_list() {
        let file = case(&[("x", b"12345"), ("y", b"")]);
        assert_eq!(
            blocks(&file),
            [("x".to_string(), b"12345".to_vec()), ("y".to_string(), Vec::new())]
        );
        for cut in 0..file.len() {
            assert!(blocks(&file[..cut]).len() < 2);
        }
    }
}
