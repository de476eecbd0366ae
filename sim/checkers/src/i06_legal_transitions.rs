//! I6: a task's states follow each other only as `TaskState::may_become` allows, one transition
//! at a time, written by whoever owns them.
//!
//! Breaches, for the agent's own transitions and for the store's: a state that may not follow the
//! one before; a transition number that is not the next one; a stated previous state that is not
//! the one that was; an agent that writes what only managers may (pending, assigned, lost). For
//! the store also: a task that changes its node, slot, service or generation, and a desired state
//! that goes back.
//!
//! Exemptions: a changed `ready` flag is a transition from running to running. Managers write
//! without a transition number: assigned, lost, and the end of a task that no agent has accepted.
//! After its process died an agent may go back to what was durable, but not behind what it has
//! already reported to the store. An agent that lost its records, and tasks that managers have
//! already forgotten, are not judged.

use std::collections::BTreeMap;

use wavetank_model::{Change, NodeId, Notice, TaskId, TaskState, TaskStatus};
use wavetank_trace::{Event, EventId, HostState, Payload, VirtualTime};

use crate::checker::{Breach, Checker, Report};
use crate::model::{Model, TaskRecord, TaskStep};

const ID: &str = "I6";

struct Known {
    status: TaskStatus,
    event: EventId,
    /// The agent has started again since.
    restarted: bool,
}

/// See the file's header.
#[derive(Default)]
pub struct LegalTransitions {
    agents: BTreeMap<(NodeId, TaskId), Known>,
}

impl Checker for LegalTransitions {
    fn id(&self) -> &'static str {
        ID
    }

    fn observe(&mut self, event: &Event, report: &mut Report) {
        match (&event.payload, event.host) {
            (
                Payload::Notice {
                    notice:
                        Notice::TaskMoved {
                            task, from, status, ..
                        },
                },
                Some(host),
            ) => {
                self.agent_moved(event, host, *task, *from, status, report);
            }
            (
                Payload::Notice {
                    notice: Notice::Applied { .. },
                },
                _,
            ) => {
                let model = &report.model;
                // The store passes over what an agent without its records says, silently.
                let judged = |step: &&TaskStep| {
                    let node = step.after.node;
                    node.is_none_or(|node| model.disturbance.forgot_at(node).is_none())
                };
                let steps = model.store.steps().iter().filter(judged);
                let found: Vec<_> = steps.filter_map(store_breach).collect();
                for (kind, cause, witness) in found {
                    add(report, event, &kind, cause, witness);
                }
                self.forget_removed(event, &report.model);
            }
            (Payload::Host { state, .. }, Some(host)) => self.host(event, host, *state, report),
            _ => {}
        }
    }

    fn finish(&mut self, _end: VirtualTime, _report: &mut Report) {}
}

fn add(report: &mut Report, event: &Event, kind: &str, cause: String, witness: Option<EventId>) {
    let witnesses = witness.into_iter().chain([event.id]).collect();
    report.findings.add(Breach {
        checker: ID,
        kind,
        cause,
        at: event.at,
        witnesses,
    });
}

impl LegalTransitions {
    fn host(&mut self, event: &Event, host: NodeId, state: HostState, report: &Report) {
        let forgot = report.model.disturbance.forgot_at(host) == Some(event.at);
        if forgot {
            self.agents.retain(|(node, _), _| *node != host);
        } else if state == HostState::Started {
            let own = self
                .agents
                .iter_mut()
                .filter(|((node, _), _)| *node == host);
            own.for_each(|(_, known)| known.restarted = true);
        }
    }

    fn forget_removed(&mut self, event: &Event, model: &Model) {
        for change in model.store.fresh_changes(event) {
            if let Change::TaskRemoved { task, .. } = change {
                self.agents.retain(|(_, known), _| known != task);
            }
        }
    }

