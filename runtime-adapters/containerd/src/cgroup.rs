//! What the kernel counts for a container, read from its cgroup.
//!
//! containerd's own metrics come in a form per cgroup version and only while the shim answers; the
//! files are there as long as the task is.

use std::io;
use std::path::{Path, PathBuf};

use wavetank_port::ContainerStats;

/// A container's place below the cgroup hierarchies.
pub(crate) struct Cgroup<'a> {
    hierarchies: &'a Hierarchies,
    /// Begins with a slash.
    path: &'a str,
}

/// Where the kernel's hierarchies are mounted.
pub(crate) struct Hierarchies {
    /// By controller, version 1.
    v1: Vec<(String, PathBuf)>,
    v2: Option<PathBuf>,
}

impl Hierarchies {
    /// Of this machine, now.
    pub(crate) fn of_this_machine() -> Self {
        Self::parse(&std::fs::read_to_string("/proc/self/mounts").unwrap_or_default())
    }

    fn parse(mounts: &str) -> Self {
        let mut found = Hierarchies {
            v1: Vec::new(),
            v2: None,
        };
        for line in mounts.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                [_, place, "cgroup", options, ..] => found.v1.extend(
                    options
                        .split(',')
                        .map(|it| (it.to_owned(), PathBuf::from(place))),
                ),
                [_, place, "cgroup2", ..] => found.v2 = Some(PathBuf::from(place)),
                _ => {}
            }
        }
        found
    }

    pub(crate) fn cgroup<'a>(&'a self, path: &'a str) -> Cgroup<'a> {
        Cgroup {
            hierarchies: self,
            path,
        }
    }

    /// All mount points, each once.
    fn roots(&self) -> Vec<&Path> {
        let v1 = self.v1.iter().map(|(_, place)| place.as_path());
        let mut all: Vec<&Path> = v1.chain(self.v2.as_deref()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

impl Cgroup<'_> {
    /// How many processes in it the kernel killed for memory; `None` once it is gone.
    pub(crate) fn oom_kills(&self) -> Option<u64> {
        let text = match self.v1("memory", "memory.oom_control") {
            Some(file) => std::fs::read_to_string(file),
            None => self.read_v2("memory.events"),
        };
        // A kernel older than 4.13 has the file without the count: nobody can know.
        text.ok().map(|text| value(&text, "oom_kill").unwrap_or(0))
    }

    /// What it uses now.
    pub(crate) fn usage(&self) -> io::Result<ContainerStats> {
        let memory = self.number("memory", "memory.usage_in_bytes", "memory.current")?;
        let processes = self.number("pids", "pids.current", "pids.current")?;
        let cpu_nanos = match self.v1("cpuacct", "cpuacct.usage") {
            Some(file) => parse(&std::fs::read_to_string(file)?)?,
            None => value(&self.read_v2("cpu.stat")?, "usage_usec").unwrap_or(0) * 1_000,
        };
        Ok(ContainerStats {
            memory_bytes: memory,
            cpu_nanos,
            processes,
        })
    }

    /// True if any process is in it.
    pub(crate) fn is_populated(&self) -> bool {
        let pids = match self.v1("pids", "cgroup.procs") {
            Some(file) => std::fs::read_to_string(file),
            None => self.read_v2("cgroup.procs"),
        };
        pids.is_ok_and(|text| !text.trim().is_empty())
    }

    /// Removes what a daemon that died left of it. An empty one only: the kernel refuses others.
    pub(crate) fn remove(&self) {
        if self.path.len() < 2 {
            return;
        }
        for root in self.hierarchies.roots() {
            let _ = std::fs::remove_dir(root.join(&self.path[1..]));
        }
    }

    fn number(&self, controller: &str, v1: &str, v2: &str) -> io::Result<u64> {
        let text = match self.v1(controller, v1) {
            Some(file) => std::fs::read_to_string(file)?,
            None => self.read_v2(v2)?,
        };
        parse(&text)
    }

    /// A file of a version 1 controller, if the machine has that controller there.
    fn v1(&self, controller: &str, file: &str) -> Option<PathBuf> {
        let mut all = self.hierarchies.v1.iter();
        let (_, root) = all.find(|(name, _)| name == controller)?;
        Some(root.join(self.path.get(1..)?).join(file))
    }

    fn read_v2(&self, file: &str) -> io::Result<String> {
        let root = self
            .hierarchies
            .v2
            .as_deref()
            .ok_or(io::ErrorKind::NotFound)?;
        let path = self.path.get(1..).ok_or(io::ErrorKind::NotFound)?;
        std::fs::read_to_string(root.join(path).join(file))
    }
}

/// The number after `key` in lines of a key and a number.
fn value(text: &str, key: &str) -> Option<u64> {
    let mut pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.find(|(name, _)| *name == key)?.1.trim().parse().ok()
}

fn parse(text: &str) -> io::Result<u64> {
    let number = text.trim().parse();
    number.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not a number"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::Hierarchies;

    fn write(root: &Path, file: &str, text: &str) {
        let file = root.join(file);
        std::fs::create_dir_all(file.parent().expect("below the root")).expect("a folder");
        std::fs::write(file, text).expect("a file");
    }

    #[test]
    fn both_versions_are_read_alike() {
        let root = tempfile::tempdir().expect("a folder");
        let place = root.path().display();
        let v1 = Hierarchies::parse(&format!(
            "cgroup {place}/m cgroup rw,memory 0 0\ncgroup {place}/c cgroup rw,cpuacct 0 0\n\
             cgroup {place}/p cgroup rw,pids 0 0\ncgroup2 {place}/u cgroup2 rw 0 0\n"
        ));
        write(root.path(), "m/n/a/memory.usage_in_bytes", "4096\n");
        write(
            root.path(),
            "m/n/a/memory.oom_control",
            "under_oom 0\noom_kill 2\n",
        );
        write(root.path(), "c/n/a/cpuacct.usage", "7000\n");
        write(root.path(), "p/n/a/pids.current", "3\n");
        write(root.path(), "p/n/a/cgroup.procs", "1\n");
        let v2 = Hierarchies::parse(&format!("cgroup2 {place}/v2 cgroup2 rw 0 0\n"));
        write(root.path(), "v2/n/a/memory.current", "4096\n");
        write(root.path(), "v2/n/a/memory.events", "oom 1\noom_kill 2\n");
        write(
            root.path(),
            "v2/n/a/cpu.stat",
            "usage_usec 7\nuser_usec 1\n",
        );
        write(root.path(), "v2/n/a/pids.current", "3\n");
        write(root.path(), "v2/n/a/cgroup.procs", "1\n");
        for hierarchies in [v1, v2] {
            let cgroup = hierarchies.cgroup("/n/a");
            let usage = cgroup.usage().expect("all files are there");
            assert_eq!(
                (usage.memory_bytes, usage.cpu_nanos, usage.processes),
                (4096, 7000, 3)
            );
            assert_eq!(cgroup.oom_kills(), Some(2));
            assert!(cgroup.is_populated());
            let gone = hierarchies.cgroup("/n/b");
            assert!(gone.usage().is_err() && gone.oom_kills().is_none() && !gone.is_populated());
        }
    }

    #[test]
    fn a_container_of_another_client_has_no_cgroup_that_we_know() {
        let hierarchies = Hierarchies::parse("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n");
        let unknown = hierarchies.cgroup("");
        assert!(unknown.usage().is_err() && unknown.oom_kills().is_none());
        unknown.remove();
    }
}
