//! `include`: files that share a cluster, images or a profile. Merges trees before anything is
//! resolved; the including file's own values win, and every value keeps the place it came from.

use crate::diagnostic::{Problem, Problems, Sources, Span};
use crate::format;
use crate::kind;
use crate::yaml::{self, Entry, Node, Value};

/// Deepest chain of includes.
const DEPTH_MAX: usize = 8;

/// Reads a file that another includes, given its path relative to the root file's folder.
pub(crate) type Fetch<'a> = &'a dyn Fn(&str) -> Result<String, String>;

/// Reads included files and merges them.
pub(crate) struct Includer<'a> {
    pub fetch: Fetch<'a>,
    pub sources: &'a mut Sources,
    pub problems: &'a mut Problems,
    /// The files that are being read, outermost first.
    pub stack: Vec<String>,
}

impl Includer<'_> {
    /// The tree with everything that it includes, and without its `include`.
    pub fn expand(&mut self, mut tree: Node) -> Node {
        let Some(entry) = tree.entry("include").cloned() else {
            return tree;
        };
        let mut shared: Option<Node> = None;
        for item in entry.value.one_or_many() {
            let Some(included) = item.text().and_then(|path| self.included(path, item.span)) else {
                continue;
            };
            // A later file wins over an earlier one.
            shared = Some(match shared {
                Some(earlier) => merge(included, earlier),
                None => included,
            });
        }
        if let (Some(shared), Value::Map(_)) = (shared, &tree.value) {
            tree = merge(tree, shared);
        }
        tree
    }

    fn included(&mut self, path: &str, span: Span) -> Option<Node> {
        let folder = self.stack.last().map_or("", |file| folder_of(file));
        let path = join(folder, path);
        if let Some(problem) = self.refusal(&path, span) {
            self.problems.add(problem);
            return None;
        }
        let text = match (self.fetch)(&path) {
            Ok(text) => text,
            Err(why) => {
                let message = format!("`{path}` cannot be included");
                self.problems.add(
                    Problem::error("scenario::include", span, message)
                        .label(why)
                        .help("the path is relative to this file"),
                );
                return None;
            }
        };
        let source = self.sources.add(&path, &text);
        let tree = match yaml::parse(&text, source) {
            Ok(tree) => tree,
            Err(problem) => {
                self.problems.add(*problem);
                return None;
            }
        };
        kind::check(&tree, kind::Kind::Record(&format::INCLUDED), self.problems);
        self.stack.push(path);
        let tree = self.expand(tree);
        self.stack.pop();
        Some(only_shared(tree))
    }

    fn refusal(&self, path: &str, span: Span) -> Option<Problem> {
        if self.stack.iter().any(|file| file == path) {
            let mut around = self.stack.clone();
            around.push(path.to_owned());
            let message = format!("`{path}` includes itself");
            return Some(
                Problem::error("scenario::include", span, message).label(around.join(" -> ")),
            );
        }
        (self.stack.len() > DEPTH_MAX).then(|| {
            Problem::error("scenario::include", span, "includes are nested too deeply")
                .label(format!("more than {DEPTH_MAX} deep"))
        })
    }
}

/// What an included file hands on: its version and description are its own.
fn only_shared(mut tree: Node) -> Node {
    if let Value::Map(entries) = &mut tree.value {
        entries.retain(|entry| matches!(entry.key.as_str(), "cluster" | "images" | "profile"));
    }
    tree
}

/// `own` with whatever only `shared` has; mappings are merged, all else is replaced.
fn merge(own: Node, shared: Node) -> Node {
    match (own.value, shared.value) {
        (Value::Map(own_entries), Value::Map(shared_entries)) => Node {
            span: own.span,
            value: Value::Map(merge_entries(own_entries, shared_entries)),
        },
        (value, _) => Node {
            span: own.span,
            value,
        },
    }
}

fn merge_entries(own: Vec<Entry>, shared: Vec<Entry>) -> Vec<Entry> {
    let mut merged = own;
    for entry in shared {
        match merged.iter_mut().find(|known| known.key == entry.key) {
            Some(known) => {
                let value = std::mem::replace(
                    &mut known.value,
                    Node {
                        span: entry.value.span,
                        value: Value::Null,
                    },
                );
                known.value = merge(value, entry.value);
            }
            None => merged.push(entry),
        }
    }
    merged
}

/// The folder part of a path, with its slash; empty if there is none.
fn folder_of(path: &str) -> &str {
    path.rfind('/').map_or("", |slash| &path[..=slash])
}

/// Joins a folder and a relative path and takes out `.` and `..`.
fn join(folder: &str, path: &str) -> String {
    let whole = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("{folder}{path}")
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "." => {}
            ".." if parts.last().is_some_and(|last| !matches!(*last, ".." | "")) => {
                parts.pop();
            }
            "" if !parts.is_empty() => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_relative_to_the_including_file() {
        for (folder, path, joined) in [
            ("", "a.yaml", "a.yaml"),
            ("shared/", "a.yaml", "shared/a.yaml"),
            ("shared/", "../a.yaml", "a.yaml"),
            ("", "../a.yaml", "../a.yaml"),
            ("x/", "./y//a.yaml", "x/y/a.yaml"),
            ("x/", "/etc/a.yaml", "/etc/a.yaml"),
        ] {
            assert_eq!(join(folder, path), joined);
        }
    }
}
