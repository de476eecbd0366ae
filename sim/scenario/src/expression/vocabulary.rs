//! What expressions can speak of. One table for the type check, the values that stand in for what
//! is missing, and the documentation.

use wavetank_model::{Reason, TaskState};

use crate::faults;

/// The type of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldType {
    /// A whole number.
    Int,
    /// A text.
    Text,
    /// True or false.
    Bool,
}

impl FieldType {
    /// Its name in documentation.
    pub fn name(self) -> &'static str {
        match self {
            FieldType::Int => "int",
            FieldType::Text => "string",
            FieldType::Bool => "bool",
        }
    }

    /// The type of that name, as `wavetank_trace::view` spells it.
    pub(crate) fn named(name: &str) -> Self {
        match name {
            "int" => FieldType::Int,
            "bool" => FieldType::Bool,
            _ => FieldType::Text,
        }
    }
}

/// One field of a record.
#[derive(Clone, Copy, Debug)]
pub struct Fact {
    /// Its name.
    pub name: &'static str,
    /// Its type; fields of nodes, tasks and events may also be `null`.
    pub kind: FieldType,
    /// What it means.
    pub meaning: &'static str,
}

/// Something with fields.
#[derive(Debug)]
pub struct RecordType {
    /// What it is.
    pub name: &'static str,
    /// Its fields.
    pub fields: &'static [Fact],
    /// Whether what is missing is zero, false or empty instead of `null`.
    pub zeros: bool,
}

/// How a term is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A function of a name: `service("web")`.
    Lookup,
    /// A record: `task.state`.
    Record,
    /// A list of records: `tasks.exists(t, t.state == "lost")`.
    List,
    /// A mapping from names to records: `nodes["agent-1"].status`.
    Map,
}

/// One word of the vocabulary.
#[derive(Debug)]
pub struct Term {
    /// The word.
    pub name: &'static str,
    /// How it is used.
    pub form: Form,
    /// What it yields.
    pub record: &'static RecordType,
    /// True if only `never` knows it: it is about what has just happened.
    pub moment: bool,
    /// What it stands for.
    pub meaning: &'static str,
}

const fn int(name: &'static str, meaning: &'static str) -> Fact {
    Fact {
        name,
        kind: FieldType::Int,
        meaning,
    }
}

const fn text(name: &'static str, meaning: &'static str) -> Fact {
    Fact {
        name,
        kind: FieldType::Text,
        meaning,
    }
}

const fn flag(name: &'static str, meaning: &'static str) -> Fact {
    Fact {
        name,
        kind: FieldType::Bool,
        meaning,
    }
}

static SERVICE: RecordType = RecordType {
    name: "service",
    zeros: true,
    fields: &[
        int("replicas", "wanted number of tasks"),
        int("running", "tasks that run"),
        int("ready", "tasks that run and are healthy"),
        int("pending", "tasks on their way: wanted, but not running yet"),
        int("failed", "tasks that failed or were rejected for good"),
        int("complete", "tasks that ended with exit code zero"),
        int("shutdown", "tasks that were stopped"),
        int("lost", "tasks whose node was declared down"),
        int("terminal", "tasks that ended for good, however"),
        int("generation", "version of the spec"),
        text("rollout", "where the rollout is: completed, updating, ..."),
        flag("stopped", "stopped by an operator"),
    ],
};

static NODE: RecordType = RecordType {
    name: "node",
    zeros: false,
    fields: &[
        text("name", "the node"),
        text("status", "ready or down"),
        text("availability", "active, pause or drain"),
    ],
};

static LEASE: RecordType = RecordType {
    name: "lease",
    zeros: true,
    fields: &[
        text("holder", "the instance that holds it; empty if nobody does"),
        int("token", "the newest fencing token"),
    ],
};

