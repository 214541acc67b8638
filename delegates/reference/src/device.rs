//! The one device: the processor that runs the program.

use delegraph_sdk::{Device, DeviceKind};

/// What [`delegraph_sdk::Delegate::devices`] tells.
pub fn devices() -> Vec<Device> {
    vec![Device {
        kind: DeviceKind::Cpu,
        name: "processor".to_string(),
        vendor: String::new(),
        arch: std::env::consts::ARCH.to_string(),
        driver: String::new(),
        memory: 0,
    }]
}
