//! What crosses to a delegate and back: graph images and envelopes of blobs.

use super::Outcome;
use delegraph_abi::image::{self, ArgView, ExprIndex, SymbolIndex};
use delegraph_abi::{envelope, image::Sizes};
use delegraph_cpu::families::Families;
use delegraph_cpu::family::Family;
use delegraph_ethos_u_sim::container::{blocks, io};
use delegraph_ethos_u_sim::{Extents, Interpreter, Limits, Memory, Stream, disassemble};
use delegraph_hexagon::blob::Header;
use delegraph_vulkan::program::Plan;
use sha2::{Digest, Sha256};
use std::hint::black_box;

/// An image is verified; then a reader may follow everything in it.
pub fn graph_image(bytes: &[u8], _: &dyn Fn()) -> Outcome {
    let view = match image::verify(bytes) {
        Ok(view) => view,
        Err(error) => return Outcome::Refused(format!("{error:?}")),
    };
    black_box((view.name(), view.opset(), view.normal_form(), view.bytes().len()));
    for value in view.values() {
        black_box((
            value.name(),
            value.kind(),
            value.dtype(),
            value.rank(),
            value.const_dims(),
        ));
        black_box((value.source(), value.quant()));
        if let Some(weight) = value.weight() {
            black_box((weight.id(), weight.dtype(), weight.byte_size(), weight.sizes().count()));
        }
    }
    for node in view.nodes() {
        black_box((node.name(), node.op(), node.debug(), node.inputs().count()));
        for arg in node.args() {
            black_box((
                arg.value(),
                arg.int(),
                arg.bool(),
                arg.float(),
                arg.ints(),
                arg.is_none(),
            ));
            match arg {
                ArgView::Ints(ints) => drop(black_box((ints.exprs().len(), ints.constant()))),
                other => drop(black_box(format!("{other:?}"))),
            }
        }
        for output in node.outputs().iter() {
            black_box(view.value(output).name());
        }
    }
    for i in 0..view.expr_count() {
        black_box((view.expr(ExprIndex(i)), view.const_int(ExprIndex(i))));
    }
    for i in 0..view.symbol_count() {
        black_box(view.symbol(SymbolIndex(i)));
    }
    let mut sizes = Sizes::new(&view);
    for size in [0, 1, 2, 8, i64::MAX] {
        let given: Vec<Vec<i64>> = view
            .inputs()
            .iter()
            .map(|input| {
                let dims = view.value(input).dims();
                dims.iter().map(|dim| view.const_int(dim).unwrap_or(size)).collect()
            })
            .collect();
        black_box(sizes.bind(&view, given.iter().map(Vec::as_slice)).is_ok());
        for value in view.values() {
            black_box(sizes.dims(&view, value.index()));
        }
    }
    for i in 0..view.symbol_count() {
        sizes.set(&view, SymbolIndex(i), i64::MIN);
    }
    Outcome::Read
}

/// A blob's envelope is read, described, and written again.
pub fn envelope(bytes: &[u8], _: &dyn Fn()) -> Outcome {
    black_box(delegraph::describe_blob(bytes));
    let parsed = match envelope::parse(bytes) {
        Ok(parsed) => parsed,
        Err(error) => return Outcome::Refused(error.to_string()),
    };
    let apart: Vec<(usize, [u8; 32])> = parsed.apart.iter().map(|apart| (apart.section, apart.hash)).collect();
    let sha256 = |bytes: &[u8]| Sha256::digest(bytes).into();
    let written = envelope::write_apart(&parsed.meta, &parsed.sections, &apart, sha256);
    let written = written.expect("what was read can be written");
    let again = envelope::parse(&written).expect("what was written can be read");
    assert_eq!(again.meta, parsed.meta);
    assert_eq!(again.sections, parsed.sections);
    let hashes = again.apart.iter().map(|apart| (apart.section, apart.hash));
    assert_eq!(hashes.collect::<Vec<_>>(), apart);
    // Whoever has a section of the right hash and another size, or none at all, gets an error.
    let mut resolved = parsed.clone();
    let found = resolved.resolve(&|_| Some(&[0; 3]));
    assert_eq!(found.is_ok(), parsed.apart.iter().all(|apart| apart.size == 3));
    Outcome::Read
}

/// A network of the Ethos-U delegate: its blocks are read, its command stream is listed and run, within limits.
pub fn ethos_u_network(bytes: &[u8], _: &dyn Fn()) -> Outcome {
    let run = || -> Result<(), delegraph_ethos_u_sim::Error> {
        let blocks = blocks(bytes)?;
        let find = |name: &str| {
            blocks
                .iter()
                .find(|block| block.name == name)
                .map_or(&[][..], |block| block.data)
        };
        io(find("inputs"))?;
        io(find("outputs"))?;
        let stream = Stream::parse(find("cmd_data"))?;
        disassemble(&stream)?;
        Extents::of(&stream)?;
        let (mut scratch, mut fast) = (vec![0; 1 << 14], vec![0; 1 << 14]);
        let mut memory = Memory::new();
        memory.map(0, find("weight_data"));
        memory.map_mut(1, &mut scratch);
        memory.map_mut(2, &mut fast);
        let limits = Limits {
            work: 1 << 20,
            elements: 1 << 16,
        };
        Interpreter::new(stream.config, limits)
            .run(&stream, &mut memory)
            .map(|_| ())
    };
    match run() {
        Ok(()) => Outcome::Read,
        Err(error) => Outcome::Refused(error.to_string()),
    }
}

/// The table of the programs of a blob of the CPU delegate is read, and written again as it was; one of them is chosen.
pub fn cpu_families(bytes: &[u8], _: &dyn Fn()) -> Outcome {
    match Families::read(bytes) {
        Ok(families) => {
            assert_eq!(families.write(), bytes, "a table that was read is written as it was");
            for wanted in [None, Some(&Family::all()[..])] {
                let (entry, _) = families.choose(wanted).expect("there is a program");
                black_box((&entry.program, &entry.weights));
            }
            Outcome::Read
        }
        Err(error) => Outcome::Refused(error.message),
    }
}

/// The header of a blob of the Hexagon delegate is read, and written again as it was.
pub fn hexagon_blob(bytes: &[u8], _: &dyn Fn()) -> Outcome {
    match Header::read(bytes) {
        Ok(header) => {
            assert_eq!(header.write(), bytes, "a header that was read is written as it was");
            Outcome::Read
        }
        Err(error) => Outcome::Refused(error.message),
    }
}

/// The plan of a blob of the Vulkan delegate is read, and written again as it was.
pub fn vulkan_plan(bytes: &[u8], _: &dyn Fn()) -> Outcome {
    match Plan::read(bytes, 8, 4096) {
        Ok(plan) => {
            assert_eq!(
                Plan::read(&plan.write(), 8, 4096),
                Ok(plan),
                "a plan that was read comes back as it was"
            );
            Outcome::Read
        }
        Err(error) => Outcome::Refused(error.message),
    }
}
