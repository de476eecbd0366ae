//! The catalogue of faults: every action with its arguments, the targets it can have, the worlds
//! that can do it, and the incident it models. One table for checks, schema and documentation;
//! what an action does is written at `plan::Action`.

use crate::kind::{Field, Kind, optional, required};

/// One action.
#[derive(Debug)]
pub struct FaultInfo {
    /// The name that `action:` takes.
    pub action: &'static str,
    /// What it does.
    pub summary: &'static str,
    /// What `args:` may hold.
    pub args: &'static [ArgInfo],
    /// Roles that `target:` may name.
    pub targets: &'static [&'static str],
    /// Worlds that can do it.
    pub worlds: &'static [&'static str],
    /// The incident or failure mode that it models; empty if it is generic.
    pub models: &'static str,
    /// Whether `swarm` may draw it: it is if any correct system must survive any dose of it.
    pub swarm: bool,
}

/// One argument of an action.
pub type ArgInfo = Field;

/// Every role that a target can name.
pub const ROLES: &[&str] = &[
    "leader",
    "follower",
    "manager",
    "agent",
    "node",
    "link",
    "registry",
    "image",
    "runtime",
    "task",
    "task-node",
    "event-host",
    "cluster",
];

/// Every world.
pub const WORLDS: &[&str] = &["event", "turmoil", "madsim", "live"];

/// The verbs of a runtime.
pub const CALLS: &[&str] = &[
    "pull", "create", "start", "stop", "kill", "delete", "inspect", "list", "probe",
];

/// The events of a runtime.
pub const RUNTIME_EVENTS: &[&str] = &["start", "exit", "delete"];

/// Error classes, as `wavetank_port::ErrorClass` spells them.
pub const CLASSES: &[&str] = &[
    "not-found",
    "already-exists",
    "failed-precondition",
    "invalid-argument",
    "unavailable",
    "deadline-exceeded",
    "unauthenticated",
    "resource-exhausted",
    "unknown",
];

/// Shapes of a partition.
pub const SHAPES: &[&str] = &[
    "isolate",
    "halves",
    "random-halves",
    "one",
    "bridge",
    "from-managers",
    "majorities-ring",
    "minority",
    "majority",
    "leader",
    "groups",
];

const MACHINE: &[&str] = &[
    "leader",
    "follower",
    "manager",
    "agent",
    "node",
    "task-node",
    "event-host",
];
const LINK: &[&str] = &[
    "leader",
    "follower",
    "manager",
    "agent",
    "node",
    "link",
    "task-node",
    "event-host",
];
const RUNTIME: &[&str] = &["runtime", "agent", "task-node", "event-host"];
const REGISTRY: &[&str] = &["registry", "image"];
const TASK: &[&str] = &["task"];

const ALL: &[&str] = WORLDS;
const SIMULATED: &[&str] = &["event", "turmoil", "madsim"];
const EVENT: &[&str] = &["event"];
/// turmoil runs every host in every tick: nothing stands still there.
const BUT_TURMOIL: &[&str] = &["event", "madsim", "live"];
/// madsim has one latency for all links.
const BUT_MADSIM: &[&str] = &["event", "turmoil", "live"];
/// The shells' simulators carry streams; what happens to one segment is a matter for TCP.
const SINGLE_SEGMENTS: &[&str] = &["event", "live"];

const COUNT_MAX: Kind = Kind::Integer(1, 1_000_000);
const PERCENT: Kind = Kind::Integer(1, 100);
const CODE: Kind = Kind::Integer(0, 255);

const CALL: ArgInfo = optional("call", Kind::Choice(CALLS), "any", "which call");
const BY: ArgInfo = required("by", Kind::Range, "how much longer; drawn for each");
const SOME: ArgInfo = optional("count", COUNT_MAX, "all while in force", "how many");
const ONE: ArgInfo = optional("count", COUNT_MAX, "1", "how many");
const EVENT_NAME: ArgInfo = optional("event", Kind::Choice(RUNTIME_EVENTS), "exit", "which event");
const CHANCE: ArgInfo = required("percent", PERCENT, "chance for each message");
const SPEED: ArgInfo = required("bytes_per_second", Kind::Size, "bytes a second, above 0");
const MESSAGE: &[ArgInfo] = &[
    required("message", Kind::Name, "the message's kind"),
    required("field", Kind::Name, "the field's name"),
];

