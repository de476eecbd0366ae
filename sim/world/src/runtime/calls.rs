//! What each verb does. A call takes effect within its latency, half-way unless more is known, and
//! is answered at the end, so that a caller that gives up never knows which part it missed.

use std::time::Duration;

use wavetank_port::{
    ContainerId, ContainerSpec, ContainerState, ContainerStatus, ErrorClass, ImageReference,
    RuntimeCommand, RuntimeError, RuntimeEvent, RuntimeReply, Signal,
};
use wavetank_trace::{ExitCause, Payload, VirtualTime};

use super::rules::covers;
use super::{
    Container, HUNG_MONITOR, Interpretation, Output, Process, Request, Runtime, RuntimeEffect,
    Todo, missing,
};
use crate::clock::LocalClock;
use crate::registry::{Pull, Registry};

type Answer = Result<RuntimeReply, RuntimeError>;

impl Runtime {
    /// A call arrives.
    pub fn submit(&mut self, now: VirtualTime, call: u64, command: RuntimeCommand) {
        self.admit(now, call, Request::Command(command));
    }

    pub(super) fn admit(&mut self, now: VirtualTime, call: u64, request: Request) {
        let name = request.name();
        if let Some(fault) = self.daemon_down_by.first().copied() {
            self.output.push(Output::Hit(fault));
            self.refuse(now, call);
            return;
        }
        let hang = |effect: &RuntimeEffect| match effect {
            RuntimeEffect::Hang(verb) if covers(verb, name) => Some(()),
            _ => None,
        };
        if let Some((fault, ())) = self.use_rule_of(hang) {
            self.parked.push((fault, call, request));
            return;
        }
        if request.container().is_some_and(|id| self.hung.contains(id)) {
            self.parked.push((HUNG_MONITOR, call, request));
            return;
        }
        let mut before = self.until_effect(call, name);
        let delay = |effect: &RuntimeEffect| match effect {
            RuntimeEffect::Delay(verb, by) if covers(verb, name) => Some(*by),
            _ => None,
        };
        if let Some(by) = self.use_rule(delay) {
            before += self.stream.nanos(by) / 2;
        }
        let at = now + Duration::from_nanos(before);
        self.plan(at, Todo::Execute { call, request });
    }

    pub(super) fn execute(
        &mut self,
        now: VirtualTime,
        clock: &LocalClock,
        registry: &mut Registry,
        call: u64,
        request: Request,
    ) {
        let name = request.name();
        let error = |effect: &RuntimeEffect| match effect {
            RuntimeEffect::Error(verb, class) if covers(verb, name) => Some(*class),
            _ => None,
        };
        if let Some(class) = self.use_rule(error) {
            self.answer(
                now,
                call,
                name,
                Err(RuntimeError::new(class, "injected failure")),
            );
            return;
        }
        let command = match request {
            Request::Command(command) => command,
            Request::Port(command) => {
                return self.execute_port(now, clock, registry, call, command);
            }
        };
        let answer = match command {
            RuntimeCommand::Pull { image } => return self.pull(now, registry, call, image),
            RuntimeCommand::Stop { id, grace } => {
                return self.stop(now, registry, call, &id, grace);
            }
            RuntimeCommand::Create { spec } => self.create(spec),
            RuntimeCommand::Start { id } => self.start(now, clock, registry, &id),
            RuntimeCommand::Kill { id, signal } => self.kill(now, clock, registry, &id, signal),
            RuntimeCommand::Delete { id, force } => self.delete(now, clock, &id, force),
            RuntimeCommand::Inspect { id } => self.state_of(&id),
            RuntimeCommand::List { labels } => self.list(&labels),
            RuntimeCommand::Probe { id, .. } => self.probe(now, &id),
        };
        self.answer(now, call, name, answer);
    }

    /// Sends an answer after the rest of a call's latency, unless it gets lost.
    pub(super) fn answer(&mut self, now: VirtualTime, call: u64, name: &str, result: Answer) {
        let lost = |effect: &RuntimeEffect| match effect {
            RuntimeEffect::LostReply(verb) if verb == name => Some(()),
            _ => None,
        };
        let rest = self.take_rest(call);
        if result.is_ok() && self.use_rule(lost).is_some() {
            return;
        }
        let rest = rest.unwrap_or_else(|| self.stream.nanos(self.config.latency) / 2);
        self.plan(
            now + Duration::from_nanos(rest),
            Todo::Reply { call, result },
        );
    }