    fn agent_moved(
        &mut self,
        event: &Event,
        host: NodeId,
        task: TaskId,
        from: TaskState,
        status: &TaskStatus,
        report: &mut Report,
    ) {
        let Some(record) = report.model.store.tasks.get(&task) else {
            return;
        };
        let known = Known {
            status: status.clone(),
            event: event.id,
            restarted: false,
        };
        let before = self.agents.insert((host, task), known);
        let stored = record.status.sequence;
        let found = match &before {
            Some(known) => moved_on(known, from, status, stored),
            None if report.model.disturbance.forgot_at(host).is_some() => None,
            None => first_move(from, status),
        };
        let Some((kind, what)) = owner_breach(status).or(found) else {
            return;
        };
        let cause = format!("{host} moved {task} {what}");
        add(report, event, &kind, cause, before.map(|known| known.event));
    }
}

fn owner_breach(status: &TaskStatus) -> Option<(String, String)> {
    let managers_own = [TaskState::Pending, TaskState::Assigned, TaskState::Lost];
    managers_own.contains(&status.state).then(|| {
        let kind = format!("agent-wrote-{}", status.state);
        (
            kind,
            format!("to {}, which only managers may", status.state),
        )
    })
}

fn first_move(from: TaskState, status: &TaskStatus) -> Option<(String, String)> {
    let mut assigned = TaskStatus::pending();
    assigned.state = TaskState::Assigned;
    if from != TaskState::Assigned {
        let kind = format!("agent-{from}-to-{}", status.state);
        return Some((kind, format!("from {from} as its first transition")));
    }
    step_breach("agent", &assigned, status)
}

fn moved_on(
    known: &Known,
    from: TaskState,
    status: &TaskStatus,
    stored: u64,
) -> Option<(String, String)> {
    let went_back = status.sequence <= known.status.sequence;
    if known.restarted && went_back && status.sequence > stored {
        let attempts = [status.attempt, status.attempt.saturating_sub(1)];
        let legal = attempts
            .iter()
            .any(|attempt| from.may_report(*attempt, status.state, status.attempt));
        return (!legal).then(|| illegal("agent", from, status));
    }
    if from != known.status.state {
        let kind = format!("agent-from-{from}-not-{}", known.status.state);
        return Some((
            kind,
            format!("from {from}, but it was {}", known.status.state),
        ));
    }
    step_breach("agent", &known.status, status)
}

/// The rule of one transition with a number.
fn step_breach(who: &str, before: &TaskStatus, after: &TaskStatus) -> Option<(String, String)> {
    if !before
        .state
        .may_report(before.attempt, after.state, after.attempt)
    {
        return Some(illegal(who, before.state, after));
    }
    (after.sequence != before.sequence + 1).then(|| {
        let what = format!("by transition {} after {}", after.sequence, before.sequence);
        (format!("{who}-sequence"), what)
    })
}

fn illegal(who: &str, from: TaskState, to: &TaskStatus) -> (String, String) {
    let what = format!("from {from} to {} (attempt {})", to.state, to.attempt);
    (format!("{who}-{from}-to-{}", to.state), what)
}

fn store_breach(step: &TaskStep) -> Option<(String, String, Option<EventId>)> {
    let (task, after) = (step.task, &step.after);
    let Some(before) = &step.before else {
        let new = matches!(after.status.state, TaskState::Pending | TaskState::Assigned)
            && step.from.is_none();
        let kind = format!("store-new-{}", after.status.state);
        return (!new).then(|| {
            (
                kind,
                format!("{task} appeared as {}", after.status.state),
                None,
            )
        });
    };
    let stated = step.from.is_some_and(|from| from != before.status.state);
    let found = identity_breach(before, after).or_else(|| status_breach(before, after));
    let (kind, what) = match found {
        None if stated => (
            "store-from-differs".to_owned(),
            "from a state that it was not in".into(),
        ),
        found => found?,
    };
    Some((
        kind,
        format!("the store moved {task} {what}"),
        Some(before.event),
    ))
}

fn identity_breach(before: &TaskRecord, after: &TaskRecord) -> Option<(String, String)> {
    let place = |record: &TaskRecord| (record.service.clone(), record.slot, record.generation);
    if before.node.is_some() && before.node != after.node {
        return Some(("store-node-changed".into(), "to another node".into()));
    }
    if place(before) != place(after) {
        return Some(("store-identity-changed".into(), "to another place".into()));
    }
    (before.desired > after.desired).then(|| {
        let what = format!("to desired {:?} after {:?}", after.desired, before.desired);
        ("store-desired-went-back".into(), what)
    })
}

