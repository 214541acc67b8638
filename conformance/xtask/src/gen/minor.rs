//! The description as it was at a minor, and what a minor may not do: move, change or drop anything that an earlier one has.

use super::layout::{DataModel, I386, MODELS, layout};
use super::model::Description;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;

impl Description {
    /// The description at a minor: without what came later.
    pub fn at(&self, minor: u16) -> Description {
        let mut at = self.clone();
        at.minor = minor;
        at.constants.retain(|x| x.since <= minor);
        at.enums.retain(|x| x.since <= minor);
        at.opaques.retain(|x| x.since <= minor);
        at.callbacks.retain(|x| x.since <= minor);
        at.structs.retain(|x| x.since <= minor);
        at.tables.retain(|x| x.since <= minor);
        for e in &mut at.enums {
            e.items.retain(|x| x.since <= minor);
        }
        for s in &mut at.structs {
            s.fields.retain(|x| x.since <= minor);
        }
        for t in &mut at.tables {
            t.functions.retain(|x| x.since <= minor);
        }
        at
    }

    /// Nothing is newer than the newest minor, each minor stands on its own, and every struct has a layout in every data model.
    pub fn check_minors(&self) -> Result<()> {
        self.check_newest()?;
        for minor in 0..=self.minor {
            let at = self.at(minor);
            // A type that came later is unknown at this minor.
            at.all_members()
                .and_then(|_| at.layout_hash())
                .with_context(|| format!("at minor {minor}"))?;
        }
        for (name, members) in self.all_members()? {
            for model in MODELS.into_iter().chain([I386]) {
                layout(self, name, &members, model)?;
            }
        }
        Ok(())
    }

    fn check_newest(&self) -> Result<()> {
        let mut all: Vec<(&str, u16)> = Vec::new();
        all.extend(self.constants.iter().map(|x| (x.name.as_str(), x.since)));
        all.extend(self.enums.iter().map(|x| (x.name.as_str(), x.since)));
        all.extend(
            self.enums
                .iter()
                .flat_map(|x| &x.items)
                .map(|x| (x.name.as_str(), x.since)),
        );
        all.extend(self.opaques.iter().map(|x| (x.name.as_str(), x.since)));
        all.extend(self.callbacks.iter().map(|x| (x.name.as_str(), x.since)));
        all.extend(self.structs.iter().map(|x| (x.name.as_str(), x.since)));
        all.extend(
            self.structs
                .iter()
                .flat_map(|x| &x.fields)
                .map(|x| (x.name.as_str(), x.since)),
        );
        all.extend(self.tables.iter().map(|x| (x.name.as_str(), x.since)));
        all.extend(
            self.tables
                .iter()
                .flat_map(|x| &x.functions)
                .map(|x| (x.name.as_str(), x.since)),
        );
        for (name, since) in all {
            ensure!(
                since <= self.minor,
                "`{name}` is of minor {since}; the newest is {}: raise `minor`",
                self.minor
            );
        }
        Ok(())
    }

    /// Bytes of a struct or table under a data model, at each minor that has it: the first is the least that a maker may state.
    pub fn sizes(&self, name: &str, model: DataModel) -> Result<BTreeMap<u16, u64>> {
        let mut sizes = BTreeMap::new();
        for minor in 0..=self.minor {
            let at = self.at(minor);
            let all = at.all_members()?;
            if let Some((_, members)) = all.iter().find(|(n, _)| *n == name) {
                sizes.insert(minor, layout(&at, name, members, model)?.size);
            }
        }
        Ok(sizes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = r#"
        major = 0
        minor = MINOR
        entry = "dg_delegate_entry_v0"
        opset = "torch-2.15"
        doc = ""
        constant = []
        opaque = []
        callback = []
        table = []
        [[enum]]
        name = "dg_kind"
        rust = "Kind"
        type = "u32"
        prefix = "DG_KIND_"
        doc = ""
        items = [{ name = "A", value = 1, doc = "" }, { name = "B", value = 2, since = 1, doc = "" }]
        [[struct]]
        name = "dg_ext"
        rust = "Ext"
        kind = "extension"
        doc = ""
        fields = []
        [[struct]]
        name = "dg_thing"
        rust = "Thing"
        kind = "record"
        doc = ""
        fields = [FIELDS]
    "#;

    fn parse(minor: u16, fields: &str) -> Result<Description> {
        Description::parse(&BASE.replace("MINOR", &minor.to_string()).replace("FIELDS", fields))
    }

    const FIRST: &str = r#"{ name = "a", type = "u64", since = 0, doc = "" }, { name = "b", type = "*const void", since = 0, doc = "" }"#;

    #[test]
    fn a_minor_has_what_came_with_it_and_before() {
        let fields = format!(r#"{FIRST}, {{ name = "c", type = "u64", since = 1, doc = "" }}"#);
        let d = parse(1, &fields).unwrap();
        let (first, second) = (d.at(0), d.at(1));
        assert_eq!((first.minor, second.minor), (0, 1));
        assert_eq!((first.enums[0].items.len(), second.enums[0].items.len()), (1, 2));
        assert_eq!((first.structs[1].fields.len(), second.structs[1].fields.len()), (2, 3));
        // LP64: 8 + 8, then 8 more. ILP32: 8 + 4 and 4 of padding, then 8 more. i386 has no padding.
        let sizes = |model| d.sizes("dg_thing", model).unwrap().into_values().collect::<Vec<_>>();
        assert_eq!(sizes(MODELS[0]), [16, 24]);
        assert_eq!(sizes(MODELS[2]), [16, 24]);
        assert_eq!(sizes(I386), [12, 20]);
        assert_ne!(first.layout_hash().unwrap(), second.layout_hash().unwrap());
    }

    #[test]
    fn what_a_minor_may_not_do_is_refused_by_name() {
        let cases = [
            (
                "a field in the padding that an earlier minor counts as its own",
                1,
                format!(
                    r#"{FIRST}, {{ name = "c", type = "u32", since = 1, doc = "" }}, {{ name = "d", type = "u32", since = 1, doc = "" }}"#
                ),
                "`dg_thing`: `c` lies in what was padding before minor 1 under ILP32",
            ),
            (
                "a field that is newer than the newest minor",
                1,
                format!(r#"{FIRST}, {{ name = "c", type = "u64", since = 2, doc = "" }}"#),
                "`c` is of minor 2; the newest is 1",
            ),
            (
                "a field before an older one",
                1,
                format!(r#"{{ name = "c", type = "u64", since = 1, doc = "" }}, {FIRST}"#),
                "`a` is older than the field before it",
            ),
            (
                "an item that is newer than the newest minor",
                0,
                FIRST.to_string(),
                "`B` is of minor 1; the newest is 0",
            ),
        ];
        for (name, minor, fields, want) in cases {
            let error = format!("{:#}", parse(minor, &fields).expect_err(name));
            assert!(error.contains(want), "{name}: {error}");
        }
    }
}
