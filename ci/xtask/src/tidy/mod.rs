//! House rules over all files of the repository, one rule per function, each with a bad sample
//! in its tests.
//!
//! Map: `layers` (which crate may depend on which), `banned` (what the deterministic crates may
//! not touch), `text` (columns, blanks, headers, sizes, leftovers), `functions` (their length),
//! `scenarios` (names of scenario files). A rule gets one [`Source`] and never looks elsewhere,
//! so that its tests are data.

mod banned;
mod functions;
mod layers;
mod scenarios;
mod text;

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::masked::Masked;

/// One file as the rules see it.
pub struct Source {
    /// Relative to the repository, with forward slashes.
    pub path: String,
    /// All of it.
    pub text: String,
    /// Rust only: without comments and quoted text.
    pub code: String,
    /// Rust only: without quoted text.
    pub unquoted: String,
}

impl Source {
    /// Reads the text the way each rule wants it.
    pub fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        let (path, text) = (path.into(), text.into());
        let masked = Masked::new(&text);
        let (code, unquoted) = if path.ends_with(".rs") {
            (masked.code(), masked.without_quoted())
        } else {
            (text.clone(), text.clone())
        };
        Source {
            path,
            text,
            code,
            unquoted,
        }
    }

    /// Whether it is a Rust file.
    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }
}

/// One breach of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file.
    pub path: String,
    /// Counted from 1.
    pub line: usize,
    /// What is wrong and what to do instead.
    pub what: String,
}

impl Problem {
    /// A breach in `source`.
    pub fn new(source: &Source, line: usize, what: impl Into<String>) -> Self {
        Problem {
            path: source.path.clone(),
            line,
            what: what.into(),
        }
    }
}

type Rule = fn(&Source) -> Vec<Problem>;

const RULES: &[Rule] = &[
    banned::check_banned,
    functions::check_length,
    scenarios::check_name,
    text::check_absolute_paths,
    text::check_allow,
    text::check_blanks,
    text::check_columns,
    text::check_conflicts,
    text::check_file_length,
    text::check_header,
    text::check_leftovers,
];

/// Checks everything and prints what is wrong; true if nothing is.
pub fn run(root: &Path) -> anyhow::Result<bool> {
    let sources = sources(root)?;
    let mut problems: Vec<Problem> = sources
        .iter()
        .flat_map(|source| RULES.iter().flat_map(move |rule| rule(source)))
        .collect();
    problems.extend(text::check_stale_exemptions(&sources));
    problems.extend(layers::check(root)?);
    problems.sort();
    for Problem { path, line, what } in &problems {
        println!("{path}:{line}: {what}");
    }
    println!("tidy: {} files, {} problems", sources.len(), problems.len());
    Ok(problems.is_empty())
}

/// Every text file that belongs to the repository, committed or not yet.
fn sources(root: &Path) -> anyhow::Result<Vec<Source>> {
    let output = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(root)
        .output()
        .context("cannot start git")?;
    if !output.status.success() {
        bail!("git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    }
    let listing = String::from_utf8(output.stdout).context("a file name is not UTF-8")?;
    let mut sources = Vec::new();
    for path in listing.split_terminator('\0').filter(|path| is_ours(path)) {
        match std::fs::read_to_string(root.join(path)) {
            Ok(text) => sources.push(Source::new(path, text)),
            // Deleted in the work tree, not yet in the index.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot read {path}")),
        }
    }
    Ok(sources)
}

/// What ships of a file's code: test modules stand at its end.
pub fn before_tests(code: &str) -> &str {
    code.find("#[cfg(test)]\nmod ")
        .map_or(code, |at| &code[..at])
}

/// Written by hand, in a language that has rules here.
fn is_ours(path: &str) -> bool {
    let by_hand = [".rs", ".toml", ".yaml", ".yml", ".md", ".sh"];
    by_hand.iter().any(|suffix| path.ends_with(suffix))
        || [".ci/run", "ci/nightly", "ci/setup-runtimes"].contains(&path)
}

#[cfg(test)]
mod tests {
    use super::is_ours;

    #[test]
    fn generated_files_have_no_rules() {
        assert!(is_ours("cli/src/main.rs") && is_ours(".ci/run"));
        assert!(!is_ours("Cargo.lock") && !is_ours("cli/tests/snapshots/a.snap"));
    }
}
