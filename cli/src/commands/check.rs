//! `wavetank check`: judges a stored trace again, without running anything.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use clap::Args;
use wavetank_checkers::{Judge, Judgement, Verdict};
use wavetank_reports::{RunIdentity, RunReport, Summary, exit_code};
use wavetank_scenario::plan::Plan;
use wavetank_trace::{Payload, Phase, Reader, VirtualTime};

use crate::failure::Failure;
use crate::output::{self, Format};

/// Judge a stored trace again.
#[derive(Args)]
pub struct CheckArguments {
    /// A `trace.jsonl` of a store.
    trace: PathBuf,
    /// How to print what came of it.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

/// Judges the trace.
pub fn run(arguments: &CheckArguments) -> Result<u8, Failure> {
    let reports = [judge(&arguments.trace)?];
    output::print_run(&reports[0], arguments.format)?;
    output::print_summary(&reports, arguments.format)?;
    Ok(exit_code::of_summary(&Summary::of(&reports)))
}

fn judge(path: &Path) -> Result<RunReport, Failure> {
    let wrong =
        |what: &dyn std::fmt::Display| Failure::Usage(format!("{}: {what}", path.display()));
    let file = File::open(path).map_err(|error| wrong(&error))?;
    let reader = Reader::new(BufReader::new(file)).map_err(|error| wrong(&error))?;
    let header = reader.header().clone();
    let plan: Plan = serde_json::from_value(header.plan)
        .map_err(|error| wrong(&format!("the header's plan is not readable: {error}")))?;
    let mut judge = Judge::new(&plan);
    let mut events = 0;
    let mut end = VirtualTime::ZERO;
    let mut is_complete = false;
    for event in reader {
        let event = event.map_err(|error| wrong(&error))?;
        judge.observe(&event);
        events += 1;
        end = event.at;
        is_complete = matches!(event.payload, Payload::Phase { phase: Phase::End });
    }
    let mut judgement = judge.finish();
    if !is_complete {
        note_missing_end(&mut judgement);
    }
    let run = RunIdentity {
        scenario: plan.name,
        file: plan.file,
        seed: header.seed,
        world: header.world,
        overrides: Vec::new(),
        commit: None,
        live: None,
    };
    Ok(RunReport {
        must_fail: plan.expect.fails,
        trace: Some(path.display().to_string()),
        ..RunReport::judged(run, judgement, None, events, end.as_duration())
    })
}

/// A trace that breaks off can convict, but not acquit.
fn note_missing_end(judgement: &mut Judgement) {
    judgement
        .inconclusive
        .push("the trace breaks off before the end of its run".to_owned());
    if judgement.verdict == Verdict::Pass {
        judgement.verdict = Verdict::Inconclusive;
    }
}
