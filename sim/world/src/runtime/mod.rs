//! The simulated container runtime of one machine: containers, their processes, and the daemon
//! that answers for them.
//!
//! Three layers that fail apart: *processes* live and die with the machine; *records* (what the
//! daemon knows) survive a power loss; *answers and events* travel to whoever is connected and can
//! be lost. Map: this file (state and timeline), `calls` (what each verb does), `surface` (what
//! the port asks beyond that), `latency` (how long that takes), `process` (how processes begin and
//! end), `program` and `actors` (what they do in between), `freeze` (pausing them), `rules`
//! (faults).

mod actors;
mod calls;
mod freeze;
mod latency;
mod process;
mod program;
mod rules;
mod surface;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use wavetank_port::{
    ContainerId, ContainerState, ContainerStatus, ErrorClass, ExecResult, ExitCode, ExitStatus,
    RuntimeError, RuntimeEvent, RuntimeReply, Signal, WallTime,
};
use wavetank_trace::{ExitCause, Payload, VirtualTime};

use crate::clock::LocalClock;
use crate::random::Stream;
use crate::registry::Registry;
pub use actors::Written;
use actors::{Exec, LateFile};
use latency::Drawn;
pub use latency::RuntimeConfig;
use program::{Actor, Files};
pub use program::{Interpretation, Interpreter, Program, Step};
pub use rules::{RuntimeEffect, RuntimeRule};
pub use surface::PortCommand;
use surface::Request;

/// Stands for the fault's number where a call hangs because a container's monitor does.
const HUNG_MONITOR: u32 = u32::MAX;

/// What a runtime says to the outside, in order.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "few live at a time, and moved once"
)]
pub enum Output {
    /// The answer to a call.
    Reply {
        /// The caller's id of the call.
        call: u64,
        /// The answer.
        result: Result<RuntimeReply, RuntimeError>,
    },
    /// An event for whoever subscribes.
    Event(RuntimeEvent),
    /// The world's truth, for the trace.
    Truth(Payload),
    /// A fault had a part in something.
    Hit(u32),
}

/// What the world knows about a container's process.
#[derive(Clone, Debug, PartialEq)]
struct Process {
    /// Distinguishes this process from any other; timeline entries of an older one are void.
    run: u64,
    ignores_term: bool,
    healthy_at: VirtualTime,
    unhealthy_by: BTreeSet<u32>,
    /// What it does, where its command says so.
    actor: Option<Actor>,
    /// Set while it is paused.
    frozen: Option<Frozen>,
    /// It has ended, and its monitor has not noticed.
    ended: Option<(i32, ExitCause)>,
}

/// What a paused process would have done, and how long after the pause began.
#[derive(Clone, Debug, PartialEq)]
struct Frozen {
    todos: Vec<(Duration, Todo)>,
}

/// One container: what the runtime says about it, and its process while that lives.
#[derive(Clone, Debug, PartialEq)]
struct Container {
    state: ContainerState,
    memory_bytes_max: Option<u64>,
    process: Option<Process>,
    /// Stops that wait for the process to end.
    stops: Vec<u64>,
    /// Waits for the same.
    waits: Vec<u64>,
    /// What its process will do, where its command says so.
    interpretation: Interpretation,
    /// What a stop sends first, where the spec says so.
    stop_signal: Option<Signal>,
    /// Volumes it mounts.
    volumes: Vec<String>,
    /// Files of its own.
    files: Files,
    /// What its process has written.
    log: Vec<Written>,
}

impl Container {
    fn new(state: ContainerState) -> Self {
        Container {
            state,
            memory_bytes_max: None,
            process: None,
            stops: Vec::new(),
            waits: Vec::new(),
            interpretation: Interpretation::Image,
            stop_signal: None,
            volumes: Vec::new(),
            files: Files::new(),
            log: Vec::new(),
        }
    }
}

