//! `<name>.delegate.toml`: what the host reads before it runs anything of a vendor's.

use crate::Isolation;
use crate::claims::{self, Claims};
use crate::trust::{Digest, Unread, read_text};
use delegraph_types::nearest;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// A delegate's manifest.
///
/// ```toml
/// manifest_version = 1
/// name = "vulkan"                  # backend id: lower case letters, digits, `-`
/// vendor = "Example"
/// version = "1.2.0"                # the library says the same, or is refused
/// licence = "Apache-2.0"
/// roles = ["compile", "run"]
/// targets = ["sm8650"]             # optional: what `compile` can be asked for
/// options_schema = "vulkan.json"   # optional: JSON Schema of its options
/// contact = "https://example.org"
/// isolation = "worker"             # optional: `in_process` (unless said), `worker`, a process of its own, or `compile_in_worker`
/// passes = ["fold-qdq"]            # optional: what the host does to a graph before the delegate sees it
///
/// [library]                        # or `library = "libvulkan_delegate.so"` for every machine
/// x86_64-unknown-linux-gnu = "libvulkan_delegate.so"
///
/// [abi]
/// major = 1                        # of the entry that is used: `dg_delegate_entry_v1`; 0 for a library of that time
/// min_minor = 0                    # smallest minor of a host of that major that it works with
///
/// [sandbox]                        # optional: what it may do in a worker, beyond reading system libraries and its own folder
/// read = ["firmware"]              # files and folders, relative to the manifest
/// read_options = ["library"]       # options of its own that name a file or folder, which it may read
/// read_variables = ["DELEGRAPH_X"] # variables of the environment that name one; each begins with DELEGRAPH_
/// write = []
/// devices = ["/dev/dri"]
/// programs = [{ option = "tool", name = "vendor-cc" }]   # start this program: the option's, else the one of the name in PATH
/// exec = false                     # start any program of the system
/// network = false                  # connect to other machines
/// temp = true                      # a folder for temporary files: TMPDIR
///
/// [[op]]                           # optional: what it takes, see `claims`; whatever is claimed is tested
/// op = "aten::add.Tensor"
/// dtypes = ["f32"]
///
/// [numeric]                        # optional: where its floats may differ from IEEE 754; unless said, they do not
/// nan = "any"                      # or "propagate"
/// infinity = "any"                 # or "keep"
/// negative_zero = "any"            # or "keep"
/// denormals = "flush"              # or "keep"
///
/// [conformance]                    # optional
/// certificate = "vulkan.conformance.json"   # relative to the manifest; NAME.conformance.json beside it unless said
/// ```
///
/// Two more keys stand beside `name`: `profiles = ["core"]`, the lists of conformance cases that it passes, and `cancel_bound_ms = 50`,
/// the time within which it ends a run that is cancelled.
///
/// The passes are those of [`Pass`]: `fold-qdq`, `fold-batchnorm`, `nhwc`, `keep:OPERATOR`.
///
/// A library's path is relative to the manifest. A library without a folder is looked for beside the manifest, then beside
/// the executable.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// Version of the manifest's form: 1.
    pub manifest_version: u32,
    /// Backend id, for example `vulkan`.
    pub name: String,
    /// Who makes it.
    pub vendor: String,
    /// Semantic version of the library.
    pub version: String,
    /// SPDX expression.
    pub licence: String,
    /// Library file of this machine, as the manifest names it; `None`: nothing for this machine's triple.
    pub library: Option<PathBuf>,
    /// Library files by target triple; empty where one file is for every machine.
    pub libraries: BTreeMap<String, PathBuf>,
    /// ABI major of the entry that is used, which the library exports.
    pub abi_major: u16,
    /// Smallest minor of a host of that major that it works with.
    pub abi_min_minor: u16,
    /// `compile`, `run`.
    pub roles: Vec<String>,
    /// What `compile` can be asked for; empty: it has one target, its own.
    pub targets: Vec<String>,
    /// JSON Schema of its options; relative to the manifest.
    pub options_schema: Option<PathBuf>,
    /// Where to report problems.
    pub contact: String,
    /// What the host does to a graph before the delegate sees it.
    pub passes: Vec<Pass>,
    /// Where the library runs unless the configuration says otherwise.
    pub isolation: Isolation,
    /// What it may do in a worker.
    pub sandbox: SandboxWishes,
    /// What it says it takes.
    pub claims: Claims,
    /// Lists of conformance cases that it says it passes: `core`, `quant`.
    pub profiles: Vec<String>,
    /// Milliseconds within which it ends a run that is cancelled; `None`: it promises nothing.
    pub cancel_bound_ms: Option<u64>,
    /// Where its floats may differ from IEEE 754.
    pub numeric: Numeric,
    /// Its conformance certificate; relative to the manifest.
    pub certificate: Option<PathBuf>,
}

