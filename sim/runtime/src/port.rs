//! The async port, verb by verb. What each does is the state machine's business.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use wavetank_port::{
    Capabilities, ContainerId, ContainerRuntime, ContainerSpec, ContainerState, ContainerStats,
    ErrorClass, EventCursor, EventStream, ExecRequest, ExecResult, ExitCode, ExitStatus, Image,
    ImageReference, Limits, ListFilter, LogOptions, LogStream, Network, PullRequest,
    RuntimeCommand, RuntimeError, RuntimeReply, Signal,
};
use wavetank_world::{Interpretation, PortCommand, Program};

use crate::capabilities::CAPABILITIES;
use crate::events::SimEvents;
use crate::logs::SimLog;
use crate::runtime::{Call, Shared, SimRuntime};
use crate::spec;

type Result<T, E = RuntimeError> = std::result::Result<T, E>;

impl SimRuntime {
    async fn command(&self, command: RuntimeCommand, within: Duration) -> Result<RuntimeReply> {
        self.shared.call(Call::Command(command), within).await
    }

    async fn ask(&self, command: PortCommand, within: Duration) -> Result<RuntimeReply> {
        self.shared.call(Call::Port(command), within).await
    }

    /// Where commands mean nothing and images alone decide, whatever is run beside a process is
    /// its health probe.
    async fn probe(
        &self,
        id: &ContainerId,
        request: &ExecRequest,
        within: Duration,
    ) -> Result<ExecResult> {
        let probe = RuntimeCommand::Probe {
            id: id.clone(),
            command: request.command.clone(),
            timeout: request.timeout,
        };
        let within = within.min(request.timeout);
        let RuntimeReply::Probed { healthy } = self.command(probe, within).await? else {
            return Err(not_found(id));
        };
        Ok(ExecResult {
            code: ExitCode::Known(i32::from(!healthy)),
            stdout: Vec::new(),
            stderr: Vec::new(),
        })
    }
}

#[async_trait]
impl ContainerRuntime for SimRuntime {
    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn version(&self, within: Duration) -> Result<String> {
        self.ask(PortCommand::Ping, within).await?;
        Ok(format!("wavetank simulation {}", env!("CARGO_PKG_VERSION")))
    }

    async fn pull(&self, request: &PullRequest, within: Duration) -> Result<Image> {
        let reference = spec::complete(&request.image);
        let request = PullRequest {
            image: reference.clone(),
            ..request.clone()
        };
        match self.ask(PortCommand::Pull(request), within).await? {
            RuntimeReply::Pulled { digest } => Ok(Image { reference, digest }),
            other => Err(unexpected(&other)),
        }
    }

    async fn images(&self, within: Duration) -> Result<Vec<Image>> {
        self.ask(PortCommand::Ping, within).await?;
        Ok(self.shared.lock().world.images())
    }

    async fn remove_image(&self, image: &ImageReference, within: Duration) -> Result<()> {
        let command = PortCommand::RemoveImage(spec::complete(image));
        self.ask(command, within).await.map(|_| ())
    }

    async fn create(&self, spec: &ContainerSpec, within: Duration) -> Result<()> {
        spec::check(spec)?;
        let spec = ContainerSpec {
            image: spec::complete(&spec.image),
            ..spec.clone()
        };
        let command = RuntimeCommand::Create { spec };
        self.command(command, within).await.map(|_| ())
    }

    async fn start(&self, id: &ContainerId, within: Duration) -> Result<ContainerState> {
        let command = RuntimeCommand::Start { id: id.clone() };
        state(self.command(command, within).await?)
    }

    async fn wait(&self, id: &ContainerId, within: Duration) -> Result<ExitStatus> {
        let last = state(self.ask(PortCommand::Wait(id.clone()), within).await?)?;
        last.exit.ok_or_else(|| not_found(id))
    }

    async fn stop(
        &self,
        id: &ContainerId,
        grace: Duration,
        within: Duration,
    ) -> Result<Option<ExitStatus>> {
        let id = id.clone();
        let command = RuntimeCommand::Stop {
            id: id.clone(),
            grace,
        };
        self.command(command, within).await?;
        let state = self.shared.lock();
        let container = state.world.state(&id);
        container.map(|it| it.exit).ok_or_else(|| not_found(&id))
    }

    async fn kill(&self, id: &ContainerId, signal: Signal, within: Duration) -> Result<()> {
        let command = PortCommand::Kill(id.clone(), signal);
        self.ask(command, within).await.map(|_| ())
    }

