//! What the deterministic crates may not touch: clocks, threads, the environment, the file
//! system, hash maps with random order, global randomness, async runtimes.
//!
//! clippy.toml forbids much of this too. A source scan also sees code that is compiled out, and
//! names that clippy cannot resolve because their crate is not even a dependency.

use super::{Problem, Source, before_tests};
use crate::masked::{find_words, line_of};

/// Folders whose code must behave the same on every machine, every time.
const DETERMINISTIC: &[&str] = &[
    "runtime-adapters/port/src/",
    "orchestrator/model/src/",
    "orchestrator/core/src/",
    "sim/trace/src/",
    "sim/checkers/src/",
    "sim/world/src/",
    "sim/engine/src/",
];

/// Paths and what to do instead. A path stands for everything below it.
const BANNED: &[(&str, &str)] = &[
    ("std::time::Instant", "time comes in as an argument"),
    ("std::time::SystemTime", "time comes in as an argument"),
    (
        "std::collections::HashMap",
        "its order differs from run to run: BTreeMap",
    ),
    (
        "std::collections::HashSet",
        "its order differs from run to run: BTreeSet",
    ),
    (
        "std::collections::hash_map",
        "its order differs from run to run: BTreeMap",
    ),
    ("std::hash::RandomState", "its keys differ from run to run"),
    ("std::thread", "the engine is the only scheduler"),
    ("std::sync::mpsc", "the engine is the only scheduler"),
    ("std::env", "configuration comes in as data"),
    ("std::fs", "the caller opens files and hands over readers"),
    ("std::net", "messages leave as effects"),
    ("std::process", "commands leave as effects"),
    ("rand::rng", "randomness comes from the context"),
    ("rand::random", "randomness comes from the context"),
    ("rand::thread_rng", "randomness comes from the context"),
    ("getrandom", "randomness comes from the context"),
    ("tokio", "no async runtime below the shells"),
    ("futures", "no async runtime below the shells"),
];

/// Names that are banned without their path, because nothing else is called so.
const BANNED_NAMES: &[&str] = &["HashMap", "HashSet", "SystemTime", "thread_rng"];

/// Checks what ships; code in `#[cfg(test)]` modules may read its fixtures.
pub fn check_banned(source: &Source) -> Vec<Problem> {
    if !source.is_rust()
        || !DETERMINISTIC
            .iter()
            .any(|folder| source.path.starts_with(folder))
    {
        return Vec::new();
    }
    let shipping = before_tests(&source.code);
    let mut problems: Vec<Problem> = imports(shipping)
        .into_iter()
        .filter_map(|(line, path)| Some(problem(source, line, &path, reason(&path)?)))
        .collect();
    for (banned, reason) in BANNED {
        let inline = find_words(shipping, banned).map(|at| line_of(shipping, at));
        problems.extend(inline.map(|line| problem(source, line, banned, reason)));
    }
    for name in BANNED_NAMES {
        let inline = find_words(shipping, name).map(|at| line_of(shipping, at));
        problems.extend(inline.map(|line| problem(source, line, name, "see clippy.toml")));
    }
    problems.sort();
    problems.dedup_by_key(|problem| problem.line);
    problems
}

fn problem(source: &Source, line: usize, path: &str, reason: &str) -> Problem {
    Problem::new(
        source,
        line,
        format!("`{path}` is banned in a deterministic crate: {reason}"),
    )
}

fn reason(path: &str) -> Option<&'static str> {
    let is_below = |banned: &str| {
        path.strip_prefix(banned)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    BANNED
        .iter()
        .find(|(banned, _)| is_below(banned))
        .map(|(_, reason)| *reason)
}

/// Every full path that the file imports, with groups taken apart.
fn imports(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for at in find_words(code, "use") {
        let statement = code[at + 3..].split(';').next().unwrap_or_default();
        let flat: String = statement.split_whitespace().collect::<Vec<_>>().join(" ");
        let line = line_of(code, at);
        found.extend(expand("", &flat).into_iter().map(|path| (line, path)));
    }
    found
}

/// `std::{time::Instant, env}` becomes `std::time::Instant` and `std::env`.
fn expand(prefix: &str, tree: &str) -> Vec<String> {
    let tree = tree.trim();
    match tree.split_once('{') {
        None => vec![format!(
            "{prefix}{}",
            tree.split(" as ").next().unwrap_or(tree).trim()
        )],
        Some((path, group)) => {
            let group = group.strip_suffix('}').unwrap_or(group);
            let prefix = format!("{prefix}{path}");
            split_outside_braces(group)
                .into_iter()
                .flat_map(|part| expand(&prefix, part))
                .collect()
        }
    }
}

fn split_outside_braces(group: &str) -> Vec<&str> {
    let mut depth = 0_i32;
    let parts = group.split(|c: char| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    parts
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{check_banned, expand};
    use crate::tidy::Source;

    fn lines(text: &str) -> Vec<usize> {
        let source = Source::new("orchestrator/core/src/a.rs", text);
        check_banned(&source)
            .into_iter()
            .map(|problem| problem.line)
            .collect()
    }

    #[test]
    fn groups_are_taken_apart() {
        assert_eq!(
            expand("", "std::{collections::{BTreeMap, HashMap as Map}, fmt}"),
            [
                "std::collections::BTreeMap",
                "std::collections::HashMap",
                "std::fmt"
            ]
        );
    }

    #[test]
    fn clocks_are_named_however_they_come_in() {
        assert_eq!(lines("use std::time::{Duration, Instant};\n"), [1]);
        assert_eq!(lines("\nlet now = std::time::Instant::now();\n"), [2]);
        assert!(lines("use std::time::Duration;\nuse wavetank_model::Instant;\n").is_empty());
    }

    #[test]
    fn maps_threads_files_and_runtimes_are_named() {
        for bad in [
            "use std::collections::HashMap;\n",
            "let m: HashSet<u8>;\n",
            "use std::thread;\n",
            "use std::{fs, fmt};\n",
            "let v = std::env::var();\n",
            "let r = rand::rng();\n",
            "use tokio::sync::mpsc;\n",
        ] {
            assert_eq!(lines(bad), [1], "{bad}");
        }
    }

    #[test]
    fn comments_tests_and_other_crates_are_free() {
        assert!(lines("// HashMap\n").is_empty());
        assert!(lines("#[cfg(test)]\nmod tests { use std::fs; }\n").is_empty());
        let cli = Source::new("cli/src/a.rs", "use std::fs;\n");
        assert!(check_banned(&cli).is_empty());
    }
}
