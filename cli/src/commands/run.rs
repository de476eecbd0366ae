//! `wavetank run`: scenarios over their seeds, a verdict for each.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::PathBuf;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use wavetank_engine::Keep;
use wavetank_reports::{RunReport, RunVerdict, Summary, exit_code, parity};
use wavetank_scenario::plan::Plan;
use wavetank_scenario::{Override, Scenario};
use wavetank_trace::Event;

use crate::determinism::{self, DigestRequest, OtherProcess};
use crate::failure::Failure;
use crate::interruption;
use crate::output::{self, Format};
use crate::runner;
use crate::seeds::{parse_range, parse_seed};
use crate::world::{Ground, World};
use crate::{files, store, sweep};

/// Run scenarios over their seeds, and say what was violated and how to see it again.
#[derive(Args)]
pub struct RunArguments {
    /// Scenario files, and folders to search for them.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Only these seeds, decimal or 0x hexadecimal; may be given several times.
    #[arg(long, value_name = "N", value_parser = parse_seed, value_delimiter = ',')]
    #[arg(conflicts_with = "seeds")]
    seed: Vec<u64>,
    /// Seeds from A up to but without B (`A..=B` includes it), instead of the file's own.
    #[arg(long, value_name = "A..B", value_parser = parse_range)]
    seeds: Option<Range<u64>>,
    /// At most this many of each file's seeds.
    #[arg(long, value_name = "N")]
    seeds_max: Option<usize>,
    /// The world to run in: event, turmoil, madsim, all of these that this build has, or live.
    #[arg(long, default_value = World::Event.name())]
    world: String,
    #[command(flatten)]
    ground: Ground,
    /// Replaces a field of the file: `cluster.agents.count=9`; may be given several times.
    #[arg(long = "set", value_name = "PATH=VALUE", value_parser = files::parse_assignment)]
    overrides: Vec<Override>,
    /// Runs at the same time; all cores by default.
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// How to print what came of it.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Keep the traces of runs that did not pass under this folder.
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Keep the traces of all runs.
    #[arg(long, requires = "store")]
    keep: bool,
    /// Keep at most about this many runs of each scenario, counting those already there.
    #[arg(long, value_name = "N", requires = "store")]
    store_max: Option<usize>,
    /// Repeat every run, here and in another process, and compare.
    #[arg(long)]
    check_determinism: bool,
}

/// One run to make.
struct Job<'a> {
    scenario: &'a Scenario,
    seed: u64,
    world: World,
}

/// One run made, with what the repetition in this process gave.
struct Done {
    report: RunReport,
    again: Option<String>,
}

/// Runs everything that was selected.
pub fn run(arguments: &RunArguments) -> Result<u8, Failure> {
    let worlds = World::selected(&arguments.world, &arguments.ground)?;
    check_determinism_is_possible(arguments, &worlds)?;
    let scenarios = files::load_all(&files::select(&arguments.paths)?, &arguments.overrides)?;
    let jobs = jobs(arguments, &worlds, &scenarios);
    if jobs.is_empty() {
        return Err(Failure::NothingSelected(
            "no seed and no scenario is left to run".to_owned(),
        ));
    }
    let reports = if arguments.check_determinism {
        run_and_compare(arguments, &jobs)?
    } else {
        run_once(arguments, &jobs)?
    };
    output::print_summary(&reports, arguments.format)?;
    Ok(exit_code::of_summary(&Summary::of(&reports)))
}

fn check_determinism_is_possible(
    arguments: &RunArguments,
    worlds: &[World],
) -> Result<(), Failure> {
    let is_possible = worlds.iter().all(|world| world.is_deterministic());
    match arguments.check_determinism && !is_possible {
        true => Err(Failure::Usage(
            "--check-determinism is for simulated worlds: a real machine never does the same twice"
                .to_owned(),
        )),
        false => Ok(()),
    }
}

fn jobs<'a>(arguments: &RunArguments, worlds: &[World], scenarios: &'a [Scenario]) -> Vec<Job<'a>> {
    let mut jobs = Vec::new();
    for (scenario, world) in scenarios
        .iter()
        .flat_map(|scenario| worlds.iter().map(move |world| (scenario, *world)))
        .filter(|(scenario, world)| runs_here(scenario, *world))
    {
        let seeds: Vec<u64> = match (&arguments.seeds, arguments.seed.as_slice()) {
            (Some(range), _) => range.clone().collect(),
            (None, []) => scenario.seeds.iter().collect(),
            (None, given) => given.to_vec(),
        };
        // The same run twice is no more evidence than once.
        let mut taken = BTreeSet::new();
        let seeds = seeds
            .into_iter()
            .filter(|seed| taken.insert(*seed))
            .take(arguments.seeds_max.unwrap_or(usize::MAX));
        jobs.extend(seeds.map(|seed| Job {
            scenario,
            seed,
            world,
        }));
    }
    jobs
}

/// A file says in which worlds it can run.
fn runs_here(scenario: &Scenario, world: World) -> bool {
    let world = world.name();
    let runs = scenario.worlds.iter().any(|can| can == world);
    if !runs {
        let name = &scenario.name;
        output::complain(&format!(
            "note: {name} does not run in world `{world}`: skipped"
        ));
    }
    runs
}

