//! The adapter on a real OCI runtime: life, death of monitors and callers, recovery.

mod chaos;
mod crash;
mod lifecycle;
mod recovery;
mod removal;
mod support;
