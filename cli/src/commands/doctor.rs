//! `wavetank doctor`: which runtimes can be used on this machine, and what helps where not.

use anyhow::Context as _;
use clap::{Args, ValueEnum as _};
use wavetank_conformance::host::{Examination, Finding, examine};
use wavetank_reports::{exit_code, json, table};

use crate::failure::Failure;
use crate::output::{self, ListFormat};
use crate::runtimes::RuntimeName;

/// Say for each runtime whether it can be used here, why not, and what helps.
///
/// Starts each runtime in a temporary folder, asks for its version and ends it. The exit code is 0
/// whatever is found: a machine without a runtime is no failure of wavetank.
#[derive(Args)]
pub struct DoctorArguments {
    /// How to print it.
    #[arg(long, value_enum, default_value = "table")]
    format: ListFormat,
    /// Instead, remove what live runs have left whose own process is gone: namespaces, links,
    /// mounts, processes, control groups. Nothing else is touched.
    #[arg(long, conflicts_with = "format")]
    sweep: bool,
}

/// Examines every runtime.
pub fn run(arguments: &DoctorArguments) -> Result<u8, Failure> {
    if arguments.sweep {
        return sweep();
    }
    let mut examined = Vec::new();
    for name in RuntimeName::value_variants() {
        let found = name.block_on(examine(name.bench()))?;
        if arguments.format == ListFormat::Json {
            output::print(&json::line(&found)?)?;
        }
        examined.push(found);
    }
    if arguments.format == ListFormat::Table {
        output::print(&render(&examined))?;
    }
    Ok(exit_code::PASS)
}

fn sweep() -> Result<u8, Failure> {
    let removed = wavetank_live::room::sweep(false).context("cannot sweep")?;
    for room in &removed {
        output::print(&format!("{room}\n"))?;
    }
    if removed.is_empty() {
        output::print("nothing is left of any live run\n")?;
    }
    match removed
        .iter()
        .all(wavetank_live::room::Removed::is_complete)
    {
        true => Ok(exit_code::PASS),
        false => Err(Failure::Harness(anyhow::anyhow!(
            "something is left; try again"
        ))),
    }
}

fn verdict(finding: &Finding) -> &'static str {
    match (finding.ok, finding.vital) {
        (true, _) => "ok",
        (false, true) => "MISSING",
        (false, false) => "limited",
    }
}

fn render(examined: &[Examination]) -> String {
    let summary = examined.iter().map(|it| {
        let usable = if it.usable { "yes" } else { "NO" };
        let missing = it.findings.iter().find(|finding| !finding.ok);
        vec![
            it.runtime.to_owned(),
            usable.to_owned(),
            it.version.clone().unwrap_or_default(),
            missing.map_or_else(String::new, |it| format!("{}: {}", it.need, it.found)),
            missing.map_or_else(String::new, |it| it.fix.clone()),
        ]
    });
    let header = ["runtime", "usable", "version", "why not", "what helps"];
    let summary = table::list(&header, summary, output::stdout_style());
    let details = examined.iter().flat_map(|it| {
        it.findings.iter().map(|finding| {
            vec![
                it.runtime.to_owned(),
                finding.need.clone(),
                verdict(finding).to_owned(),
                finding.found.clone(),
            ]
        })
    });
    let header = ["runtime", "needs", "", "found"];
    let details = table::list(&header, details, output::stdout_style());
    format!("{summary}{details}")
}
