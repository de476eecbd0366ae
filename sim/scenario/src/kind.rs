//! What a field may hold, as data. One description serves three readers: the check that points at
//! the line, the JSON Schema, and the documentation. What the fields *are* is in `format` and
//! `faults`; what they mean together is checked by `resolve`.

use crate::diagnostic::{Problem, Problems, hint, listed};
use crate::scalars;
use crate::yaml::{Node, Value};

/// What a field may hold.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Any text; numbers and booleans count as text.
    Text,
    /// A name: letters, digits, `-`, `_` and `.`, at most 63.
    Name,
    /// `true` or `false`.
    Bool,
    /// A whole number within these bounds.
    Integer(i128, i128),
    /// A duration with its unit.
    Duration,
    /// A duration with its unit and perhaps a sign.
    SignedDuration,
    /// Two durations, or one for both.
    Range,
    /// A number of bytes, with its unit.
    Size,
    /// Cores.
    Cpus,
    /// So many times in some time.
    Rate,
    /// A CEL expression.
    Expression,
    /// A node's name.
    Node,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A list.
    List(&'static Kind),
    /// A list, or one value for a list of one.
    OneOrMany(&'static Kind),
    /// A mapping from names of the file's own choice.
    Map(&'static Kind),
    /// A mapping with these fields.
    Record(&'static Shape),
    /// The first of these that fits.
    Either(&'static [Kind]),
    /// A mapping with the common fields and those of the verb that it names.
    Verb(&'static [Field], &'static [Shape]),
    /// Arguments of a fault; its action says which.
    Arguments,
}

/// A mapping with fixed fields.
#[derive(Debug)]
pub struct Shape {
    /// For messages and the schema: what it is called, or the verb.
    pub name: &'static str,
    /// What it stands for.
    pub meaning: &'static str,
    /// Its fields.
    pub fields: &'static [Field],
}

/// One field of a mapping, or one argument of a fault.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its key.
    pub name: &'static str,
    /// What it may hold.
    pub kind: Kind,
    /// Whether it must be there.
    pub required: bool,
    /// What holds without it; empty where nothing needs to be said.
    pub default: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

impl Field {
    /// What it may hold, for a table.
    pub fn type_name(&self) -> String {
        self.kind.type_name()
    }
}

/// A field that must be there.
pub(crate) const fn required(name: &'static str, kind: Kind, meaning: &'static str) -> Field {
    Field {
        name,
        kind,
        required: true,
        default: "",
        meaning,
    }
}

/// A field with a default.
pub(crate) const fn optional(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    meaning: &'static str,
) -> Field {
    Field {
        name,
        kind,
        required: false,
        default,
        meaning,
    }
}

impl Kind {
    /// The kind in a word or two, for a table.
    pub fn type_name(self) -> String {
        match self {
            Kind::Text => "text".to_owned(),
            Kind::Name => "name".to_owned(),
            Kind::Bool => "true|false".to_owned(),
            Kind::Integer(..) => "number".to_owned(),
            Kind::Duration | Kind::SignedDuration => "duration".to_owned(),
            Kind::Range => "duration or range".to_owned(),
            Kind::Size => "size".to_owned(),
            Kind::Cpus => "cores".to_owned(),
            Kind::Rate => "rate".to_owned(),
            Kind::Expression => "expression".to_owned(),
            Kind::Node => "node".to_owned(),
            Kind::Choice(names) => names.join("|"),
            Kind::List(kind) => format!("list of {}", kind.type_name()),
            Kind::OneOrMany(kind) => format!("{0} or list of {0}", kind.type_name()),
            Kind::Map(kind) => format!("mapping to {}", kind.type_name()),
            Kind::Record(shape) => shape.name.to_owned(),
            Kind::Either(kinds) => kinds
                .iter()
                .map(|kind| kind.type_name())
                .collect::<Vec<_>>()
                .join(" or "),
            Kind::Verb(..) => "operation".to_owned(),
            Kind::Arguments => "arguments".to_owned(),
        }
    }

    /// What is expected, with an example, for a message.
    fn expected(self) -> String {
        match self {
            Kind::Text | Kind::Arguments => "a text".to_owned(),
            Kind::Name => "a name such as `web-1`".to_owned(),
            Kind::Bool => "`true` or `false`".to_owned(),
            Kind::Integer(min, max) if max >= i128::from(u64::MAX) => {
                format!("a whole number from {min}")
            }
            Kind::Integer(min, max) if min == max => format!("`{min}`"),
            Kind::Integer(min, max) => format!("a whole number from {min} to {max}"),
            Kind::Duration => "a duration such as `250ms`, `5s` or `10m`".to_owned(),
            Kind::SignedDuration => "a duration such as `-20s` or `5m`".to_owned(),
            Kind::Range => "a duration such as `5s` or a range such as `200us..2ms`".to_owned(),
            Kind::Size => "a size such as `4MiB`".to_owned(),
            Kind::Cpus => "a number of cores such as `4`, `0.5` or `250m`".to_owned(),
            Kind::Rate => "a rate such as `2/min`".to_owned(),
            Kind::Expression => "a CEL expression".to_owned(),
            Kind::Node => "a node's name such as `agent-2`".to_owned(),
            Kind::Choice([name]) => format!("`{name}`"),
            Kind::Choice(names) => {
                let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
                format!("one of {}", listed(&names).replace(" and ", " or "))
            }
            Kind::List(_) => "a list".to_owned(),
            Kind::OneOrMany(kind) => format!("{} or a list of such", kind.expected()),
            Kind::Map(_) | Kind::Record(_) | Kind::Verb(..) => "a mapping".to_owned(),
            Kind::Either(kinds) => kinds
                .iter()
                .map(|kind| kind.expected())
                .collect::<Vec<_>>()
                .join(", or "),
        }
    }

    /// Does a scalar fit? The error says why not, or nothing where `expected` says it all.
    fn scalar(self, text: &str, plain: bool) -> Result<(), String> {
        let nothing_more = |fits: bool| if fits { Ok(()) } else { Err(String::new()) };
        match self {
            Kind::Text | Kind::Expression => nothing_more(!text.trim().is_empty()),
            Kind::Name => name(text),
            Kind::Bool => nothing_more(plain && matches!(text, "true" | "false")),
            Kind::Integer(min, max) if plain => {
                let number = scalars::integer(text).map_err(|_| String::new())?;
                nothing_more((min..=max).contains(&number))
            }
            Kind::Integer(..) => Err("a number takes no quotes".to_owned()),
            Kind::Duration => scalars::duration(text).map(drop),
            Kind::SignedDuration => scalars::signed_nanos(text).map(drop),
            Kind::Range => scalars::range(text).map(drop),
            Kind::Size => scalars::size(text).map(drop),
            Kind::Cpus => scalars::cpu_millis(text).map(drop),
            Kind::Rate => scalars::rate(text).map(drop),
            Kind::Node => text
                .parse::<wavetank_model::NodeId>()
                .map(drop)
                .map_err(|_| String::new()),
            Kind::Choice(names) => nothing_more(names.contains(&text)),
            Kind::OneOrMany(kind) => kind.scalar(text, plain),
            Kind::Either(kinds) => either_scalar(kinds, text, plain),
            _ => Err(String::new()),
        }
    }
}

fn either_scalar(kinds: &[Kind], text: &str, plain: bool) -> Result<(), String> {
    let mut reason = String::new();
    for kind in kinds {
        match kind.scalar(text, plain) {
            Ok(()) => return Ok(()),
            Err(why) => reason = why,
        }
    }
    Err(reason)
}

/// Names go into ids, file names and expressions.
fn name(text: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || text.len() > 63 {
        return Err("a name has 1 to 63 characters".to_owned());
    }
    match text.chars().find(|c| !allowed(*c)) {
        Some(c) => Err(format!(
            "a name has letters, digits, `-`, `_` and `.`, but no {c:?}"
        )),
        None => Ok(()),
    }
}

/// Reports everything in `node` that does not fit `kind`.
pub(crate) fn check(node: &Node, kind: Kind, problems: &mut Problems) {
    match (&node.value, kind) {
        (_, Kind::Arguments) => {}
        (Value::List(items), Kind::List(kind) | Kind::OneOrMany(kind)) => {
            items.iter().for_each(|item| check(item, *kind, problems));
        }
        (Value::Map(entries), Kind::Map(kind)) => {
            for entry in entries {
                if let Err(why) = name(&entry.key) {
                    problems.add(
                        Problem::error(
                            "scenario::invalid-value",
                            entry.key_span,
                            format!("`{}` is not a name", crate::yaml::shortened(&entry.key)),
                        )
                        .label(why),
                    );
                }
                check(&entry.value, *kind, problems);
            }
        }
        (Value::Map(_), Kind::Record(shape)) => check_record(node, shape, problems),
        (Value::Map(_), Kind::Verb(common, verbs)) => check_verb(node, common, verbs, problems),
        (Value::Map(_), Kind::OneOrMany(kind)) => check(node, *kind, problems),
        (Value::Map(_) | Value::List(_), Kind::Either(kinds)) => {
            match kinds
                .iter()
                .find(|kind| fits_outwardly(&node.value, **kind))
            {
                Some(kind) => check(node, *kind, problems),
                None => mismatch(node, kind, "", problems),
            }
        }
        (Value::Scalar { text, plain }, kind) => {
            if let Err(why) = kind.scalar(text, *plain) {
                mismatch(node, kind, &why, problems);
            }
        }
        _ => mismatch(node, kind, "", problems),
    }
}

fn fits_outwardly(value: &Value, kind: Kind) -> bool {
    match value {
        Value::Map(_) => matches!(kind, Kind::Map(_) | Kind::Record(_) | Kind::Verb(..)),
        Value::List(_) => matches!(kind, Kind::List(_) | Kind::OneOrMany(_)),
        _ => false,
    }
}

fn mismatch(node: &Node, kind: Kind, why: &str, problems: &mut Problems) {
    let message = format!("expected {}, found {}", kind.expected(), node.describe());
    let label = if why.is_empty() {
        "this value".to_owned()
    } else {
        why.to_owned()
    };
    let help = match (kind, node.text()) {
        (Kind::Choice(names), Some(text)) => crate::diagnostic::nearest(text, names.to_vec())
            .map(|name| format!("did you mean `{name}`?")),
        (Kind::Either(kinds), Some(text)) => {
            let names = kinds.iter().flat_map(|kind| match kind {
                Kind::Choice(names) => *names,
                _ => &[],
            });
            crate::diagnostic::nearest(text, names.copied())
                .map(|name| format!("did you mean `{name}`?"))
        }
        _ => None,
    };
    let problem = Problem::error("scenario::invalid-value", node.span, message).label(label);
    problems.add(problem.maybe_help(help));
}

/// Reports unknown, missing and unfit fields of a mapping.
pub(crate) fn check_record(node: &Node, shape: &Shape, problems: &mut Problems) {
    check_fields(node, shape.name, shape.fields, problems);
}

/// The same for fields that do not come as a shape; `what` names the mapping.
pub(crate) fn check_fields(node: &Node, what: &str, fields: &[Field], problems: &mut Problems) {
    for entry in node.entries() {
        match fields.iter().find(|field| field.name == entry.key) {
            Some(field) => check(&entry.value, field.kind, problems),
            None => unknown_field(entry, what, fields, problems),
        }
    }
    for field in fields.iter().filter(|field| field.required) {
        if node.get(field.name).is_none() {
            let message = format!("{what} needs `{}`", field.name);
            let help = format!(
                "`{}` is {}: {}",
                field.name,
                field.kind.expected(),
                field.meaning
            );
            problems.add(
                Problem::error("scenario::missing-field", node.span, message)
                    .label(format!("`{}` is missing here", field.name))
                    .help(help),
            );
        }
    }
}

fn unknown_field(
    entry: &crate::yaml::Entry,
    what: &str,
    fields: &[Field],
    problems: &mut Problems,
) {
    let key = crate::yaml::shortened(&entry.key);
    let names = fields.iter().map(|field| field.name);
    let help = if fields.is_empty() {
        Some(format!("{what} takes none"))
    } else {
        hint(&entry.key, "the fields are", names)
    };
    let message = format!("{what} has no field `{key}`");
    problems.add(
        Problem::error("scenario::unknown-field", entry.key_span, message)
            .label("unknown field")
            .maybe_help(help),
    );
}

/// The verb that a mapping names, if it names exactly one.
pub(crate) fn verb_of(node: &Node, verbs: &'static [Shape]) -> Option<&'static Shape> {
    let mut named = verbs.iter().filter(|verb| node.get(verb.name).is_some());
    let verb = named.next();
    if named.next().is_some() { None } else { verb }
}

fn check_verb(
    node: &Node,
    common: &'static [Field],
    verbs: &'static [Shape],
    problems: &mut Problems,
) {
    if let Some(verb) = verb_of(node, verbs) {
        let fields: Vec<Field> = common.iter().chain(verb.fields).copied().collect();
        check_fields(node, &format!("`{}`", verb.name), &fields, problems);
        return;
    }
    let names: Vec<&str> = verbs.iter().map(|verb| verb.name).collect();
    let given: Vec<_> = node
        .entries()
        .iter()
        .filter(|entry| names.contains(&entry.key.as_str()))
        .collect();
    if let [first, second, ..] = given.as_slice() {
        let message = format!(
            "a step does one thing, not both `{}` and `{}`",
            first.key, second.key
        );
        problems.add(
            Problem::error("scenario::conflict", second.key_span, message)
                .label("the second")
                .also(first.key_span, "the first")
                .help("make two steps of it"),
        );
        return;
    }
    let is_known = |key: &str| {
        common
            .iter()
            .chain(verbs.iter().flat_map(|verb| verb.fields))
            .any(|f| f.name == key)
    };
    let unknown = node.entries().iter().find(|entry| !is_known(&entry.key));
    let (span, help) = match unknown {
        Some(entry) => (
            entry.key_span,
            hint(&entry.key, "the operations are", names),
        ),
        None => (
            node.span,
            Some(format!("the operations are: {}", listed(&names))),
        ),
    };
    problems.add(
        Problem::error(
            "scenario::missing-field",
            span,
            "this step names no operation",
        )
        .label("here")
        .maybe_help(help),
    );
}
