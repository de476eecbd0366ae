//! Times that were measured on a runtime: where they come from, what they mean, how they are kept.

use std::time::Duration;

use wavetank_scenario::plan::{Plan, RuntimeStep};
use wavetank_scenario::{LoadError, Scenario, steps_as_yaml};

use crate::support::{parse, parse_with, render};

fn loaded(result: Result<Scenario, LoadError>) -> Scenario {
    result.unwrap_or_else(|error| panic!("{}", render(&error.diagnostics)))
}

const MEASURED: &str = "cluster:
  runtime:
    steps:
      pull: 1ms..2ms
      start:
        { p0: 1ms, p25: 2ms, p50: 4ms,
          p95: 40ms, p99: 90ms, p100: 100ms }
      begin: { p0: 0.5ms, p100: 3.5ms }
      event: 750us
";

fn with_measured(own: &str) -> Scenario {
    let text = format!("scenario: 1\nname: a\ninclude: shared/measured.yaml\n{own}");
    loaded(parse_with(&text, &[("shared/measured.yaml", MEASURED)]))
}

#[test]
fn measured_steps_come_from_an_included_file() {
    let scenario = with_measured("cluster: { runtime: { steps: { pull: 3ms } } }\n");
    let cluster = scenario.plan(1).cluster;
    let ms = Duration::from_millis;
    let start = &cluster.runtime_steps[&RuntimeStep::Start];
    assert_eq!(
        [1, 25, 50, 95, 100].map(|it| start.percent(it).as_micros()),
        [1_040, 2_000, 4_000, 40_000, 100_000]
    );
    assert_eq!(cluster.runtime_steps[&RuntimeStep::Pull].max(), ms(3));
    assert_eq!(cluster.event_delay_max(), Duration::from_micros(750));
    assert!(!cluster.runtime_steps.contains_key(&RuntimeStep::Create));
    let explained = scenario.explain(1);
    let line = explained
        .lines()
        .find(|line| line.starts_with("runtimes: "));
    assert_eq!(
        line,
        Some(
            "runtimes: pull 3ms (p95 3ms), start 4ms (p95 40ms), begin 2ms (p95 3.35ms), \
             event 750us (p95 750us)"
        )
    );
}

#[test]
fn measured_steps_read_back_as_they_were_written() {
    let cluster = with_measured("").plan(1).cluster;
    let text = steps_as_yaml(&cluster.runtime_steps);
    assert!(text.lines().all(|line| line.len() <= 100), "{text}");
    let whole = "scenario: 1\nname: a\ninclude: b.yaml\n";
    let again = loaded(parse_with(whole, &[("b.yaml", &text)])).plan(1);
    assert_eq!(again.cluster.runtime_steps, cluster.runtime_steps);
    let json = serde_json::to_string(&again).expect("a plan is JSON");
    let back: Plan = serde_json::from_str(&json).expect("a plan reads back");
    assert_eq!(back, again);
}

#[test]
fn a_plan_without_measured_steps_says_nothing_of_them() {
    let plan = loaded(parse("scenario: 1\nname: a\n")).plan(1);
    let json = serde_json::to_string(&plan).expect("a plan is JSON");
    assert!(!json.contains("runtime_steps"), "{json}");
}

#[test]
fn ranges_that_measured_steps_replace_are_idle() {
    let idle = with_measured("cluster: { runtime: { latency: 1ms, event_delay: 1ms } }\n");
    insta::assert_snapshot!(render(&idle.lints()));
}
