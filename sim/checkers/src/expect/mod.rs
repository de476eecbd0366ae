//! The plan's `eventually` and `never`: scenario authors' own properties, judged like checkers.
//!
//! `eventually` is owed after the settle phase has begun: true no later than its bound, and true
//! from its bound to the end. It may come and go before that. It is evaluated when the phase
//! begins and after every change of the store.
//!
//! `never` is evaluated over the whole run. One that speaks of `task`, `node` or `event` is
//! evaluated for each task or node that is written to the store, and for each event that has a
//! name (changes of the store are such events too); the others after every change of the store.
//!
//! Breaches: `eventually/not-reached`, `eventually/not-kept`, `never/was-true`, each with the
//! expression, as two expressions are two properties. An expression that could not be evaluated
//! when that was last tried, or was never given anything to look at, makes the run inconclusive.
//!
//! Map: `context` (what expressions see), `compile` (the language).

mod compile;
mod context;

use serde_json::Value;
use wavetank_model::Change;
use wavetank_scenario::plan::Plan;
use wavetank_trace::{Event, EventId, Payload, Phase, VirtualTime, view};

use crate::checker::{Breach, Report};
pub(crate) use compile::compile;
use context::Context;

/// A compiled expression.
pub(crate) trait Condition: Send {
    /// Does it speak of `task`, `node` or `event`: of what has just happened?
    fn mentions(&self, name: &str) -> bool;

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
pub(crate) type Compile<'a> = &'a dyn Fn(Vocabulary, &str) -> Result<Box<dyn Condition>, String>;

struct Expectation {
    text: String,
    condition: Box<dyn Condition>,
    evaluated: bool,
    /// Why it could not be evaluated when that was last tried.
    error: Option<String>,
}

impl Expectation {
    fn evaluate(&mut self, context: &Value) -> Option<bool> {
        match self.condition.evaluate(context) {
            Ok(result) => {
                self.evaluated = true;
                self.error = None;
                Some(result)
            }
            Err(error) => {
                self.error = Some(error);
                None
            }
        }
    }

    /// Why its silence proves nothing. Not each kind of moment has all fields.
    fn doubt(&self) -> Option<String> {
        let text = &self.text;
        let is_of_moments = MOMENTS.iter().any(|name| self.condition.mentions(name));
        match (&self.error, self.evaluated) {
            (None, true) => None,
            (Some(_), true) if is_of_moments => None,
            (Some(why), true) => Some(format!("`{text}` could not be evaluated in the end: {why}")),
            (why, false) => {
                let why = why.as_deref().unwrap_or("nothing to evaluate it on");
                Some(format!("`{text}` was never evaluated: {why}"))
            }
        }
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

/// What has just happened, under the names that `never` has for it.
const MOMENTS: [&str; 3] = ["task", "node", "event"];

/// Judges the expectations of a plan.
pub(crate) struct Expectations {
    eventually: Vec<Eventual>,
    never: Vec<Expectation>,
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
                Some(Expectation {
                    text,
                    condition,
                    evaluated: false,
                    error: None,
                })
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
            Some(Eventual {
                expectation,
                within,
                holds: false,
                since,
                due: false,
                failed: false,
            })
        };
        let eventually = plan.expect.eventually.iter().filter_map(eventual).collect();
        let never = plan.expect.never.iter();
        let never = never
            .filter_map(|text| compiled(Vocabulary::Never, text))
            .collect();
        Expectations {
            eventually,
            never,
            context: Context::default(),
            doubts,
        }
    }

