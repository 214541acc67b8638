//! Blobs in words.

use delegraph_abi::envelope::{Requirement, TensorSpec};
use delegraph_pte::overlay::section_key;

/// A blob's envelope in words.
pub fn describe_blob(blob: &[u8]) -> String {
    let envelope = match delegraph_abi::envelope::parse(blob) {
        Err(error) => return format!("no envelope: {error}"),
        Ok(envelope) => envelope,
    };
    let meta = &envelope.meta;
    let mut lines = vec![
        format!("delegate   {} {}", meta.delegate, meta.delegate_version),
        format!("format     {} version {}", meta.format, meta.format_version),
        format!(
            "target     {}",
            if meta.target.is_empty() { "any" } else { &meta.target }
        ),
        format!(
            "precision  {}",
            if meta.precision.is_empty() {
                "the graph's"
            } else {
                &meta.precision
            }
        ),
        format!("abi        {}.{}", meta.abi_major, meta.abi_minor),
        format!("drivers    {}", drivers(&meta.driver_min, &meta.driver_max)),
        format!("graph      {}", hex(&meta.graph_hash)),
        format!("options    {}", recorded(&meta.options_hash)),
        format!("weights    {}", recorded(&meta.weights_hash)),
        format!(
            "payload    {} bytes, sha256 {}",
            envelope.payload.len(),
            hex(&envelope.payload_hash)
        ),
    ];
    for (what, specs) in [("input", &meta.inputs), ("output", &meta.outputs)] {
        for (i, spec) in specs.iter().enumerate() {
            let needs = needs(spec.requirement).map_or(String::new(), |needs| format!(", {needs}"));
            lines.push(format!(
                "{what:<10} {i}: {} of {} dimensions{needs}",
                spec.dtype, spec.rank
            ));
        }
    }
    let mut apart = envelope.apart.iter().peekable();
    for (at, section) in envelope.sections.iter().enumerate() {
        let elsewhere = apart.next_if(|apart| apart.section == at);
        lines.push(format!(
            "section    {} {} bytes, aligned {}{}",
            section.name,
            elsewhere.map_or(section.bytes.len() as u64, |apart| apart.size),
            section.align,
            elsewhere.map_or(String::new(), |apart| format!(", shared: {}", section_key(&apart.hash)))
        ));
    }
    lines.join("\n")
}

/// What a blob requires of its tensors beyond the contract, a line a tensor: `input 0: aligned 256`. Empty where it requires nothing,
/// and for what is no blob.
pub fn blob_requirements(blob: &[u8]) -> Vec<String> {
    let Ok(envelope) = delegraph_abi::envelope::parse(blob) else {
        return Vec::new();
    };
    let line = |what: &str, (i, spec): (usize, &TensorSpec)| Some(format!("{what} {i}: {}", needs(spec.requirement)?));
    let inputs = envelope.meta.inputs.iter().enumerate();
    let outputs = envelope.meta.outputs.iter().enumerate();
    inputs
        .filter_map(|spec| line("input", spec))
        .chain(outputs.filter_map(|spec| line("output", spec)))
        .collect()
}

/// A requirement in words; `None`: nothing beyond the contract.
fn needs(requirement: Requirement) -> Option<String> {
    let mut needs = Vec::new();
    if requirement.alignment > 1 {
        needs.push(format!("aligned {}", requirement.alignment));
    }
    if requirement.size_multiple > 1 {
        needs.push(format!("room for a multiple of {} bytes", requirement.size_multiple));
    }
    (!needs.is_empty()).then(|| needs.join(", "))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn recorded(hash: &[u8; 32]) -> String {
    match hash.iter().all(|byte| *byte == 0) {
        true => "not recorded".to_string(),
        false => hex(hash),
    }
}

fn drivers(min: &str, max: &str) -> String {
    match (min, max) {
        ("", "") => "any".to_string(),
        (min, "") => format!("{min} and later"),
        ("", max) => format!("up to {max}"),
        (min, max) => format!("{min} to {max}"),
    }
}
