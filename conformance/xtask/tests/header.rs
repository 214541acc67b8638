//! The C headers are C99 and C++17 to strict compilers; its own assertions compare every size and offset.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn the_headers_compile_without_a_warning() {
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
            println!("skipped: the headers under {compiler} as {standard}: no {compiler}");
            continue;
        };
        let text = b"#include \"delegraph.h\"\n#include \"delegraph_ops.h\"\n#include \"delegraph_image.h\"\n\
            #ifdef __cplusplus\n#include \"delegraph.hpp\"\n#endif\n\
            static const char name[] = DG_OP_ATEN_ADD_TENSOR;\n\
            int main(void) { return name[0] == 'a' ? DG_OK : DG_E_INTERNAL; }\n";
        child.stdin.take().unwrap().write_all(text).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(
            output.status.success(),
            "{compiler} {standard}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
