//! Zip archives of stored members, as PyTorch writes them: enough to take one apart, change a member and put it together
//! again with right checksums, so that a mutant gets past the container.

/// A member: its full name and its bytes.
pub type Member = (String, Vec<u8>);

/// Payloads begin at a multiple of this, as in PyTorch's archives, so that weights can be used in place.
const ALIGN: usize = 64;

/// The members of an archive whose members are stored; `None` for any other.
pub fn read(archive: &[u8]) -> Option<Vec<Member>> {
    let word = |at: usize| Some(u32::from_le_bytes(archive.get(at..at + 4)?.try_into().ok()?) as usize);
    let half = |at: usize| Some(u16::from_le_bytes(archive.get(at..at + 2)?.try_into().ok()?) as usize);
    let end = archive.windows(4).rposition(|w| w == b"PK\x05\x06")?;
    let (count, mut at) = (half(end + 10)?, word(end + 16)?);
    let mut members = Vec::with_capacity(count);
    for _ in 0..count {
        if archive.get(at..at + 4)? != b"PK\x01\x02" || half(at + 10)? != 0 {
            return None;
        }
        let (size, local) = (word(at + 24)?, word(at + 42)?);
        let name = archive.get(at + 46..at + 46 + half(at + 28)?)?;
        let start = local + 30 + half(local + 26)? + half(local + 28)?;
        members.push((
            String::from_utf8(name.to_vec()).ok()?,
            archive.get(start..start + size)?.to_vec(),
        ));
        at += 46 + half(at + 28)? + half(at + 30)? + half(at + 32)?;
    }
    Some(members)
}

/// An archive of stored members.
pub fn write(members: &[Member]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut directory = Vec::new();
    for (name, bytes) in members {
        let local = out.len() as u32;
        // Version 1.0, no flags, stored, the first day of 1980.
        let mut common = Vec::new();
        for half in [10u16, 0, 0, 0, 0x21] {
            common.extend(half.to_le_bytes());
        }
        for word in [crc32(bytes), bytes.len() as u32, bytes.len() as u32] {
            common.extend(word.to_le_bytes());
        }
        common.extend((name.len() as u16).to_le_bytes());
        out.extend(b"PK\x03\x04");
        out.extend(&common);
        let unpadded = out.len() + 2 + name.len();
        let padding = match (ALIGN - unpadded % ALIGN) % ALIGN {
            // An extra field has a header of four bytes.
            small @ 1..4 => small + ALIGN,
            other => other,
        };
        out.extend((padding as u16).to_le_bytes());
        out.extend(name.as_bytes());
        if padding > 0 {
            out.extend(b"FB");
            out.extend((padding as u16 - 4).to_le_bytes());
            out.resize(out.len() + padding - 4, b'Z');
        }
        out.extend(bytes);
        directory.extend(b"PK\x01\x02\x0a\x00");
        directory.extend(&common);
        // No extra field, no comment, disk 0, no attributes.
        directory.extend([0; 12]);
        directory.extend(local.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let (start, count) = (out.len() as u32, members.len() as u16);
    out.extend(&directory);
    out.extend(b"PK\x05\x06\x00\x00\x00\x00");
    out.extend(count.to_le_bytes());
    out.extend(count.to_le_bytes());
    out.extend((directory.len() as u32).to_le_bytes());
    out.extend(start.to_le_bytes());
    out.extend([0; 2]);
    out
}

/// The checksum of zip, polynomial 0xEDB88320.
pub fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let (mut value, mut bit) = (i as u32, 0);
            while bit < 8 {
                value = (value >> 1) ^ (0xedb8_8320 * (value & 1));
                bit += 1;
            }
            table[i] = value;
            i += 1;
        }
        table
    };
    let step = |crc: u32, byte: &u8| (crc >> 8) ^ TABLE[(crc as u8 ^ byte) as usize];
    !bytes.iter().fold(!0, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let members = vec![
            ("m/byteorder".to_string(), b"little".to_vec()),
            ("m/empty".to_string(), vec![]),
            ("m/a.bin".to_string(), vec![7; 200]),
        ];
        let archive = write(&members);
        assert_eq!(read(&archive), Some(members));
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(read(b"PK\x05\x06 and no more"), None);
    }
}
