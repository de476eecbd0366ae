//! What goes where: data to stdout, everything else to stderr; colours only where they are
//! wanted; a reader that went away is no error.

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use wavetank_reports::{RunReport, Style, Summary, json, junit, markdown, table};

use crate::failure::Failure;

/// How reports are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For a person.
    Table,
    /// JSON Lines, one object per run.
    Json,
    /// JUnit XML.
    Junit,
    /// A page.
    Markdown,
}

/// How lists are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ListFormat {
    /// For a person.
    Table,
    /// JSON Lines, one object per row.
    Json,
}

/// Prints data. A reader that has gone away (`| head`) has seen enough: the rest is dropped.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::Harness(
            anyhow::Error::new(error).context("cannot write to stdout"),
        )),
        _ => Ok(()),
    }
}

/// Tells the user something that is not data. If nobody can hear it, nothing can be done.
pub fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Prints one finished run where the format prints runs one by one.
pub fn print_run(report: &RunReport, format: Format) -> Result<(), Failure> {
    match format {
        Format::Json => print(&json::line(report)?),
        Format::Table | Format::Junit | Format::Markdown => Ok(()),
    }
}

/// Prints what can only be said about all runs together.
pub fn print_summary(reports: &[RunReport], format: Format) -> Result<(), Failure> {
    match format {
        Format::Json => Ok(()),
        Format::Table => {
            print(&table::render(&Summary::of(reports), stdout_style()))?;
            print(&beside_the_simulation(reports))
        }
        Format::Markdown => print(&markdown::render("wavetank", &Summary::of(reports))),
        Format::Junit => {
            let text = junit::render(reports).map_err(anyhow::Error::new)?;
            print(&text)
        }
    }
}

/// What went another way on the real machine than in the simulation, run by run.
fn beside_the_simulation(reports: &[RunReport]) -> String {
    let mut text = String::new();
    for report in reports.iter().filter(|report| report.run.live.is_some()) {
        let title = format!("{} seed {}", report.run.scenario, report.run.seed);
        let lines = &report.differences;
        text.push_str(&match lines.len() {
            0 => format!("\nsimulated and real, {title}: the same history\n"),
            1 => format!("\nsimulated and real, {title}: 1 difference\n"),
            count => format!("\nsimulated and real, {title}: {count} differences\n"),
        });
        for line in lines {
            text.push_str(&format!("  {line}\n"));
        }
    }
    text
}

/// What stdout can do. Only a terminal has a width: what goes to a file or a pipe is not wrapped,
/// so that it can be searched by line.
pub fn stdout_style() -> Style {
    let color = io::stdout().is_terminal() && color_is_welcome();
    Style {
        color,
        width: comfy_table::Table::new().width(),
    }
}

/// Whether colours may go to stderr.
pub fn stderr_has_color() -> bool {
    io::stderr().is_terminal() && color_is_welcome()
}

/// <https://no-color.org>: any value but the empty one says no.
fn color_is_welcome() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
