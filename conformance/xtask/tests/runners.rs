//! The scripts that carry the kit to a device: what arrives there, what comes back, what a lost connection and a device that was switched off
//! do, and what is left. The device is a folder of this machine, reached over a real sshd where there is one, and over stand-ins for `ssh` and
//! `adb`; the kit is a stand-in too, which says what it was called with. No script was run on a real device.

#![cfg(unix)]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};

/// A kit whose command takes four tenths of a second a case, and goes on where it was stopped, as the real one does.
const KIT: &str = r#"#!/bin/sh
[ "$1 $2" = "conform run" ] || exit 2
manifest=$3
shift 3
mkdir -p report
printf '%s\n' "$@" >report/arguments
[ -f "$manifest" ] || exit 3
ls "$(dirname "$manifest")" >report/files
env >report/environment
for case in 1 2 3 4 5 6; do
    grep -qx "$case" report/cases.jsonl 2>/dev/null && continue
    sleep 0.4
    echo "$case" >>report/cases.jsonl
    echo "case $case of 6"
done
case "$*" in *fail*) exit 1 ;; *defect*) exit 70 ;; esac
"#;

/// Takes what the script gives to ssh, and runs the text as a device would: elsewhere, with an environment of its own. Where the file `lose`
/// is there, the connection is lost a second after the run began.
const SSH: &str = r#"#!/bin/sh
while [ $# -gt 0 ]; do case $1 in -p | -o) shift 2 ;; *) break ;; esac; done
[ "$1" = user@device ] || exit 255
cd "$DEVICE" || exit 255
case $2 in
    *run.sh*)
        if [ -f "$DEVICE/lose" ]; then
            rm -f "$DEVICE/lose"
            timeout 1 env -i PATH="$PATH" sh -c "$2"
            exit 255
        fi
        ;;
esac
exec env -i PATH="$PATH" sh -c "$2"
"#;

/// The same for adb, as old ones are: `shell` ends with 0 whatever the command does, and its lines end as on a terminal.
const ADB: &str = r#"#!/bin/sh
[ "$1 $2" = "-s device" ] || { echo "error: device '$2' not found" >&2; exit 1; }
shift 2
case $1 in
    shell)
        cd "$DEVICE" || exit 1
        case $2 in *run.sh*) if [ -f "$DEVICE/lose" ]; then
            rm -f "$DEVICE/lose"
            timeout 1 env -i PATH="$PATH" sh -c "$2" | sed 's/$/\r/' | grep -v delegraph-exit
            exit 0
        fi ;; esac
        env -i PATH="$PATH" sh -c "$2" | sed 's/$/\r/'
        exit 0
        ;;
    push) cp -R "$2" "$3" ;;
    pull) cp -R "$2" "$3" ;;
    *) exit 1 ;;
esac
"#;

/// A device and what is carried to it.
struct Place {
    folder: PathBuf,
    script: &'static str,
    device: &'static str,
    transport: String,
}