/// What a delegate promises of floats that are no common numbers: `[numeric]`. A promise that is not made is not tested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numeric {
    /// `nan = "propagate"`: what is made of NaN is NaN, where PyTorch's operator says so. Not with `"any"`.
    pub nan: bool,
    /// `infinity = "keep"`: infinities come and go as IEEE 754 says. Not with `"any"`.
    pub infinity: bool,
    /// `negative_zero = "keep"`: the sign of zero is that of IEEE 754. Not with `"any"`.
    pub negative_zero: bool,
    /// `denormals = "keep"`: numbers too small for full precision are not taken for zero. Not with `"flush"`.
    pub denormals: bool,
}

impl Default for Numeric {
    fn default() -> Numeric {
        Numeric {
            nan: true,
            infinity: true,
            negative_zero: true,
            denormals: true,
        }
    }
}

/// What a delegate in a worker needs to be allowed, as its manifest asks: `[sandbox]`. Paths are relative to the manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SandboxWishes {
    /// Files and folders that it reads.
    pub read: Vec<PathBuf>,
    /// Options of its own whose value is a file or folder that it reads: the user names the place, the manifest does not.
    pub read_options: Vec<String>,
    /// Variables of the environment that name a file or folder that it reads. They begin with `DELEGRAPH_`: no other variable was set with a
    /// delegate in mind.
    pub read_variables: Vec<String>,
    /// Files and folders that it writes.
    pub write: Vec<PathBuf>,
    /// Device files that it opens.
    pub devices: Vec<PathBuf>,
    /// Programs that it starts, and no others.
    pub programs: Vec<ProgramWish>,
    /// It starts programs, whichever the system has.
    pub exec: bool,
    /// It connects to other machines.
    pub network: bool,
    /// It needs a folder for temporary files.
    pub temp: bool,
}

/// A program that a delegate in a worker starts: an entry of `sandbox.programs`. The user says where it is, by the option or by `PATH`; the
/// manifest does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramWish {
    /// Option of the delegate whose value is the program's path, or its name to look for in `PATH`.
    pub option: Option<String>,
    /// Name to look for in `PATH` where there is no option or the user did not set it.
    pub name: Option<String>,
}

/// Something that the host does to a graph before a delegate sees it, because the delegate's manifest asks for it. The program
/// that runs where the delegate does not stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pass {
    /// `fold-qdq`: quantize and dequantize operators become quantized types.
    FoldQdq,
    /// `fold-batchnorm`: a batch norm behind a layer of constant weights becomes part of the layer.
    FoldBatchNorm,
    /// `nhwc`: images are of normal form 1, in which spatial operators take tensors with the channels last.
    Nhwc,
    /// `keep:OPERATOR`: this composite operator is offered whole, also where the file has it taken apart. By its name with
    /// namespace, for example `aten::scaled_dot_product_attention`; with or without an overload.
    Keep(String),
}

/// Passes that take no operator, as manifests name them.
const PASSES: [(&str, Pass); 3] = [
    ("fold-qdq", Pass::FoldQdq),
    ("fold-batchnorm", Pass::FoldBatchNorm),
    ("nhwc", Pass::Nhwc),
];

