//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Ship one delegate library; run any PyTorch model on it; the CPU catches what the chip cannot take.
#[derive(Debug, Parser)]
#[command(name = "delegraph", version, arg_required_else_help = true, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// For every command.
    #[command(flatten)]
    pub global: Global,
}

/// Flags that every command takes.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Configuration file (backends.toml)
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Profile of the configuration
    #[arg(long, global = true, value_name = "NAME")]
    pub profile_name: Option<String>,
    /// Print one JSON object, to FILE or to standard output
    #[arg(long, global = true, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    pub json: Option<PathBuf>,
    /// Fallback is an error
    #[arg(long, global = true)]
    pub strict: bool,
    /// Load no delegate library
    #[arg(long, global = true)]
    pub no_load: bool,
    /// Compare the payloads of blobs with their hashes when they are loaded, too
    #[arg(long, global = true)]
    pub verify: bool,
    /// Say more (twice: much more)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Say nothing but results
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Colour
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto)]
    pub color: Color,
}

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum Color {
    Auto,
    Always,
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The main job on a real model, explained as it goes
    Demo(DemoArgs),
    /// Compile a model to a .pte over delegates
    Compile(CompileArgs),
    /// Show which delegate takes which node, and why the others refuse
    Partition(PartitionArgs),
    /// Run a model
    Run(RunArgs),
    /// Time a model
    Bench(BenchArgs),
    /// Shrink a model that is wrong or crashes on a backend to the smallest part that does
    Reduce(ReduceArgs),
    /// Look into a .pt2, .pte, .ptd or .bpte file, a library or a manifest; runs no vendor code
    Inspect(InspectArgs),
    /// List delegates and their devices
    Devices(DevicesArgs),
    /// Begin a delegate, look into one, compare two
    #[command(subcommand)]
    Delegate(DelegateCommand),
    /// Show, check or make a configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Run conformance cases
    #[command(subcommand)]
    Conform(ConformCommand),
    /// Same as `conform models`
    Models(ModelsArgs),
}

/// Backends of a command.
#[derive(Debug, Clone, Default, Args)]
pub struct BackendArgs {
    /// Backends in order of preference, over those of the configuration
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub backend: Vec<String>,
    /// What to compile for, as BACKEND:TARGET
    #[arg(long, value_name = "BACKEND:TARGET", value_delimiter = ',')]
    pub target: Vec<String>,
}

/// `demo`
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Your own sentences in place of the demo's three (two or more)
    pub sentences: Vec<String>,
    /// The folder of the demo's model
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
}

/// `compile`
#[derive(Debug, Args)]
pub struct CompileArgs {
    /// The model (.pt2 or .pte)
    pub model: PathBuf,
    /// The .pte to write
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Which backends.
    #[command(flatten)]
    pub backends: BackendArgs,
    /// Sizes to compile for in place of the model's full range: SYMBOL=SIZE, SYMBOL=MIN..MAX, or INPUT:DIM for a symbol; each time it is
    /// given is one set of them, and other sizes run portably
    #[arg(long, value_name = "SIZES")]
    pub shapes: Vec<String>,
    /// Quantize first. Without samples: 8da4w, w4, w8a8-dynamic or w8, as 8da4w:group=32:clip=mse;embedding=8;keep=GLOB. With
    /// --calibrate: w8a8-static, w8a16-static or w4a16-static, as w4a16-static:group=32:observer=mse;embedding=4;keep=GLOB
    #[arg(long, value_name = "SCHEME")]
    pub quantize: Option<String>,
    /// A language model: the file has the methods `prefill` and `decode`, which share weights and caches and give the logits of the last token
    /// alone. Both are MODEL's `forward`, which takes any number of tokens, unless --decode names a model of single tokens
    #[arg(long)]
    pub llm: bool,
    /// With --llm: the model that `decode` is, and MODEL is `prefill`
    #[arg(long, value_name = "FILE", requires = "llm")]
    pub decode: Option<PathBuf>,
    /// Samples to choose ranges by, or to measure layers on (safetensors): INPUT, INPUT.N for sample N, or CASE.STEP.inK; several times for several files
    #[arg(long, value_name = "FILE")]
    pub calibrate: Vec<PathBuf>,
    /// The families of processors that the CPU delegate packs weights for, with commas between: `host` (this machine's, the default), `scalar`,
    /// `neon`, `neon-dotprod`, `neon-i8mm`, `avx2`, `avx512`, `avx512vnni`. Every machine reads every packing; that of its own is the fastest
    #[arg(long, value_name = "LIST")]
    pub isa: Option<String>,
    /// Whether the file has the weights of delegated regions for the portable kernels, too: `keep` or `drop`, for all backends
    #[arg(long, value_name = "keep|drop")]
    pub fallback_weights: Option<FallbackWeights>,
    /// Explain every decision
    #[arg(long)]
    pub explain: bool,
}

