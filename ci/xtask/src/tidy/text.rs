//! Rules about the text of a file: its header, size, columns, blanks and what was left behind.

use super::{Problem, Source, before_tests};
use crate::masked::{find_words, line_of};

const COLUMNS_MAX: usize = 100;
const LINES_MAX: usize = 500;
/// Tests are lists of cases; a long list is still a list.
const TEST_LINES_MAX: usize = 1000;

/// Files that may be longer than the rest, each with its reason.
const LONG_FILES: &[(&str, &str)] = &[
    (
        "sim/scenario/src/plan.rs",
        "one table: the whole vocabulary of a plan, almost all of it documentation",
    ),
    (
        "sim/scenario/src/format.rs",
        "one table: every field of a scenario file with its kind, default and meaning",
    ),
    (
        "sim/scenario/src/faults.rs",
        "one table: every fault with its arguments, targets, worlds and incident",
    ),
    (
        "orchestrator/core/src/manager/dispatcher.rs",
        "one state machine: the sessions of all agents",
    ),
    (
        "sim/checkers/src/testing.rs",
        "one builder of traces by hand, for the tests of every checker",
    ),
];

/// Folders in which every machine keeps something of its own. A path into one of them says where
/// somebody worked, and works nowhere else.
const MACHINE_FOLDERS: &[&str] = &["home", "Users", "root", "work", "mnt"];

/// Words that promise work instead of doing it.
const LEFTOVERS: &[&str] = &["TODO", "FIXME", "XXX", "HACK"];

/// What git writes around what it could not merge, each at the start of a line.
const CONFLICT_MARKS: &[&str] = &["<<<<<<<", "|||||||", ">>>>>>>"];

/// Every Rust file opens with what it owns.
pub fn check_header(source: &Source) -> Vec<Problem> {
    if !source.is_rust() || source.text.starts_with("//! ") {
        return Vec::new();
    }
    let what = "starts without `//!`: say what the file owns, must not do, and where to look next";
    vec![Problem::new(source, 1, what)]
}

/// Long files hide more than one thing. What counts is what ships; the tests below it come on
/// top.
pub fn check_file_length(source: &Source) -> Vec<Problem> {
    let listed = LONG_FILES.iter().any(|(path, _)| *path == source.path);
    if !source.is_rust() || listed {
        return Vec::new();
    }
    let shipping = shipping_lines(source);
    let all = source.text.lines().count();
    let (lines, limit) = match source.path.split('/').any(|folder| folder == "tests") {
        true => (all, TEST_LINES_MAX),
        false if shipping > LINES_MAX => (shipping, LINES_MAX),
        false => (all, LINES_MAX + TEST_LINES_MAX),
    };
    if lines <= limit {
        return Vec::new();
    }
    let what = format!("{lines} lines, at most {limit}: split it, or list it with a reason");
    vec![Problem::new(source, lines, what)]
}

fn shipping_lines(source: &Source) -> usize {
    before_tests(&source.code).trim_end().lines().count()
}

/// An exemption that nobody needs any more is a hole.
pub fn check_stale_exemptions(sources: &[Source]) -> Vec<Problem> {
    let needed = |path: &str| {
        sources
            .iter()
            .any(|source| source.path == path && shipping_lines(source) > LINES_MAX)
    };
    LONG_FILES
        .iter()
        .filter(|(path, _)| !needed(path))
        .map(|(path, _)| Problem {
            path: (*path).to_owned(),
            line: 1,
            what: "listed as a long file and is none: take it off the list".to_owned(),
        })
        .collect()
}

/// rustfmt leaves long comments alone; people do not. Data in quotes is as wide as it is.
pub fn check_columns(source: &Source) -> Vec<Problem> {
    if !source.is_rust() && !source.path.ends_with(".yaml") {
        return Vec::new();
    }
    by_line(source, &source.unquoted, |line| {
        let line = line.trim_end();
        let columns = line.chars().count();
        // An address cannot be broken.
        (columns > COLUMNS_MAX && !line.contains("://"))
            .then(|| format!("{columns} columns, at most {COLUMNS_MAX}"))
    })
}

