//! What can be wrong with a command stream, a container, or the memory that it is run on.

use std::fmt;

/// Where something is: the byte offset of a command in its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offset(pub usize);

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {:#x}", self.0)
    }
}

/// Why a container cannot be read, or a stream cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes around a command stream are not what they should be.
    #[error("at byte {offset:#x} of the container: {text}")]
    Container {
        /// Byte of the container.
        offset: usize,
        /// What is wrong.
        text: String,
    },
    /// A command is cut off.
    #[error("the stream ends within the command at {0}")]
    Cut(Offset),
    /// A command that this interpreter does not know.
    #[error("at {offset}: command {word:#010x} is not known for {product}")]
    UnknownCommand {
        /// Where it is.
        offset: Offset,
        /// The command's first word.
        word: u32,
        /// The processor.
        product: &'static str,
    },
    /// A value of a register that means nothing, or something that is not done here.
    #[error("at {offset}: {operation}: {text}")]
    Operation {
        /// Of the operation that reads the register.
        offset: Offset,
        /// Its name.
        operation: &'static str,
        /// What is wrong.
        text: String,
    },
    /// An access outside its region.
    #[error("{access} of {size} bytes at {address:#x} of region {region}, which {}", held(.available))]
    OutOfBounds {
        /// `read` or `write`.
        access: &'static str,
        /// Region.
        region: u8,
        /// First byte.
        address: u64,
        /// Bytes.
        size: u64,
        /// Bytes of the region; `None`: there is no such region.
        available: Option<u64>,
    },
    /// A write to a region that may only be read.
    #[error("write at {address:#x} of region {region}, which may only be read")]
    ReadOnly {
        /// Region.
        region: u8,
        /// First byte.
        address: u64,
    },
    /// A weight stream that does not decode.
    #[error("weight stream at bit {bit}: {text}")]
    Weights {
        /// Bit of the stream.
        bit: usize,
        /// What is wrong.
        text: &'static str,
    },
    /// More work than is allowed.
    #[error("the stream takes more than the {limit} {what} that are allowed")]
    Limit {
        /// What is limited.
        what: &'static str,
        /// How many.
        limit: u64,
    },
    /// The stream does not end with its end command.
    #[error("the stream ends without STOP")]
    NoStop,
}

fn held(available: &Option<u64>) -> String {
    match available {
        None => "does not exist".to_string(),
        Some(bytes) => format!("has {bytes} bytes"),
    }
}

impl Error {
    pub(crate) fn container(offset: usize, text: impl Into<String>) -> Error {
        Error::Container {
            offset,
            text: text.into(),
        }
    }
}
