//! PyTorch's operator signatures, parsed.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// What a parameter or return holds, without list and optional marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum BaseType {
    Tensor,
    /// `int`, `SymInt`.
    Int,
    Float,
    Bool,
    /// A Python number of any category.
    Scalar,
    Str,
    /// `ScalarType`.
    DType,
    Layout,
    Device,
    MemoryFormat,
    Generator,
    /// A subgraph of a higher-order operator.
    Graph,
    /// A tensor or a number (a predicate).
    Any,
}

/// The type of a parameter or return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParamType {
    /// Element type.
    pub base: BaseType,
    /// `T[]` or `T[n]`.
    pub list: bool,
    /// `T[n]`: a single value may stand for n equal ones.
    pub length: Option<u8>,
    /// `T?` or `T[]?`
    pub optional: bool,
    /// `T?[]`: elements may be absent.
    pub optional_items: bool,
}

/// The default of a parameter.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Default {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
    /// `[]`, `[0, 1]`; also a number given for a fixed-length list, repeated.
    Ints(Vec<i64>),
    Floats(Vec<f64>),
    Bools(Vec<bool>),
}

/// A parameter of an operator.
#[derive(Debug, Clone, PartialEq)]
pub struct Param {
    /// Its name.
    pub name: String,
    /// Its type.
    pub ty: ParamType,
    /// `None`: it must be given.
    pub default: Option<Default>,
    /// After the `*`.
    pub keyword_only: bool,
    /// The operator writes to it (`(a!)`).
    pub mutated: bool,
    /// An out argument of an out-variant: mutated and keyword-only.
    pub is_out: bool,
    /// The return may alias it (`(a)` or `(a!)`).
    pub aliased: bool,
}

/// A returned value.
#[derive(Debug, Clone, PartialEq)]
pub struct Return {
    /// Its type.
    pub ty: ParamType,
    /// It aliases a parameter.
    pub aliased: bool,
}

/// A parsed signature.
#[derive(Debug, Clone, PartialEq)]
pub struct Schema {
    /// `aten::add.Tensor`
    pub name: String,
    /// In call order.
    pub params: Vec<Param>,
    /// In order.
    pub returns: Vec<Return>,
}

impl Schema {
    /// Parses a signature such as `aten::add.out(Tensor self, Tensor other, *, Scalar alpha=1, Tensor(a!) out) -> Tensor(a!)`.
    ///
    /// # Errors
    /// A text saying what was not understood.
    pub fn parse(text: &str) -> Result<Schema, String> {
        let open = text.find('(').ok_or("no `(`")?;
        let (params_text, rest) = matching(&text[open..])?;
        let mut params = Vec::new();
        let mut keyword_only = false;
        for item in split_commas(params_text) {
            if item == "*" {
                keyword_only = true;
                continue;
            }
            params.push(param(item, keyword_only)?);
        }
        let returns_text = rest.trim().strip_prefix("->").ok_or("no `->`")?.trim();
        let returns_text = match returns_text.starts_with('(') {
            true => matching(returns_text)?.0,
            false => returns_text,
        };
        let mut returns = Vec::new();
        for item in split_commas(returns_text) {
            let (ty, alias) = split_type(item)?;
            returns.push(Return {
                ty: parse_type(&ty)?,
                aliased: alias.is_some(),
            });
        }
        Ok(Schema {
            name: text[..open].to_string(),
            params,
            returns,
        })
    }

    /// Parameters that are not out arguments: the inputs of a call.
    pub fn inputs(&self) -> impl Iterator<Item = &Param> {
        self.params.iter().filter(|p| !p.is_out)
    }

    /// Out arguments, in order.
    pub fn outs(&self) -> impl Iterator<Item = &Param> {
        self.params.iter().filter(|p| p.is_out)
    }

    /// Position of the parameter of this name.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.params.iter().position(|p| p.name == name)
    }

    /// True if the operator writes to an argument that is not an out argument (an in-place operator).
    pub fn is_in_place(&self) -> bool {
        self.params.iter().any(|p| p.mutated && !p.is_out)
    }
}

/// Splits `(...)rest` at the parenthesis that closes the first one.
fn matching(text: &str) -> Result<(&str, &str), String> {
    let mut depth = 0i32;
    for (i, c) in text.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => {
                depth -= 1;
                if depth == 0 {
                    return Ok((&text[1..i], &text[i + 1..]));
                }
            }
            _ => {}
        }
    }
    Err("unbalanced parentheses".to_string())
}

/// Top-level items of a comma-separated list, trimmed, empty ones dropped.
fn split_commas(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut quoted) = (0i32, 0usize, false);
    let mut items = Vec::new();
    for (i, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            _ if quoted => {}
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            ',' if depth == 0 => {
                items.push(text[start..i].trim());
                start = i + 1;
            }
            _ => {}
        }
    }
    items.push(text[start..].trim());
    items.retain(|item| !item.is_empty());
    items
}

fn param(item: &str, keyword_only: bool) -> Result<Param, String> {
    let (declaration, default) = match item.split_once('=') {
        Some((left, right)) => (left.trim(), Some(right.trim())),
        None => (item, None),
    };
    let (type_text, name) = declaration
        .rsplit_once(' ')
        .ok_or_else(|| format!("parameter without a name: `{item}`"))?;
    let (plain, alias) = split_type(type_text.trim())?;
    let ty = parse_type(&plain)?;
    let mutated = alias.as_deref().is_some_and(|a| a.contains('!'));
    Ok(Param {
        name: name.to_string(),
        ty,
        default: default.map(|text| parse_default(text, ty)).transpose()?,
        keyword_only,
        mutated,
        is_out: mutated && keyword_only,
        aliased: alias.is_some(),
    })
}

