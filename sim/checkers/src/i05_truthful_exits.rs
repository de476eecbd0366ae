//! I5: what is reported about the end of a process is what truly happened, and is written once.
//!
//! Looked at: `ExitObserved`, the exit in an agent's own transitions, and the exit in the store,
//! in the states that end an attempt (a status may carry the exit of an earlier attempt along).
//!
//! Breaches: a known code (or the out-of-memory flag) other than the true one; an exit of a
//! process that runs, or never existed; "unknown" although the runtime could have said; a time
//! of the end that is more than a second off; an exit that was reported and changes later.
//!
//! Exemptions: "unknown" is honest when the runtime has truly forgotten, when the machine lost
//! power, when a forced delete killed the process and left nothing to look at, and when the agent
//! lost its records. A missing time is always honest. What an agent said right before its process
//! died may never have been durable, and may be said again otherwise.

use std::collections::BTreeMap;
use std::time::Duration;

use wavetank_model::{Change, InstanceId, NodeId, Notice, TaskId, TaskState, TaskStatus};
use wavetank_port::{ExitCode, ExitStatus};
use wavetank_trace::{Event, EventId, ExitCause, Payload, VirtualTime};

use crate::checker::{Breach, Checker, Report};
use crate::model::{End, Instance, Model};

const ID: &str = "I5";

/// Clocks of a live world's observer and of its runtime may differ by this much.
const TIME_TOLERANCE: Duration = Duration::from_secs(1);

struct Said {
    exit: ExitStatus,
    at: VirtualTime,
    event: EventId,
}

/// Who says it: an agent, or the managers' store.
type Voice = Option<NodeId>;

/// See the file's header.
#[derive(Default)]
pub struct TruthfulExits {
    said: BTreeMap<(InstanceId, Voice), Said>,
}

impl Checker for TruthfulExits {
    fn id(&self) -> &'static str {
        ID
    }

    fn observe(&mut self, event: &Event, report: &mut Report) {
        let Payload::Notice { notice } = &event.payload else {
            return;
        };
        match notice {
            Notice::ExitObserved { instance, exit } => {
                if let Some(host) = event.host {
                    self.check(event, host, Some(host), *instance, *exit, report);
                }
            }
            Notice::TaskMoved { task, status, .. } => {
                if let (Some(host), Some((instance, exit))) = (event.host, ended(*task, status)) {
                    self.check(event, host, Some(host), instance, exit, report);
                }
            }
            Notice::Applied { .. } => self.applied(event, report),
            _ => {}
        }
    }

    fn finish(&mut self, _end: VirtualTime, _report: &mut Report) {}
}

/// The exit that a status claims for its own attempt.
fn ended(task: TaskId, status: &TaskStatus) -> Option<(InstanceId, ExitStatus)> {
    let ends = status.state == TaskState::Backoff || status.state.is_terminal();
    let exit = status
        .exit
        .filter(|_| ends && status.state != TaskState::Lost)?;
    Some((
        InstanceId {
            task,
            attempt: status.attempt,
        },
        exit,
    ))
}

impl TruthfulExits {
    fn applied(&mut self, event: &Event, report: &mut Report) {
        let steps: Vec<_> = report
            .model
            .store
            .steps()
            .iter()
            .filter_map(|step| {
                let (instance, exit) = ended(step.task, &step.after.status)?;
                Some((step.after.node?, instance, exit))
            })
            .collect();
        for (host, instance, exit) in steps {
            self.check(event, host, None, instance, exit, report);
        }
        for change in report.model.store.fresh_changes(event) {
            if let Change::TaskRemoved { task, .. } = change {
                self.said.retain(|(instance, _), _| instance.task != *task);
            }
        }
    }

