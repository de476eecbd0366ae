//! Which call it is: one counter per rule, in a file that all processes share, and a record of
//! what fired.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::command_line::Call;
use super::rules::{Rule, Rules};

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

    /// Counts the call for every rule that it matches; the first one that is due fires.
    pub fn count(&self, rules: &Rules, call: &Call) -> io::Result<Option<Rule>> {
        let is_like = |rule: &&Rule| rule.matches(&call.verb, &call.container);
        let matching: Vec<&Rule> = rules.rules.iter().filter(is_like).collect();
        if matching.is_empty() {
            return Ok(None);
        }
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&self.counters)?;
        flock(&file, FlockOperation::LockExclusive)?;
        let mut counts = read(&mut file)?;
        let mut due = None;
        for rule in matching {
            let count = counts.entry(rule.name.clone()).or_default();
            *count += 1;
            if due.is_none() && rule.calls.contains(*count) {
                due = Some((rule.clone(), *count));
            }
        }
        write(&mut file, &counts)?;
        if let Some((rule, number)) = &due {
            self.record(rule, *number, call)?;
        }
        Ok(due.map(|(rule, _)| rule))
    }

    fn record(&self, rule: &Rule, number: u64, call: &Call) -> io::Result<()> {
        let line = serde_json::json!({
            "rule": rule.name,
            "call": number,
            "verb": call.verb,
            "container": call.container,
        });
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.fired)?;
        writeln!(file, "{line}")
    }
}

/// An empty file, or one whose writer was killed over it, begins to count anew.
fn read(file: &mut File) -> io::Result<BTreeMap<String, u64>> {
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(serde_json::from_str(&text).unwrap_or_default())
}

fn write(file: &mut File, counts: &BTreeMap<String, u64>) -> io::Result<()> {
    let text = serde_json::to_string(counts)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(text.as_bytes())?;
    file.set_len(text.len() as u64)
}
