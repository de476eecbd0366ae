//! What a checker is, and the report that it reads from and writes to. Knows no checker.

use std::collections::BTreeSet;

use wavetank_scenario::plan::Plan;
use wavetank_trace::{Event, EventId, VirtualTime};

use crate::finding::Finding;
use crate::model::Model;

/// Judges one property, event by event.
pub trait Checker: Send {
    /// The id that findings carry: `I4`.
    fn id(&self) -> &'static str;

    /// Looks at the next event. The report's model already includes the event.
    fn observe(&mut self, event: &Event, report: &mut Report);

    /// Looks at how things are when the run is over.
    fn finish(&mut self, end: VirtualTime, report: &mut Report);
}

/// What checkers share: models to read, a place for findings.
pub struct Report {
    /// What is known after the event that is being observed. Written by the judge only.
    pub model: Model,
    /// What was found so far.
    pub findings: Findings,
    /// Why a checker could not do its work, in its own words.
    pub inconclusive: BTreeSet<String>,
}

impl Report {
    /// A report on a run of `plan` that has not begun.
    pub fn new(plan: &Plan) -> Self {
        Report {
            model: Model::new(plan),
            findings: Findings::default(),
            inconclusive: BTreeSet::new(),
        }
    }

    /// Takes the next event into the model; to be called before any checker observes it.
    pub fn advance(&mut self, event: &Event) {
        self.model.advance(event);
    }
}

/// Findings, the first of each fingerprint: the hundredth sighting says nothing new, and a long
/// bad run must not fill memory.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    found: Vec<Finding>,
    known: BTreeSet<String>,
}

/// A breach as its checker describes it.
pub struct Breach<'a> {
    /// The checker's id.
    pub checker: &'static str,
    /// The kind of breach, kebab-case, without ids and times.
    pub kind: &'a str,
    /// What happened, in one line.
    pub cause: String,
    /// When.
    pub at: VirtualTime,
    /// The events that show it, oldest first.
    pub witnesses: Vec<EventId>,
}

impl Findings {
    /// Adds a breach unless one like it is known.
    pub fn add(&mut self, breach: Breach<'_>) {
        let fingerprint = format!("{}/{}", breach.checker, breach.kind);
        if !self.known.insert(fingerprint.clone()) {
            return;
        }
        let name = crate::registry::name_of(breach.checker).to_owned();
        let mut witnesses = breach.witnesses;
        witnesses.sort_unstable();
        witnesses.dedup();
        self.found.push(Finding {
            checker: breach.checker.to_owned(),
            name,
            cause: breach.cause,
            at: breach.at,
            witnesses,
            fingerprint,
        });
    }

    /// All findings, in the order in which they were seen.
    pub fn all(&self) -> &[Finding] {
        &self.found
    }

    /// Gives the findings away.
    pub fn into_vec(self) -> Vec<Finding> {
        self.found
    }
}
