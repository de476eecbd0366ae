//! What a user of scenario files sees: plans, timelines, diagnostics, schema.

mod examples;
mod expressions;
mod malformed;
mod measured;
mod plans;
mod properties;
mod support;
