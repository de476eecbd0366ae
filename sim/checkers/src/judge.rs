//! Runs the checkers that a plan names over a trace and comes to a verdict. Judges nothing itself.

use std::collections::{BTreeMap, BTreeSet};

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
            .filter(|entry| wanted.contains(entry.id))
            .map(|entry| (entry.constructor)(plan))
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
        Judgement { verdict, findings, faults, inconclusive, active_fault: self.active_fault }
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
        match registry::entry(name) {
            Some(entry) => drop(ids.insert(entry.id.to_owned())),
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
    let unexpected = findings.iter().any(|finding| !must_fail.contains(&finding.checker));
    let missing = must_fail.iter().any(|id| !findings.iter().any(|found| found.checker == *id));
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
        if matches!(event.payload, Payload::Phase { phase: Phase::Settle }) {
            self.in_force.retain(|fault, _| self.lasting.contains(fault));
        }
        let Payload::Fault { fault, action, state, detail, .. } = &event.payload else {
            return;
        };
        let slot = usize::try_from(*fault).ok().and_then(|index| self.outcomes.get_mut(index));
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
        let newest = self.in_force.iter().max_by_key(|(fault, at)| (**at, **fault))?;
        let index = usize::try_from(*newest.0).ok()?;
        self.outcomes.get(index).map(|outcome| outcome.name.clone())
    }
}
