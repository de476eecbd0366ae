//! The worlds of shells: that they repeat themselves, and that they catch broken shells.

mod mutants;
mod runs;
