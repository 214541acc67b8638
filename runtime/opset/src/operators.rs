//! What is known of an operator beyond its signature: family, dtypes, and what it computes.

use crate::dtypes::DTypes;
use crate::rows::Rows;
use crate::table::Op;
use crate::variant::base_name;
use alloc::format;

static ROWS: Rows = Rows::new(include_str!("operators.txt"), |row| column(row, 0));

fn column(row: &'static str, index: usize) -> &'static str {
    row.split('\t').nth(index).unwrap_or("")
}

impl Op {
    /// What the operator computes, in one line; `None` for an operator that nothing here runs or types.
    ///
    /// ```
    /// use delegraph_opset::Op;
    /// let op = Op::find("aten::max.dim").unwrap();
    /// assert_eq!(op.doc(), Some("Largest element of all, or along a dimension with its index."));
    /// ```
    pub fn doc(self) -> Option<&'static str> {
        self.row().map(|row| column(row, 3))
    }

    /// The family, for example `reduction`: what it is like, whoever computes it.
    pub fn family(self) -> Option<&'static str> {
        self.row().map(|row| column(row, 1))
    }

    /// The dtypes that its first tensor may have on portable kernels; where it takes no tensor, those that its result may have.
    /// None for an operator of numbers, and for one that only a delegate can run.
    pub fn dtypes(self) -> DTypes {
        self.row()
            .and_then(|row| DTypes::parse(column(row, 2)))
            .unwrap_or_default()
    }

    /// Name of the row that speaks for the operator; many operators share one.
    pub fn row_name(self) -> Option<&'static str> {
        self.row().map(|row| column(row, 0))
    }

    /// The names of all rows, in order.
    pub fn row_names() -> impl Iterator<Item = &'static str> {
        ROWS.from(0).map(|start| ROWS.name(start))
    }

    /// The row of its overload or of the overload that it is the out-variant of; else that of its name; else that of the name
    /// without `_copy` (a view and its copy are one here), or without the `_` of an in-place operator.
    fn row(self) -> Option<&'static str> {
        let base = base_name(self.name());
        let find = |name: &str| ROWS.find(name).map(|start| ROWS.row(start));
        if let Some(row) = find(self.name()) {
            return Some(row);
        }
        let has_overloads = || {
            let first = ROWS.lower_bound(base, ".");
            let rows = ROWS.from(first).map(|start| ROWS.name(start));
            let mut of_base = rows.take_while(|name| base_name(name) == base);
            of_base.next().is_some()
        };
        if has_overloads() {
            let out_of = self.functional().and_then(|op| find(op.name()));
            if out_of.is_some() {
                return out_of;
            }
        }
        find(base).or_else(|| find(base.strip_suffix("_copy")?)).or_else(|| {
            let base = base.strip_suffix('_')?;
            let overload = &self.name()[base.len() + 1..];
            find(&format!("{base}{overload}")).or_else(|| find(base))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAMILIES: [&str; 34] = [
        "activation",
        "attention",
        "backward",
        "bitwise",
        "check",
        "comparison",
        "control",
        "convolution",
        "copy",
        "create",
        "distance",
        "elementwise",
        "index",
        "join",
        "linalg",
        "llm",
        "loss",
        "matmul",
        "norm",
        "pad",
        "pool",
        "quantized",
        "random",
        "rearrange",
        "recurrent",
        "reduction",
        "resample",
        "scan",
        "size",
        "softmax",
        "sort",
        "spectral",
        "view",
        "window",
    ];

    #[test]
    fn rows_are_sorted_complete_and_about_an_operator() {
        let mut last = "";
        for start in ROWS.from(0) {
            let (row, name) = (ROWS.row(start), ROWS.name(start));
            assert!(last < name, "{last} {name}");
            last = name;
            assert_eq!(row.split('\t').count(), 4, "{row}");
            assert_eq!(ROWS.find(name), Some(start), "{name}");
            assert!(
                FAMILIES.contains(&column(row, 1)),
                "`{name}` is of no family that there is"
            );
            let dtypes = DTypes::parse(column(row, 2));
            let dtypes = dtypes.unwrap_or_else(|| panic!("`{name}`: dtypes `{}`", column(row, 2)));
            assert_eq!(format!("{dtypes}"), column(row, 2), "`{name}`: the shortest form");
            let doc = column(row, 3);
            assert!(
                doc.ends_with('.') && doc.len() <= 120 && !doc.contains("  "),
                "`{name}`: {doc}"
            );
        }
        let named: alloc::collections::BTreeSet<&str> = Op::all().filter_map(Op::row_name).collect();
        for name in Op::row_names() {
            assert!(named.contains(name), "the row `{name}` is about no operator");
        }
    }

    #[test]
    fn another_name_has_the_dtypes_of_the_first() {
        let mut count = 0;
        for start in ROWS.from(0) {
            let (name, row) = (ROWS.name(start), ROWS.row(start));
            let Some((_, other)) = column(row, 3).split_once("another name of `") else {
                continue;
            };
            let first = ROWS.find(&format!("aten::{}", other.trim_end_matches("`.")));
            let first = first.unwrap_or_else(|| panic!("`{name}`: another name of what?"));
            if !name.contains('.') {
                assert_eq!(column(row, 2), column(ROWS.row(first), 2), "{name}");
                count += 1;
            }
        }
        assert!(count > 40, "{count}");
    }

    #[test]
    fn a_row_serves_every_form_of_its_operator() {
        for (name, row) in [
            ("aten::tanh", "aten::tanh"),
            ("aten::tanh.out", "aten::tanh"),
            ("aten::tanh_", "aten::tanh"),
            ("aten::add.Tensor", "aten::add"),
            ("aten::add.out", "aten::add"),
            ("aten::add.Scalar", "aten::add.Scalar"),
            ("aten::add.Scalar_out", "aten::add.Scalar"),
            ("aten::add_.Scalar", "aten::add.Scalar"),
            ("aten::max.unary_out", "aten::max"),
            ("aten::max.out", "aten::max.other"),
            ("aten::view_copy.out", "aten::view"),
            ("aten::index_copy", "aten::index_copy"),
            ("aten::index_put_", "aten::index_put"),
        ] {
            assert_eq!(Op::find(name).unwrap().row_name(), Some(row), "{name}");
        }
        let unknown = Op::find("aten::Generator").unwrap();
        assert_eq!((unknown.doc(), unknown.family()), (None, None));
        assert!(unknown.dtypes().is_empty());
    }
}
