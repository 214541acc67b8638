//! What lowering did, in words and numbers: behind `delegraph partition`, `--why` and the compile summary.

use crate::CompiledRegion;
use delegraph_ir::{Arg, Graph, Module, RegionId, Symbols};
use delegraph_tag::{Tagging, work};
use serde::Serialize;

/// A lowered module.
#[derive(Debug, Clone, Default)]
pub struct Lowered {
    /// In the order of `module.graphs`.
    pub graphs: Vec<LoweredGraph>,
    /// Every backend that was asked for, in order.
    pub backends: Vec<BackendState>,
}

impl Lowered {
    /// Over all graphs.
    pub fn coverage(&self) -> Coverage {
        self.graphs
            .iter()
            .fold(Coverage::default(), |sum, g| sum.plus(g.coverage))
    }

    /// Compiled regions of each graph, as the emitter takes them.
    pub fn into_regions(self) -> Vec<Vec<CompiledRegion>> {
        self.graphs.into_iter().map(|g| g.regions).collect()
    }
}

/// A backend that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackendState {
    /// Backend id.
    pub backend: String,
    /// Why it took no part, or stopped taking part.
    pub problem: Option<String>,
}

/// A lowered graph.
#[derive(Debug, Clone, Default)]
pub struct LoweredGraph {
    /// Method name.
    pub name: String,
    /// In execution order.
    pub regions: Vec<CompiledRegion>,
    /// Every node, in execution order.
    pub nodes: Vec<NodeReport>,
    /// Composite nodes that nobody took whole and that were replaced by their parts.
    pub decomposed: Vec<NodeReport>,
    /// What delegates refused to compile.
    pub problems: Vec<CompileProblem>,
    /// How much is delegated.
    pub coverage: Coverage,
}

impl LoweredGraph {
    /// What happened to the nodes of this name, decomposed ones first: the answer to `--why`.
    pub fn why(&self, name: &str) -> impl Iterator<Item = &NodeReport> {
        self.decomposed
            .iter()
            .chain(&self.nodes)
            .filter(move |n| n.name == name)
    }
}

/// What happened to a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeReport {
    /// Its name.
    pub name: String,
    /// Its operator.
    pub op: &'static str,
    /// The exporting program's source line, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Who takes it; `None`: the CPU.
    pub owner: Option<String>,
    /// Its region.
    pub region: Option<RegionId>,
    /// The node that the owner sees in its place, which covers it: its work is in that node's quantized types.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folded_into: Option<String>,
    /// Estimated multiply-accumulates.
    pub macs: u64,
    /// Who was asked before the owner and why they do not have it.
    pub refusals: Vec<Refusal>,
}

/// A backend that does not take a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// Backend id.
    pub backend: String,
    /// In the delegate's words, or in the host's where it decided.
    pub reason: String,
}

/// A region that a delegate did not compile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CompileProblem {
    /// Backend id.
    pub backend: String,
    /// The region's nodes.
    pub nodes: Vec<String>,
    /// The node that the delegate named.
    pub node: Option<String>,
    /// In its words.
    pub message: String,
    /// It failed, rather than said that it does not support something.
    pub failed: bool,
}

/// How much is delegated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Coverage {
    /// All nodes, those of subgraphs included.
    pub nodes: u64,
    /// Nodes in regions.
    pub delegated_nodes: u64,
    /// Estimated multiply-accumulates.
    pub macs: u64,
    /// Of these, in regions.
    pub delegated_macs: u64,
}

impl Coverage {
    /// Coverage of a tagged graph.
    pub fn of(graph: &Graph, symbols: &Symbols) -> Coverage {
        let mut coverage = Coverage::default();
        for node in &graph.nodes {
            let macs = work(graph, node, symbols).macs;
            let delegated = node.region.is_some();
            coverage = coverage.plus(Coverage {
                nodes: 1,
                delegated_nodes: u64::from(delegated),
                macs,
                delegated_macs: if delegated { macs } else { 0 },
            });
            for arg in &node.args {
                if let Arg::Graph(body) = arg {
                    coverage = coverage.plus(Coverage::of(body, symbols));
                }
            }
        }
        coverage
    }

    /// Share of nodes that are delegated; 0 for an empty graph.
    pub fn node_share(self) -> f64 {
        share(self.delegated_nodes, self.nodes)
    }

    /// Share of multiply-accumulates that are delegated; that of nodes where there are none.
    pub fn mac_share(self) -> f64 {
        match self.macs {
            0 => self.node_share(),
            macs => share(self.delegated_macs, macs),
        }
    }

    fn plus(self, other: Coverage) -> Coverage {
        Coverage {
            nodes: self.nodes.saturating_add(other.nodes),
            delegated_nodes: self.delegated_nodes.saturating_add(other.delegated_nodes),
            macs: self.macs.saturating_add(other.macs),
            delegated_macs: self.delegated_macs.saturating_add(other.delegated_macs),
        }
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// A report of every node of a graph, whose node ids are those of the tagging.
pub(crate) fn node_reports(module: &Module, graph: &Graph, tagging: &Tagging) -> Vec<NodeReport> {
    let entry = |(node, report): (&delegraph_ir::Node, &delegraph_tag::NodeReport)| NodeReport {
        name: node.name.clone(),
        op: node.op.name(),
        source: node.source.clone(),
        owner: report.owner.map(|r| tagging.regions[r.index()].backend.clone()),
        region: report.owner,
        folded_into: None,
        macs: work(graph, node, &module.symbols).macs,
        refusals: refusals(&report.refusals),
    };
    graph.nodes.iter().zip(&tagging.nodes).map(entry).collect()
}

pub(crate) fn refusals(list: &[(String, String)]) -> Vec<Refusal> {
    let refusal = |(backend, reason): &(String, String)| Refusal {
        backend: backend.clone(),
        reason: reason.clone(),
    };
    list.iter().map(refusal).collect()
}
