//! YAML text to a tree in which every key and value knows its place. Owns the limits against
//! hostile input; knows nothing of what a scenario may contain (`kind` does).

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Options, Spanned};

use crate::diagnostic::{Problem, Span};

/// Largest file that is read: a hundred times the largest scenario that makes sense.
pub(crate) const BYTES_MAX: usize = 1 << 20;

/// Deepest nesting: a scenario nests six deep.
const DEPTH_MAX: usize = 32;

/// A value and its place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub span: Span,
    pub value: Value,
}

/// A value, not yet read as anything.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// Any other scalar, as it was written; `plain` unless it was quoted or a block.
    Scalar { text: String, plain: bool },
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in file order, without duplicate keys.
    Map(Vec<Entry>),
}

/// One key of a mapping with its value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub key: String,
    pub key_span: Span,
    pub value: Node,
}

impl Node {
    /// The value of a key, if this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// A key with its value, if this is a mapping that has it.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// The mapping's entries; none if this is no mapping.
    pub fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The sequence's values; none if this is no sequence.
    pub fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// The sequence's values, or this value alone.
    pub fn one_or_many(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            _ => std::slice::from_ref(self),
        }
    }

    /// The scalar's text.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// True for nothing, `~` and `null`.
    pub fn is_null(&self) -> bool {
        self.value == Value::Null
    }

    /// What it is, for a message.
    pub fn describe(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_owned(),
            Value::Scalar { text, plain: true } => format!("`{}`", shortened(text)),
            Value::Scalar { text, plain: false } => format!("the text \"{}\"", shortened(text)),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a mapping".to_owned(),
        }
    }
}

/// A text that fits into a message.
pub(crate) fn shortened(text: &str) -> String {
    let line = text.lines().next().unwrap_or("");
    let short: String = line.chars().take(40).collect();
    if short.len() < text.trim_end().len() {
        format!("{short}...")
    } else {
        short
    }
}

/// Parses one document.
pub(crate) fn parse(text: &str, source: u32) -> Result<Node, Box<Problem>> {
    let whole = Span {
        source,
        start: 0,
        end: 0,
    };
    if text.len() > BYTES_MAX {
        let message = format!(
            "the file has {} bytes; at most {BYTES_MAX} are read",
            text.len()
        );
        let problem = Problem::error("scenario::too-large", whole, message)
            .label("this file")
            .help("split what is shared into files of their own and `include` them");
        return Err(Box::new(problem));
    }
    if let Some(problem) = find_tab(text, source) {
        return Err(Box::new(problem));
    }
    let offset = if text.starts_with('\u{feff}') {
        '\u{feff}'.len_utf8()
    } else {
        0
    };
    let body = &text[offset..];
    match serde_saphyr::from_str_with_options::<Spanned<Raw>>(body, options()) {
        Ok(raw) => Ok(Tree {
            text,
            offset,
            source,
        }
        .node(raw)),
        Err(error) => Err(Box::new(syntax_problem(&error, text, offset, source))),
    }
}

/// Limits: a scenario nests six deep and repeats little. Aliases and merge keys are welcome, bombs
/// made of them are not.
fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEPTH_MAX,
            flow_nesting_limit: DEPTH_MAX,
            max_nodes: 100_000,
            max_events: 300_000,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_documents: 4,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 20_000,
            max_replay_stack_depth: 8,
        },
        strict_booleans: true,
        reject_unsupported_tags: true,
        non_finite_float_policy: serde_saphyr::options::NonFiniteFloatPolicy::AsString,
        with_snippet: false,
    }
}

/// A tab before the first other character of a line: YAML forbids it, and parsers say so badly.
fn find_tab(text: &str, source: u32) -> Option<Problem> {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let content = line.trim_start_matches([' ', '\t']);
        let indent = &line[..line.len() - content.len()];
        if let Some(tab) = indent.find('\t')
            && !content.trim_end().is_empty()
        {
            let span = Span {
                source,
                start: start + tab,
                end: start + tab + 1,
            };
            return Some(
                Problem::error("scenario::syntax", span, "a tab cannot indent YAML")
                    .label("this tab")
                    .help("indent with spaces"),
            );
        }
        start += line.len();
    }
    None
}

