//! The chips: Qualcomm's ids, architectures and sizes of tightly coupled memory, as ExecuTorch's tables have them (BSD licence).

/// A chip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Soc {
    /// Qualcomm's id.
    pub id: u32,
    /// Qualcomm's name, in small letters.
    pub name: &'static str,
    /// Version of the Hexagon architecture.
    pub arch: u32,
    /// MiB of tightly coupled memory.
    pub vtcm_mb: u32,
}

const fn soc(id: u32, name: &'static str, arch: u32, vtcm_mb: u32) -> Soc {
    Soc {
        id,
        name,
        arch,
        vtcm_mb,
    }
}

/// Those that are offered, by id.
pub const SOCS: &[Soc] = &[
    soc(36, "sm8450", 69, 8),
    soc(43, "sm8550", 73, 8),
    soc(57, "sm8650", 75, 8),
    soc(69, "sm8750", 79, 8),
    soc(87, "sm8850", 81, 8),
];

/// A chip by its name or id.
pub fn find(text: &str) -> Option<&'static Soc> {
    let wanted = text.trim().to_ascii_lowercase();
    SOCS.iter()
        .find(|soc| soc.name == wanted || soc.id.to_string() == wanted)
}

/// Their names and ids, for a message.
pub fn names() -> String {
    let all: Vec<String> = SOCS.iter().map(|soc| format!("{} ({})", soc.name, soc.id)).collect();
    all.join(", ")
}