    fn check(
        &mut self,
        event: &Event,
        host: NodeId,
        voice: Voice,
        instance: InstanceId,
        exit: ExitStatus,
        report: &mut Report,
    ) {
        let found = untrue(&report.model, host, instance, exit)
            .map(|(kind, cause, witness)| (kind, cause, witness.into_iter().collect()))
            .or_else(|| self.rewritten(event, voice, instance, exit, &report.model));
        let Some((kind, cause, mut witnesses)) = found else {
            return;
        };
        witnesses.push(event.id);
        report.findings.add(Breach {
            checker: ID,
            kind,
            cause,
            at: event.at,
            witnesses,
        });
    }

    fn rewritten(
        &mut self,
        event: &Event,
        voice: Voice,
        instance: InstanceId,
        exit: ExitStatus,
        model: &Model,
    ) -> Option<(&'static str, String, Vec<EventId>)> {
        if voice.is_some() && !model.store.tasks.contains_key(&instance.task) {
            return None;
        }
        let said = Said {
            exit,
            at: event.at,
            event: event.id,
        };
        let first = self.said.entry((instance, voice)).or_insert(said);
        if first.exit == exit {
            return None;
        }
        if voice.is_some_and(|host| is_void(model, host, first.at)) {
            *first = Said {
                exit,
                at: event.at,
                event: event.id,
            };
            return None;
        }
        let cause = format!(
            "the exit of {instance} was {} and became {}",
            said_as(first.exit),
            said_as(exit)
        );
        Some(("exit-rewritten", cause, vec![first.event]))
    }
}

/// Something said shortly before the sayer's process died, or before it lost its records.
fn is_void(model: &Model, host: NodeId, said_at: VirtualTime) -> bool {
    let died_soon = model
        .disturbance
        .died_at(host)
        .is_some_and(|died| died >= said_at && died.since(said_at) <= model.void_window());
    died_soon
        || model
            .disturbance
            .forgot_at(host)
            .is_some_and(|forgot| forgot >= said_at)
}

fn untrue(
    model: &Model,
    host: NodeId,
    id: InstanceId,
    exit: ExitStatus,
) -> Option<(&'static str, String, Option<EventId>)> {
    let truth = model.containers.find(host, id);
    if let Some((instance, end)) = truth.and_then(|found| Some((found, found.end?))) {
        let (kind, cause) = differs(model, instance, end, exit)?;
        return Some((kind, cause, Some(end.event)));
    }
    let earlier = |instance: &Instance| {
        let end = instance.end;
        end.is_some_and(|end| differs(model, instance, end, exit).is_none())
    };
    let carried = model.containers.of_task(id.task).iter().any(earlier);
    let known = truth.is_some()
        || (model.store.tasks.contains_key(&id.task)
            && model.containers.of_task(id.task).is_empty());
    if carried || !known || exit.code == ExitCode::Unknown {
        return None;
    }
    let cause = format!(
        "{id} is said to have ended with {}, but it has not ended",
        exit.code
    );
    Some(("exit-invented", cause, None))
}

fn differs(
    model: &Model,
    instance: &Instance,
    end: End,
    exit: ExitStatus,
) -> Option<(&'static str, String)> {
    let (id, truth) = (instance.id, end.exit);
    if exit.code == ExitCode::Unknown {
        let forced = end.because == ExitCause::Killed && !instance.exists();
        let forgot = model.disturbance.forgot_at(instance.host);
        let honest = instance.forgotten
            || truth.code == ExitCode::Unknown
            || end.because == ExitCause::PowerLoss
            || forced
            || forgot.is_some_and(|forgot| forgot >= end.at);
        let cause = format!(
            "the exit of {id} is said to be unknown; it was {}",
            truth.code
        );
        return (!honest).then_some(("exit-withheld", cause));
    }
    if exit.code != truth.code {
        let cause = format!(
            "{id} is said to have ended with {}; it was {}",
            exit.code, truth.code
        );
        return Some(("wrong-exit-code", cause));
    }
    if exit.oom_killed != truth.oom_killed {
        let cause = format!(
            "{id} is said to {}have been killed for memory",
            if exit.oom_killed { "" } else { "not " }
        );
        return Some(("wrong-oom-flag", cause));
    }
    let (said, true_at) = (exit.exited_at?, truth.exited_at?);
    let off = Duration::from_nanos(said.0.abs_diff(true_at.0));
    let cause = format!("the end of {id} is said to be {off:?} away from when it was");
    (off > TIME_TOLERANCE).then_some(("wrong-exit-time", cause))
}

