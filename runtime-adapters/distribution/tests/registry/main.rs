//! The client against registries that behave, misbehave and lie, over real sockets on loopback.
//!
//! `server` answers each path with bytes written by the test, so that an answer can be broken in
//! every way that TCP allows. What a good registry answers is in `cases`, what a bad one in
//! `hostile`.

mod cases;
mod hostile;
mod server;
