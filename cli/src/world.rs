//! The worlds that this program can run a plan in.

use wavetank_engine::{Keep, RunOptions, RunResult};
use wavetank_scenario::plan::Plan;
use wavetank_trace::Event;

use crate::failure::Failure;
use crate::runner::Execute;

/// One world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum World {
    /// Decisions alone, from one event to the next.
    Event,
    /// The shipped node in turmoil.
    Turmoil,
    /// The shipped node in madsim.
    Madsim,
}

/// What stands for every world.
const ALL: &str = "all";

/// How to get a program that has madsim in it.
const MADSIM_HINT: &str =
    "world `madsim` takes a build of its own: `cargo madsim run FILE --world madsim`";

impl World {
    /// Every world, in the order of their rows.
    const EACH: [World; 3] = [World::Event, World::Turmoil, World::Madsim];

    /// The name in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            World::Event => "event",
            World::Turmoil => "turmoil",
            World::Madsim => "madsim",
        }
    }

    /// Whether this build has it.
    fn is_here(self) -> bool {
        self != World::Madsim || cfg!(madsim)
    }

    /// The world of that name.
    pub fn named(name: &str) -> Result<World, Failure> {
        let found = World::EACH.into_iter().find(|world| world.name() == name);
        match found {
            Some(world) if world.is_here() => Ok(world),
            Some(_) => Err(Failure::Usage(MADSIM_HINT.to_owned())),
            None => Err(Failure::Usage(format!(
                "no world `{name}`: there are `event`, `turmoil`, `madsim` and `{ALL}`"
            ))),
        }
    }

    /// The worlds that a name on the command line stands for.
    pub fn selected(name: &str) -> Result<Vec<World>, Failure> {
        if name == ALL {
            let here = World::EACH.into_iter().filter(|world| world.is_here());
            return Ok(here.collect());
        }
        Ok(vec![World::named(name)?])
    }

    /// How it runs a plan.
    pub fn execute(self) -> &'static Execute {
        match self {
            World::Event => &event,
            World::Turmoil => &turmoil,
            World::Madsim => &madsim,
        }
    }
}

fn event(plan: &Plan, keep: Keep, sink: &mut dyn FnMut(&Event)) -> RunResult {
    wavetank_engine::run(plan, &RunOptions { keep }, sink)
}

fn turmoil(plan: &Plan, keep: Keep, sink: &mut dyn FnMut(&Event)) -> RunResult {
    ended(wavetank_shells::run_turmoil(
        plan,
        &RunOptions { keep },
        sink,
    ))
}

#[cfg(madsim)]
fn madsim(plan: &Plan, keep: Keep, sink: &mut dyn FnMut(&Event)) -> RunResult {
    ended(wavetank_shells::run_madsim(
        plan,
        &RunOptions { keep },
        sink,
    ))
}

#[cfg(not(madsim))]
fn madsim(_plan: &Plan, _keep: Keep, _sink: &mut dyn FnMut(&Event)) -> RunResult {
    unreachable!("{MADSIM_HINT}")
}

/// A world that cannot be set up is an error of this program, and becomes a report as such.
fn ended(result: Result<RunResult, wavetank_shells::RunError>) -> RunResult {
    result.unwrap_or_else(|error| panic!("the world cannot be set up: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_without_madsim_says_how_to_get_one() {
        let asked = World::named("madsim");
        match asked {
            Ok(world) => assert!(cfg!(madsim) && world == World::Madsim),
            Err(failure) => assert!(failure.to_string().contains("cargo madsim")),
        }
        assert!(World::named("nowhere").is_err());
    }

    #[test]
    fn all_worlds_are_those_of_this_build() -> Result<(), Failure> {
        let all = World::selected("all")?;
        assert_eq!(all.contains(&World::Madsim), cfg!(madsim));
        assert!(all.starts_with(&[World::Event, World::Turmoil]));
        Ok(())
    }
}
