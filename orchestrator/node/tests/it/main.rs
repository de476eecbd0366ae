//! The shell's parts together, on a real machine's loopback.

mod admission;
mod exchange;
mod faults;
mod flood;
mod frames;
mod memory;
mod mutation;
mod proxy;
mod raw;
mod strangers;
mod support;
