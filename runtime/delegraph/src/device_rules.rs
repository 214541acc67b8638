//! `[[device]]` rules: backends that may not be used on this machine, or on a device that they find here.
//!
//! What is known without a backend is asked first, so that a library that a machine's properties rule out is never loaded.
//! A property that this system does not tell matches nothing.

use delegraph_config::{Condition, Config, DeviceRule, PropertyKind, glob_match};
use delegraph_host::{Device, Host};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// What is known of the machine.
#[derive(Debug, Clone, Default)]
pub(crate) struct Machine {
    os: String,
    arch: String,
    /// Every name that the system has for its chip.
    soc: Vec<String>,
    /// In 2^30 bytes.
    ram_gb: Option<f64>,
}

/// Why backends may not be used here.
pub(crate) struct DeviceRules<'a> {
    config: &'a Config,
    host: &'a Host,
    machine: Machine,
    /// What was found out so far, by backend.
    known: Mutex<BTreeMap<String, Option<String>>>,
}

impl<'a> DeviceRules<'a> {
    /// The rules of a configuration, on this machine.
    pub(crate) fn new(config: &'a Config, host: &'a Host) -> DeviceRules<'a> {
        // Nobody asks where there is no rule.
        let machine = match config.device.is_empty() {
            true => Machine::default(),
            false => Machine::here(),
        };
        DeviceRules::on(machine, config, host)
    }

    fn on(machine: Machine, config: &'a Config, host: &'a Host) -> DeviceRules<'a> {
        DeviceRules {
            config,
            host,
            machine,
            known: Mutex::default(),
        }
    }

    /// Why a backend may not be used here; `None`: it may. Loads its library only where a rule asks for its devices.
    pub(crate) fn denial(&self, backend: &str) -> Option<String> {
        if self.config.device.is_empty() {
            return None;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(backend) {
            return known.clone();
        }
        let found = self.find(backend);
        known.insert(backend.to_string(), found.clone());
        found
    }

    fn find(&self, backend: &str) -> Option<String> {
        let mut devices: Option<Vec<Device>> = None;
        for (i, rule) in self.config.device.iter().enumerate() {
            let names_it = rule.deny.iter().any(|glob| glob_match(glob, backend));
            if !names_it || !self.machine.matches(rule) {
                continue;
            }
            if asks_for_devices(rule) {
                let devices = devices.get_or_insert_with(|| self.devices(backend));
                if !devices.iter().any(|device| device_matches(rule, device)) {
                    continue;
                }
            }
            let reason = match rule.reason.as_str() {
                "" => format!("`device.{i}` of the configuration denies it"),
                reason => reason.to_string(),
            };
            return Some(format!("not on this device: {reason}"));
        }
        None
    }

    /// The devices of a backend that may be used: the one that the configuration chooses, or all.
    fn devices(&self, backend: &str) -> Vec<Device> {
        let devices = self
            .host
            .delegate(backend)
            .ok()
            .and_then(|delegate| delegate.devices().ok());
        let devices = devices.unwrap_or_default();
        let wanted = self.config.backend.get(backend).and_then(|b| b.device.as_deref());
        match wanted.filter(|wanted| *wanted != "auto") {
            Some(wanted) => chosen(&devices, wanted).cloned().into_iter().collect(),
            None => devices,
        }
    }
}

/// The device of this index, or the first whose name matches this glob.
pub(crate) fn chosen<'d>(devices: &'d [Device], wanted: &str) -> Option<&'d Device> {
    match wanted.parse::<usize>() {
        Ok(index) => devices.get(index),
        Err(_) => devices.iter().find(|device| glob_match(wanted, &device.name)),
    }
}

fn asks_for_devices(rule: &DeviceRule) -> bool {
    rule.matches
        .given()
        .any(|(key, ..)| matches!(key, "device" | "device_arch" | "vendor" | "driver"))
}

/// A condition that was checked when the configuration was read; one that is none holds for nothing.
fn holds(condition: &str, kind: PropertyKind, value: &str) -> bool {
    Condition::parse(condition, kind).is_ok_and(|condition| condition.holds(value))
}

fn device_matches(rule: &DeviceRule, device: &Device) -> bool {
    rule.matches.given().all(|(key, condition, kind)| {
        let value = match key {
            "device" => &device.name,
            "device_arch" => &device.arch,
            "vendor" => &device.vendor,
            "driver" => &device.driver,
            _ => return true,
        };
        holds(condition, kind, value)
    })
}

impl Machine {
    fn here() -> Machine {
        Machine {
            os: std::env::consts::OS.to_string(),
            arch: std::env::consts::ARCH.to_string(),
            soc: chip_names(),
            ram_gb: std::fs::read_to_string("/proc/meminfo")
                .ok()
                .as_deref()
                .and_then(memory),
        }
    }

    fn matches(&self, rule: &DeviceRule) -> bool {
        rule.matches.given().all(|(key, condition, kind)| match key {
            "os" => holds(condition, kind, &self.os),
            "arch" => holds(condition, kind, &self.arch),
            "soc" => self.soc.iter().any(|name| holds(condition, kind, name)),
            "ram_gb" => self.ram_gb.is_some_and(|ram| holds(condition, kind, &ram.to_string())),
            _ => true,
        })
    }
}

/// Gigabytes of 2^30 bytes by `/proc/meminfo`.
fn memory(meminfo: &str) -> Option<f64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes / f64::from(1 << 20))
}

