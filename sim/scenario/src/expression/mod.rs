//! Expressions of scenario files: CEL over a documented vocabulary. Compiling finds unknown names
//! and wrong types, so that a run does not; evaluating takes facts as JSON.
//!
//! Map: `vocabulary` (what can be said), `check` with `types`, `evaluate` (facts in, truth out).

mod check;
mod evaluate;
mod types;
pub mod vocabulary;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};
use wavetank_trace::view::EVENT_KINDS;

use crate::diagnostic::{Problem, Problems, Span, hint};
use crate::yaml::Node;

/// Longest expression that is read.
const CHARACTERS_MAX: usize = 2_000;

/// Where an expression stands, which decides what it can speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// `on.where`: the fields of one kind of event, by its position in `EVENT_KINDS`.
    Event(usize),
    /// `never`: the cluster as the managers know it, and what has just happened.
    Never,
    /// `eventually`: the cluster as the managers know it.
    Eventually,
}

/// A checked expression that says yes or no.
#[derive(Clone)]
pub struct Expression {
    source: String,
    scope: Scope,
    program: Arc<cel::Program>,
    env: Arc<cel::Env>,
    variables: BTreeSet<String>,
    names: Vec<Named>,
    doubts: Vec<Remark>,
}

/// Something about an expression, at characters of its source.
#[derive(Clone, Debug)]
pub(crate) struct Remark {
    pub message: String,
    /// First character and how many; `None` for the whole.
    pub place: Option<(usize, usize)>,
    pub help: Option<String>,
}

/// What checking found in an expression that can be used.
struct Report {
    doubts: Vec<Remark>,
    names: Vec<Named>,
}

/// A literal name that a lookup asks for.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub function: &'static str,
    pub name: String,
    pub place: Option<(usize, usize)>,
}

/// An expression that cannot be used.
#[derive(Clone, Debug)]
pub struct ExpressionError {
    /// What is wrong with it.
    pub message: String,
    /// Where: first character, counted from 0, and how many; `None` for all of it.
    pub place: Option<(usize, usize)>,
    /// What to do about it.
    pub help: Option<String>,
    source: String,
}

impl fmt::Display for ExpressionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in `{}`", self.message, self.source)
    }
}

impl std::error::Error for ExpressionError {}

/// What a scenario has, for names inside expressions.
pub(crate) struct Known {
    pub services: Vec<String>,
    pub nodes: Vec<String>,
    pub leases: Vec<String>,
}

impl Expression {
    /// Compiles a condition on events of one kind.
    pub fn compile_event(event: &str, source: &str) -> Result<Self, ExpressionError> {
        match EVENT_KINDS.iter().position(|kind| kind.name == event) {
            Some(kind) => Self::compile(Scope::Event(kind), source),
            None => Err(ExpressionError {
                message: format!("there is no event `{event}`"),
                place: None,
                help: hint(
                    event,
                    "the events are",
                    EVENT_KINDS.iter().map(|kind| kind.name),
                ),
                source: source.to_owned(),
            }),
        }
    }

    /// Compiles what must never be true.
    pub fn compile_never(source: &str) -> Result<Self, ExpressionError> {
        Self::compile(Scope::Never, source)
    }

    /// Compiles what must be true in the end.
    pub fn compile_eventually(source: &str) -> Result<Self, ExpressionError> {
        Self::compile(Scope::Eventually, source)
    }

    fn compile(scope: Scope, source: &str) -> Result<Self, ExpressionError> {
        let error = |remark: Remark| ExpressionError {
            message: remark.message,
            place: remark.place,
            help: remark.help,
            source: source.to_owned(),
        };
        let env = Arc::new(cel::Env::stdlib());
        let program = parse(&env, source).map_err(error)?;
        let report = check::check(&program, source, scope).map_err(error)?;
        let references = program.references();
        let variables: BTreeSet<String> = references
            .variables()
            .iter()
            .map(|name| (*name).to_owned())
            .collect();
        let mut expression = Expression {
            source: source.to_owned(),
            scope,
            variables,
            program: Arc::new(program),
            env,
            names: report.names,
            doubts: report.doubts,
        };
        expression.doubt_constants();
        Ok(expression)
    }

    /// The text it was made from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// True if it speaks of this variable: `task`, `event`, `tasks`. What it does not speak of need
    /// not be among the facts.
    pub fn mentions(&self, variable: &str) -> bool {
        self.variables.contains(variable)
    }

    /// Is it true of an event with these fields? A comparison with an absent value is not true.
    pub fn matches(&self, fields: &Map<String, Value>) -> Result<bool, String> {
        self.truth(|name| fields.get(name), &Value::Null)
    }

    /// Is it true of these facts: an object with `services`, `tasks`, `nodes`, `leases` and, for
    /// `never`, `task`, `node`, `event`, as [`vocabulary::VOCABULARY`] describes them? What is
    /// missing counts as zero or absent. A comparison with an absent value is not true.
    pub fn evaluate(&self, facts: &Value) -> Result<bool, String> {
        self.truth(|name| facts.get(name), facts)
    }

