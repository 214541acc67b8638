//! What `conform run` runs over what: the library, the kit, the machine.

use crate::args::Global;
use crate::delegate::probe::{Probe, Task, probe};
use delegraph_host::trust::{CheckedLibrary, Digest};
use delegraph_kit::lists;
use delegraph_kit::subject::Subject;
use delegraph_runner::RunInfo;
use delegraph_runner::run_info::{DeviceId, KitId, LibraryId, host};
use std::path::Path;

/// The commit that this program was built from.
const COMMIT: &str = match option_env!("DELEGRAPH_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// The kit of this program.
pub fn kit() -> KitId {
    KitId {
        version: env!("CARGO_PKG_VERSION").to_string(),
        commit: COMMIT.to_string(),
        references_sha256: lists::references_sha256(),
    }
}

/// A run that begins now, of a suite over nothing yet.
pub fn begin(suite: &str, mode: &str) -> RunInfo {
    RunInfo {
        schema: RunInfo::SCHEMA.to_string(),
        suite: suite.to_string(),
        kit: kit(),
        host: host(),
        mode: mode.to_string(),
        started: delegraph_runner::time::now(),
        ..RunInfo::default()
    }
}

/// Who the library is, what its devices are, and what kept it from saying so.
pub struct Identity {
    /// The library.
    pub library: LibraryId,
    /// Its devices; none where it does not get that far.
    pub devices: Vec<DeviceId>,
    /// Why that is all; `None`: it said everything.
    pub problem: Option<String>,
}

/// Asks a library in a child process who it is. What it does not say is taken from its manifest, and from its file.
///
/// # Errors
/// The file cannot be read, or no child can be started.
pub fn identify(subject: &Subject, global: &Global) -> anyhow::Result<Identity> {
    let (manifest, asked) = match &subject.manifest {
        Some((path, manifest)) => (Some(manifest), path.as_path()),
        None => (None, subject.library.as_path()),
    };
    let found = probe(asked, Task::Devices(&subject.options), global)?;
    let mut library = LibraryId {
        name: subject.name().to_string(),
        version: subject.version().to_string(),
        vendor: manifest.map(|manifest| manifest.vendor.clone()).unwrap_or_default(),
        file: file_name(&subject.library),
        ..LibraryId::default()
    };
    hash(subject, &mut library)?;
    if let Some(look) = &found.look {
        library.name.clone_from(&look.name);
        library.vendor.clone_from(&look.vendor);
        library.version.clone_from(&look.version);
        library.build.clone_from(&look.build);
        (library.abi_major, library.abi_minor) = (look.abi_major, look.abi_minor);
    }
    Ok(Identity {
        library,
        devices: devices(&found),
        problem: found.problem,
    })
}

fn devices(found: &Probe) -> Vec<DeviceId> {
    let one = |device: &crate::delegate::probe::Device| DeviceId {
        id: device.id,
        kind: device.kind.clone(),
        name: device.name.clone(),
        arch: device.arch.clone(),
        driver: device.driver.clone(),
    };
    found.devices.iter().flatten().map(one).collect()
}

/// The hashes of the library, of the manifest, and of the libraries beside it that it needs. No code of it runs.
fn hash(subject: &Subject, library: &mut LibraryId) -> anyhow::Result<()> {
    if let Some((path, _)) = &subject.manifest {
        library.manifest_sha256 = digest(path)?.to_string();
    }
    match CheckedLibrary::open(&subject.library) {
        Ok(checked) => {
            library.sha256 = checked.file().sha256().to_string();
            let pair = |file: &delegraph_host::trust::CheckedFile| (file_name(file.path()), file.sha256().to_string());
            library.dependents = checked.dependents().iter().map(pair).collect();
        }
        // It is no library that can be read for what it needs: the cases will say so.
        Err(_) => library.sha256 = digest(&subject.library)?.to_string(),
    }
    Ok(())
}

fn digest(path: &Path) -> anyhow::Result<Digest> {
    let bytes = std::fs::read(path).map_err(|error| crate::bad_input(format!("`{}`: {error}", path.display())))?;
    Ok(Digest::of(&bytes))
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}