/// What the system calls its chip: Android's `ro.soc.model`, the SoC bus of Linux, the device tree, `/proc/cpuinfo`.
fn chip_names() -> Vec<String> {
    let mut names = Vec::new();
    if cfg!(target_os = "android")
        && let Ok(output) = std::process::Command::new("/system/bin/getprop")
            .arg("ro.soc.model")
            .output()
    {
        names.push(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    for file in ["machine", "soc_id", "family"] {
        names.extend(std::fs::read_to_string(format!("/sys/devices/soc0/{file}")));
    }
    if let Ok(compatible) = std::fs::read("/proc/device-tree/compatible") {
        names.extend(compatible_names(&compatible));
    }
    if let Ok(cpuinfo) = std::fs::read_to_string("/proc/cpuinfo") {
        names.extend(cpu_names(&cpuinfo));
    }
    let mut trimmed: Vec<String> = names.iter().map(|name| name.trim().to_string()).collect();
    trimmed.retain(|name| !name.is_empty());
    trimmed.dedup();
    trimmed
}

/// `brcm,bcm2711` is `bcm2711`.
fn compatible_names(compatible: &[u8]) -> Vec<String> {
    let texts = compatible.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    texts
        .map(|text| {
            text.split_once(',')
                .map_or(text.to_string(), |(_, name)| name.to_string())
        })
        .collect()
}

fn cpu_names(cpuinfo: &str) -> Vec<String> {
    let mut names: Vec<String> = cpuinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(key, _)| matches!(key.trim(), "Hardware" | "model name"))
        .map(|(_, name)| name.trim().to_string())
        .collect();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use delegraph_host::{DeviceKind, HostOptions};

    fn phone() -> Machine {
        Machine {
            os: "android".to_string(),
            arch: "aarch64".to_string(),
            soc: vec!["SM8450".to_string(), "Qualcomm Technologies, Inc. SM8450".to_string()],
            ram_gb: Some(5.4),
        }
    }

    fn device(name: &str, driver: &str) -> Device {
        Device {
            id: 0,
            kind: DeviceKind::Gpu,
            name: name.to_string(),
            vendor: "ARM".to_string(),
            arch: "valhall".to_string(),
            driver: driver.to_string(),
            memory: 0,
        }
    }

    fn config(text: &str) -> Config {
        crate::config_from_text(text).unwrap()
    }

    #[test]
    fn properties_of_the_machine() {
        let host = Host::discover(HostOptions::default());
        let cases = [
            ("soc = \"sm8[45]50\", os = \"android\", ram_gb = \"<6\"", true),
            ("soc = \"sm8650\"", false),
            ("soc = \"*technologies*\"", true),
            ("os = \"linux\"", false),
            ("arch = \"aarch64\", ram_gb = \">=6\"", false),
            ("", true),
        ];
        for (text, denied) in cases {
            let config = config(&format!(
                "[[device]]\nmatch = {{ {text} }}\ndeny = [\"vul*\"]\nreason = \"slow\"\n"
            ));
            let rules = DeviceRules::on(phone(), &config, &host);
            let wanted = denied.then(|| "not on this device: slow".to_string());
            assert_eq!(rules.denial("vulkan"), wanted, "{text}");
            assert_eq!(rules.denial("cpu"), None);
        }
        let nothing_known = Machine {
            soc: Vec::new(),
            ram_gb: None,
            ..phone()
        };
        for text in ["soc = \"*\"", "ram_gb = \"<99\""] {
            let config = config(&format!("[[device]]\nmatch = {{ {text} }}\ndeny = [\"vulkan\"]\n"));
            assert_eq!(
                DeviceRules::on(nothing_known.clone(), &config, &host).denial("vulkan"),
                None
            );
        }
    }

    #[test]
    fn properties_of_a_device() {
        let cases = [
            ("driver = \"<44\"", "r38p1", true),
            ("driver = \"<44\"", "44.1", false),
            ("driver = \"<44\"", "", false),
            (
                "driver = \"<44\", device = \"mali*\", vendor = \"arm\", device_arch = \"valhall\"",
                "1",
                true,
            ),
            ("driver = \"<44\", device = \"adreno*\"", "1", false),
        ];
        for (text, driver, matches) in cases {
            let config = config(&format!("[[device]]\nmatch = {{ {text} }}\n"));
            assert!(asks_for_devices(&config.device[0]));
            assert_eq!(
                device_matches(&config.device[0], &device("Mali-G715", driver)),
                matches,
                "{text} of {driver}"
            );
        }
    }

    #[test]
    fn what_systems_say() {
        assert_eq!(
            memory("MemTotal:        5872025 kB\nMemFree: 1 kB\n").map(|gb| (gb * 10.0).round()),
            Some(56.0)
        );
        assert_eq!(memory("MemFree: 1 kB\n"), None);
        assert_eq!(
            compatible_names(b"raspberrypi,4-model-b\0brcm,bcm2711\0"),
            ["4-model-b", "bcm2711", ""]
        );
        let cpuinfo = "processor\t: 0\nmodel name\t: A CPU\nprocessor\t: 1\nmodel name\t: A CPU\nHardware\t: Chip 7\n";
        assert_eq!(cpu_names(cpuinfo), ["A CPU", "Chip 7"]);
        let here = Machine::here();
        assert_eq!(
            (here.os.as_str(), here.ram_gb.is_some()),
            (std::env::consts::OS, cfg!(target_os = "linux"))
        );
    }
}
