//! Runs of the world `live`: the node program, the folder, Ctrl-C.

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use wavetank_engine::{Keep, RunResult};
use wavetank_live::SceneConfig;
use wavetank_scenario::plan::Plan;
use wavetank_trace::Event;

use crate::world::Live;

/// Runs a plan on this machine. Ctrl-C ends the run, with everything that it took.
pub fn run(
    plan: &Plan,
    live: Live,
    keep: Keep,
    sink: &mut dyn FnMut(&Event),
) -> anyhow::Result<RunResult> {
    let folder = tempfile::Builder::new().prefix("wt").tempdir()?.keep();
    let config = SceneConfig {
        program: std::env::current_exe().context("cannot find this program")?,
        runtime: live.runtime,
        speed: live.speed,
        directory: folder.clone(),
        is_temporary: std::env::var_os(KEEP).is_none(),
    };
    let runtime = tokio::runtime::Runtime::new().context("cannot start tokio")?;
    let ended = runtime.block_on(async {
        let mut terminated =
            signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        let mut interrupted =
            signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
        tokio::select! {
            biased;
            _ = interrupted.recv() => anyhow::bail!("interrupted"),
            _ = terminated.recv() => anyhow::bail!("told to end"),
            ended = wavetank_live::run(plan, &config, keep, sink) => Ok(ended?),
        }
    });
    runtime.shutdown_background();
    if ended.is_err() && folder.exists() {
        return ended.with_context(|| format!("logs are in {}", folder.display()));
    }
    ended
}

/// Set in the environment, it keeps the folders of runs.
const KEEP: &str = "WAVETANK_KEEP";
