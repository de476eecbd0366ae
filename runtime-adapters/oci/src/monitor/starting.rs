//! The start of a container's process, which may outlast the monitor that asked for it.
//!
//! The intention is on disk before the OCI runtime is asked. A monitor that finds one without an
//! outcome asks the runtime what became of it, again and again for a while: the dead monitor's
//! call may still be under way.

use std::io;
use std::process::Stdio;
use std::time::{Duration, Instant};

use wavetank_port::RuntimeError;

use super::server::{Connection, Monitor, precondition, unknown};
use crate::clock;
use crate::ending::{self, Telling};
use crate::record::{Facts, StartedRecord, file};
use crate::runtime_binary::{CALL_MAX, Call};
use crate::sealed::{self, Outlives, Sealed};

/// How often the outcome of a dead monitor's start is asked for.
const ASK_AFTER: Duration = Duration::from_millis(200);

/// A start under way.
pub struct Starting {
    call: Call,
    started: StartedRecord,
    /// Another monitor has asked for it before.
    is_repeated: bool,
    /// Whoever has asked for it; the first one may be dead and a second one ask again.
    callers: Vec<Connection>,
}

impl Starting {
    /// The runtime's process.
    pub fn call(&self) -> &Call {
        &self.call
    }
}

/// A start of which nobody knows whether it took place.
pub struct Doubt {
    started: StartedRecord,
    ask_at: Instant,
    until: Instant,
}

impl Monitor {
    /// What a monitor that takes over makes of its predecessor's start.
    pub fn adopt_start(&mut self, facts: &Facts) -> io::Result<()> {
        match (&facts.started, &facts.starting) {
            // It may have been recorded and not told.
            (Sealed::Valid(started), _) => self.record_start(*started, Telling::Again),
            (Sealed::Absent, Sealed::Valid(started)) => {
                let now = Instant::now();
                self.doubt = Some(Doubt {
                    started: *started,
                    ask_at: now,
                    until: now + CALL_MAX,
                });
                self.look_into_doubt()
            }
            _ => Ok(()),
        }
    }

    /// Asks again what became of a start.
    pub fn look_into_doubt(&mut self) -> io::Result<()> {
        let now = Instant::now();
        let Some(mut doubt) = self.doubt.take_if(|doubt| doubt.ask_at <= now) else {
            return Ok(());
        };
        if self.status() == "running" {
            return self.record_start(doubt.started, Telling::Again);
        }
        doubt.ask_at = now + ASK_AFTER;
        self.doubt = Some(doubt).filter(|doubt| now < doubt.until);
        Ok(())
    }

    /// How long the loop may sleep before somebody has to be asked.
    pub fn asks_after(&self, longest: Duration) -> Duration {
        let at = self.doubt.as_ref().map(|doubt| doubt.ask_at);
        at.map_or(longest, |at| {
            at.saturating_duration_since(Instant::now()).min(longest)
        })
    }

    /// Takes in one who wants the process started, and answers when that is decided.
    pub fn start(&mut self, mut caller: Connection) -> io::Result<()> {
        if self.starting.is_none() {
            match self.begin_start() {
                Ok(starting) => self.starting = Some(starting),
                Err(error) => {
                    caller.reply(Err(error));
                    return Ok(());
                }
            }
        }
        if let Some(starting) = &mut self.starting {
            starting.callers.push(caller);
        }
        Ok(())
    }

    /// Has the runtime start the process.
    fn begin_start(&self) -> Result<Starting, RuntimeError> {
        if self.watched.is_none() {
            return Err(precondition("it is not ready to be started"));
        }
        let facts = self.folder.facts().map_err(|error| unknown(&error))?;
        if facts.started.exists() || facts.exit.exists() {
            return Err(precondition("it has been started before"));
        }
        let (started, is_repeated) = match facts.starting {
            Sealed::Valid(started) => (started, true),
            Sealed::Absent | Sealed::Damaged(_) => (StartedRecord { at: clock::now() }, false),
        };
        sealed::replace(
            self.folder.path(),
            file::STARTING,
            &started,
            Outlives::Crash,
        )
        .map_err(|error| unknown(&error))?;
        let mut command = self.runtime.command("start");
        command.arg(&self.record.spec.id.0);
        command.stderr(Stdio::piped());
        match Call::spawn(command, "start") {
            Ok(call) => Ok(Starting {
                call,
                started,
                is_repeated,
                callers: Vec::new(),
            }),
            Err(error) if is_repeated => Err(error),
            Err(error) => {
                self.forget_start().map_err(|error| unknown(&error))?;
                Err(error)
            }
        }
    }

    /// Answers a start that has come to its end. A process may have ended before: its start is
    /// still recorded and told first.
    pub fn finish_start(&mut self) -> io::Result<()> {
        let Some(mut starting) = self.starting.take() else {
            return Ok(());
        };
        let Some(result) = starting.call.poll() else {
            self.starting = Some(starting);
            return Ok(());
        };
        let result = match result {
            Err(error) if !self.took_place(starting.is_repeated) => {
                self.forget_start()?;
                Err(error)
            }
            Ok(()) | Err(_) => {
                self.doubt = None;
                // An earlier monitor may have told of it.
                let telling = match starting.is_repeated {
                    true => Telling::Again,
                    false => Telling::First,
                };
                self.record_start(starting.started, telling)
                    .map_err(|error| unknown(&error))
            }
        };
        for mut caller in starting.callers {
            caller.reply(result.clone());
        }
        Ok(())
    }

    /// The runtime says that a start failed, but it may have let the process go before; or an
    /// earlier start was still under way, and the process has even ended since.
    fn took_place(&self, is_repeated: bool) -> bool {
        match self.status().as_str() {
            "running" => true,
            "stopped" => is_repeated,
            _ => false,
        }
    }

    /// In the runtime's words; empty if it has none.
    fn status(&self) -> String {
        let status = self.runtime.status(&self.record.spec.id.0);
        status.unwrap_or_default()
    }

    fn record_start(&self, started: StartedRecord, telling: Telling) -> io::Result<()> {
        ending::record_start(&self.folder, &self.record, started, telling)
    }

    /// The start that was asked for did not take place.
    fn forget_start(&self) -> io::Result<()> {
        std::fs::remove_file(self.folder.join(file::STARTING))
    }
}
