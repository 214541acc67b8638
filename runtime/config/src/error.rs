//! What can be wrong with a configuration.

use std::path::PathBuf;

/// An error of a configuration. All are the user's to mend: exit code 2.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The text is not TOML, or a value is of another type than the key takes.
    #[error("{place}: {message}")]
    Syntax {
        /// File or layer, with line and column where known.
        place: String,
        /// What is wrong.
        message: String,
    },
    /// A key that no version of the schema so far has.
    #[error("{place}: unknown key `{key}`{}", hint(nearest))]
    UnknownKey {
        /// File or layer.
        place: String,
        /// Dotted path of the key.
        key: String,
        /// The nearest known key.
        nearest: Option<String>,
    },
    /// `--profile-name` or `DELEGRAPH_PROFILE` names a profile that no layer has.
    #[error("no profile `{name}`{}", hint(nearest))]
    UnknownProfile {
        /// The name asked for.
        name: String,
        /// The nearest profile.
        nearest: Option<String>,
    },
    /// A file for another major version of the schema.
    #[error("{place}: schema {found} is not supported\n  hint: this build reads schema 1")]
    Schema {
        /// File or layer.
        place: String,
        /// What the file says.
        found: String,
    },
}

fn hint(nearest: &Option<String>) -> String {
    nearest
        .as_ref()
        .map(|n| format!("\n  hint: did you mean `{n}`?"))
        .unwrap_or_default()
}
