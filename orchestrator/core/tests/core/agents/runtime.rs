//! A container runtime of a few lines whose every answer a test may bend. Commands take effect
//! and are answered one millisecond later each; what happens in between is up to the faults.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use wavetank_core::RuntimeCall;
use wavetank_model::{InstanceId, Instant, TaskId};
use wavetank_port::{
    ContainerId, ContainerState, ContainerStatus, ErrorClass, ExitCode, ExitStatus, RuntimeCommand,
    RuntimeError, RuntimeEvent, RuntimeReply, WallTime,
};

use super::specs::PROBE;

pub const STEP: Duration = Duration::from_millis(1);

/// What goes wrong with the next calls of one verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bend {
    /// Refused with this class, without an effect.
    Error(ErrorClass),
    /// Never answered, without an effect.
    Hang,
    /// Takes effect, is never answered.
    LoseReply,
    /// Takes effect this much later; the caller has given up by then.
    Late(Duration),
}

/// What processes of an image do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behaviour {
    pub run_for: Option<Duration>,
    pub code: i32,
    pub oom: bool,
    pub obeys_term: bool,
    pub healthy: bool,
}

impl Default for Behaviour {
    fn default() -> Self {
        Behaviour {
            run_for: None,
            code: 0,
            oom: false,
            obeys_term: true,
            healthy: true,
        }
    }
}

/// Something that the runtime will do.
#[derive(Clone, Debug)]
pub enum Due {
    Execute(RuntimeCall),
    Say(Output),
    End {
        id: ContainerId,
        code: i32,
        oom: bool,
    },
}

/// What comes out.
#[derive(Clone, Debug)]
pub enum Output {
    Reply {
        call: wavetank_core::CallId,
        result: Result<RuntimeReply, RuntimeError>,
    },
    Event(RuntimeEvent),
}

#[derive(Default)]
pub struct Runtime {
    pub containers: BTreeMap<ContainerId, ContainerState>,
    pub images: BTreeSet<String>,
    pub behaviour: Behaviour,
    /// Verb, what goes wrong, how many times.
    pub bends: Vec<(&'static str, Bend, u32)>,
    pub lose_events: bool,
    pub repeat_events: bool,
    pub delay_events: Duration,
    pub empty_listings: u32,
    pub down: bool,
    /// Stops that wait for their process to end.
    waiting: Vec<(ContainerId, wavetank_core::CallId)>,
    due: BTreeMap<(Instant, u64), Due>,
    counter: u64,
    /// How often each verb took effect or was refused.
    pub called: BTreeMap<&'static str, u32>,
}

impl Runtime {
    pub fn next_deadline(&self) -> Option<Instant> {
        self.due.keys().next().map(|(at, _)| *at)
    }

    pub fn plan(&mut self, at: Instant, due: Due) {
        self.counter += 1;
        self.due.insert((at, self.counter), due);
    }

    pub fn submit(&mut self, now: Instant, call: RuntimeCall) {
        *self.called.entry(call.command.name()).or_default() += 1;
        if self.down {
            let error = RuntimeError::new(ErrorClass::Unavailable, "connection refused");
            return self.reply(now, call.call, Err(error));
        }
        match self.bend(call.command.name()) {
            Some(Bend::Hang) => {}
            Some(Bend::Error(class)) => {
                self.reply(now, call.call, Err(RuntimeError::new(class, "bent")));
            }
            Some(Bend::LoseReply) => {
                let _ = self.execute(now, &call.command);
            }
            Some(Bend::Late(by)) => self.plan(now + by, Due::Execute(call)),
            None => self.plan(now + STEP, Due::Execute(call)),
        }
    }

    fn bend(&mut self, verb: &str) -> Option<Bend> {
        let at = self
            .bends
            .iter()
            .position(|(bent, _, left)| *bent == verb && *left > 0)?;
        self.bends[at].2 -= 1;
        Some(self.bends[at].1)
    }

    fn reply(
        &mut self,
        now: Instant,
        call: wavetank_core::CallId,
        result: Result<RuntimeReply, RuntimeError>,
    ) {
        self.plan(now + STEP, Due::Say(Output::Reply { call, result }));
    }

    fn event(&mut self, now: Instant, event: RuntimeEvent) {
        if self.lose_events || self.down {
            return;
        }
        let at = now + STEP + self.delay_events;
        self.plan(at, Due::Say(Output::Event(event.clone())));
        if self.repeat_events {
            self.plan(at + STEP, Due::Say(Output::Event(event)));
        }
    }

