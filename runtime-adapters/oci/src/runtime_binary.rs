//! Calls of the OCI runtime's binary: the one place that runs it, reads what it says, and ends it
//! when it does not come back.
//!
//! Its command line is that of runc, which crun and youki follow.

use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use wavetank_port::{ErrorClass, RuntimeError};

use crate::process::{has_ended, kill_handle, open_pid};

/// The longest that one call of the binary may take. A create on a loaded machine takes tens of
/// milliseconds; what takes a thousand times as long hangs.
pub const CALL_MAX: Duration = Duration::from_secs(30);

/// What is kept of each output of a call, in bytes.
const OUTPUT_BYTES_MAX: usize = 1 << 20;

/// What is kept of an error message, in characters.
const MESSAGE_CHARS_MAX: usize = 2000;

/// An OCI runtime's binary with the folder in which it keeps its own state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeBinary {
    program: PathBuf,
    root: PathBuf,
}

impl RuntimeBinary {
    /// The binary `program` with `--root root`.
    pub fn new(program: &Path, root: &Path) -> Self {
        RuntimeBinary {
            program: program.to_owned(),
            root: root.to_owned(),
        }
    }

    /// The call `program --root R <verb>`, with nothing connected.
    pub fn command(&self, verb: &str) -> Command {
        let mut command = self.bare();
        command.arg("--root").arg(&self.root).arg(verb);
        command
    }

    /// The call of a verb that hands its outputs on to the container; the runtime's own words go
    /// to `log`.
    pub fn command_with_log(&self, verb: &str, log: &Path) -> Command {
        let mut command = self.bare();
        command.arg("--root").arg(&self.root);
        command.arg("--log").arg(log);
        command.args(["--log-format", "json", verb]);
        command
    }

    /// Its version, in its own words.
    pub fn version(&self) -> Result<String, RuntimeError> {
        let mut command = self.bare();
        command.arg("--version");
        let output = run(command, "version", CALL_MAX)?;
        Ok(output.stdout.lines().next().unwrap_or_default().to_owned())
    }

    /// A verb with arguments whose success says all.
    pub fn call(
        &self,
        verb: &str,
        arguments: &[&str],
        within: Duration,
    ) -> Result<(), RuntimeError> {
        let mut command = self.command(verb);
        command.args(arguments);
        run(command, verb, within).map(drop)
    }

    /// The status that the runtime itself reports: `created`, `running`, `paused`, `stopped`.
    pub fn status(&self, id: &str) -> Result<String, RuntimeError> {
        #[derive(serde::Deserialize)]
        struct State {
            status: String,
        }
        let mut command = self.command("state");
        command.arg(id);
        let output = run(command, "state", CALL_MAX)?;
        let state: State = serde_json::from_str(&output.stdout).map_err(|error| {
            RuntimeError::new(ErrorClass::Unknown, format!("state of {id}: {error}"))
        })?;
        Ok(state.status)
    }

    fn bare(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.stdin(Stdio::null());
        command.stdout(Stdio::null());
        command.stderr(Stdio::null());
        command
    }
}

/// What a successful call wrote.
pub struct Output {
    /// Its standard output.
    pub stdout: String,
}

/// Runs a call to its end and takes both outputs.
pub fn run(mut command: Command, verb: &str, within: Duration) -> Result<Output, RuntimeError> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut call = Call::spawn(command, verb)?;
    let (status, stdout, stderr) = call.finish(within)?;
    if status.success() {
        return Ok(Output { stdout });
    }
    Err(failure(verb, &stderr))
}

/// Runs a call that hands its outputs on; why it failed is read from its log.
pub fn run_with_log(command: Command, verb: &str, log: &Path) -> Result<(), RuntimeError> {
    let mut call = Call::spawn(command, verb)?;
    let (status, ..) = call.finish(CALL_MAX)?;
    if status.success() {
        return Ok(());
    }
    Err(failure(verb, &last_message(log)))
}

/// A call under way. Dropped before its end, the process is killed and reaped.
pub struct Call {
    verb: String,
    child: Child,
    handle: OwnedFd,
    deadline: Instant,
}

