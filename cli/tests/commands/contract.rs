//! The contract that runtimes are held to, and what this machine has of them.

use crate::folder::Folder;

#[test]
fn cases_are_run_on_the_simulated_runtime_and_told_in_any_format() -> std::io::Result<()> {
    let folder = Folder::new()?;
    let conformance = |format: &str| {
        let cases = ["--case", "44", "--case", "1", "--format", format];
        folder.wavetank(&[&["conformance", "--runtime", "sim"][..], &cases].concat())
    };
    let table = conformance("table")?;
    assert_eq!(table.code, Some(0), "{}", table.err);
    assert!(
        table
            .out
            .ends_with("2 cases: 2 passed, 0 failed, 0 not applicable\n"),
        "{}",
        table.out
    );
    let json = conformance("json")?;
    let rows: Result<Vec<serde_json::Value>, _> =
        json.out.lines().map(serde_json::from_str).collect();
    let rows = rows.map_err(std::io::Error::other)?;
    let numbers: Vec<_> = rows.iter().map(|row| row["number"].as_u64()).collect();
    assert_eq!(numbers, [Some(1), Some(44)]);
    assert!(
        rows.iter().all(|row| row["outcome"] == "pass"),
        "{}",
        json.out
    );
    let junit = conformance("junit")?;
    assert!(
        junit
            .out
            .contains("tests=\"2\" skipped=\"0\" failures=\"0\"")
            && junit
                .out
                .contains("name=\"44 exit codes\" classname=\"conformance.sim\""),
        "{}",
        junit.out
    );
    Ok(())
}

#[test]
fn a_case_that_is_not_there_selects_nothing() -> std::io::Result<()> {
    let folder = Folder::new()?;
    let said = folder.wavetank(&["conformance", "--runtime", "sim", "--case", "71"])?;
    assert_eq!(
        (said.code, said.err.as_str()),
        (
            Some(4),
            "error: there is no case 71: they are numbered 1 to 70\n"
        )
    );
    Ok(())
}

/// Without programs in the PATH (or without root, which is looked at first) no runtime is usable.
#[test]
fn an_absent_runtime_is_said_with_what_helps() -> std::io::Result<()> {
    let folder = Folder::new()?;
    for runtime in ["containerd", "podman", "oci"] {
        let mut command = folder.command(&["conformance", "--runtime", runtime]);
        let said = crate::folder::said(&command.env("PATH", "/nowhere").output()?);
        assert_eq!((said.code, said.out.as_str()), (Some(6), ""));
        let start = format!("error: {runtime} cannot be used here: ");
        assert!(said.err.starts_with(&start), "{}", said.err);
        assert!(said.err.contains("wavetank doctor"), "{}", said.err);
    }
    let mut doctor = folder.command(&["doctor", "--format", "json"]);
    let said = crate::folder::said(&doctor.env("PATH", "/nowhere").output()?);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let usable: Vec<bool> = said
        .out
        .lines()
        .map(|line| line.contains("\"usable\":true"))
        .collect();
    assert_eq!(usable, [true, false, false, false], "{}", said.out);
    assert!(
        said.out
            .contains("\"found\":\"not in PATH\",\"fix\":\"run `ci/setup-runtimes`\""),
        "{}",
        said.out
    );
    Ok(())
}
