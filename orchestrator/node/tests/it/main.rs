//! The shell's parts together, on a real machine's loopback.

mod admission;
mod callers;
mod exchange;
mod faults;
mod flood;
mod frames;
mod memory;
mod mutation;
mod proxy;
mod raw;
mod requests;
mod strangers;
mod streams;
mod support;
