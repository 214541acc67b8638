//! The component `vulkan`: two software drivers (Mesa's lavapipe and SwiftShader), the loader and its headers, the validation layers, `spirv-val` and
//! `vulkaninfo`, out of Debian's archive.
//!
//! apt-get resolves, downloads and verifies the packages, with sources, lists, cache and package status of its own under `target/provision/vulkan`;
//! `dpkg-deb` unpacks them there. Nothing is installed, no root is needed, and the system's packages are neither read nor changed. Installing the
//! same packages into a system can stop half way, with Mesa's packages of two suites; there is nothing to repair here, because the private status
//! knows none of the system's.
//!
//! The files name each other relatively, so the folder can be moved.

use super::run_program;
use anyhow::{Context, Result, bail};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is unpacked whole, with what it depends on.
const PACKAGES: [&str; 5] = [
    "mesa-vulkan-drivers",
    "vulkan-validationlayers",
    "spirv-tools",
    "libvulkan1",
    "vulkan-tools",
];
/// What is unpacked whole, alone: the headers.
const HEADERS: &str = "libvulkan-dev";
/// What SwiftShader is in, and where. The package's dependencies, a browser's, are not wanted.
const SWIFTSHADER: (&str, &str) = ("chromium-common", "./usr/lib/chromium/");

const SUITES: [(&str, &str); 3] = [
    ("http://deb.debian.org/debian", "bookworm"),
    ("http://deb.debian.org/debian", "bookworm-backports"),
    ("http://deb.debian.org/debian-security", "bookworm-security"),
];
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Packages that are not fetched, because any system that runs these has them.
const ALWAYS_HERE: [&str; 4] = ["libc6", "libgcc-s1", "gcc-12-base", "libstdc++6"];
/// Packages that are not fetched where the system has their library: an older one on `LD_LIBRARY_PATH` could break programs of the system.
const HERE_IF: [(&str, &str); 8] = [
    ("zlib1g", "libz.so.1"),
    ("libexpat1", "libexpat.so.1"),
    ("libtinfo6", "libtinfo.so.6"),
    ("libzstd1", "libzstd.so.1"),
    ("liblzma5", "liblzma.so.5"),
    ("libffi8", "libffi.so.8"),
    ("libelf1", "libelf.so.1"),
    ("libxml2", "libxml2.so.2"),
];

/// Where the unpacked libraries are.
const LIBRARIES: [&str; 2] = ["root/usr/lib/x86_64-linux-gnu", "root/lib/x86_64-linux-gnu"];
/// Manifests that the loader reads: each, what it is made from, and the library that it names.
const DRIVERS: [(&str, &str, &str); 2] = [
    (
        "drivers/lavapipe.json",
        "root/usr/share/vulkan/icd.d/lvp_icd",
        "../root/usr/lib/x86_64-linux-gnu/libvulkan_lvp.so",
    ),
    (
        "drivers/swiftshader.json",
        "root/usr/lib/chromium/vk_swiftshader_icd",
        "../root/usr/lib/chromium/libvk_swiftshader.so",
    ),
];
const LAYERS: [(&str, &str, &str); 1] = [(
    "layers/validation.json",
    "root/usr/share/vulkan/explicit_layer.d/VkLayer_khronos_validation",
    "../root/usr/lib/x86_64-linux-gnu/libVkLayer_khronos_validation.so",
)];

/// What a program needs to see the provisioned drivers and layers, and no others: names and values. `None` if the component is not here.
///
/// `PATH` and `LD_LIBRARY_PATH` are this process's with more.
pub fn environment(root: &Path) -> Option<Vec<(String, String)>> {
    let folder = folder(root);
    if !complete(&folder) {
        return None;
    }
    let at = |name: &str| folder.join(name).display().to_string();
    let drivers = DRIVERS.map(|(name, ..)| at(name)).join(":");
    let mut libraries = LIBRARIES.map(at).join(":");
    if let Some(before) = std::env::var_os("LD_LIBRARY_PATH").filter(|value| !value.is_empty()) {
        let _ = write!(libraries, ":{}", before.display());
    }
    let programs = std::env::var_os("PATH").unwrap_or_default();
    Some(vec![
        ("LD_LIBRARY_PATH".into(), libraries),
        ("VK_DRIVER_FILES".into(), drivers.clone()),
        ("VK_ICD_FILENAMES".into(), drivers),
        ("VK_LAYER_PATH".into(), at("layers")),
        ("PATH".into(), format!("{}:{}", programs.display(), at("root/usr/bin"))),
    ])
}

/// The manifest of one driver, `lavapipe` or `swiftshader`: a program whose `VK_DRIVER_FILES` is this sees no other.
pub fn driver(root: &Path, name: &str) -> PathBuf {
    folder(root).join(format!("drivers/{name}.json"))
}

