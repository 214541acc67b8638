//! `delegate check` and `delegate abi-diff` on libraries with one thing wrong each: the C template, changed and built.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The table of the template with an `add` in it.
const ADD: &str = "
static void add(uint64_t count, const float *a, const float *b, float *out) {
    for (uint64_t i = 0; i < count; i++) out[i] = a[i] + b[i];
}
static void mul(uint64_t count, const float *a, const float *b, float *out) {
    for (uint64_t i = 0; i < count; i++) out[i] = a[i] * b[i];
}
static const my_npu_op ops[] = {
    {1, DG_OP_ATEN_ADD_TENSOR, 2, NULL, add},
    {2, DG_OP_ATEN_MUL_TENSOR, 2, NULL, mul},
    {0, NULL, 0, NULL, NULL},
};
";

/// A folder of delegates in C; `None` and a line where they cannot be built.
struct Workshop(tempfile::TempDir);

impl Workshop {
    fn open() -> Option<Workshop> {
        if cfg!(not(target_os = "linux")) || Command::new("cc").arg("--version").output().is_err() {
            println!("skipped: checks of libraries: no cc, or not Linux");
            return None;
        }
        Some(Workshop(tempfile::tempdir().unwrap()))
    }

    /// Makes a delegate that takes `add` and `mul`, with changes: in a file, one text for another. Gives its manifest.
    fn delegate(&self, folder: &str, changes: &[(&str, &str, &str)], flags: &[&str]) -> PathBuf {
        let place = self.0.path().join(folder);
        let made = self.run(&["delegate", "new", "my-npu", "--lang", "c", "-o", folder]);
        assert_eq!(made.0, Some(0), "{}", made.1);
        let ops = std::fs::read_to_string(place.join("ops.c")).unwrap();
        let begin = ops.find("/* BEGIN").unwrap();
        let end = ops.find("/* END").unwrap();
        std::fs::write(place.join("ops.c"), format!("{}{ADD}{}", &ops[..begin], &ops[end..])).unwrap();
        for (file, from, to) in changes {
            let text = std::fs::read_to_string(place.join(file)).unwrap();
            assert!(text.contains(from), "{folder}: {file} has no `{from}`");
            std::fs::write(place.join(file), text.replacen(from, to, 1)).unwrap();
        }
        let sources = std::fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().path());
        let output = Command::new("cc")
            .args([
                "-std=gnu99",
                "-O1",
                "-fPIC",
                "-fvisibility=hidden",
                "-Iinclude",
                "-shared",
                "-o",
                "libmy_npu_delegate.so",
            ])
            .args(sources.filter(|path| path.extension().is_some_and(|e| e == "c")))
            .args(flags)
            .current_dir(&place)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{folder}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        place.join("my-npu.delegate.toml")
    }

    fn run(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_delegraph"))
            .args(arguments)
            .current_dir(self.0.path())
            .env_remove("DELEGRAPH_CONFIG")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), text + &String::from_utf8_lossy(&output.stderr))
    }

    /// The exit code and the object of a command with `--json`.
    fn json(&self, arguments: &[&str]) -> (i32, Value) {
        let output = Command::new(env!("CARGO_BIN_EXE_delegraph"))
            .args(arguments)
            .arg("--json")
            .current_dir(self.0.path())
            .env_remove("DELEGRAPH_CONFIG")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let object: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {text}"));
        let code = output.status.code().unwrap();
        assert_eq!(object["exit_code"], code, "{arguments:?}");
        (code, object)
    }

    fn check(&self, file: &Path) -> (i32, Vec<(String, String, String)>) {
        let (code, object) = self.json(&["delegate", "check", file.to_str().unwrap()]);
        let word = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_string();
        let findings = object["findings"].as_array().unwrap().iter();
        let findings = findings
            .map(|f| (word(f, "level"), word(f, "check"), word(f, "text")))
            .collect();
        (code, findings)
    }

    fn differences(&self, old: &Path, new: &Path) -> (i32, Vec<(String, String, String)>) {
        let (code, object) = self.json(&["delegate", "abi-diff", old.to_str().unwrap(), new.to_str().unwrap()]);
        let word = |difference: &Value, key: &str| difference[key].as_str().unwrap_or_default().to_string();
        let list = object["differences"].as_array().unwrap().iter();
        let list = list
            .map(|d| (word(d, "effect"), word(d, "what"), word(d, "text")))
            .collect();
        (code, list)
    }
}

#[track_caller]
fn holds(list: &[(String, String, String)], kind: &str, what: &str, text: &str) {
    let found = list.iter().any(|(k, w, t)| k == kind && w == what && t.contains(text));
    assert!(found, "no `{kind}` of `{what}` with `{text}` in {list:#?}");
}

#[test]
fn a_sound_delegate_passes_by_its_manifest_and_by_itself() {
    let Some(workshop) = Workshop::open() else { return };
    let manifest = workshop.delegate("sound", &[], &[]);
    for file in [manifest.clone(), manifest.with_file_name("libmy_npu_delegate.so")] {
        let (code, findings) = workshop.check(&file);
        assert_eq!(code, 0, "{findings:#?}");
        assert!(
            !findings.iter().any(|(level, ..)| level == "fail" || level == "warning"),
            "{findings:#?}"
        );
        holds(&findings, "pass", "add", "max_abs 0.0e0");
        holds(&findings, "pass", "mul", "max_abs 0.0e0");
        holds(&findings, "note", "relu", "no kernel");
    }
}

