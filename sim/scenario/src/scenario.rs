//! A scenario that was read and checked, and how it is read.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::diagnostic::{Diagnostic, LoadError, Problem, Problems, Severity, Sources, Span};
use crate::include::{Fetch, Includer};
use crate::plan::{Cluster, Expect, Image, Plan, Step};
use crate::resolve::fault::FaultDefinition;
use crate::resolve::swarm::SwarmDefinition;
use crate::yaml::{self, Node, Value};
use crate::{expand, explain, resolve};

/// Which seeds a run tries by default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seeds {
    /// So many, from 1.
    Count(u64),
    /// These.
    List(Vec<u64>),
}

impl Seeds {
    /// The seeds in order.
    pub fn iter(&self) -> Box<dyn Iterator<Item = u64> + '_> {
        match self {
            Seeds::Count(count) => Box::new(1..=*count),
            Seeds::List(list) => Box::new(list.iter().copied()),
        }
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        match self {
            Seeds::Count(count) => *count,
            Seeds::List(list) => list.len() as u64,
        }
    }
}

/// One scenario file, checked; a plan for each seed.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What reports call it.
    pub name: String,
    /// The file it came from, as it was given.
    pub file: String,
    /// What happens, in a sentence.
    pub description: Option<String>,
    /// The incident it models.
    pub issue: Option<String>,
    /// For selection.
    pub tags: Vec<String>,
    /// Which seeds a run tries by default.
    pub seeds: Seeds,
    /// Worlds the file can run in.
    pub worlds: Vec<String>,
    pub(crate) definition: Definition,
    warnings: Vec<Diagnostic>,
}

/// A scenario before anything is drawn.
#[derive(Clone, Debug)]
pub(crate) struct Definition {
    pub name: String,
    pub description: Option<String>,
    pub issue: Option<String>,
    pub tags: Vec<String>,
    pub seeds: Seeds,
    pub profile: String,
    pub horizon: Duration,
    pub settle: Duration,
    pub cluster: Cluster,
    pub images: BTreeMap<String, Image>,
    pub workload: Vec<Step>,
    pub faults: Vec<FaultDefinition>,
    pub swarm: Option<SwarmDefinition>,
    pub expect: Expect,
    pub worlds: Vec<String>,
}

/// One value that replaces what a file says: `--set cluster.agents.count=7`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// Keys from the top, joined by dots; numbers count in lists from 0.
    pub path: String,
    /// The new value, as YAML.
    pub value: String,
}

/// Reads a scenario file and whatever it includes.
pub fn load(path: &Path) -> Result<Scenario, LoadError> {
    load_with(path, &[])
}

/// The same, with some values replaced.
pub fn load_with(path: &Path, overrides: &[Override]) -> Result<Scenario, LoadError> {
    let name = path.display().to_string();
    let text = read(path).map_err(|why| unreadable(&name, &why))?;
    // Paths in `include` are resolved against the file's name, so fetching needs no folder.
    Scenario::parse_with(&name, &text, &|file| read(Path::new(file)), overrides)
}

/// The text of a file, or why there is none.
#[expect(
    clippy::disallowed_types,
    reason = "scenario files are read before a run, never in one"
)]
fn read(path: &Path) -> Result<String, String> {
    use std::io::Read as _;
    let file = std::fs::File::open(path).map_err(|error| plainly(&error))?;
    let mut bytes = Vec::new();
    let limit = yaml::BYTES_MAX as u64 + 1;
    file.take(limit)
        .read_to_end(&mut bytes)
        .map_err(|error| plainly(&error))?;
    if bytes.len() > yaml::BYTES_MAX {
        return Err(format!("it has more than {} bytes", yaml::BYTES_MAX));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..at]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
            + 1;
        format!("line {line} is not UTF-8 text")
    })
}

fn plainly(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        std::io::ErrorKind::IsADirectory => "it is a folder".to_owned(),
        std::io::ErrorKind::PermissionDenied => "you may not read it".to_owned(),
        _ => error.to_string(),
    }
}

fn unreadable(name: &str, why: &str) -> LoadError {
    let diagnostic = Diagnostic {
        code: "scenario::unreadable",
        severity: Severity::Error,
        message: format!("`{name}` cannot be read: {why}"),
        place: None,
        help: None,
    };
    LoadError {
        file: name.to_owned(),
        diagnostics: vec![diagnostic],
    }
}

impl Scenario {
    /// Reads a scenario from text. `include` gets paths as seen from `name`'s folder: an include
    /// of `shared.yaml` by `dir/a.yaml` asks for `dir/shared.yaml`.
    pub fn parse(
        name: &str,
        text: &str,
        include: &dyn Fn(&str) -> Result<String, String>,
    ) -> Result<Scenario, LoadError> {
        Scenario::parse_with(name, text, include, &[])
    }

