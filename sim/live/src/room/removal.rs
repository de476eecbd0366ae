//! Takes a room away by what its ledger says, whoever made it and however far it came.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::{UnmountFlags, unmount};
use wavetank_fixtures::daemon::{containerd, podman, process, sweep};

use super::error::RoomError;
use super::layout::Host;
use super::ledger::Ledger;
use super::{members, switch};

/// How often it is tried to unmount everything.
const ROUNDS_MAX: u32 = 100;

/// What was removed of a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// The room's name.
    pub run: String,
    /// Where it was.
    pub directory: PathBuf,
    /// For a person, in the order in which it went.
    pub what: Vec<String>,
    /// What could not be removed.
    pub left: Vec<String>,
}

impl fmt::Display for Removed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "room {} in {}", self.run, self.directory.display())?;
        for what in &self.what {
            write!(f, "\n  removed {what}")?;
        }
        for left in &self.left {
            write!(f, "\n  could not remove {left}")?;
        }
        Ok(())
    }
}

impl Removed {
    /// Whether nothing of the room is left.
    pub fn is_complete(&self) -> bool {
        self.left.is_empty()
    }

    fn note(&mut self, step: Result<Step, RoomError>) {
        match step {
            Ok(step) => {
                self.what.extend(step.removed);
                self.left.extend(step.left);
            }
            Err(error) => self.left.push(in_full(&error)),
        }
    }
}

/// What one step did.
#[derive(Debug, Default)]
pub(crate) struct Step {
    pub(crate) removed: Vec<String>,
    pub(crate) left: Vec<String>,
}

/// Removes everything that the ledger names. What is gone already is no error, and a step that
/// fails keeps no other from being tried.
pub(crate) fn remove(ledger: &Ledger) -> Removed {
    let layout = &ledger.layout;
    let hosts: Vec<Host> = layout.hosts().collect();
    let mut removed = Removed {
        run: layout.run.clone(),
        directory: layout.directory.clone(),
        what: Vec::new(),
        left: Vec::new(),
    };
    removed.note(end_processes(&hosts));
    for host in &hosts {
        removed.note(sweep_runtimes(host));
    }
    for name in &ledger.cgroups {
        removed.note(remove_cgroups(name));
    }
    removed.note(unmount_all(&layout.directory, &[]));
    removed.note(switch::remove(layout));
    // Else what is mounted there would be emptied.
    if layout.is_temporary && removed.is_complete() {
        removed.note(remove_folder(&layout.directory));
    }
    removed
}

fn end_processes(hosts: &[Host]) -> Result<Step, RoomError> {
    let killed = members::kill(hosts).map_err(RoomError::file("read", "/proc"))?;
    let left = killed.iter().filter(|it| it.is_alive());
    Ok(Step {
        left: left.map(members::describe).collect(),
        removed: killed.iter().map(members::describe).collect(),
    })
}

fn remove_folder(folder: &Path) -> Result<Step, RoomError> {
    let removed = match fs::remove_dir_all(folder) {
        Ok(()) => vec![format!("folder {}", folder.display())],
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(RoomError::file("remove", folder)(error)),
    };
    Ok(Step {
        removed,
        left: Vec::new(),
    })
}

/// An error with its causes.
fn in_full(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", in_full(source)),
        None => error.to_string(),
    }
}

/// What runtimes left in memory and in folders that daemons share.
fn sweep_runtimes(host: &Host) -> Result<Step, RoomError> {
    let mut step = Step::default();
    let directory = host.containerd();
    let namespaces = [host.namespace.clone()];
    step.left.extend(
        containerd::sweep_daemon(&directory, &namespaces)
            .map_err(RoomError::file("clean up", &directory))?,
    );
    let directory = host.podman();
    step.left.extend(
        podman::sweep_service(&directory).map_err(RoomError::file("clean up", &directory))?,
    );
    Ok(step)
}

/// Kills what is in control groups of this name and removes them.
fn remove_cgroups(name: &str) -> Result<Step, RoomError> {
    let there = sweep::cgroups(name).map_err(RoomError::file("find cgroup", name))?;
    let left = sweep::remove_cgroups(name).map_err(RoomError::file("remove cgroup", name))?;
    let describe = |it: &PathBuf| format!("cgroup {}", it.display());
    Ok(Step {
        removed: there.iter().map(describe).collect(),
        left: left.iter().map(describe).collect(),
    })
}

/// Unmounts all that is below a folder but for what is to be kept.
pub(crate) fn unmount_all(folder: &Path, kept: &[PathBuf]) -> Result<Step, RoomError> {
    let find = || -> Result<Vec<PathBuf>, RoomError> {
        let mounts = process::mounts_below(folder);
        let mounts = mounts.map_err(RoomError::file("find mounts below", folder))?;
        Ok(mounts.into_iter().filter(|it| !kept.contains(it)).collect())
    };
    let describe = |it: &PathBuf| format!("mount {}", it.display());
    let there = find()?;
    for _ in 0..ROUNDS_MAX {
        for mount in find()?.iter().rev() {
            // Detached: it goes away even while somebody still looks at it. One that went with
            // another is an error that the next look clears up.
            let _ = unmount(mount, UnmountFlags::DETACH);
        }
        if find()?.is_empty() {
            break;
        }
    }
    Ok(Step {
        removed: there.iter().map(describe).collect(),
        left: find()?.iter().map(describe).collect(),
    })
}
