//! Which devices there are.

use delegraph_sdk::{Device, DeviceKind};

/// A real delegate asks its driver: `DeviceKind::Npu`, driver version, memory.
pub fn devices() -> Vec<Device> {
    vec![Device {
        kind: DeviceKind::Cpu,
        name: "no chip yet".to_string(),
        vendor: "Example Inc.".to_string(),
        arch: "portable Rust".to_string(),
        driver: String::new(),
        memory: 0,
    }]
}
