//! Every checker has caught the system that was broken for it, and passes the one that ships.

use std::collections::BTreeSet;
use std::path::Path;

use wavetank_checkers::{CHECKERS, Verdict};
use wavetank_engine::{Keep, Orchestrator, RunOptions, RunResult, System, run_system};
use wavetank_mutants::{MUTANTS, Mutant};
use wavetank_scenario::{Scenario, load};

/// Seeds that a mutant has to be caught in.
const SEEDS: u64 = 10;

fn scenario(file: &str) -> Scenario {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../scenarios")
        .join(file);
    load(&path).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn run(scenario: &Scenario, seed: u64, system: &dyn System) -> RunResult {
    let options = RunOptions {
        keep: Keep::Nothing,
    };
    run_system(&scenario.plan(seed), system, &options, &mut |_| {})
}

/// The first seed in which the mutant is caught by the checker it was made for.
fn caught_at(mutant: &Mutant, scenario: &Scenario) -> Option<u64> {
    (0..SEEDS).find(|seed| {
        let result = run(scenario, *seed, mutant);
        if mutant.caught_by == "I24" {
            return result.digest != run(scenario, *seed, mutant).digest;
        }
        result
            .judgement
            .findings
            .iter()
            .any(|finding| finding.checker == mutant.caught_by)
    })
}

#[test]
fn every_mutant_is_caught_and_the_shipped_system_is_not() {
    let mut escaped = Vec::new();
    for mutant in MUTANTS {
        let scenario = scenario(mutant.scenario);
        match caught_at(mutant, &scenario) {
            None => {
                let found = run(&scenario, 0, mutant).judgement.findings;
                let found: Vec<String> = found
                    .iter()
                    .map(|it| format!("{}: {}", it.fingerprint, it.cause))
                    .collect();
                let (name, checker) = (mutant.name, mutant.caught_by);
                escaped.push(format!("{name} escaped {checker}; in seed 0: {found:#?}"));
            }
            Some(seed) => {
                let healthy = run(&scenario, seed, &Orchestrator);
                let verdict = healthy.judgement.verdict;
                if verdict != Verdict::Pass {
                    let findings = healthy.judgement.findings;
                    escaped.push(format!(
                        "{} seed {seed} healthy: {findings:?}",
                        mutant.scenario
                    ));
                }
                println!(
                    "{:22} caught by {:12} seed {seed}",
                    mutant.name, mutant.caught_by
                );
            }
        }
    }
    assert!(escaped.is_empty(), "{}", escaped.join("\n"));
}

#[test]
fn every_checker_has_a_mutant() {
    let caught: BTreeSet<&str> = MUTANTS.iter().map(|mutant| mutant.caught_by).collect();
    let all: BTreeSet<&str> = CHECKERS.iter().map(|(id, _)| *id).collect();
    assert_eq!(caught, all);
}
