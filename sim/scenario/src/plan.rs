//! The plan: a scenario with every default made explicit and every random choice already drawn
//! from the seed. Immutable data; executors choose nothing.
//!
//! What cannot be known before the run stays symbolic: the current leader, the node that runs a
//! task, the n-th occurrence of an event.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wavetank_model::{NodeId, Operation, Resources, Timers};
use wavetank_port::ErrorClass;

pub use crate::quantiles::{PERCENTS, Quantiles, RuntimeStep, RuntimeSteps};

/// One experiment, ready to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The scenario's name.
    pub name: String,
    /// The file it came from, as it was given; for the replay command.
    pub file: String,
    /// The seed everything was drawn from.
    pub seed: u64,
    /// The profile's name.
    pub profile: String,
    /// Virtual time with faults.
    pub horizon: Duration,
    /// Virtual time after everything healed.
    pub settle: Duration,
    /// The machines.
    pub cluster: Cluster,
    /// Images by name.
    pub images: BTreeMap<String, Image>,
    /// What operators and clients do, in time order.
    pub workload: Vec<Step>,
    /// What goes wrong, numbered by position.
    pub faults: Vec<Fault>,
    /// What is expected.
    pub expect: Expect,
    /// Worlds the file can run in.
    pub worlds: Vec<String>,
}

/// The machines and what connects them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    /// Managers by number, from 1.
    pub managers: u32,
    /// Agents, from number 1.
    pub agents: Vec<AgentHost>,
    /// Load clients beside the operator (`client-1`), numbered from 2.
    pub clients: Vec<LoadClient>,
    /// Timers of all processes.
    pub timers: Timers,
    /// One-way latency of every link: drawn evenly from this range for each message.
    pub latency: Range,
    /// Time to make records durable: drawn evenly from this range for each step that persists.
    pub fsync: Range,
    /// Time a runtime takes for one call (create, start, ...): drawn evenly.
    pub runtime_latency: Range,
    /// Delay of a runtime's events.
    pub event_delay: Range,
    /// Steps that were measured on a runtime; they take what was measured instead.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub runtime_steps: RuntimeSteps,
    /// How long a supervisor waits before it starts a crashed process again.
    pub restart_delay: Duration,
    /// Volumes that all agents share; all others exist once per agent.
    pub shared_volumes: Vec<String>,
}

impl Cluster {
    /// The longest that an event of a runtime takes by itself.
    pub fn event_delay_max(&self) -> Duration {
        let measured = self.runtime_steps.get(&RuntimeStep::Event);
        measured.map_or(self.event_delay.max, Quantiles::max)
    }
}

/// An inclusive range of durations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// Shortest.
    pub min: Duration,
    /// Longest; at least `min`.
    pub max: Duration,
}

/// One agent's machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentHost {
    /// What it offers.
    pub resources: Resources,
    /// What it is like.
    pub labels: BTreeMap<String, String>,
}

/// A client that reads and writes keys of the store all the time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadClient {
    /// When it starts.
    pub at: Duration,
    /// When it stops.
    pub until: Duration,
    /// Between an answer and its next request.
    pub pause: Duration,
    /// Number of keys it chooses from; shared among all load clients.
    pub keys: u32,
    /// Share of reads, 0 to 100.
    pub reads_percent: u32,
}

/// How a container of an image behaves, and how the registry serves it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Image {
    /// How long its process runs by itself; `None` for ever. Drawn evenly for each instance.
    pub run_for: Option<Range>,
    /// How it then ends.
    pub exit_code: i32,
    /// What it does on SIGTERM.
    pub on_term: OnTerm,
    /// Whether its probe says healthy, and since when.
    pub health: Health,
    /// Bytes to pull.
    pub pull_bytes: u64,
    /// Whether the registry has it. A fault can change that.
    pub exists: bool,
    /// Memory it uses, in bytes; above its limit it is killed after `run_for` or 1 s.
    pub memory_bytes: u64,
}

