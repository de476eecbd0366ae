//! The disk of one machine, below redb: bytes, and which of them would survive a power loss.
//!
//! A write is volatile until the next sync. A power loss takes volatile writes back; a torn one
//! leaves any subset of their sectors behind, as a real disk may, since nothing orders writes
//! between two syncs. redb writes and syncs in one go, in which no virtual time passes, so a power
//! loss that is to strike in the middle is laid as a *fuse*: after so many more writes and syncs
//! the disk is dead, and so is the machine.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;
use wavetank_world::{DiskFault, Stream};

/// What reaches the platter whole or not at all.
const SECTOR: usize = 512;

/// Told which fault had a part in something.
pub type HitSink = Arc<dyn Fn(u32) + Send + Sync>;

/// A disk. Clones are the same disk.
#[derive(Clone)]
pub struct Platter {
    state: Arc<Mutex<State>>,
    hit: HitSink,
}

impl std::fmt::Debug for Platter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Platter")
    }
}

struct State {
    bytes: Vec<u8>,
    /// What to undo, oldest first, for the disk to be as it was at the last sync.
    volatile: Vec<Change>,
    faults: Vec<(u32, DiskFault)>,
    /// Writes and syncs that are left before the power goes.
    fuse: Option<u64>,
    dead: bool,
    stream: Stream,
}

/// One volatile change.
enum Change {
    /// These bytes were there.
    Write { at: usize, before: Vec<u8> },
    /// The disk was this long, with these bytes at its end if it has become shorter.
    Resize { before: usize, tail: Vec<u8> },
}

