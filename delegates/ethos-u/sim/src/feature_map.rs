//! Feature maps: where the elements of a tensor are in its region, and how they are read and written.

use crate::error::Error;
use crate::memory::Memory;

/// How channels lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Channels beside each other.
    Nhwc,
    /// In bricks of sixteen channels.
    Nhcwb16,
}

/// Where a feature map is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Storage {
    /// In a region.
    Memory,
    /// Between two operations; `region` is its number.
    Chained,
    /// A number in place of an input, or an output that stays in the accumulators.
    Nowhere,
}

/// A tensor of height, width and depth in a region.
#[derive(Debug, Clone)]
pub(crate) struct FeatureMap {
    pub storage: Storage,
    pub region: u8,
    /// Of the four tiles: left and right above, left and right below.
    pub bases: [u64; 4],
    pub stride_x: i64,
    pub stride_y: i64,
    pub stride_c: i64,
    /// Columns of the left tiles; rows of the upper left and the upper right one.
    pub tile_width: usize,
    pub tile_heights: (usize, usize),
    pub format: Format,
    pub bits: u32,
    pub signed: bool,
    pub height: usize,
    pub width: usize,
    pub depth: usize,
}

impl FeatureMap {
    /// One that is not in memory.
    pub fn between(
        storage: Storage,
        region: u8,
        bits: u32,
        signed: bool,
        [height, width, depth]: [usize; 3],
    ) -> FeatureMap {
        FeatureMap {
            storage,
            region,
            bases: [0; 4],
            stride_x: 0,
            stride_y: 0,
            stride_c: 0,
            tile_width: width,
            tile_heights: (height, height),
            format: Format::Nhwc,
            bits,
            signed,
            height,
            width,
            depth,
        }
    }

    pub fn bytes(&self) -> usize {
        (self.bits / 8) as usize
    }

    pub fn elements(&self) -> Option<usize> {
        self.height.checked_mul(self.width)?.checked_mul(self.depth)
    }

    /// Address of channel 0 of a pixel.
    fn pixel(&self, mut y: usize, mut x: usize) -> i64 {
        let right = x >= self.tile_width;
        let limit = if right {
            self.tile_heights.1
        } else {
            self.tile_heights.0
        };
        if right {
            x -= self.tile_width;
        }
        let below = y >= limit;
        if below {
            y -= limit;
        }
        let base = self.bases[usize::from(right) + 2 * usize::from(below)] as i64;
        let across = match self.format {
            Format::Nhwc => self.stride_x.wrapping_mul(x as i64),
            Format::Nhcwb16 => (16 * self.bytes() * x) as i64,
        };
        base.wrapping_add(self.stride_y.wrapping_mul(y as i64))
            .wrapping_add(across)
    }

