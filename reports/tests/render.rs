//! What people and machines get to read, for one sample of every kind of run.

use std::time::Duration;

use wavetank_checkers::{FaultOutcome, FaultSummary, Finding, Judgement, Verdict};
use wavetank_reports::{
    BenchRow, Divergence, RunIdentity, RunReport, RunVerdict, Style, Summary, bench, exit_code,
    json, junit, markdown, shell, table,
};
use wavetank_trace::{EventId, VirtualTime};

fn identity(scenario: &str, seed: u64) -> RunIdentity {
    RunIdentity {
        scenario: scenario.to_owned(),
        file: format!("scenarios/{scenario}.yaml"),
        seed,
        world: "event".to_owned(),
        overrides: Vec::new(),
        commit: Some("0123abcd".to_owned()),
        live: None,
    }
}

fn judgement(verdict: Verdict) -> Judgement {
    Judgement {
        verdict,
        findings: Vec::new(),
        faults: vec![fault("lose-exit-event", Some(12_001))],
        inconclusive: Vec::new(),
        active_fault: None,
    }
}

fn fault(name: &str, fired_ms: Option<u64>) -> FaultOutcome {
    FaultOutcome {
        fault: 0,
        name: name.to_owned(),
        action: "runtime-event-drop".to_owned(),
        state: if fired_ms.is_some() {
            FaultSummary::Hit
        } else {
            FaultSummary::NeverFired
        },
        fired_at: fired_ms.map(at),
        healed_at: None,
        optional: false,
        detail: "on agent-2".to_owned(),
    }
}

fn at(ms: u64) -> VirtualTime {
    VirtualTime::from_duration(Duration::from_millis(ms))
}

fn finding(checker: &str, name: &str, cause: &str) -> Finding {
    Finding {
        checker: checker.to_owned(),
        name: name.to_owned(),
        cause: cause.to_owned(),
        at: at(12_345),
        witnesses: vec![EventId(40), EventId(41)],
        fingerprint: format!("{checker}/{name}"),
    }
}

fn ended(scenario: &str, seed: u64, judgement: Judgement) -> RunReport {
    let digest = Some(format!("{seed:032x}"));
    let virtual_time = Duration::from_secs(690);
    RunReport::judged(
        identity(scenario, seed),
        judgement,
        digest,
        412_345,
        virtual_time,
    )
}

/// The same run in another world.
fn in_world(world: &str, report: RunReport) -> RunReport {
    RunReport {
        run: RunIdentity {
            world: world.to_owned(),
            ..report.run
        },
        ..report
    }
}

#[test]
fn worlds_that_disagree_have_found_something() {
    let pass = || passed("node-loss", 3);
    let agreed = [pass(), in_world("turmoil", pass())];
    let summary = Summary::of(&agreed);
    assert_eq!(summary.scenarios.len(), 2);
    assert_eq!(exit_code::of_summary(&summary), exit_code::PASS);
    let failed = ended("node-loss", 3, judgement(Verdict::Fail));
    let disagreed = [pass(), in_world("turmoil", failed)];
    let summary = Summary::of(&disagreed);
    assert_eq!(exit_code::of_summary(&summary), exit_code::VIOLATED);
    let text = table::render(&summary, Style::PLAIN);
    let line = "worlds disagree on node-loss seed 3: event pass, turmoil fail";
    assert!(text.contains(line), "{text}");
    assert!(text.contains("world"), "{text}");
}

fn passed(scenario: &str, seed: u64) -> RunReport {
    ended(scenario, seed, judgement(Verdict::Pass))
}

fn violated(scenario: &str, seed: u64) -> RunReport {
    let cause = "task-3.1 was reported with exit code 0, and its process ended with 7";
    let mut judgement = judgement(Verdict::Fail);
    judgement.findings = vec![finding("I9", "exit-code-truth", cause)];
    judgement.active_fault = Some("lose-exit-event".to_owned());
    let trace = Some(format!("store/{scenario}/{seed}/trace.jsonl"));
    RunReport {
        trace,
        ..ended(scenario, seed, judgement)
    }
}

