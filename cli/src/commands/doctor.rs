//! `wavetank doctor`: which runtimes can be used on this machine, and what helps where not.

use anyhow::Context as _;
use clap::{Args, ValueEnum as _};
use wavetank_conformance::host::{Examination, Finding, examine};
use wavetank_reports::table::Style;
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
    /// Instead, list whatever a live run could leave here, a line each: processes, mounts, network
    /// namespaces, links, control groups, state of runtimes, ledgers, packet-filter rules. Two
    /// lists, from before and after, show what was left.
    #[arg(long, conflicts_with_all = ["format", "sweep"])]
    inventory: bool,
}

/// Examines every runtime.
pub fn run(arguments: &DoctorArguments) -> Result<u8, Failure> {
    if arguments.sweep {
        return sweep();
    }
    if arguments.inventory {
        return inventory();
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
        output::print(&render(&examined, output::stdout_style()))?;
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

fn inventory() -> Result<u8, Failure> {
    let audit = wavetank_live::room::Audit::take().context("cannot see what there is here")?;
    for line in audit.lines() {
        output::print(&format!("{line}\n"))?;
    }
    Ok(exit_code::PASS)
}

fn verdict(finding: &Finding) -> &'static str {
    match (finding.ok, finding.vital) {
        (true, _) => "ok",
        (false, true) => "MISSING",
        (false, false) => "limited",
    }
}

fn render(examined: &[Examination], style: Style) -> String {
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
    let summary = table::list(&header, summary, style);
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
    let details = table::list(&header, details, style);
    format!("{summary}{details}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use wavetank_conformance::host::Machine;

    use super::*;

    /// A machine on which all is there, and someone may use it.
    fn complete() -> Machine {
        let programs = [
            "containerd",
            "containerd-shim-runc-v2",
            "podman",
            "conmon",
            "runc",
        ];
        let place = |name| (name, PathBuf::from("/usr/bin").join(name));
        Machine {
            user: 0,
            programs: BTreeMap::from(programs.map(place)),
            cgroups: Ok("/sys/fs/cgroup".to_owned()),
            kernel_log: Ok("/dev/kmsg".to_owned()),
            test_program: Ok(()),
        }
    }

    fn told(machine: &Machine) -> String {
        let runtimes = ["sim", "containerd", "podman", "oci"];
        render(
            &runtimes.map(|runtime| machine.prerequisites(runtime)),
            Style::PLAIN,
        )
    }

    #[test]
    fn a_machine_with_everything() {
        insta::assert_snapshot!(told(&complete()));
    }

    #[test]
    fn a_machine_without_runtimes() {
        let programs = BTreeMap::new();
        insta::assert_snapshot!(told(&Machine {
            programs,
            ..complete()
        }));
    }

    #[test]
    fn a_machine_without_root() {
        let denied = |what: &str| Err(format!("{what}Permission denied (os error 13)"));
        insta::assert_snapshot!(told(&Machine {
            user: 1000,
            cgroups: denied("/sys/fs/cgroup: "),
            kernel_log: denied(""),
            ..complete()
        }));
    }

    #[test]
    fn a_machine_without_a_kernel_log_can_still_use_podman() {
        let kernel_log = Err("No such file or directory (os error 2)".to_owned());
        let podman = Machine {
            kernel_log,
            ..complete()
        }
        .prerequisites("podman");
        assert!(podman.usable);
        assert!(render(&[podman], Style::PLAIN).contains("limited"));
    }
}
