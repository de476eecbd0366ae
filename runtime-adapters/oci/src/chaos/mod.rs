//! A chaos runtime: an OCI runtime that passes every call on to a real one, except where a rule
//! says to do wrong. `wavetank-chaos-runtime` is this as a program.
//!
//! # Where it is put
//! Under containerd as `BinaryName` of the runc options, under Podman as `--runtime`, under our own
//! adapter as [`crate::Config::runtime`]. None of the daemons hands its environment on in a way to
//! rely on, so the rules are a file beside the program: `<program>.json`, by the path by which it
//! was called. Each daemon gets a copy or a hard link of its own. The variable
//! `WAVETANK_CHAOS_RULES` names another file where the environment can be relied on. Without rules,
//! or where no rule is due, the real runtime takes this process's place, so what it does is
//! exactly what it would have done.
//!
//! # What is seen where
//! A runtime's command line says nothing about a process's end: whoever waits for it (shim, conmon,
//! our monitor) asks the kernel. To change an end, a create leaves a stand-in process and names
//! *its* pid in the pid file; the caller waits for the stand-in, which ends as the rule says once
//! the real process has. The price: whoever looks at that pid sees the stand-in. Its cgroup is the
//! caller's, so containerd's metrics and out-of-memory events are about the wrong cgroup while such
//! a rule is in force. `state`, `kill`, `exec` and `delete` are the real runtime's and about the
//! real process.
//!
//! Seen with containerd 1.6.20, Podman 4.3.1 (conmon 2.1.6) and our own monitor:
//!
//! - `slow`, `fail`, `exit-before-start`, `wrong-exit-code` and `late-exit` are seen by all
//!   three as the rule says.
//! - `lost-exit`: containerd says `RUNNING`, Podman `Up`, our adapter running, for ever. Our forced
//!   delete works.
//! - `hang` of a kill: under containerd the task is `UNKNOWN` and further kills hang too, for the
//!   shim does one thing at a time; under Podman and our adapter only that call hangs, and a stop
//!   of ours kills without the runtime.
//! - `lost-reply` has been tried under our adapter only, which finds out that a start took place.
//!
//! Podman makes up its containers' ids, so there `container` is best left out of a rule.
//!
//! Map: `rules` (the file), `command_line` (which container a call is about), `counters` (which
//! call it is), `stand_in`.

mod command_line;
mod counters;
mod rules;
mod stand_in;

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

pub use command_line::Call;
pub use rules::{Calls, Fault, Rule, Rules, RulesError};

use counters::{Counters, Due};

/// Names the file of rules, for who can rely on the environment.
pub const RULES_VARIABLE: &str = "WAVETANK_CHAOS_RULES";

/// The real runtime where there are no rules.
const DEFAULT_RUNTIME: &str = "runc";

/// containerd reads no line of the log that has no time; which one does not matter.
const NO_TIME: &str = "1970-01-01T00:00:00Z";

/// The exit code of a call that we let fail, as runc has it.
const FAILED: u8 = 1;

/// What the program is called.
pub const PROGRAM: &str = "wavetank-chaos-runtime";

/// The whole program, if this process was called by its name or is one of its stand-ins: for a
/// larger program that is this one by a link.
pub fn main_if_called() -> Option<ExitCode> {
    let mut arguments = std::env::args_os();
    let program = arguments.next().unwrap_or_default();
    let is_called = Path::new(&program)
        .file_name()
        .is_some_and(|name| name == PROGRAM);
    let is_stand_in = arguments
        .next()
        .is_some_and(|first| first == stand_in::ASKED);
    (is_called || is_stand_in).then(main)
}

