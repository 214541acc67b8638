//! Graph images taken apart, so that a byte, a record or a table of one can be another.

use delegraph_abi::c::{ImageHeader, ImageTable, ImageTableKind};

/// The parts of an image.
#[derive(Debug, Clone)]
pub struct Parts {
    /// The header, as it is; sizes and counts are made anew by [`Parts::write`].
    pub header: Vec<u8>,
    /// Kind, bytes of a record, records.
    pub tables: Vec<(u32, usize, Vec<u8>)>,
    /// Bytes of a record of the directory.
    pub table_size: usize,
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?)).ok()
}

impl Parts {
    /// Takes an image of the kit's apart.
    ///
    /// # Errors
    /// It is none.
    pub fn read(image: &[u8]) -> Result<Parts, String> {
        Parts::parse(image).ok_or_else(|| "the kit's image cannot be taken apart".to_string())
    }

    fn parse(image: &[u8]) -> Option<Parts> {
        let header = image.get(..size_of::<ImageHeader>())?.to_vec();
        let (start, count, size) = (u32_at(image, 8)?, u32_at(image, 12)?, u32_at(image, 16)?);
        let mut tables = Vec::new();
        for i in 0..count as usize {
            let at = start as usize + i * size as usize;
            let (kind, record) = (u32_at(image, at)?, u32_at(image, at + 4)? as usize);
            let (offset, records) = (u64_at(image, at + 8)?, u64_at(image, at + 16)?);
            let end = offset.checked_add(records.checked_mul(record)?)?;
            tables.push((kind, record, image.get(offset..end)?.to_vec()));
        }
        let table_size = size_of::<ImageTable>();
        Some(Parts {
            header,
            tables,
            table_size,
        })
    }

    /// Records of a table; empty where it is absent.
    pub fn table(&mut self, kind: ImageTableKind) -> &mut [u8] {
        let table = self.tables.iter_mut().find(|(other, ..)| *other == kind.0);
        table.map_or(&mut [], |(_, _, bytes)| bytes)
    }

    /// Bytes of a record of a table; 1 where it is absent.
    pub fn record_size(&self, kind: ImageTableKind) -> usize {
        let table = self.tables.iter().find(|(other, ..)| *other == kind.0);
        table.map_or(1, |(_, size, _)| (*size).max(1))
    }

    /// Makes the records of a table longer by bytes of this value.
    pub fn lengthen(&mut self, kind: ImageTableKind, more: usize, byte: u8) {
        for (other, size, bytes) in &mut self.tables {
            if *other == kind.0 {
                let longer = bytes.chunks(*size).flat_map(|record| {
                    let mut record = record.to_vec();
                    record.resize(*size + more, byte);
                    record
                });
                *bytes = longer.collect();
                *size += more;
            }
        }
    }

    /// The image of these parts.
    pub fn write(&self) -> Vec<u8> {
        let directory = self.header.len();
        let mut out = self.header.clone();
        let mut end = directory + self.tables.len() * self.table_size;
        let mut places = Vec::new();
        for (kind, record, bytes) in &self.tables {
            end = end.next_multiple_of(8);
            places.push(end);
            out.extend(kind.to_le_bytes());
            out.extend((*record as u32).to_le_bytes());
            out.extend((end as u64).to_le_bytes());
            out.extend(((bytes.len() / (*record).max(1)) as u64).to_le_bytes());
            out.resize(out.len() + self.table_size - size_of::<ImageTable>(), 0x5a);
            end += bytes.len();
        }
        for ((.., bytes), place) in self.tables.iter().zip(&places) {
            out.resize(*place, 0);
            out.extend(bytes);
        }
        let total = out.len() as u64;
        out[8..12].copy_from_slice(&(directory as u32).to_le_bytes());
        out[12..16].copy_from_slice(&(self.tables.len() as u32).to_le_bytes());
        out[16..20].copy_from_slice(&(self.table_size as u32).to_le_bytes());
        out[24..32].copy_from_slice(&total.to_le_bytes());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::{Kind, Workload};
    use delegraph_abi::DType;
    use delegraph_abi::image::verify;

    #[test]
    fn an_image_is_its_parts() {
        let image = Workload::new(Kind::Linear, DType::F32, 3, 5, 1, 0).image;
        let mut parts = Parts::read(&image).unwrap();
        assert_eq!(parts.write(), image);
        parts.lengthen(ImageTableKind::NODES, 16, 0x5a);
        parts.tables.push((0x7ffe, 8, vec![1; 24]));
        parts.table_size += 8;
        let view_name = |bytes: &[u8]| verify(bytes).map(|view| view.nodes().next().map(|node| node.op().to_string()));
        assert_eq!(view_name(&parts.write()), view_name(&image));
    }
}
