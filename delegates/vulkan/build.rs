//! Compiles `src/shaders/*.wgsl` to SPIR-V, each in its variants, and writes the table of kernels.
//!
//! A shader is WGSL with a few directives, each on a line of its own that begins with `//@`:
//!
//! ```text
//! //@ workgroup 64 1 1                       its size; the constants WX, WY, WZ have it
//! //@ include numbers                        the text of src/shaders/include/numbers.wgsl
//! //@ buffer a read array<vec4<f32>>         storage buffers, in the order of their bindings from 1
//! //@ buffer out write array<$T>
//! //@ variant f32 T=f32                      one kernel a variant; $KEY in the text stands for the value
//! //@ variant f16 T=f16 needs=f16            `needs`: what the device must have (f16, dot, subgroup, i64)
//! //@ exact                                float arithmetic is done as it is written: nothing is contracted or reordered
//! //@ if T=f16                               lines up to `//@ end` are for the variants that have this value
//! //@ end
//! ```
//!
//! A kernel that includes `finish` has a sibling NAME_LIGHT, without the lines between `//@ if CURVES` and `//@ end`: most networks need no more, and
//! drivers compile it faster.
//!
//! Binding 0 is always `params: array<u32>`. The entry point is `main`. A shader without a `variant` line is one kernel of its file's name;
//! otherwise the kernels are called FILE_VARIANT.

use naga::back::spv;
use naga::proc::BoundsCheckPolicy;
use naga::valid::{Capabilities, ValidationFlags, Validator};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let shaders = Path::new("src/shaders");
    println!("cargo::rerun-if-changed=src/shaders");
    println!("cargo::rerun-if-changed=build.rs");
    let mut files: Vec<PathBuf> = fs::read_dir(shaders)
        .expect("src/shaders is there")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "wgsl"))
        .collect();
    files.sort();
    let includes = read_includes(&shaders.join("include"));
    let checked = env::var("DEBUG").is_ok_and(|d| d != "false") || env::var("PROFILE").is_ok_and(|p| p == "debug");
    let mut table = Vec::new();
    for file in files {
        let stem = file.file_stem().expect("it has a name").to_string_lossy().into_owned();
        let text = fs::read_to_string(&file).expect("a shader can be read");
        let template = Template::parse(&stem, &text, &includes);
        for variant in template.all_variants() {
            let name = match variant.name.as_str() {
                "" => stem.clone(),
                suffix => format!("{stem}_{suffix}"),
            };
            let source = template.source(&variant);
            let mut words = compile(&name, &source, &variant, checked);
            if template.exact {
                words = forbid_contraction(&words);
            }
            let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
            fs::write(out.join(format!("{name}.spv")), bytes).expect("OUT_DIR can be written");
            fs::write(out.join(format!("{name}.wgsl")), source).expect("OUT_DIR can be written");
            table.push(Row {
                light: (variant.values.contains_key("CURVES")).then(|| format!("{name}_light").to_uppercase()),
                name,
                buffers: template.buffers.clone(),
                workgroup: template.workgroup,
                needs: variant.needs,
            });
        }
    }
    fs::write(out.join("kernels.rs"), table_text(&table)).expect("OUT_DIR can be written");
}

/// A kernel of the table.
struct Row {
    name: String,
    buffers: Vec<Buffer>,
    workgroup: [u32; 3],
    needs: Vec<String>,
    /// The kernel that does the same without curves.
    light: Option<String>,
}

fn table_text(table: &[Row]) -> String {
    let mut text = String::new();
    for (index, row) in table.iter().enumerate() {
        let Row {
            name,
            buffers,
            workgroup,
            needs,
            light,
        } = row;
        let light = light
            .as_ref()
            .map_or("None".to_string(), |light| format!("Some(&{light})"));
        let needs: Vec<String> = needs.iter().map(|n| format!("Needs::{}", n.to_uppercase())).collect();
        let needs = match needs.is_empty() {
            true => "Needs::NONE".to_string(),
            false => needs.join(".and(") + &")".repeat(needs.len() - 1),
        };
        let writes: Vec<&str> = buffers
            .iter()
            .map(|b| if b.writable { "true" } else { "false" })
            .collect();
        let _ = writeln!(
            text,
            "/// `{name}`.\npub static {}: Kernel = Kernel {{ index: {index}, name: {name:?}, spirv: \
             include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{name}.spv\")), writes: &[{}], workgroup: {workgroup:?}, needs: {needs}, light: {light} }};",
            name.to_uppercase(),
            writes.join(", "),
        );
    }
    let all: Vec<String> = table
        .iter()
        .map(|row| format!("&{}", row.name.to_uppercase()))
        .collect();
    let _ = writeln!(
        text,
        "/// All kernels, by their index.\npub static ALL: &[&Kernel] = &[{}];",
        all.join(", ")
    );
    text
}

