//! `wavetank calibrate`: measures a real runtime, and makes the simulated one like it. What it
//! writes is a part of a scenario file; what it prints says how far the model was off before, and
//! how far it is now.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use anyhow::Context as _;
use clap::Args;
use wavetank_conformance::ArmError;
use wavetank_conformance::latency::{Calibration, MachineClock, calibrate};
use wavetank_reports::{exit_code, json};
use wavetank_scenario::plan::Cluster;
use wavetank_scenario::{Scenario, steps_as_yaml};
use wavetank_sim_arm::{calibrate_simulated, steps_of};

use crate::calibration::Comparison;
use crate::failure::Failure;
use crate::files;
use crate::output::{self, ListFormat};
use crate::runtimes::RuntimeName;

/// Lives on the simulated runtime, at least: virtual time costs little, and the more there are,
/// the less its quantiles are chance.
const SIMULATED_LIVES_MIN: u32 = 5_000;

/// Seed of the simulated lives.
const SEED: u64 = 1;

/// Measure a real runtime and make the simulated one like it
///
/// Takes containers through their lives on a private daemon, one after the other: how long each
/// step takes, when events come and in which order. Then as many and more on the simulated runtime,
/// as it is without and with what was measured. Ends with 1 if the median or the 95th percentile of
/// a step is then off by more than 25 %.
#[derive(Args)]
pub struct CalibrateArguments {
    /// The runtime.
    #[arg(long, value_enum)]
    runtime: RuntimeName,
    /// Containers to measure it with; the fewer, the more its slowest steps are chance.
    #[arg(long, value_name = "N", default_value_t = 300)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    lives: u32,
    /// Where to write what was measured: a file for scenarios to include.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Compare with what this file says instead of what is measured now: does it still hold?
    #[arg(long, value_name = "FILE", conflicts_with = "output")]
    profile: Option<PathBuf>,
    /// How to print it.
    #[arg(long, value_enum, default_value = "table")]
    format: ListFormat,
}

/// Measures, writes, compares.
pub fn run(arguments: &CalibrateArguments) -> Result<u8, Failure> {
    if arguments.runtime == RuntimeName::Sim {
        let what = "the simulated runtime is what is calibrated: name containerd, podman or oci";
        return Err(Failure::Usage(what.to_owned()));
    }
    if let Some(file) = &arguments.output {
        check_folder(file)?;
    }
    let given = match &arguments.profile {
        Some(file) => Some(cluster_of(file, &files::read(file)?)?),
        None => None,
    };
    let load = load_average();
    let measured = measure(arguments.runtime, arguments.lives)?;
    let text = profile(arguments.runtime, &measured);
    if let Some(file) = &arguments.output {
        fs::write(file, &text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    let after = match given {
        Some(cluster) => cluster,
        None => cluster_of(Path::new("measured.yaml"), &text)?,
    };
    let before = cluster_of(Path::new("nothing.yaml"), "")?;
    let lives = arguments.lives.max(SIMULATED_LIVES_MIN);
    let simulate =
        |cluster: &Cluster| calibrate_simulated(cluster, SEED, lives).map_err(anyhow::Error::from);
    let comparison = Comparison {
        runtime: arguments.runtime.name(),
        load,
        before: simulate(&before)?,
        after: simulate(&after)?,
        measured,
    };
    match arguments.format {
        ListFormat::Json => output::print(&json::line(&comparison.report())?)?,
        ListFormat::Table => output::print(&comparison.render(output::stdout_style()))?,
    }
    Ok(match comparison.off().is_empty() {
        true => exit_code::PASS,
        false => exit_code::VIOLATED,
    })
}

fn measure(runtime: RuntimeName, lives: u32) -> Result<Calibration, Failure> {
    let bench = runtime.usable_bench()?;
    let measured: Result<Calibration, ArmError> = runtime.block_on(async {
        let arm = bench.arm().await?;
        let measured = calibrate(arm.as_ref(), lives, &MachineClock::start()).await;
        arm.close().await?;
        measured
    })?;
    Ok(measured.map_err(anyhow::Error::from)?)
}

/// Whoever has waited for minutes should not learn then that there is no such folder.
fn check_folder(file: &Path) -> Result<(), Failure> {
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let problem = match (folder.is_dir(), file.is_dir()) {
        (false, _) => format!("there is no folder {}", folder.display()),
        (true, true) => format!("{} is a folder", file.display()),
        (true, false) => return Ok(()),
    };
    Err(Failure::Usage(format!(
        "cannot write the profile: {problem}"
    )))
}

/// The cluster of a scenario that includes `text` and says nothing else.
fn cluster_of(file: &Path, text: &str) -> Result<Cluster, Failure> {
    let name = file.display().to_string();
    let scenario = match text {
        "" => "scenario: 1\nname: calibration\n".to_owned(),
        _ => format!(
            "scenario: 1\nname: calibration\ninclude: {}\n",
            json_text(&name)?
        ),
    };
    let include = |path: &str| match path == name {
        true => Ok(text.to_owned()),
        false => files::read(Path::new(path)).map_err(|failure| failure.to_string()),
    };
    match Scenario::parse("calibration", &scenario, &include) {
        Ok(scenario) => Ok(scenario.plan(SEED).cluster),
        Err(error) => {
            output::complain(&files::shown(&error));
            Err(Failure::Usage(format!("{name} is not valid")))
        }
    }
}

/// A text as YAML takes it whatever is in it.
fn json_text(text: &str) -> Result<String, Failure> {
    Ok(serde_json::to_string(text)?)
}

/// What was measured, as a file for scenarios to include. Without a date: measured alike, it is
/// alike.
fn profile(runtime: RuntimeName, measured: &Calibration) -> String {
    let (name, lives) = (runtime.name(), measured.lives);
    let cores = available_parallelism().map_or(1, usize::from);
    let machine = match processor() {
        Some(model) => format!("{cores} cores of {model}"),
        None => format!("{cores} cores"),
    };
    format!(
        "# How long {name} takes for each step of a container's life, for simulated runtimes.\n\
         # `wavetank calibrate --runtime {name} --lives {lives}` measured {version}\n\
         # on {machine}.\n\
         {steps}",
        version = described(name, &measured.version),
        steps = steps_as_yaml(&steps_of(measured)),
    )
}

/// A runtime with its version, whose first word may be its name.
fn described(name: &str, version: &str) -> String {
    match version.starts_with(|c: char| c.is_ascii_digit()) {
        true => format!("{name} {version}"),
        false => version.to_owned(),
    }
}

/// What the machine calls its processor.
fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    let (_, model) = line.split_once(':')?;
    Some(model.trim().to_owned())
}

/// How much else the machine does: processes that ran or waited to in the last minute, on average.
fn load_average() -> Option<String> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    text.split(' ').next().map(str::to_owned)
}
