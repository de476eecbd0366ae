//! A container's cgroup, read through its files: hierarchies of version 1 and the one of version 2.
//!
//! The path is the one that we asked the OCI runtime for, never the one of a process: a process may
//! be a stranger, or ourselves.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use wavetank_port::ContainerStats;

/// Where the hierarchies are mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hierarchies {
    /// Version 1: each with its controllers.
    v1: Vec<(Vec<String>, PathBuf)>,
    /// Version 2.
    v2: Option<PathBuf>,
}

impl Hierarchies {
    /// Of this machine.
    pub fn here() -> io::Result<Self> {
        Ok(Self::parse(&fs::read_to_string("/proc/self/mounts")?))
    }

    fn parse(mounts: &str) -> Self {
        let mut found = Hierarchies::default();
        for line in mounts.lines() {
            let mut words = line.split(' ').skip(1);
            let (Some(at), Some(kind), Some(options)) = (words.next(), words.next(), words.next())
            else {
                continue;
            };
            match kind {
                "cgroup" => {
                    let options = options.split(',').map(str::to_owned).collect();
                    found.v1.push((options, PathBuf::from(at)));
                }
                "cgroup2" => found.v2 = Some(PathBuf::from(at)),
                _ => {}
            }
        }
        found
    }

    /// The folder of `path` in the hierarchy that has `controller`, and that hierarchy's version.
    fn folder(&self, controller: &str, path: &str) -> Option<Folder> {
        let relative = path.trim_start_matches('/');
        let has = |(options, _): &&(Vec<String>, PathBuf)| {
            options.iter().any(|option| option == controller)
        };
        match self.v1.iter().find(has) {
            Some((_, at)) => Some(Folder::V1(at.join(relative))),
            None => self.v2.as_ref().map(|at| Folder::V2(at.join(relative))),
        }
    }

    fn all(&self) -> impl Iterator<Item = &PathBuf> {
        self.v1.iter().map(|(_, at)| at).chain(&self.v2)
    }
}

enum Folder {
    V1(PathBuf),
    V2(PathBuf),
}

/// One container's cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    hierarchies: Hierarchies,
    path: String,
}

impl Cgroup {
    /// The cgroup at `path` from the root of each hierarchy.
    pub fn open(path: &str) -> io::Result<Self> {
        Ok(Cgroup {
            hierarchies: Hierarchies::here()?,
            path: path.to_owned(),
        })
    }

    /// How many processes of it the kernel has killed for memory. Zero where nobody counts.
    pub fn oom_kills(&self) -> u64 {
        let text = match self.hierarchies.folder("memory", &self.path) {
            Some(Folder::V1(folder)) => fs::read_to_string(folder.join("memory.oom_control")),
            Some(Folder::V2(folder)) => fs::read_to_string(folder.join("memory.events")),
            None => return 0,
        };
        text.ok()
            .and_then(|text| keyed(&text, "oom_kill"))
            .unwrap_or(0)
    }

    /// True while it is frozen, by us or by somebody else.
    pub fn is_frozen(&self) -> bool {
        match self.hierarchies.folder("freezer", &self.path) {
            Some(Folder::V1(folder)) => fs::read_to_string(folder.join("freezer.state"))
                .is_ok_and(|state| state.trim() != "THAWED"),
            Some(Folder::V2(folder)) => fs::read_to_string(folder.join("cgroup.events"))
                .is_ok_and(|text| keyed(&text, "frozen") == Some(1)),
            None => false,
        }
    }

    /// What it uses. A controller that is absent counts as zero; no controller at all is an error.
    pub fn stats(&self) -> io::Result<ContainerStats> {
        let memory_bytes = match self.hierarchies.folder("memory", &self.path) {
            Some(Folder::V1(folder)) => number(&folder.join("memory.usage_in_bytes")),
            Some(Folder::V2(folder)) => number(&folder.join("memory.current")),
            None => Ok(0),
        };
        let cpu_nanos = match self.hierarchies.folder("cpuacct", &self.path) {
            Some(Folder::V1(folder)) => number(&folder.join("cpuacct.usage")),
            Some(Folder::V2(folder)) => fs::read_to_string(folder.join("cpu.stat"))
                .map(|text| keyed(&text, "usage_usec").unwrap_or(0).saturating_mul(1000)),
            None => Ok(0),
        };
        let processes = match self.hierarchies.folder("pids", &self.path) {
            Some(Folder::V1(folder) | Folder::V2(folder)) => number(&folder.join("pids.current")),
            None => Ok(0),
        };
        Ok(ContainerStats {
            memory_bytes: memory_bytes?,
            cpu_nanos: cpu_nanos?,
            processes: processes?,
        })
    }

