//! `select.shapes`: sizes that regions are compiled for, from words to buckets.
//!
//! Each text is one bucket: `s77=1, s78=16..128`. A size is named by its symbol, or by a dimension of an input (`x:0=16`).

use crate::compile::import;
use crate::{Error, Source};
use delegraph_ir::{Graph, InputKind, Module, Symbol};
use delegraph_lower::{Bucket, told_by_inputs};
use delegraph_types::nearest;
use std::collections::BTreeMap;

/// The buckets that texts describe, for a module.
///
/// # Errors
/// A text is none, names a size that the module's inputs do not have, or leaves the range of one.
pub(crate) fn buckets(module: &Module, texts: &[String]) -> Result<Vec<Bucket>, Error> {
    texts.iter().map(|text| bucket(module, text)).collect()
}

fn bucket(module: &Module, text: &str) -> Result<Bucket, Error> {
    let mut bucket = Bucket::default();
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let problem = |problem: String| Error::Usage(format!("shapes, `{item}`: {problem}"));
        let form =
            || problem("not SYMBOL=SIZE, SYMBOL=MIN..MAX, or INPUT:DIMENSION in place of the symbol".to_string());
        let (place, sizes) = item.split_once('=').ok_or_else(form)?;
        let (place, sizes) = (place.trim(), parse_sizes(sizes.trim()).ok_or_else(form)?);
        let named = match place.rsplit_once(':') {
            Some((input, dimension)) => {
                let dimension = dimension.parse().map_err(|_| form())?;
                of_input(module, input, dimension, sizes).map_err(problem)?
            }
            None => vec![(known(module, place).map_err(problem)?, sizes)],
        };
        for (symbol, (min, max)) in named {
            let range = module.symbols.range(&symbol);
            if min < range.min || range.max.is_some_and(|largest| max > largest) {
                let largest = range.max.map_or("no bound".to_string(), |max| max.to_string());
                return Err(problem(format!(
                    "the size `{symbol}` goes from {} to {largest}",
                    range.min
                )));
            }
            if bucket
                .sizes
                .insert(symbol.clone(), (min, max))
                .is_some_and(|other| other != (min, max))
            {
                return Err(problem(format!(
                    "the size `{symbol}` is given twice\n  hint: each bucket is a text of its own"
                )));
            }
        }
    }
    match bucket.sizes.is_empty() && !text.contains('=') {
        true => Err(Error::Usage(format!("shapes, `{text}`: no sizes"))),
        false => Ok(bucket),
    }
}

/// `16` or `16..128`.
fn parse_sizes(text: &str) -> Option<(i64, i64)> {
    let (min, max) = match text.split_once("..") {
        Some((min, max)) => (min.parse().ok()?, max.trim_start_matches('=').parse().ok()?),
        None => (text.parse().ok()?, text.parse().ok()?),
    };
    (0 <= min && min <= max).then_some((min, max))
}

/// The sizes that texts like those of `select.shapes` give to a method's inputs, as `INPUT:DIMENSION=SIZE` each: of a range the largest,
/// of several texts the first that speaks of a symbol.
///
/// # Errors
/// The model cannot be read, or a text is wrong.
pub fn input_sizes(source: &Source, method: &str, texts: &[String]) -> Result<Vec<String>, Error> {
    let module = import(source)?;
    let mut values: BTreeMap<Symbol, i64> = BTreeMap::new();
    for bucket in buckets(&module, texts)? {
        for (symbol, (_, max)) in bucket.sizes {
            values.entry(symbol).or_insert(max);
        }
    }
    let mut sizes = Vec::new();
    for graph in module.graphs.iter().filter(|graph| graph.name == method) {
        for input in &graph.inputs {
            let shape = shape_of(graph, &input.name).unwrap_or_default();
            for (dimension, size) in shape.iter().enumerate().filter(|(_, size)| size.as_int().is_none()) {
                if let Some(size) = size.eval(&|symbol| values.get(symbol).copied()) {
                    sizes.push(format!("{}:{dimension}={size}", input.name));
                }
            }
        }
    }
    Ok(sizes)
}

/// The symbol of this name, if an input tells it.
fn known(module: &Module, name: &str) -> Result<Symbol, String> {
    let symbol = Symbol::new(name);
    let told = all_told(module);
    if told.contains_key(&symbol) {
        return Ok(symbol);
    }
    if module.symbols.ranges.contains_key(&symbol) {
        return Err(format!("no dimension of an input tells the size `{name}`"));
    }
    Err(format!("there is no size `{name}`{}", there_are(module, &told, name)))
}

/// Each symbol that inputs tell, and where: `x:0`.
fn all_told(module: &Module) -> BTreeMap<Symbol, String> {
    let mut told = BTreeMap::new();
    for graph in &module.graphs {
        for (symbol, (input, dimension, ..)) in told_by_inputs(graph) {
            let name = &graph.inputs[input].name;
            told.entry(symbol).or_insert_with(|| format!("{name}:{dimension}"));
        }
    }
    told
}