    /// An expression that speaks of nothing is always or never true.
    fn doubt_constants(&mut self) {
        if !self.variables.is_empty() || !self.names.is_empty() || self.calls_the_cluster() {
            return;
        }
        let message = match self.evaluate(&Value::Null) {
            Ok(true) => "this is always true",
            _ => "this can never be true",
        };
        let help = Some("it speaks of nothing that a run can change".to_owned());
        self.doubts.push(Remark {
            message: message.to_owned(),
            place: None,
            help,
        });
    }

    fn calls_the_cluster(&self) -> bool {
        let references = self.program.references();
        ["service", "node", "lease"]
            .iter()
            .any(|name| references.has_function(name))
    }

    /// Warns of what is allowed but looks like a mistake: values that no field ever has, names that
    /// the scenario does not have.
    pub(crate) fn report_doubts(&self, place: &Node, known: &Known, problems: &mut Problems) {
        for doubt in &self.doubts {
            let span = span_of(place, doubt.place);
            problems.add(
                Problem::warning("scenario::lint::never-true", span, &doubt.message)
                    .maybe_help(doubt.help.clone()),
            );
        }
        for named in &self.names {
            let names = match named.function {
                "service" => &known.services,
                "node" => &known.nodes,
                _ => &known.leases,
            };
            if names.contains(&named.name) {
                continue;
            }
            let message = format!("there is no {} `{}`", named.function, named.name);
            let what = format!("the {}s are", named.function);
            problems.add(
                Problem::warning(
                    "scenario::lint::unknown-name",
                    span_of(place, named.place),
                    message,
                )
                .label("counts as empty")
                .maybe_help(hint(
                    &named.name,
                    &what,
                    names.iter().map(String::as_str),
                )),
            );
        }
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Expression({:?})", self.source)
    }
}

impl ExpressionError {
    /// The error at its place in the file.
    pub(crate) fn problem(&self, place: &Node) -> Problem {
        Problem::error(
            "scenario::expression",
            span_of(place, self.place),
            &self.message,
        )
        .maybe_help(self.help.clone())
    }
}

/// The place of some characters of an expression in the file. Where escapes or line folds make the
/// two texts differ, the whole expression is the place.
fn span_of(place: &Node, characters: Option<(usize, usize)>) -> Span {
    let (Some((first, count)), Some(text)) = (characters, place.text()) else {
        return place.span;
    };
    let quotes = match place.span.end - place.span.start {
        length if length == text.len() => 0,
        length if length == text.len() + 2 => 1,
        _ => return place.span,
    };
    if text.contains('\n') {
        return place.span;
    }
    let bytes = |count: usize| text.chars().take(count).map(char::len_utf8).sum::<usize>();
    let start = bytes(first);
    place
        .span
        .part(quotes + start, (bytes(first + count) - start).max(1))
}

fn parse(env: &cel::Env, source: &str) -> Result<cel::Program, Remark> {
    let remark = |message: &str| Remark {
        message: message.to_owned(),
        place: None,
        help: None,
    };
    if source.chars().count() > CHARACTERS_MAX {
        return Err(remark("this expression is too long"));
    }
    if let Some(at) = source
        .chars()
        .position(|c| c.is_control() && !c.is_ascii_whitespace())
    {
        let message = "an expression has no control characters".to_owned();
        return Err(Remark {
            message,
            place: Some((at, 1)),
            help: None,
        });
    }
    env.compile(source)
        .map_err(|errors| match errors.errors.first() {
            Some(error) => parse_remark(error, source),
            None => remark("this is not an expression"),
        })
}

fn parse_remark(error: &cel::ParseError, source: &str) -> Remark {
    let (line, column) = error.pos;
    let line = usize::try_from(line - 1).unwrap_or(0);
    let column = usize::try_from(column - 1).unwrap_or(0);
    let before: usize = source
        .split_inclusive('\n')
        .take(line)
        .map(|text| text.chars().count())
        .sum();
    let first = (before + column).min(source.chars().count());
    if let Some(at) = lone_equals(source) {
        let message = "`=` is no operator; equality is `==`".to_owned();
        return Remark {
            message,
            place: Some((at, 1)),
            help: None,
        };
    }
    let message = format!("this is not an expression: {}", parser_words(&error.msg));
    Remark {
        message,
        place: Some((first, 1)),
        help: None,
    }
}

/// The parser's words without its trade.
fn parser_words(words: &str) -> String {
    let words = words.lines().next().unwrap_or("").trim();
    let words = words.strip_prefix("Syntax error: ").unwrap_or(words);
    // It lists every token that could follow; nobody reads that.
    let words = words.split(" expecting ").next().unwrap_or(words);
    if words.contains("'<EOF>'") {
        return "it ends too early".to_owned();
    }
    match words.split_once("token recognition error at: ") {
        Some((_, rest)) => format!("nothing begins like {rest}"),
        None => words.to_owned(),
    }
}

/// The first character that is a `=` of no comparison.
fn lone_equals(source: &str) -> Option<usize> {
    let bytes = source.as_bytes();
    let beside = |at: Option<usize>| {
        at.and_then(|at| bytes.get(at))
            .is_some_and(|byte| b"=!<>".contains(byte))
    };
    let lone = |at: usize| !beside(at.checked_sub(1)) && bytes.get(at + 1) != Some(&b'=');
    let at = (0..bytes.len()).find(|at| bytes[*at] == b'=' && lone(*at))?;
    Some(source[..at].chars().count())
}
