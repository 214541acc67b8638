//! Memory by handle, and what goes wrong with its descriptors and places.

// The double's: one way to map memory is enough.
#[path = "../../double/src/external.rs"]
mod in_place;
#[path = "../../double/src/sys.rs"]
mod mapping;

use crate::sys::memory;
use crate::{Mutant, is};
use delegraph_sdk::{
    Context, Error, Exported, External, ExternalMemory, HandleType, Handles, HostMemory, Import, Imported, Mapped,
    Origin, Status, TensorOut, TensorView,
};
use mapping::Mapping;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::OnceLock;

/// What it remembers of imported memory.
pub enum Registered {
    /// Memory where the host sees it.
    Host,
    /// A map of its own.
    Mapped(Mapping),
    /// What the memory held when it was imported, beside the map that outputs go to.
    Copied(Mapping, Mapping),
    /// A descriptor of the host's that is mapped at the first run.
    Late(RawFd, u64, OnceLock<Mapping>),
}

impl Import for Mutant {
    type Buffer = Registered;

    fn import(&self, _: HostMemory, _: &Context<'_>) -> Result<Registered, Error> {
        Ok(Registered::Host)
    }
}

fn unmapped(error: std::io::Error) -> Error {
    Error::invalid(format!("the memory cannot be mapped: {error}"))
}

impl External for Mutant {
    fn handles(&self, _: Option<u32>) -> Handles {
        let all = [HandleType::Memfd].into_iter().collect();
        Handles {
            import: all,
            export: all,
        }
    }

    fn import_external(&self, memory: ExternalMemory<'_>, _: &Context<'_>) -> Result<Registered, Error> {
        if memory.handle != HandleType::Memfd && !is("takes-any-handle") {
            return Err(Error::unsupported(format!("it takes no memory by {:?}", memory.handle)));
        }
        let map = || Mapping::new(memory.fd, memory.size).map_err(unmapped);
        match crate::active() {
            "borrows-descriptor" => {
                return Ok(Registered::Late(memory.fd.as_raw_fd(), memory.size, OnceLock::new()));
            }
            "imports-a-copy" => {
                let (copy, ..) = Mapping::create(memory.size).map_err(unmapped)?;
                let (now, length) = (map()?, memory.size as usize);
                if let (Some(from), Some(to)) = (now.read(0, length), copy.write(0, length)) {
                    to.copy_from_slice(from);
                }
                return Ok(Registered::Copied(copy, now));
            }
            _ => {}
        }
        let mapping = map()?;
        match crate::active() {
            "closes-descriptor" => memory::close(memory.fd.as_raw_fd()),
            "leaks-import-descriptor" => std::mem::forget(memory.fd.try_clone_to_owned()),
            _ => {}
        }
        Ok(Registered::Mapped(mapping))
    }

    fn export(
        &self,
        _: Option<u32>,
        handle: HandleType,
        size: u64,
        _: &Context<'_>,
    ) -> Result<Exported<Registered>, Error> {
        if handle != HandleType::Memfd {
            return Err(Error::unsupported(format!("it gives no memory by {handle:?}")));
        }
        let asked = if is("exports-too-little") { size / 2 } else { size };
        let failed = |error| Error::new(Status::OUT_OF_MEMORY, format!("no memory file: {error}"));
        let (mapping, fd, size) = Mapping::create(asked.max(1)).map_err(failed)?;
        if is("leaks-export-descriptor") {
            std::mem::forget(fd.try_clone());
        }
        let origin = Origin::default();
        Ok(Exported {
            buffer: Registered::Mapped(mapping),
            fd,
            size,
            origin,
        })
    }

    fn mapped(&self, buffer: &Registered) -> Option<Mapped> {
        match buffer {
            Registered::Mapped(mapping) | Registered::Copied(_, mapping) => Some(mapping.mapped()),
            _ => None,
        }
    }
}

/// Runs with tensors where this delegate sees them.
///
/// # Errors
/// As `run`, or a tensor that lies nowhere.
pub fn run(
    inputs: &[TensorView<'_>],
    outputs: &mut [TensorOut<'_>],
    run: impl FnOnce(&[TensorView<'_>], &mut [TensorOut<'_>]) -> Result<(), Error>,
) -> Result<(), Error> {
    // Inputs are looked at where they were when the memory was imported, if that is the defect.
    let mut given = Vec::with_capacity(inputs.len());
    for input in inputs {
        let copied = input
            .buffer
            .as_ref()
            .and_then(|buffer| match buffer.buffer::<Registered>() {
                Some(Registered::Copied(copy, _)) => copy.read(buffer.offset(), input.bytes.len()),
                _ => None,
            });
        given.push(match copied {
            Some(bytes) => TensorView::new(input.dtype, input.sizes, bytes),
            None => *input,
        });
    }
    in_place::in_place(&given, outputs, place, run)
}

fn place<'m>(buffer: &Imported<'m>) -> Result<Option<(&'m Mapping, u64)>, Error> {
    let offset = if is("ignores-offset") { 0 } else { buffer.offset() };
    Ok(match buffer.buffer::<Registered>() {
        Some(Registered::Mapped(mapping) | Registered::Copied(_, mapping)) => Some((mapping, offset)),
        Some(Registered::Late(fd, size, mapping)) => {
            if mapping.get().is_none() {
                let late = memory::map_by_number(*fd, |fd| Mapping::new(fd, *size)).map_err(unmapped)?;
                let _ = mapping.set(late);
            }
            mapping.get().map(|mapping| (mapping, offset))
        }
        _ => None,
    })
}
