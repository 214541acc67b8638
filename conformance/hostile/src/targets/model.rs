//! Models that are compiled: archives, and the IR inside of a `.pte`.

use super::program::run;
use super::{Outcome, refused};
use delegraph::{Error, Source};
use delegraph_config::Config;
use delegraph_host::{Host, HostOptions};
use delegraph_ir::{Bytes, Module};

/// An archive is imported, compiled for the portable kernels, loaded and run.
pub fn pt2(bytes: &[u8], running: &dyn Fn()) -> Outcome {
    let source = Source::from_bytes(bytes.to_vec(), "hostile.pt2");
    match delegraph::import(&source) {
        Ok(module) => compiled(module, running),
        Err(error) => refused(&error),
    }
}

/// The IR of a `.pte` of ours: read, shown, compiled again, loaded and run.
pub fn ir_segment(bytes: &[u8], running: &dyn Fn()) -> Outcome {
    // Whatever constant buffer it names is there, as far as a buffer of a small program reaches.
    let zeros = Bytes::from(vec![0; 64 << 10]);
    let mut module = match delegraph_ir::deserialize(bytes, |_| Some(zeros.clone())) {
        Ok(module) => module,
        Err(error) => return Outcome::Refused(error.to_string()),
    };
    if let Err(error) = delegraph_passes::simplify(&mut module) {
        return refused(&error.into());
    }
    delegraph_ir::verify(&module).expect("what the verifier accepted is valid after `simplify`");
    compiled(module, running)
}

fn compiled(module: Module, running: &dyn Fn()) -> Outcome {
    let host = Host::discover(HostOptions {
        no_load: true,
        ..HostOptions::default()
    });
    let compiled = match delegraph::compile(module, &Config::default(), &host, &mut |_| {}) {
        Ok(compiled) => compiled,
        Err(error) => return refused(&error),
    };
    let source = Source::from_bytes(compiled.bytes, "compiled.pte");
    for method in methods(&source) {
        if let Err(error @ Error::Program { .. }) = run(&source, &method, None, running) {
            panic!("a program that we wrote is refused: {error}");
        }
    }
    Outcome::Read
}

/// Names of the methods of a program of ours.
fn methods(source: &Source) -> Vec<String> {
    let program = delegraph_pte::Verified::parse(source.bytes().as_slice()).expect("a program that we wrote is valid");
    program.plans.iter().map(|plan| plan.name.clone()).collect()
}
