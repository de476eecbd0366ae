//! What is wrong with a file, said so that a person can mend it: code, message, place, label and
//! help. Owns how problems are collected and shown; finds none itself (`kind`, `resolve`,
//! `expression` do).

use std::fmt;
use std::sync::Arc;

use miette::{LabeledSpan, NamedSource, SourceSpan};

/// A stretch of one source text, in bytes. Start and end are always inside that text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    /// Which text, by its number in [`Sources`].
    pub source: u32,
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl Span {
    /// The part of this span from `offset` on, `length` bytes long, kept inside it.
    pub fn part(self, offset: usize, length: usize) -> Span {
        let start = (self.start + offset).min(self.end);
        Span {
            source: self.source,
            start,
            end: (start + length).min(self.end),
        }
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The file can run, but hardly as it was meant.
    Warning,
    /// The file cannot run.
    Error,
}

/// Where in a file.
#[derive(Clone)]
pub struct Place {
    /// The file, as it was named.
    pub file: String,
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    /// What is said beside the excerpt.
    pub label: String,
    source: Arc<NamedSource<String>>,
    labels: Vec<LabeledSpan>,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}:{} ({})",
            self.file, self.line, self.column, self.label
        )
    }
}

/// One problem of a scenario file. Renders with any miette handler.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    /// Stable name of the kind of problem, such as `scenario::unknown-field`.
    pub code: &'static str,
    /// Whether the file can run all the same.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// Where, unless it is about the file as a whole.
    pub place: Option<Place>,
    /// What to do about it.
    pub help: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Diagnostic {}

impl miette::Diagnostic for Diagnostic {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.code))
    }

    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.severity {
            Severity::Warning => miette::Severity::Warning,
            Severity::Error => miette::Severity::Error,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help
            .as_ref()
            .map(|help| Box::new(help) as Box<dyn fmt::Display + 'a>)
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        self.place
            .as_ref()
            .map(|place| &*place.source as &dyn miette::SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.place.as_ref().map(|place| {
            Box::new(place.labels.iter().cloned()) as Box<dyn Iterator<Item = LabeledSpan>>
        })
    }
}

/// A file that cannot run, with everything that is wrong with it.
#[derive(Clone, Debug)]
pub struct LoadError {
    /// The file, as it was named.
    pub file: String,
    /// All errors, in file order; at least one.
    pub diagnostics: Vec<Diagnostic>,
}

impl LoadError {
    /// How many errors there are.
    pub fn errors(&self) -> usize {
        self.diagnostics.len()
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.errors() {
            1 => write!(f, "{} has an error", self.file),
            errors => write!(f, "{} has {errors} errors", self.file),
        }
    }
}

impl std::error::Error for LoadError {}

impl miette::Diagnostic for LoadError {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new("scenario::invalid"))
    }

    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn miette::Diagnostic> + 'a>> {
        Some(Box::new(
            self.diagnostics
                .iter()
                .map(|one| one as &dyn miette::Diagnostic),
        ))
    }
}

/// The texts that a scenario was read from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    texts: Vec<(String, Arc<NamedSource<String>>)>,
}

impl Sources {
    /// Adds a text and gives its number.
    pub fn add(&mut self, name: &str, text: &str) -> u32 {
        let source = NamedSource::new(name, text.to_owned());
        self.texts.push((name.to_owned(), Arc::new(source)));
        u32::try_from(self.texts.len() - 1).unwrap_or(u32::MAX)
    }

    fn place(&self, span: Span, label: &str, also: &[(Span, String)]) -> Option<Place> {
        let (file, source) = self.texts.get(span.source as usize)?;
        let text = source.inner();
        let (line, column) = line_and_column(text, span.start);
        if let Some(cropped) = cropped(text, span.start) {
            return Some(cropped.place(file, (line, column), label));
        }
        let mut labels = vec![labelled(text, span, label)];
        let here = also.iter().filter(|(other, _)| other.source == span.source);
        labels.extend(here.map(|(other, label)| labelled(text, *other, label)));
        let source = Arc::clone(source);
        Some(Place {
            file: file.clone(),
            line,
            column,
            label: label.to_owned(),
            source,
            labels,
        })
    }
}

/// Longest line that is shown whole.
const SHOWN_MAX: usize = 500;

/// What is shown of a line that is too long to show, and where in it the point is.
struct Cropped {
    line: String,
    at: usize,
}

/// Some characters around `offset`, if its line is too long to show.
fn cropped(text: &str, offset: usize) -> Option<Cropped> {
    let offset = text.floor_char_boundary(offset.min(text.len()));
    let start = text[..offset].rfind('\n').map_or(0, |at| at + 1);
    let end = text[offset..]
        .find('\n')
        .map_or(text.len(), |at| offset + at);
    if end - start <= SHOWN_MAX {
        return None;
    }
    let from = text
        .floor_char_boundary(offset.saturating_sub(40))
        .max(start);
    let to = text.floor_char_boundary((offset + 40).min(end));
    let dots = if from > start { "..." } else { "" };
    Some(Cropped {
        line: format!("{dots}{}...", &text[from..to]),
        at: dots.len() + offset - from,
    })
}

