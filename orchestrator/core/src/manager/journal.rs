//! The replicated log as this manager holds it: what is on its disk, mirrored in memory, and read
//! by the Raft library through its `Storage` trait. It decides nothing.
//!
//! # What a damaged disk means
//! A record is damaged when its checksum does not fit. Which one matters:
//! - **At the end.** The usual cause is a write that power loss tore. Nothing was sent on the
//!   strength of it, because sending comes after the write is durable, so cutting it off loses
//!   nothing that anyone was promised. Rot in the last record looks the same but may have been
//!   promised: a vote, or entries that a leader counted. `Manager` is therefore cautious after a
//!   cut (no votes until a leader has brought it up to date, or none is found for a while) and
//!   gives up its identity when a leader counts on entries that are gone.
//! - **Before intact records.** Later records were written, so this one was durable and counted. A
//!   forgotten vote can elect two leaders in one term, forgotten entries can undo a committed
//!   command. There is no safe way on with this identity: [`recover`] refuses, and the operator
//!   wipes the disk and lets the node join again under a new id.
//! - **With no identity left.** Refused likewise.
//! - **Before a checkpoint or a new identity.** Those replace what was before them: no matter.
//!
//! Nothing is ever written after a damaged record: a manager that cut one off starts with a new
//! checkpoint.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot as RaftSnapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};
use wavetank_model::NodeId;

use super::store::Store;
use super::wire;
use crate::record::{LogEntry, ManagerCheckpoint, Record, Snapshot, Stored};

/// What must be known of terms and votes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Hard {
    pub term: u64,
    pub vote: u64,
    pub commit: u64,
}

/// The log in memory. Everything in it is on disk too, or in the records that are about to be.
pub(super) struct Journal {
    /// Position of the first entry that is still here; older ones are only in the snapshot.
    first: u64,
    /// Term of the entry just before `first`.
    before_term: u64,
    entries: VecDeque<Entry>,
    snapshot: RaftSnapshot,
    /// Somebody needs a newer snapshot than there is. Set while the library reads.
    snapshot_wanted: Cell<bool>,
    /// The membership after all applied entries.
    conf: ConfState,
    /// As it was when the process started; the library keeps it from then on.
    hard: Hard,
}

impl Journal {
    /// A log without anything, not even members: a learner's before its first snapshot.
    pub fn empty(hard: Hard) -> Self {
        Journal {
            first: 1,
            before_term: 0,
            entries: VecDeque::new(),
            snapshot: RaftSnapshot::default(),
            snapshot_wanted: Cell::new(false),
            conf: ConfState::default(),
            hard,
        }
    }

    /// A log that starts after a snapshot.
    pub fn after(snapshot: &Snapshot, hard: Hard) -> Self {
        let mut journal = Journal::empty(hard);
        journal.install(wire::snapshot_in(snapshot));
        journal
    }

    /// Position of the last entry.
    pub fn last(&self) -> u64 {
        self.first + self.entries.len() as u64 - 1
    }

    /// Term of the last entry.
    pub fn last_term(&self) -> u64 {
        self.entries
            .back()
            .map_or(self.before_term, |entry| entry.term)
    }

    /// The position that the newest snapshot stands for.
    pub fn snapshot_index(&self) -> u64 {
        self.snapshot.get_metadata().index
    }

    /// The membership after all applied entries.
    pub fn conf(&self) -> &ConfState {
        &self.conf
    }

    /// The membership changed.
    pub fn set_conf(&mut self, conf: ConfState) {
        self.conf = wire::sorted(conf);
    }

    /// Everything is replaced by a snapshot.
    pub fn install(&mut self, snapshot: RaftSnapshot) {
        self.first = snapshot.get_metadata().index + 1;
        self.before_term = snapshot.get_metadata().term;
        self.entries.clear();
        self.conf = wire::sorted(snapshot.get_metadata().get_conf_state().clone());
        self.snapshot = snapshot;
    }

    /// Entries are appended; what was at their positions and after is gone. False if they would
    /// leave a gap or reach into the compacted part.
    pub fn append(&mut self, entries: &[Entry]) -> bool {
        let Some(start) = entries.first().map(|entry| entry.index) else {
            return true;
        };
        if start < self.first || start > self.last() + 1 {
            return false;
        }
        self.entries.truncate(as_length(start - self.first));
        self.entries.extend(entries.iter().cloned());
        true
    }