impl Place {
    fn new(name: &str, script: &'static str, device: &'static str) -> Place {
        let folder = std::env::temp_dir().join(format!("delegraph-runners-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(folder.join("device")).unwrap();
        std::fs::create_dir_all(folder.join("vendor/deep")).unwrap();
        let transport = folder.join("transport").display().to_string();
        let place = Place {
            folder,
            script,
            device,
            transport,
        };
        place.program("transport", if script.contains("adb") { ADB } else { SSH });
        let manifest =
            "name = \"acme\"\n[library]\nx86_64-unknown-linux-gnu = \"libacme.so\"\nother = \"deep/libother.so\"\n";
        for (file, text) in [
            ("vendor/acme.delegate.toml", manifest),
            ("vendor/libacme.so", "library"),
            ("vendor/libpart.so.1", "dependent"),
            ("vendor/deep/libother.so", "of another machine"),
            ("vendor/secret.key", "not to be copied"),
            ("it's a waiver.toml", "waivers"),
        ] {
            std::fs::write(place.path(file), text).unwrap();
        }
        place.program("delegraph-conformance-0-test/bin/delegraph", KIT);
        let sums = Command::new("sh")
            .args([
                "-c",
                "sha256sum bin/delegraph >SHA256SUMS && cd .. && tar -czf kit.tar.gz delegraph-conformance-0-test",
            ])
            .current_dir(place.path("delegraph-conformance-0-test"))
            .status();
        assert!(sums.unwrap().success());
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn program(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn command(&self, more: &[&str]) -> Command {
        let runners = Path::new(env!("CARGO_MANIFEST_DIR")).join("../runners");
        let mut command = Command::new("sh");
        command
            .arg(runners.join(self.script))
            .args([
                "--kit",
                "kit.tar.gz",
                "--manifest",
                "vendor/acme.delegate.toml",
                "--out",
                "report",
            ])
            .args(["--base", &self.path("device").display().to_string(), self.device])
            .args(more)
            .current_dir(&self.folder)
            .env("DEVICE", self.path("device"))
            .env("NOT_FOR_THE_DEVICE", "1")
            .env("DELEGRAPH_SSH", &self.transport)
            .env("DELEGRAPH_ADB", &self.transport);
        command
    }

    #[track_caller]
    fn run(&self, code: i32, more: &[&str]) -> (String, String) {
        let Output { status, stdout, stderr } = self.command(more).output().unwrap();
        let (stdout, stderr) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
        assert_eq!(status.code(), Some(code), "{more:?}\n{stdout}\n{stderr}");
        (stdout, stderr)
    }

    fn report(&self, name: &str) -> String {
        std::fs::read_to_string(self.path("report").join(name)).unwrap()
    }

    /// Folders that are left on the device.
    fn left(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.path("device")).unwrap();
        entries
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_dir())
            .collect()
    }

    /// What every way to a device has to do.
    fn carries_runs_and_cleans_up(&self) {
        let (out, _) = self.run(
            0,
            &[
                "--with",
                "it's a waiver.toml",
                "--",
                "--list",
                "core",
                "--case",
                "op/it's *",
                "--seed",
                "7",
            ],
        );
        assert_eq!(out.lines().filter(|line| line.starts_with("case ")).count(), 6, "{out}");
        let arguments: Vec<String> = self.report("arguments").lines().map(str::to_string).collect();
        assert_eq!(
            arguments,
            ["-o", "report", "--list", "core", "--case", "op/it's *", "--seed", "7"]
        );
        let files: Vec<String> = self.report("files").lines().map(str::to_string).collect();
        assert_eq!(
            files,
            [
                "acme.delegate.toml",
                "deep",
                "it's a waiver.toml",
                "libacme.so",
                "libpart.so.1"
            ]
        );
        assert!(!self.report("environment").contains("NOT_FOR_THE_DEVICE"));
        assert_eq!(self.left(), Vec::<PathBuf>::new());
        std::fs::remove_dir_all(self.path("report")).unwrap();

        // A no comes back as such, and leaves nothing; what went wrong stays to be looked at.
        self.run(1, &["--", "fail"]);
        assert_eq!(self.left(), Vec::<PathBuf>::new());
        assert_eq!(self.report("cases.jsonl").lines().count(), 6);
        let (_, talk) = self.run(70, &["--", "defect"]);
        assert!(talk.contains("kept on"), "{talk}");
        assert_eq!(self.left().len(), 1);
        std::fs::remove_dir_all(&self.left()[0]).unwrap();
    }

    fn survives(&self) {
        // The connection is lost; the run goes on, and is followed again.
        std::fs::write(self.path("device/lose"), "").unwrap();
        let (first, talk) = self.run(75, &["--", "again"]);
        assert!(talk.contains("was lost: give the same command again"), "{talk}");
        assert!(!first.contains("case 6 of 6"), "{first}");
        let (second, talk) = self.run(0, &["--", "again"]);
        assert!(talk.contains("the kit is on"), "it is not copied again: {talk}");
        assert!(
            second.contains("case 1 of 6") && second.contains("case 6 of 6"),
            "{second}"
        );
        assert_eq!(self.report("cases.jsonl"), "1\n2\n3\n4\n5\n6\n", "each case once");
        assert_eq!(self.left(), Vec::<PathBuf>::new());

        // The device is switched off in the middle: what runs is gone, and the next call goes on.
        let child = self.command(&["--", "off"]).spawn().unwrap();
        let ended = switch_off(&self.path("device"), child);
        assert_eq!(ended, Some(75));
        let (second, _) = self.run(0, &["--", "off"]);
        assert!(
            !second.contains("case 1 of 6") && second.contains("case 6 of 6"),
            "{second}"
        );
        assert_eq!(self.report("cases.jsonl"), "1\n2\n3\n4\n5\n6\n", "each case once");
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Waits for the second case of the run and ends its processes.
fn switch_off(device: &Path, mut script: Child) -> Option<i32> {
    for _ in 0..600 {
        std::thread::sleep(std::time::Duration::from_millis(50));
        let folders = std::fs::read_dir(device).unwrap().map(|entry| entry.unwrap().path());
        for folder in folders {
            let cases = std::fs::read_to_string(folder.join("report/cases.jsonl")).unwrap_or_default();
            if cases.lines().count() >= 2 {
                let pid = std::fs::read_to_string(folder.join("pid")).unwrap();
                let kill = format!("pkill -KILL -P {0}; kill -KILL {0}", pid.trim());
                let _ = Command::new("sh").args(["-c", &kill]).status();
                return script.wait().unwrap().code();
            }
        }
    }
    let _ = script.kill();
    panic!("the run did not begin");
}

#[test]
fn over_a_stand_in_for_ssh() {
    let place = Place::new("ssh", "run-over-ssh.sh", "user@device");
    place.carries_runs_and_cleans_up();
    place.survives();
    let mut elsewhere = Place::new("ssh-nobody", "run-over-ssh.sh", "user@nobody");
    elsewhere.run(75, &["--", "x"]);
    elsewhere.transport = "ssh-that-is-not-there".to_string();
    elsewhere.run(2, &["--", "x"]);
}

#[test]
fn over_a_stand_in_for_adb() {
    let place = Place::new("adb", "run-over-adb.sh", "device");
    place.carries_runs_and_cleans_up();
    place.survives();
    Place::new("adb-nobody", "run-over-adb.sh", "nobody").run(75, &["--", "x"]);
}

#[test]
fn wrong_use_is_told() {
    let place = Place::new("use", "run-over-ssh.sh", "user@device");
    for (more, words) in [
        (&["--porrt", "1"][..], "there is no flag --porrt"),
        (&["--port"], "--port needs a value"),
        (&["second"], "two devices: user@device and second"),
        (&["--kit", "absent.tar.gz"], "there is no file absent.tar.gz"),
        (&["--with", "absent.toml"], "there is no file absent.toml"),
    ] {
        let (_, talk) = place.run(2, more);
        assert!(talk.contains(words), "{more:?}: {talk}");
    }
    assert_eq!(place.left(), Vec::<PathBuf>::new());
}

/// An sshd of this test's own, with keys of its own, on a port of its own.
struct Sshd {
    server: Child,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Starts one, and makes the place's transport `ssh` to it. `None`: there is none here, which was printed.
fn sshd(place: &mut Place) -> Option<(Sshd, String)> {
    let skipped = |why: &str| println!("skipped: over a real sshd: {why}");
    let program = ["/usr/sbin/sshd", "/usr/local/sbin/sshd"]
        .into_iter()
        .find(|path| Path::new(path).is_file());
    let Some(program) = program else {
        skipped("there is none");
        return None;
    };
    for key in ["host-key", "user-key"] {
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f", key])
            .current_dir(&place.folder)
            .status();
        assert!(made.unwrap().success());
    }
    // Free when it was asked for; whoever takes it meanwhile makes the server end.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
        .to_string();
    let folder = place.folder.display();
    let config = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host-key\nAuthorizedKeysFile {folder}/user-key.pub\nStrictModes no\n\
         PasswordAuthentication no\nUsePAM no\nPidFile none\n"
    );
    std::fs::write(place.path("sshd_config"), config).unwrap();
    // What an sshd that is started by root gives its rights up to.
    let _ = std::fs::create_dir_all("/run/sshd");
    let log = std::fs::File::create(place.path("sshd.log")).unwrap();
    let server = Command::new(program)
        .args(["-D", "-e", "-f"])
        .arg(place.path("sshd_config"))
        .stderr(log)
        .spawn()
        .unwrap();
    let server = Sshd { server };
    place.transport = format!(
        "ssh -F none -i {folder}/user-key -o UserKnownHostsFile={folder}/known -o StrictHostKeyChecking=accept-new -o LogLevel=ERROR"
    );
    for _ in 0..100 {
        let mut words = place.transport.split(' ');
        let mut command = Command::new(words.next().unwrap());
        command
            .args(words)
            .args(["-p", &port, "-o", "BatchMode=yes", "127.0.0.1", "true"]);
        if command.output().is_ok_and(|output| output.status.success()) {
            return Some((server, port));
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    skipped(&std::fs::read_to_string(place.path("sshd.log")).unwrap());
    None
}

#[test]
fn over_ssh_to_this_machine() {
    let mut place = Place::new("sshd", "run-over-ssh.sh", "127.0.0.1");
    let Some((server, port)) = sshd(&mut place) else { return };
    let with = |more: &[&'static str]| -> Vec<String> {
        ["--port", &port, "--"]
            .iter()
            .chain(more)
            .map(|word| word.to_string())
            .collect()
    };
    let (words, again) = (with(&["--list", "core"]), with(&["again"]));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let again: Vec<&str> = again.iter().map(String::as_str).collect();
    let (out, _) = place.run(0, &words);
    assert!(out.contains("case 6 of 6"), "{out}");
    assert_eq!(place.report("arguments"), "-o\nreport\n--list\ncore\n");
    assert!(!place.report("environment").contains("NOT_FOR_THE_DEVICE"));
    assert_eq!(place.left(), Vec::<PathBuf>::new());

    // The server of the connection is ended in the middle: the run lives on.
    let child = place.command(&again).spawn().unwrap();
    let ended = cut(&place.path("device"), server.server.id(), child);
    assert_eq!(ended, Some(75));
    let (second, _) = place.run(0, &again);
    assert!(
        second.contains("case 1 of 6") && second.contains("case 6 of 6"),
        "{second}"
    );
    assert_eq!(place.report("cases.jsonl"), "1\n2\n3\n4\n5\n6\n", "each case once");
    assert_eq!(place.left(), Vec::<PathBuf>::new());
}

/// Waits for the second case of the run and ends the process of sshd that serves the connection.
fn cut(device: &Path, server: u32, mut script: Child) -> Option<i32> {
    for _ in 0..600 {
        std::thread::sleep(std::time::Duration::from_millis(50));
        for folder in std::fs::read_dir(device).unwrap().map(|entry| entry.unwrap().path()) {
            let cases = std::fs::read_to_string(folder.join("report/cases.jsonl")).unwrap_or_default();
            if cases.lines().count() >= 2 {
                let _ = Command::new("pkill")
                    .args(["-KILL", "-P", &server.to_string()])
                    .status();
                return script.wait().unwrap().code();
            }
        }
    }
    let _ = script.kill();
    panic!("the run did not begin");
}
