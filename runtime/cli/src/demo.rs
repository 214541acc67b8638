//! `delegraph demo`: the main job on a real model, explained as it goes. Every line is checked; one that is untrue ends in
//! exit code 1.

use crate::args::{DemoArgs, Global};
use crate::output::{Output, Tint, bytes, duration};
use crate::wordpiece::WordPiece;
use anyhow::Context;
use delegraph::{Compiled, LoadOptions, Session, Source, Value};
use delegraph_config::Config;
use delegraph_host::Host;
use delegraph_runner::Leaf;
use delegraph_runner::fixture::Fixture;
use delegraph_types::DType;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Longest sentence in word pieces: the positions that the model has.
const LONGEST: usize = 128;
/// Shortest batch length that the model was exported for.
const SHORTEST: usize = 4;
/// Largest batch that the model was exported for.
const LARGEST_BATCH: usize = 16;
/// The recorded sentences of the fixture.
const SENTENCES: [&str; 3] = [
    "A man is eating food.",
    "A person eats a meal.",
    "The stock market fell sharply today.",
];

/// What the demo's `backends.toml` says besides the order. The reference delegate takes every node of this model; the rule
/// keeps some of them from it, as an app team would that does not trust one operator of a driver.
const SETTINGS: &str = "
[delegates]
search = [\"delegates.d\"]

[[rule]]
match = { op = \"aten.scaled_dot_product_attention\" }
deny = [\"reference\"]
reason = \"attention stays on the CPU in this demo\"
";

/// Runs the demo.
///
/// # Errors
/// The demo's files are not there, or a step fails.
pub fn run(args: &DemoArgs, global: &Global, output: &Output) -> anyhow::Result<u8> {
    let started = Instant::now();
    let folder = model_folder(args)?;
    let sentences: Vec<String> = match args.sentences.len() {
        0 => SENTENCES.iter().map(|s| (*s).to_string()).collect(),
        1 => {
            return Err(crate::usage(
                "one sentence has nothing to be compared with: give two or more",
            ));
        }
        n if n > LARGEST_BATCH => {
            return Err(crate::usage(format!(
                "the demo's model takes at most {LARGEST_BATCH} sentences, got {n}"
            )));
        }
        _ => args.sentences.clone(),
    };
    let mut demo = Demo {
        output,
        untrue: Vec::new(),
        no_load: global.no_load,
    };
    let temporary = tempfile::tempdir().context("cannot make a temporary folder")?;
    demo.tell(&folder, &sentences, temporary.path())?;
    output.closing(
        "MiniLM on the delegates above; every result compared",
        if demo.untrue.is_empty() {
            "every line above was checked and holds"
        } else {
            "see the untrue lines"
        },
        &duration(started.elapsed().as_secs_f64()),
        "delegraph partition conformance/fixtures/minilm-l6-int8/model.pt2 --backend reference",
    );
    output.json(&serde_json::json!({
        "schema": "delegraph.demo/1", "tool": crate::tool(), "untrue": demo.untrue,
        "exit_code": u8::from(!demo.untrue.is_empty()),
    }))?;
    for line in &demo.untrue {
        output.talk(format!("{}: {line}", output.tint(Tint::Red, "untrue")));
    }
    Ok(u8::from(!demo.untrue.is_empty()))
}

/// The folder of the demo's model: given, below the working folder, or below this source tree.
fn model_folder(args: &DemoArgs) -> anyhow::Result<PathBuf> {
    const PLACE: &str = "conformance/fixtures/minilm-l6-int8";
    let source_tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(PLACE);
    let candidates = [args.model.clone().unwrap_or_else(|| PLACE.into()), source_tree];
    let count = if args.model.is_some() { 1 } else { 2 };
    candidates[..count]
        .iter()
        .find(|folder| folder.join("model.pt2").is_file())
        .cloned()
        .ok_or_else(|| {
            crate::bad_input(format!(
                "no model.pt2 in `{}`\n  hint: run from a clone, or give `--model DIR`",
                candidates[0].display()
            ))
        })
}

struct Demo<'a> {
    output: &'a Output,
    untrue: Vec<String>,
    no_load: bool,
}

impl Demo<'_> {
    fn title(&self, text: &str) {
        self.output.data("");
        self.output.data(self.output.tint(Tint::Bold, text));
    }

    fn line(&self, text: impl AsRef<str>) {
        self.output.data(format!("  {}", text.as_ref()));
    }

    /// A line that claims something.
    fn claim(&mut self, holds: bool, text: impl Into<String>) {
        let text = text.into();
        let mark = if holds {
            self.output.tint(Tint::Green, "yes")
        } else {
            self.output.tint(Tint::Red, "NO ")
        };
        self.line(format!("{mark} {text}"));
        if !holds {
            self.untrue.push(text);
        }
    }

    fn tell(&mut self, folder: &Path, sentences: &[String], temporary: &Path) -> anyhow::Result<()> {
        let archive = folder.join("model.pt2");
        self.title("1. A PyTorch model, as torch.export.save wrote it");
        let module = delegraph::import(&Source::open(&archive)?)?;
        let nodes: usize = module.graphs.iter().map(|g| g.nodes.len()).sum();
        self.line(format!(
            "all-MiniLM-L6-v2, sentence embeddings, weights int8: {}",
            bytes(std::fs::metadata(&archive)?.len())
        ));
        self.line(format!(
            "{nodes} nodes, {} constants; read without Python",
            module.constants.len()
        ));
        self.line("licence Apache-2.0; changed here, see conformance/fixtures/minilm-l6-int8/NOTICE.md");

        let installed = Installation::new(temporary)?;
        let config = installed.configuration(&["null", "reference"])?;
        let host = Arc::new(delegraph::discover(&config, self.no_load));
        let compiled = delegraph::compile(module, &config, &host, &mut |step| {
            crate::partition::progress(self.output, &step)
        })?;
        self.output.progress_done();
        self.owners(&compiled);

        self.title("3. One file: an ordinary ExecuTorch program, delegates beside it");
        let program = temporary.join("minilm.pte");
        std::fs::write(&program, &compiled.bytes)?;
        for (name, count) in crate::partition::purposes_of(&compiled) {
            self.line(format!("{name:<10} {:>9}", bytes(count)));
        }
        let read = delegraph_pte::Verified::parse(&compiled.bytes)?;
        let found: u64 = read
            .named_data
            .iter()
            .filter_map(|named| Some(read.named(&compiled.bytes, &named.key)?.len() as u64))
            .sum();
        let p = &compiled.purposes;
        self.claim(
            found == p.blobs + p.overlay + p.ir,
            format!(
                "{} in all; a reader finds blobs, overlay and IR beside the program by name",
                bytes(compiled.bytes.len() as u64)
            ),
        );

        self.title("4. The result, with the delegate");
        let words = WordPiece::new(&std::fs::read_to_string(folder.join("vocab.txt"))?);
        let inputs = self.encode(&words, sentences);
        let mut session = open(&program, &config, &host)?;
        let (delegated, seconds) = embed(&mut session, &inputs)?;
        self.similarities(sentences, &delegated);
        let report = session.report();
        self.line(format!("{}, in {}", report.ran(), duration(seconds)));
        self.claim(
            report.delegated_nodes() > 0,
            "a delegate from a shared library ran part of it",
        );
        self.against_pytorch(folder, &mut session)?;

        self.title("5. The same file, the delegate's library removed");
        let library = installed.remove("reference")?;
        self.line(format!("$ rm delegates.d/{library}"));
        let without = Arc::new(delegraph::discover(&config, self.no_load));
        let mut session = open(&program, &config, &without)?;
        let (portable, seconds) = embed(&mut session, &inputs)?;
        let report = session.report();
        self.line(format!("{}, in {}", report.ran(), duration(seconds)));
        self.line(format!("why: {}", report.why_portable()));
        self.claim(report.delegated_nodes() == 0, "nothing was delegated");
        self.same("the answer is the same", &delegated, &portable);
        let mut strict = config.clone();
        strict.select.fallback = delegraph_config::Fallback::Deny;
        match open(&program, &strict, &without) {
            Ok(_) => self.claim(false, "`fallback = \"deny\"` refuses to run it so"),
            Err(error) => {
                self.claim(
                    true,
                    "`fallback = \"deny\"` refuses to run it so, and names the operators:",
                );
                let text = error.to_string();
                self.line(format!("    {}", clip(text.lines().next().unwrap_or_default(), 140)));
            }
        }

        self.title("6. The library back, the order swapped in backends.toml, nothing compiled again");
        installed.put_back("reference")?;
        let swapped = installed.configuration(&["portable", "reference"])?;
        self.line("order = [\"portable\", \"reference\"]");
        let again = Arc::new(delegraph::discover(&swapped, self.no_load));
        let mut session = open(&program, &swapped, &again)?;
        let (other, seconds) = embed(&mut session, &inputs)?;
        let report = session.report();
        self.line(format!("{}, in {}", report.ran(), duration(seconds)));
        self.claim(
            report.delegated_nodes() == 0,
            "the portable kernels, named first, took everything",
        );
        self.same("the answer is the same", &delegated, &other);

        self.title("Not run here");
        self.line(
            "no accelerator: `reference` computes on this CPU, `null` takes nothing; no vendor delegate exists yet",
        );
        self.line("stock ExecuTorch on this file: `cargo xtask provision executorch`, then `conformance/referee/run`");

        self.title("Next");
        self.line("a chip vendor    delegate-sdk/include/delegraph.h, and delegates/reference as an example");
        self.line("an app team      delegraph config init, then delegraph compile model.pt2 -o model.pte");
        self.line("a lab            delegraph conform models conformance/fixtures --backend reference");
        self.line("an ML engineer   delegraph partition model.pt2 --backend reference --why NODE");
        Ok(())
    }

    fn owners(&mut self, compiled: &Compiled) {
        self.title("2. Each delegate was asked about every node");
        self.line(crate::partition::owners(&compiled.report));
        for state in &compiled.report.backends {
            if let Some(problem) = &state.problem {
                self.line(format!("{}: {problem}", state.backend));
            }
        }
        let nodes = compiled.report.graphs.iter().flat_map(|graph| &graph.nodes);
        let mut refusals: Vec<(&str, &str, &str)> = nodes
            .flat_map(|node| {
                node.refusals
                    .iter()
                    .map(|r| (r.backend.as_str(), node.op, r.reason.as_str()))
            })
            .collect();
        refusals.sort_unstable();
        refusals.dedup();
        let (by_rule, own): (Vec<_>, Vec<_>) = refusals.into_iter().partition(|(.., why)| why.starts_with("a rule of"));
        self.line("two refusals, in the delegates' own words:");
        for (backend, op, why) in own.iter().take(2) {
            self.line(format!("  {backend} about `{op}`: \"{why}\""));
        }
        self.claim(own.len() >= 2, "every refusal comes with a reason");
        for (backend, op, why) in by_rule.iter().take(1) {
            self.line(format!("and `{op}` is kept from {backend}: {why}"));
        }
        let coverage = compiled.report.coverage();
        let mixed = coverage.delegated_nodes > 0 && coverage.delegated_nodes < coverage.nodes;
        self.claim(mixed, "delegate and portable kernels share the work");
    }

    fn encode(&self, words: &WordPiece, sentences: &[String]) -> [Leaf; 2] {
        let encoded: Vec<(Vec<i64>, usize)> = sentences.iter().map(|s| words.encode(s, LONGEST)).collect();
        let unknown: usize = encoded.iter().map(|(_, unknown)| unknown).sum();
        if unknown > 0 {
            self.line(format!("note: {unknown} words are not in the demo's short word list"));
        }
        let length = encoded
            .iter()
            .map(|(ids, _)| ids.len())
            .max()
            .unwrap_or(0)
            .max(SHORTEST);
        let (mut ids, mut mask) = (Vec::new(), Vec::new());
        for (row, _) in &encoded {
            for i in 0..length {
                ids.extend(row.get(i).copied().unwrap_or(0).to_le_bytes());
                mask.push(u8::from(i < row.len()));
            }
        }
        let shape = vec![sentences.len() as i64, length as i64];
        [
            Leaf::Tensor {
                dtype: DType::I64,
                shape: shape.clone(),
                bytes: ids,
            },
            Leaf::Tensor {
                dtype: DType::Bool,
                shape,
                bytes: mask,
            },
        ]
    }

    fn similarities(&self, sentences: &[String], embeddings: &[Vec<f32>]) {
        for (i, a) in embeddings.iter().enumerate() {
            for (j, b) in embeddings.iter().enumerate().skip(i + 1) {
                let cosine: f32 = a.iter().zip(b).map(|(x, y)| x * y).sum();
                let bar = "#".repeat((cosine.clamp(0.0, 1.0) * 20.0).round() as usize);
                self.line(format!(
                    "{cosine:>6.3} {bar:<20} {} | {}",
                    clip(&sentences[i], 40),
                    clip(&sentences[j], 40)
                ));
            }
        }
    }

    /// The recorded sentences again, whatever the user's own are.
    fn against_pytorch(&mut self, folder: &Path, session: &mut Session) -> anyhow::Result<()> {
        let fixture = Fixture::read(folder).map_err(|error| crate::bad_input(error.to_string()))?;
        let mut largest = 0.0f64;
        for step in fixture.cases.iter().flat_map(|case| &case.steps) {
            let values = step
                .inputs
                .iter()
                .map(crate::inputs::value)
                .collect::<Result<Vec<_>, _>>()?;
            session.run(&values)?;
            for (i, want) in step.outputs.iter().enumerate() {
                let got = crate::inputs::leaf(session.output(i)?);
                match delegraph_runner::compare::compare(&got, want, fixture.tolerance) {
                    Ok(difference) => largest = largest.max(difference.max_abs),
                    Err(reason) => {
                        self.claim(false, format!("PyTorch recorded the same: {reason}"));
                        return Ok(());
                    }
                }
            }
        }
        self.claim(
            true,
            format!("PyTorch recorded the same; the largest difference is {largest:.1e}"),
        );
        Ok(())
    }

    fn same(&mut self, text: &str, a: &[Vec<f32>], b: &[Vec<f32>]) {
        let pairs = a.iter().flatten().zip(b.iter().flatten());
        let largest = pairs
            .map(|(x, y)| (x - y).abs())
            .fold(0.0f32, |m, d| if d.is_nan() { f32::INFINITY } else { m.max(d) });
        self.claim(
            a.len() == b.len() && largest < 1e-4,
            format!("{text} (largest difference {largest:.1e})"),
        );
    }
}

/// The delegates of this build in a folder of their own, as an app would ship them: `delegates.d` and `backends.toml`.
struct Installation {
    folder: PathBuf,
    /// Backend, library in the build, library in the installation.
    libraries: Vec<(String, PathBuf, PathBuf)>,
}

impl Installation {
    fn new(folder: &Path) -> anyhow::Result<Installation> {
        let mut installed = Installation {
            folder: folder.to_path_buf(),
            libraries: Vec::new(),
        };
        let delegates = folder.join("delegates.d");
        std::fs::create_dir_all(&delegates)?;
        for candidate in crate::devices::discover(&Config::default(), true).candidates() {
            let (Some(manifest), Some(library)) = (&candidate.manifest_path, &candidate.library) else {
                continue;
            };
            let Some(file) = library.file_name() else { continue };
            let mut table: toml::Table = std::fs::read_to_string(manifest)?.parse()?;
            // Named with a folder, it is looked for here alone, and not beside the executable too.
            let here = format!("./{}", file.to_string_lossy());
            table.insert("library".to_string(), toml::Value::String(here));
            std::fs::write(
                delegates.join(format!("{}.delegate.toml", candidate.backend)),
                table.to_string(),
            )?;
            std::fs::copy(library, delegates.join(file))?;
            installed
                .libraries
                .push((candidate.backend, library.clone(), delegates.join(file)));
        }
        Ok(installed)
    }

    /// Writes `backends.toml` with this order, and reads it.
    fn configuration(&self, order: &[&str]) -> anyhow::Result<Config> {
        let path = self.folder.join("backends.toml");
        std::fs::write(&path, format!("[select]\norder = {order:?}\n{SETTINGS}"))?;
        Ok(delegraph::config_from_file(&path)?)
    }

    fn library(&self, backend: &str) -> anyhow::Result<&(String, PathBuf, PathBuf)> {
        let found = self.libraries.iter().find(|(name, ..)| name == backend);
        found.with_context(|| format!("the `{backend}` delegate was not built: run `cargo build --release`"))
    }

    /// Removes a library; gives its file name.
    fn remove(&self, backend: &str) -> anyhow::Result<String> {
        let (.., installed) = self.library(backend)?;
        std::fs::remove_file(installed)?;
        Ok(installed.file_name().unwrap_or_default().to_string_lossy().into_owned())
    }

    fn put_back(&self, backend: &str) -> anyhow::Result<()> {
        let (_, built, installed) = self.library(backend)?;
        std::fs::copy(built, installed)?;
        Ok(())
    }
}

fn open(program: &Path, config: &Config, host: &Arc<Host>) -> Result<Session, delegraph::Error> {
    Session::open(&Source::open(program)?, config, host, LoadOptions::default())
}

/// One embedding a sentence, and the seconds it took.
fn embed(session: &mut Session, inputs: &[Leaf; 2]) -> anyhow::Result<(Vec<Vec<f32>>, f64)> {
    let started = Instant::now();
    let values = [crate::inputs::value(&inputs[0])?, crate::inputs::value(&inputs[1])?];
    session.run(&values)?;
    let seconds = started.elapsed().as_secs_f64();
    let Value::Tensor(tensor) = session.output(0)? else {
        anyhow::bail!("the model returned no tensor");
    };
    let width = tensor.shape.last().copied().unwrap_or(1).max(1) as usize;
    let floats: Vec<f32> = tensor
        .to_contiguous()
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect();
    Ok((floats.chunks(width).map(<[f32]>::to_vec).collect(), seconds))
}

fn clip(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        None => text.to_string(),
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}
