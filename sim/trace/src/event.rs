//! The vocabulary of a trace.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use wavetank_model::{Incarnation, NodeId, Notice, Operation, OperationError, Outcome, RequestId};
use wavetank_port::{ContainerId, ErrorClass, ExitStatus, Signal};

/// Time since the start of the run, in nanoseconds. The world's own clock, which no node sees.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct VirtualTime(pub u64);

impl VirtualTime {
    /// The start of the run.
    pub const ZERO: VirtualTime = VirtualTime(0);

    /// From a duration since the start; 584 years and more saturate.
    pub fn from_duration(duration: Duration) -> Self {
        VirtualTime(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    }

    /// As a duration since the start.
    pub fn as_duration(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    /// Time since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: VirtualTime) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for VirtualTime {
    type Output = VirtualTime;
    fn add(self, duration: Duration) -> VirtualTime {
        VirtualTime(
            self.0
                .saturating_add(VirtualTime::from_duration(duration).0),
        )
    }
}

impl std::fmt::Display for VirtualTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}.{:03}s",
            self.0 / 1_000_000_000,
            self.0 / 1_000_000 % 1_000
        )
    }
}

/// An event's number in its run, from 1.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct EventId(pub u64);

/// The first line of a stored trace: everything a checker needs to judge the rest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Version of this format.
    pub wavetank_trace: u32,
    /// Which world ran it.
    pub world: String,
    /// The seed.
    pub seed: u64,
    /// The plan, as `wavetank-scenario` serialises it.
    pub plan: serde_json::Value,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Its number.
    pub id: EventId,
    /// When.
    pub at: VirtualTime,
    /// Where; `None` for the world itself.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub host: Option<NodeId>,
    /// The event that led here.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cause: Option<EventId>,
    /// What.
    #[serde(flatten)]
    pub payload: Payload,
}

/// The phases of a run, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Workload and faults; safety is checked.
    Faults,
    /// Everything was healed; liveness is owed when this phase ends.
    Settle,
    /// The run is over; its last event.
    End,
}

/// What became of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultState {
    /// Waits for its trigger.
    Armed,
    /// In force from now on.
    Fired,
    /// It hit something: a message was lost, a call failed, a process died. Said once per fault.
    Hit,
    /// No longer in force.
    Healed,
    /// This world cannot do it.
    NotApplied,
}

/// What happened to a machine or its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostState {
    /// The process started.
    Started,
    /// The process ended by itself, peers saw its connections close.
    Exited,
    /// The process was killed, peers saw its connections reset.
    Killed,
    /// The machine lost power: silence, volatile state and containers gone.
    PowerLost,
    /// The machine lost power and its disk came back empty.
    Wiped,
    /// Frozen; keeps its state.
    Paused,
    /// Goes on where it was.
    Resumed,
    /// The process gave up (`fatal`).
    Crashed,
}

/// Why a container's process ended, as the world knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExitCause {
    /// By itself.
    Itself,
    /// It obeyed SIGTERM.
    Terminated,
    /// SIGKILL by the runtime, after the grace of a stop, by a kill or a forced delete.
    Killed,
    /// The kernel killed it for memory.
    OutOfMemory,
    /// A fault killed it.
    Fault,
    /// Its machine lost power.
    PowerLoss,
}

/// What an event says. Three voices: the world's truth, the orchestrator's own notices, and the
/// clients' history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Payload {
    /// World: a phase begins.
    Phase {
        /// Which.
        phase: Phase,
    },
    /// World: something became of a fault.
    Fault {
        /// Its number in the plan.
        fault: u32,
        /// Its name.
        name: String,
        /// Its action.
        action: String,
        /// What became of it.
        state: FaultState,
        /// Nodes it disturbs while in force (crashed, paused, cut off, slowed); nodes whose
        /// health a checker must not count on until it has healed. Empty for faults that a
        /// correct system must not even notice.
        disturbs: Vec<NodeId>,
        /// For a person: concrete target and arguments.
        detail: String,
    },
    /// World: something happened to a machine or its process.
    Host {
        /// What.
        state: HostState,
        /// Which boot of the process.
        incarnation: Incarnation,
    },
    /// World: a process gave up or could not start; its supervisor takes over.
    GaveUp {
        /// What it said.
        why: String,
    },
    /// World: a message left. Kept only in full traces.
    MessageSent {
        /// Receiver.
        to: NodeId,
        /// Its kind.
        message: String,
    },
    /// World: a message arrived. Kept only in full traces.
    MessageDelivered {
        /// Sender.
        from: NodeId,
        /// Its kind.
        message: String,
    },
    /// World: a message will never arrive. Kept only in full traces.
    MessageDropped {
        /// Receiver.
        to: NodeId,
        /// Its kind.
        message: String,
    },
    /// World: a process made records durable. Kept only in full traces.
    Persisted {
        /// How many.
        records: u32,
    },
    /// World: a runtime was asked.
    RuntimeCalled {
        /// The verb.
        call: String,
        /// The container it is about.
        container: Option<ContainerId>,
        /// The image it is about (pull and create).
        image: Option<String>,
    },
    /// World: a runtime answered (or its answer was lost: then there is no such event).
    RuntimeAnswered {
        /// The verb.
        call: String,
        /// The container it is about.
        container: Option<ContainerId>,
        /// `None` if it succeeded.
        error: Option<ErrorClass>,
        /// For a successful `list`: how many containers it named.
        listed: Option<u32>,
    },
    /// World, truth: a container exists.
    ContainerCreated {
        /// Which.
        container: ContainerId,
        /// Volumes it writes to.
        volumes: Vec<String>,
    },
    /// World, truth: its process runs.
    ContainerStarted {
        /// Which.
        container: ContainerId,
        /// Its process id.
        pid: u32,
    },
    /// World, truth: its process was sent a signal.
    ContainerSignalled {
        /// Which.
        container: ContainerId,
        /// What.
        signal: Signal,
    },
    /// World, truth: its process ended.
    ContainerExited {
        /// Which.
        container: ContainerId,
        /// How, in truth, whatever the runtime will say.
        exit: ExitStatus,
        /// Why.
        because: ExitCause,
    },
    /// World, truth: the runtime no longer knows how its process ended (power loss, monitor
    /// killed): only an unknown exit code can be reported truthfully.
    ContainerExitForgotten {
        /// Which.
        container: ContainerId,
    },
    /// World, truth: it is gone.
    ContainerDeleted {
        /// Which.
        container: ContainerId,
    },
    /// World: a health probe of a container truly says this from now on.
    ContainerHealth {
        /// Which.
        container: ContainerId,
        /// The verdict.
        healthy: bool,
    },
    /// Client: a request was made.
    ClientInvoked {
        /// Which.
        request: RequestId,
        /// What.
        operation: Operation,
    },
    /// Client: a request was answered.
    ClientReturned {
        /// Which.
        request: RequestId,
        /// What.
        result: Result<Outcome, OperationError>,
    },
    /// The orchestrator about itself; `host` says who.
    Notice {
        /// What it says.
        #[serde(flatten)]
        notice: Notice,
    },
}
