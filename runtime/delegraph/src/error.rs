//! What can go wrong, by what the caller can do about it.

use delegraph_config::ConfigError;
use delegraph_emit::EmitError;
use delegraph_host::HostError;
use delegraph_import::ImportError;
use delegraph_lower::LowerError;
use delegraph_passes::PassError;
use delegraph_pte::PteError;
use std::path::PathBuf;

/// An error of the public API. [`Error::exit_code`] is the command line's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be opened or mapped.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The bytes are no model that is known here.
    #[error("`{name}` is neither a `.pt2` archive nor a `.pte` program{}", hint_line(.hint))]
    UnknownFormat {
        /// The file, or `bytes`.
        name: String,
        /// What it looks like instead; may be empty.
        hint: String,
    },
    /// A `.pt2` archive is malformed or holds what is not supported.
    #[error("{name}: {source}")]
    Import {
        /// The file.
        name: String,
        /// Why.
        source: ImportError,
    },
    /// A `.pte`, `.ptd` or `.bpte` file is malformed.
    #[error("{name}: {source}")]
    Program {
        /// The file.
        name: String,
        /// Why.
        source: PteError,
    },
    /// The overlay or IR inside a `.pte` is malformed.
    #[error("{name}: segment `{key}`: {problem}")]
    Segment {
        /// The file.
        name: String,
        /// Key in `named_data`.
        key: String,
        /// What is wrong.
        problem: String,
    },
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The call is wrong: no such method, a wrong number of inputs, a wrong dtype or shape.
    #[error("{0}")]
    Usage(String),
    /// A wanted backend is absent.
    #[error(transparent)]
    Absent(#[from] HostError),
    /// A region would have to run portably and `fallback = "deny"`.
    #[error("`{method}`, region {region} ({operators}) would run on the portable kernels: {reason}\n  hint: {hint}")]
    Denied {
        /// Method.
        method: String,
        /// Region of the method.
        region: usize,
        /// Its operators.
        operators: String,
        /// Why no delegate runs it.
        reason: String,
        /// Every delegate that has a blob for it is absent: none was found, or none could be loaded.
        absent: bool,
        /// Why the portable kernels do not run it.
        hint: String,
    },
    /// Less was delegated than the configuration asks for.
    #[error("{got:.1} % of the multiply-accumulates are delegated, `require_coverage` asks for {want:.1} %{}", hint_line(.hint))]
    Coverage {
        /// Percent.
        got: f64,
        /// Percent.
        want: f64,
        /// Operators that nobody took.
        hint: String,
    },
    /// A delegate could not partition or compile.
    #[error(transparent)]
    Lower(#[from] LowerError),
    /// A pass met something that it cannot do.
    #[error(transparent)]
    Pass(#[from] PassError),
    /// The model could not be quantized.
    #[error(transparent)]
    Quantize(#[from] delegraph_quant::QuantError),
    /// The program could not be written.
    #[error(transparent)]
    Emit(#[from] EmitError),
    /// The program cannot be made ready.
    #[error("{name}: {source}")]
    Load {
        /// The file.
        name: String,
        /// Why.
        source: delegraph_executor::LoadError,
    },
    /// A run failed.
    #[error("{0}")]
    Run(#[from] delegraph_executor::RunError),
    /// Ours.
    #[error("internal error: {0}\n  hint: please report it with the model, if you may")]
    Bug(String),
}

impl Error {
    /// 2 wrong use or configuration, 3 bad input file, 4 wanted backend absent, 5 delegate failed, 70 our bug.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Config(_) | Error::Usage(_) | Error::Lower(LowerError::Target { .. }) => 2,
            // The file is good; the name that was asked for is not.
            Error::Load {
                source: delegraph_executor::LoadError::NoMethod { .. },
                ..
            } => 2,
            Error::Read { .. }
            | Error::UnknownFormat { .. }
            | Error::Import { .. }
            | Error::Program { .. }
            | Error::Segment { .. }
            | Error::Load { .. }
            | Error::Pass(_) => 3,
            Error::Quantize(error) => crate::quantize::exit_code(error),
            Error::Absent(_) | Error::Denied { absent: true, .. } => 4,
            // What has no decomposition or no image is the model's.
            Error::Lower(LowerError::Decompose(_) | LowerError::Layout(_) | LowerError::Constant { .. }) => 3,
            Error::Denied { .. } | Error::Coverage { .. } | Error::Lower(_) => 5,
            Error::Run(delegraph_executor::RunError::Region { .. }) => 5,
            Error::Run(_) => 3,
            // What no `.pte` can hold is the model's; that passes left the module in disorder is ours.
            Error::Emit(
                EmitError::NoOutVariant { .. } | EmitError::Argument { .. } | EmitError::Size(..) | EmitError::Write(_),
            ) => 3,
            Error::Emit(_) | Error::Bug(_) => 70,
        }
    }

    /// A word for the JSON object.
    pub fn kind(&self) -> &'static str {
        match self.exit_code() {
            2 => "usage",
            3 => "bad-input",
            4 => "absent",
            5 => "delegate",
            _ => "internal",
        }
    }
}

fn hint_line(hint: &str) -> String {
    if hint.is_empty() {
        String::new()
    } else {
        format!("\n  hint: {hint}")
    }
}
