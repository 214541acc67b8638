//! Layers: text to tables, merged, with the origin of every leaf.

use crate::check::unknown_keys;
use crate::condition::Condition;
use crate::error::ConfigError;
use crate::model::{Config, Trust};
use delegraph_types::{DType, nearest};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// Where a layer comes from, lowest first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Built in.
    Default,
    /// For every user of the machine.
    System(PathBuf),
    /// For this user.
    User(PathBuf),
    /// Of the project: beside the model or in the working folder, or given by `--config`.
    Project(PathBuf),
    /// An environment variable.
    Environment(String),
    /// A profile of one of the files.
    Profile(String),
    /// The command line, or the app's own bytes.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::System(path) => write!(f, "system {}", path.display()),
            Origin::User(path) => write!(f, "user {}", path.display()),
            Origin::Project(path) => write!(f, "project {}", path.display()),
            Origin::Environment(name) => write!(f, "environment {name}"),
            Origin::Profile(name) => write!(f, "profile {name}"),
            Origin::Flag => f.write_str("flag"),
        }
    }
}

/// Layers in order, lowest first.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    layers: Vec<Layer>,
    warnings: Vec<String>,
}

#[derive(Debug, Clone)]
struct Layer {
    origin: Origin,
    table: toml::Table,
    /// What relative paths are relative to.
    folder: Option<PathBuf>,
    /// A file: a chosen profile comes over it wherever it stands.
    is_file: bool,
}

/// Layers merged, with the origin of every leaf.
#[derive(Debug, Default)]
struct Merged {
    table: toml::Table,
    origins: BTreeMap<String, Origin>,
    /// The folder of the file that set `delegates.trust`.
    trust_folder: Option<PathBuf>,
}

/// The keys that are settled once `trust` is `require`.
const TRUST_KEYS: [&str; 4] = ["trust", "lock", "keys", "worker"];

/// The key of the demand for certificates.
const CONFORMANCE: &str = "require_conformance";

impl Merged {
    fn add(&mut self, table: &toml::Table, origin: &Origin, folder: Option<&Path>) {
        let mut table = table.clone();
        let trust = |table: &toml::Table| table.get("delegates")?.get("trust")?.as_str().map(str::to_string);
        if trust(&self.table).as_deref() == Some("require") {
            // Who may choose a later layer, by an environment variable or the folder that a command is run in, may not let
            // in what the earlier one keeps out.
            if let Some(toml::Value::Table(delegates)) = table.get_mut("delegates") {
                TRUST_KEYS.iter().for_each(|key| drop(delegates.remove(*key)));
                // A demand for certificates may be added, which keeps more out, and then it stands.
                if self.table.get("delegates").and_then(|d| d.get(CONFORMANCE)).is_some() {
                    delegates.remove(CONFORMANCE);
                }
            }
        }
        if trust(&table).is_some() {
            self.trust_folder = folder.map(Path::to_path_buf);
        }
        merge(&mut self.table, table, &mut self.origins, origin, &mut String::new());
    }
}

impl Layers {
    /// Adds a text as a layer over those already there, and over a profile of theirs: flags, or an app's own bytes. A profile
    /// that the text itself has comes over it. `folder` is what relative paths in it are relative to.
    ///
    /// # Errors
    /// Not TOML, an unknown key, another major schema, or a value of a wrong type.
    pub fn add_text(&mut self, origin: Origin, text: &str, folder: Option<&Path>) -> Result<(), ConfigError> {
        self.add(origin, text, folder, false)
    }

