//! The `layout-check` feature of the SDK across a real library: layouts that are equal pass, and a mirror that was changed by hand is refused with the
//! names of struct and field. The changed mirror is a copy of the committed one, in a plugin of its own.

use delegraph_sdk::layout_check::{LayoutsFn, SYMBOL, TypeLayout, compare};
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

fn scratch() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}

/// Builds the plugin of a workspace, and gives its layouts. The library stays loaded.
fn layouts(workspace: &Path, library: &str) -> &'static TypeLayout {
    // One folder for both, so that dependencies are built once; the libraries have names of their own.
    let target = scratch().join("target");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--offline", "--package", "delegraph-layouts-plugin"])
        .current_dir(workspace)
        .env("CARGO_TARGET_DIR", &target)
        .status()
        .unwrap();
    assert!(status.success(), "the plugin does not build in {}", workspace.display());
    let (prefix, suffix) = (std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let path = target.join("debug").join(format!("{prefix}{library}{suffix}"));
    // SAFETY: the library was built just now from this repository; its symbol has the type that the SDK's macro gives it.
    unsafe {
        let library = Box::leak(Box::new(libloading::Library::new(path).unwrap()));
        library.get::<LayoutsFn>(SYMBOL.as_bytes()).unwrap()()
    }
}

#[test]
fn equal_layouts_pass() {
    compare(layouts(Path::new(env!("CARGO_MANIFEST_DIR")), "layouts_plugin")).unwrap();
}

#[test]
fn a_changed_mirror_is_refused_by_struct_and_field() {
    let workspace = scratch().join("changed-source");
    let _ = std::fs::remove_dir_all(&workspace);
    copy(&root().join("delegate-sdk/abi"), &workspace.join("abi"));
    std::fs::create_dir_all(workspace.join("plugin/src")).unwrap();
    std::fs::write(workspace.join("Cargo.toml"), manifest()).unwrap();
    std::fs::write(workspace.join("plugin/Cargo.toml"), PLUGIN).unwrap();
    std::fs::write(workspace.join("plugin/src/lib.rs"), LIBRARY).unwrap();
    let lock = root().join("conformance/layouts/Cargo.lock");
    std::fs::copy(lock, workspace.join("Cargo.lock")).unwrap();
    let mirror = workspace.join("abi/src/generated.rs");
    std::fs::write(&mirror, change(&std::fs::read_to_string(&mirror).unwrap())).unwrap();

    let difference = compare(layouts(&workspace, "layouts_changed")).unwrap_err();
    let places: Vec<&str> = difference.places().collect();
    assert_eq!(
        places,
        [
            // A field of another type, one of another name, two that changed places, and a parameter of another type.
            "dg_kv.reserved: the host has `u32`, the delegate `i32`",
            "dg_section: the host has `data: *const u8`, the delegate `size: u64`; the host has `size: u64`, the delegate `data: *const u8`",
            "dg_blob: the host has `device_chosen: u32`, the delegate `device_selected: u32`",
            "dg_host_api.get_extension.param_2: the host has `u32`, the delegate `i32`",
        ]
    );
    let text = difference.to_string();
    assert!(places.iter().all(|place| text.contains(place)), "{text}");
}

/// A plugin that has nothing of the SDK, which would not compile with another mirror.
const PLUGIN: &str = r#"[package]
name = "delegraph-layouts-plugin"
version = "0.1.0"
edition = "2024"

[lib]
name = "layouts_changed"
crate-type = ["cdylib"]

[dependencies]
abi_stable.workspace = true
delegraph-abi = { path = "../abi", features = ["layout-check"] }
"#;

/// As `export_layouts!` writes it.
const LIBRARY: &str = r#"
#[unsafe(no_mangle)]
pub extern "C" fn dg_layouts_v0_abi_stable_0_11() -> &'static abi_stable::type_layout::TypeLayout {
    <delegraph_abi::c::AllLayouts as abi_stable::StableAbi>::LAYOUT
}
"#;

/// The mirror with four changes that keep every size, and without the assertions that would name what changed.
fn change(text: &str) -> String {
    let text: String = text
        .lines()
        .filter(|line| {
            !(line.starts_with("    assert!(") && (line.contains("Section,") || line.contains("device_chosen")))
        })
        .map(|line| format!("{line}\n"))
        .collect();
    let text = within(&text, "pub struct Kv {", |body| {
        replace(body, "pub reserved: u32,", "pub reserved: i32,")
    });
    let text = replace(&text, "pub device_chosen: u32,", "pub device_selected: u32,");
    let text = replace(&text, " device_chosen: 0,", " device_selected: 0,");
    let text = within(&text, "pub struct Section {", |body| {
        let swapped = replace(body, "pub data: *const u8,", "pub swapped: u64,");
        let swapped = replace(&swapped, "pub size: u64,", "pub data: *const u8,");
        replace(&swapped, "pub swapped: u64,", "pub size: u64,")
    });
    within(&text, "pub struct HostApi {", |body| {
        replace(body, "min_revision: u32", "min_revision: i32")
    })
}

/// Changes the item that begins with `start`.
fn within(text: &str, start: &str, change: impl Fn(&str) -> String) -> String {
    let begin = text
        .find(start)
        .unwrap_or_else(|| panic!("the mirror has no `{start}`"));
    let end = begin + text[begin..].find("\n}\n").unwrap();
    format!("{}{}{}", &text[..begin], change(&text[begin..end]), &text[end..])
}

fn replace(text: &str, old: &str, new: &str) -> String {
    assert_eq!(text.matches(old).count(), 1, "`{old}` stands once");
    text.replace(old, new)
}

/// The repository's manifest, for the crates that were copied.
fn manifest() -> String {
    let text = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let mut manifest: toml::Table = text.parse().unwrap();
    manifest.retain(|key, _| key == "workspace");
    let workspace = manifest["workspace"].as_table_mut().unwrap();
    workspace.retain(|key, _| ["resolver", "package", "dependencies", "lints"].contains(&key));
    workspace.insert("members".into(), toml::Value::Array(vec!["plugin".into()]));
    manifest.to_string()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
