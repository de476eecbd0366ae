//! The published schema file equals what the code generates.
//!
//! The text comes from the command that users run, so that what is published is what they get.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};

/// Where editors and other tools find the schema.
const PUBLISHED: &str = "sim/scenario/schema.json";

/// Writes the schema, or with `check` says whether the file is up to date.
pub fn run(root: &Path, check: bool) -> anyhow::Result<bool> {
    let generated = generate(root)?;
    let path = root.join(PUBLISHED);
    if !check {
        std::fs::write(&path, generated).with_context(|| format!("cannot write {PUBLISHED}"))?;
        return Ok(true);
    }
    let published =
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {PUBLISHED}"))?;
    if let Some(difference) = first_difference(&published, &generated) {
        println!("{PUBLISHED}:{difference}");
        println!("write it anew with `cargo run -p xtask -- schema`");
        return Ok(false);
    }
    Ok(true)
}

fn generate(root: &Path) -> anyhow::Result<String> {
    let output = Command::new(env!("CARGO"))
        .args([
            "run",
            "--quiet",
            "--release",
            "--package",
            "wavetank",
            "--",
            "scenario",
            "schema",
        ])
        .current_dir(root)
        .output()
        .context("cannot start cargo")?;
    if !output.status.success() {
        bail!(
            "`wavetank scenario schema`: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    String::from_utf8(output.stdout).context("the schema is not UTF-8")
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
    use super::first_difference;

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
