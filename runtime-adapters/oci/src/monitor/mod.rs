//! The monitor: one long-lived process per container, the parent of the container's process.
//!
//! It is forked first and becomes a subreaper, so that the process that the OCI runtime leaves
//! behind becomes its child and nobody else can take the exit status. It creates and starts on
//! command ([`protocol`]), writes what the process says to the log, waits, records the end and
//! goes away. It needs nobody: whoever asked for it may die at any time.
//!
//! A killed monitor takes nothing with it. The outputs are FIFOs that the container itself also
//! holds open for reading, so that it meets no broken pipe; a new monitor takes over by the
//! `adopt` command. Not being the parent, it knows the exit code only where the kernel tells
//! others, see [`crate::process::ProcessIdentity::status_of_ended`].
//!
//! # How it is run
//! Any program that uses this crate calls [`main_if_asked`] first in its `main` and is then its own
//! monitor, by executing itself again: one file to install, and a monitor is always of the same
//! version as its adapter, even when the file is replaced meanwhile. A program that cannot do so
//! (a test, a plugin) names another one that does, such as `wavetank-monitor`.

mod exec;
mod outputs;
pub mod protocol;
mod server;
mod starting;

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

pub use exec::{ExecReply, code_of_refusal};
pub use outputs::{create_fifos, fifo_names};

/// The first argument of a monitor, and its name in a process list.
pub const ASKED: &str = "wavetank-monitor";

/// The same as the kernel keeps it, which is 15 bytes at most.
const THREAD_NAME: &std::ffi::CStr = c"wt-monitor";

/// Which program to run as a monitor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MonitorProgram {
    /// The one that runs now. Its `main` must begin with [`main_if_asked`].
    CurrentExecutable,
    /// Another one whose `main` begins with [`main_if_asked`].
    Program(PathBuf),
}

/// What a monitor process is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// Watch a container; takes the listening socket as its standard input.
    Watch,
    /// Run one command in a container; takes a connected socket as its standard input.
    Exec,
}

impl Duty {
    fn name(self) -> &'static str {
        match self {
            Duty::Watch => "watch",
            Duty::Exec => "exec",
        }
    }
}

impl MonitorProgram {
    /// The command that runs a monitor for the container in `folder`, with no output connected.
    pub fn command(&self, duty: Duty, folder: &Path) -> Command {
        let mut command = match self {
            // By this link rather than by name: it still means this program when the file at its
            // place has been replaced or removed.
            MonitorProgram::CurrentExecutable => Command::new("/proc/self/exe"),
            MonitorProgram::Program(path) => Command::new(path),
        };
        // The name that a process list shows.
        command.arg0(ASKED);
        command.args([ASKED, duty.name()]).arg(folder);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.current_dir("/");
        command
    }
}

/// Call this first in `main`: `Some` says that this process was a monitor and is done.
pub fn main_if_asked() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != ASKED {
        return None;
    }
    Some(match main(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody listens, unless a person runs it by hand.
            eprintln!("{ASKED}: {error}");
            ExitCode::FAILURE
        }
    })
}

fn main(mut arguments: impl Iterator<Item = OsString>) -> std::io::Result<()> {
    let duty = arguments.next().unwrap_or_default();
    let folder = arguments.next().map(PathBuf::from).unwrap_or_default();
    rustix::thread::set_name(THREAD_NAME)?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    if duty == Duty::Watch.name() {
        // A session of its own: no signal to the caller's group or terminal reaches it.
        rustix::process::setsid()?;
        server::watch(&folder)
    } else if duty == Duty::Exec.name() {
        exec::exec(&folder)
    } else {
        Err(std::io::Error::other(format!(
            "no such duty: {}",
            duty.display()
        )))
    }
}
