//! I20: a task is bound only to a node that may run it and has room for it.
//!
//! Breaches, at the moment a task is bound to a node: the node is unknown, down, paused or drained
//! ("node-takes-no-tasks"); it lacks a label ("constraint-ignored"); the memory of its unfinished
//! tasks exceeds what it has ("memory-exceeded"); another of its unfinished tasks has one of the
//! ports ("port-taken"); the slot's volume is on another node, where the slot first ran
//! ("away-from-volume").
//!
//! Exemptions: a node whose state changed a moment ago may still be given what was decided before
//! (longer while the managers were disturbed). A volume that all nodes share ties nothing. A
//! service that is deleted takes its ties with it.

use std::collections::BTreeMap;
use std::time::Duration;

use wavetank_model::{
    Availability, Change, NodeId, NodeStatus, ServiceName, ServiceSpec, TaskId, TaskState,
};
use wavetank_scenario::plan::Plan;
use wavetank_trace::{Event, EventId, Payload, VirtualTime};

use crate::checker::{Breach, Checker, Report};
use crate::model::{Model, TaskStep};

const ID: &str = "I20";

/// Longest from a decision to its entry in the log, with and without a steady leader.
const MOMENT: Duration = Duration::from_secs(2);
const MOMENT_DISTURBED: Duration = Duration::from_secs(60);

/// See the file's header.
pub struct Placement {
    shared: Vec<String>,
    homes: BTreeMap<(ServiceName, u32), (NodeId, EventId)>,
}

impl Placement {
    /// For a run of `plan`.
    pub fn new(plan: &Plan) -> Self {
        Placement {
            shared: plan.cluster.shared_volumes.clone(),
            homes: BTreeMap::new(),
        }
    }
}

impl Checker for Placement {
    fn id(&self) -> &'static str {
        ID
    }

    fn observe(&mut self, event: &Event, report: &mut Report) {
        if !matches!(event.payload, Payload::Notice { .. }) {
            return;
        }
        let mut found = Vec::new();
        for step in report.model.store.steps() {
            let Some(node) = step.after.node else {
                continue;
            };
            let bound_before = step.before.as_ref().is_some_and(|task| task.node.is_some());
            if !bound_before && !step.after.status.state.is_terminal() {
                found.extend(self.judge(event, &report.model, step, node));
            }
            if step.after.status.state == TaskState::Running {
                let place = (step.after.service.clone(), step.after.slot);
                self.homes.entry(place).or_insert((node, event.id));
            }
        }
        for change in report.model.store.fresh_changes(event) {
            if let Change::ServiceRemoved { service } = change {
                self.homes.retain(|(name, _), _| name != service);
            }
        }
        for (kind, cause, witness) in found {
            let witnesses = witness.into_iter().chain([event.id]).collect();
            report.findings.add(Breach {
                checker: ID,
                kind,
                cause,
                at: event.at,
                witnesses,
            });
        }
    }

    fn finish(&mut self, _end: VirtualTime, _report: &mut Report) {}
}

