//! What is durable. A driver appends records to a log in the order they are persisted and hands
//! them all back, in that order, when the process starts again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wavetank_model::{Epoch, NodeId, Revision, TaskId};

use crate::agent::recovery::DurableTask;

/// One durable record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Record {
    /// Manager: who it is in the consensus group, and whom it knows there.
    Member {
        /// Its own id; never reused for another log.
        member: u64,
        /// Everyone's.
        members: BTreeMap<u64, NodeId>,
    },
    /// Manager: what it voted and how far it knows the log to be committed.
    HardState {
        /// Newest term it has seen.
        term: u64,
        /// Whom it voted for in that term; 0 for nobody.
        vote: u64,
        /// Commit position.
        commit: u64,
    },
    /// Manager: entries appended to the log; a position that was there before is overwritten and
    /// all positions after it are gone.
    Entries(Vec<LogEntry>),
    /// Manager: the store at one position; everything recorded before may be dropped.
    Checkpoint(Box<ManagerCheckpoint>),
    /// Agent: it accepted assignments of this age; older ones stay refused after a restart.
    AssignmentsSeen {
        /// Issuer's epoch.
        epoch: Epoch,
        /// Their revision.
        revision: Revision,
    },
    /// Agent: one task as it must be known after a restart.
    Task(Box<DurableTask>),
    /// Agent: a task is gone for good.
    TaskForgotten(TaskId),
}

impl Record {
    /// True if all records before this one may be dropped once it is durable.
    pub fn replaces_history(&self) -> bool {
        matches!(self, Record::Checkpoint(_))
    }
}

/// What a disk hands back for one record.
#[derive(Clone, Debug, PartialEq)]
pub enum Stored {
    /// As it was written.
    Intact(Record),
    /// Something is there, and its checksum says it is not what was written.
    Damaged,
}

/// One entry of the replicated log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Entry type by Raft's own numbering: normal or membership change.
    pub kind: i32,
    /// Term in which it was proposed.
    pub term: u64,
    /// Its position.
    pub index: u64,
    /// An encoded command; empty for a new leader's first entry.
    #[serde(with = "serde_bytes")]
    pub data: Vec<u8>,
    /// Opaque.
    #[serde(with = "serde_bytes")]
    pub context: Vec<u8>,
}

/// The replicated store at one log position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The position it stands for.
    pub index: u64,
    /// Term of the entry at that position.
    pub term: u64,
    /// Members with a vote.
    pub voters: Vec<u64>,
    /// Members without a vote.
    pub learners: Vec<u64>,
    /// Voters of the old configuration, during a joint change.
    pub voters_outgoing: Vec<u64>,
    /// Learners-to-be, during a joint change.
    pub learners_next: Vec<u64>,
    /// Leave the joint configuration by itself.
    pub auto_leave: bool,
    /// The encoded store.
    #[serde(with = "serde_bytes")]
    pub data: Vec<u8>,
}

/// A manager's whole durable state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ManagerCheckpoint {
    /// Its own id in the consensus group.
    pub member: u64,
    /// Everyone's.
    pub members: BTreeMap<u64, NodeId>,
    /// As in `Record::HardState`.
    pub term: u64,
    /// As in `Record::HardState`.
    pub vote: u64,
    /// As in `Record::HardState`.
    pub commit: u64,
    /// The store.
    pub snapshot: Snapshot,
    /// Log entries after the snapshot.
    pub entries: Vec<LogEntry>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Formats that describe themselves spend one byte on a byte; others did before.
    #[test]
    fn entries_carry_their_bytes_as_bytes() {
        let entry = LogEntry {
            kind: 0,
            term: 1,
            index: 1,
            data: vec![200; 1000],
            context: Vec::new(),
        };
        let mut cbor = Vec::new();
        ciborium::into_writer(&entry, &mut cbor).expect("it fits");
        assert!(cbor.len() < 1100, "{} bytes", cbor.len());
        let read: LogEntry = ciborium::from_reader(cbor.as_slice()).expect("own encoding");
        assert_eq!(read, entry);
        let bytes = postcard::to_stdvec(&entry).expect("it fits");
        assert_eq!(postcard::from_bytes(&bytes), Ok(entry));
    }
}
