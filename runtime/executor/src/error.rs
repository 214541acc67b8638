//! What can go wrong at load, at binding and while running.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use delegraph_kernels::KernelError;

/// Why a method cannot be loaded.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The program has no such method.
    #[error("no method `{name}`; the program has {}{}", Names(have), Hint(nearest))]
    NoMethod {
        /// What was asked for.
        name: String,
        /// What there is.
        have: Vec<String>,
        /// The nearest name.
        nearest: Option<String>,
    },
    /// Operators without a kernel: (first instruction that calls it, operator).
    #[error("no kernel for {}", Operators(.0))]
    MissingOperators(Vec<(u32, String)>),
    /// An instruction calls a delegate that nobody resolves.
    #[error("instruction {instruction} calls the delegate `{backend}`, which is not present")]
    Delegate {
        /// The instruction.
        instruction: u32,
        /// The delegate's id in the file.
        backend: String,
    },
    /// An instruction contradicts its operator's signature.
    #[error("instruction {instruction} (`{operator}`): {problem}")]
    Call {
        /// The instruction.
        instruction: u32,
        /// Its operator.
        operator: String,
        /// What is wrong.
        problem: String,
    },
    /// Bulk data is not what the program says.
    #[error("{0}")]
    Data(String),
    /// The arenas are larger than allowed, or than there is memory.
    #[error("the method needs {needed} bytes of memory, {limit} are allowed")]
    Memory {
        /// Bytes of all arenas.
        needed: u64,
        /// The limit.
        limit: u64,
    },
}

/// Why a region cannot be bound.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("region of instructions {start} to {end}: {problem}")]
pub struct BindError {
    /// First instruction.
    pub start: u32,
    /// One past the last.
    pub end: u32,
    /// What is wrong.
    pub problem: String,
}

/// Why a delegate's call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegionError {
    /// This call; the next one may succeed.
    #[error("{0}")]
    Failed(String),
    /// This call, for a reason that passes: a device that is busy, a process that is started again. The delegate is asked again.
    #[error("{0}")]
    Busy(String),
    /// The delegate has nothing for the sizes of this call. It is asked again: other calls may have others.
    #[error("{0}")]
    Sizes(String),
    /// This call did not end in time. The delegate is asked again, unless it happens three times in a row.
    #[error("{0}")]
    Late(String),
    /// The delegate cannot be used again (a crash, a lost device), whatever the policy.
    #[error("{0}; the delegate is lost")]
    Lost(String),
    /// A state that the delegate kept is gone, and no call can be made before it has another. The delegate may be asked again then.
    #[error("{0}")]
    StateLost(String),
    /// It computed something else than the region's instructions do, whatever the policy.
    #[error("{0}")]
    Differs(String),
}

/// Why a run failed. State is as before the run.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The number of inputs is another.
    #[error("expected {expected} inputs, got {got}")]
    InputCount {
        /// What the method takes.
        expected: usize,
        /// What was given.
        got: usize,
    },
    /// An input that the method does not take.
    #[error("input {index}{}: expected {expected}, got {got}", Named(name))]
    Input {
        /// Its position.
        index: usize,
        /// Its name, where the file has one.
        name: Option<String>,
        /// What the method takes.
        expected: String,
        /// What was given.
        got: String,
    },
    /// A kernel failed.
    #[error("instruction {instruction}, `{operator}`({arguments}): {source}")]
    Kernel {
        /// The instruction.
        instruction: u32,
        /// Its operator.
        operator: String,
        /// Every argument with dtype and shape.
        arguments: String,
        /// What the kernel says.
        source: KernelError,
    },
    /// Another instruction failed.
    #[error("instruction {instruction}, `{operator}`: {problem}")]
    Instruction {
        /// The instruction.
        instruction: u32,
        /// Its operator or kind.
        operator: String,
        /// What is wrong.
        problem: String,
    },
    /// A delegate failed and falling back is not allowed, or not possible.
    #[error("`{backend}` failed at instructions {start} to {end} ({operators}) and {why}: {source}")]
    Region {
        /// The backend.
        backend: String,
        /// First instruction.
        start: u32,
        /// One past the last.
        end: u32,
        /// Operators with their counts.
        operators: String,
        /// Why the instructions do not run in its stead.
        why: String,
        /// What the delegate says.
        source: RegionError,
    },
    /// A state that a delegate keeps cannot be had, or what the run did to it cannot be ended. Runs fail until the states are there
    /// again: after a reset, or when another method's are adopted.
    #[error(
        "the state `{state}`, which `{backend}` keeps, cannot be had: {source}\n  hint: reset the states, or adopt those of another session"
    )]
    State {
        /// Its name.
        state: String,
        /// The backend.
        backend: String,
        /// What the delegate says.
        source: RegionError,
    },
    /// More instructions than allowed.
    #[error("stopped after {0} instructions: the program may not end")]
    Budget(u64),
    /// The cancel flag was set.
    #[error("cancelled at instruction {0}")]
    Cancelled(u32),
    /// An output that does not exist, or not any more.
    #[error("output {index}: {problem}")]
    Output {
        /// Its position.
        index: usize,
        /// What is wrong.
        problem: String,
    },
    /// Memory cannot be had.
    #[error("out of memory for {0} bytes")]
    OutOfMemory(usize),
}

struct Names<'a>(&'a [String]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (i, name) in self.0.iter().enumerate() {
            write!(f, "{}`{name}`", if i > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

struct Hint<'a>(&'a Option<String>);

impl fmt::Display for Hint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(nearest) => write!(f, "\n  hint: did you mean `{nearest}`?"),
            None => Ok(()),
        }
    }
}

struct Operators<'a>(&'a [(u32, String)]);

impl fmt::Display for Operators<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (instruction, name)) in self.0.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            write!(f, "{comma}`{name}` (instruction {instruction})")?;
        }
        Ok(())
    }
}

struct Named<'a>(&'a Option<String>);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(name) => write!(f, " (`{name}`)"),
            None => Ok(()),
        }
    }
}
