//! Names, addresses and folders of a room: all of them follow from a few facts, so that whoever
//! knows these facts can take everything away again.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::RoomError;

/// How the harness's own side of the network is called where a host's name could stand.
pub const UPLINK: &str = "uplink";
/// `.1` is the uplink, `.255` is the broadcast address.
const HOSTS_MAX: usize = 200;
/// The longest path of a socket in a daemon's folder: below a host's folder there is more.
const FOLDER_BYTES_MAX: usize = 64;
/// Where named network namespaces are.
const NAMESPACES: &str = "/run/netns";

/// The facts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Six hexadecimal digits that no other room on this machine has.
    pub run: String,
    /// The first three bytes of every address.
    pub subnet: [u8; 3],
    /// Below it is a folder for each host.
    pub directory: PathBuf,
    /// Whether the directory goes when the room goes.
    pub is_temporary: bool,
    /// In the order of their numbers.
    pub hosts: Vec<HostLayout>,
}

/// The facts of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostLayout {
    /// As the room's owner calls it.
    pub name: String,
    /// Its disk is a file system of this size.
    pub small_disk_bytes: Option<u64>,
}

/// A host with everything that follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// As the room's owner calls it.
    pub name: String,
    /// Its place among the hosts, from 0.
    pub number: usize,
    /// The name of its network namespace, of its containerd namespace and of its control groups.
    pub namespace: String,
    /// Its own address.
    pub address: Ipv4Addr,
    /// Where its logs and sockets are.
    pub folder: PathBuf,
    /// The size of its disk, if it has one of its own.
    pub small_disk_bytes: Option<u64>,
}

impl Layout {
    /// Refuses what cannot be made.
    pub fn check(&self) -> Result<(), RoomError> {
        let invalid = |what: String, hint: &str| {
            let hint = hint.to_owned();
            Err(RoomError::Invalid { what, hint })
        };
        if self.hosts.len() > HOSTS_MAX {
            let what = format!("a room of {} hosts is too large", self.hosts.len());
            return invalid(what, &format!("it can have {HOSTS_MAX}"));
        }
        for (at, host) in self.hosts.iter().enumerate() {
            let name = &host.name;
            let is_plain = |it: u8| it.is_ascii_alphanumeric() || it == b'-' || it == b'_';
            if name.is_empty() || name == UPLINK || !name.bytes().all(is_plain) {
                return invalid(format!("`{name}` is no name of a host"), "use [a-z0-9-_]+");
            }
            if self.hosts[..at].iter().any(|it| it.name == *name) {
                return invalid(format!("two hosts are called `{name}`"), "name them apart");
            }
            let folder = self.directory.join(name);
            if folder.as_os_str().len() > FOLDER_BYTES_MAX {
                let what = format!("the path {} is too long for sockets", folder.display());
                return invalid(what, &format!("it can have {FOLDER_BYTES_MAX} bytes"));
            }
        }
        Ok(())
    }

    /// All hosts.
    pub fn hosts(&self) -> impl Iterator<Item = Host> + '_ {
        self.hosts.iter().enumerate().map(|(number, it)| Host {
            name: it.name.clone(),
            number,
            namespace: self.name(&number.to_string()),
            // Checked: there are fewer than 200.
            address: self.address(u8::try_from(number + 2).unwrap_or(u8::MAX)),
            folder: self.directory.join(&it.name),
            small_disk_bytes: it.small_disk_bytes,
        })
    }

    /// One host.
    pub fn host(&self, name: &str) -> Result<Host, RoomError> {
        let found = self.hosts().find(|it| it.name == name);
        found.ok_or_else(|| RoomError::UnknownHost {
            host: name.to_owned(),
            known: self.names().join(", "),
        })
    }

    fn names(&self) -> Vec<String> {
        self.hosts.iter().map(|it| it.name.clone()).collect()
    }

    /// The harness's own address.
    pub fn uplink(&self) -> Ipv4Addr {
        self.address(1)
    }

    /// The harness's own link.
    pub fn uplink_link(&self) -> String {
        self.name("up")
    }

    /// The namespace in which all links meet.
    pub fn switch(&self) -> String {
        self.name("sw")
    }

    /// The names of all network namespaces.
    pub fn namespaces(&self) -> Vec<String> {
        let hosts = self.hosts().map(|it| it.namespace);
        std::iter::once(self.switch()).chain(hosts).collect()
    }

    fn name(&self, part: &str) -> String {
        format!("wt-{}-{part}", self.run)
    }

    fn address(&self, last: u8) -> Ipv4Addr {
        let [first, second, third] = self.subnet;
        Ipv4Addr::new(first, second, third, last)
    }
}

impl Host {
    /// The file of its network namespace.
    pub fn namespace_path(&self) -> PathBuf {
        namespace_path(&self.namespace)
    }

    /// The switch's end of its link.
    pub fn port(&self) -> String {
        format!("p{}", self.number)
    }

    /// What is kept when its power is cut.
    pub fn disk(&self) -> PathBuf {
        self.folder.join("disk")
    }

    /// Where a containerd of this host is.
    pub fn containerd(&self) -> PathBuf {
        self.disk().join("containerd")
    }

    /// Where a Podman of this host is.
    pub fn podman(&self) -> PathBuf {
        self.disk().join("podman")
    }
}

/// The file of a named network namespace.
pub fn namespace_path(name: &str) -> PathBuf {
    Path::new(NAMESPACES).join(name)
}

#[cfg(test)]
mod tests {
    use super::{HostLayout, Layout};

    fn layout(names: &[&str]) -> Layout {
        let host = |name: &&str| HostLayout {
            name: (*name).to_owned(),
            small_disk_bytes: None,
        };
        Layout {
            run: "00c0de".to_owned(),
            subnet: [10, 200, 7],
            directory: "/tmp/room".into(),
            is_temporary: true,
            hosts: names.iter().map(host).collect(),
        }
    }

    #[test]
    fn names_and_addresses_follow_from_a_hosts_place() {
        let layout = layout(&["manager-1", "agent-1"]);
        layout.check().unwrap();
        let agent = layout.host("agent-1").unwrap();
        assert_eq!(agent.address.to_string(), "10.200.7.3");
        assert_eq!(agent.namespace, "wt-00c0de-1");
        assert_eq!(layout.uplink().to_string(), "10.200.7.1");
        // The kernel's longest name of a link has 15 bytes.
        assert!(layout.uplink_link().len() <= 15);
        assert!(layout.host("agent-2").is_err());
    }

    #[test]
    fn what_cannot_be_made_is_refused() {
        for names in [&["a", "a"][..], &[""], &["uplink"], &["a/b"], &["."]] {
            assert!(layout(names).check().is_err(), "{names:?}");
        }
        let mut far = layout(&["agent-1"]);
        far.directory = format!("/tmp/{}", "x".repeat(80)).into();
        assert!(far.check().is_err());
    }
}
