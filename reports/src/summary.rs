//! Many runs at a glance: a row per scenario file, and every distinct failure once.
//!
//! Two runs fail alike when their findings have the same fingerprint; a sweep that finds one bug
//! two hundred times says so once.

use std::collections::BTreeMap;

use wavetank_checkers::{FaultSummary, Finding};
use wavetank_trace::VirtualTime;

use crate::run_report::{RunReport, RunVerdict};

/// One scenario file over all its seeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScenarioSummary {
    /// The scenario's name.
    pub scenario: String,
    /// Its file.
    pub file: String,
    /// The world it ran in.
    pub world: String,
    /// The gravest verdict of its runs.
    pub verdict: RunVerdict,
    /// Runs that passed.
    pub passed: usize,
    /// Runs that failed.
    pub failed: usize,
    /// Runs that prove less than they should.
    pub inconclusive: usize,
    /// Runs that differed when repeated, or that wavetank could not finish.
    pub broken: usize,
    /// Events of all runs.
    pub events: u64,
    /// Virtual time of all runs.
    pub virtual_ms: u64,
}

impl ScenarioSummary {
    /// How many runs there were.
    pub fn runs(&self) -> usize {
        self.passed + self.failed + self.inconclusive + self.broken
    }
}

/// One way in which runs did not pass, and the first run that showed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What kind.
    pub verdict: RunVerdict,
    /// The scenario that showed it first.
    pub scenario: String,
    /// What was violated: `I4 bounded-instances`.
    pub title: String,
    /// What happened.
    pub cause: String,
    /// The first bad moment.
    pub at: Option<VirtualTime>,
    /// The fault then in force, with its target.
    pub active_fault: Option<String>,
    /// The first seed that showed it.
    pub seed: u64,
    /// How many runs showed it.
    pub runs: usize,
    /// The commit, if it is known.
    pub commit: Option<String>,
    /// The trace of the first run, if it is stored.
    pub trace: Option<String>,
    /// The command that plays the first run again.
    pub replay: String,
}

/// A fault that came into force and touched nothing, in every run in which it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdleFault {
    /// The scenario.
    pub scenario: String,
    /// The world.
    pub world: String,
    /// The fault's name.
    pub fault: String,
    /// How many runs had it in force.
    pub runs: usize,
}

/// One seed that passed in one world and failed in another: one of them is wrong about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disagreement {
    /// The scenario.
    pub scenario: String,
    /// Its file.
    pub file: String,
    /// The seed.
    pub seed: u64,
    /// Every world's verdict.
    pub verdicts: Vec<(String, RunVerdict)>,
}

/// Many runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// One row per scenario file and world, in the order in which they were given.
    pub scenarios: Vec<ScenarioSummary>,
    /// Distinct failures, in the order in which they were found.
    pub failures: Vec<Failure>,
    /// Where worlds do not agree.
    pub disagreements: Vec<Disagreement>,
    /// Faults that proved nothing.
    pub idle_faults: Vec<IdleFault>,
    /// The digest, if there was exactly one run and it ended.
    pub digest: Option<String>,
}

impl Summary {
    /// Sums up runs that come in file and seed order.
    pub fn of(reports: &[RunReport]) -> Self {
        let digest = match reports {
            [only] => only.digest.clone(),
            _ => None,
        };
        Summary {
            scenarios: rows(reports),
            failures: failures(reports),
            disagreements: disagreements(reports),
            idle_faults: idle_faults(reports),
            digest,
        }
    }

    /// The gravest verdict; `None` if nothing ran. Worlds that disagree have found something, even
    /// if each of them found what it should.
    pub fn verdict(&self) -> Option<RunVerdict> {
        let rows = self.scenarios.iter().map(|row| row.verdict);
        let disagreement = self.disagreements.first().map(|_| RunVerdict::Fail);
        rows.chain(disagreement).max()
    }

