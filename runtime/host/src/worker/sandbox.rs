//! What a worker may do: read the system's libraries and its own folder, and nothing else that is not allowed to it.
//!
//! Landlock closes the file system, seccomp what is no file: programs, the network, other processes, the kernel's own settings. A
//! delegate's manifest asks for more (`[sandbox]`); where the kernel has no landlock, the log says so and the rest still holds.

use crate::api::log;
use delegraph_abi::c::LogLevel;
use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetStatus, Scope,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What a delegate in a worker may do beyond reading system libraries and its own folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// False: none of this is in force.
    pub enabled: bool,
    /// Files and folders that it may read.
    pub read: Vec<PathBuf>,
    /// Files and folders that it may write, and make files in.
    pub write: Vec<PathBuf>,
    /// Device files that it may open, and talk to by `ioctl`.
    pub devices: Vec<PathBuf>,
    /// Files that it may start as programs: these and no others, unless `exec` is true.
    pub run: Vec<PathBuf>,
    /// It may start programs: those of the system, and those that lie where it may read.
    pub exec: bool,
    /// It may open connections to other machines.
    pub network: bool,
    /// It has a folder for temporary files, named by `TMPDIR`, which is removed when its process has ended.
    pub temp: bool,
}

impl Default for Sandbox {
    fn default() -> Sandbox {
        Sandbox {
            enabled: true,
            read: Vec::new(),
            write: Vec::new(),
            devices: Vec::new(),
            run: Vec::new(),
            exec: false,
            network: false,
            temp: false,
        }
    }
}

impl Sandbox {
    /// Whether it starts programs. Without a sandbox it may, whatever it asks for.
    pub(crate) fn starts_programs(&self) -> bool {
        !self.enabled || self.exec || !self.run.is_empty()
    }
}

/// What every library reads: other libraries, the system's description, its own process.
const SYSTEM: [&str; 14] = [
    "/lib",
    "/lib32",
    "/lib64",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/share",
    "/usr/local/lib",
    "/etc",
    "/proc",
    "/sys",
    "/system",
    "/vendor",
    "/apex",
];
/// Devices that say nothing.
const HARMLESS: [&str; 5] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];
/// Where programs lie.
const PROGRAMS: [&str; 4] = ["/bin", "/usr/bin", "/usr/local/bin", "/usr/libexec"];

/// Bounds the address space of this process, and makes it the first to go when the machine runs out of memory.
pub(crate) fn limit_memory(bytes: Option<u64>) -> std::io::Result<()> {
    // The kernel lets a process make itself more likely to be ended; it matters little where it does not.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    let none = rustix::process::Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    // A crash leaves no memory of the app's in a file.
    rustix::process::setrlimit(rustix::process::Resource::Core, none)?;
    if let Some(bytes) = bytes {
        let limit = rustix::process::Rlimit {
            current: Some(bytes),
            maximum: Some(bytes),
        };
        rustix::process::setrlimit(rustix::process::Resource::As, limit)?;
    }
    Ok(())
}

/// Closes everything that is not allowed, for this process and all that it starts. There is no way back.
///
/// # Errors
/// A sentence that says what could not be closed.
pub(crate) fn enter(sandbox: &Sandbox, library: &Path, temp: Option<&Path>) -> Result<(), String> {
    if let Some(folder) = temp {
        // SAFETY: the worker has one thread yet, so nobody reads the environment at the same time.
        unsafe { std::env::set_var("TMPDIR", folder) };
    }
    if !sandbox.enabled {
        return Ok(());
    }
    close_files(sandbox, library, temp).map_err(|error| format!("its sandbox cannot be made: {error}"))?;
    close_calls(sandbox).map_err(|error| format!("its sandbox cannot be made: {error}"))
}

