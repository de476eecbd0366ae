//! The `wavetank` binary: arguments in, one file per command, an exit code out.
//!
//! Map: `commands` (one file per command), `files` (which scenario files a path means, and how they
//! are read), `seeds` (how seeds are written), `world` (where plans run), `runner` (the only place
//! that starts runs), `sweep` (many runs on many threads), `dev` (again whenever something
//! changes), `local` (clusters of real nodes), `runtimes` (real and simulated, by name),
//! `calibration` (one beside the other), `determinism` (the same seed again, here and in another
//! process), `store` (traces on disk), `output` (what goes where, colours, broken pipes),
//! `interruption` (what Ctrl-C ends), `failure` (why a command ended without a verdict).
//!
//! Nothing in here decides what a run does: that is all in the plan. Data goes to stdout, logs,
//! progress and complaints to stderr.

mod calibration;
mod commands;
mod determinism;
mod dev;
mod failure;
mod files;
mod interruption;
mod live;
mod local;
mod output;
mod runner;
mod runtimes;
mod seeds;
mod store;
mod sweep;
mod world;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use wavetank_node::ctl::CtlArguments;
use wavetank_node::program;

use crate::failure::Failure;

/// Breaks a simulated container orchestrator on schedule, and checks that what must always hold
/// did hold.
///
/// Exit codes: 0 pass, 1 a property was violated, 2 wrong usage or invalid scenario,
/// 3 inconclusive, 4 nothing selected, 5 non-determinism, 6 wavetank itself failed.
#[derive(Parser)]
#[command(name = "wavetank", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(commands::run::RunArguments),
    Check(commands::check::CheckArguments),
    #[command(subcommand)]
    Scenario(commands::scenario::ScenarioCommand),
    Faults(commands::faults::FaultsArguments),
    Conformance(commands::conformance::ConformanceArguments),
    Doctor(commands::doctor::DoctorArguments),
    Dev(commands::dev::DevArguments),
    Report(commands::report::ReportArguments),
    Trace(commands::trace::TraceArguments),
    Bench(commands::bench::BenchArguments),
    Calibrate(commands::calibrate::CalibrateArguments),
    Up(commands::up::UpArguments),
    Down(commands::up::DownArguments),
    Ctl(CtlArguments),
    /// The node's program, for clusters that `up` starts
    #[command(hide = true)]
    Node(program::Arguments),
    #[command(hide = true)]
    AgentSim(commands::agent_sim::AgentSimArguments),
    #[command(hide = true)]
    BenchRow(commands::bench_row::BenchRowArguments),
    #[command(hide = true)]
    Digests(commands::digests::DigestsArguments),
}

fn main() -> ExitCode {
    // Below the OCI adapter of live runs, this program is its chaos runtime as well.
    if let Some(code) = wavetank_oci::chaos::main_if_called() {
        return code;
    }
    // A container of the oci adapter is watched by this program, run again.
    if let Some(code) = wavetank_oci::monitor::main_if_asked() {
        return code;
    }
    // clap itself ends wrong usage with exit code 2, which is ours for it too.
    let arguments = match Arguments::parse().command {
        // They see to their logs and exit codes themselves.
        Command::Node(arguments) => return program::main(arguments),
        Command::Ctl(arguments) => return program::main(program::Arguments::ctl(arguments)),
        command => Arguments { command },
    };
    start_logging(&arguments.command);
    runner::keep_panics_quiet();
    let result = match arguments.command {
        Command::Run(arguments) => commands::run::run(&arguments),
        Command::Check(arguments) => commands::check::run(&arguments),
        Command::Scenario(command) => commands::scenario::run(&command),
        Command::Faults(arguments) => commands::faults::run(&arguments),
        Command::Conformance(arguments) => commands::conformance::run(&arguments),
        Command::Doctor(arguments) => commands::doctor::run(&arguments),
        Command::Dev(arguments) => commands::dev::run(&arguments),
        Command::Report(arguments) => commands::report::run(&arguments),
        Command::Trace(arguments) => commands::trace::run(&arguments),
        Command::Bench(arguments) => commands::bench::run(&arguments),
        Command::Calibrate(arguments) => commands::calibrate::run(&arguments),
        Command::Up(arguments) => commands::up::up(&arguments),
        Command::Down(arguments) => commands::up::down(&arguments),
        Command::Ctl(_) | Command::Node(_) => unreachable!("the node's program has ended"),
        Command::AgentSim(arguments) => commands::agent_sim::run(&arguments),
        Command::BenchRow(arguments) => commands::bench_row::run(&arguments),
        Command::Digests(arguments) => commands::digests::run(&arguments),
    };
    ExitCode::from(result.unwrap_or_else(|failure: Failure| {
        output::complain(&failure.to_string());
        failure.exit_code()
    }))
}

fn start_logging(command: &Command) {
    // Of a node in a simulated world the trace tells; its log would be of virtual times.
    let usual = match command {
        Command::AgentSim(_) => "",
        _ => "wavetank_node=off",
    };
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::WARN.into())
        .parse_lossy(std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_else(|_| usual.to_owned()));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(output::stderr_has_color())
        .init();
}