    /// Adds a file as a layer.
    ///
    /// # Errors
    /// It cannot be read; else as [`Layers::add_text`].
    pub fn add_file(&mut self, origin: Origin, path: &Path) -> Result<(), ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_path_buf(),
            source,
        })?;
        let folder = path
            .parent()
            .filter(|p| !p.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        self.add(origin, &text, Some(folder), true)
    }

    fn add(&mut self, origin: Origin, text: &str, folder: Option<&Path>, is_file: bool) -> Result<(), ConfigError> {
        let place = origin.to_string();
        let mut table: toml::Table = text
            .parse()
            .map_err(|error: toml::de::Error| syntax(&place, text, &error))?;
        let newer = self.newer_minor(&place, &table)?;
        for unknown in unknown_keys(&table) {
            let key = unknown.path.join(".");
            if !newer {
                return Err(ConfigError::UnknownKey {
                    place: place_of_key(&place, text, unknown.path.last().map_or("", String::as_str)),
                    key,
                    nearest: unknown.nearest,
                });
            }
            self.warnings
                .push(format!("{place}: key `{key}` is of a newer schema and is ignored"));
            remove(&mut table, &unknown.path);
        }
        // Types are checked on each layer by itself, so that the error names the right file.
        let config: Config = toml::from_str(&table.to_string()).map_err(|error| syntax(&place, text, &error))?;
        check_values(&place, &config)?;
        if let Some(folder) = folder {
            anchor_paths(&mut table, folder);
            if let Some(toml::Value::Table(profiles)) = table.get_mut("profile") {
                let tables = profiles.iter_mut().filter_map(|(_, profile)| profile.as_table_mut());
                tables.for_each(|profile| anchor_paths(profile, folder));
            }
        }
        self.layers.push(Layer {
            origin,
            table,
            folder: folder.map(Path::to_path_buf),
            is_file,
        });
        Ok(())
    }

    /// The configuration, with `profile` merged over the files and under everything else.
    ///
    /// # Errors
    /// No such profile, or a value in it of a wrong type.
    pub fn resolve(&self, profile: Option<&str>) -> Result<Config, ConfigError> {
        let merged = self.merged(profile)?;
        let text = merged.table.to_string();
        let mut config: Config =
            toml::from_str(&text).map_err(|error| syntax("merged configuration", &text, &error))?;
        check_values("merged configuration", &config)?;
        if config.delegates.trust != Trust::Off && config.delegates.lock.is_none() {
            config.delegates.lock = merged.trust_folder.map(|folder| folder.join(LOCK));
        }
        Ok(config)
    }

    fn merged(&self, profile: Option<&str>) -> Result<Merged, ConfigError> {
        let mut merged = Merged::default();
        let profiles = |layer: &Layer| layer.table.get("profile").and_then(toml::Value::as_table).cloned();
        let chosen = |layer: &Layer| profiles(layer)?.get(profile?)?.as_table().cloned();
        // The last layer that a chosen profile comes over: a file, or a text that has the profile itself.
        let under = self
            .layers
            .iter()
            .rposition(|layer| layer.is_file || chosen(layer).is_some());
        for (i, layer) in self.layers.iter().enumerate() {
            merged.add(&layer.table, &layer.origin, layer.folder.as_deref());
            if Some(i) == under
                && let Some(name) = profile
            {
                let origin = Origin::Profile(name.to_string());
                self.layers[..=i]
                    .iter()
                    .filter_map(|layer| Some((chosen(layer)?, layer.folder.as_deref())))
                    .for_each(|(table, folder)| merged.add(&table, &origin, folder));
            }
        }
        match profile {
            Some(name) if !self.layers.iter().any(|layer| chosen(layer).is_some()) => {
                let names: Vec<String> = self
                    .layers
                    .iter()
                    .filter_map(profiles)
                    .flat_map(|p| p.into_iter().map(|(k, _)| k))
                    .collect();
                Err(ConfigError::UnknownProfile {
                    name: name.to_string(),
                    nearest: nearest(name, names.iter().map(String::as_str)).map(str::to_string),
                })
            }
            _ => Ok(merged),
        }
    }

    /// The layer that set a leaf (`select.order`); `None`: the default holds.
    pub fn origin_of(&self, key: &str) -> Option<Origin> {
        self.merged(None).ok()?.origins.remove(key)
    }

    /// Every leaf that some layer set, with its value and origin.
    ///
    /// # Errors
    /// No such profile.
    pub fn leaves(&self, profile: Option<&str>) -> Result<Vec<(String, String, Origin)>, ConfigError> {
        let merged = self.merged(profile)?;
        let leaf = |(key, origin): (&String, &Origin)| {
            let mut value: Option<&toml::Value> = None;
            for part in key.split('.') {
                value = match value {
                    None => merged.table.get(part),
                    Some(v) => v.get(part),
                };
            }
            Some((key.clone(), value?.to_string(), origin.clone()))
        };
        Ok(merged.origins.iter().filter_map(leaf).collect())
    }

    /// Warnings of the layers so far.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Whether the table is of a newer minor version of the schema.
    fn newer_minor(&self, place: &str, table: &toml::Table) -> Result<bool, ConfigError> {
        match table.get("schema") {
            None | Some(toml::Value::Integer(1)) => Ok(false),
            Some(toml::Value::String(text)) if text == "1" || text.starts_with("1.") => Ok(text
                .split('.')
                .nth(1)
                .and_then(|minor| minor.parse::<u32>().ok())
                .is_some_and(|minor| minor > 0)),
            Some(other) => Err(ConfigError::Schema {
                place: place.to_string(),
                found: other.to_string(),
            }),
        }
    }
}

