//! What a board has to bring: something that runs a command stream.

/// The memory that networks work in. One may be shared by all networks of a program, which run one after the other.
#[derive(Debug)]
pub struct Memory<'m> {
    /// Region 1: tensors. At a multiple of 16 bytes.
    pub scratch: &'m mut [u8],
    /// Region 2: memory near the processor, where the target has it; else empty. At a multiple of 16 bytes.
    pub fast: &'m mut [u8],
}

/// A command stream with the memory that it works on.
#[derive(Debug)]
pub struct Job<'j> {
    /// The stream's config word; that of the device agrees with it.
    pub config: u32,
    /// The stream without its container: words, little-endian, for QBASE and QSIZE. At a multiple of 16 bytes.
    pub commands: &'j [u8],
    /// Region 0: weights, only read. At a multiple of 16 bytes.
    pub weights: &'j [u8],
    /// Region 1, as much of it as the network uses.
    pub scratch: &'j mut [u8],
    /// Region 2, as much of it as the network uses.
    pub fast: &'j mut [u8],
}

/// Why a job failed: a number of the driver's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault(pub i32);

/// A driver of the processor.
pub trait Driver {
    /// The register CONFIG of the device.
    fn config(&self) -> u32;

    /// Runs a job to its end. Caches are its business: what the processor core wrote to `scratch` before is seen by the device, and what the device
    /// writes there is seen by the core when this returns. It returns also when the device hangs.
    ///
    /// # Errors
    /// The device refused the stream, met an error of the bus, or did not end in time. It can take the next job.
    fn submit(&mut self, job: Job<'_>) -> Result<(), Fault>;
}