    /// Kills what is left in it. Only for a cgroup whose container is being removed.
    pub fn kill_all(&self) -> io::Result<()> {
        for at in self.hierarchies.all() {
            let folder = at.join(self.path.trim_start_matches('/'));
            let Ok(text) = fs::read_to_string(folder.join("cgroup.procs")) else {
                continue;
            };
            for pid in text.lines().filter_map(|line| line.parse().ok()) {
                if let Some(identity) = crate::process::ProcessIdentity::of(pid)? {
                    identity.kill()?;
                }
            }
        }
        Ok(())
    }

    /// Removes its empty folders.
    pub fn remove(&self) {
        for at in self.hierarchies.all() {
            // Not empty or not there: the OCI runtime's delete has said what it could not do.
            let _ = fs::remove_dir(at.join(self.path.trim_start_matches('/')));
        }
    }
}

/// The value behind `key` in lines of `key value`.
fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let value = line.strip_prefix(key)?.strip_prefix(' ')?;
        value.trim().parse().ok()
    })
}

fn number(path: &Path) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    let bad = |_| io::Error::other(format!("`{}` is no number in {}", text, path.display()));
    text.trim().parse().map_err(bad)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use wavetank_port::ContainerStats;

    use super::{Cgroup, Hierarchies};

    fn write(folder: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(folder).expect("folder");
        for (name, text) in files {
            fs::write(folder.join(name), text).expect("file");
        }
    }

    #[test]
    fn version_1_is_read_by_controller() {
        let root = tempfile::tempdir().expect("folder");
        let at = root.path().display();
        let mounts = format!(
            "cgroup {at}/memory cgroup rw,memory 0 0\n\
             cgroup {at}/cpu cgroup rw,cpu,cpuacct 0 0\n\
             cgroup {at}/pids cgroup rw,pids 0 0\n\
             cgroup {at}/freezer cgroup rw,freezer 0 0\n\
             cgroup2 {at}/unified cgroup2 rw 0 0\n"
        );
        let oom = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        write(
            &root.path().join("memory/a/b"),
            &[
                ("memory.usage_in_bytes", "4096\n"),
                ("memory.oom_control", oom),
            ],
        );
        write(&root.path().join("cpu/a/b"), &[("cpuacct.usage", "77\n")]);
        write(&root.path().join("pids/a/b"), &[("pids.current", "2\n")]);
        write(
            &root.path().join("freezer/a/b"),
            &[("freezer.state", "FROZEN\n")],
        );
        let cgroup = Cgroup {
            hierarchies: Hierarchies::parse(&mounts),
            path: "/a/b".to_owned(),
        };
        assert_eq!(cgroup.oom_kills(), 3);
        assert!(cgroup.is_frozen());
        let expected = ContainerStats {
            memory_bytes: 4096,
            cpu_nanos: 77,
            processes: 2,
        };
        assert_eq!(cgroup.stats().expect("stats"), expected);
    }

    #[test]
    fn version_2_is_read_where_version_1_has_nothing() {
        let root = tempfile::tempdir().expect("folder");
        let mounts = format!("none {} cgroup2 rw 0 0\n", root.path().display());
        write(
            &root.path().join("a"),
            &[
                ("memory.current", "5\n"),
                ("memory.events", "oom 9\noom_kill 1\noom_group_kill 0\n"),
                ("cpu.stat", "usage_usec 6\nuser_usec 1\n"),
                ("pids.current", "1\n"),
                ("cgroup.events", "populated 1\nfrozen 0\n"),
            ],
        );
        let cgroup = Cgroup {
            hierarchies: Hierarchies::parse(&mounts),
            path: "/a".to_owned(),
        };
        assert_eq!(cgroup.oom_kills(), 1);
        assert!(!cgroup.is_frozen());
        let expected = ContainerStats {
            memory_bytes: 5,
            cpu_nanos: 6000,
            processes: 1,
        };
        assert_eq!(cgroup.stats().expect("stats"), expected);
    }

    #[test]
    fn a_cgroup_that_is_gone_says_so() {
        let cgroup = Cgroup {
            hierarchies: Hierarchies::parse("none /nowhere/at/all cgroup2 rw 0 0\n"),
            path: "/a".to_owned(),
        };
        assert_eq!(cgroup.oom_kills(), 0);
        assert!(!cgroup.is_frozen());
        cgroup.stats().expect_err("nothing to read");
    }
}
