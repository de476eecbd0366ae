//! I14: every transition that an agent makes reaches the store once and in order, and nothing
//! reaches the store that no agent has made.
//!
//! Breaches: "transition-skipped": the store goes on to a transition that is not the next one;
//! "report-invented": the store has a transition that the task's agent never made, or made
//! otherwise; "acknowledged-not-committed": an agent is told that a transition is committed that
//! the store does not have; "report-swallowed": the store is further than the task's agent, whose
//! news it therefore takes for repetition; at the end "transition-unreported" and
//! "transition-unacknowledged" for agents that had the time to report.
//!
//! Exemptions: tasks that the store has finished with, lost or forgotten: reports about them are
//! acknowledged and ignored. What an agent did right before its process died may never have been
//! durable. Agents that lost their records, or were disturbed near the end, owe nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use wavetank_model::{Change, NodeId, Notice, TaskId, TaskState, TaskStatus};
use wavetank_trace::{Event, EventId, Payload, VirtualTime};

use crate::checker::{Breach, Checker, Report};
use crate::model::{Model, TaskStep, is_death};

const ID: &str = "I14";

struct Made {
    status: TaskStatus,
    at: VirtualTime,
    event: EventId,
    void: bool,
}

struct Journal {
    host: NodeId,
    /// By number; usually one, more if a process that died did it again otherwise.
    made: BTreeMap<u64, Vec<Made>>,
    acknowledged: u64,
}

/// See the file's header.
#[derive(Default)]
pub struct CompleteReports {
    journals: BTreeMap<TaskId, Journal>,
}

impl Checker for CompleteReports {
    fn id(&self) -> &'static str {
        ID
    }

    fn observe(&mut self, event: &Event, report: &mut Report) {
        match (&event.payload, event.host) {
            (
                Payload::Notice {
                    notice: Notice::TaskMoved { task, status, .. },
                },
                Some(host),
            ) if report.model.store.tasks.contains_key(task) => {
                self.moved(event, host, *task, status);
            }
            (
                Payload::Notice {
                    notice: Notice::Applied { .. },
                },
                _,
            ) => self.applied(event, report),
            (
                Payload::Notice {
                    notice: Notice::ReportAcknowledged { task, sequence },
                },
                Some(host),
            ) => {
                self.acknowledged(event, host, *task, *sequence, report);
            }
            (Payload::Host { state, .. }, Some(host)) if is_death(*state) => {
                self.died(event, host, &report.model);
            }
            _ => {}
        }
    }

    fn finish(&mut self, end: VirtualTime, report: &mut Report) {
        let slack = slack(&report.model);
        let judged = report.model.settle_at.is_some()
            && report.model.control_steady_for(slack, end)
            && !report.model.disturbance.silent_fault_in_force();
        if !judged {
            return;
        }
        let mut found = Vec::new();
        for (task, journal) in &self.journals {
            if report.model.steady_for(journal.host, slack, end) {
                found.extend(overdue(&report.model, *task, journal, end, slack));
            }
        }
        for (kind, cause, witness) in found {
            let witnesses = vec![witness];
            report.findings.add(Breach {
                checker: ID,
                kind,
                cause,
                at: end,
                witnesses,
            });
        }
    }
}

fn slack(model: &Model) -> Duration {
    let timers = &model.plan.cluster.timers;
    let slack = timers.request_retry * 5 + timers.session_timeout * 2 + Duration::from_secs(20);
    slack.min(model.plan.settle.saturating_sub(Duration::from_secs(5)))
}

fn overdue(
    model: &Model,
    task: TaskId,
    journal: &Journal,
    end: VirtualTime,
    slack: Duration,
) -> Option<(&'static str, String, EventId)> {
    let record = model.store.tasks.get(&task)?;
    if record.status.state.is_terminal() || record.node != Some(journal.host) {
        return None;
    }
    let ripe = |made: &&Made| !made.void && end.since(made.at) > slack;
    let newest = journal
        .made
        .iter()
        .rev()
        .find_map(|(number, made)| Some((*number, made.iter().find(ripe)?.event)));
    let (number, witness) = newest?;
    let stored = record.status.sequence;
    if number > stored {
        let cause = format!("transition {number} of {task} never reached the store ({stored})");
        return Some(("transition-unreported", cause, witness));
    }
    (number > journal.acknowledged).then(|| {
        let cause = format!(
            "{} still waits to hear of transition {number} of {task}",
            journal.host
        );
        ("transition-unacknowledged", cause, witness)
    })
}

