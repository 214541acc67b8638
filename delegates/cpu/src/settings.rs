//! The delegate's options: their schema for the host, and what they mean.

use crate::family::Family;
use delegraph_sdk::{Error, OptionValue, Options};

/// The schema, as JSON.
pub const SCHEMA: &str = r#"{
    "properties": {
        "isa": { "type": "string", "default": "host", "description": "the families of processors that weights are packed for, with commas between: `host` (the best of this machine), `scalar`, `neon`, `neon-dotprod`, `neon-i8mm`, `avx2`, `avx512`, `avx512vnni`. A file runs on every machine, and is fastest on these" },
        "winograd": { "type": "boolean", "default": true, "description": "convolutions of 3 by 3 may be computed by fewer products, with an error of up to 1e-5 of the largest sum; NaN and infinity spread over 4 by 4 pixels" }
    }
}"#;

/// The options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The families of processors that were named. Weights are packed for them; of a blob that is loaded, they are preferred. `None`: the machine's.
    pub isa: Option<Vec<Family>>,
    /// Whether convolutions may be computed by fewer products.
    pub winograd: bool,
}

impl Settings {
    /// Reads them.
    ///
    /// # Errors
    /// An option that there is not, or a value that is none of its own; the hint lists the right ones.
    pub fn read(options: &Options<'_>) -> Result<Settings, Error> {
        options.check(&["isa", "winograd"])?;
        let isa = match options.find("isa") {
            None => None,
            Some(OptionValue::Str(names)) => {
                let families = Family::list(names);
                Some(
                    families
                        .map_err(|error| Error::invalid(format!("option `isa`: {}", error.message)).hint(error.hint))?,
                )
            }
            Some(_) => return Err(wrong("isa", "names of families, as `avx2,neon`")),
        };
        let winograd = match options.find("winograd") {
            None => true,
            Some(OptionValue::Bool(winograd)) => winograd,
            Some(_) => return Err(wrong("winograd", "true and false")),
        };
        Ok(Settings { isa, winograd })
    }

    /// The families that weights are packed for, at least one.
    pub fn families(&self) -> Vec<Family> {
        self.isa.clone().unwrap_or_else(|| vec![Family::best()])
    }
}

fn wrong(option: &str, values: &str) -> Error {
    Error::invalid(format!("option `{option}` has another value than those that it knows"))
        .hint(format!("they are {values}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(entries: &[(&'static str, OptionValue<'static>)]) -> Result<Settings, Error> {
        Settings::read(&Options {
            entries: entries.to_vec(),
        })
    }

    #[test]
    fn values_are_those_of_the_schema() {
        let plain = read(&[]).unwrap();
        assert_eq!((&plain.isa, plain.winograd), (&None, true));
        assert_eq!(plain.families(), [Family::best()]);
        let given = read(&[
            ("isa", OptionValue::Str("avx512,avx2")),
            ("winograd", OptionValue::Bool(false)),
        ])
        .unwrap();
        let names: Vec<&str> = given.families().into_iter().map(Family::name).collect();
        assert_eq!((names, given.winograd), (vec!["avx512", "avx2"], false));
        for wrong in [
            ("isa", OptionValue::Str("sse")),
            ("isa", OptionValue::Bool(true)),
            ("winograd", OptionValue::Int(1)),
            ("threads", OptionValue::Int(1)),
        ] {
            let error = read(&[wrong]).unwrap_err();
            assert!(!error.hint.is_empty(), "{error}");
        }
    }
}
