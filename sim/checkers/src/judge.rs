//! Runs the checkers that a plan names over a trace and comes to a verdict. Judges nothing itself.

use std::collections::{BTreeMap, BTreeSet};

use wavetank_scenario::checks;
use wavetank_scenario::plan::Plan;
use wavetank_trace::{Event, FaultState, Payload, Phase, VirtualTime};

use crate::checker::{Checker, Report};
use crate::expect::{self, Expectations};
use crate::finding::{FaultOutcome, FaultSummary, Finding, Judgement, Verdict};
use crate::registry;

/// Judges one run. Feed it every event in order, then ask.
pub struct Judge {
    checkers: Vec<Box<dyn Checker>>,
    expectations: Expectations,
    report: Report,
    faults: FaultLog,
    must_fail: BTreeSet<String>,
    active_fault: Option<String>,
    now: VirtualTime,
}

impl Judge {
    /// A judge with the checkers that the plan names in `invariants` and `fails`, and its
    /// expectations.
    pub fn new(plan: &Plan) -> Self {
        let mut report = Report::new(plan);
        let named = plan.expect.invariants.iter().chain(&plan.expect.fails);
        let wanted = canonical(named, &mut report.inconclusive);
        let checkers = registry::CHECKERS
            .iter()
            .filter(|(id, _)| wanted.contains(*id))
            .map(|(_, constructor)| constructor(plan))
            .collect();
        let must_fail = canonical(plan.expect.fails.iter(), &mut BTreeSet::new());
        Judge {
            checkers,
            expectations: Expectations::new(plan, &expect::compile),
            report,
            faults: FaultLog::new(plan),
            must_fail,
            active_fault: None,
            now: VirtualTime::ZERO,
        }
    }

    /// Looks at the next event.
    pub fn observe(&mut self, event: &Event) {
        self.now = event.at;
        self.faults.observe(event);
        self.report.advance(event);
        let before = self.report.findings.all().len();
        for checker in &mut self.checkers {
            checker.observe(event, &mut self.report);
        }
        self.expectations.observe(event, &mut self.report);
        self.note_active_fault(before);
    }

    /// Ends the run and judges it.
    pub fn finish(mut self) -> Judgement {
        let before = self.report.findings.all().len();
        for checker in &mut self.checkers {
            checker.finish(self.now, &mut self.report);
        }
        self.expectations.finish(self.now, &mut self.report);
        self.note_active_fault(before);
        let mut inconclusive: Vec<String> = self.report.inconclusive.iter().cloned().collect();
        inconclusive.extend(self.faults.doubts());
        if self.report.model.settle_at.is_none() {
            inconclusive.push("the run ended before its settle phase".to_owned());
        }
        let findings = self.report.findings.into_vec();
        let verdict = verdict(&findings, &self.must_fail, &inconclusive);
        let faults = self.faults.outcomes;
        Judgement {
            verdict,
            findings,
            faults,
            inconclusive,
            active_fault: self.active_fault,
        }
    }

    fn note_active_fault(&mut self, findings_before: usize) {
        if findings_before == 0 && !self.report.findings.all().is_empty() {
            self.active_fault = self.faults.newest_in_force();
        }
    }
}

/// Ids of the checkers that `names` stand for; expectations may be named as well.
fn canonical<'a>(
    names: impl Iterator<Item = &'a String>,
    doubts: &mut BTreeSet<String>,
) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    for name in names {
        match checks::find(name) {
            Some(check) => drop(ids.insert(check.id.to_owned())),
            None if matches!(name.as_str(), "eventually" | "never") => {
                ids.insert(name.clone());
            }
            None => drop(doubts.insert(format!("there is no checker `{name}`"))),
        }
    }
    ids
}

