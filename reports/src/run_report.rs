//! What came of one run: the object that `--format json` prints and that the store keeps.
//!
//! Fields are only ever added. The renderers read nothing else.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use wavetank_checkers::{FaultOutcome, Finding, Judgement, Verdict};
use wavetank_trace::VirtualTime;

use crate::parity::Difference;
use crate::replay;

/// Which run it was: all that is needed to play it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunIdentity {
    /// The scenario's name.
    pub scenario: String,
    /// Its file, as given on the command line.
    pub file: String,
    /// The seed.
    pub seed: u64,
    /// The world that ran it.
    pub world: String,
    /// `path=value` pairs that replaced fields of the file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<String>,
    /// The commit that wavetank was built from, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// On what it ran, and how fast, if that was a real machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<LiveRun>,
}

/// A run on a real machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveRun {
    /// The container runtime.
    pub runtime: String,
    /// How many of the scenario's seconds passed in one.
    pub speed: u32,
}

/// A run's verdict, the harmless first. The order is that of gravity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunVerdict {
    /// Everything that was asked for was checked, and held.
    Pass,
    /// Nothing was violated, but something was not put to the test.
    Inconclusive,
    /// A property was violated or an expectation failed.
    Fail,
    /// The same seed gave two different runs.
    NonDeterministic,
    /// wavetank itself failed.
    Error,
}

impl RunVerdict {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            RunVerdict::Pass => "pass",
            RunVerdict::Inconclusive => "inconclusive",
            RunVerdict::Fail => "fail",
            RunVerdict::NonDeterministic => "non-deterministic",
            RunVerdict::Error => "error",
        }
    }
}

impl From<Verdict> for RunVerdict {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Pass => RunVerdict::Pass,
            Verdict::Fail => RunVerdict::Fail,
            Verdict::Inconclusive => RunVerdict::Inconclusive,
        }
    }
}

/// Where two runs of one seed went apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Divergence {
    /// The digests that were seen, in the order in which the runs were made.
    pub digests: Vec<String>,
    /// Position of the first event that differs, from 1; `None` if no two runs could be made to
    /// differ again.
    pub event: Option<u64>,
    /// That event in one run, as JSON; `None` if this run had already ended.
    pub left: Option<String>,
    /// That event in the other run.
    pub right: Option<String>,
}

/// What came of one run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunReport {
    /// Which run.
    #[serde(flatten)]
    pub run: RunIdentity,
    /// What came of it.
    pub verdict: RunVerdict,
    /// What two equal runs have in common; `None` if the run did not end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Breaches, in the order in which they were seen. Times are nanoseconds of virtual time.
    pub findings: Vec<Finding>,
    /// Checkers that must find a breach for the run to pass (a known-bad scenario).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub must_fail: Vec<String>,
    /// What became of each fault of the plan.
    pub faults: Vec<FaultOutcome>,
    /// Why the run proves less than it should.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inconclusive: Vec<String>,
    /// The fault in force at the first bad moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_fault: Option<String>,
    /// How many events happened.
    pub events: u64,
    /// How much virtual time passed.
    pub virtual_ms: u64,
    /// The command that plays it again.
    pub replay: String,
    /// Where its trace is stored, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// How repeated runs differed, if they did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub divergence: Option<Divergence>,
    /// For a run on a real machine: where the simulated run of the same plan went another way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<Difference>,
    /// What went wrong in wavetank itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl RunReport {
    /// The report of a run that came to its end and was judged.
    pub fn judged(
        run: RunIdentity,
        judgement: Judgement,
        digest: Option<String>,
        events: u64,
        virtual_time: Duration,
    ) -> Self {
        RunReport {
            verdict: judgement.verdict.into(),
            digest,
            findings: judgement.findings,
            faults: judgement.faults,
            inconclusive: judgement.inconclusive,
            active_fault: judgement.active_fault,
            events,
            virtual_ms: u64::try_from(virtual_time.as_millis()).unwrap_or(u64::MAX),
            ..RunReport::broken(run, None)
        }
    }

    /// The report of a run that wavetank could not bring to its end.
    pub fn failed(run: RunIdentity, error: String) -> Self {
        RunReport::broken(run, Some(error))
    }

    fn broken(run: RunIdentity, error: Option<String>) -> Self {
        RunReport {
            replay: replay::command(&run),
            run,
            verdict: RunVerdict::Error,
            digest: None,
            findings: Vec::new(),
            must_fail: Vec::new(),
            faults: Vec::new(),
            inconclusive: Vec::new(),
            active_fault: None,
            events: 0,
            virtual_ms: 0,
            trace: None,
            divergence: None,
            differences: Vec::new(),
            error,
        }
    }

    /// Breaches that nobody asked for; in an ordinary scenario these are all.
    pub fn unexpected(&self) -> impl Iterator<Item = &Finding> {
        self.findings
            .iter()
            .filter(|finding| !self.must_fail.iter().any(|name| names(finding, name)))
    }

    /// Checkers that should have found a breach and did not.
    pub fn missing(&self) -> impl Iterator<Item = &str> {
        let found = |name: &str| self.findings.iter().any(|finding| names(finding, name));
        self.must_fail
            .iter()
            .map(String::as_str)
            .filter(move |name| !found(name))
    }

    /// The fault that came into force last among those in force at `at`.
    pub fn fault_in_force(&self, at: VirtualTime) -> Option<&FaultOutcome> {
        let in_force = |fault: &&FaultOutcome| {
            fault.fired_at.is_some_and(|fired| fired <= at)
                && fault.healed_at.is_none_or(|healed| healed >= at)
        };
        self.faults
            .iter()
            .filter(in_force)
            .max_by_key(|fault| (fault.fired_at, fault.fault))
    }
}

/// Checkers go by id (`I4`) and by name (`bounded-instances`).
fn names(finding: &Finding, name: &str) -> bool {
    finding.checker == name || finding.name == name
}
