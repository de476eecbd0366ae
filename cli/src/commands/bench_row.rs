//! `wavetank bench-row`: one measurement, in a process that does nothing else.

use std::time::{Duration, Instant};

use clap::Args;
use serde::{Deserialize, Serialize};
use wavetank_engine::bench::{SteadyState, steady_state};
use wavetank_reports::{exit_code, json};

use crate::failure::Failure;
use crate::output;

/// The seed of every measurement, so that all measure the same run.
const SEED: u64 = 1;

/// Measure one cluster in steady state.
#[derive(Args)]
pub struct BenchRowArguments {
    #[arg(long)]
    managers: u32,
    #[arg(long)]
    agents: u32,
    #[arg(long)]
    virtual_seconds: u64,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measurement {
    /// Events that the engine processed.
    pub events: u64,
    /// Virtual time that passed.
    pub virtual_ms: u64,
    /// Wall-clock time that it took.
    pub wall_ns: u64,
    /// The process's largest resident set.
    pub peak_rss_bytes: Option<u64>,
}

/// Elections, registrations and the deployment are over by then, also with thousands of agents.
const START_UP: Duration = Duration::from_secs(60);

/// Measures and prints. The same run up to the end of the start-up is measured first and taken
/// off, so that what is left is the steady state.
pub fn run(arguments: &BenchRowArguments) -> Result<u8, Failure> {
    let virtual_time = START_UP + Duration::from_secs(arguments.virtual_seconds);
    let start_up = timed(arguments, START_UP)?;
    let whole = timed(arguments, virtual_time)?;
    let steady = whole.1.virtual_time.saturating_sub(start_up.1.virtual_time);
    let wall = whole.0.saturating_sub(start_up.0);
    let measurement = Measurement {
        events: whole.1.events.saturating_sub(start_up.1.events),
        virtual_ms: u64::try_from(steady.as_millis()).unwrap_or(u64::MAX),
        wall_ns: u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX),
        peak_rss_bytes: peak_rss_bytes(),
    };
    output::print(&json::line(&measurement)?)?;
    Ok(exit_code::PASS)
}

fn timed(
    arguments: &BenchRowArguments,
    virtual_time: Duration,
) -> Result<(Duration, SteadyState), Failure> {
    let start = Instant::now();
    let state = steady_state(arguments.managers, arguments.agents, virtual_time, SEED)
        .map_err(Failure::Usage)?;
    Ok((start.elapsed(), state))
}

/// The kernel's high-water mark of this process; only Linux tells.
fn peak_rss_bytes() -> Option<u64> {
    parse_peak(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn parse_peak(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::parse_peak;

    #[test]
    fn the_high_water_mark_is_read() {
        let status = "VmPeak:\t  9000 kB\nVmHWM:\t    2048 kB\nVmRSS:\t 1 kB\n";
        assert_eq!(parse_peak(status), Some(2048 * 1024));
        assert_eq!(parse_peak("VmRSS:\t 1 kB\n"), None);
    }
}