fn close_files(sandbox: &Sandbox, library: &Path, temp: Option<&Path>) -> Result<(), landlock::RulesetError> {
    let abi = ABI::V6;
    let read = AccessFs::from_read(abi) & !AccessFs::Execute;
    let run = read | AccessFs::Execute;
    let write = AccessFs::from_all(abi) & !AccessFs::Execute;
    let device = read | AccessFs::WriteFile | AccessFs::IoctlDev;
    let mut rules: Vec<(&Path, landlock::BitFlags<AccessFs>)> = Vec::new();
    // Mapping a library to run it is no `Execute` to landlock, but the dynamic linker of a program that is started is.
    let system = if sandbox.exec { run } else { read };
    rules.extend(SYSTEM.iter().map(|path| (Path::new(*path), system)));
    rules.extend(
        HARMLESS
            .iter()
            .map(|path| (Path::new(*path), read | AccessFs::WriteFile)),
    );
    rules.extend(library.parent().map(|folder| (folder, system)));
    rules.extend(sandbox.read.iter().map(|path| (path.as_path(), system)));
    rules.extend(sandbox.write.iter().map(|path| (path.as_path(), write)));
    rules.extend(sandbox.devices.iter().map(|path| (path.as_path(), device)));
    rules.extend(sandbox.run.iter().map(|path| (path.as_path(), run)));
    rules.extend(temp.map(|folder| (folder, write)));
    if sandbox.exec {
        rules.extend(PROGRAMS.iter().map(|path| (Path::new(*path), run)));
    }
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?
        // Signals reach this process and what it starts (Linux 6.12 and later).
        .scope(Scope::Signal)?
        .create()?;
    for (path, access) in rules {
        // What is not there needs no rule.
        let Ok(opened) = PathFd::new(path) else { continue };
        let access = match path.is_dir() {
            true => access,
            false => access & AccessFs::from_file(abi),
        };
        ruleset = ruleset.add_rule(PathBeneath::new(opened, access))?;
    }
    if ruleset.restrict_self()?.ruleset == RulesetStatus::NotEnforced {
        log(
            "worker",
            LogLevel::WARN,
            "this kernel has no landlock: the delegate's process can reach the file system",
        );
    }
    Ok(())
}

/// Calls that no delegate makes: they change the system, look into other processes, or get around what is closed.
const NEVER: &[i64] = &[
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_open_by_handle_at,
    libc::SYS_io_uring_setup,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
];

fn close_calls(sandbox: &Sandbox) -> Result<(), String> {
    let wrong = |error: &dyn std::fmt::Display| error.to_string();
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|e| wrong(&e))?;
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = NEVER.iter().map(|call| (*call, Vec::new())).collect();
    let when = |argument: u8, op: SeccompCmpOp, value: u64| -> Result<SeccompRule, String> {
        let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Qword, op, value).map_err(|e| wrong(&e))?;
        SeccompRule::new(vec![condition]).map_err(|e| wrong(&e))
    };
    if !sandbox.network {
        let dword = |family: libc::c_int| -> Result<SeccompCondition, String> {
            SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, family as u64).map_err(|e| wrong(&e))
        };
        // Everything but sockets within the machine.
        let rule = SeccompRule::new(vec![dword(libc::AF_UNIX)?]).map_err(|e| wrong(&e))?;
        rules.insert(libc::SYS_socket, vec![rule]);
    }
    // Signals reach this process alone: the app and other workers run as the same user. One that starts programs ends them too, and no
    // filter knows their numbers: landlock keeps its signals in where the kernel can.
    let own = u64::from(std::process::id());
    if !sandbox.starts_programs() {
        rules.insert(libc::SYS_execve, Vec::new());
        rules.insert(libc::SYS_execveat, Vec::new());
        // A thread shares the memory of its process; a process that is started does not.
        let threads = libc::CLONE_THREAD as u64;
        rules.insert(libc::SYS_clone, vec![when(0, SeccompCmpOp::MaskedEq(threads), 0)?]);
        #[cfg(target_arch = "x86_64")]
        rules.extend([(libc::SYS_fork, Vec::new()), (libc::SYS_vfork, Vec::new())]);
        rules.insert(libc::SYS_kill, vec![when(0, SeccompCmpOp::Ne, own)?]);
    }
    rules.insert(libc::SYS_tkill, Vec::new());
    rules.insert(libc::SYS_tgkill, vec![when(0, SeccompCmpOp::Ne, own)?]);
    apply(rules, libc::EPERM, arch)?;
    // Its arguments lie in memory, where no filter sees them: the C library goes on with `clone` when it is told that there is none.
    apply([(libc::SYS_clone3, Vec::new())].into(), libc::ENOSYS, arch)
}

fn apply(rules: BTreeMap<i64, Vec<SeccompRule>>, error: i32, arch: TargetArch) -> Result<(), String> {
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(error as u32), arch);
    let program: BpfProgram = filter.and_then(BpfProgram::try_from).map_err(|e| e.to_string())?;
    seccompiler::apply_filter_all_threads(&program).map_err(|e| e.to_string())
}
