//! `gen capi`: the C API for apps from `runtime/capi/capi.toml`: header, Rust mirror, list of exported symbols.

use super::model::{Description as Abi, Item};
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use std::fmt::Write;

/// The description of the C API.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    major: u16,
    minor: u16,
    doc: String,
    #[serde(rename = "constant")]
    constants: Vec<Constant>,
    #[serde(rename = "enum")]
    enums: Vec<Enum>,
    #[serde(rename = "opaque")]
    opaques: Vec<Opaque>,
    #[serde(rename = "struct")]
    structs: Vec<Struct>,
    #[serde(rename = "function")]
    functions: Vec<Function>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Constant {
    name: String,
    rust: String,
    value: u32,
    doc: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Enum {
    name: String,
    rust: String,
    doc: String,
    prefix: String,
    #[serde(default)]
    items: Vec<Item>,
    /// The items of this enum of the delegate ABI instead.
    items_of: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Opaque {
    name: String,
    rust: String,
    doc: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Struct {
    name: String,
    rust: String,
    doc: String,
    fields: Vec<Field>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Field {
    name: String,
    #[serde(rename = "type")]
    ty: String,
    since: u16,
    doc: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Function {
    name: String,
    returns: String,
    since: u16,
    doc: String,
    params: Vec<Param>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Param {
    name: String,
    #[serde(rename = "type")]
    ty: String,
}

/// A type in both languages, with its size, which is its alignment too, for pointers of 8 bytes.
struct Spelled {
    c: String,
    rust: String,
    size: u32,
}

impl Description {
    /// Parses and checks; `abi` gives the items that are the delegate ABI's.
    ///
    /// # Errors
    /// An unknown type or enum, a name twice, a field that is older than the one before it.
    pub fn parse(text: &str, abi: &Abi) -> Result<Description> {
        let mut d: Description = toml::from_str(text)?;
        for e in &mut d.enums {
            if let Some(of) = &e.items_of {
                let theirs = abi.enums.iter().find(|x| x.name == *of);
                let theirs = theirs.with_context(|| format!("the delegate ABI has no enum `{of}`"))?;
                e.items = theirs.items.clone();
            }
            ensure!(!e.items.is_empty(), "{}: no items", e.name);
        }
        let mut names: Vec<&str> = d.functions.iter().map(|f| f.name.as_str()).collect();
        names.sort_unstable();
        ensure!(names.windows(2).all(|pair| pair[0] != pair[1]), "a function twice");
        for s in &d.structs {
            let mut since = 0;
            for field in &s.fields {
                d.ty(&field.ty).with_context(|| format!("{}.{}", s.name, field.name))?;
                ensure!(
                    field.since >= since && field.since <= d.minor,
                    "{}.{}: older than the field before it, or newer than the API",
                    s.name,
                    field.name
                );
                since = field.since;
            }
            ensure!(s.fields.iter().any(|field| field.since == 0), "{}: no field", s.name);
        }
        for f in &d.functions {
            ensure!(f.since <= d.minor, "{}: newer than the API", f.name);
            for param in &f.params {
                d.ty(&param.ty).with_context(|| f.name.clone())?;
            }
        }
        Ok(d)
    }

    fn ty(&self, text: &str) -> Result<Spelled> {
        for (prefix, c, rust) in [("*const ", "const ", "*const "), ("*mut ", "", "*mut ")] {
            if let Some(rest) = text.strip_prefix(prefix) {
                let inner = self.ty(rest)?;
                let pointer = match (rest.starts_with('*'), c) {
                    (true, "const ") => format!("{}const *", inner.c),
                    (true, _) => format!("{}*", inner.c),
                    (false, c) => format!("{c}{} *", inner.c),
                };
                return Ok(Spelled {
                    c: pointer,
                    rust: format!("{rust}{}", inner.rust),
                    size: 8,
                });
            }
        }
        let (c, rust, size) = match text {
            "u32" => ("uint32_t", "u32", 4),
            "u64" => ("uint64_t", "u64", 8),
            "i32" => ("int32_t", "i32", 4),
            "i64" => ("int64_t", "i64", 8),
            "f64" => ("double", "f64", 8),
            "char" => ("char", "core::ffi::c_char", 1),
            "void" => ("void", "core::ffi::c_void", 0),
            name => {
                if let Some(e) = self.enums.iter().find(|e| e.name == name) {
                    // A number of a newer library is no undefined behaviour in Rust: enums are numbers there.
                    (e.name.as_str(), "u32", 4)
                } else if let Some(s) = self.structs.iter().find(|s| s.name == name) {
                    (s.name.as_str(), s.rust.as_str(), 0)
                } else if let Some(o) = self.opaques.iter().find(|o| o.name == name) {
                    return Ok(Spelled {
                        c: o.name.clone(),
                        rust: format!("crate::{}", o.rust),
                        size: 0,
                    });
                } else {
                    bail!("unknown type `{name}`")
                }
            }
        };
        Ok(Spelled {
            c: c.to_string(),
            rust: rust.to_string(),
            size,
        })
    }

    /// Offset of each field and the size, where pointers have 8 bytes. `struct_size` is at 0.
    fn layout(&self, s: &Struct) -> Result<(Vec<u32>, u32)> {
        let (mut at, mut align) = (4u32, 4u32);
        let mut offsets = Vec::new();
        for field in &s.fields {
            let size = self.ty(&field.ty)?.size;
            ensure!(size > 0, "{}.{} has no size", s.name, field.name);
            at = at.next_multiple_of(size);
            align = align.max(size);
            offsets.push(at);
            at += size;
        }
        Ok((offsets, at.next_multiple_of(align)))
    }
}

/// `delegraph_app.h`.
///
/// # Errors
/// A type is unknown.
pub fn header(d: &Description) -> Result<String> {
    let mut out = String::new();
    out.push_str("/* Generated by `cargo xtask gen capi` from runtime/capi/capi.toml. Do not edit. */\n");
    out.push_str("/* SPDX-License-Identifier: Apache-2.0 OR MIT */\n\n");
    super::c::comment(&mut out, "", &d.doc);
    out.push_str(PROLOGUE);
    writeln!(out, "#define DELEGRAPH_API_MAJOR {}", d.major)?;
    writeln!(out, "#define DELEGRAPH_API_MINOR {}", d.minor)?;
    for constant in &d.constants {
        super::c::comment(&mut out, "", &constant.doc);
        writeln!(out, "#define {} UINT32_C({})", constant.name, constant.value)?;
    }
    for e in &d.enums {
        out.push('\n');
        super::c::comment(&mut out, "", &e.doc);
        writeln!(out, "typedef uint32_t {};", e.name)?;
        for item in &e.items {
            let note = match item.doc.as_str() {
                "" => String::new(),
                doc => format!(" /* {doc} */"),
            };
            writeln!(
                out,
                "#define {}{} (({}){}){note}",
                e.prefix, item.name, e.name, item.value
            )?;
        }
    }
    out.push('\n');
    for o in &d.opaques {
        super::c::comment(&mut out, "", &o.doc);
        writeln!(out, "typedef struct {0} {0};", o.name)?;
    }
    for s in &d.structs {
        out.push('\n');
        super::c::comment(&mut out, "", &s.doc);
        writeln!(out, "typedef struct {} {{", s.name)?;
        out.push_str(
            "    /* Bytes of this struct, as its maker knows it: its `sizeof`. */\n    uint32_t struct_size;\n",
        );
        for field in &s.fields {
            super::c::comment(&mut out, "    ", &field.doc);
            writeln!(out, "    {};", declare(&d.ty(&field.ty)?.c, &field.name))?;
        }
        writeln!(out, "}} {};", s.name)?;
    }
    for f in &d.functions {
        out.push('\n');
        super::c::comment(
            &mut out,
            "",
            &format!("{}\nSince {}.{}.", f.doc.trim(), d.major, f.since),
        );
        writeln!(out, "{};", prototype(d, f)?)?;
    }
    assertions(&mut out, d)?;
    out.push_str(EPILOGUE);
    Ok(out)
}

fn prototype(d: &Description, f: &Function) -> Result<String> {
    let params: Vec<String> = f
        .params
        .iter()
        .map(|param| Ok(declare(&d.ty(&param.ty)?.c, &param.name)))
        .collect::<Result<_>>()?;
    let params = if params.is_empty() {
        "void".to_string()
    } else {
        params.join(", ")
    };
    Ok(format!(
        "DELEGRAPH_API {}({params})",
        declare(&d.ty(&f.returns)?.c, &f.name)
    ))
}

/// `const char *name`, `uint32_t name`.
fn declare(ty: &str, name: &str) -> String {
    let space = if ty.ends_with('*') { "" } else { " " };
    format!("{ty}{space}{name}")
}

fn assertions(out: &mut String, d: &Description) -> Result<()> {
    out.push_str(ASSERT);
    for s in &d.structs {
        let (offsets, size) = d.layout(s)?;
        writeln!(out, "DELEGRAPH_ASSERT(sizeof({0}) == {size}, {0});", s.name)?;
        for (field, offset) in s.fields.iter().zip(offsets) {
            writeln!(
                out,
                "DELEGRAPH_ASSERT(offsetof({0}, {1}) == {offset}, {0}__{1});",
                s.name, field.name
            )?;
        }
    }
    out.push_str("#endif\n#undef DELEGRAPH_ASSERT\n");
    Ok(())
}

/// `generated.rs`: the structs as Rust has them, numbers, and that every function has the type that the header states.
///
/// # Errors
/// A type is unknown.
pub fn mirror(d: &Description) -> Result<String> {
    let mut out = String::new();
    out.push_str("//! What the header has, in Rust. Generated by `cargo xtask gen capi` from `runtime/capi/capi.toml`; do not edit.\n");
    for constant in &d.constants {
        writeln!(
            out,
            "\n/// {}\npub const {}: u32 = {};",
            constant.doc, constant.rust, constant.value
        )?;
    }
    for e in &d.enums {
        writeln!(
            out,
            "\n/// {}\npub mod {} {{",
            first_line(&e.doc),
            e.rust.to_lowercase()
        )?;
        for item in &e.items {
            let doc = if item.doc.is_empty() { "By its name." } else { &item.doc };
            writeln!(out, "    /// {doc}\n    pub const {}: u32 = {};", item.name, item.value)?;
        }
        out.push_str("}\n");
    }
    for s in &d.structs {
        out.push('\n');
        for line in s.doc.trim().lines() {
            writeln!(out, "/// {line}")?;
        }
        writeln!(
            out,
            "#[repr(C)]\n#[derive(Debug, Clone, Copy)]\npub struct {} {{",
            s.rust
        )?;
        out.push_str("    /// Bytes of this struct, as its maker knows it.\n    pub struct_size: u32,\n");
        for field in &s.fields {
            let ty = d.ty(&field.ty)?.rust;
            writeln!(out, "    /// {}\n    pub {}: {ty},", field.doc, field.name)?;
        }
        out.push_str("}\n");
        let last = s.fields.iter().rfind(|field| field.since == 0).context("no field")?;
        writeln!(
            out,
            "\n// SAFETY: a `repr(C)` struct of numbers and raw pointers: all zeros is a value of it; it begins with \
             `struct_size`.\nunsafe impl crate::sys::Versioned for {0} {{\n    const NAME: &'static str = \"{1}\";\n    \
             const FIRST: usize =\n        core::mem::offset_of!({0}, {2}) + size_of::<{3}>();\n}}",
            s.rust,
            s.name,
            last.name,
            d.ty(&last.ty)?.rust
        )?;
        let (offsets, size) = d.layout(s)?;
        writeln!(out, "\n#[cfg(target_pointer_width = \"64\")]\nconst _: () = {{")?;
        writeln!(out, "    assert!(size_of::<{}>() == {size});", s.rust)?;
        for (field, offset) in s.fields.iter().zip(offsets) {
            writeln!(
                out,
                "    assert!(core::mem::offset_of!({}, {}) == {offset});",
                s.rust, field.name
            )?;
        }
        out.push_str("};\n");
    }
    out.push_str("\n// Every function is there, with the type that the header states.\nconst _: () = {\n");
    for f in &d.functions {
        let params: Vec<String> = f
            .params
            .iter()
            .map(|param| Ok(d.ty(&param.ty)?.rust))
            .collect::<Result<_>>()?;
        let returns = match f.returns.as_str() {
            "void" => String::new(),
            ty => format!(" -> {}", d.ty(ty)?.rust),
        };
        writeln!(
            out,
            "    let _: unsafe extern \"C\" fn({}){returns} = crate::sys::{};",
            params.join(", "),
            f.name
        )?;
    }
    out.push_str("};\n");
    Ok(out)
}

fn first_line(text: &str) -> &str {
    text.trim().lines().next().unwrap_or_default()
}

/// `symbols.txt`: what the library exports, and nothing else.
pub fn symbols(d: &Description) -> String {
    let mut names: Vec<&str> = d.functions.iter().map(|f| f.name.as_str()).collect();
    names.sort_unstable();
    names.iter().map(|name| format!("{name}\n")).collect()
}

const PROLOGUE: &str = r#"
#ifndef DELEGRAPH_APP_H
#define DELEGRAPH_APP_H

#include <stddef.h>
#include <stdint.h>

/* Define DELEGRAPH_STATIC before the header if you link the static library on Windows. */
#if defined(_WIN32) && !defined(DELEGRAPH_STATIC)
#define DELEGRAPH_API __declspec(dllimport)
#else
#define DELEGRAPH_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

"#;

const ASSERT: &str = r#"
#if defined(__cplusplus)
#define DELEGRAPH_ASSERT(condition, tag) static_assert(condition, "layout of " #tag)
#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#define DELEGRAPH_ASSERT(condition, tag) _Static_assert(condition, "layout of " #tag)
#else
#define DELEGRAPH_ASSERT(condition, tag) typedef char delegraph_assert_##tag[(condition) ? 1 : -1]
#endif
#if UINTPTR_MAX == UINT64_C(0xffffffffffffffff) /* LP64, LLP64 */
"#;

const EPILOGUE: &str = "\n#ifdef __cplusplus\n}\n#endif\n\n#endif /* DELEGRAPH_APP_H */\n";
