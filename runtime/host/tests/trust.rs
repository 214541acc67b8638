//! Pins and signatures: what was changed is refused, and says what to do; what was checked is what is loaded.
//!
//! The libraries are compiled here: see `place`.

mod place;

use delegraph_host::trust::{HashList, Trust};
use place::{MANIFEST, Place, compile};
use std::path::{Path, PathBuf};

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
