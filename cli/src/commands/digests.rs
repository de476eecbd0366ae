//! `wavetank digests`: the other process of `run --check-determinism`. Reads requests from
//! stdin, answers on stdout, both as JSON Lines in the same order.

use std::collections::BTreeMap;
use std::io::BufRead as _;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use wavetank_reports::{exit_code, json};
use wavetank_scenario::{Override, Scenario};

use crate::determinism::{DigestAnswer, DigestRequest, digest_of};
use crate::failure::Failure;
use crate::world::World;
use crate::{files, output, runner, sweep};

/// Print the digests of runs that are requested on stdin.
#[derive(Args)]
pub struct DigestsArguments {
    /// Replaces a field of every file.
    #[arg(long = "set", value_name = "PATH=VALUE", value_parser = files::parse_assignment)]
    overrides: Vec<Override>,
    /// Runs at the same time.
    #[arg(long, value_name = "N")]
    jobs: NonZeroUsize,
}

/// Answers all requests.
pub fn run(arguments: &DigestsArguments) -> Result<u8, Failure> {
    let requests = requests()?;
    let scenarios = scenarios(&requests, &arguments.overrides)?;
    let work = |request: &DigestRequest| {
        let scenario = scenarios.get(request.file.as_str())?;
        let (world, overrides) = (World::named(&request.world).ok()?, &arguments.overrides);
        let report = match runner::plan(scenario, request.seed) {
            Ok(plan) => runner::report(world, &world.execute(), &plan, overrides),
            Err(panic) => runner::unplanned(world, scenario, request.seed, overrides, &panic),
        };
        Some(DigestAnswer {
            digest: digest_of(&report),
        })
    };
    sweep::sweep(&requests, arguments.jobs, work, |answer| match answer {
        Some(answer) => output::print(&json::line(&answer)?),
        None => Err(Failure::Harness(anyhow::anyhow!(
            "a file that was loaded is gone, or a world that was there"
        ))),
    })?;
    Ok(exit_code::PASS)
}

fn requests() -> Result<Vec<DigestRequest>, Failure> {
    let mut requests = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let request = serde_json::from_str(&line?)
            .map_err(|error| Failure::Usage(format!("not a request for a digest: {error}")))?;
        requests.push(request);
    }
    Ok(requests)
}

fn scenarios<'a>(
    requests: &'a [DigestRequest],
    overrides: &[Override],
) -> Result<BTreeMap<&'a str, Scenario>, Failure> {
    let mut scenarios = BTreeMap::new();
    for request in requests {
        if !scenarios.contains_key(request.file.as_str()) {
            let file = [PathBuf::from(&request.file)];
            for scenario in files::load_all(&file, overrides)? {
                scenarios.insert(request.file.as_str(), scenario);
            }
        }
    }
    Ok(scenarios)
}
