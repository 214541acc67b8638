//! Compares the layouts of a delegate's structs with the host's, field by field. For conformance runs, with the feature `layout-check`.
//!
//! The ordinary handshake compares one number, the layout hash, and can say only that two headers differ. Here both sides keep the whole
//! description of their types (`abi_stable` makes it), and the difference names the struct and the field. A delegate that takes part is built for
//! the purpose, with [`export_layouts`](crate::export_layouts) beside [`export_delegate`](crate::export_delegate); no such build is shipped, and
//! nothing of `abi_stable` is in the signature of a function that a host calls otherwise.

use abi_stable::StableAbi;
use abi_stable::abi_stability::abi_checking::{
    AbiInstability, AbiInstabilityError, ExpectedFound, check_layout_compatibility,
};
use abi_stable::type_layout::{TLField, TLFieldOrFunction};
use delegraph_abi::c;
use std::fmt::{self, Write};

pub use abi_stable::type_layout::TypeLayout;

/// The symbol that [`export_layouts`](crate::export_layouts) makes: a [`LayoutsFn`]. `abi_stable` keeps the form of a [`TypeLayout`] within 0.11, so
/// that is part of the name.
pub const SYMBOL: &str = "dg_layouts_v0_abi_stable_0_11";

/// The function behind [`SYMBOL`]: it gives the layouts of whoever exports it, constant for the life of the process.
pub type LayoutsFn = extern "C" fn() -> &'static TypeLayout;

/// The layouts of every struct and table, as this build has them.
pub extern "C" fn layouts() -> &'static TypeLayout {
    <c::AllLayouts as StableAbi>::LAYOUT
}

/// Compares a delegate's layouts with those of this build, struct by struct.
///
/// # Errors
/// They differ, see [`Difference`]. A delegate of another minor differs too: its structs are shorter or longer, which the contract allows; the
/// comparison is for two sides of one minor.
pub fn compare(delegate: &'static TypeLayout) -> Result<(), Difference> {
    let (host, delegate) = (structs(layouts()), structs(delegate));
    let mut difference = Difference {
        places: Vec::new(),
        text: String::new(),
    };
    for (name, expected) in &host {
        let Some((_, found)) = delegate.iter().find(|(n, _)| n == name) else {
            difference.places.push(format!("{name}: the delegate does not have it"));
            continue;
        };
        let errors = match check_layout_compatibility(expected, found) {
            Ok(()) => continue,
            Err(errors) => errors.errors,
        };
        for error in errors.iter().filter(|error| !error.errs.is_empty()) {
            // What lies behind a pointer to another struct is told of that struct.
            if !error.stack_trace.iter().any(|entry| is_same_struct(entry, &host)) {
                difference.places.push(place(name, error));
                difference.text.push_str(&error.to_string());
            }
        }
    }
    for (name, _) in &delegate {
        if !host.iter().any(|(n, _)| n == name) {
            difference.places.push(format!("{name}: the host does not have it"));
        }
    }
    if difference.places.is_empty() {
        Ok(())
    } else {
        Err(difference)
    }
}

/// Name in C and layout of each struct and table.
fn structs(all: &'static TypeLayout) -> Vec<(&'static str, &'static TypeLayout)> {
    let fields = all.get_fields().into_iter().flatten();
    fields.map(|field| (field.name(), field.layout())).collect()
}

fn is_same_struct(entry: &ExpectedFound<TLFieldOrFunction>, structs: &[(&str, &'static TypeLayout)]) -> bool {
    let (TLFieldOrFunction::Field(expected), TLFieldOrFunction::Field(found)) = (&entry.expected, &entry.found) else {
        return false;
    };
    let name = expected.layout().name();
    name == found.layout().name() && structs.iter().any(|(_, layout)| layout.name() == name)
}

/// How the layouts of two sides differ. Its text is a line for each place, then what `abi_stable` says of them at length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    places: Vec<String>,
    text: String,
}

impl Difference {
    /// Where they differ: the struct in C, field and types. Of several fields of one struct that changed from one type to one other, the first is told.
    pub fn places(&self) -> impl Iterator<Item = &str> {
        self.places.iter().map(String::as_str)
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the delegate's layouts are not the host's:")?;
        for place in &self.places {
            writeln!(f, "  {place}")?;
        }
        write!(f, "{}", self.text)
    }
}

impl std::error::Error for Difference {}

/// Names from the struct to what differs, and how.
fn place(name: &str, error: &AbiInstabilityError) -> String {
    let mut place = name.to_string();
    for entry in &error.stack_trace {
        // A function pointer comes as a field and as a function of one name; what a pointer or a newtype holds has no name.
        let _ = match &entry.expected {
            TLFieldOrFunction::Field(field) if field.name() == "0" => Ok(()),
            TLFieldOrFunction::Field(field) => write!(place, ".{}", field.name()),
            TLFieldOrFunction::Function(_) => Ok(()),
        };
    }
    for (i, what) in error.errs.iter().enumerate() {
        place.push_str(if i == 0 { ": " } else { "; " });
        let _ = match what {
            AbiInstability::UnexpectedField(pair) => {
                let (host, delegate) = (field_text(&pair.expected), field_text(&pair.found));
                write!(place, "the host has `{host}`, the delegate `{delegate}`")
            }
            AbiInstability::Name(pair) => {
                write!(place, "the host has `{}`, the delegate `{}`", pair.expected, pair.found)
            }
            AbiInstability::FieldCountMismatch(pair) => {
                let (host, delegate) = (pair.expected, pair.found);
                write!(place, "the host has {host} fields, the delegate {delegate}")
            }
            AbiInstability::Size(pair) => {
                let (host, delegate) = (pair.expected, pair.found);
                write!(place, "{host} bytes with the host, {delegate} with the delegate")
            }
            _ => write!(place, "of another kind, see below"),
        };
    }
    place
}

fn field_text(field: &TLField) -> String {
    format!("{}: {}", field.name(), field.full_type())
        .trim_end()
        .to_string()
}

/// Exports the layouts of this build for [`compare`]. For a delegate that is built for a conformance run, beside
/// [`export_delegate`](crate::export_delegate); a shipped one exports its entry and nothing else.
#[macro_export]
macro_rules! export_layouts {
    () => {
        /// The layouts of the structs of this build.
        #[unsafe(no_mangle)]
        pub extern "C" fn dg_layouts_v0_abi_stable_0_11() -> &'static $crate::layout_check::TypeLayout {
            $crate::layout_check::layouts()
        }
    };
}
