//! A control group with a limit of memory, for one process.
//! Version 2 where the machine has it, else version 1; where neither can be had, it panics and says
//! what is missing.
//! # Invariants: it is removed with its test.
//! # Not here: who runs in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

#[derive(Debug)]
pub(crate) struct Group {
    folder: PathBuf,
    version: Version,
}

impl Group {
    /// A group whose processes may have so many bytes together.
    pub(crate) fn new(bytes: u64) -> Group {
        let (root, version) = root();
        let group = Group { folder: root.join(format!("fanfare-{}", std::process::id())), version };
        if let Err(error) = fs::create_dir(&group.folder) {
            panic!("{}: {error}; this test needs root, or a group to write to", root.display());
        }
        match version {
            Version::One => {
                group.write("memory.limit_in_bytes", bytes);
                group.write("memory.kmem.tcp.limit_in_bytes", bytes);
            }
            Version::Two => {
                group.write("memory.max", bytes);
                group.write("memory.swap.max", 0);
            }
        }
        group
    }

    /// The file that lists its processes.
    pub(crate) fn processes(&self) -> PathBuf {
        self.folder.join("cgroup.procs")
    }

    pub(crate) fn version(&self) -> &'static str {
        match self.version {
            Version::One => "1, where sockets have as much beside it",
            Version::Two => "2, where sockets are part of it",
        }
    }

    /// The most bytes that were ever in use.
    pub(crate) fn peak(&self) -> u64 {
        self.number(if self.version == Version::One {
            "memory.max_usage_in_bytes"
        } else {
            "memory.peak"
        })
    }

    /// Bytes that sockets have now, or had at most where the kernel tells that.
    pub(crate) fn sockets(&self) -> u64 {
        match self.version {
            Version::One => self.number("memory.kmem.tcp.max_usage_in_bytes"),
            Version::Two => self.value("memory.stat", "sock"),
        }
    }

    /// Processes that were killed because there was no memory.
    pub(crate) fn kills(&self) -> u64 {
        let file =
            if self.version == Version::One { "memory.oom_control" } else { "memory.events" };
        self.value(file, "oom_kill")
    }

    fn read(&self, name: &str) -> String {
        let path = self.folder.join(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    fn number(&self, name: &str) -> u64 {
        self.read(name).trim().parse().expect("a number")
    }

    fn value(&self, file: &str, name: &str) -> u64 {
        let text = self.read(file);
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.expect(name).parse().expect("a number")
    }

    fn write(&self, name: &str, value: u64) {
        let path = self.folder.join(name);
        let written = fs::write(&path, value.to_string());
        written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The kernel takes a moment to see that its process has ended.
        let begin = Instant::now();
        while fs::remove_dir(&self.folder).is_err() && begin.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Where groups with a limit of memory are made.
fn root() -> (PathBuf, Version) {
    let unified = Path::new("/sys/fs/cgroup");
    let controllers = fs::read_to_string(unified.join("cgroup.controllers")).unwrap_or_default();
    if controllers.split_ascii_whitespace().any(|name| name == "memory") {
        // It may be passed on already, or be of a group that may not.
        fs::write(unified.join("cgroup.subtree_control"), "+memory").unwrap_or_default();
        return (unified.to_owned(), Version::Two);
    }
    let memory = unified.join("memory");
    assert!(
        memory.join("memory.limit_in_bytes").exists() || memory.join("cgroup.procs").exists(),
        "there is no memory controller below /sys/fs/cgroup: this test needs control groups"
    );
    (memory, Version::One)
}
