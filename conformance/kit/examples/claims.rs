//! Writes the claims of the delegates of this repository into their manifests: `cargo run -p delegraph-kit --example claims`.
//!
//! They are what a delegate's own predicate takes of the recorded calls of `conformance/corpus` and of the kit, in every dtype that an
//! operator has.

use delegraph_ethos_u::target::Target;
use delegraph_host::Claims;
use delegraph_kit::support::{Asked, Proposal, Setting, ask_all, of_kit, propose, questions_of};
use delegraph_lower::image::Form;
use delegraph_opset::Versions;
use delegraph_sdk::image::{NodeIndex, NodeView, Sizes, verify};
use std::path::{Path, PathBuf};

/// Where the written part begins.
const MARK: &str =
    "# What it takes. Written by `cargo run -p delegraph-kit --example claims`: do not edit from here on.\n";

/// A delegate whose manifest has written claims.
pub struct Claimant {
    /// Its manifest, from the root of the repository.
    pub manifest: &'static str,
    /// Operators of which it takes more than a claim can say.
    pub left: &'static [&'static str],
    /// Whether claims can say all that it takes of the others. Else it claims what it takes in every form, and takes more.
    pub whole: bool,
    /// Whether it takes a node.
    pub accept: fn(&NodeView<'_>) -> Result<(), String>,
}

/// All of them.
pub const CLAIMANTS: &[Claimant] = &[
    Claimant {
        manifest: "delegates/reference/reference.delegate.toml",
        left: &[],
        whole: true,
        accept: |node| match delegraph_reference::caps::accept(node) {
            Ok(_) => Ok(()),
            Err(refusal) => Err(refusal.text),
        },
    },
    // What it takes of patterns of several nodes no claim can say.
    Claimant {
        manifest: "delegates/cpu/cpu.delegate.toml",
        left: &[],
        whole: false,
        accept: |node| match delegraph_cpu::caps::verdict(node, &delegraph_cpu::caps::Known::of(&node.image())) {
            delegraph_sdk::Verdict::Take => Ok(()),
            delegraph_sdk::Verdict::Refuse(_, text) => Err(text.into_owned()),
        },
    },
    Claimant {
        manifest: "delegates/vulkan/vulkan.delegate.toml",
        left: &["aten::linear"],
        whole: true,
        accept: |node| match delegraph_vulkan::caps::accept(node) {
            Ok(_) => Ok(()),
            Err(refusal) => Err(refusal.text),
        },
    },
    // Without Qualcomm's library: it may refuse more, and the kit's case `partition/claims-taken` asks it. It takes fixed sizes alone, and
    // exact nodes on floats only behind one that computes: no claim can say either.
    Claimant {
        manifest: "delegates/hexagon/hexagon.delegate.toml",
        left: &[],
        whole: false,
        accept: |node| {
            // Taken, but not of tensors without elements, of which no call is recorded: `square`, which is made of it, has one.
            if node.op() == "aten::pow.Tensor_Scalar" {
                return Err("it is taken, and not claimed".to_string());
            }
            let image = node.image();
            let asked = delegraph_hexagon::validate::first(&image, node, &Sizes::new(&image));
            asked.map_err(|refusal| refusal.text)
        },
    },
    // What a target of each processor takes: the options or `--target` may name any. It takes quantized types alone, of fixed sizes, and what it
    // takes of numbers depends on scales, which no claim can say.
    Claimant {
        manifest: "delegates/ethos-u/ethos-u.delegate.toml",
        left: &[],
        whole: false,
        accept: |node| {
            let image = node.image();
            ["ethos-u55-128", "ethos-u65-256", "ethos-u85-256"]
                .into_iter()
                .filter_map(Target::find)
                .try_for_each(|target| delegraph_ethos_u::caps::check(node, &Sizes::new(&image), target))
                .map_err(|refusal| refusal.text)
        },
    },
];

/// A path of the repository.
pub fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

impl Claimant {
    /// The delegate's answer for an image of one node.
    ///
    /// # Errors
    /// The image is malformed.
    pub fn ask(&self, image: &[u8]) -> Result<Result<(), String>, String> {
        let view = verify(image).map_err(|problem| format!("{problem:?}"))?;
        Ok((self.accept)(&view.node(NodeIndex(0))))
    }

    /// Every recorded call, judged by these claims.
    ///
    /// # Errors
    /// The recorded calls cannot be read.
    pub fn asked(&self, claims: &Claims) -> Result<Vec<Asked>, String> {
        let mut questions = questions_of(&in_repository("conformance/corpus"))?;
        let versions = Versions::builtin();
        let setting = Setting {
            form: Form::newest(&versions),
            quantized: true,
        };
        questions.extend(of_kit(None, setting)?);
        ask_all(questions, claims, &mut |image| self.ask(image))
    }

    /// The manifest as it should be, and what could not be claimed.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn written(&self) -> Result<(String, Proposal), String> {
        let path = in_repository(self.manifest);
        let text = std::fs::read_to_string(&path).map_err(|error| format!("`{}`: {error}", path.display()))?;
        let head = text.split(MARK).next().unwrap_or_default().trim_end();
        let proposal = propose(&self.asked(&Claims::default())?);
        Ok((format!("{head}\n\n{MARK}{}", proposal.claims), proposal))
    }
}

#[allow(dead_code, reason = "the test beside it has only the functions")]
fn main() -> Result<(), String> {
    for claimant in CLAIMANTS {
        let (text, proposal) = claimant.written()?;
        for line in &proposal.left {
            eprintln!("{}: not claimed: {line}", claimant.manifest);
        }
        let path = in_repository(claimant.manifest);
        std::fs::write(&path, text).map_err(|error| format!("`{}`: {error}", path.display()))?;
        eprintln!("{}: {} tables", claimant.manifest, proposal.claims.entries.len());
    }
    Ok(())
}
