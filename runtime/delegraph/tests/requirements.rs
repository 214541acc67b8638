//! Tensors lie as delegates require: what one region leaves for the next is met at once, and what is not is copied and counted.

mod common;

use common::{config, fixture};
use delegraph::{RunReport, Session, Source};
use delegraph_config::Config;
use delegraph_host::{Host, HostOptions};
use delegraph_pte::Verified;
use delegraph_pte::model::{EValue, Storage};
use delegraph_pte::overlay::{OVERLAY_KEY, Overlay};
use delegraph_reference::Reference;
use delegraph_runner::Leaf;
use delegraph_sdk::image::ImageView;
use delegraph_sdk::{
    Blob, BlobMeta, BlobVerdict, Compile, Compiled, Context, DType, Delegate, Device, Error, Info, OptionValue,
    Options, Partition, Requirement, Run, Status, TensorOut, TensorPlace, TensorView, Weights, static_entry,
};
use sha2::Digest;
use std::sync::Arc;

/// The reference delegate, which reads and writes only what lies as it states.
struct Demanding<const ALIGNMENT: u32, const MULTIPLE: u32> {
    inner: Reference,
    /// Blobs state it.
    states: bool,
}

type Lines = Demanding<256, 96>;
type Pages = Demanding<4096, 640>;

impl<const ALIGNMENT: u32, const MULTIPLE: u32> Delegate for Demanding<ALIGNMENT, MULTIPLE> {
    const INFO: Info = Info {
        name: if ALIGNMENT == 256 { "lines" } else { "pages" },
        vendor: "tests",
        version: "0.0.1",
        build: "",
        format: if ALIGNMENT == 256 {
            "lines.reference"
        } else {
            "pages.reference"
        },
        format_version: 1,
    };

    fn new(options: &Options<'_>, context: &Context<'_>) -> Result<Self, Error> {
        options.check(&["states"])?;
        Ok(Demanding {
            inner: Reference::new(&Options::default(), context)?,
            states: !matches!(options.find("states"), Some(OptionValue::Bool(false))),
        })
    }

    fn devices(&self) -> Vec<Device> {
        self.inner.devices()
    }
}

impl<const ALIGNMENT: u32, const MULTIPLE: u32> Compile for Demanding<ALIGNMENT, MULTIPLE> {
    fn partition(&self, graph: &ImageView<'_>, context: &Context<'_>) -> Result<Partition, Error> {
        self.inner.partition(graph, context)
    }

    fn compile(
        &self,
        graph: &ImageView<'_>,
        weights: &Weights<'_>,
        target: &str,
        context: &Context<'_>,
    ) -> Result<Compiled, Error> {
        let inputs = (0..graph.inputs().len() as u32).map(TensorPlace::Input);
        let outputs = (0..graph.outputs().len() as u32).map(TensorPlace::Output);
        let requirement = |tensor| Requirement {
            tensor,
            alignment: ALIGNMENT,
            size_multiple: MULTIPLE,
        };
        let all = inputs.chain(outputs).map(requirement);
        Ok(Compiled {
            requirements: all.filter(|_| self.states).collect(),
            ..self.inner.compile(graph, weights, target, context)?
        })
    }
}

impl<const ALIGNMENT: u32, const MULTIPLE: u32> Run for Demanding<ALIGNMENT, MULTIPLE> {
    fn check_blob(&self, meta: &BlobMeta<'_>) -> BlobVerdict {
        BlobVerdict::by_format(&Self::INFO, meta)
    }

    fn load(
        &self,
        blob: &Blob<'_>,
        weights: &Weights<'_>,
        context: &Context<'_>,
    ) -> Result<Box<dyn delegraph_sdk::Session>, Error> {
        Ok(Box::new(DemandingSession::<ALIGNMENT, MULTIPLE>(
            self.inner.load(blob, weights, context)?,
        )))
    }
}

struct DemandingSession<const ALIGNMENT: u32, const MULTIPLE: u32>(Box<dyn delegraph_sdk::Session>);

impl<const ALIGNMENT: u32, const MULTIPLE: u32> delegraph_sdk::Session for DemandingSession<ALIGNMENT, MULTIPLE> {
    fn execute(
        &mut self,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorOut<'_>],
        context: &Context<'_>,
    ) -> Result<(), Error> {
        let held = |bytes: &[u8]| {
            let lies = bytes.as_ptr().addr().is_multiple_of(ALIGNMENT as usize);
            let sized = bytes.len().is_multiple_of(MULTIPLE as usize);
            let problem = format!("{} bytes at {:p}", bytes.len(), bytes.as_ptr());
            (lies && sized)
                .then_some(())
                .ok_or_else(|| Error::new(Status::INTERNAL, problem))
        };
        inputs.iter().try_for_each(|input| held(input.bytes))?;
        // All of the room is this call's: what is alive elsewhere must not lie there.
        for output in outputs.iter_mut() {
            held(output.bytes)?;
            output.bytes.fill(0x5a);
        }
        let (inputs, mut outputs) = elements_of(inputs, outputs);
        self.0.execute(&inputs, &mut outputs, context)
    }
}

