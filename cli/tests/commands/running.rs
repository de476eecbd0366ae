//! Runs and their verdicts.

use crate::folder::{Folder, redacted};

#[test]
fn a_scenario_that_holds_passes() -> std::io::Result<()> {
    let said = Folder::new()?.wavetank(&["run", "all/good.yaml"])?;
    assert_eq!(
        (said.code, said.err.as_str()),
        (Some(0), ""),
        "{}",
        said.out
    );
    redacted(|| insta::assert_snapshot!(said.out));
    Ok(())
}

#[test]
fn a_failure_says_how_to_see_it_again() -> std::io::Result<()> {
    let said = Folder::new()?.wavetank(&["run", "all/bad.yaml"])?;
    assert_eq!(said.code, Some(1), "{}", said.out);
    redacted(|| insta::assert_snapshot!(said.out));
    Ok(())
}

#[test]
fn the_command_that_replays_shows_the_same_run() -> Result<(), Box<dyn std::error::Error>> {
    let folder = Folder::new()?;
    let all = folder.wavetank(&["run", "all/bad.yaml", "--format", "json"])?;
    let last = all.out.lines().last().unwrap_or_default();
    let report: serde_json::Value = serde_json::from_str(last)?;
    let replay = report["replay"].as_str().unwrap_or_default();
    assert_eq!(replay, "cargo run --release -- run all/bad.yaml --seed 26");
    let words: Vec<&str> = replay
        .split(' ')
        .skip(4)
        .chain(["--format", "json"])
        .collect();
    let again = folder.wavetank(&words)?;
    assert_eq!((again.code, again.out.trim_end()), (Some(1), last));
    Ok(())
}

#[test]
fn a_fault_that_never_fires_proves_nothing() -> std::io::Result<()> {
    let said = Folder::new()?.wavetank(&["run", "all/idle.yaml"])?;
    assert_eq!(said.code, Some(3), "{}", said.out);
    assert!(
        said.out.contains("fault `never` never fired"),
        "{}",
        said.out
    );
    Ok(())
}

#[test]
fn files_of_one_name_are_refused_and_one_file_runs_once() -> Result<(), Box<dyn std::error::Error>>
{
    let folder = Folder::new()?;
    let again = [
        "run",
        "all/good.yaml",
        "all/good.yaml",
        "--seed",
        "1",
        "--seed",
        "1",
    ];
    let said = folder.wavetank(&[&again[..], &["--format", "json"]].concat())?;
    assert_eq!(
        (said.code, said.out.lines().count()),
        (Some(0), 1),
        "{}",
        said.out
    );
    std::fs::copy(
        folder.path().join("all/good.yaml"),
        folder.path().join("all/twin.yaml"),
    )?;
    let said = folder.wavetank(&["run", "all/good.yaml", "all/twin.yaml"])?;
    assert_eq!(said.code, Some(2), "{}", said.out);
    let why = "all/good.yaml and all/twin.yaml are both called `good`";
    assert!(said.err.contains(why), "{}", said.err);
    Ok(())
}

#[test]
fn a_folder_is_searched_in_name_order() -> Result<(), Box<dyn std::error::Error>> {
    let said = Folder::new()?.wavetank(&["run", "all", "--format", "json"])?;
    assert_eq!(said.code, Some(1), "{}", said.err);
    let mut runs = Vec::new();
    for line in said.out.lines() {
        let report: serde_json::Value = serde_json::from_str(line)?;
        runs.push(format!("{} {}", report["file"], report["seed"]));
    }
    let expected = [
        "\"all/bad.yaml\" 7",
        "\"all/bad.yaml\" 26",
        "\"all/good.yaml\" 1",
        "\"all/good.yaml\" 2",
        "\"all/good.yaml\" 3",
        "\"all/idle.yaml\" 1",
    ];
    assert_eq!(runs, expected);
    Ok(())
}

#[test]
fn the_number_of_jobs_does_not_show() -> std::io::Result<()> {
    let folder = Folder::new()?;
    let run = |jobs| {
        folder.wavetank(&[
            "run", "all", "--seeds", "0..6", "--format", "json", "--jobs", jobs,
        ])
    };
    let (one, three) = (run("1")?, run("3")?);
    assert_eq!(one.code, Some(1));
    assert_eq!(one.out, three.out);
    Ok(())
}

#[test]
fn every_format_has_every_run() -> std::io::Result<()> {
    let folder = Folder::new()?;
    let junit = folder.wavetank(&["run", "all", "--format", "junit"])?;
    assert_eq!(junit.out.matches("<testcase ").count(), 6, "{}", junit.out);
    assert_eq!(junit.out.matches("<testsuite ").count(), 3);
    assert!(
        junit
            .out
            .contains("replay: cargo run --release -- run all/bad.yaml --seed 7")
    );
    let markdown = folder.wavetank(&["run", "all", "--format", "markdown"])?;
    assert!(
        markdown.out.contains("| total | fail | 3 | 2 | 1 | 0 |"),
        "{}",
        markdown.out
    );
    Ok(())
}

#[test]
fn seeds_are_taken_from_the_command_line() -> std::io::Result<()> {
    let folder = Folder::new()?;
    let seeds = |arguments: &[&str]| -> std::io::Result<Vec<String>> {
        let mut all = vec!["run", "all/good.yaml", "--format", "json"];
        all.extend(arguments);
        let said = folder.wavetank(&all)?;
        let seed = |line: &str| {
            let after = line.split("\"seed\":").nth(1).unwrap_or_default();
            after.split(',').next().unwrap_or_default().to_owned()
        };
        Ok(said.out.lines().map(seed).collect())
    };
    assert_eq!(seeds(&["--seed", "0x1a2b"])?, ["6699"]);
    assert_eq!(seeds(&["--seed", "5,2"])?, ["5", "2"]);
    assert_eq!(seeds(&["--seeds", "8..=9"])?, ["8", "9"]);
    assert_eq!(seeds(&["--seeds-max", "2"])?, ["1", "2"]);
    Ok(())
}

#[test]
fn a_field_can_be_replaced() -> std::io::Result<()> {
    let folder = Folder::new()?;
    let set = "workload.0.replicas=4";
    let said = folder.wavetank(&["run", "all/bad.yaml", "--set", set, "--format", "json"])?;
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    assert!(said.out.contains(&format!("--set {set}")), "{}", said.out);
    Ok(())
}

#[test]
fn runs_are_repeated_here_and_elsewhere() -> std::io::Result<()> {
    let folder = Folder::new()?;
    for jobs in ["1", "2"] {
        let check = [
            "run",
            "all/good.yaml",
            "--check-determinism",
            "--jobs",
            jobs,
        ];
        let said = folder.wavetank(&check)?;
        assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    }
    Ok(())
}
