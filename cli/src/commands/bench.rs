//! `wavetank bench`: how fast the engine is. Each measurement has a process of its own, so that
//! its peak memory is its own, and the best of several counts: the machine can only slow a run
//! down.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use wavetank_reports::{BenchRow, bench, exit_code, json};

use super::bench_row::Measurement;
use super::{bench_runtime, bench_shell};
use crate::failure::Failure;
use crate::output::{self, ListFormat};
use crate::runtimes::RuntimeName;

/// Measure events and virtual seconds per second, and memory.
#[derive(Args)]
pub struct BenchArguments {
    /// Agents of each measured cluster.
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "5,50,500,5000",
        default_value_if("shell", "true", "50")
    )]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    agents: Vec<u32>,
    /// Managers of every cluster.
    #[arg(long, default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=9))]
    managers: u32,
    /// Virtual seconds of steady state that each measurement takes, after the start-up.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    virtual_seconds: u64,
    /// Measurements of each cluster; the best counts.
    #[arg(long, value_name = "N", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Measure this runtime instead of the engine: each step of a container's life, next to the
    /// runtime's own command line.
    #[arg(long, value_enum)]
    #[arg(conflicts_with_all = ["agents", "managers", "virtual_seconds", "repeat"])]
    runtime: Option<RuntimeName>,
    /// Containers to measure a runtime with.
    #[arg(long, value_name = "N", default_value_t = 200, requires = "runtime")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    lives: u32,
    /// Measure real nodes instead of the engine: what a cluster of processes on this machine, with
    /// simulated containers, costs while it is idle and while it is busy (8 clients write, 4 times
    /// a second a service is scaled).
    #[arg(long, conflicts_with_all = ["runtime", "virtual_seconds", "repeat"])]
    shell: bool,
    /// Seconds that each load of real nodes is measured.
    #[arg(long, value_name = "N", default_value_t = 20, requires = "shell")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// How to print it.
    #[arg(long, value_enum, default_value = "table")]
    format: ListFormat,
}

/// Measures every cluster, or one runtime.
pub fn run(arguments: &BenchArguments) -> Result<u8, Failure> {
    if let Some(runtime) = arguments.runtime {
        return bench_runtime::run(runtime, arguments.lives, arguments.format);
    }
    if arguments.agents.is_empty() {
        return Err(Failure::NothingSelected("no cluster to measure".to_owned()));
    }
    if arguments.shell {
        return bench_shell::run(&bench_shell::Request {
            managers: arguments.managers,
            agents: &arguments.agents,
            seconds: arguments.seconds,
            format: arguments.format,
        });
    }
    let mut rows = Vec::new();
    for agents in &arguments.agents {
        let row = best(arguments, *agents)?;
        rows.push(row);
    }
    match arguments.format {
        ListFormat::Json => output::print(&json::line(&rows)?)?,
        ListFormat::Table => output::print(&bench::render(&rows, output::stdout_style()))?,
    }
    Ok(exit_code::PASS)
}

fn best(arguments: &BenchArguments, agents: u32) -> anyhow::Result<BenchRow> {
    let mut best: Option<Measurement> = None;
    for _ in 0..arguments.repeat {
        let measured = measure(arguments, agents)?;
        tracing::info!(agents, wall_ns = measured.wall_ns, events = measured.events);
        if best
            .as_ref()
            .is_none_or(|best| measured.wall_ns < best.wall_ns)
        {
            best = Some(measured);
        }
    }
    let best = best.context("no measurement was asked for")?;
    Ok(row(arguments.managers, agents, &best))
}

fn row(managers: u32, agents: u32, measured: &Measurement) -> BenchRow {
    let wall_ns = measured.wall_ns.max(1);
    let per_second = u128::from(measured.events) * 1_000_000_000 / u128::from(wall_ns);
    let wall = Duration::from_nanos(wall_ns);
    let virtual_time = Duration::from_millis(measured.virtual_ms);
    BenchRow {
        managers,
        agents,
        events: measured.events,
        events_per_second: u64::try_from(per_second).unwrap_or(u64::MAX),
        virtual_seconds_per_second: virtual_time.as_secs_f64() / wall.as_secs_f64(),
        peak_rss_bytes: measured.peak_rss_bytes,
    }
}

fn measure(arguments: &BenchArguments, agents: u32) -> anyhow::Result<Measurement> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let output = Command::new(program)
        .arg("bench-row")
        .args(["--managers", &arguments.managers.to_string()])
        .args(["--agents", &agents.to_string()])
        .args(["--virtual-seconds", &arguments.virtual_seconds.to_string()])
        .output()
        .context("cannot start the process to measure")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "measuring {agents} agents ended with {}: {}",
            output.status,
            said.trim_end()
        );
    }
    serde_json::from_slice(&output.stdout).context("the measurement is not readable")
}

#[cfg(test)]
mod tests {
    use super::{Measurement, row};

    #[test]
    fn rates_are_per_second_of_the_wall_clock() {
        let measured = Measurement {
            events: 3_000_000,
            virtual_ms: 600_000,
            wall_ns: 1_500_000_000,
            peak_rss_bytes: None,
        };
        let row = row(3, 5, &measured);
        assert_eq!(row.events_per_second, 2_000_000);
        assert!((row.virtual_seconds_per_second - 400.0).abs() < 1e-9);
    }
}
