//! The library exports the functions of the header, and nothing else.

mod common;

use object::Object;
use std::collections::BTreeSet;

#[test]
fn the_library_exports_what_is_listed() {
    let listed: BTreeSet<String> = include_str!("../symbols.txt").lines().map(str::to_string).collect();
    let path = common::built("delegraph_capi").expect("cargo builds the library of the crate that it tests");
    let bytes = std::fs::read(&path).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let name = |export: &object::read::Export<'_>| {
        let object::read::NameOrOrdinal::Name(name) = export.name() else {
            return "(a number without a name)".to_string();
        };
        let name = String::from_utf8_lossy(name).into_owned();
        // Mach-O puts a line before C names.
        match name.strip_prefix('_') {
            Some(rest) if file.format() == object::BinaryFormat::MachO => rest.to_string(),
            _ => name,
        }
    };
    let exports = file.exports().unwrap();
    let exported: BTreeSet<String> = exports.map(|export| name(&export.unwrap())).collect();
    assert_eq!(exported, listed, "{}", path.display());
    let header = include_str!("../include/delegraph_app.h");
    for symbol in &listed {
        assert!(header.contains(&format!("{symbol}(")), "the header has no `{symbol}`");
    }
}
