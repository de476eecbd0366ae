//! I12: a process gets its grace between SIGTERM and SIGKILL, and no more.
//!
//! Breaches: "killed-without-asking": SIGKILL for a process that was never asked to end;
//! "killed-before-grace": SIGKILL earlier than the service's `stop_grace` after it was first
//! asked; "wrong-grace": the agent grants less than the spec says; "grace-not-enforced": a process
//! that was asked to end still runs long after its grace.
//!
//! Asked means SIGTERM, or a stop call of the agent: a runtime that hangs may never deliver the
//! signal. Exemptions: containers without a task in the store, whose grace nobody knows; processes
//! that their agent never knew to run (a start that was given up and took effect all the same).
//! Clocks that run wrong make any wait shorter or longer, so no times are judged once a fault has
//! touched them. A grace that is not enforced is excused while the node is disturbed or a fault of
//! the runtime is in force, and until some time after: the runtime itself sends the SIGKILL.

use std::collections::BTreeMap;
use std::time::Duration;

use wavetank_model::{InstanceId, NodeId, Notice};
use wavetank_port::Signal;
use wavetank_scenario::plan::Plan;
use wavetank_trace::{Event, EventId, Payload, VirtualTime};

use crate::checker::{Breach, Checker, Report};
use crate::model::Model;

const ID: &str = "I12";

/// Timers of a live world's runtimes are no better than this.
const TOLERANCE: Duration = Duration::from_millis(20);

/// See the file's header.
pub struct StopGrace {
    slack: Duration,
    /// When each process that was asked to end must have ended.
    due: BTreeMap<(VirtualTime, NodeId, InstanceId), EventId>,
}

impl StopGrace {
    /// For a run of `plan`.
    pub fn new(plan: &Plan) -> Self {
        let slack = plan.cluster.timers.runtime_timeout * 3 + Duration::from_secs(10);
        StopGrace {
            slack,
            due: BTreeMap::new(),
        }
    }
}

impl Checker for StopGrace {
    fn id(&self) -> &'static str {
        ID
    }

    fn observe(&mut self, event: &Event, report: &mut Report) {
        match (&event.payload, event.host) {
            (Payload::ContainerSignalled { container, signal }, Some(host)) => {
                let Some(id) = InstanceId::of_container(container) else {
                    return;
                };
                match signal {
                    Signal::Terminate => self.terminated(event, host, id, &report.model),
                    Signal::Kill => killed(event, host, id, report),
                    Signal::Interrupt | Signal::HangUp | Signal::Other(_) => {}
                }
            }
            (
                Payload::Notice {
                    notice:
                        Notice::StopRequested {
                            instance, grace, ..
                        },
                },
                _,
            ) => {
                promised(event, *instance, *grace, report);
            }
            _ => {}
        }
        self.overdue(event.at, report);
    }

    fn finish(&mut self, end: VirtualTime, report: &mut Report) {
        self.overdue(end, report);
    }
}

/// The grace that an instance's spec promises.
fn grace_of(model: &Model, id: InstanceId) -> Option<Duration> {
    let task = model.store.tasks.get(&id.task)?;
    Some(model.store.spec_of(task)?.stop_grace)
}

fn clocks_were_touched(model: &Model) -> bool {
    model.disturbance.ever(|action| action.starts_with("clock"))
}

fn promised(event: &Event, id: InstanceId, grace: Duration, report: &mut Report) {
    let Some(wanted) = grace_of(&report.model, id).filter(|wanted| grace < *wanted) else {
        return;
    };
    report.findings.add(Breach {
        checker: ID,
        kind: "wrong-grace",
        cause: format!("{id} is given {grace:?} to stop instead of {wanted:?}"),
        at: event.at,
        witnesses: vec![event.id],
    });
}

