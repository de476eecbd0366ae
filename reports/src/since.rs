//! What became different from one run to the next: the verdict, findings, faults, and the history
//! without times and ids.
//!
//! Two runs of different programs, or of a scenario before and after a change.

use std::collections::BTreeMap;

use wavetank_checkers::{FaultOutcome, Finding};
use wavetank_trace::Event;

use crate::figures;
use crate::parity::{self, Difference};
use crate::run_report::RunReport;

/// Differences of histories that are shown; they follow from each other.
const DIFFERENCES_SHOWN: usize = 3;

/// One run.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// What came of it.
    pub report: &'a RunReport,
    /// What happened, or why that is not known.
    pub events: Result<&'a [Event], &'a str>,
}

/// What is different, for a person.
pub fn render(before: &Run<'_>, now: &Run<'_>) -> String {
    let mut text = "\nsince the last run\n".to_owned();
    for line in lines(before, now) {
        text.push_str(&format!("  {line}\n"));
    }
    text
}

fn lines(before: &Run<'_>, now: &Run<'_>) -> Vec<String> {
    let mut lines = vec![verdict(before.report, now.report)];
    lines.extend(findings(before.report, now.report));
    lines.extend(faults(before.report, now.report));
    lines.extend(history(before, now));
    lines
}

fn verdict(before: &RunReport, now: &RunReport) -> String {
    let (was, is) = (before.verdict.name(), now.verdict.name());
    match was == is {
        true => format!("verdict: {is}, as before"),
        false => format!("verdict: {was} -> {is}"),
    }
}

/// Findings by what they have in common in different runs.
fn findings(before: &RunReport, now: &RunReport) -> Vec<String> {
    let only = |these: &[Finding], not: &[Finding], word: &str| -> Vec<String> {
        let is_known = |one: &&Finding| not.iter().any(|it| it.fingerprint == one.fingerprint);
        let those = these.iter().filter(|one| !is_known(one));
        let line = |it: &Finding| format!("{word}: {} {}: {}", it.checker, it.name, it.cause);
        those.map(line).collect()
    };
    let mut lines = only(&now.findings, &before.findings, "new");
    lines.extend(only(&before.findings, &now.findings, "gone"));
    lines
}

/// Faults by name: their numbers change when one is put in between.
fn faults(before: &RunReport, now: &RunReport) -> Vec<String> {
    let states = |report: &RunReport| -> BTreeMap<String, Vec<&'static str>> {
        let mut states: BTreeMap<String, Vec<&'static str>> = BTreeMap::new();
        for FaultOutcome { name, state, .. } in &report.faults {
            states.entry(name.clone()).or_default().push(state.name());
        }
        states
    };
    let (before, now) = (states(before), states(now));
    let mut names: Vec<&String> = before.keys().chain(now.keys()).collect();
    names.sort();
    names.dedup();
    let line = |name: &String| {
        let told = |states: Option<&Vec<&str>>| {
            states.map_or_else(|| "not there".to_owned(), |states| states.join(", "))
        };
        let (was, is) = (told(before.get(name)), told(now.get(name)));
        (was != is).then(|| format!("fault {name}: {was} -> {is}"))
    };
    names.into_iter().filter_map(line).collect()
}

