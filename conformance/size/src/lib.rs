//! Runs programs that one delegate takes whole: the executor, the host and nothing else of Delegraph's.
//!
//! A region goes to its first candidate, whose library a manifest names. An operator that no region has is an error, as there are no kernels; sizes
//! and copies of states are the only instructions that run here.

mod sys;

use delegraph_executor::{BoundRegion, Executor, Input, Options, Output, RegionCall, RegionError};
use delegraph_host::{BlobSource, CallOptions, Host, HostOptions, Payloads, Session, Weights};
use delegraph_kernels::{Out, Tensor};
use delegraph_pte::Verified;
use delegraph_pte::model::{EValue, Storage};
use delegraph_pte::overlay::{OVERLAY_KEY, Overlay, Region};
use delegraph_types::Dims;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// A method that is ready to run.
pub struct Model {
    executor: Executor,
}

impl Model {
    /// Loads the `forward` method of a program over the delegate of a manifest.
    ///
    /// # Errors
    /// The program is damaged, or something of it is not the delegate's.
    pub fn load(program: Vec<u8>, manifest: &Path) -> Result<Model, String> {
        let host = Host::discover(HostOptions {
            manifests: vec![manifest.to_path_buf()],
            payloads: Payloads::Trusted,
            ..HostOptions::default()
        });
        let file = Arc::new(program);
        let verified = Arc::new(Verified::parse(&file).map_err(|error| error.to_string())?);
        let overlay = verified
            .named(&file, OVERLAY_KEY)
            .ok_or("nothing of the program is delegated")?;
        let overlay: Overlay = serde_json::from_slice(overlay).map_err(|error| error.to_string())?;
        let options = Options {
            delegates_follow: true,
            ..Options::default()
        };
        let mut executor =
            Executor::new(verified.clone(), "forward", file.clone(), options).map_err(|e| e.to_string())?;
        let methods = overlay.methods.iter().filter(|method| method.method == "forward");
        let regions = methods.flat_map(|method| &method.regions);
        let bound: Result<Vec<BoundRegion>, String> = regions
            .map(|region| bind(region, &verified, &file, &host, &executor))
            .collect();
        executor.bind(bound?).map_err(|error| error.to_string())?;
        match executor.cannot_run() {
            None => Ok(Model { executor }),
            Some(error) => Err(error.to_string()),
        }
    }

    /// Runs it on tensors; gives the bytes of the first output.
    ///
    /// # Errors
    /// Tensors that do not fit, or the delegate failed.
    pub fn run(&mut self, inputs: &[Input<'_>]) -> Result<Vec<u8>, String> {
        self.executor.run(inputs).map_err(|error| error.to_string())?;
        match self.executor.output(0).map_err(|error| error.to_string())? {
            Output::Tensor(tensor) => Ok(tensor.bytes().to_vec()),
            _ => Err("the first output is no tensor".to_string()),
        }
    }
}

fn bind(
    region: &Region,
    program: &Verified,
    file: &Arc<Vec<u8>>,
    host: &Host,
    executor: &Executor,
) -> Result<BoundRegion, String> {
    let candidate = region.candidates.first().ok_or("a region has no blob for all sizes")?;
    let delegate = host.delegate(&candidate.backend).map_err(|error| error.to_string())?;
    let range = program
        .named_range(&candidate.blob)
        .ok_or("a blob is not in the file")?;
    let blob = Part(file.clone(), range.start as usize..range.end as usize);
    let constants = candidate.weights.iter().filter_map(|&(id, buffer)| {
        let start = *program.constant_offsets.get(buffer as usize)? as usize;
        // A tensor of the plan says how long it is.
        let values = &executor.plan().values;
        let bytes = values.iter().find_map(|value| match value {
            EValue::Tensor(tensor) if tensor.storage == Storage::Constant(buffer) => {
                Some(tensor.sizes.numel()? * tensor.dtype.size())
            }
            _ => None,
        })?;
        Some((id, start..start.checked_add(bytes)?))
    });
    let weights = Constants(file.clone(), constants.collect());
    let session = delegate
        .load_from(Arc::new(blob), Arc::new(weights), None, &CallOptions::default())
        .map_err(|error| error.to_string())?;
    let largest = |value: &u32| match executor.plan().values.get(*value as usize) {
        Some(EValue::Tensor(tensor)) => Ok(tensor.sizes),
        _ => Err("an output of a region is no tensor".to_string()),
    };
    Ok(BoundRegion {
        start: region.start,
        end: region.end,
        inputs: region.inputs.clone(),
        outputs: region.outputs.clone(),
        rooms: Vec::new(),
        backend: candidate.backend.clone(),
        operators: region.operators.clone(),
        kept: Vec::new(),
        call: Box::new(Call {
            session,
            outputs: region.outputs.iter().map(largest).collect::<Result<_, _>>()?,
        }),
    })
}

struct Part(Arc<Vec<u8>>, Range<usize>);

impl BlobSource for Part {
    fn blob(&self) -> &[u8] {
        self.0.get(self.1.clone()).unwrap_or_default()
    }
}

struct Constants(Arc<Vec<u8>>, Vec<(u32, Range<usize>)>);

impl Weights for Constants {
    fn bytes(&self, id: u32) -> Option<&[u8]> {
        let (_, range) = self.1.iter().find(|(item, _)| *item == id)?;
        self.0.get(range.clone())
    }
}

struct Call {
    session: Session,
    /// The largest sizes of each output.
    outputs: Vec<Dims>,
}

impl RegionCall for Call {
    fn execute(&mut self, inputs: &[Tensor<'_>], outputs: &mut [Out<'_>]) -> Result<(), RegionError> {
        let failed = |text: String| RegionError::Failed(text);
        let given: Vec<delegraph_host::Input<'_>> = inputs
            .iter()
            .map(|tensor| delegraph_host::Input {
                dtype: tensor.dtype(),
                sizes: tensor.sizes(),
                bytes: tensor.bytes(),
            })
            .collect();
        for (out, largest) in outputs.iter_mut().zip(&self.outputs) {
            out.resize(largest).map_err(|error| failed(error.to_string()))?;
        }
        let mut taken: Vec<delegraph_host::Output<'_>> = outputs
            .iter_mut()
            .map(|out| delegraph_host::Output {
                dtype: out.dtype(),
                sizes: *out.sizes(),
                bytes: out.room_mut(),
            })
            .collect();
        let done = self.session.execute(&given, &mut taken);
        let sizes: Vec<Dims> = taken.iter().map(|output| output.sizes).collect();
        done.map_err(|error| failed(error.to_string()))?;
        for (out, sizes) in outputs.iter_mut().zip(&sizes) {
            out.resize(sizes).map_err(|error| failed(error.to_string()))?;
        }
        Ok(())
    }
}
