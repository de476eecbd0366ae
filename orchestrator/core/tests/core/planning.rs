//! The store and the leader's planning, driven without consensus or network. Tests that stand
//! for a known failure of a real orchestrator carry its number.

mod admission;
mod cluster;
mod life;
mod random;
mod requests;
mod rollouts;
mod rules;
