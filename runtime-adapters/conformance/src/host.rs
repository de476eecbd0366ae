//! Whether a runtime can be tested on this machine, and if not, why and what helps.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::geteuid;
use serde::Serialize;
use wavetank_fixtures::test_image::test_program;

use crate::bed::CALL;
use crate::run::Bench;

/// The one command that makes a Debian machine ready.
const SET_UP: &str = "run `ci/setup-runtimes`";
const NO_CGROUPS: &str = "give this machine writable cgroups, as a privileged container has them";
const NO_KERNEL_LOG: &str =
    "let this machine read /dev/kmsg; without it, case 49 (out of memory) fails";
const NO_TEST_PROGRAM: &str = "install libc6-dev and build again";

/// The programs that each real runtime needs: one of each of these.
const NEEDED: &[(&str, &[&[&str]])] = &[
    (
        "containerd",
        &[&["containerd"], &["containerd-shim-runc-v2"], &["runc"]],
    ),
    ("podman", &[&["podman"], &["conmon"], &["runc", "crun"]]),
    ("oci", &[&["runc", "crun", "youki"]]),
];

/// One thing that a runtime needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What is needed.
    pub need: String,
    /// Whether it is there.
    pub ok: bool,
    /// Whether the runtime is of no use without it.
    pub vital: bool,
    /// What was found.
    pub found: String,
    /// What helps; empty where nothing has to be done.
    pub fix: String,
}

impl Finding {
    /// True if the runtime cannot be used for want of this.
    pub fn stops(&self) -> bool {
        self.vital && !self.ok
    }
}

/// One runtime on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Examination {
    /// Its name.
    pub runtime: &'static str,
    /// True if its arm can be used.
    pub usable: bool,
    /// What it says of itself, once it has been started.
    pub version: Option<String>,
    /// All that was looked at.
    pub findings: Vec<Finding>,
}

impl Examination {
    /// The first thing that is missing, with what helps.
    pub fn problem(&self) -> Option<String> {
        let missing = self.findings.iter().find(|finding| finding.stops())?;
        Some(format!(
            "{}: {}; {}",
            missing.need, missing.found, missing.fix
        ))
    }
}

/// What was found on a machine, before anything is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Whom we run as.
    pub user: u32,
    /// The programs that are in the PATH, and where.
    pub programs: BTreeMap<&'static str, PathBuf>,
    /// Where memory is limited, or why no control group can be made there.
    pub cgroups: Result<String, String>,
    /// The kernel's log, or why it cannot be read.
    pub kernel_log: Result<String, String>,
    /// Why the program of the test images was not built.
    pub test_program: Result<(), String>,
}

impl Machine {
    /// This one.
    pub fn here() -> Self {
        let wanted = NEEDED
            .iter()
            .flat_map(|(_, programs)| programs.iter().copied().flatten());
        let find = |name: &&'static str| Some((*name, find_in_path(name)?));
        Machine {
            user: geteuid().as_raw(),
            programs: wanted.filter_map(find).collect(),
            cgroups: cgroups(),
            kernel_log: kernel_log(),
            test_program: test_program().map(drop).map_err(|error| error.to_string()),
        }
    }

    /// What a runtime needs of it.
    pub fn prerequisites(&self, runtime: &'static str) -> Examination {
        let needed = NEEDED.iter().find(|(name, _)| *name == runtime);
        let mut findings = needed.map_or_else(Vec::new, |(_, programs)| self.real(programs));
        if runtime == "podman" {
            // Podman before 5.0 does not say that a container was killed for memory; the kernel
            // does.
            findings.push(Finding {
                vital: false,
                ..of_result("kernel log", &self.kernel_log, NO_KERNEL_LOG)
            });
        }
        Examination {
            runtime,
            usable: !findings.iter().any(Finding::stops),
            version: None,
            findings,
        }
    }

    /// What every real runtime needs, and one of each of these programs.
    fn real(&self, programs: &[&[&str]]) -> Vec<Finding> {
        let user = format!("user {}", self.user);
        let built = self.test_program.clone().map(|()| "built".to_owned());
        let mut findings = vec![
            finding("root", self.user == 0, &user, "run as root"),
            of_result("cgroups", &self.cgroups, NO_CGROUPS),
            of_result("test program", &built, NO_TEST_PROGRAM),
        ];
        findings.extend(programs.iter().map(|names| self.program(names)));
        findings
    }

