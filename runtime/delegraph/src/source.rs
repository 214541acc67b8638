//! Model bytes: mapped from a file, or given.

use crate::Error;
use crate::sys::FileMap;
use delegraph_host::FileIdentity;
use delegraph_ir::Bytes;
use delegraph_pte::{PteError, Verified};
use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// A model's bytes with a name for messages.
#[derive(Clone)]
pub struct Source {
    name: String,
    bytes: Bytes,
    /// Of the file whose bytes these are, and where they begin in it.
    file: Option<(FileIdentity, u64)>,
    /// What the bytes lie in, where they were mapped here.
    map: Option<FileMap>,
    /// The program that they are, once it is asked for.
    program: Arc<OnceLock<Arc<Verified>>>,
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A zip archive of `torch.export.save`.
    Pt2,
    /// An ExecuTorch program (`ET12`).
    Pte,
    /// A bundled program (`BP08`).
    Bundled,
    /// A data file (`FT01`).
    Ptd,
}

impl Source {
    /// Maps a file. It must not change while it is used.
    ///
    /// # Errors
    /// It cannot be opened or mapped.
    pub fn open(path: impl AsRef<Path>) -> Result<Source, Error> {
        let path = path.as_ref();
        let read = |source| Error::Read {
            path: path.to_path_buf(),
            source,
        };
        // Opening a pipe would wait for its writer, and a folder has no bytes.
        let kind = std::fs::metadata(path).map_err(read)?;
        if !kind.is_file() {
            let what = if kind.is_dir() {
                "it is a folder"
            } else {
                "it is no regular file"
            };
            return Err(read(std::io::Error::new(std::io::ErrorKind::InvalidInput, what)));
        }
        let file = File::open(path).map_err(read)?;
        Source::mapped(&file, path.display().to_string()).map_err(read)
    }

    /// Maps an open file, for example a descriptor that another process passed.
    ///
    /// # Errors
    /// It cannot be mapped.
    pub fn from_file(file: &File, name: impl Into<String>) -> Result<Source, Error> {
        let name = name.into();
        Source::mapped(file, name.clone()).map_err(|source| Error::Read {
            path: name.into(),
            source,
        })
    }

    fn mapped(file: &File, name: String) -> std::io::Result<Source> {
        let map = FileMap::new(file)?;
        Ok(Source {
            name,
            bytes: map.as_ref().map_or_else(|| Bytes::from(Vec::new()), FileMap::bytes),
            file: identity(file),
            map,
            program: Arc::default(),
        })
    }

    /// Takes bytes.
    pub fn from_bytes(bytes: Vec<u8>, name: impl Into<String>) -> Source {
        Source {
            name: name.into(),
            bytes: Bytes::from(bytes),
            file: None,
            map: None,
            program: Arc::default(),
        }
    }

    /// Bytes that are shared already, or that the caller keeps in memory of its own.
    pub fn from_shared(bytes: Bytes, name: impl Into<String>) -> Source {
        Source {
            name: name.into(),
            bytes,
            file: None,
            map: None,
            program: Arc::default(),
        }
    }

    /// A part of these bytes: a model that lies in an archive of an app, uncompressed.
    ///
    /// # Errors
    /// It does not lie inside.
    pub fn window(&self, offset: u64, size: u64) -> Result<Source, Error> {
        let inside = usize::try_from(offset).ok().zip(usize::try_from(size).ok());
        let bytes = inside.and_then(|(offset, size)| self.bytes.slice(offset, size));
        let bytes = bytes.ok_or_else(|| {
            let whole = self.bytes.as_slice().len();
            Error::Usage(format!(
                "`{}` has {whole} bytes: {size} from {offset} on do not lie in it",
                self.name
            ))
        })?;
        Ok(Source {
            file: self.file.map(|(identity, start)| (identity, start + offset)),
            map: self.map.clone(),
            ..Source::from_shared(bytes, self.name.clone())
        })
    }

    /// What the system says of the file that these bytes are of, and where in it they begin; `None` for bytes that are no file's,
    /// and where the system has no such thing.
    pub(crate) fn file(&self) -> Option<(FileIdentity, u64)> {
        self.file
    }

    /// The program that the bytes are, checked once for all sessions of its methods.
    ///
    /// # Errors
    /// They are none, or a damaged one.
    pub(crate) fn program(&self) -> Result<Arc<Verified>, PteError> {
        if let Some(program) = self.program.get() {
            return Ok(program.clone());
        }
        let program = Arc::new(Verified::parse(self.bytes.as_slice())?);
        Ok(self.program.get_or_init(|| program).clone())
    }

    /// Says that loading has read what it reads of the bytes: those that a run reads come back into memory by themselves, and no others. What
    /// loading alone reads would stay there otherwise, and with it what lies around it. Bytes that were given stay where they are.
    pub(crate) fn give_back(&self) {
        if let Some(map) = &self.map {
            map.give_back(&self.bytes);
        }
    }

    /// Says that a part is read by itself, if at all: what lies around it does not come into memory with it.
    pub(crate) fn set_apart(&self, part: &Range<u64>) {
        let inside = usize::try_from(part.start).ok().zip(usize::try_from(part.end).ok());
        let bytes = inside.and_then(|(start, end)| self.bytes.slice(start, end.checked_sub(start)?));
        if let Some((map, bytes)) = self.map.as_ref().zip(bytes) {
            map.set_apart(&bytes);
        }
    }

    /// For messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// What the bytes are, by their first ones.
    ///
    /// # Errors
    /// None of what is known here.
    pub fn format(&self) -> Result<Format, Error> {
        let bytes = self.bytes.as_slice();
        if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06") {
            return Ok(Format::Pt2);
        }
        match bytes.get(4..8) {
            Some(b"ET12") => Ok(Format::Pte),
            Some(b"BP08") => Ok(Format::Bundled),
            Some(b"FT01") => Ok(Format::Ptd),
            _ => Err(Error::UnknownFormat {
                name: self.name.clone(),
                hint: match bytes {
                    [] => "the file is empty".to_string(),
                    [0x80, 2..=5, ..] => {
                        "it looks like a pickle: save the exported program with `torch.export.save`".to_string()
                    }
                    _ if bytes.get(4..6) == Some(b"ET") => {
                        "it is a program of another version of ExecuTorch".to_string()
                    }
                    _ => String::new(),
                },
            }),
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("name", &self.name)
            .field("bytes", &self.bytes)
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

fn identity(file: &File) -> Option<(FileIdentity, u64)> {
    Some((FileIdentity::of(&file.metadata().ok()?)?, 0))
}