    /// Runs of channels that lie beside each other, of a pixel: address, first channel, how many.
    fn runs(&self, y: usize, x: usize) -> impl Iterator<Item = (u64, usize, usize)> + '_ {
        let pixel = self.pixel(y, x);
        let brick = match self.format {
            Format::Nhwc => self.depth,
            Format::Nhcwb16 => 16,
        };
        (0..self.depth).step_by(brick).map(move |channel| {
            let at = match self.format {
                Format::Nhwc => pixel,
                Format::Nhcwb16 => pixel.wrapping_add(self.stride_c.wrapping_mul((channel / 16) as i64)),
            };
            (at as u64, channel, brick.min(self.depth - channel))
        })
    }

    /// The byte behind the last one that it covers; `None`: it is not in memory, or an address is beyond what there can be.
    pub fn end(&self) -> Option<u64> {
        if self.storage != Storage::Memory {
            return None;
        }
        // Addresses grow within a tile: its corners are enough.
        let (upper, lower) = self.tile_heights;
        let rows = [
            0,
            upper.saturating_sub(1),
            upper,
            lower.saturating_sub(1),
            lower,
            self.height - 1,
        ];
        let columns = [0, self.tile_width - 1, self.tile_width, self.width - 1];
        let mut end = 0;
        for y in rows.into_iter().filter(|y| *y < self.height) {
            for x in columns.into_iter().filter(|x| *x < self.width) {
                for (at, _, count) in self.runs(y, x) {
                    end = end.max(at.checked_add((count * self.bytes()) as u64)?);
                }
            }
        }
        Some(end)
    }

    fn number(&self, bytes: &[u8]) -> i32 {
        match (self.bits, self.signed) {
            (8, true) => i32::from(bytes[0] as i8),
            (8, false) => i32::from(bytes[0]),
            (16, true) => i32::from(i16::from_le_bytes([bytes[0], bytes[1]])),
            (16, false) => i32::from(u16::from_le_bytes([bytes[0], bytes[1]])),
            _ => i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
        }
    }

    /// Its elements, `[height][width][depth]`.
    ///
    /// # Errors
    /// One is outside its region.
    pub fn read(&self, memory: &Memory<'_>) -> Result<Vec<i32>, Error> {
        let size = self.bytes();
        let mut out = Vec::with_capacity(self.elements().unwrap_or(0));
        for y in 0..self.height {
            for x in 0..self.width {
                for (at, _, count) in self.runs(y, x) {
                    let bytes = memory.read(self.region, at, (count * size) as u64)?;
                    match (self.bits, self.signed) {
                        (8, true) => out.extend(bytes.iter().map(|b| i32::from(*b as i8))),
                        _ => out.extend(bytes.chunks_exact(size).map(|b| self.number(b))),
                    }
                }
            }
        }
        Ok(out)
    }

    /// Its elements where they have 64 bits, `[height][width][depth]`.
    ///
    /// # Errors
    /// One is outside its region.
    pub fn read_wide(&self, memory: &Memory<'_>) -> Result<Vec<i64>, Error> {
        let mut out = Vec::with_capacity(self.elements().unwrap_or(0));
        for y in 0..self.height {
            for x in 0..self.width {
                for (at, _, count) in self.runs(y, x) {
                    let bytes = memory.read(self.region, at, (count * size_of::<i64>()) as u64)?;
                    let (chunks, _) = bytes.as_chunks::<8>();
                    out.extend(chunks.iter().map(|b| i64::from_le_bytes(*b)));
                }
            }
        }
        Ok(out)
    }

    /// Writes the channels of a pixel, which are in the range of the type.
    ///
    /// # Errors
    /// One is outside its region.
    pub fn write(&self, memory: &mut Memory<'_>, y: usize, x: usize, values: &[i64]) -> Result<(), Error> {
        let size = self.bytes();
        for (at, channel, count) in self.runs(y, x) {
            let bytes = memory.write(self.region, at, (count * size) as u64)?;
            for (to, value) in bytes.chunks_exact_mut(size).zip(&values[channel..channel + count]) {
                to.copy_from_slice(&value.to_le_bytes()[..size]);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(format: Format) -> FeatureMap {
        FeatureMap {
            storage: Storage::Memory,
            region: 1,
            bases: [0; 4],
            stride_x: 20,
            stride_y: 40,
            stride_c: 32,
            tile_width: 2,
            tile_heights: (1, 1),
            format,
            bits: 8,
            signed: true,
            height: 1,
            width: 2,
            depth: 20,
        }
    }

    #[test]
    fn what_is_written_is_read_in_both_formats() {
        for format in [Format::Nhwc, Format::Nhcwb16] {
            let map = map(format);
            let mut bytes = [0u8; 64];
            let mut memory = Memory::new();
            memory.map_mut(1, &mut bytes);
            let values: Vec<i64> = (-20..20).collect();
            map.write(&mut memory, 0, 0, &values[..20]).unwrap();
            map.write(&mut memory, 0, 1, &values[20..]).unwrap();
            let read: Vec<i64> = map.read(&memory).unwrap().into_iter().map(i64::from).collect();
            assert_eq!(read, values);
            // Channel 16 of pixel 1.
            let at = match format {
                Format::Nhwc => 20 + 16,
                Format::Nhcwb16 => 32 + 16,
            };
            assert_eq!(bytes[at] as i8, 16);
        }
    }

    #[test]
    fn tiles_have_bases_of_their_own() {
        let mut map = map(Format::Nhwc);
        (map.width, map.height, map.tile_width, map.tile_heights) = (4, 3, 2, (1, 2));
        map.bases = [0, 1000, 2000, 3000];
        assert_eq!(map.pixel(0, 1), 20);
        assert_eq!(map.pixel(1, 2), 1000 + 40);
        assert_eq!(map.pixel(2, 1), 2000 + 40 + 20);
        assert_eq!(map.pixel(2, 3), 3000 + 20);
    }
}
