//! Compiled blobs on disk, for models that are partitioned when they are loaded.
//!
//! A cache stands between lowering and a delegate: [`Caching`] is the delegate as lowering sees it, and looks each blob up
//! before it has it compiled. Whatever is wrong with the cache costs a compilation and a line in the report, never the load.
//! Reading order: this file (where the cache is, what a load does with it), `key.rs` (what a blob depends on), `store.rs` (the
//! folder), `hashes.rs` (weights are hashed once).

mod hashes;
mod key;
mod libraries;
mod store;

use crate::Source;
use delegraph_abi::{c, envelope};
use delegraph_config::{Config, Environment};
use delegraph_host::{BlobVerdict, Delegate, DelegateError, Device, Partition, Pass, SetError, Weights};
use delegraph_lower::Backend;
use hashes::FileHashes;
use key::KeyParts;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use std::cell::{OnceCell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use store::{Found, Kind, Store};

/// A SHA-256.
pub(crate) type Digest = [u8; 32];

/// What a load had of the cache.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct CacheReport {
    /// Where it is.
    pub folder: PathBuf,
    /// Blobs that were taken from it.
    pub hits: u64,
    /// Blobs that were compiled because it did not have them.
    pub misses: u64,
    /// Blobs that were put into it.
    pub stored: u64,
    /// Entries that were damaged, and were dropped.
    pub dropped: u64,
    /// Entries that were removed to keep the quota.
    pub evicted: u64,
    /// Bytes of weights that were hashed because nothing knew their hash.
    pub hashed_bytes: u64,
    /// Why it was of less use than it could be.
    pub warnings: Vec<String>,
}

impl CacheReport {
    /// `2 blobs from the cache, 1 compiled`
    pub fn words(&self) -> String {
        let mut words = format!("{} blobs from the cache, {} compiled", self.hits, self.misses);
        if self.dropped > 0 {
            words += &format!(", {} damaged entries dropped", self.dropped);
        }
        for warning in &self.warnings {
            words += "; ";
            words += warning;
        }
        words
    }
}

/// Stands for the user's cache folder in `cache.folder` and `DELEGRAPH_CACHE_DIR`.
const AUTO: &str = "auto";

/// The folder that is to be used: the app's own, else `DELEGRAPH_CACHE_DIR` unless the process is elevated, else
/// `cache.folder`. None: nobody named one, or the quota is 0.
fn wanted_folder(
    config: &Config,
    given: Option<&Path>,
    environment: &Environment<'_>,
) -> Option<Result<PathBuf, String>> {
    if config.cache.quota_mb == 0 {
        return None;
    }
    if let Some(given) = given {
        return Some(Ok(given.to_path_buf()));
    }
    let named = environment
        .get_os("DELEGRAPH_CACHE_DIR")
        .filter(|value| !value.is_empty());
    let named = named.map(PathBuf::from).or_else(|| config.cache.folder.clone())?;
    if named != Path::new(AUTO) {
        return Some(Ok(named));
    }
    let folder = users_folder(environment);
    Some(folder.ok_or_else(|| "there is no cache folder of the user: name one in `cache.folder`".to_string()))
}