/// `compile --fallback-weights`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum FallbackWeights {
    Keep,
    Drop,
}

/// `partition`
#[derive(Debug, Args)]
pub struct PartitionArgs {
    /// The model (.pt2 or .pte)
    pub model: PathBuf,
    /// Which backends.
    #[command(flatten)]
    pub backends: BackendArgs,
    /// Sizes to compile for in place of the model's full range: SYMBOL=SIZE, SYMBOL=MIN..MAX, or INPUT:DIM for a symbol; each time it is
    /// given is one set of them, and other sizes run portably
    #[arg(long, value_name = "SIZES")]
    pub shapes: Vec<String>,
    /// Why this node went where it went
    #[arg(long, value_name = "NODE")]
    pub why: Option<String>,
    /// Output format
    #[arg(long, value_enum, default_value_t = PartitionFormat::Text)]
    pub format: PartitionFormat,
    /// Write the graph image of every region into this folder
    #[arg(long, value_name = "DIR")]
    pub dump: Option<PathBuf>,
}

/// Formats of `partition`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum PartitionFormat {
    Text,
    Json,
    Dot,
    ModelExplorer,
}

/// `run`
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The model (.pt2 or .pte)
    pub model: PathBuf,
    /// Method to run
    #[arg(long, default_value = "forward")]
    pub method: String,
    /// Which backends.
    #[command(flatten)]
    pub backends: BackendArgs,
    /// Sizes to compile for in place of the model's full range: SYMBOL=SIZE, SYMBOL=MIN..MAX, or INPUT:DIM for a symbol; each time it is
    /// given is one set of them, and other sizes run portably
    #[arg(long, value_name = "SIZES")]
    pub shapes: Vec<String>,
    /// An input, as NAME=FILE.npy or POSITION=FILE.npy
    #[arg(long, value_name = "NAME=FILE")]
    pub input: Vec<String>,
    /// All inputs, by name or position, in a safetensors file
    #[arg(long, value_name = "FILE")]
    pub inputs: Option<PathBuf>,
    /// External constants of the program (.ptd)
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// Folder for the outputs, one .npy each; with --fixture one outputs.safetensors of CASE.STEP.outK and CASE.STEP.inK
    #[arg(long, value_name = "DIR")]
    pub output_dir: Option<PathBuf>,
    /// Expected outputs (safetensors, by name or position)
    #[arg(long, value_name = "FILE")]
    pub expect: Option<PathBuf>,
    /// Relative tolerance of --expect
    #[arg(long, default_value_t = RTOL)]
    pub rtol: f64,
    /// Absolute tolerance of --expect
    #[arg(long, default_value_t = ATOL)]
    pub atol: f64,
    /// Run every case of a fixture folder and compare
    #[arg(long, value_name = "FOLDER")]
    pub fixture: Option<PathBuf>,
    /// Write a Chrome/Perfetto trace: the executor's steps and the delegates' own events
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Write the same as an ETDump, for ExecuTorch's developer tools
    #[arg(long, value_name = "FILE")]
    pub etdump: Option<PathBuf>,
}

impl RunArgs {
    /// `--rtol` and `--atol` where they are not given.
    pub fn default_tolerance() -> (f64, f64) {
        (RTOL, ATOL)
    }
}

/// Tolerances of what is expected.
const RTOL: f64 = 1e-4;
/// See `RTOL`.
const ATOL: f64 = 1e-5;

