//! How much memory the process may have, and how much it has, as the system tells.
//! # Invariants: what cannot be read, or makes no sense, counts as unknown, never as nothing.
//! # Not here: what is given up when memory runs short (`shard`).

use std::fs;
use std::path::Path;

/// Bytes that the process may have: the least of what its control group and the machine allow.
/// `None` where the system does not tell.
pub fn granted() -> Option<u64> {
    granted_below(Path::new("/"))
}

/// Bytes of memory that the process has now. `None` where the system does not tell.
pub fn resident() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    pages.checked_mul(rustix::param::page_size() as u64)
}

fn granted_below(root: &Path) -> Option<u64> {
    let read = |path: &str| fs::read_to_string(root.join(path)).ok();
    let machine = read("proc/meminfo").as_deref().and_then(total);
    let groups = read("proc/self/cgroup").unwrap_or_default();
    let group = limits_of(&groups).filter_map(|path| read(&path)?.trim().parse().ok());
    group.chain(machine).filter(|bytes| *bytes > 0).min()
}

/// The machine's memory, as `/proc/meminfo` has it.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

/// The files in which the limits of control groups may stand, for the group itself and those around
/// it, in the order of `/proc/self/cgroup`. In a container its own group is often seen as the root.
fn limits_of(groups: &str) -> impl Iterator<Item = String> {
    groups.lines().flat_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or("/"));
        let (folder, file) = if controllers.is_empty() {
            ("sys/fs/cgroup", "memory.max")
        } else if controllers.split(',').any(|name| name == "memory") {
            ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            return Vec::new();
        };
        let around = Path::new(path).ancestors().filter_map(Path::to_str);
        around.map(|path| format!("{folder}{}/{file}", path.trim_end_matches('/'))).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A system that is made of these files.
    fn check(files: &[(&str, &str)], expected: Option<u64>) {
        let root = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
            fs::write(path, text).expect("a file");
        }
        assert_eq!(granted_below(root.path()), expected, "{files:?}");
    }

    #[test]
    fn the_least_of_group_and_machine_counts() {
        let machine = ("proc/meminfo", "MemTotal:       1000 kB\nMemFree: 1 kB\n");
        let unified = ("proc/self/cgroup", "0::/a/b\n");
        check(&[], None);
        check(&[machine], Some(1_024_000));
        check(&[machine, unified, ("sys/fs/cgroup/a/b/memory.max", "max\n")], Some(1_024_000));
        check(&[machine, unified, ("sys/fs/cgroup/a/b/memory.max", "500000\n")], Some(500_000));
        let around = ("sys/fs/cgroup/a/memory.max", "400000\n");
        check(
            &[machine, unified, ("sys/fs/cgroup/a/b/memory.max", "500000\n"), around],
            Some(400_000),
        );
        check(&[machine, unified, ("sys/fs/cgroup/memory.max", "300000\n")], Some(300_000));
        check(&[machine, unified, ("sys/fs/cgroup/a/b/memory.max", "0\n")], Some(1_024_000));
        let first = ("proc/self/cgroup", "9:name=systemd:/\n8:cpu,memory:/x\n");
        let limit = ("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "9223372036854771712\n");
        check(&[machine, first, limit], Some(1_024_000));
        check(&[machine, first, (limit.0, "200000\n")], Some(200_000));
        check(&[("proc/meminfo", "MemTotal: much kB\n"), first, (limit.0, "x")], None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_some_of_what_it_may_have() {
        let (granted, resident) = (granted().expect("a limit"), resident().expect("a size"));
        assert!(resident > 100_000 && resident < granted, "{resident} of {granted}");
    }
}
