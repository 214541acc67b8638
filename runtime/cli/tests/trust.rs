//! Pins, signatures and elevated processes, as the command line has them.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder with a configuration, the reference delegate, and the command, so that no other delegate is found.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new(trust: &str) -> Place {
        let place = Place {
            folder: tempfile::tempdir().unwrap(),
        };
        let built = Path::new(env!("CARGO_BIN_EXE_delegraph"));
        std::fs::copy(built, place.path("delegraph")).unwrap();
        place.delegate("d");
        place.configure(trust);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn configure(&self, trust: &str) {
        let text = format!("[select]\norder = [\"reference\"]\n[delegates]\nsearch = [\"d\"]\n{trust}\n");
        std::fs::write(self.path("backends.toml"), text).unwrap();
    }

    /// The reference delegate in a folder of its own.
    fn delegate(&self, folder: &str) {
        let built = Path::new(env!("CARGO_BIN_EXE_delegraph")).with_file_name("libreference_delegate.so");
        std::fs::create_dir(self.path(folder)).unwrap();
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../delegates/reference/reference.delegate.toml");
        std::fs::copy(manifest, self.path(folder).join("reference.delegate.toml")).unwrap();
        std::fs::copy(&built, self.path(folder).join("libreference_delegate.so"))
            .unwrap_or_else(|e| panic!("build `delegraph-reference-plugin` first: {}: {e}", built.display()));
    }

    fn run(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        let mut command = Command::new(self.path("delegraph"));
        command.args(arguments).current_dir(self.folder.path()).env_clear();
        command.envs(variables.iter().copied());
        // Another test's process may have been forked while this one's binary was written, and hold it open for a moment.
        for _ in 0..100 {
            match command.output() {
                Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
                output => return output.unwrap(),
            }
        }
        panic!("the binary stays busy");
    }

    fn json(&self, code: i32, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--json"]].concat(), &[]);
        let text = String::from_utf8(output.stdout).unwrap();
        let last = text.lines().last().unwrap_or_default();
        let value: Value = serde_json::from_str(last)
            .unwrap_or_else(|e| panic!("{e}: {text}{}", String::from_utf8_lossy(&output.stderr)));
        assert_eq!(output.status.code(), Some(code), "{value}");
        value
    }

    /// What `devices --probe` says of the candidates, and what it prints beside.
    fn probe(&self, variables: &[(&str, &str)]) -> (Vec<String>, String) {
        let output = self.run(&["devices", "--probe", "--json"], variables);
        let stdout = String::from_utf8(output.stdout).unwrap();
        let value: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
        let states = value["delegates"].as_array().unwrap().iter();
        let states = states.map(|d| d["state"].as_str().unwrap().to_string()).collect();
        (states, String::from_utf8(output.stderr).unwrap())
    }

    fn append(&self, name: &str) {
        let bytes = std::fs::read(self.path(name)).unwrap();
        std::fs::write(self.path(name), [&bytes[..], b"\n"].concat()).unwrap();
    }
}

const MANIFEST: &str = "d/reference.delegate.toml";

#[test]
fn a_lock_is_written_heeded_and_verified() {
    if !cfg!(target_os = "linux") {
        println!("skipped: made for Linux");
        return;
    }
    let place = Place::new("trust = \"require\"");
    let (states, _) = place.probe(&[]);
    assert!(
        states[0].contains("unavailable") && states[0].contains("there is no lock file"),
        "{states:?}"
    );
    let verdict = place.json(1, &["delegate", "verify", MANIFEST]);
    assert_eq!(verdict["trusted"], false);
    let locked = place.json(0, &["delegate", "lock"]);
    assert_eq!(locked["delegates"].as_array().unwrap().len(), 1, "{locked}");
    assert!(place.path("delegraph.lock").is_file());
    let verdict = place.json(0, &["delegate", "verify", "d/libreference_delegate.so"]);
    assert!(verdict["reason"].as_str().unwrap().contains("pinned by"), "{verdict}");
    let (states, talk) = place.probe(&[]);
    assert!(states[0].starts_with("loaded"), "{states:?}");
    assert!(!talk.contains("warning"), "{talk}");

    place.append(MANIFEST);
    let (states, _) = place.probe(&[]);
    assert!(states[0].contains("another manifest than the pinned one"), "{states:?}");
    let verdict = place.json(1, &["delegate", "verify", MANIFEST]);
    assert!(
        verdict["reason"].as_str().unwrap().contains("another manifest"),
        "{verdict}"
    );

    place.configure("trust = \"warn\"");
    let (states, talk) = place.probe(&[]);
    assert!(states[0].starts_with("loaded"), "{states:?}");
    assert!(
        talk.contains("reference: warning: it is loaded although it is not trusted"),
        "{talk}"
    );
}