/// Fetches the component.
///
/// # Errors
/// A tool or the network is absent, or the machine is of another kind.
pub fn provision(root: &Path) -> Result<()> {
    let folder = folder(root);
    if complete(&folder) {
        println!("vulkan is here already");
    } else {
        fetch(&folder)?;
    }
    print_versions(root)
}

fn folder(root: &Path) -> PathBuf {
    root.join("target/provision/vulkan")
}

/// `env.sh` is written last.
fn complete(folder: &Path) -> bool {
    folder.join("env.sh").is_file()
}

fn fetch(folder: &Path) -> Result<()> {
    if (std::env::consts::OS, std::env::consts::ARCH) != ("linux", "x86_64") {
        bail!(
            "the component `vulkan` is Debian's packages for Linux on x86_64; this is {} on {}\n  \
             hint: install a driver, the validation layers and spirv-tools as the system's packages; the tests find them",
            std::env::consts::OS,
            std::env::consts::ARCH
        );
    }
    for (program, package) in [("apt-get", "apt"), ("dpkg-deb", "dpkg")] {
        if !crate::test::program(program) {
            bail!(
                "`{program}` is not here: the component `vulkan` needs a Debian or a system like it (package `{package}`)"
            );
        }
    }
    if !Path::new(KEYRING).is_file() {
        bail!(
            "{KEYRING} is not here, so Debian's packages cannot be verified\n  hint: install `debian-archive-keyring`"
        );
    }
    // What an earlier try left is of no use.
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    let apt = Apt::prepare(&folder.join("apt"))?;
    println!("vulkan: reading Debian's lists");
    apt.run(&["update"]).context(
        "Debian's lists cannot be read\n  hint: deb.debian.org has to be reachable; a proxy is taken from `http_proxy` and from apt's settings",
    )?;
    println!("vulkan: downloading packages");
    let mut arguments = vec!["install", "--download-only", "--yes", "-t", "bookworm-backports"];
    arguments.extend(PACKAGES);
    apt.run(&arguments)?;
    apt.run(&["download", HEADERS])?;
    let whole = [packages_in(&apt.archives())?, packages_in(&apt.folder)?].concat();
    for package in whole {
        run_program(
            Command::new("dpkg-deb")
                .arg("-x")
                .arg(&package)
                .arg(folder.join("root")),
        )?;
        fs::remove_file(&package)?;
    }
    apt.run(&["download", SWIFTSHADER.0])?;
    let browser = packages_in(&apt.folder)?;
    let browser = browser.first().context("apt-get downloaded no browser")?;
    unpack_swiftshader(browser, &folder.join("root"))?;
    // Packages and lists take more room than what is used of them.
    fs::remove_dir_all(&apt.folder)?;
    remove_unused(folder)?;
    for (name, from, library) in DRIVERS.iter().chain(&LAYERS) {
        write_manifest(folder, name, from, library)?;
    }
    fs::write(folder.join("env.sh"), script())?;
    println!("vulkan is in {}", folder.display());
    Ok(())
}

/// apt-get with a state of its own.
struct Apt {
    folder: PathBuf,
}

impl Apt {
    fn prepare(folder: &Path) -> Result<Apt> {
        for name in ["lists/partial", "cache/archives/partial", "preferences.d"] {
            fs::create_dir_all(folder.join(name))?;
        }
        let mut sources = String::new();
        for (address, suite) in SUITES {
            let _ = writeln!(sources, "deb [arch=amd64 signed-by={KEYRING}] {address} {suite} main");
        }
        fs::write(folder.join("sources.list"), sources)?;
        fs::write(folder.join("status"), status(&system_has))?;
        let apt = Apt {
            folder: folder.to_path_buf(),
        };
        fs::write(folder.join("apt.conf"), apt.settings()?)?;
        Ok(apt)
    }

    /// Of the system's settings only those of downloads are kept, for a proxy may be among them. Its hooks are not: they touch the system's cache.
    fn settings(&self) -> Result<String> {
        let dump = Command::new("apt-config").args(["dump", "Acquire"]).output();
        let downloads = dump.context("cannot start apt-config")?.stdout;
        let mut text = String::from_utf8_lossy(&downloads).into_owned();
        let at = self.folder.display();
        for (name, value) in [
            ("Dir::Etc::Main", "/dev/null".to_string()),
            ("Dir::Etc::Parts", "/dev/null".to_string()),
            ("Dir::Etc::SourceList", format!("{at}/sources.list")),
            ("Dir::Etc::SourceParts", "/dev/null".to_string()),
            ("Dir::Etc::Preferences", "/dev/null".to_string()),
            ("Dir::Etc::PreferencesParts", format!("{at}/preferences.d")),
            ("Dir::State", at.to_string()),
            ("Dir::State::Lists", format!("{at}/lists")),
            ("Dir::State::Status", format!("{at}/status")),
            ("Dir::Cache", format!("{at}/cache")),
            ("Dir::Log", at.to_string()),
            ("APT::Architecture", "amd64".to_string()),
            ("APT::Sandbox::User", String::new()),
            ("APT::Install-Recommends", "false".to_string()),
            ("Acquire::Languages", "none".to_string()),
            ("Acquire::Retries", "3".to_string()),
            ("APT::Update::Error-Mode", "any".to_string()),
        ] {
            let _ = writeln!(text, "{name} \"{value}\";");
        }
        text.push_str("APT::Architectures { \"amd64\"; };\n");
        Ok(text)
    }

