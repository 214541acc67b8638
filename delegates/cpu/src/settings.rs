//! The delegate's options: their schema for the host, and what they mean.

use delegraph_cpu_kernels::Isa;
use delegraph_sdk::{Error, OptionValue, Options};

/// The schema, as JSON.
pub const SCHEMA: &str = r#"{
    "properties": {
        "isa": { "type": "string", "enum": ["host", "scalar", "neon", "avx2", "avx512"], "default": "host", "description": "the instruction set that weights are packed for, `host`: the best of this machine. Files run on every machine, and best on this kind" },
        "winograd": { "type": "boolean", "default": true, "description": "convolutions of 3 by 3 may be computed by fewer products, with an error of up to 1e-5 of the largest sum; NaN and infinity spread over 4 by 4 pixels" }
    }
}"#;

/// The options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// The instruction set that weights are packed for.
    pub isa: Isa,
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
            None | Some(OptionValue::Str("host")) => Isa::best(),
            Some(OptionValue::Str(name)) => {
                let all = [Isa::Scalar, Isa::Neon, Isa::Avx2, Isa::Avx512];
                let found = all.into_iter().find(|isa| isa.name() == name);
                found.ok_or_else(|| wrong("isa", "host, scalar, neon, avx2 and avx512"))?
            }
            Some(_) => return Err(wrong("isa", "host, scalar, neon, avx2 and avx512")),
        };
        let winograd = match options.find("winograd") {
            None => true,
            Some(OptionValue::Bool(winograd)) => winograd,
            Some(_) => return Err(wrong("winograd", "true and false")),
        };
        Ok(Settings { isa, winograd })
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
        assert_eq!((plain.isa, plain.winograd), (Isa::best(), true));
        let given = read(&[
            ("isa", OptionValue::Str("avx2")),
            ("winograd", OptionValue::Bool(false)),
        ])
        .unwrap();
        assert_eq!((given.isa, given.winograd), (Isa::Avx2, false));
        for wrong in [
            ("isa", OptionValue::Str("sse")),
            ("winograd", OptionValue::Int(1)),
            ("threads", OptionValue::Int(1)),
        ] {
            let error = read(&[wrong]).unwrap_err();
            assert!(!error.hint.is_empty(), "{error}");
        }
    }
}