#[test]
fn a_worker_is_handed_what_was_checked() {
    if !cfg!(target_os = "linux") {
        println!("skipped: made for Linux");
        return;
    }
    let place = Place::new("trust = \"require\"\n[backend.reference]\nisolation = \"worker\"");
    let worker = Path::new(env!("CARGO_BIN_EXE_delegraph")).with_file_name("delegraph-worker");
    std::fs::copy(&worker, place.path("delegraph-worker"))
        .unwrap_or_else(|e| panic!("build `delegraph-worker` first: {}: {e}", worker.display()));
    let (states, _) = place.probe(&[]);
    assert!(states[0].contains("there is no lock file"), "{states:?}");
    place.json(0, &["delegate", "lock"]);
    // Its sandbox is on: the sealed copy is not in the file system that it closes.
    let (states, _) = place.probe(&[]);
    assert!(states[0].starts_with("loaded"), "{states:?}");
    // A variable could name any program as the worker.
    let (states, _) = place.probe(&[("DELEGRAPH_WORKER", "/bin/false")]);
    assert!(states[0].starts_with("loaded"), "{states:?}");
    place.append("d/libreference_delegate.so");
    let (states, _) = place.probe(&[]);
    assert!(states[0].contains("another library than the pinned one"), "{states:?}");
    place.configure("trust = \"off\"\n[backend.reference]\nisolation = \"worker\"");
    let (states, _) = place.probe(&[("DELEGRAPH_WORKER", "/bin/false")]);
    assert!(
        !states[0].starts_with("loaded"),
        "the variable is heeded elsewhere: {states:?}"
    );
}

#[test]
fn the_environment_adds_nothing_that_is_not_pinned() {
    if !cfg!(target_os = "linux") {
        println!("skipped: made for Linux");
        return;
    }
    let place = Place::new("trust = \"require\"");
    place.json(0, &["delegate", "lock"]);
    place.delegate("other");
    let other = place.path("other").display().to_string();
    // The same bytes elsewhere are the same delegate.
    let (states, _) = place.probe(&[("DELEGRAPH_DELEGATE_PATH", &other)]);
    assert!(states[0].starts_with("loaded"), "{states:?}");
    place.append("other/libreference_delegate.so");
    let (states, _) = place.probe(&[("DELEGRAPH_DELEGATE_PATH", &other)]);
    assert!(states[0].contains("another library than the pinned one"), "{states:?}");
    std::fs::rename(place.path("d"), place.path("away")).unwrap();
    let (states, _) = place.probe(&[("DELEGRAPH_ADD_DELEGATE_PATH", &other)]);
    assert!(states[0].contains("another library than the pinned one"), "{states:?}");
    // Nor does a configuration that a variable names take the requirement back.
    std::fs::write(
        place.path("loose.toml"),
        "[delegates]\ntrust = \"off\"\nsearch = [\"other\"]\n",
    )
    .unwrap();
    let (states, _) = place.probe(&[("DELEGRAPH_CONFIG", "loose.toml")]);
    assert!(states[0].contains("another library than the pinned one"), "{states:?}");
}