fn status_breach(before: &TaskRecord, after: &TaskRecord) -> Option<(String, String)> {
    let (old, new) = (&before.status, &after.status);
    if old.sequence != new.sequence {
        return step_breach("store", old, new);
    }
    if (old.state, old.attempt) == (new.state, new.attempt) {
        return None;
    }
    let by_managers = matches!(new.state, TaskState::Assigned | TaskState::Lost)
        || matches!(old.state, TaskState::Pending | TaskState::Assigned);
    if by_managers && old.state.may_report(old.attempt, new.state, new.attempt) {
        return None;
    }
    Some(illegal("store", old.state, new))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Trace, exit, failed, removed, spec, status, task};
    use wavetank_model::{DesiredState, Reason};

    #[test]
    fn a_whole_life_passes() {
        let mut trace = Trace::started(&spec());
        let task = trace.up(1, 1);
        let unready = TaskStatus {
            ready: false,
            ..status(TaskState::Running, 1, 6)
        };
        trace.reported(1, &task, TaskState::Running, unready);
        let waits = TaskStatus {
            reason: Some(Reason::ExitedNonZero),
            exit: Some(exit(1)),
            ..status(TaskState::Backoff, 1, 7)
        };
        trace.reported(1, &task, TaskState::Running, waits);
        trace.reported(
            1,
            &task,
            TaskState::Backoff,
            status(TaskState::Creating, 2, 8),
        );
        let lost = TaskStatus {
            reason: Some(Reason::NodeDown),
            ..status(TaskState::Lost, 2, 8)
        };
        trace.apply(vec![task.change(Some(TaskState::Creating), lost)]);
        trace.apply(vec![removed(1)]);
        assert_eq!(trace.findings(&["I6"]), Vec::<String>::new());
    }

    #[test]
    fn an_end_before_the_start_fails_for_agent_and_store() {
        let mut trace = Trace::started(&spec());
        let task = trace.up(1, 1);
        let task2 = trace.up(2, 1);
        trace.moved(1, 1, TaskState::Running, status(TaskState::Creating, 1, 6));
        assert_eq!(trace.findings(&["I6"]), ["I6/agent-running-to-creating"]);
        trace.apply(vec![
            task.change(Some(TaskState::Running), status(TaskState::Pulling, 1, 6)),
        ]);
        let skipped = failed(Reason::ExitedNonZero, Some(exit(1)), 1, 9);
        trace.apply(vec![task2.change(Some(TaskState::Running), skipped)]);
        let found = trace.findings(&["I6"]);
        assert_eq!(
            found[1..],
            ["I6/store-running-to-pulling", "I6/store-sequence"]
        );
    }

    #[test]
    fn an_agent_may_redo_what_it_lost_but_not_what_it_reported() {
        let mut trace = Trace::started(&spec());
        let task = trace.up(1, 1);
        let ended = failed(Reason::ExitedNonZero, Some(exit(1)), 1, 6);
        trace.moved(1, 1, TaskState::Running, ended.clone());
        trace.host(NodeId::agent(1), HostState::Killed);
        trace.host(NodeId::agent(1), HostState::Started);
        trace.reported(1, &task, TaskState::Running, ended.clone());
        assert_eq!(trace.findings(&["I6"]), Vec::<String>::new());
        trace.host(NodeId::agent(1), HostState::Killed);
        trace.host(NodeId::agent(1), HostState::Started);
        trace.moved(1, 1, TaskState::Running, ended);
        assert_eq!(
            trace.findings(&["I6"]),
            ["I6/agent-from-running-not-failed"]
        );
    }

    #[test]
    fn a_task_keeps_its_node_and_its_end() {
        let mut trace = Trace::started(&spec());
        let known = trace.up(1, 1).desired(DesiredState::Shutdown);
        let running = status(TaskState::Running, 1, 5);
        trace.apply(vec![
            known.change(Some(TaskState::Running), running.clone()),
        ]);
        trace.apply(vec![
            task(1, 1).change(Some(TaskState::Running), running.clone()),
        ]);
        trace.apply(vec![task(1, 2).change(Some(TaskState::Running), running)]);
        let found = trace.findings(&["I6"]);
        assert_eq!(
            found,
            ["I6/store-desired-went-back", "I6/store-node-changed"]
        );
    }
}
