//! The plan's `eventually` and `never`: scenario authors' own properties, judged like checkers.
//!
//! `eventually` is owed after the settle phase has begun: true no later than its bound, and true
//! from its bound to the end. It may come and go before that. It is evaluated when the phase
//! begins and after every change of the store.
//!
//! `never` is evaluated over the whole run. One that speaks of `task`, `node` or `event` is
//! evaluated for each task or node that is written to the store, and for each event that has a
//! name; the others after every change of the store.
//!
//! Breaches: `eventually/not-reached`, `eventually/not-kept`, `never/was-true`, each with the
//! expression, as two expressions are two properties. An expression that could not be evaluated
//! even once, or was never given anything to look at, makes the run inconclusive.
//!
//! Map: `context` (what expressions see), `compile` (the language).

mod compile;
mod context;

use serde_json::Value;
use wavetank_scenario::plan::Plan;
use wavetank_trace::{Event, EventId, Payload, Phase, VirtualTime, view};

use crate::checker::{Breach, Report};
pub(crate) use compile::compile;
use context::Context;

/// A compiled expression.
pub(crate) trait Condition: Send {
    /// Is it true of these values? An error says why that makes no sense.
    fn evaluate(&self, context: &Value) -> Result<bool, String>;
}

/// Which vocabulary an expression may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vocabulary {
    /// The cluster.
    Eventually,
    /// The cluster, and what is being written or happens.
    Never,
}

/// Turns text into a condition.
pub(crate) type Compile<'a> =
    &'a dyn Fn(Vocabulary, &str) -> Result<Box<dyn Condition>, String>;

struct Expectation {
    text: String,
    condition: Box<dyn Condition>,
    evaluated: bool,
    error: Option<String>,
}

impl Expectation {
    fn evaluate(&mut self, context: &Value) -> Option<bool> {
        match self.condition.evaluate(context) {
            Ok(result) => {
                self.evaluated = true;
                Some(result)
            }
            Err(error) => {
                self.error = Some(error);
                None
            }
        }
    }

    fn doubt(&self) -> Option<String> {
        let why = self.error.as_deref().unwrap_or("nothing to evaluate it on");
        (!self.evaluated).then(|| format!("`{}` was never evaluated: {why}", self.text))
    }
}

struct Eventual {
    expectation: Expectation,
    within: std::time::Duration,
    /// As of the newest change of the store.
    holds: bool,
    since: Option<(VirtualTime, EventId)>,
    /// Its bound has passed.
    due: bool,
    failed: bool,
}

struct Never {
    expectation: Expectation,
    subject: Subject,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Subject {
    Store,
    Task,
    Node,
    Event,
}

/// Judges the expectations of a plan.
pub(crate) struct Expectations {
    eventually: Vec<Eventual>,
    never: Vec<Never>,
    /// Some `never` needs the cluster's values, which take time to make.
    never_sees_cluster: bool,
    context: Context,
    doubts: Vec<String>,
}

impl Expectations {
    /// For a run of `plan`. An expression that does not compile is said to be inconclusive.
    pub(crate) fn new(plan: &Plan, compile: Compile<'_>) -> Self {
        let mut doubts = Vec::new();
        let mut compiled = |vocabulary, text: &str| match compile(vocabulary, text) {
            Ok(condition) => {
                let text = text.to_owned();
                Some(Expectation { text, condition, evaluated: false, error: None })
            }
            Err(error) => {
                doubts.push(format!("`{text}` cannot be evaluated: {error}"));
                None
            }
        };
        let eventual = |wanted: &wavetank_scenario::plan::Eventually| {
            let expectation = compiled(Vocabulary::Eventually, &wanted.check)?;
            let within = wanted.within;
            let since = None;
            Some(Eventual { expectation, within, holds: false, since, due: false, failed: false })
        };
        let eventually = plan.expect.eventually.iter().filter_map(eventual).collect();
        let never = |text: &String| {
            let expectation = compiled(Vocabulary::Never, text)?;
            Some(Never { expectation, subject: subject(text) })
        };
        let never: Vec<Never> = plan.expect.never.iter().filter_map(never).collect();
        let sees_cluster =
            |never: &Never| never.subject == Subject::Store || sees_cluster(&never.expectation.text);
        let never_sees_cluster = never.iter().any(sees_cluster);
        Expectations { eventually, never, never_sees_cluster, context: Context::default(), doubts }
    }

