//! The shell's parts together, on a real machine's loopback.

mod exchange;
mod support;
