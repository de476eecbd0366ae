//! All cases on the oci adapter. Understands as much of a test program's command line as test
//! runners use: `--list`, `--exact` and names to select by.

use std::process::ExitCode;

use wavetank_conformance::arms::oci::OciBench;
use wavetank_conformance::{CASES, Case, Outcome, run_case};

fn main() -> ExitCode {
    if let Some(code) = wavetank_oci::monitor::main_if_asked() {
        return code;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |wanted: &str| arguments.iter().any(|argument| argument == wanted);
    if has("--list") {
        // No case is ever ignored.
        for case in CASES.iter().filter(|_| !has("--ignored")) {
            println!("{}: test", name(case));
        }
        return ExitCode::SUCCESS;
    }
    if let Err(reason) = usable() {
        eprintln!("skipped: {reason}");
        let required = std::env::var_os("WAVETANK_REQUIRE_RUNTIMES");
        return ExitCode::from(u8::from(required.is_some_and(|it| !it.is_empty())));
    }
    let names: Vec<&String> = arguments.iter().filter(|it| !it.starts_with('-')).collect();
    let selected = CASES.iter().filter(|case| {
        let own = name(case);
        let matches = |wanted: &&String| match has("--exact") {
            true => own == **wanted,
            false => own.contains(wanted.as_str()),
        };
        names.is_empty() || names.iter().any(matches)
    });
    run(selected)
}

fn name(case: &Case) -> String {
    format!("case-{:02}", case.number)
}

fn usable() -> Result<(), &'static str> {
    if !rustix::process::geteuid().is_root() {
        return Err("an OCI runtime needs root here");
    }
    let runc = std::process::Command::new("runc").arg("--version").output();
    match runc {
        Ok(output) if output.status.success() => Ok(()),
        _ => Err("there is no runc"),
    }
}

fn run<'a>(cases: impl Iterator<Item = &'a Case>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a tokio runtime");
    let mut failures = 0;
    for case in cases {
        let result = runtime.block_on(run_case(&OciBench, case));
        println!(
            "{} {:?} {} ms",
            name(case),
            result.outcome,
            result.elapsed_ms
        );
        failures += u8::from(matches!(result.outcome, Outcome::Fail { .. }));
    }
    ExitCode::from(failures.min(1))
}