impl std::fmt::Display for Pass {
    /// As the manifest names it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (PASSES.iter().find(|(_, pass)| pass == self), self) {
            (Some((name, _)), _) => f.write_str(name),
            (None, Pass::Keep(operator)) => write!(f, "keep:{operator}"),
            (None, other) => write!(f, "{other:?}"),
        }
    }
}

impl Pass {
    fn parse(name: &str) -> Result<Pass, String> {
        if let Some((_, pass)) = PASSES.iter().find(|(known, _)| *known == name) {
            return Ok(pass.clone());
        }
        if let Some(operator) = name.strip_prefix("keep:") {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | ':');
            if operator.is_empty() || !operator.chars().all(plain) {
                return Err(format!(
                    "`passes` asks for `{name}`, which names no operator; an example is \
                     `keep:scaled_dot_product_attention`"
                ));
            }
            let full = match operator.strip_prefix("aten.") {
                Some(base) => format!("aten::{base}"),
                None if operator.contains("::") => operator.to_string(),
                None => format!("aten::{operator}"),
            };
            return Ok(Pass::Keep(full));
        }
        let known = PASSES.iter().map(|(known, _)| *known).chain(["keep:"]);
        let hint = nearest(name, known).map_or(String::new(), |n| format!("; did you mean `{n}`?"));
        Err(format!("`passes` asks for `{name}`, which is no pass{hint}"))
    }
}

const KEYS: [&str; 19] = [
    "manifest_version",
    "name",
    "vendor",
    "version",
    "licence",
    "library",
    "abi",
    "roles",
    "targets",
    "options_schema",
    "contact",
    "passes",
    "isolation",
    "sandbox",
    "op",
    "profiles",
    "cancel_bound_ms",
    "numeric",
    "conformance",
];

impl Manifest {
    /// Reads a manifest file.
    ///
    /// # Errors
    /// One sentence that says what is wrong with it.
    pub fn read(path: &Path) -> Result<Manifest, String> {
        Ok(Manifest::read_hashed(path)?.0)
    }

    /// Reads a manifest file, once: the hash is that of what was parsed.
    ///
    /// # Errors
    /// As [`Manifest::read`].
    pub fn read_hashed(path: &Path) -> Result<(Manifest, Digest), String> {
        let text = read_text(path, "the manifest").map_err(|unread| match unread {
            Unread::Absent => "the manifest cannot be read: there is none".to_string(),
            Unread::Wrong(problem) => problem,
        })?;
        Ok((Manifest::parse(&text)?, Digest::of(text.as_bytes())))
    }

