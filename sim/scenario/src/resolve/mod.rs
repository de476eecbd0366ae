//! From a checked tree to a scenario: gives fields their sense and finds what does not fit
//! together. Draws nothing: what depends on the seed is left to `expand`.
//!
//! Map: `machines` (cluster, images, clients) with `steps` (measured times), `workload` (steps)
//! with `deploy` (specs), `fault` with `action`, `target` and `trigger` (faults before any draw),
//! `swarm`, `expectation` (`expect`).

mod action;
mod deploy;
mod expectation;
pub(crate) mod fault;
mod machines;
mod steps;
pub(crate) mod swarm;
pub(crate) mod target;
mod trigger;
pub(crate) mod workload;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::diagnostic::{Problem, Problems};
use crate::kind;
use crate::plan::{Cluster, Image};
use crate::profiles::{self, Profile};
use crate::scenario::{Definition, Seeds};
use crate::yaml::{Node, Value};
use crate::{faults, format, lints, scalars};

/// What later parts of a file are checked against.
pub(crate) struct World<'a> {
    pub horizon: Duration,
    pub settle: Duration,
    pub profile: &'static Profile,
    pub cluster: &'a Cluster,
    pub images: &'a BTreeMap<String, Image>,
}

/// Reads a merged tree. A definition comes out even if there are errors, as far as it goes.
pub(crate) fn resolve(tree: &Node, problems: &mut Problems) -> Definition {
    kind::check_record(tree, &format::SCENARIO, problems);
    let profile = tree
        .word("profile")
        .and_then(profiles::find)
        .unwrap_or(&profiles::ALL[0]);
    let horizon = tree.duration("horizon").unwrap_or(Duration::from_secs(120));
    let settle = tree.duration("settle").unwrap_or(Duration::from_secs(60));
    check_length(tree, horizon, settle, problems);
    let clients = machines::clients(tree.get("clients"), horizon, problems);
    let cluster = machines::cluster(tree.get("cluster"), profile, clients, problems);
    let images = machines::images(tree.get("images"), problems);
    let world = World {
        horizon,
        settle,
        profile,
        cluster: &cluster,
        images: &images,
    };
    let workload = workload::workload(tree.get("workload"), &world, problems);
    let fault_list = fault::faults(tree.get("faults"), &world, &workload, problems);
    let swarm = swarm::swarm(tree.get("swarm"), &world, problems);
    let expect = expectation::expect(
        tree.get("expect"),
        &world,
        &workload.known(&world),
        problems,
    );
    let worlds = worlds(tree);
    lints::lint(tree, &world, &workload, &fault_list, &worlds, problems);
    Definition {
        name: tree.word("name").unwrap_or_default().to_owned(),
        description: tree.word("description").map(str::to_owned),
        issue: tree.word("issue").map(str::to_owned),
        tags: tree.words("tags").into_iter().map(str::to_owned).collect(),
        seeds: seeds(tree, problems),
        profile: profile.name.to_owned(),
        horizon,
        settle,
        cluster,
        images,
        workload: workload.steps,
        faults: fault_list,
        swarm,
        expect,
        worlds,
    }
}

/// Virtual time is cheap, but a run of days is a mistake.
fn check_length(tree: &Node, horizon: Duration, settle: Duration, problems: &mut Problems) {
    const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);
    for (key, length) in [("horizon", horizon), ("settle", settle)] {
        let Some(node) = tree.get(key) else { continue };
        let message = if length.is_zero() {
            format!("`{key}` is zero")
        } else if length > LONGEST {
            format!("`{key}` is longer than a week")
        } else {
            continue;
        };
        problems.add(
            Problem::error("scenario::invalid-value", node.span, message)
                .label(format!("{} of virtual time", scalars::show(length))),
        );
    }
}

fn seeds(tree: &Node, problems: &mut Problems) -> Seeds {
    let Some(node) = tree.get("seeds") else {
        return Seeds::Count(20);
    };
    match &node.value {
        Value::List(items) => {
            if items.is_empty() {
                problems.add(
                    Problem::error("scenario::invalid-value", node.span, "the list has no seed")
                        .label("empty")
                        .help("give a number to try that many seeds: `seeds: 20`"),
                );
            }
            Seeds::List(items.iter().filter_map(Node::as_number).collect())
        }
        _ => Seeds::Count(node.as_number().unwrap_or(1)),
    }
}

fn worlds(tree: &Node) -> Vec<String> {
    let named = tree.words("worlds");
    let known = faults::WORLDS.iter().filter(|world| named.contains(world));
    let worlds: Vec<String> = known.map(|world| (*world).to_owned()).collect();
    if worlds.is_empty() {
        vec!["event".to_owned()]
    } else {
        worlds
    }
}