impl Cropped {
    /// Empty lines before keep the line's number true.
    fn place(self, file: &str, (line, column): (usize, usize), label: &str) -> Place {
        let before = "\n".repeat(line - 1);
        let text = format!("{before}{}", self.line);
        let point = SourceSpan::new((before.len() + self.at).into(), 1);
        Place {
            file: file.to_owned(),
            line,
            column,
            label: label.to_owned(),
            source: Arc::new(NamedSource::new(file, text)),
            labels: vec![LabeledSpan::new_with_span(Some(label.to_owned()), point)],
        }
    }
}

/// A label on the first line of the span only: an excerpt of a whole mapping would bury the point.
fn labelled(text: &str, span: Span, label: &str) -> LabeledSpan {
    let covered = text.get(span.start..span.end).unwrap_or("");
    let line = covered.lines().next().unwrap_or("").trim_end();
    LabeledSpan::new_with_span(
        Some(label.to_owned()),
        SourceSpan::new(span.start.into(), line.len()),
    )
}

fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    (line, before[start..].chars().count() + 1)
}

/// A problem before it is tied to its text.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub code: &'static str,
    pub severity: Severity,
    pub message: String,
    pub span: Option<Span>,
    pub label: String,
    pub also: Vec<(Span, String)>,
    pub help: Option<String>,
}

impl Problem {
    /// An error at a place.
    pub fn error(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Problem {
            code,
            severity: Severity::Error,
            message: message.into(),
            span: Some(span),
            label: "here".to_owned(),
            also: Vec::new(),
            help: None,
        }
    }

    /// A warning at a place.
    pub fn warning(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Problem {
            severity: Severity::Warning,
            ..Problem::error(code, span, message)
        }
    }

    /// With what to say beside the excerpt.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// With a second place in the same text.
    pub fn also(mut self, span: Span, label: impl Into<String>) -> Self {
        self.also.push((span, label.into()));
        self
    }

    /// With what to do about it.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// With what to do about it, if something is known.
    pub fn maybe_help(mut self, help: Option<String>) -> Self {
        self.help = help.or(self.help);
        self
    }
}

/// Collects problems while a file is read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Problems {
    list: Vec<Problem>,
}

impl Problems {
    /// Adds one.
    pub fn add(&mut self, problem: Problem) {
        self.list.push(problem);
    }

    /// True if there is an error among them.
    pub fn any_error(&self) -> bool {
        self.list
            .iter()
            .any(|problem| problem.severity == Severity::Error)
    }

    /// All, in file order, tied to their texts. Where there are errors, warnings are left out: most
    /// would follow from what could not be read.
    pub fn into_diagnostics(mut self, sources: &Sources) -> Vec<Diagnostic> {
        if self.any_error() {
            self.list
                .retain(|problem| problem.severity == Severity::Error);
        }
        self.list.sort_by_key(|problem| problem.span);
        // What an included file says is checked there and again in the merged whole.
        self.list
            .dedup_by(|a, b| (a.code, a.span, &a.message) == (b.code, b.span, &b.message));
        self.list
            .into_iter()
            .map(|problem| Diagnostic {
                code: problem.code,
                severity: problem.severity,
                message: problem.message,
                place: problem
                    .span
                    .and_then(|span| sources.place(span, &problem.label, &problem.also)),
                help: problem.help,
            })
            .collect()
    }
}

/// The valid name nearest to `given`, if one is near enough to be what was meant.
pub(crate) fn nearest<'a>(
    given: &str,
    valid: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let given = simplified(given);
    valid
        .into_iter()
        .map(|name| (likeness(&given, &simplified(name)), name))
        .filter(|(likeness, _)| *likeness >= 0.72)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// Separators and case are not what a name is about.
fn simplified(name: &str) -> String {
    name.to_lowercase().replace(['-', ' '], "_")
}

fn likeness(given: &str, valid: &str) -> f64 {
    let edits = strsim::normalized_damerau_levenshtein(given, valid);
    // In a short name, one slip changes a large part.
    let slip = given.len() >= 3 && strsim::damerau_levenshtein(given, valid) == 1;
    let edits = if slip { edits.max(0.8) } else { edits };
    let prefix = valid.starts_with(given) || given.starts_with(valid);
    let shared_start = if prefix && given.len() >= 2 {
        0.75
    } else {
        0.0
    };
    edits
        .max(strsim::jaro_winkler(given, valid) - 0.1)
        .max(shared_start)
}

/// `did you mean ...?` with all valid names where they are few.
pub(crate) fn hint<'a>(
    given: &str,
    what: &str,
    valid: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    let valid: Vec<&str> = valid.into_iter().collect();
    let near = nearest(given, valid.iter().copied());
    let all =
        (!valid.is_empty() && valid.len() <= 24).then(|| format!("{what}: {}", listed(&valid)));
    match (near, all) {
        (Some(near), Some(all)) => Some(format!("did you mean `{near}`? {all}")),
        (Some(near), None) => Some(format!("did you mean `{near}`?")),
        (None, all) => all,
    }
}

/// `a`, `b` and `c`, for a person.
pub(crate) fn listed<S: AsRef<str>>(names: &[S]) -> String {
    match names {
        [] => "none".to_owned(),
        [one] => one.as_ref().to_owned(),
        [most @ .., last] => {
            let most: Vec<&str> = most.iter().map(AsRef::as_ref).collect();
            format!("{} and {}", most.join(", "), last.as_ref())
        }
    }
}
