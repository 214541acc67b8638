//! Mapping files: the only `unsafe` of this crate.

use delegraph_ir::Bytes;
use std::fs::File;
use std::io;
use std::sync::Arc;

/// Maps a file read-only. An empty file gives empty bytes.
pub(crate) fn map_file(file: &File) -> io::Result<Bytes> {
    if file.metadata()?.len() == 0 {
        return Ok(Bytes::from(Vec::new()));
    }
    // SAFETY: the map is read-only and private; that nobody shortens or rewrites the file meanwhile is what the documentation
    // of `Source::open` asks of the caller, as every system that maps model files does.
    let map = unsafe { memmap2::Mmap::map(file)? };
    Ok(Bytes::new(Arc::new(map)))
}