/// No tabs, no blanks at the end of a line, one newline at the end of the file.
pub fn check_blanks(source: &Source) -> Vec<Problem> {
    let mut problems = by_line(source, &source.text, |line| {
        if line.contains('\t') {
            return Some("a tab: use spaces".to_owned());
        }
        (line.trim_end() != line).then(|| "blanks at the end of the line".to_owned())
    });
    let ends_well = source.text.ends_with('\n') && !source.text.ends_with("\n\n");
    if !ends_well && !source.text.is_empty() {
        let line = source.text.lines().count();
        problems.push(Problem::new(
            source,
            line,
            "should end with exactly one newline",
        ));
    }
    problems
}

/// An exception carries its reason and goes away with its cause: `expect`, never its silent twin.
pub fn check_allow(source: &Source) -> Vec<Problem> {
    if !source.is_rust() {
        return Vec::new();
    }
    let inside_attribute = |at: &usize| {
        let before = source.code[..*at].trim_end();
        before.ends_with(['[', ','])
    };
    find_words(&source.code, "allow(")
        .filter(inside_attribute)
        .map(|at| line_of(&source.code, at))
        .map(|line| Problem::new(source, line, "use #[expect(lint, reason = \"...\")]"))
        .collect()
}

/// Work that was put off belongs in an issue.
pub fn check_leftovers(source: &Source) -> Vec<Problem> {
    let words = LEFTOVERS.iter().copied();
    let macros = ["todo!", "unimplemented!", "dbg!"]
        .into_iter()
        .filter(|_| source.is_rust());
    words
        .chain(macros)
        .flat_map(|word| find_words(&source.unquoted, word).map(move |at| (word, at)))
        .filter(|_| !is_about_leftovers(source))
        .map(|(word, at)| {
            let line = line_of(&source.unquoted, at);
            Problem::new(source, line, format!("`{word}`: do it, or write an issue"))
        })
        .collect()
}

/// The lint tables name the macros that they forbid.
fn is_about_leftovers(source: &Source) -> bool {
    source.path == "clippy.toml" || source.path.ends_with("Cargo.toml")
}

/// A merge was not finished.
pub fn check_conflicts(source: &Source) -> Vec<Problem> {
    by_line(source, &source.text, |line| {
        CONFLICT_MARKS
            .iter()
            .find(|mark| {
                line.strip_prefix(**mark)
                    .is_some_and(|it| it.starts_with(' '))
            })
            .map(|mark| format!("`{mark}`: finish the merge"))
    })
}

/// A path of one machine works on no other.
pub fn check_absolute_paths(source: &Source) -> Vec<Problem> {
    by_line(source, &source.text, |line| {
        MACHINE_FOLDERS
            .iter()
            .map(|folder| format!("/{folder}/"))
            .find(|folder| {
                line.match_indices(folder.as_str())
                    .any(|(at, _)| starts_path(line, at))
            })
            .map(|folder| format!("a path of one machine (`{folder}`)"))
    })
}

/// Whether the slash at `at` is the first of its path.
fn starts_path(line: &str, at: usize) -> bool {
    line[..at].chars().next_back().is_none_or(|before| {
        !before.is_alphanumeric() && !['.', '_', '-', '/', '}', '~', '*'].contains(&before)
    })
}