/// Direction of a partition.
pub const DIRECTIONS: &[&str] = &["both", "from", "to"];

const fn fault(
    action: &'static str,
    summary: &'static str,
    args: &'static [ArgInfo],
    targets: &'static [&'static str],
    worlds: &'static [&'static str],
    models: &'static str,
) -> FaultInfo {
    FaultInfo {
        action,
        summary,
        args,
        targets,
        worlds,
        models,
        swarm: true,
    }
}

/// An action that `swarm` leaves alone.
const fn by_hand(
    action: &'static str,
    summary: &'static str,
    args: &'static [ArgInfo],
    targets: &'static [&'static str],
    worlds: &'static [&'static str],
    models: &'static str,
) -> FaultInfo {
    FaultInfo {
        action,
        summary,
        args,
        targets,
        worlds,
        models,
        swarm: false,
    }
}

/// Every action, in the order of `plan::Action`.
pub const CATALOGUE: &[FaultInfo] = &[
    // Machines.
    fault(
        "process-exit",
        "the process ends cleanly and starts again when healed",
        &[],
        MACHINE,
        ALL,
        "a rolling restart of the control plane",
    ),
    fault(
        "process-kill",
        "the process is killed and starts again when healed; containers go on",
        &[],
        MACHINE,
        ALL,
        "Warren 41, 48: managers or agents killed under workload",
    ),
    fault(
        "power-loss",
        "the machine goes silent; volatile state, containers and unsynced writes are gone",
        &[optional(
            "torn",
            Kind::Bool,
            "false",
            "the last unsynced write is half on disk",
        )],
        MACHINE,
        ALL,
        "Archipelago 29, Reaper 9: power loss with a torn state file",
    ),
    fault(
        "wipe",
        "power loss, and the disk is empty when the machine boots",
        &[],
        MACHINE,
        ALL,
        "a replaced disk; quorum is lost if it strikes a majority",
    ),
    fault(
        "pause",
        "the machine freezes, containers included, and later goes on where it was",
        &[],
        MACHINE,
        BUT_TURMOIL,
        "StreamSpace 52: a lease holder paused for 20 s",
    ),
    fault(
        "slow-cpu",
        "everything the process does takes longer",
        &[optional(
            "factor",
            Kind::Integer(2, 10_000),
            "10",
            "how many times as long",
        )],
        MACHINE,
        EVENT,
        "a noisy neighbour",
    ),
    // Clocks.
    fault(
        "clock-jump",
        "the wall clock jumps, and back when healed",
        &[required(
            "by",
            Kind::SignedDuration,
            "how far; negative for back",
        )],
        MACHINE,
        ALL,
        "StreamSpace 53: clock skew of 20 s",
    ),
    fault(
        "clock-drift",
        "the monotonic clock runs fast or slow",
        &[required(
            "ppm",
            Kind::Integer(-999_999, 10_000_000),
            "parts per million",
        )],
        MACHINE,
        SIMULATED,
        "a virtual machine's clock under load",
    ),
    // Links.
    fault(
        "partition",
        "messages are lost between nodes",
        &[
            optional(
                "shape",
                Kind::Choice(SHAPES),
                "isolate",
                "what is cut off from what",
            ),
            optional(
                "direction",
                Kind::Choice(DIRECTIONS),
                "both",
                "which way traffic is lost",
            ),
            optional(
                "groups",
                Kind::List(&Kind::OneOrMany(&Kind::Node)),
                "",
                "groups of nodes that cannot reach each other; with `shape: groups`",
            ),
        ],
        LINK,
        ALL,
        "Warren 35, 36, StreamSpace 54: partitions in one or both directions",
    ),
    fault(
        "link-delay",
        "messages take longer",
        &[BY],
        LINK,
        BUT_MADSIM,
        "a congested link",
    ),
    fault(
        "link-loss",
        "messages are lost by chance",
        &[CHANCE],
        LINK,
        SINGLE_SEGMENTS,
        "StreamSpace 57: one lost heartbeat",
    ),
    fault(
        "link-duplicate",
        "messages arrive twice by chance",
        &[CHANCE],
        LINK,
        EVENT,
        "",
    ),
    fault(
        "link-reorder",
        "messages overtake each other by chance",
        &[
            CHANCE,
            required("by", Kind::Duration, "longest extra delay"),
        ],
        LINK,
        EVENT,
        "plfm 50: duplicate, stale and reordered plans",
    ),
    fault(
        "link-corrupt",
        "messages arrive damaged by chance",
        &[CHANCE],
        LINK,
        EVENT,
        "",
    ),
    fault(
        "link-bandwidth",
        "messages queue at a rate",
        &[SPEED],
        LINK,
        SINGLE_SEGMENTS,
        "a thin uplink",
    ),
    fault(
        "link-hold",
        "messages wait and all arrive when healed",
        &[],
        LINK,
        ALL,
        "StreamSpace 58, 59: a late unregister of an old connection",
    ),
    // Disks.
    fault(
        "disk-full",
        "writes and pulls fail for want of space",
        &[],
        MACHINE,
        ALL,
        "plfm 18",
    ),
    fault(
        "disk-slow",
        "making records durable takes longer",
        &[BY],
        MACHINE,
        EVENT,
        "",
    ),
    fault(
        "disk-error",
        "writes fail",
        &[],
        MACHINE,
        SIMULATED,
        "a dying disk",
    ),
    fault(
        "disk-lies",
        "the disk says a write is durable before it is",
        &[],
        MACHINE,
        SIMULATED,
        "a volatile write cache; strikes what consensus stands on",
    ),
    fault(
        "bit-rot",
        "one record at rest is damaged",
        &[],
        MACHINE,
        SIMULATED,
        "Reaper 9",
    ),
    // Registry.
    fault(
        "registry-error",
        "pulls fail with an error",
        &[
            required(
                "error",
                Kind::Choice(&["missing", "unauthorised", "rate-limited", "server-error"]),
                "404, 401, 429 or 5xx",
            ),
            optional("count", COUNT_MAX, "all while in force", "how many pulls"),
        ],
        REGISTRY,
        ALL,
        "Archipelago 14, 15: a pull that fails twice or for ever",
    ),
    fault(
        "registry-slow",
        "pulls run at a rate",
        &[SPEED],
        REGISTRY,
        ALL,
        "StreamSpace 17",
    ),
    fault(
        "registry-stall",
        "pulls hang after some bytes until healed",
        &[optional(
            "after",
            Kind::Size,
            "0",
            "bytes that still arrive",
        )],
        REGISTRY,
        ALL,
        "StreamSpace 17: a pull that blocks the agent's read loop",
    ),
    fault(
        "registry-truncate",
        "pulls end early",
        &[SOME],
        REGISTRY,
        ALL,
        "plfm 16",
    ),
    fault(
        "registry-wrong-digest",
        "pulled bytes have another digest",
        &[SOME],
        REGISTRY,
        ALL,
        "plfm 16: digest mismatch",
    ),
    fault(
        "registry-moved-tag",
        "the tag points to other content",
        &[],
        REGISTRY,
        ALL,
        "",
    ),
    // Runtime.
    fault(
        "runtime-error",
        "calls fail without effect",
        &[
            CALL,
            optional(
                "class",
                Kind::Choice(CLASSES),
                "unavailable",
                "the error's class",
            ),
            SOME,
        ],
        RUNTIME,
        ALL,
        "",
    ),
    fault(
        "runtime-delay",
        "calls take longer",
        &[CALL, BY],
        RUNTIME,
        ALL,
        "Archipelago 30",
    ),
    fault(
        "runtime-hang",
        "calls are not answered until healed",
        &[CALL],
        RUNTIME,
        ALL,
        "Archipelago 30: the runtime's socket hangs for 6 to 29 s",
    ),
    fault(
        "runtime-lost-reply",
        "calls take effect and their answer is lost",
        &[required("call", Kind::Choice(CALLS), "which call"), ONE],
        RUNTIME,
        ALL,
        "a client timeout after success",
    ),
    fault(
        "runtime-event-drop",
        "events are lost",
        &[EVENT_NAME, SOME],
        RUNTIME,
        SIMULATED,
        "Reaper 4: exit event missing",
    ),
    fault(
        "runtime-event-duplicate",
        "events come twice",
        &[EVENT_NAME, SOME],
        RUNTIME,
        SIMULATED,
        "Reaper 4: exit event duplicated",
    ),
    fault(
        "runtime-event-delay",
        "events come later, also after younger ones",
        &[EVENT_NAME, BY, SOME],
        RUNTIME,
        SIMULATED,
        "Reaper 4: exit event late",
    ),
    fault(
        "exit-before-start",
        "processes end before their start was answered",
        &[ONE, optional("code", CODE, "0", "the exit code")],
        RUNTIME,
        ALL,
        "Reaper 1: a process that exits within a millisecond",
    ),
    fault(
        "exit-late",
        "ends are noticed later; until then a container counts as running, though it is dead",
        &[BY, ONE],
        RUNTIME,
        ALL,
        "Reaper 2: an exit that is reported late",
    ),
    fault(
        "exit-code-wrong",
        "ends are noticed with another code",
        &[ONE, optional("code", CODE, "1", "the exit code")],
        RUNTIME,
        ALL,
        "kubernetes/kubernetes#104107: 0 became 137",
    ),
    fault(
        "exit-code-lost",
        "exit codes are lost",
        &[ONE],
        RUNTIME,
        SIMULATED,
        "Reaper 5",
    ),
    fault(
        "exit-time-missing",
        "exits carry no time",
        &[ONE],
        RUNTIME,
        SIMULATED,
        "Reaper 4: exited_at absent",
    ),
    fault(
        "kill-dead-errors",
        "killing or stopping a dead process is an unknown error",
        &[],
        RUNTIME,
        SIMULATED,
        "Reaper 3: ESRCH passed through",
    ),
    fault(
        "monitor-kill",
        "the container's monitor is killed, and its process with it",
        &[],
        TASK,
        ALL,
        "Reaper 5: the shim killed with SIGKILL",
    ),
    fault(
        "daemon-restart",
        "the runtime's daemon is down; containers go on",
        &[optional(
            "keeps_state",
            Kind::Bool,
            "true",
            "it still knows its containers",
        )],
        RUNTIME,
        ALL,
        "a containerd or Podman upgrade under load",
    ),
    fault(
        "empty-listing",
        "listings succeed and name nothing",
        &[SOME],
        RUNTIME,
        ALL,
        "Archipelago 30: a daemon that answers before it has loaded its state",
    ),
    fault(
        "orphan",
        "a container of ours that nobody ordered appears",
        &[],
        RUNTIME,
        SIMULATED,
        "Archipelago 20: an uninstall interrupted midway",
    ),
    // Workloads.
    fault(
        "task-exit",
        "the tasks' processes end",
        &[optional("code", CODE, "1", "the exit code")],
        TASK,
        SIMULATED,
        "Archipelago 22: a crash loop",
    ),
    fault(
        "task-oom",
        "the tasks' processes are killed for memory",
        &[],
        TASK,
        SIMULATED,
        "plfm 32",
    ),
    fault(
        "task-unhealthy",
        "probes of the tasks say unhealthy",
        &[],
        TASK,
        ALL,
        "plfm 65",
    ),
    // Operators.
    by_hand(
        "operator",
        "the operator does something, at the worst moment",
        &[],
        &["cluster"],
        ALL,
        "Warren 47, plfm 64: deleted or drained while starting",
    ),
    by_hand(
        "membership",
        "a manager joins from an empty disk, or is stopped and removed by the operator",
        &[required("join", Kind::Bool, "true to join, false to leave")],
        &["leader", "follower", "manager", "event-host"],
        ALL,
        "etcd's member replacement",
    ),
    // Codec.
    by_hand(
        "codec-retype",
        "a field has another type in the sender's version",
        MESSAGE,
        MACHINE,
        EVENT,
        "StreamSpace 56: heartbeat time as a number",
    ),
    by_hand(
        "codec-rename",
        "a field has another name in the sender's version",
        MESSAGE,
        MACHINE,
        EVENT,
        "StreamSpace 56",
    ),
    by_hand(
        "codec-missing",
        "a field is missing in the sender's version",
        MESSAGE,
        MACHINE,
        EVENT,
        "StreamSpace 56: heartbeat without payload",
    ),
];

/// The action of that name.
pub fn find(action: &str) -> Option<&'static FaultInfo> {
    CATALOGUE.iter().find(|info| info.action == action)
}

/// The names of all actions.
pub fn names() -> impl Iterator<Item = &'static str> {
    CATALOGUE.iter().map(|info| info.action)
}
