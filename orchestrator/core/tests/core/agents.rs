//! Tests of one agent in a small world of its own: a runtime whose every answer can be bent
//! (`runtime`), a manager of a few lines (`manager`), a disk, and virtual time (`harness`). What
//! the agent must never do is checked after every step, whatever a test is about.
//!
//! The letters and numbers in test names' comments are failure modes of the systems that this
//! orchestrator replaces.

mod elections;
mod harness;
mod images;
mod lifecycle;
mod manager;
mod observation;
mod properties;
mod recovery;
mod restarts;
mod runtime;
mod sessions;
mod specs;
mod stopping;
