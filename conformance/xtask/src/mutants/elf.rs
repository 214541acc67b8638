//! Defects of a library's file, made in a copy: an executable stack, one more export, a folder to look for libraries in.
//!
//! Little-endian ELF of 64 bits, which the linkers of Linux and Android write. Every offset is checked.

use anyhow::{Context, Result, ensure};

/// A file that can be written to.
pub struct Elf {
    bytes: Vec<u8>,
}

const PT_DYNAMIC: u32 = 2;
const PT_GNU_STACK: u32 = 0x6474_e551;
const SHT_DYNSYM: u32 = 11;
const DT_NULL: u64 = 0;
const DT_NEEDED: u64 = 1;
const DT_RUNPATH: u64 = 29;
/// How many relocations come first: a hint that a loader does without.
const DT_RELACOUNT: u64 = 0x6fff_fff9;
/// Bytes of a symbol and of an entry of the dynamic section.
const SYMBOL: usize = 24;
const ENTRY: usize = 16;

impl Elf {
    /// Takes the bytes of a library.
    ///
    /// # Errors
    /// They are no ELF of this kind.
    pub fn new(bytes: Vec<u8>) -> Result<Elf> {
        let head = bytes.get(..6).context("the library is empty")?;
        ensure!(
            head == b"\x7fELF\x02\x01",
            "the library is no little-endian ELF of 64 bits"
        );
        Ok(Elf { bytes })
    }