    /// All rows as one.
    pub fn total(&self) -> ScenarioSummary {
        let mut total = ScenarioSummary {
            scenario: "total".to_owned(),
            file: String::new(),
            world: String::new(),
            verdict: self.verdict().unwrap_or(RunVerdict::Pass),
            passed: 0,
            failed: 0,
            inconclusive: 0,
            broken: 0,
            events: 0,
            virtual_ms: 0,
        };
        for row in &self.scenarios {
            total.passed += row.passed;
            total.failed += row.failed;
            total.inconclusive += row.inconclusive;
            total.broken += row.broken;
            total.events += row.events;
            total.virtual_ms += row.virtual_ms;
        }
        total
    }
}

/// A run that proves less than it should agrees with everyone.
fn disagreements(reports: &[RunReport]) -> Vec<Disagreement> {
    let mut runs: BTreeMap<(&str, u64), Vec<&RunReport>> = BTreeMap::new();
    for report in reports {
        let key = (report.run.file.as_str(), report.run.seed);
        runs.entry(key).or_default().push(report);
    }
    let has = |runs: &[&RunReport], verdict| runs.iter().any(|run| run.verdict == verdict);
    runs.into_values()
        .filter(|runs| has(runs, RunVerdict::Pass) && has(runs, RunVerdict::Fail))
        .map(|runs| Disagreement {
            scenario: runs[0].run.scenario.clone(),
            file: runs[0].run.file.clone(),
            seed: runs[0].run.seed,
            verdicts: runs
                .iter()
                .map(|run| (run.run.world.clone(), run.verdict))
                .collect(),
        })
        .collect()
}

/// Faults of swarms are drawn: that one of them meets nothing is as it should be.
fn idle_faults(reports: &[RunReport]) -> Vec<IdleFault> {
    let mut in_force: BTreeMap<(usize, u32), (IdleFault, bool)> = BTreeMap::new();
    let mut order: Vec<(&str, &str)> = Vec::new();
    for report in reports {
        let which = (&*report.run.scenario, &*report.run.world);
        let place = order.iter().position(|it| *it == which);
        let place = place.unwrap_or_else(|| {
            order.push(which);
            order.len() - 1
        });
        for fault in report.faults.iter().filter(|it| !it.optional) {
            let has_hit = match fault.state {
                FaultSummary::Hit => true,
                FaultSummary::Fired => false,
                FaultSummary::NeverFired | FaultSummary::NotApplied => continue,
            };
            let entry = in_force.entry((place, fault.fault)).or_insert_with(|| {
                let idle = IdleFault {
                    scenario: report.run.scenario.clone(),
                    world: report.run.world.clone(),
                    fault: fault.name.clone(),
                    runs: 0,
                };
                (idle, false)
            });
            entry.0.runs += 1;
            entry.1 |= has_hit;
        }
    }
    let idle = in_force.into_values().filter(|(_, has_hit)| !has_hit);
    idle.map(|(idle, _)| idle).collect()
}

fn rows(reports: &[RunReport]) -> Vec<ScenarioSummary> {
    let mut rows: Vec<ScenarioSummary> = Vec::new();
    for report in reports {
        let known = rows
            .iter()
            .position(|row| row.file == report.run.file && row.world == report.run.world);
        let index = known.unwrap_or_else(|| {
            rows.push(empty_row(report));
            rows.len() - 1
        });
        count(&mut rows[index], report);
    }
    rows
}

fn empty_row(report: &RunReport) -> ScenarioSummary {
    ScenarioSummary {
        scenario: report.run.scenario.clone(),
        file: report.run.file.clone(),
        world: report.run.world.clone(),
        verdict: RunVerdict::Pass,
        passed: 0,
        failed: 0,
        inconclusive: 0,
        broken: 0,
        events: 0,
        virtual_ms: 0,
    }
}

fn count(row: &mut ScenarioSummary, report: &RunReport) {
    let counter = match report.verdict {
        RunVerdict::Pass => &mut row.passed,
        RunVerdict::Fail => &mut row.failed,
        RunVerdict::Inconclusive => &mut row.inconclusive,
        RunVerdict::NonDeterministic | RunVerdict::Error => &mut row.broken,
    };
    *counter += 1;
    row.verdict = row.verdict.max(report.verdict);
    row.events += report.events;
    row.virtual_ms += report.virtual_ms;
}

