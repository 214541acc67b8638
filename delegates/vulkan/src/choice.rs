//! Choices that need no driver: which device, and which of its families of queues.

use crate::facts::{Facts, Kind};
use delegraph_sdk::{Error, Status};

/// The device that `wanted` names: an index, a kind, or a part of a name. Empty: the best one.
///
/// # Errors
/// `NOT_FOUND`: there is none; the message names those that there are.
pub fn device(devices: &[Facts], wanted: &str) -> Result<usize, Error> {
    let wanted = wanted.trim();
    let best = |fits: &dyn Fn(&Facts) -> bool| {
        let fitting = devices.iter().enumerate().filter(|(_, facts)| fits(facts));
        fitting
            .min_by_key(|(index, facts)| (rank(facts.kind), *index))
            .map(|(index, _)| index)
    };
    let found = match (wanted.parse::<usize>(), kind(wanted)) {
        (Ok(index), _) => (index < devices.len()).then_some(index),
        (_, Some(kind)) => best(&|facts| facts.kind == kind),
        _ => best(&|facts| facts.name.to_lowercase().contains(&wanted.to_lowercase())),
    };
    found.ok_or_else(|| {
        let names: Vec<String> = devices
            .iter()
            .enumerate()
            .map(|(index, facts)| format!("{index} `{}` ({})", facts.name, name(facts.kind)))
            .collect();
        let there = match names.is_empty() {
            true => "there are none".to_string(),
            false => format!("there are {}", names.join(", ")),
        };
        Error::new(Status::NOT_FOUND, format!("no Vulkan device is `{wanted}`; {there}"))
            .hint("option `device` takes a part of a name, a kind (`discrete`, `integrated`, `virtual`, `software`) or an index")
    })
}

fn kind(text: &str) -> Option<Kind> {
    [Kind::Discrete, Kind::Integrated, Kind::Virtual, Kind::Software]
        .into_iter()
        .find(|kind| name(*kind).eq_ignore_ascii_case(text))
}

/// The word for a kind.
pub fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Discrete => "discrete",
        Kind::Integrated => "integrated",
        Kind::Virtual => "virtual",
        Kind::Software => "software",
        Kind::Other => "other",
    }
}

fn rank(kind: Kind) -> u32 {
    match kind {
        Kind::Discrete => 0,
        Kind::Integrated => 1,
        Kind::Virtual => 2,
        Kind::Other => 3,
        Kind::Software => 4,
    }
}

/// A family of queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family {
    /// Its queues compute.
    pub compute: bool,
    /// They draw.
    pub graphics: bool,
    /// They say that they copy. Those that compute or draw copy without saying so.
    pub transfer: bool,
    /// How many queues there are.
    pub count: u32,
    /// Bits of timestamps; 0: none.
    pub timestamp_bits: u32,
}

/// The families that are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queues {
    /// Computes.
    pub compute: usize,
    /// Copies beside it; `None`: the one that computes does.
    pub transfer: Option<usize>,
}

/// The families of the two queues of a device; one, where it has no queue that only copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Families {
    /// Of the queue that computes.
    pub computes: u32,
    /// Of the queue that copies weights to the device.
    pub copies: u32,
}

/// Chooses families: to compute, one that does not draw, free of the screen's work; to copy, one that does nothing else.
pub fn queues(families: &[Family]) -> Option<Queues> {
    let find = |fits: &dyn Fn(&Family) -> bool| families.iter().position(|f| f.count > 0 && fits(f));
    Some(Queues {
        compute: find(&|f| f.compute && !f.graphics).or_else(|| find(&|f| f.compute))?,
        transfer: find(&|f| f.transfer && !f.compute && !f.graphics),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, kind: Kind) -> Facts {
        Facts {
            name: name.to_string(),
            kind,
            ..Facts::weakest()
        }
    }

    fn family(flags: &str) -> Family {
        Family {
            compute: flags.contains('c'),
            graphics: flags.contains('g'),
            transfer: flags.contains('t'),
            count: u32::from(!flags.contains('0')),
            timestamp_bits: 64,
        }
    }

    #[test]
    fn the_best_device_is_taken_unless_another_is_named() {
        let devices = [
            named("llvmpipe (LLVM 15)", Kind::Software),
            named("Radeon 780M", Kind::Integrated),
            named("Arc A380", Kind::Discrete),
            named("Arc A770", Kind::Discrete),
        ];
        let choose = |wanted| device(&devices, wanted).unwrap();
        assert_eq!(choose(""), 2);
        assert_eq!(choose("integrated"), 1);
        assert_eq!(choose("LLVM"), 0);
        assert_eq!(choose("a770"), 3);
        assert_eq!(choose("1"), 1);
        assert_eq!(device(&devices[..2], "").unwrap(), 1);
        for wrong in ["4", "virtual", "Mali"] {
            let error = device(&devices, wrong).unwrap_err();
            assert_eq!(error.code, Status::NOT_FOUND);
            assert!(error.message.contains("2 `Arc A380` (discrete)"), "{}", error.message);
        }
        assert!(device(&[], "").unwrap_err().message.contains("there are none"));
    }

    #[test]
    fn families_are_chosen_by_what_else_they_do() {
        let choose = |flags: &[&str]| queues(&flags.iter().map(|f| family(f)).collect::<Vec<_>>());
        assert_eq!(
            choose(&["gct"]),
            Some(Queues {
                compute: 0,
                transfer: None
            })
        );
        assert_eq!(
            choose(&["gct", "ct", "t"]),
            Some(Queues {
                compute: 1,
                transfer: Some(2)
            })
        );
        assert_eq!(
            choose(&["g", "ct0", "gc"]),
            Some(Queues {
                compute: 2,
                transfer: None
            })
        );
        assert_eq!(choose(&["g", "t"]), None);
    }
}
