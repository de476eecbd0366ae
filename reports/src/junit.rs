//! Runs for CI systems: JUnit XML, a test suite per scenario file, a test case per seed.
//!
//! An inconclusive run is a failure of type `inconclusive`: a CI that turns green because
//! nothing was tested has lost its purpose. No times are set, because virtual seconds in the
//! place of real ones would mislead.

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use crate::run_report::{RunReport, RunVerdict};
use crate::summary::{Failure, Summary};

/// The whole document.
///
/// # Errors
/// Only if the XML writer fails; it writes to memory.
pub fn render(reports: &[RunReport]) -> Result<String, quick_junit::SerializeError> {
    let mut document = Report::new("wavetank");
    let mut rest = reports;
    while let Some(first) = rest.first() {
        let same = rest
            .iter()
            .take_while(|report| report.run.file == first.run.file)
            .count();
        let (suite, others) = rest.split_at(same);
        document.add_test_suite(test_suite(&first.run.file, suite));
        rest = others;
    }
    document.to_string()
}

fn test_suite(file: &str, reports: &[RunReport]) -> TestSuite {
    let mut suite = TestSuite::new(file);
    suite.add_test_cases(reports.iter().map(test_case));
    suite
}

fn test_case(report: &RunReport) -> TestCase {
    let mut case = TestCase::new(format!("seed {}", report.run.seed), status(report));
    case.set_classname(report.run.scenario.as_str());
    case.add_property(("world", report.run.world.as_str()));
    case.add_property(("events", report.events.to_string().as_str()));
    case.add_property(("virtual_ms", report.virtual_ms.to_string().as_str()));
    if let Some(digest) = &report.digest {
        case.add_property(("digest", digest.as_str()));
    }
    case
}

fn status(report: &RunReport) -> TestCaseStatus {
    let kind = match report.verdict {
        RunVerdict::Pass => return TestCaseStatus::success(),
        RunVerdict::Error => NonSuccessKind::Error,
        RunVerdict::Inconclusive | RunVerdict::Fail | RunVerdict::NonDeterministic => {
            NonSuccessKind::Failure
        }
    };
    let failures = Summary::of(std::slice::from_ref(report)).failures;
    let first = failures.first().map(|failure| failure.title.as_str());
    let mut status = TestCaseStatus::non_success(kind);
    status.set_type(match report.verdict {
        RunVerdict::Fail => first.unwrap_or("fail"),
        other => other.name(),
    });
    status.set_message(
        failures
            .first()
            .map_or("no reason was given", |failure| &failure.cause),
    );
    status.set_description(description(report, &failures));
    status
}

fn description(report: &RunReport, failures: &[Failure]) -> String {
    let mut lines: Vec<String> = failures.iter().map(describe).collect();
    lines.extend(
        report
            .run
            .commit
            .iter()
            .map(|commit| format!("commit: {commit}")),
    );
    lines.extend(report.trace.iter().map(|trace| format!("trace: {trace}")));
    lines.push(format!("replay: {}", report.replay));
    lines.join("\n")
}

fn describe(failure: &Failure) -> String {
    let at = failure.at.map(|at| format!(" at {at}")).unwrap_or_default();
    let fault = failure
        .active_fault
        .as_ref()
        .map(|fault| format!(", active fault {fault}"));
    format!(
        "{}{at}: {}{}",
        failure.title,
        failure.cause,
        fault.unwrap_or_default()
    )
}
