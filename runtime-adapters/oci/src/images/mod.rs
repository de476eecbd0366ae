//! Images on this machine: fetched from registries, unpacked once, shared by all containers.
//!
//! Map: `store` (what is on disk), `layer` (a layer's archive into a folder), `pull` (from the
//! registry into the store).

mod layer;
mod pull;
mod store;

pub use layer::{LayerError, unpack};
pub use pull::Puller;
pub use store::{ImageStore, StoredImage};
