//! `delegraph delegate new`: a folder with a whole delegate, from the templates of the SDK.

use crate::args::{DelegateNewArgs, Language};
use crate::conform::quote;
use crate::output::Output;
use std::path::{Path, PathBuf};

/// A file of a template: its path in the folder, and its text. The templates are delegates as they stand, named `my-npu`.
type File = (&'static str, &'static str);

macro_rules! files {
    ($folder:literal: $($path:literal)*) => {
        &[$(($path, include_str!(concat!("../../../../delegate-sdk/", $folder, "/", $path)))),*]
    };
}

const RUST: &[File] = files!("templates/rust":
    "Cargo.toml" "README.md" "my-npu.delegate.toml" "src/lib.rs" "src/ops.rs" "src/caps.rs" "src/compile.rs" "src/execute.rs"
    "src/device.rs");

const C: &[File] = files!("templates/c":
    "Makefile" "README.md" "my-npu.delegate.toml" "my_npu.h" "main.c" "ops.c" "caps.c" "compile.c" "execute.c" "device.c");

const CPP: &[File] = files!("templates/cpp":
    "Makefile" "README.md" "my-npu.delegate.toml" "my_npu.hpp" "main.cpp" "ops.cpp" "caps.cpp" "compile.cpp" "execute.cpp"
    "device.cpp");

const HEADERS: &[File] = files!("": "include/delegraph.h" "include/delegraph_image.h" "include/delegraph_ops.h");
const CPP_HEADERS: &[File] = files!("": "include/delegraph.hpp");

/// Where a delegate in Rust gets the SDK from, unless `--sdk` names a folder.
const REPOSITORY: &str = "https://github.com/delegraph/delegraph";

/// Runs the command.
///
/// # Errors
/// A name that is no backend id, a folder that is there already, or one that cannot be written.
pub fn run(args: &DelegateNewArgs, output: &Output) -> anyhow::Result<u8> {
    check_name(&args.name)?;
    check_vendor(&args.vendor)?;
    let sdk = sdk(args)?;
    let folder = args.output.clone().unwrap_or_else(|| PathBuf::from(&args.name));
    let files = files(args, &sdk);
    write(&folder, &files)?;
    for (path, _) in &files {
        output.detail(format!("wrote {}", folder.join(path).display()));
    }
    let build = match args.lang {
        Language::Rust => "cargo build --release",
        Language::C | Language::Cpp => "make",
    };
    output.data(format!("made `{}`: {} files", folder.display(), files.len()));
    output.talk(format!(
        "next      cd {} && {build} && delegraph delegate check {}.delegate.toml",
        quote(&folder.display().to_string()),
        args.name
    ));
    output.json(&serde_json::json!({
        "schema": "delegraph.delegate-new/1", "tool": crate::tool(), "backend": args.name, "folder": folder,
        "files": files.iter().map(|(path, _)| path).collect::<Vec<_>>(), "exit_code": 0,
    }))?;
    Ok(0)
}

/// A backend id from which names in every language can be made.
fn check_name(name: &str) -> anyhow::Result<()> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
        return Err(crate::usage(format!(
            "`{name}` is no backend id: lower case letters, digits and `-`, at most 64"
        )));
    }
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        return Err(crate::usage(format!(
            "`{name}` does not begin with a letter\n  hint: names in C and Rust are made of it"
        )));
    }
    // The names of the portable kernels, of the contract's C names, and of the headers.
    let taken = [delegraph::PORTABLE, "dg", "delegraph"].contains(&name) || name.starts_with("dg-");
    match taken {
        true => Err(crate::usage(format!(
            "`{name}` is a name of Delegraph's own; take another"
        ))),
        false => Ok(()),
    }
}

/// The vendor stands in quotes in C, C++, Rust and TOML.
fn check_vendor(vendor: &str) -> anyhow::Result<()> {
    let quoted = |c: char| c.is_control() || c == '"' || c == '\\';
    match vendor.trim().is_empty() || vendor.len() > 100 || vendor.contains(quoted) {
        true => Err(crate::usage(
            "`--vendor` is empty, longer than 100 bytes, or has a quote, a backslash or a line break in it",
        )),
        false => Ok(()),
    }
}

/// The dependency on the SDK, as it stands in a Cargo.toml.
fn sdk(args: &DelegateNewArgs) -> anyhow::Result<String> {
    let Some(path) = &args.sdk else {
        return Ok(format!("{{ git = \"{REPOSITORY}\" }}"));
    };
    if args.lang != Language::Rust {
        return Err(crate::usage(
            "`--sdk` is for Rust: C and C++ get the headers that they need copied",
        ));
    }
    let manifest = std::fs::read_to_string(path.join("Cargo.toml")).unwrap_or_default();
    let table: toml::Table = manifest.parse().unwrap_or_default();
    let name = table.get("package").and_then(|package| package.get("name"));
    if name.and_then(toml::Value::as_str) != Some("delegraph-sdk") {
        return Err(crate::usage(format!(
            "`{}` is not the folder of the crate delegraph-sdk\n  hint: in a clone of Delegraph it is `delegate-sdk/sdk`",
            path.display()
        )));
    }
    let path = path.canonicalize()?;
    Ok(format!(
        "{{ path = {} }}",
        toml::Value::from(path.display().to_string())
    ))
}

