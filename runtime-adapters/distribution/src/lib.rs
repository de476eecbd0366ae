//! A client of registries: the pull side of the OCI distribution specification.
//!
//! It fetches and verifies; it stores nothing. An adapter resolves a reference to a manifest,
//! reads the configuration, and takes each layer as a stream into a store of its own.
//!
//! Map: `reference` (names of images), `registries` (which hosts are plain HTTP, which have
//! mirrors), `client` (the calls), `blob` (a layer as a stream), `digest` (content is what its name
//! says), `auth` (Basic and Bearer), `transport` (one GET: redirects, time limits, status codes),
//! `error`.
//!
//! # Time
//! No call has a deadline of its own: dropping a future cancels it, and the caller knows how long
//! it may take. What is limited here is silence, see [`Registries::idle_timeout`].
//!
//! # Why not `oci-client`
//! `oci-client` 0.18 reads manifests, tokens and error pages into memory without a limit, knows
//! no mirrors, and takes a tree of 87 crates to 189. Types and names come from `oci-spec`, HTTP
//! from hyper, TLS from rustls, challenges from `http-auth`; what is written here joins them.

mod auth;
mod blob;
mod client;
mod digest;
mod error;
mod reference;
mod registries;
mod transport;

pub use blob::Blob;
pub use client::{Client, Repository, Resolved};
pub use digest::{Verifier, sha256};
pub use error::{DistributionError, Result};
pub use oci_spec::image::{Descriptor, Digest, ImageConfiguration, ImageManifest, MediaType};
pub use reference::{Reference, Selector};
pub use registries::Registries;

/// The largest manifest or index that is read, in bytes: what the distribution specification asks
/// registries to accept at least ("Pushing Manifests").
pub const MANIFEST_BYTES_MAX: u64 = 4 << 20;

/// The largest image configuration that is read, in bytes. The specification names no limit; real
/// ones have a few KiB.
pub const CONFIG_BYTES_MAX: u64 = 8 << 20;
