//! Bad files and wrong use, through the real binary: the exit code that the documentation promises, one error that names the
//! file, the same in JSON, and nothing left behind.

use delegraph_hostile::zip;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// None of these takes a second.
const LONGEST: Duration = Duration::from_secs(60);

/// Address space of a child in KiB, so that an allocation out of proportion fails.
const MEMORY: u32 = 4 << 20;

/// What a command is expected to say.
struct Case {
    name: String,
    arguments: Vec<String>,
    variables: Vec<(&'static str, String)>,
    code: i32,
    /// Parts of the message; the file's name among them.
    says: Vec<String>,
}

/// A folder with files, and the folder that outputs go to.
struct Place {
    folder: TempDir,
}

struct Ended {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        for name in ["out", "no-delegates", "home"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        Place { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    }

    /// Runs the command with nothing of this machine's configuration.
    fn run(&self, arguments: &[String], variables: &[(&'static str, String)]) -> Ended {
        let program = env!("CARGO_BIN_EXE_delegraph");
        let mut command = if cfg!(target_os = "linux") {
            let mut command = Command::new("sh");
            command.args(["-c", &format!("ulimit -v {MEMORY} && exec \"$0\" \"$@\""), program]);
            command
        } else {
            Command::new(program)
        };
        command.args(arguments).current_dir(self.folder.path());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("DELEGRAPH_") {
                command.env_remove(name);
            }
        }
        command.env_remove("XDG_CONFIG_HOME").env("HOME", self.path("home"));
        command.env("DELEGRAPH_DELEGATE_PATH", self.path("no-delegates"));
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        let (out, err) = (self.path("stdout"), self.path("stderr"));
        command.stdin(Stdio::null());
        command.stdout(std::fs::File::create(&out).unwrap());
        command.stderr(std::fs::File::create(&err).unwrap());
        let mut child = command.spawn().unwrap();
        let started = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if started.elapsed() > LONGEST {
                child.kill().unwrap();
                panic!("{arguments:?} hangs");
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        Ended {
            code: status.code().unwrap_or(-1),
            stdout: std::fs::read_to_string(out).unwrap(),
            stderr: std::fs::read_to_string(err).unwrap(),
        }
    }

    /// Everything that is wrong with how a case ends.
    fn check(&self, case: &Case) -> Vec<String> {
        let mut problems = Vec::new();
        let mut wrong = |problem: String| problems.push(format!("{}: {problem}", case.name));
        let ended = self.run(&case.arguments, &case.variables);
        if ended.code != case.code {
            wrong(format!("exit code {}, not {}: {}", ended.code, case.code, ended.stderr));
        }
        let errors: Vec<&str> = ended.stderr.lines().filter(|line| line.starts_with("error:")).collect();
        if errors.len() != 1 {
            wrong(format!("{} errors: {}", errors.len(), ended.stderr));
        }
        for part in &case.says {
            if !ended.stderr.contains(part.as_str()) {
                wrong(format!("`{part}` is not said: {}", ended.stderr));
            }
        }
        let halves = ended.stderr.trim().rsplit_once(": ");
        if halves.is_some_and(|(before, last)| before.ends_with(last)) {
            wrong(format!("something is said twice: {}", ended.stderr));
        }
        if ended.stderr.contains("panicked") {
            wrong(format!("a panic: {}", ended.stderr));
        }
        // `--json` takes the next word for a file, so it stands last; `-` is standard output.
        let mut arguments = case.arguments.clone();
        arguments.extend(["--json".to_string(), "-".to_string()]);
        let ended = self.run(&arguments, &case.variables);
        match serde_json::from_str::<Value>(&ended.stdout) {
            Err(error) => wrong(format!("standard output is not one object ({error}): {}", ended.stdout)),
            Ok(object) => {
                let kind = match case.code {
                    2 => "usage",
                    _ => "bad-input",
                };
                if object["exit_code"] != case.code || object["kind"] != kind || ended.code != case.code {
                    wrong(format!("with --json: {} {object}", ended.code));
                }
                let message = object["message"].as_str().unwrap_or_default();
                if message.is_empty() || !ended.stderr.contains(message) {
                    wrong(format!("the message is not the one of {}: {object}", ended.stderr));
                }
            }
        }
        let left: Vec<_> = std::fs::read_dir(self.path("out")).unwrap().flatten().collect();
        if !left.is_empty() {
            wrong(format!("it leaves {left:?}"));
            left.iter()
                .for_each(|entry| std::fs::remove_file(entry.path()).unwrap());
        }
        problems
    }

    fn check_all(&self, cases: &[Case]) {
        let problems: Vec<String> = cases.iter().flat_map(|case| self.check(case)).collect();
        println!("{} cases", cases.len());
        assert!(problems.is_empty(), "{}", problems.join("\n"));
    }
}

fn texts(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| word.to_string()).collect()
}

fn case(name: &str, arguments: &[&str], code: i32, says: &[&str]) -> Case {
    Case {
        name: name.to_string(),
        arguments: texts(arguments),
        variables: Vec::new(),
        code,
        says: texts(says),
    }
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

fn archive() -> Vec<u8> {
    std::fs::read(repository("conformance/fixtures/arch-mlp-dynamic-batch/model.pt2")).unwrap()
}

fn program() -> Vec<u8> {
    std::fs::read(repository("runtime/pte/tests/data/arch-mlp-dynamic-batch.pte")).unwrap()
}

/// The model's one input, as safetensors.
fn input() -> Vec<u8> {
    let header = br#"{"0":{"dtype":"F32","shape":[2,16],"data_offsets":[0,128]}}"#;
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    file.extend([0; 128]);
    file
}

/// The four bytes at a place, replaced.
fn with_word(mut bytes: Vec<u8>, at: usize, word: u32) -> Vec<u8> {
    bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
    bytes
}

/// An archive of one member; the directory says that it is of this size, in the way that 4 GiB and more are said.
fn claiming(size: u64, method: u16) -> Vec<u8> {
    let mut archive = zip::write(&[("m/models/model.json".to_string(), b"{}".to_vec())]);
    let directory = archive.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    let end = archive.windows(4).position(|w| w == b"PK\x05\x06").unwrap();
    let mut extra = vec![1, 0, 16, 0];
    extra.extend(size.to_le_bytes());
    extra.extend(size.to_le_bytes());
    archive[directory + 10..directory + 12].copy_from_slice(&method.to_le_bytes());
    archive = with_word(archive, directory + 20, u32::MAX);
    archive = with_word(archive, directory + 24, u32::MAX);
    archive[directory + 30..directory + 32].copy_from_slice(&20u16.to_le_bytes());
    archive = with_word(archive, end + 12, (end - directory + 20) as u32);
    archive.splice(end..end, extra);
    archive
}

/// Models that are none: a name, the bytes, and what is said of them.
fn bad_models() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let good = archive();
    let json = good.windows(15).position(|w| w == b"\"graph_module\":").unwrap();
    let mut flipped = good.clone();
    flipped[json + 1] ^= 1;
    let pickled = zip::write(&[
        ("m/version".to_string(), b"8.8".to_vec()),
        ("m/serialized_exported_program.json".to_string(), b"{}".to_vec()),
        ("m/serialized_state_dict.pt".to_string(), b"PK\x03\x04".to_vec()),
    ]);
    let program = program();
    // `ExecuTorch's extended header: "eh00", its length, the program's size, where segments begin.
    let header = program.windows(4).position(|w| w == b"eh00").unwrap();
    let mut flipped_program = program.clone();
    flipped_program[1] ^= 0x80;
    vec![
        ("empty.pt2", Vec::new(), "empty"),
        ("empty.pte", Vec::new(), "empty"),
        ("half.pt2", good[..good.len() / 2].to_vec(), "zip"),
        ("flipped.pt2", flipped, "graph_module"),
        ("bomb.pt2", claiming(8 << 30, 0), "m/models/model.json"),
        ("deflated.pt2", claiming(8 << 30, 8), "compressed"),
        ("pickled.pt2", pickled, "torch 2.7"),
        ("checkpoint.pt2", b"\x80\x02}q\x00.".to_vec(), "pickle"),
        ("text.pt2", b"this is not a model\n".to_vec(), "neither"),
        (
            "magic.pte",
            with_word(program.clone(), 4, 0x3939_5445),
            "another version",
        ),
        ("half.pte", program[..program.len() / 2].to_vec(), ""),
        ("flipped.pte", flipped_program, ""),
        ("segment.pte", with_word(program, header + 16, 0x7fff_fff0), "segment"),
        ("folder.pt2", b"a folder".to_vec(), "folder"),
        ("missing.pt2", b"missing".to_vec(), "No such file"),
    ]
}

#[test]
fn bad_models_end_every_verb_with_code_3() {
    let place = Place::new();
    let mut cases = Vec::new();
    for (name, bytes, says) in bad_models() {
        match bytes.as_slice() {
            b"missing" => {}
            b"a folder" => std::fs::create_dir(place.path(name)).unwrap(),
            _ => drop(place.write(name, bytes)),
        }
        let file = place.path(name).display().to_string();
        let output = place.path("out/model.pte").display().to_string();
        let verbs: [&[&str]; 5] = [
            &["run", &file],
            &["compile", &file, "-o", &output],
            &["partition", &file],
            &["inspect", &file],
            &["bench", &file, "--runs", "1"],
        ];
        for verb in verbs {
            cases.push(case(&format!("{} {name}", verb[0]), verb, 3, &[name, says]));
        }
    }
    place.check_all(&cases);
}

#[test]
fn bad_files_beside_a_good_model_end_with_code_3() {
    let place = Place::new();
    let model = place.write("model.pt2", archive());
    let with_data = repository("runtime/pte/tests/data/external-constants.pte")
        .display()
        .to_string();
    let data = std::fs::read(repository("runtime/pte/tests/data/external-constants.ptd")).unwrap();
    let tensors = input();
    let mut cases = Vec::new();
    let mut long = tensors.clone();
    long[..8].copy_from_slice(&(1u64 << 40).to_le_bytes());
    let lists = [
        ("empty.safetensors", Vec::new()),
        ("half.safetensors", tensors[..tensors.len() / 2].to_vec()),
        ("long.safetensors", long),
        ("text.safetensors", b"not tensors, but long enough to be some".to_vec()),
    ];
    for (name, bytes) in lists {
        let file = place.write(name, bytes);
        cases.push(case(
            &format!("--inputs {name}"),
            &["run", &model, "--inputs", &file],
            3,
            &[name],
        ));
        let good = place.write("inputs.safetensors", &tensors);
        let arguments = ["run", &model, "--inputs", &good, "--expect", &file];
        cases.push(case(&format!("--expect {name}"), &arguments, 3, &[name]));
    }
    let header = b"\x93NUMPY\x01\x00\x46\x00{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,), }\n";
    for (name, bytes) in [("x.npy", &b"nonsense"[..]), ("large.npy", header), ("empty.npy", b"")] {
        let file = place.write(name, bytes);
        let input = format!("0={file}");
        cases.push(case(
            &format!("--input {name}"),
            &["run", &model, "--input", &input],
            3,
            &[name],
        ));
    }
    let lists = [
        ("empty.ptd", Vec::new()),
        ("half.ptd", data[..data.len() / 2].to_vec()),
        ("far.ptd", with_word(data.clone(), 0, u32::MAX)),
        ("text.ptd", b"not a data file, but long enough".to_vec()),
    ];
    for (name, bytes) in lists {
        let file = place.write(name, bytes);
        cases.push(case(
            &format!("--data {name}"),
            &["run", &with_data, "--data", &file],
            3,
            &[name],
        ));
        cases.push(case(&format!("inspect {name}"), &["inspect", &file], 3, &[name]));
    }
    for (name, text) in [
        ("broken.delegate.toml", "name = "),
        ("short.delegate.toml", "manifest_version = 1\n"),
        ("empty.delegate.toml", ""),
    ] {
        let file = place.write(name, text);
        cases.push(case(&format!("inspect {name}"), &["inspect", &file], 3, &[name]));
    }
    let file = place.write("binary.delegate.toml", [0xff, 0xfe, 0, 1]);
    cases.push(case(
        "inspect a binary manifest",
        &["inspect", &file],
        3,
        &["binary.delegate.toml"],
    ));
    let file = place.write("none.so", b"not a library");
    let ended = place.run(&texts(&["inspect", &file]), &[]);
    // A library is not loaded to be inspected, so there is nothing to refuse.
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    place.check_all(&cases);
}

#[test]
fn wrong_use_and_wrong_configurations_end_with_code_2() {
    let place = Place::new();
    let model = place.write("model.pt2", archive());
    let output = place.path("out/model.pte").display().to_string();
    let folder = place.path("no-delegates").display().to_string();
    let syntax = place.write("syntax.toml", "[select\norder = [\"cpu\"]\n");
    let key = place.write("key.toml", "[select]\nfalback = \"deny\"\n");
    let kind = place.write("kind.toml", "[select]\norder = 3\n");
    let schema = place.write("schema.toml", "schema = 2\n");
    let binary = place.write("binary.toml", [0xff, 0xfe, 0, 1]);
    let deep = place.write("deep.toml", "x = ".to_string() + &"[".repeat(100_000));
    let profile = place.write("profile.toml", "[profile.release.select]\nfallback = \"deny\"\n");
    let missing = place.path("missing.toml").display().to_string();
    let mut cases = Vec::new();
    for (file, says) in [
        (&syntax, "syntax.toml:1:"),
        (
            &key,
            "key.toml:2: unknown key `select.falback`\n  hint: did you mean `fallback`?",
        ),
        (&kind, "kind.toml"),
        (&schema, "schema.toml: schema 2"),
        (&binary, "binary.toml"),
        (&deep, "deep.toml"),
        (&missing, "missing.toml"),
        (&folder, "no-delegates"),
    ] {
        cases.push(case("validate", &["config", "validate", file], 2, &[says]));
        cases.push(case("run", &["run", &model, "--config", file], 2, &[says]));
        let arguments = ["compile", &model, "-o", &output, "--config", file];
        cases.push(case("compile", &arguments, 2, &[says]));
        cases.push(case("partition", &["partition", &model, "--config", file], 2, &[says]));
        let mut by_variable = case("DELEGRAPH_CONFIG", &["config", "show"], 2, &[says]);
        by_variable.variables.push(("DELEGRAPH_CONFIG", file.clone()));
        cases.push(by_variable);
    }
    let near = "no profile `relase`\n  hint: did you mean `release`?";
    let flag = ["run", &model, "--config", &profile, "--profile-name", "relase"];
    cases.push(case("--profile-name", &flag, 2, &[near]));
    let mut by_variable = case("DELEGRAPH_PROFILE", &["run", &model, "--config", &profile], 2, &[near]);
    by_variable.variables.push(("DELEGRAPH_PROFILE", "relase".to_string()));
    cases.push(by_variable);
    cases.push(case(
        "an unknown flag",
        &["run", &model, "--inptus", "x"],
        2,
        &["--inptus"],
    ));
    cases.push(case("an unknown verb", &["rum", &model], 2, &["rum"]));
    cases.push(case("no model", &["run"], 2, &["<MODEL>"]));
    cases.push(case(
        "--input without a file",
        &["run", &model, "--input", "x"],
        2,
        &["NAME=FILE"],
    ));
    cases.push(case(
        "--target",
        &["partition", &model, "--target", "x"],
        2,
        &["BACKEND:TARGET"],
    ));
    cases.push(case(
        "--method",
        &["run", &model, "--method", "forwrd"],
        2,
        &["forwrd", "forward"],
    ));
    let nowhere = place.path("nowhere/model.pte").display().to_string();
    cases.push(case(
        "-o nowhere",
        &["compile", &model, "-o", &nowhere],
        2,
        &["nowhere"],
    ));
    cases.push(case(
        "-o a folder",
        &["compile", &model, "-o", &folder],
        2,
        &["no-delegates"],
    ));
    place.check_all(&cases);
}

/// A manifest that cannot be read keeps its delegate out and is told of; it stops nothing else.
#[test]
fn a_malformed_manifest_stops_nothing() {
    let place = Place::new();
    let model = place.write("model.pt2", archive());
    place.write("delegates/broken.delegate.toml", "name = ");
    place.write("delegates/binary.delegate.toml", [0xff, 0xfe]);
    std::fs::create_dir(place.path("delegates/folder.delegate.toml")).unwrap();
    let variables = [("DELEGRAPH_DELEGATE_PATH", place.path("delegates").display().to_string())];
    let ended = place.run(&texts(&["devices"]), &variables);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(
        ended.stdout.matches("refused: the manifest").count(),
        3,
        "{}",
        ended.stdout
    );
    let arguments = texts(&["partition", &model]);
    let ended = place.run(&arguments, &variables);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let arguments = texts(&[
        "inspect",
        &place.path("delegates/broken.delegate.toml").display().to_string(),
    ]);
    assert_eq!(place.run(&arguments, &variables).code, 3);
}

/// `compile` writes all of a file or nothing, also over one that is there.
#[test]
fn a_refused_compile_leaves_the_old_file_alone() {
    let place = Place::new();
    let good = place.write("good.pt2", archive());
    let bad = place.write("bad.pt2", &archive()[..4000]);
    let output = place.path("out/model.pte");
    let arguments = |model: &str| texts(&["compile", model, "-o", &output.display().to_string()]);
    let ended = place.run(&arguments(&good), &[]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let before = std::fs::read(&output).unwrap();
    assert_eq!(place.run(&arguments(&bad), &[]).code, 3);
    assert_eq!(std::fs::read(&output).unwrap(), before);
    assert_eq!(std::fs::read_dir(place.path("out")).unwrap().count(), 1);
}
