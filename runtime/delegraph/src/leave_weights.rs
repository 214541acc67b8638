//! Which regions' weights a file is written without (`fallback_weights = "drop"`): a blob that is packed for a delegate has them once more.

use delegraph_config::{Config, FallbackWeights};
use delegraph_host::{BlobSource, CallOptions, Host, Weights};
use delegraph_ir::{Bytes, Constant, ConstantId, Module};
use delegraph_lower::{CompiledCandidate, CompiledRegion};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// The delegate that every runtime has, unless it was built without.
const ALWAYS_THERE: &str = "cpu";
/// Bytes of weights from which on regions of [`ALWAYS_THERE`] leave theirs, where nothing is configured.
const LARGE: u64 = 64 << 20;

/// Marks the regions whose weights the file is written without: those with a backend that drops them, and none that is to keep them. What their blobs
/// ask the host for when they are loaded stays in it; a blob that cannot be loaded here, or whose session holds on to the host's weights, keeps
/// all that it may ask for.
pub(crate) fn mark(regions: &mut [Vec<CompiledRegion>], module: &Module, config: &Config, host: &Host) {
    for region in regions.iter_mut().flatten() {
        let choice = |candidate: &CompiledCandidate| choice(candidate, module, config);
        let choices: Vec<Option<FallbackWeights>> = region.candidates.iter().map(choice).collect();
        let says = |choice| choices.contains(&Some(choice));
        if says(FallbackWeights::Keep) || !says(FallbackWeights::Drop) {
            continue;
        }
        for candidate in &mut region.candidates {
            if let Some(asked) = asked_for(candidate, module, host) {
                candidate.weights.retain(|(id, _)| asked.contains(id));
            }
        }
        region.leaves_weights = true;
    }
}

/// What is configured for a candidate's backend, or follows from its weights.
fn choice(candidate: &CompiledCandidate, module: &Module, config: &Config) -> Option<FallbackWeights> {
    let backend = config.backend.get(&candidate.backend);
    let large = || candidate.backend == ALWAYS_THERE && bytes_of(candidate, module) > LARGE;
    let configured = backend.and_then(|backend| backend.fallback_weights);
    configured.or_else(|| large().then_some(FallbackWeights::Drop))
}

fn bytes_of(candidate: &CompiledCandidate, module: &Module) -> u64 {
    let constants: BTreeSet<ConstantId> = candidate.weights.iter().map(|(_, id)| *id).collect();
    let constants = constants.iter().filter_map(|id| module.constants.find(*id));
    let bytes = |constant: &Constant| {
        constant
            .sizes
            .numel()
            .unwrap_or(0)
            .saturating_mul(constant.dtype.size())
    };
    constants.map(|constant| bytes(constant) as u64).sum()
}

/// The ids of weights that a blob asks the host for while it is loaded; `None`: it cannot be loaded here, or may ask for others later.
fn asked_for(candidate: &mut CompiledCandidate, module: &Module, host: &Host) -> Option<BTreeSet<u32>> {
    let delegate = host.delegate(&candidate.backend).ok()?;
    let mut items = Vec::with_capacity(candidate.weights.len());
    for (id, constant) in &candidate.weights {
        items.push((*id, module.constants.find(*constant)?.to_contiguous()?));
    }
    let watched = Arc::new(Watched {
        items,
        asked: Mutex::default(),
    });
    let blob = Arc::new(std::mem::take(&mut candidate.blob));
    let source: Arc<dyn BlobSource> = blob.clone();
    let loaded = delegate.load_from(source, watched.clone(), None, &CallOptions::default());
    let loads = loaded.is_ok();
    // A session that keeps the weights may ask for more when it runs. The CPU delegate asks for all that it will use.
    let keeps = Arc::strong_count(&watched) > 1 && candidate.backend != ALWAYS_THERE;
    drop(loaded);
    // A delegate may keep a blob beyond its sessions.
    candidate.blob = Arc::try_unwrap(blob).unwrap_or_else(|blob| blob.to_vec());
    let asked = std::mem::take(&mut *watched.asked.lock().unwrap_or_else(PoisonError::into_inner));
    (loads && !keeps).then_some(asked)
}

/// Weights that remember who was asked for.
struct Watched {
    items: Vec<(u32, Bytes)>,
    asked: Mutex<BTreeSet<u32>>,
}

impl Weights for Watched {
    fn bytes(&self, id: u32) -> Option<&[u8]> {
        let (_, bytes) = self.items.iter().find(|(item, _)| *item == id)?;
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        Some(bytes.as_slice())
    }

    fn ids(&self) -> Vec<u32> {
        self.items.iter().map(|(id, _)| *id).collect()
    }
}
