//! The hidden `wavetank agent-sim`: a real agent with a simulated container runtime, for `up`. The
//! node itself knows no such runtime.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use wavetank_model::NodeId;
use wavetank_node::config::{AgentFlags, File, Flags};
use wavetank_node::serve;
use wavetank_reports::exit_code;
use wavetank_scenario::plan::{Health, Image, OnTerm, Range};
use wavetank_sim_runtime::{SimConfig, SimRuntime};
use wavetank_world::Registry;

use crate::failure::Failure;

/// What the simulated registry serves, and what the containers do.
pub const IMAGES: [(&str, &str); 4] = [
    ("web:1", "runs"),
    ("web:2", "runs"),
    ("job:1", "ends well after 5 s"),
    ("crash:1", "fails after 5 s"),
];

/// Flags of the agent that `up` starts.
#[derive(Args)]
pub struct AgentSimArguments {
    #[command(flatten)]
    flags: Flags,
    #[command(flatten)]
    agent: AgentFlags,
}

/// Runs the agent until it is told to end.
pub fn run(arguments: &AgentSimArguments) -> Result<u8, Failure> {
    let usage = |error: &dyn std::error::Error| Failure::Usage(error.to_string());
    let file = File::load(&arguments.flags).map_err(|error| usage(&error))?;
    let settings = file.agent(&arguments.flags, &arguments.agent);
    let settings = settings.map_err(|error| usage(&error))?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start tokio")?;
    let ended = runtime.block_on(async {
        let mut stop = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        let stop = async move { _ = stop.recv().await };
        let containers = Arc::new(simulated());
        anyhow::Ok(serve::agent(settings, containers, stop).await?)
    });
    runtime.shutdown_background();
    ended?;
    Ok(exit_code::PASS)
}

fn simulated() -> SimRuntime {
    let exactly = |milliseconds| {
        let time = Duration::from_millis(milliseconds);
        Range {
            min: time,
            max: time,
        }
    };
    let images = IMAGES.map(|(name, _)| (name.to_owned(), image(name)));
    let config = SimConfig {
        node: NodeId::agent(1),
        seed: 1,
        latency: exactly(5),
        event_delay: exactly(5),
        interpreter: None,
    };
    let registry = Registry::new(images.into_iter().collect());
    SimRuntime::new(&config, Arc::new(Mutex::new(registry)))
}

fn image(name: &str) -> Image {
    let five = Duration::from_secs(5);
    let ends = !name.starts_with("web");
    Image {
        run_for: ends.then_some(Range {
            min: five,
            max: five,
        }),
        exit_code: i32::from(name.starts_with("crash")),
        on_term: OnTerm::Exits {
            after: Duration::from_millis(100),
            code: None,
        },
        health: Health::Ok,
        pull_bytes: 1 << 20,
        exists: true,
        memory_bytes: 0,
    }
}