impl Platter {
    /// An empty disk.
    pub fn new(stream: Stream, hit: HitSink) -> Self {
        let state = State {
            bytes: Vec::new(),
            volatile: Vec::new(),
            faults: Vec::new(),
            fuse: None,
            dead: false,
            stream,
        };
        Platter {
            state: Arc::new(Mutex::new(state)),
            hit,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A fault comes into force.
    pub fn add_fault(&self, id: u32, fault: DiskFault) {
        self.lock().faults.push((id, fault));
    }

    /// A fault is over. A disk that stops lying makes good what it promised.
    pub fn remove_fault(&self, id: u32) {
        let mut state = self.lock();
        let lied = state.liar().is_some();
        state.faults.retain(|(other, _)| *other != id);
        if lied && state.liar().is_none() {
            state.volatile.clear();
        }
    }

    /// The power will go within the next few writes and syncs.
    pub fn lay_fuse(&self) {
        let mut state = self.lock();
        state.fuse = Some(state.stream.below(24));
    }

    /// The power will stay.
    pub fn douse(&self) {
        self.lock().fuse = None;
    }

    /// The fuse has burnt down.
    pub fn is_dead(&self) -> bool {
        self.lock().dead
    }

    /// The machine has lost power: volatile writes are gone, or, `torn`, some of their sectors
    /// are.
    pub fn lose_power(&self, torn: bool) {
        let mut state = self.lock();
        let redo = state.roll_back();
        if torn {
            state.replay_some(redo);
        }
        state.fuse = None;
        state.dead = false;
    }

    /// Everything is gone.
    pub fn wipe(&self) {
        let mut state = self.lock();
        state.bytes.clear();
        state.volatile.clear();
    }

    /// Turns one bit at rest; false if there is none.
    pub fn rot(&self, draw: u64) -> bool {
        let mut state = self.lock();
        let at = draw.checked_rem(state.bytes.len() as u64);
        let at = at.and_then(|at| usize::try_from(at).ok());
        let byte = at.and_then(|at| state.bytes.get_mut(at));
        let found = byte.is_some();
        if let Some(byte) = byte {
            *byte ^= 1 << (draw >> 32 & 7);
        }
        found
    }

    /// Refuses an operation for the fault that forbids it, or because the power has gone.
    fn admit(&self, state: &mut State) -> io::Result<()> {
        if state.fuse == Some(0) {
            state.dead = true;
        }
        state.fuse = state.fuse.map(|left| left.saturating_sub(1));
        if state.dead {
            return Err(io::Error::other("the power is gone"));
        }
        let refusal = state.faults.iter().find_map(|(id, fault)| match fault {
            DiskFault::Full => Some((*id, io::ErrorKind::StorageFull)),
            DiskFault::Error => Some((*id, io::ErrorKind::Other)),
            DiskFault::Slow(_) | DiskFault::Lies => None,
        });
        match refusal {
            None => Ok(()),
            Some((fault, kind)) => {
                (self.hit)(fault);
                Err(kind.into())
            }
        }
    }
}

impl State {
    fn liar(&self) -> Option<u32> {
        let lies = |(_, fault): &&(u32, DiskFault)| *fault == DiskFault::Lies;
        self.faults.iter().find(lies).map(|(id, _)| *id)
    }

    fn write(&mut self, at: usize, data: &[u8]) -> io::Result<()> {
        let place = self.bytes.get_mut(at..at.saturating_add(data.len()));
        let place = place.ok_or(io::ErrorKind::UnexpectedEof)?;
        let before = place.to_vec();
        place.copy_from_slice(data);
        self.volatile.push(Change::Write { at, before });
        Ok(())
    }

    fn resize(&mut self, length: usize) {
        let before = self.bytes.len();
        let tail = self.bytes.get(length..).unwrap_or_default().to_vec();
        self.bytes.resize(length, 0);
        self.volatile.push(Change::Resize { before, tail });
    }

    /// Undoes what is volatile; gives it back as it has to be done again, oldest first.
    fn roll_back(&mut self) -> Vec<Change> {
        let mut redo = Vec::new();
        while let Some(change) = self.volatile.pop() {
            redo.push(match change {
                Change::Write { at, before } => {
                    let after = self.bytes[at..at + before.len()].to_vec();
                    self.bytes[at..at + before.len()].copy_from_slice(&before);
                    Change::Write { at, before: after }
                }
                Change::Resize { before, tail } => {
                    let after = self.bytes.len();
                    self.bytes.truncate(before.saturating_sub(tail.len()));
                    self.bytes.extend_from_slice(&tail);
                    self.bytes.resize(before, 0);
                    Change::Resize {
                        before: after,
                        tail: Vec::new(),
                    }
                }
            });
        }
        redo.reverse();
        redo
    }

    /// Some of these reach the platter after all.
    fn replay_some(&mut self, redo: Vec<Change>) {
        for change in redo {
            match change {
                Change::Resize { before, .. } => {
                    if self.stream.chance(50) {
                        self.bytes.resize(before, 0);
                    }
                }
                Change::Write { at, before } => self.replay_sectors(at, &before),
            }
        }
    }

    fn replay_sectors(&mut self, at: usize, data: &[u8]) {
        let mut done = 0;
        while done < data.len() {
            let in_sector = SECTOR - (at + done) % SECTOR;
            let end = data.len().min(done + in_sector);
            let place = self.bytes.get_mut(at + done..at + end);
            if let (true, Some(place)) = (self.stream.chance(50), place) {
                place.copy_from_slice(&data[done..end]);
            }
            done = end;
        }
    }
}

impl StorageBackend for Platter {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        let state = self.lock();
        let bytes = state.bytes.get(at..at.saturating_add(out.len()));
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let length = usize::try_from(len).map_err(io::Error::other)?;
        let mut state = self.lock();
        self.admit(&mut state)?;
        state.resize(length);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.lock();
        self.admit(&mut state)?;
        match state.liar() {
            Some(fault) => (self.hit)(fault),
            None => state.volatile.clear(),
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        let mut state = self.lock();
        self.admit(&mut state)?;
        state.write(at, data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platter(seed: u64) -> Platter {
        Platter::new(Stream::new(seed, "test", "platter"), Arc::new(|_| {}))
    }

    fn bytes(platter: &Platter) -> Vec<u8> {
        platter.lock().bytes.clone()
    }

    #[test]
    fn a_power_loss_takes_what_was_not_synced_and_nothing_else() -> io::Result<()> {
        let disk = platter(1);
        disk.set_len(4)?;
        disk.write(0, b"abcd")?;
        disk.sync_data()?;
        disk.write(1, b"XY")?;
        disk.set_len(8)?;
        disk.write(2, b"123456")?;
        disk.set_len(3)?;
        disk.lose_power(false);
        assert_eq!(bytes(&disk), b"abcd");
        Ok(())
    }

    #[test]
    fn a_torn_loss_leaves_each_sector_as_it_was_or_as_it_was_to_be() -> io::Result<()> {
        let (mut kept, mut lost) = (0, 0);
        for seed in 0..20 {
            let disk = platter(seed);
            disk.set_len(4 * SECTOR as u64)?;
            disk.sync_data()?;
            disk.write(0, &[7; 4 * SECTOR])?;
            disk.lose_power(true);
            for sector in bytes(&disk).chunks(SECTOR) {
                assert!(sector.iter().all(|byte| *byte == sector[0]));
                kept += u32::from(sector[0] == 7);
                lost += u32::from(sector[0] == 0);
            }
        }
        assert!(kept > 20 && lost > 20, "{kept} {lost}");
        Ok(())
    }

    #[test]
    fn a_lying_disk_forgets_unless_it_stops_in_time() -> io::Result<()> {
        for heals in [false, true] {
            let disk = platter(1);
            disk.add_fault(3, DiskFault::Lies);
            disk.set_len(2)?;
            disk.write(0, b"ab")?;
            disk.sync_data()?;
            if heals {
                disk.remove_fault(3);
            }
            disk.lose_power(false);
            assert_eq!(bytes(&disk).len(), if heals { 2 } else { 0 });
        }
        Ok(())
    }

    #[test]
    fn a_fuse_ends_every_disk_soon() {
        for seed in 0..50 {
            let disk = platter(seed);
            disk.lay_fuse();
            let died = (0..30).any(|_| disk.sync_data().is_err());
            assert!(died && disk.is_dead());
        }
    }
}