#[derive(Clone)]
struct Buffer {
    name: String,
    writable: bool,
    ty: String,
}

#[derive(Clone)]
struct Variant {
    name: String,
    values: BTreeMap<String, String>,
    needs: Vec<String>,
}

struct Template {
    buffers: Vec<Buffer>,
    workgroup: [u32; 3],
    exact: bool,
    /// Kernels end with `finish()`: each has a light sibling, without the activations that have an exponential.
    finishes: bool,
    variants: Vec<Variant>,
    lines: Vec<String>,
}

fn read_includes(folder: &Path) -> BTreeMap<String, String> {
    let files = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()));
    files
        .map(|path| {
            let stem = path.file_stem().expect("it has a name").to_string_lossy().into_owned();
            (stem, fs::read_to_string(&path).expect("an include can be read"))
        })
        .collect()
}

impl Template {
    fn parse(file: &str, text: &str, includes: &BTreeMap<String, String>) -> Template {
        let mut template = Template {
            buffers: Vec::new(),
            workgroup: [64, 1, 1],
            exact: false,
            finishes: false,
            variants: Vec::new(),
            lines: Vec::new(),
        };
        template.read(file, text, includes, &mut Vec::new());
        if template.variants.is_empty() {
            template.variants.push(Variant {
                name: String::new(),
                values: BTreeMap::new(),
                needs: Vec::new(),
            });
        }
        template
    }

    fn read(&mut self, file: &str, text: &str, includes: &BTreeMap<String, String>, included: &mut Vec<String>) {
        for line in text.lines() {
            let Some(directive) = line.trim().strip_prefix("//@") else {
                self.lines.push(line.to_string());
                continue;
            };
            let words: Vec<&str> = directive.split_whitespace().collect();
            match words.as_slice() {
                ["workgroup", sizes @ ..] => {
                    for (slot, size) in self.workgroup.iter_mut().zip(sizes) {
                        *slot = size.parse().unwrap_or_else(|_| panic!("{file}: `{line}` has no size"));
                    }
                }
                ["exact"] => self.exact = true,
                ["include", name] => {
                    self.finishes |= *name == "finish";
                    if !included.iter().any(|n| n == name) {
                        included.push((*name).to_string());
                        let text = includes
                            .get(*name)
                            .unwrap_or_else(|| panic!("{file}: there is no include `{name}`"));
                        self.read(name, text, includes, included);
                    }
                }
                ["buffer", name, access, ty] => self.buffers.push(Buffer {
                    name: (*name).to_string(),
                    writable: match *access {
                        "read" => false,
                        "write" => true,
                        other => panic!("{file}: access `{other}` is neither read nor write"),
                    },
                    ty: (*ty).to_string(),
                }),
                ["variant", name, pairs @ ..] => {
                    let mut variant = Variant {
                        name: (*name).to_string(),
                        values: BTreeMap::new(),
                        needs: Vec::new(),
                    };
                    for pair in pairs {
                        let (key, value) = pair
                            .split_once('=')
                            .unwrap_or_else(|| panic!("{file}: `{pair}` is no KEY=VALUE"));
                        match key {
                            "needs" => variant.needs = value.split(',').map(str::to_string).collect(),
                            _ => {
                                variant.values.insert(key.to_string(), value.to_string());
                            }
                        }
                    }
                    self.variants.push(variant);
                }
                ["if", _] | ["end"] => self.lines.push(format!("//@ {}", words.join(" "))),
                _ => panic!("{file}: unknown directive `{line}`"),
            }
        }
    }

    /// The variants of the text, and the light siblings of those that end with `finish()`.
    fn all_variants(&self) -> Vec<Variant> {
        let mut all = Vec::new();
        for variant in &self.variants {
            if self.finishes {
                let mut full = variant.clone();
                full.values.insert("CURVES".to_string(), "1".to_string());
                all.push(full);
                let joint = if variant.name.is_empty() { "" } else { "_" };
                all.push(Variant {
                    name: format!("{}{joint}light", variant.name),
                    ..variant.clone()
                });
            } else {
                all.push(variant.clone());
            }
        }
        all
    }

