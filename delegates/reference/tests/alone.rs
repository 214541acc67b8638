//! The delegate has no private door: it depends on the SDK, and on nothing else.

/// Names in the section `[dependencies]` of a manifest.
fn dependencies(manifest: &str) -> Vec<&str> {
    let section = manifest.split_once("[dependencies]").map_or("", |(_, rest)| rest);
    let lines = section.lines().map(str::trim).take_while(|line| !line.starts_with('['));
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split(['.', ' ', '=']).next().unwrap_or(line))
        .collect()
}

#[test]
fn it_depends_on_the_sdk_alone() {
    assert_eq!(dependencies(include_str!("../Cargo.toml")), ["delegraph-sdk"]);
    assert_eq!(
        dependencies(include_str!("../plugin/Cargo.toml")),
        ["delegraph-reference", "delegraph-sdk"]
    );
}

#[test]
fn it_has_no_unsafe_code() {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
    let mut folders = vec![std::path::PathBuf::from(source)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = std::fs::read_to_string(&path).unwrap();
                assert!(
                    !text.contains("unsafe {") && !text.contains("unsafe fn"),
                    "{}",
                    path.display()
                );
            }
        }
    }
}
