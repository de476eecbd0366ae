//! What came of runs, as people and machines want to read it.
//!
//! Map: `run_report` (one run), `summary` (many runs: rows per scenario, distinct failures),
//! `exit_code` (what a process says when it ends), `replay` (the command that plays a run again),
//! `parity` (a simulated run beside a real one), `since` (a run beside the one before), `table`,
//! `json`, `junit`, `markdown` (renderers: pure functions from data to text), `bench` (speed of the
//! engine), `shell` (cost of real nodes), `figures` (numbers and times for people).
//!
//! Nothing here runs, reads or prints anything: the command line decides where text goes, whether
//! it may have colours, and how wide it is.
//!
//! # Determinism
//! Equal runs give equal text. No wall-clock time is in any report but the benchmark's.

pub mod bench;
pub mod exit_code;
pub mod figures;
pub mod json;
pub mod junit;
pub mod markdown;
pub mod parity;
pub mod replay;
pub mod run_report;
pub mod shell;
pub mod since;
pub mod summary;
pub mod table;

pub use bench::BenchRow;
pub use run_report::{Divergence, LiveRun, RunIdentity, RunReport, RunVerdict};
pub use summary::{Disagreement, Failure, IdleFault, ScenarioSummary, Summary};
pub use table::Style;