    /// A new snapshot of the applied state. Entries since the one before stay here, so that a
    /// follower that is a little behind is not sent a whole store.
    pub fn checkpoint(&mut self, index: u64, data: Vec<u8>) -> Snapshot {
        let term = self.term(index).unwrap_or(self.before_term);
        let previous = self.snapshot_index();
        let mut snapshot = RaftSnapshot {
            data: data.into(),
            ..RaftSnapshot::default()
        };
        let metadata = snapshot.mut_metadata();
        metadata.index = index;
        metadata.term = term;
        metadata.set_conf_state(self.conf.clone());
        self.snapshot = snapshot;
        self.compact(previous);
        wire::snapshot_out(&self.snapshot)
    }

    fn compact(&mut self, through: u64) {
        while self.first <= through {
            let Some(entry) = self.entries.pop_front() else {
                break;
            };
            self.before_term = entry.term;
            self.first = entry.index + 1;
        }
    }

    /// True, once, if a member cannot be served with the snapshot that is there.
    pub fn take_snapshot_wanted(&mut self) -> bool {
        self.snapshot_wanted.take()
    }

    /// The newest snapshot; `None` for a learner that has not received one yet.
    pub fn snapshot_out(&self) -> Option<Snapshot> {
        (!self.snapshot.is_empty()).then(|| wire::snapshot_out(&self.snapshot))
    }

    /// What was known of terms and votes when the process started.
    pub fn hard(&self) -> Hard {
        self.hard
    }

    /// The entries after a position, for a checkpoint.
    pub fn entries_after(&self, index: u64) -> Vec<LogEntry> {
        let skip = as_length((index + 1).saturating_sub(self.first));
        self.entries
            .iter()
            .skip(skip)
            .map(wire::entry_out)
            .collect()
    }
}

