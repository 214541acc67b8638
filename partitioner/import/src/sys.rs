//! Mapping a file.

use crate::error::{ImportError, Result};
use delegraph_ir::Bytes;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// The file's bytes, mapped. An empty file gives no bytes.
pub(crate) fn map(path: &Path) -> Result<Bytes> {
    let io = |source| ImportError::Io {
        path: path.to_path_buf(),
        source,
    };
    let file = File::open(path).map_err(io)?;
    if file.metadata().map_err(io)?.is_dir() {
        return Err(io(std::io::ErrorKind::IsADirectory.into()));
    }
    // SAFETY: the mapping is private and read-only. As for every mapped weight file, the user must not truncate or rewrite
    // the file while it is in use; the documentation of `import` says so.
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(io)?;
    Ok(Bytes::new(Arc::new(map)))
}
