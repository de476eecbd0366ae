//! The format of a scenario file, as tables: every field with its kind, default and meaning. The
//! check, the JSON Schema and the documentation read these; `resolve` gives them their sense.

use crate::faults::{ROLES, WORLDS};
use crate::kind::{Field, Kind, Shape, optional, required};
use crate::profiles;

/// The version of the format: what `scenario:` must say.
pub const FORMAT_VERSION: u64 = 1;

const COUNT: Kind = Kind::Integer(1, 100_000);
const ZERO_UP: Kind = Kind::Integer(0, 100_000);
const PERCENT: Kind = Kind::Integer(0, 100);

/// A whole file.
pub static SCENARIO: Shape = Shape {
    name: "scenario",
    meaning: "one experiment",
    fields: &[
        required("scenario", Kind::Integer(1, 1), "version of this format"),
        required("name", Kind::Name, "what reports call it"),
        optional("description", Kind::Text, "", "what happens, in a sentence"),
        optional("issue", Kind::Text, "", "the incident it models"),
        optional(
            "tags",
            Kind::OneOrMany(&Kind::Name),
            "none",
            "for selection",
        ),
        INCLUDE,
        PROFILE,
        optional("seeds", SEEDS, "20", "how many seeds, or which"),
        optional("horizon", Kind::Duration, "2m", "virtual time with faults"),
        optional(
            "settle",
            Kind::Duration,
            "60s",
            "virtual time after everything healed",
        ),
        CLUSTER_FIELD,
        IMAGES_FIELD,
        optional(
            "clients",
            CLIENT_GROUPS,
            "none",
            "clients that read and write all the time",
        ),
        optional("workload", Kind::List(&STEP), "none", "what operators do"),
        optional(
            "faults",
            Kind::List(&Kind::Record(&FAULT)),
            "none",
            "what goes wrong",
        ),
        optional(
            "swarm",
            Kind::Record(&SWARM),
            "none",
            "more faults, drawn for each seed",
        ),
        optional(
            "expect",
            Kind::Record(&EXPECT),
            "all invariants",
            "what must hold",
        ),
        optional(
            "worlds",
            Kind::OneOrMany(&Kind::Choice(WORLDS)),
            "[event]",
            "where the file can run",
        ),
    ],
};

/// A file that others include.
pub static INCLUDED: Shape = Shape {
    name: "included file",
    meaning: "what several scenarios share",
    fields: &[
        optional(
            "scenario",
            Kind::Integer(1, 1),
            "",
            "version of this format",
        ),
        optional("description", Kind::Text, "", "what it is for"),
        INCLUDE,
        PROFILE,
        CLUSTER_FIELD,
        IMAGES_FIELD,
    ],
};

const INCLUDE: Field = optional(
    "include",
    Kind::OneOrMany(&Kind::Text),
    "none",
    "files with a shared cluster, images or profile, relative to this one",
);
const PROFILE: Field = optional(
    "profile",
    Kind::Choice(profiles::NAMES),
    "wavetank",
    "timers and policies",
);
const SEEDS: Kind = Kind::Either(&[
    Kind::Integer(1, 1_000_000),
    Kind::List(&Kind::Integer(0, u64::MAX as i128)),
]);
const CLUSTER_FIELD: Field = optional(
    "cluster",
    Kind::Record(&CLUSTER),
    "3 managers, 3 agents",
    "the machines",
);
const IMAGES_FIELD: Field = optional(
    "images",
    Kind::Map(&IMAGE_KIND),
    "none",
    "how containers behave",
);
const IMAGE_KIND: Kind = Kind::Record(&IMAGE);

static CLUSTER: Shape = Shape {
    name: "cluster",
    meaning: "the machines and what connects them",
    fields: &[
        optional("managers", Kind::Integer(1, 9), "3", "how many managers"),
        optional(
            "agents",
            AGENT_GROUPS,
            "3",
            "the agents, in groups of equals",
        ),
        optional(
            "timers",
            Kind::Record(&TIMERS),
            "the profile's",
            "changes to the profile",
        ),
        optional(
            "network",
            Kind::Record(&NETWORK),
            "",
            "what connects the machines",
        ),
        optional("disk", Kind::Record(&DISK), "", "the machines' disks"),
        optional(
            "runtime",
            Kind::Record(&RUNTIME),
            "",
            "the agents' container runtimes",
        ),
        optional(
            "restart_delay",
            Kind::Duration,
            "1s",
            "until a crashed process starts again",
        ),
        optional(
            "shared_volumes",
            Kind::OneOrMany(&Kind::Name),
            "none",
            "volumes that all agents see alike",
        ),
    ],
};

