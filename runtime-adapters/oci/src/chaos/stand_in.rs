//! The stand-in: the parent of the real process, and in its place the child of whoever called the
//! runtime. It ends as a rule says.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, open};
use rustix::process::{Signal, getpid, kill_process, set_child_subreaper, setsid};

use super::command_line::Call;
use super::counters::{Due, Record};
use super::rules::Fault;
use super::{FAILED, Real};
use crate::process::{WaitStatus, open_pid, wait_for_child};

/// The first argument of a stand-in. No OCI runtime has such a verb.
pub const ASKED: &str = "wavetank-stand-in";

/// How the ending begins of a process that is killed at its start, before its code.
const BEFORE_START: &str = "before-start:";

/// Creates the container by way of a stand-in, and gives that one's pid as the container's.
pub fn create(real: &Real, call: &Call, due: &Due) -> io::Result<ExitCode> {
    let Some(pid_file) = &call.pid_file else {
        return Err(io::Error::other(
            "a create without --pid-file has no stand-in",
        ));
    };
    let fifo = beside(pid_file, ".stand-in");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
    let result = create_over(real, pid_file, due, &fifo);
    fs::remove_file(&fifo)?;
    result
}

fn create_over(real: &Real, pid_file: &Path, due: &Due, fifo: &Path) -> io::Result<ExitCode> {
    let reader = open(
        fifo,
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0(ASKED)
        .arg(ASKED)
        .arg(fifo)
        .arg(ending(&due.fault));
    command.arg(&due.record.file).arg(&due.record.line);
    command.arg(&real.runtime).args(&real.arguments);
    let child = command.spawn()?;
    let code = report(&reader, child.id())?;
    if code == 0 {
        fs::write(pid_file, child.id().to_string())?;
    }
    // Our end makes the stand-in the caller's child.
    Ok(ExitCode::from(code))
}

fn ending(fault: &Fault) -> String {
    match fault {
        Fault::LateExit { millis } => format!("late:{millis}"),
        Fault::WrongExitCode { code } => format!("code:{code}"),
        Fault::ExitBeforeStart { code: Some(code) } => format!("{BEFORE_START}{code}"),
        _ => "never".to_owned(),
    }
}

/// Waits until the stand-in says how the create went; its death says that it went wrong.
fn report(reader: &OwnedFd, stand_in: u32) -> io::Result<u8> {
    let gone = || io::Error::other("the stand-in is gone");
    let handle = open_pid(stand_in)?.ok_or_else(gone)?;
    loop {
        let mut fds = [
            PollFd::new(reader, PollFlags::IN),
            PollFd::new(&handle, PollFlags::IN),
        ];
        poll(&mut fds, None)?;
        let mut code = [FAILED];
        match rustix::io::read(reader, &mut code) {
            Ok(1) => return Ok(code[0]),
            // It has not opened the other end yet.
            Ok(_) | Err(rustix::io::Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
        }
        if !fds[1].revents().is_empty() {
            return Err(gone());
        }
        std::thread::yield_now();
    }
}

/// The stand-in itself: `<fifo> <ending> <record's file> <record> <runtime> <arguments>...`.
pub fn main(arguments: &[OsString]) -> ExitCode {
    let [fifo, ending, file, line, runtime, arguments @ ..] = arguments else {
        return ExitCode::from(FAILED);
    };
    match stand_in(
        Path::new(fifo),
        &ending.to_string_lossy(),
        &Record {
            file: file.into(),
            line: line.to_string_lossy().into_owned(),
        },
        runtime,
        arguments,
    ) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("stand-in: {error}");
            ExitCode::from(FAILED)
        }
    }
}

