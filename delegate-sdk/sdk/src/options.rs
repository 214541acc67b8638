//! What a delegate is started with.

use crate::Error;

/// A value of an option.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs)]
pub enum OptionValue<'a> {
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(&'a str),
}

/// The user's options for this delegate.
#[derive(Debug, Clone, Default)]
pub struct Options<'a> {
    /// In the order given.
    pub entries: Vec<(&'a str, OptionValue<'a>)>,
}

impl<'a> Options<'a> {
    /// The value of an option.
    pub fn find(&self, key: &str) -> Option<OptionValue<'a>> {
        self.entries.iter().find(|(k, _)| *k == key).map(|(_, v)| *v)
    }

    /// Refuses options of other names.
    ///
    /// # Errors
    /// The first key that is not in `known`.
    pub fn check(&self, known: &[&str]) -> Result<(), Error> {
        match self.entries.iter().find(|(k, _)| !known.contains(k)) {
            None => Ok(()),
            Some((key, _)) if known.is_empty() => {
                Err(Error::invalid(format!("unknown option `{key}`")).hint("this delegate has no options"))
            }
            Some((key, _)) => Err(Error::invalid(format!("unknown option `{key}`"))
                .hint(format!("the options are `{}`", known.join("`, `")))),
        }
    }
}
