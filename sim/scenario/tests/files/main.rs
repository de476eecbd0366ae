//! What a user of scenario files sees: plans, timelines, diagnostics, schema.

mod examples;
mod support;
