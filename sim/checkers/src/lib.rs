//! The judges of a run: one property per file, fed with trace events and the plan, and nothing
//! else, so that a stored trace is judged exactly as the run was.
//!
//! Map: `finding` (what is handed out: findings, verdicts, judgements), `checker` (the trait, and
//! the report that checkers read models from and write findings to), `registry` (the table of all
//! checkers), `judge` (runs the checkers that a plan names and comes to a verdict), `expect` (the
//! plan's `eventually` and `never`), `model` (what several checkers need to know: the replicated
//! store, the containers in truth, who is disturbed). `i01_...` to `i24_...` and `linearizable`
//! are the checkers; each header says what counts as a breach and what is exempt, and why.
//!
//! # Determinism
//! No clock, no randomness, no IO, ordered maps only: the same events give the same findings in
//! the same order. Memory is bounded by what is alive in the run, not by its length.

pub mod checker;
pub mod expect;
pub mod finding;
mod i01_effective_leader;
mod i02_durable_commits;
mod i03_convergence;
mod i04_bounded_instances;
mod i05_truthful_exits;
mod i06_legal_transitions;
mod i07_idempotent_stop;
mod i08_no_orphans;
mod i09_bounded_restarts;
mod i10_stays_stopped;
mod i12_stop_grace;
mod i13_no_silent_success;
mod i14_complete_reports;
mod i16_down_verdicts;
mod i17_availability;
mod i20_placement;
mod i21_unknown_is_not_absent;
mod i23_workloads_survive;
pub mod judge;
mod linearizable;
pub mod model;
pub mod registry;
#[cfg(test)]
mod testing;

pub use checker::{Checker, Report};
pub use finding::{FaultOutcome, FaultSummary, Finding, Judgement, Verdict};
pub use judge::Judge;
pub use registry::CHECKERS;
