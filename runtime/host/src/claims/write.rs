//! Claims as a manifest writes them: what [`super::parse`] reads comes out again.

use super::{Claim, Claims, Condition, Dynamic, WeightRule, listed};
use std::fmt::{self, Display};

/// Longest line of a list of names.
const WIDTH: usize = 140;

impl Display for Claims {
    /// The `[[op]]` tables, with an empty line between two.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, claim) in self.entries.iter().enumerate() {
            let between = if i > 0 { "\n" } else { "" };
            write!(f, "{between}{claim}")?;
        }
        Ok(())
    }
}

impl Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "[[op]]")?;
        match self.ops.as_slice() {
            [one] => writeln!(f, "op = {}", quoted(one))?,
            many => {
                writeln!(f, "op = [")?;
                let mut line = String::new();
                for name in many {
                    let item = format!("{},", quoted(name));
                    if !line.is_empty() && line.len() + item.len() + 5 > WIDTH {
                        writeln!(f, "   {line}")?;
                        line.clear();
                    }
                    line = format!("{line} {item}");
                }
                writeln!(f, "   {line}\n]")?;
            }
        }
        if !self.dtypes.is_empty() {
            writeln!(f, "dtypes = {}", list(&self.dtypes))?;
        }
        if self.mixed {
            writeln!(f, "mixed = true")?;
        }
        if !self.outputs.is_empty() {
            writeln!(f, "outputs = {}", list(&self.outputs))?;
        }
        if !self.params.is_empty() {
            let items = self.params.iter().map(|(name, dtypes)| (name, list(dtypes)));
            writeln!(f, "params = {}", inline(items))?;
        }
        if !self.ranks.is_empty() {
            writeln!(f, "ranks = {}", ranks(&self.ranks))?;
        }
        if self.equal_shapes {
            writeln!(f, "shapes = \"equal\"")?;
        }
        match &self.weights {
            WeightRule::Any => {}
            WeightRule::None => writeln!(f, "weights = \"none\"")?,
            WeightRule::Constant(names) => writeln!(f, "weights = {}", list(names))?,
        }
        match self.dynamic {
            Dynamic::Static => {}
            Dynamic::Bounded => writeln!(f, "dynamic = \"bounded\"")?,
            Dynamic::Any => writeln!(f, "dynamic = \"any\"")?,
        }
        if !self.quant.is_empty() {
            writeln!(f, "quant = {}\nstorage = {}", list(&self.quant), list(&self.storage))?;
        }
        if !self.conditions.is_empty() {
            let items = self
                .conditions
                .iter()
                .map(|(name, allowed)| (name, conditions(allowed)));
            writeln!(f, "where = {}", inline(items))?;
        }
        Ok(())
    }
}

/// `"0..=4"` where the ranks follow one another, `[2, 4]` where they do not.
pub(super) fn ranks(ranks: &[usize]) -> String {
    match (ranks.first(), ranks.last()) {
        (Some(first), Some(last)) if ranks.len() > 2 && ranks.iter().copied().eq(*first..=*last) => {
            format!("\"{first}..={last}\"")
        }
        _ => format!("[{}]", listed(ranks)),
    }
}

fn conditions(allowed: &[Condition]) -> String {
    match allowed {
        // One list that is to be matched whole is a list within a list.
        [one] if !matches!(one, Condition::Equal(super::Literal::List(_))) => one.to_string(),
        many => format!("[{}]", listed(many)),
    }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_string()).to_string()
}

fn list<T: Display>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(|item| quoted(&item.to_string())).collect();
    format!("[{}]", items.join(", "))
}

fn inline<'a>(items: impl Iterator<Item = (&'a String, String)>) -> String {
    let items: Vec<String> = items.map(|(name, value)| format!("{name} = {value}")).collect();
    format!("{{ {} }}", items.join(", "))
}
