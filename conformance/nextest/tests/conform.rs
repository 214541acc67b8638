//! A test a case: `delegraph conform run LIBRARY --exact CASE`. See the crate's documentation for the environment variables.

use libtest_mimic::{Arguments, Failed, Trial};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// What is tested.
#[derive(Clone)]
struct Setup {
    program: PathBuf,
    /// `conform run LIBRARY --list NAME ...`
    arguments: Vec<String>,
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let setup = match setup() {
        Ok(setup) => setup,
        Err(reason) => {
            eprintln!("skipped: conformance of a library: {reason}");
            return libtest_mimic::run(&arguments, Vec::new()).exit_code();
        }
    };
    let ids = match setup.list() {
        Ok(ids) => ids,
        Err(problem) => {
            eprintln!("error: {problem}");
            return ExitCode::FAILURE;
        }
    };
    let trial = |id: String| {
        let setup = setup.clone();
        Trial::test(id.clone(), move || setup.run(&id))
    };
    libtest_mimic::run(&arguments, ids.into_iter().map(trial).collect()).exit_code()
}

fn setup() -> Result<Setup, String> {
    let text = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let library = text("DELEGRAPH_CONFORM_LIBRARY").ok_or("DELEGRAPH_CONFORM_LIBRARY names none")?;
    let program = match text("DELEGRAPH_BIN") {
        Some(program) => PathBuf::from(program),
        None => beside().ok_or("there is no `delegraph` beside this test: build it, or name it by DELEGRAPH_BIN")?,
    };
    let mut arguments = vec!["conform".to_string(), "run".to_string(), library];
    if let Some(lists) = text("DELEGRAPH_CONFORM_LIST") {
        arguments.extend(["--list".to_string(), lists]);
    }
    let more = text("DELEGRAPH_CONFORM_ARGS").unwrap_or_default();
    arguments.extend(more.split_whitespace().map(str::to_string));
    Ok(Setup {
        program,
        arguments,
        out: text("DELEGRAPH_CONFORM_OUT").map(PathBuf::from),
    })
}

/// This test is `target/debug/deps/conform-0123`, the program `target/debug/delegraph`.
fn beside() -> Option<PathBuf> {
    let name = format!("delegraph{}", std::env::consts::EXE_SUFFIX);
    let test = std::env::current_exe().ok()?;
    let program = test.parent()?.parent()?.join(name);
    program.is_file().then_some(program)
}

impl Setup {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        // Tests start in the folder of their crate; paths are those of whoever started them.
        if let Some(folder) = workspace() {
            command.current_dir(folder);
        }
        command
    }

    fn list(&self) -> Result<Vec<String>, String> {
        let failed = |what: String| format!("`{}` cannot list the cases: {what}", self.program.display());
        let output = self
            .command()
            .arg("--list")
            .output()
            .map_err(|error| failed(error.to_string()))?;
        // 1: there are none.
        if !matches!(output.status.code(), Some(0 | 1)) {
            return Err(failed(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.lines().map(str::to_string).collect())
    }

    fn run(&self, id: &str) -> Result<(), Failed> {
        let mut command = self.command();
        // Whoever runs the tests runs them again.
        command.args(["--exact", id, "--retries", "0", "--quiet", "--json", "-"]);
        if let Some(out) = &self.out {
            command.arg("--fresh").arg("-o").arg(out.join(id.replace('/', "__")));
        }
        let output = command.output()?;
        let report: serde_json::Value =
            serde_json::from_slice(&output.stdout).map_err(|_| String::from_utf8_lossy(&output.stderr).into_owned())?;
        let cases = report["cases"].as_array().map(Vec::as_slice).unwrap_or_default();
        let Some(case) = cases.iter().find(|case| case["id"] == id) else {
            let message = report["message"].as_str().unwrap_or("the report has no such case");
            return Err(message.into());
        };
        let text = |key: &str| case[key].as_str().unwrap_or_default();
        match text("verdict") {
            "pass" => Ok(()),
            // The harness has no word for them: they stand in the records, and here.
            verdict @ ("skip" | "waived" | "flaky" | "quality-warning") => {
                println!("{verdict}: {}", text("reason"));
                Ok(())
            }
            verdict => Err(format!("{verdict}: {}\nagain: {}", text("reason"), text("repro")).into()),
        }
    }
}

/// Where cargo was started, as far as can be told: the folder of the workspace.
fn workspace() -> Option<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .filter(|folder| folder.is_dir())
}
