//! The C header is C99 and C++17 to strict compilers; its own assertions compare every size and offset.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn the_header_compiles_without_a_warning() {
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../delegate-sdk/include");
    let compilers = [
        ("gcc", "c", "c99"),
        ("gcc", "c", "c11"),
        ("clang", "c", "c99"),
        ("g++", "c++", "c++17"),
        ("clang++", "c++", "c++17"),
    ];
    for (compiler, language, standard) in compilers {
        let command = Command::new(compiler)
            .args(["-x", language, &format!("-std={standard}")])
            .args(["-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only", "-I"])
            .arg(&include)
            .arg("-")
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut child) = command else {
            println!("skipped: the header under {compiler} as {standard}: no {compiler}");
            continue;
        };
        let text = b"#include \"delegraph.h\"\nint main(void) { return DG_OK; }\n";
        child.stdin.take().unwrap().write_all(text).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(
            output.status.success(),
            "{compiler} {standard}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
