//! Whether a runtime can be tested on this machine, and if not, why and what helps.

use std::path::{Path, PathBuf};

use rustix::process::geteuid;
use serde::Serialize;
use wavetank_fixtures::test_image::test_program;

use crate::bed::CALL;
use crate::run::Bench;

/// The one command that makes a Debian machine ready.
const SET_UP: &str = "run `ci/setup-runtimes`";

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

/// Looks at what a runtime needs without starting it.
pub fn prerequisites(runtime: &'static str) -> Examination {
    let findings: Vec<Finding> = match runtime {
        "containerd" => real(&[&["containerd"], &["containerd-shim-runc-v2"], &["runc"]]),
        "podman" => {
            let mut findings = real(&[&["podman"], &["conmon"], &["runc", "crun"]]);
            findings.push(kernel_log());
            findings
        }
        "oci" => real(&[&["runc", "crun", "youki"]]),
        _ => Vec::new(),
    };
    Examination {
        runtime,
        usable: !findings.iter().any(Finding::stops),
        version: None,
        findings,
    }
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

/// What every real runtime needs, and one of each of these programs.
fn real(programs: &[&[&str]]) -> Vec<Finding> {
    let mut findings = vec![root(), cgroups(), image_program()];
    findings.extend(programs.iter().map(|names| program(names)));
    findings
}

fn root() -> Finding {
    let user = geteuid();
    finding(
        "root",
        user.is_root(),
        &format!("user {}", user.as_raw()),
        "run as root",
    )
}

/// Podman before 5.0 does not say that a container was killed for memory; the kernel does.
fn kernel_log() -> Finding {
    let path = "/dev/kmsg";
    let opened = std::fs::File::open(path);
    let found = opened
        .as_ref()
        .map_or_else(|error| error.to_string(), |_| path.to_owned());
    let fix = "let this machine read /dev/kmsg; without it, case 49 (out of memory) fails";
    Finding {
        vital: false,
        ..finding("kernel log", opened.is_ok(), &found, fix)
    }
}

fn image_program() -> Finding {
    let built = test_program();
    let found = built.map_or_else(|error| error.to_string(), |_| "built".to_owned());
    let fix = "install libc6-dev and build again";
    finding("test program", built.is_ok(), &found, fix)
}

/// One of `names` is in the PATH.
fn program(names: &[&str]) -> Finding {
    let need = names.join(" or ");
    match names.iter().find_map(|name| find_in_path(name)) {
        Some(path) => finding(&need, true, &path.display().to_string(), ""),
        None => finding(&need, false, "not in PATH", SET_UP),
    }
}

fn find_in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
}

/// Containers need groups of their own: a group can be made and removed.
fn cgroups() -> Finding {
    let fix = "give this machine writable cgroups, as a privileged container has them";
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let Some(root) = cgroup_root(&mounts) else {
        return finding("cgroups", false, "not mounted", fix);
    };
    let probe = Path::new(root).join(format!("wavetank-probe-{}", std::process::id()));
    let tried = std::fs::create_dir(&probe).and_then(|()| std::fs::remove_dir(&probe));
    match tried {
        Ok(()) => finding("cgroups", true, root, ""),
        Err(error) => finding("cgroups", false, &format!("{root}: {error}"), fix),
    }
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
