//! The format as JSON Schema, made from the same tables as the check, for editors and other tools.

use serde_json::{Map, Value, json};

use crate::faults::{self, CATALOGUE};
use crate::format;
use crate::kind::{Field, Kind, Shape};

/// The JSON Schema (draft 2020-12) of a scenario file.
pub fn json_schema() -> Value {
    let mut definitions = Definitions::default();
    let root = definitions.record(&format::SCENARIO);
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://wavetank.dev/schema/scenario-1.json",
        "title": "wavetank scenario",
    });
    merge(&mut schema, root);
    merge(&mut schema, json!({ "$defs": definitions.done }));
    schema
}

#[derive(Default)]
struct Definitions {
    done: Map<String, Value>,
}

impl Definitions {
    fn kind(&mut self, kind: Kind) -> Value {
        match kind {
            Kind::Text => json!({ "type": ["string", "number", "boolean"] }),
            Kind::Name => text("^[A-Za-z0-9_.-]{1,63}$", &["string", "integer"]),
            Kind::Bool => json!({ "type": "boolean" }),
            Kind::Integer(min, max) => integer(min, max),
            Kind::Duration => time(DURATION),
            Kind::SignedDuration => time(SIGNED),
            Kind::Range => time(RANGE),
            Kind::Size => text("^[0-9.]+ *([KMGT]i?B|kB|B)?$", &["string", "integer"]),
            Kind::Cpus => text("^[0-9.]+m?$", &["string", "number"]),
            Kind::Rate => text("^[0-9]+ */ *[0-9a-z.]+$", &["string"]),
            Kind::Expression => json!({ "type": "string", "minLength": 1 }),
            Kind::Node => text("^(manager|agent|client)-[1-9][0-9]*$", &["string"]),
            Kind::Choice(names) => json!({ "enum": names }),
            Kind::List(kind) => json!({ "type": "array", "items": self.kind(*kind) }),
            Kind::OneOrMany(kind) => {
                let one = self.kind(*kind);
                json!({ "anyOf": [one, { "type": "array", "items": one }] })
            }
            Kind::Map(kind) => {
                json!({ "type": "object", "additionalProperties": self.kind(*kind) })
            }
            Kind::Record(shape) if shape.name == "fault" => self.fault(shape),
            Kind::Record(shape) => self.reference(shape),
            Kind::Either(kinds) => {
                let kinds: Vec<Value> = kinds.iter().map(|kind| self.kind(*kind)).collect();
                json!({ "anyOf": kinds })
            }
            Kind::Verb(common, verbs) => self.verbs(common, verbs),
            Kind::Arguments => json!({ "type": "object" }),
        }
    }

    /// Shapes are called by name; two shapes of one name differ in their fields.
    fn reference(&mut self, shape: &'static Shape) -> Value {
        let fields: Vec<&str> = shape.fields.iter().map(|field| field.name).collect();
        let key = match shape.name {
            "health" if fields == ["after"] => "image-health",
            name => name,
        };
        if !self.done.contains_key(key) {
            // Shapes do not contain themselves, so this ends; the mark keeps twins apart.
            let record = self.record(shape);
            self.done.insert(key.to_owned(), record);
        }
        json!({ "$ref": format!("#/$defs/{key}") })
    }

    fn record(&mut self, shape: &Shape) -> Value {
        self.object(shape.meaning, shape.fields.iter())
    }

    fn object<'f>(
        &mut self,
        meaning: &str,
        fields: impl Iterator<Item = &'f Field> + Clone,
    ) -> Value {
        let required: Vec<&str> = fields
            .clone()
            .filter(|field| field.required)
            .map(|field| field.name)
            .collect();
        let properties: Map<String, Value> = fields
            .map(|field| (field.name.to_owned(), self.field(field)))
            .collect();
        json!({
            "description": meaning,
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": false,
        })
    }

    fn field(&mut self, field: &Field) -> Value {
        let mut schema = match field.name {
            "action" => json!({ "enum": faults::names().collect::<Vec<_>>() }),
            _ => self.kind(field.kind),
        };
        let default = if field.default.is_empty() {
            String::new()
        } else {
            format!(" (default: {})", field.default)
        };
        merge(
            &mut schema,
            json!({ "description": format!("{}{default}", field.meaning) }),
        );
        schema
    }

    fn verbs(&mut self, common: &'static [Field], verbs: &'static [Shape]) -> Value {
        let one = |shapes: &mut Self, verb: &Shape| {
            shapes.object(verb.meaning, common.iter().chain(verb.fields))
        };
        let verbs: Vec<Value> = verbs.iter().map(|verb| one(self, verb)).collect();
        json!({ "oneOf": verbs })
    }

    /// A fault's arguments depend on its action.
    fn fault(&mut self, shape: &Shape) -> Value {
        let mut fault = self.record(shape);
        let branches: Vec<Value> = CATALOGUE
            .iter()
            .map(|info| {
                let args = match info.action {
                    "operator" => self.verbs(&[], format::VERBS),
                    _ => self.object(info.summary, info.args.iter()),
                };
                let needs = info.action == "operator" || info.args.iter().any(|arg| arg.required);
                let required: &[&str] = if needs { &["args"] } else { &[] };
                json!({
                    "if": { "properties": { "action": { "const": info.action } } },
                    "then": { "properties": { "args": args }, "required": required },
                })
            })
            .collect();
        merge(&mut fault, json!({ "allOf": branches }));
        self.done.insert("fault".to_owned(), fault);
        json!({ "$ref": "#/$defs/fault" })
    }
}

const DURATION: &str = "^(0|([0-9]+(\\.[0-9]+)?(ns|us|µs|ms|s|m|h))+)$";
const SIGNED: &str = "^[+-]?(0|([0-9]+(\\.[0-9]+)?(ns|us|µs|ms|s|m|h))+)$";
const RANGE: &str = "^(0|([0-9]+(\\.[0-9]+)?(ns|us|µs|ms|s|m|h))+)\
     ( *\\.\\. *(0|([0-9]+(\\.[0-9]+)?(ns|us|µs|ms|s|m|h))+))?$";

/// A bare zero is a number to YAML.
fn time(pattern: &str) -> Value {
    json!({ "anyOf": [text(pattern, &["string"]), { "const": 0 }] })
}

fn text(pattern: &str, types: &[&str]) -> Value {
    json!({ "type": types, "pattern": pattern })
}

fn integer(min: i128, max: i128) -> Value {
    let min = i64::try_from(min).unwrap_or(i64::MIN);
    match u64::try_from(max) {
        Ok(max) => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Err(_) => json!({ "type": "integer", "minimum": min }),
    }
}

fn merge(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more);
    }
}
