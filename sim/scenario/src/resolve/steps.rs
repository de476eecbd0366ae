//! `cluster.runtime.steps`: what was measured of a runtime.

use std::time::Duration;

use crate::diagnostic::{Problem, Problems};
use crate::plan::{PERCENTS, Quantiles, RuntimeStep, RuntimeSteps};
use crate::scalars;
use crate::yaml::{Entry, Node};

/// The steps that a file gives. One whose values are unfit is left out: what is wrong with them has
/// been said.
pub(crate) fn steps(node: Option<&Node>, problems: &mut Problems) -> RuntimeSteps {
    let Some(node) = node else {
        return RuntimeSteps::new();
    };
    let read = |step: RuntimeStep| Some((step, quantiles(node.entry(step.name())?, problems)?));
    let steps: RuntimeSteps = RuntimeStep::ALL.into_iter().filter_map(read).collect();
    check_begin(node, &steps, problems);
    steps
}

fn quantiles(entry: &Entry, problems: &mut Problems) -> Option<Quantiles> {
    if let Some(text) = entry.value.text() {
        return scalars::range(text).ok().map(Quantiles::from);
    }
    let mut points: Vec<(u8, Duration)> = Vec::new();
    for percent in PERCENTS {
        let key = format!("p{percent}");
        let Some(value) = entry.value.duration(&key) else {
            continue;
        };
        match points.last() {
            Some((before, least)) if value < *least => {
                falls(entry, (*before, *least), (percent, value), problems);
                return None;
            }
            _ => points.push((percent, value)),
        }
    }
    Quantiles::new(points)
}

fn falls(entry: &Entry, before: (u8, Duration), after: (u8, Duration), problems: &mut Problems) {
    let (key, other) = (format!("p{}", after.0), format!("p{}", before.0));
    let message = format!("`{key}` of `{}` is shorter than its `{other}`", entry.key);
    let span = |key: &str| entry.value.get(key).map_or(entry.key_span, |it| it.span);
    problems.add(
        Problem::error("scenario::invalid-value", span(&key), message)
            .label("shorter")
            .also(span(&other), "than this")
            .help("quantiles rise: what 95 in 100 do not exceed is at least what 50 do not"),
    );
}

/// A process begins while its start is under way.
fn check_begin(node: &Node, steps: &RuntimeSteps, problems: &mut Problems) {
    let (Some(entry), Some(begin)) = (node.entry("begin"), steps.get(&RuntimeStep::Begin)) else {
        return;
    };
    let Some(start) = node.entry("start") else {
        problems.add(
            Problem::error(
                "scenario::conflict",
                entry.key_span,
                "`begin` says nothing without `start`",
            )
            .label("a part of what?")
            .help("give `start` as well: the time until the answer"),
        );
        return;
    };
    let Some(whole) = steps.get(&RuntimeStep::Start) else {
        return;
    };
    let late = |percent: &u8| begin.percent(*percent) > whole.percent(*percent);
    if let Some(percent) = PERCENTS.into_iter().find(late) {
        let label = |step: &Quantiles| scalars::show(step.percent(percent));
        problems.add(
            Problem::error(
                "scenario::conflict",
                entry.key_span,
                "a process begins before its start is answered",
            )
            .label(format!("{} at {percent} %", label(begin)))
            .also(start.key_span, format!("{} at {percent} %", label(whole)))
            .help("`begin` is a part of `start`, at each percentage"),
        );
    }
}
