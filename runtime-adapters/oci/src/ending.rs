//! The end of a container's process: recorded once, told once, whoever comes to do it.

use std::io;

use wavetank_port::{ExitCode, ExitStatus, RuntimeEvent, Signal, WallTime};

use crate::cgroup::Cgroup;
use crate::journal::{Entry, Journal};
use crate::process::WaitStatus;
use crate::record::{ContainerFolder, Record, StartedRecord, file};
use crate::sealed::{self, Outlives, Sealed};

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

/// Records a start that took place, and tells of it.
pub fn record_start(
    folder: &ContainerFolder,
    record: &Record,
    started: StartedRecord,
    telling: Telling,
) -> io::Result<()> {
    sealed::create_once(folder.path(), file::STARTED, &started)?;
    let facts = folder.facts()?;
    let entry = Entry {
        incarnation: record.incarnation.clone(),
        event: RuntimeEvent::Started {
            id: record.spec.id.clone(),
            pid: facts.identity().map_or(0, |identity| identity.pid),
            at: started.at,
        },
    };
    append(&Journal::open(&record.journal)?, &entry, telling)
}

fn append(journal: &Journal, entry: &Entry, telling: Telling) -> io::Result<()> {
    match telling {
        Telling::First => journal.append(entry),
        Telling::Again => journal.append_once(entry),
    }
}

/// A monitor may have died between the start and its record, or between that and its telling.
/// The process has ended since, so nobody can ask any more: what was asked for is taken for done.
fn complete_start(folder: &ContainerFolder, record: &Record, telling: Telling) -> io::Result<()> {
    let facts = folder.facts()?;
    match (facts.started, facts.starting) {
        (Sealed::Absent, Sealed::Valid(started)) => {
            record_start(folder, record, started, Telling::Again)
        }
        (Sealed::Valid(started), _) if telling == Telling::Again => {
            record_start(folder, record, started, Telling::Again)
        }
        _ => Ok(()),
    }
}

/// Records the end unless it is recorded, tells of it unless it is told, and says what stands.
pub fn record(
    folder: &ContainerFolder,
    record: &Record,
    end: End,
    telling: Telling,
) -> io::Result<ExitStatus> {
    complete_start(folder, record, telling)?;
    let exit = ExitStatus {
        code: end.status.map_or(ExitCode::Unknown, WaitStatus::code),
        exited_at: end.at,
        oom_killed: is_oom(record, end)?,
    };
    sealed::create_once(folder.path(), file::EXIT, &exit)?;
    let exit = match sealed::read(folder.path(), file::EXIT)? {
        Sealed::Valid(standing) => standing,
        Sealed::Damaged(_) | Sealed::Absent => {
            sealed::replace(folder.path(), file::EXIT, &exit, Outlives::PowerLoss)?;
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
    append(&Journal::open(&record.journal)?, &entry, telling)
}