#[test]
fn what_is_wrong_with_the_file_is_said_before_it_is_loaded() {
    let Some(workshop) = Workshop::open() else { return };
    let body = "*out_table = &api;";
    let cases: [(&str, &[(&str, &str, &str)], &[&str], i32, &str, &str, &str); 8] = [
        (
            "stack",
            &[],
            &["-Wl,-z,execstack"],
            1,
            "fail",
            "stack",
            "executable stack",
        ),
        (
            "rpath",
            &[],
            &["-Wl,-rpath,/home/builder/lib"],
            0,
            "warning",
            "search",
            "/home/builder/lib",
        ),
        (
            "exports",
            &[],
            &["-fvisibility=default"],
            0,
            "warning",
            "exports",
            "`my_npu_compile`",
        ),
        (
            "calls",
            &[("main.c", body, "if (!out_table) { exit(3); } *out_table = &api;")],
            &[],
            0,
            "warning",
            "calls",
            "`exit`",
        ),
        (
            "needs",
            &[],
            &["-Wl,--no-as-needed", "-lm"],
            0,
            "pass",
            "needs",
            "libm.so",
        ),
        (
            "entry",
            &[("main.c", "dg_delegate_entry_v1", "dg_delegate_entry_v7")],
            &[],
            1,
            "fail",
            "entry",
            "[7]",
        ),
        (
            "schema",
            &[(
                "my-npu.delegate.toml",
                "roles =",
                "options_schema = \"absent.json\"\nroles =",
            )],
            &[],
            1,
            "fail",
            "options",
            "`absent.json`",
        ),
        (
            "version",
            &[("my-npu.delegate.toml", "version = \"0.1.0\"", "version = \"0.2.0\"")],
            &[],
            5,
            "fail",
            "runs",
            "its version is `0.1.0`, but its manifest says `0.2.0`",
        ),
    ];
    for (folder, changes, flags, wanted, level, check, text) in cases {
        let manifest = workshop.delegate(folder, changes, flags);
        let (code, findings) = workshop.check(&manifest);
        assert_eq!(code, wanted, "{folder}: {findings:#?}");
        holds(&findings, level, check, text);
    }
}

#[test]
fn what_a_library_does_when_it_runs_is_an_answer() {
    let Some(workshop) = Workshop::open() else { return };
    let start = "    self = calloc(1, sizeof *self);";
    let ran = "        dg_status status = run_step(session, call, i);";
    let cases: [(&str, &[(&str, &str, &str)], i32, &str, &str); 7] = [
        (
            "wrong",
            &[("ops.c", "a[i] + b[i]", "a[i] + 2 * b[i]")],
            1,
            "add",
            "element 0 is",
        ),
        (
            "nan",
            &[("ops.c", "a[i] + b[i]", "0.0f / (a[i] - a[i])")],
            1,
            "add",
            "element 0 is NaN",
        ),
        (
            "fails",
            &[(
                "execute.c",
                ran,
                "        dg_status status = my_npu_fail(call, DG_E_DEVICE_LOST, DG_NO_NODE, \"gone\");",
            )],
            1,
            "add",
            "gone",
        ),
        (
            "prints",
            &[(
                "main.c",
                start,
                "    printf(\"hello\\n\");\n    self = calloc(1, sizeof *self);",
            )],
            1,
            "output",
            "hello",
        ),
        (
            "exits",
            &[("main.c", start, "    exit(0);\n    self = calloc(1, sizeof *self);")],
            5,
            "runs",
            "at: start",
        ),
        (
            "aborts",
            &[("main.c", start, "    abort();\n    self = calloc(1, sizeof *self);")],
            5,
            "runs",
            "at: start",
        ),
        (
            "segfaults",
            &[(
                "execute.c",
                ran,
                "        dg_status status = *(volatile int *)call->host->features[1];",
            )],
            5,
            "runs",
            "the case `add`",
        ),
    ];
    for (folder, changes, wanted, check, text) in cases {
        let manifest = workshop.delegate(folder, changes, &[]);
        let (code, findings) = workshop.check(&manifest);
        assert_eq!(code, wanted, "{folder}: {findings:#?}");
        holds(&findings, "fail", check, text);
    }
}

#[test]
fn what_is_no_library_is_a_bad_file() {
    let Some(workshop) = Workshop::open() else { return };
    let library = workshop
        .delegate("cut", &[], &[])
        .with_file_name("libmy_npu_delegate.so");
    let bytes = std::fs::read(&library).unwrap();
    for length in [0, 3, 64, 1000, bytes.len() / 2] {
        std::fs::write(&library, &bytes[..length]).unwrap();
        let (code, text) = workshop.run(&["delegate", "check", library.to_str().unwrap()]);
        assert_eq!(code, Some(3), "{length} bytes: {text}");
    }
    let (code, text) = workshop.run(&["delegate", "check", "absent.so"]);
    assert_eq!(code, Some(3), "{text}");
    let (code, text) = workshop.run(&["delegate", "check", "."]);
    assert_eq!(code, Some(3), "{text}");
}

