//! The delegate's options: their schema for the host, and what they mean.

use crate::soc::{self, Soc};
use delegraph_sdk::{Error, OptionValue, Options};
use std::path::PathBuf;

/// The chip that is compiled for where nobody names one: the newest whose arithmetic the host emulation has bit by bit, all of it
/// (Qualcomm says so of architectures 68 to 79), and that also has been out for long.
pub const DEFAULT_SOC: &str = "sm8650";

/// The schema, as JSON.
pub const SCHEMA: &str = r#"{
    "properties": {
        "soc": { "type": "string", "default": "", "description": "the chip, by name or Qualcomm's id: sm8450 (36), sm8550 (43), sm8650 (57), sm8750 (69), sm8850 (87); empty: that of the blob, and sm8650 to compile for. `--target` goes before it" },
        "precision": { "type": "string", "enum": ["f16", "integer"], "default": "f16", "description": "`f16`: floats are computed in 16 bits; `integer`: nodes on floats are not taken, quantized ones are" },
        "performance_mode": { "type": "string", "enum": ["default", "burst", "sustained-high-performance", "high-performance", "balanced", "low-balanced", "high-power-saver", "power-saver", "low-power-saver", "extreme-power-saver"], "default": "default", "description": "what the chip is asked for while it runs; recorded in the blob, without effect so far" },
        "vtcm_mb": { "type": "integer", "minimum": 0, "maximum": 64, "default": 0, "description": "MiB of tightly coupled memory that a graph may take; 0: all that the chip has" },
        "library": { "type": "string", "default": "", "description": "folder of Qualcomm's libraries: the package of the wheel, or the root of an SDK; empty: DELEGRAPH_QNN_DIR, beside the plugin, the system's" }
    }
}"#;

/// Values of `precision`.
pub const PRECISIONS: &[&str] = &["f16", "integer"];
/// Values of `performance_mode`.
pub const PERFORMANCE_MODES: &[&str] = &[
    "default",
    "burst",
    "sustained-high-performance",
    "high-performance",
    "balanced",
    "low-balanced",
    "high-power-saver",
    "power-saver",
    "low-power-saver",
    "extreme-power-saver",
];

/// The options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The chip that the user chose.
    pub soc: Option<&'static Soc>,
    /// Nodes on floats are not taken.
    pub integer: bool,
    /// One of [`PERFORMANCE_MODES`].
    pub performance_mode: &'static str,
    /// MiB that a graph may take; 0: all that the chip has.
    pub vtcm_mb: u32,
    /// Folder of Qualcomm's libraries.
    pub library: Option<PathBuf>,
}

impl Settings {
    /// Reads them.
    ///
    /// # Errors
    /// An option that there is not, or a value that is none of its own; the hint lists the right ones.
    pub fn read(options: &Options<'_>) -> Result<Settings, Error> {
        options.check(&["soc", "precision", "performance_mode", "vtcm_mb", "library"])?;
        let text = |key: &str| match options.find(key) {
            None => Ok(""),
            Some(OptionValue::Str(text)) => Ok(text),
            Some(other) => Err(Error::invalid(format!("`{key}` is `{other:?}`, not a text"))),
        };
        let soc = match text("soc")? {
            "" => None,
            name => Some(chip(name)?),
        };
        let vtcm_mb = match options.find("vtcm_mb") {
            None => 0,
            Some(OptionValue::Int(mb)) => u32::try_from(mb).unwrap_or(u32::MAX),
            Some(other) => {
                return Err(Error::invalid(format!(
                    "`vtcm_mb` is `{other:?}`, not a whole number of MiB"
                )));
            }
        };
        let settings = Settings {
            soc,
            integer: one_of("precision", text("precision")?, PRECISIONS)? == "integer",
            performance_mode: one_of("performance_mode", text("performance_mode")?, PERFORMANCE_MODES)?,
            vtcm_mb,
            library: Some(text("library")?)
                .filter(|path| !path.is_empty())
                .map(PathBuf::from),
        };
        // A chip with less is a mistake that can be told now where the chip is named; else when it is known.
        settings.vtcm_of(soc.unwrap_or(default_soc()))?;
        Ok(settings)
    }