    /// Parses a manifest.
    ///
    /// # Errors
    /// One sentence that says what is wrong with it.
    pub fn parse(text: &str) -> Result<Manifest, String> {
        let table: Table = text
            .parse()
            .map_err(|e: toml::de::Error| format!("the manifest is not TOML: {}", e.message()))?;
        known_keys(&table, &KEYS, "")?;
        let manifest_version = integer(&table, "manifest_version", "")?;
        if manifest_version != 1 {
            return Err(format!(
                "manifest version `{manifest_version}` is not supported, only 1 is"
            ));
        }
        let name = string(&table, "name")?;
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || !name.chars().all(plain) {
            return Err(format!(
                "`name` is `{name}`; a backend id is lower case letters, digits and `-`"
            ));
        }
        let abi = match table.get("abi") {
            Some(Value::Table(abi)) => abi,
            _ => return Err("the manifest has no table `abi`".to_string()),
        };
        known_keys(abi, &["major", "min_minor"], "abi.")?;
        let roles = strings(&table, "roles")?;
        if roles.is_empty() {
            return Err("`roles` is missing or empty; it holds `compile`, `run`, or both".to_string());
        }
        if let Some(other) = roles.iter().find(|r| !["compile", "run"].contains(&r.as_str())) {
            return Err(format!("`{other}` is not a role; the roles are `compile` and `run`"));
        }
        let libraries = libraries(&table)?;
        let library = match &table["library"] {
            Value::String(path) => Some(PathBuf::from(path)),
            _ => libraries.get(&host_triple()).cloned(),
        };
        Ok(Manifest {
            manifest_version,
            name,
            vendor: string(&table, "vendor")?,
            version: string(&table, "version")?,
            licence: string(&table, "licence")?,
            library,
            libraries,
            abi_major: integer(abi, "major", "abi.")?,
            abi_min_minor: integer(abi, "min_minor", "abi.")?,
            roles,
            targets: strings(&table, "targets")?,
            options_schema: match table.get("options_schema") {
                None => None,
                Some(_) => Some(PathBuf::from(string(&table, "options_schema")?)),
            },
            contact: match table.get("contact") {
                None => String::new(),
                Some(_) => string(&table, "contact")?,
            },
            passes: strings(&table, "passes")?
                .iter()
                .map(|name| Pass::parse(name))
                .collect::<Result<_, _>>()?,
            isolation: match table.get("isolation").map(Value::as_str) {
                None | Some(Some("in_process")) => Isolation::InProcess,
                Some(Some("worker")) => Isolation::Worker,
                Some(Some("compile_in_worker")) => Isolation::CompileInWorker,
                Some(_) => {
                    return Err(
                        "`isolation` in the manifest is none of `in_process`, `worker` and `compile_in_worker`"
                            .to_string(),
                    );
                }
            },
            sandbox: sandbox(&table)?,
            claims: claims::parse(&table)?,
            profiles: strings(&table, "profiles")?,
            cancel_bound_ms: match table.get("cancel_bound_ms") {
                None => None,
                Some(_) => Some(integer(&table, "cancel_bound_ms", "")?),
            },
            numeric: numeric(&table)?,
            certificate: certificate(&table)?,
        })
    }
}

fn numeric(table: &Table) -> Result<Numeric, String> {
    let table = match table.get("numeric") {
        None => return Ok(Numeric::default()),
        Some(Value::Table(table)) => table,
        Some(_) => return Err("`numeric` in the manifest is no table".to_string()),
    };
    known_keys(table, &["nan", "infinity", "negative_zero", "denormals"], "numeric.")?;
    let kept = |key: &str, kept: &str, not: &str| match table.get(key).map(Value::as_str) {
        None => Ok(true),
        Some(Some(word)) if word == kept => Ok(true),
        Some(Some(word)) if word == not => Ok(false),
        Some(_) => Err(format!(
            "`numeric.{key}` in the manifest is neither `{kept}` nor `{not}`"
        )),
    };
    Ok(Numeric {
        nan: kept("nan", "propagate", "any")?,
        infinity: kept("infinity", "keep", "any")?,
        negative_zero: kept("negative_zero", "keep", "any")?,
        denormals: kept("denormals", "keep", "flush")?,
    })
}

fn certificate(table: &Table) -> Result<Option<PathBuf>, String> {
    let table = match table.get("conformance") {
        None => return Ok(None),
        Some(Value::Table(table)) => table,
        Some(_) => return Err("`conformance` in the manifest is no table".to_string()),
    };
    known_keys(table, &["certificate"], "conformance.")?;
    match table.get("certificate") {
        None => Ok(None),
        Some(Value::String(file)) => Ok(Some(PathBuf::from(file))),
        Some(_) => Err("`conformance.certificate` in the manifest is not a text".to_string()),
    }
}

