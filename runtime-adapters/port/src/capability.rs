//! What runtimes legitimately do differently, as data: a difference that is listed here is not a
//! failure, one that is not listed is.

use serde::{Deserialize, Serialize};

/// Something that a runtime may do, not do, or do in its own way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Capability {
    /// Has a daemon that can be killed, paused and restarted apart from its containers.
    Daemon,
    /// Has a monitor process per container (shim, conmon) that can be killed or paused.
    Monitor,
    /// A container goes on when its monitor is killed.
    OutlivesMonitor,
    /// The exit code is known although the monitor was killed before the exit.
    ExitCodeWithoutMonitor,
    /// Events that were missed are said again to a subscriber that gives a cursor.
    EventReplay,
    /// An exited container can be started again under the same id.
    StartAgain,
    /// Pause and resume.
    Pause,
    /// Limits of a running container can be changed.
    LiveUpdate,
    /// Memory limits are enforced.
    MemoryLimit,
    /// The runtime itself says that a container was killed for memory.
    OomReport,
    /// Runs commands in a running container.
    Exec,
    /// Log chunks carry the time at which they were written.
    LogTimes,
    /// Sees only what belongs to its own namespace or root.
    Namespaces,
    /// Keeps its records when the machine restarts.
    RecordsOutliveReboot,
    /// Refuses to remove an image that a container uses.
    ImageInUse,
    /// Pulls with a user name and password.
    RegistryLogin,
}

impl Capability {
    /// All, in declaration order.
    pub const ALL: [Capability; 16] = [
        Capability::Daemon,
        Capability::Monitor,
        Capability::OutlivesMonitor,
        Capability::ExitCodeWithoutMonitor,
        Capability::EventReplay,
        Capability::StartAgain,
        Capability::Pause,
        Capability::LiveUpdate,
        Capability::MemoryLimit,
        Capability::OomReport,
        Capability::Exec,
        Capability::LogTimes,
        Capability::Namespaces,
        Capability::RecordsOutliveReboot,
        Capability::ImageInUse,
        Capability::RegistryLogin,
    ];

    /// The kebab-case name, as tables print it.
    pub fn name(self) -> &'static str {
        match self {
            Capability::Daemon => "daemon",
            Capability::Monitor => "monitor",
            Capability::OutlivesMonitor => "outlives-monitor",
            Capability::ExitCodeWithoutMonitor => "exit-code-without-monitor",
            Capability::EventReplay => "event-replay",
            Capability::StartAgain => "start-again",
            Capability::Pause => "pause",
            Capability::LiveUpdate => "live-update",
            Capability::MemoryLimit => "memory-limit",
            Capability::OomReport => "oom-report",
            Capability::Exec => "exec",
            Capability::LogTimes => "log-times",
            Capability::Namespaces => "namespaces",
            Capability::RecordsOutliveReboot => "records-outlive-reboot",
            Capability::ImageInUse => "image-in-use",
            Capability::RegistryLogin => "registry-login",
        }
    }
}

/// How far a runtime has a capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Support {
    /// As the port describes it.
    Full,
    /// In its own way; the note says which.
    Differs,
    /// Not at all.
    Missing,
}

/// One row of a capability table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What it is about.
    pub capability: Capability,
    /// How far it is there; never [`Support::Full`].
    pub support: Support,
    /// What a caller meets, in one sentence.
    pub note: &'static str,
    /// Where that is known from: an issue, a page, a source file or a measurement.
    pub source: &'static str,
}

/// What one adapter cannot do or does differently. What is not listed is fully supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Capabilities {
    /// The adapter's name: `sim`, `containerd`, `podman`, `oci`.
    pub runtime: &'static str,
    /// Its differences, in the order of [`Capability::ALL`].
    pub differences: &'static [Difference],
}

impl Capabilities {
    /// How far `capability` is there.
    pub fn support(&self, capability: Capability) -> Support {
        self.difference(capability)
            .map_or(Support::Full, |it| it.support)
    }

    /// The row about `capability`, if it is not fully there.
    pub fn difference(&self, capability: Capability) -> Option<&'static Difference> {
        self.differences
            .iter()
            .find(|it| it.capability == capability)
    }
}
