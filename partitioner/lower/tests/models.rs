//! Recorded models, if `DELEGRAPH_SHARED` names a folder of them: lowered for made-up delegates that take some operators, and
//! then decomposed as the driver does. What is checked is the graph, not numbers.

use delegraph_abi::image::verify;
use delegraph_host::{DelegateError, NodeVerdict, Partition, Weights};
use delegraph_ir::{Graph, Module};
use delegraph_lower::{Backend, LowerOptions, Slot, lower_with};
use delegraph_passes::decompose::decompose;
use delegraph_tag::{Policy, live};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};

/// Takes the operators whose name hashes below a share, and compiles everything.
struct Share {
    name: &'static str,
    percent: u32,
}

impl Backend for Share {
    fn name(&self) -> &str {
        self.name
    }

    fn partition(&self, image: &[u8], _: &str) -> Result<Partition, DelegateError> {
        let view = verify(image).unwrap();
        let seed = self.name.len() as u32;
        let hash = |op: &str| {
            op.bytes()
                .fold(2166136261 ^ seed, |h, b| (h ^ u32::from(b)).wrapping_mul(16777619))
                >> 8
        };
        let verdict = |op: &str| NodeVerdict {
            supported: hash(op) % 100 < self.percent,
            code: 0,
            reason: "not this one".to_string(),
        };
        Ok(Partition {
            verdicts: view.nodes().map(|n| verdict(n.op())).collect(),
            atomic_sets: Vec::new(),
        })
    }

    fn compile(&self, image: &[u8], weights: &dyn Weights, _: &str) -> Result<Vec<u8>, DelegateError> {
        for weight in verify(image).unwrap().weights() {
            let bytes = weights.bytes(weight.id()).unwrap();
            assert_eq!(bytes.len() as u64, weight.byte_size());
        }
        Ok(Vec::new())
    }
}

fn models() -> Vec<PathBuf> {
    let Some(shared) = std::env::var_os("DELEGRAPH_SHARED") else {
        println!("skipped: DELEGRAPH_SHARED is not set");
        return Vec::new();
    };
    let mut found = Vec::new();
    for folder in ["models", "model-cases"] {
        for entry in std::fs::read_dir(Path::new(&shared).join(folder)).unwrap() {
            for file in ["model.pt2", "model.core.pt2"] {
                let path = entry.as_ref().unwrap().path().join(file);
                if path.exists() {
                    found.push(path);
                }
            }
        }
    }
    found.sort();
    found
}

/// Every value is made before it is read, and each region is one range.
fn check(graph: &Graph, regions: usize) {
    let producers = graph.producers();
    let mut last = None;
    let mut started = 0;
    for (i, node) in graph.nodes.iter().enumerate() {
        assert!(
            node.inputs()
                .filter_map(|v| producers[v.index()])
                .all(|p| p.index() < i),
            "{}",
            node.name
        );
        if node.region != last {
            started += usize::from(node.region.is_some());
            last = node.region;
        }
    }
    assert_eq!(started, regions);
}

fn lower_and_check(mut module: Module, percent: u32) -> (u64, u64, usize) {
    let options = LowerOptions {
        policy: Policy {
            min_nodes: 2,
            ..Policy::default()
        },
        strict: true,
        ..LowerOptions::default()
    };
    let slots: Vec<Slot> = ["first", "the second"]
        .map(|name| {
            (
                name.to_string(),
                Ok(Box::new(Share { name, percent }) as Box<dyn Backend>),
            )
        })
        .into();
    let lowered = lower_with(&mut module, &options, slots, &mut |_| {}).unwrap();
    delegraph_ir::verify(&module).unwrap();
    let border = |module: &Module| {
        for (graph, lowered) in module.graphs.iter().zip(&lowered.graphs) {
            check(graph, lowered.regions.len());
            let producers = graph.producers();
            for region in &lowered.regions {
                for value in &region.inputs {
                    let is_made =
                        graph.value(*value).def != delegraph_ir::Def::Node || producers[value.index()].is_some();
                    assert!(is_made, "{} lost its input {}", region.id, graph.value(*value).name);
                }
                for value in &region.outputs {
                    let maker = producers[value.index()].expect("an output of a region is gone");
                    assert_eq!(graph.node(maker).region, Some(region.id));
                }
            }
        }
    };
    border(&module);
    for (graph, lowered) in module.graphs.iter().zip(&lowered.graphs) {
        let live = live(graph);
        for (i, node) in lowered.nodes.iter().enumerate().filter(|(_, n)| n.owner.is_none()) {
            assert!(
                !live[i] || node.refusals.len() == 2,
                "{}: {:?}",
                node.name,
                node.refusals
            );
        }
    }
    decompose(&mut module, &|_, _| false).unwrap();
    border(&module);
    let coverage = lowered.coverage();
    (
        coverage.delegated_nodes,
        coverage.nodes,
        lowered.into_regions().iter().map(Vec::len).sum(),
    )
}

#[test]
fn recorded_models_lower_to_sound_graphs() {
    let mut failed = 0;
    for path in models() {
        let name = path
            .strip_prefix(path.ancestors().nth(3).unwrap())
            .unwrap()
            .display()
            .to_string();
        match delegraph_import::import(&path, &Default::default()) {
            Err(error) => println!("{name}: not imported: {error}"),
            Ok(module) => {
                for percent in [40, 75, 100] {
                    let copy = module.clone();
                    match std::panic::catch_unwind(AssertUnwindSafe(|| lower_and_check(copy, percent))) {
                        Ok((delegated, all, regions)) => {
                            println!("{name}: {percent}%: {delegated} of {all} nodes in {regions} regions");
                        }
                        Err(_) => {
                            println!("{name}: {percent}%: FAILED");
                            failed += 1;
                        }
                    }
                }
            }
        }
    }
    assert_eq!(failed, 0);
}