#[test]
fn a_newer_library_is_compared_with_the_older() {
    let Some(workshop) = Workshop::open() else { return };
    let newer = ("my_npu.h", "VERSION \"0.1.0\"", "VERSION \"0.2.0\"");
    let manifest = ("my-npu.delegate.toml", "version = \"0.1.0\"", "version = \"0.2.0\"");
    let old = workshop.delegate("old", &[], &[]);
    let with = |folder: &str, changes: &[(&str, &str, &str)], flags: &[&str]| {
        workshop.delegate(folder, &[&[newer, manifest], changes].concat(), flags)
    };

    let (code, list) = workshop.differences(&old, &with("same", &[], &[]));
    assert_eq!((code, list.len()), (0, 0), "{list:?}");

    let version = ("my_npu.h", "FORMAT_VERSION 1", "FORMAT_VERSION 2");
    let (code, list) = workshop.differences(&old, &with("version", &[version], &[]));
    assert_eq!(code, 0, "{list:?}");
    holds(&list, "changes", "blobs", "version 1 of `my-npu.steps` became 2");
    holds(&list, "changes", "blobs", "case `add` is refused");

    // The codes of two operators change places, and nobody raised the version.
    let codes = [
        ("ops.c", "{1, DG_OP_ATEN_ADD", "{2, DG_OP_ATEN_ADD"),
        ("ops.c", "{2, DG_OP_ATEN_MUL", "{1, DG_OP_ATEN_MUL"),
    ];
    let (code, list) = workshop.differences(&old, &with("codes", &codes, &[]));
    assert_eq!(code, 1, "{list:?}");
    holds(&list, "breaks", "blobs", "case `add` is misread");

    let roles = [
        ("main.c", "DG_FEATURE_COMPILE | DG_FEATURE_RUN", "DG_FEATURE_RUN"),
        ("my-npu.delegate.toml", "[\"compile\", \"run\"]", "[\"run\"]"),
    ];
    let (code, list) = workshop.differences(&old, &with("roles", &roles, &[]));
    assert_eq!(code, 1, "{list:?}");
    holds(&list, "breaks", "role", "`compile` is gone");
    holds(&list, "breaks", "features", "0x1");

    let crash = [("main.c", "    (void)host;", "    abort();")];
    let (code, list) = workshop.differences(&old, &with("crash", &crash, &[]));
    assert_eq!(code, 1, "{list:?}");
    holds(&list, "breaks", "load", "shake hands");

    let (code, list) = workshop.differences(&old, &with("needs", &[], &["-Wl,--no-as-needed", "-lm"]));
    assert_eq!(code, 0, "{list:?}");
    holds(&list, "changes", "needs", "libm.so");

    let (code, list) = workshop.differences(
        &old,
        &workshop.delegate("again", &[("device.c", "no chip yet", "still no chip")], &[]),
    );
    assert_eq!(code, 0, "{list:?}");
    holds(&list, "changes", "version", "nobody can tell them apart");
}

/// A delegate that was built for ABI 0.2 is sound, and one of 1.0 is none for whoever has a host of 0.2.
#[test]
fn delegates_of_two_majors_are_checked_and_compared() {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu")) {
        println!("skipped: the kept delegates are for x86-64 Linux");
        return;
    }
    let workshop = Workshop(tempfile::tempdir().unwrap());
    let frozen = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conformance/frozen");
    let manifest = |version: &str| frozen.join(version).join("frozen-add.delegate.toml");
    for (version, entry, loaded) in [
        (
            "v0.2",
            "`dg_delegate_entry_v0`: ABI 0; this host has 1.2 and 0.2",
            "ABI 0.2,",
        ),
        (
            "v1.0",
            "`dg_delegate_entry_v1`: ABI 1; this host has 1.2 and 0.2",
            "ABI 1.0,",
        ),
    ] {
        let (code, findings) = workshop.check(&manifest(version));
        assert_eq!(code, 0, "{findings:#?}");
        holds(&findings, "pass", "entry", entry);
        holds(&findings, "pass", "loaded", loaded);
        holds(&findings, "pass", "add", "max_abs 0.0e0");
    }
    let (code, list) = workshop.differences(&manifest("v0.2"), &manifest("v1.0"));
    assert_eq!(code, 1, "{list:?}");
    holds(&list, "breaks", "export", "`dg_delegate_entry_v0` is gone");
    holds(&list, "adds", "export", "`dg_delegate_entry_v1` is new");
    holds(
        &list,
        "breaks",
        "manifest",
        "hosts that know 1.0 of the ABI, where 0.0 was enough",
    );
    // The blobs of the one are those of the other.
    assert!(!list.iter().any(|(_, what, _)| what == "blobs"), "{list:?}");
    let (_, list) = workshop.differences(&manifest("v1.0"), &manifest("v0.2"));
    holds(&list, "changes", "abi", "built with ABI 0.2, where it was 1.0");
}
