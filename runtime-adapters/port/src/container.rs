//! Ids, specs and states of containers.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A container's id, chosen by the caller so that a retried create finds its own container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContainerId(pub String);

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of an image, with tag or digest, as a registry knows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ImageReference(pub String);

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Wall-clock time of one machine: nanoseconds since the Unix epoch. May jump; for reports and
/// records only, never to decide how much time has passed.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct WallTime(pub u64);

/// A signal that can be sent to a container's process group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Signal {
    /// SIGTERM (15): please stop.
    Terminate,
    /// SIGKILL (9): cannot be refused.
    Kill,
    /// SIGINT (2).
    Interrupt,
    /// SIGHUP (1).
    HangUp,
    /// Any other, by its Linux number. Valid are 1 to 64.
    Other(u8),
}

impl Signal {
    /// The number that `128 + n` exit codes are made from.
    pub fn number(self) -> i32 {
        match self {
            Signal::Terminate => 15,
            Signal::Kill => 9,
            Signal::Interrupt => 2,
            Signal::HangUp => 1,
            Signal::Other(number) => i32::from(number),
        }
    }

    /// True for what Linux knows as a signal: 1 to 64.
    pub fn is_valid(self) -> bool {
        (1..=64).contains(&self.number())
    }
}

/// Everything a runtime needs to create one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Chosen by the caller; unique within the runtime's namespace.
    pub id: ContainerId,
    /// Must have been pulled before.
    pub image: ImageReference,
    /// Arguments; empty means the image's own.
    pub command: Vec<String>,
    /// Environment variables added to the image's.
    pub environment: BTreeMap<String, String>,
    /// Labels for listing and adoption.
    pub labels: BTreeMap<String, String>,
    /// Hard memory limit in bytes; `None` is unlimited.
    pub memory_bytes_max: Option<u64>,
    /// CPU limit in thousandths of a core; `None` is unlimited.
    pub cpu_millis_max: Option<u32>,
    /// Named node-local volumes to mount, each at `/volumes/<name>`.
    pub volumes: Vec<String>,
    /// What a stop sends first; `None` is the image's own, else SIGTERM.
    pub stop_signal: Option<Signal>,
    /// What of the network it sees.
    pub network: Network,
}

impl ContainerSpec {
    /// A container that runs what its image runs and sees its node's network, without labels,
    /// limits or volumes.
    pub fn of(id: ContainerId, image: ImageReference) -> Self {
        ContainerSpec {
            id,
            image,
            command: Vec::new(),
            environment: BTreeMap::new(),
            labels: BTreeMap::new(),
            memory_bytes_max: None,
            cpu_millis_max: None,
            volumes: Vec::new(),
            stop_signal: None,
            network: Network::default(),
        }
    }
}

/// What of the network a container sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// Loopback only.
    None,
    /// All that its node sees.
    #[default]
    Host,
}

/// Where a container is in its life, as the OCI runtime specification names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContainerStatus {
    /// Set up; its process has not run.
    Created,
    /// Its process runs.
    Running,
    /// Its process is frozen.
    Paused,
    /// Its process has ended; see the exit status.
    Exited,
}

/// How a process ended. A runtime that cannot know says so, it never guesses zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExitCode {
    /// The process's own code, or 128 + n for signal n.
    Known(i32),
    /// The runtime lost it, for example by a power loss.
    Unknown,
}

impl ExitCode {
    /// True only for a known zero.
    pub fn is_success(self) -> bool {
        self == ExitCode::Known(0)
    }
}

impl fmt::Display for ExitCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExitCode::Known(code) => write!(f, "{code}"),
            ExitCode::Unknown => f.write_str("unknown"),
        }
    }
}

/// The end of a process, recorded once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ExitStatus {
    /// How it ended.
    pub code: ExitCode,
    /// When, by the clock of its machine; `None` if the runtime did not say.
    pub exited_at: Option<WallTime>,
    /// True if the kernel killed it for memory; 137 alone does not say so.
    pub oom_killed: bool,
}

/// What a runtime says about one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerState {
    /// Its id.
    pub id: ContainerId,
    /// The image it was made from.
    pub image: ImageReference,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Where it is in its life.
    pub status: ContainerStatus,
    /// Process id while running.
    pub pid: Option<u32>,
    /// When its process started.
    pub started_at: Option<WallTime>,
    /// Set exactly when `status` is `Exited`.
    pub exit: Option<ExitStatus>,
}
