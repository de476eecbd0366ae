//! Published files that equal what the code generates: the schema of scenarios, and the table of
//! scenario files.
//!
//! What they are made of comes from the commands that users run, so that what is published is what
//! they get.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};
use serde_json::Value;

/// A file that is generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// The JSON Schema of scenario files, for editors and other tools.
    Schema,
    /// Which scenario file says what, and runs in which world.
    Index,
}

impl Published {
    fn path(self) -> &'static str {
        match self {
            Published::Schema => "sim/scenario/schema.json",
            Published::Index => "scenarios/README.md",
        }
    }

    /// The name of the task that writes it.
    fn task(self) -> &'static str {
        match self {
            Published::Schema => "schema",
            Published::Index => "index",
        }
    }

    fn generate(self, root: &Path) -> anyhow::Result<String> {
        match self {
            Published::Schema => wavetank(root, &["scenario", "schema"]),
            Published::Index => {
                let listed = ["scenario", "list", "scenarios", "--format", "json"];
                index(&wavetank(root, &listed)?)
            }
        }
    }

    /// Writes the file, or with `check` says whether it is up to date.
    pub fn run(self, root: &Path, check: bool) -> anyhow::Result<bool> {
        let (name, generated) = (self.path(), self.generate(root)?);
        let path = root.join(name);
        if !check {
            std::fs::write(&path, generated).with_context(|| format!("cannot write {name}"))?;
            return Ok(true);
        }
        let published =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {name}"))?;
        if let Some(difference) = first_difference(&published, &generated) {
            println!("{name}:{difference}");
            println!("write it anew with `cargo run -p xtask -- {}`", self.task());
            return Ok(false);
        }
        Ok(true)
    }
}

/// What the command prints.
fn wavetank(root: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let mut cargo = Command::new(env!("CARGO"));
    // What cargo told us of this package is not true of those that it builds now: `ring` asks for
    // it, and would be built again with all that stands on it.
    let ours = ["CARGO_MANIFEST_", "CARGO_PKG_"];
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ours.iter().any(|prefix| text.starts_with(prefix)) {
            cargo.env_remove(&name);
        }
    }
    let output = cargo
        .args(["run", "--quiet", "--release", "--package", "wavetank", "--"])
        .args(arguments)
        .current_dir(root)
        .output()
        .context("cannot start cargo")?;
    let command = arguments.join(" ");
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`wavetank {command}`: {said}");
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{command}` prints no UTF-8"))
}

/// The table of scenario files, from a list with an object a line.
fn index(listed: &str) -> anyhow::Result<String> {
    const WORLDS: [&str; 4] = ["event", "turmoil", "madsim", "live"];
    let mut counts = [0; WORLDS.len()];
    let mut rows = String::new();
    for line in listed.lines() {
        let row: Value = serde_json::from_str(line).context("the list is not JSON")?;
        let (file, description) = (text(&row, "file")?, text(&row, "description")?);
        let file = file.strip_prefix("scenarios/").unwrap_or(file);
        write!(rows, "| [`{file}`]({file}) |")?;
        let runs_in = row["worlds"].as_array().context("a row without worlds")?;
        for (world, count) in WORLDS.iter().zip(&mut counts) {
            let is_named = runs_in.iter().any(|it| it == world);
            *count += usize::from(is_named);
            write!(rows, "{}|", if is_named { " x " } else { "   " })?;
        }
        // A row is a line, whatever the description is.
        let words: Vec<&str> = description.split_whitespace().collect();
        writeln!(rows, " {} |", words.join(" ").replace('|', "\\|"))?;
    }
    let files = listed.lines().count();
    let [event, turmoil, madsim, live] = counts;
    Ok(format!(
        "# Scenarios\n\n\
         {files} files: {event} run in the event world, {turmoil} in turmoil, {madsim} in madsim, \
         {live} live on containerd, Podman and an OCI runtime. This table is written by\n\
         `cargo run -p xtask -- index` from what the files say.\n\n\
         | file | event | turmoil | madsim | live | what happens |\n\
         |---|---|---|---|---|---|\n{rows}"
    ))
}

fn text<'a>(row: &'a Value, field: &str) -> anyhow::Result<&'a str> {
    let text = row[field].as_str();
    text.with_context(|| format!("a row without `{field}`: {row}"))
}

/// Names the first line that differs, or `None` if nothing does.
fn first_difference(published: &str, generated: &str) -> Option<String> {
    if published == generated {
        return None;
    }
    let same = published
        .lines()
        .zip(generated.lines())
        .take_while(|(left, right)| left == right)
        .count();
    let line = |text: &str| {
        text.lines()
            .nth(same)
            .unwrap_or("the end of the file")
            .to_owned()
    };
    Some(format!(
        "{}: the code generates `{}`, the file says `{}`",
        same + 1,
        line(generated),
        line(published)
    ))
}

#[cfg(test)]
mod tests {
    use super::{first_difference, index};

    #[test]
    fn the_table_says_which_file_runs_where() {
        let listed =
            r#"{"file":"scenarios/a/b.yaml","worlds":["event","live"],"description":"b|c\nd\n"}"#;
        let table = index(listed).unwrap();
        assert!(
            table.contains("1 files: 1 run in the event world, 0 in turmoil"),
            "{table}"
        );
        let row = r"| [`a/b.yaml`](a/b.yaml) | x |   |   | x | b\|c d |";
        assert_eq!(table.lines().last(), Some(row));
        assert!(index("{}").is_err());
    }

    #[test]
    fn equal_texts_do_not_differ() {
        assert_eq!(first_difference("{\n}\n", "{\n}\n"), None);
    }

    #[test]
    fn the_first_line_that_differs_is_named() {
        let difference = first_difference("{\n\"a\": 1\n}\n", "{\n\"a\": 2\n}\n");
        assert_eq!(
            difference.as_deref(),
            Some("2: the code generates `\"a\": 2`, the file says `\"a\": 1`")
        );
    }

    #[test]
    fn a_missing_last_line_is_a_difference() {
        assert!(first_difference("{\n", "{\n}\n").is_some());
        assert!(first_difference("{\n}", "{\n}\n").is_some());
    }
}
