//! The arms of the real runtimes: private daemons in a folder of their own, always ended.

pub mod containerd;
pub mod images;
pub mod oci;
pub mod podman;
