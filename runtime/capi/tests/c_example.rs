//! The C programs: the example of the documents over recorded models, and wrong calls.

mod common;

use common::{compile, fixture, root, text, with_reference, write};
use delegraph_runner::fixture::Fixture;
use std::path::Path;
use std::process::{Command, Output};

/// Models of one step; expectations are PyTorch's.
const MODELS: [&str; 3] = ["arch-mlp-dynamic-batch", "arch-multi-output", "arch-variety"];

fn run(
    program: &Path,
    model: &Path,
    config: &Path,
    inputs: &[impl AsRef<Path>],
    expected: &[impl AsRef<Path>],
) -> Output {
    Command::new(program)
        .arg(model)
        .arg(config)
        .args(inputs.iter().map(AsRef::as_ref))
        .arg("--")
        .args(expected.iter().map(AsRef::as_ref))
        .output()
        .expect("the program starts")
}

#[test]
fn the_example_gives_what_pytorch_gives_with_and_without_a_delegate() {
    let folder = tempfile::tempdir().unwrap();
    let source = root().join("runtime/capi/examples/run.c");
    let include = root().join("runtime/capi/include");
    let Some(program) = compile(&source, &include, &folder.path().join("run")) else {
        return;
    };
    let config = with_reference(folder.path());
    if config.is_none() {
        println!("skipped: the example over the reference delegate: its library is not built");
    }
    for name in MODELS {
        let recorded = Fixture::read(&fixture(name)).unwrap();
        let model = fixture(name).join("model.pt2");
        for case in &recorded.cases {
            let step = &case.steps[0];
            let inputs = write(folder.path(), "in", &step.inputs);
            let expected = write(folder.path(), "out", &step.outputs);
            let portable = run(&program, &model, "-".as_ref(), &inputs, &expected);
            assert!(portable.status.success(), "{name}, {}: {}", case.name, text(&portable));
            let said = text(&portable);
            assert!(
                said.contains("method `forward`") && said.contains("output 0 is as expected"),
                "{said}"
            );
            assert!(said.contains("\"delegated_nodes\":0,"), "{said}");
            if let Some(config) = &config {
                let delegated = run(&program, &model, config, &inputs, &expected);
                assert!(
                    delegated.status.success(),
                    "{name}, {}: {}",
                    case.name,
                    text(&delegated)
                );
                let said = text(&delegated);
                assert!(
                    said.contains("reference ran") && !said.contains("\"delegated_nodes\":0,"),
                    "{said}"
                );
            }
            // One bit of the expectation is another: the example sees it.
            let mut bytes = std::fs::read(&expected[0]).unwrap();
            let last = bytes.len() - 1;
            bytes[last] ^= 0x40;
            std::fs::write(&expected[0], bytes).unwrap();
            let wrong = run(&program, &model, "-".as_ref(), &inputs, &expected);
            assert_eq!(wrong.status.code(), Some(1), "{name}: {}", text(&wrong));
        }
    }
    // What fails says so in the library's words.
    let none: [&Path; 0] = [];
    let absent = run(&program, "no-such.pte".as_ref(), "-".as_ref(), &none, &none);
    assert_eq!(absent.status.code(), Some(2));
    assert!(
        text(&absent).contains("loading the model failed (3, bad-input)"),
        "{}",
        text(&absent)
    );
}

/// The example of each release, compiled against the header of that release, runs with the library of today.
#[test]
fn programs_of_every_release_run() {
    let folder = tempfile::tempdir().unwrap();
    let releases = root().join("conformance/golden");
    let mut found: Vec<_> = std::fs::read_dir(&releases)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("capi/run.c").is_file())
        .collect();
    found.sort();
    assert!(!found.is_empty(), "no release has a C program");
    for release in found {
        let capi = release.join("capi");
        let Some(program) = compile(&capi.join("run.c"), &capi, &folder.path().join("run")) else {
            return;
        };
        let model = release.join("models/arch-mlp-dynamic-batch");
        let recorded = Fixture::read(&model).unwrap();
        let step = &recorded.cases[0].steps[0];
        let inputs = write(folder.path(), "in", &step.inputs);
        let expected = write(folder.path(), "out", &step.outputs);
        let output = run(&program, &model.join("model.pte"), "-".as_ref(), &inputs, &expected);
        assert!(output.status.success(), "{}: {}", release.display(), text(&output));
    }
}

#[test]
fn wrong_calls_are_answered() {
    let folder = tempfile::tempdir().unwrap();
    let source = root().join("runtime/capi/tests/errors.c");
    let include = root().join("runtime/capi/include");
    let Some(program) = compile(&source, &include, &folder.path().join("errors")) else {
        return;
    };
    let model = fixture("arch-mlp-dynamic-batch").join("model.pt2");
    let output = Command::new(&program).arg(model).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
}

/// The same program with the library inside. What else it is linked with differs by system.
#[cfg(target_os = "linux")]
#[test]
fn the_static_library_needs_no_more_than_the_system() {
    let folder = tempfile::tempdir().unwrap();
    let dynamic = common::built("delegraph_capi").unwrap();
    let library = dynamic.with_extension("a");
    assert!(library.is_file(), "{} is not built", library.display());
    let source = root().join("runtime/capi/tests/errors.c");
    let include = root().join("runtime/capi/include");
    let needs = ["-lpthread", "-ldl", "-lm", "-lgcc_s", "-lc"];
    let Some(program) = common::link(&source, &include, &folder.path().join("errors"), &library, &needs) else {
        return;
    };
    let model = fixture("arch-mlp-dynamic-batch").join("model.pt2");
    let output = Command::new(&program).arg(model).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn the_header_compiles_without_a_warning() {
    let include = root().join("runtime/capi/include");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("header.c");
    // With the delegate ABI's header beside it: an app may hold a delegate of its own.
    let program = "#include \"delegraph_app.h\"\n#include \"delegraph.h\"\n\
        int main(void) { return delegraph_last_error(NULL) == DELEGRAPH_OK ? (int)DG_OK : 1; }\n";
    std::fs::write(&file, program).unwrap();
    let mut compiled = 0;
    for (compiler, language, standard) in [
        ("gcc", "c", "c99"),
        ("gcc", "c", "c11"),
        ("clang", "c", "c99"),
        ("g++", "c++", "c++17"),
        ("clang++", "c++", "c++17"),
    ] {
        let run = Command::new(compiler)
            .args(["-x", language, &format!("-std={standard}")])
            .args(["-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only", "-I"])
            .arg(&include)
            .arg("-I")
            .arg(root().join("delegate-sdk/include"))
            .arg(&file)
            .output();
        match run {
            Err(_) => println!("skipped: the header under {compiler} as {standard}: no {compiler}"),
            Ok(run) => {
                assert!(run.status.success(), "{compiler} {standard}: {}", text(&run));
                compiled += 1;
            }
        }
    }
    println!("{compiled} of 5 compilations");
}