impl Call {
    /// Starts a call.
    pub fn spawn(mut command: Command, verb: &str) -> Result<Self, RuntimeError> {
        let failed = |error: io::Error| {
            let class = match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::OutOfMemory => {
                    ErrorClass::ResourceExhausted
                }
                _ => ErrorClass::Unavailable,
            };
            RuntimeError::new(
                class,
                format!("the runtime's {verb} cannot be run: {error}"),
            )
        };
        let child = command.spawn().map_err(failed)?;
        let handle = open_pid(child.id())
            .and_then(|handle| handle.ok_or_else(|| io::Error::other("our own child is gone")))
            .map_err(failed)?;
        Ok(Call {
            verb: verb.to_owned(),
            child,
            handle,
            deadline: Instant::now() + CALL_MAX,
        })
    }

    /// Becomes readable when the process has ended.
    pub fn handle(&self) -> &OwnedFd {
        &self.handle
    }

    /// How it ended, if it has; a call that is over its time is killed and has failed.
    pub fn poll(&mut self) -> Option<Result<(), RuntimeError>> {
        if !has_ended(&self.handle).unwrap_or(true) && Instant::now() < self.deadline {
            return None;
        }
        let finished = self.finish(Duration::ZERO);
        Some(finished.and_then(|(status, _, stderr)| {
            if status.success() {
                return Ok(());
            }
            Err(failure(&self.verb, &stderr))
        }))
    }

    fn finish(&mut self, within: Duration) -> Result<(ExitStatus, String, String), RuntimeError> {
        let deadline = Instant::now() + within;
        let mut outputs = [
            Tail::new(self.child.stdout.take().map(OwnedFd::from)),
            Tail::new(self.child.stderr.take().map(OwnedFd::from)),
        ];
        let broken = |error: io::Error| {
            RuntimeError::new(ErrorClass::Unknown, format!("{}: {error}", self.verb))
        };
        while !has_ended(&self.handle).map_err(broken)? {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                kill_handle(&self.handle).map_err(broken)?;
                self.child.wait().map_err(broken)?;
                let message = format!("the runtime's {} did not come back", self.verb);
                return Err(RuntimeError::new(ErrorClass::DeadlineExceeded, message));
            }
            wait_for(&self.handle, &outputs, left).map_err(broken)?;
            for output in &mut outputs {
                output.pump();
            }
        }
        let status = self.child.wait().map_err(broken)?;
        let [stdout, stderr] = outputs.map(Tail::finish);
        Ok((status, stdout, stderr))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // Reaped already: both do nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait_for(handle: &OwnedFd, outputs: &[Tail; 2], within: Duration) -> io::Result<()> {
    let open = outputs.iter().filter_map(|output| output.pipe.as_ref());
    let mut fds: Vec<PollFd<'_>> = open
        .chain([handle])
        .map(|fd| PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN))
        .collect();
    match poll(&mut fds, Some(&timespec(within))) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A duration as poll(2) wants it; what is too long is very long.
pub fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

/// One output of a call: its first bytes are kept, the rest is read and dropped.
struct Tail {
    pipe: Option<OwnedFd>,
    kept: Vec<u8>,
}

impl Tail {
    fn new(pipe: Option<OwnedFd>) -> Self {
        let pipe = pipe.filter(|pipe| rustix::io::ioctl_fionbio(pipe, true).is_ok());
        Tail {
            pipe,
            kept: Vec::new(),
        }
    }

    /// Takes what is there without waiting.
    fn pump(&mut self) {
        let mut piece = [0; 4096];
        while let Some(pipe) = &self.pipe {
            match rustix::io::read(pipe, &mut piece) {
                Ok(0) => self.pipe = None,
                Ok(length) => {
                    let room = OUTPUT_BYTES_MAX - self.kept.len();
                    self.kept.extend_from_slice(&piece[..length.min(room)]);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return,
                Err(_) => self.pipe = None,
            }
        }
    }

    fn finish(mut self) -> String {
        self.pump();
        String::from_utf8_lossy(&self.kept).into_owned()
    }
}

/// The last error in a log of JSON lines, or all of it if it is none.
fn last_message(log: &Path) -> String {
    #[derive(serde::Deserialize)]
    struct Line {
        level: String,
        msg: String,
    }
    let mut text = String::new();
    let read = fs::File::open(log)
        .and_then(|file| file.take(OUTPUT_BYTES_MAX as u64).read_to_string(&mut text));
    if let Err(error) = read {
        return format!("it left no log: {error}");
    }
    let mut errors = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Line>(line).ok())
        .filter(|line| line.level == "error" || line.level == "fatal");
    errors.next_back().map(|line| line.msg).unwrap_or(text)
}

/// The error that the runtime's words mean.
fn failure(verb: &str, words: &str) -> RuntimeError {
    let words: String = words.trim().chars().take(MESSAGE_CHARS_MAX).collect();
    RuntimeError::new(class_of(&words), format!("{verb}: {words}"))
}

