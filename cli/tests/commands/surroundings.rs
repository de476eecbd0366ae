//! Pipes, colours, stores, and processes of its own.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;

use crate::folder::{Folder, said};

#[test]
fn failing_runs_are_stored_and_judged_alike_again() -> Result<(), Box<dyn std::error::Error>> {
    let folder = Folder::new()?;
    let run = folder.wavetank(&["run", "all", "--store", "store", "--format", "json"])?;
    assert_eq!(run.code, Some(1), "{}", run.err);
    let trace = "store/bad/7/trace.jsonl";
    assert!(
        run.out.contains(&format!("\"trace\":\"{trace}\"")),
        "{}",
        run.out
    );
    for file in [trace, "store/bad/7/plan.json", "store/bad/7/report.json"] {
        assert!(folder.path().join(file).is_file(), "{file}");
    }
    assert!(folder.path().join("store/idle/1").is_dir());
    assert!(!folder.path().join("store/good").exists(), "it passed");

    let check = folder.wavetank(&["check", trace, "--format", "json"])?;
    assert_eq!(check.code, Some(1), "{}", check.err);
    let before: serde_json::Value = serde_json::from_str(run.out.lines().next().unwrap_or("{}"))?;
    let after: serde_json::Value = serde_json::from_str(&check.out)?;
    for field in [
        "scenario", "seed", "verdict", "findings", "faults", "replay",
    ] {
        assert_eq!(before[field], after[field], "{field}");
    }
    Ok(())
}

#[test]
fn a_store_takes_all_runs_or_not_too_many() -> std::io::Result<()> {
    let folder = Folder::new()?;
    let good = ["run", "all/good.yaml", "--jobs", "1", "--store"];
    folder.wavetank(&[&good[..], &["all-runs", "--keep"]].concat())?;
    assert_eq!(
        fs::read_dir(folder.path().join("all-runs/good"))?.count(),
        3
    );
    folder.wavetank(&[&good[..], &["few", "--keep", "--store-max", "2"]].concat())?;
    assert_eq!(fs::read_dir(folder.path().join("few/good"))?.count(), 2);
    Ok(())
}

#[test]
fn a_store_is_reported_on_as_the_runs_were() -> std::io::Result<()> {
    let folder = Folder::new()?;
    let run = folder.wavetank(&["run", "all/bad.yaml", "--store", "store"])?;
    let report = folder.wavetank(&["report", "store"])?;
    assert_eq!(
        (report.code, report.out.len()),
        (Some(1), run.out.len()),
        "{}",
        report.out
    );
    let missing = folder.wavetank(&["report", "nowhere"])?;
    assert_eq!(missing.code, Some(2));
    Ok(())
}

#[test]
fn a_trace_that_breaks_off_acquits_nobody() -> std::io::Result<()> {
    let folder = Folder::new()?;
    let whole = folder
        .wavetank(&["trace", "all/good.yaml", "--seed", "1"])?
        .out;
    folder.write("whole.jsonl", &whole)?;
    assert_eq!(folder.wavetank(&["check", "whole.jsonl"])?.code, Some(0));
    let lines: Vec<&str> = whole.lines().collect();
    folder.write("part.jsonl", &lines[..lines.len() - 1].join("\n"))?;
    let part = folder.wavetank(&["check", "part.jsonl"])?;
    assert_eq!(part.code, Some(3), "{}", part.out);
    assert!(part.out.contains("breaks off"), "{}", part.out);
    let gap = [&lines[..9], &lines[10..]].concat().join("\n");
    folder.write("gap.jsonl", &gap)?;
    let gap = folder.wavetank(&["check", "gap.jsonl"])?;
    assert_eq!(gap.code, Some(2), "{}", gap.out);
    let says = "gap.jsonl: line 10: event 10 where event 9 belongs";
    assert!(gap.err.contains(says), "{}", gap.err);
    Ok(())
}

#[test]
fn what_is_no_trace_is_refused_with_its_line() -> std::io::Result<()> {
    let folder = Folder::new()?;
    folder.write("no.jsonl", "{}\n")?;
    let refused = folder.wavetank(&["check", "no.jsonl"])?;
    assert_eq!(refused.code, Some(2));
    assert!(
        refused
            .err
            .starts_with("error: no.jsonl: line 1: not a trace header"),
        "{}",
        refused.err
    );
    Ok(())
}

#[test]
fn a_reader_that_goes_away_is_no_error() -> std::io::Result<()> {
    let folder = Folder::new()?;
    let mut command = folder.command(&["trace", "all/good.yaml", "--seed", "1"]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    if let Some(out) = child.stdout.take() {
        BufReader::with_capacity(64, out).read_line(&mut line)?;
    }
    let mut complaints = String::new();
    if let Some(mut err) = child.stderr.take() {
        err.read_to_string(&mut complaints)?;
    }
    let status = child.wait()?;
    assert!(line.starts_with("{\"wavetank_trace\":"), "{line}");
    assert_eq!((status.code(), complaints.as_str()), (Some(0), ""));
    Ok(())
}

#[test]
fn there_are_no_colours_without_a_terminal() -> std::io::Result<()> {
    let folder = Folder::new()?;
    for arguments in [["run", "all/bad.yaml"], ["run", "wrong.yaml"]] {
        let said = folder.wavetank(&arguments)?;
        assert!(
            !said.out.contains('\u{1b}') && !said.err.contains('\u{1b}'),
            "{}",
            said.err
        );
    }
    Ok(())
}

#[test]
fn logs_go_to_stderr_and_only_when_asked_for() -> std::io::Result<()> {
    let folder = Folder::new()?;
    let arguments = ["run", "all/good.yaml", "--format", "json"];
    let loud = said(
        &folder
            .command(&arguments)
            .env("RUST_LOG", "info")
            .output()?,
    );
    assert!(loud.err.contains("seed=1"), "{}", loud.err);
    assert_eq!(loud.out, folder.wavetank(&arguments)?.out);
    Ok(())
}

#[test]
fn a_benchmark_has_a_row_per_cluster() -> Result<(), Box<dyn std::error::Error>> {
    let folder = Folder::new()?;
    let said = folder.wavetank(&[
        "bench",
        "--agents",
        "1,3",
        "--virtual-seconds",
        "5",
        "--repeat",
        "1",
        "--format",
        "json",
    ])?;
    assert_eq!(said.code, Some(0), "{}", said.err);
    let rows: Vec<serde_json::Value> = serde_json::from_str(&said.out)?;
    let agents: Vec<&serde_json::Value> = rows.iter().map(|row| &row["agents"]).collect();
    assert_eq!(agents, [1, 3]);
    assert!(
        rows.iter().all(|row| row["events"].as_u64() > Some(0)),
        "{}",
        said.out
    );
    assert!(
        rows.iter()
            .all(|row| row["events_per_second"].as_u64() > Some(0)),
        "{}",
        said.out
    );
    Ok(())
}

#[test]
fn every_folder_of_the_program_is_its_own() -> std::io::Result<()> {
    let folder = Folder::new()?;
    folder.wavetank(&["run", "all", "--store", "store"])?;
    let left: Vec<_> = fs::read_dir(folder.path().join("store/bad"))?
        .filter_map(Result::ok)
        .map(|entry| entry.file_name())
        .filter(|name| name.to_string_lossy().starts_with('.'))
        .collect();
    assert!(left.is_empty(), "unfinished: {left:?}");
    Ok(())
}
