//! Imports `.pt2` archives, compares inferred with recorded types of every node, and brings them into the portable dialect.
//!
//! `cargo run -p delegraph-passes --example models -- FILE_OR_FOLDER...`: folders are searched for `.pt2` files. Exit code 1 if
//! a type differs or a pass fails.

use delegraph_ir::{Arg, Expr, Graph, InferError, Module, Symbols, Type, infer, verify};
use delegraph_passes::{not_in_executorch, simplify, to_portable};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Default)]
struct Counts {
    equal: usize,
    /// Equal up to sizes that are written in another form.
    other_form: usize,
    wrong: usize,
    unknown: BTreeMap<String, usize>,
}

fn main() {
    let mut files = Vec::new();
    for argument in std::env::args().skip(1) {
        find(Path::new(&argument), &mut files);
    }
    files.sort();
    let mut counts = Counts::default();
    let mut failed = 0;
    let mut foreign: BTreeMap<String, usize> = BTreeMap::new();
    let mut without_kernel: BTreeMap<String, usize> = BTreeMap::new();
    for file in &files {
        let name = file.display();
        let mut module = match delegraph_import::import(file, &Default::default()) {
            Ok(module) => module,
            Err(error) => {
                println!("{name}: import: {error}");
                failed += 1;
                continue;
            }
        };
        for graph in &module.graphs {
            compare(&name.to_string(), graph, &module.symbols, &mut counts);
        }
        if let Err(error) = passes(&mut module) {
            println!("{name}: {error}");
            failed += 1;
            continue;
        }
        for found in not_in_executorch(&module) {
            *foreign.entry(found.operator).or_default() += 1;
        }
        for graph in &module.graphs {
            kernels(graph, &mut without_kernel);
        }
        if std::env::var_os("TREE").is_some() {
            println!("{module}");
        }
    }
    println!("{} files, {failed} failed", files.len());
    println!(
        "types: {} equal, {} in another form, {} wrong",
        counts.equal, counts.other_form, counts.wrong
    );
    println!("without a rule: {:?}", counts.unknown);
    println!("not in ExecuTorch: {foreign:?}");
    println!("without a kernel: {without_kernel:?}");
    std::process::exit(i32::from(failed + counts.wrong > 0));
}

fn find(path: &Path, files: &mut Vec<PathBuf>) {
    if let Ok(entries) = std::fs::read_dir(path) {
        entries.flatten().for_each(|entry| find(&entry.path(), files));
    } else if path.extension().is_some_and(|e| e == "pt2") {
        files.push(path.to_path_buf());
    }
}

fn passes(module: &mut Module) -> Result<(), String> {
    let verified = |module: &Module, pass: &str| verify(module).map_err(|e| format!("after {pass}: {e}"));
    verified(module, "import")?;
    simplify(module).map_err(|e| format!("simplify: {e}"))?;
    verified(module, "simplify")?;
    to_portable(module).map_err(|e| format!("portable: {e}"))?;
    verified(module, "portable")?;
    let buffer = |id: delegraph_ir::ConstantId| Some(id.0);
    let bytes = delegraph_ir::serialize(module, buffer);
    let contents = |index| module.constants.find(delegraph_ir::ConstantId(index))?.to_contiguous();
    let back = delegraph_ir::deserialize(&bytes, contents).map_err(|e| e.to_string())?;
    match back.graphs == module.graphs && back.symbols == module.symbols {
        true => Ok(()),
        false => Err("the module did not come back from its bytes".to_string()),
    }
}

fn subgraphs(graph: &Graph) -> impl Iterator<Item = &Graph> {
    let args = graph.nodes.iter().flat_map(|n| &n.args);
    args.filter_map(|a| if let Arg::Graph(g) = a { Some(&**g) } else { None })
}

fn compare(file: &str, graph: &Graph, symbols: &Symbols, counts: &mut Counts) {
    subgraphs(graph).for_each(|g| compare(file, g, symbols, counts));
    for node in &graph.nodes {
        let types = match infer(node.op, &node.args, graph, symbols) {
            Ok(types) => types,
            Err(InferError::Unsupported { problem, .. }) => {
                *counts.unknown.entry(format!("{}: {problem}", node.op)).or_default() += 1;
                continue;
            }
            Err(InferError::DataDependent { .. }) => continue,
            Err(error) => {
                println!("{file}: node {}: {error}", node.name);
                counts.wrong += 1;
                continue;
            }
        };
        if types.len() != node.outputs.len() {
            println!(
                "{file}: node {} ({}): {} results inferred",
                node.name,
                node.op,
                types.len()
            );
            counts.wrong += 1;
            continue;
        }
        for (id, got) in node.outputs.iter().zip(&types) {
            let want = &graph.value(*id).ty;
            if got == want {
                counts.equal += 1;
            } else if same_values(got, want) {
                counts.other_form += 1;
                if std::env::var_os("FORMS").is_some() {
                    println!(
                        "{file}: node {} ({}): inferred {got}, recorded {want}",
                        node.name, node.op
                    );
                }
            } else {
                counts.wrong += 1;
                println!(
                    "{file}: node {} ({}): inferred {got}, recorded {want}",
                    node.name, node.op
                );
            }
        }
    }
}

/// Equal under several values of the symbols.
fn same_values(a: &Type, b: &Type) -> bool {
    let (Some(a), Some(b)) = (a.as_tensor(), b.as_tensor()) else {
        return false;
    };
    let at = |e: &Expr, n: i64| e.eval(&|symbol| Some(n + symbol.0.bytes().map(i64::from).sum::<i64>() % 7 * 12));
    let same = |(x, y): (&Expr, &Expr)| [24, 48, 96].iter().all(|&n| at(x, n).is_some() && at(x, n) == at(y, n));
    a.dtype == b.dtype && a.rank() == b.rank() && a.shape.iter().zip(&b.shape).all(same)
}

fn kernels(graph: &Graph, missing: &mut BTreeMap<String, usize>) {
    subgraphs(graph).for_each(|g| kernels(g, missing));
    for node in graph
        .nodes
        .iter()
        .filter(|n| !n.op.name().starts_with("higher_order::"))
    {
        let name = node.op.out_variant().unwrap_or(node.op).name();
        if delegraph_kernels::find(name).is_none() {
            *missing.entry(name.to_string()).or_default() += 1;
        }
    }
}
