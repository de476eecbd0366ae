//! The production shell around the orchestrator's decisions: what they want done is done here, in
//! the order that `wavetank-core` demands. It decides nothing.
//!
//! Map: `journal` (durable records). The rest of the shell is not here yet.

pub mod journal;

pub use journal::{Journal, JournalError};
