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
use wavetank_port::{ContainerSpec, OutputStream};
use wavetank_reports::exit_code;
use wavetank_scenario::plan::{Health, Image, OnTerm, Range, RuntimeSteps};
use wavetank_sim_runtime::{SimConfig, SimRuntime};
use wavetank_world::{Interpretation, Program, Registry, Step};

use crate::failure::Failure;

/// What the simulated registry serves, and what the containers do. All of them log.
pub const IMAGES: [(&str, &str); 4] = [
    ("web:1", "runs"),
    ("web:2", "runs"),
    ("job:1", "ends well after 5 s"),
    ("crash:1", "fails after 5 s"),
];
/// How long the images that end run.
const RUN_FOR: Duration = Duration::from_secs(5);
const SIGTERM: i32 = 15;
/// How long the others take to end on SIGTERM.
const ON_TERM: Duration = Duration::from_millis(100);

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
    let images = IMAGES.map(|(name, _)| (name.to_owned(), image()));
    let config = SimConfig {
        node: NodeId::agent(1),
        seed: 1,
        latency: exactly(5),
        event_delay: exactly(5),
        steps: RuntimeSteps::new(),
        interpreter: Some(interpret),
    };
    let registry = Registry::new(images.into_iter().collect());
    SimRuntime::new(&config, Arc::new(Mutex::new(registry)))
}

/// What the registry knows of an image; what its containers do says [`interpret`].
fn image() -> Image {
    Image {
        run_for: None,
        exit_code: 0,
        on_term: OnTerm::Ignores,
        health: Health::Ok,
        pull_bytes: 1 << 20,
        exists: true,
        memory_bytes: 0,
    }
}

/// What a process does. A container of a service has labels; a command that is run in one, such as
/// a health check, has none and succeeds.
fn interpret(spec: &ContainerSpec) -> Interpretation {
    let say = |stream, text: &str| Step::Write(stream, format!("{text}\n").into_bytes());
    let out = |text: &str| say(OutputStream::Stdout, text);
    let image = &spec.image.0;
    let steps = match image.split(':').next() {
        _ if spec.labels.is_empty() => vec![Step::Exit(0)],
        Some("job") => vec![
            out("job begins"),
            Step::Sleep(RUN_FOR),
            out("job is done"),
            Step::Exit(0),
        ],
        Some("crash") => vec![
            out("trying"),
            Step::Sleep(RUN_FOR),
            say(OutputStream::Stderr, "cannot go on"),
            Step::Exit(1),
        ],
        _ => vec![
            out(&format!("{image} starts")),
            out("listening"),
            Step::AwaitSignal(SIGTERM),
            out("ends on SIGTERM"),
            Step::Sleep(ON_TERM),
            Step::Exit(0),
        ],
    };
    Interpretation::Program(Program {
        steps,
        stop_signal: None,
    })
}