const AGENT_GROUPS: Kind = Kind::Either(&[
    Kind::Integer(0, 10_000),
    Kind::Record(&AGENTS),
    Kind::List(&Kind::Record(&AGENTS)),
]);

static AGENTS: Shape = Shape {
    name: "agents",
    meaning: "a group of equal agents",
    fields: &[
        optional("count", Kind::Integer(0, 10_000), "1", "how many"),
        optional("cpus", Kind::Cpus, "4", "cores that each offers"),
        optional("memory", Kind::Size, "8GiB", "memory that each offers"),
        optional(
            "labels",
            Kind::Map(&Kind::OneOrMany(&Kind::Text)),
            "none",
            "labels; the values of a list are dealt round-robin",
        ),
    ],
};

const CLIENT_GROUPS: Kind = Kind::Either(&[
    Kind::Integer(0, 50),
    Kind::Record(&CLIENTS),
    Kind::List(&Kind::Record(&CLIENTS)),
]);

static CLIENTS: Shape = Shape {
    name: "clients",
    meaning: "a group of equal load clients",
    fields: &[
        optional("count", Kind::Integer(0, 50), "1", "how many"),
        optional("at", Kind::Duration, "1s", "when they start"),
        optional("until", Kind::Duration, "the horizon", "when they stop"),
        optional(
            "pause",
            Kind::Duration,
            "500ms",
            "from an answer to the next request",
        ),
        optional(
            "keys",
            Kind::Integer(1, 10_000),
            "5",
            "how many keys they share",
        ),
        optional("reads", PERCENT, "50", "share of reads in a hundred"),
    ],
};

static NETWORK: Shape = Shape {
    name: "network",
    meaning: "what connects the machines",
    fields: &[optional(
        "latency",
        Kind::Range,
        "200us..2ms",
        "one way, for each message",
    )],
};

static DISK: Shape = Shape {
    name: "disk",
    meaning: "the machines' disks",
    fields: &[optional(
        "fsync",
        Kind::Range,
        "200us..2ms",
        "until records are durable",
    )],
};

static RUNTIME: Shape = Shape {
    name: "runtime",
    meaning: "the agents' container runtimes",
    fields: &[
        optional("latency", Kind::Range, "5ms..50ms", "of a call"),
        optional("event_delay", Kind::Range, "1ms..20ms", "of an event"),
        optional(
            "steps",
            Kind::Record(&STEPS),
            "none",
            "steps that take what was measured instead; `wavetank calibrate` writes them",
        ),
    ],
};

/// Every step of `plan::RuntimeStep`.
static STEPS: Shape = Shape {
    name: "steps",
    meaning: "how long each step of a container's life takes",
    fields: &[
        step(
            "pull",
            "a pull of what is there already; content comes on top",
        ),
        step("create", "a container is made"),
        step("start", "a container is started, until the answer"),
        step("begin", "a container is started, until its process begins"),
        step(
            "exit_seen",
            "a process has ended, until whoever waits is told",
        ),
        step("event", "something has happened, until its event comes"),
        step("delete", "a container is deleted"),
        step("call", "every other call"),
    ],
};

const fn step(name: &'static str, meaning: &'static str) -> Field {
    optional(name, STEP_TIME, "`latency` or `event_delay`", meaning)
}

const STEP_TIME: Kind = Kind::Either(&[Kind::Range, Kind::Record(&QUANTILES)]);

/// Every percentage of `plan::PERCENTS`.
static QUANTILES: Shape = Shape {
    name: "quantiles",
    meaning: "a distribution: what so many in a hundred do not exceed, straight lines between",
    fields: &[
        required("p0", Kind::Duration, "the shortest"),
        quantile("p1"),
        quantile("p5"),
        quantile("p10"),
        quantile("p25"),
        optional("p50", Kind::Duration, "", "the middle"),
        quantile("p75"),
        quantile("p90"),
        quantile("p95"),
        quantile("p96"),
        quantile("p97"),
        quantile("p98"),
        quantile("p99"),
        required("p100", Kind::Duration, "the longest"),
    ],
};