/// What a process does on SIGTERM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnTerm {
    /// Ends after this long with this code (`None`: 143, as the signal's default action does).
    Exits {
        /// How long it takes.
        after: Duration,
        /// Its exit code.
        code: Option<i32>,
    },
    /// Goes on.
    Ignores,
}

/// What a container's probe says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// Healthy as soon as it runs.
    Ok,
    /// Healthy after this long.
    After(Duration),
    /// Never healthy.
    Never,
}

/// Something an operator does at a time. The operator is `client-1` and repeats until answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// When.
    pub at: Duration,
    /// What.
    pub operation: Operation,
}

/// One fault, one occurrence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// Its name in the file; repeated occurrences are `name#2` and so on.
    pub name: String,
    /// What and how.
    pub action: Action,
    /// Where.
    pub target: Target,
    /// When.
    pub trigger: Trigger,
    /// For how long; `None` until the end of the fault phase.
    pub duration: Option<Duration>,
    /// False for `heal: never`: stays in force through the settle phase.
    pub heals: bool,
    /// True if it came from `swarm`: then it need not fire for the run to be conclusive.
    pub optional: bool,
}

/// When a fault comes into force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trigger {
    /// At a time.
    At(Duration),
    /// When another fault (by its number) has fired, plus a delay.
    AfterFault {
        /// Which.
        fault: u32,
        /// How long after.
        delay: Duration,
    },
    /// On the n-th event that matches.
    OnEvent {
        /// Event name from `wavetank_trace::view::EVENT_KINDS`.
        event: String,
        /// CEL over the event's fields; `None` matches all.
        condition: Option<String>,
        /// Which occurrence, from 1.
        occurrence: u32,
        /// Before or after the event takes effect.
        point: Point,
        /// How long after that; only with `Point::After`.
        delay: Duration,
    },
}

/// Which side of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Point {
    /// The process decided, and nothing of it has left the machine or reached the disk.
    Before,
    /// Everything that belongs to it has been carried out.
    After,
}

/// Where a fault strikes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// These nodes.
    Nodes(Vec<NodeId>),
    /// Whoever leads when the fault fires (the newest leader known).
    Leader,
    /// Managers that do not lead when it fires; `take` of them, chosen by `draw`.
    Followers {
        /// How many.
        take: u32,
        /// Drawn from the seed.
        draw: u64,
    },
    /// The node of the event that triggered it.
    EventHost,
    /// The node that runs a task of the service when it fires; which one is `draw` modulo their
    /// number, in task order.
    TaskNode {
        /// Which service.
        service: String,
        /// Drawn from the seed.
        draw: u64,
    },
    /// Running containers of the service on any node (at most `take`), chosen by `draw`.
    Tasks {
        /// Which service; `None` for any.
        service: Option<String>,
        /// How many.
        take: u32,
        /// Drawn from the seed.
        draw: u64,
    },
    /// The registry, as all nodes see it, for these images (empty for all).
    Registry {
        /// Image names.
        images: Vec<String>,
    },
    /// The cluster as a whole (operator actions).
    Cluster,
}

/// Shapes of a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// The target nodes are cut off from all others (not from each other).
    Isolate,
    /// The target nodes are cut off from the managers among all others; agents and clients still
    /// reach them.
    FromManagers,
    /// These groups cannot reach each other; nodes in no group reach everyone.
    Groups(Vec<Vec<NodeId>>),
    /// Two halves that cannot reach each other, but for one node that reaches both.
    Bridge {
        /// One half.
        left: Vec<NodeId>,
        /// The other half.
        right: Vec<NodeId>,
    },
    /// Ordered pairs `(from, to)` that are cut, for shapes drawn in full (majorities-ring).
    Pairs(Vec<(NodeId, NodeId)>),
}

/// Which way traffic is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// Both ways.
    Both,
    /// Only what the target (or the first group) sends.
    From,
    /// Only what is sent to the target (or the first group).
    To,
}

