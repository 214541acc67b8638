//! The memory that a stream works on: up to eight regions, each read with its bounds.

use crate::Error;

/// Regions of a processor.
pub const REGIONS: usize = 8;

/// A region.
#[derive(Debug)]
enum Region<'m> {
    Read(&'m [u8]),
    Write(&'m mut [u8]),
}

impl Region<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Region::Read(bytes) => bytes,
            Region::Write(bytes) => bytes,
        }
    }
}

/// Regions by number.
#[derive(Debug, Default)]
pub struct Memory<'m> {
    regions: [Option<Region<'m>>; REGIONS],
}

impl<'m> Memory<'m> {
    /// No regions.
    pub fn new() -> Memory<'m> {
        Memory::default()
    }

    /// Maps a region that is only read. A number beyond the last region is ignored: no command can name it.
    pub fn map(&mut self, region: u8, bytes: &'m [u8]) {
        if let Some(slot) = self.regions.get_mut(usize::from(region)) {
            *slot = Some(Region::Read(bytes));
        }
    }

    /// Maps a region that is read and written.
    pub fn map_mut(&mut self, region: u8, bytes: &'m mut [u8]) {
        if let Some(slot) = self.regions.get_mut(usize::from(region)) {
            *slot = Some(Region::Write(bytes));
        }
    }

    /// Bytes of a region, if it is mapped.
    pub fn size(&self, region: u8) -> Option<u64> {
        let region = self.regions.get(usize::from(region))?.as_ref()?;
        Some(region.bytes().len() as u64)
    }

    fn outside(&self, access: &'static str, region: u8, address: u64, size: u64) -> Error {
        Error::OutOfBounds {
            access,
            region,
            address,
            size,
            available: self.size(region),
        }
    }

    /// Reads bytes.
    ///
    /// # Errors
    /// They are not all within the region.
    pub fn read(&self, region: u8, address: u64, size: u64) -> Result<&[u8], Error> {
        let inside = || {
            let bytes = self.regions.get(usize::from(region))?.as_ref()?.bytes();
            let start = usize::try_from(address).ok()?;
            let end = start.checked_add(usize::try_from(size).ok()?)?;
            bytes.get(start..end)
        };
        inside().ok_or_else(|| self.outside("read", region, address, size))
    }

    /// Bytes to write.
    ///
    /// # Errors
    /// They are not all within the region, or it may only be read.
    pub fn write(&mut self, region: u8, address: u64, size: u64) -> Result<&mut [u8], Error> {
        let error = match self.read(region, address, size) {
            Err(error) => error,
            Ok(_) => Error::ReadOnly { region, address },
        };
        let (start, size) = (address as usize, size as usize);
        match self.regions.get_mut(usize::from(region)) {
            Some(Some(Region::Write(bytes))) => bytes.get_mut(start..start.saturating_add(size)).ok_or(error),
            _ => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_read_or_written_outside() {
        let (fixed, mut scratch) = ([1u8, 2, 3], [0u8; 4]);
        let mut memory = Memory::new();
        memory.map(0, &fixed);
        memory.map_mut(1, &mut scratch);
        assert_eq!(memory.read(0, 1, 2).unwrap(), [2, 3]);
        assert!(matches!(
            memory.read(0, 2, 2),
            Err(Error::OutOfBounds { region: 0, .. })
        ));
        assert!(matches!(memory.read(0, u64::MAX, 2), Err(Error::OutOfBounds { .. })));
        assert!(matches!(
            memory.read(2, 0, 0),
            Err(Error::OutOfBounds { available: None, .. })
        ));
        assert!(matches!(memory.write(0, 0, 1), Err(Error::ReadOnly { .. })));
        memory.write(1, 3, 1).unwrap()[0] = 9;
        assert!(memory.write(1, 4, 1).is_err());
        assert_eq!(memory.read(1, 0, 4).unwrap(), [0, 0, 0, 9]);
    }
}
