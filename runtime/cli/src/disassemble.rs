//! Blobs as text: the commands of one, where the command line has a disassembler of its form. Nothing of a vendor's runs.

use anyhow::Context;
use delegraph_abi::envelope::{self, Envelope};
use delegraph_ethos_u_sim::{Stream, container, disassemble};
use delegraph_pte::overlay::section_key;

/// Forms of blobs that there is a disassembler of.
const FORMS: [(&str, Disassembler); 1] = [("delegraph.ethos-u", ethos_u)];

type Disassembler = fn(&Envelope<'_>) -> anyhow::Result<String>;

/// A blob with its envelope read.
pub struct Opened<'a> {
    /// Its number.
    pub number: u32,
    envelope: Envelope<'a>,
}

impl<'a> Opened<'a> {
    /// Reads the envelope of a blob; `named` finds sections that lie elsewhere in its file.
    ///
    /// # Errors
    /// It is damaged.
    pub fn new(number: u32, blob: &'a [u8], named: &dyn Fn(&str) -> Option<&'a [u8]>) -> anyhow::Result<Opened<'a>> {
        let damaged = |error| crate::bad_input(format!("blob {number}: {error}"));
        let mut envelope = envelope::parse(blob).map_err(damaged)?;
        envelope.resolve(&|hash| named(&section_key(hash))).map_err(damaged)?;
        Ok(Opened { number, envelope })
    }

    /// What it is, as data.
    pub fn json(&self) -> serde_json::Value {
        let meta = &self.envelope.meta;
        let sections = self.envelope.sections.iter();
        serde_json::json!({
            "number": self.number, "delegate": meta.delegate, "format": meta.format, "format_version": meta.format_version,
            "target": meta.target, "precision": meta.precision,
            "sections": sections.map(|s| serde_json::json!({ "name": s.name, "bytes": s.bytes.len() })).collect::<Vec<_>>(),
        })
    }

    /// Its commands as text.
    ///
    /// # Errors
    /// There is no disassembler of its form, or it is damaged.
    pub fn disassemble(&self) -> anyhow::Result<String> {
        let meta = &self.envelope.meta;
        let Some((_, disassembler)) = FORMS.iter().find(|(form, _)| *form == meta.format) else {
            let known: Vec<String> = FORMS.iter().map(|(form, _)| format!("`{form}`")).collect();
            return Err(crate::usage(format!(
                "blob {} is of the form `{}`, which there is no disassembler of\n  hint: `--disasm` reads {}; without it, `--blob {}` says what the blob is",
                self.number,
                meta.format,
                known.join(", "),
                self.number
            )));
        };
        disassembler(&self.envelope).map_err(|error| crate::bad_input(format!("blob {}: {error:#}", self.number)))
    }
}

/// The command stream of a `vela_bin_stream`.
fn ethos_u(envelope: &Envelope<'_>) -> anyhow::Result<String> {
    let section = envelope.sections.iter().find(|section| section.name == "network");
    let section = section.context("it has no section `network`")?;
    let blocks = container::blocks(section.bytes)?;
    let commands = blocks.iter().find(|block| block.name == "cmd_data");
    let commands = commands.context("the network has no block `cmd_data`")?;
    Ok(disassemble(&Stream::parse(commands.data)?)?)
}
