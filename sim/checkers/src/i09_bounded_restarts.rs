//! I9: restarts, replacements and kept records are bounded.
//!
//! Breaches:
//! - "too-many-restarts": a task's process is started more than `restarts_max + 1` times (once,
//!   where it is never to be restarted) without a run of `stable_after` in between;
//! - "restarted-too-soon": less than the backoff's base passes between an end and the next start;
//! - "replacement-storm": a slot gets new tasks faster than twice the rate of the shortest
//!   replacement backoff;
//! - "records-kept": at the end a slot has more finished tasks than `history_max` (at least one);
//!   "records-unbounded": at any time it has far more.
//!
//! Exemptions: an agent measures runs through polls and restarts of its own, so a run counts as
//! stable a little earlier, and always when the node was disturbed or a fault of the runtime was
//! in force meanwhile. A process that started again may not remember how long it has waited. Nodes
//! that lost their records start to count anew. Waits are not judged once clocks were touched.
//! Records are judged only where a leader had the time to remove them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use wavetank_model::{Change, NodeId, RestartCondition, RestartPolicy, ServiceName, TaskId};
use wavetank_scenario::plan::Plan;
use wavetank_trace::{Event, EventId, Payload, VirtualTime};

use crate::checker::{Breach, Checker, Report};
use crate::model::{Instance, Model};

const ID: &str = "I9";

/// The window in which new tasks of a slot are counted.
const WINDOW: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, Default)]
struct Starts {
    count: u32,
    events: Vec<EventId>,
}

/// See the file's header.
pub struct BoundedRestarts {
    starts: BTreeMap<(TaskId, NodeId), Starts>,
    created: BTreeMap<(ServiceName, u32), VecDeque<VirtualTime>>,
    per_window: usize,
    history_max: usize,
    poll: Duration,
    tidy: Duration,
}

impl BoundedRestarts {
    /// For a run of `plan`.
    pub fn new(plan: &Plan) -> Self {
        let timers = &plan.cluster.timers;
        let base = timers.replace_backoff.base.as_millis().max(1);
        let per_window = usize::try_from(2 * WINDOW.as_millis() / base).unwrap_or(usize::MAX);
        BoundedRestarts {
            starts: BTreeMap::new(),
            created: BTreeMap::new(),
            per_window: per_window.saturating_add(10),
            history_max: usize::try_from(timers.history_max.max(1)).unwrap_or(usize::MAX),
            poll: timers.status_poll + Duration::from_secs(2),
            tidy: timers.reconcile * 2 + Duration::from_secs(20),
        }
    }
}

impl Checker for BoundedRestarts {
    fn id(&self) -> &'static str {
        ID
    }

    fn observe(&mut self, event: &Event, report: &mut Report) {
        match (&event.payload, event.host) {
            (Payload::ContainerStarted { container, .. }, Some(host)) => {
                let found = report
                    .model
                    .containers
                    .of_container(host, container)
                    .cloned();
                if let Some(instance) = found.filter(|instance| instance.ordered) {
                    self.started(event, &instance, report);
                }
            }
            (Payload::Host { .. }, Some(host))
                if report.model.disturbance.forgot_at(host) == Some(event.at) =>
            {
                self.starts.retain(|(_, node), _| *node != host);
            }
            (Payload::Notice { .. }, _) => self.applied(event, report),
            _ => {}
        }
    }

    fn finish(&mut self, end: VirtualTime, report: &mut Report) {
        if !report.model.control_steady_for(self.tidy, end) {
            return;
        }
        let mut kept: BTreeMap<(ServiceName, u32), Vec<EventId>> = BTreeMap::new();
        for task in report.model.store.tasks.values() {
            let finished = task.status.state.is_terminal();
            if finished && end.since(task.state_since) > self.tidy {
                kept.entry((task.service.clone(), task.slot))
                    .or_default()
                    .push(task.event);
            }
        }
        for ((service, slot), witnesses) in kept {
            if witnesses.len() > self.history_max {
                let kept = witnesses.len();
                let cause = format!("slot {slot} of {service} keeps {kept} finished tasks");
                let kind = "records-kept";
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
}

impl BoundedRestarts {
    fn started(&mut self, event: &Event, instance: &Instance, report: &mut Report) {
        let model = &report.model;
        let task = model.store.tasks.get(&instance.id.task);
        let Some(spec) = task.and_then(|task| model.store.spec_of(task)) else {
            return;
        };
        let policy = spec.restart;
        let before = previous(model, instance);
        let starts = self
            .starts
            .entry((instance.id.task, instance.host))
            .or_default();
        if before.is_some_and(|before| was_stable(model, before, &policy, self.poll)) {
            *starts = Starts::default();
        }
        starts.count += 1;
        starts.events.push(event.id);
        let excess = starts.events.len().saturating_sub(8);
        starts.events.drain(..excess);
        let allowed = match policy.condition {
            RestartCondition::Never => 1,
            RestartCondition::OnFailure | RestartCondition::Always => policy.restarts_max + 1,
        };
        let id = instance.id;
        let mut found = Vec::new();
        if starts.count > allowed {
            let cause = format!(
                "{} was started {} times without a stable run, of {allowed}",
                id.task, starts.count
            );
            found.push(("too-many-restarts", cause, starts.events.clone()));
        }
        let soon = before.and_then(|before| too_soon(model, before, event.at, &policy));
        if let Some((gap, witness)) = soon {
            let cause = format!("{id} was started {gap:?} after the attempt before had ended");
            found.push(("restarted-too-soon", cause, vec![witness, event.id]));
        }
        for (kind, cause, witnesses) in found {
            report.findings.add(Breach {
                checker: ID,
                kind,
                cause,
                at: event.at,
                witnesses,
            });
        }
    }

    fn applied(&mut self, event: &Event, report: &mut Report) {
        let mut found = Vec::new();
        for step in report.model.store.steps() {
            let place = (step.after.service.clone(), step.after.slot);
            if step.before.is_none() {
                let times = self.created.entry(place.clone()).or_default();
                times.push_back(event.at);
                while times
                    .front()
                    .is_some_and(|first| event.at.since(*first) > WINDOW)
                {
                    times.pop_front();
                }
                if times.len() > self.per_window {
                    let cause = format!(
                        "slot {} of {} got {} new tasks within a minute",
                        place.1,
                        place.0,
                        times.len()
                    );
                    found.push(("replacement-storm", cause));
                }
                let tasks = report.model.store.tasks_of(&place.0);
                let finished = tasks
                    .filter(|(_, task)| task.slot == place.1 && task.status.state.is_terminal());
                let kept = finished.count();
                if kept > self.history_max * 2 + 8 {
                    let cause = format!(
                        "slot {} of {} keeps {kept} finished tasks",
                        place.1, place.0
                    );
                    found.push(("records-unbounded", cause));
                }
            }
        }
        for change in report.model.store.fresh_changes(event) {
            match change {
                Change::TaskRemoved { task, .. } => self.starts.retain(|(id, _), _| id != task),
                Change::ServiceRemoved { service } => {
                    self.created.retain(|(name, _), _| name != service);
                }
                _ => {}
            }
        }
        for (kind, cause) in found {
            let witnesses = vec![event.id];
            report.findings.add(Breach {
                checker: ID,
                kind,
                cause,
                at: event.at,
                witnesses,
            });
        }
    }
}

/// The container of the same task on the same node that ran before.
fn previous<'a>(model: &'a Model, instance: &Instance) -> Option<&'a Instance> {
    let siblings = model.containers.of_task(instance.id.task).iter();
    siblings
        .filter(|other| other.host == instance.host && other.id != instance.id)
        .filter(|other| other.started_at.is_some())
        .max_by_key(|other| other.started_at)
}

