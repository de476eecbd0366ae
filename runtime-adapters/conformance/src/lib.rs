//! One contract for every runtime adapter: the same cases, run on each.
//!
//! Map: `cases` (the table and the bodies, by theme), `case` (what a case is and how one ends),
//! `run` (each case on an arm of its own, with a deadline), `arm` (what a case may break around a
//! runtime), `bed` (one case's ids and usual calls), `watch` (events, collected), `check` (what was
//! expected and what came), `arms` (the real runtimes), `host` (whether this machine has them),
//! `latency` (how long each step takes).
//!
//! A case is not applicable only where a runtime's capability table calls a capability missing.
//! All waiting is by tokio's clock, so that a simulated runtime can be tested in virtual time.

pub mod arm;
pub mod arms;
pub mod bed;
pub mod case;
pub mod cases;
pub mod check;
pub mod host;
pub mod latency;
pub mod run;
pub mod watch;

pub use arm::{Arm, ArmError, Images, RegistryFault, Resources};
pub use bed::Bed;
pub use case::{Case, CaseResult, Outcome};
pub use cases::{CASES, case};
pub use check::{Check, Unmet};
pub use run::{Bench, run_case};
pub use wavetank_fixtures::TestImage;