    fn pull(
        &mut self,
        now: VirtualTime,
        registry: &mut Registry,
        call: u64,
        image: ImageReference,
    ) {
        if self.images.contains_key(&image.0) {
            // The content of a present image is not looked up again.
            let digest = registry.pull(&image).result.unwrap_or_default();
            self.answer(now, call, "pull", Ok(RuntimeReply::Pulled { digest }));
            return;
        }
        if self.has_space(now, call, &image) {
            let pull = registry.pull(&image);
            self.transfer(now, call, image, pull);
        }
    }

    /// False if a rule takes the space that a pull needs; the call is then answered.
    pub(super) fn has_space(
        &mut self,
        now: VirtualTime,
        call: u64,
        image: &ImageReference,
    ) -> bool {
        let space = |effect: &RuntimeEffect| matches!(effect, RuntimeEffect::NoSpace).then_some(());
        if self.use_rule(space).is_none() {
            return true;
        }
        let error = RuntimeError::new(
            ErrorClass::ResourceExhausted,
            format!("unpack {image}: no space left on device"),
        );
        self.answer(now, call, "pull", Err(error));
        false
    }

    pub(super) fn transfer(
        &mut self,
        now: VirtualTime,
        call: u64,
        image: ImageReference,
        pull: Pull,
    ) {
        self.output
            .extend(pull.hit.iter().map(|fault| Output::Hit(*fault)));
        let at = now + Duration::from_nanos(pull.duration_ns);
        let (hangs, result) = (pull.hangs, pull.result);
        self.plan(
            at,
            Todo::Pulled {
                call,
                image: image.0,
                hangs,
                result,
            },
        );
    }

    pub(super) fn pulled(
        &mut self,
        now: VirtualTime,
        call: u64,
        image: String,
        hangs: Option<u32>,
        result: Result<String, RuntimeError>,
    ) {
        if let Some(fault) = hangs {
            let image = ImageReference(image);
            let pull = Request::Command(RuntimeCommand::Pull { image });
            self.parked.push((fault, call, pull));
            return;
        }
        let answer = result.map(|digest| {
            self.images.insert(image, digest.clone());
            RuntimeReply::Pulled { digest }
        });
        self.answer(now, call, "pull", answer);
    }

    fn create(&mut self, spec: ContainerSpec) -> Answer {
        if self.containers.contains_key(&spec.id) {
            return Err(RuntimeError::new(
                ErrorClass::AlreadyExists,
                format!("container {} exists", spec.id),
            ));
        }
        if !self.images.contains_key(&spec.image.0) {
            return Err(RuntimeError::new(
                ErrorClass::NotFound,
                format!("image {} is not present", spec.image),
            ));
        }
        let interpretation = match self.interpreter {
            Some(interpret) => interpret(&spec),
            None => Interpretation::Image,
        };
        let state = ContainerState {
            id: spec.id.clone(),
            image: spec.image,
            labels: spec.labels,
            status: ContainerStatus::Created,
            pid: None,
            started_at: None,
            exit: None,
        };
        self.output.push(Output::Truth(Payload::ContainerCreated {
            container: spec.id.clone(),
            volumes: spec.volumes.clone(),
        }));
        let container = Container {
            memory_bytes_max: spec.memory_bytes_max,
            interpretation,
            stop_signal: spec.stop_signal,
            volumes: spec.volumes,
            ..Container::new(state)
        };
        self.containers.insert(spec.id, container);
        Ok(RuntimeReply::Done)
    }

    fn start(
        &mut self,
        now: VirtualTime,
        clock: &LocalClock,
        registry: &Registry,
        id: &ContainerId,
    ) -> Answer {
        let container = self.containers.get(id).ok_or_else(|| missing(id))?;
        if container.state.status != ContainerStatus::Created {
            return Err(RuntimeError::new(
                ErrorClass::FailedPrecondition,
                format!("container {id} was started before"),
            ));
        }
        if container.interpretation == Interpretation::NotRunnable {
            let message = format!("container {id} has no program that can be run");
            return Err(RuntimeError::new(ErrorClass::InvalidArgument, message));
        }
        let image = registry.image(&container.state.image).cloned();
        self.begin_process(now, clock, id, image.as_ref());
        let at_once = |effect: &RuntimeEffect| match effect {
            RuntimeEffect::ExitBeforeStart(code) => Some(*code),
            _ => None,
        };
        if let Some(code) = self.use_rule(at_once) {
            self.end_running(now, clock, id, code, ExitCause::Fault);
        }
        self.state_of(id)
    }

