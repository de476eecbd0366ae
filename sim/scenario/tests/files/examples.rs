//! The scenario files of the repository.
#![expect(clippy::disallowed_methods, reason = "tests read and write files")]

use std::path::PathBuf;

use wavetank_scenario::{json_schema, load};

use crate::support::render;

/// Every scenario file of the repository.
fn files() -> Vec<PathBuf> {
    let mut folders = vec![PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../scenarios"
    ))];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("the folder exists") {
            let path = entry.expect("it can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else if path
                .extension()
                .is_some_and(|extension| extension == "yaml")
            {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// Included files hold no scenario of their own; they say so by having no name.
fn is_scenario(text: &str) -> bool {
    text.lines().any(|line| line.starts_with("name:"))
}

#[test]
fn every_file_loads_and_plans() {
    assert!(!files().is_empty());
    let mut complaints = String::new();
    for file in files() {
        let text = std::fs::read_to_string(&file).expect("it can be read");
        if !is_scenario(&text) {
            continue;
        }
        match load(&file) {
            Ok(scenario) => {
                complaints += &render(&scenario.lints());
                assert_eq!(scenario.plan(1), scenario.plan(1), "{}", file.display());
            }
            Err(error) => complaints += &render(&error.diagnostics),
        }
    }
    assert!(complaints.is_empty(), "{complaints}");
}

#[test]
fn every_file_validates_against_the_schema() {
    let validator = jsonschema::validator_for(&json_schema()).expect("the schema is one");
    let mut complaints = Vec::new();
    for file in files() {
        let text = std::fs::read_to_string(&file).expect("it can be read");
        if !is_scenario(&text) {
            continue;
        }
        let value: serde_json::Value = serde_saphyr::from_str(&text).expect("it is YAML");
        for error in validator.iter_errors(&value) {
            complaints.push(format!(
                "{}: {}: {error}",
                file.display(),
                error.instance_path()
            ));
        }
    }
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[test]
fn the_schema_agrees_with_the_reader() {
    let validator = jsonschema::validator_for(&json_schema()).expect("the schema is one");
    let valid = |text: &str| {
        let value: serde_json::Value = serde_saphyr::from_str(text).expect("it is YAML");
        validator.is_valid(&value)
    };
    assert!(valid(crate::plans::RICH), "what loads is valid");
    for (right, wrong) in [
        ("horizon: 5m", "horizn: 5m"),
        ("horizon: 5m", "horizon: 5"),
        ("profile: warren", "profile: waren"),
        ("args: { percent: 30 }", "args: { percent: 130 }"),
        ("args: { percent: 30 }", "args: { by: 5s }"),
        ("args: { percent: 30 }", "optional: true"),
        ("role: leader", "role: boss"),
        ("scale: web, replicas: 2", "scale: web"),
        ("scale: batch, replicas: 30", "scael: batch, replicas: 30"),
        ("condition: on-failure", "condition: sometimes"),
        ("labels: { zone: a }", "labels: 7"),
    ] {
        let text = crate::plans::RICH.replacen(right, wrong, 1);
        assert_ne!(text, crate::plans::RICH, "{right}");
        assert!(
            !valid(&text) && crate::support::parse(&text).is_err(),
            "{wrong}"
        );
    }
}

#[test]
fn a_timeline_says_what_where_when_and_how_long() {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../scenarios/node-loss.yaml"
    );
    let scenario = load(file.as_ref()).expect("it loads");
    insta::assert_snapshot!(scenario.explain(7));
}