fn stand_in(
    fifo: &Path,
    ending: &str,
    record: &Record,
    runtime: &OsString,
    arguments: &[OsString],
) -> io::Result<ExitCode> {
    setsid()?;
    set_child_subreaper(Some(getpid()))?;
    let call = Call::parse(arguments);
    let (Some(pid_file), Some((at, prefix))) = (&call.pid_file, call.pid_file_at) else {
        return Err(io::Error::other("there is no --pid-file"));
    };
    let real_pid_file = beside(pid_file, ".real");
    let mut arguments = arguments.to_vec();
    let mut value = OsString::from(prefix);
    value.push(&real_pid_file);
    arguments[at] = value;
    let status = Command::new(runtime).args(&arguments).status()?;
    let code = u8::try_from(status.code().unwrap_or(i32::from(FAILED))).unwrap_or(FAILED);
    let process = match status.success() {
        true => Some(take_process(&real_pid_file)?),
        false => None,
    };
    // The container's outputs are not ours to keep open.
    let nothing = fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    rustix::stdio::dup2_stdin(&nothing)?;
    rustix::stdio::dup2_stdout(&nothing)?;
    rustix::stdio::dup2_stderr(&nothing)?;
    // The caller may have been killed: the container goes on, and nobody needs to know.
    if let Ok(writer) = open(
        fifo,
        OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC,
        Mode::empty(),
    ) {
        rustix::io::write(&writer, &[code])?;
    }
    match process {
        Some(process) => {
            let status = wait_for_child(&process)?;
            // One that strikes at the start has been written down there.
            if !ending.starts_with(BEFORE_START) {
                // Whoever wanted to read it may be gone with the folder; the end is the same.
                let _ = record.write();
            }
            end_as(status, ending)
        }
        None => Ok(ExitCode::from(code)),
    }
}

fn take_process(pid_file: &Path) -> io::Result<OwnedFd> {
    let mut text = String::new();
    fs::File::open(pid_file)?.read_to_string(&mut text)?;
    fs::remove_file(pid_file)?;
    let pid = text.trim().parse().map_err(io::Error::other)?;
    open_pid(pid)?.ok_or_else(|| io::Error::other("the process is gone"))
}

fn end_as(status: Option<WaitStatus>, ending: &str) -> io::Result<ExitCode> {
    let code = ending.strip_prefix("code:");
    if let Some(code) = code.or_else(|| ending.strip_prefix(BEFORE_START)) {
        return Ok(ExitCode::from(
            code.parse::<u8>().map_err(io::Error::other)?,
        ));
    }
    match ending.strip_prefix("late:") {
        Some(millis) => {
            let millis = millis.parse().map_err(io::Error::other)?;
            std::thread::sleep(Duration::from_millis(millis));
        }
        None => loop {
            std::thread::park();
        },
    }
    let Some(status) = status else {
        return Ok(ExitCode::from(FAILED));
    };
    if let Some(number) = status.signal() {
        if let Some(signal) = Signal::from_named_raw(number) {
            kill_process(getpid(), signal)?;
        }
        // We may ignore what it died of; whoever waits counts either so.
        return Ok(ExitCode::from(u8::try_from(128 + number).unwrap_or(FAILED)));
    }
    Ok(ExitCode::from(
        u8::try_from((status.0 >> 8) & 0xff).unwrap_or(FAILED),
    ))
}

/// Kills the container's process and waits until it has ended.
pub fn end_process(runtime: &Path, call: &Call) -> io::Result<()> {
    #[derive(serde::Deserialize)]
    struct State {
        pid: u32,
    }
    let command = |verb: &str| {
        let mut command = Command::new(runtime);
        if let Some(root) = &call.root {
            command.arg("--root").arg(root);
        }
        command.arg(verb).arg(&call.container);
        command
    };
    let state = command("state").stderr(Stdio::null()).output()?;
    let Ok(state) = serde_json::from_slice::<State>(&state.stdout) else {
        // Ended already, and cleaned up by somebody.
        return Ok(());
    };
    let Some(process) = open_pid(state.pid)? else {
        return Ok(());
    };
    // Ended just now: then there is nothing to kill.
    command("kill").arg("KILL").stderr(Stdio::null()).status()?;
    let mut fds = [PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN)];
    poll(&mut fds, None)?;
    Ok(())
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    PathBuf::from(path)
}