fn sandbox(table: &Table) -> Result<SandboxWishes, String> {
    let table = match table.get("sandbox") {
        None => return Ok(SandboxWishes::default()),
        Some(Value::Table(table)) => table,
        Some(_) => return Err("`sandbox` in the manifest is no table".to_string()),
    };
    known_keys(
        table,
        &[
            "read",
            "read_options",
            "read_variables",
            "write",
            "devices",
            "programs",
            "exec",
            "network",
            "temp",
        ],
        "sandbox.",
    )?;
    let programs = programs(table)?;
    let read_variables = strings(table, "read_variables")?;
    if let Some(other) = read_variables.iter().find(|name| !name.starts_with("DELEGRAPH_")) {
        return Err(format!(
            "`sandbox.read_variables` in the manifest has `{other}`; such variables begin with `DELEGRAPH_`"
        ));
    }
    let paths = |key: &str| -> Result<Vec<PathBuf>, String> {
        let paths = strings(table, key)?;
        Ok(paths.iter().map(PathBuf::from).collect())
    };
    let flag = |key: &str| match table.get(key) {
        None => Ok(false),
        Some(Value::Boolean(flag)) => Ok(*flag),
        Some(_) => Err(format!("`sandbox.{key}` in the manifest is neither true nor false")),
    };
    if flag("exec")? && !programs.is_empty() {
        return Err(
            "`sandbox.exec` in the manifest allows every program, so `sandbox.programs` says nothing; keep one"
                .to_string(),
        );
    }
    Ok(SandboxWishes {
        read: paths("read")?,
        read_options: strings(table, "read_options")?,
        read_variables,
        write: paths("write")?,
        devices: paths("devices")?,
        programs,
        exec: flag("exec")?,
        network: flag("network")?,
        temp: flag("temp")?,
    })
}

/// Most programs that one manifest may ask for.
const MOST_PROGRAMS: usize = 16;

fn programs(table: &Table) -> Result<Vec<ProgramWish>, String> {
    let wrong = || "`sandbox.programs` in the manifest is not a list of `{ option = .., name = .. }`".to_string();
    let items = match table.get("programs") {
        None => return Ok(Vec::new()),
        Some(Value::Array(items)) => items,
        Some(_) => return Err(wrong()),
    };
    if items.len() > MOST_PROGRAMS {
        return Err(format!(
            "`sandbox.programs` in the manifest has more than {MOST_PROGRAMS} entries"
        ));
    }
    items
        .iter()
        .enumerate()
        .map(|(i, item)| program(item.as_table().ok_or_else(wrong)?, i + 1))
        .collect()
}

fn program(table: &Table, number: usize) -> Result<ProgramWish, String> {
    let place = format!("sandbox.programs[{number}].");
    known_keys(table, &["option", "name"], &place)?;
    let text = |key: &str| match table.get(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(format!("`{place}{key}` in the manifest is not a text")),
    };
    let (option, name) = (text("option")?, text("name")?);
    if option.as_ref().is_some_and(|option| option.is_empty()) {
        return Err(format!("`{place}option` in the manifest names no option"));
    }
    // A path would be the manifest's choice of a file on the user's machine.
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+');
    if let Some(name) = name
        .as_ref()
        .filter(|name| !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !name.chars().all(plain))
    {
        return Err(format!(
            "`{place}name` in the manifest is `{name}`; a program to look for in `PATH` is letters, digits, `.`, `_`, `-` and `+`"
        ));
    }
    match (&option, &name) {
        (None, None) => Err(format!(
            "`{}` in the manifest names neither an `option` nor a `name`",
            place.trim_end_matches('.')
        )),
        _ => Ok(ProgramWish { option, name }),
    }
}

/// The target triple of this machine, as manifests name it.
pub fn host_triple() -> String {
    let environment = if cfg!(target_env = "musl") {
        "musl"
    } else if cfg!(target_env = "msvc") {
        "msvc"
    } else {
        "gnu"
    };
    let arch = std::env::consts::ARCH;
    match std::env::consts::OS {
        "linux" => format!("{arch}-unknown-linux-{environment}"),
        "android" => format!("{arch}-linux-android"),
        "macos" => format!("{arch}-apple-darwin"),
        "ios" => format!("{arch}-apple-ios"),
        "windows" => format!("{arch}-pc-windows-{environment}"),
        other => format!("{arch}-unknown-{other}"),
    }
}

