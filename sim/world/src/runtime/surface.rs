//! What the port asks beyond the commands that orchestration decisions use: images, freezing,
//! numbers, commands beside a process, waiting. Faults apply to these calls as to all others.

use std::collections::BTreeMap;
use std::time::Duration;

use wavetank_port::{
    ContainerId, ContainerState, ContainerStats, ContainerStatus, Credentials, ErrorClass,
    ExecResult, Image, ImageReference, Limits, PullPolicy, PullRequest, RuntimeCommand,
    RuntimeError, RuntimeReply, Signal,
};
use wavetank_trace::VirtualTime;

use super::actors::Written;
use super::program::{Interpreter, Program};
use super::{Runtime, Todo, missing, wrong_state};
use crate::clock::LocalClock;
use crate::registry::Registry;

/// One request of the port. What is not a plain yes or no is read from the runtime once the call
/// has been answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortCommand {
    /// Nothing: an answer proves that somebody answers.
    Ping,
    /// As [`RuntimeCommand::Pull`], with a policy and credentials.
    Pull(PullRequest),
    /// Forget an image.
    RemoveImage(ImageReference),
    /// As [`RuntimeCommand::Kill`], and what was never started is told from what has ended.
    Kill(ContainerId, Signal),
    /// Wait for the process's end: answered with its last state.
    Wait(ContainerId),
    /// Freeze.
    Pause(ContainerId),
    /// Thaw.
    Resume(ContainerId),
    /// Change limits.
    Update(ContainerId, Limits),
    /// Run a command beside the process; `None` is a command that cannot be run.
    Exec(ContainerId, Option<Program>, Duration),
    /// Look at a container: running, or at least there.
    Look(ContainerId, bool),
}

impl PortCommand {
    /// The verb's name, as faults spell it.
    pub fn name(&self) -> &'static str {
        match self {
            PortCommand::Ping => "version",
            PortCommand::Pull(_) => "pull",
            PortCommand::RemoveImage(_) => "remove-image",
            PortCommand::Kill(..) => "kill",
            PortCommand::Wait(_) => "wait",
            PortCommand::Pause(_) => "pause",
            PortCommand::Resume(_) => "resume",
            PortCommand::Update(..) => "update",
            PortCommand::Exec(..) => "exec",
            PortCommand::Look(_, true) => "stats",
            PortCommand::Look(_, false) => "logs",
        }
    }

    /// The container the call is about, if it is about one.
    pub fn container(&self) -> Option<&ContainerId> {
        match self {
            PortCommand::Ping | PortCommand::Pull(_) | PortCommand::RemoveImage(_) => None,
            PortCommand::Kill(id, _)
            | PortCommand::Wait(id)
            | PortCommand::Pause(id)
            | PortCommand::Resume(id)
            | PortCommand::Update(id, _)
            | PortCommand::Exec(id, _, _)
            | PortCommand::Look(id, _) => Some(id),
        }
    }
}

/// A request of either kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Command(RuntimeCommand),
    Port(PortCommand),
}

impl Request {
    pub fn name(&self) -> &'static str {
        match self {
            Request::Command(command) => command.name(),
            Request::Port(command) => command.name(),
        }
    }

    pub fn container(&self) -> Option<&ContainerId> {
        match self {
            Request::Command(command) => command.container(),
            Request::Port(command) => command.container(),
        }
    }

    /// True for calls that do nothing any more once nobody waits for them.
    fn ends_with_its_caller(&self) -> bool {
        matches!(
            self,
            Request::Command(RuntimeCommand::Pull { .. } | RuntimeCommand::Stop { .. })
                | Request::Port(PortCommand::Pull(_) | PortCommand::Wait(_))
        )
    }
}

impl Runtime {
    /// Containers' commands mean something from now on.
    pub fn set_interpreter(&mut self, interpreter: Interpreter) {
        self.interpreter = Some(interpreter);
    }

    /// A call of the port arrives.
    pub fn submit_port(&mut self, now: VirtualTime, call: u64, command: PortCommand) {
        self.admit(now, call, Request::Port(command));
    }