/// `reduce`
#[derive(Debug, Args)]
pub struct ReduceArgs {
    /// The model (.pt2 or .pte)
    pub model: PathBuf,
    /// The backend that it fails on
    #[arg(long, value_name = "NAME")]
    pub backend: String,
    /// What to compile for, as BACKEND:TARGET
    #[arg(long, value_name = "BACKEND:TARGET", value_delimiter = ',')]
    pub target: Vec<String>,
    /// Method to run
    #[arg(long, default_value = "forward")]
    pub method: String,
    /// An input, as NAME=FILE.npy or POSITION=FILE.npy
    #[arg(long, value_name = "NAME=FILE")]
    pub input: Vec<String>,
    /// All inputs, by name or position, in a safetensors file; made up where no input is given
    #[arg(long, value_name = "FILE")]
    pub inputs: Option<PathBuf>,
    /// Folder for the part: program, inputs, expected outputs, graph image, configuration and how to see it again
    #[arg(short, long, value_name = "DIR", default_value = "reduced")]
    pub output: PathBuf,
    /// Relative tolerance of an output
    #[arg(long, default_value_t = RTOL)]
    pub rtol: f64,
    /// Absolute tolerance of an output
    #[arg(long, default_value_t = ATOL)]
    pub atol: f64,
    /// Seconds after which a part counts as hung
    #[arg(long, default_value_t = 120)]
    pub limit: u64,
    /// Most parts that are tried
    #[arg(long, default_value_t = 1000)]
    pub probes: u32,
}

/// `bench`
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// The model (.pt2 or .pte)
    pub model: PathBuf,
    /// Method to time
    #[arg(long, default_value = "forward")]
    pub method: String,
    /// Which backends.
    #[command(flatten)]
    pub backends: BackendArgs,
    /// Inputs in a safetensors file; made up where absent
    #[arg(long, value_name = "FILE")]
    pub inputs: Option<PathBuf>,
    /// Runs before the timed ones
    #[arg(long, default_value_t = 5)]
    pub warmup: u32,
    /// Timed runs
    #[arg(long)]
    pub runs: Option<u32>,
    /// Time for this many seconds instead
    #[arg(long, conflicts_with = "runs")]
    pub secs: Option<f64>,
    /// Threads of portable kernels and of delegates that borrow them; all unless given
    #[arg(long)]
    pub threads: Option<u32>,
    /// Write a Chrome/Perfetto trace of one run more
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Measure what the machine can do at most, and list what each step of the model reaches of it, the longest first
    #[arg(long, conflicts_with = "llm")]
    pub roofline: bool,
    /// Sizes of made-up inputs, as INPUT:DIM=SIZE or SYMBOL=SIZE; where the model is compiled for delegates, it is for these (see compile)
    #[arg(long, value_name = "SIZES")]
    pub shapes: Vec<String>,
    /// Time a language model: a prompt, then token after token, in tokens a second; the method takes tokens and their positions and keeps its cache in states
    #[arg(long, conflicts_with_all = ["inputs", "secs", "shapes"])]
    pub llm: bool,
    /// Tokens of the prompt of `--llm`
    #[arg(long, default_value_t = 64, requires = "llm")]
    pub prompt: u32,
    /// Tokens that `--llm` generates
    #[arg(long, default_value_t = 16, requires = "llm")]
    pub generate: u32,
    /// Output format
    #[arg(long, value_enum, default_value_t = BenchFormat::Text)]
    pub format: BenchFormat,
}

/// Formats of `bench`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum BenchFormat {
    Text,
    Md,
    Csv,
}

/// `inspect`
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// A .pt2, .pte, .ptd or .bpte file, a delegate library or a manifest
    pub file: PathBuf,
    /// Print the graph or the instructions
    #[arg(long)]
    pub tree: bool,
    /// Print the file's segments
    #[arg(long)]
    pub segments: bool,
    /// Print the envelope of blob N
    #[arg(long, value_name = "N")]
    pub blob: Option<u32>,
    /// Print the commands of blob N, where its form has a disassembler
    #[arg(long, requires = "blob")]
    pub disasm: bool,
}

/// `devices`
#[derive(Debug, Args)]
pub struct DevicesArgs {
    /// Load the libraries and ask them
    #[arg(long)]
    pub probe: bool,
}

