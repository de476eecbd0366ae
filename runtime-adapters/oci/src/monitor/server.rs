//! The monitor of one container: a loop over its socket, its process and its outputs, in one
//! thread. All waiting is in one poll, so nothing that one of them does holds up another.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, getppid, wait};
use wavetank_port::{ErrorClass, RuntimeError};

use super::outputs::{Outputs, container_end, fifo_names};
use super::protocol::{LINE_BYTES_MAX, Reply, Request, VERSION, Verb};
use super::starting::{Doubt, Starting};
use crate::clock;
use crate::ending::{self, End, Telling};
use crate::process::{ProcessIdentity, has_ended, wait_for_child};
use crate::record::{ContainerFolder, ProcessRecord, Record, file};
use crate::runtime_binary::{RuntimeBinary, is_about_program, run_with_log, timespec};
use crate::sealed::{self, Outlives, Sealed};

/// How long a monitor waits for its first command. Its caller sends it at once or is dead.
const FIRST_COMMAND_WITHIN: Duration = Duration::from_secs(30);

/// The longest sleep of the loop: hung calls and silent connections are looked at this often.
const LOOK_AFTER: Duration = Duration::from_secs(1);

/// How often the end is tried to be recorded again, for example on a full disk.
const RECORD_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Commands that wait at the same time. The adapter sends one at a time.
const CONNECTIONS_MAX: usize = 16;

/// Watches the container in `folder` until it has ended and that is recorded.
pub fn watch(folder: &Path) -> io::Result<()> {
    let folder = ContainerFolder::at(folder.to_owned());
    let Sealed::Valid(record) = folder.record()? else {
        return Err(io::Error::other("the container has no readable record"));
    };
    let ourselves = ProcessIdentity::of_self()?;
    sealed::replace_both(folder.path(), file::MONITOR, &ourselves, Outlives::Crash)?;
    let listener = UnixListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    listener.set_nonblocking(true)?;
    let mut monitor = Monitor {
        caller: getppid(),
        runtime: RuntimeBinary::new(&record.runtime, &record.runtime_root),
        folder,
        record,
        listener,
        connections: Vec::new(),
        watched: None,
        starting: None,
        doubt: None,
    };
    monitor.serve()
}

pub(super) struct Monitor {
    pub(super) folder: ContainerFolder,
    pub(super) record: Record,
    pub(super) runtime: RuntimeBinary,
    listener: UnixListener,
    /// Whoever ran us; somebody else once that one is dead.
    caller: Option<Pid>,
    connections: Vec<Connection>,
    pub(super) watched: Option<Watched>,
    pub(super) starting: Option<Starting>,
    pub(super) doubt: Option<Doubt>,
}

/// The container's process.
pub(super) struct Watched {
    pub(super) identity: ProcessIdentity,
    handle: OwnedFd,
    outputs: Outputs,
    /// False for a monitor that took over.
    is_parent: bool,
}

impl Monitor {
    fn serve(&mut self) -> io::Result<()> {
        let first_command_by = Instant::now() + FIRST_COMMAND_WITHIN;
        loop {
            self.sleep()?;
            self.accept();
            for (connection, request) in self.requests() {
                self.handle(connection, request)?;
            }
            self.finish_start()?;
            self.look_into_doubt()?;
            if let Some(watched) = &mut self.watched {
                watched.outputs.pump();
                if self.starting.is_none() && has_ended(&watched.handle)? {
                    return self.end();
                }
            } else if self.is_over(first_command_by)? {
                return self.leave();
            }
        }
    }

    /// True for a monitor that has nothing to watch and never will.
    fn is_over(&self, first_command_by: Instant) -> io::Result<bool> {
        let facts = self.folder.facts()?;
        let decided = facts.refused.exists() || facts.exit.exists();
        // Only the caller knows that we are here.
        let forgotten = self.connections.is_empty() && getppid() != self.caller;
        Ok(decided || forgotten || Instant::now() >= first_command_by)
    }