    /// Nobody waits for a call any more. A pull is given up, a stop kills nothing; any other call
    /// may still take effect.
    pub fn cancel(&mut self, call: u64) {
        self.drawn.forget(call);
        self.timeline.retain(|_, todo| match todo {
            Todo::Execute {
                call: other,
                request,
            } => *other != call || !request.ends_with_its_caller(),
            Todo::Pulled { call: other, .. } => *other != call,
            _ => true,
        });
        self.parked
            .retain(|(_, other, request)| *other != call || !request.ends_with_its_caller());
        for container in self.containers.values_mut() {
            container.stops.retain(|other| *other != call);
            container.waits.retain(|other| *other != call);
        }
    }

    pub(super) fn execute_port(
        &mut self,
        now: VirtualTime,
        clock: &LocalClock,
        registry: &mut Registry,
        call: u64,
        command: PortCommand,
    ) {
        let name = command.name();
        let done = |()| RuntimeReply::Done;
        let answer = match command {
            PortCommand::Ping => Ok(RuntimeReply::Done),
            PortCommand::Pull(request) => return self.pull_by(now, registry, call, &request),
            PortCommand::RemoveImage(image) => self.remove_image(&image).map(done),
            PortCommand::Kill(id, signal) => self.kill_by(now, clock, registry, &id, signal),
            PortCommand::Wait(id) => return self.wait(now, call, &id),
            PortCommand::Pause(id) => self.freeze(now, &id).map(done),
            PortCommand::Resume(id) => self.thaw(now, &id).map(done),
            PortCommand::Update(id, limits) => self.update(&id, limits).map(done),
            PortCommand::Exec(id, program, timeout) => {
                return self.exec(now, call, &id, program, timeout);
            }
            PortCommand::Look(id, true) => self.running_container(&id).map(|_| RuntimeReply::Done),
            PortCommand::Look(id, false) => match self.containers.contains_key(&id) {
                true => Ok(RuntimeReply::Done),
                false => Err(missing(&id)),
            },
        };
        self.answer(now, call, name, answer);
    }

    fn pull_by(
        &mut self,
        now: VirtualTime,
        registry: &mut Registry,
        call: u64,
        request: &PullRequest,
    ) {
        let present = self.images.get(&request.image.0).cloned();
        let answer = match (request.policy, present) {
            (PullPolicy::IfMissing | PullPolicy::Never, Some(digest)) => {
                Ok(RuntimeReply::Pulled { digest })
            }
            (PullPolicy::Never, None) => Err(RuntimeError::new(
                ErrorClass::NotFound,
                format!("image {} is not present", request.image),
            )),
            (PullPolicy::Always, present) => {
                return self.fetch(now, registry, call, request, present.as_deref());
            }
            (PullPolicy::IfMissing, None) => {
                return self.fetch(now, registry, call, request, None);
            }
        };
        self.answer(now, call, "pull", answer);
    }

    /// Goes to the registry, and fetches the content unless `present` is what it has.
    fn fetch(
        &mut self,
        now: VirtualTime,
        registry: &mut Registry,
        call: u64,
        request: &PullRequest,
        present: Option<&str>,
    ) {
        if let Err(error) = registry.login(&request.image, request.credentials.as_ref()) {
            self.answer(now, call, "pull", Err(error));
            return;
        }
        if !self.has_space(now, call, &request.image) {
            return;
        }
        let unchanged = |digest: &str| present == Some(digest);
        let mut pull = registry.pull_of(&request.image, unchanged);
        if self.pull_is_measured() && pull.result.as_deref().is_ok_and(unchanged) {
            pull.duration_ns = 0;
        }
        if let Err(error) = &mut pull.result
            && error.class == ErrorClass::Unknown
        {
            // The port calls content that is not what it should be unavailable.
            error.class = ErrorClass::Unavailable;
        }
        self.transfer(now, call, request.image.clone(), pull);
    }

    fn remove_image(&mut self, image: &ImageReference) -> Result<(), RuntimeError> {
        let mut containers = self.containers.values();
        if containers.any(|container| container.state.image == *image) {
            let message = format!("a container uses image {image}");
            return Err(RuntimeError::new(ErrorClass::FailedPrecondition, message));
        }
        self.images.remove(&image.0);
        Ok(())
    }