/// What a fault does, with all arguments.
#[expect(
    clippy::large_enum_variant,
    reason = "a plan has few faults, and readers match on them"
)]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    // Machines.
    /// The process ends cleanly; peers see its connections close. Starts again when healed.
    ProcessExit,
    /// The process is killed; peers see resets. Containers go on. Starts again when healed.
    ProcessKill,
    /// Silence; volatile state, containers and unsynced writes are gone. Boots when healed.
    PowerLoss {
        /// The last unsynced write is half on disk.
        torn: bool,
    },
    /// Power loss, and the disk is empty when it boots.
    Wipe,
    /// The machine freezes, containers included, and later goes on where it was.
    Pause,
    /// Everything the process does takes this many times as long (each step costs 1 ms times
    /// this).
    SlowCpu {
        /// How many times.
        factor: u32,
    },
    // Clocks.
    /// The wall clock jumps by this many nanoseconds, and back when healed.
    ClockJump {
        /// Signed nanoseconds.
        by_ns: i64,
    },
    /// The monotonic clock runs fast or slow by this many parts per million.
    ClockDrift {
        /// Signed parts per million, above -1,000,000.
        ppm: i64,
    },
    // Links.
    /// Messages are lost along these cuts.
    Partition {
        /// What is cut.
        shape: Shape,
        /// Which way.
        direction: Direction,
    },
    /// Messages of the target nodes take this much longer.
    LinkDelay {
        /// Drawn evenly for each message.
        by: Range,
    },
    /// Messages of the target nodes are lost with this chance.
    LinkLoss {
        /// 0 to 100.
        percent: u32,
    },
    /// Messages of the target nodes arrive twice with this chance.
    LinkDuplicate {
        /// 0 to 100.
        percent: u32,
    },
    /// Messages of the target nodes overtake each other with this chance, by up to `by`.
    LinkReorder {
        /// 0 to 100.
        percent: u32,
        /// Longest extra delay.
        by: Duration,
    },
    /// Messages of the target nodes arrive damaged and are refused with this chance.
    LinkCorrupt {
        /// 0 to 100.
        percent: u32,
    },
    /// Each message of the target nodes occupies its link for its size over this rate.
    LinkBandwidth {
        /// Bytes a second, above 0.
        bytes_per_second: u64,
    },
    /// Messages of the target nodes wait and all arrive when healed.
    LinkHold,
    // Disks.
    /// Writes fail; image pulls fail for want of space.
    DiskFull,
    /// Making records durable takes this much longer.
    DiskSlow {
        /// Drawn evenly each time.
        by: Range,
    },
    /// Writes fail.
    DiskError,
    /// The disk says a write is durable before it is: a power loss takes it back.
    DiskLies,
    /// One record at rest is damaged.
    BitRot {
        /// Which, modulo their number.
        draw: u64,
    },
    // Registry.
    /// Pulls of the target images fail with this class (missing is not-found, 401 is
    /// unauthenticated, 429 is resource-exhausted, 5xx is unavailable).
    RegistryError {
        /// The class.
        class: ErrorClass,
        /// How many pulls; `None` for all while in force.
        count: Option<u32>,
    },
    /// Pulls run at this rate.
    RegistrySlow {
        /// Bytes a second, above 0.
        bytes_per_second: u64,
    },
    /// Pulls stop at this byte and hang until healed (then they go on) or until given up.
    RegistryStall {
        /// Bytes that still arrive.
        after_bytes: u64,
    },
    /// Pulls end early; the runtime notices.
    RegistryTruncate {
        /// How many pulls; `None` for all while in force.
        count: Option<u32>,
    },
    /// Pulled bytes have another digest; the runtime notices.
    RegistryWrongDigest {
        /// How many pulls; `None` for all while in force.
        count: Option<u32>,
    },
    /// The tag points to other content while in force.
    RegistryMovedTag,
    // Runtime.
    /// Calls fail with this class and without effect.
    RuntimeError {
        /// The verb; `None` for any.
        call: Option<String>,
        /// The class.
        class: ErrorClass,
        /// How many calls; `None` for all while in force.
        count: Option<u32>,
    },
    /// Calls take this much longer.
    RuntimeDelay {
        /// The verb; `None` for any.
        call: Option<String>,
        /// How much longer.
        by: Range,
    },
    /// Calls are not answered while in force (then they are carried out and answered).
    RuntimeHang {
        /// The verb; `None` for any.
        call: Option<String>,
    },
    /// Calls take effect and their answer is lost.
    RuntimeLostReply {
        /// The verb.
        call: String,
        /// How many calls.
        count: u32,
    },
    /// Events are lost.
    RuntimeEventDrop {
        /// `start`, `exit`, `delete`.
        event: String,
        /// How many; `None` for all while in force.
        count: Option<u32>,
    },
    /// Events come twice.
    RuntimeEventDuplicate {
        /// `start`, `exit`, `delete`.
        event: String,
        /// How many; `None` for all while in force.
        count: Option<u32>,
    },
    /// Events come this much later (so also after younger ones).
    RuntimeEventDelay {
        /// `start`, `exit`, `delete`.
        event: String,
        /// How much later.
        by: Range,
        /// How many; `None` for all while in force.
        count: Option<u32>,
    },
    /// Processes end before their start was answered.
    ExitBeforeStart {
        /// How many starts.
        count: u32,
        /// The exit code.
        code: i32,
    },
    /// Ends are noticed this much later: until then a container counts as running, though its
    /// process is gone, does nothing and heeds no signal.
    ExitLate {
        /// How much later.
        by: Range,
        /// How many exits.
        count: u32,
    },
    /// Ends are noticed with this code, whatever the process ended with.
    ExitCodeWrong {
        /// How many exits.
        count: u32,
        /// The exit code.
        code: i32,
    },
    /// The runtime reports this exit code as unknown and loses the true one.
    ExitCodeLost {
        /// How many exits.
        count: u32,
    },
    /// The runtime does not say when a process ended.
    ExitTimeMissing {
        /// How many exits.
        count: u32,
    },
    /// A kill of a process that is already dead is answered with class `unknown` instead of
    /// not-found (ESRCH passed through).
    KillDeadErrors,
    /// The container's monitor (shim, conmon) is killed, and its process with it; the exit code
    /// is lost.
    MonitorKill,
    /// The runtime daemon is down while in force: calls fail as unavailable, events are lost,
    /// containers go on.
    DaemonRestart {
        /// False: its records are gone, and its containers' processes with them.
        keeps_state: bool,
    },
    /// Listings succeed and name nothing (a daemon that answers before it has loaded its state).
    EmptyListing {
        /// How many listings; `None` for all while in force.
        count: Option<u32>,
    },
    /// A container of ours that nobody ordered appears (left over from another life).
    Orphan,
    // Workloads.
    /// The target tasks' processes end with this code.
    TaskExit {
        /// The exit code.
        code: i32,
    },
    /// The kernel kills the target tasks' processes for memory.
    TaskOom,
    /// Probes of the target tasks say unhealthy while in force.
    TaskUnhealthy,
    // Operators.
    /// The operator does this.
    Operator {
        /// What.
        operation: Operation,
    },
    /// A manager joins (a new number) or leaves the consensus group for good.
    Membership {
        /// True to add the target manager from an empty disk; false to stop it, and to have the
        /// operator remove it.
        join: bool,
    },
    // Codec.
    /// A field of a message has another type in the sender's version.
    CodecRetype {
        /// Message kind.
        message: String,
        /// Field name.
        field: String,
    },
    /// A field of a message has another name in the sender's version.
    CodecRename {
        /// Message kind.
        message: String,
        /// Field name.
        field: String,
    },
    /// A field of a message is missing in the sender's version.
    CodecMissing {
        /// Message kind.
        message: String,
        /// Field name.
        field: String,
    },
}

