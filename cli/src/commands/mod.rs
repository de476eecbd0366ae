//! One file per command: its arguments, what it does, what it prints, its exit code.

pub mod agent_sim;
pub mod bench;
pub mod bench_row;
pub mod bench_runtime;
pub mod bench_shell;
pub mod calibrate;
pub mod check;
pub mod conformance;
pub mod dev;
pub mod digests;
pub mod doctor;
pub mod faults;
pub mod report;
pub mod run;
pub mod scenario;
pub mod trace;
pub mod up;
pub mod vocabulary;
