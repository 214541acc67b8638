//! What a run was made of, as rows for people.

use crate::truth::Truth;
use delegraph_runner::run_info::DeviceId;

/// Rows of label and value. Hashes are whole: whoever compares needs all of them.
pub fn identity(truth: &Truth) -> Vec<(&'static str, String)> {
    let run = &truth.run;
    let mut rows = Vec::new();
    if let Some(library) = &run.library {
        let build = match library.build.as_str() {
            "" => String::new(),
            build => format!(", build {build}"),
        };
        let vendor = match library.vendor.as_str() {
            "" => String::new(),
            vendor => format!(" by {vendor}"),
        };
        rows.push((
            "Delegate",
            format!("{} {}{build}{vendor}", library.name, library.version),
        ));
        rows.push(("Library", format!("{}, sha256 {}", library.file, library.sha256)));
        rows.push((
            "Manifest",
            match library.manifest_sha256.as_str() {
                "" => "none".to_string(),
                hash => format!("sha256 {hash}"),
            },
        ));
        for (file, hash) in &library.dependents {
            rows.push(("Needs", format!("{file}, sha256 {hash}")));
        }
        rows.push(("ABI", format!("built with {}.{}", library.abi_major, library.abi_minor)));
    } else {
        rows.push((
            "Backends",
            match run.backends.is_empty() {
                true => "portable".to_string(),
                false => run.backends.join(", "),
            },
        ));
    }
    if run.devices.is_empty() {
        rows.push(("Device", "none listed".to_string()));
    }
    for device in &run.devices {
        let chosen = run.device.is_none() || run.device == Some(device.id);
        rows.push((if chosen { "Device" } else { "Other device" }, device_text(device)));
    }
    rows.push(("Host", run.host.clone()));
    rows.push((
        "Kit",
        format!(
            "{}, commit {}, references sha256 {}",
            run.kit.version, run.kit.commit, run.kit.references_sha256
        ),
    ));
    for list in &run.lists {
        rows.push((
            "List",
            format!("{}, {} cases, sha256 {}", list.name, list.cases, list.sha256),
        ));
    }
    if run.lists.is_empty() {
        rows.push((
            "List",
            "none: every case of the kit, or those that were chosen by name".to_string(),
        ));
    }
    rows.push((
        "Cases",
        format!(
            "{} of {}, sha256 of their ids {}",
            truth.cases.len(),
            run.cases,
            run.cases_sha256
        ),
    ));
    rows.push(("Mode", format!("{} {}, seed {}", run.suite, run.mode, run.seed)));
    if let Some((index, count)) = run.shard {
        rows.push(("Shard", format!("{index} of {count}")));
    }
    rows.push((
        "Waivers",
        match &run.waivers_sha256 {
            Some(hash) => format!("sha256 {hash}"),
            None => "none".to_string(),
        },
    ));
    rows.push(("Started", run.started.clone()));
    rows.push((
        "Ended",
        run.finished
            .clone()
            .unwrap_or_else(|| "not finished: it can be resumed".to_string()),
    ));
    rows
}

fn device_text(device: &DeviceId) -> String {
    let mut text = format!("{} ({}", device.name, device.kind);
    if !device.arch.is_empty() {
        text.push_str(&format!(", {}", device.arch));
    }
    text.push(')');
    match device.driver.as_str() {
        "" => text.push_str(", driver unknown"),
        driver => text.push_str(&format!(", driver {driver}")),
    }
    text
}
