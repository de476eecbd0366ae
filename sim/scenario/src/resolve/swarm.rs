//! `swarm`: what may be drawn, how often and for how long. `crate::swarm` draws it.

use std::time::Duration;

use super::World;
use super::fault::OCCURRENCES_MAX;
use crate::diagnostic::{Problem, Problems};
use crate::faults::{self, FaultInfo};
use crate::plan::Range;
use crate::scalars;
use crate::yaml::Node;

/// Faults that are drawn for each seed.
#[derive(Clone, Debug)]
pub(crate) struct SwarmDefinition {
    pub actions: Vec<&'static FaultInfo>,
    pub rate: (u32, Duration),
    pub duration: Range,
}

/// Reads `swarm`.
pub(crate) fn swarm(
    node: Option<&Node>,
    world: &World<'_>,
    problems: &mut Problems,
) -> Option<SwarmDefinition> {
    let node = node?;
    let mut actions = Vec::new();
    for item in node
        .get("actions")
        .map(Node::one_or_many)
        .unwrap_or_default()
    {
        let Some(name) = item.text() else { continue };
        match faults::find(name) {
            Some(info) if info.swarm => actions.push(info),
            Some(_) => problems.add(
                Problem::error(
                    "scenario::invalid-value",
                    item.span,
                    format!("`{name}` cannot be drawn"),
                )
                .label("needs arguments that only a person can choose")
                .help("give it an entry of its own under `faults`"),
            ),
            None => problems.add(
                Problem::error(
                    "scenario::unknown-action",
                    item.span,
                    format!("there is no action `{name}`"),
                )
                .label("unknown action")
                .maybe_help(
                    crate::diagnostic::nearest(name, faults::names())
                        .map(|near| format!("did you mean `{near}`?")),
                ),
            ),
        }
    }
    let rate = node.word("rate").and_then(|text| scalars::rate(text).ok());
    let rate = rate.unwrap_or((2, Duration::from_secs(60)));
    let most = world.horizon.as_nanos() * u128::from(rate.0) / rate.1.as_nanos().max(1);
    if most > OCCURRENCES_MAX {
        let span = node.get("rate").unwrap_or(node).span;
        problems.add(Problem::error(
            "scenario::invalid-value",
            span,
            format!("this would be {most} faults in a run"),
        ));
        return None;
    }
    let second = Duration::from_secs(1);
    let duration = node.range("for").unwrap_or(Range {
        min: second,
        max: second * 20,
    });
    (!actions.is_empty()).then_some(SwarmDefinition {
        actions,
        rate,
        duration,
    })
}