/// What the types let through and no reader could act on.
fn check_values(place: &str, config: &Config) -> Result<(), ConfigError> {
    let wrong = |message: String| ConfigError::Syntax {
        place: place.to_string(),
        message,
    };
    let rules = config.rule.iter().chain(
        config
            .profile
            .values()
            .filter_map(|profile| profile.rule.as_ref())
            .flatten(),
    );
    for rule in rules {
        if let Some(dtype) = rule
            .matches
            .dtype
            .as_deref()
            .filter(|name| DType::from_name(name).is_none())
        {
            let hint = nearest(dtype, DType::all().map(DType::name))
                .map_or(String::new(), |n| format!("\n  hint: did you mean `{n}`?"));
            return Err(wrong(format!(
                "there is no dtype `{dtype}` in the `match` of a rule{hint}"
            )));
        }
    }
    for (i, rule) in config.device.iter().enumerate() {
        for (key, condition, kind) in rule.matches.given() {
            Condition::parse(condition, kind)
                .map_err(|problem| wrong(format!("`device.{i}.match.{key}`: {problem}")))?;
        }
    }
    if let Some(demand) = &config.delegates.require_conformance {
        demand
            .lists()
            .map_err(|problem| wrong(format!("`delegates.require_conformance`: {problem}")))?;
    }
    if config.select.max_border_bytes.is_nan() || config.select.max_border_bytes < 0.0 {
        return Err(wrong(format!(
            "`select.max_border_bytes` is {}, not 0 or more",
            config.select.max_border_bytes
        )));
    }
    if !(0.0..=1.0).contains(&config.select.require_coverage) {
        return Err(wrong(format!(
            "`select.require_coverage` is {}, not from 0 to 1",
            config.select.require_coverage
        )));
    }
    Ok(())
}

/// Name of the lock file beside the file that set `delegates.trust`.
const LOCK: &str = "delegraph.lock";

/// Tables merge, everything else replaces.
fn merge(
    into: &mut toml::Table,
    from: toml::Table,
    origins: &mut BTreeMap<String, Origin>,
    origin: &Origin,
    prefix: &mut String,
) {
    for (key, value) in from {
        let length = prefix.len();
        if !prefix.is_empty() {
            prefix.push('.');
        }
        prefix.push_str(&key);
        match value {
            toml::Value::Table(table) => {
                let slot = into
                    .entry(key)
                    .or_insert_with(|| toml::Value::Table(toml::Table::new()));
                if !slot.is_table() {
                    *slot = toml::Value::Table(toml::Table::new());
                }
                if let toml::Value::Table(inner) = slot {
                    merge(inner, table, origins, origin, prefix);
                }
            }
            other => {
                into.insert(key, other);
                origins.insert(prefix.clone(), origin.clone());
            }
        }
        prefix.truncate(length);
    }
}

fn remove(table: &mut toml::Table, path: &[String]) {
    match path {
        [] => {}
        [last] => {
            table.remove(last);
        }
        [first, rest @ ..] => match table.get_mut(first) {
            Some(toml::Value::Table(inner)) => remove(inner, rest),
            Some(toml::Value::Array(items)) => {
                if let [index, rest @ ..] = rest
                    && let Some(toml::Value::Table(inner)) = index.parse().ok().and_then(|i: usize| items.get_mut(i))
                {
                    remove(inner, rest);
                }
            }
            _ => {}
        },
    }
}