    fn run(&self, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new("apt-get");
        command
            .arg("-qq")
            .args(arguments)
            .current_dir(&self.folder)
            .env("APT_CONFIG", self.folder.join("apt.conf"))
            .env("DEBIAN_FRONTEND", "noninteractive");
        run_program(&mut command)
    }

    fn archives(&self) -> PathBuf {
        self.folder.join("cache/archives")
    }
}

/// A package status in which what the system has is installed, newer than anything asks for.
fn status(has: &dyn Fn(&str) -> bool) -> String {
    let present = HERE_IF
        .iter()
        .filter(|(_, library)| has(library))
        .map(|(name, _)| *name);
    let mut text = String::new();
    for name in ALWAYS_HERE.into_iter().chain(present) {
        let _ = write!(
            text,
            "Package: {name}\nStatus: install ok installed\nMaintainer: the system\nArchitecture: amd64\nMulti-Arch: same\n\
             Version: 999\nDescription: the system's\n\n"
        );
    }
    text
}

/// True if the system's loader finds the library in one of its usual folders.
pub(super) fn system_has(library: &str) -> bool {
    [
        "/lib/x86_64-linux-gnu",
        "/usr/lib/x86_64-linux-gnu",
        "/lib64",
        "/usr/lib64",
    ]
    .iter()
    .any(|folder| Path::new(folder).join(library).exists())
}

pub(super) fn packages_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut packages: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .collect();
    packages.sort();
    Ok(packages)
}

/// Two files of a package of 100 MB and more.
fn unpack_swiftshader(package: &Path, root: &Path) -> Result<()> {
    let members = ["libvk_swiftshader.so", "vk_swiftshader_icd.json"].map(|name| format!("{}{name}", SWIFTSHADER.1));
    let mut unpack = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(package)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .context("cannot start dpkg-deb")?;
    let pipe = unpack.stdout.take().context("dpkg-deb has no output")?;
    for entry in tar::Archive::new(pipe).entries()? {
        let mut entry = entry?;
        let name = format!("./{}", entry.path()?.display()).replace("././", "./");
        if members.contains(&name) {
            entry.unpack_in(root)?;
        }
    }
    unpack.wait()?;
    for member in &members {
        if !root.join(member).is_file() {
            bail!("{} has no {member}", package.display());
        }
    }
    Ok(())
}

/// What is of no use without a device or a linker: drivers of real GPUs, static libraries, documentation.
fn remove_unused(folder: &Path) -> Result<()> {
    let _ = fs::remove_dir_all(folder.join("root/usr/share/doc"));
    for libraries in LIBRARIES.map(|name| folder.join(name)) {
        for entry in fs::read_dir(&libraries).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let driver = name.starts_with("libvulkan_") && !name.contains("_lvp");
            if driver || name.ends_with(".a") {
                fs::remove_file(entry.path())?;
            }
        }
    }
    Ok(())
}

/// The package's manifest with another path of the library: one that has a slash is relative to the manifest.
fn write_manifest(folder: &Path, name: &str, from: &str, library: &str) -> Result<()> {
    // Mesa's name has the architecture in it in some versions.
    let names = [format!("{from}.json"), format!("{from}.x86_64.json")];
    let found = names.iter().map(|name| folder.join(name)).find(|path| path.is_file());
    let found = found.with_context(|| format!("no package has {from}.json"))?;
    let mut manifest: serde_json::Value = serde_json::from_str(&fs::read_to_string(&found)?)
        .with_context(|| format!("{} cannot be read", found.display()))?;
    let key = if manifest.get("ICD").is_some() { "ICD" } else { "layer" };
    manifest[key]["library_path"] = library.into();
    let path = folder.join(name);
    let beside = path.parent().unwrap_or(folder);
    fs::create_dir_all(beside)?;
    if !beside.join(library).is_file() {
        bail!("no package has {library}, which {name} is about");
    }
    fs::write(path, format!("{manifest:#}\n"))?;
    Ok(())
}