/// Positions in memory fit the machine's word.
fn as_length(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

impl Storage for Journal {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let mut hard = HardState::default();
        hard.term = self.hard.term;
        hard.vote = self.hard.vote;
        hard.commit = self.hard.commit;
        Ok(RaftState::new(hard, self.conf.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low < self.first {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        if high > self.last() + 1 {
            return Err(raft::Error::Store(StorageError::Unavailable));
        }
        let range = as_length(low - self.first)..as_length(high - self.first);
        let mut entries: Vec<Entry> = self.entries.range(range).cloned().collect();
        raft::util::limit_size(&mut entries, max_size.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index + 1 == self.first {
            return Ok(self.before_term);
        }
        if index < self.first {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        let entry = self.entries.get(as_length(index - self.first));
        entry
            .map(|entry| entry.term)
            .ok_or(raft::Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<RaftSnapshot> {
        let conf = self.snapshot.get_metadata().get_conf_state();
        let mut members = conf
            .voters
            .iter()
            .chain(&conf.learners)
            .chain(&conf.voters_outgoing);
        // A member refuses a snapshot from before it was let in.
        if request_index > self.snapshot_index() || !members.any(|member| *member == to) {
            self.snapshot_wanted.set(true);
            return Err(raft::Error::Store(
                StorageError::SnapshotTemporarilyUnavailable,
            ));
        }
        Ok(self.snapshot.clone())
    }
}

/// What a manager's disk says.
pub(super) struct Recovered {
    /// Its own id in the consensus group.
    pub member: u64,
    /// Everyone's.
    pub members: BTreeMap<u64, NodeId>,
    /// The log.
    pub journal: Journal,
    /// The store at the log's snapshot.
    pub store: Store,
    /// A damaged tail was cut off.
    pub truncated: bool,
}

/// Why a disk cannot be used. In all cases: wipe it and let the node join again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RecoveryError {
    #[error("record {position} is damaged and later ones are not; wipe the disk and join again")]
    Damaged { position: usize },
    #[error("its identity is damaged; wipe the disk and join again")]
    Nameless,
    #[error("this disk lost what the others rely on; wipe it and join again")]
    GivenUp,
    #[error("record {position} {why}; wipe the disk and join again")]
    Senseless { position: usize, why: String },
}

/// Reads a manager's disk; `None` if it is empty.
pub(super) fn recover(mut stored: Vec<Stored>) -> Result<Option<Recovered>, RecoveryError> {
    if stored.is_empty() {
        return Ok(None);
    }
    // What an identity or a checkpoint replaced may rot.
    let base = stored
        .iter()
        .rposition(is_base)
        .ok_or(RecoveryError::Nameless)?;
    stored.drain(..base);
    let is_intact = |record: &Stored| matches!(record, Stored::Intact(_));
    let intact = stored.iter().take_while(|record| is_intact(record)).count();
    if stored[intact..].iter().any(is_intact) {
        return Err(RecoveryError::Damaged {
            position: base + intact,
        });
    }
    let truncated = intact < stored.len();
    let mut recovery = Recovery::new();
    for (position, record) in stored.into_iter().enumerate() {
        let Stored::Intact(record) = record else {
            break;
        };
        let position = base + position;
        recovery
            .replay(record)
            .map_err(|why| RecoveryError::Senseless { position, why })?;
    }
    recovery.finish(truncated, base + intact).map(Some)
}

/// True for a record that makes all earlier ones meaningless: a checkpoint, or an identity, which
/// is written only before the log of that identity has anything in it.
fn is_base(record: &Stored) -> bool {
    matches!(
        record,
        Stored::Intact(Record::Checkpoint(_) | Record::Member { .. })
    )
}

/// The number that no member has: written in place of the own id when an identity is given up.
pub(super) const NOBODY: u64 = 0;

struct Recovery {
    member: u64,
    members: BTreeMap<u64, NodeId>,
    hard: Hard,
    journal: Journal,
    store: Store,
}

impl Recovery {
    fn new() -> Self {
        Recovery {
            member: NOBODY,
            members: BTreeMap::new(),
            hard: Hard::default(),
            journal: Journal::empty(Hard::default()),
            store: Store::new(),
        }
    }

    fn replay(&mut self, record: Record) -> Result<(), String> {
        match record {
            Record::Member { member, members } => {
                (self.member, self.members) = (member, members);
            }
            Record::HardState { term, vote, commit } => self.hard = Hard { term, vote, commit },
            Record::Entries(entries) => self.append(&entries)?,
            Record::Checkpoint(checkpoint) => self.restore(*checkpoint)?,
            Record::AssignmentsSeen { .. } | Record::Task(_) | Record::TaskForgotten(_) => {
                return Err("is an agent's".to_owned());
            }
        }
        Ok(())
    }

    fn append(&mut self, entries: &[LogEntry]) -> Result<(), String> {
        let entries: Result<Vec<Entry>, _> = entries.iter().map(wire::entry_in).collect();
        let entries = entries.map_err(|error| error.to_string())?;
        if !self.journal.append(&entries) {
            return Err("leaves a gap in the log".to_owned());
        }
        Ok(())
    }

    fn restore(&mut self, checkpoint: ManagerCheckpoint) -> Result<(), String> {
        wire::check_snapshot(&checkpoint.snapshot).map_err(|error| error.to_string())?;
        self.store = Store::decode(&checkpoint.snapshot.data).map_err(|error| error.to_string())?;
        (self.member, self.members) = (checkpoint.member, checkpoint.members);
        self.hard = Hard {
            term: checkpoint.term,
            vote: checkpoint.vote,
            commit: checkpoint.commit,
        };
        self.journal = Journal::after(&checkpoint.snapshot, self.hard);
        self.append(&checkpoint.entries)
    }

    /// A crash may leave entries without the hard state that was to follow them: they tell of
    /// their term, in which no vote was given. The commit position, written last, is never ahead.
    fn finish(mut self, truncated: bool, position: usize) -> Result<Recovered, RecoveryError> {
        if self.member == NOBODY {
            return Err(RecoveryError::GivenUp);
        }
        let Hard { term, vote, commit } = self.hard;
        if commit > self.journal.last() {
            let why = "has a commit position beyond the log".to_owned();
            return Err(RecoveryError::Senseless { position, why });
        }
        let newest = term.max(self.journal.last_term());
        self.journal.hard = Hard {
            term: newest,
            vote: if newest == term { vote } else { NOBODY },
            commit: commit.max(self.journal.snapshot_index()),
        };
        Ok(Recovered {
            member: self.member,
            members: self.members,
            journal: self.journal,
            store: self.store,
            truncated,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member() -> Stored {
        let members = BTreeMap::from([(1, NodeId::manager(1)), (2, NodeId::manager(2))]);
        let snapshot = Snapshot {
            index: 1,
            term: 1,
            voters: vec![1, 2],
            learners: vec![],
            voters_outgoing: vec![],
            learners_next: vec![],
            auto_leave: false,
            data: Store::bootstrap(&members).encode(),
        };
        Stored::Intact(Record::Checkpoint(Box::new(ManagerCheckpoint {
            member: 1,
            members,
            term: 1,
            vote: 0,
            commit: 1,
            snapshot,
            entries: vec![],
        })))
    }

    fn entries(positions: std::ops::Range<u64>, term: u64) -> Stored {
        let entry = |index| LogEntry {
            kind: 0,
            term,
            index,
            data: vec![],
            context: vec![],
        };
        Stored::Intact(Record::Entries(positions.map(entry).collect()))
    }

    fn hard(term: u64, vote: u64, commit: u64) -> Stored {
        Stored::Intact(Record::HardState { term, vote, commit })
    }

    fn recovered(stored: Vec<Stored>) -> Recovered {
        recover(stored).expect("sound").expect("not empty")
    }

    #[test]
    fn an_empty_disk_is_nobody() {
        assert!(recover(vec![]).expect("sound").is_none());
    }

    #[test]
    fn later_entries_overwrite_earlier_ones() {
        let found = recovered(vec![member(), entries(2..6, 2), entries(4..5, 3)]);
        assert_eq!((found.journal.last(), found.journal.last_term()), (4, 3));
        assert_eq!(found.journal.term(3).expect("there"), 2);
    }

    #[test]
    fn a_commit_beyond_the_log_is_refused() {
        let found = recovered(vec![member(), entries(2..4, 2), hard(2, 2, 3)]);
        assert_eq!(
            found.journal.hard,
            Hard {
                term: 2,
                vote: 2,
                commit: 3
            }
        );
        assert!(recover(vec![member(), entries(2..4, 2), hard(2, 2, 4)]).is_err());
    }

    #[test]
    fn a_vote_does_not_outlive_its_term() {
        let found = recovered(vec![member(), hard(2, 2, 1), entries(2..3, 4)]);
        assert_eq!(
            found.journal.hard,
            Hard {
                term: 4,
                vote: 0,
                commit: 1
            }
        );
    }

    #[test]
    fn a_torn_tail_is_cut_off() {
        let found = recovered(vec![member(), entries(2..4, 2), Stored::Damaged]);
        assert!(found.truncated);
        assert_eq!(found.journal.last(), 3);
    }

    #[test]
    fn damage_before_intact_records_is_refused() {
        let refused = recover(vec![member(), Stored::Damaged, entries(2..4, 2)]).err();
        assert_eq!(refused, Some(RecoveryError::Damaged { position: 1 }));
        assert_eq!(
            recover(vec![Stored::Damaged]).err(),
            Some(RecoveryError::Nameless)
        );
    }

    #[test]
    fn what_a_checkpoint_replaced_may_rot() {
        let found = recovered(vec![member(), Stored::Damaged, member(), entries(2..3, 1)]);
        assert!(!found.truncated);
        assert_eq!(found.journal.last(), 2);
    }

    #[test]
    fn gaps_and_given_up_identities_are_refused() {
        assert!(recover(vec![member(), entries(4..5, 2)]).is_err());
        let tombstone = Record::Member {
            member: NOBODY,
            members: BTreeMap::new(),
        };
        let refused = recover(vec![member(), Stored::Intact(tombstone)]).err();
        assert_eq!(refused, Some(RecoveryError::GivenUp));
    }

    #[test]
    fn a_checkpoint_keeps_the_entries_since_the_one_before() {
        let mut journal = recovered(vec![member(), entries(2..12, 2)]).journal;
        journal.checkpoint(6, vec![1]);
        assert_eq!(journal.first_index().expect("known"), 2);
        journal.checkpoint(10, vec![2]);
        assert_eq!(journal.first_index().expect("known"), 7);
        assert_eq!(journal.term(6).expect("known"), 2);
        assert_eq!(journal.entries_after(10).len(), 1);
        assert_eq!(journal.snapshot_index(), 10);
    }
}