fn there_are(module: &Module, told: &BTreeMap<Symbol, String>, name: &str) -> String {
    if told.is_empty() {
        return "\n  hint: no input has a dynamic size".to_string();
    }
    let size = |(symbol, place): (&Symbol, &String)| {
        let range = module.symbols.range(symbol);
        let max = range.max.map_or("no bound".to_string(), |max| max.to_string());
        format!("`{symbol}` ({} to {max}, `{place}`)", range.min)
    };
    let sizes: Vec<String> = told.iter().map(size).collect();
    let names = told.keys().map(|symbol| &*symbol.0);
    let meant = nearest(name, names).map_or(String::new(), |name| format!("; did you mean `{name}`?"));
    format!("\n  hint: there are {}{meant}", sizes.join(", "))
}

/// What the sizes of an input's dimension say of symbols, in every method that has the input. A dimension that always has the one size
/// says nothing.
fn of_input(
    module: &Module,
    name: &str,
    dimension: usize,
    (min, max): (i64, i64),
) -> Result<Vec<(Symbol, (i64, i64))>, String> {
    let mut sizes = Vec::new();
    let mut found = false;
    for shape in module.graphs.iter().filter_map(|graph| shape_of(graph, name)) {
        found = true;
        let Some(size) = shape.get(dimension) else {
            return Err(format!("`{name}` has {} dimensions", shape.len()));
        };
        match (size.as_int(), size.as_linear()) {
            (Some(always), _) if min == always && max == always => {}
            (Some(always), _) => return Err(format!("dimension {dimension} of `{name}` is always {always}")),
            (None, Some((symbol, a, b))) => {
                let ends = [min, max].map(|end| end.checked_sub(b));
                let [Some(low), Some(high)] = ends else {
                    return Err("a size is too large".to_string());
                };
                let (low, high) = if a < 0 { (-high, -low) } else { (low, high) };
                let a = a.abs();
                // Towards the inside, so that every size of the bucket is one that was asked for.
                let (from, to) = (
                    low.div_euclid(a) + i64::from(low.rem_euclid(a) != 0),
                    high.div_euclid(a),
                );
                if from > to {
                    return Err(format!(
                        "dimension {dimension} of `{name}` is `{size}`, which has no such size"
                    ));
                }
                sizes.push((symbol, (from, to)));
            }
            (None, None) => {
                let problem = format!("dimension {dimension} of `{name}` is `{size}`: name its symbols");
                return Err(problem);
            }
        }
    }
    if found {
        return Ok(sizes);
    }
    let names = module.graphs.iter().flat_map(|graph| &graph.inputs);
    let names: Vec<&str> = names.map(|input| input.name.as_str()).collect();
    Err(format!(
        "there is no input `{name}`\n  hint: there are `{}`",
        names.join("`, `")
    ))
}

fn shape_of<'g>(graph: &'g Graph, name: &str) -> Option<&'g [delegraph_ir::Expr]> {
    let input = graph.inputs.iter().find(|input| input.name == name)?;
    match input.kind {
        InputKind::Value(value) => Some(&graph.tensor(value)?.shape),
        InputKind::Literal(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use delegraph_ir::{Expr, SymbolRange, TensorType};

    fn module() -> Module {
        let mut module = Module::default();
        let mut graph = Graph::new("forward");
        let (s, t) = (Expr::symbol("s0"), Expr::symbol("s1"));
        let shape = vec![s * Expr::Int(2) + Expr::Int(1), t, Expr::Int(3)];
        let x = graph.add_input("x", TensorType::new(crate::DType::F32, shape).into());
        graph.add_output(x);
        module.graphs.push(graph);
        for (name, min, max) in [("s0", 1, Some(8)), ("s1", 2, None), ("u0", 0, Some(4))] {
            module
                .symbols
                .ranges
                .insert(Symbol::new(name), SymbolRange { min, max });
        }
        module
    }

    fn read(text: &str) -> Result<String, String> {
        let made = bucket(&module(), text);
        made.map(|bucket| bucket.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn sizes_are_named_by_symbol_or_by_dimension() {
        assert_eq!(read("s0=4").unwrap(), "s0=4");
        assert_eq!(read(" s0=1 , s1=16..128 ").unwrap(), "s0=1, s1=16..128");
        assert_eq!(read("x:0=9").unwrap(), "s0=4");
        assert_eq!(
            read("x:0=4..8,x:1=5,x:2=3").unwrap(),
            "s0=2..3, s1=5",
            "2 s0 + 1 within 4..8"
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_what_there_is() {
        for (text, words) in [
            ("s0", "not SYMBOL=SIZE"),
            ("", "no sizes"),
            ("s0=-1", "not SYMBOL=SIZE"),
            ("s0=5..2", "not SYMBOL=SIZE"),
            ("s0=9", "goes from 1 to 8"),
            ("s1=1..4", "goes from 2 to no bound"),
            ("s0=4,s0=5", "given twice"),
            ("s2=4", "there are `s0` (1 to 8, `x:0`), `s1` (2 to no bound, `x:1`)"),
            ("u0=4", "no dimension of an input tells"),
            ("x:0=8", "has no such size"),
            ("x:7=8", "`x` has 3 dimensions"),
            ("x:2=8", "is always 3"),
            ("y:0=8", "there is no input `y`"),
        ] {
            let problem = read(text).unwrap_err();
            assert!(problem.contains(words), "{text}: {problem}");
        }
    }
}
