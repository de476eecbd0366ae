//! Which scenario files a path means, and how they are read. What they say is the scenario
//! crate's business.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use miette::{GraphicalReportHandler, GraphicalTheme};
use wavetank_scenario::{Override, Scenario};

use crate::failure::Failure;
use crate::output;

/// Widest line of a diagnostic; excerpts of files are not wrapped.
const DIAGNOSTIC_WIDTH: usize = 100;

/// Every scenario file that the paths mean, each once: files as they are given, folders searched in
/// name order.
pub fn select(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            search(path, &mut files)?;
        } else if path.exists() {
            files.push(path.clone());
        } else {
            return Err(Failure::Usage(format!("there is no {}", path.display())));
        }
    }
    let mut seen = BTreeSet::new();
    files.retain(|file| seen.insert(file.canonicalize().unwrap_or_else(|_| file.clone())));
    if files.is_empty() {
        let searched: Vec<String> = paths
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        let what = format!("no scenario files under {}", searched.join(", "));
        return Err(Failure::NothingSelected(what));
    }
    Ok(files)
}

/// Adds the scenario files under a folder. What several files share (`shared/`, `_name.yaml`) is
/// no scenario, nor is YAML without `scenario:` at its top level. Links are not followed, so that
/// the search ends.
fn search(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let unreadable = |error: std::io::Error| {
        Failure::Usage(format!(
            "cannot read the folder {}: {error}",
            folder.display()
        ))
    };
    let entries: Result<Vec<_>, _> = std::fs::read_dir(folder).map_err(unreadable)?.collect();
    let mut entries = entries.map_err(unreadable)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let kind = entry.file_type().map_err(unreadable)?;
        if kind.is_dir() && name != "shared" && !name.starts_with('.') {
            search(&entry.path(), files)?;
        } else if kind.is_file()
            && name.ends_with(".yaml")
            && !name.starts_with('_')
            && is_scenario(&entry.path())?
        {
            files.push(entry.path());
        }
    }
    Ok(())
}

fn is_scenario(path: &Path) -> Result<bool, Failure> {
    let text = read(path)?;
    Ok(text.lines().any(|line| line.starts_with("scenario:")))
}

/// The text of a file that the user named.
pub fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path)
        .map_err(|error| Failure::Usage(format!("cannot read {}: {error}", path.display())))
}

/// Loads every file; if any is invalid, shows what is wrong with all of them.
pub fn load_all(files: &[PathBuf], overrides: &[Override]) -> Result<Vec<Scenario>, Failure> {
    let mut scenarios = Vec::new();
    let mut invalid = 0;
    for file in files {
        match wavetank_scenario::load_with(file, overrides) {
            Ok(scenario) => scenarios.push(scenario),
            Err(error) => {
                output::complain(&shown(&error));
                invalid += 1;
            }
        }
    }
    match invalid {
        0 => names_differ(files, &scenarios).map(|()| scenarios),
        1 => Err(Failure::Usage("1 scenario file is not valid".to_owned())),
        _ => Err(Failure::Usage(format!(
            "{invalid} scenario files are not valid"
        ))),
    }
}

/// Reports and stored runs tell scenarios apart by their names.
fn names_differ(files: &[PathBuf], scenarios: &[Scenario]) -> Result<(), Failure> {
    let mut named: BTreeMap<&str, &Path> = BTreeMap::new();
    for (file, scenario) in files.iter().zip(scenarios) {
        if let Some(other) = named.insert(&scenario.name, file) {
            return Err(Failure::Usage(format!(
                "{} and {} are both called `{}`, by which runs are told apart: rename one",
                other.display(),
                file.display(),
                scenario.name
            )));
        }
    }
    Ok(())
}

/// Reads one `path=value` of `--set`.
pub fn parse_assignment(text: &str) -> Result<Override, String> {
    let (path, value) = text
        .split_once('=')
        .ok_or_else(|| format!("`{text}` must be like cluster.agents.count=9"))?;
    Ok(Override {
        path: path.to_owned(),
        value: value.to_owned(),
    })
}

/// The same as the user wrote it.
pub fn assignment(one: &Override) -> String {
    format!("{}={}", one.path, one.value)
}

/// A diagnostic with its excerpt, as it goes to stderr.
pub fn shown(diagnostic: &dyn miette::Diagnostic) -> String {
    let theme = if output::stderr_has_color() {
        GraphicalTheme::unicode()
    } else {
        GraphicalTheme::unicode_nocolor()
    };
    let handler = GraphicalReportHandler::new_themed(theme).with_width(DIAGNOSTIC_WIDTH);
    let mut text = String::new();
    match handler.render_report(&mut text, diagnostic) {
        Ok(()) => text,
        Err(_) => diagnostic.to_string(),
    }
}
