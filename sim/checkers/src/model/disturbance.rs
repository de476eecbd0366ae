//! Which nodes a checker must not count on, since when the others are steady, who leads, and
//! which kinds of fault were in force. A node is disturbed while a fault names it, its process is
//! not running, or it is frozen.

use std::collections::{BTreeMap, BTreeSet};

use wavetank_model::{ConsensusRole, Epoch, NodeId, Notice};
use wavetank_scenario::plan::Plan;
use wavetank_trace::{Event, FaultState, HostState, Payload, Phase, VirtualTime};

use super::is_death;

#[derive(Clone, Debug, Default)]
struct Host {
    up: bool,
    paused: bool,
    faults: BTreeSet<u32>,
    /// When the last disturbance ended, or the current one began.
    changed_at: VirtualTime,
    /// Since when it is down or frozen, whatever faults say.
    lost_since: Option<VirtualTime>,
    started_at: Option<VirtualTime>,
    died_at: Option<VirtualTime>,
    /// Its disk has said that writes are durable before they are.
    disk_lied: bool,
    /// A record at rest was damaged.
    disk_rotted: bool,
    /// When it last lost records that it may have relied on.
    forgot_at: Option<VirtualTime>,
}

impl Host {
    fn is_disturbed(&self) -> bool {
        !self.up || self.paused || !self.faults.is_empty()
    }
}

#[derive(Clone, Debug, Default)]
struct Kind {
    in_force: BTreeSet<u32>,
    ended_at: Option<VirtualTime>,
}

/// Who is disturbed, and who leads.
#[derive(Clone, Debug, Default)]
pub struct Disturbance {
    managers: u32,
    hosts: BTreeMap<NodeId, Host>,
    kinds: BTreeMap<String, Kind>,
    silent: BTreeMap<u32, bool>,
    healing: BTreeSet<u32>,
    leader: Option<(Epoch, NodeId, VirtualTime)>,
}

impl Disturbance {
    /// Before the first event: nothing is up.
    pub fn new(plan: &Plan) -> Self {
        let numbered = (0..).zip(&plan.faults);
        Disturbance {
            managers: plan.cluster.managers,
            healing: numbered
                .filter(|(_, fault)| fault.heals)
                .map(|(n, _)| n)
                .collect(),
            ..Disturbance::default()
        }
    }

    /// Takes in an event.
    pub fn observe(&mut self, event: &Event) {
        match &event.payload {
            Payload::Fault {
                fault,
                action,
                state,
                disturbs,
                ..
            } => {
                self.fault(event.at, *fault, action, *state, disturbs);
            }
            Payload::Phase {
                phase: Phase::Settle,
            } => {
                // A fault of one moment may never be said to be over.
                for fault in self.healing.clone() {
                    self.heal(event.at, fault);
                }
            }
            Payload::Host { state, .. } => {
                if let Some(node) = event.host {
                    self.host(event.at, node, *state);
                }
            }
            Payload::Notice {
                notice: Notice::RoleChanged { role, epoch },
            } => {
                if let Some(node) = event.host {
                    self.role(event.at, node, *role, *epoch);
                }
            }
            _ => {}
        }
    }

    /// Since when a node has been up and untouched; `None` if it is not now.
    pub fn undisturbed_since(&self, node: NodeId) -> Option<VirtualTime> {
        let host = self.hosts.get(&node)?;
        (!host.is_disturbed()).then_some(host.changed_at)
    }

    /// Since when a node's process has not been running, or has been frozen; `None` if it runs.
    pub fn lost_since(&self, node: NodeId) -> Option<VirtualTime> {
        self.hosts.get(&node)?.lost_since
    }

    /// Does its process run (perhaps disturbed)?
    pub fn is_up(&self, node: NodeId) -> bool {
        self.hosts
            .get(&node)
            .is_some_and(|host| host.up && !host.paused)
    }

    /// When its process started last.
    pub fn started_at(&self, node: NodeId) -> Option<VirtualTime> {
        self.hosts.get(&node)?.started_at
    }

    /// When its process or machine died last.
    pub fn died_at(&self, node: NodeId) -> Option<VirtualTime> {
        self.hosts.get(&node)?.died_at
    }

    /// When it last lost durable records, so that it cannot be held to what it did before.
    pub fn forgot_at(&self, node: NodeId) -> Option<VirtualTime> {
        self.hosts.get(&node)?.forgot_at
    }

    /// Nodes that are down or frozen now, with since when.
    pub fn lost(&self) -> impl Iterator<Item = (NodeId, VirtualTime)> {
        self.hosts
            .iter()
            .filter_map(|(node, host)| Some((*node, host.lost_since?)))
    }

    /// The leader of the newest epoch, if it still leads.
    pub fn leader(&self) -> Option<NodeId> {
        self.leader.map(|(_, node, _)| node)
    }

    /// Since when one leader has led, itself and a majority of managers undisturbed. `None` if
    /// there is none now.
    pub fn control_steady_since(&self) -> Option<VirtualTime> {
        let (_, leader, elected_at) = self.leader?;
        let leader_since = self.undisturbed_since(leader)?;
        let managers = (1..=self.managers).map(NodeId::manager);
        let mut steady: Vec<VirtualTime> = managers
            .filter_map(|node| self.undisturbed_since(node))
            .collect();
        steady.sort_unstable();
        let majority = usize::try_from(self.managers / 2).ok()?;
        Some((*steady.get(majority)?).max(leader_since).max(elected_at))
    }