/// A plan without `fails` passes without findings. A known-bad plan passes if each checker that
/// it names found something and no other did.
fn verdict(findings: &[Finding], must_fail: &BTreeSet<String>, doubts: &[String]) -> Verdict {
    let unexpected = findings
        .iter()
        .any(|finding| !must_fail.contains(&finding.checker));
    let missing = must_fail
        .iter()
        .any(|id| !findings.iter().any(|found| found.checker == *id));
    if unexpected || missing {
        Verdict::Fail
    } else if !doubts.is_empty() {
        Verdict::Inconclusive
    } else {
        Verdict::Pass
    }
}

/// What became of the plan's faults.
struct FaultLog {
    outcomes: Vec<FaultOutcome>,
    in_force: BTreeMap<u32, VirtualTime>,
    lasting: BTreeSet<u32>,
}

impl FaultLog {
    fn new(plan: &Plan) -> Self {
        let outcome = |(number, fault): (usize, &wavetank_scenario::plan::Fault)| FaultOutcome {
            fault: u32::try_from(number).unwrap_or(u32::MAX),
            name: fault.name.clone(),
            action: String::new(),
            state: FaultSummary::NeverFired,
            fired_at: None,
            healed_at: None,
            optional: fault.optional,
            detail: String::new(),
        };
        FaultLog {
            outcomes: plan.faults.iter().enumerate().map(outcome).collect(),
            in_force: BTreeMap::new(),
            lasting: (0..)
                .zip(&plan.faults)
                .filter(|(_, fault)| !fault.heals)
                .map(|(number, _)| number)
                .collect(),
        }
    }

    fn observe(&mut self, event: &Event) {
        if matches!(
            event.payload,
            Payload::Phase {
                phase: Phase::Settle
            }
        ) {
            self.in_force
                .retain(|fault, _| self.lasting.contains(fault));
        }
        let Payload::Fault {
            fault,
            action,
            state,
            detail,
            ..
        } = &event.payload
        else {
            return;
        };
        let slot = usize::try_from(*fault)
            .ok()
            .and_then(|index| self.outcomes.get_mut(index));
        let Some(outcome) = slot else { return };
        outcome.action.clone_from(action);
        if !detail.is_empty() {
            outcome.detail.clone_from(detail);
        }
        match state {
            FaultState::Armed => {}
            FaultState::Fired => {
                outcome.state = outcome.state.max(FaultSummary::Fired);
                outcome.fired_at.get_or_insert(event.at);
                self.in_force.insert(*fault, event.at);
            }
            FaultState::Hit => outcome.state = FaultSummary::Hit,
            FaultState::Healed => {
                outcome.healed_at = Some(event.at);
                self.in_force.remove(fault);
            }
            FaultState::NotApplied => outcome.state = FaultSummary::NotApplied,
        }
    }

    /// Faults of swarms are drawn, not demanded: the run is conclusive without them.
    fn doubts(&self) -> Vec<String> {
        let demanded = self.outcomes.iter().filter(|outcome| !outcome.optional);
        demanded
            .filter_map(|outcome| match outcome.state {
                FaultSummary::NeverFired => Some(format!("fault `{}` never fired", outcome.name)),
                FaultSummary::NotApplied => {
                    Some(format!("this world cannot do fault `{}`", outcome.name))
                }
                FaultSummary::Fired | FaultSummary::Hit => None,
            })
            .collect()
    }

