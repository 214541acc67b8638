//! The configuration as values.

use crate::condition::PropertyKind;
use crate::conformance::RequireConformance;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A resolved `backends.toml`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Version of this schema: `1`, or `"1.2"` for a minor.
    #[schemars(with = "Option<serde_json::Value>")]
    pub schema: Option<toml::Value>,
    /// Which backends, and what happens when they cannot.
    pub select: Select,
    /// Where delegates are found and when they are trusted.
    pub delegates: Delegates,
    /// Where compiled blobs are kept for models that are partitioned when they are loaded.
    pub cache: Cache,
    /// Settings of one backend, by backend id.
    pub backend: BTreeMap<String, Backend>,
    /// Exceptions; the most specific last.
    pub rule: Vec<Rule>,
    /// Exceptions by device, where an app meets devices that it never saw.
    pub device: Vec<DeviceRule>,
    /// Named variants, chosen by `--profile-name` or `DELEGRAPH_PROFILE`.
    pub profile: BTreeMap<String, Profile>,
}

/// `[select]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Select {
    /// Backend ids; the first that can take a node wins. `portable` may be named to end the list early; it is always last.
    pub order: Vec<String>,
    /// What a region that no delegate runs does.
    pub fallback: Fallback,
    /// Smaller islands stay on the CPU.
    pub min_nodes: u32,
    /// Regions that move more bytes over their border for each operation in them stay on the CPU. 0: none does for that.
    pub max_border_bytes: f64,
    /// `compile` fails below this share of multiply-accumulates delegated, from 0 to 1.
    pub require_coverage: f64,
    /// Compares each region with the portable plan.
    pub self_check: SelfCheck,
    /// Sizes that delegates compile for in place of the model's full range, a text for each set of them: `s77=1`, `s77=16, s78=1..128`,
    /// `x:0=4`. Other sizes run portably. Empty: the full range.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shapes: Vec<String>,
}

impl Default for Select {
    fn default() -> Select {
        Select {
            order: Vec::new(),
            fallback: Fallback::Allow,
            min_nodes: 1,
            max_border_bytes: 16.0,
            require_coverage: 0.0,
            self_check: SelfCheck::Off,
            shapes: Vec::new(),
        }
    }
}

/// `select.fallback`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Fallback {
    /// Runs portably, and the report says so.
    #[default]
    Allow,
    /// As `allow`, with a warning on standard error.
    Warn,
    /// An error that names the operators.
    Deny,
}

/// `select.self_check`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SelfCheck {
    /// Never.
    #[default]
    Off,
    /// On the first run; what differs is quarantined.
    FirstRun,
}

/// `[delegates]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Delegates {
    /// Folders of manifests, relative to the file.
    pub search: Vec<PathBuf>,
    /// When a library may be loaded. Once a layer says `require`, later layers change neither this nor `lock`, `keys` and `worker`.
    pub trust: Trust,
    /// The lock file, relative to the file; absent: `delegraph.lock` beside the file that set `trust`.
    pub lock: Option<PathBuf>,
    /// Public keys of signatures, relative to the file.
    pub keys: Vec<PathBuf>,
    /// The program that isolated delegates run in, relative to the file; absent: `delegraph-worker` beside the app.
    pub worker: Option<PathBuf>,
    /// The lists of conformance cases that a delegate must have a certificate of, signed by one of `keys`: `core-0.9`, `core` for
    /// any version, several, or `{ list = "core-0.9", unsigned = true }`. Once a layer says it and `trust` is `require`, later layers do not change it.
    pub require_conformance: Option<RequireConformance>,
    /// What of a blob is compared with its hash when it is loaded.
    pub verify: Verify,
}

/// `delegates.verify`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verify {
    /// Headers; payloads too where the delegate is in a worker.
    #[default]
    Headers,
    /// All of it, which is read for that.
    Payloads,
}

/// `delegates.trust`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Trust {
    /// Loads anything that is found.
    #[default]
    Off,
    /// Warns where no pin or signature matches.
    Warn,
    /// Refuses where no pin or signature matches.
    Require,
}

/// `[cache]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Cache {
    /// A folder that only this user may write, relative to the file; `auto`: the user's cache folder; absent: nothing is kept.
    pub folder: Option<PathBuf>,
    /// Most megabytes (2^20 bytes) that it may take: what was not used for longest goes first. 0: nothing is kept or looked up.
    pub quota_mb: u64,
}

impl Default for Cache {
    fn default() -> Cache {
        Cache {
            folder: None,
            quota_mb: 1024,
        }
    }
}

