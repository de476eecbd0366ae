//! Events as triggers, expressions and people see them: a dotted name and flat fields.

use serde_json::{Map, Value, json};
use wavetank_model::{
    Change, ConsensusRole, InstanceId, NodeId, Notice, ServiceName, TaskId, TaskStatus,
};
use wavetank_port::ExitCode;

use crate::event::{Event, FaultState, HostState, Payload, Phase};

/// One event name with the fields it offers to `where` and `never` expressions.
pub struct EventKind {
    /// The dotted name that `on: { event: ... }` takes.
    pub name: &'static str,
    /// Fields with their types, for documentation and for type checks: `string`, `int`, `bool`.
    pub fields: &'static [(&'static str, &'static str)],
    /// What it means.
    pub meaning: &'static str,
}

const TASK_FIELDS: &[(&str, &str)] = &[
    ("task", "string"),
    ("service", "string"),
    ("from", "string"),
    ("to", "string"),
    ("attempt", "int"),
    ("ready", "bool"),
    ("reason", "string"),
    ("exit_code", "int"),
    ("host", "string"),
];
const CONTAINER_FIELDS: &[(&str, &str)] = &[
    ("container", "string"),
    ("task", "string"),
    ("attempt", "int"),
    ("host", "string"),
];

/// Every event that a scenario can name.
pub const EVENT_KINDS: &[EventKind] = &[
    EventKind {
        name: "task.state",
        fields: TASK_FIELDS,
        meaning: "an agent moved a task of its own",
    },
    EventKind {
        name: "store.task",
        fields: &[
            ("task", "string"),
            ("service", "string"),
            ("slot", "int"),
            ("generation", "int"),
            ("node", "string"),
            ("desired", "string"),
            ("from", "string"),
            ("to", "string"),
            ("attempt", "int"),
            ("ready", "bool"),
            ("reason", "string"),
            ("exit_code", "int"),
            ("host", "string"),
        ],
        meaning: "the managers committed a change of a task",
    },
    EventKind {
        name: "store.node",
        fields: &[
            ("node", "string"),
            ("status", "string"),
            ("availability", "string"),
            ("host", "string"),
        ],
        meaning: "the managers committed a change of a node",
    },
    EventKind {
        name: "store.service",
        fields: &[
            ("service", "string"),
            ("generation", "int"),
            ("rollout", "string"),
            ("stopped", "bool"),
            ("deleting", "bool"),
            ("host", "string"),
        ],
        meaning: "the managers committed a change of a service",
    },
    EventKind {
        name: "store.lease",
        fields: &[
            ("lease", "string"),
            ("holder", "string"),
            ("token", "int"),
            ("host", "string"),
        ],
        meaning: "a lease changed hands",
    },
    EventKind {
        name: "leader.elected",
        fields: &[("epoch", "int"), ("host", "string")],
        meaning: "a manager became leader",
    },
    EventKind {
        name: "session.opened",
        fields: &[("manager", "string"), ("epoch", "int"), ("host", "string")],
        meaning: "a leader accepted an agent",
    },
    EventKind {
        name: "lease.won",
        fields: &[
            ("lease", "string"),
            ("instance", "string"),
            ("host", "string"),
        ],
        meaning: "an instance became the holder of a lease, as it believes",
    },
    EventKind {
        name: "image.pull-delayed",
        fields: &[
            ("image", "string"),
            ("failures", "int"),
            ("class", "string"),
            ("host", "string"),
        ],
        meaning: "an agent waits before it pulls again",
    },
    EventKind {
        name: "task.stop-requested",
        fields: &[
            ("task", "string"),
            ("attempt", "int"),
            ("reason", "string"),
            ("host", "string"),
        ],
        meaning: "an agent begins to stop an instance",
    },
    EventKind {
        name: "container.created",
        fields: CONTAINER_FIELDS,
        meaning: "a runtime made a container",
    },
    EventKind {
        name: "container.started",
        fields: CONTAINER_FIELDS,
        meaning: "a container's process runs",
    },
    EventKind {
        name: "container.exited",
        fields: &[
            ("container", "string"),
            ("task", "string"),
            ("attempt", "int"),
            ("exit_code", "int"),
            ("because", "string"),
            ("host", "string"),
        ],
        meaning: "a container's process ended, in truth",
    },
    EventKind {
        name: "container.deleted",
        fields: CONTAINER_FIELDS,
        meaning: "a runtime removed a container",
    },
    EventKind {
        name: "runtime.called",
        fields: &[
            ("call", "string"),
            ("container", "string"),
            ("image", "string"),
            ("host", "string"),
        ],
        meaning: "an agent asked its runtime",
    },
    EventKind {
        name: "runtime.answered",
        fields: &[
            ("call", "string"),
            ("container", "string"),
            ("error", "string"),
            ("host", "string"),
        ],
        meaning: "a runtime answered its agent",
    },
    EventKind {
        name: "client.invoked",
        fields: &[("operation", "string"), ("host", "string")],
        meaning: "a client asked the managers",
    },
    EventKind {
        name: "client.returned",
        fields: &[("ok", "bool"), ("host", "string")],
        meaning: "a client was answered",
    },
    EventKind {
        name: "host.started",
        fields: &[("host", "string")],
        meaning: "a process started",
    },
    EventKind {
        name: "host.lost",
        fields: &[("how", "string"), ("host", "string")],
        meaning: "a process or machine stopped: exited, killed, power-lost, wiped, paused, crashed",
    },
    EventKind {
        name: "fault.fired",
        fields: &[("fault", "string"), ("action", "string")],
        meaning: "a fault came into force",
    },
    EventKind {
        name: "fault.healed",
        fields: &[("fault", "string"), ("action", "string")],
        meaning: "a fault is over",
    },
    EventKind {
        name: "phase.settle",
        fields: &[],
        meaning: "everything was healed",
    },
];

