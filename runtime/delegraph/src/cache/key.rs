//! What a blob depends on, as one hash.

use super::Digest;
use delegraph_host::{Device, Info};
use sha2::{Digest as _, Sha256};

/// All that a compiled blob depends on. Two compilations of equal parts may stand for each other.
#[derive(Debug, Clone)]
pub(crate) struct KeyParts<'a> {
    /// Version of Delegraph, whose passes made the graph.
    pub(crate) host_version: &'a str,
    /// Major and minor of the host's ABI.
    pub(crate) abi: (u16, u16),
    /// Major and minor of the graph image.
    pub(crate) image_version: (u32, u32),
    /// What the delegate says of itself: its version and build, the form of its blobs and its version, and so on.
    pub(crate) info: &'a Info,
    /// Hashes of the delegate's files: its libraries, then what they bring along. None for one that is linked into the program.
    pub(crate) libraries: &'a [Digest],
    /// Its devices, with their drivers.
    pub(crate) devices: &'a [Device],
    /// What is compiled for; empty: what the delegate thinks best.
    pub(crate) target: &'a str,
    /// Hash of the delegate's options.
    pub(crate) options: Digest,
    /// Hash of the graph image.
    pub(crate) image: Digest,
    /// Each weight: id, bytes, hash.
    pub(crate) weights: &'a [(u32, u64, Digest)],
}

impl KeyParts<'_> {
    /// The key.
    pub(crate) fn digest(&self) -> Digest {
        let mut hash = Fields(Sha256::new());
        hash.field("delegraph", self.host_version.as_bytes());
        hash.number("abi major", u64::from(self.abi.0));
        hash.number("abi minor", u64::from(self.abi.1));
        hash.number("image major", u64::from(self.image_version.0));
        hash.number("image minor", u64::from(self.image_version.1));
        let Info {
            name,
            vendor,
            version,
            build,
            abi_major,
            abi_minor,
            format,
            format_version,
            opset,
            // What it can do and which options it takes is its library's, which is hashed.
            compiles: _,
            compiles_sets: _,
            runs: _,
            options_schema: _,
        } = self.info;
        for (what, text) in [
            ("name", name),
            ("vendor", vendor),
            ("version", version),
            ("build", build),
            ("format", format),
            ("opset", opset),
        ] {
            hash.field(what, text.as_bytes());
        }
        hash.number("delegate's abi major", u64::from(*abi_major));
        hash.number("delegate's abi minor", u64::from(*abi_minor));
        hash.number("format version", u64::from(*format_version));
        hash.number("libraries", self.libraries.len() as u64);
        for library in self.libraries {
            hash.field("library", library);
        }
        hash.number("devices", self.devices.len() as u64);
        for device in self.devices {
            hash.number("device", u64::from(device.id));
            for (what, text) in [
                ("device name", &device.name),
                ("device vendor", &device.vendor),
                ("device arch", &device.arch),
                ("driver", &device.driver),
            ] {
                hash.field(what, text.as_bytes());
            }
        }
        hash.field("target", self.target.as_bytes());
        hash.field("options", &self.options);
        hash.field("image", &self.image);
        hash.number("weights", self.weights.len() as u64);
        for (id, size, digest) in self.weights {
            hash.number("weight", u64::from(*id));
            hash.number("bytes", *size);
            hash.field("content", digest);
        }
        hash.0.finalize().into()
    }
}

/// Fields with their names and lengths, so that no two lists of them read the same.
struct Fields(Sha256);

impl Fields {
    fn field(&mut self, name: &str, bytes: &[u8]) {
        for part in [name.as_bytes(), bytes] {
            self.0.update((part.len() as u64).to_le_bytes());
            self.0.update(part);
        }
    }