pub(crate) fn known_keys(table: &Table, known: &[&str], place: &str) -> Result<(), String> {
    for key in table.keys() {
        if !known.contains(&key.as_str()) {
            let hint = nearest(key, known.iter().copied()).map_or(String::new(), |n| format!("; did you mean `{n}`?"));
            return Err(format!("the manifest has an unknown key `{place}{key}`{hint}"));
        }
    }
    Ok(())
}

fn string(table: &Table, key: &str) -> Result<String, String> {
    match table.get(key) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(format!("`{key}` in the manifest is not a text")),
        None => Err(format!("the manifest has no `{key}`")),
    }
}

fn strings(table: &Table, key: &str) -> Result<Vec<String>, String> {
    let wrong = || format!("`{key}` in the manifest is not a list of texts");
    match table.get(key) {
        None => Ok(Vec::new()),
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| item.as_str().map(str::to_string).ok_or_else(wrong))
            .collect(),
        Some(_) => Err(wrong()),
    }
}

fn integer<T: TryFrom<i64>>(table: &Table, key: &str, place: &str) -> Result<T, String> {
    match table.get(key) {
        None => Err(format!("the manifest has no `{place}{key}`")),
        Some(value) => value
            .as_integer()
            .and_then(|i| T::try_from(i).ok())
            .ok_or_else(|| format!("`{place}{key}` in the manifest is not a small whole number")),
    }
}