fn syntax_problem(error: &serde_saphyr::Error, text: &str, offset: usize, source: u32) -> Problem {
    let error = error.without_snippet();
    let location = error.location();
    let span = location.map_or(
        Span {
            source,
            start: 0,
            end: 0,
        },
        |location| span_of(&location, text, offset, source),
    );
    let (message, label, help) = explained(error);
    Problem::error("scenario::syntax", span, message)
        .label(label)
        .maybe_help(help)
}

/// Our words for the mistakes that happen often; the parser's words for the rest.
fn explained(error: &serde_saphyr::Error) -> (String, String, Option<String>) {
    use serde_saphyr::Error;
    let words = without_location(&error.to_string());
    match error {
        Error::DuplicateMappingKey { key, .. } => {
            let key = key.as_deref().unwrap_or("this key");
            let help = "remove one of them, or rename it".to_owned();
            (
                format!("`{key}` is given twice"),
                "for the second time".to_owned(),
                Some(help),
            )
        }
        Error::Eof { .. } => {
            let help = "a scenario begins with `scenario: 1`".to_owned();
            (
                "the file is empty".to_owned(),
                "nothing here".to_owned(),
                Some(help),
            )
        }
        Error::MultipleDocuments { .. } => {
            let help = "one file describes one scenario: remove the `---`".to_owned();
            (
                "there is a second document".to_owned(),
                "it begins here".to_owned(),
                Some(help),
            )
        }
        Error::AliasError { error, .. } => explained(error),
        Error::AliasReplayLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. } => {
            let help = "a scenario needs few aliases".to_owned();
            let message = "the aliases of this file repeat too much".to_owned();
            (message, "too much by here".to_owned(), Some(help))
        }
        _ if words.contains("Depth {") || words.contains("recursion limit") => {
            let message = format!("this is nested more than {DEPTH_MAX} deep");
            (
                message,
                "too deep".to_owned(),
                Some("a scenario needs little nesting".to_owned()),
            )
        }
        Error::Budget { .. } => {
            let help = "split what is shared into files of their own and `include` them";
            (
                "this file holds too much".to_owned(),
                "too much by here".to_owned(),
                Some(help.to_owned()),
            )
        }
        _ => {
            let help = words
                .contains("mapping values are not allowed")
                .then(|| "a text that contains `: ` needs quotes".to_owned());
            (
                format!("this is not valid YAML: {words}"),
                "near here".to_owned(),
                help,
            )
        }
    }
}

/// Drops the parser's own `at line 3, column 4`: the place is shown anyway.
fn without_location(words: &str) -> String {
    let words = words.lines().next().unwrap_or("").trim();
    let cut = words
        .find(" at line ")
        .or_else(|| words.find(" (line "))
        .unwrap_or(words.len());
    words[..cut].trim_end_matches([',', ':', ' ']).to_owned()
}

fn span_of(location: &Location, text: &str, offset: usize, source: u32) -> Span {
    let index = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let span = location.span();
    let start = match span.byte_offset() {
        Some(bytes) => index(bytes).saturating_add(offset),
        None => offset_of(text, location.line(), location.column()),
    };
    let start = floor(text, start);
    let length = index(span.byte_len().unwrap_or(0));
    Span {
        source,
        start,
        end: floor(text, start.saturating_add(length)),
    }
}

/// The byte at a line and column, both counted from 1.
fn offset_of(text: &str, line: u64, column: u64) -> usize {
    let skip = usize::try_from(line.saturating_sub(1)).unwrap_or(usize::MAX);
    let before: usize = text.split_inclusive('\n').take(skip).map(str::len).sum();
    let inside = usize::try_from(column.saturating_sub(1)).unwrap_or(usize::MAX);
    let rest: usize = text[before..]
        .chars()
        .take(inside)
        .map(char::len_utf8)
        .sum();
    before + rest
}

/// The nearest character boundary at or before `at`, inside the text.
fn floor(text: &str, at: usize) -> usize {
    text.floor_char_boundary(at.min(text.len()))
}