/// Separates `Tensor(a!)?` into `Tensor?` and `a!`; a return's name, if any, is dropped.
fn split_type(text: &str) -> Result<(String, Option<String>), String> {
    let text = text.trim();
    let Some(open) = text.find('(') else {
        let plain = text.split(' ').next().unwrap_or(text);
        return Ok((plain.to_string(), None));
    };
    let (alias, rest) = matching(&text[open..])?;
    let rest = rest.split(' ').next().unwrap_or("");
    Ok((format!("{}{rest}", &text[..open]), Some(alias.to_string())))
}

fn parse_type(text: &str) -> Result<ParamType, String> {
    let (text, optional) = match text.strip_suffix('?') {
        Some(inner) => (inner, true),
        None => (text, false),
    };
    let (text, list, length) = match text.strip_suffix(']').and_then(|t| t.split_once('[')) {
        Some((inner, length)) => (inner, true, length.parse::<u8>().ok()),
        None => (text, false, None),
    };
    let (text, optional_items) = match text.strip_suffix('?') {
        Some(inner) if list => (inner, true),
        _ => (text, false),
    };
    let base = match text {
        "Tensor" => BaseType::Tensor,
        "int" | "SymInt" => BaseType::Int,
        "float" => BaseType::Float,
        "bool" | "SymBool" => BaseType::Bool,
        "Scalar" => BaseType::Scalar,
        "str" => BaseType::Str,
        "ScalarType" => BaseType::DType,
        "Layout" => BaseType::Layout,
        "Device" => BaseType::Device,
        "MemoryFormat" => BaseType::MemoryFormat,
        "Generator" => BaseType::Generator,
        "Graph" => BaseType::Graph,
        "Any" => BaseType::Any,
        other => return Err(format!("unknown type `{other}`")),
    };
    Ok(ParamType {
        base,
        list,
        length,
        optional,
        optional_items,
    })
}

fn parse_default(text: &str, ty: ParamType) -> Result<Default, String> {
    if text == "None" {
        return Ok(Default::None);
    }
    if let Some(items) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        let items = split_commas(items);
        return match ty.base {
            BaseType::Float => items
                .into_iter()
                .map(float)
                .collect::<Result<_, _>>()
                .map(Default::Floats),
            BaseType::Bool => items
                .into_iter()
                .map(boolean)
                .collect::<Result<_, _>>()
                .map(Default::Bools),
            _ => items
                .into_iter()
                .map(integer)
                .collect::<Result<_, _>>()
                .map(Default::Ints),
        };
    }
    if ty.list {
        let times = usize::from(ty.length.unwrap_or(1));
        return match ty.base {
            BaseType::Bool => Ok(Default::Bools(alloc::vec![boolean(text)?; times])),
            _ => Ok(Default::Ints(alloc::vec![integer(text)?; times])),
        };
    }
    match ty.base {
        BaseType::Bool => boolean(text).map(Default::Bool),
        BaseType::Str => Ok(Default::Str(text.trim_matches(['"', '\'']).to_string())),
        BaseType::Float => float(text).map(Default::Float),
        BaseType::Scalar => match text {
            "True" | "False" => boolean(text).map(Default::Bool),
            _ if text.contains(['.', 'e', 'f', 'n']) => float(text).map(Default::Float),
            _ => integer(text).map(Default::Int),
        },
        _ => integer(text).map(Default::Int),
    }
}

fn integer(text: &str) -> Result<i64, String> {
    match text {
        // c10 prints enumerators by name: the values are those of at::Reduction and c10::MemoryFormat.
        "Mean" => Ok(1),
        "contiguous_format" => Ok(0),
        "strided" => Ok(0),
        "long" => Ok(4),
        "cpu" => Ok(0),
        _ => text.parse().map_err(|_| format!("`{text}` is not an integer")),
    }
}

fn float(text: &str) -> Result<f64, String> {
    text.parse().map_err(|_| format!("`{text}` is not a number"))
}

fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "True" => Ok(true),
        "False" => Ok(false),
        _ => Err(format!("`{text}` is not a boolean")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_with_everything() {
        let schema = Schema::parse(
            "aten::demo.out(Tensor self, SymInt[2] stride=1, Tensor?[] indices, float? scale=None, str mode=\"sum\", *, Scalar alpha=1, Tensor(a!) out, Tensor(b!) second) -> (Tensor(a!), Tensor(b!))",
        )
        .unwrap();
        assert_eq!(schema.name, "aten::demo.out");
        assert_eq!(schema.params[1].default, Some(Default::Ints(alloc::vec![1, 1])));
        assert!(schema.params[2].ty.list && schema.params[2].ty.optional_items);
        assert_eq!(schema.params[3].default, Some(Default::None));
        assert_eq!(schema.params[4].default, Some(Default::Str("sum".to_string())));
        assert_eq!(schema.outs().count(), 2);
        assert_eq!(schema.inputs().count(), 6);
        assert_eq!(schema.returns.len(), 2);
    }

    #[test]
    fn in_place_and_tensor_lists() {
        let s =
            Schema::parse("aten::add_.Tensor(Tensor(a!) self, Tensor other, *, Scalar alpha=1) -> Tensor(a!)").unwrap();
        assert!(s.is_in_place());
        let s = Schema::parse("aten::chunk(Tensor(a -> *) self, int chunks, int dim=0) -> Tensor(a)[]").unwrap();
        assert!(s.params[0].aliased && !s.params[0].mutated);
        assert!(s.returns[0].ty.list);
        let s = Schema::parse(
            "executorch_prim::et_copy_index.tensor(Tensor(a!) copy_to, Tensor copy_from, SymInt index) -> ()",
        )
        .unwrap();
        assert!(s.returns.is_empty());
    }
}
