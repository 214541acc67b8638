//! backends.toml: layers, origins, rules, JSON schema.
