//! The accessors of `delegraph_image.h` see what the Rust view sees, in C and in C++, and read nothing beside the bytes.

use delegraph_abi::image::{
    Arg, ArgView, Expr, ExprOp, ImageBuilder, ImageView, Kind, MemoryFormat, NodeView, Quant, Source, Type, ValueView,
    verify,
};
use delegraph_abi::{DType, c};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Builds `tests/c/list_image.c`; `None` and a line where the compiler is not there.
fn lister(folder: &Path, compiler: &str, language: &str, standard: &str, sanitize: bool) -> Option<PathBuf> {
    let program = folder.join(format!("list_{language}_{sanitize}").replace('+', "p"));
    let sanitizer: &[&str] = match sanitize {
        true => &["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
        false => &[],
    };
    let output = Command::new(compiler)
        .args(["-x", language, &format!("-std={standard}")])
        .args(["-Wall", "-Wextra", "-Werror", "-pedantic", "-O1"])
        .args(sanitizer)
        .arg("-I")
        .arg(root().join("delegate-sdk/include"))
        .arg("-o")
        .arg(&program)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c/list_image.c"))
        .output();
    match output {
        Err(_) => {
            println!("skipped: the accessors as {standard}: no {compiler}");
            None
        }
        Ok(output) if !output.status.success() && sanitize => {
            println!("skipped: the accessors under a sanitizer: {compiler} has none");
            None
        }
        Ok(output) => {
            assert!(
                output.status.success(),
                "{compiler} {standard}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            Some(program)
        }
    }
}

/// Everything that an image can hold, in one image.
fn everything() -> Vec<u8> {
    let mut image = ImageBuilder::new("every kind");
    let n = image.symbol("s0", 2, Some(64));
    let m = image.symbol("s1", 0, None);
    let (two, three) = (image.int(2), image.int(3));
    let sum = image.op(ExprOp::ADD, &[n, m, two]);
    let half = image.float(0.5);
    let twice = image.op(ExprOp::MUL, &[n, two]);
    let dynamic = Type::tensor(DType::F32, &[n, sum, twice]);
    let fixed = Type::tensor(DType::I64, &[two, three]);
    let scalar = Type::tensor(DType::BOOL, &[]);
    let per_tensor = Quant::PerTensor {
        scale: 0.125,
        zero_point: -3,
        quant_min: -128,
        quant_max: 127,
    };
    let quantized = |quant| Type::Tensor {
        dtype: DType::I8,
        dims: vec![two, three],
        quant: Some(quant),
    };
    let scales = image.weight(40, DType::F32, &[3]);
    let zero_points = image.weight(41, DType::I64, &[3]);
    let weight = image.weight(7, DType::I8, &[2, 3]);
    let per_axis = quantized(Quant::PerAxis {
        axis: 1,
        scales,
        zero_points: Some(zero_points),
        quant_min: -127,
        quant_max: 127,
    });
    let per_block = quantized(Quant::PerBlock {
        block: vec![2, 1],
        scales,
        zero_points: None,
        quant_min: 0,
        quant_max: 15,
    });
    let x = image.input("x", &dynamic);
    let q = image.input("q", &quantized(per_tensor));
    let count = image.input("count", &Type::Int(m));
    let rate = image.input("rate", &Type::Float);
    let flag = image.input("flag", &Type::Bool);
    let w = image.weight_value("w", &per_axis, weight);
    let args = [
        Arg::None,
        Arg::Int(-5),
        Arg::Expr(half),
        Arg::Float(-1.5),
        Arg::Bool(true),
        Arg::Str("tanh – näherung".to_string()),
        Arg::DType(DType::F16),
        Arg::MemoryFormat(MemoryFormat::CHANNELS_LAST),
        Arg::Value(x),
        Arg::Ints(vec![two, n, sum]),
        Arg::Floats(vec![0.25, f64::NEG_INFINITY]),
        Arg::Bools(vec![true, false]),
        Arg::Scalars(vec![Arg::Int(9), Arg::Float(0.1), Arg::Bool(false)]),
        Arg::Values(vec![x, q, w]),
        Arg::OptionalValues(vec![None, Some(q), None]),
        Arg::Value(count),
        Arg::Ints(Vec::new()),
    ];
    let made = image.node(
        "first",
        "aten::every.Overload",
        &args,
        &[("a", &fixed), ("b", &scalar), ("c", &per_block)],
        "model.py:12",
    );
    let more = [Arg::Value(made[0]), Arg::Value(rate), Arg::Value(flag)];
    let last = image.node("second", "aten::other", &more, &[("d", &dynamic)], "")[0];
    for value in [last, made[2], x] {
        image.output(value);
    }
    image.finish().unwrap()
}

/// The same image with larger records, one table more of an unknown kind, and tables in another place.
fn grown(image: &[u8]) -> Vec<u8> {
    let u32_at = |at: usize| u32::from_le_bytes(image[at..at + 4].try_into().unwrap()) as usize;
    let u64_at = |at: usize| u64::from_le_bytes(image[at..at + 8].try_into().unwrap()) as usize;
    let (header, count, entry) = (u32_at(8), u32_at(12), u32_at(16));
    let (new_header, new_entry) = (header + 16, entry + 8);
    let mut out = image[..header].to_vec();
    out.resize(new_header + new_entry * (count + 1), 0xee);
    out[8..12].copy_from_slice(&(new_header as u32).to_le_bytes());
    out[12..16].copy_from_slice(&(count as u32 + 1).to_le_bytes());
    out[16..20].copy_from_slice(&(new_entry as u32).to_le_bytes());
    for i in 0..=count {
        let at = new_header + new_entry * i;
        if i == count {
            let unknown = [900u64 << 32 | 77, 1 << 60, 1 << 60];
            out[at..at + 24].copy_from_slice(&unknown.map(u64::to_le_bytes).concat());
            continue;
        }
        let from = header + entry * i;
        let (record, offset, records) = (u32_at(from + 4), u64_at(from + 8), u64_at(from + 16));
        let larger = if record > 8 { record + 8 } else { record };
        out.resize(out.len().next_multiple_of(8), 0xee);
        let place = out.len();
        out[at..at + 4].copy_from_slice(&image[from..from + 4]);
        out[at + 4..at + 8].copy_from_slice(&(larger as u32).to_le_bytes());
        out[at + 8..at + 16].copy_from_slice(&(place as u64).to_le_bytes());
        out[at + 16..at + 24].copy_from_slice(&(records as u64).to_le_bytes());
        for r in 0..records {
            out.extend_from_slice(&image[offset + r * record..offset + (r + 1) * record]);
            out.resize(out.len() + larger - record, 0xee);
        }
    }
    let total = out.len() as u64;
    out[24..32].copy_from_slice(&total.to_le_bytes());
    out
}

/// Images as delegates see them: regions of recorded models, quantized ones among them.
fn recorded(folder: &Path) -> Vec<PathBuf> {
    for model in [
        "arch-mlp-dynamic-batch",
        "arch-int8-convnet",
        "arch-tiny-llama",
        "mtcnn-pnet",
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_delegraph"))
            .args(["partition", &format!("conformance/fixtures/{model}/model.pt2")])
            .args(["--backend", "reference", "--dump"])
            .arg(folder.join(model))
            .current_dir(root())
            .env_clear()
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let folders = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = folders
        .filter(|path| path.is_dir())
        .flat_map(|path| std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()))
        .collect();
    files.sort();
    assert!(files.len() >= 4, "{files:?}");
    files
}

#[test]
fn c_and_cpp_see_what_rust_sees() {
    let folder = tempfile::tempdir().unwrap();
    let (every, larger) = (folder.path().join("every.dgg"), folder.path().join("grown.dgg"));
    std::fs::write(&every, everything()).unwrap();
    std::fs::write(&larger, grown(&everything())).unwrap();
    assert_eq!(
        listing(&everything()),
        listing(&grown(&everything())),
        "the Rust view itself"
    );
    let mut files = recorded(folder.path());
    files.extend([every, larger]);
    for (compiler, language, standard) in [("cc", "c", "c99"), ("c++", "c++", "c++17")] {
        let Some(program) = lister(folder.path(), compiler, language, standard, false) else {
            continue;
        };
        for file in &files {
            let output = Command::new(&program).arg(file).output().unwrap();
            assert!(output.status.success(), "{standard} {}", file.display());
            let wanted = listing(&std::fs::read(file).unwrap());
            let got = String::from_utf8(output.stdout).unwrap();
            for (i, (got, wanted)) in got.lines().zip(wanted.lines()).enumerate() {
                assert_eq!(got, wanted, "{standard} {} line {}", file.display(), i + 1);
            }
            assert_eq!(
                got.lines().count(),
                wanted.lines().count(),
                "{standard} {}",
                file.display()
            );
        }
    }
}

#[test]
fn nothing_is_read_beside_a_damaged_image() {
    let folder = tempfile::tempdir().unwrap();
    let Some(program) = lister(folder.path(), "cc", "c", "c99", true) else {
        return;
    };
    let path = folder.path().join("every.dgg");
    std::fs::write(&path, everything()).unwrap();
    let output = Command::new(&program)
        .args(["--damage", "20000"])
        .arg(&path)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    // The damage must get past the directory often enough for the records to be read.
    let opened: u32 = String::from_utf8_lossy(&output.stdout)
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!((2_000..19_000).contains(&opened), "{opened} copies could be opened");
}

/// The listing that `list_image.c` makes, from the Rust view.
fn listing(bytes: &[u8]) -> String {
    let image = verify(bytes).unwrap();
    let mut out = String::new();
    let (name, opset) = (image.name(), image.opset());
    writeln!(out, "graph {name} opset {opset} form {}", image.normal_form()).unwrap();
    for i in 0..image.symbol_count() {
        let symbol = image.symbol(delegraph_abi::image::SymbolIndex(i));
        let max = symbol.max.unwrap_or(i64::MAX);
        writeln!(out, "symbol {i} {} {} {max}", symbol.name, symbol.min).unwrap();
    }
    for i in 0..image.expr_count() {
        let text = match image.expr(delegraph_abi::image::ExprIndex(i)) {
            Expr::Int(value) => format!("int {value}"),
            Expr::Float(value) => format!("float {:016x}", value.to_bits()),
            Expr::Symbol(symbol) => format!("symbol {}", symbol.0),
            Expr::Op(op, operands) => format!("op {}{}", op.0, joined(operands.iter().map(|e| e.0))),
        };
        writeln!(out, "expr {i} {text}").unwrap();
    }
    for weight in image.weights() {
        let (i, id, dtype, size) = (weight.index().0, weight.id(), weight.dtype().0, weight.byte_size());
        writeln!(out, "weight {i} id {id} {dtype} {size}{}", joined(weight.sizes())).unwrap();
    }
    for value in image.values() {
        writeln!(out, "value {} {} {}", value.index().0, value.name(), value_text(&value)).unwrap();
    }
    let indices = |word: &str, list: Vec<u32>| list.iter().map(|v| format!("{word} {v}")).collect::<String>();
    writeln!(
        out,
        "{}",
        indices("input", image.inputs().iter().map(|v| v.0).collect())
    )
    .unwrap();
    writeln!(
        out,
        "{}",
        indices("output", image.outputs().iter().map(|v| v.0).collect())
    )
    .unwrap();
    for node in image.nodes() {
        node_lines(&image, &node, &mut out);
    }
    out
}

fn joined<T: ToString>(items: impl Iterator<Item = T>) -> String {
    items.map(|item| format!(" {}", item.to_string())).collect()
}

fn or_none(index: Option<u32>) -> String {
    index.map_or("-".to_string(), |index| index.to_string())
}

fn value_text(value: &ValueView<'_>) -> String {
    let mut text = match value.kind() {
        Kind::Tensor(dtype) => format!("tensor {}{}", dtype.0, joined(value.dims().iter().map(|e| e.0))),
        Kind::Int(expr) => format!("int {}", expr.0),
        Kind::Float => "float".to_string(),
        Kind::Bool => "bool".to_string(),
    };
    if let (Some(sizes), Some(_)) = (value.const_dims(), value.dtype()) {
        text += &format!(" sizes{}", joined(sizes.into_iter()));
    }
    let (source, at) = match value.source() {
        Source::Input(at) => (c::ValueSource::INPUT, at),
        Source::Weight(weight) => (c::ValueSource::WEIGHT, weight.0),
        Source::Node(node) => (c::ValueSource::NODE, node.0),
    };
    let weight = or_none(value.weight().map(|weight| weight.index().0));
    text += &format!(" source {} {at} weight {weight}", source.0);
    match value.quant() {
        None => {}
        Some(Quant::PerTensor {
            scale,
            zero_point,
            quant_min,
            quant_max,
        }) => {
            text += &format!(
                " quant 1 {:016x} {zero_point} from {quant_min} to {quant_max}",
                scale.to_bits()
            );
        }
        Some(Quant::PerAxis {
            axis,
            scales,
            zero_points,
            quant_min,
            quant_max,
        }) => {
            let zero_points = or_none(zero_points.map(|w| w.0));
            text += &format!(" quant 2 axis {axis} scales {} zero_points {zero_points}", scales.0);
            text += &format!(" from {quant_min} to {quant_max}");
        }
        Some(Quant::PerBlock {
            block,
            scales,
            zero_points,
            quant_min,
            quant_max,
        }) => {
            let blocks: String = block.iter().map(|b| format!(" block {b}")).collect();
            let zero_points = or_none(zero_points.map(|w| w.0));
            text += &format!(" quant 3{blocks} scales {} zero_points {zero_points}", scales.0);
            text += &format!(" from {quant_min} to {quant_max}");
        }
    }
    text
}

fn node_lines(image: &ImageView<'_>, node: &NodeView<'_>, out: &mut String) {
    writeln!(
        out,
        "node {} {} {} {}",
        node.index().0,
        node.name(),
        node.op(),
        node.debug()
    )
    .unwrap();
    for arg in node.args() {
        writeln!(out, "  arg {}", arg_text(image, arg)).unwrap();
    }
    let outputs: String = node.outputs().iter().map(|v| format!("  gives {}", v.0)).collect();
    writeln!(out, "{outputs}").unwrap();
}

fn arg_text(image: &ImageView<'_>, arg: ArgView<'_>) -> String {
    match arg {
        ArgView::None => "none".to_string(),
        ArgView::Int(i) => format!("int {i}"),
        ArgView::Float(f) => format!("float {:016x}", f.to_bits()),
        ArgView::Bool(b) => format!("bool {}", u8::from(b)),
        ArgView::Expr(e) => format!("expr {}", e.0),
        ArgView::Str(text) => format!("text {text}"),
        ArgView::DType(dtype) => format!("dtype {}", dtype.0),
        ArgView::MemoryFormat(format) => format!("memory_format {}", format.0),
        ArgView::Value(v) => format!("value {}", v.0),
        ArgView::Ints(items) => {
            let item = |e: delegraph_abi::image::ExprIndex| match image.const_int(e) {
                Some(value) => format!(" e{}={value}", e.0),
                None => format!(" e{}", e.0),
            };
            format!("ints{}", items.exprs().iter().map(item).collect::<String>())
        }
        ArgView::Numbers(items) => {
            let items: String = items.iter().map(|item| format!(" {}", arg_text(image, item))).collect();
            format!("numbers{items}")
        }
        ArgView::Values(list) => format!("values{}", joined(list.iter().map(|v| v.0))),
        ArgView::OptionalValues(list) => {
            format!("values{}", joined(list.iter().map(|v| or_none(v.map(|v| v.0)))))
        }
        ArgView::Unknown(kind) => format!("unknown {}", kind.0),
    }
}
