//! What the system says of this process. `None` where it does not say it in the way of Linux.

/// Bytes of memory of its own that are in use, files that are mapped not counted.
pub fn memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Files that are open.
pub fn descriptors() -> Option<u64> {
    entries("/proc/self/fd")
}

/// Threads.
pub fn threads() -> Option<u64> {
    entries("/proc/self/task")
}

/// Ranges of addresses that are mapped.
pub fn mappings() -> Option<u64> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    Some(maps.lines().count() as u64)
}

/// Processes that this one has started and not waited for, by number.
pub fn children() -> Vec<i32> {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace()
                .filter_map(|number| number.parse().ok())
                .collect::<Vec<i32>>()
        })
        .collect()
}

fn entries(folder: &str) -> Option<u64> {
    Some(std::fs::read_dir(folder).ok()?.flatten().count() as u64)
}
