//! What agents said about themselves: which assignments they have heard of, which stops they
//! asked for, and where their tasks are.

use std::collections::BTreeMap;
use std::time::Duration;

use wavetank_model::{
    Epoch, InstanceId, NodeId, Notice, Reason, Revision, TaskId, TaskState, TaskStatus,
};
use wavetank_trace::{Event, EventId, Payload, VirtualTime};

use super::is_death;

/// A stop that an agent asked for.
#[derive(Clone, Copy, Debug)]
pub struct StopRecord {
    /// When it asked first.
    pub at: VirtualTime,
    /// The grace it named.
    pub grace: Duration,
    /// Why.
    pub reason: Reason,
    /// The event.
    pub event: EventId,
}

/// Assignments that an agent accepted.
#[derive(Clone, Copy, Debug)]
pub struct Heard {
    /// Issuer's epoch.
    pub epoch: Epoch,
    /// The store's revision.
    pub revision: Revision,
    /// When.
    pub at: VirtualTime,
    /// The event.
    pub event: EventId,
}

/// One agent.
#[derive(Clone, Debug, Default)]
pub struct AgentView {
    /// The newest assignments it accepted and cannot have forgotten.
    pub heard: Option<Heard>,
    /// Those before, for when the newest never reached its disk.
    heard_before: Option<Heard>,
    /// The first stop of each instance.
    pub stops: BTreeMap<InstanceId, StopRecord>,
    /// The newest status of each task, as it said.
    pub tasks: BTreeMap<TaskId, TaskStatus>,
    /// The newest attempt of each task that it has called running.
    pub ran: BTreeMap<TaskId, u32>,
    /// Its newest look at its containers failed, or named fewer than there are.
    pub blind: Option<EventId>,
}

/// All agents.
#[derive(Clone, Debug, Default)]
pub struct Agents {
    agents: BTreeMap<NodeId, AgentView>,
}

impl Agents {
    /// Takes in an event; what happened less than `void` before a death does not count.
    pub fn observe(&mut self, event: &Event, void: Duration) {
        let Some(host) = event.host else { return };
        match &event.payload {
            Payload::Notice { notice } => self.notice(event, host, notice),
            Payload::RuntimeAnswered { call, error, .. } if call == "list" => {
                let agent = self.agents.entry(host).or_default();
                agent.blind = error.map(|_| event.id);
            }
            Payload::Host { state, .. } if is_death(*state) => {
                if let Some(agent) = self.agents.get_mut(&host)
                    && agent
                        .heard
                        .is_some_and(|heard| event.at.since(heard.at) <= void)
                {
                    agent.heard = agent.heard_before;
                }
            }
            _ => {}
        }
    }

    /// One agent, if it ever said anything.
    pub fn get(&self, node: NodeId) -> Option<&AgentView> {
        self.agents.get(&node)
    }

    /// The stop that an agent asked for.
    pub fn stop(&self, node: NodeId, instance: InstanceId) -> Option<&StopRecord> {
        self.agents.get(&node)?.stops.get(&instance)
    }

    /// Where an agent says a task is.
    pub fn task(&self, node: NodeId, task: TaskId) -> Option<&TaskStatus> {
        self.agents.get(&node)?.tasks.get(&task)
    }

    /// Notes that a listing named fewer containers than truly exist.
    pub(crate) fn mark_blind(&mut self, node: NodeId, event: EventId) {
        self.agents.entry(node).or_default().blind = Some(event);
    }

    /// Forgets a task that is gone from the store.
    pub(super) fn forget(&mut self, task: TaskId) {
        for agent in self.agents.values_mut() {
            agent.tasks.remove(&task);
            agent.ran.remove(&task);
            agent.stops.retain(|instance, _| instance.task != task);
        }
    }

    fn notice(&mut self, event: &Event, host: NodeId, notice: &Notice) {
        match notice {
            Notice::AssignmentsAccepted {
                epoch, revision, ..
            } => {
                let agent = self.agents.entry(host).or_default();
                let heard = Heard {
                    epoch: *epoch,
                    revision: *revision,
                    at: event.at,
                    event: event.id,
                };
                agent.heard_before = agent.heard.replace(heard);
            }
            Notice::StopRequested {
                instance,
                grace,
                reason,
            } => {
                let stop = StopRecord {
                    at: event.at,
                    grace: *grace,
                    reason: *reason,
                    event: event.id,
                };
                let stops = &mut self.agents.entry(host).or_default().stops;
                stops.entry(*instance).or_insert(stop);
            }
            Notice::TaskMoved { task, status, .. } => {
                let agent = self.agents.entry(host).or_default();
                agent.tasks.insert(*task, status.clone());
                if status.state == TaskState::Running {
                    agent.ran.insert(*task, status.attempt);
                }
            }
            Notice::ObservationFailed { .. } => {
                self.agents.entry(host).or_default().blind = Some(event.id);
            }
            _ => {}
        }
    }
}
