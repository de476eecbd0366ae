//! Messages between two versions of the program: what a field that was renamed, retyped or left out
//! does to the receiver's decoder.

use serde_json::Value;
use wavetank_core::Message;
use wavetank_scenario::plan::Action;

/// Passes a message through the sender's other version. `Err` is what the receiver's decoder says.
pub fn translate(message: &Message, action: &Action) -> Result<Message, String> {
    let mut value = serde_json::to_value(message).map_err(|error| error.to_string())?;
    match action {
        Action::CodecRetype { field, .. } => change(&mut value, field, |fields, name| {
            if let Some(old) = fields.get_mut(name) {
                *old = retyped(old);
            }
        }),
        Action::CodecRename { field, .. } => change(&mut value, field, |fields, name| {
            if let Some(old) = fields.remove(name) {
                fields.insert(format!("{name}_renamed"), old);
            }
        }),
        Action::CodecMissing { field, .. } => change(&mut value, field, |fields, name| {
            fields.remove(name);
        }),
        _ => {}
    }
    serde_json::from_value(value).map_err(|error| error.to_string())
}

type Fields = serde_json::Map<String, Value>;

/// Messages are encoded as `{ kind: { field: value, ... } }`.
fn change(value: &mut Value, field: &str, edit: impl FnOnce(&mut Fields, &str)) {
    let fields = value
        .as_object_mut()
        .and_then(|outer| outer.values_mut().next());
    if let Some(fields) = fields.and_then(Value::as_object_mut) {
        edit(fields, field);
    }
}

/// The same value under another type.
fn retyped(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::from(text.len()),
        other => Value::String(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wavetank_model::{Epoch, Revision, SessionId};

    fn heartbeat() -> Message {
        Message::Heartbeat {
            session: SessionId(1),
            sent_at: 5,
            assignments: (Epoch(1), Revision(2)),
        }
    }

    #[test]
    fn another_type_another_name_and_no_field_are_refused_and_named() {
        let (message, field) = ("heartbeat".to_owned(), "sent_at".to_owned());
        for action in [
            Action::CodecRetype {
                message: message.clone(),
                field: field.clone(),
            },
            Action::CodecRename {
                message: message.clone(),
                field: field.clone(),
            },
            Action::CodecMissing { message, field },
        ] {
            assert!(translate(&heartbeat(), &action).is_err(), "{action:?}");
        }
    }

    #[test]
    fn a_field_that_does_not_exist_changes_nothing() {
        let (message, field) = ("heartbeat".to_owned(), "no_such".to_owned());
        let action = Action::CodecRetype { message, field };
        assert_eq!(translate(&heartbeat(), &action), Ok(heartbeat()));
    }
}
