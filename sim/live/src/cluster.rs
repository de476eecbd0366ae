//! The nodes of a plan as real nodes find themselves: a folder each with identity, addresses and
//! configuration, all under one authority that lives as long as the run.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::Command;

use serde_json::json;
use wavetank_engine::roster::Roster;
use wavetank_model::{Backoff, NodeId, NodeRole, Timers};
use wavetank_node::identity::{Ca, FileError, Identity, IdentityError, LIFETIME, PrivateKey};
use wavetank_node::serve::{ServeError, StateFolder};
use wavetank_node::transport::AddressBook;
use wavetank_node::{Os, Platform as _};
use wavetank_scenario::plan::Plan;

use crate::agent::Attachment;
use crate::pace::Pace;
use crate::room::{Room, RoomError};
use crate::scene::SceneConfig;

/// The port on which managers listen for nodes.
const PORT: u16 = 7443;
/// Clients of a plan have these numbers on top: each manager keeps a client with its own number.
const CLIENTS_FROM: u32 = 20_000;

/// Why the nodes cannot be prepared.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// A certificate cannot be made.
    #[error("cannot make an identity")]
    Identity(#[source] IdentityError),
    /// A folder cannot be filled.
    #[error("cannot prepare the folder of a node")]
    Folder(#[source] ServeError),
    /// An identity cannot be kept.
    #[error("cannot keep an identity")]
    Keep(#[source] FileError),
    /// A configuration cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The managers have no addresses.
    #[error(transparent)]
    Room(#[from] RoomError),
    /// Timers that cannot be told.
    #[error("the timers cannot be written down")]
    Timers(#[source] serde_json::Error),
}

/// Everything that nodes have in common.
#[derive(Debug)]
pub struct Cluster {
    authority: Ca,
    book: AddressBook,
    timers: Timers,
    program: PathBuf,
}

/// Where one node lives.
#[derive(Clone, Debug)]
pub struct Home {
    /// Its folder; a wipe empties it.
    pub folder: PathBuf,
    /// Its event log, which outlives a wipe.
    pub events: PathBuf,
}

impl Cluster {
    /// A cluster on the hosts of a room.
    ///
    /// # Errors
    /// If no authority can be made, or a manager has no host.
    pub fn new(
        plan: &Plan,
        pace: Pace,
        config: &SceneConfig,
        room: &Room,
    ) -> Result<Self, ClusterError> {
        let os = Os::new();
        let authority = Ca::create(PrivateKey::generate(&os), os.wall());
        let address = |id: NodeId| {
            room.address(&id.to_string())
                .map(|at| (id, format!("{at}:{PORT}")))
        };
        let book: Result<AddressBook, RoomError> =
            Roster::of(plan).managers().map(address).collect();
        Ok(Cluster {
            authority: authority.map_err(ClusterError::Identity)?,
            book: book?,
            timers: pace
                .timers(&plan.cluster.timers)
                .map_err(ClusterError::Timers)?,
            program: config.program.clone(),
        })
    }

    /// Where the managers are.
    pub fn book(&self) -> &AddressBook {
        &self.book
    }

    /// The timers of every node.
    pub fn timers(&self) -> &Timers {
        &self.timers
    }

    /// The identity of a plan's client, with a number that no manager's own client has.
    ///
    /// # Errors
    /// If no certificate can be made.
    pub fn client(&self, planned: NodeId) -> Result<Identity, ClusterError> {
        self.mint(NodeId::client(planned.number + CLIENTS_FROM))
    }

    fn mint(&self, node: NodeId) -> Result<Identity, ClusterError> {
        let os = Os::new();
        let key = PrivateKey::generate(&os);
        let minted = self.authority.mint(node, key, os.wall(), LIFETIME);
        minted.map_err(ClusterError::Identity)
    }

    /// Puts into an empty folder what a node needs to start. `founds` is for the first manager's
    /// first time.
    ///
    /// # Errors
    /// If the folder cannot be filled.
    pub fn settle(&self, node: NodeId, home: &Home, founds: bool) -> Result<(), ClusterError> {
        let folder = StateFolder::create(&home.folder).map_err(ClusterError::Folder)?;
        folder
            .keep_managers(&self.book)
            .map_err(ClusterError::Folder)?;
        let files = folder.identity_files();
        if node.role == NodeRole::Manager {
            files
                .keep_authority(&self.authority)
                .map_err(ClusterError::Keep)?;
        }
        if founds {
            folder.allow_founding().map_err(ClusterError::Folder)?;
        }
        files
            .keep_identity(&self.mint(node)?)
            .map_err(ClusterError::Keep)
    }

    /// Writes an agent's or a manager's configuration.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn configure(
        &self,
        node: NodeId,
        plan: &Plan,
        home: &Home,
        attachment: Option<&Attachment>,
    ) -> Result<(), ClusterError> {
        let mut settings = json!({
            "dir": home.folder,
            "events": home.events,
            "timers": timers_table(&self.timers),
        });
        if let Some(at) = self.book.get(node) {
            settings["listen"] = json!(at);
            settings["api"] = json!(at.replace(&PORT.to_string(), "7444"));
        }
        if let Some(attachment) = attachment {
            let offer = &plan.cluster.agents[node.number as usize - 1];
            settings["agent"] = json!({
                "runtime": attachment.kind.name(),
                "socket": attachment.socket,
                "namespace": attachment.namespace,
                "cpus": f64::from(offer.resources.cpu_millis) / 1000.0,
                "memory": format!("{}B", offer.resources.memory_bytes),
                "labels": offer.labels,
            });
        }
        let path = home.configuration();
        let text = toml::to_string(&settings).map_err(|error| io::Error::other(error.to_string()));
        text.and_then(|text| fs::write(&path, text))
            .map_err(|source| ClusterError::Write { path, source })
    }

    /// What to run.
    pub fn command(&self, node: NodeId, home: &Home) -> Command {
        let mut command = Command::new(&self.program);
        let role = match node.role {
            NodeRole::Manager => "manager",
            NodeRole::Agent | NodeRole::Client => "agent",
        };
        command
            .args(["node", role])
            .arg("--config")
            .arg(home.configuration());
        command
    }
}

impl Home {
    fn configuration(&self) -> PathBuf {
        self.events.with_extension("toml")
    }
}

/// The timers as a configuration spells them.
fn timers_table(timers: &Timers) -> serde_json::Value {
    let span = |time: std::time::Duration| format!("{}ns", time.as_nanos().max(1));
    let pause = |backoff: Backoff| json!({ "base": span(backoff.base), "cap": span(backoff.cap) });
    let mut table = json!({
        "heartbeat": span(timers.heartbeat),
        "node_down_after": span(timers.node_down_after),
        "down_check": span(timers.down_check),
        "failover_grace": span(timers.failover_grace),
        "session_timeout": span(timers.session_timeout),
        "request_retry": span(timers.request_retry),
        "raft_heartbeat": span(timers.raft_heartbeat),
        "raft_election": span(timers.raft_election),
        "snapshot_every": timers.snapshot_every,
        "reconcile": span(timers.reconcile),
        "status_poll": span(timers.status_poll),
        "runtime_timeout": span(timers.runtime_timeout),
        "pull_timeout": span(timers.pull_timeout),
        "pull_backoff": pause(timers.pull_backoff),
        "replace_backoff": pause(timers.replace_backoff),
        "history_max": timers.history_max,
    });
    if let Some(attempts) = timers.pull_attempts_max {
        table["pull_attempts_max"] = json!(attempts);
    }
    table
}
