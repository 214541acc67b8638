//! Every header of `delegate-sdk/include`, and every header that was released, is C99 and C++17 to strict compilers, for 64-bit and 32-bit
//! machines and for Windows. Their own assertions compare every size and offset, so a layout that is not what the header says does not
//! compile. gcc is the system's; clang too, else the one that `cargo xtask provision clang` brings.

use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Clone, Copy, PartialEq)]
enum Language {
    C,
    Cpp,
}

/// A way to compile.
struct Compiler {
    label: String,
    program: PathBuf,
    arguments: Vec<String>,
    language: Language,
    /// It has the C and C++ library's headers, not just its own.
    hosted: bool,
}

/// What is there, and a line for each thing that is not.
fn compilers() -> (Vec<Compiler>, Vec<String>) {
    let (mut found, mut absent) = (Vec::new(), Vec::new());
    let mut add = |program: PathBuf, first: &[&str], language, standard: &str, more: &[&str], hosted: bool| {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let standard = format!("-std={standard}");
        let label = [&[name.as_str()], first, &[standard.as_str()], more].concat().join(" ");
        let mut arguments: Vec<String> = first.iter().map(ToString::to_string).collect();
        arguments.extend([standard]);
        arguments.extend(more.iter().map(ToString::to_string));
        if starts(&program) {
            found.push(Compiler {
                label,
                program,
                arguments,
                language,
                hosted,
            });
        } else {
            absent.push(label);
        }
    };
    let check = ["-fsyntax-only"];
    add("gcc".into(), &[], Language::C, "c99", &check, true);
    add("gcc".into(), &[], Language::C, "c11", &check, true);
    add("g++".into(), &[], Language::Cpp, "c++17", &check, true);
    if cfg!(target_arch = "x86_64") {
        // Without a C library for 32 bits, gcc has its own `stdint.h` and `stddef.h`.
        let check = ["-m32", "-ffreestanding", "-fsyntax-only"];
        add("gcc".into(), &[], Language::C, "c99", &check, false);
    }
    if starts(Path::new("clang")) {
        add("clang".into(), &[], Language::C, "c99", &check, true);
        add("clang++".into(), &[], Language::Cpp, "c++17", &check, true);
    }
    let zig = root().join(format!(
        "target/provision/clang/packages/ziglang/zig{}",
        std::env::consts::EXE_SUFFIX
    ));
    // LP64; ILP32 with 4-aligned and with 8-aligned 64-bit numbers; LLP64; Windows with 32 bits; macOS.
    let targets = [
        "x86_64-linux-gnu",
        "x86-linux-gnu",
        "arm-linux-gnueabihf",
        "x86_64-windows-gnu",
        "x86-windows-gnu",
        "aarch64-macos",
    ];
    for target in targets {
        // It would take a check of the syntax for a link, and build the C library for it.
        let more = ["-target", target, "-c", "-o", "unit.o"];
        add(zig.clone(), &["cc"], Language::C, "c99", &more, true);
        add(zig.clone(), &["c++"], Language::Cpp, "c++17", &more, true);
    }
    (found, absent)
}

fn starts(program: &Path) -> bool {
    let argument = if program.components().count() > 1 {
        "version"
    } else {
        "--version"
    };
    Command::new(program)
        .arg(argument)
        .output()
        .is_ok_and(|o| o.status.success())
}

impl Compiler {
    /// Compiles a unit; the compiler's words where it refuses.
    fn compile(&self, include: &[&Path], name: &str, text: &str) -> Result<(), String> {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let (unit, language) = match self.language {
            Language::C => ("unit.c", "c"),
            Language::Cpp => ("unit.cpp", "c++"),
        };
        std::fs::write(folder.join(unit), text).unwrap();
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .args(["-x", language, "-Wall", "-Wextra", "-Werror", "-pedantic"])
            .current_dir(&folder)
            .env(
                "ZIG_GLOBAL_CACHE_DIR",
                Path::new(env!("CARGO_TARGET_TMPDIR")).join("zig"),
            );
        for folder in include {
            command.arg("-I").arg(folder);
        }
        let output = command.arg(unit).output().unwrap();
        if output.status.success() {
            return Ok(());
        }
        Err(format!("{}: {}", self.label, String::from_utf8_lossy(&output.stderr)))
    }

