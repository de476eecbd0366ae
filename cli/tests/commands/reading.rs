//! What is said without running anything.

use crate::folder::Folder;

#[test]
fn the_help_names_every_command() -> std::io::Result<()> {
    let said = Folder::new()?.wavetank(&["--help"])?;
    assert_eq!(said.code, Some(0));
    insta::assert_snapshot!(said.out);
    Ok(())
}

#[test]
fn an_invalid_file_is_shown_with_its_place() -> std::io::Result<()> {
    let folder = Folder::new()?;
    for command in [
        &["run", "wrong.yaml"][..],
        &["scenario", "check", "wrong.yaml"],
    ] {
        let said = folder.wavetank(command)?;
        assert_eq!((said.code, said.out.as_str()), (Some(2), ""));
        assert!(
            said.err.contains("replcas") && said.err.contains("replicas"),
            "{}",
            said.err
        );
        assert!(said.err.contains("wrong.yaml:"), "{}", said.err);
        assert!(
            said.err.ends_with("error: 1 scenario file is not valid\n"),
            "{}",
            said.err
        );
    }
    Ok(())
}

#[test]
fn wrong_usage_says_what_there_is() -> std::io::Result<()> {
    let folder = Folder::new()?;
    let complaint = |arguments: &[&str]| -> std::io::Result<String> {
        let said = folder.wavetank(arguments)?;
        assert_eq!(
            (said.code, said.out.as_str()),
            (Some(2), ""),
            "{arguments:?}"
        );
        Ok(said.err)
    };
    let good = "all/good.yaml";
    assert_eq!(
        complaint(&["run", good, "--world", "nowhere"])?,
        "error: no world `nowhere`: there are `event`, `turmoil`, `madsim`, `all` for these, and `live`\n"
    );
    assert_eq!(
        complaint(&["run", good, "--runtime", "podman"])?,
        "error: no runtime `podman` in a simulated world: it has `sim`, the simulated one; real \
         ones are for `--world live`\n"
    );
    assert_eq!(
        complaint(&["run", "nowhere"])?,
        "error: there is no nowhere\n"
    );
    assert!(complaint(&["run", good, "--seed", "x"])?.contains("such as 7 or 0x1a2b"));
    assert!(complaint(&["run", good, "--seeds", "3"])?.contains("such as 0..20"));
    assert!(
        complaint(&["run", good, "--seed", "1", "--seeds", "0..2"])?.contains("cannot be used")
    );
    assert!(complaint(&["run", good, "--set", "seeds"])?.contains("cluster.agents.count=9"));
    assert!(complaint(&["run"])?.contains("PATHS"));
    Ok(())
}

#[test]
fn nothing_selected_is_no_success() -> std::io::Result<()> {
    let folder = Folder::new()?;
    let empty = folder.wavetank(&["run", "empty"])?;
    assert_eq!(
        (empty.code, empty.err.as_str()),
        (Some(4), "error: no scenario files under empty\n")
    );
    let no_seeds = folder.wavetank(&["run", "all/good.yaml", "--seeds", "5..5"])?;
    assert_eq!(no_seeds.code, Some(4), "{}", no_seeds.out);
    Ok(())
}

#[test]
fn scenarios_are_checked_and_listed() -> Result<(), Box<dyn std::error::Error>> {
    let folder = Folder::new()?;
    let check = folder.wavetank(&["scenario", "check", "all"])?;
    assert_eq!(check.code, Some(0), "{}", check.err);
    assert!(
        check.out.starts_with("3 scenarios are valid"),
        "{}",
        check.out
    );
    let list = folder.wavetank(&["scenario", "list", "all", "--format", "json"])?;
    let first: serde_json::Value = serde_json::from_str(list.out.lines().next().unwrap_or("{}"))?;
    assert_eq!(
        (&first["scenario"], &first["seeds"]),
        (&"bad".into(), &2.into())
    );
    let table = folder.wavetank(&["scenario", "list", "all"])?;
    insta::assert_snapshot!(table.out);
    Ok(())
}

#[test]
fn a_seed_is_explained_before_it_runs() -> std::io::Result<()> {
    let folder = Folder::new()?;
    let explain = folder.wavetank(&["scenario", "explain", "all/idle.yaml", "--seed", "7"])?;
    assert_eq!(explain.code, Some(0), "{}", explain.err);
    assert!(
        explain.out.contains("never") && explain.out.contains('7'),
        "{}",
        explain.out
    );
    Ok(())
}

#[test]
fn the_schema_is_json() -> Result<(), Box<dyn std::error::Error>> {
    let said = Folder::new()?.wavetank(&["scenario", "schema"])?;
    let schema: serde_json::Value = serde_json::from_str(&said.out)?;
    assert!(schema["properties"]["scenario"].is_object(), "{}", said.out);
    Ok(())
}

#[test]
fn the_vocabulary_has_events_words_and_functions_with_their_fields() -> std::io::Result<()> {
    let folder = Folder::new()?;
    let said = folder.wavetank(&["scenario", "vocabulary", "--format", "json"])?;
    let rows: Result<Vec<serde_json::Value>, _> =
        said.out.lines().map(serde_json::from_str).collect();
    let rows = rows.map_err(std::io::Error::other)?;
    for (kind, word, field) in [
        ("event", "task.state", Some("to: string")),
        ("expression", "service(\"NAME\")", Some("running: int")),
        ("in never", "task", Some("state: string")),
        ("function", "size(tasks)", None),
    ] {
        let row = rows
            .iter()
            .find(|it| it["kind"] == kind && it["word"] == word);
        let row = row.unwrap_or_else(|| panic!("no {kind} {word} in {}", said.out));
        let fields = row["fields"].as_array().map_or(&[][..], Vec::as_slice);
        assert!(
            field.is_none_or(|it| fields.iter().any(|has| has == it)),
            "{row}"
        );
    }
    let table = folder.wavetank(&["scenario", "vocabulary"])?;
    assert!(
        table.out.contains("│ event        task.state "),
        "{}",
        table.out
    );
    Ok(())
}

#[test]
fn the_catalogue_has_every_fault() -> Result<(), Box<dyn std::error::Error>> {
    let folder = Folder::new()?;
    let json = folder.wavetank(&["faults", "--format", "json"])?;
    let first: serde_json::Value = serde_json::from_str(json.out.lines().next().unwrap_or("{}"))?;
    assert!(
        first["action"].is_string() && first["targets"].is_array(),
        "{first}"
    );
    let table = folder.wavetank(&["faults"])?;
    for line in json.out.lines() {
        let row: serde_json::Value = serde_json::from_str(line)?;
        let action = row["action"].as_str().unwrap_or_default();
        assert!(table.out.contains(&format!("│ {action} ")), "{action}");
    }
    Ok(())
}
