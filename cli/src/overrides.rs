//! `--set path=value`: replaces one field of a scenario file before it is read.
//!
//! The path names fields with dots; an entry of a list goes by its position from 0, or by its
//! `name`, `deploy` or `agent`: `faults.kill-leader.for=9s`. The value is YAML.

use std::path::Path;

use serde_json::{Map, Value};
use wavetank_scenario::{LoadError, Scenario};

use crate::files;

/// Fields by which an entry of a list can be named.
const NAMES: &[&str] = &["name", "deploy"];

/// Loads a file with fields replaced. The outer error is about what the fields then say, the
/// inner one about an assignment that cannot be made.
pub fn load(file: &Path, assignments: &[String]) -> Result<Result<Scenario, String>, LoadError> {
    let replaced = match files::read(file) {
        Ok(text) => replace(&text, assignments),
        Err(failure) => Err(failure.to_string()),
    };
    match replaced {
        Err(wrong) => Ok(Err(wrong)),
        // JSON is YAML; positions in diagnostics then point into this text.
        Ok(text) => parse(file, &text).map(Ok),
    }
}

fn parse(file: &Path, text: &str) -> Result<Scenario, LoadError> {
    let folder = file.parent().unwrap_or(Path::new("")).to_path_buf();
    let include =
        |name: &str| std::fs::read_to_string(folder.join(name)).map_err(|error| error.to_string());
    Scenario::parse(&file.display().to_string(), text, &include)
}

fn replace(text: &str, assignments: &[String]) -> Result<String, String> {
    let mut document: Value =
        serde_saphyr::from_str(text).map_err(|error| format!("not YAML: {error}"))?;
    for assignment in assignments {
        assign(&mut document, assignment)?;
    }
    serde_json::to_string_pretty(&document).map_err(|error| error.to_string())
}

fn assign(document: &mut Value, assignment: &str) -> Result<(), String> {
    let (path, value) = assignment
        .split_once('=')
        .ok_or_else(|| format!("--set {assignment}: write it as path=value"))?;
    let value: Value = serde_saphyr::from_str(value)
        .map_err(|error| format!("--set {assignment}: the value is not YAML: {error}"))?;
    let mut place = document;
    for step in path.split('.') {
        place = descend(place, step).map_err(|what| format!("--set {assignment}: {what}"))?;
    }
    *place = value;
    Ok(())
}

/// The place of a field or entry. A field that is not there is made: it may have a default.
fn descend<'a>(place: &'a mut Value, step: &str) -> Result<&'a mut Value, String> {
    if place.is_null() {
        *place = Value::Object(Map::new());
    }
    match place {
        Value::Object(fields) => Ok(fields.entry(step).or_insert(Value::Null)),
        Value::Array(entries) => {
            let index =
                position(entries, step).ok_or_else(|| format!("the list has no entry `{step}`"))?;
            Ok(&mut entries[index])
        }
        other => Err(format!("`{step}` is inside `{other}`, which has no fields")),
    }
}

fn position(entries: &[Value], step: &str) -> Option<usize> {
    let by_number = step.parse().ok().filter(|index| *index < entries.len());
    by_number.or_else(|| {
        let is_it = |entry: &Value| NAMES.iter().any(|name| entry[name].as_str() == Some(step));
        entries.iter().position(is_it)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::replace;

    fn replaced(text: &str, assignment: &str) -> Value {
        let text = replace(text, &[assignment.to_owned()]);
        text.map_or_else(Value::String, |text| {
            serde_json::from_str(&text).unwrap_or_default()
        })
    }

    #[test]
    fn a_field_is_replaced_or_made() {
        let text = "cluster: { agents: { count: 3 } }";
        let expected = json!({ "cluster": { "agents": { "count": 9 } } });
        assert_eq!(replaced(text, "cluster.agents.count=9"), expected);
        assert_eq!(
            replaced("{}", "a.b=[x, 1s]"),
            json!({ "a": { "b": ["x", "1s"] } })
        );
    }

    #[test]
    fn an_entry_goes_by_position_or_name() {
        let text = "faults: [{ name: split, for: 1s }, { name: kill }]";
        let expected = json!({ "faults": [{ "name": "split", "for": "9s" }, { "name": "kill" }] });
        assert_eq!(replaced(text, "faults.split.for=9s"), expected);
        assert_eq!(replaced(text, "faults.0.for=9s"), expected);
    }

    #[test]
    fn what_cannot_be_replaced_is_said() {
        let wrong = |assignment| replaced("a: 1\nb: []", assignment).to_string();
        assert!(wrong("a").contains("write it as path=value"));
        assert!(wrong("a.b=2").contains("has no fields"));
        assert!(wrong("b.x=2").contains("no entry `x`"));
    }
}
