//! Rooms on this machine, for real: as root, with namespaces, daemons and containers.

#[path = "room/bench.rs"]
mod bench;
#[path = "room/leaving.rs"]
mod leaving;
#[path = "room/machines.rs"]
mod machines;
#[path = "room/network.rs"]
mod network;
#[path = "room/runtimes.rs"]
mod runtimes;