/// The dotted name of an event, if scenarios can name it. Changes inside `Notice::Applied` are
/// named one by one: see [`change_name`].
pub fn event_name(payload: &Payload) -> Option<&'static str> {
    Some(match payload {
        Payload::Phase {
            phase: Phase::Settle,
        } => "phase.settle",
        Payload::Fault {
            state: FaultState::Fired,
            ..
        } => "fault.fired",
        Payload::Fault {
            state: FaultState::Healed,
            ..
        } => "fault.healed",
        Payload::Host {
            state: HostState::Started,
            ..
        } => "host.started",
        Payload::Host {
            state: HostState::Resumed,
            ..
        } => return None,
        Payload::Host { .. } => "host.lost",
        Payload::RuntimeCalled { .. } => "runtime.called",
        Payload::RuntimeAnswered { .. } => "runtime.answered",
        Payload::ContainerCreated { .. } => "container.created",
        Payload::ContainerStarted { .. } => "container.started",
        Payload::ContainerExited { .. } => "container.exited",
        Payload::ContainerDeleted { .. } => "container.deleted",
        Payload::ClientInvoked { .. } => "client.invoked",
        Payload::ClientReturned { .. } => "client.returned",
        Payload::Notice { notice } => return notice_name(notice),
        _ => return None,
    })
}

fn notice_name(notice: &Notice) -> Option<&'static str> {
    Some(match notice {
        Notice::RoleChanged {
            role: ConsensusRole::Leader,
            ..
        } => "leader.elected",
        Notice::TaskMoved { .. } => "task.state",
        Notice::SessionOpened { .. } => "session.opened",
        Notice::LeaseWon { .. } => "lease.won",
        Notice::PullDelayed { .. } => "image.pull-delayed",
        Notice::StopRequested { .. } => "task.stop-requested",
        _ => return None,
    })
}

/// The dotted name of one change of the store, if scenarios can name it.
pub fn change_name(change: &Change) -> Option<&'static str> {
    Some(match change {
        Change::Task { .. } => "store.task",
        Change::Node { .. } => "store.node",
        Change::Service { .. } => "store.service",
        Change::Lease { .. } => "store.lease",
        _ => return None,
    })
}

