//! Commands in a running container: the adapter's side, see `monitor::exec` for the other.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::process::Stdio;

use oci_spec::runtime::{Process, Spec};
use rustix::pipe::{PipeFlags, pipe_with};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::net::unix::pipe::Receiver;
use wavetank_port::observe::EXEC_OUTPUT_BYTES_MAX;
use wavetank_port::{ErrorClass, ExecRequest, ExecResult, ExitCode, RuntimeError};

use crate::adapter::Shared;
use crate::deadline::{Result, blocking, unknown};
use crate::monitor::protocol::LINE_BYTES_MAX;
use crate::monitor::{Duty, ExecReply, code_of_refusal};
use crate::monitor_client::spawn_with;
use crate::record::{ContainerFolder, file};
use crate::view::View;

impl Shared {
    /// Runs a command in the container of `view`, which runs. Dropped, it kills the command.
    pub(crate) async fn exec(&self, view: &View, request: &ExecRequest) -> Result<ExecResult> {
        if request.command.is_empty() {
            let message = "there is no command".to_owned();
            return Err(RuntimeError::new(ErrorClass::InvalidArgument, message));
        }
        let (folder, command) = (view.folder.clone(), request.command.clone());
        let folder = blocking(move || prepare(&folder, command).map_err(|it| unknown(&it))).await?;
        let mut command = Running::start(self, folder)?;
        match tokio::time::timeout(request.timeout, command.finish()).await {
            Ok(result) => result,
            Err(_) => {
                command.give_up().await?;
                let message = format!("the command took longer than {:?}", request.timeout);
                Err(RuntimeError::new(ErrorClass::DeadlineExceeded, message))
            }
        }
    }
}

/// A folder in the container's with the process to run: the container's own, with other arguments.
fn prepare(container: &ContainerFolder, command: Vec<String>) -> io::Result<TempDir> {
    let folder = tempfile::Builder::new()
        .prefix("exec.")
        .tempdir_in(container.path())?;
    let config = fs::read(container.join(file::BUNDLE).join("config.json"))?;
    let spec: Spec = serde_json::from_slice(&config)?;
    let mut process: Process = spec.process().clone().unwrap_or_default();
    process.set_args(Some(command));
    let process = serde_json::to_vec(&process)?;
    fs::write(folder.path().join("process.json"), process)?;
    Ok(folder)
}

/// A command under way.
struct Running {
    reply: BufReader<tokio::io::Take<OwnedReadHalf>>,
    /// Closing it makes the monitor kill the command.
    patience: tokio::net::unix::OwnedWriteHalf,
    stdout: Output,
    stderr: Output,
}

impl Running {
    fn start(shared: &Shared, folder: TempDir) -> Result<Self> {
        let failed = |error: io::Error| unknown(&error);
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(failed)?;
        ours.set_nonblocking(true).map_err(failed)?;
        let ours = UnixStream::from_std(ours).map_err(failed)?;
        let (stdout, their_stdout) = Output::new().map_err(failed)?;
        let (stderr, their_stderr) = Output::new().map_err(failed)?;
        let mut command = shared.config.monitor.command(Duty::Exec, folder.path());
        command.stdout(Stdio::from(their_stdout));
        command.stderr(Stdio::from(their_stderr));
        let mut child = spawn_with(command, OwnedFd::from(theirs))?;
        tokio::spawn(async move {
            // An error leaves the reaping to the async runtime.
            let _ = child.wait().await;
            drop(folder);
        });
        let (read, patience) = ours.into_split();
        Ok(Running {
            reply: BufReader::new(read.take(LINE_BYTES_MAX as u64)),
            patience,
            stdout,
            stderr,
        })
    }

    /// Reads both outputs until the command has ended. Its children may keep them open; what they
    /// write afterwards is not waited for.
    async fn finish(&mut self) -> Result<ExecResult> {
        let mut line = String::new();
        {
            let reply = self.reply.read_line(&mut line);
            tokio::pin!(reply);
            loop {
                tokio::select! {
                    biased;
                    read = &mut reply => {
                        read.map_err(|error| unknown(&error))?;
                        break;
                    }
                    () = self.stdout.pump(), if !self.stdout.is_closed => {}
                    () = self.stderr.pump(), if !self.stderr.is_closed => {}
                }
            }
        }
        let code = code(&line)?;
        Ok(ExecResult {
            code,
            stdout: self.stdout.take_rest(),
            stderr: self.stderr.take_rest(),
        })
    }

    /// Has the command killed, and waits until it is.
    async fn give_up(&mut self) -> Result<()> {
        let failed = |error: io::Error| unknown(&error);
        self.patience.shutdown().await.map_err(failed)?;
        let mut rest = Vec::new();
        self.reply.read_to_end(&mut rest).await.map_err(failed)?;
        Ok(())
    }
}

fn code(line: &str) -> Result<ExitCode> {
    let reply: ExecReply = serde_json::from_str(line).map_err(|error| {
        let message = format!("the command's monitor died: {error}");
        RuntimeError::new(ErrorClass::Unavailable, message)
    })?;
    match reply {
        ExecReply::Ended(code) => Ok(code),
        ExecReply::Failed(error) => code_of_refusal(&error).ok_or(error),
    }
}

/// One of the command's outputs.
struct Output {
    pipe: Receiver,
    kept: Vec<u8>,
    is_closed: bool,
}

impl Output {
    fn new() -> io::Result<(Self, OwnedFd)> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        let output = Output {
            pipe: Receiver::from_owned_fd(read)?,
            kept: Vec::new(),
            is_closed: false,
        };
        Ok((output, write))
    }

    async fn pump(&mut self) {
        match self.pipe.readable().await {
            Ok(()) => {
                self.read_once();
            }
            Err(_) => self.is_closed = true,
        }
    }

    /// True if there was something.
    fn read_once(&mut self) -> bool {
        let mut piece = [0; 16 << 10];
        match self.pipe.try_read(&mut piece) {
            Ok(0) => self.is_closed = true,
            Ok(length) => {
                let room = EXEC_OUTPUT_BYTES_MAX - self.kept.len();
                self.kept.extend_from_slice(&piece[..length.min(room)]);
                return true;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.is_closed = true,
        }
        false
    }

    /// All that was written before the end is in the pipe by now.
    fn take_rest(&mut self) -> Vec<u8> {
        let mut left = EXEC_OUTPUT_BYTES_MAX;
        while !self.is_closed && left > 0 && self.read_once() {
            left -= 1;
        }
        std::mem::take(&mut self.kept)
    }
}