    /// Waits until any of our file descriptors has something to say.
    fn sleep(&self) -> io::Result<()> {
        let mut fds = vec![PollFd::new(&self.listener, PollFlags::IN)];
        let connections = self.connections.iter();
        fds.extend(connections.map(|it| PollFd::new(&it.stream, PollFlags::IN)));
        match &self.starting {
            Some(starting) => fds.push(PollFd::new(starting.call().handle(), PollFlags::IN)),
            // An ended process waits for a start under way; looking at it would spin.
            None => {
                let handle = self.watched.as_ref().map(|it| &it.handle);
                fds.extend(handle.map(|it| PollFd::new(it, PollFlags::IN)));
            }
        }
        if let Some(watched) = &self.watched {
            let outputs = watched.outputs.fds();
            fds.extend(outputs.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        }
        match poll(&mut fds, Some(&timespec(self.asks_after(LOOK_AFTER)))) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if self.connections.len() < CONNECTIONS_MAX && stream.set_nonblocking(true).is_ok() {
                self.connections.push(Connection {
                    stream,
                    line: Vec::new(),
                });
            }
        }
    }

    /// The requests that have come in whole.
    fn requests(&mut self) -> Vec<(Connection, Result<Request, RuntimeError>)> {
        let mut whole = Vec::new();
        for mut connection in std::mem::take(&mut self.connections) {
            match connection.read() {
                Incoming::Partial => self.connections.push(connection),
                Incoming::Gone => {}
                Incoming::Whole(request) => whole.push((connection, request)),
            }
        }
        whole
    }

    fn handle(
        &mut self,
        mut connection: Connection,
        request: Result<Request, RuntimeError>,
    ) -> io::Result<()> {
        let result = match request.map(|request| request.verb) {
            Ok(Verb::Create) => self.create()?,
            Ok(Verb::Adopt) => self.adopt()?,
            Ok(Verb::Start) => return self.start(connection),
            Err(error) => Err(error),
        };
        connection.reply(result);
        Ok(())
    }

    /// Has the runtime create the container. A program that cannot be run is no failure here: the
    /// port says so at the start.
    fn create(&mut self) -> io::Result<Result<(), RuntimeError>> {
        if self.watched.is_some() || self.folder.facts()?.refused.exists() {
            return Ok(Err(precondition("it is created already")));
        }
        // Whoever removes it has not seen us perhaps, and another one may have its name soon.
        if self.folder.join(file::PID).is_dir() {
            return Ok(Err(precondition("it is being removed")));
        }
        let outputs = Outputs::open(&self.folder)?;
        let error = match self.run_create()? {
            Ok(()) => match self.created(outputs)? {
                Ok(()) => return Ok(Ok(())),
                Err(error) => error,
            },
            Err(error) => error,
        };
        let id = &self.record.spec.id.0;
        // Whatever was made half-way; if this fails too, the caller deletes once more.
        let _ = self
            .runtime
            .call("delete", &["--force", id], crate::runtime_binary::CALL_MAX);
        if !is_about_program(&error) {
            return Ok(Err(error));
        }
        sealed::create_once(self.folder.path(), file::REFUSED, &error)?;
        Ok(Ok(()))
    }

    fn run_create(&self) -> io::Result<Result<(), RuntimeError>> {
        let log = self.folder.join(file::RUNTIME_LOG);
        let mut command = self.runtime.command_with_log("create", &log);
        command.arg("--bundle").arg(self.folder.join(file::BUNDLE));
        command.arg("--pid-file").arg(self.folder.join(file::PID));
        command.arg(&self.record.spec.id.0);
        let [(_, stdout), (_, stderr)] = fifo_names();
        command.stdout(container_end(&self.folder, stdout)?);
        command.stderr(container_end(&self.folder, stderr)?);
        Ok(run_with_log(command, "create", &log))
    }

    /// Takes note of the process that the runtime has left to us.
    fn created(&mut self, outputs: Outputs) -> io::Result<Result<(), RuntimeError>> {
        let pid = std::fs::read_to_string(self.folder.join(file::PID))?;
        let bad = || io::Error::other(format!("`{pid}` in the pid file is no number"));
        let pid: u32 = pid.trim().parse().map_err(|_| bad())?;
        let gone = || RuntimeError::new(ErrorClass::Unknown, "the new process is gone");
        let Some(identity) = ProcessIdentity::of(pid)? else {
            return Ok(Err(gone()));
        };
        let Some(handle) = identity.open()? else {
            return Ok(Err(gone()));
        };
        let record = ProcessRecord {
            identity: identity.clone(),
        };
        sealed::replace_both(self.folder.path(), file::PROCESS, &record, Outlives::Crash)?;
        self.watched = Some(Watched {
            identity,
            handle,
            outputs,
            is_parent: true,
        });
        Ok(Ok(()))
    }

