//! What the library's file says, before anything of it runs.

use crate::case::{Failure, Outcome, Trial};
use crate::categories::basis::{listed, open};
use crate::file::Library;
use delegraph_abi::{c, newest_minor};

fn read(trial: &Trial<'_>) -> Result<Library, Failure> {
    Ok(Library::read(&trial.subject.library)?)
}

pub fn entry(trial: &mut Trial<'_>) -> Outcome {
    let majors = read(trial)?.abi_majors();
    let known = c::ENTRIES.map(|(_, name)| name).join("` or `");
    if majors.is_empty() {
        return Err(Failure::fail(format!(
            "it does not export `{known}`: it is no delegate"
        )));
    }
    if majors.iter().all(|major| newest_minor(*major).is_none()) {
        return Err(Failure::fail(format!(
            "it exports entries of the majors {majors:?}, and not `{known}`"
        )));
    }
    match &trial.subject.manifest {
        Some((path, manifest)) if !majors.contains(&manifest.abi_major) => Err(Failure::fail(format!(
            "it exports entries of the majors {majors:?}, and `major` of `[abi]` is {} in `{}`",
            manifest.abi_major,
            path.display()
        ))),
        _ => Ok(()),
    }
}

pub fn exports(trial: &mut Trial<'_>) -> Outcome {
    let library = read(trial)?;
    match library.other_exports().as_slice() {
        [] => Ok(()),
        others => Err(Failure::warning(format!(
            "it exports {} symbols beside the entry: {}; hide them with -fvisibility=hidden",
            others.len(),
            listed(others)
        ))),
    }
}

pub fn machine(trial: &mut Trial<'_>) -> Outcome {
    let library = read(trial)?;
    match library.is_for_here() {
        true => Ok(()),
        false => Err(Failure::fail(format!(
            "it is {} for {}, this is {} {}",
            library.format,
            library.machine,
            std::env::consts::ARCH,
            std::env::consts::OS
        ))),
    }
}

pub fn executable_stack(trial: &mut Trial<'_>) -> Outcome {
    match read(trial)?.executable_stack {
        Some(true) => Err(Failure::fail(
            "it asks for an executable stack; link with -Wl,-z,noexecstack",
        )),
        Some(false) => Ok(()),
        None => Err(Failure::skip("files of this format do not say")),
    }
}

pub fn text_relocations(trial: &mut Trial<'_>) -> Outcome {
    match read(trial)?.text_relocations {
        true => Err(Failure::fail(
            "its code is written to when it is loaded; compile with -fPIC",
        )),
        false => Ok(()),
    }
}

pub fn search_path(trial: &mut Trial<'_>) -> Outcome {
    let search = read(trial)?.search;
    // `RUNPATH $ORIGIN/lib` moves with the library.
    let elsewhere: Vec<&String> = search
        .iter()
        .filter(|entry| {
            let folders = entry.split_once(' ').map_or("", |(_, folders)| folders);
            folders
                .split(':')
                .any(|folder| !folder.starts_with("$ORIGIN") && !folder.starts_with("@loader_path"))
        })
        .collect();
    match elsewhere.as_slice() {
        [] => Ok(()),
        some => Err(Failure::warning(format!(
            "it has libraries searched for in {}: folders of the machine that built it?",
            listed(some)
        ))),
    }
}

pub fn sanitizers(trial: &mut Trial<'_>) -> Outcome {
    match read(trial)?.sanitizers.as_slice() {
        [] => Ok(()),
        some => Err(Failure::warning(format!("it is built for {}", listed(some)))),
    }
}

pub fn imports(trial: &mut Trial<'_>) -> Outcome {
    let library = read(trial)?;
    // `abort` stands in Rust's and C++'s own libraries, for panics within panics and exceptions that nobody may catch.
    let risky: Vec<&str> = library.risky().into_iter().filter(|name| *name != "abort").collect();
    match risky.as_slice() {
        [] => Ok(()),
        some => Err(Failure::warning(format!("it can call {}", listed(some)))),
    }
}

pub fn undefined_symbols(trial: &mut Trial<'_>) -> Outcome {
    let library = read(trial)?;
    let ours: Vec<&String> = library
        .imports
        .iter()
        .filter(|name| name.starts_with("dg_") || name.starts_with("delegraph_"))
        .collect();
    if !ours.is_empty() {
        return Err(Failure::fail(format!(
            "it wants {} from the host program: the host's functions are in the table that the entry is given",
            listed(&ours)
        )));
    }
    // It is loaded with every symbol looked up at once: what is missing is in the loader's words.
    open(trial).map(|_| ())
}