/// Makes the path-valued keys of a layer absolute or relative to the working folder.
fn anchor_paths(table: &mut toml::Table, folder: &Path) {
    let anchor = |value: &mut toml::Value, bare_names: bool| {
        if let toml::Value::String(text) = value {
            let path = Path::new(text.as_str());
            let bare = path.components().count() == 1;
            // A bare library name is looked for by the host too, so it is anchored only where the file is there.
            if path.is_relative() && (!bare || bare_names || folder.join(path).exists()) {
                *text = folder.join(path).to_string_lossy().into_owned();
            }
        }
    };
    for key in ["search", "keys"] {
        if let Some(toml::Value::Array(items)) = table.get_mut("delegates").and_then(|d| d.get_mut(key)) {
            items.iter_mut().for_each(|item| anchor(item, true));
        }
    }
    for key in ["lock", "worker"] {
        if let Some(path) = table.get_mut("delegates").and_then(|d| d.get_mut(key)) {
            anchor(path, true);
        }
    }
    if let Some(cache) = table.get_mut("cache").and_then(|cache| cache.get_mut("folder"))
        && cache.as_str() != Some("auto")
    {
        anchor(cache, true);
    }
    if let Some(toml::Value::Table(backends)) = table.get_mut("backend") {
        for (_, backend) in backends.iter_mut() {
            if let Some(library) = backend.get_mut("library") {
                anchor(library, false);
            }
        }
    }
}

fn syntax(place: &str, text: &str, error: &toml::de::Error) -> ConfigError {
    let place = match error.span() {
        Some(span) if span.start <= text.len() && text.is_char_boundary(span.start) => {
            let before = &text[..span.start];
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().map_or(0, |l| l.chars().count()) + 1;
            format!("{place}:{line}:{column}")
        }
        _ => place.to_string(),
    };
    ConfigError::Syntax {
        place,
        message: error.message().to_string(),
    }
}