/// The elements alone, for a delegate that asked for no room behind them.
fn elements_of<'a>(
    inputs: &'a [TensorView<'_>],
    outputs: &'a mut [TensorOut<'_>],
) -> (Vec<TensorView<'a>>, Vec<TensorOut<'a>>) {
    let size = |dtype: DType, sizes: &[i64]| {
        let elements: i64 = sizes.iter().product();
        elements as usize * dtype.size().unwrap_or(0)
    };
    let inputs = inputs
        .iter()
        .map(|t| TensorView::new(t.dtype, t.sizes, &t.bytes[..size(t.dtype, t.sizes)]));
    let outputs = outputs.iter_mut().map(|t| {
        let bytes = size(t.dtype, t.sizes);
        TensorOut::new(t.dtype, &mut *t.sizes, &mut t.bytes[..bytes])
    });
    (inputs.collect(), outputs.collect())
}

/// A host with both; `states`: what they compile states what they need.
fn host(states: bool) -> Arc<Host> {
    let options = serde_json::json!({ "states": states });
    let host = Host::discover(HostOptions {
        options: ["lines", "pages"]
            .map(|name| (name.to_string(), options.clone()))
            .into(),
        ..HostOptions::default()
    });
    host.register_static("lines", static_entry::<Lines>()).unwrap();
    host.register_static("pages", static_entry::<Pages>()).unwrap();
    Arc::new(host)
}

const MODEL: &str = "arch-mlp-dynamic-batch";

/// The activation is one's, all else the other's: three regions in a row.
fn neighbours() -> Config {
    config(
        "[select]\norder = ['lines', 'pages']\n[[rule]]\nmatch = { op = 'aten.gelu*' }\ndeny = ['lines']\n\
         [[rule]]\nmatch = { op = 'aten.l*' }\ndeny = ['pages']\n",
    )
}

/// Runs every step; outputs are right. Gives the number of runs, the bytes of all inputs, and the report.
fn ran(session: &mut Session) -> (u64, u64, RunReport) {
    let fixture = fixture(MODEL);
    common::check(session, &fixture);
    let case = fixture.cases.iter().max_by_key(|case| case.steps.len()).unwrap();
    let inputs = case.steps.iter().flat_map(|step| &step.inputs);
    let bytes = inputs.map(|leaf| match leaf {
        Leaf::Tensor { bytes, .. } => bytes.len() as u64,
        _ => 0,
    });
    let bytes = bytes.sum();
    let report = session.report();
    assert_eq!(report.fallbacks(), 0, "{}", report.why_portable());
    (case.steps.len() as u64, bytes, report)
}

fn copies(report: &RunReport) -> Vec<u64> {
    report.regions.iter().map(|region| region.copied_tensors).collect()
}

fn owners(report: &RunReport) -> Vec<&str> {
    let backends = report.regions.iter().map(|region| region.backend.as_deref());
    backends.map(Option::unwrap_or_default).collect()
}

#[test]
fn neighbours_are_met_without_a_copy() {
    let (config, host) = (neighbours(), host(true));
    let file = common::compiled(MODEL, &config, &host);
    let mut session = common::open(&file, &config, &host).unwrap();
    let (runs, bytes, report) = ran(&mut session);
    assert_eq!(owners(&report), ["lines", "pages", "lines"]);
    // The app's input is read where the app has it, which is not as required; nothing else is copied.
    assert_eq!(copies(&report), [runs, 0, 0]);
    assert_eq!(report.regions[0].copied_bytes, bytes);
}