static TASK: RecordType = RecordType {
    name: "task",
    zeros: false,
    fields: &[
        text("id", "the task"),
        text("service", "its service"),
        int("slot", "which of the service's places it fills"),
        text("node", "where it is"),
        text("state", "where it is in its life"),
        int("attempt", "which attempt"),
        int(
            "exit_code",
            "how the last attempt ended; null if it has not or nobody knows",
        ),
        text("reason", "why it failed or waits"),
        flag("ready", "runs and is healthy"),
        int("generation", "version of the spec that it runs"),
        text("desired", "what the managers want of it"),
    ],
};

/// Any event: the fields of all kinds; those that its kind lacks are null.
pub(crate) static EVENT: RecordType = RecordType {
    name: "event",
    zeros: false,
    fields: &[
        text("name", "which event, such as task.state"),
        text("host", "where it happened"),
        text("task", "the task"),
        text("service", "the service"),
        int("slot", "the slot"),
        text("node", "the node"),
        text("from", "state before"),
        text("to", "state after"),
        text("desired", "what the managers want"),
        int("attempt", "the attempt"),
        flag("ready", "runs and is healthy"),
        text("reason", "why"),
        int("exit_code", "how a process ended"),
        text("because", "why a process ended, in truth"),
        text("status", "a node's status"),
        text("availability", "a node's availability"),
        int("generation", "a service's version"),
        text("rollout", "a service's rollout"),
        flag("stopped", "a service was stopped"),
        flag("deleting", "a service is being deleted"),
        text("lease", "the lease"),
        text("holder", "a lease's holder"),
        int("token", "a lease's fencing token"),
        text("instance", "the instance"),
        int("epoch", "a leader's epoch"),
        text("manager", "the manager"),
        text("image", "the image"),
        int("failures", "failed pulls"),
        text("class", "an error's class"),
        text("container", "the container"),
        text("call", "a runtime's verb"),
        text("error", "a runtime's error class; null if it succeeded"),
        text("operation", "what a client asked"),
        flag("ok", "whether a client's request succeeded"),
        text("how", "how a process stopped"),
        text("fault", "the fault"),
        text("action", "the fault's action"),
    ],
};

/// Every word that `eventually` and `never` know. `on.where` knows the fields of its event instead.
pub static VOCABULARY: &[Term] = &[
    Term {
        name: "service",
        form: Form::Lookup,
        record: &SERVICE,
        moment: false,
        meaning: "a service; all zeros if there is none",
    },
    Term {
        name: "node",
        form: Form::Lookup,
        record: &NODE,
        moment: false,
        meaning: "an agent as the managers know it",
    },
    Term {
        name: "lease",
        form: Form::Lookup,
        record: &LEASE,
        moment: false,
        meaning: "a lease",
    },
    Term {
        name: "services",
        form: Form::Map,
        record: &SERVICE,
        moment: false,
        meaning: "all services by name",
    },
    Term {
        name: "tasks",
        form: Form::List,
        record: &TASK,
        moment: false,
        meaning: "all tasks that the managers keep",
    },
    Term {
        name: "nodes",
        form: Form::Map,
        record: &NODE,
        moment: false,
        meaning: "all agents by name",
    },
    Term {
        name: "leases",
        form: Form::Map,
        record: &LEASE,
        moment: false,
        meaning: "all leases by name",
    },
    Term {
        name: "task",
        form: Form::Record,
        record: &TASK,
        moment: true,
        meaning: "the task that has just changed; its fields are null if none has",
    },
    Term {
        name: "node",
        form: Form::Record,
        record: &NODE,
        moment: true,
        meaning: "the agent that has just changed; its fields are null if none has",
    },
    Term {
        name: "event",
        form: Form::Record,
        record: &EVENT,
        moment: true,
        meaning: "what has just happened",
    },
];

/// A function that any expression can use.
#[derive(Debug)]
pub struct FunctionInfo {
    /// How it is written.
    pub usage: &'static str,
    /// Its name.
    pub name: &'static str,
    /// What it says.
    pub meaning: &'static str,
}