/// Something that will happen.
#[derive(Clone, Debug, PartialEq)]
enum Todo {
    /// A call takes effect.
    Execute { call: u64, request: Request },
    /// An answer leaves.
    Reply {
        call: u64,
        result: Result<RuntimeReply, RuntimeError>,
    },
    /// A pull is over, or hangs from here on.
    Pulled {
        call: u64,
        image: String,
        hangs: Option<u32>,
        result: Result<String, RuntimeError>,
    },
    /// A process ends.
    End {
        container: ContainerId,
        run: u64,
        code: i32,
        because: ExitCause,
    },
    /// Its monitor notices that a process has ended.
    Notice { container: ContainerId, run: u64 },
    /// A stop's grace is over.
    GraceOver {
        call: u64,
        container: ContainerId,
        run: u64,
    },
    /// A process does its next steps.
    Step { container: ContainerId, run: u64 },
    /// A flood writes.
    Flood { container: ContainerId, run: u64 },
    /// A file is made or replaced, if the writer still lives.
    WriteFile(LateFile),
    /// A command beside a process does its next steps.
    ExecStep { call: u64 },
    /// A command has run for as long as it may.
    ExecOver { call: u64 },
    /// An event leaves.
    Emit(RuntimeEvent),
}

/// One machine's container runtime.
#[derive(Clone, Debug)]
pub struct Runtime {
    config: RuntimeConfig,
    stream: Stream,
    drawn: Drawn,
    containers: BTreeMap<ContainerId, Container>,
    /// Digests by name.
    images: BTreeMap<String, String>,
    /// Files of volumes, which belong to the machine.
    volumes: BTreeMap<String, Files>,
    /// Commands beside processes, by the call that began them.
    execs: BTreeMap<u64, Exec>,
    exec_results: BTreeMap<u64, ExecResult>,
    interpreter: Option<Interpreter>,
    /// Containers whose monitor stands still.
    hung: BTreeSet<ContainerId>,
    timeline: BTreeMap<(VirtualTime, u64), Todo>,
    /// Calls that hang, with the fault that holds them.
    parked: Vec<(u32, u64, Request)>,
    rules: Vec<RuntimeRule>,
    daemon_down_by: BTreeSet<u32>,
    sequence: u64,
    next_pid: u32,
    output: Vec<Output>,
}

impl Runtime {
    /// A runtime without containers or images.
    pub fn new(config: RuntimeConfig, stream: Stream) -> Self {
        Runtime {
            config,
            stream,
            drawn: Drawn::default(),
            containers: BTreeMap::new(),
            images: BTreeMap::new(),
            volumes: BTreeMap::new(),
            execs: BTreeMap::new(),
            exec_results: BTreeMap::new(),
            interpreter: None,
            hung: BTreeSet::new(),
            timeline: BTreeMap::new(),
            parked: Vec::new(),
            rules: Vec::new(),
            daemon_down_by: BTreeSet::new(),
            sequence: 0,
            next_pid: 100,
            output: Vec::new(),
        }
    }

    /// When [`Runtime::wake`] has something to do.
    pub fn next_deadline(&self) -> Option<VirtualTime> {
        self.timeline.keys().next().map(|(at, _)| *at)
    }

