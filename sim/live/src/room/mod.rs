//! A room full of hosts: network namespaces on a private bridge, what runs in them, what is done to
//! them, and getting rid of it all. It knows nothing of orchestrators, plans or traces.
//!
//! A [`Room`] takes much from its machine (namespaces, links, mounts, control groups, processes
//! that outlive their parents), so all of it is written to a ledger first; [`Room::close`],
//! dropping the room, and [`sweep`] after a harness that was killed, all remove by what the ledger
//! says.
//!
//! Map: `layout` (names, addresses, folders), `switch` (the network), `network` (what is wrong with
//! it), `wire` (links that delay), `running` (programs), `members` (which processes are a host's),
//! `power` (pause, loss of power), `daemons` and `runtimes` (containerd and Podman on hosts),
//! `disk`, `ledger` and `removal` (getting rid), `audit` (proof of it), `tool` (the system's
//! tools), `error`.

mod audit;
mod daemons;
mod disk;
mod error;
mod layout;
mod ledger;
mod members;
mod network;
mod power;
mod removal;
mod running;
mod runtimes;
mod switch;
mod tool;
mod wire;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wavetank_fixtures::SocketProxy;
use wavetank_fixtures::daemon::network_namespace;
use wavetank_fixtures::daemon::process::Process;

pub use audit::Audit;
pub use daemons::{DaemonKind, OciRuntime, Records};
pub use error::RoomError;
pub use layout::UPLINK;
pub use ledger::sweep;
pub use network::{Capabilities, NetworkState};
pub use removal::Removed;
pub use running::Running;

use daemons::HostDaemon;
use error::blocking;
use layout::{Host, HostLayout, Layout};
use ledger::Ledger;
use network::Network;

/// What a room is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomConfig {
    /// Made if absent. Keep it short: sockets lie below it.
    pub directory: PathBuf,
    /// Whether the directory goes when the room goes.
    pub is_temporary: bool,
    /// The hosts, in the order of their addresses.
    pub hosts: Vec<HostConfig>,
}

/// What a host is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostConfig {
    /// Letters, digits, `-` and `_`.
    pub name: String,
    /// Gives it a disk of this size in memory, which can be filled. Without, its disk is a folder
    /// on the machine's own.
    pub small_disk_bytes: Option<u64>,
}

impl HostConfig {
    /// A host whose disk is a folder.
    pub fn named(name: &str) -> Self {
        HostConfig {
            name: name.to_owned(),
            small_disk_bytes: None,
        }
    }
}

/// Hosts on this machine. When it is dropped, all of it is gone.
#[derive(Debug)]
pub struct Room {
    shared: Arc<Shared>,
}

/// What tasks that block work on.
#[derive(Debug)]
struct Shared {
    layout: Layout,
    ledger: Mutex<Ledger>,
    network: Mutex<Network>,
    /// A host's lock is held while its daemon changes.
    daemons: BTreeMap<String, Arc<tokio::sync::Mutex<Option<HostDaemon>>>>,
    proxies: Mutex<BTreeMap<String, Arc<SocketProxy>>>,
}

impl Room {
    /// Makes it: every host is up and reaches every other and the uplink.
    pub async fn open(config: RoomConfig) -> Result<Room, RoomError> {
        blocking(move || Room::open_blocking(config)).await
    }

    fn open_blocking(config: RoomConfig) -> Result<Room, RoomError> {
        tool::check()?;
        let directory = config.directory;
        std::fs::create_dir_all(&directory).map_err(RoomError::file("create", &directory))?;
        let directory = directory
            .canonicalize()
            .map_err(RoomError::file("find", &directory))?;
        let hosts = config.hosts.into_iter().map(|it| HostLayout {
            name: it.name,
            small_disk_bytes: it.small_disk_bytes,
        });
        let ledger = Ledger::claim(directory, config.is_temporary, hosts.collect())?;
        match furnish(&ledger.layout) {
            Ok(network) => Ok(Room {
                shared: Arc::new(Shared::new(ledger, network)),
            }),
            Err(error) => {
                // Why it could not be made is what is to be told; a sweep tries again.
                if removal::remove(&ledger).is_complete() {
                    let _ = ledger.close();
                }
                Err(error)
            }
        }
    }

    /// Removes it all and says what that was, and what could not be removed.
    pub async fn close(self) -> Result<Removed, RoomError> {
        let shared = self.shared.clone();
        blocking(move || shared.close()).await
    }

    /// Six hexadecimal digits that no other room on this machine has.
    pub fn run(&self) -> &str {
        &self.shared.layout.run
    }

    /// What names everything of this room that has a name, for audits: part of names, the folder.
    pub fn marks(&self) -> Vec<String> {
        let layout = &self.shared.layout;
        vec![
            format!("wt-{}", layout.run),
            format!("{}.json", layout.run),
            layout.directory.display().to_string(),
        ]
    }

