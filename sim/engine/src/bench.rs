//! A steady state to measure: one service with a task on every agent, nothing goes wrong.

use std::time::Duration;

use wavetank_scenario::Scenario;

use crate::{Keep, RunOptions, run};

/// What a measured run did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SteadyState {
    /// Events that the engine processed.
    pub events: u64,
    /// Virtual time that passed.
    pub virtual_time: Duration,
}

/// Runs a cluster in steady state for `virtual_time`, start-up included.
///
/// # Errors
/// If the scenario that describes the cluster is refused, with the reason.
pub fn steady_state(
    managers: u32,
    agents: u32,
    virtual_time: Duration,
    seed: u64,
) -> Result<SteadyState, String> {
    let text = format!(
        "scenario: 1\nname: steady-state\nhorizon: {}s\nsettle: 1s\n\
         cluster:\n  managers: {managers}\n  agents: {{ count: {agents}, cpus: 4, memory: 8GiB }}\n\
         images:\n  web: {{ run_for: forever }}\n\
         workload:\n  - {{ at: 1s, deploy: web, image: web, replicas: {agents} }}\n\
         expect: {{ invariants: [] }}\n",
        virtual_time.as_secs()
    );
    let no_include = |name: &str| Err(format!("{name} is not there"));
    let scenario = Scenario::parse("steady-state.yaml", &text, &no_include)
        .map_err(|error| error.to_string())?;
    let options = RunOptions {
        keep: Keep::Nothing,
    };
    let result = run(&scenario.plan(seed), &options, &mut |_| {});
    Ok(SteadyState {
        events: result.events,
        virtual_time: result.virtual_time,
    })
}
