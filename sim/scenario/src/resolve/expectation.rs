//! `expect`: which checkers judge, and what must be true in the end or never.

use super::World;
use crate::checks::{self, CHECKS};
use crate::diagnostic::{Problem, Problems, hint};
use crate::expression::{Expression, Known};
use crate::plan::{Eventually, Expect};
use crate::scalars;
use crate::yaml::{Node, Value};

/// Reads `expect`; without it all checkers judge.
pub(crate) fn expect(
    node: Option<&Node>,
    world: &World<'_>,
    known: &Known,
    problems: &mut Problems,
) -> Expect {
    let field = |key: &str| node.and_then(|node| node.get(key));
    let never = field("never").map(Node::one_or_many).unwrap_or_default();
    Expect {
        invariants: invariants(field("invariants"), problems),
        eventually: eventually(field("eventually"), world, known, problems),
        never: never
            .iter()
            .filter_map(|place| never_check(place, known, problems))
            .collect(),
        fails: fails(field("fails"), problems),
    }
}

/// The ids of the wanted checkers, in catalogue order.
fn invariants(node: Option<&Node>, problems: &mut Problems) -> Vec<String> {
    let ids = |wanted: &dyn Fn(&str) -> bool| {
        CHECKS
            .iter()
            .map(|check| check.id)
            .filter(|id| wanted(id))
            .map(str::to_owned)
            .collect()
    };
    let Some(node) = node else {
        return ids(&|_| true);
    };
    match &node.value {
        Value::List(items) => {
            let named: Vec<&str> = items
                .iter()
                .filter_map(|item| check_id(item, problems))
                .collect();
            ids(&|id| named.contains(&id))
        }
        Value::Map(_) => {
            let exceptions = node.get("except").map(Node::items).unwrap_or_default();
            let named: Vec<&str> = exceptions
                .iter()
                .filter_map(|exception| check_id(exception.get("name")?, problems))
                .collect();
            ids(&|id| !named.contains(&id))
        }
        _ => ids(&|_| true),
    }
}

fn check_id(node: &Node, problems: &mut Problems) -> Option<&'static str> {
    let name = node.text()?;
    let check = checks::find(name);
    if check.is_none() {
        unknown_check(node, name, problems);
    }
    check.map(|check| check.id)
}

fn unknown_check(node: &Node, name: &str, problems: &mut Problems) {
    let names = CHECKS.iter().flat_map(|check| [check.name, check.id]);
    let near = crate::diagnostic::nearest(name, names);
    let all = hint(
        "",
        "the checkers are",
        CHECKS.iter().map(|check| check.name),
    );
    let help = match (near, all) {
        (Some(near), _) => Some(format!("did you mean `{near}`?")),
        (None, all) => all,
    };
    problems.add(
        Problem::error(
            "scenario::unknown-check",
            node.span,
            format!("there is no checker `{name}`"),
        )
        .label("unknown checker")
        .maybe_help(help),
    );
}

/// A known-bad file may also expect its own `eventually` or `never` to be violated.
fn fails(node: Option<&Node>, problems: &mut Problems) -> Vec<String> {
    let mut names = Vec::new();
    for item in node.map(Node::one_or_many).unwrap_or_default() {
        match item.text() {
            Some(name @ ("eventually" | "never")) => names.push(name.to_owned()),
            Some(_) => names.extend(check_id(item, problems).map(str::to_owned)),
            None => {}
        }
    }
    names.sort();
    names.dedup();
    names
}

fn eventually(
    node: Option<&Node>,
    world: &World<'_>,
    known: &Known,
    problems: &mut Problems,
) -> Vec<Eventually> {
    let mut list = Vec::new();
    for item in node.map(Node::items).unwrap_or_default() {
        let within = item.duration("within").unwrap_or(world.settle);
        if let Some(place) = item.get("within").filter(|_| within > world.settle) {
            let message = format!(
                "the run ends {} before this is due",
                scalars::show(within - world.settle)
            );
            problems.add(
                Problem::warning("scenario::lint::late-expectation", place.span, message)
                    .label(format!("settle is {}", scalars::show(world.settle)))
                    .help("settle longer, or expect it sooner"),
            );
        }
        let Some(place) = item.get("check") else {
            continue;
        };
        let Some(source) = place.text() else { continue };
        match Expression::compile_eventually(source) {
            Ok(expression) => {
                expression.report_doubts(place, known, problems);
                list.push(Eventually {
                    check: source.to_owned(),
                    within,
                });
            }
            Err(error) => problems.add(error.problem(place)),
        }
    }
    list
}

fn never_check(place: &Node, known: &Known, problems: &mut Problems) -> Option<String> {
    let source = place.text()?;
    match Expression::compile_never(source) {
        Ok(expression) => {
            expression.report_doubts(place, known, problems);
            Some(source.to_owned())
        }
        Err(error) => {
            problems.add(error.problem(place));
            None
        }
    }
}