const fn quantile(name: &'static str) -> Field {
    optional(
        name,
        Kind::Duration,
        "",
        "what so many in a hundred do not exceed",
    )
}

/// Every constant of `wavetank_model::Timers`.
pub(crate) static TIMERS: Shape = Shape {
    name: "timers",
    meaning: "changes to the profile's constants",
    fields: &[
        timer("heartbeat", Kind::Duration, "between an agent's heartbeats"),
        timer(
            "node_down_after",
            Kind::Duration,
            "silence after which an agent is down",
        ),
        timer(
            "down_check",
            Kind::Duration,
            "between the leader's looks for silent agents",
        ),
        timer(
            "failover_grace",
            Kind::Duration,
            "patience with agents after an election",
        ),
        timer(
            "session_timeout",
            Kind::Duration,
            "until an agent looks for another manager",
        ),
        timer(
            "request_retry",
            Kind::Duration,
            "until a request is repeated",
        ),
        timer(
            "raft_heartbeat",
            Kind::Duration,
            "between consensus heartbeats",
        ),
        timer("raft_election", Kind::Duration, "shortest election timeout"),
        timer(
            "snapshot_every",
            Kind::Integer(1, 1_000_000),
            "log entries between snapshots",
        ),
        timer("reconcile", Kind::Duration, "between full reconcile passes"),
        timer(
            "status_poll",
            Kind::Duration,
            "between listings of an agent's containers",
        ),
        timer(
            "runtime_timeout",
            Kind::Duration,
            "longest wait for a runtime call",
        ),
        timer("pull_timeout", Kind::Duration, "longest wait for a pull"),
        timer(
            "pull_backoff",
            Kind::Record(&BACKOFF),
            "between attempts to pull",
        ),
        timer(
            "pull_attempts_max",
            Kind::Either(&[COUNT, Kind::Choice(&["unlimited"])]),
            "attempts to pull before the task fails",
        ),
        timer(
            "replace_backoff",
            Kind::Record(&BACKOFF),
            "before a failed task is replaced",
        ),
        timer("history_max", ZERO_UP, "finished tasks kept for each slot"),
    ],
};

const fn timer(name: &'static str, kind: Kind, meaning: &'static str) -> Field {
    optional(name, kind, "the profile's", meaning)
}

static BACKOFF: Shape = Shape {
    name: "backoff",
    meaning: "a wait that doubles each time",
    fields: &[
        optional("base", Kind::Duration, "the profile's", "first wait"),
        optional("cap", Kind::Duration, "the profile's", "longest wait"),
    ],
};

static IMAGE: Shape = Shape {
    name: "image",
    meaning: "how a container of this image behaves",
    fields: &[
        optional(
            "run",
            Kind::Choice(&["forever"]),
            "forever",
            "it runs until it is stopped",
        ),
        optional(
            "run_for",
            Kind::Either(&[Kind::Choice(&["forever"]), Kind::Range]),
            "forever",
            "it ends by itself after this long",
        ),
        optional("exit_code", Kind::Integer(0, 255), "0", "how it then ends"),
        optional(
            "stop",
            Kind::Record(&STOP),
            "",
            "what it does when asked to end",
        ),
        optional(
            "health",
            Kind::Either(&[Kind::Choice(&["ok", "never"]), Kind::Record(&HEALTHY_AFTER)]),
            "ok",
            "what its probe says",
        ),
        optional(
            "pull",
            Kind::Record(&PULL),
            "",
            "how the registry serves it",
        ),
        optional(
            "memory",
            Kind::Size,
            "32MiB",
            "memory it uses; above its limit it is killed",
        ),
    ],
};

static STOP: Shape = Shape {
    name: "stop",
    meaning: "what a process does on SIGTERM",
    fields: &[
        optional(
            "on_term",
            Kind::Choice(&["exits", "ignores"]),
            "exits",
            "what it does",
        ),
        optional(
            "after",
            Kind::Duration,
            "100ms",
            "how long it takes to exit",
        ),
        optional("code", Kind::Integer(0, 255), "143", "how it then exits"),
    ],
};

