//! What a room takes from the machine, written down before it is taken, so that whoever comes after
//! a harness that was killed can give it back. Nothing is ever removed that no ledger names.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use wavetank_fixtures::daemon::process::Process;

use super::error::RoomError;
use super::layout::{HostLayout, Layout};
use super::removal::{self, Removed};
use super::tool::unable;

/// Where ledgers are; emptied with everything else when the machine starts.
const ROOMS: &str = "/run/wavetank/rooms";
/// How often a network is drawn. With so many, all are taken unless next to none is free.
const TRIES_MAX: u32 = 1_000;
/// What this code writes and can read.
const VERSION: u32 = 1;
/// The second bytes of subnets: little else in 10.0.0.0/8 is so far up.
const SECOND_BYTES: std::ops::Range<u8> = 192..255;

/// One room's entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ledger {
    version: u32,
    owner: Owner,
    /// Names and places follow from it.
    pub(crate) layout: Layout,
    /// Control groups besides those that are named like a host's namespace.
    pub(crate) cgroups: Vec<String>,
}

/// Whose room it is: a number alone may later be another process's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Owner {
    pid: u32,
    started_ticks: u64,
}

impl Owner {
    fn ourselves() -> io::Result<Self> {
        let pid = std::process::id();
        let us = Process::read(pid).ok_or_else(|| io::Error::other("/proc does not show us"))?;
        Ok(Owner {
            pid,
            started_ticks: us.started_ticks,
        })
    }

    fn is_alive(&self) -> bool {
        let found = Process::read(self.pid);
        found.is_some_and(|it| it.started_ticks == self.started_ticks && !it.is_zombie())
    }
}

impl Ledger {
    /// Claims a name and a subnet that nobody uses, and writes everything down.
    pub(crate) fn claim(
        directory: PathBuf,
        is_temporary: bool,
        hosts: Vec<HostLayout>,
    ) -> Result<Self, RoomError> {
        let _lock = lock()?;
        let others = read_all()?;
        let taken = taken_networks(&others)?;
        let mut ledger = Ledger {
            version: VERSION,
            owner: Owner::ourselves().map_err(RoomError::file("read", "/proc/self"))?,
            layout: Layout {
                run: String::new(),
                subnet: [0; 3],
                directory,
                is_temporary,
                hosts,
            },
            cgroups: Vec::new(),
        };
        ledger.layout.check()?;
        let mut is_free = false;
        for _ in 0..TRIES_MAX {
            let [a, b, c] = random()?;
            let width = SECOND_BYTES.end - SECOND_BYTES.start;
            ledger.layout.run = format!("{a:02x}{b:02x}{c:02x}");
            ledger.layout.subnet = [10, SECOND_BYTES.start + a % width, b];
            let is_taken = taken.iter().any(|it| it.overlaps(ledger.layout.subnet));
            is_free = !is_taken && !ledger.path().exists();
            if is_free {
                break;
            }
        }
        if !is_free {
            let hint = "a room needs 256 addresses between 10.192.0.0 and 10.254.255.255 that no \
                        route leads to";
            return Err(unable("no free network was found", hint));
        }
        ledger.write()?;
        Ok(ledger)
    }

    /// Adds a control group that goes with the room.
    pub(crate) fn add_cgroup(&mut self, name: &str) -> Result<(), RoomError> {
        self.cgroups.push(name.to_owned());
        self.write()
    }

    /// Says that everything is gone.
    pub(crate) fn close(&self) -> Result<(), RoomError> {
        match fs::remove_file(self.path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(RoomError::file("remove", self.path())(error))
            }
            _ => Ok(()),
        }
    }

    fn path(&self) -> PathBuf {
        Path::new(ROOMS).join(format!("{}.json", self.layout.run))
    }

    fn write(&self) -> Result<(), RoomError> {
        let path = self.path();
        let draft = path.with_extension("draft");
        let write = || {
            let text = serde_json::to_vec_pretty(self)?;
            let mut file = File::create(&draft)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&draft, &path)
        };
        write().map_err(RoomError::file("write", &path))
    }

    /// A ledger that this code could have written: it is about to remove what it names.
    fn is_ours(&self) -> bool {
        let run = &self.layout.run;
        let directory = &self.layout.directory;
        let is_plain = |it: &String| !it.is_empty() && !it.contains(['/', '.']);
        self.version == VERSION
            && run.len() == 6
            && run.bytes().all(|it| it.is_ascii_hexdigit())
            && directory.is_absolute()
            && directory.components().count() > 2
            && !directory.components().any(|it| it == Component::ParentDir)
            && self.layout.check().is_ok()
            && self.cgroups.iter().all(is_plain)
    }
}

/// Removes every room whose owner is gone; with `force` also those whose owner lives, but not our
/// own. Says for each room what was removed; one of which something is left is tried again the next
/// time.
pub fn sweep(force: bool) -> Result<Vec<Removed>, RoomError> {
    let mut swept = Vec::new();
    if !Path::new(ROOMS).exists() {
        return Ok(swept);
    }
    let _lock = lock()?;
    for ledger in read_all()? {
        let is_our_own = ledger.owner.pid == std::process::id();
        if ledger.owner.is_alive() && (is_our_own || !force) {
            continue;
        }
        let removed = removal::remove(&ledger);
        if removed.is_complete() {
            ledger.close()?;
        }
        swept.push(removed);
    }
    Ok(swept)
}