/// What the parser hands over before places are resolved.
enum Raw {
    Null,
    /// `None` where only the text itself says how it was written: numbers and booleans.
    Scalar(Option<String>),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }
    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }
    fn visit_bool<E>(self, _: bool) -> Result<Raw, E> {
        Ok(Raw::Scalar(None))
    }
    fn visit_i64<E>(self, _: i64) -> Result<Raw, E> {
        Ok(Raw::Scalar(None))
    }
    fn visit_u64<E>(self, _: u64) -> Result<Raw, E> {
        Ok(Raw::Scalar(None))
    }
    fn visit_i128<E>(self, _: i128) -> Result<Raw, E> {
        Ok(Raw::Scalar(None))
    }
    fn visit_u128<E>(self, _: u128) -> Result<Raw, E> {
        Ok(Raw::Scalar(None))
    }
    fn visit_f64<E>(self, _: f64) -> Result<Raw, E> {
        Ok(Raw::Scalar(None))
    }
    fn visit_str<E>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Scalar(Some(text.to_owned())))
    }
    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Raw, E> {
        Ok(Raw::Scalar(Some(
            String::from_utf8_lossy(bytes).into_owned(),
        )))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Raw::Map(map))
    }
}

/// Resolves places against the text.
struct Tree<'t> {
    text: &'t str,
    /// Bytes before the part that was parsed (a byte order mark).
    offset: usize,
    source: u32,
}

impl Tree<'_> {
    fn node(&self, raw: Spanned<Raw>) -> Node {
        let defined = self.span(&raw.defined);
        let value = match raw.value {
            Raw::Null => Value::Null,
            Raw::Scalar(text) => self.scalar(text, defined),
            Raw::List(items) => Value::List(items.into_iter().map(|raw| self.node(raw)).collect()),
            Raw::Map(entries) => Value::Map(
                entries
                    .into_iter()
                    .map(|(key, value)| self.entry(key, value))
                    .collect(),
            ),
        };
        Node {
            span: self.span(&raw.referenced),
            value,
        }
    }

    fn entry(&self, key: Spanned<String>, value: Spanned<Raw>) -> Entry {
        let key_span = self.span(&key.referenced);
        let mut value = self.node(value);
        if value.is_null() && value.span.start == value.span.end {
            // An absent value has no place of its own; its key has.
            value.span = key_span;
        }
        Entry {
            key: key.value,
            key_span,
            value,
        }
    }

    fn scalar(&self, text: Option<String>, defined: Span) -> Value {
        let written = self
            .text
            .get(defined.start..defined.end)
            .unwrap_or("")
            .trim_end();
        let plain = !written.starts_with(['"', '\'', '|', '>']);
        let text = text.unwrap_or_else(|| written.to_owned());
        Value::Scalar { text, plain }
    }

    fn span(&self, location: &Location) -> Span {
        span_of(location, self.text, self.offset, self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_at<'t>(text: &'t str, node: &Node) -> &'t str {
        &text[node.span.start..node.span.end]
    }

    #[test]
    fn every_value_knows_its_place() {
        let text = "a: 0x1a2b # why\nb: [5s, 'x y', 0.5]\non: true\n";
        let tree = parse(text, 0).unwrap();
        assert_eq!(tree.get("a").unwrap().text(), Some("0x1a2b"));
        let items = tree.get("b").unwrap().items();
        assert_eq!(
            items.iter().map(|n| n.text().unwrap()).collect::<Vec<_>>(),
            ["5s", "x y", "0.5"]
        );
        assert_eq!(text_at(text, &items[1]), "'x y'");
        let key = tree.entry("on").unwrap().key_span;
        assert_eq!(&text[key.start..key.end], "on");
        assert_eq!(tree.get("on").unwrap().text(), Some("true"));
    }

    #[test]
    fn a_byte_order_mark_moves_no_place() {
        let text = "\u{feff}a: é\nb: 7\n";
        let tree = parse(text, 0).unwrap();
        assert_eq!(text_at(text, tree.get("b").unwrap()), "7");
    }

    #[test]
    fn aliases_point_to_their_use() {
        let text = "a: &x 0x10\nb: *x\n";
        let tree = parse(text, 0).unwrap();
        assert_eq!(tree.get("b").unwrap().text(), Some("0x10"));
        assert!(tree.get("b").unwrap().span.start > 11);
    }
}
