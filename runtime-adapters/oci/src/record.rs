//! What is known about one container on disk: its folder, the files in it, and what they say
//! together.
//!
//! Each file has one writer and is written once: `record` by the creator; `process`, `started`,
//! `refused` and `exit` by the monitor (`exit` by whoever finds that there is none any more);
//! `monitor` by each monitor in turn; `deleting` by the deleter. Nothing is kept in memory.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use wavetank_port::{ContainerId, ContainerSpec, ExitStatus, RuntimeError, WallTime};

use crate::process::ProcessIdentity;
use crate::sealed::{self, Outlives, Sealed};

/// The container as it was asked for, and all that a monitor or a deleter needs to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// As given to `create`.
    pub spec: ContainerSpec,
    /// Tells this container from an earlier or later one with the same id.
    pub incarnation: String,
    /// Digest of the image's manifest.
    pub image_digest: String,
    /// The fully qualified name of the image.
    pub image_reference: String,
    /// Digests of the unpacked layers, lowest first.
    pub layers: Vec<String>,
    /// The number of the signal that a stop sends first.
    pub stop_signal: i32,
    /// The OCI runtime's binary.
    pub runtime: PathBuf,
    /// The OCI runtime's `--root`.
    pub runtime_root: PathBuf,
    /// The folder of the journal of events.
    pub journal: PathBuf,
    /// Its cgroup, from the root of each hierarchy.
    pub cgroup: String,
}

/// Its process, written once the OCI runtime has created it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRecord {
    /// Which process.
    pub identity: ProcessIdentity,
}

/// The start, written once the OCI runtime has started the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartedRecord {
    /// When the start was asked for: never after the exit.
    pub at: WallTime,
}

/// A file by its name and meaning.
pub mod file {
    /// [`super::Record`], twice: without it nobody could say whose container this is.
    pub const RECORD: &str = "record";
    /// [`crate::process::ProcessIdentity`] of the monitor, twice; it takes them away when all is
    /// recorded and told.
    pub const MONITOR: &str = "monitor";
    /// [`super::ProcessRecord`], twice: without it a living process would be taken for ended.
    pub const PROCESS: &str = "process";
    /// [`super::StartedRecord`] of a start that has been asked of the OCI runtime. If a monitor
    /// dies over it, whoever comes next must find out whether it took place.
    pub const STARTING: &str = "starting";
    /// [`super::StartedRecord`].
    pub const STARTED: &str = "started";
    /// A [`wavetank_port::RuntimeError`]: the program cannot be run, so a start must fail.
    pub const REFUSED: &str = "refused";
    /// A [`wavetank_port::ExitStatus`].
    pub const EXIT: &str = "exit";
    /// Empty: the container is being removed and no longer shown.
    pub const DELETING: &str = "deleting";
    /// Where the monitor takes commands.
    pub const SOCKET: &str = "monitor.sock";
    /// What the process wrote, see [`crate::log_file`].
    pub const LOG: &str = "log";
    /// The OCI bundle.
    pub const BUNDLE: &str = "bundle";
    /// What the OCI runtime says when it fails.
    pub const RUNTIME_LOG: &str = "runtime.log";
    /// The pid file that the OCI runtime writes. A folder instead: the container is being removed
    /// and must not be created any more.
    pub const PID: &str = "pid";
}

/// A container's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerFolder {
    path: PathBuf,
}

impl ContainerFolder {
    /// The folder of `id` below `containers`. The id must be valid, see [`is_valid_id`].
    pub fn new(containers: &Path, id: &ContainerId) -> Self {
        ContainerFolder {
            path: containers.join(&id.0),
        }
    }

