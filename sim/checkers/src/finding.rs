//! What a judged run hands out. Data only; reports, bundles and shrinking read it.

use serde::{Deserialize, Serialize};
use wavetank_trace::{EventId, VirtualTime};

/// One breach of one property.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The checker's id: `I4`, `linearizable`, `eventually`, `never`.
    pub checker: String,
    /// The checker's name: `bounded-instances`.
    pub name: String,
    /// What happened, in one line for a person.
    pub cause: String,
    /// When it was seen.
    pub at: VirtualTime,
    /// The events that show it, oldest first; the last one made it a breach.
    pub witnesses: Vec<EventId>,
    /// Checker and kind of breach, without ids and times: the same when the same bug shows up in
    /// another run.
    pub fingerprint: String,
}

/// What came of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Everything that was asked for was checked, and held.
    Pass,
    /// A property was violated or an expectation failed.
    Fail,
    /// Nothing was violated, but something was not put to the test.
    Inconclusive,
}

/// How far a fault came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultSummary {
    /// Its trigger never came.
    NeverFired,
    /// It was in force, and nothing met it.
    Fired,
    /// It was in force and hit something.
    Hit,
    /// The world cannot do it.
    NotApplied,
}

impl FaultSummary {
    /// The kebab-case name.
    pub fn name(self) -> &'static str {
        match self {
            FaultSummary::NeverFired => "never-fired",
            FaultSummary::Fired => "fired",
            FaultSummary::Hit => "hit",
            FaultSummary::NotApplied => "not-applied",
        }
    }
}

/// What became of one fault of the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultOutcome {
    /// Its number in the plan.
    pub fault: u32,
    /// Its name.
    pub name: String,
    /// Its action, as the world named it; empty if the world never spoke of it.
    pub action: String,
    /// How far it came.
    pub state: FaultSummary,
    /// When it came into force, if it did.
    pub fired_at: Option<VirtualTime>,
    /// When it was over, if it was.
    pub healed_at: Option<VirtualTime>,
    /// True if the run is conclusive without it.
    pub optional: bool,
    /// Concrete target and arguments, for a person.
    pub detail: String,
}

/// Everything that a judge says about a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    /// Pass, fail or inconclusive.
    pub verdict: Verdict,
    /// Breaches in the order in which they were seen, one per fingerprint. A known-bad run that
    /// passes has them too.
    pub findings: Vec<Finding>,
    /// One per fault of the plan, in plan order.
    pub faults: Vec<FaultOutcome>,
    /// Why the run proves less than it should; also filled when the verdict is `Fail`.
    pub inconclusive: Vec<String>,
    /// The fault that came into force last among those in force at the first bad moment.
    pub active_fault: Option<String>,
}
