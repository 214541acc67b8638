//! Asks a library who it is, without starting its delegate: for tools that check and compare libraries.

use crate::loader::{self, load, shake_hands};
use crate::trust::Library;
use crate::{Info, Manifest};
use delegraph_abi::c;
use std::path::Path;

/// What a library says before `initialize`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// Who it is.
    pub info: Info,
    /// `struct_size` of its table.
    pub table_size: u32,
    /// `minor` of its table.
    pub table_minor: u16,
    /// The feature words of its table.
    pub features: [u64; 2],
    /// Names of the functions that this host knows and the table has.
    pub functions: Vec<&'static str>,
}

/// Loads a library, never to unload it, and shakes hands with it; with a manifest, both must agree. The library's code runs.
///
/// # Errors
/// One sentence that says what is wrong with it.
pub fn look(library: &Path, manifest: Option<&Manifest>) -> Result<Look, String> {
    let entry = load(Library::AsFound(library.to_path_buf()))?.of(loader::wanted(manifest))?;
    // SAFETY: that the library keeps the contract where it cannot be checked is what loading it rests on.
    let handshake = unsafe { shake_hands(entry, manifest) }?;
    let api = &handshake.api;
    Ok(Look {
        table_size: api.struct_size,
        table_minor: api.minor,
        features: api.features,
        functions: functions(api),
        info: handshake.info,
    })
}

macro_rules! present {
    ($api:ident: $($name:ident)*) => {
        [$((stringify!($name), $api.$name.is_some())),*]
    };
}

fn functions(api: &c::DelegateApi) -> Vec<&'static str> {
    let all = present!(api: get_info initialize shutdown device_enumerate partition compile blob_check session_load session_unload
        session_execute get_extension options_schema buffer_import buffer_release session_submit session_state_commit session_state_reset
        session_state_truncate session_state_snapshot session_state_restore compile_set buffer_handle_types buffer_export buffer_map);
    all.into_iter().filter(|(_, has)| *has).map(|(name, _)| name).collect()
}
