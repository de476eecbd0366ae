//! The end of a container's process: recorded once, told once, whoever comes to do it.

use std::io;

use wavetank_port::{ExitCode, ExitStatus, RuntimeEvent, Signal, WallTime};

use crate::cgroup::Cgroup;
use crate::journal::{Entry, Journal};
use crate::process::WaitStatus;
use crate::record::{ContainerFolder, Record, file};
use crate::sealed::{self, Sealed};

/// How a process ended, as far as whoever looks can know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// How; `None` if nobody can know any more.
    pub status: Option<WaitStatus>,
    /// When; `None` if nobody was there.
    pub at: Option<WallTime>,
}

impl End {
    /// An end that nobody saw.
    pub const UNKNOWN: End = End {
        status: None,
        at: None,
    };
}

/// Whether somebody else may have told of this end before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling {
    /// The only one who can know.
    First,
    /// Perhaps finishes what a killed monitor began.
    Again,
}

/// Records the end unless it is recorded, tells of it unless it is told, and says what stands.
pub fn record(
    folder: &ContainerFolder,
    record: &Record,
    end: End,
    telling: Telling,
) -> io::Result<ExitStatus> {
    let exit = ExitStatus {
        code: end.status.map_or(ExitCode::Unknown, WaitStatus::code),
        exited_at: end.at,
        oom_killed: is_oom(record, end)?,
    };
    sealed::create_once(folder.path(), file::EXIT, &exit)?;
    let exit = match sealed::read(folder.path(), file::EXIT)? {
        Sealed::Valid(standing) => standing,
        Sealed::Damaged(_) | Sealed::Absent => {
            sealed::replace(folder.path(), file::EXIT, &exit)?;
            exit
        }
    };
    tell(folder, record, exit, telling)?;
    Ok(exit)
}

/// The kernel counts its kills for memory by cgroup, not by process: the counter means this
/// process only if a SIGKILL ended it.
fn is_oom(record: &Record, end: End) -> io::Result<bool> {
    let signal = end.status.and_then(WaitStatus::signal);
    let killed = signal == Some(Signal::Kill.number());
    Ok(killed && Cgroup::open(&record.cgroup)?.oom_kills() > 0)
}

/// Appends the event to the journal. What never started has no exit event.
pub fn tell(
    folder: &ContainerFolder,
    record: &Record,
    exit: ExitStatus,
    telling: Telling,
) -> io::Result<()> {
    if !folder.facts()?.started.exists() {
        return Ok(());
    }
    let entry = Entry {
        incarnation: record.incarnation.clone(),
        event: RuntimeEvent::Exited {
            id: record.spec.id.clone(),
            exit,
        },
    };
    let journal = Journal::open(&record.journal)?;
    match telling {
        Telling::First => journal.append(&entry),
        Telling::Again => journal.append_once(&entry),
    }
}