/// [`environment`] for a shell, wherever the folder is.
fn script() -> String {
    let drivers = DRIVERS.map(|(name, ..)| format!("$delegraph_vulkan/{name}")).join(":");
    let libraries = LIBRARIES.map(|name| format!("$delegraph_vulkan/{name}")).join(":");
    format!(
        "# Source this (bash): programs started here see the drivers and layers of this folder, and no others.\n\
         delegraph_vulkan=$(cd \"$(dirname \"${{BASH_SOURCE[0]}}\")\" && pwd)\n\
         export LD_LIBRARY_PATH=\"{libraries}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}\"\n\
         export VK_DRIVER_FILES=\"{drivers}\" VK_ICD_FILENAMES=\"{drivers}\"\n\
         export VK_LAYER_PATH=\"$delegraph_vulkan/layers\"\n\
         export PATH=\"$PATH:$delegraph_vulkan/root/usr/bin\"\n\
         unset delegraph_vulkan\n"
    )
}

/// The drivers as an application sees them.
fn print_versions(root: &Path) -> Result<()> {
    let environment = environment(root).context("the component `vulkan` is not whole")?;
    let output = Command::new(folder(root).join("root/usr/bin/vulkaninfo"))
        .arg("--summary")
        .envs(environment)
        .output()
        .context("cannot start vulkaninfo")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let devices = devices(&text);
    if devices.len() < DRIVERS.len() {
        bail!(
            "of {} drivers {} answer:\n{text}{}",
            DRIVERS.len(),
            devices.len(),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    devices.iter().for_each(|device| println!("  {device}"));
    Ok(())
}

/// `NAME: Vulkan VERSION, DRIVER` of each device in `vulkaninfo --summary`.
fn devices(summary: &str) -> Vec<String> {
    let (_, devices) = summary.split_once("\nDevices:").unwrap_or_default();
    let of = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.trim_start().starts_with(key));
        let value = line
            .and_then(|line| line.split_once('='))
            .map(|(_, value)| value.trim());
        value.unwrap_or_default().to_string()
    };
    devices
        .split("\nGPU")
        .skip(1)
        .map(|text| {
            let info = of(text, "driverInfo");
            let driver = if info.is_empty() {
                format!("{} {}", of(text, "driverName"), of(text, "driverVersion"))
            } else {
                info
            };
            format!(
                "{}: Vulkan {}, {driver}",
                of(text, "deviceName"),
                of(text, "apiVersion")
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_has_is_not_fetched() {
        let none = status(&|_| false);
        assert_eq!(none.matches("Package: ").count(), ALWAYS_HERE.len());
        let some = status(&|library| library == "libz.so.1");
        assert_eq!(some.matches("Package: ").count(), ALWAYS_HERE.len() + 1);
        assert!(some.contains("Package: zlib1g\nStatus: install ok installed\n"));
    }

    #[test]
    fn a_manifest_names_the_library_beside_it() {
        let folder = std::env::temp_dir().join(format!("delegraph-xtask-vulkan-{}", std::process::id()));
        fs::create_dir_all(folder.join("root")).unwrap();
        fs::write(folder.join("root/lib.so"), "").unwrap();
        fs::write(
            folder.join("root/icd.x86_64.json"),
            r#"{"file_format_version": "1.0.1", "ICD": {"library_path": "/usr/lib/lib.so", "api_version": "1.4.305"}}"#,
        )
        .unwrap();
        write_manifest(&folder, "drivers/a.json", "root/icd", "../root/lib.so").unwrap();
        let written: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(folder.join("drivers/a.json")).unwrap()).unwrap();
        assert_eq!(written["ICD"]["library_path"], "../root/lib.so");
        assert_eq!(written["ICD"]["api_version"], "1.4.305");
        let absent = write_manifest(&folder, "drivers/a.json", "root/icd", "../root/other.so").unwrap_err();
        assert!(absent.to_string().contains("other.so"), "{absent}");
        let absent = write_manifest(&folder, "drivers/a.json", "root/none", "../root/lib.so").unwrap_err();
        assert!(absent.to_string().contains("root/none.json"), "{absent}");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn devices_are_read_with_their_drivers() {
        let text = "Instance Layers: count = 1\n\nDevices:\n========\nGPU0:\n\tapiVersion         = 1.3.0\n\tdriverVersion      = 5.0.0\n\
            \tdeviceName         = SwiftShader Device\n\tdriverName         = SwiftShader driver\n\tdriverInfo         = \nGPU1:\n\
            \tapiVersion         = 1.4.305\n\tdeviceName         = llvmpipe\n\tdriverInfo         = Mesa 25.0.7\n";
        let want = [
            "SwiftShader Device: Vulkan 1.3.0, SwiftShader driver 5.0.0",
            "llvmpipe: Vulkan 1.4.305, Mesa 25.0.7",
        ];
        assert_eq!(devices(text), want);
        assert!(devices("ERROR: no drivers").is_empty());
    }
}
