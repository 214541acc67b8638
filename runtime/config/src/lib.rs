//! `backends.toml`: which delegates may take what, in which order, and what happens when they cannot.
//!
//! A configuration is made of layers (defaults < system < user < project < environment < flags). Tables merge, lists replace,
//! and every leaf remembers the layer that won. Unknown keys are errors that name the nearest key. This crate knows no
//! delegate and loads nothing.
//!
//! ```
//! use delegraph_config::{Fallback, Layers, Origin};
//!
//! let mut layers = Layers::default();
//! layers.add_text(Origin::Flag, "[select]\norder = [\"vulkan\", \"cpu\"]\nfallback = \"deny\"\n", None).unwrap();
//! let config = layers.resolve(None).unwrap();
//! assert_eq!(config.select.order, ["vulkan", "cpu"]);
//! assert_eq!(config.select.fallback, Fallback::Deny);
//! assert_eq!(layers.origin_of("select.fallback").unwrap().to_string(), "flag");
//! ```

mod check;
mod condition;
mod conformance;
mod error;
mod glob;
mod layer;
mod model;
mod place;

pub use condition::{Comparison, Condition, PropertyKind};
pub use conformance::{ListName, Lists, RequireConformance, RequireConformanceTable};
pub use error::ConfigError;
pub use glob::glob_match;
pub use layer::{Layers, Origin};
pub use model::{
    Backend, Cache, Config, Delegates, DeviceMatch, DeviceRule, Fallback, FallbackWeights, Isolation, Profile, Rule,
    RuleMatch, SandboxMode, Select, SelfCheck, Threads, Trust, Verify,
};
pub use place::{Environment, is_elevated, standard_layers, standard_layers_in};

/// The JSON schema of `backends.toml`, for editors; published as `vendor-docs/backends.schema.json`.
pub fn json_schema() -> serde_json::Value {
    check::schema().clone()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_published_schema_is_that_of_the_code() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vendor-docs/backends.schema.json");
        let published: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert!(
            published == crate::json_schema(),
            "stale: run `delegraph config schema > vendor-docs/backends.schema.json`"
        );
    }
}
