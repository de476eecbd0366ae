//! Runs on disk: `<store>/<scenario>/<seed>/` (`<seed>-<world>` outside the event world) with
//! `trace.jsonl` (everything that happened), `report.json` (what came of it) and `plan.json` (what
//! was going to happen).
//!
//! A run's folder appears under its name only when it is complete.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use wavetank_engine::Keep;
use wavetank_reports::RunReport;
use wavetank_scenario::plan::Plan;
use wavetank_trace::{Event, Writer};

use crate::runner;
use crate::world::World;

/// Whether fewer than `limit` runs of this scenario are stored. Runs that end at the same moment
/// may each find room for one more, which costs a little disk and no correctness.
pub fn has_room(store: &Path, plan: &Plan, limit: Option<usize>) -> bool {
    let stored = || fs::read_dir(store.join(&plan.name)).map_or(0, Iterator::count);
    limit.is_none_or(|limit| stored() < limit)
}

/// Stores a run, and notes the trace in the report. Without its events the plan is run once more.
///
/// The first run of a deterministic world kept nothing, because most runs pass and keeping costs
/// time; the same seed gives the same run. If it does not, the report's digest is not the trace's,
/// and `check` shows it.
pub fn save(
    store: &Path,
    world: World,
    plan: &Plan,
    report: &mut RunReport,
    events: Option<&[Event]>,
) -> anyhow::Result<()> {
    let scenario = store.join(&plan.name);
    let name = match world {
        World::Event => plan.seed.to_string(),
        other => format!("{}-{}", plan.seed, other.name()),
    };
    let folder = scenario.join(&name);
    let partial = scenario.join(format!(".{name}.partial-{}", std::process::id()));
    report.trace = Some(folder.join("trace.jsonl").display().to_string());
    let written = write_all(&partial, world, plan, report, events).and_then(|()| {
        remove(&folder)?;
        fs::rename(&partial, &folder).context("cannot rename it to its final name")
    });
    if written.is_err() {
        report.trace = None;
        // Already failing; what is left behind has a name that says so.
        let _ = fs::remove_dir_all(&partial);
    }
    written.with_context(|| format!("cannot store the run in {}", folder.display()))
}

fn write_all(
    folder: &PathBuf,
    world: World,
    plan: &Plan,
    report: &RunReport,
    events: Option<&[Event]>,
) -> anyhow::Result<()> {
    remove(folder)?;
    fs::create_dir_all(folder).context("cannot make the folder")?;
    write_trace(&folder.join("trace.jsonl"), world, plan, events)?;
    write_json(&folder.join("report.json"), report)?;
    write_json(&folder.join("plan.json"), plan)
}

/// An older run of the same seed gives way.
fn remove(folder: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context("cannot remove the older run")
        }
        _ => Ok(()),
    }
}

fn write_json(path: &Path, value: &impl serde::Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn write_trace(
    path: &Path,
    world: World,
    plan: &Plan,
    events: Option<&[Event]>,
) -> anyhow::Result<()> {
    let out = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    let out = BufWriter::new(out);
    let mut out = match events {
        Some(events) => events_to(out, world, plan, events)?,
        None => trace_to(out, world, plan)?,
    };
    out.flush()?;
    out.get_ref()
        .sync_all()
        .with_context(|| format!("cannot write {}", path.display()))
}

fn events_to<W: std::io::Write>(
    out: W,
    world: World,
    plan: &Plan,
    events: &[Event],
) -> anyhow::Result<W> {
    let mut writer = Writer::new(out, &wavetank_engine::header(plan, world.name())?)?;
    events.iter().try_for_each(|event| writer.write(event))?;
    Ok(writer.finish()?)
}

/// Runs a plan and writes its trace. A run that panics has a trace up to there.
pub fn trace_to<W: std::io::Write>(out: W, world: World, plan: &Plan) -> anyhow::Result<W> {
    let mut writer = Writer::new(out, &wavetank_engine::header(plan, world.name())?)?;
    let mut written = Ok(());
    let ended = runner::attempt(&world.execute(), plan, Keep::Full, &mut |event: &Event| {
        if written.is_ok() {
            written = writer.write(event);
        }
    });
    written?;
    if let Err(panic) = ended {
        tracing::warn!(
            seed = plan.seed,
            "the trace ends where the run panicked: {panic}"
        );
    }
    Ok(writer.finish()?)
}