/// `delegate`
#[derive(Debug, Subcommand)]
pub enum DelegateCommand {
    /// Make a folder with a whole delegate that builds and refuses everything politely
    New(DelegateNewArgs),
    /// Look into a library or manifest before anything of it runs, then load it and run ten small cases
    Check(DelegateCheckArgs),
    /// Say what of an old library a new one would break
    AbiDiff(DelegateAbiDiffArgs),
    /// Pin the delegates that the configuration finds: write the hashes of their files into a lock file
    Lock(DelegateLockArgs),
    /// Write the hashes of a delegate's files beside its manifest, and sign them
    Sign(DelegateSignArgs),
    /// Say whether a delegate is pinned or signed, and whether its certificate holds; runs nothing of it
    Verify(DelegateVerifyArgs),
    /// Load a library in this process: the child of `check` and `abi-diff`
    #[command(hide = true)]
    Probe(DelegateProbeArgs),
}

/// `delegate new`
#[derive(Debug, Args)]
pub struct DelegateNewArgs {
    /// Backend id of the delegate: lower case letters, digits and `-`
    pub name: String,
    /// Language
    #[arg(long, value_enum)]
    pub lang: Language,
    /// Folder to make; the name if absent
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Who makes it
    #[arg(long, value_name = "NAME", default_value = "Example")]
    pub vendor: String,
    /// For Rust: folder of the crate delegraph-sdk on this machine, in place of the repository
    #[arg(long, value_name = "DIR")]
    pub sdk: Option<PathBuf>,
}

/// Languages of `delegate new`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum Language {
    Rust,
    C,
    Cpp,
}

/// `delegate check`
#[derive(Debug, Args)]
pub struct DelegateCheckArgs {
    /// A library, or a manifest (*.delegate.toml)
    pub file: PathBuf,
}

/// `delegate probe`
#[derive(Debug, Args)]
pub struct DelegateProbeArgs {
    /// A library, or a manifest
    pub file: PathBuf,
    /// Stop when it has said who it is
    #[arg(long)]
    pub look: bool,
    /// Compile the cases into this folder, and run none
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
    /// Run what was compiled into this folder
    #[arg(long, value_name = "DIR")]
    pub replay: Option<PathBuf>,
    /// Stop when it has listed its devices
    #[arg(long)]
    pub devices: bool,
    /// Options of the delegate (JSON), in place of the configuration's
    #[arg(long, value_name = "JSON")]
    pub options: Option<String>,
}

/// `delegate abi-diff`
#[derive(Debug, Args)]
pub struct DelegateAbiDiffArgs {
    /// The library (or manifest) that is out there
    pub old: PathBuf,
    /// The library (or manifest) that is to follow it
    pub new: PathBuf,
}

/// `delegate lock`
#[derive(Debug, Args)]
pub struct DelegateLockArgs {
    /// The lock file to write; that of the configuration, or delegraph.lock beside it, if absent
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// The last day on which the pins hold, as 2027-06-30
    #[arg(long, value_name = "DAY")]
    pub expires: Option<String>,
}

/// `delegate sign`
#[derive(Debug, Args)]
pub struct DelegateSignArgs {
    /// A manifest (*.delegate.toml), a library, or a certificate (*.conformance.json)
    #[arg(required_unless_present = "generate")]
    pub file: Option<PathBuf>,
    /// Secret key of minisign
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// File whose first line is the password of the key
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Make the key first: the secret one at --key, the public one beside it with .pub after its name
    #[arg(long)]
    pub generate: bool,
}

/// `delegate verify`
#[derive(Debug, Args)]
pub struct DelegateVerifyArgs {
    /// A manifest (*.delegate.toml), or a library
    pub file: PathBuf,
    /// Public keys of minisign; those of the configuration, and its lock file, if absent
    #[arg(long, value_name = "FILE")]
    pub key: Vec<PathBuf>,
    /// A certificate of conformance; the one that the manifest names, or that lies beside it, if absent
    #[arg(long, value_name = "FILE")]
    pub certificate: Option<PathBuf>,
}

/// `config`
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print the merged configuration
    Show {
        /// Print which layer each value comes from
        #[arg(long)]
        origin: bool,
    },
    /// Check a configuration
    Validate {
        /// The file; the standard layers if absent
        file: Option<PathBuf>,
    },
    /// Print the JSON schema
    Schema,
    /// Write a commented backends.toml
    Init {
        /// Where to
        #[arg(default_value = "backends.toml")]
        file: PathBuf,
    },
}