/// `[backend.NAME]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Backend {
    /// Pins one library or manifest.
    pub library: Option<PathBuf>,
    /// What to compile for, for example a SoC.
    pub target: Option<String>,
    /// Where the delegate runs; absent: what its manifest says.
    pub isolation: Option<Isolation>,
    /// `auto`, an index, or a name glob.
    pub device: Option<String>,
    /// Threads: of `portable`, those of its kernels and of delegates in the app's process; of an isolated delegate, those of its worker.
    pub threads: Option<Threads>,
    /// Megabytes (2^20 bytes) of address space of an isolated delegate; absent: as much as the system gives.
    pub memory_mb: Option<u64>,
    /// Milliseconds after which a run of an isolated delegate is ended; absent: 30,000.
    pub run_limit_ms: Option<u64>,
    /// Milliseconds after which a start, partition, compilation or load of an isolated delegate is ended; absent: 600,000.
    pub compile_limit_ms: Option<u64>,
    /// Whether an isolated delegate is closed in by a sandbox; absent: `on`.
    pub sandbox: Option<SandboxMode>,
    /// Whether a compiled file has the weights of this backend's regions for the portable kernels, too; absent: `keep`, and `drop` for
    /// regions of `cpu` with more than 64 MiB of weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback_weights: Option<FallbackWeights>,
    /// The delegate's own options, checked against its own schema.
    #[schemars(with = "BTreeMap<String, serde_json::Value>")]
    pub options: toml::Table,
}

/// `backend.NAME.isolation`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Isolation {
    InProcess,
    Worker,
}

/// `backend.NAME.sandbox`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum SandboxMode {
    On,
    Off,
}

/// `backend.NAME.fallback_weights`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FallbackWeights {
    /// They are in the file: any region can run portably.
    Keep,
    /// The file is written without what only this backend's regions read and their blobs do not ask for. They cannot run portably then.
    Drop,
}

/// `backend.NAME.threads`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Threads {
    /// A number.
    Count(u32),
    /// `performance-cores`, `all-cores`: all that there are, so far.
    Named(String),
}

/// `[[rule]]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rule {
    /// Nodes that the rule is for.
    #[serde(rename = "match")]
    pub matches: RuleMatch,
    /// Backends that may not take them.
    pub deny: Vec<String>,
    /// Printed as the refusal.
    pub reason: String,
}

/// `match` of a rule; all that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RuleMatch {
    /// Glob on the operator, with `.` or `::` after the namespace: `aten.softmax*`.
    pub op: Option<String>,
    /// dtype of the first tensor: `f16`.
    pub dtype: Option<String>,
    /// Glob on the node's name.
    pub node: Option<String>,
}

/// `[[device]]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DeviceRule {
    /// Machines and devices that the rule is for.
    #[serde(rename = "match")]
    pub matches: DeviceMatch,
    /// Globs on the backends that may not be used there.
    pub deny: Vec<String>,
    /// Printed as the refusal.
    pub reason: String,
}

/// `match` of a device rule; all that is given must hold. Globs go by the whole text, whatever the case; comparisons are `<`, `<=`,
/// `=`, `>=`, `>`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DeviceMatch {
    /// Glob on the operating system: `linux`, `android`, `macos`, `ios`, `windows`.
    pub os: Option<String>,
    /// Glob on the machine's architecture: `aarch64`, `x86_64`.
    pub arch: Option<String>,
    /// Glob on any name that the system has for its chip: `sm8[45]50`.
    pub soc: Option<String>,
    /// Comparison of the gigabytes (2^30 bytes) of memory that the system has: `<6`.
    pub ram_gb: Option<String>,
    /// Glob on the name of a device of the backend.
    pub device: Option<String>,
    /// Glob on that device's architecture or chip, as the backend names it.
    pub device_arch: Option<String>,
    /// Glob on that device's maker.
    pub vendor: Option<String>,
    /// Glob on the version of that device's driver, or a comparison: `<44`.
    pub driver: Option<String>,
}

impl DeviceMatch {
    /// What is given, by key, with what it is compared as.
    pub fn given(&self) -> impl Iterator<Item = (&'static str, &str, PropertyKind)> {
        use PropertyKind::{Number, Text, Version};
        let all = [
            ("os", &self.os, Text),
            ("arch", &self.arch, Text),
            ("soc", &self.soc, Text),
            ("ram_gb", &self.ram_gb, Number),
            ("device", &self.device, Text),
            ("device_arch", &self.device_arch, Text),
            ("vendor", &self.vendor, Text),
            ("driver", &self.driver, Version),
        ];
        all.into_iter()
            .filter_map(|(key, condition, kind)| Some((key, condition.as_deref()?, kind)))
    }
}

/// `[profile.NAME]`: any of the tables above, merged over them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Profile {
    /// See [`Config::select`]; only what is given changes.
    #[schemars(with = "Option<Select>")]
    pub select: Option<toml::Table>,
    /// See [`Config::delegates`].
    #[schemars(with = "Option<Delegates>")]
    pub delegates: Option<toml::Table>,
    /// See [`Config::cache`].
    #[schemars(with = "Option<Cache>")]
    pub cache: Option<toml::Table>,
    /// See [`Config::backend`].
    #[schemars(with = "Option<BTreeMap<String, Backend>>")]
    pub backend: Option<toml::Table>,
    /// See [`Config::rule`]; replaces.
    pub rule: Option<Vec<Rule>>,
}