    /// Looks at the next event.
    pub(crate) fn observe(&mut self, event: &Event, report: &mut Report) {
        if self.eventually.is_empty() && self.never.is_empty() {
            return;
        }
        let settles = matches!(event.payload, Payload::Phase { phase: Phase::Settle });
        let changed = !report.model.store.fresh_changes(event).is_empty();
        if report.model.settle_at.is_some() {
            self.pass_deadlines(event.at, report);
        }
        let owed = report.model.settle_at.is_some() && !self.eventually.is_empty();
        if (changed && (owed || self.never_sees_cluster)) || settles {
            self.context.refresh(&report.model);
        }
        if report.model.settle_at.is_some() && (changed || settles) {
            self.evaluate_eventually(event, report);
        }
        if changed {
            self.never_in_store(event, report);
        }
        self.never_in_events(event, report);
    }

    /// Looks at how things are when the run is over.
    pub(crate) fn finish(&mut self, end: VirtualTime, report: &mut Report) {
        if report.model.settle_at.is_some() {
            self.pass_deadlines(end, report);
            for wanted in self.eventually.iter_mut().filter(|wanted| !wanted.holds) {
                wanted.fail("not-reached", end, report);
            }
        }
        let expectations = self.eventually.iter().map(|wanted| &wanted.expectation);
        let expectations = expectations.chain(self.never.iter().map(|never| &never.expectation));
        report.inconclusive.extend(expectations.filter_map(Expectation::doubt));
        report.inconclusive.extend(self.doubts.drain(..));
    }

    /// What holds when a bound passes is what the last change before it left.
    fn pass_deadlines(&mut self, now: VirtualTime, report: &mut Report) {
        let Some(settle_at) = report.model.settle_at else { return };
        for wanted in &mut self.eventually {
            let deadline = settle_at + wanted.within;
            if wanted.due || now <= deadline || wanted.since.is_none() {
                continue;
            }
            wanted.due = true;
            if !wanted.holds {
                wanted.fail("not-reached", deadline, report);
            }
        }
    }

    fn evaluate_eventually(&mut self, event: &Event, report: &mut Report) {
        let values = self.context.values();
        for wanted in &mut self.eventually {
            let holds = wanted.expectation.evaluate(values).unwrap_or(false);
            if holds != wanted.holds || wanted.since.is_none() {
                wanted.since = Some((event.at, event.id));
            }
            let lost = wanted.holds && !holds;
            wanted.holds = holds;
            if wanted.due && lost {
                wanted.fail("not-kept", event.at, report);
            }
        }
    }

    fn never_in_store(&mut self, event: &Event, report: &mut Report) {
        let mut checks = vec![(Subject::Store, "store", Value::Null)];
        for change in report.model.store.fresh_changes(event) {
            let fields = Value::Object(context::change_fields(change));
            match change {
                wavetank_model::Change::Task { .. } => checks.push((Subject::Task, "task", fields)),
                wavetank_model::Change::Node { .. } => checks.push((Subject::Node, "node", fields)),
                _ => {}
            }
        }
        for (subject, name, value) in checks {
            self.check_never(subject, name, value, event, report);
        }
    }

    fn never_in_events(&mut self, event: &Event, report: &mut Report) {
        if !self.never.iter().any(|never| never.subject == Subject::Event) {
            return;
        }
        let Some(name) = view::event_name(&event.payload) else { return };
        let mut fields = view::event_fields(event);
        fields.insert("name".to_owned(), Value::from(name));
        self.check_never(Subject::Event, "event", Value::Object(fields), event, report);
    }

    fn check_never(
        &mut self,
        subject: Subject,
        name: &str,
        value: Value,
        event: &Event,
        report: &mut Report,
    ) {
        if !self.never.iter().any(|never| never.subject == subject) {
            return;
        }
        self.context.set(name, value);
        for never in self.never.iter_mut().filter(|never| never.subject == subject) {
            if never.expectation.evaluate(self.context.values()) == Some(true) {
                let text = &never.expectation.text;
                report.findings.add(Breach {
                    checker: "never",
                    kind: &format!("was-true: {text}"),
                    cause: format!("`{text}` was true"),
                    at: event.at,
                    witnesses: vec![event.id],
                });
            }
        }
        self.context.clear(name);
    }
}

impl Eventual {
    fn fail(&mut self, kind: &str, at: VirtualTime, report: &mut Report) {
        if std::mem::replace(&mut self.failed, true) {
            return;
        }
        let text = &self.expectation.text;
        let what = if kind == "not-kept" { "did not stay true" } else { "did not become true" };
        report.findings.add(Breach {
            checker: "eventually",
            kind: &format!("{kind}: {text}"),
            cause: format!("`{text}` {what} within {:?} after the last fault", self.within),
            at,
            witnesses: self.since.iter().map(|(_, event)| *event).collect(),
        });
    }
}

/// What an expression speaks of: the first of these words that it has as a name of its own.
fn subject(text: &str) -> Subject {
    let subjects =
        [("event", Subject::Event), ("task", Subject::Task), ("node", Subject::Node)];
    let found = subjects.into_iter().find(|(name, _)| has_word(text, name));
    found.map_or(Subject::Store, |(_, subject)| subject)
}

/// Is `name` a name in this expression, and not a field of something or a text?
fn has_word(text: &str, name: &str) -> bool {
    let is_word = |character: char| character.is_alphanumeric() || character == '_';
    text.match_indices(name).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + name.len()..].chars().next();
        before.is_none_or(|c| !is_word(c) && !matches!(c, '.' | '"' | '\''))
            && after.is_none_or(|c| !is_word(c) && !matches!(c, '"' | '\'' | '('))
    })
}

