//! `wavetank scenario`: what scenario files say, without running them.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;
use wavetank_reports::{exit_code, json, table};
use wavetank_scenario::{Override, Scenario};

use super::vocabulary::{self, VocabularyArguments};
use crate::failure::Failure;
use crate::files;
use crate::output::{self, ListFormat};
use crate::seeds::parse_seed;

/// Check, explain and list scenario files.
#[derive(Subcommand)]
pub enum ScenarioCommand {
    /// Say what is wrong with files, and what looks wrong.
    Check(CheckArguments),
    /// Show the concrete timeline of one seed before anything runs.
    Explain(ExplainArguments),
    /// Print the JSON Schema of the format.
    Schema,
    /// List scenarios.
    List(ListArguments),
    /// List what triggers and expressions can speak of: events, functions and records with their
    /// fields.
    Vocabulary(VocabularyArguments),
}

/// Arguments of `scenario check`.
#[derive(Args)]
pub struct CheckArguments {
    /// Scenario files, and folders to search for them.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Treat what looks wrong as wrong.
    #[arg(long)]
    strict: bool,
}

/// Arguments of `scenario explain`.
#[derive(Args)]
pub struct ExplainArguments {
    /// The scenario file.
    file: PathBuf,
    /// The seed, decimal or 0x hexadecimal; the file's first by default.
    #[arg(long, value_name = "N", value_parser = parse_seed)]
    seed: Option<u64>,
    /// Replaces a field of the file.
    #[arg(long = "set", value_name = "PATH=VALUE", value_parser = files::parse_assignment)]
    overrides: Vec<Override>,
}

/// Arguments of `scenario list`.
#[derive(Args)]
pub struct ListArguments {
    /// Scenario files, and folders to search for them.
    #[arg(default_value = "scenarios")]
    paths: Vec<PathBuf>,
    /// How to print it.
    #[arg(long, value_enum, default_value = "table")]
    format: ListFormat,
}

/// Runs one of the commands.
pub fn run(command: &ScenarioCommand) -> Result<u8, Failure> {
    match command {
        ScenarioCommand::Check(arguments) => check(arguments),
        ScenarioCommand::Explain(arguments) => explain(arguments),
        ScenarioCommand::Schema => schema(),
        ScenarioCommand::List(arguments) => list(arguments),
        ScenarioCommand::Vocabulary(arguments) => vocabulary::run(arguments),
    }
}

fn check(arguments: &CheckArguments) -> Result<u8, Failure> {
    let scenarios = files::load_all(&files::select(&arguments.paths)?, &[])?;
    let mut lints = 0;
    for lint in scenarios.iter().flat_map(Scenario::lints) {
        output::complain(&files::shown(&lint));
        lints += 1;
    }
    if arguments.strict && lints > 0 {
        return Err(Failure::Usage(format!(
            "{lints} warnings, and --strict was asked for"
        )));
    }
    output::print(&format!(
        "{} scenarios are valid, {lints} warnings\n",
        scenarios.len()
    ))?;
    Ok(exit_code::PASS)
}

fn explain(arguments: &ExplainArguments) -> Result<u8, Failure> {
    let scenarios = files::load_all(std::slice::from_ref(&arguments.file), &arguments.overrides)?;
    for scenario in &scenarios {
        let seed = arguments
            .seed
            .or_else(|| scenario.seeds.iter().next())
            .unwrap_or_default();
        output::print(&with_newline(scenario.explain(seed)))?;
    }
    Ok(exit_code::PASS)
}

fn schema() -> Result<u8, Failure> {
    let schema = serde_json::to_string_pretty(&wavetank_scenario::json_schema())?;
    output::print(&with_newline(schema))?;
    Ok(exit_code::PASS)
}

fn with_newline(mut text: String) -> String {
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// One row of the list.
#[derive(Serialize)]
struct Row<'a> {
    scenario: &'a str,
    file: &'a str,
    seeds: u64,
    tags: &'a [String],
    worlds: &'a [String],
    description: Option<&'a str>,
    issue: Option<&'a str>,
}

fn list(arguments: &ListArguments) -> Result<u8, Failure> {
    let scenarios = files::load_all(&files::select(&arguments.paths)?, &[])?;
    let rows: Vec<Row<'_>> = scenarios.iter().map(row).collect();
    let text = match arguments.format {
        ListFormat::Json => rows.iter().map(json::line).collect::<Result<String, _>>()?,
        ListFormat::Table => {
            let header = ["scenario", "seeds", "tags", "description"];
            let cells = rows.iter().map(|row| {
                let seeds = row.seeds.to_string();
                vec![
                    row.scenario.to_owned(),
                    seeds,
                    row.tags.join(" "),
                    row.description.unwrap_or_default().to_owned(),
                ]
            });
            table::list(&header, cells, output::stdout_style())
        }
    };
    output::print(&text)?;
    Ok(exit_code::PASS)
}

fn row(scenario: &Scenario) -> Row<'_> {
    Row {
        scenario: &scenario.name,
        file: &scenario.file,
        seeds: scenario.seeds.count(),
        tags: &scenario.tags,
        worlds: &scenario.worlds,
        description: scenario.description.as_deref(),
        issue: scenario.issue.as_deref(),
    }
}