fn libraries(table: &Table) -> Result<BTreeMap<String, PathBuf>, String> {
    let wrong = || "`library` in the manifest is neither a file nor a table of files by target triple".to_string();
    match table.get("library") {
        None => Err("the manifest has no `library`".to_string()),
        Some(Value::String(_)) => Ok(BTreeMap::new()),
        Some(Value::Table(files)) => files
            .iter()
            .map(|(triple, file)| Ok((triple.clone(), PathBuf::from(file.as_str().ok_or_else(wrong)?))))
            .collect(),
        Some(_) => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "manifest_version = 1\nname = 'x'\nvendor = 'v'\nversion = '1.0.0'\nlicence = 'MIT'\n\
                        library = 'libx.so'\nroles = ['run']\n[abi]\nmajor = 0\nmin_minor = 0\n";

    #[test]
    fn a_good_manifest_is_read() {
        let manifest = Manifest::parse(GOOD).unwrap();
        assert_eq!(manifest.library, Some(PathBuf::from("libx.so")));
        assert_eq!((manifest.abi_major, manifest.contact.as_str()), (0, ""));
        assert_eq!(manifest.passes, []);
        assert_eq!(manifest.certificate, None);
        let certified = Manifest::parse(&format!("{GOOD}[conformance]\ncertificate = 'c/x.json'\n")).unwrap();
        assert_eq!(certified.certificate, Some(PathBuf::from("c/x.json")));
        let folding = GOOD.replace("name = 'x'", "name = 'x'\npasses = ['fold-qdq']");
        assert_eq!(Manifest::parse(&folding).unwrap().passes, [Pass::FoldQdq]);
        let all =
            "passes = ['nhwc', 'fold-batchnorm', 'keep:aten.linear', 'keep:aten::gelu', 'keep:x::y.z', 'keep:silu']";
        let all = Manifest::parse(&GOOD.replace("name = 'x'", &format!("name = 'x'\n{all}"))).unwrap();
        let shown: Vec<String> = all.passes.iter().map(Pass::to_string).collect();
        assert_eq!(
            shown,
            [
                "nhwc",
                "fold-batchnorm",
                "keep:aten::linear",
                "keep:aten::gelu",
                "keep:x::y.z",
                "keep:aten::silu"
            ]
        );
        let by_triple = GOOD.replace("library = 'libx.so'\n", "") + "[library]\nother-triple = 'a.so'\n";
        assert_eq!(Manifest::parse(&by_triple).unwrap().library, None);
        let here = by_triple.replace("other-triple", &host_triple());
        assert_eq!(Manifest::parse(&here).unwrap().library, Some(PathBuf::from("a.so")));
    }

    #[test]
    fn what_it_promises_is_read() {
        let promises = "name = 'x'\nprofiles = ['core', 'quant']\ncancel_bound_ms = 50\n\
                        numeric = { nan = 'any', denormals = 'flush', infinity = 'keep' }\n\
                        conformance = { certificate = 'x.conformance.json' }\n\
                        op = [{ op = 'aten::add.Tensor', dtypes = ['f32'] }]";
        let manifest = Manifest::parse(&GOOD.replace("name = 'x'", promises)).unwrap();
        assert_eq!(manifest.profiles, ["core", "quant"]);
        assert_eq!(manifest.cancel_bound_ms, Some(50));
        let Numeric {
            nan,
            infinity,
            negative_zero,
            denormals,
        } = manifest.numeric;
        assert_eq!((nan, infinity, negative_zero, denormals), (false, true, true, false));
        assert_eq!(manifest.certificate, Some(PathBuf::from("x.conformance.json")));
        assert_eq!(manifest.claims.entries.len(), 1);
        let silent = Manifest::parse(GOOD).unwrap();
        assert!(silent.claims.is_empty() && silent.numeric == Numeric::default());
        assert_eq!((silent.cancel_bound_ms, silent.certificate), (None, None));
    }

    #[test]
    fn programs_are_named_by_option_or_by_name() {
        let text = "name = 'x'\nisolation = 'compile_in_worker'\nsandbox = { programs = [{ option = 'tool', name = 'g++-12.1' }, { name = 'ld' }] }";
        let manifest = Manifest::parse(&GOOD.replace("name = 'x'", text)).unwrap();
        assert_eq!(manifest.isolation, Isolation::CompileInWorker);
        let program = |option: Option<&str>, name: &str| ProgramWish {
            option: option.map(str::to_string),
            name: Some(name.to_string()),
        };
        assert_eq!(
            manifest.sandbox.programs,
            [program(Some("tool"), "g++-12.1"), program(None, "ld")]
        );
        let many = vec!["{ name = 'x' }"; MOST_PROGRAMS + 1].join(", ");
        let many = GOOD.replace(
            "name = 'x'",
            &format!("name = 'x'\nsandbox = {{ programs = [{many}] }}"),
        );
        assert!(Manifest::parse(&many).unwrap_err().contains("more than 16 entries"));
    }

    #[test]
    fn every_mistake_is_named() {
        let cases = [
            (
                "name = 'x'",
                "name = 'x'\nnumeric = { nan = 'flush' }",
                "`numeric.nan` in the manifest is neither `propagate` nor `any`",
            ),
            (
                "name = 'x'",
                "name = 'x'\nnumeric = { denormal = 'keep' }",
                "unknown key `numeric.denormal`; did you mean `denormals`?",
            ),
            (
                "name = 'x'",
                "name = 'x'\ncancel_bound_ms = -1",
                "`cancel_bound_ms` in the manifest is not a small whole number",
            ),
            (
                "name = 'x'",
                "name = 'x'\nconformance = { certificate = 1 }",
                "`conformance.certificate` in the manifest is not a text",
            ),
            ("name = 'x'", "name = 'x'\nop = 'aten::add'", "write `[[op]]`"),
            (
                "name = 'x'",
                "name = 'x'\nop = [{ op = 'aten::add', dtype = ['f32'] }]",
                "unknown key `op[1].dtype`; did you mean `dtypes`?",
            ),
            ("manifest_version = 1", "manifest_version = 2", "manifest version `2`"),
            ("name = 'x'", "name = 'X y'", "`name` is `X y`"),
            ("name = 'x'", "nam = 'x'", "unknown key `nam`; did you mean `name`?"),
            ("vendor = 'v'", "", "has no `vendor`"),
            ("vendor = 'v'", "vendor = 3", "`vendor` in the manifest is not a text"),
            ("library = 'libx.so'", "", "has no `library`"),
            (
                "library = 'libx.so'",
                "library = 1",
                "`library` in the manifest is neither",
            ),
            ("roles = ['run']", "roles = ['fly']", "`fly` is not a role"),
            (
                "roles = ['run']",
                "roles = [1]",
                "`roles` in the manifest is not a list",
            ),
            ("roles = ['run']", "", "`roles` is missing"),
            ("[abi]\nmajor = 0\nmin_minor = 0\n", "", "no table `abi`"),
            ("major = 0", "major = -1", "`abi.major` in the manifest is not"),
            (
                "min_minor = 0",
                "min_minr = 0",
                "unknown key `abi.min_minr`; did you mean `min_minor`?",
            ),
            (
                "name = 'x'",
                "name = 'x'\npasses = 'fold-qdq'",
                "`passes` in the manifest is not a list",
            ),
            (
                "name = 'x'",
                "name = 'x'\npasses = ['fold-qd']",
                "`fold-qd`, which is no pass; did you mean `fold-qdq`?",
            ),
            (
                "name = 'x'",
                "name = 'x'\npasses = ['nhw']",
                "`nhw`, which is no pass; did you mean `nhwc`?",
            ),
            (
                "name = 'x'",
                "name = 'x'\npasses = ['keep:']",
                "`keep:`, which names no operator",
            ),
            (
                "name = 'x'",
                "name = 'x'\npasses = ['keep:aten linear']",
                "`keep:aten linear`, which names no operator",
            ),
            (
                "name = 'x'",
                "name = 'x'\nsandbox = { read_variables = ['HOME'] }",
                "`sandbox.read_variables` in the manifest has `HOME`",
            ),
            (
                "name = 'x'",
                "name = 'x'\nsandbox = { read_option = ['library'] }",
                "unknown key `sandbox.read_option`; did you mean `read_options`?",
            ),
            (
                "name = 'x'",
                "name = 'x'\nisolation = 'process'",
                "`isolation` in the manifest is none of `in_process`, `worker` and `compile_in_worker`",
            ),
            (
                "name = 'x'",
                "name = 'x'\nsandbox = { programs = 'cc' }",
                "`sandbox.programs` in the manifest is not a list",
            ),
            (
                "name = 'x'",
                "name = 'x'\nsandbox = { programs = ['cc'] }",
                "`sandbox.programs` in the manifest is not a list",
            ),
            (
                "name = 'x'",
                "name = 'x'\nsandbox = { programs = [{}] }",
                "`sandbox.programs[1]` in the manifest names neither an `option` nor a `name`",
            ),
            (
                "name = 'x'",
                "name = 'x'\nsandbox = { programs = [{ name = 'cc' }, { nam = 'cc' }] }",
                "unknown key `sandbox.programs[2].nam`; did you mean `name`?",
            ),
            (
                "name = 'x'",
                "name = 'x'\nsandbox = { programs = [{ option = 3 }] }",
                "`sandbox.programs[1].option` in the manifest is not a text",
            ),
            (
                "name = 'x'",
                "name = 'x'\nsandbox = { programs = [{ option = '' }] }",
                "`sandbox.programs[1].option` in the manifest names no option",
            ),
            (
                "name = 'x'",
                "name = 'x'\nsandbox = { programs = [{ name = '/bin/sh' }] }",
                "`sandbox.programs[1].name` in the manifest is `/bin/sh`",
            ),
            (
                "name = 'x'",
                "name = 'x'\nsandbox = { programs = [{ name = '..' }] }",
                "`sandbox.programs[1].name` in the manifest is `..`",
            ),
            (
                "name = 'x'",
                "name = 'x'\nsandbox = { programs = [{ name = '' }] }",
                "`sandbox.programs[1].name` in the manifest is ``",
            ),
            (
                "name = 'x'",
                "name = 'x'\nsandbox = { exec = true, programs = [{ name = 'cc' }] }",
                "`sandbox.exec` in the manifest allows every program",
            ),
            ("name = 'x'", "name = ", "is not TOML"),
        ];
        for (from, to, expected) in cases {
            let error = Manifest::parse(&GOOD.replacen(from, to, 1)).unwrap_err();
            assert!(error.contains(expected), "{to}: {error}");
        }
    }
}
