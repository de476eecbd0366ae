//! The worlds that this program can run a plan in.

use clap::ValueEnum as _;
use wavetank_engine::{Keep, RunOptions, RunResult};
use wavetank_node::config::RuntimeKind;
use wavetank_reports::LiveRun;
use wavetank_scenario::plan::Plan;
use wavetank_trace::Event;

use crate::failure::Failure;
use crate::live;
use crate::runner::Execute;

/// One world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    /// Decisions alone, from one event to the next.
    Event,
    /// The shipped node in turmoil.
    Turmoil,
    /// The shipped node in madsim.
    Madsim,
    /// The shipped node on this machine, on a real container runtime.
    Live(Live),
}

/// How to run live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live {
    /// On what.
    pub runtime: RuntimeKind,
    /// How many of the plan's seconds pass in one.
    pub speed: u32,
}

/// What a run stands on, as the command line says it.
#[derive(clap::Args)]
pub struct Ground {
    /// The container runtime to run on; live: containerd, podman or oci.
    #[arg(long, default_value = SIMULATED_RUNTIME)]
    pub runtime: String,
    /// Live: how many of the scenario's seconds pass in one.
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=50))]
    pub speed: u32,
}

/// The world that is this machine.
const LIVE: &str = "live";
/// What stands for every simulated world.
const ALL: &str = "all";

/// What `--runtime` says in simulated worlds.
pub const SIMULATED_RUNTIME: &str = "sim";

/// How to get a program that has madsim in it.
const MADSIM_HINT: &str =
    "world `madsim` takes a build of its own: `cargo madsim run FILE --world madsim`";

impl World {
    /// Every simulated world, in the order of their rows.
    const SIMULATED: [World; 3] = [World::Event, World::Turmoil, World::Madsim];

    /// The name in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            World::Event => "event",
            World::Turmoil => "turmoil",
            World::Madsim => "madsim",
            World::Live(_) => LIVE,
        }
    }

    /// Whether this build has it.
    fn is_here(self) -> bool {
        self != World::Madsim || cfg!(madsim)
    }

    /// The simulated world of that name.
    pub fn named(name: &str) -> Result<World, Failure> {
        let found = World::SIMULATED
            .into_iter()
            .find(|world| world.name() == name);
        match found {
            Some(world) if world.is_here() => Ok(world),
            Some(_) => Err(Failure::Usage(MADSIM_HINT.to_owned())),
            None => Err(Failure::Usage(format!(
                "no world `{name}`: there are `event`, `turmoil`, `madsim`, `{ALL}` for these, and \
                 `{LIVE}`"
            ))),
        }
    }

    /// The worlds that a name on the command line stands for. `live` says how to run there, if it
    /// was said.
    pub fn selected(name: &str, ground: &Ground) -> Result<Vec<World>, Failure> {
        let Ground { runtime, speed } = ground;
        if name == LIVE {
            let runtime = RuntimeKind::from_str(runtime, false).map_err(|_| {
                Failure::Usage(format!(
                    "no runtime `{runtime}` on this machine: say `containerd`, `podman` or `oci` \
                     by --runtime"
                ))
            })?;
            let speed = *speed;
            return Ok(vec![World::Live(Live { runtime, speed })]);
        }
        if runtime != SIMULATED_RUNTIME {
            return Err(Failure::Usage(format!(
                "no runtime `{runtime}` in a simulated world: it has `{SIMULATED_RUNTIME}`, the \
                 simulated one; real ones are for `--world {LIVE}`"
            )));
        }
        if name == ALL {
            let here = World::SIMULATED.into_iter().filter(|world| world.is_here());
            return Ok(here.collect());
        }
        Ok(vec![World::named(name)?])
    }

    /// Whether the same plan gives the same run again.
    pub fn is_deterministic(self) -> bool {
        !matches!(self, World::Live(_))
    }

    /// How it runs for real, if it does.
    pub fn live(self) -> Option<LiveRun> {
        match self {
            World::Live(Live { runtime, speed }) => Some(LiveRun {
                runtime: runtime.name().to_owned(),
                speed,
            }),
            World::Event | World::Turmoil | World::Madsim => None,
        }
    }

    /// How it runs a plan.
    pub fn execute(self) -> Box<Execute> {
        match self {
            World::Event => Box::new(event),
            World::Turmoil => Box::new(turmoil),
            World::Madsim => Box::new(madsim),
            World::Live(live) => Box::new(move |plan, keep, sink| live.run(plan, keep, sink)),
        }
    }
}

impl Live {
    fn run(self, plan: &Plan, keep: Keep, sink: &mut dyn FnMut(&Event)) -> RunResult {
        let ended = live::run(plan, self, keep, sink);
        ended.unwrap_or_else(|error| panic!("{error}"))
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
        let ground = Ground {
            runtime: SIMULATED_RUNTIME.to_owned(),
            speed: 1,
        };
        let all = World::selected("all", &ground)?;
        assert_eq!(all.contains(&World::Madsim), cfg!(madsim));
        assert!(all.starts_with(&[World::Event, World::Turmoil]));
        Ok(())
    }
}
