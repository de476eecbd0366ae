//! How containers' processes begin and end, and what is said about it.

use std::collections::BTreeSet;
use std::time::Duration;

use wavetank_port::{ContainerId, ContainerStatus, ExitCode, RuntimeEvent, RuntimeReply, Signal};
use wavetank_scenario::plan::{Health, Image, OnTerm, Range};
use wavetank_trace::{ExitCause, Payload, VirtualTime};

use super::program::Reaction;
use super::{Actor, Container, Interpretation, Output, Process, Runtime, RuntimeEffect, Todo};
use crate::clock::LocalClock;
use crate::registry::Registry;

/// A process that wants more memory than it may have is killed after this long, if it has no
/// running time of its own.
const OOM_AFTER: Duration = Duration::from_secs(1);

impl Process {
    /// It has ended, whoever has noticed.
    pub(super) fn is_dead(&self) -> bool {
        self.ended.is_some()
    }

    /// What it and its children have taken, in bytes.
    pub(super) fn memory(&self) -> u64 {
        self.actor.as_ref().map_or(0, |actor| actor.memory_bytes)
    }
}

impl Container {
    /// What a stop sends first to a process that follows a program; `None` without one.
    pub(super) fn first_signal(&self) -> Option<Signal> {
        let Interpretation::Program(program) = &self.interpretation else {
            return None;
        };
        let signal = self.stop_signal.or(program.stop_signal);
        Some(signal.unwrap_or(Signal::Terminate))
    }
}

