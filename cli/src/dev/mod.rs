//! The developer's loop: something changed, so build, run, compare.
//!
//! Map: `cycle` (what to do next, without IO), `watch` (what has changed on the disk), `task` (the
//! builds and runs, as processes of their own). `commands/dev` puts them together.

pub mod cycle;
pub mod task;
pub mod watch;
