//! A delegate that is compiled in a folder of its own, with a library that it brings along: what trust is tested on.
//!
//! Its entry refuses every host with a status that tells which files were loaded: 100 and what the dependent answers. Where there
//! is no C compiler the tests print that they were skipped.

// Each test uses a part of it.
#![allow(dead_code)]

use delegraph_host::trust::{CheckedLibrary, Digest, HashList, Lock, Pin, Trust, TrustOptions, name_in};
use delegraph_host::{Host, HostOptions};
use std::path::{Path, PathBuf};
use std::process::Command;

pub const MANIFEST: &str = "manifest_version = 1\nname = 'NAME'\nvendor = 'v'\nversion = '1.0.0'\nlicence = 'MIT'\n\
                        library = 'libNAME_delegate.so'\nroles = ['run']\n[abi]\nmajor = 0\nmin_minor = 0\n";

/// A delegate in a folder, with the library that it brings along, its lock and its keys.
pub struct Place {
    pub folder: tempfile::TempDir,
    pub name: String,
}

impl Place {
    /// `None`: there is no C compiler, which was printed.
    pub fn new(name: &str, answer: i32) -> Option<Place> {
        let place = Place {
            folder: tempfile::tempdir().unwrap(),
            name: name.to_string(),
        };
        std::fs::write(place.manifest(), MANIFEST.replace("NAME", name)).unwrap();
        place.dependent_answers(answer)?;
        place.link(&["-Wl,-rpath,$ORIGIN"]);
        Some(place)
    }

    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn manifest(&self) -> PathBuf {
        self.path(format!("{}.delegate.toml", self.name))
    }

    pub fn library(&self) -> PathBuf {
        self.path(format!("lib{}_delegate.so", self.name))
    }

    pub fn dependent(&self) -> PathBuf {
        self.path(format!("lib{}_part.so", self.name))
    }

    pub fn dependent_answers(&self, answer: i32) -> Option<()> {
        let soname = format!("-Wl,-soname,lib{}_part.so", self.name);
        let code = format!("int {}_part(void) {{ return {answer}; }}", self.symbol());
        compile(&code, &self.dependent(), &[&soname])
    }

    pub fn link(&self, more: &[&str]) {
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

    pub fn symbol(&self) -> String {
        self.name.replace('-', "_")
    }

    pub fn lock(&self) -> PathBuf {
        self.path("delegraph.lock")
    }

    /// Pins what is there now.
    pub fn pin(&self) {
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
    pub fn sign(&self, key: &minisign::KeyPair) {
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

    pub fn key(&self, name: &str) -> (minisign::KeyPair, PathBuf) {
        let pair = minisign::KeyPair::generate_unencrypted_keypair().unwrap();
        let path = self.path(name);
        std::fs::write(&path, pair.pk.to_box().unwrap().into_string()).unwrap();
        (pair, path)
    }

    pub fn host(&self, mode: Trust, keys: &[&Path]) -> Host {
        Host::discover(HostOptions {
            search: vec![self.folder.path().to_path_buf()],
            trust: TrustOptions {
                mode,
                lock: Some(self.lock()),
                keys: keys.iter().map(|key| key.to_path_buf()).collect(),
                ..TrustOptions::default()
            },
            ..HostOptions::default()
        })
    }

    /// Why the host does not use it; an entry that ran says `status NUMBER`.
    pub fn refusal(&self, mode: Trust, keys: &[&Path]) -> String {
        self.host(mode, keys).delegate(&self.name).err().unwrap().to_string()
    }

    /// Asserts that the library ran with this dependent.
    pub fn runs(&self, mode: Trust, keys: &[&Path], answer: i32) {
        let refusal = self.refusal(mode, keys);
        let status = format!("{}", 100 + answer);
        assert!(
            refusal.contains("its entry refused this host") && refusal.contains(&status),
            "{refusal}"
        );
    }

    /// Asserts that nothing of it ran.
    pub fn refused(&self, keys: &[&Path], words: &str) {
        let refusal = self.refusal(Trust::Require, keys);
        assert!(!refusal.contains("its entry"), "{refusal}");
        assert!(
            refusal.contains("it is not trusted") && refusal.contains(words),
            "{refusal}"
        );
    }
}

/// `None`: there is no C compiler, or libraries are no ELF files here.
pub fn compile(code: &str, to: &Path, more: &[&str]) -> Option<()> {
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
