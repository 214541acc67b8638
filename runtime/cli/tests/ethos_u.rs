//! `delegraph compile` with a compiler that is an external program: what it says is shown, and it does not outlive the command.
#![cfg(target_os = "linux")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// `cargo xtask test` builds these before the tests.
fn missing() -> bool {
    let folder = Path::new(env!("CARGO_BIN_EXE_delegraph")).parent().unwrap();
    let needed = ["delegraph-worker", "libethos_u_delegate.so"].map(|name| folder.join(name));
    let missing = needed.iter().find(|path| !path.is_file());
    if let Some(missing) = missing {
        println!(
            "skipped: `{}` is not built; `cargo xtask test` builds it",
            missing.display()
        );
    }
    missing.is_some()
}

fn delegraph(vela: &Path, folder: &Path, words: &[&str]) -> Command {
    let config = folder.join("backends.toml");
    let text = format!(
        "[select]\norder = [\"ethos-u\"]\n[backend.ethos-u]\noptions = {{ vela = \"{}\" }}\n",
        vela.display()
    );
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_delegraph"));
    // What a command that was killed leaves goes with the folder.
    command.args(words).arg("--config").arg(&config).env("TMPDIR", folder);
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."));
    command
}

const MODEL: &str = "conformance/fixtures/arch-int8-convnet/model.pt2";

#[test]
fn the_external_compiler_ends_when_the_command_is_killed() {
    if missing() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let vela = folder.path().join("vela");
    std::fs::write(
        &vela,
        "#!/bin/sh\nif [ \"$1\" = --version ]; then exit 0; fi\nwhile :; do :; done\n",
    )
    .unwrap();
    std::fs::set_permissions(&vela, std::fs::Permissions::from_mode(0o755)).unwrap();
    let output = folder.path().join("model.pte").display().to_string();
    for signal in [rustix::process::Signal::KILL, rustix::process::Signal::TERM] {
        let mut command = delegraph(&vela, folder.path(), &["compile", MODEL, "-o", &output]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        assert!(within(20, || running(&vela) > 0), "the program was not started");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, signal).unwrap();
        child.wait().unwrap();
        assert!(within(5, || running(&vela) == 0), "it goes on after {signal:?}");
    }
}

fn within(seconds: u64, condition: impl Fn() -> bool) -> bool {
    let until = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < until {
        if condition() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    condition()
}

/// Processes that run a script.
fn running(script: &Path) -> usize {
    let name = script.display().to_string();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let words = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    let script = |words: &Vec<u8>| {
        let words = String::from_utf8_lossy(words);
        words.starts_with("/bin/sh") && words.contains(&name)
    };
    words.filter(script).count()
}

#[test]
fn a_model_is_compiled_by_vela_and_what_it_does_is_shown() {
    if missing() {
        return;
    }
    let target: PathBuf = Path::new(env!("CARGO_BIN_EXE_delegraph"))
        .ancestors()
        .nth(2)
        .unwrap()
        .into();
    let vela = target.join("provision/ethos-u/bin/vela");
    if !vela.is_file() {
        println!("skipped: Vela is not here; `cargo xtask provision ethos-u` brings it");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("model.pte").display().to_string();
    let compiled = delegraph(
        &vela,
        folder.path(),
        &["compile", MODEL, "-o", &output, "--strict", "-v"],
    );
    let compiled = { compiled }.output().unwrap();
    let said = String::from_utf8_lossy(&compiled.stderr).into_owned();
    assert!(compiled.status.success(), "{said}");
    assert!(said.contains("ethos-u: Vela compiles the region, 0 s"), "{said}");
    let words = [
        "run",
        output.as_str(),
        "--fixture",
        "conformance/fixtures/arch-int8-convnet",
        "--json",
    ];
    let ran = delegraph(Path::new("/no/such/vela"), folder.path(), &words)
        .output()
        .unwrap();
    let report: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    // Outputs to a step of their quantization are compared by `runtime/delegraph/tests/ethos_u.rs`.
    for case in report["cases"].as_array().unwrap() {
        assert_eq!(case["fallbacks"], 0, "{case}");
        assert!(case["delegated_nodes"].as_u64() > Some(0), "{case}");
    }
    assert_eq!(report["cases"].as_array().unwrap().len(), 2);
}