fn history(before: &Run<'_>, now: &Run<'_>) -> Vec<String> {
    let is_same_trace = before.report.digest.is_some() && before.report.digest == now.report.digest;
    if is_same_trace {
        return vec!["history: the same, to the byte".to_owned()];
    }
    let (was, is) = match (before.events, now.events) {
        (Ok(was), Ok(is)) => (was, is),
        (Err(why), _) | (_, Err(why)) => return vec![format!("history: not compared: {why}")],
    };
    let differences = parity::differences(was, is);
    if differences.is_empty() {
        return vec!["history: the same, but for times and ids".to_owned()];
    }
    let line = |it: &Difference| {
        let Difference {
            what,
            simulated: was,
            real: is,
        } = it;
        format!("history: {what}: was {was}; is {is}")
    };
    let shown = differences.iter().take(DIFFERENCES_SHOWN);
    let mut lines: Vec<String> = shown.map(line).collect();
    let hidden = differences.len().saturating_sub(DIFFERENCES_SHOWN);
    if hidden > 0 {
        lines.push(format!(
            "history: {}",
            figures::plural(hidden, "more difference")
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use wavetank_checkers::{FaultSummary, Judgement, Verdict};
    use wavetank_trace::{EventId, FaultState, Payload, VirtualTime};

    use super::*;
    use crate::run_report::RunIdentity;

    fn fault(name: &str, state: FaultSummary) -> FaultOutcome {
        FaultOutcome {
            fault: 0,
            name: name.to_owned(),
            action: "process-kill".to_owned(),
            state,
            fired_at: None,
            healed_at: None,
            optional: false,
            detail: String::new(),
        }
    }

    fn finding(checker: &str) -> Finding {
        Finding {
            checker: checker.to_owned(),
            name: "name".to_owned(),
            cause: "cause".to_owned(),
            at: VirtualTime(7),
            witnesses: vec![EventId(3)],
            fingerprint: checker.to_owned(),
        }
    }

    fn report(
        verdict: Verdict,
        digest: &str,
        findings: &[&str],
        faults: &[FaultOutcome],
    ) -> RunReport {
        let run = RunIdentity {
            scenario: "any".to_owned(),
            file: "any.yaml".to_owned(),
            seed: 0,
            world: "event".to_owned(),
            overrides: Vec::new(),
            commit: None,
            live: None,
        };
        let judgement = Judgement {
            verdict,
            findings: findings.iter().map(|it| finding(it)).collect(),
            faults: faults.to_vec(),
            inconclusive: Vec::new(),
            active_fault: None,
        };
        RunReport::judged(run, judgement, Some(digest.to_owned()), 1, Duration::ZERO)
    }

    fn event(number: u32, state: FaultState) -> Event {
        Event {
            id: EventId(1),
            at: VirtualTime(1),
            host: None,
            cause: None,
            payload: Payload::Fault {
                fault: number,
                name: format!("fault-{number}"),
                action: "process-kill".to_owned(),
                state,
                disturbs: Vec::new(),
                detail: String::new(),
            },
        }
    }

    fn said(before: &RunReport, now: &RunReport, events: [Result<&[Event], &str>; 2]) -> String {
        let run = |report, events| Run { report, events };
        render(&run(before, events[0]), &run(now, events[1]))
    }

    #[test]
    fn what_is_new_gone_or_other_is_said() {
        let faults = [
            fault("kill", FaultSummary::Fired),
            fault("split", FaultSummary::Hit),
        ];
        let before = report(Verdict::Fail, "1", &["I4", "I5"], &faults);
        let faults = [
            fault("kill", FaultSummary::Hit),
            fault("slow", FaultSummary::NeverFired),
        ];
        let now = report(Verdict::Inconclusive, "2", &["I5", "I6"], &faults);
        let events = (0..5).map(|it| event(it, FaultState::Fired));
        let events: Vec<Event> = events.collect();
        let expected = "
since the last run
  verdict: fail -> inconclusive
  new: I6 name: cause
  gone: I4 name: cause
  fault kill: fired -> hit
  fault slow: not there -> never-fired
  fault split: hit -> not there
  history: fault fault-0: was never; is fired
  history: fault fault-1: was never; is fired
  history: fault fault-2: was never; is fired
  history: 2 more differences
";
        assert_eq!(said(&before, &now, [Ok(&[]), Ok(&events)]), expected);
    }

    #[test]
    fn what_is_the_same_is_said_as_far_as_it_is_known() {
        let one = report(Verdict::Pass, "1", &[], &[]);
        let other = report(Verdict::Pass, "2", &[], &[]);
        let ending = |now: &RunReport, events| {
            let said = said(&one, now, [Ok(&[]), events]);
            said.lines().skip(2).collect::<Vec<_>>().join(";")
        };
        assert_eq!(
            ending(&one, Err("gone")),
            "  verdict: pass, as before;  history: the same, to the byte"
        );
        assert_eq!(
            ending(&other, Ok(&[])),
            "  verdict: pass, as before;  history: the same, but for times and ids"
        );
        assert_eq!(
            ending(&other, Err("gone")),
            "  verdict: pass, as before;  history: not compared: gone"
        );
    }
}
