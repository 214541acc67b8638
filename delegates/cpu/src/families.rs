//! The programs of a blob, and the families of processors that each was compiled for.
//!
//! The section [`SECTION`] has a line for each program: families, `:`, the section of the program, and those of its weights in the order in which the
//! program counts them, all with one space between them.
//!
//! ```text
//! avx2 neon : program.avx2 weights weights.avx2 small_weights
//! avx512 : program.avx512 weights weights.avx512 small_weights
//! ```
//!
//! Families that weights are packed alike for have one program. What several programs read is in sections that both name: it is stored once.

use crate::compile::{PROGRAM, SMALL_WEIGHTS, WEIGHTS};
use crate::family::Family;
use delegraph_sdk::Error;
use std::collections::HashSet;

/// The section's name.
pub const SECTION: &str = "families";

/// A program of a blob.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    /// Names of the families that it was compiled for, at least one. A later version of this delegate may know more of them.
    pub families: Vec<String>,
    /// The section of its image.
    pub program: String,
    /// The sections of its packed weights: the indices of one continue those of the one before it.
    pub weights: Vec<String>,
}

/// The programs of a blob, in the order of the list that it was compiled for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Families {
    /// At least one.
    pub programs: Vec<Entry>,
}

impl Families {
    /// Those of a blob with these sections. One of version 2 has no table, and one program.
    ///
    /// # Errors
    /// The table is damaged, or names a section that the blob has not.
    pub fn of<'a>(sections: &[(&'a str, &'a [u8])]) -> Result<Families, Error> {
        let has = |name: &str| sections.iter().any(|(section, _)| *section == name);
        let Some((_, table)) = sections.iter().find(|(name, _)| *name == SECTION) else {
            let weights = [WEIGHTS, SMALL_WEIGHTS].into_iter().filter(|name| has(name));
            return Ok(Families {
                programs: vec![Entry {
                    families: Vec::new(),
                    program: PROGRAM.to_string(),
                    weights: weights.map(str::to_string).collect(),
                }],
            });
        };
        let read = Families::read(table)?;
        let named = |entry: &Entry| has(&entry.program) && entry.weights.iter().all(|name| has(name));
        match read.programs.iter().all(named) {
            true => Ok(read),
            false => Err(damaged("it names a section that the blob has not")),
        }
    }

    /// Reads the section.
    ///
    /// # Errors
    /// It is damaged.
    pub fn read(bytes: &[u8]) -> Result<Families, Error> {
        let text = std::str::from_utf8(bytes).map_err(|_| damaged("it is no text"))?;
        let text = text
            .strip_suffix('\n')
            .ok_or_else(|| damaged("it ends within a line"))?;
        let mut all = Families::default();
        let mut seen = HashSet::new();
        for line in text.split('\n') {
            let (families, sections) = line.split_once(" : ").ok_or_else(|| damaged("a line has no `:`"))?;
            let words = |list: &str| -> Result<Vec<String>, Error> {
                let is_word =
                    |word: &str| word != ":" && !word.is_empty() && word.bytes().all(|b| b.is_ascii_graphic());
                let words = list.split(' ').map(|word| is_word(word).then(|| word.to_string()));
                words
                    .collect::<Option<_>>()
                    .ok_or_else(|| damaged("a name is not right"))
            };
            let families = words(families)?;
            if !families.iter().all(|name| seen.insert(name.clone())) {
                return Err(damaged("a family has two programs"));
            }
            let mut sections = words(sections)?.into_iter();
            all.programs.push(Entry {
                families,
                program: sections.next().unwrap_or_default(),
                weights: sections.collect(),
            });
        }
        Ok(all)
    }

    /// The section's bytes.
    pub fn write(&self) -> Vec<u8> {
        let mut text = String::new();
        for entry in &self.programs {
            text += &entry.families.join(" ");
            text += " :";
            for section in [&entry.program].into_iter().chain(&entry.weights) {
                text += " ";
                text += section;
            }
            text += "\n";
        }
        text.into_bytes()
    }

    /// The program that is loaded, and the family that it is loaded for: of those in `wanted`, where it is given and the blob has one of them, the best
    /// that this machine is of, by the order of [`Family`]; where it is of none of them, the first. `None`: there is no program, or nobody said
    /// what it was compiled for.
    pub fn choose(&self, wanted: Option<&[Family]>) -> Option<(&Entry, Option<Family>)> {
        self.choose_where(wanted, Family::is_here)
    }

    fn choose_where(
        &self,
        wanted: Option<&[Family]>,
        is_here: impl Fn(Family) -> bool,
    ) -> Option<(&Entry, Option<Family>)> {
        let named = self.programs.iter().flat_map(|entry| {
            let families = entry.families.iter().filter_map(|name| Family::find(name));
            families.map(move |family| (entry, family))
        });
        let mut candidates: Vec<(&Entry, Family)> = named.collect();
        if let Some(wanted) = wanted
            && candidates.iter().any(|(_, family)| wanted.contains(family))
        {
            candidates.retain(|(_, family)| wanted.contains(family));
        }
        let here = candidates.iter().filter(|(_, family)| is_here(*family));
        let chosen = here.max_by_key(|(_, family)| *family).or(candidates.first());
        match chosen {
            Some((entry, family)) => Some((entry, Some(*family))),
            None => self.programs.first().map(|entry| (entry, None)),
        }
    }
}

