//! The `delegraph` command. `args.rs` is the command line, one file a verb, `output.rs` how things are said.

mod args;
mod bench;
mod bench_llm;
mod config;
mod conform;
mod delegate;
mod demo;
mod devices;
mod disassemble;
mod families;
mod inputs;
mod inspect;
mod output;
mod partition;
mod quantize;
mod reduce;
mod roofline;
mod run;
mod subject;
mod wordpiece;

use args::{Cli, Command};
use clap::Parser;
use output::{Output, Tint};
use std::process::ExitCode;

/// An error of the command line itself, with its exit code.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
struct CommandError {
    code: u8,
    message: String,
}

/// Wrong use: exit code 2.
fn usage(message: impl Into<String>) -> anyhow::Error {
    CommandError {
        code: 2,
        message: message.into(),
    }
    .into()
}

/// A bad input file: exit code 3.
fn bad_input(message: impl Into<String>) -> anyhow::Error {
    CommandError {
        code: 3,
        message: message.into(),
    }
    .into()
}

/// A backend or a device that is absent: exit code 4.
fn absent(message: impl Into<String>) -> anyhow::Error {
    CommandError {
        code: 4,
        message: message.into(),
    }
    .into()
}

/// An error of a model with the model's file: passes and the emitter, which see only its graph, do not name it.
fn of_model(path: &std::path::Path) -> impl Fn(delegraph::Error) -> anyhow::Error {
    let name = path.display().to_string();
    move |error| match error.exit_code() == 3 && !error.to_string().contains(&name) {
        true => anyhow::Error::new(error).context(name.clone()),
        false => error.into(),
    }
}

/// `delegraph 0.1.0`
fn tool() -> String {
    format!("delegraph {}", env!("CARGO_PKG_VERSION"))
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            if !error.use_stderr() {
                return ExitCode::SUCCESS;
            }
            if json_wanted_on_stdout() {
                let text = error.to_string();
                let message = text.trim().trim_start_matches("error: ");
                println!("{}", error_object(2, "usage", message));
            }
            return ExitCode::from(2);
        }
    };
    let output = Output::new(&cli.global);
    let level = match (cli.global.quiet, cli.global.verbose) {
        (true, _) => delegraph_host::LogLevel(0),
        (false, 0) => delegraph_host::LogLevel::WARN,
        (false, 1) => delegraph_host::LogLevel::INFO,
        (false, _) => delegraph_host::LogLevel::TRACE,
    };
    delegraph_host::set_logger(level, log_line);
    match dispatch(&cli, &output) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            output.progress_done();
            let (code, kind) = classify(&error);
            let message = message(&error);
            eprintln!("{}: {message}", output.tint(Tint::Red, "error"));
            if let Err(second) = output.json(&error_object(code, kind, &message)) {
                eprintln!("error: {second:#}");
            }
            ExitCode::from(code)
        }
    }
}

/// A delegate's log line, on standard error.
fn log_line(backend: &str, level: delegraph_host::LogLevel, text: &str) {
    let name = match level {
        delegraph_host::LogLevel::ERROR => "error",
        delegraph_host::LogLevel::WARN => "warning",
        delegraph_host::LogLevel::INFO => "info",
        _ => "debug",
    };
    eprintln!("{backend}: {name}: {text}");
}

/// An error with its causes; what a message says of its cause is not said twice.
fn message(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn error_object(code: u8, kind: &str, message: &str) -> serde_json::Value {
    serde_json::json!({
        "schema": "delegraph.error/1", "tool": tool(), "exit_code": code, "kind": kind, "message": message,
    })
}

/// Whether `--json` asks for standard output, where the command line as a whole cannot be understood.
fn json_wanted_on_stdout() -> bool {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    words.iter().enumerate().any(|(i, word)| {
        let bare = || {
            words
                .get(i + 1)
                .is_none_or(|next| next.to_string_lossy().starts_with('-'))
        };
        word == "--json=-" || word == "--json" && bare()
    })
}

fn dispatch(cli: &Cli, output: &Output) -> anyhow::Result<u8> {
    let global = &cli.global;
    match &cli.command {
        Command::Demo(args) => demo::run(args, global, output),
        Command::Compile(args) => partition::compile(args, global, output),
        Command::Partition(args) => partition::partition(args, global, output),
        Command::Run(args) => run::run(args, global, output),
        Command::Bench(args) => bench::run(args, global, output),
        Command::Reduce(args) => reduce::run(args, global, output),
        Command::Inspect(args) => inspect::run(args, output),
        Command::Devices(args) => devices::run(args, global, output),
        Command::Delegate(command) => delegate::run(command, global, output),
        Command::Config(command) => config::run(command, global, output),
        Command::Conform(command) => conform::run(command, global, output),
        Command::Models(args) => conform::models(args, global, output),
    }
}

/// Exit code and kind of an error.
fn classify(error: &anyhow::Error) -> (u8, &'static str) {
    if let Some(error) = error.downcast_ref::<delegraph::Error>() {
        return (error.exit_code(), error.kind());
    }
    if let Some(error) = error.downcast_ref::<CommandError>() {
        let kind = match error.code {
            2 => "usage",
            4 => "absent",
            _ => "bad-input",
        };
        return (error.code, kind);
    }
    if error.is::<delegraph_config::ConfigError>() {
        return (2, "usage");
    }
    if error.is::<std::io::Error>() || error.chain().any(|cause| cause.is::<std::io::Error>()) {
        return (3, "bad-input");
    }
    (70, "internal")
}
