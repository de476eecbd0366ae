//! Runs of the world `live`: the program, the folder, and whoever interrupts it.

use anyhow::Context as _;
use wavetank_engine::{Keep, RunResult};
use wavetank_live::SceneConfig;
use wavetank_scenario::plan::Plan;
use wavetank_trace::Event;

use crate::failure::Failure;
use crate::runtimes::block_on_real_time;
use crate::world::Live;

/// Set in the environment, it keeps the folders of runs.
const KEEP: &str = "WAVETANK_KEEP";

/// Runs a plan on this machine. Ctrl-C ends the run, with everything that it took.
pub fn run(
    plan: &Plan,
    live: Live,
    keep: Keep,
    sink: &mut dyn FnMut(&Event),
) -> Result<RunResult, Failure> {
    let temporary = tempfile::Builder::new().prefix("wt").tempdir()?;
    let folder = temporary.path().to_owned();
    let config = SceneConfig {
        program: std::env::current_exe()?,
        runtime: live.runtime,
        speed: live.speed,
        directory: folder.clone(),
        is_temporary: std::env::var_os(KEEP).is_none(),
    };
    let ended = block_on_real_time(async {
        // Mounted on from here on: only the run can remove it.
        let _ = temporary.keep();
        wavetank_live::run(plan, &config, keep, sink).await
    })?;
    let kept = || format!("logs are in {}", folder.display());
    match folder.exists() {
        true => ended.with_context(kept),
        false => ended.map_err(anyhow::Error::from),
    }
    .map_err(Failure::Harness)
}