/// OCI runtimes give no codes, only words. The first match counts; words of runc 1.1 and crun 1.8.
const CLASSES: &[(&str, ErrorClass)] = &[
    ("executable file", ErrorClass::InvalidArgument),
    ("exec format error", ErrorClass::InvalidArgument),
    ("is a directory", ErrorClass::InvalidArgument),
    (
        "unable to start container process: exec:",
        ErrorClass::InvalidArgument,
    ),
    ("no space left on device", ErrorClass::ResourceExhausted),
    ("cannot allocate memory", ErrorClass::ResourceExhausted),
    ("already exists", ErrorClass::AlreadyExists),
    ("container does not exist", ErrorClass::NotFound),
    ("does not exist", ErrorClass::NotFound),
    ("process already finished", ErrorClass::NotFound),
    ("no such process", ErrorClass::NotFound),
    ("cannot start", ErrorClass::FailedPrecondition),
    ("cannot exec", ErrorClass::FailedPrecondition),
    ("not running", ErrorClass::FailedPrecondition),
    ("not paused", ErrorClass::FailedPrecondition),
    ("paused", ErrorClass::FailedPrecondition),
    ("stopped", ErrorClass::FailedPrecondition),
];

fn class_of(words: &str) -> ErrorClass {
    let words = words.to_lowercase();
    let known = CLASSES.iter().find(|(part, _)| words.contains(part));
    known.map_or(ErrorClass::Unknown, |(_, class)| *class)
}

/// True if `error` says that the container's program cannot be run.
pub fn is_about_program(error: &RuntimeError) -> bool {
    error.class == ErrorClass::InvalidArgument
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use wavetank_port::ErrorClass;

    use super::{RuntimeBinary, class_of, last_message};

    #[test]
    fn words_have_a_class() {
        let table = [
            (
                "runc create failed: unable to start container process: exec: \"no\": \
                 executable file not found in $PATH",
                ErrorClass::InvalidArgument,
            ),
            (
                "unable to start container process: exec: \"/etc/x\": permission denied",
                ErrorClass::InvalidArgument,
            ),
            (
                "container with given ID already exists",
                ErrorClass::AlreadyExists,
            ),
            ("container does not exist", ErrorClass::NotFound),
            ("container not running", ErrorClass::FailedPrecondition),
            (
                "cannot start a container that has stopped",
                ErrorClass::FailedPrecondition,
            ),
            (
                "write /x: No space left on device",
                ErrorClass::ResourceExhausted,
            ),
            ("something new", ErrorClass::Unknown),
        ];
        for (words, class) in table {
            assert_eq!(class_of(words), class, "{words}");
        }
    }

    #[test]
    fn a_binary_that_is_absent_is_unavailable() {
        let binary = RuntimeBinary::new(Path::new("/nonexistent/runtime"), Path::new("/"));
        let error = binary.version().expect_err("absent");
        assert_eq!(error.class, ErrorClass::Unavailable);
    }

    #[test]
    fn a_binary_that_hangs_is_ended() {
        let folder = tempfile::tempdir().expect("folder");
        let (text, script) = (folder.path().join("text"), folder.path().join("runtime"));
        std::fs::write(&text, "#!/bin/sh\nexec sleep 1000\n").expect("script");
        // Written by another process: a child that another test forks would have it open for
        // writing too, and then it cannot be executed.
        let mut install = std::process::Command::new("install");
        let installed = install.args(["-m", "755"]).args([&text, &script]).status();
        assert!(installed.expect("install").success());
        let binary = RuntimeBinary::new(&script, folder.path());
        let error = binary
            .call("kill", &["a"], Duration::from_millis(1))
            .expect_err("it hangs");
        assert_eq!(error.class, ErrorClass::DeadlineExceeded);
    }

    #[test]
    fn the_last_error_of_a_log_counts() {
        let folder = tempfile::tempdir().expect("folder");
        let log = folder.path().join("log");
        assert!(last_message(&log).contains("no log"));
        let lines = "{\"level\":\"error\",\"msg\":\"first\",\"time\":\"t\"}\n\
                     {\"level\":\"warning\",\"msg\":\"other\",\"time\":\"t\"}\n\
                     {\"level\":\"error\",\"msg\":\"last\",\"time\":\"t\"}\nnoise\n";
        std::fs::write(&log, lines).expect("log");
        assert_eq!(last_message(&log), "last");
    }
}
