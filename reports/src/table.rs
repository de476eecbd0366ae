//! A summary for a person at a terminal.

use std::fmt::Write as _;

use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table, presets};

use crate::figures;
use crate::run_report::RunVerdict;
use crate::summary::{Disagreement, Failure, IdleFault, ScenarioSummary, Summary};

/// Distinct failures that are shown in full; the JSON report has all.
const FAILURES_SHOWN: usize = 5;

/// What the terminal can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Whether colours are wanted.
    pub color: bool,
    /// Columns; `None` for as many as the text needs.
    pub width: Option<u16>,
}

impl Style {
    /// For files and pipes.
    pub const PLAIN: Style = Style {
        color: false,
        width: None,
    };
}

/// The rows, then each distinct failure with the command that plays it again.
pub fn render(summary: &Summary, style: Style) -> String {
    let mut text = rows(summary, style).to_string();
    text.push('\n');
    for failure in summary.failures.iter().take(FAILURES_SHOWN) {
        text.push('\n');
        push_failure(&mut text, failure, style);
    }
    for one in summary.disagreements.iter().take(FAILURES_SHOWN) {
        text.push('\n');
        push_line(&mut text, &disagreement(one));
    }
    let hidden = summary.failures.len().saturating_sub(FAILURES_SHOWN);
    if hidden > 0 {
        push_line(
            &mut text,
            &format!(
                "\n{} more in --format json",
                figures::plural(hidden, "distinct failure")
            ),
        );
    }
    if !summary.idle_faults.is_empty() {
        text.push('\n');
    }
    for one in &summary.idle_faults {
        push_line(&mut text, &idle_fault(one));
    }
    text.push('\n');
    push_line(&mut text, &closing_line(summary));
    text
}

/// An empty table in the house's looks.
pub(crate) fn empty(style: Style, header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY).force_no_tty();
    table.set_header(header.iter().map(|name| bold(Cell::new(name), style)));
    if style.color {
        table.enforce_styling();
    }
    if let Some(width) = style.width {
        table
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(width);
    }
    table
}

/// A number, aligned as numbers are.
pub(crate) fn number(number: u64) -> Cell {
    right(figures::count(number))
}

/// A text, aligned as numbers are.
pub(crate) fn right(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

fn rows(summary: &Summary, style: Style) -> Table {
    let broken = summary.total().broken > 0;
    let worlds = summary.scenarios.iter().any(|row| row.world != "event");
    let mut header = vec!["scenario"];
    header.extend(worlds.then_some("world"));
    header.extend(["verdict", "passed", "failed", "inconclusive"]);
    header.extend(broken.then_some("broken"));
    header.extend(["events", "virtual time"]);
    let mut table = empty(style, &header);
    for scenario in &summary.scenarios {
        table.add_row(row(scenario, worlds, broken, style));
    }
    table
}

fn row(scenario: &ScenarioSummary, worlds: bool, broken: bool, style: Style) -> Vec<Cell> {
    let mut cells = vec![Cell::new(&scenario.scenario)];
    cells.extend(worlds.then(|| Cell::new(&scenario.world)));
    cells.push(verdict(scenario.verdict, style));
    let counts = [scenario.passed, scenario.failed, scenario.inconclusive];
    cells.extend(counts.map(|runs| number(runs as u64)));
    cells.extend(broken.then(|| number(scenario.broken as u64)));
    cells.push(number(scenario.events));
    cells.push(right(figures::span(scenario.virtual_ms)));
    cells
}

/// A fault that was there for nothing, and perhaps not as its author meant it.
fn idle_fault(one: &IdleFault) -> String {
    let world = match &*one.world {
        "event" => String::new(),
        world => format!(" in {world}"),
    };
    format!(
        "note: fault `{}` of {} came into force{world} and touched nothing, in {}",
        one.fault,
        one.scenario,
        figures::plural(one.runs, "run")
    )
}

/// What each world says of a seed on which they do not agree.
fn disagreement(one: &Disagreement) -> String {
    let verdicts = one.verdicts.iter();
    let said: Vec<String> = verdicts
        .map(|(world, verdict)| format!("{world} {}", verdict.name()))
        .collect();
    format!(
        "worlds disagree on {} seed {}: {}",
        one.scenario,
        one.seed,
        said.join(", ")
    )
}

fn verdict(verdict: RunVerdict, style: Style) -> Cell {
    let cell = Cell::new(verdict.name());
    if !style.color {
        return cell;
    }
    cell.fg(match verdict {
        RunVerdict::Pass => Color::Green,
        RunVerdict::Inconclusive => Color::Yellow,
        RunVerdict::Fail | RunVerdict::NonDeterministic | RunVerdict::Error => Color::Red,
    })
}

fn bold(cell: Cell, style: Style) -> Cell {
    if style.color {
        cell.add_attribute(Attribute::Bold)
    } else {
        cell
    }
}

fn push_failure(text: &mut String, failure: &Failure, style: Style) {
    let label = failure.verdict.name().to_uppercase();
    let label = match (style.color, failure.verdict) {
        (false, _) => label,
        (true, RunVerdict::Inconclusive) => format!("\u{1b}[33m{label}\u{1b}[0m"),
        (true, _) => format!("\u{1b}[31m{label}\u{1b}[0m"),
    };
    push_line(
        text,
        &format!("{label} {}: {}", failure.scenario, failure.title),
    );
    push_field(text, "what", &failure.cause);
    if let Some(at) = failure.at {
        push_field(text, "first bad at", &format!("{at} of virtual time"));
        let fault = failure.active_fault.as_deref().unwrap_or("none in force");
        push_field(text, "active fault", fault);
    }
    let others = failure.runs - 1;
    let others = match others {
        0 => String::new(),
        _ => format!(" (and {} more)", figures::plural(others, "run")),
    };
    push_field(text, "seed", &format!("{}{others}", failure.seed));
    push_optional(text, "commit", failure.commit.as_deref());
    push_optional(text, "trace", failure.trace.as_deref());
    push_field(text, "replay", &failure.replay);
}

fn push_optional(text: &mut String, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        push_field(text, name, value);
    }
}

fn push_field(text: &mut String, name: &str, value: &str) {
    push_line(
        text,
        &format!("  {name:<14}{}", value.replace('\n', "\n                ")),
    );
}

fn push_line(text: &mut String, line: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{line}");
}

fn closing_line(summary: &Summary) -> String {
    let total = summary.total();
    let mut parts = vec![format!("{} passed", figures::count(total.passed as u64))];
    let others = [
        (total.failed, "failed"),
        (total.inconclusive, "inconclusive"),
        (total.broken, "broken"),
    ];
    let some = others.into_iter().filter(|(runs, _)| *runs > 0);
    parts.extend(some.map(|(runs, what)| format!("{} {what}", figures::count(runs as u64))));
    let digest = summary
        .digest
        .as_ref()
        .map(|digest| format!(", digest {digest}"));
    format!(
        "{} of {}: {}; {} events in {} of virtual time{}",
        figures::plural(total.runs(), "run"),
        figures::plural(summary.scenarios.len(), "scenario"),
        parts.join(", "),
        figures::count(total.events),
        figures::span(total.virtual_ms),
        digest.unwrap_or_default()
    )
}

/// Any other list: rows of text under a header.
pub fn list(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>, style: Style) -> String {
    let mut table = empty(style, header);
    for row in rows {
        table.add_row(row);
    }
    format!("{table}\n")
}