fn damaged(what: &str) -> Error {
    Error::corrupt(format!("the table of the blob's programs is damaged: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "avx2 neon : program.avx2 weights weights.avx2\navx512vnni sve9 : program.avx512vnni weights\n";

    fn sample() -> Families {
        Families::read(TEXT.as_bytes()).unwrap()
    }

    #[test]
    fn what_was_read_is_written_as_it_was() {
        let read = sample();
        assert_eq!(read.programs[0].families, ["avx2", "neon"]);
        assert_eq!(read.programs[0].weights, ["weights", "weights.avx2"]);
        assert_eq!(read.programs[1].program, "program.avx512vnni");
        assert_eq!(String::from_utf8(read.write()).unwrap(), TEXT);
    }

    #[test]
    fn damage_is_said() {
        for wrong in [
            "",
            "\n",
            "avx2 : program",
            "avx2 program\n",
            " : program\n",
            "avx2 : \n",
            "avx2 :  program\n",
            "avx2  neon : program\n",
            "avx2 avx2 : program\n",
            "avx2 : a\nneon avx2 : b\n",
            "avx2 : a : b\n",
            "avx2 : a\n\n",
            "avx2 : a\r\n",
        ] {
            let error = Families::read(wrong.as_bytes()).unwrap_err();
            assert_eq!(error.code, delegraph_sdk::Status::BLOB_CORRUPT, "{wrong:?}");
        }
        assert!(Families::read(b"avx2 : \xff\n").is_err());
        for end in 0..TEXT.len() {
            let cut = Families::read(&TEXT.as_bytes()[..end]);
            assert!(cut.is_err() || TEXT.as_bytes()[end - 1] == b'\n');
        }
    }

    #[test]
    fn sections_have_to_be_there() {
        let table = TEXT.as_bytes();
        let names = ["program.avx2", "program.avx512vnni", "weights", "weights.avx2"];
        let all: Vec<(&str, &[u8])> = names
            .map(|name| (name, &[][..]))
            .into_iter()
            .chain([(SECTION, table)])
            .collect();
        assert_eq!(Families::of(&all).unwrap(), sample());
        for (absent, name) in names.iter().enumerate() {
            let mut some = all.clone();
            some.remove(absent);
            assert!(Families::of(&some).is_err(), "without {name}");
        }
        // Version 2.
        let old = Families::of(&[(PROGRAM, &[]), (SMALL_WEIGHTS, &[])]).unwrap();
        assert_eq!(old.programs[0].weights, [SMALL_WEIGHTS]);
        assert_eq!(old.choose(None), Some((&old.programs[0], None)));
        assert_eq!(old.choose(Some(&Family::all())), Some((&old.programs[0], None)));
    }

    #[test]
    fn the_best_that_the_machine_is_of_is_chosen() {
        let all = sample();
        let find = |name: &str| Family::find(name).unwrap();
        let chosen = |wanted: Option<&[&str]>, here: &[&str]| {
            let wanted: Option<Vec<Family>> = wanted.map(|names| names.iter().map(|name| find(name)).collect());
            let chosen = all.choose_where(wanted.as_deref(), |family| here.contains(&family.name()));
            chosen.and_then(|(_, family)| family).unwrap().name()
        };
        assert_eq!(chosen(None, &["scalar", "avx2", "avx512", "avx512vnni"]), "avx512vnni");
        assert_eq!(chosen(None, &["scalar", "avx2", "avx512"]), "avx2");
        assert_eq!(chosen(None, &["scalar", "neon", "neon-dotprod"]), "neon");
        assert_eq!(chosen(None, &["scalar"]), "avx2", "the first");
        let machine: &[&str] = &["scalar", "avx2"];
        assert_eq!(chosen(Some(&["avx512vnni"]), machine), "avx512vnni");
        assert_eq!(chosen(Some(&["avx512vnni", "avx2"]), machine), "avx2");
        assert_eq!(chosen(Some(&["scalar"]), machine), "avx2", "it has none of them");
        let unknown = Families::read(b"sve9 : program\n").unwrap();
        assert_eq!(unknown.choose(None), Some((&unknown.programs[0], None)));
    }
}