fn killed(event: &Event, host: NodeId, id: InstanceId, report: &mut Report) {
    let model = &report.model;
    let Some(grace) = grace_of(model, id) else {
        return;
    };
    let Some(instance) = model.containers.find(host, id) else {
        return;
    };
    let (kind, cause) = match instance.asked_at {
        // A start that was given up may take effect just before its container is removed.
        None if !was_called_running(model, host, id) => return,
        None => (
            "killed-without-asking",
            format!("{id} was killed without being asked to end"),
        ),
        Some(asked) => {
            let waited = event.at.since(asked);
            if clocks_were_touched(model) || waited + TOLERANCE >= grace {
                return;
            }
            let cause = format!("{id} was killed after {waited:?} of its {grace:?}");
            ("killed-before-grace", cause)
        }
    };
    let witnesses = vec![event.id];
    report.findings.add(Breach {
        checker: ID,
        kind,
        cause,
        at: event.at,
        witnesses,
    });
}

fn was_called_running(model: &Model, host: NodeId, id: InstanceId) -> bool {
    let ran = model
        .agents
        .get(host)
        .and_then(|agent| agent.ran.get(&id.task));
    ran == Some(&id.attempt)
}

impl StopGrace {
    fn terminated(&mut self, event: &Event, host: NodeId, id: InstanceId, model: &Model) {
        if let Some(grace) = grace_of(model, id) {
            self.due
                .insert((event.at + grace + self.slack, host, id), event.id);
        }
    }

    fn overdue(&mut self, now: VirtualTime, report: &mut Report) {
        while let Some(entry) = self.due.first_entry().filter(|entry| entry.key().0 < now) {
            let ((due, host, id), witness) = entry.remove_entry();
            let model = &report.model;
            let live = model
                .containers
                .find(host, id)
                .is_some_and(|found| found.is_live());
            if !live || clocks_were_touched(model) {
                continue;
            }
            if !self.was_quiet(host, now, model) {
                self.due.insert((now + self.slack, host, id), witness);
                continue;
            }
            report.findings.add(Breach {
                checker: ID,
                kind: "grace-not-enforced",
                cause: format!(
                    "{id} was asked to end and still runs, {:?} late",
                    now.since(due)
                ),
                at: now,
                witnesses: vec![witness],
            });
        }
    }

    fn was_quiet(&self, host: NodeId, now: VirtualTime, model: &Model) -> bool {
        let runtime = |action: &str| action.starts_with("runtime") || action.starts_with("daemon");
        let free = model.disturbance.free_since(runtime);
        model.steady_for(host, self.slack, now)
            && free
                .is_some_and(|since| since == VirtualTime::ZERO || now.since(since) >= self.slack)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Trace, exit, seconds, spec};
    use wavetank_model::Reason;
    use wavetank_trace::ExitCause;

    fn killed_after(wait: Option<Duration>) -> Trace {
        let mut trace = Trace::started(&spec());
        trace.up(1, 1);
        trace.stop_requested(1, 1, 1, Reason::TerminatedByOperator);
        if let Some(wait) = wait {
            trace.signal(1, 1, 1, Signal::Terminate);
            trace.after(wait);
        }
        trace.signal(1, 1, 1, Signal::Kill);
        trace.exited(1, 1, 1, exit(137), ExitCause::Killed);
        trace.end();
        trace
    }

    #[test]
    fn a_kill_after_the_grace_passes() {
        assert!(
            killed_after(Some(seconds(10)))
                .findings(&["I12"])
                .is_empty()
        );
    }

    #[test]
    fn a_kill_before_the_grace_or_unasked_fails() {
        let early = killed_after(Some(seconds(9)));
        assert_eq!(early.findings(&["I12"]), ["I12/killed-before-grace"]);
        assert_eq!(
            killed_after(None).findings(&["I12"]),
            ["I12/killed-without-asking"]
        );
    }

    #[test]
    fn a_process_that_outlives_its_grace_fails() {
        let mut trace = Trace::started(&spec());
        trace.up(1, 1);
        trace.signal(1, 1, 1, Signal::Terminate);
        trace.end();
        assert_eq!(trace.findings(&["I12"]), ["I12/grace-not-enforced"]);
    }

    #[test]
    fn less_grace_than_promised_fails() {
        let mut generous = spec();
        generous.stop_grace = seconds(30);
        let mut trace = Trace::started(&generous);
        trace.up(1, 1);
        trace.stop_requested(1, 1, 1, Reason::TerminatedByOperator);
        assert_eq!(trace.findings(&["I12"]), ["I12/wrong-grace"]);
    }
}
