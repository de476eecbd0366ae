//! Systems that were broken on purpose: each does what an orchestrator once did wrong, and one
//! checker must catch it. They live outside the orchestrator: a mutant wraps real processes and
//! changes what goes in and what comes out, so that shipping code needs no switch for tests.
//!
//! Map: `wrapper` (a process with an edit around it), `table` (every mutant: what it does wrong,
//! who must catch it, and where), `managers` and `agents` (the edits).
//!
//! # Determinism
//! As in the core, with one exception that is its purpose: the mutant for I24.

mod agents;
mod managers;
mod table;
mod wrapper;

pub use table::{MUTANTS, Mutant};
pub use wrapper::{Edit, Mutated};