/// The part of CEL that scenario files use, beside operators and `in`.
pub static FUNCTIONS: &[FunctionInfo] = &[
    function("size", "size(tasks)", "how many there are; also of a text"),
    function("has", "has(task.node)", "the field is known"),
    function("exists", "tasks.exists(t, t.ready)", "true for one or more"),
    function(
        "exists_one",
        "tasks.exists_one(t, t.ready)",
        "true for exactly one",
    ),
    function("all", "tasks.all(t, t.ready)", "true for each"),
    function(
        "filter",
        "tasks.filter(t, t.ready)",
        "those for which it is true",
    ),
    function("map", "tasks.map(t, t.node)", "a list of results"),
    function(
        "contains",
        "task.node.contains(\"-1\")",
        "the text is in it",
    ),
    function(
        "startsWith",
        "task.id.startsWith(\"task-\")",
        "it starts with the text",
    ),
    function(
        "endsWith",
        "task.id.endsWith(\"1\")",
        "it ends with the text",
    ),
    function(
        "matches",
        "task.id.matches(\"^task-[0-9]$\")",
        "it matches the regular expression",
    ),
    function("int", "int(\"7\")", "the number that a text spells"),
    function("string", "string(7)", "the text of a number"),
];

const fn function(name: &'static str, usage: &'static str, meaning: &'static str) -> FunctionInfo {
    FunctionInfo {
        usage,
        name,
        meaning,
    }
}

/// All values that a text field can have, where they are known.
pub(crate) fn values_of(record: &str, field: &str) -> Option<Vec<&'static str>> {
    Some(match (record, field) {
        (_, "from" | "to" | "state") => TaskState::ALL.map(TaskState::name).to_vec(),
        (_, "reason") => REASONS.iter().map(|reason| reason.name()).collect(),
        (_, "desired") => vec!["running", "shutdown", "removed"],
        (_, "status") => vec!["ready", "down"],
        (_, "availability") => vec!["active", "pause", "drain"],
        (_, "rollout") => {
            vec![
                "updating",
                "completed",
                "paused",
                "rolling-back",
                "rolled-back",
            ]
        }
        (_, "class" | "error") => faults::CLASSES.to_vec(),
        (_, "call") => faults::CALLS.to_vec(),
        (_, "how") => {
            vec![
                "exited",
                "killed",
                "power-lost",
                "wiped",
                "paused",
                "crashed",
            ]
        }
        (_, "because") => {
            vec![
                "itself",
                "terminated",
                "killed",
                "out-of-memory",
                "fault",
                "power-loss",
            ]
        }
        (_, "action") => faults::names().collect(),
        ("event", "name") => wavetank_trace::view::EVENT_KINDS
            .iter()
            .map(|kind| kind.name)
            .collect(),
        _ => return None,
    })
}

const REASONS: [Reason; 19] = [
    Reason::ImagePullFailed,
    Reason::RootfsBuildFailed,
    Reason::RuntimeStartFailed,
    Reason::NetworkSetupFailed,
    Reason::VolumeAttachFailed,
    Reason::SecretsMissing,
    Reason::SecretsInjectionFailed,
    Reason::HealthcheckFailed,
    Reason::OomKilled,
    Reason::CrashLoopBackoff,
    Reason::TerminatedByOperator,
    Reason::NodeDraining,
    Reason::ExitedNonZero,
    Reason::ExitedEarly,
    Reason::ExitUnknown,
    Reason::ContainerLost,
    Reason::NodeDown,
    Reason::Unschedulable,
    Reason::Superseded,
];

#[cfg(test)]
mod tests {
    use super::*;
    use wavetank_trace::view::EVENT_KINDS;

    #[test]
    fn every_field_of_every_event_is_known() {
        for kind in EVENT_KINDS {
            for (field, of) in kind.fields {
                let fact = EVENT.fields.iter().find(|fact| fact.name == *field);
                assert_eq!(
                    fact.map(|fact| fact.kind.name()),
                    Some(*of),
                    "{}.{field}",
                    kind.name
                );
            }
        }
    }
}