fn was_stable(model: &Model, run: &Instance, policy: &RestartPolicy, poll: Duration) -> bool {
    let (Some(started), Some(end)) = (run.started_at, run.end) else {
        return true;
    };
    let lasted = end.at.since(started) + poll;
    let steady = model
        .steady_since(run.host)
        .is_some_and(|since| since <= started);
    let runtime = |action: &str| action.starts_with("runtime") || action.starts_with("daemon");
    let quiet = model
        .disturbance
        .free_since(runtime)
        .is_some_and(|since| since <= started);
    lasted >= policy.stable_after || !steady || !quiet
}

fn too_soon(
    model: &Model,
    before: &Instance,
    now: VirtualTime,
    policy: &RestartPolicy,
) -> Option<(Duration, EventId)> {
    let end = before.end?;
    let gap = now.since(end.at);
    let remembers = model
        .steady_since(before.host)
        .is_some_and(|since| since <= end.at);
    let clocks = model.disturbance.ever(|action| action.starts_with("clock"));
    (remembers && !clocks && gap < policy.backoff.base * 9 / 10).then_some((gap, end.event))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Trace, exit, failed, millis, removed, seconds, spec, task};
    use wavetank_model::{Reason, TaskState, TaskStatus};
    use wavetank_trace::ExitCause;

    fn restarts(waits: &[Duration]) -> Trace {
        let mut trace = Trace::started(&spec());
        trace.up(1, 1);
        for (attempt, wait) in (2..).zip(waits) {
            trace
                .after(millis(100))
                .exited(1, 1, attempt - 1, exit(1), ExitCause::Itself);
            trace.deleted(1, 1, attempt - 1);
            trace.after(*wait).run(1, 1, attempt);
        }
        trace
    }

    #[test]
    fn restarts_within_the_budget_pass() {
        assert!(
            restarts(&[seconds(1), seconds(2)])
                .findings(&["I9"])
                .is_empty()
        );
    }

    #[test]
    fn one_restart_too_many_fails() {
        let trace = restarts(&[seconds(1), seconds(2), seconds(4)]);
        assert_eq!(trace.findings(&["I9"]), ["I9/too-many-restarts"]);
    }

    #[test]
    fn a_restart_without_a_wait_fails() {
        assert_eq!(
            restarts(&[millis(1)]).findings(&["I9"]),
            ["I9/restarted-too-soon"]
        );
    }

    #[test]
    fn a_storm_of_replacements_fails() {
        let mut trace = Trace::started(&spec());
        for id in 1..50 {
            let slot = task(id, 1).slot(1);
            trace
                .after(millis(100))
                .apply(vec![slot.change(None, TaskStatus::pending())]);
            trace.apply(vec![removed(id)]);
        }
        assert_eq!(trace.findings(&["I9"]), ["I9/replacement-storm"]);
    }

    #[test]
    fn records_that_pile_up_fail() {
        let mut trace = Trace::started(&spec());
        for id in 1..=3 {
            let slot = task(id, 1).slot(1);
            trace.apply(vec![slot.change(None, TaskStatus::pending())]);
            let end = failed(Reason::ExitedNonZero, None, 0, 0);
            trace
                .after(seconds(6))
                .apply(vec![slot.change(Some(TaskState::Pending), end)]);
        }
        trace.end();
        assert_eq!(trace.findings(&["I9"]), ["I9/records-kept"]);
    }
}