impl CompleteReports {
    fn moved(&mut self, event: &Event, host: NodeId, task: TaskId, status: &TaskStatus) {
        let journal = self.journals.entry(task).or_insert_with(|| Journal {
            host,
            made: BTreeMap::new(),
            acknowledged: 0,
        });
        journal.host = host;
        let made = Made {
            status: status.clone(),
            at: event.at,
            event: event.id,
            void: false,
        };
        journal.made.entry(status.sequence).or_default().push(made);
    }

    fn applied(&mut self, event: &Event, report: &mut Report) {
        let mut found = Vec::new();
        for step in report.model.store.steps() {
            let before = step.before.as_ref().map_or(0, |task| task.status.sequence);
            if step.after.status.sequence > before {
                found.extend(self.reported(&report.model, step, before));
            }
        }
        for change in report.model.store.fresh_changes(event) {
            if let Change::TaskRemoved { task, .. } = change {
                self.journals.remove(task);
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

    fn reported(
        &mut self,
        model: &Model,
        step: &TaskStep,
        before: u64,
    ) -> Option<(&'static str, String, Option<EventId>)> {
        let (task, status) = (step.task, &step.after.status);
        let host = step.after.node?;
        let number = status.sequence;
        let journal = self.journals.get_mut(&task);
        let (known, witness) = match &journal {
            Some(journal) => {
                let made = journal.made.get(&number).map_or(&[][..], Vec::as_slice);
                (
                    made.iter().any(|made| same(&made.status, status)),
                    made.first().map(|m| m.event),
                )
            }
            None => (false, None),
        };
        if let Some(journal) = journal {
            // The newest one is kept: whether it is acknowledged is still to be seen.
            journal.made = journal.made.split_off(&number);
        }
        let forgot = model.disturbance.forgot_at(host).is_some();
        if number > before + 1 && !forgot {
            let cause = format!("the store went from transition {before} of {task} to {number}");
            return Some(("transition-skipped", cause, witness));
        }
        (!known && !forgot).then(|| {
            let cause = format!(
                "the store has transition {number} of {task} to {}, which {host} never made",
                status.state
            );
            ("report-invented", cause, witness)
        })
    }

    fn acknowledged(
        &mut self,
        event: &Event,
        host: NodeId,
        task: TaskId,
        sequence: u64,
        report: &mut Report,
    ) {
        if let Some(journal) = self.journals.get_mut(&task) {
            journal.acknowledged = journal.acknowledged.max(sequence);
        }
        let Some(record) = report.model.store.tasks.get(&task) else {
            return;
        };
        let stored = record.status.sequence;
        let open = record.node == Some(host) && !record.status.state.is_terminal();
        let made = self
            .journals
            .get(&task)
            .and_then(|it| it.made.last_key_value());
        if let Some((newest, made)) = made.filter(|(newest, _)| open && **newest < stored) {
            report.findings.add(Breach {
                checker: ID,
                kind: "report-swallowed",
                cause: format!(
                    "{host} was told that transition {sequence} of {task} is committed; it is at \
                     {newest}, and the store was at {stored} before: news was taken for repetition"
                ),
                at: event.at,
                witnesses: made.iter().map(|it| it.event).chain([event.id]).collect(),
            });
        }
        let forgot = report.model.disturbance.forgot_at(host).is_some();
        if open && stored < sequence && !forgot {
            report.findings.add(Breach {
                checker: ID,
                kind: "acknowledged-not-committed",
                cause: format!(
                    "{host} was told that transition {sequence} of {task} is committed; the store \
                     is at {stored}"
                ),
                at: event.at,
                witnesses: vec![record.event, event.id],
            });
        }
    }

    fn died(&mut self, event: &Event, host: NodeId, model: &Model) {
        if model.disturbance.forgot_at(host) == Some(event.at) {
            self.journals.retain(|_, journal| journal.host != host);
            return;
        }
        let window = model.void_window();
        let own = self
            .journals
            .values_mut()
            .filter(|journal| journal.host == host);
        for made in own.flat_map(|journal| journal.made.values_mut()).flatten() {
            made.void |= event.at.since(made.at) <= window;
        }
    }
}

/// The message is for people; everything else must arrive as it was sent.
fn same(one: &TaskStatus, other: &TaskStatus) -> bool {
    let core = |status: &TaskStatus| {
        let ready = status.ready && status.state == TaskState::Running;
        (
            status.state,
            status.attempt,
            ready,
            status.reason,
            status.exit,
        )
    };
    core(one) == core(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Trace, exit, failed, spec, status};
    use wavetank_model::Reason;
    use wavetank_trace::HostState;

    #[test]
    fn a_reported_life_passes() {
        let mut trace = Trace::started(&spec());
        trace.up(1, 1);
        trace.end();
        assert_eq!(trace.findings(&["I14"]), Vec::<String>::new());
    }

    #[test]
    fn a_skipped_or_invented_transition_fails() {
        let mut trace = Trace::started(&spec());
        let task = trace.up(1, 1);
        let ended = failed(Reason::ExitedNonZero, Some(exit(1)), 1, 6);
        trace.apply(vec![task.change(Some(TaskState::Running), ended)]);
        assert_eq!(trace.findings(&["I14"]), ["I14/report-invented"]);
        let mut trace = Trace::started(&spec());
        let task = trace.up(1, 1);
        trace.moved(1, 1, TaskState::Running, status(TaskState::Stopping, 1, 6));
        trace.reported(
            1,
            &task,
            TaskState::Stopping,
            status(TaskState::Shutdown, 1, 7),
        );
        assert_eq!(trace.findings(&["I14"]), ["I14/transition-skipped"]);
    }

    #[test]
    fn an_agent_that_counts_anew_and_is_not_heard_fails() {
        let mut trace = Trace::started(&spec());
        trace.up(1, 1);
        trace.host(NodeId::agent(1), HostState::Wiped);
        trace.moved(1, 1, TaskState::Assigned, status(TaskState::Accepted, 1, 1));
        trace.acknowledged(1, 1, 1);
        assert_eq!(trace.findings(&["I14"]), ["I14/report-swallowed"]);
    }

    #[test]
    fn a_transition_that_is_never_reported_fails_unless_it_was_lost_with_its_process() {
        let mut trace = Trace::started(&spec());
        trace.up(1, 1);
        trace.moved(1, 1, TaskState::Running, status(TaskState::Stopping, 1, 6));
        let mut lost = Trace {
            events: trace.events.clone(),
            now: trace.now,
            ..Trace::default()
        };
        trace.end();
        assert_eq!(trace.findings(&["I14"]), ["I14/transition-unreported"]);
        lost.host(NodeId::agent(1), HostState::Killed);
        lost.host(NodeId::agent(1), HostState::Started);
        lost.end();
        assert_eq!(lost.findings(&["I14"]), Vec::<String>::new());
    }

    #[test]
    fn an_early_or_missing_acknowledgement_fails() {
        let mut trace = Trace::started(&spec());
        trace.up(1, 1);
        trace.acknowledged(1, 1, 6);
        assert_eq!(trace.findings(&["I14"]), ["I14/acknowledged-not-committed"]);
        let mut trace = Trace::started(&spec());
        trace.up(2, 1);
        let unready = TaskStatus {
            ready: false,
            ..status(TaskState::Running, 1, 6)
        };
        trace.moved(1, 2, TaskState::Running, unready.clone());
        let known = crate::testing::task(2, 1);
        trace.apply(vec![known.change(Some(TaskState::Running), unready)]);
        trace.end();
        assert_eq!(trace.findings(&["I14"]), ["I14/transition-unacknowledged"]);
    }
}