    fn kill_by(
        &mut self,
        now: VirtualTime,
        clock: &LocalClock,
        registry: &Registry,
        id: &ContainerId,
        signal: Signal,
    ) -> Result<RuntimeReply, RuntimeError> {
        if !signal.is_valid() {
            let message = format!("{} is no signal", signal.number());
            return Err(RuntimeError::new(ErrorClass::InvalidArgument, message));
        }
        let container = self.containers.get(id).ok_or_else(|| missing(id))?;
        if container.state.status == ContainerStatus::Created {
            return Err(wrong_state(id, "was never started"));
        }
        self.kill(now, clock, registry, id, signal)
    }

    fn wait(&mut self, now: VirtualTime, call: u64, id: &ContainerId) {
        let answer = match self.containers.get_mut(id) {
            None => Err(missing(id)),
            Some(container) if container.state.exit.is_some() => Ok(RuntimeReply::State {
                container: container.state.clone(),
            }),
            Some(container) => {
                container.waits.push(call);
                return;
            }
        };
        self.answer(now, call, "wait", answer);
    }

    fn update(&mut self, id: &ContainerId, limits: Limits) -> Result<(), RuntimeError> {
        self.running_container(id)?;
        if let (Some(bytes), Some(container)) =
            (limits.memory_bytes_max, self.containers.get_mut(id))
        {
            container.memory_bytes_max = Some(bytes);
        }
        Ok(())
    }

    /// All images here.
    pub fn images(&self) -> Vec<Image> {
        let images = self.images.iter().map(|(name, digest)| Image {
            reference: ImageReference(name.clone()),
            digest: digest.clone(),
        });
        images.collect()
    }

    /// What was stored of an image is damaged: its digest no longer fits, so it counts as absent.
    pub fn damage_image(&mut self, image: &ImageReference) {
        self.images.remove(&image.0);
    }

    /// The state of a container, without a call.
    pub fn state(&self, id: &ContainerId) -> Option<&ContainerState> {
        self.containers.get(id).map(|container| &container.state)
    }

    /// What a container's process has written.
    pub fn log(&self, id: &ContainerId) -> Option<&[Written]> {
        self.containers.get(id).map(|it| it.log.as_slice())
    }

    /// What a running container uses.
    pub fn stats(&self, id: &ContainerId) -> Option<ContainerStats> {
        let process = self.containers.get(id)?.process.as_ref()?;
        let actor = process.actor.as_ref();
        let cpu = actor.map_or(Duration::ZERO, |actor| actor.cpu);
        Some(ContainerStats {
            memory_bytes: process.memory(),
            cpu_nanos: crate::random::nanos(cpu),
            processes: 1 + actor.map_or(0, |actor| u64::from(actor.children)),
        })
    }

    /// How the command of an answered `Exec` ended. Says it once.
    pub fn take_exec_result(&mut self, call: u64) -> Option<ExecResult> {
        self.exec_results.remove(&call)
    }

    /// The container's monitor stands still: calls about it hang, until it goes on.
    pub fn set_hung(&mut self, now: VirtualTime, id: &ContainerId, hung: bool) {
        if hung {
            self.hung.insert(id.clone());
            return;
        }
        self.hung.remove(id);
        let parked = std::mem::take(&mut self.parked);
        let (freed, kept) = parked.into_iter().partition(|(fault, _, request)| {
            *fault == super::HUNG_MONITOR && request.container() == Some(id)
        });
        self.parked = kept;
        for (_, call, request) in freed {
            self.admit(now, call, request);
        }
    }

    /// What there is of everything that could be left behind.
    pub fn counts(&self) -> BTreeMap<&'static str, usize> {
        let containers = self.containers.values();
        let stops = containers.clone().map(|it| it.stops.len() + it.waits.len());
        [
            ("containers", self.containers.len()),
            ("processes", self.running().count()),
            ("waiting calls", stops.sum::<usize>() + self.parked.len()),
            ("commands", self.execs.len() + self.exec_results.len()),
        ]
        .into()
    }
}

impl Registry {
    /// Refuses a pull of a private image without its credentials.
    pub(super) fn login(
        &self,
        image: &ImageReference,
        credentials: Option<&Credentials>,
    ) -> Result<(), RuntimeError> {
        match self.credentials_of(image) {
            Some(needed) if credentials != Some(needed) => Err(RuntimeError::new(
                ErrorClass::Unauthenticated,
                format!("pull {image}: 401 unauthorized"),
            )),
            _ => Ok(()),
        }
    }
}
