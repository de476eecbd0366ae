//! Scenario files: from YAML to a [`plan::Plan`], with diagnostics that point at the line.
//!
//! Data flows one way: text -> tree (`yaml`) -> merged tree (`include`) -> checked tree (`kind`
//! over the tables of `format` and `faults`) -> definition (`resolve`) -> plan (`expand` with
//! `swarm`). Everything that can be wrong is found before the last step, so that a plan for any
//! seed cannot fail.
//!
//! Map: `plan` (the contract with executors), `scenario` (reading), `format`, `faults`, `checks`,
//! `profiles` (tables), `expression` (CEL), `schema`, `explain` (the tables and plans for people),
//! `lints`, `diagnostic`, `scalars`, `read`, `draw` (helpers), `quantiles` (what was measured of
//! a runtime).
//!
//! # Determinism
//! A plan depends on the files and the seed alone. Every draw has a stream of its own, keyed by
//! seed, fault and purpose; draws use integers only.

pub mod checks;
mod diagnostic;
mod draw;
mod expand;
mod explain;
pub mod expression;
pub mod faults;
mod format;
mod include;
mod kind;
mod lints;
pub mod plan;
pub mod profiles;
mod quantiles;
mod read;
mod resolve;
mod scalars;
mod scenario;
mod schema;
mod swarm;
mod yaml;

pub use diagnostic::{Diagnostic, LoadError, Place, Severity};
pub use expression::{Expression, ExpressionError};
pub use format::FORMAT_VERSION;
pub use kind::{Field, Kind, Shape};
pub use plan::Plan;
pub use quantiles::steps_as_yaml;
pub use scenario::{Override, Scenario, Seeds, load, load_with};
pub use schema::json_schema;