    /// The headers that it can compile.
    fn takes(&self, header: &str) -> bool {
        let own_only = ["delegraph.h", "delegraph_ops.h"].contains(&header);
        (self.hosted || own_only) && (self.language == Language::Cpp || header.ends_with(".h"))
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

fn include() -> PathBuf {
    root().join("delegate-sdk/include")
}

/// Names of the headers of the SDK, sorted.
fn headers() -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(include())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".h") || name.ends_with(".hpp"))
        .collect();
    names.sort();
    assert!(names.iter().any(|name| name == "delegraph.h"), "{names:?}");
    names
}

/// `main` that uses something of each header that every SDK has.
const USE: &str = "static const char name[] = DG_OP_ATEN_ADD_TENSOR;\n\
    int main(void) { return name[0] == 'a' ? DG_OK : DG_E_INTERNAL; }\n";

#[test]
fn the_headers_compile_without_a_warning() {
    let (compilers, absent) = compilers();
    for label in absent {
        println!("skipped: the headers under {label}: not here (`cargo xtask provision clang` brings zig)");
    }
    for (i, compiler) in compilers.iter().enumerate() {
        let mine: Vec<String> = headers().into_iter().filter(|h| compiler.takes(h)).collect();
        // All together, in both orders, each one twice.
        let lines = |h: &String| format!("#include \"{h}\"\n");
        let mut text: String = mine.iter().map(lines).collect();
        text.extend(mine.iter().rev().map(lines));
        text.push_str(USE);
        compiler
            .compile(&[&include()], &format!("together-{i}"), &text)
            .unwrap_or_else(|e| panic!("{e}"));
    }
}

#[test]
fn each_header_stands_alone() {
    let (compilers, _) = compilers();
    for language in [Language::C, Language::Cpp] {
        let Some(compiler) = compilers.iter().find(|c| c.language == language && c.hosted) else {
            println!(
                "skipped: no compiler of {}",
                if language == Language::C { "C" } else { "C++" }
            );
            continue;
        };
        for header in headers().iter().filter(|h| compiler.takes(h)) {
            let text = format!("#include \"{header}\"\nint main(void) {{ return 0; }}\n");
            compiler
                .compile(&[&include()], "alone", &text)
                .unwrap_or_else(|e| panic!("{header}: {e}"));
        }
    }
}

#[test]
fn released_headers_still_compile() {
    let (compilers, _) = compilers();
    let frozen = root().join("delegate-sdk/abi/frozen");
    let mut count = 0;
    for minor in std::fs::read_dir(&frozen).unwrap() {
        let folder = minor.unwrap().path();
        count += 1;
        for compiler in &compilers {
            compiler
                .compile(
                    &[&folder],
                    "frozen",
                    "#include \"delegraph.h\"\nint main(void) { return DG_OK; }\n",
                )
                .unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        }
    }
    assert!(count > 0, "there is no frozen header");
}

/// The assertions are there in every data model: a size that is wrong by one is refused, by the struct's name.
#[test]
fn a_wrong_size_does_not_compile() {
    let text = std::fs::read_to_string(include().join("delegraph.h")).unwrap();
    let mut wrong = String::new();
    let mut changed = 0;
    for line in text.lines() {
        let size = line
            .strip_prefix("DG_ASSERT(sizeof(dg_tensor) == ")
            .and_then(|rest| rest.split_once(','));
        match size {
            Some((size, rest)) => {
                let size: u64 = size.parse().unwrap();
                wrong.push_str(&format!("DG_ASSERT(sizeof(dg_tensor) == {},{rest}\n", size + 1));
                changed += 1;
            }
            None => wrong.push_str(&format!("{line}\n")),
        }
    }
    assert_eq!(changed, 3, "one assertion for each data model");
    let (compilers, _) = compilers();
    for compiler in &compilers {
        let text = format!("{wrong}\nint main(void) {{ return DG_OK; }}\n");
        let error = compiler.compile(&[], "wrong", &text).expect_err(&compiler.label);
        assert!(error.contains("dg_tensor"), "{error}");
    }
}