/// The whole program.
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let program = arguments.next().unwrap_or_default();
    let arguments: Vec<OsString> = arguments.collect();
    if arguments
        .first()
        .is_some_and(|first| first == stand_in::ASKED)
    {
        return stand_in::main(&arguments[1..]);
    }
    let call = Call::parse(&arguments);
    match decide(&program, &call) {
        Ok((runtime, None)) => pass_on(&runtime, &arguments),
        Ok((runtime, Some(due))) => {
            let real = Real { runtime, arguments };
            act(&real, &call, &due).unwrap_or_else(|error| refuse(&call, &error.to_string()))
        }
        Err(error) => refuse(&call, &format!("chaos runtime: {error}")),
    }
}

/// The real runtime, and the fault that is due.
fn decide(program: &OsString, call: &Call) -> Result<(PathBuf, Option<Due>), RulesError> {
    let path = rules_path(program);
    let Some(rules) = Rules::read(&path)? else {
        return Ok((PathBuf::from(DEFAULT_RUNTIME), None));
    };
    let due = Counters::of(&path).count(&rules, call);
    let due = due.map_err(|source| RulesError::Counters {
        path: path.clone(),
        source,
    })?;
    Ok((rules.runtime, due))
}

fn rules_path(program: &OsString) -> PathBuf {
    if let Some(path) = std::env::var_os(RULES_VARIABLE) {
        return PathBuf::from(path);
    }
    // As it was called: a link has rules of its own. Found by way of PATH, its own place counts.
    let called = Path::new(program);
    let place = match called.components().count() {
        0 | 1 => std::env::current_exe().unwrap_or_else(|_| called.to_owned()),
        _ => called.to_owned(),
    };
    let mut path = place.into_os_string();
    path.push(".json");
    PathBuf::from(path)
}

/// Becomes the real runtime.
fn pass_on(runtime: &Path, arguments: &[OsString]) -> ExitCode {
    let error = Command::new(runtime).args(arguments).exec();
    eprintln!(
        "chaos runtime: {} cannot be run: {error}",
        runtime.display()
    );
    ExitCode::from(FAILED)
}

/// The real runtime with the call's own arguments.
struct Real {
    runtime: PathBuf,
    arguments: Vec<OsString>,
}

impl Real {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.runtime);
        command.args(&self.arguments);
        command
    }

    /// Runs the call to its end.
    fn run(&self) -> io::Result<ExitCode> {
        let status = self.command().status()?;
        Ok(ExitCode::from(
            u8::try_from(status.code().unwrap_or(i32::from(FAILED))).unwrap_or(FAILED),
        ))
    }
}

fn act(real: &Real, call: &Call, due: &Due) -> io::Result<ExitCode> {
    match &due.fault {
        Fault::Slow { millis } => {
            std::thread::sleep(Duration::from_millis(*millis));
            Ok(pass_on(&real.runtime, &real.arguments))
        }
        Fault::Fail { message } => Ok(refuse(call, message)),
        Fault::LostReply { message } => {
            real.run()?;
            Ok(refuse(call, message))
        }
        Fault::Hang {} => loop {
            std::thread::park();
        },
        Fault::ExitBeforeStart { code: None } => {
            let code = real.run()?;
            stand_in::end_process(&real.runtime, call)?;
            Ok(code)
        }
        Fault::ExitBeforeStart { code: Some(_) }
        | Fault::LateExit { .. }
        | Fault::LostExit {}
        | Fault::WrongExitCode { .. } => stand_in::create(real, call, due),
    }
}

/// Fails as the real runtime does: a line in its log, and the words on standard error.
fn refuse(call: &Call, message: &str) -> ExitCode {
    if let Some(log) = &call.log {
        let line = if call.log_is_json {
            serde_json::json!({ "level": "error", "msg": message, "time": NO_TIME }).to_string()
        } else {
            format!("level=error msg={message:?}")
        };
        let written = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .and_then(|mut file| writeln!(file, "{line}"));
        if let Err(error) = written {
            eprintln!("{}: {error}", log.display());
        }
    }
    eprintln!("{message}");
    ExitCode::from(FAILED)
}
