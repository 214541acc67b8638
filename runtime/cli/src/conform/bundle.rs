//! What is left of a failure: the record, what explains it, and how to run it again.

use super::quote;
use crate::args::{KitArgs, ModeArg};
use delegraph_runner::CaseRecord;
use std::path::Path;

/// The words of a command that runs a case again, but for the library.
fn flags(args: &KitArgs, id: &str) -> String {
    let mut words = vec![format!("--case {}", quote(&exactly(id)))];
    if let Some(device) = args.device {
        words.push(format!("--device {device}"));
    }
    if args.mode == ModeArg::Support {
        words.push("--mode support".to_string());
    }
    for option in &args.option {
        words.push(format!("--option {}", quote(option)));
    }
    if args.isolated {
        words.push("--isolated".to_string());
    }
    if let Some(limit) = args.limit {
        words.push(format!("--limit {limit}"));
    }
    words.push(format!("--seed {} --retries 0", args.seed));
    words.join(" ")
}

/// A glob that matches this text alone.
pub fn exactly(id: &str) -> String {
    let mut glob = String::with_capacity(id.len());
    for c in id.chars() {
        match c {
            '*' | '?' | '[' => glob.extend(['[', c, ']']),
            c => glob.push(c),
        }
    }
    glob
}

/// The command that runs a case again, from the folder that the run was started in.
pub fn repro(args: &KitArgs, id: &str) -> String {
    let library = quote(&args.library.display().to_string());
    format!("delegraph conform run {library} {}", flags(args, id))
}

/// Writes the bundle of a case, beside the evidence that its child has put there.
///
/// # Errors
/// The disk refuses.
pub fn write(folder: &Path, args: &KitArgs, record: &CaseRecord, stderr: &[u8]) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let library = quote(&args.library.display().to_string());
    let script = format!(
        "#!/bin/sh\n# Runs the case again, from the folder that the run was started in. Another library may be given as the first argument,\n\
         # another program as DELEGRAPH.\nif [ $# -eq 0 ]; then set -- {library}; fi\n\
         exec \"${{DELEGRAPH:-delegraph}}\" conform run \"$1\" {}\n",
        flags(args, &record.id)
    );
    let path = folder.join("repro.sh");
    std::fs::write(&path, script)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    }
    let mut text = serde_json::to_vec_pretty(record)?;
    text.push(b'\n');
    std::fs::write(folder.join("record.json"), text)?;
    if !stderr.is_empty() {
        std::fs::write(folder.join("stderr.txt"), stderr)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use delegraph_config::glob_match;

    #[test]
    fn an_id_as_a_glob_matches_itself_alone() {
        for id in ["op/aten::add.Tensor/f32/a", "x/[1,2]", "x/a*b?", "x/]["] {
            assert!(glob_match(&exactly(id), id), "{id}");
        }
        assert!(!glob_match(&exactly("x/a*b"), "x/aab"));
        assert!(!glob_match(&exactly("x/[ab]"), "x/a"));
    }
}
