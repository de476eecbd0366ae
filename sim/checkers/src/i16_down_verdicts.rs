//! I16: an agent that is well is never declared down; one that is lost is declared down in time.
//!
//! Breach "healthy-declared-down": the store calls a node down although its agent's process has
//! run, untouched by faults, for `node_down_after + failover_grace`, and so has a leader with a
//! majority of managers. A fault that says it disturbs nobody (a renamed field, for example) is no
//! excuse: a correct system does not even notice it.
//!
//! Breach "lost-not-declared-down": an agent's process has not run (or has been frozen) for
//! `node_down_after + failover_grace + 2 * down_check + 5 s`, a leader has led undisturbed all the
//! while, and the store still calls the node ready.
//!
//! Exemptions: agents that are cut off or slowed are owed neither verdict: whether enough of
//! their heartbeats get through is up to chance.

use std::collections::BTreeMap;
use std::time::Duration;

use wavetank_model::{Change, NodeId, NodeRole, NodeStatus};
use wavetank_scenario::plan::Plan;
use wavetank_trace::{Event, EventId, HostState, Payload, VirtualTime};

use crate::checker::{Breach, Checker, Report};
use crate::model::Model;

const ID: &str = "I16";

/// On top of the timers: messages under way, writes to disk.
const MARGIN: Duration = Duration::from_secs(5);

/// See the file's header.
pub struct DownVerdicts {
    well_for: Duration,
    lost_for: Duration,
    status: BTreeMap<NodeId, NodeStatus>,
    lost: BTreeMap<NodeId, (VirtualTime, EventId)>,
}

impl DownVerdicts {
    /// For a run of `plan`.
    pub fn new(plan: &Plan) -> Self {
        let timers = &plan.cluster.timers;
        let well_for = timers.node_down_after + timers.failover_grace;
        DownVerdicts {
            well_for,
            lost_for: well_for + timers.down_check * 2 + MARGIN,
            status: BTreeMap::new(),
            lost: BTreeMap::new(),
        }
    }
}

impl Checker for DownVerdicts {
    fn id(&self) -> &'static str {
        ID
    }

    fn observe(&mut self, event: &Event, report: &mut Report) {
        match (&event.payload, event.host) {
            (Payload::Host { state, .. }, Some(host)) if host.role == NodeRole::Agent => {
                self.host(event, host, *state);
            }
            (Payload::Notice { .. }, _) => self.applied(event, report),
            _ => {}
        }
        self.overdue(event.at, report);
    }

    fn finish(&mut self, end: VirtualTime, report: &mut Report) {
        self.overdue(end, report);
    }
}

impl DownVerdicts {
    fn host(&mut self, event: &Event, host: NodeId, state: HostState) {
        if matches!(state, HostState::Started | HostState::Resumed) {
            self.lost.remove(&host);
        } else {
            self.lost.entry(host).or_insert((event.at, event.id));
        }
    }

    fn applied(&mut self, event: &Event, report: &mut Report) {
        let mut wrong = Vec::new();
        for change in report.model.store.fresh_changes(event) {
            let Change::Node { node, status, .. } = change else {
                continue;
            };
            let before = self.status.insert(*node, *status);
            if before == Some(NodeStatus::Ready)
                && *status == NodeStatus::Down
                && self.is_well(*node, event.at, &report.model)
            {
                wrong.push(*node);
            }
        }
        for node in wrong {
            report.findings.add(Breach {
                checker: ID,
                kind: "healthy-declared-down",
                cause: format!("{node} was declared down though nothing has ailed it"),
                at: event.at,
                witnesses: vec![event.id],
            });
        }
    }

    fn is_well(&self, node: NodeId, now: VirtualTime, model: &Model) -> bool {
        model.steady_for(node, self.well_for, now) && model.control_steady_for(self.well_for, now)
    }

    fn overdue(&mut self, now: VirtualTime, report: &mut Report) {
        if self.lost.is_empty() {
            return;
        }
        let lost_for = self.lost_for;
        let due = |since: VirtualTime| now.since(since) > lost_for;
        if !report.model.control_steady_for(lost_for, now) {
            return;
        }
        for (node, (since, event)) in self.lost.iter().filter(|(_, (since, _))| due(*since)) {
            if self.status.get(node) == Some(&NodeStatus::Ready) {
                report.findings.add(Breach {
                    checker: ID,
                    kind: "lost-not-declared-down",
                    cause: format!("{node} is gone since {since} and still called ready"),
                    at: now,
                    witnesses: vec![*event],
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Trace, millis, node, seconds, spec};

    #[test]
    fn a_lost_agent_is_declared_down_in_time() {
        let mut trace = Trace::started(&spec());
        trace
            .after(seconds(60))
            .host(NodeId::agent(1), HostState::Killed);
        trace
            .after(seconds(31))
            .apply(vec![node(1, NodeStatus::Down)]);
        trace.after(seconds(60)).apply(vec![]);
        assert_eq!(trace.findings(&["I16"]), Vec::<String>::new());
    }

    #[test]
    fn a_healthy_agent_declared_down_fails() {
        let mut trace = Trace::started(&spec());
        trace
            .after(seconds(60))
            .apply(vec![node(1, NodeStatus::Down)]);
        assert_eq!(trace.findings(&["I16"]), ["I16/healthy-declared-down"]);
    }

    #[test]
    fn a_new_leader_may_be_in_doubt() {
        let mut trace = Trace::started(&spec());
        trace.after(seconds(60)).lead(2, 2);
        trace
            .after(millis(10))
            .apply(vec![node(1, NodeStatus::Down)]);
        assert_eq!(trace.findings(&["I16"]), Vec::<String>::new());
    }

    #[test]
    fn a_lost_agent_that_stays_ready_fails() {
        let mut trace = Trace::started(&spec());
        trace
            .after(seconds(60))
            .host(NodeId::agent(1), HostState::Paused);
        trace.after(seconds(120)).apply(vec![]);
        assert_eq!(trace.findings(&["I16"]), ["I16/lost-not-declared-down"]);
    }
}
