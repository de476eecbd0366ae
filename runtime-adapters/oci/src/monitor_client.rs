//! The adapter's side of a monitor: run one, ask one.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Stdio;

use rustix::fs::{Mode, OFlags, open};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use wavetank_port::{ErrorClass, RuntimeError};

use crate::deadline::{Result, unknown};
use crate::monitor::protocol::{LINE_BYTES_MAX, Reply, Request, VERSION, Verb};
use crate::monitor::{Duty, MonitorProgram};
use crate::record::{ContainerFolder, file};

/// Runs a monitor that listens on the socket in `folder`. It is our child only so that we reap it:
/// it needs us for nothing.
pub fn spawn(program: &MonitorProgram, folder: &ContainerFolder) -> Result<Child> {
    let listener = listen(folder).map_err(|error| unknown(&error))?;
    let command = program.command(Duty::Watch, folder.path());
    spawn_with(command, OwnedFd::from(listener))
}

/// Runs a monitor process with `stdin` and nothing of our environment but `PATH`.
pub fn spawn_with(mut command: std::process::Command, stdin: OwnedFd) -> Result<Child> {
    command.env_clear();
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command.stdin(Stdio::from(stdin));
    Command::from(command).spawn().map_err(|error| {
        let message = format!("the monitor cannot be run: {error}");
        RuntimeError::new(ErrorClass::Unavailable, message)
    })
}

/// Where the socket is, by way of an open folder: a socket's path has at most 107 bytes.
struct Address {
    folder: OwnedFd,
}

impl Address {
    fn of(folder: &ContainerFolder) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Address {
            folder: open(folder.path(), flags, Mode::empty())?,
        })
    }

    fn path(&self) -> PathBuf {
        let folder = self.folder.as_raw_fd();
        PathBuf::from(format!("/proc/self/fd/{folder}/{}", file::SOCKET))
    }
}

fn listen(folder: &ContainerFolder) -> io::Result<UnixListener> {
    // Of an earlier monitor.
    match fs::remove_file(folder.join(file::SOCKET)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    UnixListener::bind(Address::of(folder)?.path())
}

/// Has the container's monitor do something. `Unavailable`: it is dead, or died over it.
pub async fn ask(folder: &ContainerFolder, verb: Verb) -> Result<()> {
    let line = exchange(folder, verb).await.map_err(|error| {
        let message = format!("the container's monitor does not answer: {error}");
        RuntimeError::new(ErrorClass::Unavailable, message)
    })?;
    let reply: Reply = serde_json::from_str(&line).map_err(|error| {
        let message = format!("the container's monitor answers in an unknown way: {error}");
        RuntimeError::new(ErrorClass::Unavailable, message)
    })?;
    reply.error.map_or(Ok(()), Err)
}

async fn exchange(folder: &ContainerFolder, verb: Verb) -> io::Result<String> {
    let address = Address::of(folder)?;
    let mut stream = UnixStream::connect(address.path()).await?;
    let request = Request {
        version: VERSION,
        verb,
    };
    let mut line = serde_json::to_vec(&request)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    let mut reply = String::new();
    BufReader::new(stream.take(LINE_BYTES_MAX as u64))
        .read_line(&mut reply)
        .await?;
    if !reply.ends_with('\n') {
        return Err(io::Error::other("it hung up"));
    }
    Ok(reply)
}