static HEALTHY_AFTER: Shape = Shape {
    name: "health",
    meaning: "a probe that becomes healthy",
    fields: &[required("after", Kind::Duration, "unhealthy until then")],
};

static PULL: Shape = Shape {
    name: "pull",
    meaning: "how the registry serves an image",
    fields: &[
        optional("size", Kind::Size, "16MiB", "bytes to fetch"),
        optional("exists", Kind::Bool, "true", "whether the registry has it"),
    ],
};

/// A step of the workload.
pub(crate) const STEP: Kind = Kind::Verb(&[required("at", Kind::Duration, "when")], VERBS);

/// What an operator can do.
pub(crate) static VERBS: &[Shape] = &[
    Shape {
        name: "deploy",
        meaning: "create a service, or update it",
        fields: &DEPLOY,
    },
    Shape {
        name: "scale",
        meaning: "change the number of tasks",
        fields: &[
            required("scale", Kind::Name, "which service"),
            required("replicas", ZERO_UP, "the new number"),
        ],
    },
    Shape {
        name: "rollback",
        meaning: "go back to the last completed generation",
        fields: &[required("rollback", Kind::Name, "which service")],
    },
    Shape {
        name: "stop",
        meaning: "stop all tasks, keep the service",
        fields: &[required("stop", Kind::Name, "which service")],
    },
    Shape {
        name: "start",
        meaning: "undo `stop`",
        fields: &[required("start", Kind::Name, "which service")],
    },
    Shape {
        name: "delete",
        meaning: "stop and forget all tasks, then the service",
        fields: &[required("delete", Kind::Name, "which service")],
    },
    Shape {
        name: "drain",
        meaning: "move a node's tasks away",
        fields: &[required("drain", Kind::Node, "which node")],
    },
    Shape {
        name: "activate",
        meaning: "give a node tasks again",
        fields: &[required("activate", Kind::Node, "which node")],
    },
    Shape {
        name: "pause-node",
        meaning: "give a node no more tasks",
        fields: &[required("pause-node", Kind::Node, "which node")],
    },
    Shape {
        name: "remove-manager",
        meaning: "put a manager out of the consensus group for good",
        fields: &[required("remove-manager", Kind::Node, "which manager")],
    },
    Shape {
        name: "put",
        meaning: "write a key of the store",
        fields: &[
            required("put", Kind::Name, "which key"),
            required("value", Kind::Text, "its new value"),
        ],
    },
    Shape {
        name: "get",
        meaning: "read a key of the store",
        fields: &[required("get", Kind::Name, "which key")],
    },
];

static DEPLOY: [Field; 17] = [
    required("deploy", Kind::Name, "the service's name"),
    optional(
        "image",
        Kind::Name,
        "",
        "what to run; needed the first time",
    ),
    optional("replicas", ZERO_UP, "1", "this many tasks, kept running"),
    optional(
        "global",
        Kind::Bool,
        "false",
        "one task on every eligible agent",
    ),
    optional(
        "completions",
        COUNT,
        "",
        "this many tasks, each run to completion",
    ),
    optional(
        "command",
        Kind::OneOrMany(&Kind::Text),
        "the image's",
        "arguments",
    ),
    optional(
        "environment",
        Kind::Map(&Kind::Text),
        "none",
        "added to the image's",
    ),
    optional(
        "resources",
        Kind::Record(&RESOURCES),
        "none",
        "what each task needs",
    ),
    optional(
        "constraints",
        Kind::Map(&Kind::Text),
        "none",
        "labels that a node must have",
    ),
    optional(
        "spread",
        Kind::Name,
        "none",
        "node label over whose values tasks are spread",
    ),
    optional(
        "ports",
        Kind::OneOrMany(&Kind::Integer(1, 65_535)),
        "none",
        "host ports",
    ),
    optional("volume", Kind::Name, "none", "a volume with one writer"),
    optional(
        "restart",
        Kind::Either(&[Kind::Choice(RESTART_CONDITIONS), Kind::Record(&RESTART)]),
        "the profile's",
        "when an ended task runs again",
    ),
    optional(
        "health",
        Kind::Either(&[Kind::Bool, Kind::Record(&HEALTH)]),
        "false",
        "a health probe; `true` for the profile's",
    ),
    optional(
        "stop_grace",
        Kind::Duration,
        "the profile's",
        "from SIGTERM to SIGKILL",
    ),
    optional(
        "update",
        Kind::Record(&UPDATE),
        "the profile's",
        "how updates roll out",
    ),
    optional(
        "election",
        Kind::Record(&ELECTION),
        "none",
        "tasks elect one of themselves",
    ),
];

