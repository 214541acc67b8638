//! The description of the ABI, parsed and checked.

use super::version::Version;
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use std::fmt::Write;

/// `abi.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    pub major: u16,
    pub minor: u16,
    /// The versions before this one, oldest first: `0.1`. What is counted by `since` are these and, last, this one.
    #[serde(default)]
    pub earlier: Vec<Version>,
    pub entry: String,
    pub opset: String,
    pub doc: String,
    #[serde(rename = "constant")]
    pub constants: Vec<Constant>,
    #[serde(rename = "enum")]
    pub enums: Vec<Enum>,
    #[serde(rename = "opaque")]
    pub opaques: Vec<Opaque>,
    #[serde(rename = "callback")]
    pub callbacks: Vec<Callback>,
    #[serde(rename = "struct")]
    pub structs: Vec<Struct>,
    #[serde(rename = "table")]
    pub tables: Vec<Table>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Constant {
    pub name: String,
    pub rust: String,
    pub value: u32,
    /// Number of the version that brought it, from 0.
    #[serde(default)]
    pub since: u16,
    pub doc: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enum {
    pub name: String,
    pub rust: String,
    #[serde(rename = "type")]
    pub ty: String,
    pub prefix: String,
    /// Number of the version that brought it, from 0.
    #[serde(default)]
    pub since: u16,
    pub doc: String,
    pub items: Vec<Item>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    pub name: String,
    /// Full C name, where it is not prefix and name.
    pub c: Option<String>,
    pub value: u64,
    /// Number of the version that brought it, from 0.
    #[serde(default)]
    pub since: u16,
    pub doc: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opaque {
    pub name: String,
    pub rust: String,
    /// Number of the version that brought it, from 0.
    #[serde(default)]
    pub since: u16,
    pub doc: String,
}

/// A function that the host calls and that is no part of a table.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Callback {
    pub name: String,
    pub rust: String,
    /// Number of the version that brought it, from 0.
    #[serde(default)]
    pub since: u16,
    pub doc: String,
    pub params: Vec<Param>,
}

/// What a struct begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StructKind {
    Struct,
    Extension,
    Record,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Struct {
    pub name: String,
    pub rust: String,
    pub kind: StructKind,
    /// Item of `dg_struct_id`.
    pub id: Option<String>,
    /// Number of the version that brought it, from 0.
    #[serde(default)]
    pub since: u16,
    pub doc: String,
    pub fields: Vec<Field>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Field {
    pub name: String,
    #[serde(rename = "type")]
    pub ty: String,
    /// Number of the version that brought it, from 0.
    pub since: u16,
    pub doc: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    pub name: String,
    pub rust: String,
    /// Number of the version that brought it, from 0.
    #[serde(default)]
    pub since: u16,
    pub doc: String,
    pub functions: Vec<Function>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Function {
    pub name: String,
    /// Number of the version that brought it, from 0.
    pub since: u16,
    pub returns: String,
    /// `always`, or the feature that makes it mandatory.
    pub mandatory: Option<String>,
    pub doc: String,
    pub params: Vec<Param>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Param {
    pub name: String,
    #[serde(rename = "type")]
    pub ty: String,
}

/// A type of the description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    /// `u8` … `i64`: bits, signed.
    Int(u32, bool),
    F64,
    Void,
    /// An enum.
    Enum(String),
    /// A struct, table or opaque handle; behind pointers only.
    Struct(String),
    Pointer {
        mutable: bool,
        to: Box<Type>,
    },
    Array(Box<Type>, u32),
    /// A function pointer: the table's function of this index.
    Function(usize),
    /// A function pointer of a named type, which returns nothing.
    Callback(String),
}

/// A member of a struct, `str` and implied ones written out.
#[derive(Debug, Clone)]
pub struct Member {
    pub name: String,
    pub ty: Type,
    pub since: u16,
    pub doc: String,
}

impl Description {
    /// Parses and checks.
    pub fn parse(text: &str) -> Result<Description> {
        let description: Description = toml::from_str(text)?;
        for s in &description.structs {
            description.members(s).with_context(|| s.name.clone())?;
            let known = s.id.is_none() || s.id.as_ref().is_some_and(|id| description.struct_id(id).is_some());
            ensure!(
                known && (s.kind == StructKind::Struct) == s.id.is_some(),
                "{}: wrong id",
                s.name
            );
        }
        for callback in &description.callbacks {
            description
                .params(&callback.params)
                .with_context(|| callback.name.clone())?;
        }
        for t in &description.tables {
            let mut since = t.since;
            for f in &t.functions {
                let place = || format!("{}.{}", t.name, f.name);
                ensure!(
                    f.since >= since,
                    "{}.{}: it is older than the function before it",
                    t.name,
                    f.name
                );
                since = f.since;
                description.ty(&f.returns).with_context(place)?;
                description.params(&f.params).with_context(place)?;
            }
        }
        description.check_versions()?;
        Ok(description)
    }

    /// The value of an item of `dg_struct_id`.
    pub fn struct_id(&self, item: &str) -> Option<u64> {
        let ids = self.enums.iter().find(|e| e.name == "dg_struct_id")?;
        ids.items.iter().find(|i| i.name == item).map(|i| i.value)
    }

    /// Members of a struct, the implied ones first.
    pub fn members(&self, s: &Struct) -> Result<Vec<Member>> {
        let mut members = match s.kind {
            StructKind::Record => Vec::new(),
            StructKind::Struct => vec![
                implied(
                    "struct_size",
                    Type::Int(32, false),
                    "Bytes of this struct, as its maker knows it.",
                ),
                implied("struct_id", Type::Int(32, false), "Which struct this is."),
                implied("next", pointer_to("dg_ext"), "First extension, or NULL."),
            ],
            StructKind::Extension => vec![
                implied("struct_size", Type::Int(32, false), "Bytes of the whole extension."),
                implied("ext_id", Type::Int(32, false), "Which extension this is."),
                implied("next", pointer_to("dg_ext"), "Next extension, or NULL."),
            ],
        };
        for member in &mut members {
            member.since = s.since;
        }
        let mut since = s.since;
        for field in &s.fields {
            ensure!(
                field.since >= since,
                "`{}` is older than the field before it",
                field.name
            );
            since = field.since;
            for (name, ty) in self.spell_out(&field.name, &field.ty)? {
                let doc = if name == field.name {
                    field.doc.clone()
                } else {
                    format!("Bytes of `{}`.", field.name)
                };
                members.push(Member {
                    name,
                    ty,
                    since: field.since,
                    doc,
                });
            }
        }
        Ok(members)
    }

    /// Members of a table, the implied ones first.
    pub fn table_members(&self, table: &Table) -> Vec<Member> {
        let mut members = vec![
            implied(
                "struct_size",
                Type::Int(32, false),
                "Bytes of this table, as its maker knows it.",
            ),
            implied("major", Type::Int(16, false), "DG_ABI_MAJOR."),
            implied(
                "minor",
                Type::Int(16, false),
                "DG_ABI_MINOR of its maker, for messages.",
            ),
            implied(
                "features",
                Type::Array(Box::new(Type::Int(64, false)), 2),
                "Word 0: dg_feature. Word 1: ratified extensions, none so far.",
            ),
        ];
        for member in &mut members {
            member.since = table.since;
        }
        members.extend(table.functions.iter().enumerate().map(|(i, f)| Member {
            name: f.name.clone(),
            ty: Type::Function(i),
            since: f.since,
            doc: f.doc.clone(),
        }));
        members
    }

    /// Every struct and table with its members, in the order of the description.
    pub fn all_members(&self) -> Result<Vec<(&str, Vec<Member>)>> {
        let mut all = Vec::new();
        for s in &self.structs {
            all.push((s.name.as_str(), self.members(s)?));
        }
        all.extend(self.tables.iter().map(|t| (t.name.as_str(), self.table_members(t))));
        Ok(all)
    }

    /// Parameters, `str` written out.
    pub fn params(&self, params: &[Param]) -> Result<Vec<(String, Type)>> {
        let mut all = Vec::new();
        for param in params {
            all.extend(self.spell_out(&param.name, &param.ty)?);
        }
        Ok(all)
    }

    fn spell_out(&self, name: &str, ty: &str) -> Result<Vec<(String, Type)>> {
        if ty == "str" {
            let text = Type::Pointer {
                mutable: false,
                to: Box::new(Type::Int(8, false)),
            };
            return Ok(vec![
                (name.to_string(), text),
                (format!("{name}_size"), Type::Int(64, false)),
            ]);
        }
        Ok(vec![(name.to_string(), self.ty(ty)?)])
    }

    /// Parses a type.
    pub fn ty(&self, text: &str) -> Result<Type> {
        for (prefix, mutable) in [("*const ", false), ("*mut ", true)] {
            if let Some(rest) = text.strip_prefix(prefix) {
                return Ok(Type::Pointer {
                    mutable,
                    to: Box::new(self.ty(rest)?),
                });
            }
        }
        if let Some((item, count)) = text
            .strip_prefix('[')
            .and_then(|t| t.strip_suffix(']'))
            .and_then(|t| t.split_once("; "))
        {
            return Ok(Type::Array(Box::new(self.ty(item)?), count.parse()?));
        }
        Ok(match text {
            "u8" => Type::Int(8, false),
            "u16" => Type::Int(16, false),
            "u32" => Type::Int(32, false),
            "u64" => Type::Int(64, false),
            "i32" => Type::Int(32, true),
            "i64" => Type::Int(64, true),
            "f64" => Type::F64,
            "void" => Type::Void,
            name if self.enums.iter().any(|e| e.name == name) => Type::Enum(name.to_string()),
            name if self.callbacks.iter().any(|c| c.name == name) => Type::Callback(name.to_string()),
            name if self.rust_name(name).is_some() => Type::Struct(name.to_string()),
            _ => bail!("unknown type `{text}`"),
        })
    }

    /// The integer that an enum is stored as.
    pub fn enum_type(&self, name: &str) -> Result<Type> {
        let found = self.enums.iter().find(|e| e.name == name).context("no such enum")?;
        self.ty(&found.ty)
    }

    /// The Rust name of an enum, struct, table or handle.
    pub fn rust_name(&self, name: &str) -> Option<&str> {
        let enums = self.enums.iter().map(|x| (&x.name, &x.rust));
        let structs = self.structs.iter().map(|x| (&x.name, &x.rust));
        let tables = self.tables.iter().map(|x| (&x.name, &x.rust));
        let opaques = self.opaques.iter().map(|x| (&x.name, &x.rust));
        let callbacks = self.callbacks.iter().map(|x| (&x.name, &x.rust));
        let mut all = enums.chain(structs).chain(tables).chain(opaques).chain(callbacks);
        all.find(|(n, _)| *n == name).map(|(_, rust)| rust.as_str())
    }

    /// FNV-1a of names, types and order: what `DG_LAYOUT_HASH` is.
    pub fn layout_hash(&self) -> Result<u64> {
        let mut text = String::new();
        for (name, members) in self.all_members()? {
            let _ = writeln!(text, "{name}");
            for m in members {
                let _ = writeln!(text, " {} {:?} {}", m.name, m.ty, m.since);
            }
        }
        for callback in &self.callbacks {
            let _ = writeln!(text, "{} {:?}", callback.name, self.params(&callback.params)?);
        }
        for f in self.tables.iter().flat_map(|t| &t.functions) {
            let _ = writeln!(text, "{} {} {:?}", f.name, f.returns, self.params(&f.params)?);
        }
        let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        Ok(text.bytes().fold(0xcbf2_9ce4_8422_2325, hash))
    }
}

fn implied(name: &str, ty: Type, doc: &str) -> Member {
    Member {
        name: name.to_string(),
        ty,
        since: 0,
        doc: doc.to_string(),
    }
}

fn pointer_to(name: &str) -> Type {
    Type::Pointer {
        mutable: false,
        to: Box::new(Type::Struct(name.to_string())),
    }
}
