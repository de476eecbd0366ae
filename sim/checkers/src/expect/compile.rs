//! The language of expectations: `wavetank-scenario`'s expressions.

use serde_json::Value;
use wavetank_scenario::Expression;

use super::{Condition, Vocabulary};

impl Condition for Expression {
    fn mentions(&self, name: &str) -> bool {
        Expression::mentions(self, name)
    }

    fn evaluate(&self, facts: &Value) -> Result<bool, String> {
        Expression::evaluate(self, facts)
    }
}

/// Compiles an expression.
pub(crate) fn compile(vocabulary: Vocabulary, text: &str) -> Result<Box<dyn Condition>, String> {
    let compiled = match vocabulary {
        Vocabulary::Eventually => Expression::compile_eventually(text),
        Vocabulary::Never => Expression::compile_never(text),
    };
    match compiled {
        Ok(expression) => Ok(Box::new(expression)),
        Err(error) => Err(error.to_string()),
    }
}
