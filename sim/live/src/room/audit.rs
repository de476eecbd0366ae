//! What there is on a machine that a room could leave behind, as sets that can be compared.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use wavetank_fixtures::daemon::process;

use super::error::RoomError;

/// Everything that could be left behind, as text that names it. Kernel threads are left out, and so
/// is the harness itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Number, network namespace and command line of each process that has not ended.
    pub processes: BTreeSet<String>,
    /// Mount points with what is mounted there.
    pub mounts: BTreeSet<String>,
    /// Named network namespaces.
    pub network_namespaces: BTreeSet<String>,
    /// Network links here.
    pub links: BTreeSet<String>,
    /// Control groups.
    pub cgroups: BTreeSet<String>,
    /// What runtimes keep about containers outside of their own folders.
    pub runtime_states: BTreeSet<String>,
    /// Ledgers of rooms.
    pub ledgers: BTreeSet<String>,
    /// Packet-filter rules and chains here, of all tables of IPv4.
    pub packet_filter: BTreeSet<String>,
}

impl Audit {
    /// What there is now.
    pub fn take() -> Result<Self, RoomError> {
        let work = || -> io::Result<Audit> {
            Ok(Audit {
                processes: processes()?,
                mounts: mounts()?,
                network_namespaces: names("/run/netns"),
                links: names("/sys/class/net"),
                cgroups: folders_below(Path::new("/sys/fs/cgroup")),
                runtime_states: ["/run/containerd/runc", "/run/runc", "/run/crun"]
                    .into_iter()
                    .flat_map(|it| folders_below(Path::new(it)))
                    .collect(),
                ledgers: names("/run/wavetank/rooms"),
                packet_filter: BTreeSet::new(),
            })
        };
        let mut audit = work().map_err(RoomError::file("read", "/proc"))?;
        // Counters and comments differ each time.
        let rules = super::tool::run("iptables-save")?;
        let lines = rules
            .lines()
            .filter(|it| it.starts_with("-A") || it.starts_with(":"));
        audit.packet_filter = lines.map(|it| without_counters(it).to_owned()).collect();
        Ok(audit)
    }

    /// What is in this one and was not in an earlier one.
    pub fn since(&self, earlier: &Audit) -> Audit {
        self.zip(earlier, |now, then| now.difference(then).cloned().collect())
    }

    /// What mentions one of these texts.
    pub fn about(&self, marks: &[String]) -> Audit {
        self.zip(self, |now, _| {
            let is_marked = |it: &&String| marks.iter().any(|mark| it.contains(mark));
            now.iter().filter(is_marked).cloned().collect()
        })
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        *self == Audit::default()
    }

    /// A line for each thing: its kind, a tab, and what names it.
    pub fn lines(&self) -> Vec<String> {
        let kinds = [
            ("process", &self.processes),
            ("mount", &self.mounts),
            ("network-namespace", &self.network_namespaces),
            ("link", &self.links),
            ("cgroup", &self.cgroups),
            ("runtime-state", &self.runtime_states),
            ("ledger", &self.ledgers),
            ("packet-filter", &self.packet_filter),
        ];
        let lines = kinds.into_iter().flat_map(|(kind, things)| {
            // An argument of a process may have several lines.
            let line = move |thing: &String| format!("{kind}\t{}", thing.replace('\n', " "));
            things.iter().map(line)
        });
        lines.collect()
    }

    fn zip(
        &self,
        other: &Audit,
        with: impl Fn(&BTreeSet<String>, &BTreeSet<String>) -> BTreeSet<String>,
    ) -> Audit {
        Audit {
            processes: with(&self.processes, &other.processes),
            mounts: with(&self.mounts, &other.mounts),
            network_namespaces: with(&self.network_namespaces, &other.network_namespaces),
            links: with(&self.links, &other.links),
            cgroups: with(&self.cgroups, &other.cgroups),
            runtime_states: with(&self.runtime_states, &other.runtime_states),
            ledgers: with(&self.ledgers, &other.ledgers),
            packet_filter: with(&self.packet_filter, &other.packet_filter),
        }
    }
}

fn processes() -> io::Result<BTreeSet<String>> {
    let ourselves = std::process::id();
    let all = process::all()?.into_iter();
    let all = all.filter(|it| it.pid != ourselves && !it.is_zombie());
    Ok(all
        // Kernel threads have none.
        .filter(|it| !it.command_line.is_empty())
        .map(|it| {
            let network = fs::read_link(format!("/proc/{}/ns/net", it.pid)).unwrap_or_default();
            let line = String::from_utf8_lossy(&it.command_line).replace('\0', " ");
            format!("{} {} {line}", it.pid, network.display())
        })
        .collect())
}

fn mounts() -> io::Result<BTreeSet<String>> {
    let mounts = process::mounts_below(Path::new("/"))?;
    // Made once for the first of all network namespaces, by the tool for them.
    let mounts = mounts.iter().filter(|it| *it != Path::new("/run/netns"));
    Ok(mounts.map(|it| it.display().to_string()).collect())
}

/// Absent is as good as empty.
fn names(folder: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.map(|it| it.file_name().to_string_lossy().into_owned());
    names.filter(|it| it != "lock").collect()
}

fn folders_below(top: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut left: Vec<PathBuf> = vec![top.to_path_buf()];
    while let Some(folder) = left.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|it| it.is_dir()) {
                found.insert(entry.path().display().to_string());
                left.push(entry.path());
            }
        }
    }
    found
}

fn without_counters(line: &str) -> &str {
    line.split_once(" [").map_or(line, |(head, _)| head)
}
