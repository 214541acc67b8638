//! The processors that are compiled for, with the system and memory that Vela is told.

use delegraph_ethos_u_sim::{Config, Product};

/// A target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Name, as Vela and ExecuTorch have it.
    pub name: &'static str,
    /// Processor.
    pub product: Product,
    /// Multiplications a cycle.
    pub macs: u32,
}

const fn target(name: &'static str, product: Product, macs: u32) -> Target {
    Target { name, product, macs }
}

/// All of them.
pub const TARGETS: &[Target] = &[
    target("ethos-u55-32", Product::U55, 32),
    target("ethos-u55-64", Product::U55, 64),
    target("ethos-u55-128", Product::U55, 128),
    target("ethos-u55-256", Product::U55, 256),
    target("ethos-u65-256", Product::U65, 256),
    target("ethos-u65-512", Product::U65, 512),
    target("ethos-u85-128", Product::U85, 128),
    target("ethos-u85-256", Product::U85, 256),
    target("ethos-u85-512", Product::U85, 512),
    target("ethos-u85-1024", Product::U85, 1024),
    target("ethos-u85-2048", Product::U85, 2048),
];

impl Target {
    /// The target of a name.
    pub fn find(name: &str) -> Option<&'static Target> {
        TARGETS.iter().find(|target| target.name == name)
    }

    /// System configuration and memory mode of Vela's own file: what ExecuTorch presets.
    pub fn preset(&self) -> (&'static str, &'static str) {
        match self.product {
            Product::U55 => ("Ethos_U55_High_End_Embedded", "Shared_Sram"),
            Product::U65 => ("Ethos_U65_High_End", "Dedicated_Sram_384KB"),
            Product::U85 => ("Ethos_U85_SYS_DRAM_Mid", "Sram_Only"),
        }
    }

    /// True if a stream of this configuration is for it.
    pub fn is_of(&self, config: &Config) -> bool {
        config.product == self.product && config.macs == self.macs
    }

    /// Their names, for a message.
    pub fn names() -> String {
        let all: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        all.join(", ")
    }
}
