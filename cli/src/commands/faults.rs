//! `wavetank faults`: everything that can go wrong on purpose.

use clap::Args;
use serde::Serialize;
use wavetank_reports::{exit_code, json, table};
use wavetank_scenario::faults::{CATALOGUE, FaultInfo};

use crate::failure::Failure;
use crate::output::{self, ListFormat};

/// List every fault that a scenario can inject.
#[derive(Args)]
pub struct FaultsArguments {
    /// How to print it.
    #[arg(long, value_enum, default_value = "table")]
    format: ListFormat,
}

/// One row of the catalogue.
#[derive(Serialize)]
struct Row<'a> {
    action: &'a str,
    summary: &'a str,
    arguments: Vec<&'a str>,
    targets: &'a [&'a str],
    worlds: &'a [&'a str],
    models: &'a str,
    swarm: bool,
}

impl<'a> From<&'a FaultInfo> for Row<'a> {
    fn from(fault: &'a FaultInfo) -> Self {
        Row {
            action: fault.action,
            summary: fault.summary,
            arguments: fault.args.iter().map(|argument| argument.name).collect(),
            targets: fault.targets,
            worlds: fault.worlds,
            models: fault.models,
            swarm: fault.swarm,
        }
    }
}

/// Prints the catalogue.
pub fn run(arguments: &FaultsArguments) -> Result<u8, Failure> {
    let rows: Vec<Row<'_>> = CATALOGUE.iter().map(Row::from).collect();
    let text = match arguments.format {
        ListFormat::Json => rows.iter().map(json::line).collect::<Result<String, _>>()?,
        ListFormat::Table => {
            let header = ["action", "arguments", "targets", "what it does", "models"];
            let cells = rows.iter().map(|row| {
                vec![
                    row.action.to_owned(),
                    row.arguments.join(" "),
                    row.targets.join(" "),
                    row.summary.to_owned(),
                    row.models.to_owned(),
                ]
            });
            table::list(&header, cells, output::stdout_style())
        }
    };
    output::print(&text)?;
    Ok(exit_code::PASS)
}