    fn newest_in_force(&self) -> Option<String> {
        let newest = self
            .in_force
            .iter()
            .max_by_key(|(fault, at)| (**at, **fault))?;
        let index = usize::try_from(*newest.0).ok()?;
        self.outcomes.get(index).map(|outcome| outcome.name.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::CHECKERS;
    use crate::testing::{Trace, exit, failed, millis, node, plan, removed, seconds, spec, status};
    use wavetank_model::{
        Change, DesiredState, NodeId, NodeStatus, Notice, Operation, Outcome, Reason, TaskState,
        TaskStatus,
    };
    use wavetank_port::Signal;
    use wavetank_scenario::plan::{Action, Fault, Target, Trigger};
    use wavetank_trace::{ExitCause, HostState};

    fn all() -> Vec<&'static str> {
        CHECKERS.iter().map(|(id, _)| *id).collect()
    }

    fn fault(name: &str, optional: bool) -> Fault {
        Fault {
            name: name.into(),
            action: Action::ProcessKill,
            target: Target::Leader,
            trigger: Trigger::At(seconds(1)),
            duration: None,
            heals: true,
            optional,
        }
    }

    /// Deploys, a crash with a restart, an operator's stop of one task, a lost node, a failover,
    /// clients: everything goes as it should.
    fn rich() -> Trace {
        let mut trace = Trace::started(&spec());
        let deploy = trace.invoked(1, Operation::Deploy { spec: spec() });
        let revision = trace.apply(vec![crate::testing::service(&spec())]);
        trace.returned(deploy, Ok(Outcome::Done { revision }));
        let first = trace.up(1, 1);
        crash_and_restart(&mut trace, &first);
        let second = trace.up(2, 2);
        replace(&mut trace, first);
        let put = Operation::Put {
            key: "k".into(),
            value: "v".into(),
            claim: None,
        };
        let request = trace.invoked(2, put);
        let (key, value) = ("k".to_owned(), "v".to_owned());
        let entry = Change::Entry {
            key,
            value,
            lease: None,
            token: None,
            holder: None,
        };
        let revision = trace.apply(vec![entry]);
        trace.returned(request, Ok(Outcome::Done { revision }));
        trace.fault("process-kill", FaultState::Fired, &[NodeId::manager(2)]);
        trace.host(NodeId::manager(2), HostState::Killed);
        trace
            .after(seconds(5))
            .host(NodeId::manager(2), HostState::Started);
        trace.fault("process-kill", FaultState::Healed, &[]);
        lose_node(&mut trace, &second);
        trace.end();
        trace
    }

    fn crash_and_restart(trace: &mut Trace, task: &crate::testing::Task) {
        trace
            .after(seconds(2))
            .exited(1, 1, 1, exit(3), ExitCause::Itself);
        let instance = crate::testing::instance(1, 1);
        trace.notice(
            NodeId::agent(1),
            Notice::ExitObserved {
                instance,
                exit: exit(3),
            },
        );
        let waits = TaskStatus {
            reason: Some(Reason::ExitedNonZero),
            exit: Some(exit(3)),
            ..status(TaskState::Backoff, 1, 6)
        };
        trace.reported(1, task, TaskState::Running, waits);
        trace.after(seconds(1));
        trace.deleted(1, 1, 1);
        trace.reported(
            1,
            task,
            TaskState::Backoff,
            status(TaskState::Creating, 2, 7),
        );
        trace.create(1, 1, 2, &[]);
        trace.reported(
            1,
            task,
            TaskState::Creating,
            status(TaskState::Starting, 2, 8),
        );
        trace.start(1, 1, 2);
        trace.reported(
            1,
            task,
            TaskState::Starting,
            status(TaskState::Running, 2, 9),
        );
    }

    fn replace(trace: &mut Trace, task: crate::testing::Task) {
        let task = task.desired(DesiredState::Shutdown);
        let running = status(TaskState::Running, 2, 9);
        let revision = trace.apply(vec![task.change(Some(TaskState::Running), running)]);
        trace.after(millis(10)).accepted(1, revision);
        trace.stop_requested(1, 1, 2, Reason::Superseded);
        trace.reported(
            1,
            &task,
            TaskState::Running,
            status(TaskState::Stopping, 2, 10),
        );
        trace.called(1, "stop", &crate::testing::container(1, 2));
        trace.signal(1, 1, 2, Signal::Terminate);
        trace
            .after(millis(50))
            .exited(1, 1, 2, exit(143), ExitCause::Terminated);
        let ended = TaskStatus {
            exit: Some(exit(143)),
            ..status(TaskState::Shutdown, 2, 11)
        };
        trace.reported(1, &task, TaskState::Stopping, ended);
        trace.deleted(1, 1, 2);
        trace.apply(vec![removed(1)]);
    }

    fn lose_node(trace: &mut Trace, task: &crate::testing::Task) {
        trace
            .after(seconds(50))
            .host(NodeId::agent(2), HostState::PowerLost);
        let container = crate::testing::container(2, 1);
        let agent = Some(NodeId::agent(2));
        trace.exited(2, 2, 1, exit(137), ExitCause::PowerLoss);
        trace.push(agent, Payload::ContainerExitForgotten { container });
        trace.after(seconds(31));
        let lost = TaskStatus {
            reason: Some(Reason::NodeDown),
            ..status(TaskState::Lost, 1, 5)
        };
        let lost = task.change(Some(TaskState::Running), lost);
        trace.apply(vec![node(2, NodeStatus::Down), lost]);
        trace.after(seconds(6)).up(3, 1);
        trace.host(NodeId::agent(2), HostState::Started);
        trace.deleted(2, 2, 1);
        trace.apply(vec![node(2, NodeStatus::Ready)]);
    }

    #[test]
    fn a_rich_run_passes_every_checker() {
        let mut plan = plan(&all());
        plan.faults = vec![fault("kill", false)];
        let judgement = rich().judge(&plan);
        assert_eq!(judgement.findings, Vec::new());
        assert_eq!(
            (judgement.verdict, judgement.inconclusive),
            (Verdict::Pass, vec![])
        );
        assert_eq!(judgement.faults[0].state, FaultSummary::Fired);
        assert!(judgement.faults[0].healed_at > judgement.faults[0].fired_at);
    }

    #[test]
    fn a_judgement_survives_serialisation() {
        let mut trace = rich();
        trace.lead(2, 1);
        let judgement = trace.judge(&plan(&all()));
        let text = serde_json::to_string(&judgement).unwrap_or_default();
        assert_eq!(
            serde_json::from_str::<Judgement>(&text).ok(),
            Some(judgement)
        );
    }

    #[test]
    fn a_known_bad_plan_passes_only_on_its_own_findings() {
        let mut trace = rich();
        trace.lead(2, 1);
        let mut plan = plan(&all());
        assert_eq!(trace.judge(&plan).verdict, Verdict::Fail);
        plan.expect.fails = vec!["effective-leader".into()];
        assert_eq!(trace.judge(&plan).verdict, Verdict::Pass);
        assert_eq!(rich().judge(&plan).verdict, Verdict::Fail);
        plan.expect.fails = vec!["I4".into()];
        assert_eq!(trace.judge(&plan).verdict, Verdict::Fail);
    }

    #[test]
    fn a_demanded_fault_that_never_fires_is_inconclusive() {
        let mut plan = plan(&all());
        plan.faults = vec![
            fault("kill", false),
            fault("drawn", true),
            fault("late", false),
        ];
        let judgement = rich().judge(&plan);
        assert_eq!(judgement.verdict, Verdict::Inconclusive);
        assert_eq!(judgement.inconclusive, ["fault `late` never fired"]);
        assert_eq!(judgement.faults[1].state, FaultSummary::NeverFired);
    }

    #[test]
    fn the_fault_in_force_at_the_first_bad_moment_is_named() {
        let mut plan = plan(&all());
        plan.faults = vec![fault("kill", false)];
        let mut trace = Trace::started(&spec());
        trace.fault("process-kill", FaultState::Fired, &[]);
        let task = trace.up(1, 1);
        let ended = failed(Reason::ExitedNonZero, Some(exit(1)), 1, 6);
        trace.reported(1, &task, TaskState::Running, ended);
        let judgement = trace.judge(&plan);
        assert_eq!(judgement.active_fault.as_deref(), Some("kill"));
        assert_eq!(judgement.findings[0].fingerprint, "I5/exit-invented");
    }

    #[test]
    fn an_unknown_checker_is_said() {
        let judgement = rich().judge(&plan(&["I1", "no-such"]));
        assert_eq!(judgement.inconclusive, ["there is no checker `no-such`"]);
    }
}
