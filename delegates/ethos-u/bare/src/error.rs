//! What can go wrong.

use crate::driver::Fault;
use core::fmt;

/// Why a network is not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// A blob or its network is damaged.
    Damaged {
        /// Byte of what was read.
        offset: usize,
        /// What is wrong.
        text: &'static str,
    },
    /// The stream is for another processor.
    OtherProcessor {
        /// Config word of the stream.
        stream: u32,
        /// Config word of the device.
        device: u32,
    },
    /// Memory of the caller is too small.
    TooSmall {
        /// Which.
        what: &'static str,
        /// Bytes that are needed.
        needed: usize,
        /// Bytes that were given.
        given: usize,
    },
    /// Memory does not lie as the processor needs it.
    Misaligned {
        /// Which.
        what: &'static str,
        /// What its address has to be a multiple of.
        align: usize,
    },
    /// There is no tensor of this number, or not this many of them.
    NoTensor {
        /// `input` or `output`.
        what: &'static str,
        /// Its number.
        number: usize,
    },
    /// A tensor of other bytes than the network has.
    TensorSize {
        /// `input` or `output`.
        what: &'static str,
        /// Its number.
        number: usize,
        /// Bytes that it has in the network.
        needed: usize,
        /// Bytes that were given.
        given: usize,
    },
    /// The driver failed.
    Driver(Fault),
    /// No board was installed.
    NotInstalled,
    /// Somebody else runs on the board, from an interrupt or another core.
    Busy,
    /// There are as many sessions as there can be.
    NoSession,
    /// The host calls against the contract.
    Call(&'static str),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Error::Damaged { offset, text } => write!(f, "at byte {offset:#x}: {text}"),
            Error::OtherProcessor { stream, device } => {
                write!(
                    f,
                    "the stream is for config {stream:#010x}, the device is {device:#010x}"
                )
            }
            Error::TooSmall { what, needed, given } => write!(f, "{what} of {given} bytes, where {needed} are needed"),
            Error::Misaligned { what, align } => write!(f, "{what} is not at a multiple of {align} bytes"),
            Error::NoTensor { what, number } => write!(f, "the network has no {what} {number}"),
            Error::TensorSize {
                what,
                number,
                needed,
                given,
            } => write!(f, "{what} {number} of {given} bytes, where the network has {needed}"),
            Error::Driver(Fault(code)) => write!(f, "the driver failed with {code}"),
            Error::NotInstalled => f.write_str("no driver was installed on the board"),
            Error::Busy => f.write_str("the board is busy"),
            Error::NoSession => f.write_str("there are as many sessions as the board has room for"),
            Error::Call(text) => f.write_str(text),
        }
    }
}

impl core::error::Error for Error {}
