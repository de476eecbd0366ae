//! Durable records in redb: what a process persisted, in the order in which it did.
//!
//! One write transaction per step makes a step's records durable together. Records that a later
//! one makes superfluous are dropped in the same transaction, so the file stays as large as what
//! it holds. redb checks its own pages when it repairs itself after a crash only; each record
//! therefore carries a checksum of its own, and one that fails it comes back as damaged.

use std::path::Path;

use redb::backends::InMemoryBackend;
use redb::{Database, ReadableDatabase as _, ReadableTable as _, StorageBackend, TableDefinition};
use wavetank_core::{Record, Stored};
use wavetank_model::{Incarnation, TaskId};
use wavetank_port::WallTime;
use xxhash_rust::xxh3::xxh3_64;

/// Records by their number, counted from 1 in the order of their writing.
const RECORDS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("records");
/// The newest record of each slot, by its number.
const SLOTS: TableDefinition<'_, &str, u64> = TableDefinition::new("slots");

/// One row, the number of the newest boot.
const BOOTS: TableDefinition<'_, (), u64> = TableDefinition::new("boots");

/// The encoding of records. A file of another version is refused, not guessed at.
const FORMAT: u8 = 1;
/// Format byte and checksum before the record's bytes.
const HEAD: usize = 1 + size_of::<u64>();