/// Restart conditions, as `wavetank_model::RestartCondition` spells them.
pub(crate) const RESTART_CONDITIONS: &[&str] = &["never", "on-failure", "always"];

static RESOURCES: Shape = Shape {
    name: "resources",
    meaning: "what a task needs",
    fields: &[
        optional("cpus", Kind::Cpus, "0", "cores"),
        optional("memory", Kind::Size, "0", "memory; a hard limit"),
    ],
};

static RESTART: Shape = Shape {
    name: "restart",
    meaning: "restart rules",
    fields: &[
        optional(
            "condition",
            Kind::Choice(RESTART_CONDITIONS),
            "the profile's",
            "after what",
        ),
        optional(
            "max",
            ZERO_UP,
            "the profile's",
            "restarts without a stable run",
        ),
        optional(
            "backoff",
            Kind::Record(&BACKOFF),
            "the profile's",
            "before each restart",
        ),
        optional(
            "stable_after",
            Kind::Duration,
            "the profile's",
            "a run that resets the count",
        ),
    ],
};

static HEALTH: Shape = Shape {
    name: "health",
    meaning: "a health probe",
    fields: &[
        optional(
            "command",
            Kind::OneOrMany(&Kind::Text),
            "none",
            "run in the container; 0 is healthy",
        ),
        optional(
            "interval",
            Kind::Duration,
            "the profile's",
            "between probes",
        ),
        optional(
            "timeout",
            Kind::Duration,
            "the profile's",
            "longest a probe may take",
        ),
        optional(
            "start_period",
            Kind::Duration,
            "the profile's",
            "failures do not count yet",
        ),
        optional(
            "failures",
            COUNT,
            "the profile's",
            "unhealthy verdicts in a row that fail it",
        ),
    ],
};

static UPDATE: Shape = Shape {
    name: "update",
    meaning: "rollout rules",
    fields: &[
        optional(
            "surge",
            ZERO_UP,
            "the profile's",
            "tasks above the wanted number",
        ),
        optional(
            "unavailable",
            ZERO_UP,
            "the profile's",
            "tasks that may be missing",
        ),
        optional(
            "monitor",
            Kind::Duration,
            "the profile's",
            "ready for this long is available",
        ),
        optional(
            "failures",
            ZERO_UP,
            "the profile's",
            "new tasks that may fail",
        ),
        optional(
            "on_failure",
            Kind::Choice(&["rollback", "pause", "continue"]),
            "the profile's",
            "what happens then",
        ),
    ],
};

static ELECTION: Shape = Shape {
    name: "election",
    meaning: "leader election among a service's tasks",
    fields: &[
        optional(
            "lease",
            Kind::Name,
            "the service's name",
            "what they compete for",
        ),
        optional(
            "backend",
            Kind::Choice(&["managers", "lock-file"]),
            "managers",
            "where the lock lives",
        ),
        optional(
            "volume",
            Kind::Name,
            "the service's",
            "the volume of the lock file",
        ),
        optional("ttl", Kind::Duration, "15s", "how long a grant lasts"),
        optional("renew", Kind::Duration, "5s", "between renewals"),
    ],
};

/// One fault. `args` depend on the action; `faults::CATALOGUE` has them.
pub(crate) static FAULT: Shape = Shape {
    name: "fault",
    meaning: "something that goes wrong",
    fields: &[
        optional(
            "name",
            Kind::Name,
            "the action",
            "what other faults and reports call it",
        ),
        required(
            "action",
            Kind::Text,
            "what happens; `wavetank faults` lists them",
        ),
        optional("args", Kind::Arguments, "the action's", "how"),
        optional("target", Kind::Record(&TARGET), "", "where"),
        optional("at", Kind::Range, "", "when; a range is drawn from"),
        optional(
            "every",
            Kind::Duration,
            "",
            "again and again; the first time at `at`",
        ),
        optional(
            "jitter",
            Kind::Duration,
            "0s",
            "each time is drawn this much later",
        ),
        optional(
            "until",
            Kind::Duration,
            "the horizon",
            "no more after that; with `every`",
        ),
        optional(
            "times",
            Kind::Integer(1, 10_000),
            "",
            "how often; with `every` or `on`",
        ),
        optional("after", Kind::Name, "", "when that fault has fired"),
        optional("on", Kind::Record(&ON), "", "when an event happens"),
        optional("delay", Kind::Duration, "0s", "so much later; with `after`"),
        optional(
            "for",
            Kind::Range,
            "to the end of the fault phase",
            "how long",
        ),
        optional(
            "heal",
            Kind::Choice(&["auto", "never"]),
            "auto",
            "whether it ever ends",
        ),
        optional(
            "optional",
            Kind::Bool,
            "false",
            "it need not fire for a conclusive run",
        ),
    ],
};