fn by_line(source: &Source, text: &str, check: impl Fn(&str) -> Option<String>) -> Vec<Problem> {
    // `lines` would swallow a carriage return, which is a blank at the end of a line here.
    let lines = text.split('\n').enumerate();
    lines
        .filter_map(|(index, line)| Some(Problem::new(source, index + 1, check(line)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOWHERE: [usize; 0] = [];

    fn lines(rule: fn(&Source) -> Vec<Problem>, path: &str, text: &str) -> Vec<usize> {
        rule(&Source::new(path, text))
            .into_iter()
            .map(|problem| problem.line)
            .collect()
    }

    #[test]
    fn a_file_without_header_is_named() {
        assert_eq!(lines(check_header, "a.rs", "use std::fmt;\n"), [1]);
        assert_eq!(lines(check_header, "a.rs", "//! Owns nothing.\n"), NOWHERE);
        assert_eq!(lines(check_header, "a.md", "text\n"), NOWHERE);
    }

    #[test]
    fn a_long_file_is_named_unless_it_is_listed() {
        let long = "//! Long.\nfn f() {}\n".repeat(LINES_MAX / 2 + 1);
        assert_eq!(lines(check_file_length, "a.rs", &long), [502]);
        assert_eq!(
            lines(check_file_length, "sim/scenario/src/plan.rs", &long),
            NOWHERE
        );
        assert_eq!(
            lines(check_file_length, "a.rs", &"\n".repeat(LINES_MAX)),
            NOWHERE
        );
    }

    #[test]
    fn tests_may_be_longer_but_not_endless() {
        let tests = format!(
            "fn f() {{}}\n#[cfg(test)]\nmod tests {{\n{}}}\n",
            "a\n".repeat(800)
        );
        assert_eq!(lines(check_file_length, "a.rs", &tests), NOWHERE);
        assert_eq!(lines(check_file_length, "x/tests/a.rs", &tests), NOWHERE);
        let endless = "a\n".repeat(TEST_LINES_MAX + 1);
        assert_eq!(lines(check_file_length, "x/tests/a.rs", &endless), [1001]);
    }

    #[test]
    fn an_exemption_that_is_not_needed_is_named() {
        let short = Source::new("sim/scenario/src/plan.rs", "//! Short.\n");
        assert_eq!(check_stale_exemptions(&[short]).len(), LONG_FILES.len());
    }

    #[test]
    fn a_wide_line_is_named_unless_it_is_data_or_an_address() {
        let wide = format!("//! {}\n", "x".repeat(100));
        assert_eq!(lines(check_columns, "a.rs", &wide), [1]);
        let address = format!("//! https://example.org/{}\n", "x".repeat(100));
        assert_eq!(lines(check_columns, "a.rs", &address), NOWHERE);
        let data = format!("let a = \"{}\";\n", "x".repeat(100));
        assert_eq!(
            lines(check_columns, "a.rs", &data),
            [1],
            "code goes on behind it"
        );
        let data = format!("let a = r\"\n{}\";\n", "x ".repeat(100));
        assert_eq!(lines(check_columns, "a.rs", &data), [2]);
        let data = format!("let a = r\"\n{}\n\";\n", "x ".repeat(100));
        assert_eq!(lines(check_columns, "a.rs", &data), NOWHERE);
    }

    #[test]
    fn an_unfinished_merge_is_named() {
        let text = "a\n<<<<<<< HEAD\nb\n=======\nc\n>>>>>>> other\n";
        assert_eq!(lines(check_conflicts, "a.md", text), [2, 6]);
        assert_eq!(
            lines(check_conflicts, "a.md", "b << 7 <<<<<<< c\n"),
            NOWHERE
        );
    }

    #[test]
    fn tabs_and_blanks_are_named() {
        assert_eq!(lines(check_blanks, "a.rs", "a\n\tb\nc \nd\r\n"), [2, 3, 4]);
        assert_eq!(lines(check_blanks, "a.rs", "a"), [1]);
        assert_eq!(lines(check_blanks, "a.rs", "a\n\n"), [2]);
    }

    #[test]
    fn a_silent_exception_is_named_wherever_it_stands() {
        assert_eq!(lines(check_allow, "a.rs", "\n#[allow(dead_code)]\n"), [2]);
        assert_eq!(
            lines(check_allow, "a.rs", "#![cfg_attr(test, allow(unused))]\n"),
            [1]
        );
        assert_eq!(
            lines(check_allow, "a.rs", "fn allow(x: u8) {} // [allow(x)]\n"),
            NOWHERE
        );
    }

    #[test]
    fn leftovers_are_named_in_code_and_comments_but_not_in_quotes() {
        assert_eq!(
            lines(check_leftovers, "a.rs", "// TODO later\ntodo!()\n"),
            [1, 2]
        );
        assert_eq!(lines(check_leftovers, "a.md", "FIXME\n"), [1]);
        assert_eq!(
            lines(check_leftovers, "a.rs", "let a = \"TODO\";\n"),
            NOWHERE
        );
    }

    #[test]
    fn a_path_of_one_machine_is_named() {
        let path = ["", "home", "someone"].join("/");
        assert_eq!(lines(check_absolute_paths, "a.md", "see\n"), NOWHERE);
        assert_eq!(
            lines(check_absolute_paths, "a.md", &format!("see {path}/x\n")),
            [1]
        );
        assert_eq!(
            lines(
                check_absolute_paths,
                "a.md",
                &format!("https://a.org{path}/x\n")
            ),
            NOWHERE
        );
        assert_eq!(
            lines(check_absolute_paths, "a.md", "/var/lib/containerd\n"),
            NOWHERE
        );
    }
}