/// Why a journal could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file cannot be opened as a database.
    #[error("cannot open the journal")]
    Open(#[source] redb::Error),
    /// Reading failed.
    #[error("cannot read the journal")]
    Read(#[source] redb::Error),
    /// Writing failed; nothing of the step is durable.
    #[error("cannot write to the journal")]
    Write(#[source] redb::Error),
    /// The journal was written by another version.
    #[error("record {number} has format {found}, this version reads {FORMAT}")]
    Format {
        /// Which record.
        number: u64,
        /// Its format.
        found: u8,
    },
}

/// What a record makes superfluous.
enum Replaces {
    Nothing,
    Everything,
    /// The older record of the same slot.
    Slot(String),
    /// The older record of that slot, and itself: the absence says it all.
    Vacates(String),
}

fn replaces(record: &Record) -> Replaces {
    let task = |id: TaskId| format!("task/{}", id.0);
    match record {
        Record::Entries(_) => Replaces::Nothing,
        Record::Checkpoint(_) => Replaces::Everything,
        Record::Member { .. } => Replaces::Slot("member".to_owned()),
        Record::HardState { .. } => Replaces::Slot("hard-state".to_owned()),
        Record::AssignmentsSeen { .. } => Replaces::Slot("assignments-seen".to_owned()),
        Record::Task(durable) => Replaces::Slot(task(durable.assignment.task)),
        Record::TaskForgotten(id) => Replaces::Vacates(task(*id)),
    }
}

/// One process's journal.
pub struct Journal {
    database: Database,
}

impl Journal {
    /// Opens the journal in a file, or begins one.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let database = Database::create(path).map_err(|error| JournalError::Open(error.into()))?;
        Ok(Journal { database })
    }

    /// Opens the journal that a storage holds, or begins one there.
    pub fn on(storage: impl StorageBackend) -> Result<Self, JournalError> {
        let database = Database::builder()
            .create_with_backend(storage)
            .map_err(|error| JournalError::Open(error.into()))?;
        Ok(Journal { database })
    }

    /// A journal that is gone with its process.
    pub fn in_memory() -> Result<Self, JournalError> {
        Journal::on(InMemoryBackend::new())
    }

    /// A number for a boot that begins now, larger than that of any boot before. `wall` keeps that
    /// true for a disk that was wiped, as far as the machine's clock can be trusted.
    pub fn begin_boot(&mut self, wall: WallTime) -> Result<Incarnation, JournalError> {
        self.count_boot(wall).map_err(JournalError::Write)
    }

    fn count_boot(&mut self, wall: WallTime) -> Result<Incarnation, redb::Error> {
        let transaction = self.database.begin_write()?;
        let number = {
            let mut boots = transaction.open_table(BOOTS)?;
            let last = boots.get(())?.map_or(0, |last| last.value());
            let number = last.saturating_add(1).max(wall.0);
            boots.insert((), number)?;
            number
        };
        transaction.commit()?;
        Ok(Incarnation(number))
    }

    /// Everything that is still of use, oldest first.
    pub fn read(&self) -> Result<Vec<Stored>, JournalError> {
        let mut found = Vec::new();
        for (number, bytes) in self.rows().map_err(JournalError::Read)? {
            found.push(decode(number, &bytes)?);
        }
        Ok(found)
    }

    fn rows(&self) -> Result<Vec<(u64, Vec<u8>)>, redb::Error> {
        let transaction = self.database.begin_read()?;
        let table = match transaction.open_table(RECORDS) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let mut rows = Vec::new();
        for row in table.iter()? {
            let (number, bytes) = row?;
            rows.push((number.value(), bytes.value().to_vec()));
        }
        Ok(rows)
    }

    /// Makes a step's records durable, all or none. Answers when they are.
    pub fn append(&mut self, records: &[Record]) -> Result<(), JournalError> {
        self.write(records).map_err(JournalError::Write)
    }

    fn write(&mut self, records: &[Record]) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut table = transaction.open_table(RECORDS)?;
            let mut slots = transaction.open_table(SLOTS)?;
            let mut number = table.last()?.map_or(0, |(number, _)| number.value());
            for record in records {
                let slot = match replaces(record) {
                    Replaces::Nothing => None,
                    Replaces::Everything => {
                        table.retain(|_, _| false)?;
                        slots.retain(|_, _| false)?;
                        None
                    }
                    Replaces::Slot(slot) => Some(slot),
                    Replaces::Vacates(slot) => {
                        if let Some(older) = slots.remove(slot.as_str())? {
                            table.remove(older.value())?;
                        }
                        continue;
                    }
                };
                number += 1;
                if let Some(slot) = slot
                    && let Some(older) = slots.insert(slot.as_str(), number)?
                {
                    table.remove(older.value())?;
                }
                table.insert(number, encode(record).as_slice())?;
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

fn encode(record: &Record) -> Vec<u8> {
    let body = postcard::to_stdvec(record).expect("records always serialize");
    let mut bytes = vec![FORMAT];
    bytes.extend_from_slice(&xxh3_64(&body).to_le_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

fn decode(number: u64, bytes: &[u8]) -> Result<Stored, JournalError> {
    let Some((head, body)) = bytes.split_at_checked(HEAD) else {
        return Ok(Stored::Damaged);
    };
    let (format, checksum) = (head[0], &head[1..]);
    if xxh3_64(body).to_le_bytes() != checksum {
        return Ok(Stored::Damaged);
    }
    if format != FORMAT {
        return Err(JournalError::Format {
            number,
            found: format,
        });
    }
    Ok(postcard::from_bytes(body).map_or(Stored::Damaged, Stored::Intact))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io;
    use std::sync::{Arc, Mutex, PoisonError};

    use proptest::prelude::*;
    use wavetank_core::record::{LogEntry, ManagerCheckpoint, Snapshot};
    use wavetank_model::{Epoch, NodeId, Revision};

    use super::*;

    fn hard_state(term: u64) -> Record {
        Record::HardState {
            term,
            vote: 0,
            commit: 0,
        }
    }

    fn entries(index: u64) -> Record {
        Record::Entries(vec![LogEntry {
            kind: 0,
            term: 1,
            index,
            data: vec![7; 100],
            context: Vec::new(),
        }])
    }

    fn seen(revision: u64) -> Record {
        Record::AssignmentsSeen {
            epoch: Epoch(1),
            revision: Revision(revision),
        }
    }

    fn checkpoint(index: u64) -> Record {
        Record::Checkpoint(Box::new(ManagerCheckpoint {
            member: 1,
            members: BTreeMap::from([(1, NodeId::manager(1))]),
            term: 1,
            vote: 1,
            commit: index,
            snapshot: Snapshot {
                index,
                term: 1,
                voters: vec![1],
                learners: Vec::new(),
                voters_outgoing: Vec::new(),
                learners_next: Vec::new(),
                auto_leave: false,
                data: Vec::new(),
            },
            entries: Vec::new(),
        }))
    }

    fn intact(records: Vec<Record>) -> Vec<Stored> {
        records.into_iter().map(Stored::Intact).collect()
    }

    #[test]
    fn what_was_written_comes_back_without_what_it_replaced() -> Result<(), JournalError> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let mut journal = Journal::open(&path)?;
        assert_eq!(journal.read()?, Vec::new());
        journal.append(&[hard_state(1), entries(1)])?;
        journal.append(&[entries(2), hard_state(2)])?;
        drop(journal);
        let mut journal = Journal::open(&path)?;
        let left = vec![entries(1), entries(2), hard_state(2)];
        assert_eq!(journal.read()?, intact(left));
        journal.append(&[hard_state(3), checkpoint(2), entries(3)])?;
        assert_eq!(journal.read()?, intact(vec![checkpoint(2), entries(3)]));
        Ok(())
    }

    #[test]
    fn a_boot_has_a_larger_number_than_any_before_whatever_the_clock_says()
    -> Result<(), JournalError> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let mut boots = Vec::new();
        for wall in [1000, 10, 10, 5000] {
            boots.push(Journal::open(&path)?.begin_boot(WallTime(wall))?.0);
        }
        assert_eq!(boots, [1000, 1001, 1002, 5000]);
        Ok(())
    }

    /// A disk on which every write that was not synced may be lost, and whose bytes can be seen.
    #[derive(Clone, Debug, Default)]
    struct Platter {
        state: Arc<Mutex<(Vec<u8>, Vec<u8>)>>,
    }

    impl Platter {
        /// As it is after a power loss now.
        fn after_power_loss(&self) -> Platter {
            let durable = self.lock().1.clone();
            Platter {
                state: Arc::new(Mutex::new((durable.clone(), durable))),
            }
        }

        fn lock(&self) -> std::sync::MutexGuard<'_, (Vec<u8>, Vec<u8>)> {
            self.state.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    impl StorageBackend for Platter {
        fn len(&self) -> io::Result<u64> {
            Ok(self.lock().0.len() as u64)
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            let at = usize::try_from(offset).map_err(io::Error::other)?;
            let state = self.lock();
            let bytes = state.0.get(at..at + out.len());
            out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            let len = usize::try_from(len).map_err(io::Error::other)?;
            self.lock().0.resize(len, 0);
            Ok(())
        }

        fn sync_data(&self) -> io::Result<()> {
            let mut state = self.lock();
            state.1 = state.0.clone();
            Ok(())
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            let at = usize::try_from(offset).map_err(io::Error::other)?;
            let mut state = self.lock();
            let place = state.0.get_mut(at..at + data.len());
            place
                .ok_or(io::ErrorKind::UnexpectedEof)?
                .copy_from_slice(data);
            Ok(())
        }
    }

    #[test]
    fn what_was_answered_outlives_a_power_loss() -> Result<(), JournalError> {
        let platter = Platter::default();
        let mut journal = Journal::on(platter.clone())?;
        for number in 1..=50 {
            journal.append(&[seen(number), entries(number)])?;
            let again = Journal::on(platter.after_power_loss())?;
            let stored = again.read()?;
            assert_eq!(stored.len() as u64, number + 1);
            assert!(stored.contains(&Stored::Intact(seen(number))));
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn rotten_bits_are_refused_or_named_and_never_believed(at in any::<prop::sample::Index>()) {
            let platter = Platter::default();
            let mut journal = Journal::on(platter.clone())?;
            let written = vec![entries(1), entries(2), hard_state(2)];
            journal.append(&written)?;
            let rotten = platter.after_power_loss();
            {
                let mut state = rotten.lock();
                let place = at.index(state.0.len());
                state.0[place] ^= 0x10;
            }
            let Ok(journal) = Journal::on(rotten) else { return Ok(()) };
            if let Ok(stored) = journal.read() {
                for record in stored {
                    if let Stored::Intact(record) = record {
                        prop_assert!(written.contains(&record), "{record:?}");
                    }
                }
            }
        }
    }
}
