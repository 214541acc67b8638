//! Unknown keys, found by walking a table along the JSON schema.

use crate::model::Config;
use delegraph_types::nearest;
use serde_json::Value;
use std::sync::OnceLock;

/// A key that the schema does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unknown {
    /// Path from the root.
    pub(crate) path: Vec<String>,
    /// The nearest key of the same table.
    pub(crate) nearest: Option<String>,
}

/// The schema of [`Config`].
pub(crate) fn schema() -> &'static Value {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    SCHEMA.get_or_init(|| schemars::schema_for!(Config).to_value())
}

/// Every unknown key of a table.
pub(crate) fn unknown_keys(table: &toml::Table) -> Vec<Unknown> {
    let mut found = Vec::new();
    walk(
        &toml::Value::Table(table.clone()),
        schema(),
        &mut Vec::new(),
        &mut found,
    );
    found
}

fn walk(value: &toml::Value, schema: &'static Value, path: &mut Vec<String>, found: &mut Vec<Unknown>) {
    let schema = resolve(schema);
    match value {
        toml::Value::Array(items) => {
            if let Some(item_schema) = schema.get("items") {
                for (i, item) in items.iter().enumerate() {
                    path.push(i.to_string());
                    walk(item, item_schema, path, found);
                    path.pop();
                }
            }
        }
        toml::Value::Table(table) => {
            let properties = schema.get("properties").and_then(Value::as_object);
            let others = schema.get("additionalProperties").filter(|v| v.is_object());
            for (key, item) in table {
                path.push(key.clone());
                match (properties.and_then(|p| p.get(key)), others) {
                    (Some(inner), _) | (None, Some(inner)) => walk(item, inner, path, found),
                    (None, None) if properties.is_some() => found.push(Unknown {
                        path: path.clone(),
                        nearest: properties
                            .and_then(|p| nearest(key, p.keys().map(String::as_str)).map(str::to_string)),
                    }),
                    _ => {}
                }
                path.pop();
            }
        }
        _ => {}
    }
}

/// Follows `$ref` and picks the alternative of an optional that is not null.
fn resolve(value: &'static Value) -> &'static Value {
    let mut value = value;
    for _ in 0..8 {
        if let Some(reference) = value.get("$ref").and_then(Value::as_str) {
            match schema().pointer(reference.trim_start_matches('#')) {
                Some(target) => value = target,
                None => return value,
            }
        } else if let Some(choice) = value.get("anyOf").and_then(Value::as_array).and_then(|all| {
            all.iter()
                .find(|v| v.get("type").and_then(Value::as_str) != Some("null"))
        }) {
            value = choice;
        } else {
            return value;
        }
    }
    value
}