#[test]
fn a_delegate_is_signed_and_its_signature_checked() {
    if !cfg!(target_os = "linux") {
        println!("skipped: made for Linux");
        return;
    }
    let place = Place::new("trust = \"require\"\nkeys = [\"own.key.pub\"]");
    std::fs::write(place.path("password"), "correct horse\nnot this line\n").unwrap();
    std::fs::write(place.path("wrong"), "wrong\n").unwrap();
    let sign = ["delegate", "sign", MANIFEST, "--key", "own.key"];
    let with = |more: &[&'static str]| [&sign[..], more].concat();
    let made = place.json(
        0,
        &[
            "delegate",
            "sign",
            "--generate",
            "--key",
            "own.key",
            "--password-file",
            "password",
        ],
    );
    assert_eq!(made["public_key"], "own.key.pub");
    // It writes over no key.
    place.json(2, &["delegate", "sign", "--generate", "--key", "own.key"]);
    assert!(
        place.json(3, &sign)["message"]
            .as_str()
            .unwrap()
            .contains("--password-file")
    );
    place.json(3, &with(&["--password-file", "wrong"]));
    assert!(
        !place.path("d/reference.delegate.sha256").exists(),
        "nothing is written without a key"
    );
    place.json(0, &with(&["--password-file", "password"]));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(place.path("own.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "the secret key is its owner's alone");
    }
    // The list is what `sha256sum` takes.
    let check = Command::new("sha256sum")
        .args(["--check", "--strict", "reference.delegate.sha256"])
        .current_dir(place.path("d"))
        .output();
    match check {
        Ok(output) => assert!(output.status.success(), "{output:?}"),
        Err(_) => println!("skipped: there is no `sha256sum`"),
    }
    let (states, _) = place.probe(&[]);
    assert!(states[0].starts_with("loaded"), "{states:?}");
    assert_eq!(
        place.json(0, &["delegate", "verify", MANIFEST, "--key", "own.key.pub"])["trusted"],
        true
    );
    place.json(0, &["delegate", "sign", "--generate", "--key", "other.key"]);
    let verdict = place.json(1, &["delegate", "verify", MANIFEST, "--key", "other.key.pub"]);
    assert!(
        verdict["reason"].as_str().unwrap().contains("none of the trusted keys"),
        "{verdict}"
    );
    place.append("d/libreference_delegate.so");
    let verdict = place.json(1, &["delegate", "verify", MANIFEST]);
    assert!(
        verdict["reason"].as_str().unwrap().contains("than the signed one"),
        "{verdict}"
    );
}

#[test]
fn wrong_use_is_named() {
    let place = Place::new("");
    std::fs::create_dir(place.path("empty")).unwrap();
    std::fs::write(place.path("none.toml"), "[delegates]\nsearch = [\"empty\"]\n").unwrap();
    for (code, words, arguments) in [
        (2, "nothing to verify it by", &["delegate", "verify", MANIFEST][..]),
        (
            3,
            "there is no file",
            &["delegate", "verify", "absent.so", "--key", "a.pub"],
        ),
        (
            1,
            "there is no key file",
            &["delegate", "verify", MANIFEST, "--key", "absent.pub"],
        ),
        (2, "is no day like", &["delegate", "lock", "--expires", "tomorrow"]),
        (
            2,
            "is no day like",
            &["delegate", "lock", "--expires", "2999-01-01\nx = 1"],
        ),
        (2, "is over", &["delegate", "lock", "--expires", "2001-09-09"]),
        (
            2,
            "no delegate to pin",
            &["delegate", "lock", "--config", "empty/../none.toml"],
        ),
    ] {
        // The last one: without the project's own file.
        if arguments.contains(&"--config") {
            std::fs::rename(place.path("backends.toml"), place.path("aside")).unwrap();
        }
        let object = place.json(code, arguments);
        assert!(object.to_string().contains(words), "{arguments:?}: {object}");
    }
    assert!(!place.path("delegraph.lock").exists());
}

#[cfg(unix)]
#[test]
fn a_set_uid_process_does_not_heed_the_environment() {
    use std::os::unix::fs::{PermissionsExt, chown};
    let place = Place::new("");
    let mode = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    // Somebody else's, and set-uid: it runs with rights that whoever starts it has not.
    let lend = |path: &Path| {
        let lent = chown(path, Some(65_534), Some(65_534)).is_ok();
        mode(path, 0o4755);
        lent
    };
    mode(place.folder.path(), 0o755);
    let id = place.path("id");
    let able = std::fs::copy("/usr/bin/id", &id).is_ok()
        && lend(&id)
        && Command::new(&id)
            .arg("-u")
            .output()
            .is_ok_and(|o| o.stdout.starts_with(b"65534"));
    if !able {
        println!("skipped: no set-uid program can be made here");
        return;
    }
    std::fs::write(place.path("broken.toml"), "[select\n").unwrap();
    std::fs::write(place.path("strict.toml"), "[select]\nmin_nodes = 77\n").unwrap();
    let show = |config: &str| {
        let variables = [
            ("DELEGRAPH_CONFIG", config),
            ("DELEGRAPH_STRICT", "1"),
            ("DELEGRAPH_PROFILE", "nobody's"),
        ];
        let output = place.run(&["config", "show", "--config", "aside.toml"], &variables);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    std::fs::write(place.path("aside.toml"), "[select]\nmin_nodes = 1\n").unwrap();
    assert_eq!(
        show("broken.toml").0,
        Some(2),
        "as its own user it reads the environment"
    );
    assert!(lend(&place.path("delegraph")));
    for config in ["broken.toml", "strict.toml"] {
        let (code, text) = show(config);
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains("fallback = \"allow\"") && !text.contains("77"), "{text}");
    }
}