static TARGET: Shape = Shape {
    name: "target",
    meaning: "where a fault strikes",
    fields: &[
        optional("role", Kind::Choice(ROLES), "", "what it strikes"),
        optional(
            "mode",
            Kind::Choice(&[
                "one",
                "all",
                "fixed",
                "fixed-percent",
                "random",
                "minority",
                "majority",
            ]),
            "all",
            "how many of them",
        ),
        optional(
            "value",
            COUNT,
            "",
            "the number for `fixed`, `fixed-percent` and `random`",
        ),
        optional("node", Kind::OneOrMany(&Kind::Node), "", "these nodes"),
        optional(
            "labels",
            Kind::Map(&Kind::Text),
            "",
            "agents that have these labels",
        ),
        optional(
            "service",
            Kind::Name,
            "any",
            "tasks of this service; with `role: task` or `task-node`",
        ),
        optional("image", Kind::OneOrMany(&Kind::Name), "all", "these images"),
    ],
};

static ON: Shape = Shape {
    name: "on",
    meaning: "the event that sets a fault off",
    fields: &[
        required("event", Kind::Text, "which event"),
        optional("where", Kind::Expression, "any", "over the event's fields"),
        optional("occurrence", COUNT, "1", "the n-th that matches"),
        optional(
            "point",
            Kind::Choice(&["before", "after"]),
            "after",
            "before or after it takes effect",
        ),
        optional(
            "delay",
            Kind::Duration,
            "0s",
            "so much later; with `point: after`",
        ),
    ],
};

static SWARM: Shape = Shape {
    name: "swarm",
    meaning: "more faults, a random subset of actions and rate for each seed",
    fields: &[
        required(
            "actions",
            Kind::OneOrMany(&Kind::Text),
            "actions to choose from",
        ),
        optional("rate", Kind::Rate, "2/min", "how many at most, on average"),
        optional("for", Kind::Range, "1s..20s", "how long each lasts"),
    ],
};

static EXPECT: Shape = Shape {
    name: "expect",
    meaning: "what must hold",
    fields: &[
        optional(
            "invariants",
            Kind::Either(&[
                Kind::Choice(&["all"]),
                Kind::List(&Kind::Text),
                Kind::Record(&INVARIANTS),
            ]),
            "all",
            "the checkers that judge the run",
        ),
        optional(
            "eventually",
            Kind::List(&Kind::Record(&EVENTUALLY)),
            "none",
            "true in the end",
        ),
        optional(
            "never",
            Kind::OneOrMany(&Kind::Expression),
            "none",
            "true at no time",
        ),
        optional(
            "fails",
            Kind::OneOrMany(&Kind::Text),
            "none",
            "checkers that must object",
        ),
    ],
};

static INVARIANTS: Shape = Shape {
    name: "invariants",
    meaning: "all checkers but some",
    fields: &[required(
        "except",
        Kind::List(&Kind::Record(&EXCEPTION)),
        "which, and why",
    )],
};

static EXCEPTION: Shape = Shape {
    name: "exception",
    meaning: "a checker that does not judge",
    fields: &[
        required("name", Kind::Text, "which checker"),
        required("reason", Kind::Text, "why not"),
    ],
};

static EVENTUALLY: Shape = Shape {
    name: "eventually",
    meaning: "what is true in the end",
    fields: &[
        required("check", Kind::Expression, "what must become and stay true"),
        optional(
            "within",
            Kind::Duration,
            "the settle time",
            "after everything healed",
        ),
    ],
};