    fn number(&mut self, name: &str, number: u64) {
        self.field(name, &number.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use delegraph_host::DeviceKind;
    use std::collections::BTreeMap;

    fn info() -> Info {
        Info {
            name: "npu".to_string(),
            vendor: "acme".to_string(),
            version: "1.0.0".to_string(),
            build: "b1".to_string(),
            abi_major: 0,
            abi_minor: 1,
            format: "acme.npu".to_string(),
            format_version: 3,
            compiles: true,
            compiles_sets: false,
            runs: true,
            opset: "1".to_string(),
            options_schema: None,
        }
    }

    fn device() -> Device {
        Device {
            id: 0,
            kind: DeviceKind::Npu,
            name: "N1".to_string(),
            vendor: "acme".to_string(),
            arch: "v1".to_string(),
            driver: "44.0".to_string(),
            memory: 1,
        }
    }

    #[test]
    fn every_part_changes_the_key() {
        let (own, own_device) = (info(), [device()]);
        let base = KeyParts {
            host_version: "0.1.0",
            abi: (0, 1),
            image_version: (0, 0),
            info: &own,
            libraries: &[[1; 32], [2; 32]],
            devices: &own_device,
            target: "sm8650",
            options: [3; 32],
            image: [4; 32],
            weights: &[(0, 16, [5; 32]), (1, 16, [6; 32])],
        };
        let of_info = |change: &dyn Fn(&mut Info)| {
            let mut changed = info();
            change(&mut changed);
            KeyParts {
                info: &changed,
                ..base.clone()
            }
            .digest()
        };
        let of_device = |change: &dyn Fn(&mut Device)| {
            let mut changed = [device()];
            change(&mut changed[0]);
            KeyParts {
                devices: &changed,
                ..base.clone()
            }
            .digest()
        };
        let of = |change: &dyn Fn(&mut KeyParts<'_>)| {
            let mut changed = base.clone();
            change(&mut changed);
            changed.digest()
        };
        let cases: Vec<(&str, Digest)> = vec![
            ("nothing", base.digest()),
            ("host version", of(&|k| k.host_version = "0.1.1")),
            ("abi major", of(&|k| k.abi.0 = 1)),
            ("abi minor", of(&|k| k.abi.1 = 2)),
            ("image major", of(&|k| k.image_version.0 = 1)),
            ("image minor", of(&|k| k.image_version.1 = 1)),
            ("delegate", of_info(&|i| i.name.push('2'))),
            ("vendor", of_info(&|i| i.vendor.push('2'))),
            ("version", of_info(&|i| i.version = "1.0.1".to_string())),
            ("build", of_info(&|i| i.build = "b2".to_string())),
            ("delegate's major", of_info(&|i| i.abi_major = 1)),
            ("delegate's minor", of_info(&|i| i.abi_minor = 0)),
            ("format", of_info(&|i| i.format.push('2'))),
            ("format version", of_info(&|i| i.format_version = 4)),
            ("opset", of_info(&|i| i.opset = "2".to_string())),
            ("library", of(&|k| k.libraries = &[[9; 32], [2; 32]])),
            ("dependent", of(&|k| k.libraries = &[[1; 32], [9; 32]])),
            ("one library less", of(&|k| k.libraries = &[[1; 32]])),
            ("driver", of_device(&|d| d.driver = "44.1".to_string())),
            ("device name", of_device(&|d| d.name = "N2".to_string())),
            ("device arch", of_device(&|d| d.arch = "v2".to_string())),
            ("device vendor", of_device(&|d| d.vendor = "acne".to_string())),
            ("device id", of_device(&|d| d.id = 1)),
            ("no device", of(&|k| k.devices = &[])),
            ("target", of(&|k| k.target = "sm8750")),
            ("options", of(&|k| k.options = [9; 32])),
            ("image", of(&|k| k.image = [9; 32])),
            ("a weight", of(&|k| k.weights = &[(0, 16, [5; 32]), (1, 16, [9; 32])])),
            (
                "a weight's size",
                of(&|k| k.weights = &[(0, 16, [5; 32]), (1, 17, [6; 32])]),
            ),
            (
                "a weight's id",
                of(&|k| k.weights = &[(0, 16, [5; 32]), (2, 16, [6; 32])]),
            ),
            ("one weight less", of(&|k| k.weights = &[(0, 16, [5; 32])])),
            // The boundary between neighbours counts.
            (
                "text moved",
                of_info(&|i| {
                    i.name = "np".to_string();
                    i.vendor = "uacme".to_string();
                }),
            ),
        ];
        let mut seen = BTreeMap::new();
        for (what, key) in &cases {
            if let Some(before) = seen.insert(*key, *what) {
                panic!("`{what}` has the key of `{before}`");
            }
        }
        // The memory that is free at the moment does not count.
        assert_eq!(of_device(&|d| d.memory = 2), base.digest());
    }
}