/// Does it look at the whole cluster, not only at what is being written?
fn sees_cluster(text: &str) -> bool {
    text.contains("service(") || ["services", "tasks", "nodes", "leases"].iter().any(|name| has_word(text, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Trace, exit, failed, plan, seconds, spec};
    use wavetank_model::{Reason, TaskState};
    use wavetank_scenario::plan::Eventually;

    struct Pointer(String, Value);

    impl Condition for Pointer {
        fn evaluate(&self, context: &Value) -> Result<bool, String> {
            let found = context.pointer(&self.0).ok_or("nothing there")?;
            Ok(*found == self.1)
        }
    }

    /// `task./state=failed`: JSON pointer and value, so that these tests need no language.
    fn compile_test(_: Vocabulary, text: &str) -> Result<Box<dyn Condition>, String> {
        let (pointer, value) = text.split_once('=').ok_or("no value")?;
        let pointer = pointer.replace('.', "/");
        let value = serde_json::from_str(value).map_err(|error| error.to_string())?;
        Ok(Box::new(Pointer(format!("/{pointer}"), value)))
    }

    fn judge(trace: &Trace, eventually: &[&str], never: &[&str]) -> (Vec<String>, Vec<String>) {
        let mut plan = plan(&[]);
        let owed = |check: &&str| Eventually { check: (*check).to_owned(), within: seconds(30) };
        plan.expect.eventually = eventually.iter().map(owed).collect();
        plan.expect.never = never.iter().map(|text| (*text).to_owned()).collect();
        let mut report = Report::new(&plan);
        let mut expectations = Expectations::new(&plan, &compile_test);
        let mut end = VirtualTime::ZERO;
        for event in &trace.events {
            report.advance(event);
            expectations.observe(event, &mut report);
            end = event.at;
        }
        expectations.finish(end, &mut report);
        let found = report.findings.into_vec();
        let found = found.into_iter().map(|finding| finding.fingerprint).collect();
        (found, report.inconclusive.into_iter().collect())
    }

    const RUNS: &str = "services.web.running=1";

    #[test]
    fn what_becomes_true_in_time_and_stays_passes() {
        let mut trace = Trace::started(&spec());
        trace.up(1, 1);
        trace.end();
        assert_eq!(judge(&trace, &[RUNS], &[]), (vec![], vec![]));
    }

    #[test]
    fn what_never_becomes_true_fails() {
        let mut trace = Trace::started(&spec());
        trace.end();
        let (found, _) = judge(&trace, &[RUNS], &[]);
        assert_eq!(found, ["eventually/not-reached: services.web.running=1"]);
    }

    #[test]
    fn what_becomes_true_too_late_fails() {
        let mut trace = Trace::started(&spec());
        trace.settle().after(seconds(40));
        trace.up(1, 1);
        trace.after(seconds(10)).push(None, Payload::Phase { phase: Phase::End });
        let (found, _) = judge(&trace, &[RUNS], &[]);
        assert_eq!(found, ["eventually/not-reached: services.web.running=1"]);
    }

    #[test]
    fn what_does_not_stay_fails() {
        let mut trace = Trace::started(&spec());
        let task = trace.up(1, 1);
        trace.settle().after(seconds(40));
        let ended = failed(Reason::ExitedNonZero, Some(exit(1)), 1, 6);
        trace.reported(1, &task, TaskState::Running, ended);
        trace.after(seconds(10)).push(None, Payload::Phase { phase: Phase::End });
        let (found, _) = judge(&trace, &[RUNS], &["task.state=\"failed\""]);
        let expected = [
            "eventually/not-kept: services.web.running=1",
            "never/was-true: task.state=\"failed\"",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn what_cannot_be_evaluated_is_inconclusive() {
        let mut trace = Trace::started(&spec());
        trace.end();
        let (found, doubts) = judge(&trace, &[], &["task.state=\"failed\"", "nonsense"]);
        assert!(found.is_empty());
        assert_eq!(doubts.len(), 2, "{doubts:?}");
    }
}