    /// Takes the next thing that is due and does it; returns what is to be said.
    pub fn wake(&mut self, now: Instant) -> Option<Output> {
        let entry = self
            .due
            .first_entry()
            .filter(|entry| entry.key().0 <= now)?;
        match entry.remove() {
            Due::Say(output) => return Some(output),
            Due::End { id, code, oom } => self.end(now, &id, ExitCode::Known(code), oom),
            Due::Execute(RuntimeCall { call, command }) => self.perform(now, call, &command),
        }
        None
    }

    fn perform(&mut self, now: Instant, call: wavetank_core::CallId, command: &RuntimeCommand) {
        if let RuntimeCommand::Stop { id, .. } = command
            && self.is_running(id)
        {
            self.waiting.push((id.clone(), call));
            let _ = self.execute(now, command);
            return;
        }
        let result = self.execute(now, command);
        self.reply(now, call, result);
    }

    fn execute(
        &mut self,
        now: Instant,
        command: &RuntimeCommand,
    ) -> Result<RuntimeReply, RuntimeError> {
        if let Some(id) = command.container()
            && !matches!(command, RuntimeCommand::Create { .. })
            && !self.containers.contains_key(id)
        {
            return Err(RuntimeError::new(ErrorClass::NotFound, "no such container"));
        }
        match command {
            RuntimeCommand::Pull { image } => {
                self.images.insert(image.0.clone());
                Ok(RuntimeReply::Pulled {
                    digest: "sha256:1".into(),
                })
            }
            RuntimeCommand::Create { spec } => self.create(spec),
            RuntimeCommand::Start { id } => self.start(now, id),
            RuntimeCommand::Stop { id, grace } => {
                if self.is_running(id) {
                    let (after, code) = if self.behaviour.obeys_term {
                        (STEP, 143)
                    } else {
                        (*grace, 137)
                    };
                    self.plan(
                        now + after,
                        Due::End {
                            id: id.clone(),
                            code,
                            oom: false,
                        },
                    );
                }
                Ok(RuntimeReply::Done)
            }
            RuntimeCommand::Kill { .. } => Ok(RuntimeReply::Done),
            RuntimeCommand::Delete { id, force } => self.delete(now, id, *force),
            RuntimeCommand::Inspect { id } => Ok(RuntimeReply::State {
                container: self.containers[id].clone(),
            }),
            RuntimeCommand::List { labels } => Ok(self.list(labels)),
            RuntimeCommand::Probe {
                id,
                command,
                timeout,
            } if self.is_running(id) => {
                let asked = *command == [PROBE] && *timeout == Duration::from_secs(1);
                let healthy = self.behaviour.healthy && asked;
                Ok(RuntimeReply::Probed { healthy })
            }
            RuntimeCommand::Probe { .. } => Err(RuntimeError::new(
                ErrorClass::FailedPrecondition,
                "not running",
            )),
        }
    }

    fn create(
        &mut self,
        spec: &wavetank_port::ContainerSpec,
    ) -> Result<RuntimeReply, RuntimeError> {
        if self.containers.contains_key(&spec.id) {
            return Err(RuntimeError::new(ErrorClass::AlreadyExists, "taken"));
        }
        if !self.images.contains(&spec.image.0) {
            return Err(RuntimeError::new(ErrorClass::NotFound, "no such image"));
        }
        self.put(&spec.id, spec.labels.clone(), ContainerStatus::Created);
        Ok(RuntimeReply::Done)
    }

    /// Puts a container there that nobody asked for.
    pub fn put(
        &mut self,
        id: &ContainerId,
        labels: BTreeMap<String, String>,
        status: ContainerStatus,
    ) {
        let state = ContainerState {
            id: id.clone(),
            image: wavetank_port::ImageReference("web".into()),
            labels,
            status,
            pid: None,
            started_at: None,
            exit: None,
        };
        self.containers.insert(id.clone(), state);
    }

    fn start(&mut self, now: Instant, id: &ContainerId) -> Result<RuntimeReply, RuntimeError> {
        let container = self.containers.get_mut(id).expect("checked before");
        if container.status != ContainerStatus::Created {
            return Err(RuntimeError::new(
                ErrorClass::FailedPrecondition,
                "started before",
            ));
        }
        container.status = ContainerStatus::Running;
        container.pid = Some(7);
        container.started_at = Some(WallTime(now.0));
        self.event(
            now,
            RuntimeEvent::Started {
                id: id.clone(),
                pid: 7,
                at: WallTime(now.0),
            },
        );
        if let Some(after) = self.behaviour.run_for {
            let (code, oom) = (self.behaviour.code, self.behaviour.oom);
            if after.is_zero() {
                self.end(now, id, ExitCode::Known(code), oom);
            } else {
                self.plan(
                    now + after,
                    Due::End {
                        id: id.clone(),
                        code,
                        oom,
                    },
                );
            }
        }
        Ok(RuntimeReply::State {
            container: self.containers[id].clone(),
        })
    }

