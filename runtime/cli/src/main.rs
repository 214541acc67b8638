//! The `delegraph` command. `args.rs` is the command line, one file a verb, `output.rs` how things are said.

mod args;
mod bench;
mod config;
mod conform;
mod demo;
mod devices;
mod inputs;
mod inspect;
mod output;
mod partition;
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

/// `delegraph 0.1.0`
fn tool() -> String {
    format!("delegraph {}", env!("CARGO_PKG_VERSION"))
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let output = Output::new(&cli.global);
    match dispatch(&cli, &output) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            output.progress_done();
            let (code, kind) = classify(&error);
            eprintln!("{}: {error:#}", output.tint(Tint::Red, "error"));
            let object = serde_json::json!({
                "schema": "delegraph.error/1", "tool": tool(), "exit_code": code, "kind": kind, "message": format!("{error:#}"),
            });
            if let Err(second) = output.json(&object) {
                eprintln!("error: {second:#}");
            }
            ExitCode::from(code)
        }
    }
}

fn dispatch(cli: &Cli, output: &Output) -> anyhow::Result<u8> {
    let global = &cli.global;
    match &cli.command {
        Command::Demo(args) => demo::run(args, global, output),
        Command::Compile(args) => partition::compile(args, global, output),
        Command::Partition(args) => partition::partition(args, global, output),
        Command::Run(args) => run::run(args, global, output),
        Command::Bench(args) => bench::run(args, global, output),
        Command::Inspect(args) => inspect::run(args, output),
        Command::Devices(args) => devices::run(args, global, output),
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
        return (error.code, if error.code == 2 { "usage" } else { "bad-input" });
    }
    if error.is::<delegraph_config::ConfigError>() {
        return (2, "usage");
    }
    if error.is::<std::io::Error>() || error.chain().any(|cause| cause.is::<std::io::Error>()) {
        return (3, "bad-input");
    }
    (70, "internal")
}