/// The files of the folder.
fn files(args: &DelegateNewArgs, sdk: &str) -> Vec<(String, String)> {
    let identifier = args.name.replace('-', "_");
    let camel: String = args.name.split('-').map(capitalized).collect();
    let library = |name: &str| {
        format!(
            "{}{name}_delegate{}",
            std::env::consts::DLL_PREFIX,
            std::env::consts::DLL_SUFFIX
        )
    };
    let words = [
        ("libmy_npu_delegate.so", library(&identifier)),
        ("x86_64-unknown-linux-gnu", delegraph_host::host_triple()),
        ("{ path = \"../../sdk\" }", sdk.to_string()),
        ("my-npu", args.name.clone()),
        ("my_npu", identifier.clone()),
        ("MyNpu", camel),
        ("MY_NPU", identifier.to_ascii_uppercase()),
        ("Example Inc.", args.vendor.clone()),
    ];
    let fill = |text: &str| filled(text, &words);
    let (template, headers, ignored): (_, &[&[File]], _) = match args.lang {
        Language::Rust => (RUST, &[], "/target\n".to_string()),
        Language::C => (C, &[HEADERS], format!("/{}\n", library(&identifier))),
        Language::Cpp => (CPP, &[HEADERS, CPP_HEADERS], format!("/{}\n", library(&identifier))),
    };
    let mut files: Vec<(String, String)> = template.iter().map(|(path, text)| (fill(path), fill(text))).collect();
    let copied = headers.iter().flat_map(|list| list.iter());
    files.extend(copied.map(|(path, text)| (path.to_string(), text.to_string())));
    files.push((".gitignore".to_string(), ignored));
    files
}

/// A text with words replaced, in one go: what was put in is not looked at again.
fn filled(text: &str, words: &[(&str, String)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let next = |rest: &str| {
        words
            .iter()
            .filter_map(|(from, to)| Some((rest.find(from)?, *from, to.clone())))
            .min_by_key(|(at, ..)| *at)
    };
    while let Some((at, from, to)) = next(rest) {
        out.push_str(&rest[..at]);
        out.push_str(&to);
        rest = &rest[at + from.len()..];
    }
    out + rest
}

fn capitalized(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or(String::new(), |first| {
        first.to_ascii_uppercase().to_string() + letters.as_str()
    })
}

/// Writes the files beside their place and moves the folder there, so that nobody sees half of it.
fn write(folder: &Path, files: &[(String, String)]) -> anyhow::Result<()> {
    if folder.symlink_metadata().is_ok() {
        return Err(crate::usage(format!(
            "`{}` is there already\n  hint: `--output DIR` names another folder",
            folder.display()
        )));
    }
    let written = || -> std::io::Result<()> {
        let parent = folder.parent().filter(|p| !p.as_os_str().is_empty());
        let half = tempfile::Builder::new()
            .prefix(".delegate-new-")
            .tempdir_in(parent.unwrap_or(Path::new(".")))?;
        for (path, text) in files {
            let path = half.path().join(path);
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            std::fs::write(path, text)?;
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(half.path(), std::fs::Permissions::from_mode(0o755))?;
        }
        std::fs::rename(half.path(), folder)?;
        // It is not where it was made any more.
        let _ = half.keep();
        Ok(())
    };
    written().map_err(|error| crate::usage(format!("cannot make `{}`: {error}", folder.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(name: &str, lang: Language) -> Vec<(String, String)> {
        let args = DelegateNewArgs {
            name: name.to_string(),
            lang,
            output: None,
            vendor: "Acme GmbH".to_string(),
            sdk: None,
        };
        files(&args, &sdk(&args).unwrap())
    }

    #[test]
    fn nothing_of_the_template_is_left() {
        for lang in [Language::Rust, Language::C, Language::Cpp] {
            let files = made("ethos-u55", lang);
            for (path, text) in &files {
                for word in ["my-npu", "my_npu", "MyNpu", "MY_NPU", "Example Inc.", "../../sdk"] {
                    assert!(!path.contains(word) && !text.contains(word), "{lang:?} {path}: {word}");
                }
            }
            let manifest = files
                .iter()
                .find(|(path, _)| path == "ethos-u55.delegate.toml")
                .unwrap();
            let manifest = delegraph_host::Manifest::parse(&manifest.1).unwrap();
            assert_eq!(
                (manifest.name.as_str(), manifest.vendor.as_str()),
                ("ethos-u55", "Acme GmbH")
            );
            let library = manifest.library.unwrap();
            assert!(library.to_str().unwrap().contains("ethos_u55_delegate"), "{library:?}");
        }
        let again = made("my-npu-2", Language::C);
        assert!(
            again
                .iter()
                .any(|(path, text)| path == "Makefile" && text.contains("libmy_npu_2_delegate.so:"))
                || cfg!(not(target_os = "linux"))
        );
        let rust = made("ethos-u55", Language::Rust);
        assert!(
            rust.iter()
                .any(|(_, text)| text.contains("pub struct EthosU55Delegate;"))
        );
    }

    #[test]
    fn names_that_make_no_identifiers_are_refused() {
        for name in [
            "",
            "Acme",
            "a_b",
            "a b",
            "7nm",
            "-a",
            "../a",
            "portable",
            "dg",
            "dg-image",
            "delegraph",
            &"a".repeat(65),
        ] {
            assert!(check_name(name).is_err(), "{name}");
        }
        for name in ["acme", "ethos-u55", "int", "dga", "delegate"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for vendor in ["", " ", "a\"b", "a\\b", "a\nb", &"a".repeat(101)] {
            assert!(check_vendor(vendor).is_err(), "{vendor}");
        }
    }

    #[test]
    fn a_folder_that_is_there_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        assert!(write(folder.path(), &[("a".to_string(), String::new())]).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let absent = folder.path().join("no/such/parent");
        assert!(write(&absent, &[]).is_err());
    }
}
