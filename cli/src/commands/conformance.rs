//! `wavetank conformance`: one contract, on any runtime.

use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use serde::Serialize;
use wavetank_conformance::{CASES, Case, CaseResult, Outcome, run_case};
use wavetank_reports::{exit_code, figures, json, table};

use crate::failure::Failure;
use crate::output;
use crate::runtimes::RuntimeName;

/// Hold a container runtime to the contract that all adapters are held to.
///
/// Each case gets a runtime of its own: daemons run in temporary folders and are ended with their
/// case. Exit codes: 0 all pass that apply, 1 a case failed, 4 no such case, 6 the runtime cannot
/// be used here.
#[derive(Args)]
pub struct ConformanceArguments {
    /// Which runtime.
    #[arg(long, value_enum)]
    runtime: RuntimeName,
    /// Only the case of this number; can be given several times.
    #[arg(long = "case", value_name = "N")]
    cases: Vec<u8>,
    /// How to print it.
    #[arg(long, value_enum, default_value = "table")]
    format: ConformanceFormat,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum ConformanceFormat {
    /// For a person.
    Table,
    /// JSON Lines, one object per case.
    Json,
    /// JUnit XML.
    Junit,
}

/// One line of JSON.
#[derive(Serialize)]
struct Row<'a> {
    runtime: &'a str,
    claim: &'a str,
    #[serde(flatten)]
    result: &'a CaseResult,
}

/// Runs the selected cases one after another.
pub fn run(arguments: &ConformanceArguments) -> Result<u8, Failure> {
    let cases = select(&arguments.cases)?;
    let bench = arguments.runtime.usable_bench()?;
    let progress = progress(cases.len());
    let mut results = Vec::new();
    for case in cases {
        progress.set_message(case.name);
        let result = arguments.runtime.block_on(run_case(bench, case))?;
        if arguments.format == ConformanceFormat::Json {
            let row = Row {
                runtime: bench.runtime(),
                claim: case.claim,
                result: &result,
            };
            output::print(&json::line(&row)?)?;
        }
        results.push(result);
        progress.inc(1);
    }
    progress.finish_and_clear();
    match arguments.format {
        ConformanceFormat::Json => {}
        ConformanceFormat::Table => output::print(&render(arguments.runtime, &results))?,
        ConformanceFormat::Junit => output::print(&junit(bench.runtime(), &results)?)?,
    }
    Ok(code(&results))
}

/// A bar on a terminal, nothing elsewhere.
fn progress(cases: usize) -> ProgressBar {
    let template = "{bar:40} {pos}/{len} cases: {msg}";
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(cases as u64).with_style(style)
}

fn select(numbers: &[u8]) -> Result<Vec<&'static Case>, Failure> {
    if let Some(number) = numbers
        .iter()
        .find(|number| CASES.iter().all(|case| case.number != **number))
    {
        return Err(Failure::NothingSelected(format!(
            "there is no case {number}: they are numbered 1 to {}",
            CASES.len()
        )));
    }
    let wanted = |case: &&Case| numbers.is_empty() || numbers.contains(&case.number);
    Ok(CASES.iter().filter(wanted).collect())
}

fn code(results: &[CaseResult]) -> u8 {
    let failed = |result: &CaseResult| matches!(result.outcome, Outcome::Fail { .. });
    match results.iter().any(failed) {
        true => exit_code::VIOLATED,
        false => exit_code::PASS,
    }
}

fn render(runtime: RuntimeName, results: &[CaseResult]) -> String {
    let time = match runtime {
        RuntimeName::Sim => "virtual time",
        _ => "time",
    };
    let rows = results.iter().map(|result| {
        let (outcome, remark) = words(&result.outcome);
        vec![
            result.number.to_string(),
            result.name.to_owned(),
            outcome.to_owned(),
            format!("{} ms", result.elapsed_ms),
            remark,
        ]
    });
    let header = ["case", "what is done", "result", time, "why"];
    let list = table::list(&header, rows, output::stdout_style());
    format!("{list}{}\n", closing_line(results))
}

/// An outcome and its reason, in words.
fn words(outcome: &Outcome) -> (&'static str, String) {
    match outcome {
        Outcome::Pass => ("pass", String::new()),
        Outcome::Fail { message } => ("FAIL", message.clone()),
        Outcome::NotApplicable { capability, note } => {
            ("not applicable", format!("{}: {note}", capability.name()))
        }
    }
}

fn closing_line(results: &[CaseResult]) -> String {
    let count = |wanted: &str| {
        let results = results.iter();
        results
            .filter(|result| words(&result.outcome).0 == wanted)
            .count()
    };
    format!(
        "{}: {} passed, {} failed, {} not applicable",
        figures::plural(results.len(), "case"),
        count("pass"),
        count("FAIL"),
        count("not applicable")
    )
}

fn junit(runtime: &str, results: &[CaseResult]) -> Result<String, Failure> {
    let mut suite = TestSuite::new(format!("conformance of {runtime}"));
    suite.add_test_cases(results.iter().map(|result| test_case(runtime, result)));
    let mut document = Report::new("wavetank");
    document.add_test_suite(suite);
    let text = document.to_string().map_err(anyhow::Error::new)?;
    Ok(text)
}

fn test_case(runtime: &str, result: &CaseResult) -> TestCase {
    let status = match &result.outcome {
        Outcome::Pass => TestCaseStatus::success(),
        Outcome::Fail { message } => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_message(message.as_str());
            status.set_description(format!(
                "{message}\nreplay: wavetank conformance --runtime {runtime} --case {}",
                result.number
            ));
            status
        }
        Outcome::NotApplicable { .. } => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(words(&result.outcome).1);
            status
        }
    };
    let mut case = TestCase::new(format!("{:02} {}", result.number, result.name), status);
    case.set_classname(format!("conformance.{runtime}"));
    let elapsed = u64::try_from(result.elapsed_ms).unwrap_or(u64::MAX);
    case.set_time(Duration::from_millis(elapsed));
    case
}
