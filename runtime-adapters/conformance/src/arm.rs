//! An arm: one runtime under test with everything around it that a case may need to break.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use wavetank_fixtures::{Program, TestImage};
use wavetank_port::{Capability, ContainerId, ContainerRuntime, ImageReference};

use crate::latency::Peer;

/// Why a case or a step of it could not be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArmError {
    /// This runtime has no such thing; the capability table says so.
    #[error("not applicable: {}", .0.name())]
    NotApplicable(Capability),
    /// The arm itself failed: a daemon did not come up, a file could not be read.
    #[error("the arm failed: {0}")]
    Harness(String),
}

/// What the registry does wrong for one image, until the fault is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistryFault {
    /// 404 for the manifest.
    Missing,
    /// 401, also with credentials.
    Unauthorized,
    /// 429.
    TooManyRequests,
    /// 503.
    Unavailable,
    /// The first byte comes after this time.
    Slow(Duration),
    /// Layers stop after this many bytes; the connection stays open.
    StallAfter(u64),
    /// Layers end after this many bytes.
    TruncateAfter(u64),
    /// One byte of each layer is wrong.
    Corrupt,
}

/// What may leak, counted: shims, monitors, mounts, namespaces, descriptors, zombies, and whatever
/// else this runtime makes. Two equal counts are no leak.
pub type Resources = BTreeMap<String, u64>;

/// The registry of an arm: what it serves, and what it does wrong.
pub trait Images: Send + Sync {
    /// The name under which the registry serves a test image, with tag. The tag `latest` names the
    /// same content there.
    fn image(&self, image: TestImage) -> ImageReference;

    /// The same with its digest.
    fn image_by_digest(&self, image: TestImage) -> ImageReference;

    /// A name that no registry serves, on this one.
    fn missing_image(&self) -> ImageReference;

    /// A name on a registry that refuses connections.
    fn unreachable_image(&self) -> ImageReference;

    /// An image that needs the credentials `wavetank` / `wavetank`.
    fn private_image(&self) -> ImageReference;

    /// Makes the registry fail for `image` from now on; `None` heals it.
    fn set_registry_fault(&self, image: TestImage, fault: Option<RegistryFault>);

    /// How many requests for layers of `image` the registry has had. Its configuration is left out:
    /// it is small, and Podman fetches it whenever it asks for the manifest.
    fn blob_requests(&self, image: TestImage) -> u64;
}

/// One runtime under test. Each case gets a fresh arm; [`Arm::close`] removes all that it made.
#[async_trait]
pub trait Arm: Send + Sync {
    /// The runtime, as a caller gets it.
    fn runtime(&self) -> Arc<dyn ContainerRuntime>;

    /// A second client with a namespace or root of its own.
    async fn other_namespace(&self) -> Result<Arc<dyn ContainerRuntime>, ArmError>;

    /// The arm's registry.
    fn images(&self) -> &dyn Images;

    /// Damages what the runtime stored of `image`, as a torn write would.
    async fn corrupt_local_image(&self, image: TestImage) -> Result<(), ArmError>;

    /// Kills the runtime's daemon (SIGKILL); containers are left alone.
    async fn kill_daemon(&self) -> Result<(), ArmError>;

    /// Starts a killed daemon again, on the same state, and waits until it answers.
    async fn start_daemon(&self) -> Result<(), ArmError>;

    /// Stops the machine: every process of the runtime dies at once and all that lives in memory
    /// only (sockets, mounts, runtime state) is gone. Then the runtime is started again.
    async fn reboot(&self) -> Result<(), ArmError>;

    /// Kills the container's monitor (shim, conmon, ours) with SIGKILL.
    async fn kill_monitor(&self, id: &ContainerId) -> Result<(), ArmError>;

    /// Stops the container's monitor from running (SIGSTOP), or lets it run again (SIGCONT).
    async fn pause_monitor(&self, id: &ContainerId, paused: bool) -> Result<(), ArmError>;

    /// Kills the container's process (SIGKILL) behind the runtime's back.
    async fn kill_process(&self, id: &ContainerId) -> Result<(), ArmError>;

    /// Makes the next create of a container fail half-way, after the runtime has begun.
    async fn fail_next_create(&self) -> Result<(), ArmError>;

    /// Leaves a record whose process and monitor are gone without a word, as a crash would.
    async fn orphan_record(&self, id: &ContainerId) -> Result<(), ArmError>;

    /// What there is now of everything that could leak.
    async fn resources(&self) -> Result<Resources, ArmError>;

    /// The runtime's own command line on the same daemon, set to run `program` in a container; for
    /// the comparison of speeds.
    async fn peer(&self, program: &Program) -> Result<Option<Peer>, ArmError> {
        let _ = program;
        Ok(None)
    }

    /// Ends and removes everything.
    async fn close(self: Box<Self>) -> Result<(), ArmError>;
}
