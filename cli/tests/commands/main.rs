//! The program as its users see it: arguments in, text and exit codes out.
//!
//! Map: `folder` (a folder with small scenarios, and the program started in it), `running` (runs
//! and their verdicts), `reading` (what is said without running), `contract` (runtimes put to the
//! test), `surroundings` (pipes, colours, stores, other processes), `cluster` (a
//! manager and an agent as they ship, and an operator). What the engine measured is redacted.

mod cluster;
mod contract;
mod folder;
mod reading;
mod running;
mod surroundings;
