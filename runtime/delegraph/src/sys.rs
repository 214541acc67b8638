//! Mapping files: the only `unsafe` of this crate.

use delegraph_ir::Bytes;
use memmap2::Mmap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// A file that is mapped read-only.
#[derive(Debug, Clone)]
pub(crate) struct FileMap(Arc<Mmap>);

impl FileMap {
    /// Maps a file; `None`: it is empty.
    pub(crate) fn new(file: &File) -> io::Result<Option<FileMap>> {
        if file.metadata()?.len() == 0 {
            return Ok(None);
        }
        // SAFETY: the map is read-only; that nobody shortens or rewrites the file meanwhile is what the documentation of `Source::open` asks of
        // the caller, as every system that maps model files does.
        let map = unsafe { Mmap::map(file)? };
        Ok(Some(FileMap(Arc::new(map))))
    }

    /// All bytes of the file, which keep the map.
    pub(crate) fn bytes(&self) -> Bytes {
        Bytes::new(self.0.clone())
    }

    /// Where these bytes lie in the map; `None`: they do not.
    fn range(&self, bytes: &Bytes) -> Option<Range<usize>> {
        let (start, length) = bytes.address();
        let offset = start.checked_sub(self.0.as_ptr().addr())?;
        let end = offset.checked_add(length)?;
        (length > 0 && end <= self.0.len()).then_some(offset..end)
    }

    /// The process no longer holds the pages of these bytes: the system brings back those that are read again, from its cache or the file.
    pub(crate) fn give_back(&self, bytes: &Bytes) {
        #[cfg(unix)]
        if let Some(range) = self.range(bytes) {
            // SAFETY: the map is of a file and read-only: a page that is given back has the file's bytes when it is read again, the same ones.
            // It is advice: where it is not taken, the pages stay.
            let _ = unsafe {
                self.0
                    .unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len())
            };
        }
        #[cfg(not(unix))]
        let _ = self.range(bytes);
    }

    /// Pages around these bytes no longer come into the process with those of the bytes, nor the other way around. A system that brings in what lies
    /// around a page does so within an area of equal properties; these get another one than the rest, which does nothing else for a file's.
    pub(crate) fn set_apart(&self, bytes: &Bytes) {
        #[cfg(target_os = "linux")]
        if let Some(range) = self.range(bytes) {
            let _ = self.0.advise_range(memmap2::Advice::DontDump, range.start, range.len());
        }
        #[cfg(not(target_os = "linux"))]
        let _ = self.range(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn what_is_given_back_is_read_again() {
        let bytes: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        assert!(FileMap::new(&file).unwrap().is_none());
        file.write_all(&bytes).unwrap();
        let map = FileMap::new(&file).unwrap().unwrap();
        let all = map.bytes();
        map.set_apart(&all.slice(10_000, 50_000).unwrap());
        assert_eq!(all.as_slice(), bytes);
        map.give_back(&all.slice(5_000, 80_000).unwrap());
        map.give_back(&all);
        assert_eq!(all.as_slice(), bytes);
    }

    #[test]
    fn bytes_that_lie_elsewhere_stay() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 5000]).unwrap();
        let map = FileMap::new(&file).unwrap().unwrap();
        let others = Bytes::from(vec![1; 5000]);
        map.give_back(&others);
        map.set_apart(&others);
        map.give_back(&Bytes::from(Vec::new()));
        assert!(others.as_slice().iter().all(|byte| *byte == 1));
    }
}
