//! What expressions see of the cluster: plain values, rebuilt when the store has changed.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use wavetank_model::{Availability, Change, NodeId, NodeStatus, ServiceMode, TaskId, TaskState};
use wavetank_trace::view;

use crate::model::{Model, ServiceRecord, TaskRecord};

/// The values that expressions see.
pub(super) struct Context {
    values: Value,
}

impl Default for Context {
    fn default() -> Self {
        Context {
            values: json!({
                "services": {}, "tasks": [], "nodes": {}, "leases": {},
                "task": null, "node": null, "event": null,
            }),
        }
    }
}

impl Context {
    /// The values.
    pub(super) fn values(&self) -> &Value {
        &self.values
    }

    /// Takes over what the store has become.
    pub(super) fn refresh(&mut self, model: &Model) {
        let services: Map<String, Value> = model
            .store
            .services
            .iter()
            .map(|(name, service)| (name.to_string(), service_value(model, service)))
            .collect();
        let tasks: Vec<Value> = model
            .store
            .tasks
            .iter()
            .map(|(id, task)| task_value(*id, task))
            .collect();
        let nodes = model.store.nodes.iter().map(|(id, node)| {
            (
                id.to_string(),
                node_value(*id, node.status, node.availability),
            )
        });
        let leases: Map<String, Value> = model
            .store
            .leases
            .iter()
            .map(|(name, (holder, token))| {
                (
                    name.to_string(),
                    json!({ "holder": holder, "token": token }),
                )
            })
            .collect();
        self.set("services", Value::Object(services));
        self.set("tasks", Value::Array(tasks));
        self.set("nodes", Value::Object(nodes.collect()));
        self.set("leases", Value::Object(leases));
    }

    /// Sets one name.
    pub(super) fn set(&mut self, name: &str, value: Value) {
        if let Value::Object(values) = &mut self.values {
            values.insert(name.to_owned(), value);
        }
    }

    /// Takes one name's value away.
    pub(super) fn clear(&mut self, name: &str) {
        self.set(name, Value::Null);
    }
}

/// A written task.
pub(super) fn task_fields(change: &Change) -> Value {
    let mut fields = view::change_fields(change, None);
    for (ours, theirs) in [("id", "task"), ("state", "to")] {
        let value = fields.get(theirs).cloned().unwrap_or(Value::Null);
        fields.insert(ours.to_owned(), value);
    }
    Value::Object(fields)
}

/// A written node.
pub(super) fn node_fields(change: &Change) -> Value {
    match change {
        Change::Node {
            node,
            status,
            availability,
        } => node_value(*node, *status, *availability),
        _ => Value::Null,
    }
}

/// An event with its name.
pub(super) fn event_value(name: &str, mut fields: Map<String, Value>) -> Value {
    fields.insert("name".to_owned(), Value::from(name));
    Value::Object(fields)
}

fn node_value(node: NodeId, status: NodeStatus, availability: Availability) -> Value {
    json!({ "name": node, "status": status, "availability": availability })
}

fn task_value(id: TaskId, task: &TaskRecord) -> Value {
    let exit_code = task.status.exit.and_then(|exit| match exit.code {
        wavetank_port::ExitCode::Known(code) => Some(code),
        wavetank_port::ExitCode::Unknown => None,
    });
    json!({
        "id": id,
        "service": task.service,
        "slot": task.slot,
        "generation": task.generation,
        "node": task.node,
        "desired": task.desired,
        "state": task.status.state,
        "attempt": task.status.attempt,
        "ready": task.status.ready,
        "reason": task.status.reason,
        "exit_code": exit_code,
    })
}

/// A service with its counts. Finished tasks are counted by slot, the newest task of each: a
/// replaced failure is history, and history is cut short at different times.
fn service_value(model: &Model, service: &ServiceRecord) -> Value {
    let tasks: Vec<&TaskRecord> = model
        .store
        .tasks_of(&service.spec.name)
        .map(|(_, task)| task)
        .collect();
    let newest: BTreeMap<u32, &TaskRecord> = tasks.iter().map(|task| (task.slot, *task)).collect();
    let slots = |wanted: &dyn Fn(TaskState) -> bool| {
        newest
            .values()
            .filter(|task| wanted(task.status.state))
            .count()
    };
    let counts = |wanted: &dyn Fn(&TaskRecord) -> bool| {
        tasks
            .iter()
            .filter(|task| task.is_wanted() && wanted(task))
            .count()
    };
    let eligible = model.store.nodes.values().filter(|node| {
        node.status == NodeStatus::Ready && node.availability == Availability::Active
    });
    let replicas = match service.spec.mode {
        ServiceMode::Replicated { replicas } => replicas as usize,
        ServiceMode::Job { completions } => completions as usize,
        ServiceMode::Global => eligible.count(),
    };
    json!({
        "replicas": replicas,
        "running": counts(&|task| task.status.state == TaskState::Running),
        "ready": counts(&TaskRecord::is_ready),
        "pending": counts(&|task| task.status.state != TaskState::Running),
        "failed": slots(&|state| matches!(state, TaskState::Failed | TaskState::Rejected)),
        "complete": slots(&|state| state == TaskState::Complete),
        "shutdown": slots(&|state| state == TaskState::Shutdown),
        "lost": slots(&|state| state == TaskState::Lost),
        "terminal": slots(&TaskState::is_terminal),
        "generation": service.generation,
        "rollout": service.rollout,
        "stopped": service.stopped,
    })
}
