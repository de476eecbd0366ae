//! A real node from its folder: what is kept there, how a node comes into being (`init`, `join`)
//! and how it runs (`manager`, `agent`, `client`).
//!
//! Map: `folder` (files besides identity and journal), `founding` (`init` and `join`), `manager`,
//! `agent`, `client`, `upkeep` (certificates and addresses, kept fresh while a node runs),
//! `runtimes` (container runtimes by name).

mod agent;
mod client;
mod folder;
mod founding;
mod manager;
mod runtimes;
mod upkeep;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use wavetank_model::{Incarnation, NodeId, NodeRole};

pub use agent::agent;
pub use client::client;
pub use folder::StateFolder;
pub use founding::{Founded, JoinRequest, init, join};
pub use manager::manager;
pub use runtimes::{RuntimeError, oci_config, open as open_runtime};

use crate::admission::AdmissionError;
use crate::api::metrics::Metrics;
use crate::config::Common;
use crate::events::EventLog;
use crate::identity::{FileError, IdentityError};
use crate::journal::JournalError;
use crate::node::NodeError;
use crate::observer::{Observer, Several};

/// Why a node cannot come into being, or does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The folder or something in it cannot be used.
    #[error("cannot use {}", path.display())]
    Folder {
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something is there already.
    #[error("{} already holds the identity of {node}; use another folder", path.display())]
    Taken {
        /// Which folder.
        path: PathBuf,
        /// Whose.
        node: NodeId,
    },
    /// There is nothing there.
    #[error(
        "{} holds no identity; use `init` for a new cluster or `join` for one that exists",
        path.display()
    )]
    Empty {
        /// Which folder.
        path: PathBuf,
    },
    /// The identity is for something else.
    #[error("{} holds the identity of {node}, who is no {}", path.display(), wanted.name())]
    Role {
        /// Which folder.
        path: PathBuf,
        /// Whose.
        node: NodeId,
        /// What it should be.
        wanted: NodeRole,
    },
    /// The identity files cannot be read or written.
    #[error(transparent)]
    Identity(#[from] FileError),
    /// An identity cannot be made.
    #[error("cannot make an identity")]
    Mint(#[source] IdentityError),
    /// Nobody let it in.
    #[error("cannot join the cluster")]
    Join(#[source] AdmissionError),
    /// The journal cannot be opened.
    #[error("cannot open the journal {}", path.display())]
    Journal {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: JournalError,
    },
    /// It cannot listen.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// It stopped, and should not have.
    #[error("the node cannot go on")]
    Node(#[source] NodeError),
}

/// Who is told what the node does: its metrics and, if it is to keep one, its event log.
fn observer(
    metrics: Arc<Metrics>,
    common: &Common,
    node: NodeId,
    incarnation: Incarnation,
) -> Result<Arc<dyn Observer>, ServeError> {
    let Some(path) = &common.events else {
        return Ok(metrics);
    };
    let log = EventLog::open(path, node, incarnation).map_err(|source| ServeError::Folder {
        path: path.clone(),
        source,
    })?;
    Ok(Arc::new(Several(vec![Arc::new(log), metrics])))
}

/// An error with everything below it, in one line.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(error) = below {
        text = format!("{text}: {error}");
        below = error.source();
    }
    text
}