#[test]
fn the_file_says_where_the_room_is() {
    let (config, host) = (neighbours(), host(true));
    let file = common::compiled(MODEL, &config, &host);
    let bytes = file.bytes().as_slice();
    let program = Verified::parse(bytes).unwrap();
    let overlay: Overlay = serde_json::from_slice(program.named(bytes, OVERLAY_KEY).unwrap()).unwrap();
    let [first, middle, last] = &overlay.methods[0].regions[..] else {
        panic!("three regions")
    };
    let between = |a: &[u32], b: &[u32]| a == b && a.len() == 1;
    assert!(between(&first.outputs, &middle.inputs) && between(&middle.outputs, &last.inputs));
    let plan = &program.plans[0];
    for (region, places) in [(first, [256, 4096]), (middle, [4096, 4096]), (last, [4096, 256])] {
        assert_eq!(region.rooms.len(), 2);
        let values = region.inputs.iter().chain(&region.outputs);
        for ((value, room), alignment) in values.zip(&region.rooms).zip(places) {
            let EValue::Tensor(tensor) = &plan.values[*value as usize] else {
                panic!("a tensor")
            };
            let Storage::Arena(place) = tensor.storage else {
                panic!("an activation")
            };
            let size = (tensor.sizes.numel().unwrap() * tensor.dtype.size()) as u64;
            let lines = size.next_multiple_of(96);
            let want = if alignment == 4096 {
                lines.max(size.next_multiple_of(640))
            } else {
                lines
            };
            assert_eq!(
                (place.offset % alignment, *room),
                (0, want),
                "value {value} of {size} bytes"
            );
            assert!(place.offset + room <= plan.buffer_sizes[place.memory_id as usize]);
        }
    }
}

#[test]
fn what_the_app_makes_in_the_arena_is_met_too() {
    let (config, host) = (neighbours(), host(true));
    let mut session = common::open(&common::compiled(MODEL, &config, &host), &config, &host).unwrap();
    let fixture = fixture(MODEL);
    for case in &fixture.cases {
        let Leaf::Tensor { shape, bytes, .. } = &case.steps[0].inputs[0] else {
            panic!("a tensor");
        };
        let shape = delegraph_types::Dims::new(shape).unwrap();
        session.input_buffer(0, shape).unwrap().copy_from_slice(bytes);
        session.run(&[delegraph::Value::InPlace(shape)]).unwrap();
        let got = common::leaf(session.output(0).unwrap());
        delegraph_runner::compare::compare(&got, &case.steps[0].outputs[0], fixture.tolerance).unwrap();
    }
    assert_eq!(copies(&session.report()), [0, 0, 0]);
    assert_eq!(session.report().fallbacks(), 0);
    assert!(session.report().copies().is_empty());
}

#[test]
fn every_candidate_of_a_region_is_met() {
    let host = host(true);
    let both = config("[select]\norder = ['lines', 'pages']\n");
    let file = common::compiled(MODEL, &both, &host);
    for name in ["lines", "pages"] {
        let config = common::order(&[name]);
        let mut session = common::open(&file, &config, &host).unwrap();
        let (runs, _, report) = ran(&mut session);
        assert_eq!(owners(&report), [name]);
        assert_eq!(copies(&report), [runs], "{name}: the output lies as required");
    }
}

/// Has the blobs of a file state what both delegates need, as if the file's planner had not read them.
fn stated_afterwards(file: &Source) -> Source {
    let mut bytes = file.bytes().as_slice().to_vec();
    let word = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let blobs: Vec<usize> = (0..bytes.len() - 4)
        .filter(|&at| &bytes[at..at + 4] == b"DGB1")
        .collect();
    assert!(blobs.len() >= 3);
    for blob in blobs {
        let end = blob + word(&bytes, blob + 24) as usize;
        let of_pages = bytes[blob..end].windows(15).any(|name| name == b"pages.reference");
        let (alignment, multiple) = if of_pages { (4096, 640) } else { (256, 96) };
        let (table, count) = (word(&bytes, blob + 152), word(&bytes, blob + 156));
        for tensor in 0..count {
            let at = blob + (table + tensor * 16) as usize + 12;
            bytes[at..at + 4].copy_from_slice(&u32::to_le_bytes(alignment | multiple << 16));
        }
        // The header's own hash, with zeros in its place.
        let payload = blob + word(&bytes, blob + 96) as usize;
        bytes[blob + 248..blob + 280].fill(0);
        let hash = sha2::Sha256::digest(&bytes[blob..payload]);
        bytes[blob + 248..blob + 280].copy_from_slice(&hash);
    }
    Source::from_bytes(bytes, "afterwards.pte")
}

#[test]
fn a_file_that_was_planned_without_the_requirements_costs_copies() {
    let config = neighbours();
    let file = common::compiled(MODEL, &config, &host(false));
    let host = host(true);
    let mut session = common::open(&stated_afterwards(&file), &config, &host).unwrap();
    let (runs, bytes, report) = ran(&mut session);
    assert_eq!(owners(&report), ["lines", "pages", "lines"]);
    // The largest sizes are no multiples of what is asked, and nothing lies behind them: at least the output is copied in each run.
    assert!(copies(&report).iter().all(|copies| *copies >= runs), "{report:?}");
    assert!(report.regions[0].copied_bytes > bytes);
    let line = &report.copies()[1];
    assert!(
        line.starts_with("pages in instructions") && line.contains("copied in"),
        "{line}"
    );
}