    /// Since when no fault of a matching kind has been in force: zero if none ever was, `None` if
    /// one is now.
    pub fn free_since(&self, matches: impl Fn(&str) -> bool) -> Option<VirtualTime> {
        let mut since = VirtualTime::ZERO;
        for (_, kind) in self.kinds.iter().filter(|(action, _)| matches(action)) {
            if !kind.in_force.is_empty() {
                return None;
            }
            since = since.max(kind.ended_at.unwrap_or(since));
        }
        Some(since)
    }

    /// Was a fault of a matching kind ever in force?
    pub fn ever(&self, matches: impl Fn(&str) -> bool) -> bool {
        self.kinds.keys().any(|action| matches(action))
    }

    /// Is a fault in force that names no node, and yet may keep work from getting done for as
    /// long as it lasts?
    pub fn silent_fault_in_force(&self) -> bool {
        self.silent.values().any(|in_force| *in_force)
    }

    fn fault(
        &mut self,
        at: VirtualTime,
        fault: u32,
        action: &str,
        state: FaultState,
        disturbs: &[NodeId],
    ) {
        match state {
            FaultState::Fired | FaultState::Hit => {
                if state == FaultState::Fired {
                    self.kinds
                        .entry(action.to_owned())
                        .or_default()
                        .in_force
                        .insert(fault);
                    self.silent
                        .insert(fault, disturbs.is_empty() && blocks_progress(action));
                }
                let over = !self.silent.contains_key(&fault);
                for node in disturbs {
                    self.change(at, *node, |host| {
                        if !over {
                            host.faults.insert(fault);
                        }
                    });
                    // One that is over when it is said to have hit still disturbed the node.
                    self.touch(at, *node);
                }
                for node in disturbs {
                    let host = self.hosts.entry(*node).or_default();
                    host.disk_lied |= action == "disk-lies";
                    host.disk_rotted |= action == "bit-rot";
                }
            }
            FaultState::Healed => self.heal(at, fault),
            FaultState::Armed | FaultState::NotApplied => {}
        }
    }

    fn heal(&mut self, at: VirtualTime, fault: u32) {
        for kind in self.kinds.values_mut() {
            if kind.in_force.remove(&fault) {
                kind.ended_at = Some(at);
            }
        }
        self.silent.remove(&fault);
        let nodes: Vec<NodeId> = self.hosts.keys().copied().collect();
        for node in nodes {
            self.change(at, node, |host| {
                host.faults.remove(&fault);
            });
        }
    }

    fn host(&mut self, at: VirtualTime, node: NodeId, state: HostState) {
        self.change(at, node, |host| {
            match state {
                HostState::Started => host.up = true,
                HostState::Paused => host.paused = true,
                HostState::Resumed => host.paused = false,
                _ => {
                    host.up = false;
                    host.paused = false;
                }
            }
            if host.up && !host.paused {
                host.lost_since = None;
            } else {
                host.lost_since.get_or_insert(at);
            }
        });
        let host = self.hosts.entry(node).or_default();
        if state == HostState::Started {
            host.started_at = Some(at);
        }
        if is_death(state) {
            host.died_at = Some(at);
            if self.leader.is_some_and(|(_, leader, _)| leader == node) {
                self.leader = None;
            }
        }
        // A power loss takes back what a disk lied about; damage is met at the next start.
        let takes_back = state == HostState::PowerLost && host.disk_lied;
        if state == HostState::Wiped || takes_back || (is_death(state) && host.disk_rotted) {
            host.forgot_at = Some(at);
        }
    }

    fn role(&mut self, at: VirtualTime, node: NodeId, role: ConsensusRole, epoch: Epoch) {
        let newest = self.leader.map(|(epoch, _, _)| epoch);
        if role == ConsensusRole::Leader {
            if newest.is_none_or(|newest| epoch >= newest) {
                self.leader = Some((epoch, node, at));
            }
        } else if self.leader.is_some_and(|(_, leader, _)| leader == node) {
            self.leader = None;
        }
    }

    fn change(&mut self, at: VirtualTime, node: NodeId, change: impl FnOnce(&mut Host)) {
        let host = self.hosts.entry(node).or_default();
        let before = host.is_disturbed();
        change(host);
        if before != host.is_disturbed() {
            host.changed_at = at;
        }
    }

    fn touch(&mut self, at: VirtualTime, node: NodeId) {
        let host = self.hosts.entry(node).or_default();
        host.changed_at = host.changed_at.max(at);
    }
}

/// Faults that a correct system waits for rather than works around. What happens once, and what
/// is only said wrongly, is not among them.
fn blocks_progress(action: &str) -> bool {
    action.starts_with("registry")
        || action.starts_with("codec")
        || action.starts_with("daemon")
        || matches!(
            action,
            "runtime-error" | "runtime-delay" | "runtime-hang" | "empty-listing" | "task-unhealthy"
        )
}
