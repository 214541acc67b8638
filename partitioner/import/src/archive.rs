//! The zip container: names to stored members, as windows on the file.

use crate::error::{ImportError, Result};
use delegraph_ir::Bytes;
use rustc_hash::FxHashMap;

/// Names beyond this length do not occur in archives that PyTorch writes.
const MAX_NAME: usize = 4096;
const MAX_MEMBERS: usize = 1 << 20;

/// The members of an archive, without its root folder.
pub(crate) struct Archive {
    members: FxHashMap<String, Bytes>,
    /// In the order of the central directory.
    names: Vec<String>,
}

impl Archive {
    /// Reads the directory; nothing is unpacked and nothing copied.
    pub fn open(bytes: &Bytes) -> Result<Archive> {
        let all = bytes.as_slice();
        let bad = |error: rawzip::Error| ImportError::malformed(format!("not a readable zip archive: {error}"));
        let zip = rawzip::ZipArchive::from_slice(all)
            .map_err(|error| bad(error).hint("expected a `.pt2` as `torch.export.save` writes it"))?;
        let mut entries = zip.entries();
        let mut found: Vec<(String, Bytes)> = Vec::new();
        let mut ranges = Vec::new();
        while let Some(header) = entries.next_entry().map_err(bad)? {
            if found.len() == MAX_MEMBERS {
                return Err(ImportError::malformed(format!("more than {MAX_MEMBERS} members")));
            }
            let path = header.file_path();
            let raw: &[u8] = path.as_ref();
            let name = match std::str::from_utf8(raw) {
                Ok(name) if raw.len() <= MAX_NAME && !name.contains('\0') => name,
                _ => return Err(ImportError::malformed("a member's name is not UTF-8 or too long")),
            };
            if header.is_dir() {
                continue;
            }
            let at = || format!("member `{name}`");
            if header.flags().is_encrypted() {
                return Err(ImportError::unsupported("the member is encrypted").at(at));
            }
            if header.compression_method() != rawzip::CompressionMethod::STORE {
                let message = format!("the member is compressed ({})", header.compression_method());
                return Err(ImportError::unsupported(message)
                    .at(at)
                    .hint("weights are used in place: save it again with `torch.export.save`, which stores members"));
            }
            if header.compressed_size_hint() != header.uncompressed_size_hint() {
                return Err(ImportError::malformed("a stored member has two sizes").at(at));
            }
            let entry = zip.get_entry(header.wayfinder()).map_err(|e| bad(e).at(at))?;
            let (start, end) = entry.compressed_data_range();
            let window = usize::try_from(start)
                .ok()
                .zip(usize::try_from(end.saturating_sub(start)).ok())
                .and_then(|(start, length)| bytes.slice(start, length))
                .ok_or_else(|| ImportError::malformed("the member lies outside the file").at(at))?;
            if end > start {
                ranges.push((start, end));
            }
            found.push((name.to_string(), window));
        }
        ranges.sort_unstable();
        if ranges.windows(2).any(|pair| pair[0].1 > pair[1].0) {
            return Err(ImportError::malformed("members overlap"));
        }
        Archive::with_members(found)
    }

    fn with_members(found: Vec<(String, Bytes)>) -> Result<Archive> {
        // The root folder is that of the first member: the stem that the file was saved under.
        let root = match found.first() {
            Some((name, _)) => name
                .split_once('/')
                .map_or(String::new(), |(root, _)| format!("{root}/")),
            None => return Err(ImportError::malformed("the archive is empty")),
        };
        let mut archive = Archive {
            members: FxHashMap::default(),
            names: Vec::with_capacity(found.len()),
        };
        for (name, window) in found {
            let short = name.strip_prefix(&root).unwrap_or(&name).to_string();
            if archive.members.insert(short.clone(), window).is_some() {
                return Err(ImportError::malformed(format!("two members are called `{name}`")));
            }
            archive.names.push(short);
        }
        Ok(archive)
    }