    /// Looks at the next event.
    pub(crate) fn observe(&mut self, event: &Event, report: &mut Report) {
        if self.eventually.is_empty() && self.never.is_empty() {
            return;
        }
        let settles = matches!(
            event.payload,
            Payload::Phase {
                phase: Phase::Settle
            }
        );
        let changed = !report.model.store.fresh_changes(event).is_empty();
        if report.model.settle_at.is_some() {
            self.pass_deadlines(event.at, report);
        }
        let owed = report.model.settle_at.is_some() && !self.eventually.is_empty();
        if (changed && (owed || !self.never.is_empty())) || settles {
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
        let expectations = expectations.chain(&self.never);
        report
            .inconclusive
            .extend(expectations.filter_map(Expectation::doubt));
        report.inconclusive.extend(self.doubts.drain(..));
    }

    /// What holds when a bound passes is what the last change before it left.
    fn pass_deadlines(&mut self, now: VirtualTime, report: &mut Report) {
        let Some(settle_at) = report.model.settle_at else {
            return;
        };
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
        if self.never.is_empty() {
            return;
        }
        for change in report.model.store.fresh_changes(event).to_vec() {
            let mut moments = Vec::new();
            match &change {
                Change::Task { .. } => moments.push(("task", context::task_fields(&change))),
                Change::Node { .. } => moments.push(("node", context::node_fields(&change))),
                _ => {}
            }
            if let Some(name) = view::change_name(&change) {
                let fields = view::change_fields(&change, event.host);
                moments.push(("event", context::event_value(name, fields)));
            }
            self.check_never(moments, event, report);
        }
        self.check_never(Vec::new(), event, report);
    }

    fn never_in_events(&mut self, event: &Event, report: &mut Report) {
        if self
            .never
            .iter()
            .any(|never| never.condition.mentions("event"))
            && let Some(name) = view::event_name(&event.payload)
        {
            let value = context::event_value(name, view::event_fields(event));
            self.check_never(vec![("event", value)], event, report);
        }
    }

    /// Evaluates those that speak of one of these moments, or of none if there is none.
    fn check_never(
        &mut self,
        moments: Vec<(&'static str, Value)>,
        event: &Event,
        report: &mut Report,
    ) {
        let names: Vec<&str> = moments.iter().map(|(name, _)| *name).collect();
        for (name, value) in moments {
            self.context.set(name, value);
        }
        for never in &mut self.never {
            let mentions = |names: &[&str]| names.iter().any(|name| never.condition.mentions(name));
            let concerned = match names.is_empty() {
                true => !mentions(&MOMENTS),
                false => mentions(&names),
            };
            if concerned && never.evaluate(self.context.values()) == Some(true) {
                let text = &never.text;
                report.findings.add(Breach {
                    checker: "never",
                    kind: &format!("was-true: {text}"),
                    cause: format!("`{text}` was true"),
                    at: event.at,
                    witnesses: vec![event.id],
                });
            }
        }
        names.into_iter().for_each(|name| self.context.clear(name));
    }
}

impl Eventual {
    fn fail(&mut self, kind: &str, at: VirtualTime, report: &mut Report) {
        if std::mem::replace(&mut self.failed, true) {
            return;
        }
        let text = &self.expectation.text;
        let what = if kind == "not-kept" {
            "did not stay true"
        } else {
            "did not become true"
        };
        report.findings.add(Breach {
            checker: "eventually",
            kind: &format!("{kind}: {text}"),
            cause: match &self.expectation.error {
                Some(why) => format!("`{text}` {what}: it could not be evaluated: {why}"),
                None => format!(
                    "`{text}` {what} within {:?} after the last fault",
                    self.within
                ),
            },
            at,
            witnesses: self.since.iter().map(|(_, event)| *event).collect(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Trace, exit, failed, plan, seconds, spec};
    use wavetank_model::{Reason, TaskState};
    use wavetank_scenario::plan::Eventually;

    struct Pointer(String, Value);

    impl Condition for Pointer {
        fn mentions(&self, name: &str) -> bool {
            self.0.starts_with(&format!("/{name}/"))
        }

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
        let owed = |check: &&str| Eventually {
            check: (*check).to_owned(),
            within: seconds(30),
        };
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
        let found = found
            .into_iter()
            .map(|finding| finding.fingerprint)
            .collect();
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
        trace
            .after(seconds(10))
            .push(None, Payload::Phase { phase: Phase::End });
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
        trace
            .after(seconds(10))
            .push(None, Payload::Phase { phase: Phase::End });
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

    #[test]
    fn what_could_be_evaluated_once_and_not_in_the_end_is_no_proof() {
        let mut plan = plan(&[]);
        plan.expect.never = vec!["100 / (service(\"web\").running - 1) > 0".into()];
        plan.expect.eventually = vec![Eventually {
            check: "100 / (service(\"web\").running - 1) < 0".into(),
            within: seconds(30),
        }];
        let mut trace = Trace::started(&spec());
        trace.up(1, 1);
        trace.end();
        let judgement = trace.judge(&plan);
        let doubts = judgement.inconclusive.join("\n");
        let never = "> 0` could not be evaluated in the end";
        assert!(doubts.contains(never), "{doubts}");
        // Nobody asks before the last fault is over.
        assert!(doubts.contains("< 0` was never evaluated"), "{doubts}");
        let cause = &judgement.findings[0].cause;
        assert!(cause.contains("could not be evaluated"), "{cause}");
    }

    #[test]
    fn the_language_is_that_of_scenarios() {
        let mut plan = plan(&[]);
        let check = "service(\"web\").running == 1 && node(\"agent-1\").status == \"ready\"";
        plan.expect.eventually = vec![Eventually {
            check: check.into(),
            within: seconds(30),
        }];
        plan.expect.never = vec![
            "task.state == \"failed\" && task.exit_code != 7".into(),
            "event.name == \"store.task\" && event.to == \"lost\"".into(),
            "tasks.exists(t, t.state == \"rejected\")".into(),
        ];
        let mut trace = Trace::started(&spec());
        trace.up(1, 1);
        let other = trace.up(2, 2);
        let mut bad = Trace {
            events: trace.events.clone(),
            now: trace.now,
            ..Trace::default()
        };
        bad.revision = trace.revision;
        let ended = |code| failed(Reason::ExitedNonZero, Some(exit(code)), 1, 6);
        trace.reported(2, &other, TaskState::Running, ended(7));
        trace.end();
        let judgement = trace.judge(&plan);
        assert_eq!(judgement.verdict, crate::Verdict::Pass, "{judgement:?}");
        bad.reported(2, &other, TaskState::Running, ended(8));
        bad.end();
        let expected = "never/was-true: task.state == \"failed\" && task.exit_code != 7";
        assert_eq!(bad.fingerprints(&plan), [expected]);
    }
}
