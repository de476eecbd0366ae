//! What truly exists and runs on every node, whatever anybody says about it.

use std::collections::BTreeMap;

use wavetank_model::{InstanceId, NodeId, TaskId};
use wavetank_port::{ContainerId, ExitStatus, Signal};
use wavetank_trace::{Event, EventId, ExitCause, HostState, Payload, VirtualTime};

use super::store::StoreView;

/// Deleted containers that are remembered per task, so that late reports can be compared.
const GONE_KEPT_MAX: usize = 4;

/// How a process truly ended.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// When.
    pub at: VirtualTime,
    /// How.
    pub exit: ExitStatus,
    /// Why.
    pub because: ExitCause,
    /// The event that said so.
    pub event: EventId,
}

/// One container of one instance.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Where.
    pub host: NodeId,
    /// Whose.
    pub id: InstanceId,
    /// The node's agent asked for it; otherwise it came from nowhere.
    pub ordered: bool,
    /// When it was created.
    pub created_at: VirtualTime,
    /// The event of its newest change.
    pub event: EventId,
    /// Volumes it writes to.
    pub volumes: Vec<String>,
    /// When its process started.
    pub started_at: Option<VirtualTime>,
    /// How its process ended.
    pub end: Option<End>,
    /// The runtime cannot know how it ended.
    pub forgotten: bool,
    /// It is gone.
    pub deleted_at: Option<VirtualTime>,
    /// When its process was first asked to end: a stop call, or the signal itself.
    pub asked_at: Option<VirtualTime>,
    /// Since when its probe has truly been healthy, as far as the world said so.
    pub healthy_since: Option<VirtualTime>,
}

impl Instance {
    /// Its process runs.
    pub fn is_live(&self) -> bool {
        self.started_at.is_some() && self.end.is_none() && self.deleted_at.is_none()
    }

    /// It has not been deleted.
    pub fn exists(&self) -> bool {
        self.deleted_at.is_none()
    }
}

/// All containers.
#[derive(Debug, Default)]
pub struct Containers {
    instances: BTreeMap<TaskId, Vec<Instance>>,
    strangers: BTreeMap<(NodeId, ContainerId), VirtualTime>,
    ordered: BTreeMap<(NodeId, InstanceId), EventId>,
    present: BTreeMap<NodeId, u32>,
}

impl Containers {
    /// Takes in an event.
    pub fn observe(&mut self, event: &Event, store: &StoreView) {
        let Some(host) = event.host else { return };
        match &event.payload {
            Payload::RuntimeCalled {
                call,
                container: Some(container),
                ..
            } => {
                self.called(event, host, call, container);
            }
            Payload::ContainerCreated { container, volumes } => {
                self.created(event, host, container, volumes);
            }
            Payload::ContainerStarted { container, .. } => {
                let at = event.at;
                self.update(event, host, container, |instance| {
                    instance.started_at = Some(at);
                });
            }
            Payload::ContainerSignalled {
                container,
                signal: Signal::Terminate,
            } => {
                let at = event.at;
                self.update(event, host, container, |instance| {
                    instance.asked_at.get_or_insert(at);
                });
            }
            Payload::ContainerExited {
                container,
                exit,
                because,
            } => {
                let end = End {
                    at: event.at,
                    exit: *exit,
                    because: *because,
                    event: event.id,
                };
                self.update(event, host, container, |instance| instance.end = Some(end));
            }
            Payload::ContainerExitForgotten { container } => {
                self.update(event, host, container, |instance| instance.forgotten = true);
            }
            Payload::ContainerDeleted { container } => self.deleted(event, host, container, store),
            Payload::ContainerHealth { container, healthy } => {
                let since = healthy.then_some(event.at);
                self.update(event, host, container, |instance| {
                    instance.healthy_since = since;
                });
            }
            Payload::Host {
                state: HostState::PowerLost | HostState::Wiped,
                ..
            } => {
                self.ordered.retain(|(node, _), _| *node != host);
            }
            _ => {}
        }
    }

