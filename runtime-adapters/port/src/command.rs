//! What can be asked of a runtime, as data, and what it answers.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::container::{ContainerId, ContainerSpec, ContainerState, ImageReference, Signal};

/// One request. Every verb is safe to repeat; the reply says what the second time means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "kebab-case")]
pub enum RuntimeCommand {
    /// Fetch an image. Present already: succeeds at once.
    Pull {
        /// What to fetch.
        image: ImageReference,
    },
    /// Create a container. A taken id: `AlreadyExists`. Image absent: `NotFound`.
    Create {
        /// What to create.
        spec: ContainerSpec,
    },
    /// Start a created container. Running or exited: `FailedPrecondition`.
    Start {
        /// Which container.
        id: ContainerId,
    },
    /// Ask the process to end (SIGTERM); it is killed after `grace`. Answers once it has ended.
    /// Exited already: succeeds. Absent: `NotFound`.
    Stop {
        /// Which container.
        id: ContainerId,
        /// Time between SIGTERM and SIGKILL.
        grace: Duration,
    },
    /// Send one signal. Process gone: `NotFound`.
    Kill {
        /// Which container.
        id: ContainerId,
        /// What to send.
        signal: Signal,
    },
    /// Remove a container and what it holds. Running and not forced: `FailedPrecondition`.
    /// Absent: `NotFound`.
    Delete {
        /// Which container.
        id: ContainerId,
        /// Kill it first.
        force: bool,
    },
    /// The state of one container. Absent: `NotFound`.
    Inspect {
        /// Which container.
        id: ContainerId,
    },
    /// All containers that carry every one of `labels`.
    List {
        /// Label filter; empty selects all.
        labels: BTreeMap<String, String>,
    },
    /// Run a health probe in the container once. Not running: `FailedPrecondition`.
    Probe {
        /// Which container.
        id: ContainerId,
        /// What to run there; exit code 0 is healthy. Empty: a live process is healthy.
        command: Vec<String>,
        /// Longest it may run; then it is an error, not a verdict.
        timeout: Duration,
    },
}

impl RuntimeCommand {
    /// The verb's name, as faults, traces and metrics spell it.
    pub fn name(&self) -> &'static str {
        match self {
            RuntimeCommand::Pull { .. } => "pull",
            RuntimeCommand::Create { .. } => "create",
            RuntimeCommand::Start { .. } => "start",
            RuntimeCommand::Stop { .. } => "stop",
            RuntimeCommand::Kill { .. } => "kill",
            RuntimeCommand::Delete { .. } => "delete",
            RuntimeCommand::Inspect { .. } => "inspect",
            RuntimeCommand::List { .. } => "list",
            RuntimeCommand::Probe { .. } => "probe",
        }
    }

    /// The container the call is about, if it is about one.
    pub fn container(&self) -> Option<&ContainerId> {
        match self {
            RuntimeCommand::Create { spec } => Some(&spec.id),
            RuntimeCommand::Start { id }
            | RuntimeCommand::Stop { id, .. }
            | RuntimeCommand::Kill { id, .. }
            | RuntimeCommand::Delete { id, .. }
            | RuntimeCommand::Inspect { id }
            | RuntimeCommand::Probe { id, .. } => Some(id),
            RuntimeCommand::Pull { .. } | RuntimeCommand::List { .. } => None,
        }
    }

    /// The image the call is about, if it names one.
    pub fn image(&self) -> Option<&ImageReference> {
        match self {
            RuntimeCommand::Pull { image } => Some(image),
            RuntimeCommand::Create { spec } => Some(&spec.image),
            _ => None,
        }
    }
}

/// The answer to a [`RuntimeCommand`] that succeeded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum RuntimeReply {
    /// The image is present under this digest.
    Pulled {
        /// Content digest, `sha256:...`.
        digest: String,
    },
    /// Created, started, stopped, signalled or deleted.
    Done,
    /// Answer to `Start`, `Inspect`: the state right after the call.
    State {
        /// What the runtime says.
        container: ContainerState,
    },
    /// Answer to `List`.
    Containers {
        /// In id order.
        containers: Vec<ContainerState>,
    },
    /// Answer to `Probe`.
    Probed {
        /// The probe's own verdict; a probe that could not run is an error instead.
        healthy: bool,
    },
}
