//! What one machine's disk holds: an append-only log of records, as the processes see it.

use wavetank_scenario::plan::Range;

use crate::random::Stream;

/// What may be wrong with a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskFault {
    /// Writes fail for want of space.
    Full,
    /// Writes fail.
    Error,
    /// Writes take this much longer.
    Slow(Range),
    /// Writes are called durable before they are.
    Lies,
}

/// One slot of the log.
#[derive(Clone, Debug, PartialEq)]
enum Slot<R> {
    Intact(R),
    Damaged,
}

/// A disk with records of type `R`. A record is volatile until its write is synced; a power loss
/// takes the volatile ones, and may leave the first of them damaged (torn).
#[derive(Clone, Debug)]
pub struct Disk<R> {
    durable: Vec<Slot<R>>,
    /// Called durable by a lying disk; a power loss takes them back.
    promised: Vec<R>,
    /// Being written; not synced.
    volatile: Vec<R>,
    faults: Vec<(u32, DiskFault)>,
    stream: Stream,
    fsync: Range,
}

impl<R: Clone> Disk<R> {
    /// An empty disk whose syncs take `fsync`.
    pub fn new(stream: Stream, fsync: Range) -> Self {
        Disk {
            durable: Vec::new(),
            promised: Vec::new(),
            volatile: Vec::new(),
            faults: Vec::new(),
            stream,
            fsync,
        }
    }

    /// A fault comes into force.
    pub fn add_fault(&mut self, id: u32, fault: DiskFault) {
        self.faults.push((id, fault));
    }

    /// A fault is over. A disk that stops lying makes good what it promised.
    pub fn remove_fault(&mut self, id: u32) {
        self.faults.retain(|(other, _)| *other != id);
        if self.lies().is_none() {
            self.durable
                .extend(self.promised.drain(..).map(Slot::Intact));
        }
    }

    fn lies(&self) -> Option<u32> {
        self.faults
            .iter()
            .find(|(_, fault)| *fault == DiskFault::Lies)
            .map(|(id, _)| *id)
    }

    /// Why a write would fail now, with the fault that makes it fail.
    pub fn refusal(&self) -> Option<(u32, &'static str)> {
        self.faults.iter().find_map(|(id, fault)| match fault {
            DiskFault::Full => Some((*id, "no space left on device")),
            DiskFault::Error => Some((*id, "input/output error")),
            DiskFault::Slow(_) | DiskFault::Lies => None,
        })
    }

    /// Begins to write records; returns how long the sync takes, in nanoseconds, and the faults
    /// that had a part in it. The caller calls [`Disk::finish_write`] then.
    pub fn begin_write(&mut self, records: impl IntoIterator<Item = R>) -> (u64, Vec<u32>) {
        self.volatile.extend(records);
        let mut duration = self.stream.nanos(self.fsync);
        let mut hit = Vec::new();
        for (id, fault) in &self.faults {
            match fault {
                DiskFault::Slow(by) => duration += self.stream.nanos(*by),
                DiskFault::Lies => {}
                DiskFault::Full | DiskFault::Error => continue,
            }
            hit.push(*id);
        }
        (duration, hit)
    }

    /// The sync is done, or the process that wrote is gone and the kernel completes its write.
    /// `replaces_history` says whether a record makes all older ones useless.
    pub fn finish_write(&mut self, replaces_history: impl Fn(&R) -> bool) {
        let lies = self.lies().is_some();
        for record in self.volatile.drain(..) {
            // A lying disk keeps the old records too: they are what a power loss brings back.
            if lies {
                self.promised.push(record);
                continue;
            }
            if replaces_history(&record) {
                self.durable.clear();
            }
            self.durable.push(Slot::Intact(record));
        }
    }

    /// The machine loses power: what was not synced is gone; with `torn`, the first record that
    /// was being written is there and damaged. Returns how many records were lost.
    pub fn lose_power(&mut self, torn: bool) -> usize {
        let lost = self.promised.len() + self.volatile.len();
        self.promised.clear();
        self.volatile.clear();
        if torn && lost > 0 {
            self.durable.push(Slot::Damaged);
        }
        lost
    }

    /// Everything is gone.
    pub fn wipe(&mut self) {
        self.durable.clear();
        self.promised.clear();
        self.volatile.clear();
    }

    /// Damages one record at rest; false if there is none.
    pub fn rot(&mut self, draw: u64) -> bool {
        let count = self.durable.len() as u64;
        let Some(index) = draw.checked_rem(count) else {
            return false;
        };
        match usize::try_from(index)
            .ok()
            .and_then(|index| self.durable.get_mut(index))
        {
            Some(slot) => {
                *slot = Slot::Damaged;
                true
            }
            None => false,
        }
    }

    /// True if a process that starts now finds nothing.
    pub fn is_empty(&self) -> bool {
        self.durable.is_empty() && self.promised.is_empty()
    }

    /// What a process that starts now reads: `None` for a damaged record.
    pub fn read(&self) -> impl Iterator<Item = Option<R>> + '_ {
        let durable = self.durable.iter().map(|slot| match slot {
            Slot::Intact(record) => Some(record.clone()),
            Slot::Damaged => None,
        });
        durable.chain(self.promised.iter().cloned().map(Some))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn disk() -> Disk<u8> {
        let millisecond = Duration::from_millis(1);
        let range = Range {
            min: millisecond,
            max: millisecond,
        };
        Disk::new(Stream::new(1, "test", "disk"), range)
    }

    fn write(disk: &mut Disk<u8>, record: u8) {
        disk.begin_write([record]);
        disk.finish_write(|record| *record == 0);
    }

    fn read(disk: &Disk<u8>) -> Vec<Option<u8>> {
        disk.read().collect()
    }

    #[test]
    fn a_power_loss_takes_what_was_not_synced() {
        let mut disk = disk();
        write(&mut disk, 1);
        disk.begin_write([2, 3]);
        assert_eq!(disk.lose_power(false), 2);
        assert_eq!(read(&disk), [Some(1)]);
    }

    #[test]
    fn a_torn_write_leaves_a_damaged_record() {
        let mut disk = disk();
        write(&mut disk, 1);
        disk.begin_write([2]);
        disk.lose_power(true);
        assert_eq!(read(&disk), [Some(1), None]);
    }

    #[test]
    fn a_lying_disk_forgets_what_it_promised_unless_it_stops_lying_in_time() {
        for heal in [false, true] {
            let mut disk = disk();
            disk.add_fault(1, DiskFault::Lies);
            write(&mut disk, 1);
            assert_eq!(read(&disk), [Some(1)]);
            if heal {
                disk.remove_fault(1);
            }
            disk.lose_power(false);
            assert_eq!(read(&disk).len(), usize::from(heal));
        }
    }

    #[test]
    fn a_checkpoint_replaces_what_was_before() {
        let mut disk = disk();
        write(&mut disk, 1);
        write(&mut disk, 0);
        write(&mut disk, 2);
        assert_eq!(read(&disk), [Some(0), Some(2)]);
    }

    #[test]
    fn a_full_disk_refuses() {
        let mut disk = disk();
        assert_eq!(disk.refusal(), None);
        disk.add_fault(4, DiskFault::Full);
        assert_eq!(disk.refusal().map(|(id, _)| id), Some(4));
        disk.remove_fault(4);
        assert_eq!(disk.refusal(), None);
    }
}
