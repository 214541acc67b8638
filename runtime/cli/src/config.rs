//! `delegraph config`

use crate::args::{ConfigCommand, Global};
use crate::output::{Output, Tint, write_atomically};
use delegraph_config::{Config, ConfigError, Environment, Layers, Origin, Verify, standard_layers};

/// The layers of this call: the standard ones, then the flags.
///
/// # Errors
/// A layer is wrong.
pub fn layers(global: &Global, backends: &[String]) -> Result<Layers, ConfigError> {
    let mut layers = standard_layers(global.config.as_deref())?;
    let mut flags = toml::Table::new();
    if !backends.is_empty() {
        let order: Vec<toml::Value> = backends.iter().map(|name| toml::Value::String(name.clone())).collect();
        flags.insert("order".to_string(), toml::Value::Array(order));
    }
    if global.strict {
        flags.insert("fallback".to_string(), toml::Value::String("deny".to_string()));
    }
    if !flags.is_empty() {
        let table = toml::Table::from_iter([("select".to_string(), toml::Value::Table(flags))]);
        layers.add_text(Origin::Flag, &table.to_string(), None)?;
    }
    Ok(layers)
}

/// The configuration of this call.
///
/// # Errors
/// A layer is wrong, or there is no such profile.
pub fn resolve(global: &Global, backends: &[String], targets: &[String]) -> anyhow::Result<Config> {
    let layers = layers(global, backends)?;
    let mut config = layers.resolve(profile(global).as_deref())?;
    for warning in layers.warnings() {
        eprintln!("warning: {warning}");
    }
    if global.verify {
        config.delegates.verify = Verify::Payloads;
    }
    for target in targets {
        let Some((backend, target)) = target.split_once(':') else {
            return Err(crate::usage(format!("`--target {target}` is not BACKEND:TARGET")));
        };
        config.backend.entry(backend.to_string()).or_default().target = Some(target.to_string());
    }
    Ok(config)
}

/// The configuration of a call that may compile, with its `--shapes`.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_for(global: &Global, backends: &crate::args::BackendArgs, shapes: &[String]) -> anyhow::Result<Config> {
    let mut config = resolve(global, &backends.backend, &backends.target)?;
    if !shapes.is_empty() {
        config.select.shapes = shapes.to_vec();
    }
    Ok(config)
}

/// `--profile-name`, or `DELEGRAPH_PROFILE`.
fn profile(global: &Global) -> Option<String> {
    profile_in(global, &Environment::of_process())
}

fn profile_in(global: &Global, environment: &Environment<'_>) -> Option<String> {
    let given = global.profile_name.clone();
    given.or_else(|| environment.get("DELEGRAPH_PROFILE"))
}

/// Runs the command.
///
/// # Errors
/// The configuration is wrong, or a file cannot be written.
pub fn run(command: &ConfigCommand, global: &Global, output: &Output) -> anyhow::Result<u8> {
    match command {
        ConfigCommand::Show { origin } => show(*origin, global, output),
        ConfigCommand::Validate { file } => {
            let mut layers = Layers::default();
            match file {
                Some(file) => layers.add_file(Origin::Project(file.clone()), file)?,
                None => layers = standard_layers(global.config.as_deref())?,
            }
            let config = layers.resolve(profile(global).as_deref())?;
            let mut warnings = layers.warnings().to_vec();
            warnings.extend(delegraph::check_config(&config).err().map(|error| error.to_string()));
            for warning in &warnings {
                output.talk(format!("warning: {warning}"));
            }
            output.data("the configuration is valid");
            output.json(&serde_json::json!({ "schema": "delegraph.config/1", "valid": true, "warnings": warnings, "exit_code": 0 }))?;
            Ok(0)
        }
        ConfigCommand::Schema => {
            output.data(format!("{:#}", delegraph_config::json_schema()));
            output.json(&delegraph_config::json_schema())?;
            Ok(0)
        }
        ConfigCommand::Init { file } => {
            if file.exists() {
                return Err(crate::usage(format!("`{}` is there already", file.display())));
            }
            write_atomically(file, SAMPLE.as_bytes())?;
            output.talk(format!("wrote {}", file.display()));
            Ok(0)
        }
    }
}

fn show(origin: bool, global: &Global, output: &Output) -> anyhow::Result<u8> {
    let layers = layers(global, &[])?;
    let profile = profile(global);
    let config = layers.resolve(profile.as_deref())?;
    if origin {
        for (key, value, origin) in layers.leaves(profile.as_deref())? {
            output.data(format!(
                "{key} = {value}  {}",
                output.tint(Tint::Dim, format!("# {origin}"))
            ));
        }
        output.data(output.tint(Tint::Dim, "# everything else: default"));
    } else {
        output.data(toml::to_string(&config)?.trim_end());
    }
    let mut object = serde_json::to_value(&config)?;
    if let Some(map) = object.as_object_mut() {
        map.insert("exit_code".to_string(), 0.into());
    }
    output.json(&object)?;
    Ok(0)
}

const SAMPLE: &str = r#"# Which delegates may take what. Every key is optional; `delegraph config schema` prints the schema.
schema = 1

[select]
order = ["reference"]        # first that can take a node wins; the portable kernels are always last
fallback = "allow"           # allow | warn | deny
min_nodes = 1                # smaller islands stay on the CPU
self_check = "off"           # off | first-run: compare each region with the portable kernels once

# [cache]
# folder = "auto"            # keeps blobs that are compiled at load: a folder, or the user's cache folder

[delegates]
search = ["delegates.d"]     # folders of *.delegate.toml, relative to this file

# [backend.vulkan]
# device = "auto"            # auto | index | name glob

# [[rule]]                   # exceptions, most specific last
# match = { op = "aten.softmax*", dtype = "f16" }
# deny = ["vulkan"]
# reason = "accuracy on driver 44"

# [[device]]                 # where the app meets devices that it never saw
# match = { soc = "sm8[45]50", driver = "<44", os = "android", ram_gb = "<6" }
# deny = ["vulkan"]
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn an_elevated_process_takes_no_profile_from_its_environment() {
        let lookup = |name: &str| (name == "DELEGRAPH_PROFILE").then(|| "loose".into());
        let global = |arguments: &[&str]| crate::args::Cli::parse_from(arguments).global;
        let (plain, flagged) = (
            global(&["delegraph", "devices"]),
            global(&["delegraph", "devices", "--profile-name", "own"]),
        );
        for (elevated, from_environment) in [(false, Some("loose".to_string())), (true, None)] {
            let environment = Environment::made_up(elevated, &lookup);
            assert_eq!(profile_in(&plain, &environment), from_environment);
            assert_eq!(profile_in(&flagged, &environment).as_deref(), Some("own"));
        }
    }
}