/// Where this user's caches are.
fn users_folder(environment: &Environment<'_>) -> Option<PathBuf> {
    let absolute = |name: &str| {
        environment
            .get_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let caches = if cfg!(target_os = "macos") {
        absolute("HOME")?.join("Library/Caches")
    } else if cfg!(windows) {
        absolute("LOCALAPPDATA")?
    } else {
        absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?
    };
    Some(caches.join("delegraph"))
}

/// The cache of one load.
pub(crate) struct LoadCache {
    store: Option<Store>,
    /// The model's file.
    file: Option<ModelFile>,
    /// Writing failed: it is not tried again.
    takes_nothing: bool,
    report: CacheReport,
}

/// A model's file, or a part of one.
struct ModelFile {
    /// Address and length in memory.
    bytes: (usize, usize),
    /// Where in the file they begin.
    offset: u64,
    /// Hashes of the whole file's parts.
    hashes: FileHashes,
}

impl LoadCache {
    /// The cache that the app, the environment or the configuration names; `None`: none of them does.
    pub(crate) fn open(config: &Config, given: Option<&Path>, source: &Source) -> Option<Rc<RefCell<LoadCache>>> {
        let folder = wanted_folder(config, given, &Environment::of_process())?;
        let opened = folder.and_then(|folder| Store::open(&folder, config.cache.quota_mb.saturating_mul(1 << 20)));
        let mut report = CacheReport::default();
        let store = opened.map_err(|warning| report.warnings.push(warning)).ok();
        if let Some(store) = &store {
            report.folder = store.folder().to_path_buf();
        }
        let file = store
            .as_ref()
            .zip(source.file())
            .map(|(store, (identity, offset))| ModelFile {
                bytes: source.bytes().address(),
                offset,
                hashes: FileHashes::of(store, identity),
            });
        Some(Rc::new(RefCell::new(LoadCache {
            file,
            store,
            takes_nothing: false,
            report,
        })))
    }

    /// Ends the load: keeps hashes, keeps the quota, and tells.
    pub(crate) fn finish(&mut self) -> CacheReport {
        if let Some(store) = &self.store
            && !self.takes_nothing
        {
            if let Some(file) = &mut self.file
                && let Err(warning) = file.hashes.save(store)
            {
                self.report.warnings.push(warning);
            }
            if self.report.stored > 0 {
                self.report.evicted = store.evict();
            }
        }
        self.report.clone()
    }

    /// The hash of a weight. One that lies in the model's file is not read where the cache knows the file.
    fn weight(&mut self, bytes: &[u8]) -> Digest {
        if let Some(file) = &mut self.file
            && let Some(offset) = (bytes.as_ptr() as usize).checked_sub(file.bytes.0)
            && offset.checked_add(bytes.len()).is_some_and(|end| end <= file.bytes.1)
        {
            let (digest, read) = file.hashes.digest(file.offset + offset as u64, bytes);
            self.report.hashed_bytes += if read { bytes.len() as u64 } else { 0 };
            return digest;
        }
        self.report.hashed_bytes += bytes.len() as u64;
        Sha256::digest(bytes).into()
    }

    /// A blob that is fit for what is asked. One that is not is dropped.
    fn find(&mut self, key: &Digest, is_fit: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        let store = self.store.as_ref()?;
        match store.read(Kind::Blob, key) {
            Found::Whole(blob) if is_fit(&blob) => {
                self.report.hits += 1;
                return Some(blob);
            }
            Found::Whole(_) => {
                store.remove(Kind::Blob, key);
                self.report.dropped += 1;
            }
            Found::Damaged(_) => self.report.dropped += 1,
            Found::Absent => {}
        }
        None
    }

    fn keep(&mut self, key: &Digest, blob: &[u8]) {
        let Some(store) = self.store.as_ref().filter(|_| !self.takes_nothing) else {
            return;
        };
        match store.write(Kind::Blob, key, blob) {
            Ok(()) => self.report.stored += 1,
            Err(warning) => {
                self.takes_nothing = true;
                self.report.warnings.push(warning);
            }
        }
    }
}

/// A delegate whose blobs are looked up before they are compiled.
pub(crate) struct Caching {
    delegate: Arc<Delegate>,
    cache: Rc<RefCell<LoadCache>>,
    /// What of the key is the delegate's; `None`: it cannot be told, so that nothing is cached.
    own: OnceCell<Option<Own>>,
}

/// What a delegate is, beyond its own words.
struct Own {
    libraries: Vec<Digest>,
    devices: Vec<Device>,
}

impl Caching {
    pub(crate) fn new(delegate: Arc<Delegate>, cache: Rc<RefCell<LoadCache>>) -> Caching {
        Caching {
            delegate,
            cache,
            own: OnceCell::new(),
        }
    }

    fn own(&self) -> Option<&Own> {
        let told = self.own.get_or_init(|| {
            let own = libraries::hashes(&self.delegate).and_then(|libraries| {
                let devices = self.delegate.devices();
                let devices = devices.map_err(|error| format!("its devices are not known: {}", error.message))?;
                Ok(Own { libraries, devices })
            });
            let warning = |reason| format!("nothing of `{}` is cached: {reason}", self.delegate.backend());
            own.map_err(|reason| self.cache.borrow_mut().report.warnings.push(warning(reason)))
                .ok()
        });
        told.as_ref()
    }

    /// The key of a compilation and the hash of its image.
    fn key(&self, image: &[u8], weights: &dyn Weights, target: &str) -> Option<(Digest, Digest)> {
        self.cache.borrow().store.as_ref()?;
        let own = self.own()?;
        let mut cache = self.cache.borrow_mut();
        let weights: Vec<(u32, u64, Digest)> = weights
            .ids()
            .into_iter()
            .filter_map(|id| {
                let bytes = weights.bytes(id)?;
                Some((id, bytes.len() as u64, cache.weight(bytes)))
            })
            .collect();
        let image: Digest = Sha256::digest(image).into();
        let parts = KeyParts {
            host_version: env!("CARGO_PKG_VERSION"),
            abi: (c::ABI_MAJOR, c::ABI_MINOR),
            image_version: (c::IMAGE_MAJOR, c::IMAGE_MINOR),
            info: self.delegate.info(),
            libraries: &own.libraries,
            devices: &own.devices,
            target,
            options: self.delegate.options_hash(),
            image,
            weights: &weights,
        };
        Some((parts.digest(), image))
    }

    /// Whether a blob is this delegate's, made of this image, and one that it still takes.
    fn is_fit(&self, blob: &[u8], image: &Digest) -> bool {
        let Ok(envelope) = envelope::parse(blob) else {
            return false;
        };
        let (meta, info) = (&envelope.meta, self.delegate.info());
        let options = meta.options_hash;
        meta.delegate == info.name
            && meta.delegate_version == info.version
            && meta.format == info.format
            && meta.format_version == info.format_version
            && meta.graph_hash == *image
            && (options == self.delegate.options_hash() || options == [0; 32])
            // One that only compiles cannot judge; whoever runs the blob does.
            && matches!(
                self.delegate.check_blob(blob),
                Ok(BlobVerdict::Optimal | BlobVerdict::RecompileBetter(_)) | Err(_)
            )
    }
}

impl Backend for Caching {
    fn name(&self) -> &str {
        self.delegate.backend()
    }

    fn passes(&self) -> &[Pass] {
        self.delegate.passes()
    }

    fn opset(&self) -> &str {
        &self.delegate.info().opset
    }

    fn partition(&self, image: &[u8], target: &str) -> Result<Partition, DelegateError> {
        self.delegate.partition(image, target)
    }

    fn compile(&self, image: &[u8], weights: &dyn Weights, target: &str) -> Result<Vec<u8>, DelegateError> {
        let Some((key, hash)) = self.key(image, weights, target) else {
            return self.delegate.compile(image, weights, target);
        };
        let found = self.cache.borrow_mut().find(&key, |blob| self.is_fit(blob, &hash));
        if let Some(blob) = found {
            return Ok(blob);
        }
        let blob = self.delegate.compile(image, weights, target)?;
        let mut cache = self.cache.borrow_mut();
        cache.report.misses += 1;
        cache.keep(&key, &blob);
        Ok(blob)
    }

    fn compiles_sets(&self) -> bool {
        self.delegate.compiles_sets()
    }

    /// A blob of a set depends on all graphs of it: all are taken from the cache, or none.
    fn compile_set(&self, graphs: &[(&[u8], &dyn Weights)], target: &str) -> Result<Vec<Vec<u8>>, SetError> {
        let keys: Option<Vec<(Digest, Digest)>> = graphs
            .iter()
            .map(|(image, weights)| self.key(image, *weights, target))
            .collect();
        let Some(keys) = keys else {
            return self.delegate.compile_set(graphs, target);
        };
        let all: Vec<u8> = keys.iter().flat_map(|(key, _)| *key).collect();
        let keys: Vec<(Digest, Digest)> = (0u64..)
            .zip(keys)
            .map(|(number, (_, image))| {
                let mut hash = Sha256::new();
                hash.update(b"set");
                hash.update(number.to_le_bytes());
                hash.update(&all);
                (hash.finalize().into(), image)
            })
            .collect();
        let found: Option<Vec<Vec<u8>>> = keys
            .iter()
            .map(|(key, image)| self.cache.borrow_mut().find(key, |blob| self.is_fit(blob, image)))
            .collect();
        if let Some(blobs) = found {
            return Ok(blobs);
        }
        let blobs = self.delegate.compile_set(graphs, target)?;
        let mut cache = self.cache.borrow_mut();
        for ((key, _), blob) in keys.iter().zip(&blobs) {
            cache.report.misses += 1;
            cache.keep(key, blob);
        }
        Ok(blobs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_app_comes_before_the_environment_before_the_configuration() {
        let config = |text: &str| crate::config_from_text(text).unwrap();
        let variables = |name: &str| match name {
            "DELEGRAPH_CACHE_DIR" => Some("/by/variable".into()),
            _ => None,
        };
        let automatic = |name: &str| match name {
            "DELEGRAPH_CACHE_DIR" => Some("auto".into()),
            "XDG_CACHE_HOME" | "HOME" | "LOCALAPPDATA" => Some(std::env::temp_dir().into()),
            _ => None,
        };
        let nothing = |_: &str| None;
        let ours = Environment::made_up(false, &variables);
        let elevated = Environment::made_up(true, &variables);
        let named = config("[cache]\nfolder = \"/by/config\"\n");
        let folder = |config: &Config, given: Option<&str>, environment: &Environment<'_>| {
            wanted_folder(config, given.map(Path::new), environment).map(|folder| folder.unwrap())
        };
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(folder(&named, Some("/by/app"), &ours), path("/by/app"));
        assert_eq!(folder(&named, None, &ours), path("/by/variable"));
        assert_eq!(folder(&named, None, &elevated), path("/by/config"));
        assert_eq!(folder(&Config::default(), None, &elevated), None);
        assert_eq!(folder(&config("[cache]\nquota_mb = 0\n"), Some("/by/app"), &ours), None);
        let users = folder(&Config::default(), None, &Environment::made_up(false, &automatic)).unwrap();
        assert!(users.starts_with(std::env::temp_dir()) && users.ends_with("delegraph"));
        let auto = config("[cache]\nfolder = \"auto\"\n");
        for environment in [
            Environment::made_up(false, &nothing),
            Environment::made_up(true, &automatic),
        ] {
            let refused = wanted_folder(&auto, None, &environment).unwrap().unwrap_err();
            assert!(refused.contains("no cache folder of the user"), "{refused}");
        }
    }
}
