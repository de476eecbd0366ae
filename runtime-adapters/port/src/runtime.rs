//! The port itself: what every runtime adapter does, real or simulated.
//!
//! # Deadlines and cancellation
//! Every call carries `within`, the longest it may take by the caller's monotonic clock. When it
//! is over, the call fails with `DeadlineExceeded` and may still take effect. Dropping a call's
//! future cancels it with the same uncertainty; it never leaves a lock held or a container that
//! later calls cannot handle.
//!
//! # Truth
//! A listing or an inspection is the truth, events are a hint. An observation that failed is an
//! error, never an empty list or an absent container.

use std::time::Duration;

use async_trait::async_trait;

use crate::capability::Capabilities;
use crate::container::Signal;
use crate::container::{ContainerId, ContainerSpec, ContainerState, ExitStatus, ImageReference};
use crate::error::{ErrorClass, RuntimeError};
use crate::event::RuntimeEvent;
use crate::image::{Image, PullRequest};
use crate::observe::{
    ContainerStats, EventCursor, ExecRequest, ExecResult, Limits, ListFilter, LogChunk, LogOptions,
};

/// What a call answers.
pub type Result<T, E = RuntimeError> = std::result::Result<T, E>;

/// A container runtime. Safe to share: calls about different containers do not wait for each
/// other, and a call that hangs holds up no other.
#[async_trait]
pub trait ContainerRuntime: Send + Sync {
    /// What this runtime cannot do or does differently.
    fn capabilities(&self) -> Capabilities;

    /// The runtime's own version, for reports. Also the cheapest proof that it answers.
    async fn version(&self, within: Duration) -> Result<String>;

    /// Fetches an image. Concurrent pulls of one image are one image. Absent at the registry:
    /// `NotFound`; refused credentials: `Unauthenticated`; rate limit: `ResourceExhausted`;
    /// registry out of reach or broken: `Unavailable`; content that is not what its digest says:
    /// `Unavailable`. A pull that failed leaves no image and nothing that stops the next pull.
    async fn pull(&self, request: &PullRequest, within: Duration) -> Result<Image>;

    /// All images here, in reference order.
    async fn images(&self, within: Duration) -> Result<Vec<Image>>;

    /// Forgets an image. Absent: succeeds. In use: `FailedPrecondition`, or done while the
    /// containers go on, see [`crate::Capability::ImageInUse`].
    async fn remove_image(&self, image: &ImageReference, within: Duration) -> Result<()>;

    /// Creates a container; its process does not run. A taken id: `AlreadyExists`, the first one
    /// untouched. Image absent: `NotFound`. A bad id or spec: `InvalidArgument`, nothing left.
    async fn create(&self, spec: &ContainerSpec, within: Duration) -> Result<()>;

    /// Starts a created container and says its state right after. Running or exited:
    /// `FailedPrecondition`. Program absent or not executable: `InvalidArgument`, no exit event,
    /// and the container can be deleted.
    async fn start(&self, id: &ContainerId, within: Duration) -> Result<ContainerState>;

    /// Waits for the process to end, or says at once how it did. Any number of waiters, before or
    /// after the end, get the same answer. Absent or deleted meanwhile: `NotFound`.
    async fn wait(&self, id: &ContainerId, within: Duration) -> Result<ExitStatus>;

    /// Sends the stop signal, SIGKILL once `grace` is over (at once if it is zero), and says how
    /// the process ended. Exited already or never started: succeeds, with `None` for the latter.
    /// Absent: `NotFound`. A stop that is cancelled within its grace kills nothing.
    async fn stop(
        &self,
        id: &ContainerId,
        grace: Duration,
        within: Duration,
    ) -> Result<Option<ExitStatus>>;

    /// Sends one signal to the container's process. Not a signal: `InvalidArgument`. The process
    /// is gone or the container absent: `NotFound`. Never started: `FailedPrecondition`.
    async fn kill(&self, id: &ContainerId, signal: Signal, within: Duration) -> Result<()>;

    /// Freezes a running container. Not running: `FailedPrecondition`.
    async fn pause(&self, id: &ContainerId, within: Duration) -> Result<()>;

    /// Thaws a paused container. Not paused: `FailedPrecondition`.
    async fn resume(&self, id: &ContainerId, within: Duration) -> Result<()>;

    /// Removes a container and everything that its creation made. Running or paused and not
    /// `force`: `FailedPrecondition`, unaffected. Absent: `NotFound`.
    async fn delete(&self, id: &ContainerId, force: bool, within: Duration) -> Result<()>;

    /// The state of one container. Absent: `NotFound`.
    async fn inspect(&self, id: &ContainerId, within: Duration) -> Result<ContainerState>;

    /// The containers that `filter` selects, in id order. A container that vanishes meanwhile is
    /// left out; it is no error.
    async fn list(&self, filter: &ListFilter, within: Duration) -> Result<Vec<ContainerState>>;

    /// Subscribes to events. Answers once the subscription is live: whatever happens afterwards
    /// is in the stream. With `since`, what came after that cursor is said first; where it cannot
    /// be ([`crate::Capability::EventReplay`]), the first event is
    /// [`RuntimeEvent::Interrupted`].
    async fn events(
        &self,
        since: Option<&EventCursor>,
        within: Duration,
    ) -> Result<Box<dyn EventStream>>;

    /// What the container's process wrote, also after its end. Never started: an empty log.
    async fn logs(
        &self,
        id: &ContainerId,
        options: &LogOptions,
        within: Duration,
    ) -> Result<Box<dyn LogStream>>;

    /// Runs a command in a running container and collects what it writes. Not running:
    /// `FailedPrecondition`.
    async fn exec(
        &self,
        id: &ContainerId,
        request: &ExecRequest,
        within: Duration,
    ) -> Result<ExecResult>;

    /// What a running container uses. Not running: `FailedPrecondition`.
    async fn stats(&self, id: &ContainerId, within: Duration) -> Result<ContainerStats>;

    /// Changes limits of a running container. Not running: `FailedPrecondition`.
    async fn update(&self, id: &ContainerId, limits: &Limits, within: Duration) -> Result<()>;

    /// The one container whose id begins with `prefix`. None: `NotFound`. Several:
    /// `InvalidArgument`.
    async fn resolve(&self, prefix: &str, within: Duration) -> Result<ContainerState> {
        let filter = ListFilter {
            id_prefix: Some(prefix.to_owned()),
            ..ListFilter::default()
        };
        let mut found = self.list(&filter, within).await?;
        match found.len() {
            1 => Ok(found.remove(0)),
            0 => Err(RuntimeError::new(
                ErrorClass::NotFound,
                format!("no container's id begins with `{prefix}`"),
            )),
            n => Err(RuntimeError::new(
                ErrorClass::InvalidArgument,
                format!("{n} containers' ids begin with `{prefix}`"),
            )),
        }
    }
}

/// One event with its place in the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRecord {
    /// Resumes after this event; `None` where the runtime has no cursor for it.
    pub cursor: Option<EventCursor>,
    /// What happened.
    pub event: RuntimeEvent,
}

/// A live subscription. Dropping it ends it.
#[async_trait]
pub trait EventStream: Send {
    /// The next event. A broken connection is first mended, and what may be missing is said as
    /// [`RuntimeEvent::Interrupted`]; an error means that it could not be mended, and the stream
    /// is over. Cancel-safe: a dropped call loses no event.
    async fn next(&mut self) -> Result<EventRecord>;
}

/// A log being read. Dropping it ends it.
#[async_trait]
pub trait LogStream: Send {
    /// The next piece, `None` at the end.
    async fn next(&mut self) -> Result<Option<LogChunk>>;
}
