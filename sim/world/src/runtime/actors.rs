//! Processes that follow a program: the container's own, and commands run beside it.

use std::time::Duration;

use wavetank_port::{
    ContainerId, ContainerStatus, ErrorClass, ExecResult, ExitCode, OutputStream, RuntimeError,
    RuntimeReply, WallTime,
};
use wavetank_trace::{ExitCause, VirtualTime};

use super::program::{Actor, Aside, FileView, Next, Program, Surroundings};
use super::{Container, Runtime, Todo};
use crate::clock::LocalClock;

/// A piece of a container's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Where it was written.
    pub stream: OutputStream,
    /// When, by the machine's clock.
    pub at: WallTime,
    /// What.
    pub bytes: Vec<u8>,
}

/// Who writes a file that was asked for earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writer {
    /// A container's own process, by its run.
    Process(u64),
    /// A command beside it, by the call that began it.
    Exec(u64),
}

/// A file that is made or replaced, if its writer still lives then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LateFile {
    pub container: ContainerId,
    pub writer: Writer,
    pub path: String,
    pub text: String,
}

/// A command that runs beside a container's process.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Exec {
    container: ContainerId,
    actor: Actor,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Runtime {
    /// The container's own process does its next steps.
    pub(super) fn step(
        &mut self,
        now: VirtualTime,
        clock: &LocalClock,
        id: &ContainerId,
        run: u64,
    ) {
        let beside = self.exec_memory(id);
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        let Some(process) = container.process.as_mut().filter(|it| it.run == run) else {
            return;
        };
        let Some(actor) = &mut process.actor else {
            return;
        };
        let used = actor.memory_bytes + beside;
        let mut written = Vec::new();
        let flooded = actor.flood().is_some();
        let next = actor.advance(&mut Surroundings {
            files: FileView {
                own: &mut container.files,
                volumes: &mut self.volumes,
                mounts: &container.volumes,
            },
            memory_left: left(container.memory_bytes_max, used),
            written: &mut written,
        });
        let floods = !flooded && actor.flood().is_some();
        let asides = actor.drain_asides();
        let at = clock.wall(now);
        container
            .log
            .extend(
                written
                    .into_iter()
                    .map(|(stream, bytes)| Written { stream, at, bytes }),
            );
        let container = id.clone();
        if floods {
            let container = container.clone();
            self.plan(now, Todo::Flood { container, run });
        }
        for aside in asides {
            self.plan_aside(now, id, Writer::Process(run), aside);
        }
        match next {
            Next::After(time) => self.plan(now + time, Todo::Step { container, run }),
            Next::Between(range) => {
                let time = self.stream.duration(range);
                self.plan(now + time, Todo::Step { container, run });
            }
            Next::Blocked => {}
            Next::Ends(code) => self.end_process(now, clock, id, run, code, ExitCause::Itself),
            Next::OutOfMemory => {
                self.end_process(now, clock, id, run, 137, ExitCause::OutOfMemory);
            }
        }
    }

    fn plan_aside(&mut self, now: VirtualTime, id: &ContainerId, writer: Writer, aside: Aside) {
        let container = id.clone();
        match (aside, writer) {
            (Aside::Write(after, path, text), _) => {
                let file = LateFile {
                    container,
                    writer,
                    path,
                    text,
                };
                self.plan(now + after, Todo::WriteFile(file));
            }
            // The signal came before the step that obeys it.
            (Aside::Ends(after, code), Writer::Process(run)) => {
                let because = ExitCause::Terminated;
                let end = Todo::End {
                    container,
                    run,
                    code,
                    because,
                };
                self.plan(now + after, end);
            }
            // Signals go to the container's own process only.
            (Aside::Ends(..), Writer::Exec(_)) => {}
        }
    }

    /// A file is made or replaced, unless who wanted it has ended.
    pub(super) fn write_file(&mut self, file: LateFile) {
        let Some(container) = self.containers.get_mut(&file.container) else {
            return;
        };
        let process = container.process.as_ref();
        let lives = match file.writer {
            Writer::Process(run) => process.is_some_and(|it| it.run == run),
            Writer::Exec(call) => self.execs.contains_key(&call),
        };
        if lives {
            let mut files = FileView {
                own: &mut container.files,
                volumes: &mut self.volumes,
                mounts: &container.volumes,
            };
            files.write(file.path, file.text);
        }
    }

    pub(super) fn flood(
        &mut self,
        now: VirtualTime,
        clock: &LocalClock,
        id: &ContainerId,
        run: u64,
    ) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        let process = container.process.as_ref().filter(|it| it.run == run);
        let Some((bytes, again)) = process.and_then(|it| it.actor.as_ref()?.flood()) else {
            return;
        };
        container.log.push(Written {
            stream: OutputStream::Stdout,
            at: clock.wall(now),
            bytes,
        });
        let container = id.clone();
        self.plan(now + again, Todo::Flood { container, run });
    }

    /// A command begins beside a container's process; `None` is one that cannot be run.
    pub(super) fn exec(
        &mut self,
        now: VirtualTime,
        call: u64,
        id: &ContainerId,
        program: Option<Program>,
        timeout: Duration,
    ) {
        if let Err(error) = self.running_container(id) {
            self.answer(now, call, "exec", Err(error));
            return;
        }
        let Some(program) = program else {
            let result = ExecResult {
                code: ExitCode::Known(127),
                stdout: Vec::new(),
                stderr: Vec::new(),
            };
            self.exec_done(now, call, result);
            return;
        };
        let exec = Exec {
            container: id.clone(),
            actor: Actor::new(program),
            stdout: Vec::new(),
            stderr: Vec::new(),
        };
        self.execs.insert(call, exec);
        self.plan(now + timeout, Todo::ExecOver { call });
        self.plan(now, Todo::ExecStep { call });
    }

    pub(super) fn exec_step(&mut self, now: VirtualTime, call: u64) {
        let Some(id) = self.execs.get(&call).map(|exec| exec.container.clone()) else {
            return;
        };
        let beside = self.exec_memory(&id);
        let (Some(exec), Some(container)) =
            (self.execs.get_mut(&call), self.containers.get_mut(&id))
        else {
            return;
        };
        let own = container.process.as_ref().map_or(0, super::Process::memory);
        let mut written = Vec::new();
        let next = exec.actor.advance(&mut Surroundings {
            files: FileView {
                own: &mut container.files,
                volumes: &mut self.volumes,
                mounts: &container.volumes,
            },
            memory_left: left(container.memory_bytes_max, own + beside),
            written: &mut written,
        });
        let asides = exec.actor.drain_asides();
        for (stream, bytes) in written {
            match stream {
                OutputStream::Stdout => exec.stdout.extend(bytes),
                OutputStream::Stderr => exec.stderr.extend(bytes),
            }
        }
        for aside in asides {
            self.plan_aside(now, &id, Writer::Exec(call), aside);
        }
        match next {
            Next::After(time) => self.plan(now + time, Todo::ExecStep { call }),
            Next::Between(range) => {
                let time = self.stream.duration(range);
                self.plan(now + time, Todo::ExecStep { call });
            }
            Next::Blocked => {}
            Next::Ends(code) => self.end_exec(now, call, code),
            Next::OutOfMemory => self.end_exec(now, call, 137),
        }
    }

    fn end_exec(&mut self, now: VirtualTime, call: u64, code: i32) {
        if let Some(exec) = self.execs.remove(&call) {
            let result = ExecResult {
                code: ExitCode::Known(code),
                stdout: exec.stdout,
                stderr: exec.stderr,
            };
            self.exec_done(now, call, result);
        }
    }

    fn exec_done(&mut self, now: VirtualTime, call: u64, result: ExecResult) {
        self.exec_results.insert(call, result);
        self.answer(now, call, "exec", Ok(RuntimeReply::Done));
    }

    /// A command has run for as long as it may.
    pub(super) fn exec_over(&mut self, now: VirtualTime, call: u64) {
        if self.execs.remove(&call).is_some() {
            let late = RuntimeError::new(
                ErrorClass::DeadlineExceeded,
                "the command ran too long and was killed",
            );
            self.answer(now, call, "exec", Err(late));
        }
    }

    /// Commands end with the container's process.
    pub(super) fn end_execs_of(&mut self, now: VirtualTime, id: &ContainerId) {
        let execs = self.execs.iter();
        let ended: Vec<u64> = execs
            .filter(|(_, exec)| exec.container == *id)
            .map(|(call, _)| *call)
            .collect();
        for call in ended {
            self.end_exec(now, call, 137);
        }
    }

    fn exec_memory(&self, id: &ContainerId) -> u64 {
        let execs = self.execs.values().filter(|exec| exec.container == *id);
        execs.map(|exec| exec.actor.memory_bytes).sum()
    }

    /// The container, if its process runs.
    pub(super) fn running_container(&self, id: &ContainerId) -> Result<&Container, RuntimeError> {
        let container = self.containers.get(id).ok_or_else(|| super::missing(id))?;
        let is_dead = container
            .process
            .as_ref()
            .is_some_and(super::Process::is_dead);
        if container.state.status == ContainerStatus::Running && !is_dead {
            return Ok(container);
        }
        Err(super::wrong_state(id, "is not running"))
    }
}

/// Memory that is left under a limit, in bytes.
fn left(limit: Option<u64>, used: u64) -> u64 {
    limit.map_or(u64::MAX, |limit| limit.saturating_sub(used))
}
