//! Where a task of a spec would fit now, by the store and by what the plan says of the nodes.

use wavetank_model::{Availability, NodeId, NodeStatus, ServiceSpec};
use wavetank_scenario::plan::AgentHost;

use crate::model::Model;
use crate::model::store::NodeRecord;

fn agent(model: &Model, node: NodeId) -> Option<&AgentHost> {
    let index = usize::try_from(node.number).ok()?.checked_sub(1)?;
    model.plan.cluster.agents.get(index)
}

/// May the node be given tasks of this spec, whether it has room or not?
pub(super) fn is_eligible(
    model: &Model,
    spec: &ServiceSpec,
    node: NodeId,
    record: &NodeRecord,
) -> bool {
    let takes = record.status == NodeStatus::Ready && record.availability == Availability::Active;
    let labels = agent(model, node).is_some_and(|host| {
        spec.constraints
            .iter()
            .all(|(key, value)| host.labels.get(key) == Some(value))
    });
    takes && labels
}

/// Has an eligible node memory and ports left for one more task?
pub(super) fn has_room(model: &Model, spec: &ServiceSpec, node: NodeId) -> bool {
    let Some(host) = agent(model, node) else {
        return false;
    };
    let mut memory = spec.resources.memory_bytes;
    let mut cpu = u64::from(spec.resources.cpu_millis);
    for (_, task) in model.store.live_tasks_on(node) {
        let Some(other) = model.store.spec_of(task) else {
            continue;
        };
        memory += other.resources.memory_bytes;
        cpu += u64::from(other.resources.cpu_millis);
        if other.ports.iter().any(|port| spec.ports.contains(port)) {
            return false;
        }
    }
    memory <= host.resources.memory_bytes && cpu <= u64::from(host.resources.cpu_millis)
}

/// No node can take a task of this spec. A volume ties it to a node that is not known here.
pub(super) fn fits_nowhere(model: &Model, spec: &ServiceSpec) -> bool {
    let nodes = model.store.nodes.iter();
    let fits = |(node, record): (&NodeId, &NodeRecord)| {
        is_eligible(model, spec, *node, record) && has_room(model, spec, *node)
    };
    let volumes_node = spec.volume.is_some()
        && model
            .store
            .tasks
            .values()
            .any(|task| task.service == spec.name && task.node.is_some());
    volumes_node || !nodes.into_iter().any(fits)
}
