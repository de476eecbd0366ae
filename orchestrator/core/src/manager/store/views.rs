//! What clients are shown of the store.

use wavetank_model::{AgentView, NodeId, Outcome, ServiceName, ServiceView, TaskView};

use super::{ServiceRecord, Store, TaskRecord};

/// One service with its tasks.
pub(super) fn service(store: &Store, name: &ServiceName) -> Option<ServiceView> {
    store.service(name).map(|record| view(store, name, record))
}

/// All services with their tasks.
pub(super) fn services(store: &Store) -> Vec<ServiceView> {
    store
        .services()
        .iter()
        .map(|(name, record)| view(store, name, record))
        .collect()
}

fn view(store: &Store, name: &ServiceName, service: &ServiceRecord) -> ServiceView {
    ServiceView {
        spec: service.spec.clone(),
        generation: service.generation,
        rollout: service.rollout,
        stopped: service.stopped,
        deleting: service.deleting,
        tasks: store.tasks_of(name).map(task).collect(),
    }
}

fn task(task: &TaskRecord) -> TaskView {
    TaskView {
        task: task.id,
        slot: task.slot,
        generation: task.generation,
        node: task.node,
        desired: task.desired,
        status: task.status.clone(),
    }
}

/// All managers and agents.
pub(super) fn nodes(store: &Store) -> Outcome {
    let mut managers: Vec<NodeId> = store.members().values().copied().collect();
    managers.sort_unstable();
    let agent = |(node, record): (&NodeId, &super::NodeRecord)| AgentView {
        node: *node,
        status: record.status,
        availability: record.availability,
        resources: record.resources,
        used: store.used(*node),
        labels: record.labels.clone(),
        tasks: u32::try_from(store.tasks_on_count(*node)).unwrap_or(u32::MAX),
    };
    Outcome::Nodes {
        managers,
        // Neither leadership nor votes are in the store.
        leader: None,
        joining: Vec::new(),
        agents: store.nodes().iter().map(agent).collect(),
    }
}