    /// A folder by its path.
    pub fn at(path: PathBuf) -> Self {
        ContainerFolder { path }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Where the container's file system is mounted.
    pub fn rootfs(&self) -> PathBuf {
        self.path.join(file::BUNDLE).join("rootfs")
    }

    /// The record, from either copy.
    pub fn record(&self) -> io::Result<Sealed<Record>> {
        sealed::read_either(&self.path, file::RECORD)
    }

    /// Writes both copies of the record.
    pub fn write_record(&self, record: &Record) -> io::Result<()> {
        sealed::replace_both(&self.path, file::RECORD, record, Outlives::PowerLoss)
    }

    /// All that is known.
    pub fn facts(&self) -> io::Result<Facts> {
        // The exit is read last: whoever sees a dead process and then reads no exit would
        // otherwise miss one that was written in between.
        Ok(Facts {
            deleting: self.join(file::DELETING).try_exists()?,
            monitor: sealed::read_either(&self.path, file::MONITOR)?,
            process: sealed::read_either(&self.path, file::PROCESS)?,
            starting: sealed::read(&self.path, file::STARTING)?,
            started: sealed::read(&self.path, file::STARTED)?,
            refused: sealed::read(&self.path, file::REFUSED)?,
            exit: sealed::read(&self.path, file::EXIT)?,
        })
    }
}

/// The files of one container.
#[derive(Debug, PartialEq, Eq)]
pub struct Facts {
    /// It is being removed.
    pub deleting: bool,
    /// Who watches it.
    pub monitor: Sealed<ProcessIdentity>,
    /// Its process.
    pub process: Sealed<ProcessRecord>,
    /// A start that was asked for.
    pub starting: Sealed<StartedRecord>,
    /// Its start.
    pub started: Sealed<StartedRecord>,
    /// Why it can never be started.
    pub refused: Sealed<RuntimeError>,
    /// Its end.
    pub exit: Sealed<ExitStatus>,
}

/// Where a container is in its life, by its files and the process table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its creation has not come to an end.
    HalfMade,
    /// Its process waits to be started.
    Created,
    /// It can only be deleted: its program cannot be run.
    Refused(RuntimeError),
    /// Its process runs, frozen or not.
    Running,
    /// Its process has ended, and nobody has recorded how yet.
    Ending,
    /// Its end is recorded.
    Exited(ExitStatus),
}

impl Facts {
    /// What the files say together with the process table.
    pub fn phase(&self) -> io::Result<Phase> {
        if let Sealed::Valid(exit) = self.exit {
            return Ok(Phase::Exited(exit));
        }
        if let Sealed::Valid(error) = &self.refused {
            return Ok(Phase::Refused(error.clone()));
        }
        let identity = match &self.process {
            Sealed::Valid(process) => &process.identity,
            // A damaged file was whole before a power loss, and no process outlives that.
            Sealed::Damaged(_) => return Ok(Phase::Ending),
            Sealed::Absent if self.started.exists() || self.exit.exists() => {
                return Ok(Phase::Ending);
            }
            Sealed::Absent => return Ok(Phase::HalfMade),
        };
        Ok(match (identity.is_alive()?, self.started.exists()) {
            (true, true) => Phase::Running,
            (true, false) => Phase::Created,
            (false, _) => Phase::Ending,
        })
    }

    /// True while a monitor lives.
    pub fn is_watched(&self) -> io::Result<bool> {
        match &self.monitor {
            Sealed::Valid(monitor) => monitor.is_alive(),
            Sealed::Absent | Sealed::Damaged(_) => Ok(false),
        }
    }

    /// The process, if it is known which.
    pub fn identity(&self) -> Option<&ProcessIdentity> {
        match &self.process {
            Sealed::Valid(process) => Some(&process.identity),
            Sealed::Absent | Sealed::Damaged(_) => None,
        }
    }

    /// When it was started, if it was and that is known.
    pub fn started_at(&self) -> Option<WallTime> {
        match &self.started {
            Sealed::Valid(started) => Some(started.at),
            Sealed::Absent | Sealed::Damaged(_) => None,
        }
    }
}

/// The longest id. File names and cgroup names end at 255 bytes.
const ID_BYTES_MAX: usize = 200;

/// True for what is a safe name of a folder, a cgroup and an OCI container: begins with a letter or
/// digit, goes on with those and `_`, `.`, `-`.
pub fn is_valid_id(id: &ContainerId) -> bool {
    let mut bytes = id.0.bytes();
    let begins_well = bytes
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric());
    let goes_on_well = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    begins_well && bytes.all(goes_on_well) && id.0.len() <= ID_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use wavetank_port::ContainerId;

    use super::is_valid_id;

    #[test]
    fn ids_that_could_leave_their_folder_are_refused() {
        let long = "a".repeat(201);
        for bad in ["", ".", "..", "../x", "a/b", "-a", "a b", "a\0", "ä", &long] {
            assert!(!is_valid_id(&ContainerId(bad.to_owned())), "{bad:?}");
        }
        for good in ["a", "7", "web-1.b_C", &long[..200]] {
            assert!(is_valid_id(&ContainerId(good.to_owned())), "{good:?}");
        }
    }
}
