//! `wavetank scenario vocabulary`: what `on`, `where`, `eventually` and `never` can speak of.

use clap::Args;
use serde::Serialize;
use wavetank_reports::{exit_code, json, table};
use wavetank_scenario::expression::vocabulary::{FUNCTIONS, Form, Term, VOCABULARY};
use wavetank_trace::view::{EVENT_KINDS, EventKind};

use crate::failure::Failure;
use crate::output::{self, ListFormat};

/// Arguments of `scenario vocabulary`.
#[derive(Args)]
pub struct VocabularyArguments {
    /// How to print it.
    #[arg(long, value_enum, default_value = "table")]
    format: ListFormat,
}

/// One word.
#[derive(Serialize)]
struct Row {
    kind: &'static str,
    word: String,
    /// `name: type`.
    fields: Vec<String>,
    meaning: &'static str,
}

fn event(kind: &EventKind) -> Row {
    let fields = kind.fields.iter();
    Row {
        kind: "event",
        word: kind.name.to_owned(),
        fields: fields
            .map(|(name, kind)| format!("{name}: {kind}"))
            .collect(),
        meaning: kind.meaning,
    }
}

fn term(term: &Term) -> Row {
    let name = term.name;
    let fields = term.record.fields.iter();
    Row {
        kind: match term.moment {
            true => "in never",
            false => "expression",
        },
        word: match term.form {
            Form::Lookup => format!("{name}(\"NAME\")"),
            Form::Record => name.to_owned(),
            Form::List => format!("{name} (a list)"),
            Form::Map => format!("{name}[\"NAME\"]"),
        },
        fields: fields
            .map(|fact| format!("{}: {}", fact.name, fact.kind.name()))
            .collect(),
        meaning: term.meaning,
    }
}

/// Prints events, then words, then functions.
pub fn run(arguments: &VocabularyArguments) -> Result<u8, Failure> {
    let functions = FUNCTIONS.iter().map(|function| Row {
        kind: "function",
        word: function.usage.to_owned(),
        fields: Vec::new(),
        meaning: function.meaning,
    });
    let events = EVENT_KINDS.iter().map(event);
    let rows: Vec<Row> = events
        .chain(VOCABULARY.iter().map(term))
        .chain(functions)
        .collect();
    let text = match arguments.format {
        ListFormat::Json => rows.iter().map(json::line).collect::<Result<String, _>>()?,
        ListFormat::Table => {
            let header = ["for", "word", "what it is", "fields"];
            let cells = rows.iter().map(|row| {
                let (kind, meaning) = (row.kind.to_owned(), row.meaning.to_owned());
                vec![kind, row.word.clone(), meaning, row.fields.join(", ")]
            });
            table::list(&header, cells, output::stdout_style())
        }
    };
    output::print(&text)?;
    Ok(exit_code::PASS)
}