    fn delete(
        &mut self,
        now: Instant,
        id: &ContainerId,
        force: bool,
    ) -> Result<RuntimeReply, RuntimeError> {
        if self.is_running(id) {
            if !force {
                return Err(RuntimeError::new(ErrorClass::FailedPrecondition, "running"));
            }
            self.end(now, id, ExitCode::Known(137), false);
        }
        self.containers.remove(id);
        self.event(now, RuntimeEvent::Deleted { id: id.clone() });
        Ok(RuntimeReply::Done)
    }

    fn list(&mut self, labels: &BTreeMap<String, String>) -> RuntimeReply {
        let has = |state: &&ContainerState| {
            labels
                .iter()
                .all(|(key, value)| state.labels.get(key) == Some(value))
        };
        let mut containers: Vec<ContainerState> =
            self.containers.values().filter(has).cloned().collect();
        if self.empty_listings > 0 {
            self.empty_listings -= 1;
            containers.clear();
        }
        RuntimeReply::Containers { containers }
    }

    pub fn is_running(&self, id: &ContainerId) -> bool {
        self.containers
            .get(id)
            .is_some_and(|state| state.status == ContainerStatus::Running)
    }

    /// A process ends.
    pub fn end(&mut self, now: Instant, id: &ContainerId, code: ExitCode, oom: bool) {
        let exit = ExitStatus {
            code,
            exited_at: Some(WallTime(now.0)),
            oom_killed: oom,
        };
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        if container.status != ContainerStatus::Running {
            return;
        }
        container.status = ContainerStatus::Exited;
        container.exit = Some(exit);
        self.event(
            now,
            RuntimeEvent::Exited {
                id: id.clone(),
                exit,
            },
        );
        let answered: Vec<_> = self
            .waiting
            .iter()
            .filter(|(waiting, _)| waiting == id)
            .map(|(_, c)| *c)
            .collect();
        self.waiting.retain(|(waiting, _)| waiting != id);
        for call in answered {
            self.reply(now, call, Ok(RuntimeReply::Done));
        }
    }

    /// The machine loses power: all processes are gone, nobody knows how they ended.
    pub fn lose_power(&mut self) {
        self.due.clear();
        self.waiting.clear();
        let unknown = ExitStatus {
            code: ExitCode::Unknown,
            exited_at: None,
            oom_killed: false,
        };
        for container in self.containers.values_mut() {
            if container.status == ContainerStatus::Running {
                container.status = ContainerStatus::Exited;
                container.exit = Some(unknown);
            }
        }
    }

    /// Nobody waits for answers or events any more.
    pub fn disconnect(&mut self) {
        self.due.retain(|_, due| !matches!(due, Due::Say(_)));
        self.waiting.clear();
    }

    /// The daemon goes down: calls under way are refused, events are lost.
    pub fn go_down(&mut self, now: Instant, keeps_state: bool) {
        self.down = true;
        let mut refused: Vec<_> = self.waiting.drain(..).map(|(_, call)| call).collect();
        for (key, due) in std::mem::take(&mut self.due) {
            match due {
                Due::Execute(call) => refused.push(call.call),
                Due::Say(Output::Reply { call, .. }) => refused.push(call),
                Due::Say(Output::Event(_)) => {}
                Due::End { .. } => {
                    self.due.insert(key, due);
                }
            }
        }
        for call in refused {
            let error = RuntimeError::new(ErrorClass::Unavailable, "connection reset");
            self.reply(now, call, Err(error));
        }
        if !keeps_state {
            self.containers.clear();
        }
    }

    pub fn come_up(&mut self, now: Instant) {
        self.down = false;
        self.plan(
            now + STEP,
            Due::Say(Output::Event(RuntimeEvent::Interrupted)),
        );
    }

    /// Tasks of the tested agent with the number of their live containers.
    pub fn live(&self) -> BTreeMap<TaskId, u32> {
        let mut live = BTreeMap::new();
        let is_own = |state: &ContainerState| {
            state
                .labels
                .get("wavetank.node")
                .is_some_and(|node| node == "agent-1")
        };
        let running = |state: &&ContainerState| self.is_running(&state.id) && is_own(state);
        for id in self
            .containers
            .values()
            .filter(running)
            .map(|state| &state.id)
        {
            if let Some(instance) = InstanceId::of_container(id) {
                *live.entry(instance.task).or_default() += 1;
            }
        }
        live
    }
}