impl Action {
    /// The kebab-case name, as scenario files spell it.
    pub fn name(&self) -> &'static str {
        match self {
            Action::ProcessExit => "process-exit",
            Action::ProcessKill => "process-kill",
            Action::PowerLoss { .. } => "power-loss",
            Action::Wipe => "wipe",
            Action::Pause => "pause",
            Action::SlowCpu { .. } => "slow-cpu",
            Action::ClockJump { .. } => "clock-jump",
            Action::ClockDrift { .. } => "clock-drift",
            Action::Partition { .. } => "partition",
            Action::LinkDelay { .. } => "link-delay",
            Action::LinkLoss { .. } => "link-loss",
            Action::LinkDuplicate { .. } => "link-duplicate",
            Action::LinkReorder { .. } => "link-reorder",
            Action::LinkCorrupt { .. } => "link-corrupt",
            Action::LinkBandwidth { .. } => "link-bandwidth",
            Action::LinkHold => "link-hold",
            Action::DiskFull => "disk-full",
            Action::DiskSlow { .. } => "disk-slow",
            Action::DiskError => "disk-error",
            Action::DiskLies => "disk-lies",
            Action::BitRot { .. } => "bit-rot",
            Action::RegistryError { .. } => "registry-error",
            Action::RegistrySlow { .. } => "registry-slow",
            Action::RegistryStall { .. } => "registry-stall",
            Action::RegistryTruncate { .. } => "registry-truncate",
            Action::RegistryWrongDigest { .. } => "registry-wrong-digest",
            Action::RegistryMovedTag => "registry-moved-tag",
            Action::RuntimeError { .. } => "runtime-error",
            Action::RuntimeDelay { .. } => "runtime-delay",
            Action::RuntimeHang { .. } => "runtime-hang",
            Action::RuntimeLostReply { .. } => "runtime-lost-reply",
            Action::RuntimeEventDrop { .. } => "runtime-event-drop",
            Action::RuntimeEventDuplicate { .. } => "runtime-event-duplicate",
            Action::RuntimeEventDelay { .. } => "runtime-event-delay",
            Action::ExitBeforeStart { .. } => "exit-before-start",
            Action::ExitLate { .. } => "exit-late",
            Action::ExitCodeWrong { .. } => "exit-code-wrong",
            Action::ExitCodeLost { .. } => "exit-code-lost",
            Action::ExitTimeMissing { .. } => "exit-time-missing",
            Action::KillDeadErrors => "kill-dead-errors",
            Action::MonitorKill => "monitor-kill",
            Action::DaemonRestart { .. } => "daemon-restart",
            Action::EmptyListing { .. } => "empty-listing",
            Action::Orphan => "orphan",
            Action::TaskExit { .. } => "task-exit",
            Action::TaskOom => "task-oom",
            Action::TaskUnhealthy => "task-unhealthy",
            Action::Operator { .. } => "operator",
            Action::Membership { .. } => "membership",
            Action::CodecRetype { .. } => "codec-retype",
            Action::CodecRename { .. } => "codec-rename",
            Action::CodecMissing { .. } => "codec-missing",
        }
    }
}

/// What is expected of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Expect {
    /// Names of the checkers that judge the run, in name order.
    pub invariants: Vec<String>,
    /// Must become true within a bound after everything healed, and stay true to the end.
    pub eventually: Vec<Eventually>,
    /// CEL that must never be true.
    pub never: Vec<String>,
    /// Checkers that must find a violation (a known-bad file); if non-empty, only then the run
    /// passes, and other checkers' findings still fail it.
    pub fails: Vec<String>,
}

/// One expectation after the faults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Eventually {
    /// CEL over services, tasks, nodes and leases as the managers know them.
    pub check: String,
    /// Bound, counted from the start of the settle phase.
    pub within: Duration,
}