/// Prints each run as soon as those before it are done.
fn run_once(arguments: &RunArguments, jobs: &[Job<'_>]) -> Result<Vec<RunReport>, Failure> {
    let mut reports = Vec::with_capacity(jobs.len());
    each(arguments, jobs, |done| {
        output::print_run(&done.report, arguments.format)?;
        reports.push(done.report);
        Ok(())
    })?;
    Ok(reports)
}

/// The other process is done when all runs are, so that they are printed together.
fn run_and_compare(arguments: &RunArguments, jobs: &[Job<'_>]) -> Result<Vec<RunReport>, Failure> {
    let request = |job: &Job<'_>| DigestRequest {
        file: job.scenario.file.clone(),
        seed: job.seed,
        world: job.world.name().to_owned(),
    };
    let requests = jobs.iter().map(request).collect();
    let other = OtherProcess::start(requests, &arguments.overrides, other_threads(arguments))?;
    let mut done = Vec::with_capacity(jobs.len());
    each(arguments, jobs, |one| {
        done.push(one);
        Ok(())
    })?;
    let digests = other.digests()?;
    let mut reports = Vec::with_capacity(jobs.len());
    for ((job, done), elsewhere) in jobs.iter().zip(done).zip(digests) {
        let mut report = done.report;
        let mut seen = vec![determinism::digest_of(&report)];
        seen.extend(done.again);
        seen.push(elsewhere);
        if let Ok(plan) = runner::plan(job.scenario, job.seed) {
            determinism::compare(&job.world.execute(), &plan, &mut report, seen);
        }
        output::print_run(&report, arguments.format)?;
        reports.push(report);
    }
    Ok(reports)
}

fn each(
    arguments: &RunArguments,
    jobs: &[Job<'_>],
    mut deliver: impl FnMut(Done) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let progress = progress(jobs.len());
    let work = |job: &Job<'_>| perform(arguments, job);
    sweep::sweep(jobs, threads_for(arguments, jobs), work, |done| {
        progress.inc(1);
        deliver(done?)
    })?;
    progress.finish_and_clear();
    Ok(())
}

fn perform(arguments: &RunArguments, job: &Job<'_>) -> Result<Done, Failure> {
    interruption::check()?;
    let (world, execute) = (job.world, job.world.execute());
    let mut events = Vec::new();
    let plan = match runner::plan(job.scenario, job.seed) {
        Ok(plan) => plan,
        Err(panic) => {
            let overrides = &arguments.overrides;
            let report = runner::unplanned(world, job.scenario, job.seed, overrides, &panic);
            return Ok(Done {
                report,
                again: None,
            });
        }
    };
    let run = || runner::report(world, &execute, &plan, &arguments.overrides);
    // A run that cannot be repeated is kept while it is made.
    let mut report = match world.is_deterministic() {
        true => run(),
        false => {
            let mut keep = |event: &Event| events.push(event.clone());
            let overrides = &arguments.overrides;
            runner::report_with(world, &execute, &plan, overrides, Keep::Events, &mut keep)
        }
    };
    // A run that was cut off says nothing.
    interruption::check()?;
    if !world.is_deterministic() {
        report.differences = parity::differences(&simulated(&plan), &events);
    }
    let again = arguments
        .check_determinism
        .then(|| determinism::digest_of(&run()));
    tracing::info!(
        scenario = plan.name,
        seed = plan.seed,
        verdict = report.verdict.name()
    );
    if let Some(folder) = &arguments.store
        && (arguments.keep || report.verdict != RunVerdict::Pass)
        && store::has_room(folder, &plan, arguments.store_max)
    {
        let events = (!world.is_deterministic()).then_some(events.as_slice());
        store::save(folder, world, &plan, &mut report, events)?;
    }
    Ok(Done { report, again })
}

/// Live runs follow each other, unless more at a time were asked for: they share the machine.
fn threads_for(arguments: &RunArguments, jobs: &[Job<'_>]) -> NonZeroUsize {
    let is_live = jobs.iter().any(|job| !job.world.is_deterministic());
    match arguments.jobs {
        None if is_live => NonZeroUsize::MIN,
        asked => threads(asked),
    }
}

/// What the event world makes of a plan.
fn simulated(plan: &Plan) -> Vec<Event> {
    let mut events = Vec::new();
    let mut keep = |event: &Event| events.push(event.clone());
    let ended = runner::attempt(&World::Event.execute(), plan, Keep::Events, &mut keep);
    if let Err(panic) = ended {
        output::complain(&format!("the simulated run ends early: {panic}"));
    }
    events
}

/// As many threads as were asked for, else one per core.
pub fn threads(asked: Option<NonZeroUsize>) -> NonZeroUsize {
    asked
        .or_else(|| std::thread::available_parallelism().ok())
        .unwrap_or(NonZeroUsize::MIN)
}

/// The other process does the same with another number of threads.
fn other_threads(arguments: &RunArguments) -> NonZeroUsize {
    match threads(arguments.jobs).get() {
        1 => NonZeroUsize::MIN.saturating_add(1),
        _ => NonZeroUsize::MIN,
    }
}

/// A bar on a terminal, nothing elsewhere.
fn progress(runs: usize) -> ProgressBar {
    let template = "{bar:40} {pos}/{len} runs, {eta} left";
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(runs as u64).with_style(style)
}
