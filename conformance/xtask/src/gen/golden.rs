//! The golden layouts: what a later version is compared with. `since` is the number of a version, from 0.

use super::layout::{MODELS, layout};
use super::model::Description;
use anyhow::Result;
use serde_json::{Map, Value, json};

/// `golden/v<major>.<minor>.json`: the layouts of the description's own version.
pub fn layouts(description: &Description) -> Result<String> {
    let mut models = Map::new();
    for model in MODELS {
        let mut structs = Map::new();
        for (name, members) in description.all_members()? {
            let placed = layout(description, name, &members, model)?;
            let fields: Vec<Value> = members
                .iter()
                .zip(&placed.members)
                .map(|(m, (offset, size))| json!({"name": m.name, "offset": offset, "size": size, "since": m.since}))
                .collect();
            structs.insert(
                name.to_string(),
                json!({"size": placed.size, "align": placed.align, "fields": fields}),
            );
        }
        models.insert(model.name.to_string(), Value::Object(structs));
    }
    let enums: Map<String, Value> = description
        .enums
        .iter()
        .map(|e| {
            let items: Map<String, Value> = e.items.iter().map(|i| (i.name.clone(), json!(i.value))).collect();
            (e.name.clone(), Value::Object(items))
        })
        .collect();
    let golden = json!({
        "major": description.major,
        "minor": description.minor,
        "layout_hash": format!("{:016x}", description.layout_hash()?),
        "enums": enums,
        "models": models,
    });
    Ok(format!("{}\n", serde_json::to_string_pretty(&golden)?))
}
