//! One command in a running container, run for an adapter that may die or lose patience: then the
//! command is killed.
//!
//! A process of its own, because only a subreaper gets the exact exit status of what
//! `exec --detach` leaves behind, and a library has no business to make its program one.

use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};
use wavetank_port::{ErrorClass, ExitCode, RuntimeError};

use crate::process::{WaitStatus, has_ended, kill_handle, open_pid, wait_for_child};
use crate::record::{ContainerFolder, file};
use crate::runtime_binary::{RuntimeBinary, run_with_log};
use crate::sealed::Sealed;

/// How a command ended; one line of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExecReply {
    /// It ran.
    Ended(ExitCode),
    /// It could not be run.
    Failed(RuntimeError),
}

/// Runs the process that `folder/process.json` describes. `folder` lies in the container's; our
/// standard input is the caller's socket, our outputs are the command's.
pub fn exec(folder: &Path) -> io::Result<()> {
    let mut caller = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let reply = match run(folder, &caller)? {
        Ok(code) => ExecReply::Ended(code),
        Err(error) => ExecReply::Failed(error),
    };
    let mut line = serde_json::to_vec(&reply)?;
    line.push(b'\n');
    // The caller may be gone: the command has been killed, and nobody needs to know.
    let _ = caller.write_all(&line);
    Ok(())
}

fn run(folder: &Path, caller: &UnixStream) -> io::Result<Result<ExitCode, RuntimeError>> {
    let container = folder.parent().map(Path::to_owned).unwrap_or_default();
    let container = ContainerFolder::at(container);
    let Sealed::Valid(record) = container.record()? else {
        return Err(io::Error::other("the container has no readable record"));
    };
    let runtime = RuntimeBinary::new(&record.runtime, &record.runtime_root);
    let (log, pid_file) = (folder.join(file::RUNTIME_LOG), folder.join(file::PID));
    let mut command = runtime.command_with_log("exec", &log);
    command.arg("--detach").arg("--pid-file").arg(&pid_file);
    command.arg("--process").arg(folder.join("process.json"));
    command.arg(&record.spec.id.0);
    command.stdout(Stdio::inherit()).stderr(Stdio::inherit());
    if let Err(error) = run_with_log(command, "exec", &log) {
        return Ok(Err(error));
    }
    let pid = std::fs::read_to_string(&pid_file)?;
    let pid: u32 = pid.trim().parse().map_err(io::Error::other)?;
    // It is our child until we have waited for it, so its number is its own.
    let handle = open_pid(pid)?.ok_or_else(|| io::Error::other("the command is gone"))?;
    attend(pid, &handle, caller)?;
    let status = wait_for_child(&handle)?;
    Ok(Ok(status.map_or(ExitCode::Unknown, WaitStatus::code)))
}

/// Waits for the end of the command, or of the caller's patience.
fn attend(pid: u32, handle: &OwnedFd, caller: &UnixStream) -> io::Result<()> {
    let mut fds = [
        PollFd::new(handle, PollFlags::IN),
        PollFd::new(caller, PollFlags::IN),
    ];
    while let Err(error) = poll(&mut fds, None) {
        if error != Errno::INTR {
            return Err(error.into());
        }
    }
    if !has_ended(handle)? {
        kill_group(pid)?;
        kill_handle(handle)?;
    }
    Ok(())
}

/// The OCI runtime makes each command the leader of a session; its children go with it.
fn kill_group(pid: u32) -> io::Result<()> {
    let Some(group) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return Ok(());
    };
    match kill_process_group(group, Signal::KILL) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The codes that a shell has for a program that it cannot run: 127 if there is none, 126 if it
/// is not one.
pub fn code_of_refusal(error: &RuntimeError) -> Option<ExitCode> {
    if error.class != ErrorClass::InvalidArgument {
        return None;
    }
    let absent = ["not found", "no such file"]
        .iter()
        .any(|words| error.message.to_lowercase().contains(words));
    Some(ExitCode::Known(if absent { 127 } else { 126 }))
}