/// `conform`
#[derive(Debug, Subcommand)]
pub enum ConformCommand {
    /// Judge a delegate by its library alone
    Run(KitArgs),
    /// Join the folders of a run's shards, or of its single cases
    Merge(MergeArgs),
    /// Run the cases of recorded models
    Models(ModelsArgs),
    /// Run recorded calls of operators
    Ops(OpsArgs),
    /// Print which operators of core ATen run, from a corpus, as a table in Markdown
    Coverage(CoverageArgs),
    /// Make the views of a run's folder again, or check a folder that was handed in
    Report(ReportArgs),
    /// Make one page of many reports
    Index(IndexArgs),
    /// Compare two runs, the worst regression first
    Diff(DiffArgs),
    /// One case in this process: the runner's child
    #[command(hide = true)]
    Case,
    /// A batch of calls in this process: the child of `ops`
    #[command(hide = true)]
    Calls,
    /// Cases of the kit in this process: the child of `run`
    #[command(hide = true)]
    Kit,
    /// Make the lists of cases that are not frozen anew: for `cargo xtask gen lists`
    #[command(hide = true)]
    Lists {
        /// The folder of the lists
        folder: PathBuf,
    },
}

/// `conform run`
#[derive(Debug, Args)]
pub struct KitArgs {
    /// A library, or a manifest
    pub library: PathBuf,
    /// The device, by its number within the delegate
    #[arg(long, value_name = "N")]
    pub device: Option<u32>,
    /// Only the cases of these lists (core, quant, llm, async); without a name: print the chosen cases and stop
    #[arg(long, value_name = "NAME", value_delimiter = ',', num_args = 0..=1, default_missing_value = "")]
    pub list: Vec<String>,
    /// What is asked
    #[arg(long, value_enum, default_value_t = ModeArg::Test)]
    pub mode: ModeArg,
    /// Only cases that match one of these globs
    #[arg(long, value_name = "GLOB")]
    pub case: Vec<String>,
    /// Only cases of operators that match one of these globs (aten::add.*)
    #[arg(long, value_name = "GLOB", value_delimiter = ',')]
    pub op: Vec<String>,
    /// Only cases of these dtypes
    #[arg(long, value_name = "DTYPE", value_delimiter = ',')]
    pub dtype: Vec<String>,
    /// Shard I of N, from 1; `conform merge` joins them
    #[arg(long, value_name = "I/N", conflicts_with = "exact")]
    pub shard: Option<String>,
    /// Of the whole run only this case; `conform merge` joins the folders
    #[arg(long, value_name = "ID")]
    pub exact: Option<String>,
    /// What random inputs are made from
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Failures that are waived (TOML)
    #[arg(long, value_name = "FILE")]
    pub waivers: Option<PathBuf>,
    /// Times that a failed case is run again; if it then passes it is flaky
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub retries: u32,
    /// Processes at the same time
    #[arg(long, value_name = "N")]
    pub jobs: Option<usize>,
    /// Seconds after which a case counts as a hang, in place of each case's own
    #[arg(long, value_name = "S")]
    pub limit: Option<u64>,
    /// An option of the delegate; VALUE as in TOML, or a text
    #[arg(long, value_name = "KEY=VALUE")]
    pub option: Vec<String>,
    /// Run cases of numbers where the manifest says, in its sandbox if that is a worker, and not in the case's own process
    #[arg(long)]
    pub isolated: bool,
    /// Folder for the records, the reports and what explains failures; a run that was interrupted goes on there
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Forget what the folder holds
    #[arg(long)]
    pub fresh: bool,
}

/// `--mode`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ModeArg {
    /// Is it right?
    Test,
    /// How fast is it, and how much memory does it take?
    Perf,
    /// Which operators does it take?
    Support,
}

/// `conform merge`
#[derive(Debug, Args)]
pub struct MergeArgs {
    /// The folders of the parts
    #[arg(required = true)]
    pub folders: Vec<PathBuf>,
    /// Folder for the whole
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
}

