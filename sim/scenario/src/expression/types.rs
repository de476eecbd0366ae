//! Types of values in expressions.

use cel::IdedExpr;
use cel::common::ast::{Expr, LiteralValue};

use super::vocabulary::{FieldType, RecordType, VOCABULARY, values_of};

/// The type of a value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Type {
    Bool,
    Int,
    Double,
    /// A text; where its values are known, these are all.
    Text(Option<Vec<&'static str>>),
    Null,
    List(Box<Type>),
    Map(Box<Type>),
    Record(&'static str),
    /// Not known: fits everywhere.
    Any,
}

impl Type {
    pub fn name(&self) -> String {
        match self {
            Type::Bool => "true or false".to_owned(),
            Type::Int | Type::Double => "a number".to_owned(),
            Type::Text(_) => "a text".to_owned(),
            Type::Null => "null".to_owned(),
            Type::List(_) => "a list".to_owned(),
            Type::Map(_) => "a mapping".to_owned(),
            Type::Record(name) => format!("a {name}"),
            Type::Any => "anything".to_owned(),
        }
    }

    pub fn is_number(&self) -> bool {
        matches!(self, Type::Int | Type::Double | Type::Any | Type::Null)
    }

    pub fn is_text(&self) -> bool {
        matches!(self, Type::Text(_) | Type::Any | Type::Null)
    }

    pub fn is_bool(&self) -> bool {
        matches!(self, Type::Bool | Type::Any)
    }

    pub fn comparable(&self, other: &Type) -> bool {
        match (self, other) {
            (Type::Any | Type::Null, _) | (_, Type::Any | Type::Null) => true,
            (Type::Text(_), Type::Text(_)) => true,
            (Type::Int | Type::Double, Type::Int | Type::Double) => true,
            (Type::List(a), Type::List(b)) | (Type::Map(a), Type::Map(b)) => a.comparable(b),
            _ => self == other,
        }
    }
}

pub(super) fn literal_type(literal: &LiteralValue) -> Type {
    match literal {
        LiteralValue::Boolean(_) => Type::Bool,
        LiteralValue::Int(_) | LiteralValue::UInt(_) => Type::Int,
        LiteralValue::Double(_) => Type::Double,
        LiteralValue::String(_) => Type::Text(None),
        LiteralValue::Null => Type::Null,
        LiteralValue::Bytes(_) => Type::Any,
    }
}

pub(super) fn text_of(node: &IdedExpr) -> Option<&str> {
    match &node.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner()),
        _ => None,
    }
}

pub(super) fn field_type(record: &str, field: &str, kind: FieldType) -> Type {
    match kind {
        FieldType::Int => Type::Int,
        FieldType::Bool => Type::Bool,
        FieldType::Text => Type::Text(values_of(record, field)),
    }
}

pub(super) fn record_named(name: &str) -> Option<&'static RecordType> {
    VOCABULARY
        .iter()
        .map(|term| term.record)
        .find(|record| record.name == name)
}
