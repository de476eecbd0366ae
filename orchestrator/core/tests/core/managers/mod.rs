//! Managers among themselves: elections, replication, restarts, damaged disks, membership; and
//! what agents and clients get from them.

mod agents;
mod chaos;
mod clients;
mod cluster;
mod consensus;
mod disks;
mod membership;