fn inconclusive(scenario: &str, seed: u64) -> RunReport {
    let mut judgement = judgement(Verdict::Inconclusive);
    judgement.faults = vec![fault("kill-leader", None)];
    judgement.inconclusive = vec!["fault `kill-leader` never fired".to_owned()];
    ended(scenario, seed, judgement)
}

fn different(scenario: &str, seed: u64) -> RunReport {
    let divergence = Divergence {
        digests: vec!["aa".to_owned(), "aa".to_owned(), "bb".to_owned()],
        event: Some(41),
        left: Some("{\"id\":41}".to_owned()),
        right: None,
    };
    RunReport {
        verdict: RunVerdict::NonDeterministic,
        divergence: Some(divergence),
        ..passed(scenario, seed)
    }
}

fn broken(scenario: &str, seed: u64) -> RunReport {
    let error = "panicked at sim/engine/src/queue.rs:7:9:\nno\nafter event 9 at 1.000s on agent-1";
    RunReport::failed(identity(scenario, seed), error.to_owned())
}

fn known_bad(scenario: &str, seed: u64) -> RunReport {
    let must_fail = vec!["no-lost-update".to_owned()];
    RunReport {
        must_fail,
        ..ended(scenario, seed, judgement(Verdict::Fail))
    }
}

/// Every kind of run, in file and seed order.
fn sample() -> Vec<RunReport> {
    vec![
        passed("steady", 1),
        passed("steady", 2),
        violated("lost-exit", 16),
        violated("lost-exit", 17),
        inconclusive("idle-fault", 3),
        different("coin", 5),
        broken("crash", 9),
        known_bad("held", 4),
    ]
}

#[test]
fn a_table_of_every_kind_of_run() {
    insta::assert_snapshot!(table::render(&Summary::of(&sample()), Style::PLAIN));
}

#[test]
fn a_table_of_one_run_that_passed_has_its_digest() {
    insta::assert_snapshot!(table::render(
        &Summary::of(&[passed("steady", 1)]),
        Style::PLAIN
    ));
}

#[test]
fn colours_are_there_only_when_wanted() {
    let summary = Summary::of(&sample());
    assert!(!table::render(&summary, Style::PLAIN).contains('\u{1b}'));
    let colored = Style {
        color: true,
        width: None,
    };
    assert!(table::render(&summary, colored).contains('\u{1b}'));
}

#[test]
fn a_table_fits_the_width_that_it_is_given() {
    let narrow = Style {
        color: false,
        width: Some(60),
    };
    let text = table::render(&Summary::of(&[passed("steady", 1)]), narrow);
    let widest = text
        .lines()
        .filter(|line| line.starts_with('│'))
        .map(|l| l.chars().count());
    assert!(widest.max().is_some_and(|columns| columns <= 60), "{text}");
}

#[test]
fn more_failures_than_fit_are_counted() {
    let many: Vec<RunReport> = (0..7)
        .map(|number| {
            let mut report = violated("lost-exit", number);
            report.findings[0].fingerprint = format!("other/{number}");
            report
        })
        .collect();
    let text = table::render(&Summary::of(&many), Style::PLAIN);
    assert_eq!(text.matches("replay").count(), 5);
    assert!(
        text.contains("2 distinct failures more in --format json"),
        "{text}"
    );
}

#[test]
fn one_failure_in_many_runs_is_said_once() {
    let failures = Summary::of(&[violated("a", 1), violated("a", 2), violated("b", 3)]).failures;
    assert_eq!(failures.len(), 1);
    assert_eq!((failures[0].seed, failures[0].runs), (1, 3));
}

#[test]
fn what_a_known_bad_scenario_should_violate_is_no_failure() {
    let mut report = violated("held", 4);
    report.must_fail = vec!["I9".to_owned(), "no-lost-update".to_owned()];
    let titles: Vec<String> = Summary::of(&[report])
        .failures
        .into_iter()
        .map(|failure| failure.title)
        .collect();
    assert_eq!(titles, ["no-lost-update was not violated"]);
}

#[test]
fn json_has_one_object_per_line_and_reads_back() -> serde_json::Result<()> {
    let lines: String = sample().iter().map(json::line).collect::<Result<_, _>>()?;
    insta::assert_snapshot!(lines);
    let read: Vec<RunReport> = lines
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    assert_eq!(read, sample());
    Ok(())
}