    async fn pause(&self, id: &ContainerId, within: Duration) -> Result<()> {
        let command = PortCommand::Pause(id.clone());
        self.ask(command, within).await.map(|_| ())
    }

    async fn resume(&self, id: &ContainerId, within: Duration) -> Result<()> {
        let command = PortCommand::Resume(id.clone());
        self.ask(command, within).await.map(|_| ())
    }

    async fn delete(&self, id: &ContainerId, force: bool, within: Duration) -> Result<()> {
        let id = id.clone();
        let command = RuntimeCommand::Delete { id, force };
        self.command(command, within).await.map(|_| ())
    }

    async fn inspect(&self, id: &ContainerId, within: Duration) -> Result<ContainerState> {
        let command = RuntimeCommand::Inspect { id: id.clone() };
        state(self.command(command, within).await?)
    }

    async fn list(&self, filter: &ListFilter, within: Duration) -> Result<Vec<ContainerState>> {
        let labels = filter.labels.clone();
        let listed = self
            .command(RuntimeCommand::List { labels }, within)
            .await?;
        let RuntimeReply::Containers { mut containers } = listed else {
            return Err(unexpected(&listed));
        };
        containers.retain(|state| {
            let prefix = filter.id_prefix.as_deref().unwrap_or_default();
            filter.status.is_none_or(|status| state.status == status)
                && state.id.0.starts_with(prefix)
        });
        Ok(containers)
    }

    async fn events(
        &self,
        since: Option<&EventCursor>,
        within: Duration,
    ) -> Result<Box<dyn EventStream>> {
        self.ask(PortCommand::Ping, within).await?;
        Ok(Box::new(SimEvents::new(&self.shared, since)?))
    }

    async fn logs(
        &self,
        id: &ContainerId,
        options: &LogOptions,
        within: Duration,
    ) -> Result<Box<dyn LogStream>> {
        let look = PortCommand::Look(id.clone(), false);
        self.ask(look, within).await?;
        Ok(Box::new(SimLog::new(&self.shared, id, options)))
    }

    async fn exec(
        &self,
        id: &ContainerId,
        request: &ExecRequest,
        within: Duration,
    ) -> Result<ExecResult> {
        if self.shared.interpreter.is_none() {
            return self.probe(id, request, within).await;
        }
        let program = program_of(&self.shared, id, request);
        let exec = PortCommand::Exec(id.clone(), program, request.timeout);
        let (call, answer) = self.shared.numbered_call(Call::Port(exec), within).await;
        answer?;
        let result = self.shared.lock().world.take_exec_result(call);
        result.ok_or_else(|| not_found(id))
    }

    async fn stats(&self, id: &ContainerId, within: Duration) -> Result<ContainerStats> {
        let look = PortCommand::Look(id.clone(), true);
        self.ask(look, within).await?;
        let state = self.shared.lock();
        state.world.stats(id).ok_or_else(|| {
            let message = format!("container {id} has just ended");
            RuntimeError::new(ErrorClass::FailedPrecondition, message)
        })
    }

    async fn update(&self, id: &ContainerId, limits: &Limits, within: Duration) -> Result<()> {
        let command = PortCommand::Update(id.clone(), *limits);
        self.ask(command, within).await.map(|_| ())
    }
}

/// What a command means in a container; `None` if it cannot be run there.
fn program_of(shared: &Arc<Shared>, id: &ContainerId, request: &ExecRequest) -> Option<Program> {
    let interpret = shared.interpreter?;
    let image = shared.lock().world.state(id)?.image.clone();
    let spec = ContainerSpec {
        command: request.command.clone(),
        network: Network::None,
        ..ContainerSpec::of(id.clone(), image)
    };
    match interpret(&spec) {
        Interpretation::Program(program) => Some(program),
        Interpretation::Image | Interpretation::NotRunnable => None,
    }
}

fn state(reply: RuntimeReply) -> Result<ContainerState> {
    match reply {
        RuntimeReply::State { container } => Ok(container),
        other => Err(unexpected(&other)),
    }
}

fn unexpected(reply: &RuntimeReply) -> RuntimeError {
    RuntimeError::new(
        ErrorClass::Unknown,
        format!("an answer to another question: {reply:?}"),
    )
}

fn not_found(id: &ContainerId) -> RuntimeError {
    RuntimeError::new(ErrorClass::NotFound, format!("no container {id}"))
}
