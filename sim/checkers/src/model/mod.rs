//! What several checkers need to know about a run so far, kept once for all of them.
//!
//! Map: `store` (the replicated store, rebuilt from applied entries), `containers` (what truly
//! runs), `disturbance` (which nodes a checker must not count on), `agents` (what agents said).

pub mod agents;
pub mod containers;
pub mod disturbance;
pub mod store;

use std::time::Duration;

use wavetank_model::{Change, NodeId, Notice, TaskId};
use wavetank_scenario::plan::Plan;
use wavetank_trace::{Event, HostState, Payload, Phase, VirtualTime};

pub use agents::{AgentView, Agents, StopRecord};
pub use containers::{Containers, End, Instance};
pub use disturbance::Disturbance;
pub use store::{ServiceRecord, StoreView, TaskRecord, TaskStep};

/// The run so far.
pub struct Model {
    /// What was to be done, and with which timers.
    pub plan: Plan,
    /// When the settle phase began.
    pub settle_at: Option<VirtualTime>,
    /// The replicated store.
    pub store: StoreView,
    /// What truly runs.
    pub containers: Containers,
    /// Who is disturbed, and who leads.
    pub disturbance: Disturbance,
    /// What agents said about themselves.
    pub agents: Agents,
}

impl Model {
    /// Before the first event.
    pub fn new(plan: &Plan) -> Self {
        Model {
            plan: plan.clone(),
            settle_at: None,
            store: StoreView::default(),
            containers: Containers::default(),
            disturbance: Disturbance::new(plan),
            agents: Agents::default(),
        }
    }

    /// Takes in the next event.
    pub fn advance(&mut self, event: &Event) {
        if matches!(
            event.payload,
            Payload::Phase {
                phase: Phase::Settle
            }
        ) {
            self.settle_at = Some(event.at);
        }
        self.store.observe(event);
        self.disturbance.observe(event);
        self.agents.observe(event, self.void_window());
        self.containers.observe(event, &self.store);
        if let (
            Payload::RuntimeAnswered {
                listed: Some(listed),
                ..
            },
            Some(host),
        ) = (&event.payload, event.host)
            && *listed < self.containers.present_on(host)
        {
            self.agents.mark_blind(host, event.id);
        }
        self.forget_gone(event);
    }

    /// What managers have forgotten need not be remembered: nobody can be held to it any more.
    fn forget_gone(&mut self, event: &Event) {
        let said_of = match &event.payload {
            Payload::Notice {
                notice: Notice::TaskMoved { task, .. },
            } => Some(*task),
            Payload::Notice {
                notice: Notice::StopRequested { instance, .. },
            } => Some(instance.task),
            _ => None,
        };
        if let Some(task) = said_of.filter(|task| !self.store.tasks.contains_key(task)) {
            self.agents.forget(task);
        }
        for change in self.store.fresh_changes(event) {
            if let Change::TaskRemoved { task, .. } = change {
                self.containers.prune(*task);
                self.agents.forget(*task);
            }
        }
    }

    /// What a process did this shortly before it died may not have reached its disk: an agent
    /// that starts again may do it once more, or otherwise.
    pub fn void_window(&self) -> Duration {
        self.plan.cluster.fsync.max + Duration::from_secs(1)
    }

    /// Since when a node's process has been up, running and untouched by faults; `None` if it is
    /// not now.
    pub fn steady_since(&self, node: NodeId) -> Option<VirtualTime> {
        self.disturbance.undisturbed_since(node)
    }

    /// True if a node was steady for at least `duration` before `now`.
    pub fn steady_for(&self, node: NodeId, duration: Duration, now: VirtualTime) -> bool {
        self.steady_since(node)
            .is_some_and(|since| now.since(since) >= duration)
    }

    /// True if a leader with a majority was steady for at least `duration` before `now`.
    pub fn control_steady_for(&self, duration: Duration, now: VirtualTime) -> bool {
        let since = self.disturbance.control_steady_since();
        since.is_some_and(|since| now.since(since) >= duration)
    }

    /// True if managers want this task to run on this node: nothing justifies that its
    /// container is stopped, other than its own health.
    pub fn is_wanted(&self, task: TaskId, host: NodeId) -> bool {
        self.store.tasks.get(&task).is_some_and(|record| {
            record.node == Some(host)
                && record.desired == wavetank_model::DesiredState::Running
                && !record.status.state.is_terminal()
        })
    }
}

/// True if an event says that a process or its machine is gone.
pub fn is_death(state: HostState) -> bool {
    match state {
        HostState::Exited
        | HostState::Killed
        | HostState::PowerLost
        | HostState::Wiped
        | HostState::Crashed => true,
        HostState::Started | HostState::Paused | HostState::Resumed => false,
    }
}