#[test]
fn junit_has_a_suite_per_file_and_a_case_per_seed() -> Result<(), quick_junit::SerializeError> {
    insta::assert_snapshot!(junit::render(&sample())?);
    Ok(())
}

#[test]
fn markdown_puts_failures_first() {
    insta::assert_snapshot!(markdown::render("Nightly", &Summary::of(&sample())));
}

#[test]
fn what_a_cause_says_stays_text_in_markdown() {
    let mut report = violated("lost-exit", 1);
    report.findings[0].cause = "a|b <script> [x](y)".to_owned();
    let text = markdown::render("Nightly", &Summary::of(&[report]));
    assert!(text.contains(r"a\|b &lt;script&gt; \[x\](y)"), "{text}");
}

#[test]
fn exit_codes_follow_the_gravest_verdict() {
    let code = |reports: &[RunReport]| exit_code::of_summary(&Summary::of(reports));
    assert_eq!(code(&[passed("a", 1)]), 0);
    assert_eq!(code(&[passed("a", 1), inconclusive("a", 2)]), 3);
    assert_eq!(code(&[inconclusive("a", 1), violated("a", 2)]), 1);
    assert_eq!(code(&[violated("a", 1), different("b", 2)]), 5);
    assert_eq!(
        code(&[violated("a", 1), different("b", 2), broken("c", 3)]),
        6
    );
    assert_eq!(code(&[]), 4);
}

#[test]
fn a_benchmark_for_people() {
    let row = |agents, peak_rss_bytes| BenchRow {
        managers: 3,
        agents,
        events: 1_234_567,
        events_per_second: 2_345_678,
        virtual_seconds_per_second: 812.3456,
        peak_rss_bytes,
    };
    let rows = [row(5, Some(84 << 20)), row(500, None)];
    insta::assert_snapshot!(bench::render(&rows, Style::PLAIN));
}

#[test]
fn the_cost_of_real_nodes_for_people() {
    let cost = |nodes, cpu_seconds_per_second| shell::RoleCost {
        nodes,
        messages_per_second: 1234.5,
        bytes_per_second: 1_048_576.0,
        cpu_seconds_per_second,
        resident_bytes_median: 20 << 20,
        resident_bytes_max: 30 << 20,
        proportional_bytes_median: 10 << 20,
    };
    let row = |load: &str, writes_per_second| shell::ShellRow {
        load: load.to_owned(),
        seconds: 20.0,
        writes_per_second,
        changes_per_second: writes_per_second / 100.0,
        managers: cost(3, 0.25),
        agents: cost(50, 1.0),
    };
    let rows = [row("idle", 0.0), row("busy", 1234.0)];
    insta::assert_snapshot!(shell::render(&rows, Style::PLAIN));
}

#[test]
fn a_fault_that_touched_nothing_in_any_run_is_named() {
    let run = |scenario: &str, seed, states: &[FaultSummary], optional| {
        let faults = (0..).zip(states).map(|(number, state)| FaultOutcome {
            fault: number,
            state: *state,
            optional,
            ..fault(&format!("fault-{number}"), Some(1))
        });
        let judgement = Judgement {
            faults: faults.collect(),
            ..judgement(Verdict::Pass)
        };
        ended(scenario, seed, judgement)
    };
    use FaultSummary::{Fired, Hit, NeverFired};
    let summary = Summary::of(&[
        run("a", 1, &[Fired, Fired, Hit], false),
        run("a", 2, &[Fired, Hit, NeverFired], false),
        run("swarm", 1, &[Fired], true),
    ]);
    let named: Vec<_> = summary
        .idle_faults
        .iter()
        .map(|idle| (&*idle.scenario, &*idle.fault, idle.runs))
        .collect();
    assert_eq!(named, [("a", "fault-0", 2)]);
    let text = table::render(&summary, Style::PLAIN);
    let note = "note: fault `fault-0` of a came into force and touched nothing, in 2 runs";
    assert!(text.contains(note), "{text}");
}