    /// The chip of a target, as `--target` names it; without one, that of the options, or the one that is taken unless said.
    ///
    /// # Errors
    /// There is no such chip.
    pub fn chip_for(&self, target: &str) -> Result<&'static Soc, Error> {
        match target {
            "" => Ok(self.soc.unwrap_or(default_soc())),
            name => chip(name),
        }
    }

    /// MiB that a graph may take on a chip.
    ///
    /// # Errors
    /// More than the chip has.
    pub fn vtcm_of(&self, soc: &Soc) -> Result<u32, Error> {
        match self.vtcm_mb {
            0 => Ok(soc.vtcm_mb),
            mb if mb <= soc.vtcm_mb => Ok(mb),
            mb => Err(
                Error::invalid(format!("`vtcm_mb` is {mb}, and {} has {} MiB", soc.name, soc.vtcm_mb))
                    .hint(format!("1 to {}, or 0 for all", soc.vtcm_mb)),
            ),
        }
    }
}

fn default_soc() -> &'static Soc {
    soc::find(DEFAULT_SOC).unwrap_or(&soc::SOCS[0])
}

/// A chip by name or id.
///
/// # Errors
/// There is none of that name; the hint lists those that there are.
pub fn chip(name: &str) -> Result<&'static Soc, Error> {
    soc::find(name).ok_or_else(|| {
        Error::invalid(format!("`{name}` is no chip that is known here"))
            .hint(format!("the chips are {}", soc::names()))
    })
}

fn one_of(key: &str, value: &str, known: &'static [&'static str]) -> Result<&'static str, Error> {
    let wanted = if value.is_empty() { known[0] } else { value };
    known.iter().find(|name| **name == wanted).copied().ok_or_else(|| {
        Error::invalid(format!("`{key}` is `{value}`")).hint(format!("it is one of `{}`", known.join("`, `")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(entries: &[(&str, OptionValue<'_>)]) -> Result<Settings, Error> {
        Settings::read(&Options {
            entries: entries.to_vec(),
        })
    }

    #[test]
    fn the_schema_has_the_values_that_are_read() {
        let schema: serde_json::Value = serde_json::from_str(SCHEMA).unwrap();
        let properties = &schema["properties"];
        assert_eq!(properties["precision"]["enum"], serde_json::json!(PRECISIONS));
        assert_eq!(
            properties["performance_mode"]["enum"],
            serde_json::json!(PERFORMANCE_MODES)
        );
        let chips = properties["soc"]["description"].as_str().unwrap();
        assert!(chips.contains(&soc::names()), "{chips}");
        assert!(chips.contains(DEFAULT_SOC) && soc::find(DEFAULT_SOC).is_some());
    }

    #[test]
    fn a_wrong_value_is_answered_with_the_right_ones() {
        let cases: [(&str, OptionValue<'_>, &str); 7] = [
            ("soc", OptionValue::Str("sm9999"), "sm8650 (57)"),
            ("soc", OptionValue::Int(57), "not a text"),
            ("precision", OptionValue::Str("f32"), "`f16`, `integer`"),
            ("performance_mode", OptionValue::Str("fast"), "`burst`"),
            ("vtcm_mb", OptionValue::Int(9), "1 to 8"),
            ("vtcm_mb", OptionValue::Int(-1), "1 to 8"),
            ("libary", OptionValue::Str("/x"), "`library`"),
        ];
        for (key, value, expected) in cases {
            let error = read(&[(key, value)]).unwrap_err();
            assert!(error.to_string().contains(expected), "{key}: {error}");
        }
    }

    #[test]
    fn chips_have_names_and_numbers_and_the_target_goes_first() {
        let settings = read(&[("soc", OptionValue::Str("69"))]).unwrap();
        assert_eq!(settings.chip_for("").unwrap().name, "sm8750");
        assert_eq!(settings.chip_for("SM8450").unwrap().id, 36);
        assert!(settings.chip_for("sm1").is_err());
        assert_eq!(read(&[]).unwrap().chip_for("").unwrap().name, DEFAULT_SOC);
    }
}