impl Runtime {
    /// A created container's process begins. Without an image it runs for ever and obeys SIGTERM.
    pub(super) fn begin_process(
        &mut self,
        now: VirtualTime,
        clock: &LocalClock,
        id: &ContainerId,
        image: Option<&Image>,
    ) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        self.sequence += 1;
        let run = self.sequence;
        let pid = self.next_pid;
        self.next_pid += 1;
        let started_at = clock.wall(now);
        container.state.status = ContainerStatus::Running;
        container.state.pid = Some(pid);
        container.state.started_at = Some(started_at);
        let healthy_at = match image.map(|image| image.health) {
            Some(Health::After(delay)) => now + delay,
            Some(Health::Never) => VirtualTime(u64::MAX),
            Some(Health::Ok) | None => now,
        };
        let program = match &container.interpretation {
            Interpretation::Program(program) => Some(program.clone()),
            Interpretation::Image | Interpretation::NotRunnable => None,
        };
        let acts = program.is_some();
        container.process = Some(Process {
            run,
            ignores_term: image.is_some_and(|image| image.on_term == OnTerm::Ignores),
            healthy_at,
            unhealthy_by: BTreeSet::new(),
            actor: program.map(Actor::new),
            frozen: None,
            ended: None,
        });
        let limit = container.memory_bytes_max;
        self.output.push(Output::Truth(Payload::ContainerStarted {
            container: id.clone(),
            pid,
        }));
        self.emit(
            now,
            RuntimeEvent::Started {
                id: id.clone(),
                pid,
                at: started_at,
            },
        );
        if acts {
            let container = id.clone();
            self.plan(now, Todo::Step { container, run });
        } else if let Some(image) = image {
            self.plan_end(now, id, run, image, limit);
        }
    }

    fn plan_end(
        &mut self,
        now: VirtualTime,
        id: &ContainerId,
        run: u64,
        image: &Image,
        limit: Option<u64>,
    ) {
        let runs_for = image
            .run_for
            .map(|range: Range| self.stream.duration(range));
        let starved = limit.is_some_and(|limit| image.memory_bytes > limit);
        let (after, code, because) = match (starved, runs_for) {
            (true, runs_for) => (runs_for.unwrap_or(OOM_AFTER), 137, ExitCause::OutOfMemory),
            (false, Some(after)) => (after, image.exit_code, ExitCause::Itself),
            (false, None) => return,
        };
        self.plan(
            now + after,
            Todo::End {
                container: id.clone(),
                run,
                code,
                because,
            },
        );
    }

    pub(super) fn say_signal(&mut self, id: &ContainerId, signal: Signal) {
        let said = Payload::ContainerSignalled {
            container: id.clone(),
            signal,
        };
        self.output.push(Output::Truth(said));
    }

    /// A signal other than SIGKILL reaches a process that follows a program.
    pub(super) fn signal_actor(&mut self, now: VirtualTime, id: &ContainerId, signal: Signal) {
        self.say_signal(id, signal);
        let container = self.containers.get_mut(id);
        let Some(process) = container.and_then(|it| it.process.as_mut()) else {
            return;
        };
        let run = process.run;
        let container = id.clone();
        let reaction = process.actor.as_mut().map(|it| it.signal(signal.number()));
        match reaction.unwrap_or(Reaction::None) {
            Reaction::None => {}
            Reaction::Steps => self.plan_process(now, now, Todo::Step { container, run }),
            Reaction::Ends(after, code) => {
                let because = ExitCause::Terminated;
                let end = Todo::End {
                    container,
                    run,
                    code,
                    because,
                };
                self.plan_process(now, now + after, end);
            }
        }
    }

    /// SIGTERM reaches a running process.
    pub(super) fn terminate(&mut self, now: VirtualTime, registry: &Registry, id: &ContainerId) {
        let Some(container) = self.containers.get(id) else {
            return;
        };
        let Some(process) = &container.process else {
            return;
        };
        let (run, ignores) = (process.run, process.ignores_term);
        let on_term = registry
            .image(&container.state.image)
            .map(|image| image.on_term);
        self.say_signal(id, Signal::Terminate);
        if ignores {
            return;
        }
        let (after, code) = match on_term {
            Some(OnTerm::Exits { after, code }) => (after, code),
            Some(OnTerm::Ignores) | None => (Duration::from_millis(1), None),
        };
        let code = code.unwrap_or(128 + Signal::Terminate.number());
        let because = ExitCause::Terminated;
        self.plan_process(
            now,
            now + after,
            Todo::End {
                container: id.clone(),
                run,
                code,
                because,
            },
        );
    }

    pub(super) fn grace_over(
        &mut self,
        now: VirtualTime,
        clock: &LocalClock,
        call: u64,
        id: &ContainerId,
        run: u64,
    ) {
        let Some(container) = self.containers.get(id) else {
            return;
        };
        let process = container.process.as_ref();
        // A stop that was given up kills nothing.
        if process.is_some_and(|process| process.run == run) && container.stops.contains(&call) {
            self.kill_running(now, clock, id);
        }
    }

    /// SIGKILL ends a running process at once.
    pub(super) fn kill_running(&mut self, now: VirtualTime, clock: &LocalClock, id: &ContainerId) {
        self.say_signal(id, Signal::Kill);
        let code = 128 + Signal::Kill.number();
        self.end_running(now, clock, id, code, ExitCause::Killed);
    }

    /// Ends whatever process the container has.
    pub fn end_running(
        &mut self,
        now: VirtualTime,
        clock: &LocalClock,
        id: &ContainerId,
        code: i32,
        because: ExitCause,
    ) {
        let process = self
            .containers
            .get(id)
            .and_then(|container| container.process.as_ref());
        if let Some(run) = process.map(|process| process.run) {
            self.end_process(now, clock, id, run, code, because);
        }
    }

    pub(super) fn end_process(
        &mut self,
        now: VirtualTime,
        clock: &LocalClock,
        id: &ContainerId,
        run: u64,
        code: i32,
        because: ExitCause,
    ) {
        if !self.die(id, run, code, because) {
            return;
        }
        let late = |effect: &RuntimeEffect| match effect {
            RuntimeEffect::ExitLate(by) => Some(*by),
            _ => None,
        };
        match self.use_rule(late) {
            Some(by) => {
                let after = self.stream.duration(by);
                let container = id.clone();
                self.plan(now + after, Todo::Notice { container, run });
            }
            None => self.notice(now, clock, id, run),
        }
    }

    /// A process is no longer; false if this one was not any more.
    fn die(&mut self, id: &ContainerId, run: u64, code: i32, because: ExitCause) -> bool {
        let container = self.containers.get_mut(id);
        let process = container.and_then(|it| it.process.as_mut());
        let Some(process) = process.filter(|it| it.run == run && !it.is_dead()) else {
            return false;
        };
        process.ended = Some((code, because));
        process.actor = None;
        true
    }

    /// What waits for a process learns that it has ended: from here on everybody may know.
    pub(super) fn notice(
        &mut self,
        now: VirtualTime,
        clock: &LocalClock,
        id: &ContainerId,
        run: u64,
    ) {
        let container = self.containers.get(id);
        let process = container.and_then(|it| it.process.as_ref());
        let Some((code, because)) = process
            .filter(|process| process.run == run)
            .and_then(|process| process.ended)
        else {
            return;
        };
        let wrong = |effect: &RuntimeEffect| match effect {
            RuntimeEffect::ExitCodeWrong(code) => Some(*code),
            _ => None,
        };
        let code = self.use_rule(wrong).unwrap_or(code);
        let oom = because == ExitCause::OutOfMemory;
        let truth = self.exit_status(now, clock, ExitCode::Known(code), oom);
        self.output.push(Output::Truth(Payload::ContainerExited {
            container: id.clone(),
            exit: truth,
            because,
        }));
        let mut said = truth;
        let lost =
            |effect: &RuntimeEffect| matches!(effect, RuntimeEffect::ExitCodeLost).then_some(());
        if self.use_rule(lost).is_some() {
            said.code = ExitCode::Unknown;
            said.oom_killed = false;
            self.say_forgotten(id);
        }
        let timeless =
            |effect: &RuntimeEffect| matches!(effect, RuntimeEffect::ExitTimeMissing).then_some(());
        if self.use_rule(timeless).is_some() {
            said.exited_at = None;
        }
        self.record_exit(now, id, said);
    }

    /// Whoever removes a container kills its process, if it lives, and notices at once.
    pub(super) fn kill_for_delete(
        &mut self,
        now: VirtualTime,
        clock: &LocalClock,
        id: &ContainerId,
    ) {
        let container = self.containers.get(id);
        let Some(process) = container.and_then(|it| it.process.as_ref()) else {
            return;
        };
        let run = process.run;
        self.say_signal(id, Signal::Kill);
        self.die(id, run, 128 + Signal::Kill.number(), ExitCause::Killed);
        self.notice(now, clock, id, run);
    }

    /// The process ends and nobody will know how (power loss, monitor killed).
    pub fn forget_exit(
        &mut self,
        now: VirtualTime,
        clock: &LocalClock,
        id: &ContainerId,
        because: ExitCause,
    ) {
        if self
            .containers
            .get(id)
            .is_none_or(|container| container.process.is_none())
        {
            return;
        }
        let truth = self.exit_status(now, clock, ExitCode::Known(137), false);
        self.output.push(Output::Truth(Payload::ContainerExited {
            container: id.clone(),
            exit: truth,
            because,
        }));
        self.say_forgotten(id);
        let mut said = truth;
        said.code = ExitCode::Unknown;
        self.record_exit(now, id, said);
    }

    fn say_forgotten(&mut self, id: &ContainerId) {
        let said = Payload::ContainerExitForgotten {
            container: id.clone(),
        };
        self.output.push(Output::Truth(said));
    }

    fn record_exit(&mut self, now: VirtualTime, id: &ContainerId, exit: wavetank_port::ExitStatus) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        container.process = None;
        container.state.status = ContainerStatus::Exited;
        container.state.pid = None;
        container.state.exit = Some(exit);
        let stops = std::mem::take(&mut container.stops);
        let waits = std::mem::take(&mut container.waits);
        let state = container.state.clone();
        for call in stops {
            self.answer(now, call, "stop", Ok(RuntimeReply::Done));
        }
        for call in waits {
            let container = state.clone();
            self.answer(now, call, "wait", Ok(RuntimeReply::State { container }));
        }
        self.end_execs_of(now, id);
        self.emit(
            now,
            RuntimeEvent::Exited {
                id: id.clone(),
                exit,
            },
        );
    }

    /// A running container's probe says unhealthy while the fault is in force.
    pub fn set_unhealthy(&mut self, id: &ContainerId, fault: u32, unhealthy: bool) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        let Some(process) = &mut container.process else {
            return;
        };
        if unhealthy {
            process.unhealthy_by.insert(fault);
        } else {
            process.unhealthy_by.remove(&fault);
        }
        let healthy = process.unhealthy_by.is_empty();
        let said = Payload::ContainerHealth {
            container: id.clone(),
            healthy,
        };
        self.output.push(Output::Truth(said));
    }

    /// Sends an event to whoever subscribes, unless a rule or a daemon that is down loses it.
    pub(super) fn emit(&mut self, now: VirtualTime, event: RuntimeEvent) {
        if let Some(fault) = self.daemon_down_by.first().copied() {
            self.output.push(Output::Hit(fault));
            return;
        }
        let name = event.name();
        let dropped = |effect: &RuntimeEffect| match effect {
            RuntimeEffect::DropEvent(event) if event == name => Some(()),
            _ => None,
        };
        if self.use_rule(dropped).is_some() {
            return;
        }
        let mut delay = self.event_delay(now);
        let late = |effect: &RuntimeEffect| match effect {
            RuntimeEffect::DelayEvent(event, by) if event == name => Some(*by),
            _ => None,
        };
        if let Some(by) = self.use_rule(late) {
            delay += self.stream.nanos(by);
        }
        let twice = |effect: &RuntimeEffect| match effect {
            RuntimeEffect::DuplicateEvent(event) if event == name => Some(()),
            _ => None,
        };
        if self.use_rule(twice).is_some() {
            let again = now + Duration::from_nanos(delay * 2 + 1);
            self.plan(again, Todo::Emit(event.clone()));
        }
        self.plan(now + Duration::from_nanos(delay), Todo::Emit(event));
    }
}
