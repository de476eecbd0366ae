//! What has changed on the disk, by looking again: sizes and times of modification. A look at this
//! repository takes a few milliseconds; in return there is nothing that a file system could fail to
//! tell, and what counts as seen is exactly what the last look saw.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use wavetank_scenario::Scenario;

use super::cycle::Change;

/// What the program is built from, by the ends of names.
const SOURCES: [&str; 4] = ["rs", "toml", "lock", "proto"];
/// Folders that hold no sources: what cargo makes, and data.
const OTHER_FOLDERS: [&str; 2] = ["target", "scenarios"];
/// The one hidden folder with a part in builds.
const CARGO_FOLDER: &str = ".cargo";

/// What tells two states of a file apart; `None` if it is not there.
type Stamp = Option<(SystemTime, u64)>;
type Stamps = BTreeMap<PathBuf, Stamp>;

/// The files that are watched, as they were at the last look.
pub struct Watch {
    scenario: PathBuf,
    /// The folder of the program's sources, if there is one.
    root: Option<PathBuf>,
    /// The scenario file and what it includes.
    scenario_stamps: Stamps,
    source_stamps: Stamps,
}

/// What a look has found.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// What it is about.
    pub change: Change,
    /// Files that were made, changed or removed.
    pub files: Vec<PathBuf>,
}

impl Watch {
    /// Takes a first look.
    pub fn begin(scenario: &Path, root: Option<&Path>) -> Self {
        let mut watch = Watch {
            scenario: scenario.to_owned(),
            root: root.map(Path::to_owned),
            scenario_stamps: Stamps::new(),
            source_stamps: Stamps::new(),
        };
        watch.look();
        watch
    }

    /// What has changed since the last look: at most one entry of each kind, the scenario first.
    pub fn look(&mut self) -> Vec<Found> {
        let sources = match &self.root {
            Some(root) => sources_below(root),
            None => Stamps::new(),
        };
        let mut found = Vec::new();
        let known = stamps(self.scenario_stamps.keys().cloned());
        let files = differing(&self.scenario_stamps, &known);
        if !files.is_empty() || known.is_empty() {
            let change = Change::Scenario;
            found.push(Found { change, files });
            // What is included may be other files now.
            self.scenario_stamps = stamps(parts_of(&self.scenario));
        }
        let files = differing(&self.source_stamps, &sources);
        if !files.is_empty() {
            let change = Change::Sources;
            found.push(Found { change, files });
            self.source_stamps = sources;
        }
        found
    }
}

fn differing(before: &Stamps, now: &Stamps) -> Vec<PathBuf> {
    let all: BTreeSet<&PathBuf> = before.keys().chain(now.keys()).collect();
    let differs = |path: &&PathBuf| before.get(*path) != now.get(*path);
    all.into_iter().filter(differs).cloned().collect()
}

fn stamps(paths: impl IntoIterator<Item = PathBuf>) -> Stamps {
    let stamped = |path: PathBuf| {
        let stamp = fs::metadata(&path).ok().as_ref().and_then(stamp);
        (path, stamp)
    };
    paths.into_iter().map(stamped).collect()
}

fn stamp(metadata: &Metadata) -> Stamp {
    Some((metadata.modified().ok()?, metadata.len()))
}

/// The scenario file and every file that it includes, directly or not, also if they are not there
/// or not valid.
fn parts_of(scenario: &Path) -> Vec<PathBuf> {
    let parts = RefCell::new(vec![scenario.to_owned()]);
    let include = |path: &str| {
        parts.borrow_mut().push(PathBuf::from(path));
        fs::read_to_string(path).map_err(|error| error.to_string())
    };
    if let Ok(text) = fs::read_to_string(scenario) {
        // What is wrong with it is the business of whoever runs it.
        let _ = Scenario::parse(&scenario.display().to_string(), &text, &include);
    }
    parts.into_inner()
}

