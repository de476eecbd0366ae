//! `wavetank report`: shows stored results again, in any format.

use std::path::{Path, PathBuf};

use clap::Args;
use wavetank_reports::{RunReport, Summary, exit_code};

use crate::failure::Failure;
use crate::files;
use crate::output::{self, Format};

/// Show stored results again, in any format.
#[derive(Args)]
pub struct ReportArguments {
    /// Files that `run --format json` printed, and stores.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// How to print it.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

/// Reads, sorts and prints the results. The exit code is that of the runs.
pub fn run(arguments: &ReportArguments) -> Result<u8, Failure> {
    let mut reports = Vec::new();
    for path in &arguments.paths {
        collect(path, &mut reports)?;
    }
    // Rounds over the same files come one after the other, and a folder's names are no numbers.
    reports.sort_by(|left, right| {
        (&left.run.file, left.run.seed).cmp(&(&right.run.file, right.run.seed))
    });
    for report in &reports {
        output::print_run(report, arguments.format)?;
    }
    output::print_summary(&reports, arguments.format)?;
    Ok(exit_code::of_summary(&Summary::of(&reports)))
}

/// A folder is a store: the reports of its runs, in name order.
fn collect(path: &Path, reports: &mut Vec<RunReport>) -> Result<(), Failure> {
    if !path.is_dir() {
        return parse(path, reports);
    }
    let unreadable = |error: std::io::Error| {
        Failure::Usage(format!(
            "cannot read the folder {}: {error}",
            path.display()
        ))
    };
    let entries: Result<Vec<_>, _> = std::fs::read_dir(path).map_err(unreadable)?.collect();
    let mut entries = entries.map_err(unreadable)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let is_folder = entry.file_type().map_err(unreadable)?.is_dir();
        let is_complete = !entry.file_name().to_string_lossy().starts_with('.');
        if (is_folder && is_complete) || entry.file_name() == "report.json" {
            collect(&entry.path(), reports)?;
        }
    }
    Ok(())
}

/// One object or many, whatever the blanks between them.
fn parse(path: &Path, reports: &mut Vec<RunReport>) -> Result<(), Failure> {
    let text = files::read(path)?;
    for report in serde_json::Deserializer::from_str(&text).into_iter() {
        reports.push(report.map_err(|error| {
            Failure::Usage(format!(
                "{}: not a report of a run: {error}",
                path.display()
            ))
        })?);
    }
    Ok(())
}
