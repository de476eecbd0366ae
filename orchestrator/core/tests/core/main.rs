//! Tests of whole state machines: several of them in a small deterministic world, seen from
//! outside. Each module's documentation says what is in its world.

mod agents;
mod managers;
mod planning;