/// Everything below a folder that the program may be built from.
fn sources_below(root: &Path) -> Stamps {
    let mut found = Stamps::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        // A folder that goes away while it is read is seen to be gone at the next look.
        let _ = add_from(&folder, &mut found, &mut folders);
    }
    found
}

fn add_from(folder: &Path, found: &mut Stamps, folders: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let kind = entry.file_type()?;
        let is_hidden = name.starts_with('.') && name != CARGO_FOLDER;
        if kind.is_dir() && !is_hidden && !OTHER_FOLDERS.contains(&&*name) {
            folders.push(entry.path());
        } else if kind.is_file() && is_source(&name) {
            found.insert(entry.path(), stamp(&entry.metadata()?));
        }
    }
    Ok(())
}

fn is_source(name: &str) -> bool {
    let end = name.rsplit_once('.').map(|(_, end)| end);
    end.is_some_and(|end| SOURCES.contains(&end))
}

/// The folder with wavetank's sources that `below` is in, if it is in one.
pub fn source_tree(below: &Path) -> Option<PathBuf> {
    let is_it = |folder: &&Path| {
        let manifest = fs::read_to_string(folder.join("cli/Cargo.toml"));
        let is_ours = manifest.is_ok_and(|it| it.lines().any(|line| line == "name = \"wavetank\""));
        is_ours && folder.join("Cargo.toml").is_file()
    };
    below.ancestors().find(is_it).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn included_files_are_watched_before_they_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let text = "scenario: 1\ninclude: [shared/a.yaml]\n";
        let scenario = write(folder.path(), "s.yaml", text);
        let mut watch = Watch::begin(&scenario, None);
        assert_eq!(watch.look(), []);
        let nested = "scenario: 1\ninclude: b.yaml\n";
        let included = write(folder.path(), "shared/a.yaml", nested);
        let found = |files: &[&PathBuf]| {
            vec![Found {
                change: Change::Scenario,
                files: files.iter().map(|it| (*it).clone()).collect(),
            }]
        };
        assert_eq!(watch.look(), found(&[&included]));
        let deeper = write(folder.path(), "shared/b.yaml", "scenario: 1\n");
        assert_eq!(watch.look(), found(&[&deeper]));
        fs::remove_file(&scenario).unwrap();
        assert_eq!(watch.look(), found(&[&scenario]));
        assert_eq!(watch.look(), []);
        write(folder.path(), "s.yaml", text);
        assert_eq!(watch.look(), found(&[&scenario]));
    }

    #[test]
    fn sources_are_told_from_what_is_built_and_from_data() {
        let folder = tempfile::tempdir().unwrap();
        let scenario = write(folder.path(), "scenarios/s.yaml", "scenario: 1\n");
        let mut watch = Watch::begin(&scenario, Some(folder.path()));
        for other in [
            "target/debug/a.rs",
            ".git/a.rs",
            "scenarios/other.yaml",
            "README.md",
            "sim/notes.txt",
        ] {
            write(folder.path(), other, "x");
        }
        assert_eq!(watch.look(), []);
        let made = [".cargo/config.toml", "Cargo.lock", "sim/live/src/a.rs"];
        let made = made.map(|name| write(folder.path(), name, "x"));
        let found = watch.look();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].change, Change::Sources);
        assert_eq!(found[0].files, made);
        fs::remove_file(&made[2]).unwrap();
        write(
            folder.path(),
            "scenarios/s.yaml",
            "scenario: 1\nname: longer\n",
        );
        let changes: Vec<Change> = watch.look().iter().map(|found| found.change).collect();
        assert_eq!(changes, [Change::Scenario, Change::Sources]);
    }

    #[test]
    fn the_tree_of_this_program_is_recognised() {
        let cli = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert_eq!(source_tree(&cli.join("src")).as_deref(), cli.parent());
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "Cargo.toml", "[workspace]\n");
        assert_eq!(source_tree(folder.path()), None);
    }
}