/// `place:line` of the first line that begins with the key.
fn place_of_key(place: &str, text: &str, key: &str) -> String {
    let line = text.lines().position(|line| {
        let line = line.trim_start().trim_start_matches('[');
        line.strip_prefix(key)
            .is_some_and(|rest| rest.trim_start().starts_with(['=', '.', ']']))
            || line.ends_with(&format!("{key}]"))
    });
    line.map_or_else(|| place.to_string(), |line| format!("{place}:{}", line + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RequireConformance;
    use crate::model::Fallback;

    fn layers(texts: &[&str]) -> Result<Layers, ConfigError> {
        let mut layers = Layers::default();
        for text in texts {
            layers.add_text(Origin::Flag, text, None)?;
        }
        Ok(layers)
    }

    const SAMPLE: &str = include_str!("../tests/backends.toml");

    #[test]
    fn the_documented_sample_is_accepted() {
        let config = layers(&[SAMPLE]).unwrap().resolve(Some("release")).unwrap();
        assert_eq!(config.select.order, ["hexagon", "vulkan", "cpu"]);
        assert_eq!(config.select.fallback, Fallback::Deny, "the profile wins");
        assert_eq!(config.backend["hexagon"].options["vtcm_mb"].as_integer(), Some(8));
        assert_eq!(config.rule[0].matches.op.as_deref(), Some("aten.softmax*"));
    }

    #[test]
    fn tables_merge_and_lists_replace() {
        let all = layers(&[SAMPLE, "[select]\norder = [\"cpu\"]\n"]).unwrap();
        let config = all.resolve(None).unwrap();
        assert_eq!(config.select.order, ["cpu"]);
        assert_eq!(config.select.min_nodes, 3);
    }

    #[test]
    fn errors_name_the_place_and_the_nearest_key() {
        let cases = [
            (
                "[select]\nfalback = \"deny\"",
                "flag:2: unknown key `select.falback`\n  hint: did you mean `fallback`?",
            ),
            (
                "[backend.cpu]\nthread = 2",
                "flag:2: unknown key `backend.cpu.thread`\n  hint: did you mean `threads`?",
            ),
            ("[[rule]]\nmatch = { oops = \"x\" }", "unknown key `rule.0.match.oops`"),
            ("[select]\nfallback = \"maybe\"", "unknown variant `maybe`"),
            ("[select\n", "flag:1:"),
            ("schema = 2", "schema 2 is not supported"),
        ];
        for (text, want) in cases {
            let error = layers(&[text]).unwrap_err().to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
    }

    #[test]
    fn a_newer_minor_only_warns() {
        let layers = layers(&["schema = \"1.7\"\n[select]\nsomething_new = 1\nmin_nodes = 9\n"]).unwrap();
        assert_eq!(layers.warnings().len(), 1);
        assert_eq!(layers.resolve(None).unwrap().select.min_nodes, 9);
    }

    #[test]
    fn flags_are_over_a_profile_and_its_paths_are_from_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("backends.toml");
        let text = "[select]\nmin_nodes = 2\n[profile.p.select]\norder = [\"a\"]\nmin_nodes = 4\n\
                    [profile.p.delegates]\nsearch = [\"d\"]\n";
        std::fs::write(&path, text).unwrap();
        let mut layers = Layers::default();
        layers.add_file(Origin::Project(path.clone()), &path).unwrap();
        layers
            .add_text(Origin::Flag, "[select]\norder = [\"b\"]\n", None)
            .unwrap();
        let config = layers.resolve(Some("p")).unwrap();
        assert_eq!(
            (config.select.order, config.select.min_nodes),
            (vec!["b".to_string()], 4)
        );
        assert_eq!(config.delegates.search, [folder.path().join("d")]);
        let leaves = layers.leaves(Some("p")).unwrap();
        let origin = |key: &str| {
            leaves
                .iter()
                .find(|(k, ..)| k == key)
                .map(|(.., origin)| origin.to_string())
        };
        assert_eq!(origin("select.order").as_deref(), Some("flag"));
        assert_eq!(origin("select.min_nodes").as_deref(), Some("profile p"));
    }

    #[test]
    fn values_that_nobody_could_act_on_are_refused() {
        let cases = [
            ("[[rule]]\nmatch = { dtype = \"f17\" }\n", "no dtype `f17`"),
            ("[select]\nrequire_coverage = 85\n", "not from 0 to 1"),
            (
                "[delegates]\nrequire_conformance = \"Core 1\"\n",
                "`delegates.require_conformance`: `Core 1` is no list",
            ),
            ("[delegates]\nrequire_conformance = []\n", "names no list"),
            (
                "[delegates]\nrequire_conformance = { list = \"core\", unsgned = true }\n",
                "did you mean `unsigned`",
            ),
            ("[select]\nmax_border_bytes = -1\n", "not 0 or more"),
            ("[select]\nmax_border_bytes = nan\n", "not 0 or more"),
            (
                "[[device]]\nmatch = { driver = \"<\" }\n",
                "`device.0.match.driver`: `<` compares with no version",
            ),
            ("[[device]]\nmatch = { os = \"<3\" }\n", "is a name: give a glob"),
            ("[[device]]\nmatch = { ram_gb = \"lots\" }\n", "no number"),
            ("[[device]]\nmatch = { drivr = \"<3\" }\n", "did you mean `driver`"),
        ];
        for (text, words) in cases {
            let error = layers(&[text]).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn the_lock_lies_beside_the_file_that_set_trust() {
        let folder = tempfile::tempdir().unwrap();
        let (low, high) = (folder.path().join("low"), folder.path().join("high"));
        let config = |low_text: &str, high_text: &str, profile: Option<&str>| {
            let mut layers = Layers::default();
            layers
                .add_text(Origin::System(low.join("backends.toml")), low_text, Some(&low))
                .unwrap();
            layers
                .add_text(Origin::Project(high.join("backends.toml")), high_text, Some(&high))
                .unwrap();
            layers.resolve(profile).unwrap().delegates
        };
        let warn = "[delegates]\ntrust = \"warn\"\n";
        assert_eq!(config("", "", None).lock, None);
        assert_eq!(config(warn, "", None).lock, Some(low.join("delegraph.lock")));
        assert_eq!(config(warn, warn, None).lock, Some(high.join("delegraph.lock")));
        let named = "[delegates]\nlock = \"pins\"\nkeys = [\"a.pub\"]\n";
        let both = config(warn, named, None);
        assert_eq!(
            (both.lock, both.keys),
            (Some(high.join("pins")), vec![high.join("a.pub")])
        );
        let profile = config(
            "[profile.p.delegates]\ntrust = \"warn\"\n",
            "[select]\nmin_nodes = 1",
            Some("p"),
        );
        assert_eq!(profile.lock, Some(low.join("delegraph.lock")));
    }

    #[test]
    fn what_a_layer_requires_no_later_one_lets_go() {
        let folder = tempfile::tempdir().unwrap();
        let (low, high) = (folder.path().join("low"), folder.path().join("high"));
        let text = "[delegates]\ntrust = \"require\"\nkeys = [\"a.pub\"]\n[profile.p.delegates]\ntrust = \"off\"\n";
        let mut layers = Layers::default();
        layers
            .add_text(Origin::System(low.join("backends.toml")), text, Some(&low))
            .unwrap();
        let loose = "[delegates]\ntrust = \"off\"\nlock = \"mine\"\nkeys = [\"mine.pub\"]\nsearch = [\"d\"]\n";
        let environment = Origin::Environment("DELEGRAPH_CONFIG=x".to_string());
        layers.add_text(environment, loose, Some(&high)).unwrap();
        for profile in [None, Some("p")] {
            let delegates = layers.resolve(profile).unwrap().delegates;
            assert_eq!(delegates.trust, Trust::Require);
            assert_eq!(delegates.lock, Some(low.join("delegraph.lock")));
            assert_eq!(delegates.keys, [low.join("a.pub")]);
            assert_eq!(delegates.search, [high.join("d")], "the rest merges as ever");
        }
        assert!(matches!(layers.origin_of("delegates.trust"), Some(Origin::System(_))));
        // A demand for certificates is added, and no layer after that takes it back.
        let mut layers = Layers::default();
        layers.add_text(Origin::Flag, text, None).unwrap();
        let demands = ["\"core-0.9\"", "{ list = \"core\", unsigned = true }"];
        for demand in demands {
            let text = format!("[delegates]\nrequire_conformance = {demand}\n");
            layers.add_text(Origin::Flag, &text, None).unwrap();
        }
        let required = layers.resolve(None).unwrap().delegates.require_conformance.unwrap();
        assert_eq!(required, RequireConformance::One("core-0.9".to_string()));
        // Less than `require` is only a setting.
        let mut layers = Layers::default();
        layers
            .add_text(Origin::Flag, "[delegates]\ntrust = \"warn\"", None)
            .unwrap();
        layers.add_text(Origin::Flag, loose, None).unwrap();
        assert_eq!(layers.resolve(None).unwrap().delegates.trust, Trust::Off);
    }

    #[test]
    fn an_unknown_profile_is_an_error() {
        let error = layers(&[SAMPLE])
            .unwrap()
            .resolve(Some("relase"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("did you mean `release`"), "{error}");
    }

    #[test]
    fn the_cache_folder_is_from_the_file_unless_it_is_the_users() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("backends.toml");
        for (given, wanted) in [
            ("cache", folder.path().join("cache")),
            ("/var/cache/x", PathBuf::from("/var/cache/x")),
            ("auto", PathBuf::from("auto")),
            ("./auto", folder.path().join("./auto")),
        ] {
            std::fs::write(&path, format!("[cache]\nfolder = \"{given}\"\n")).unwrap();
            let mut layers = Layers::default();
            layers.add_file(Origin::Project(path.clone()), &path).unwrap();
            let cache = layers.resolve(None).unwrap().cache;
            assert_eq!((cache.folder, cache.quota_mb), (Some(wanted), 1024), "{given}");
        }
    }

    #[test]
    fn relative_paths_are_from_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("backends.toml");
        std::fs::write(&path, "[delegates]\nsearch = [\"delegates.d\"]\n").unwrap();
        let mut layers = Layers::default();
        layers
            .add_file(Origin::Project(path), &folder.path().join("backends.toml"))
            .unwrap();
        assert_eq!(
            layers.resolve(None).unwrap().delegates.search,
            [folder.path().join("delegates.d")]
        );
    }
}
