//! The suite on every arm that this machine has, and the suite itself on runtimes that are wrong.

mod catches;
mod containerd;
mod flawed;
mod flawed_arm;
mod real;
mod sim;
mod storm;
