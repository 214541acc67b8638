//! Half of a delegate that comes as two libraries: the half that runs. It knows no compiler; it loads what `pair-tool` wrote and
//! evaluates it with the reference delegate's kernels.

use delegraph_sdk::{Blob, Context, Delegate, Device, DeviceKind, Error, Info, Options, Run, Session, Weights};

delegraph_sdk::export_delegate!(PairRuntime: run);

/// The half that runs.
pub struct PairRuntime;

impl Delegate for PairRuntime {
    const INFO: Info = Info {
        name: "pair",
        vendor: "Delegraph",
        version: env!("CARGO_PKG_VERSION"),
        build: "conformance double",
        format: "delegraph.pair",
        format_version: 1,
    };

    // The options are the compiler's; both halves are given the same ones.
    fn new(_: &Options<'_>, _: &Context<'_>) -> Result<PairRuntime, Error> {
        Ok(PairRuntime)
    }

    fn devices(&self) -> Vec<Device> {
        vec![Device {
            kind: DeviceKind::Cpu,
            name: "pair".into(),
            vendor: "Delegraph".into(),
            arch: String::new(),
            driver: String::new(),
            memory: 0,
        }]
    }
}

impl Run for PairRuntime {
    fn load(&self, blob: &Blob<'_>, weights: &Weights<'_>, _: &Context<'_>) -> Result<Box<dyn Session>, Error> {
        let code = blob.section("code")?;
        let graph = code
            .strip_prefix(b"PAIRCODE")
            .ok_or_else(|| Error::corrupt("it is not what the tool writes"))?;
        delegraph_reference::execute::load_image(graph, weights)
    }
}