    /// Takes what was said since the last time.
    pub fn drain_output(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.output)
    }

    /// True if there is something to drain.
    pub fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// Does everything that is due at `now`.
    pub fn wake(&mut self, now: VirtualTime, clock: &LocalClock, registry: &mut Registry) {
        while let Some(entry) = self.timeline.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let todo = entry.remove();
            self.perform(now, clock, registry, todo);
        }
    }

    fn perform(
        &mut self,
        now: VirtualTime,
        clock: &LocalClock,
        registry: &mut Registry,
        todo: Todo,
    ) {
        match todo {
            Todo::Execute { call, request } => self.execute(now, clock, registry, call, request),
            Todo::Reply { call, result } => self.output.push(Output::Reply { call, result }),
            Todo::Pulled {
                call,
                image,
                hangs,
                result,
            } => {
                self.pulled(now, call, image, hangs, result);
            }
            Todo::End {
                container,
                run,
                code,
                because,
            } => {
                self.end_process(now, clock, &container, run, code, because);
            }
            Todo::Notice { container, run } => self.notice(now, clock, &container, run),
            Todo::GraceOver {
                call,
                container,
                run,
            } => self.grace_over(now, clock, call, &container, run),
            Todo::Step { container, run } => self.step(now, clock, &container, run),
            Todo::Flood { container, run } => self.flood(now, clock, &container, run),
            Todo::WriteFile(file) => self.write_file(file),
            Todo::ExecStep { call } => self.exec_step(now, call),
            Todo::ExecOver { call } => self.exec_over(now, call),
            Todo::Emit(event) => self.output.push(Output::Event(event)),
        }
    }

    fn plan(&mut self, at: VirtualTime, todo: Todo) {
        self.sequence += 1;
        self.timeline.insert((at, self.sequence), todo);
    }

    /// Ids of containers whose process lives, in id order.
    pub fn running(&self) -> impl Iterator<Item = &ContainerId> {
        self.containers
            .iter()
            .filter(|(_, container)| container.process.as_ref().is_some_and(|it| !it.is_dead()))
            .map(|(id, _)| id)
    }

    /// As [`Runtime::running`], of one service by its label (`None` for any).
    pub fn running_of<'s>(
        &'s self,
        service: Option<&'s str>,
    ) -> impl Iterator<Item = &'s ContainerId> {
        self.running().filter(move |id| {
            let container = self.containers.get(*id);
            let label = container.and_then(|it| it.state.labels.get("wavetank.service"));
            service.is_none_or(|service| label.is_some_and(|label| label == service))
        })
    }

    /// The machine loses power: processes, calls and answers are gone, records and images stay.
    pub fn lose_power(&mut self, now: VirtualTime, clock: &LocalClock) {
        self.timeline.clear();
        self.parked.clear();
        self.hung.clear();
        self.execs.clear();
        let all: Vec<ContainerId> = self.containers.keys().cloned().collect();
        for id in all {
            self.forget_exit(now, clock, &id, ExitCause::PowerLoss);
        }
        // Nobody hears events of a machine without power.
        self.timeline.clear();
        self.drawn.clear();
    }

    /// As [`Runtime::lose_power`], and the records and images are gone too.
    pub fn wipe(&mut self, now: VirtualTime, clock: &LocalClock) {
        self.lose_power(now, clock);
        let ids: Vec<ContainerId> = self.containers.keys().cloned().collect();
        for id in ids {
            self.remove_record(now, &id);
        }
        self.images.clear();
        self.volumes.clear();
    }

    /// The caller's process is gone: nobody waits for answers or events any more.
    pub fn disconnect(&mut self) {
        self.timeline
            .retain(|_, todo| !matches!(todo, Todo::Reply { .. } | Todo::Emit(_)));
        self.drawn.forget_events();
        // Calls under way still take effect; their answers go nowhere (the engine drops them).
    }

    /// The machine stood still from `since` to `now`: everything happens that much later.
    pub fn shift(&mut self, since: VirtualTime, now: VirtualTime) {
        let pause = now.since(since);
        self.drawn.shift(pause);
        let timeline = std::mem::take(&mut self.timeline);
        self.timeline = timeline
            .into_iter()
            .map(|((at, n), todo)| ((at + pause, n), todo))
            .collect();
    }

    /// The runtime daemon goes down: calls fail, events are lost, containers go on. Without
    /// `keeps_state` its records are gone and the processes with them, as with a daemon that is
    /// the parent of its containers.
    pub fn daemon_down(
        &mut self,
        now: VirtualTime,
        clock: &LocalClock,
        fault: u32,
        keeps_state: bool,
    ) {
        self.daemon_down_by.insert(fault);
        self.drawn.clear();
        let timeline = std::mem::take(&mut self.timeline);
        let mut waiting: Vec<u64> = self.parked.drain(..).map(|(_, call, _)| call).collect();
        for (key, todo) in timeline {
            match todo {
                Todo::Execute { call, .. } | Todo::Reply { call, .. } => waiting.push(call),
                Todo::Pulled { call, .. } => waiting.push(call),
                Todo::End { .. }
                | Todo::Notice { .. }
                | Todo::Step { .. }
                | Todo::Flood { .. }
                | Todo::WriteFile(_) => {
                    self.timeline.insert(key, todo);
                }
                Todo::Emit(_)
                | Todo::GraceOver { .. }
                | Todo::ExecStep { .. }
                | Todo::ExecOver { .. } => {}
            }
        }
        waiting.extend(std::mem::take(&mut self.execs).into_keys());
        for container in self.containers.values_mut() {
            waiting.append(&mut container.stops);
            waiting.append(&mut container.waits);
        }
        if !waiting.is_empty() {
            self.output.push(Output::Hit(fault));
        }
        for call in waiting {
            self.refuse(now, call);
        }
        if !keeps_state {
            self.output.push(Output::Hit(fault));
            self.drop_records(now, clock);
        }
    }

    fn drop_records(&mut self, now: VirtualTime, clock: &LocalClock) {
        let ids: Vec<ContainerId> = self.containers.keys().cloned().collect();
        for id in ids {
            self.forget_exit(now, clock, &id, ExitCause::Fault);
            self.remove_record(now, &id);
        }
    }

    fn refuse(&mut self, now: VirtualTime, call: u64) {
        let error = RuntimeError::new(ErrorClass::Unavailable, "connection refused");
        self.plan(
            now + Duration::from_micros(50),
            Todo::Reply {
                call,
                result: Err(error),
            },
        );
    }

    /// The runtime daemon is back; whoever subscribes learns that events may be missing.
    pub fn daemon_up(&mut self, now: VirtualTime, fault: u32) {
        self.daemon_down_by.remove(&fault);
        if self.daemon_down_by.is_empty() {
            self.plan(now, Todo::Emit(RuntimeEvent::Interrupted));
        }
    }

    /// A container that nobody ordered: left over from another life, running for ever.
    pub fn add_orphan(&mut self, now: VirtualTime, clock: &LocalClock, id: &ContainerId) {
        let labels = [("wavetank.node".to_owned(), self.config.node.to_string())].into();
        let state = ContainerState {
            id: id.clone(),
            image: wavetank_port::ImageReference("orphan".into()),
            labels,
            status: ContainerStatus::Created,
            pid: None,
            started_at: None,
            exit: None,
        };
        self.containers.insert(id.clone(), Container::new(state));
        self.output.push(Output::Truth(Payload::ContainerCreated {
            container: id.clone(),
            volumes: Vec::new(),
        }));
        self.begin_process(now, clock, id, None);
    }

    fn remove_record(&mut self, now: VirtualTime, id: &ContainerId) {
        if let Some(container) = self.containers.remove(id) {
            self.hung.remove(id);
            for call in container.waits {
                self.answer(now, call, "wait", Err(missing(id)));
            }
            let gone = Payload::ContainerDeleted {
                container: id.clone(),
            };
            self.output.push(Output::Truth(gone));
        }
    }

    fn exit_status(
        &self,
        now: VirtualTime,
        clock: &LocalClock,
        code: ExitCode,
        oom_killed: bool,
    ) -> ExitStatus {
        let at: WallTime = clock.wall(now);
        ExitStatus {
            code,
            exited_at: Some(at),
            oom_killed,
        }
    }
}

fn missing(id: &ContainerId) -> RuntimeError {
    RuntimeError::new(ErrorClass::NotFound, format!("no container {id}"))
}

fn wrong_state(id: &ContainerId, words: &str) -> RuntimeError {
    RuntimeError::new(
        ErrorClass::FailedPrecondition,
        format!("container {id} {words}"),
    )
}

#[cfg(test)]
mod tests;