fn failures(reports: &[RunReport]) -> Vec<Failure> {
    let mut found: Vec<Failure> = Vec::new();
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    for report in reports {
        for (key, failure) in of_run(report) {
            match known.get(&key) {
                Some(index) => found[*index].runs += 1,
                None => {
                    known.insert(key, found.len());
                    found.push(failure);
                }
            }
        }
    }
    // The gravest first; among equals the order in which they were found stays.
    found.sort_by_key(|failure| std::cmp::Reverse(failure.verdict));
    found
}

/// Every way in which one run did not pass, with what it has in common with others of its kind.
fn of_run(report: &RunReport) -> Vec<(String, Failure)> {
    match report.verdict {
        RunVerdict::Pass => Vec::new(),
        RunVerdict::Inconclusive => {
            let reasons = report.inconclusive.join("\n");
            let key = format!("inconclusive: {}: {reasons}", report.run.scenario);
            vec![(
                key,
                failure(report, "not put to the test".to_owned(), reasons),
            )]
        }
        RunVerdict::Fail => of_violations(report),
        RunVerdict::NonDeterministic => {
            let failure = failure(report, "non-determinism".to_owned(), divergence(report));
            vec![(format!("non-determinism: {}", report.run.scenario), failure)]
        }
        RunVerdict::Error => {
            let error = report
                .error
                .clone()
                .unwrap_or_else(|| "the run did not end".to_owned());
            let key = format!("error: {}: {error}", report.run.scenario);
            vec![(key, failure(report, "harness error".to_owned(), error))]
        }
    }
}

fn of_violations(report: &RunReport) -> Vec<(String, Failure)> {
    let breaches = report.unexpected().map(|finding| {
        let title = title(finding);
        let failure = Failure {
            at: Some(finding.at),
            active_fault: active_fault(report, finding),
            ..failure(report, title, finding.cause.clone())
        };
        (finding.fingerprint.clone(), failure)
    });
    let missing = report.missing().map(|name| {
        let cause = "this scenario is known to violate it, and it held".to_owned();
        let key = format!("missing {name}: {}", report.run.scenario);
        (
            key,
            failure(report, format!("{name} was not violated"), cause),
        )
    });
    breaches.chain(missing).collect()
}

/// Id and name of a checker; expectations have one word for both.
fn title(finding: &Finding) -> String {
    if finding.checker == finding.name {
        return finding.name.clone();
    }
    format!("{} {}", finding.checker, finding.name)
}

fn failure(report: &RunReport, title: String, cause: String) -> Failure {
    Failure {
        verdict: report.verdict,
        scenario: report.run.scenario.clone(),
        title,
        cause,
        at: None,
        active_fault: None,
        seed: report.run.seed,
        runs: 1,
        commit: report.run.commit.clone(),
        trace: report.trace.clone(),
        replay: report.replay.clone(),
    }
}

/// The judge names the fault of the first bad moment; for later ones the log of faults tells.
fn active_fault(report: &RunReport, finding: &Finding) -> Option<String> {
    let is_first = report.findings.first() == Some(finding);
    let named = report.active_fault.as_ref().filter(|_| is_first);
    let fault = match named {
        Some(name) => report.faults.iter().find(|fault| fault.name == *name),
        None => report.fault_in_force(finding.at),
    };
    let Some(fault) = fault else {
        return named.cloned();
    };
    let since = fault
        .fired_at
        .map(|at| format!(", since {at}"))
        .unwrap_or_default();
    let detail = if fault.detail.is_empty() {
        String::new()
    } else {
        format!(" {}", fault.detail)
    };
    Some(format!("{} ({}{detail}{since})", fault.name, fault.action))
}

fn divergence(report: &RunReport) -> String {
    let Some(divergence) = &report.divergence else {
        return "two runs of this seed differ".to_owned();
    };
    let Some(event) = divergence.event else {
        return format!(
            "two runs of this seed differ: digests {}",
            divergence.digests.join(", ")
        );
    };
    let side = |side: &Option<String>| side.clone().unwrap_or_else(|| "the end".to_owned());
    format!(
        "two runs of this seed differ from event {event} on: {} | {}",
        side(&divergence.left),
        side(&divergence.right)
    )
}