    /// The member's bytes.
    pub fn find(&self, name: &str) -> Option<&Bytes> {
        self.members.get(name)
    }

    /// Names of the members below `folder/` that end in `suffix`, without either.
    pub fn list<'a>(&'a self, folder: &'a str, suffix: &'a str) -> impl Iterator<Item = &'a str> {
        self.names
            .iter()
            .filter_map(move |name| name.strip_prefix(folder)?.strip_suffix(suffix))
    }

    /// Refuses what is not an archive of torch 2.9 or later with stored weights.
    pub fn check_kind(&self) -> Result<()> {
        let again = "save it again with torch 2.9 or later: `torch.export.save(torch.export.export(...), path)`";
        let old = [
            "serialized_exported_program.json",
            "serialized_state_dict.pt",
            "serialized_state_dict.json",
        ];
        if self
            .names
            .iter()
            .any(|n| old.iter().any(|o| n == o || n.ends_with(&format!("/{o}"))))
        {
            let message = "an archive of torch 2.7 or earlier, whose weights are pickled";
            return Err(ImportError::unsupported(message).hint(again));
        }
        if self.find("data/weights/model.pt").is_some() || self.find("data/constants/model.pt").is_some() {
            let message = "an archive of torch 2.8, whose weights are pickled";
            return Err(ImportError::unsupported(message).hint(again));
        }
        if self.names.iter().any(|n| n == "data.pkl" || n == "constants.pkl") {
            let message = "a checkpoint or TorchScript archive, not an exported program";
            return Err(ImportError::unsupported(message).hint("export the module with `torch.export.export`"));
        }
        if let Some(order) = self.find("byteorder")
            && order.as_slice().trim_ascii() != b"little"
        {
            return Err(ImportError::unsupported("the archive is not little-endian").at(|| "member `byteorder`".into()));
        }
        if let Some(format) = self.find("archive_format")
            && format.as_slice().trim_ascii() != b"pt2"
        {
            return Err(ImportError::unsupported("the archive's format is not `pt2`"));
        }
        if self.list("models/", ".json").next().is_none() {
            let error = ImportError::unsupported("the archive has no program (`models/*.json`)");
            return Err(match self.names.iter().any(|n| n.starts_with("data/aotinductor/")) {
                true => error.hint("it holds code compiled by AOTInductor: package the exported program itself"),
                false => error,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(names: &[&str]) -> Archive {
        let members = names.iter().map(|n| (n.to_string(), Bytes::from(Vec::new()))).collect();
        Archive::with_members(members).unwrap()
    }

    #[test]
    fn other_kinds_of_archive_are_told_apart() {
        let cases: [(&[&str], &str); 6] = [
            (&["serialized_exported_program.json"], "torch 2.7 or earlier"),
            (&["m/models/model.json", "m/data/weights/model.pt"], "torch 2.8"),
            (&["m/data.pkl", "m/data/0"], "TorchScript"),
            (&["m/models/model.json", "m/byteorder"], "little-endian"),
            (&["m/models/model.json", "m/archive_format"], "`pt2`"),
            (&["m/data/aotinductor/model/x.so"], "AOTInductor"),
        ];
        for (names, want) in cases {
            let error = archive(names).check_kind().unwrap_err().to_string();
            assert!(error.contains(want), "{names:?}: {error}");
        }
        assert!(archive(&["m/models/model.json"]).check_kind().is_ok());
    }

    #[test]
    fn the_root_folder_is_dropped_and_names_are_unique() {
        let a = archive(&["m/models/a.json", "m/models/b.json"]);
        assert_eq!(a.list("models/", ".json").collect::<Vec<_>>(), ["a", "b"]);
        let twice = vec![
            ("m/a".to_string(), Bytes::from(vec![])),
            ("m/a".to_string(), Bytes::from(vec![])),
        ];
        assert!(Archive::with_members(twice).is_err());
        assert!(Archive::with_members(vec![]).is_err());
    }
}