    /// The hosts' network namespaces as the kernel names them, for audits. It gives these names to
    /// others when the room is gone.
    pub fn network_marks(&self) -> Vec<String> {
        let paths = self.shared.layout.hosts().map(|it| it.namespace_path());
        let identities = paths.filter_map(|it| network_namespace::identity(&it).ok());
        identities
            .map(|(_, inode)| format!("net:[{inode}]"))
            .collect()
    }

    /// The names of all hosts, in order.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.shared.layout.hosts.iter().map(|it| it.name.as_str())
    }

    /// The harness's own address: where hosts find what it serves.
    pub fn uplink(&self) -> Ipv4Addr {
        self.shared.layout.uplink()
    }

    /// A host's address.
    pub fn address(&self, host: &str) -> Result<Ipv4Addr, RoomError> {
        self.host(host).map(|it| it.address)
    }

    /// The file of a host's network namespace.
    pub fn netns(&self, host: &str) -> Result<PathBuf, RoomError> {
        self.host(host).map(|it| it.namespace_path())
    }

    /// Where a host's logs and sockets are. A loss of power and a wipe leave it alone.
    pub fn folder(&self, host: &str) -> Result<PathBuf, RoomError> {
        self.host(host).map(|it| it.folder)
    }

    /// A host's disk: what is there survives a loss of power, but not a wipe.
    pub fn disk(&self, host: &str) -> Result<PathBuf, RoomError> {
        self.host(host).map(|it| it.disk())
    }

    /// The name that a host has in containerd and of its control groups; unique on this machine.
    pub fn runtime_namespace(&self, host: &str) -> Result<String, RoomError> {
        self.host(host).map(|it| it.namespace)
    }

    /// Moves the calling thread into a host's network for good: what it connects to from then on,
    /// it connects to from there. Not for a thread of a runtime.
    pub fn enter(&self, host: &str) -> Result<(), RoomError> {
        let path = self.netns(host)?;
        network_namespace::enter(&path).map_err(RoomError::file("enter", path))
    }

    /// Starts a program on a host, in a process group of its own. Both its outputs are appended to
    /// `<folder>/<name>.log`. Must be called in a runtime.
    pub fn spawn(&self, host: &str, name: &str, command: Command) -> Result<Running, RoomError> {
        Running::start(&self.host(host)?, name, command)
    }

    /// Every process of a host, containers' included, as they are now.
    pub fn processes(&self, host: &str) -> Result<Vec<Process>, RoomError> {
        let host = self.host(host)?;
        members::of(&[host]).map_err(RoomError::file("read", "/proc"))
    }

    /// Makes this and nothing else be wrong with the network. After an error anything between
    /// before and this may be in force; the next call sets it right.
    pub async fn set_network(&self, state: NetworkState) -> Result<(), RoomError> {
        let shared = self.shared.clone();
        blocking(move || lock(&shared.network).set(&shared.layout, &state)).await
    }

    /// Which faults of links this machine can do.
    pub fn capabilities(&self) -> Capabilities {
        lock(&self.shared.network).capabilities()
    }

    /// Takes all space that is left on a host's small disk.
    pub async fn fill_disk(&self, host: &str) -> Result<(), RoomError> {
        let host = self.host(host)?;
        blocking(move || disk::fill(&host)).await
    }

    /// Gives it back.
    pub async fn free_disk(&self, host: &str) -> Result<(), RoomError> {
        let host = self.host(host)?;
        blocking(move || disk::free(&host)).await
    }

    /// Has a control group removed with the room, by its name at the top of the hierarchies. For
    /// what makes control groups without a daemon.
    pub fn claim_cgroup(&self, name: &str) -> Result<(), RoomError> {
        lock(&self.shared.ledger).add_cgroup(name)
    }

    fn host(&self, name: &str) -> Result<Host, RoomError> {
        self.shared.layout.host(name)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // There is nobody to tell; whoever must know closes it himself.
        let _ = self.shared.close();
    }
}

impl Shared {
    fn new(ledger: Ledger, network: Network) -> Self {
        let layout = ledger.layout.clone();
        let daemons = layout.hosts().map(|it| (it.name, Arc::default()));
        Shared {
            daemons: daemons.collect(),
            network: Mutex::new(network),
            proxies: Mutex::default(),
            ledger: Mutex::new(ledger),
            layout,
        }
    }

    /// Removes everything, again if need be.
    fn close(&self) -> Result<Removed, RoomError> {
        lock(&self.proxies).clear();
        let ledger = lock(&self.ledger);
        let removed = removal::remove(&ledger);
        if removed.is_complete() {
            ledger.close()?;
        }
        Ok(removed)
    }
}

/// Makes what the ledger says.
fn furnish(layout: &Layout) -> Result<Network, RoomError> {
    for host in layout.hosts() {
        disk::create(&host)?;
    }
    switch::create(layout)?;
    Network::new(layout)
}

/// What one task left half done is no reason for another to end: each state is complete in itself.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
