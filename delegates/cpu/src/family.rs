//! Families of processors that weights are packed for: what `isa` names.

use delegraph_cpu_kernels::quant::Dot;
use delegraph_cpu_kernels::quant::q4::Width;
use delegraph_cpu_kernels::{Isa, conv::grouped, gemm};
use delegraph_sdk::Error;
use delegraph_types::nearest;
use std::fmt;

/// A family of processors: an instruction set, and how it multiplies bytes. A later one is the better where a machine is of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Family(Dot);

/// What of a family weights are packed by. Families that are alike in it read one program, which is compiled once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Packing {
    /// Columns of a panel of matrices in floats.
    pub panel: usize,
    /// Outputs beside each other, of convolutions of few channels a group.
    pub lanes: usize,
    /// Outputs beside each other, of matrices of 4 bits.
    pub rows: Width,
}

/// Names that options have for them, from the plainest to the best.
const NAMES: [(&str, Dot); 7] = [
    ("scalar", Dot::Scalar),
    ("neon", Dot::Neon),
    ("neon-dotprod", Dot::NeonDot),
    ("neon-i8mm", Dot::NeonMatrix),
    ("avx2", Dot::Avx2),
    ("avx512", Dot::Avx512),
    ("avx512vnni", Dot::Vnni),
];

/// The name of the best one of the machine that compiles.
const HOST: &str = "host";

impl Family {
    /// The best of this machine.
    pub fn best() -> Family {
        Family(Dot::best())
    }

    /// All of them, from the plainest to the best.
    pub fn all() -> [Family; 7] {
        NAMES.map(|(_, dot)| Family(dot))
    }

    /// The one of a name; `host` is none.
    pub fn find(name: &str) -> Option<Family> {
        let found = NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, dot)| Family(*dot))
    }

    /// Those of a list with commas between them, in its order and each once. `host` is [`Family::best`].
    ///
    /// # Errors
    /// A name that is none, or no name; the hint lists them all.
    pub fn list(text: &str) -> Result<Vec<Family>, Error> {
        let mut families = Vec::new();
        for name in text.split(',').map(str::trim) {
            let family = match name {
                HOST => Family::best(),
                name => Family::find(name).ok_or_else(|| unknown(name))?,
            };
            if !families.contains(&family) {
                families.push(family);
            }
        }
        Ok(families)
    }

    /// The name in options and reports.
    pub fn name(self) -> &'static str {
        let found = NAMES.iter().find(|(_, dot)| *dot == self.0);
        found.map_or("", |(name, _)| name)
    }

    /// Whether this machine is of it.
    pub fn is_here(self) -> bool {
        Dot::all().contains(&self.0)
    }

    /// What weights are packed by for it. It depends on the family alone, not on the machine that asks.
    pub fn packing(self) -> Packing {
        let isa: Isa = self.0.isa();
        Packing {
            panel: gemm::width_for(isa),
            lanes: grouped::width_for(isa),
            rows: Width::best(self.0),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn unknown(name: &str) -> Error {
    let names = || [HOST].into_iter().chain(NAMES.map(|(name, _)| name));
    let all: Vec<String> = names().map(|name| format!("`{name}`")).collect();
    let near = nearest(name, names()).map_or(String::new(), |near| format!("did you mean `{near}`? "));
    Error::invalid(format!("there is no family of processors `{name}`")).hint(format!(
        "{near}they are {}, and several of them with commas between",
        all.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read() {
        let names = |text: &str| -> Vec<&str> { Family::list(text).unwrap().into_iter().map(Family::name).collect() };
        assert_eq!(names("neon"), ["neon"]);
        assert_eq!(names("avx512vnni, avx2,avx512vnni"), ["avx512vnni", "avx2"]);
        assert_eq!(names("host"), [Family::best().name()]);
        for family in Family::all() {
            assert_eq!(Family::find(family.name()), Some(family));
        }
        for wrong in ["", "sse", "avx2,", "avx2;neon", "AVX2"] {
            let error = Family::list(wrong).unwrap_err();
            for (name, _) in NAMES {
                assert!(error.hint.contains(&format!("`{name}`")), "{}", error.hint);
            }
        }
        assert!(
            Family::list("avx2,neo")
                .unwrap_err()
                .hint
                .starts_with("did you mean `neon`?")
        );
    }

    #[test]
    fn the_best_is_here_and_the_last_of_those_that_are() {
        let here = || Family::all().into_iter().filter(|family| family.is_here());
        assert_eq!(here().next().map(Family::name), Some("scalar"));
        assert_eq!(here().next_back(), Some(Family::best()));
        assert_eq!(here().max(), Some(Family::best()));
    }

    #[test]
    fn packing_is_the_familys_whatever_the_machine() {
        let packing = |name: &str| Family::find(name).unwrap().packing();
        let wide = Packing {
            panel: 32,
            lanes: 8,
            rows: Width::Sixteen,
        };
        let narrow = Packing {
            panel: 16,
            lanes: 8,
            rows: Width::Eight,
        };
        for family in Family::all() {
            let is_wide = family.name().starts_with("avx512");
            assert_eq!(packing(family.name()), if is_wide { wide } else { narrow }, "{family}");
        }
    }
}