    /// The bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    fn number<const N: usize>(&self, at: usize) -> Result<u64> {
        let end = at.checked_add(N).context("the library is damaged")?;
        let bytes = self.bytes.get(at..end).context("the library is shorter than it says")?;
        let mut number = [0; 8];
        number[..N].copy_from_slice(bytes);
        Ok(u64::from_le_bytes(number))
    }

    fn put(&mut self, at: usize, bytes: &[u8]) -> Result<()> {
        let end = at.checked_add(bytes.len()).context("the library is damaged")?;
        let place = self
            .bytes
            .get_mut(at..end)
            .context("the library is shorter than it says")?;
        place.copy_from_slice(bytes);
        Ok(())
    }

    /// Offsets of the records of a table of the header.
    fn records(&self, table: usize, size: usize, count: usize) -> Result<Vec<usize>> {
        let first = self.number::<8>(table)? as usize;
        let (size, count) = (self.number::<2>(size)? as usize, self.number::<2>(count)? as usize);
        Ok((0..count).map(|i| first.saturating_add(i * size)).collect())
    }

    fn segment(&self, kind: u32) -> Result<usize> {
        for at in self.records(32, 54, 56)? {
            if self.number::<4>(at)? == u64::from(kind) {
                return Ok(at);
            }
        }
        anyhow::bail!("the library has no segment of kind {kind:#x}")
    }

    /// Asks for an executable stack.
    ///
    /// # Errors
    /// The library says nothing of its stack.
    pub fn executable_stack(&mut self) -> Result<()> {
        let flags = self.segment(PT_GNU_STACK)? + 4;
        let now = self.number::<4>(flags)? as u32 | 1;
        self.put(flags, &now.to_le_bytes())
    }

    /// Makes a weak symbol that is not defined one that is, by a shorter name: it lies where the entry does, and is exported.
    ///
    /// # Errors
    /// There is no such symbol, or no entry.
    pub fn one_more_export(&mut self) -> Result<()> {
        let mut symbols = Vec::new();
        for at in self.records(40, 58, 60)? {
            if self.number::<4>(at + 4)? == u64::from(SHT_DYNSYM) {
                let (first, size) = (self.number::<8>(at + 24)? as usize, self.number::<8>(at + 32)? as usize);
                symbols = (0..size / SYMBOL).map(|i| first.saturating_add(i * SYMBOL)).collect();
            }
        }
        let (mut entry, mut weak) = (None, None);
        for at in symbols {
            let (binding, section) = (self.number::<1>(at + 4)? >> 4, self.number::<2>(at + 6)?);
            match (binding, section) {
                (2, 0) => weak = weak.or(Some(at)),
                (1, 1..) => entry = Some(at),
                _ => {}
            }
        }
        let entry = entry.context("the library exports nothing")?;
        let weak = weak.context("the library has no weak symbol")?;
        let (section, value) = (self.number::<2>(entry + 6)? as u16, self.number::<8>(entry + 8)?);
        let name = self.number::<4>(weak)? as u32;
        // The name's end is a name too. Nothing has to be found by it: the symbol stays weak.
        self.put(weak, &name.saturating_add(2).to_le_bytes())?;
        self.put(weak + 4, &[0x22])?;
        self.put(weak + 6, &section.to_le_bytes())?;
        self.put(weak + 8, &value.to_le_bytes())
    }

    /// Has the loader look for libraries in a folder of no absolute path.
    ///
    /// # Errors
    /// There is no room in the dynamic section.
    pub fn relative_runpath(&mut self) -> Result<()> {
        let segment = self.segment(PT_DYNAMIC)?;
        let (first, size) = (
            self.number::<8>(segment + 8)? as usize,
            self.number::<8>(segment + 32)? as usize,
        );
        let entries: Vec<usize> = (0..size / ENTRY).map(|i| first.saturating_add(i * ENTRY)).collect();
        let tags: Vec<u64> = entries.iter().map(|at| self.number::<8>(*at)).collect::<Result<_>>()?;
        // Any text of the table does for a name.
        let named = tags
            .iter()
            .position(|tag| *tag == DT_NEEDED)
            .context("the library needs no other")?;
        let text = self.number::<8>(entries[named] + 8)?;
        let end = tags
            .iter()
            .position(|tag| *tag == DT_NULL)
            .context("the dynamic section has no end")?;
        let spare = (end + 1 < tags.len()).then_some(end);
        let place = spare.or(tags.iter().position(|tag| *tag == DT_RELACOUNT));
        let place = entries[place.context("the dynamic section has no room")?];
        self.put(place, &DT_RUNPATH.to_le_bytes())?;
        self.put(place + 8, &text.to_le_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object::{Object, ObjectSymbol};

    /// A library of this build; `None` where tests run elsewhere.
    fn library() -> Option<Vec<u8>> {
        let test = std::env::current_exe().ok()?;
        let path = test.ancestors().nth(2)?.join("libnull_delegate.so");
        let bytes = std::fs::read(&path).ok();
        if bytes.is_none() {
            println!("skipped: `{}` is not here: run `cargo xtask test`", path.display());
        }
        bytes
    }

    fn exports(bytes: &[u8]) -> Vec<String> {
        let file = object::File::parse(bytes).unwrap();
        let defined = file.dynamic_symbols().filter(|symbol| symbol.is_definition());
        defined.map(|symbol| symbol.name().unwrap().to_string()).collect()
    }

    #[test]
    fn one_symbol_more_is_exported() {
        let Some(bytes) = library() else { return };
        assert_eq!(exports(&bytes), ["dg_delegate_entry_v1"]);
        let mut elf = Elf::new(bytes).unwrap();
        elf.one_more_export().unwrap();
        assert_eq!(exports(&elf.into_bytes()).len(), 2);
    }

    #[test]
    fn the_stack_and_the_path_are_changed() {
        use object::elf::{DT_RUNPATH, FileHeader64, PF_X, PT_GNU_STACK};
        use object::read::elf::{Dyn, FileHeader, ProgramHeader};
        let Some(bytes) = library() else { return };
        let mut elf = Elf::new(bytes).unwrap();
        elf.executable_stack().unwrap();
        elf.relative_runpath().unwrap();
        let bytes = elf.into_bytes();
        let header = FileHeader64::<object::LittleEndian>::parse(&*bytes).unwrap();
        let endian = header.endian().unwrap();
        let segments = header.program_headers(endian, &*bytes).unwrap();
        let stack = segments.iter().find(|s| s.p_type(endian) == PT_GNU_STACK).unwrap();
        assert!(stack.p_flags(endian).contains(PF_X));
        let dynamic = segments
            .iter()
            .find_map(|s| s.dynamic(endian, &*bytes).unwrap())
            .unwrap();
        assert!(dynamic.iter().any(|entry| entry.d_tag(endian) == DT_RUNPATH));
    }

    #[test]
    fn what_is_no_library_is_an_error() {
        assert!(Elf::new(b"MZ".to_vec()).is_err());
        let mut short = Elf::new(b"\x7fELF\x02\x01".to_vec()).unwrap();
        assert!(
            short.executable_stack().is_err() && short.relative_runpath().is_err() && short.one_more_export().is_err()
        );
    }
}
