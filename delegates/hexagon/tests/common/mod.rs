//! What the tests on Qualcomm's library share: where it is, and graphs made by hand.

#![allow(dead_code)] // No test uses all of it.

pub mod child;
pub mod quantized;
pub mod record;

use delegraph_hexagon::graph::*;
use delegraph_hexagon::sys::{GraphInfo, Library, Qnn};
use delegraph_sdk::DType;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// SM8650.
pub const SOC: u32 = 57;

/// Folder of the library: `DELEGRAPH_QNN_DIR`, or the provisioned one. Says what is skipped if there is none.
pub fn folder() -> Option<PathBuf> {
    let given = std::env::var_os("DELEGRAPH_QNN_DIR").map(PathBuf::from);
    let provisioned = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/provision/qnn/onnxruntime_qnn");
    let folder = given.unwrap_or_else(provisioned);
    let found = delegraph_hexagon::sys::find(&folder, "libQnnHtp.so").is_ok();
    if !found {
        println!("skipped: Qualcomm's library is not here; set DELEGRAPH_QNN_DIR, or see `cargo xtask provision qnn`");
    }
    found.then_some(folder)
}

/// The library with the chip. What it says goes to the standard error.
pub fn qnn(folder: &Path) -> Arc<Qnn> {
    let library = Library::open(folder, "libQnnHtp.so").unwrap();
    let log = Arc::new(|level: delegraph_sdk::LogLevel, line: &str| eprintln!("{level:?}: {line}"));
    Arc::new(Qnn::open(library, SOC, log).unwrap())
}

/// One scale and zero point.
pub fn per_tensor(scale: f32, zero_point: i32) -> Quantization {
    Quantization::PerTensor(ScaleOffset {
        scale,
        offset: -zero_point,
    })
}

/// A graph, tensor by tensor.
#[derive(Default)]
pub struct Maker(pub Graph);

impl Maker {
    pub fn new(name: &str) -> Maker {
        Maker(Graph {
            name: name.to_string(),
            ..Graph::default()
        })
    }

    pub fn tensor(
        &mut self,
        name: &str,
        kind: TensorKind,
        data_type: DataType,
        dims: &[u32],
        quantization: Quantization,
    ) -> TensorId {
        let id = TensorId(self.0.tensors.len() as u32);
        let port = Port {
            tensor: Some(id),
            dtype: DType::U8,
            convert: Convert::Same,
        };
        match kind {
            TensorKind::Input => self.0.inputs.push(port),
            TensorKind::Output => self.0.outputs.push(port),
            _ => {}
        }
        self.0.tensors.push(Tensor {
            name: name.to_string(),
            kind,
            data_type,
            dims: dims.to_vec(),
            quantization,
        });
        id
    }

    pub fn node(
        mut self,
        op: &'static str,
        params: Vec<(&'static str, Param)>,
        inputs: &[TensorId],
        outputs: &[TensorId],
    ) -> Maker {
        let name = format!("{op}{}", self.0.nodes.len());
        self.0.nodes.push(Node {
            name,
            op,
            params,
            inputs: inputs.to_vec(),
            outputs: outputs.to_vec(),
            source: None,
        });
        self
    }
}

/// `a + b` of 256 bytes: scales 0.5, 0.25 and 0.75, zero points 0, 8 and 0.
pub fn add() -> Graph {
    let mut maker = Maker::new("add");
    let fixed = DataType::UFixed8;
    let a = maker.tensor("a", TensorKind::Input, fixed, &[1, 256], per_tensor(0.5, 0));
    let b = maker.tensor("b", TensorKind::Input, fixed, &[1, 256], per_tensor(0.25, 8));
    let y = maker.tensor("y", TensorKind::Output, fixed, &[1, 256], per_tensor(0.75, 0));
    maker.node("ElementWiseAdd", vec![], &[a, b], &[y]).0
}

/// `a * b` of 64 numbers in f16.
pub fn multiply() -> Graph {
    let mut maker = Maker::new("multiply");
    let (half, none) = (DataType::Float16, Quantization::None);
    let a = maker.tensor("a", TensorKind::Input, half, &[2, 32], none.clone());
    let b = maker.tensor("b", TensorKind::Input, half, &[2, 32], none.clone());
    let y = maker.tensor("y", TensorKind::Output, half, &[2, 32], none);
    maker.node("ElementWiseMultiply", vec![], &[a, b], &[y]).0
}

/// Compiles, loads and executes a graph; its outputs.
pub fn run(qnn: &Qnn, graph: &Graph, inputs: &[&[u8]]) -> Vec<Vec<u8>> {
    let compiled = qnn.compile(&[graph], &Default::default()).unwrap();
    execute(qnn, &compiled.binary, compiled.graphs, &graph.name, inputs)
}

/// Executes a graph of a context binary; its outputs.
pub fn execute(qnn: &Qnn, binary: &[u8], graphs: Vec<GraphInfo>, name: &str, inputs: &[&[u8]]) -> Vec<Vec<u8>> {
    let context = qnn.load_described(binary, graphs).unwrap();
    let mut graph = context.graph(name).unwrap();
    let sizes = graph.info().outputs.iter().map(|output| output.bytes().unwrap());
    let mut outputs: Vec<Vec<u8>> = sizes.map(|size| vec![0xaa; size]).collect();
    let mut parts: Vec<&mut [u8]> = outputs.iter_mut().map(Vec::as_mut_slice).collect();
    graph.execute(inputs, &mut parts, None).unwrap();
    outputs
}