/// Nobody else claims or sweeps as long as this is held.
fn lock() -> Result<File, RoomError> {
    fs::create_dir_all(ROOMS).map_err(RoomError::file("create", ROOMS))?;
    let path = Path::new(ROOMS).join("lock");
    let open = || {
        let file = File::create(&path)?;
        flock(&file, FlockOperation::LockExclusive)?;
        Ok(file)
    };
    open().map_err(RoomError::file("lock", &path))
}

/// Ledgers that cannot be understood are left alone: somebody else's, or half written.
fn read_all() -> Result<Vec<Ledger>, RoomError> {
    let entries = fs::read_dir(ROOMS).map_err(RoomError::file("read", ROOMS))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|it| it.path()).collect();
    paths.sort();
    let texts = paths
        .iter()
        .filter(|it| it.extension().is_some_and(|it| it == "json"))
        .filter_map(|it| fs::read(it).ok());
    let ledgers = texts.filter_map(|it| serde_json::from_slice::<Ledger>(&it).ok());
    Ok(ledgers.filter(Ledger::is_ours).collect())
}

/// Addresses with a common beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Block {
    address: u32,
    mask: u32,
}

impl Block {
    fn overlaps(self, [first, second, third]: [u8; 3]) -> bool {
        // Where everything goes that goes nowhere else is no conflict.
        let ours = u32::from_be_bytes([first, second, third, 0]);
        let common = self.mask & 0xffff_ff00;
        self.mask != 0 && (self.address & common) == (ours & common)
    }

    /// A line of `/proc/net/route`, whose numbers are as they lie in memory.
    fn parse(line: &str) -> Option<Block> {
        let number = |at: usize| {
            let field = line.split_ascii_whitespace().nth(at)?;
            Some(u32::from_str_radix(field, 16).ok()?.swap_bytes())
        };
        Some(Block {
            address: number(1)?,
            mask: number(7)?,
        })
    }
}

fn taken_networks(others: &[Ledger]) -> Result<Vec<Block>, RoomError> {
    let path = "/proc/net/route";
    let routes = fs::read_to_string(path).map_err(RoomError::file("read", path))?;
    let rooms = others.iter().map(|it| {
        let [first, second, third] = it.layout.subnet;
        Block {
            address: u32::from_be_bytes([first, second, third, 0]),
            mask: 0xffff_ff00,
        }
    });
    Ok(routes
        .lines()
        .filter_map(Block::parse)
        .chain(rooms)
        .collect())
}

fn random() -> Result<[u8; 3], RoomError> {
    let mut bytes = [0; 3];
    match getrandom::fill(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(error) => {
            let error = io::Error::other(error.to_string());
            Err(RoomError::file("read", "/dev/urandom")(error))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Block, Ledger, Owner, VERSION};
    use crate::room::layout::Layout;

    #[test]
    fn routes_are_read_as_they_lie_in_memory() {
        let line = "eth0\t0002C80A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0";
        let block = Block::parse(line).unwrap();
        assert!(block.overlaps([10, 200, 2]) && !block.overlaps([10, 200, 3]));
        let wide = Block::parse("eth0 0000000A 0 1 0 0 0 000000FF 0 0 0").unwrap();
        assert!(wide.overlaps([10, 200, 3]) && !wide.overlaps([11, 0, 0]));
        let inside = Block::parse("eth0 8002C80A 0 1 0 0 0 F0FFFFFF 0 0 0").unwrap();
        assert!(inside.overlaps([10, 200, 2]));
        let default = Block::parse("eth0 00000000 010200C0 3 0 0 0 00000000 0 0 0").unwrap();
        assert!(!default.overlaps([10, 200, 3]));
        assert_eq!(Block::parse("Iface Destination Gateway"), None);
    }

    fn ledger(change: impl FnOnce(&mut Ledger)) -> Ledger {
        let mut ledger = Ledger {
            version: VERSION,
            owner: Owner {
                pid: 1,
                started_ticks: 2,
            },
            layout: Layout {
                run: "00c0de".to_owned(),
                subnet: [10, 200, 7],
                directory: "/tmp/room".into(),
                is_temporary: true,
                hosts: Vec::new(),
            },
            cgroups: Vec::new(),
        };
        change(&mut ledger);
        ledger
    }

    #[test]
    fn a_ledger_that_names_what_no_room_takes_is_nobodys() {
        assert!(ledger(|_| {}).is_ours());
        assert!(!ledger(|it| it.version += 1).is_ours());
        for run in ["", "00c0d", "../c0d", "00c0dg"] {
            assert!(
                !ledger(|it| it.layout.run = run.to_owned()).is_ours(),
                "{run}"
            );
        }
        for directory in ["/", "/tmp", "tmp/room", "/tmp/room/../.."] {
            assert!(!ledger(|it| it.layout.directory = directory.into()).is_ours());
        }
        for cgroup in ["", ".", "a/b"] {
            assert!(!ledger(|it| it.cgroups.push(cgroup.to_owned())).is_ours());
        }
    }
}
