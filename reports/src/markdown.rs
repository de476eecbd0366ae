//! A summary for a page: the nightly run's step summary and `summary.md`.

use crate::figures;
use crate::run_report::RunVerdict;
use crate::summary::{Failure, ScenarioSummary, Summary};

/// Failures first, because they are why anybody reads it; then a row per scenario.
pub fn render(title: &str, summary: &Summary) -> String {
    let mut text = format!("# {title}\n\n{}\n", verdict_line(summary));
    for failure in &summary.failures {
        text.push_str(&section(failure));
    }
    text.push_str("\n## Scenarios\n\n");
    text.push_str("| scenario | verdict | passed | failed | inconclusive | broken | events |");
    text.push_str(" virtual time |\n|---|---|--:|--:|--:|--:|--:|--:|\n");
    for scenario in &summary.scenarios {
        text.push_str(&row(scenario));
    }
    text.push_str(&row(&summary.total()));
    text
}

fn verdict_line(summary: &Summary) -> String {
    let total = summary.total();
    let runs = figures::plural(total.runs(), "run");
    let distinct = summary.failures.len();
    match summary.verdict() {
        None => "Nothing ran.".to_owned(),
        Some(RunVerdict::Pass) => format!("All {runs} passed."),
        Some(verdict) => format!(
            "**{}**: {} of {runs} did not pass, in {}.",
            verdict.name(),
            figures::count((total.runs() - total.passed) as u64),
            figures::plural(distinct, "distinct way")
        ),
    }
}

fn section(failure: &Failure) -> String {
    let mut text = format!(
        "\n## {}: {}\n\n",
        escaped(&failure.scenario),
        escaped(&failure.title)
    );
    text.push_str(&escaped(&failure.cause));
    text.push_str("\n\n");
    let mut item = |name: &str, value: &str| text.push_str(&format!("- {name}: {value}\n"));
    if let Some(at) = failure.at {
        item("first bad moment", &format!("{at} of virtual time"));
        let fault = failure.active_fault.as_deref().unwrap_or("none in force");
        item("active fault", &escaped(fault));
    }
    item("seed", &failure.seed.to_string());
    item("runs that showed it", &figures::count(failure.runs as u64));
    if let Some(commit) = &failure.commit {
        item("commit", commit);
    }
    if let Some(trace) = &failure.trace {
        item("trace", &escaped(trace));
    }
    text.push_str(&format!("\n```sh\n{}\n```\n", failure.replay));
    text
}

fn row(scenario: &ScenarioSummary) -> String {
    let counts = [
        scenario.passed,
        scenario.failed,
        scenario.inconclusive,
        scenario.broken,
    ]
    .map(|runs| figures::count(runs as u64));
    format!(
        "| {} | {} | {} | {} | {} |\n",
        escaped(&scenario.scenario),
        scenario.verdict.name(),
        counts.join(" | "),
        figures::count(scenario.events),
        figures::span(scenario.virtual_ms)
    )
}

/// What a cause says must not become a table, a link or an element.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' => escaped.extend(['\\', character]),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '\n' => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}
