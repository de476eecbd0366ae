//! Whole runs in turmoil.

use std::path::Path;

use wavetank_engine::{Keep, RunOptions, RunResult};
use wavetank_scenario::plan::Plan;
use wavetank_scenario::{Scenario, load};
use wavetank_shells::run_turmoil;

/// No trace is kept.
pub const QUIET: RunOptions = RunOptions {
    keep: Keep::Nothing,
};

/// A scenario of the project.
pub fn scenario(file: &str) -> Scenario {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../scenarios")
        .join(file);
    load(&path).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn run(plan: &Plan) -> RunResult {
    run_turmoil(plan, &QUIET, &mut |_| {}).expect("certificates can be made")
}

#[test]
fn a_seed_gives_the_same_run_again_and_another_seed_another_one() {
    let scenario = scenario("node-loss.yaml");
    let first = run(&scenario.plan(1));
    assert_eq!(first.digest, run(&scenario.plan(1)).digest);
    assert_ne!(first.digest, run(&scenario.plan(2)).digest);
}
