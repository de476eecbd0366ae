//! The real world's parts against real runtimes. Understands as much of a test program's command
//! line as test runners use: `--list`, `--exact` and names to select by.
//!
//! A case that needs what this machine lacks says so and is skipped, unless
//! `WAVETANK_REQUIRE_RUNTIMES` forbids that.

mod bed;
mod broken;
mod calls;
mod caught;
mod daemons;
mod images;
mod truth;

use std::process::ExitCode;

use bed::Case;

fn main() -> ExitCode {
    if let Some(code) = wavetank_oci::monitor::main_if_asked() {
        return code;
    }
    if let Some(code) = broken::main_if_asked() {
        return code;
    }
    let cases = [calls::CASES, caught::CASES, images::CASES, truth::CASES];
    let cases: Vec<Case> = cases.concat();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |wanted: &str| arguments.iter().any(|argument| argument == wanted);
    if has("--list") {
        // No case is ever ignored.
        for case in cases.iter().filter(|_| !has("--ignored")) {
            println!("{}: test", case.name);
        }
        return ExitCode::SUCCESS;
    }
    let names: Vec<&String> = arguments.iter().filter(|it| !it.starts_with('-')).collect();
    let matches = |case: &&Case, wanted: &String| match has("--exact") {
        true => case.name == wanted,
        false => case.name.contains(wanted.as_str()),
    };
    let selected = cases
        .iter()
        .filter(|case| names.is_empty() || names.iter().any(|name| matches(case, name)));
    run(selected)
}

fn run<'a>(cases: impl Iterator<Item = &'a Case>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a tokio runtime");
    let is_required =
        std::env::var_os("WAVETANK_REQUIRE_RUNTIMES").is_some_and(|it| !it.is_empty());
    let mut code = ExitCode::SUCCESS;
    for case in cases {
        if let Err(reason) = (case.usable)() {
            eprintln!("{}: skipped: {reason}", case.name);
            if is_required {
                code = ExitCode::FAILURE;
            }
            continue;
        }
        // A task of its own: a failed case is a panic, which must not end the others.
        let tasks = tokio::task::LocalSet::new();
        let ended = tasks.block_on(
            &runtime,
            tokio::task::LocalSet::spawn_local(&tasks, (case.run)()),
        );
        println!(
            "{} {}",
            case.name,
            if ended.is_ok() { "ok" } else { "FAILED" }
        );
        if ended.is_err() {
            code = ExitCode::FAILURE;
        }
    }
    code
}
