//! What a run was made of: the library, the kit, the lists, the device. `run.json` beside `cases.jsonl`.

use serde::{Deserialize, Serialize};

/// The machine, as reports name it: `x86_64 linux`.
pub fn host() -> String {
    format!("{} {}", std::env::consts::ARCH, std::env::consts::OS)
}

/// What a run was made of. Two runs can be merged if [`RunInfo::same_subject`] says so.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunInfo {
    /// `delegraph.conform-run/1`
    pub schema: String,
    /// `run`, `ops` or `models`.
    pub suite: String,
    /// The kit.
    pub kit: KitId,
    /// The machine: [`host`].
    pub host: String,
    /// The library under test; absent for `ops` and `models`, which test a whole configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub library: Option<LibraryId>,
    /// Backends in order, for `ops` and `models`; empty: portable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backends: Vec<String>,
    /// The devices that the library listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<DeviceId>,
    /// The device that was chosen by `--device`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<u32>,
    /// Options of the delegate that were given.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub options: serde_json::Map<String, serde_json::Value>,
    /// The lists that were run whole (all shards together); empty: every case, or cases that were chosen otherwise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lists: Vec<ListId>,
    /// SHA-256 of the ids of all cases that the whole run (all shards) holds, one a line.
    pub cases_sha256: String,
    /// How many those are.
    pub cases: u64,
    /// `test`, `perf` or `support`.
    pub mode: String,
    /// What random inputs are made from.
    pub seed: u64,
    /// Shard I of N, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<(u32, u32)>,
    /// SHA-256 of the waivers' file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waivers_sha256: Option<String>,
    /// When it was started, in UTC: `2026-11-22T10:00:00Z`.
    pub started: String,
    /// When it ended; absent: it has not, and can be resumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<String>,
}

/// The kit that ran.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KitId {
    /// Version of Delegraph.
    pub version: String,
    /// Commit that it was built from; `unknown` where the build did not see one.
    pub commit: String,
    /// SHA-256 over the recorded references and lists that the kit holds.
    pub references_sha256: String,
}

/// A library.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LibraryId {
    /// Backend id.
    pub name: String,
    /// Who makes it.
    pub vendor: String,
    /// Its version.
    pub version: String,
    /// Names one build; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub build: String,
    /// File name, without folders.
    pub file: String,
    /// SHA-256 of the file.
    pub sha256: String,
    /// SHA-256 of the manifest; empty: it has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub manifest_sha256: String,
    /// Libraries beside it that it needs: file name and SHA-256.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dependents: Vec<(String, String)>,
    /// Major of the ABI whose entry was tested; runs of before 1.0 do not say it.
    #[serde(default)]
    pub abi_major: u16,
    /// Minor of that major that it was built with.
    pub abi_minor: u16,
}

/// A device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceId {
    /// Number within the delegate.
    pub id: u32,
    /// `cpu`, `gpu`, `npu`, ...
    pub kind: String,
    /// Name for people.
    pub name: String,
    /// Architecture or chip.
    pub arch: String,
    /// Driver version; may be empty.
    pub driver: String,
}

/// A list of cases.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListId {
    /// `core-0.9`
    pub name: String,
    /// SHA-256 of its file.
    pub sha256: String,
    /// How many cases it has.
    pub cases: u64,
}

impl RunInfo {
    /// Name of the schema.
    pub const SCHEMA: &'static str = "delegraph.conform-run/1";

    /// Whether both ran the same cases of the same kit over the same library and device, so that their cases can stand in one report.
    ///
    /// # Errors
    /// The first thing that differs, with both values.
    pub fn same_subject(&self, other: &RunInfo) -> Result<(), String> {
        let text = |value: &dyn std::fmt::Debug| format!("{value:?}");
        let pairs = [
            ("suite", text(&self.suite), text(&other.suite)),
            ("kit", text(&self.kit), text(&other.kit)),
            ("host", text(&self.host), text(&other.host)),
            ("library", text(&self.library), text(&other.library)),
            ("backends", text(&self.backends), text(&other.backends)),
            ("devices", text(&self.devices), text(&other.devices)),
            ("device", text(&self.device), text(&other.device)),
            ("options", text(&self.options), text(&other.options)),
            ("lists", text(&self.lists), text(&other.lists)),
            ("cases", text(&self.cases_sha256), text(&other.cases_sha256)),
            ("mode", text(&self.mode), text(&other.mode)),
            ("seed", text(&self.seed), text(&other.seed)),
            ("waivers", text(&self.waivers_sha256), text(&other.waivers_sha256)),
        ];
        match pairs.iter().find(|(_, a, b)| a != b) {
            Some((what, a, b)) => Err(format!("they differ in `{what}`: {a} and {b}")),
            None => Ok(()),
        }
    }
}