    fn parse_with(
        name: &str,
        text: &str,
        fetch: Fetch<'_>,
        overrides: &[Override],
    ) -> Result<Scenario, LoadError> {
        let mut sources = Sources::default();
        let mut problems = Problems::default();
        let source = sources.add(name, text);
        let definition = match yaml::parse(text, source) {
            Ok(tree) => {
                let stack = vec![name.to_owned()];
                let (sources, problems) = (&mut sources, &mut problems);
                let includer = &mut Includer {
                    fetch,
                    sources,
                    problems,
                    stack,
                };
                let mut tree = includer.expand(tree);
                for one in overrides {
                    replace(&mut tree, one, includer.sources, includer.problems);
                }
                definition(&tree, includer.problems)
            }
            Err(problem) => {
                problems.add(*problem);
                None
            }
        };
        let failed = problems.any_error();
        let diagnostics = problems.into_diagnostics(&sources);
        match definition {
            Some(definition) if !failed => Ok(Scenario::new(name, definition, diagnostics)),
            _ => Err(LoadError {
                file: name.to_owned(),
                diagnostics,
            }),
        }
    }

    fn new(file: &str, definition: Definition, warnings: Vec<Diagnostic>) -> Self {
        Scenario {
            name: definition.name.clone(),
            file: file.to_owned(),
            description: definition.description.clone(),
            issue: definition.issue.clone(),
            tags: definition.tags.clone(),
            seeds: definition.seeds.clone(),
            worlds: definition.worlds.clone(),
            definition,
            warnings,
        }
    }

    /// The experiment with every choice made.
    pub fn plan(&self, seed: u64) -> Plan {
        expand::plan(&self.definition, &self.file, seed)
    }

    /// What is allowed, but hardly meant.
    pub fn lints(&self) -> Vec<Diagnostic> {
        self.warnings.clone()
    }

    /// The concrete timeline for a seed, for a person.
    pub fn explain(&self, seed: u64) -> String {
        explain::explain(&self.plan(seed), self.description.as_deref())
    }
}

fn definition(tree: &Node, problems: &mut Problems) -> Option<Definition> {
    match &tree.value {
        Value::Map(_) => Some(resolve::resolve(tree, problems)),
        Value::Null => {
            problems.add(
                Problem::error("scenario::syntax", tree.span, "the file is empty")
                    .label("nothing here")
                    .help("a scenario begins with `scenario: 1`"),
            );
            None
        }
        _ => {
            let message = format!(
                "a scenario is a mapping; this file holds {}",
                tree.describe()
            );
            problems.add(
                Problem::error("scenario::syntax", tree.span, message)
                    .help("a scenario begins with `scenario: 1`"),
            );
            None
        }
    }
}

/// Puts one override into the tree, with a source text of its own to point at.
fn replace(tree: &mut Node, one: &Override, sources: &mut Sources, problems: &mut Problems) {
    let name = format!("--set {}", one.path);
    let source = sources.add(&name, &one.value);
    let whole = Span {
        source,
        start: 0,
        end: one.value.len(),
    };
    let value = match yaml::parse(&one.value, source) {
        Ok(value) => value,
        Err(problem) => return problems.add(*problem),
    };
    let mut at = tree;
    for key in one.path.split('.') {
        at = match descend(at, key, whole) {
            Ok(next) => next,
            Err(why) => {
                let message = format!("`{}` cannot be set: {why}", one.path);
                return problems.add(Problem::error("scenario::override", whole, message));
            }
        };
    }
    *at = value;
}

/// The place of a key; a mapping gets the key if it has none.
fn descend<'t>(node: &'t mut Node, key: &str, span: Span) -> Result<&'t mut Node, String> {
    if key.is_empty() {
        return Err("a part of its path is empty".to_owned());
    }
    if node.is_null() {
        node.value = Value::Map(Vec::new());
    }
    match &mut node.value {
        Value::Map(entries) => {
            let found = entries.iter().position(|entry| entry.key == key);
            let index = found.unwrap_or_else(|| {
                let value = Node {
                    span,
                    value: Value::Null,
                };
                entries.push(yaml::Entry {
                    key: key.to_owned(),
                    key_span: span,
                    value,
                });
                entries.len() - 1
            });
            Ok(&mut entries[index].value)
        }
        Value::List(items) => {
            let length = items.len();
            let index = key.parse::<usize>().ok();
            index
                .and_then(|index| items.get_mut(index))
                .ok_or_else(|| format!("`{key}` is no position in a list of {length}"))
        }
        _ => Err(format!(
            "what is before `{key}` is neither a mapping nor a list"
        )),
    }
}