    /// Takes over from a monitor that was killed.
    fn adopt(&mut self) -> io::Result<Result<(), RuntimeError>> {
        let facts = self.folder.facts()?;
        let Some(identity) = facts.identity().filter(|_| self.watched.is_none()) else {
            return Ok(Err(precondition("there is nothing to take over")));
        };
        match identity.open()? {
            Some(handle) => {
                self.watched = Some(Watched {
                    identity: identity.clone(),
                    handle,
                    outputs: Outputs::open(&self.folder)?,
                    is_parent: false,
                });
                self.adopt_start(&facts)?;
            }
            None => {
                Outputs::open(&self.folder)?.drain();
                ending::record(&self.folder, &self.record, End::UNKNOWN, Telling::Again)?;
            }
        }
        Ok(Ok(()))
    }

    /// The process has ended: take the rest of its output, its status, and record both.
    fn end(&mut self) -> io::Result<()> {
        let Some(mut watched) = self.watched.take() else {
            return Ok(());
        };
        watched.outputs.drain();
        let end = self.end_of(&watched)?;
        let telling = if watched.is_parent {
            Telling::First
        } else {
            Telling::Again
        };
        while let Err(error) = ending::record(&self.folder, &self.record, end, telling) {
            if !self.folder.path().try_exists()? {
                return Err(error);
            }
            std::thread::sleep(RECORD_AGAIN_AFTER);
        }
        reap_all();
        self.leave()
    }

    fn end_of(&self, watched: &Watched) -> io::Result<End> {
        let started_at = self.folder.facts()?.started_at();
        // The clock may have been set back since the start.
        let at = Some(clock::now()).max(started_at);
        let status = match wait_for_child(&watched.handle)? {
            Some(status) => Some(status),
            None => watched.identity.status_of_ended(&watched.handle),
        };
        Ok(End { status, at })
    }

    /// Everything is recorded and told: says so by taking its own file away.
    fn leave(&self) -> io::Result<()> {
        match std::fs::remove_file(self.folder.join(file::SOCKET)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        sealed::remove_both(self.folder.path(), file::MONITOR)
    }
}

/// Takes what else was left to us, so that no zombie outlives us. The container's own process
/// has been waited for before: its status cannot be lost here.
fn reap_all() {
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
}

pub(super) fn precondition(message: &str) -> RuntimeError {
    RuntimeError::new(ErrorClass::FailedPrecondition, message)
}

pub(super) fn unknown(error: &io::Error) -> RuntimeError {
    RuntimeError::new(ErrorClass::Unknown, error.to_string())
}

/// One caller.
pub(super) struct Connection {
    stream: UnixStream,
    line: Vec<u8>,
}

enum Incoming {
    Partial,
    Gone,
    Whole(Result<Request, RuntimeError>),
}

impl Connection {
    fn read(&mut self) -> Incoming {
        let mut piece = [0; 4096];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => return Incoming::Gone,
                Ok(length) => self.line.extend_from_slice(&piece[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Incoming::Partial;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Incoming::Gone,
            }
            if let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
                return Incoming::Whole(parse(&self.line[..end]));
            }
            if self.line.len() > LINE_BYTES_MAX {
                return Incoming::Gone;
            }
        }
    }

    /// Answers. The caller may be gone: that changes nothing of what was done.
    pub(super) fn reply(&mut self, result: Result<(), RuntimeError>) {
        let Ok(mut line) = serde_json::to_vec(&Reply::of(result)) else {
            return;
        };
        line.push(b'\n');
        let _ = self.stream.write_all(&line);
    }
}

fn parse(line: &[u8]) -> Result<Request, RuntimeError> {
    let bad = |message: String| RuntimeError::new(ErrorClass::InvalidArgument, message);
    let request: Request =
        serde_json::from_slice(line).map_err(|error| bad(format!("no request: {error}")))?;
    if request.version != VERSION {
        return Err(bad(format!(
            "this monitor speaks version {VERSION}, not {}",
            request.version
        )));
    }
    Ok(request)
}
