//! The agent's container runtime: commands go out, answers and events come back as inputs.
//!
//! Every call runs beside the others and has a deadline of its own, so that a slow pull or a hung
//! runtime holds up neither the process nor its heartbeats. The process gives up at the same
//! deadlines, and takes an answer that comes later for none.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use wavetank_core::{Input, RuntimeCall};
use wavetank_model::Timers;
use wavetank_port::{
    ContainerRuntime, ErrorClass, EventCursor, EventStream, ExecRequest, ExitCode, ListFilter,
    PullRequest, RuntimeCommand, RuntimeError, RuntimeEvent, RuntimeReply,
};

use crate::observer::{Answered, Observer};
use crate::platform::{Platform, Task};

/// Inputs on their way to the process. Events wait when it is full; they are not lost.
const INPUTS_MAX: usize = 1024;

/// The runtime of one agent while its process runs.
pub struct Calls<P: Platform> {
    platform: P,
    runtime: Arc<dyn ContainerRuntime>,
    timers: Timers,
    observer: Arc<dyn Observer>,
    sender: mpsc::Sender<Input>,
    inputs: mpsc::Receiver<Input>,
    _events: Task,
}

impl<P: Platform> Calls<P> {
    /// Subscribes to the runtime's events.
    pub fn start(
        platform: P,
        runtime: Arc<dyn ContainerRuntime>,
        timers: Timers,
        observer: Arc<dyn Observer>,
    ) -> Self {
        let (sender, inputs) = mpsc::channel(INPUTS_MAX);
        let events = Events {
            platform: platform.clone(),
            runtime: Arc::clone(&runtime),
            within: timers.runtime_timeout,
            pause: timers.request_retry,
            sender: sender.clone(),
        };
        Calls {
            _events: platform.spawn(events.follow()),
            platform,
            runtime,
            timers,
            observer,
            sender,
            inputs,
        }
    }

    /// The next answer or event. Cancel-safe.
    pub async fn next(&mut self) -> Input {
        match self.inputs.recv().await {
            Some(input) => input,
            // Cannot be: this holds a sender itself.
            None => std::future::pending().await,
        }
    }

    /// What is there already.
    pub fn try_next(&mut self) -> Option<Input> {
        self.inputs.try_recv().ok()
    }

    /// Asks the runtime; the answer comes as an input.
    pub fn ask(&self, call: RuntimeCall) {
        let runtime = Arc::clone(&self.runtime);
        let timers = self.timers.clone();
        let observer = Arc::clone(&self.observer);
        let sender = self.sender.clone();
        observer.called(&call.command);
        let asked = async move {
            let (name, container) = (call.command.name(), call.command.container().cloned());
            let result = execute(runtime.as_ref(), call.command, &timers).await;
            let listed = match &result {
                Ok(RuntimeReply::Containers { containers }) => u32::try_from(containers.len()).ok(),
                _ => None,
            };
            observer.answered(&Answered {
                call: name,
                container,
                error: result.as_ref().err().map(|error| error.class),
                listed,
            });
            let call = call.call;
            // A process that has ended waits for no answer.
            let _ = sender.send(Input::Runtime { call, result }).await;
        };
        self.platform.spawn(asked).detach();
    }
}

/// Carries out one command.
async fn execute(
    runtime: &dyn ContainerRuntime,
    command: RuntimeCommand,
    timers: &Timers,
) -> Result<RuntimeReply, RuntimeError> {
    let within = timers.runtime_timeout;
    let done = |()| RuntimeReply::Done;
    match command {
        RuntimeCommand::Pull { image } => {
            let request = PullRequest::of(image);
            let image = runtime.pull(&request, timers.pull_timeout).await?;
            Ok(RuntimeReply::Pulled {
                digest: image.digest,
            })
        }
        RuntimeCommand::Create { spec } => runtime.create(&spec, within).await.map(done),
        RuntimeCommand::Start { id } => {
            let container = runtime.start(&id, within).await?;
            Ok(RuntimeReply::State { container })
        }
        RuntimeCommand::Stop { id, grace } => {
            let stopped = runtime.stop(&id, grace, grace.saturating_add(within)).await;
            stopped.map(|_| RuntimeReply::Done)
        }
        RuntimeCommand::Kill { id, signal } => runtime.kill(&id, signal, within).await.map(done),
        RuntimeCommand::Delete { id, force } => runtime.delete(&id, force, within).await.map(done),
        RuntimeCommand::Inspect { id } => {
            let container = runtime.inspect(&id, within).await?;
            Ok(RuntimeReply::State { container })
        }
        RuntimeCommand::List { labels } => {
            let filter = ListFilter {
                labels,
                ..ListFilter::default()
            };
            let containers = runtime.list(&filter, within).await?;
            Ok(RuntimeReply::Containers { containers })
        }
        RuntimeCommand::Probe {
            id,
            command,
            timeout,
        } => probe(runtime, &id, command, timeout).await,
    }
}

/// A process that lives is healthy; where a command is given, it must succeed in the container.
async fn probe(
    runtime: &dyn ContainerRuntime,
    id: &wavetank_port::ContainerId,
    command: Vec<String>,
    timeout: Duration,
) -> Result<RuntimeReply, RuntimeError> {
    if command.is_empty() {
        let state = runtime.inspect(id, timeout).await?;
        let healthy = state.status == wavetank_port::ContainerStatus::Running;
        return Ok(RuntimeReply::Probed { healthy });
    }
    let request = ExecRequest { command, timeout };
    let result = runtime.exec(id, &request, timeout).await?;
    match result.code {
        ExitCode::Known(code) => Ok(RuntimeReply::Probed { healthy: code == 0 }),
        ExitCode::Unknown => Err(RuntimeError::new(
            ErrorClass::Unknown,
            format!("nobody knows how the probe of container {id} ended"),
        )),
    }
}

/// Follows the runtime's events for as long as the process runs.
struct Events<P: Platform> {
    platform: P,
    runtime: Arc<dyn ContainerRuntime>,
    within: Duration,
    pause: Duration,
    sender: mpsc::Sender<Input>,
}

impl<P: Platform> Events<P> {
    async fn follow(self) {
        let mut cursor = None;
        let mut is_first = true;
        loop {
            match self.runtime.events(cursor.as_ref(), self.within).await {
                Ok(stream) => {
                    // What happened while nobody listened is found by looking.
                    if !is_first && cursor.is_none() && self.say(RuntimeEvent::Interrupted).await {
                        return;
                    }
                    is_first = false;
                    if self.drain(stream, &mut cursor).await {
                        return;
                    }
                }
                Err(error) => tracing::warn!(%error, "cannot subscribe to the runtime's events"),
            }
            self.platform.sleep(self.pause).await;
        }
    }

    /// True once nobody listens any more; false when the stream is over.
    async fn drain(
        &self,
        mut stream: Box<dyn EventStream>,
        cursor: &mut Option<EventCursor>,
    ) -> bool {
        loop {
            match stream.next().await {
                Ok(record) => {
                    if record.cursor.is_some() {
                        *cursor = record.cursor;
                    }
                    if self.say(record.event).await {
                        return true;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the runtime's events broke off");
                    return false;
                }
            }
        }
    }

    async fn say(&self, event: RuntimeEvent) -> bool {
        let event = Input::RuntimeEvent(event);
        self.sender.send(event).await.is_err()
    }
}
