//! What can go wrong with a room, in words that say what to do about it.

use std::io;
use std::path::PathBuf;

use wavetank_fixtures::DaemonError;

/// Why something could not be done in or with a room.
#[derive(Debug, thiserror::Error)]
pub enum RoomError {
    /// This machine or this user cannot have rooms.
    #[error("this machine cannot have rooms of hosts: {what}; {hint}")]
    Unable {
        /// What is missing.
        what: String,
        /// What to do about it.
        hint: String,
    },
    /// The kernel here cannot do one kind of fault.
    #[error("{what} cannot be done on this machine: {hint}")]
    Unsupported {
        /// Which fault, for whom.
        what: String,
        /// What is missing.
        hint: String,
    },
    /// A tool of the system failed.
    #[error("`{command}` failed ({status}): {stderr}")]
    Tool {
        /// The command line.
        command: String,
        /// How it ended.
        status: String,
        /// What it said, with its input if it had some.
        stderr: String,
    },
    /// A file, folder, mount or namespace could not be worked on.
    #[error("could not {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A link that was plugged in does not carry anything.
    #[error("the link of {host} did not come up: {state}")]
    NotUp {
        /// Whose.
        host: String,
        /// What the system says about it.
        state: String,
    },
    /// What was asked for makes no sense.
    #[error("{what}; {hint}")]
    Invalid {
        /// What is wrong.
        what: String,
        /// What would be right.
        hint: String,
    },
    /// There is no such host.
    #[error("there is no host `{host}` in this room; there are {known}")]
    UnknownHost {
        /// The name that was asked for.
        host: String,
        /// All names.
        known: String,
    },
    /// A program could not be started on a host.
    #[error("`{program}` could not be started on {host}")]
    Spawn {
        /// Which program.
        program: String,
        /// Where.
        host: String,
        /// Why not.
        source: io::Error,
    },
    /// No daemon was started on a host, or none that is meant.
    #[error("{host} has no runtime daemon; start one first")]
    NoDaemon {
        /// Where.
        host: String,
    },
    /// A container has no monitor, at least no longer.
    #[error("container `{container}` on {host} has no monitor")]
    NoMonitor {
        /// Which container.
        container: String,
        /// Where.
        host: String,
    },
    /// A runtime daemon did not do what it was made to.
    #[error("the runtime daemon of {host} failed")]
    Daemon {
        /// Where.
        host: String,
        /// Why.
        source: DaemonError,
    },
    /// Something did not stop or go away although it was made to.
    #[error("{what} of {host} did not go away: {}", left.join(", "))]
    Left {
        /// What was done.
        what: &'static str,
        /// Where.
        host: String,
        /// What is left.
        left: Vec<String>,
    },
    /// The work was cut short because its runtime ended.
    #[error("the work was cut short: the harness is ending")]
    CutShort,
}

impl RoomError {
    /// For `map_err` on work with files.
    pub(crate) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> RoomError {
        let path = path.into();
        move |source| RoomError::File {
            action,
            path,
            source,
        }
    }
}

/// Does what blocks where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RoomError> + Send + 'static,
) -> Result<T, RoomError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(RoomError::CutShort),
        },
    }
}