    /// All instances of a task that are remembered, oldest first.
    pub fn of_task(&self, task: TaskId) -> &[Instance] {
        self.instances.get(&task).map_or(&[], Vec::as_slice)
    }

    /// The newest container of an instance on a node.
    pub fn find(&self, host: NodeId, id: InstanceId) -> Option<&Instance> {
        self.of_task(id.task)
            .iter()
            .rev()
            .find(|found| found.host == host && found.id == id)
    }

    /// The instance that a container event is about.
    pub fn of_container(&self, host: NodeId, container: &ContainerId) -> Option<&Instance> {
        self.find(host, InstanceId::of_container(container)?)
    }

    /// Every instance that is remembered, by task.
    pub fn all(&self) -> impl Iterator<Item = &Instance> {
        self.instances.values().flatten()
    }

    /// Containers that cannot belong to an instance, with the time they appeared.
    pub fn strangers(&self) -> impl Iterator<Item = (NodeId, &ContainerId, VirtualTime)> {
        self.strangers
            .iter()
            .map(|((node, id), at)| (*node, id, *at))
    }

    /// How many containers exist on a node.
    pub fn present_on(&self, host: NodeId) -> u32 {
        self.present.get(&host).copied().unwrap_or(0)
    }

    /// Forgets a task that nobody can report about any more.
    pub(super) fn prune(&mut self, task: TaskId) {
        if self.of_task(task).iter().all(|instance| !instance.exists()) {
            self.instances.remove(&task);
        }
    }

    fn called(&mut self, event: &Event, host: NodeId, call: &str, container: &ContainerId) {
        let Some(id) = InstanceId::of_container(container) else {
            return;
        };
        match call {
            "create" => {
                self.ordered.insert((host, id), event.id);
            }
            "stop" => {
                let at = event.at;
                self.update(event, host, container, |instance| {
                    instance.asked_at.get_or_insert(at);
                });
            }
            _ => {}
        }
    }

    fn created(
        &mut self,
        event: &Event,
        host: NodeId,
        container: &ContainerId,
        volumes: &[String],
    ) {
        *self.present.entry(host).or_default() += 1;
        let Some(id) = InstanceId::of_container(container) else {
            self.strangers.insert((host, container.clone()), event.at);
            return;
        };
        let instance = Instance {
            host,
            id,
            ordered: self.ordered.remove(&(host, id)).is_some(),
            created_at: event.at,
            event: event.id,
            volumes: volumes.to_vec(),
            started_at: None,
            end: None,
            forgotten: false,
            deleted_at: None,
            asked_at: None,
            healthy_since: None,
        };
        self.instances.entry(id.task).or_default().push(instance);
    }

    fn deleted(&mut self, event: &Event, host: NodeId, container: &ContainerId, store: &StoreView) {
        self.strangers.remove(&(host, container.clone()));
        if let Some(present) = self.present.get_mut(&host) {
            *present = present.saturating_sub(1);
        }
        let at = event.at;
        self.update(event, host, container, |instance| {
            instance.deleted_at = Some(at);
        });
        let Some(id) = InstanceId::of_container(container) else {
            return;
        };
        if !store.tasks.contains_key(&id.task) {
            self.prune(id.task);
        }
        if let Some(instances) = self.instances.get_mut(&id.task) {
            let gone = instances
                .iter()
                .filter(|instance| !instance.exists())
                .count();
            if gone > GONE_KEPT_MAX
                && let Some(oldest) = instances.iter().position(|instance| !instance.exists())
            {
                instances.remove(oldest);
            }
        }
    }

    fn update(
        &mut self,
        event: &Event,
        host: NodeId,
        container: &ContainerId,
        change: impl FnOnce(&mut Instance),
    ) {
        let Some(id) = InstanceId::of_container(container) else {
            return;
        };
        let instances = self.instances.get_mut(&id.task).into_iter().flatten();
        if let Some(instance) = instances
            .rev()
            .find(|found| found.host == host && found.id == id)
        {
            instance.event = event.id;
            change(instance);
        }
    }
}