    fn source(&self, variant: &Variant) -> String {
        let [x, y, z] = self.workgroup;
        let mut text = String::new();
        if variant.needs.iter().any(|n| n == "f16") {
            text.push_str("enable f16;\n");
        }
        let _ = writeln!(
            text,
            "const WX: u32 = {x}u; const WY: u32 = {y}u; const WZ: u32 = {z}u;"
        );
        text.push_str("@group(0) @binding(0) var<storage, read> params: array<u32>;\n");
        for (i, buffer) in self.buffers.iter().enumerate() {
            let access = if buffer.writable { "read_write" } else { "read" };
            let _ = writeln!(
                text,
                "@group(0) @binding({}) var<storage, {access}> {}: {};",
                i + 1,
                buffer.name,
                buffer.ty
            );
        }
        let mut shown = vec![true];
        for line in &self.lines {
            if let Some(condition) = line.strip_prefix("//@ if ") {
                let (key, value) = condition.split_once('=').unwrap_or((condition, ""));
                let holds = variant.values.get(key).is_some_and(|v| value.is_empty() || v == value);
                shown.push(holds && *shown.last().expect("never empty"));
            } else if line == "//@ end" {
                shown.pop();
            } else if *shown.last().expect("every `end` has an `if`") {
                text.push_str(line);
                text.push('\n');
            }
        }
        // Longer keys first, so that $T does not eat the start of $TILE.
        let mut keys: Vec<(&String, &String)> = variant.values.iter().collect();
        keys.sort_by_key(|(key, _)| std::cmp::Reverse(key.len()));
        for (key, value) in keys {
            text = text.replace(&format!("${key}"), value);
        }
        text
    }
}

fn compile(name: &str, source: &str, variant: &Variant, checked: bool) -> Vec<u32> {
    let mut module =
        naga::front::wgsl::parse_str(source).unwrap_or_else(|e| panic!("{name}: {}", e.emit_to_string(source)));
    // Includes bring more than a kernel calls.
    naga::compact::compact(&mut module, naga::compact::KeepUnused::No);
    let has = |what: &str| variant.needs.iter().any(|n| n == what);
    // Packing and unpacking halves is of every version of SPIR-V.
    let mut wanted = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    if has("f16") {
        wanted |= Capabilities::SHADER_FLOAT16;
    }
    if has("subgroup") {
        wanted |= Capabilities::SUBGROUP;
    }
    if has("i64") {
        wanted |= Capabilities::SHADER_INT64;
    }
    let info = Validator::new(ValidationFlags::all(), wanted)
        .subgroup_operations(naga::valid::SubgroupOperationSet::all())
        .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
        .validate(&module)
        .unwrap_or_else(|e| panic!("{name}: {}", e.emit_to_string(source)));
    // Skipping is not implemented for atomics: there a place is moved to the last that there is.
    let policy = match checked {
        true if source.contains("atomic<") => BoundsCheckPolicy::Restrict,
        true => BoundsCheckPolicy::ReadZeroSkipWrite,
        false => BoundsCheckPolicy::Unchecked,
    };
    // Only what a device without anything has, but for what the variant needs.
    let mut capabilities = vec![spv::Capability::Shader];
    if has("f16") {
        capabilities.extend([
            spv::Capability::Float16,
            spv::Capability::StorageBuffer16BitAccess,
            spv::Capability::UniformAndStorageBuffer16BitAccess,
        ]);
    }
    if has("subgroup") {
        capabilities.extend([
            spv::Capability::GroupNonUniform,
            spv::Capability::GroupNonUniformVote,
            spv::Capability::GroupNonUniformArithmetic,
            spv::Capability::GroupNonUniformBallot,
            spv::Capability::GroupNonUniformShuffle,
            spv::Capability::GroupNonUniformShuffleRelative,
        ]);
    }
    if has("dot") {
        capabilities.extend([
            spv::Capability::DotProduct,
            spv::Capability::DotProductInput4x8BitPacked,
        ]);
    }
    if has("i64") {
        capabilities.push(spv::Capability::Int64);
    }
    let options = spv::Options {
        lang_version: (1, 3),
        flags: spv::WriterFlags::empty(),
        capabilities: Some(capabilities.into_iter().collect()),
        bounds_check_policies: naga::proc::BoundsCheckPolicies {
            index: policy,
            buffer: policy,
            image_load: policy,
            binding_array: policy,
        },
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        force_loop_bounding: false,
        use_storage_input_output_16: false,
        ..spv::Options::default()
    };
    let pipeline = spv::PipelineOptions {
        shader_stage: naga::ShaderStage::Compute,
        entry_point: "main".to_string(),
    };
    spv::write_vec(&module, &info, &options, Some(&pipeline)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Decorates every float operation with `NoContraction`, which WGSL cannot say.
fn forbid_contraction(words: &[u32]) -> Vec<u32> {
    const HEADER: usize = 5;
    const NO_CONTRACTION: u32 = 42;
    let (mut decorations, mut place) = (Vec::new(), None);
    let mut at = HEADER;
    while at < words.len() {
        let (length, code) = ((words[at] >> 16) as usize, words[at] & 0xffff);
        match code {
            // The first decoration.
            71 | 72 if place.is_none() => place = Some(at),
            // Negation, sum, difference, product, quotient, remainders, vector times scalar: word 2 is the result.
            127 | 129 | 131 | 133 | 136 | 140 | 141 | 142 => {
                decorations.extend([3 << 16 | 71, words[at + 2], NO_CONTRACTION])
            }
            _ => {}
        }
        at += length.max(1);
    }
    let place = place.expect("buffers are decorated");
    [&words[..place], &decorations, &words[place..]].concat()
}
