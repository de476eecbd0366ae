//! Which call it is: one counter per rule, in a file that all processes share, and a record of
//! what fired. Some faults begin with a container's create and strike at its start; in between
//! the container is doomed, which the same file remembers.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::command_line::Call;
use super::rules::{Fault, Rule, Rules};
use crate::deadline::Lock;

/// The files beside a file of rules: `.counters`, and `.fired` with a line of JSON per fault.
pub struct Counters {
    counters: PathBuf,
    fired: PathBuf,
}

impl Counters {
    /// Those of the rules at `path`.
    pub fn of(path: &Path) -> Self {
        let beside = |suffix: &str| {
            let mut path = path.as_os_str().to_owned();
            path.push(suffix);
            PathBuf::from(path)
        };
        Counters {
            counters: beside(".counters"),
            fired: beside(".fired"),
        }
    }

    /// Counts the call for every rule that it matches; the first one that is due fires, now or
    /// when the container is started or ends.
    pub fn count(&self, rules: &Rules, call: &Call) -> io::Result<Option<Due>> {
        let is_like = |rule: &&Rule| rule.matches(&call.verb, &call.container);
        let matching: Vec<&Rule> = rules.rules.iter().filter(is_like).collect();
        let ends_doom = ["create", "start", "delete"].contains(&call.verb.as_str());
        if matching.is_empty() && !ends_doom {
            return Ok(None);
        }
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&self.counters)?;
        let mut lock = Lock::wait(file)?;
        let mut books = read(lock.file())?;
        // A start meets it; with a create or a delete the container of before is done with.
        let doom = match ends_doom {
            true => books.doomed.remove(&call.container),
            false => None,
        };
        let mut due = doom
            .filter(|_| call.verb == "start")
            .map(|firing| (firing, Fault::ExitBeforeStart { code: None }));
        for rule in matching {
            let count = books.counts.entry(rule.name.clone()).or_default();
            let is_due = rule.calls.contains(*count + 1);
            if is_due && due.is_some() {
                // Its turn comes with a call that no other rule has taken.
                continue;
            }
            *count += 1;
            if is_due {
                let firing = Firing {
                    rule: rule.name.clone(),
                    call: *count,
                };
                due = Some((firing, rule.fault.clone()));
            }
        }
        let due = due.map(|(firing, fault)| {
            let record = self.record(&firing, call);
            if matches!(fault, Fault::ExitBeforeStart { code: Some(_) }) {
                books.doomed.insert(call.container.clone(), firing);
            }
            Due { fault, record }
        });
        write(lock.file(), &books)?;
        if let Some(due) = &due
            && due.fault.strikes_at_once()
        {
            due.record.write()?;
        }
        Ok(due)
    }

    fn record(&self, firing: &Firing, call: &Call) -> Record {
        let line = serde_json::json!({
            "rule": firing.rule,
            "call": firing.call,
            "verb": call.verb,
            "container": call.container,
        });
        Record {
            file: self.fired.clone(),
            line: line.to_string(),
        }
    }
}

/// A fault whose turn it is.
pub struct Due {
    /// What to do wrong.
    pub fault: Fault,
    /// What is written down when it strikes.
    pub record: Record,
}

/// That a fault has struck.
pub struct Record {
    /// Where it is written.
    pub file: PathBuf,
    /// What.
    pub line: String,
}

impl Record {
    /// Writes it down.
    pub fn write(&self) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options.create(true).append(true).open(&self.file)?;
        // In one piece: others write there too.
        file.write_all(format!("{}\n", self.line).as_bytes())
    }
}

/// What is remembered from call to call.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Books {
    /// How many calls each rule has met.
    counts: BTreeMap<String, u64>,
    /// The containers whose start is still to go wrong, and what does that.
    doomed: BTreeMap<String, Firing>,
}

/// A call that a rule is due at.
#[derive(Serialize, Deserialize)]
struct Firing {
    rule: String,
    call: u64,
}

/// An empty file, or one whose writer was killed over it, begins to count anew.
fn read(file: &mut File) -> io::Result<Books> {
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(serde_json::from_str(&text).unwrap_or_default())
}

fn write(file: &mut File, books: &Books) -> io::Result<()> {
    let text = serde_json::to_string(books)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(text.as_bytes())?;
    file.set_len(text.len() as u64)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    /// What is due at each of these calls.
    fn due(rules: &str, lines: &[&str]) -> Vec<Option<Fault>> {
        let folder = tempfile::tempdir().expect("a folder");
        let counters = Counters::of(&folder.path().join("rules.json"));
        let rules = format!("{{\"version\": 1, \"runtime\": \"runc\", \"rules\": [{rules}]}}");
        let rules = Rules::parse(&rules).expect("valid");
        let count = |line: &&str| {
            let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let due = counters.count(&rules, &Call::parse(&arguments));
            due.expect("counted").map(|due| due.fault)
        };
        lines.iter().map(count).collect()
    }

    const EARLY: &str = r#"{"name": "early", "verb": "create", "calls": {"first": 1, "count": 1},
        "fault": {"exit-before-start": {"code": 3}}}"#;

    #[test]
    fn a_doomed_container_meets_its_fate_at_its_start_and_at_nothing_else() {
        let kills = r#"{"name": "kills", "verb": "kill", "calls": {"first": 9},
            "fault": {"hang": {}}}"#;
        let lines = ["create a", "start b", "kill a KILL", "start a", "start a"];
        let found = due(&format!("{EARLY}, {kills}"), &lines);
        let early = |code| Some(Fault::ExitBeforeStart { code });
        assert_eq!(found, [early(Some(3)), None, None, early(None), None]);
        let found = due(EARLY, &["create a", "delete a", "create a", "start a"]);
        assert_eq!(found, [early(Some(3)), None, None, None]);
    }

    #[test]
    fn a_rule_waits_for_a_call_that_no_other_has_taken() {
        let late = r#"{"name": "late", "verb": "create", "calls": {"first": 1, "count": 1},
            "fault": {"late-exit": {"millis": 5}}}"#;
        let found = due(
            &format!("{EARLY}, {late}"),
            &["create a", "create b", "create c"],
        );
        let expected = [
            Some(Fault::ExitBeforeStart { code: Some(3) }),
            Some(Fault::LateExit { millis: 5 }),
            None,
        ];
        assert_eq!(found, expected);
    }
}
