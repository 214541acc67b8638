//! Pins and signatures: what was changed is refused, and says what to do; what was checked is what is loaded.
//!
//! The libraries are compiled here. Their entry refuses every host with a status that tells which files were loaded: 100 and
//! what the dependent answers. Where there is no C compiler these tests print that they were skipped.

use delegraph_host::trust::{CheckedLibrary, Digest, HashList, Lock, Pin, Trust, TrustOptions, name_in};
use delegraph_host::{Host, HostOptions};
use std::path::{Path, PathBuf};
use std::process::Command;

const MANIFEST: &str = "manifest_version = 1\nname = 'NAME'\nvendor = 'v'\nversion = '1.0.0'\nlicence = 'MIT'\n\
                        library = 'libNAME_delegate.so'\nroles = ['run']\n[abi]\nmajor = 0\nmin_minor = 0\n";

/// A delegate in a folder, with the library that it brings along, its lock and its keys.
struct Place {
    folder: tempfile::TempDir,
    name: String,
}

impl Place {
    /// `None`: there is no C compiler, which was printed.
    fn new(name: &str, answer: i32) -> Option<Place> {
        let place = Place {
            folder: tempfile::tempdir().unwrap(),
            name: name.to_string(),
        };
        std::fs::write(place.manifest(), MANIFEST.replace("NAME", name)).unwrap();
        place.dependent_answers(answer)?;
        place.link(&["-Wl,-rpath,$ORIGIN"]);
        Some(place)
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    fn manifest(&self) -> PathBuf {
        self.path(format!("{}.delegate.toml", self.name))
    }

    fn library(&self) -> PathBuf {
        self.path(format!("lib{}_delegate.so", self.name))
    }

    fn dependent(&self) -> PathBuf {
        self.path(format!("lib{}_part.so", self.name))
    }

    fn dependent_answers(&self, answer: i32) -> Option<()> {
        let soname = format!("-Wl,-soname,lib{}_part.so", self.name);
        let code = format!("int {}_part(void) {{ return {answer}; }}", self.symbol());
        compile(&code, &self.dependent(), &[&soname])
    }

    fn link(&self, more: &[&str]) {
        let part = format!("{}_part", self.symbol());
        let code = format!(
            "int {part}(void); int dg_delegate_entry_v0(const void *host, const void **table) {{ return 100 + {part}(); }}"
        );
        let (library, folder) = (
            format!("-l{}_part", self.name),
            format!("-L{}", self.folder.path().display()),
        );
        let mut arguments = vec![folder.as_str(), library.as_str()];
        arguments.extend(more);
        compile(&code, &self.library(), &arguments).unwrap();
    }

    fn symbol(&self) -> String {
        self.name.replace('-', "_")
    }

    fn lock(&self) -> PathBuf {
        self.path("delegraph.lock")
    }

    /// Pins what is there now.
    fn pin(&self) {
        let library = CheckedLibrary::open(&self.library()).unwrap();
        let manifest = self.manifest();
        let sha256 = Digest::of(&std::fs::read(&manifest).unwrap());
        let pin = Pin::of(&self.name, Some((&manifest, sha256)), &library, self.folder.path());
        let lock = Lock {
            version: 1,
            expires: None,
            delegate: vec![pin],
        };
        std::fs::write(self.lock(), lock.to_text()).unwrap();
    }

    /// Signs what is there now; the public key is `NAME.pub`.
    fn sign(&self, key: &minisign::KeyPair) {
        let library = CheckedLibrary::open(&self.library()).unwrap();
        let mut list = HashList::default();
        list.insert(
            name_in(&self.manifest(), self.folder.path()),
            Digest::of(&std::fs::read(self.manifest()).unwrap()),
        );
        for file in [library.file()].into_iter().chain(library.dependents()) {
            list.insert(name_in(file.path(), self.folder.path()), file.sha256());
        }
        let path = HashList::path_for(&self.manifest());
        std::fs::write(&path, list.to_text()).unwrap();
        let signature = minisign::sign(Some(&key.pk), &key.sk, list.to_text().as_bytes(), None, None).unwrap();
        std::fs::write(HashList::signature_path(&path), signature.into_string()).unwrap();
    }

    fn key(&self, name: &str) -> (minisign::KeyPair, PathBuf) {
        let pair = minisign::KeyPair::generate_unencrypted_keypair().unwrap();
        let path = self.path(name);
        std::fs::write(&path, pair.pk.to_box().unwrap().into_string()).unwrap();
        (pair, path)
    }

    fn host(&self, mode: Trust, keys: &[&Path]) -> Host {
        Host::discover(HostOptions {
            search: vec![self.folder.path().to_path_buf()],
            trust: TrustOptions {
                mode,
                lock: Some(self.lock()),
                keys: keys.iter().map(|key| key.to_path_buf()).collect(),
            },
            ..HostOptions::default()
        })
    }

    /// Why the host does not use it; an entry that ran says `status NUMBER`.
    fn refusal(&self, mode: Trust, keys: &[&Path]) -> String {
        self.host(mode, keys).delegate(&self.name).err().unwrap().to_string()
    }

    /// Asserts that the library ran with this dependent.
    fn runs(&self, mode: Trust, keys: &[&Path], answer: i32) {
        let refusal = self.refusal(mode, keys);
        let status = format!("{}", 100 + answer);
        assert!(
            refusal.contains("its entry refused this host") && refusal.contains(&status),
            "{refusal}"
        );
    }

    /// Asserts that nothing of it ran.
    fn refused(&self, keys: &[&Path], words: &str) {
        let refusal = self.refusal(Trust::Require, keys);
        assert!(!refusal.contains("its entry"), "{refusal}");
        assert!(
            refusal.contains("it is not trusted") && refusal.contains(words),
            "{refusal}"
        );
    }
}

/// `None`: there is no C compiler, or libraries are no ELF files here.
fn compile(code: &str, to: &Path, more: &[&str]) -> Option<()> {
    if !cfg!(target_os = "linux") {
        println!("skipped: made for Linux");
        return None;
    }
    let source = to.with_extension("c");
    std::fs::write(&source, code).unwrap();
    // Beside its place and renamed: a library that is loaded must not be written over.
    let fresh = to.with_extension("new");
    let mut command = Command::new("cc");
    command
        .args(["-shared", "-fPIC", "-o"])
        .arg(&fresh)
        .arg(&source)
        .args(more);
    match command.status() {
        Err(_) => {
            println!("skipped: there is no C compiler");
            None
        }
        Ok(status) => {
            assert!(status.success(), "{command:?}");
            std::fs::rename(&fresh, to).unwrap();
            Some(())
        }
    }
}

#[test]
fn what_is_pinned_is_loaded_and_what_was_changed_is_not() {
    let Some(place) = Place::new("pinned", 1) else { return };
    place.refused(&[], "there is no lock file");
    place.refused(&[], "`delegraph delegate lock`");
    place.runs(Trust::Warn, &[], 1);
    place.pin();
    place.runs(Trust::Require, &[], 1);
    assert_eq!(place.host(Trust::Require, &[]).warnings(), Vec::<String>::new());

    // The manifest: a blank at its end.
    let manifest = std::fs::read(place.manifest()).unwrap();
    std::fs::write(place.manifest(), [&manifest[..], b"\n"].concat()).unwrap();
    place.refused(&[], "another manifest than the pinned one");
    std::fs::write(place.manifest(), &manifest).unwrap();

    // The library: a byte behind what the loader reads.
    let library = std::fs::read(place.library()).unwrap();
    let change = |path: PathBuf, bytes: &[u8]| {
        let fresh = path.with_extension("new");
        std::fs::write(&fresh, bytes).unwrap();
        std::fs::rename(fresh, path).unwrap();
    };
    change(place.library(), &[&library[..], b"x"].concat());
    place.refused(&[], "another library than the pinned one");
    change(place.library(), &library);

    // The dependent: another one, then none.
    place.dependent_answers(2).unwrap();
    place.refused(&[], "another dependent `libpinned_part.so` than the pinned one");
    std::fs::remove_file(place.dependent()).unwrap();
    place.refused(&[], "pinned with `libpinned_part.so`, which it does not find");
    place.dependent_answers(1).unwrap();
    place.runs(Trust::Require, &[], 1);
}

#[test]
fn a_warning_lets_through_and_is_kept() {
    let Some(place) = Place::new("warned", 3) else { return };
    place.pin();
    std::fs::write(place.manifest(), MANIFEST.replace("NAME", "warned") + "\n").unwrap();
    let host = place.host(Trust::Warn, &[]);
    let error = host.delegate("warned").err().unwrap().to_string();
    assert!(error.contains("its entry refused this host"), "{error}");
    let warnings = host.warnings();
    assert!(
        warnings.len() == 1
            && warnings[0].contains("`warned`: it is loaded although it is not trusted")
            && warnings[0].contains("another manifest"),
        "{warnings:?}"
    );
    let silent = place.host(Trust::Off, &[]);
    assert!(silent.delegate("warned").is_err());
    assert_eq!(silent.warnings(), Vec::<String>::new());
}

#[test]
fn the_trusted_dependent_is_loaded_from_what_was_checked() {
    let Some(place) = Place::new("mapped", 4) else { return };
    place.pin();
    place.runs(Trust::Require, &[], 4);
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mapped = |path: &Path| maps.contains(&*path.canonicalize().unwrap().to_string_lossy());
    if cfg!(target_env = "gnu") {
        assert!(!mapped(&place.library()) && !mapped(&place.dependent()), "{maps}");
        for name in ["libmapped_delegate.so", "libmapped_part.so"] {
            assert!(maps.contains(&format!("/memfd:{name}")), "{name}: {maps}");
        }
    } else {
        println!("skipped: no sealed copies with this C library");
    }
}

#[test]
fn hosts_that_come_and_go_load_a_checked_library_once() {
    let Some(place) = Place::new("again", 5) else { return };
    place.pin();
    place.runs(Trust::Require, &[], 5);
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    // Other tests of this process open files too: the smallest of some counts is compared.
    let smallest = |rounds: usize| {
        (0..rounds)
            .map(|_| {
                place.runs(Trust::Require, &[], 5);
                open()
            })
            .min()
            .unwrap()
    };
    let before = smallest(10);
    let after = smallest(100);
    assert!(after < before + 50, "{before} descriptors, then {after}");
}

#[test]
fn a_signature_by_a_known_key_counts_and_no_other() {
    let Some(place) = Place::new("signed", 6) else { return };
    let (pair, known) = place.key("known.pub");
    let (_, other) = place.key("other.pub");
    place.refused(&[&known], "it has no signature");
    place.sign(&pair);
    place.refused(&[], "no key is configured");
    place.refused(&[&other], "none of the trusted keys");
    place.runs(Trust::Require, &[&other, &known], 6);
    place.refused(&[&place.path("absent.pub")], "there is no key file");
    std::fs::write(place.path("broken.pub"), "untrusted comment: x\nnonsense\n").unwrap();
    place.refused(&[&place.path("broken.pub")], "no public key of minisign");

    place.dependent_answers(7).unwrap();
    place.refused(&[&known], "another `libsigned_part.so` than the signed one");
    place.dependent_answers(6).unwrap();

    // The list itself: what was signed is its text.
    let list = HashList::path_for(&place.manifest());
    let text = std::fs::read_to_string(&list).unwrap();
    std::fs::write(&list, format!("{text}\n")).unwrap();
    place.refused(&[&known], "what was signed has been changed");
    let fewer = text
        .lines()
        .filter(|line| !line.contains("_part"))
        .collect::<Vec<_>>()
        .join("\n");
    let signature = minisign::sign(None, &pair.sk, fewer.as_bytes(), None, None).unwrap();
    std::fs::write(&list, &fewer).unwrap();
    std::fs::write(HashList::signature_path(&list), signature.into_string()).unwrap();
    place.refused(&[&known], "`libsigned_part.so`, which its signed list does not name");
    std::fs::remove_file(&list).unwrap();
    place.refused(&[&known], "it is signed, and is not there");

    // A pin that says otherwise is stronger than a signature.
    place.pin();
    place.dependent_answers(8).unwrap();
    place.sign(&pair);
    place.refused(&[&known], "another dependent");
}

#[test]
fn a_lock_that_cannot_be_read_or_is_over_refuses_even_what_is_signed() {
    let Some(place) = Place::new("locked", 9) else { return };
    let (pair, known) = place.key("known.pub");
    place.sign(&pair);
    place.runs(Trust::Require, &[&known], 9);
    place.pin();
    let good = std::fs::read_to_string(place.lock()).unwrap();
    let expired = good.replacen("version = 1", "version = 1\nexpires = 2001-09-09", 1);
    for (text, words) in [
        ("version = 1\n[[delegate", "is not TOML"),
        ("version = 7", "version `7` of a lock file"),
        ("version = 1\ndelegates = []", "unknown field `delegates`"),
        (expired.as_str(), "expired on 2001-09-09"),
    ] {
        std::fs::write(place.lock(), text).unwrap();
        place.refused(&[&known], words);
        place.runs(Trust::Warn, &[&known], 9);
    }
    std::fs::write(place.lock(), [0xff, 0xfe]).unwrap();
    place.refused(&[], "is not UTF-8 text");
    std::fs::remove_file(place.lock()).unwrap();
    std::fs::create_dir(place.lock()).unwrap();
    place.refused(&[], "the lock file is not a file of at most 1 MiB");
}

#[test]
fn a_library_that_could_take_other_files_is_refused() {
    let Some(place) = Place::new("loose", 10) else { return };
    place.link(&["-Wl,-rpath,lib:$ORIGIN"]);
    place.pin();
    place.refused(&[], "searched in `lib` of the working folder");
    place.link(&["-Wl,-rpath,$ORIGIN"]);
    place.pin();

    // A dependent of a dependent, by the old kind of search path.
    compile(
        "int deep(void) { return 1; }",
        &place.path("libloose_deep.so"),
        &["-Wl,-soname,libloose_deep.so"],
    )
    .unwrap();
    let folder = format!("-L{}", place.folder.path().display());
    let code = "int deep(void); int loose_part(void) { return 9 + deep(); }";
    let arguments = [
        "-Wl,-soname,libloose_part.so",
        &folder,
        "-lloose_deep",
        "-Wl,--disable-new-dtags,-rpath,$ORIGIN",
    ];
    compile(code, &place.dependent(), &arguments).unwrap();
    place.refused(&[], "needs `libloose_deep.so`, which lies beside it and is not pinned");
    place.pin();
    assert!(
        std::fs::read_to_string(place.lock())
            .unwrap()
            .contains("path = \"libloose_deep.so\"")
    );
    place.runs(Trust::Require, &[], 10);

    // Without a SONAME the loader would look for a file.
    let Some(nameless) = Place::new("nameless", 11) else {
        return;
    };
    compile("int nameless_part(void) { return 11; }", &nameless.dependent(), &[]).unwrap();
    nameless.link(&["-Wl,-rpath,$ORIGIN"]);
    nameless.pin();
    match cfg!(target_env = "gnu") {
        true => nameless.refused(&[], "-Wl,-soname,"),
        false => println!("skipped: no sealed copies with this C library"),
    }
}

#[test]
fn changed_locks_and_signatures_never_panic_and_never_let_other_files_through() {
    let Some(place) = Place::new("mutant", 12) else { return };
    place.pin();
    let lock = std::fs::read(place.lock()).unwrap();
    let (pair, known) = place.key("known.pub");
    place.sign(&pair);
    let list_path = HashList::path_for(&place.manifest());
    let signature_path = HashList::signature_path(&list_path);
    let (list, signature) = (
        std::fs::read(&list_path).unwrap(),
        std::fs::read(&signature_path).unwrap(),
    );
    // The library is another one: whatever is made of the texts, it must not run.
    place.dependent_answers(13).unwrap();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random >> 33).unwrap() % below
    };
    let mut mutate = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        for _ in 0..1 + next(3) {
            let at = next(bytes.len());
            match next(4) {
                0 => bytes[at] = u8::try_from(next(256)).unwrap(),
                1 => bytes.truncate(at.max(1)),
                2 => bytes.insert(at, b"\n'\"[=0\xff "[next(8)]),
                _ => {
                    let end = (at + next(40)).min(bytes.len());
                    let piece = bytes[at..end].to_vec();
                    bytes.splice(at..at, piece);
                }
            }
        }
        bytes
    };
    for _ in 0..400 {
        std::fs::write(place.lock(), mutate(&lock)).unwrap();
        std::fs::write(&list_path, mutate(&list)).unwrap();
        std::fs::write(&signature_path, mutate(&signature)).unwrap();
        place.refused(&[&known], "");
        std::fs::remove_file(place.lock()).unwrap();
        place.refused(&[&known], "");
    }
}