    /// One of `names` is in the PATH.
    fn program(&self, names: &[&str]) -> Finding {
        let need = names.join(" or ");
        match names.iter().find_map(|name| self.programs.get(name)) {
            Some(path) => finding(&need, true, &path.display().to_string(), ""),
            None => finding(&need, false, "not in PATH", SET_UP),
        }
    }
}

/// Looks at what a runtime needs without starting it.
pub fn prerequisites(runtime: &'static str) -> Examination {
    Machine::here().prerequisites(runtime)
}

/// As [`prerequisites`]; what then looks usable is started and asked for its version.
pub async fn examine(bench: &dyn Bench) -> Examination {
    let mut examination = prerequisites(bench.runtime());
    if !examination.usable {
        return examination;
    }
    let answer = version(bench).await;
    examination.findings.push(Finding {
        need: "answers".to_owned(),
        ok: answer.is_ok(),
        vital: true,
        found: answer.clone().unwrap_or_else(|why| why),
        fix: match &answer {
            Ok(_) => String::new(),
            Err(_) => format!("{SET_UP}, which also checks; RUST_LOG=debug says more"),
        },
    });
    examination.usable = answer.is_ok();
    examination.version = answer.ok();
    examination
}

async fn version(bench: &dyn Bench) -> Result<String, String> {
    let arm = bench.arm().await.map_err(|error| error.to_string())?;
    let version = arm.runtime().version(CALL).await;
    let closed = arm.close().await;
    let version = version.map_err(|error| error.to_string())?;
    closed.map_err(|error| error.to_string())?;
    Ok(version)
}

fn kernel_log() -> Result<String, String> {
    let path = "/dev/kmsg";
    let opened = std::fs::File::open(path);
    opened
        .map(|_| path.to_owned())
        .map_err(|error| error.to_string())
}

fn find_in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
}

/// Containers need groups of their own: a group can be made and removed.
fn cgroups() -> Result<String, String> {
    // Threads may probe at once, each with a group that no other makes.
    static PROBES: AtomicU64 = AtomicU64::new(0);
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let root = cgroup_root(&mounts).ok_or("not mounted")?;
    let number = PROBES.fetch_add(1, Ordering::Relaxed);
    let name = format!("wavetank-probe-{}-{number}", std::process::id());
    let probe = Path::new(root).join(name);
    std::fs::create_dir(&probe)
        .and_then(|()| std::fs::remove_dir(&probe))
        .map_err(|error| format!("{root}: {error}"))?;
    Ok(root.to_owned())
}

/// Where memory is limited: the memory controller of version 1, else version 2.
fn cgroup_root(mounts: &str) -> Option<&str> {
    let rows: Vec<Vec<&str>> = mounts
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let of = |kind: &str, option: &str| {
        let found = rows.iter().find(|row| {
            row.get(2) == Some(&kind) && row.get(3).is_some_and(|options| options.contains(option))
        });
        found.and_then(|row| row.get(1).copied())
    };
    of("cgroup", "memory").or_else(|| of("cgroup2", ""))
}

fn of_result(need: &str, found: &Result<String, String>, fix: &str) -> Finding {
    let (Ok(said) | Err(said)) = found;
    finding(need, found.is_ok(), said, fix)
}

fn finding(need: &str, ok: bool, found: &str, fix: &str) -> Finding {
    Finding {
        need: need.to_owned(),
        ok,
        vital: true,
        found: found.to_owned(),
        fix: if ok { String::new() } else { fix.to_owned() },
    }
}

#[cfg(test)]
mod tests {
    use super::cgroup_root;

    /// Tests of several runtimes look at one machine at once.
    #[test]
    fn threads_that_look_at_once_see_the_same() {
        let alone = super::cgroups();
        let looks = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| (0..50).map(|_| super::cgroups()).collect::<Vec<_>>()))
                .collect();
            let of = |thread: std::thread::ScopedJoinHandle<'_, Vec<_>>| thread.join();
            threads.into_iter().map(of).collect::<Vec<_>>()
        });
        for look in looks.into_iter().flat_map(Result::unwrap) {
            assert_eq!(look, alone);
        }
    }

    #[test]
    fn the_memory_controller_of_version_1_goes_before_version_2() {
        let v2 = "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let v1 = "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                  cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n";
        assert_eq!(cgroup_root(v2), Some("/sys/fs/cgroup/unified"));
        assert_eq!(
            cgroup_root(&format!("{v2}{v1}")),
            Some("/sys/fs/cgroup/memory")
        );
        assert_eq!(cgroup_root("proc /proc proc rw 0 0\n"), None);
    }
}
