//! Facts in, truth out. Facts are JSON; only those that an expression speaks of are converted.

use std::collections::BTreeMap;
use std::sync::Arc;

use cel::objects::{Key, Value as CelValue};
use cel::{Context, ExecutionError};
use serde_json::Value;
use wavetank_trace::view::EVENT_KINDS;

use super::vocabulary::{FieldType, Form, RecordType, VOCABULARY};
use super::{Expression, Scope};

impl Expression {
    /// Evaluates with variables from `fact` and lookups into `facts`.
    pub(super) fn truth<'f>(
        &self,
        fact: impl Fn(&str) -> Option<&'f Value>,
        facts: &Value,
    ) -> Result<bool, String> {
        let mut context = Context::with_env(Arc::clone(&self.env));
        for name in &self.variables {
            if let Some(value) = self.variable(name, fact(name)) {
                context.add_variable_from_value(name.as_str(), value);
            }
        }
        self.add_lookups(&mut context, facts)?;
        match self.program.execute(&context) {
            Ok(CelValue::Bool(truth)) => Ok(truth),
            Ok(other) => Err(format!(
                "`{}` yields {other:?}, not true or false",
                self.source
            )),
            Err(error) if is_about_null(&error) => Ok(false),
            Err(error) => Err(format!("`{}` cannot be evaluated: {error}", self.source)),
        }
    }

    /// The value of a variable of the vocabulary; `None` for the variables of macros.
    fn variable(&self, name: &str, fact: Option<&Value>) -> Option<CelValue> {
        if let Scope::Event(kind) = self.scope {
            let field = EVENT_KINDS[kind]
                .fields
                .iter()
                .any(|(field, _)| *field == name);
            return field.then(|| fact.map_or(CelValue::Null, convert));
        }
        let terms = VOCABULARY.iter().filter(|term| term.form != Form::Lookup);
        let term = terms.into_iter().find(|term| term.name == name)?;
        Some(match (term.form, fact) {
            (Form::List, Some(Value::Array(items))) => {
                let items = items.iter().map(|item| record(term.record, Some(item)));
                CelValue::List(items.collect::<Vec<_>>().into())
            }
            (Form::List, _) => CelValue::List(Vec::new().into()),
            (Form::Map, Some(Value::Object(entries))) => {
                let entry = |(name, item): (&String, &Value)| {
                    (Key::from(name.as_str()), record(term.record, Some(item)))
                };
                map(entries.iter().map(entry).collect())
            }
            (Form::Map, _) => map(BTreeMap::new()),
            (Form::Record | Form::Lookup, fact) => record(term.record, fact),
        })
    }

    /// Adds `service`, `node` and `lease`, with the entries that literal names ask for; with all of
    /// them if a name is computed.
    fn add_lookups(&self, context: &mut Context<'_, '_>, facts: &Value) -> Result<(), String> {
        for term in VOCABULARY.iter().filter(|term| term.form == Form::Lookup) {
            if !self.program.references().has_function(term.name) {
                continue;
            }
            let plural = format!("{}s", term.name);
            let found = facts.get(&plural).and_then(Value::as_object);
            let entries: BTreeMap<String, CelValue> = found
                .into_iter()
                .flatten()
                .map(|(name, item)| (name.clone(), record(term.record, Some(item))))
                .collect();
            let missing = record(term.record, None);
            let lookup = move |name: Arc<String>| -> CelValue {
                entries.get(name.as_str()).unwrap_or(&missing).clone()
            };
            context
                .add_function(term.name, lookup)
                .map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

/// A record with all its fields: what is missing of services and leases is zero, false or empty;
/// what is missing of others is absent.
fn record(of: &RecordType, item: Option<&Value>) -> CelValue {
    let absent = |kind: FieldType| match kind {
        FieldType::Int if of.zeros => CelValue::Int(0),
        FieldType::Bool if of.zeros => CelValue::Bool(false),
        FieldType::Text if of.zeros => CelValue::String(Arc::default()),
        _ => CelValue::Null,
    };
    let field = |fact: &super::vocabulary::Fact| {
        let value = item
            .and_then(|item| item.get(fact.name))
            .filter(|value| !value.is_null());
        (
            Key::from(fact.name),
            value.map_or_else(|| absent(fact.kind), convert),
        )
    };
    map(of.fields.iter().map(field).collect())
}

/// The library keeps maps in an order of its own; expressions look up by name.
fn map(entries: BTreeMap<Key, CelValue>) -> CelValue {
    CelValue::Map(cel::objects::Map {
        map: Arc::new(entries.into_iter().collect()),
    })
}

fn convert(value: &Value) -> CelValue {
    match value {
        Value::Null => CelValue::Null,
        Value::Bool(truth) => CelValue::Bool(*truth),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => CelValue::Int(number),
            (None, Some(number)) => CelValue::UInt(number),
            (None, None) => CelValue::Float(number.as_f64().unwrap_or(0.0)),
        },
        Value::String(text) => CelValue::String(Arc::new(text.clone())),
        Value::Array(items) => CelValue::List(items.iter().map(convert).collect::<Vec<_>>().into()),
        Value::Object(entries) => {
            let entry =
                |(name, value): (&String, &Value)| (Key::from(name.as_str()), convert(value));
            map(entries.iter().map(entry).collect())
        }
    }
}

/// True if the evaluation failed because a value is absent: such a comparison is not true.
fn is_about_null(error: &ExecutionError) -> bool {
    match error {
        ExecutionError::NoSuchOverload(overload) => overload
            .argument_types()
            .iter()
            .any(|name| name.starts_with("null")),
        ExecutionError::ValuesNotComparable(a, b) => {
            matches!(a, CelValue::Null) || matches!(b, CelValue::Null)
        }
        _ => false,
    }
}