/// The fields of an event under the names of [`EVENT_KINDS`]. Absent values are `null`.
pub fn event_fields(event: &Event) -> Map<String, Value> {
    let mut fields = match &event.payload {
        Payload::Fault { name, action, .. } => object(json!({ "fault": name, "action": action })),
        Payload::Host { state, .. } => object(json!({ "how": state })),
        Payload::RuntimeCalled {
            call,
            container,
            image,
        } => object(json!({ "call": call, "container": container, "image": image })),
        Payload::RuntimeAnswered {
            call,
            container,
            error,
            ..
        } => object(json!({ "call": call, "container": container, "error": error })),
        Payload::ContainerCreated { container, .. }
        | Payload::ContainerStarted { container, .. }
        | Payload::ContainerDeleted { container } => container_fields(container),
        Payload::ContainerExited {
            container,
            exit,
            because,
        } => {
            let mut fields = container_fields(container);
            fields.insert("exit_code".into(), exit_code(Some(exit.code)));
            fields.insert("because".into(), json!(because));
            fields
        }
        Payload::ClientInvoked { operation, .. } => {
            object(json!({ "operation": operation.name() }))
        }
        Payload::ClientReturned { result, .. } => object(json!({ "ok": result.is_ok() })),
        Payload::Notice { notice } => notice_fields(notice),
        _ => Map::new(),
    };
    fields.insert("host".into(), json!(event.host));
    fields
}

fn notice_fields(notice: &Notice) -> Map<String, Value> {
    match notice {
        Notice::RoleChanged { epoch, .. } => object(json!({ "epoch": epoch })),
        Notice::TaskMoved {
            task,
            service,
            from,
            status,
        } => {
            let mut fields = task_fields(*task, service, status);
            fields.insert("from".into(), json!(from));
            fields
        }
        Notice::SessionOpened { manager, epoch, .. } => {
            object(json!({ "manager": manager, "epoch": epoch }))
        }
        Notice::LeaseWon {
            lease, instance, ..
        } => object(json!({ "lease": lease, "instance": instance })),
        Notice::PullDelayed {
            image,
            failures,
            class,
            ..
        } => object(json!({ "image": image, "failures": failures, "class": class })),
        Notice::StopRequested {
            instance, reason, ..
        } => {
            object(json!({ "task": instance.task, "attempt": instance.attempt, "reason": reason }))
        }
        _ => Map::new(),
    }
}

/// The fields of one change of the store, under the names of [`EVENT_KINDS`].
pub fn change_fields(change: &Change, host: Option<NodeId>) -> Map<String, Value> {
    let mut fields = match change {
        Change::Task {
            task,
            service,
            slot,
            generation,
            node,
            desired,
            from,
            status,
        } => {
            let mut fields = task_fields(*task, service, status);
            fields.insert("slot".into(), json!(slot));
            fields.insert("generation".into(), json!(generation));
            fields.insert("node".into(), json!(node));
            fields.insert("desired".into(), json!(desired));
            fields.insert("from".into(), json!(from));
            fields
        }
        Change::Node {
            node,
            status,
            availability,
        } => object(json!({ "node": node, "status": status, "availability": availability })),
        Change::Service {
            spec,
            generation,
            rollout,
            stopped,
            deleting,
        } => object(json!({
            "service": spec.name, "generation": generation, "rollout": rollout,
            "stopped": stopped, "deleting": deleting,
        })),
        Change::Lease {
            lease,
            holder,
            token,
        } => object(json!({ "lease": lease, "holder": holder, "token": token })),
        _ => Map::new(),
    };
    fields.insert("host".into(), json!(host));
    fields
}

fn task_fields(task: TaskId, service: &ServiceName, status: &TaskStatus) -> Map<String, Value> {
    object(json!({
        "task": task,
        "service": service,
        "to": status.state,
        "attempt": status.attempt,
        "ready": status.ready,
        "reason": status.reason,
        "exit_code": exit_code(status.exit.map(|exit| exit.code)),
    }))
}

fn container_fields(container: &wavetank_port::ContainerId) -> Map<String, Value> {
    let instance = InstanceId::of_container(container);
    object(json!({
        "container": container,
        "task": instance.map(|instance| instance.task),
        "attempt": instance.map(|instance| instance.attempt),
    }))
}

fn exit_code(code: Option<ExitCode>) -> Value {
    match code {
        Some(ExitCode::Known(code)) => json!(code),
        Some(ExitCode::Unknown) | None => Value::Null,
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