type Wrong = (&'static str, String, Option<EventId>);

impl Placement {
    fn judge(&self, event: &Event, model: &Model, step: &TaskStep, node: NodeId) -> Vec<Wrong> {
        let task = step.task;
        let mut found = Vec::new();
        if let Some(why) = takes_no_tasks(event, model, node) {
            found.push((
                "node-takes-no-tasks",
                format!("{task} was bound to {node}, which {why}"),
                None,
            ));
        }
        let Some(spec) = model.store.spec_of(&step.after) else {
            return found;
        };
        found.extend(lacks_label(model, spec, task, node));
        found.extend(exceeds(model, task, node));
        found.extend(takes_port(model, spec, task, node));
        let volume = spec
            .volume
            .as_ref()
            .filter(|volume| !self.shared.contains(volume));
        let home = self
            .homes
            .get(&(step.after.service.clone(), step.after.slot));
        if let (Some(volume), Some((home, witness))) = (volume, home)
            && *home != node
        {
            let cause = format!("{task} was bound to {node}, but its volume {volume} is on {home}");
            found.push(("away-from-volume", cause, Some(*witness)));
        }
        found
    }
}

fn takes_no_tasks(event: &Event, model: &Model, node: NodeId) -> Option<String> {
    let Some(record) = model.store.nodes.get(&node) else {
        return Some("nobody knows".to_owned());
    };
    let moment = if model.control_steady_for(MOMENT * 5, event.at) {
        MOMENT
    } else {
        MOMENT_DISTURBED
    };
    let takes = record.status == NodeStatus::Ready && record.availability == Availability::Active;
    if takes || event.at.since(record.changed_at) <= moment {
        return None;
    }
    Some(format!(
        "is {:?} and {:?}",
        record.status, record.availability
    ))
}

fn lacks_label(model: &Model, spec: &ServiceSpec, task: TaskId, node: NodeId) -> Option<Wrong> {
    let index = usize::try_from(node.number).ok()?.checked_sub(1)?;
    let host = model.plan.cluster.agents.get(index)?;
    let missing = spec
        .constraints
        .iter()
        .find(|(key, value)| host.labels.get(*key) != Some(value));
    let (key, value) = missing?;
    let cause = format!("{task} was bound to {node}, which has no label {key}={value}");
    Some(("constraint-ignored", cause, None))
}

fn exceeds(model: &Model, task: TaskId, node: NodeId) -> Option<Wrong> {
    let index = usize::try_from(node.number).ok()?.checked_sub(1)?;
    let capacity = model.plan.cluster.agents.get(index)?.resources.memory_bytes;
    let tasks = model.store.live_tasks_on(node);
    let specs = tasks.filter_map(|(_, task)| model.store.spec_of(task));
    let used: u64 = specs.map(|spec| spec.resources.memory_bytes).sum();
    let cause = format!("with {task}, {node} owes {used} bytes of memory and has {capacity}");
    (used > capacity).then_some(("memory-exceeded", cause, None))
}

fn takes_port(model: &Model, spec: &ServiceSpec, task: TaskId, node: NodeId) -> Option<Wrong> {
    if spec.ports.is_empty() {
        return None;
    }
    let others = model
        .store
        .live_tasks_on(node)
        .filter(|(other, _)| *other != task);
    let mut clashes = others.filter_map(|(other, record)| {
        let ports = &model.store.spec_of(record)?.ports;
        let port = ports.iter().find(|port| spec.ports.contains(port))?;
        Some((other, *port, record.event))
    });
    let (other, port, witness) = clashes.next()?;
    let cause = format!("{task} was bound to {node}, where {other} has port {port}");
    Some(("port-taken", cause, Some(witness)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Trace, node, seconds, spec, status, task};
    use wavetank_model::TaskStatus;

    fn bind(trace: &mut Trace, id: u64, agent: u32, slot: u32) {
        trace.apply(vec![
            task(id, 0).slot(slot).change(None, TaskStatus::pending()),
        ]);
        let assigned = status(TaskState::Assigned, 0, 0);
        let bound = task(id, agent).slot(slot);
        trace.apply(vec![bound.change(Some(TaskState::Pending), assigned)]);
    }

    fn bound(spec: &ServiceSpec, agents: &[u32]) -> Vec<String> {
        let mut trace = Trace::started(spec);
        for (id, agent) in (1..).zip(agents) {
            bind(&mut trace, id, *agent, 1);
        }
        trace.findings(&["I20"])
    }

    #[test]
    fn a_fitting_node_passes() {
        let mut ported = spec();
        ported.ports = vec![80];
        assert_eq!(bound(&ported, &[1, 2]), Vec::<String>::new());
    }

    #[test]
    fn a_full_node_a_taken_port_and_a_missing_label_fail() {
        let mut big = spec();
        big.resources.memory_bytes = 600;
        assert_eq!(bound(&big, &[1, 1]), ["I20/memory-exceeded"]);
        let mut ported = spec();
        ported.ports = vec![80];
        assert_eq!(bound(&ported, &[1, 1]), ["I20/port-taken"]);
        let mut picky = spec();
        picky.constraints = [("zone".to_owned(), "b".to_owned())].into();
        assert_eq!(bound(&picky, &[1]), ["I20/constraint-ignored"]);
    }

    #[test]
    fn a_node_that_is_down_fails_after_a_moment() {
        let mut trace = Trace::started(&spec());
        trace
            .after(seconds(20))
            .apply(vec![node(1, NodeStatus::Down)]);
        bind(&mut trace, 1, 1, 1);
        assert_eq!(trace.findings(&["I20"]), Vec::<String>::new());
        trace.after(seconds(5));
        bind(&mut trace, 2, 1, 2);
        assert_eq!(trace.findings(&["I20"]), ["I20/node-takes-no-tasks"]);
    }

    #[test]
    fn a_volume_stays_at_home() {
        let mut keeper = spec();
        keeper.volume = Some("data".into());
        let mut trace = Trace::started(&keeper);
        trace.up(1, 1);
        bind(&mut trace, 2, 2, 1);
        assert_eq!(trace.findings(&["I20"]), ["I20/away-from-volume"]);
    }
}