    fn stop(
        &mut self,
        now: VirtualTime,
        registry: &Registry,
        call: u64,
        id: &ContainerId,
        grace: Duration,
    ) {
        let is_dead = self.containers.get(id).is_some_and(|container| {
            container.process.as_ref().is_some_and(Process::is_dead)
                || container.state.status == ContainerStatus::Exited
        });
        if is_dead && self.stumbles_over_the_dead() {
            let error = RuntimeError::new(ErrorClass::Unknown, "no such process");
            self.answer(now, call, "stop", Err(error));
            return;
        }
        let Some(container) = self.containers.get_mut(id) else {
            self.answer(now, call, "stop", Err(missing(id)));
            return;
        };
        let Some(process) = &container.process else {
            self.answer(now, call, "stop", Ok(RuntimeReply::Done));
            return;
        };
        let run = process.run;
        container.stops.push(call);
        match container.first_signal() {
            None => self.terminate(now, registry, id),
            Some(signal) => self.signal_actor(now, id, signal),
        }
        self.plan(
            now + grace,
            Todo::GraceOver {
                call,
                container: id.clone(),
                run,
            },
        );
    }

    /// A signal is for a process that is dead: does a fault make a strange error of that?
    fn stumbles_over_the_dead(&mut self) -> bool {
        let dead =
            |effect: &RuntimeEffect| matches!(effect, RuntimeEffect::KillDeadErrors).then_some(());
        self.use_rule(dead).is_some()
    }

    pub(super) fn kill(
        &mut self,
        now: VirtualTime,
        clock: &LocalClock,
        registry: &Registry,
        id: &ContainerId,
        signal: Signal,
    ) -> Answer {
        let container = self.containers.get(id).ok_or_else(|| missing(id))?;
        if container.process.as_ref().is_none_or(Process::is_dead) {
            let class = match self.stumbles_over_the_dead() {
                true => ErrorClass::Unknown,
                false => ErrorClass::NotFound,
            };
            return Err(RuntimeError::new(class, "no such process"));
        }
        let acts = |it: &Process| it.actor.is_some();
        if signal != Signal::Kill && container.process.as_ref().is_some_and(acts) {
            self.signal_actor(now, id, signal);
            return Ok(RuntimeReply::Done);
        }
        match signal {
            Signal::Terminate => self.terminate(now, registry, id),
            Signal::Kill => self.kill_running(now, clock, id),
            Signal::Interrupt | Signal::HangUp | Signal::Other(_) => {
                let code = 128 + signal.number();
                self.say_signal(id, signal);
                self.end_running(now, clock, id, code, ExitCause::Terminated);
            }
        }
        Ok(RuntimeReply::Done)
    }

    fn delete(
        &mut self,
        now: VirtualTime,
        clock: &LocalClock,
        id: &ContainerId,
        force: bool,
    ) -> Answer {
        let container = self.containers.get(id).ok_or_else(|| missing(id))?;
        if container.process.is_some() {
            if !force {
                return Err(RuntimeError::new(
                    ErrorClass::FailedPrecondition,
                    format!("container {id} is running"),
                ));
            }
            self.kill_for_delete(now, clock, id);
        }
        self.remove_record(now, id);
        self.emit(now, RuntimeEvent::Deleted { id: id.clone() });
        Ok(RuntimeReply::Done)
    }

    fn state_of(&self, id: &ContainerId) -> Answer {
        let container = self.containers.get(id).ok_or_else(|| missing(id))?;
        Ok(RuntimeReply::State {
            container: container.state.clone(),
        })
    }

    fn list(&mut self, labels: &std::collections::BTreeMap<String, String>) -> Answer {
        let empty =
            |effect: &RuntimeEffect| matches!(effect, RuntimeEffect::EmptyListing).then_some(());
        let matches = |state: &ContainerState| {
            labels
                .iter()
                .all(|(key, value)| state.labels.get(key) == Some(value))
        };
        let mut containers: Vec<ContainerState> = self
            .containers
            .values()
            .map(|container| &container.state)
            .filter(|state| matches(state))
            .cloned()
            .collect();
        if !containers.is_empty() && self.use_rule(empty).is_some() {
            containers.clear();
        }
        Ok(RuntimeReply::Containers { containers })
    }

    fn probe(&self, now: VirtualTime, id: &ContainerId) -> Answer {
        let container = self.containers.get(id).ok_or_else(|| missing(id))?;
        let process = container.process.as_ref();
        let Some(process) = process.filter(|it| !it.is_dead()) else {
            return Err(RuntimeError::new(
                ErrorClass::FailedPrecondition,
                format!("container {id} is not running"),
            ));
        };
        let healthy = process.healthy_at <= now && process.unhealthy_by.is_empty();
        Ok(RuntimeReply::Probed { healthy })
    }
}