fn said_as(exit: ExitStatus) -> String {
    let time = exit
        .exited_at
        .map_or("without a time".to_owned(), |at| format!("at {}", at.0));
    let memory = if exit.oom_killed {
        ", killed for memory"
    } else {
        ""
    };
    format!("{} {time}{memory}", exit.code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Trace, exit, failed, instance, spec, unknown_exit};
    use wavetank_model::Reason;

    /// A task ran and ended with 7; its agent says `said`.
    fn ended_with(said: ExitStatus, forgotten: bool) -> Trace {
        let mut trace = Trace::started(&spec());
        let task = trace.up(1, 1);
        trace.exited(1, 1, 1, exit(7), ExitCause::Itself);
        if forgotten {
            let container = crate::testing::container(1, 1);
            trace.push(
                Some(NodeId::agent(1)),
                Payload::ContainerExitForgotten { container },
            );
        }
        let instance = instance(1, 1);
        trace.notice(
            NodeId::agent(1),
            Notice::ExitObserved {
                instance,
                exit: said,
            },
        );
        let status = failed(Reason::ExitedNonZero, Some(said), 1, 6);
        trace.reported(1, &task, TaskState::Running, status);
        trace
    }

    #[test]
    fn the_truth_passes() {
        assert!(ended_with(exit(7), false).findings(&["I5"]).is_empty());
        assert!(
            ended_with(unknown_exit(), true)
                .findings(&["I5"])
                .is_empty()
        );
    }

    #[test]
    fn another_code_fails() {
        assert_eq!(
            ended_with(exit(0), false).findings(&["I5"]),
            ["I5/wrong-exit-code"]
        );
        assert_eq!(
            ended_with(exit(0), true).findings(&["I5"]),
            ["I5/wrong-exit-code"]
        );
    }

    #[test]
    fn unknown_without_need_fails() {
        assert_eq!(
            ended_with(unknown_exit(), false).findings(&["I5"]),
            ["I5/exit-withheld"]
        );
    }

    #[test]
    fn a_wrong_memory_flag_or_time_fails() {
        let oom = ExitStatus {
            oom_killed: true,
            ..exit(7)
        };
        assert_eq!(
            ended_with(oom, false).findings(&["I5"]),
            ["I5/wrong-oom-flag"]
        );
        let late = Some(wavetank_port::WallTime(9_000_000_000));
        let late = ExitStatus {
            exited_at: late,
            ..exit(7)
        };
        assert_eq!(
            ended_with(late, false).findings(&["I5"]),
            ["I5/wrong-exit-time"]
        );
    }

    #[test]
    fn an_exit_of_a_running_process_fails() {
        let mut trace = Trace::started(&spec());
        let task = trace.up(1, 1);
        let status = failed(Reason::ExitedNonZero, Some(exit(1)), 1, 6);
        trace.reported(1, &task, TaskState::Running, status);
        assert_eq!(trace.findings(&["I5"]), ["I5/exit-invented"]);
    }

    #[test]
    fn an_exit_that_changes_fails() {
        let mut trace = ended_with(exit(7), true);
        trace.after(Duration::from_secs(5));
        let (instance, exit) = (instance(1, 1), unknown_exit());
        trace.notice(NodeId::agent(1), Notice::ExitObserved { instance, exit });
        assert_eq!(trace.findings(&["I5"]), ["I5/exit-rewritten"]);
    }
}
