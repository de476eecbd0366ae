//! The program as its users see it: arguments in, text and exit codes out.
//!
//! Map: `folder` (a folder with small scenarios, and the program started in it), `running` (runs
//! and their verdicts), `reading` (what is said without running), `contract` (runtimes put to the
//! test), `calibrate` (a real runtime and its model), `surroundings` (pipes, colours, stores, other
//! processes), `interrupted` (signals that end a set of live runs), `cluster` (a manager and an
//! agent as they ship, and an operator), `renewal` (their certificates), `up` (clusters of real
//! processes), `storm` (managers that are killed), `costs` (what real processes cost), `dev` (runs
//! whenever something changes). What the engine measured is redacted.

mod calibrate;
mod cluster;
mod contract;
mod costs;
mod dev;
mod folder;
mod interrupted;
mod reading;
mod renewal;
mod running;
mod storm;
mod surroundings;
mod up;
