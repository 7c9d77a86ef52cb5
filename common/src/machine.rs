//! What the machine has that a process may take, from Linux's `/proc` and cgroups (cgroups(7)). Elsewhere nothing is known.

use std::fmt;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// Memory that the process may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// How much.
    pub bytes: u64,
    /// It is less than the machine has, as a cgroup says (a container, a unit's `MemoryMax`).
    pub is_limited: bool,
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes, is_limited } = self;
        match is_limited {
            true => write!(f, "the cgroup of this process may take {bytes} bytes of memory"),
            false => write!(f, "this machine has {bytes} bytes of memory"),
        }
    }
}

/// As it is now; `None` where that is not known.
#[must_use]
pub fn memory() -> Option<Memory> {
    memory_below(Path::new("/"))
}

/// Of the machine whose files begin there.
fn memory_below(root: &Path) -> Option<Memory> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    let machine = kilobytes.saturating_mul(1024);
    let cgroups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let limits = cgroups.lines().filter_map(|line| limit(root, line));
    let limit = limits.min().filter(|limit| *limit < machine);
    Some(Memory { bytes: limit.unwrap_or(machine), is_limited: limit.is_some() })
}

/// The least that a cgroup or one around it may take, by its line `ID:CONTROLLERS:PATH`.
fn limit(root: &Path, line: &str) -> Option<u64> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, path) = (fields.next()?, fields.next()?);
    let mounted = root.join("sys/fs/cgroup");
    let (mounted, file) = match controllers {
        "" => (mounted, "memory.max"),
        _ if controllers.split(',').any(|name| name == "memory") => {
            (mounted.join("memory"), "memory.limit_in_bytes")
        }
        _ => return None,
    };
    // A container may not see where it lies: its own is what is mounted then.
    let names = Path::new(path).components();
    let below: PathBuf = names.filter(|name| matches!(name, Component::Normal(_))).collect();
    let of = |cgroup: &Path| {
        fs::read_to_string(mounted.join(cgroup).join(file)).ok()?.trim().parse::<u64>().ok()
    };
    below.ancestors().filter_map(of).min()
}

#[cfg(test)]
mod tests {
    use super::{Memory, fs, memory, memory_below};

    const MIB: u64 = 1024 * 1024;

    /// What is found where these files are.
    fn check(files: &[(&str, &str)], expected: Option<Memory>) {
        let root = tempfile::tempdir().expect("a directory");
        for (name, text) in files {
            let file = root.path().join(name);
            fs::create_dir_all(file.parent().expect("a directory")).expect("a disk");
            fs::write(file, text).expect("a disk");
        }
        assert_eq!(memory_below(root.path()), expected, "{files:?}");
    }

    #[test]
    fn the_least_of_the_machine_and_of_all_cgroups_around_a_process_counts() {
        let machine = ("proc/meminfo", "MemTotal:       1048576 kB\nMemFree:  1 kB\n");
        let whole = Some(Memory { bytes: 1024 * MIB, is_limited: false });
        let limited = |mib| Some(Memory { bytes: mib * MIB, is_limited: true });
        check(&[], None);
        check(&[machine], whole);
        let two = ("proc/self/cgroup", "0::/system.slice/broker.service\n");
        let slice = ("sys/fs/cgroup/system.slice/memory.max", "268435456\n");
        let service = ("sys/fs/cgroup/system.slice/broker.service/memory.max", "536870912\n");
        check(&[machine, two], whole);
        check(&[machine, two, service], limited(512));
        check(&[machine, two, service, slice], limited(256));
        let none = ("sys/fs/cgroup/system.slice/broker.service/memory.max", "max\n");
        check(&[machine, two, none], whole);
        // A container of version 1, whose own cgroup is all that it sees.
        let one = ("proc/self/cgroup", "5:cpu:/docker/ab\n4:memory:/docker/ab\n0::/\n");
        let own = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "134217728\n");
        check(&[machine, one, own], limited(128));
        let no_limit = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        check(&[machine, one, no_limit], whole);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_has_some() {
        assert!(memory().is_some_and(|memory| memory.bytes > MIB));
    }
}