/// `conform report`
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// The folder of a run, with run.json and cases.jsonl
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// Write nothing: check that the files belong together and that nothing is missing
    #[arg(long)]
    pub check: bool,
    /// The library that was run, where it is not in the folder
    #[arg(long, value_name = "FILE", requires = "check")]
    pub library: Option<PathBuf>,
    /// Write a statement.md to fill in
    #[arg(long, conflicts_with = "check")]
    pub init_statement: bool,
}

/// `conform index`
#[derive(Debug, Args)]
pub struct IndexArgs {
    /// The folder that has the reports, at any depth
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// The page to write; index.json goes beside it [default: DIR/index.html]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// `conform diff`
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// The run before: a folder, or a cases.jsonl
    #[arg(value_name = "BEFORE")]
    pub before: PathBuf,
    /// The run after
    #[arg(value_name = "AFTER")]
    pub after: PathBuf,
}

/// `conform coverage`
#[derive(Debug, Args)]
pub struct CoverageArgs {
    /// A folder with index.jsonl and its shards
    #[arg(long, value_name = "DIR")]
    pub corpus: PathBuf,
}

/// `conform ops`
#[derive(Debug, Args)]
pub struct OpsArgs {
    /// A folder with index.jsonl and its shards
    #[arg(long, value_name = "DIR")]
    pub corpus: PathBuf,
    /// Which backends.
    #[command(flatten)]
    pub backends: BackendArgs,
    /// Only operators that match one of these globs (aten::add.*)
    #[arg(long, value_name = "GLOB", value_delimiter = ',')]
    pub op: Vec<String>,
    /// Only cases whose first tensor has one of these dtypes
    #[arg(long, value_name = "DTYPE", value_delimiter = ',')]
    pub dtype: Vec<String>,
    /// Only cases that match this glob (OP/KEY, or KEY)
    #[arg(long, value_name = "GLOB")]
    pub case: Option<String>,
    /// Shard I of N, from 1
    #[arg(long, value_name = "I/N")]
    pub shard: Option<String>,
    /// List the cases and stop
    #[arg(long)]
    pub list: bool,
    /// Seconds after which a case counts as a hang
    #[arg(long, default_value_t = LIMIT)]
    pub limit: u64,
    /// Cases in one process
    #[arg(long, default_value_t = BATCH, hide = true)]
    pub batch: usize,
    /// Write the program of each case into this folder, with a cases.jsonl, and run nothing
    #[arg(long, value_name = "DIR")]
    pub programs: Option<PathBuf>,
    /// Known failures (TOML), in place of the corpus's or the built-in ones
    #[arg(long, value_name = "FILE")]
    pub waivers: Option<PathBuf>,
    /// Folder for the records and the reports
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

/// `conform models`
#[derive(Debug, Args)]
pub struct ModelsArgs {
    /// A fixture folder, or a folder of them
    pub folder: PathBuf,
    /// Which file of each fixture
    #[arg(long, value_enum, default_value_t = FromArg::Pt2)]
    pub from: FromArg,
    /// Which backends.
    #[command(flatten)]
    pub backends: BackendArgs,
    /// Only cases that match this glob (MODEL/CASE)
    #[arg(long, value_name = "GLOB")]
    pub case: Option<String>,
    /// Shard I of N, from 1
    #[arg(long, value_name = "I/N")]
    pub shard: Option<String>,
    /// List the cases and stop
    #[arg(long)]
    pub list: bool,
    /// Seconds after which a case counts as a hang
    #[arg(long, default_value_t = 120)]
    pub limit: u64,
    /// Times that a failed case is run again
    #[arg(long, default_value_t = 0)]
    pub retries: u32,
    /// Folder for the records and the reports
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

impl Default for OpsArgs {
    fn default() -> OpsArgs {
        OpsArgs {
            corpus: PathBuf::new(),
            backends: BackendArgs::default(),
            op: Vec::new(),
            dtype: Vec::new(),
            case: None,
            shard: None,
            list: false,
            limit: LIMIT,
            batch: BATCH,
            programs: None,
            waivers: None,
            output: None,
        }
    }
}

/// Seconds after which a call counts as a hang.
const LIMIT: u64 = 30;

/// Calls in one process.
const BATCH: usize = 200;

/// `--from`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum FromArg {
    Pt2,
    Core,
    Pte,
    Compiled,
}
