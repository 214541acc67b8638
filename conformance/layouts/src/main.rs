//! Reads a header with libclang and prints what it found as JSON: sizes, alignments and offsets of structs, values of constants, and what types are
//! other names of. The numbers are clang's own, for the target that the arguments name; `cargo xtask layouts` compares them.
//!
//! `delegraph-layouts HEADER FREESTANDING TARGET`: the folder of `stdint.h` and `stddef.h` for a compiler without any, and a target of clang's.

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};
use std::path::Path;
use syn::{Expr, Item, ItemConst, Lit, Stmt, UnOp};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [header, freestanding, target] = arguments.as_slice() else {
        bail!("usage: delegraph-layouts HEADER FREESTANDING TARGET");
    };
    println!("{}", read(&bindings(header, freestanding, target)?)?);
    Ok(())
}

/// What `bindgen` writes for the header, as Rust.
fn bindings(header: &str, freestanding: &str, target: &str) -> Result<String> {
    // clang evaluates the constants that are casts, such as `((dg_status)0)`; it leaves a precompiled header behind for that.
    let scratch = std::env::temp_dir().join(format!("delegraph-layouts-{}", std::process::id()));
    std::fs::create_dir_all(&scratch)?;
    let name = Path::new(header).file_name().unwrap_or_default().to_string_lossy();
    let bindings = bindgen::builder()
        .header(header)
        .allowlist_file(format!(".*/{}", name.replace('.', "\\.")))
        .clang_args(["-nostdinc", "-ffreestanding", "-isystem", freestanding])
        .clang_arg(format!("--target={target}"))
        .clang_macro_fallback()
        .clang_macro_fallback_build_dir(&scratch)
        .generate_comments(false)
        .formatter(bindgen::Formatter::None)
        .generate();
    let _ = std::fs::remove_dir_all(&scratch);
    Ok(bindings
        .with_context(|| format!("clang does not read `{name}` for {target}"))?
        .to_string())
}

/// The numbers in what `bindgen` wrote: constants, names of types, and the assertions of layouts, `["Size of X"][size_of::<X>() - 24usize]`.
fn read(text: &str) -> Result<Value> {
    let (mut structs, mut constants, mut types) = (Map::new(), Map::new(), Map::new());
    for item in syn::parse_file(text)?.items {
        match item {
            Item::Const(item) if item.ident == "_" => {
                let Expr::Block(block) = *item.expr else { continue };
                for statement in block.block.stmts {
                    assertion(&statement, &mut structs)?;
                }
            }
            Item::Const(item) => {
                constants.insert(item.ident.to_string(), constant(&item)?);
            }
            Item::Type(item) => {
                if let syn::Type::Path(path) = *item.ty
                    && let Some(last) = path.path.segments.last()
                {
                    types.insert(item.ident.to_string(), last.ident.to_string().into());
                }
            }
            _ => {}
        }
    }
    Ok(json!({"structs": structs, "constants": constants, "types": types}))
}

fn assertion(statement: &Stmt, structs: &mut Map<String, Value>) -> Result<()> {
    let Stmt::Expr(Expr::Index(index), _) = statement else {
        bail!("`bindgen` writes assertions in another form than this version expects");
    };
    let (Expr::Array(label), Expr::Binary(difference)) = (&*index.expr, &*index.index) else {
        bail!("`bindgen` writes assertions in another form than this version expects");
    };
    let (Some(Value::String(label)), Some(number)) =
        (label.elems.first().and_then(literal), literal(&difference.right))
    else {
        bail!("an assertion has no label or no number");
    };
    let mut set = |name: &str, key: &str| {
        let entry = structs
            .entry(name)
            .or_insert_with(|| json!({"size": null, "align": null, "fields": {}}));
        match key.strip_prefix("field ") {
            Some(field) => entry["fields"][field] = number.clone(),
            None => entry[key] = number.clone(),
        }
    };
    if let Some(name) = label.strip_prefix("Size of ") {
        set(name, "size");
    } else if let Some(name) = label.strip_prefix("Alignment of ") {
        set(name, "align");
    } else if let Some((name, field)) = label
        .strip_prefix("Offset of field: ")
        .and_then(|rest| rest.split_once("::"))
    {
        set(name, &format!("field {field}"));
    } else {
        bail!("an assertion of another kind: `{label}`");
    }
    Ok(())
}

fn constant(item: &ItemConst) -> Result<Value> {
    literal(&item.expr).with_context(|| format!("`{}` is not a number or text", item.ident))
}

/// A number, or a text that is ended by NUL.
fn literal(expression: &Expr) -> Option<Value> {
    match expression {
        Expr::Lit(literal) => match &literal.lit {
            Lit::Int(number) => Some(number.base10_parse::<u64>().ok()?.into()),
            Lit::Str(text) => Some(text.value().into()),
            Lit::ByteStr(bytes) => Some(String::from_utf8(bytes.value()).ok()?.trim_end_matches('\0').into()),
            _ => None,
        },
        // What does not fit a signed 64-bit number is printed as the negative one of the same bits.
        Expr::Unary(negative) if matches!(negative.op, UnOp::Neg(_)) => {
            let magnitude = literal(&negative.expr)?.as_u64()?;
            Some(magnitude.wrapping_neg().into())
        }
        _ => None,
    }
}
