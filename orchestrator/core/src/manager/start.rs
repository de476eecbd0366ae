//! How a manager starts: as one of the first, by joining, or from its disk.

use std::collections::BTreeMap;

use rand_chacha::ChaCha8Rng;
use wavetank_model::{ConsensusRole, Instant, NodeId, Notice, Revision};

use super::apply::checkpoint_of;
use super::consensus::{Batch, Consensus};
use super::journal::{self, Hard, Journal, NOBODY, Recovered};
use super::membership::Joining;
use super::store::Store;
use super::{Boot, Manager, ManagerConfig};
use crate::process::Context;
use crate::record::{ManagerCheckpoint, Record, Snapshot, Stored};

/// After a cut-off tail, this many election timeouts are spent waiting for a leader.
const CAUTION_ELECTIONS: u32 = 10;

/// The first thing to persist and to say, once there is somebody to say it to.
pub(super) struct Opening {
    record: Option<Record>,
    recovered: Option<Notice>,
}

impl Manager {
    /// Starts a manager from what its disk holds. `rng` is used only here. An error means that the
    /// disk cannot be trusted: see `journal` for which damage is survived.
    pub fn start(
        config: ManagerConfig,
        stored: Vec<Stored>,
        now: Instant,
        rng: &mut ChaCha8Rng,
    ) -> Result<Self, String> {
        match journal::recover(stored).map_err(|error| error.to_string())? {
            Some(recovered) => Self::resume(config, recovered, now, rng),
            None => Self::first_start(config, now, rng),
        }
    }

    fn first_start(
        config: ManagerConfig,
        now: Instant,
        rng: &mut ChaCha8Rng,
    ) -> Result<Self, String> {
        let (member, members) = match &config.boot {
            Boot::Join { contacts } => {
                let joining = Joining::new(contacts.clone(), now);
                let mut manager = Manager::new(config, None, BTreeMap::new(), Store::new(), 0);
                manager.joining = Some(joining);
                manager.refresh_deadline();
                return Ok(manager);
            }
            Boot::Bootstrap { members } => {
                let own = members.iter().find(|(_, node)| **node == config.id);
                let (member, _) = own.ok_or("it is not among the first members")?;
                (*member, members.clone())
            }
        };
        let store = Store::bootstrap(&members);
        let checkpoint = first_checkpoint(member, &members, &store);
        let hard = Hard {
            term: checkpoint.term,
            vote: NOBODY,
            commit: checkpoint.commit,
        };
        let journal = Journal::after(&checkpoint.snapshot, hard);
        let applied = journal.snapshot_index();
        let consensus = Consensus::new(member, journal, &config.timers, now, rng)?;
        let mut manager = Manager::new(config, Some(consensus), members, store, applied);
        let record = Some(Record::Checkpoint(Box::new(checkpoint)));
        manager.opening = Some(Opening {
            record,
            recovered: None,
        });
        manager.refresh_deadline();
        Ok(manager)
    }

    fn resume(
        config: ManagerConfig,
        recovered: Recovered,
        now: Instant,
        rng: &mut ChaCha8Rng,
    ) -> Result<Self, String> {
        let Recovered {
            member,
            mut members,
            journal,
            store,
            truncated,
        } = recovered;
        let record = truncated.then(|| rewritten(member, &members, &journal));
        let last = Revision(journal.last());
        let applied = journal.snapshot_index();
        members.extend(store.members());
        let contacts: Vec<NodeId> = members
            .values()
            .copied()
            .filter(|node| *node != config.id)
            .collect();
        let caution = CAUTION_ELECTIONS * config.timers.raft_election;
        let joining =
            (last.0 == 0).then(|| Joining::new(contacts, now + config.timers.session_timeout));
        let consensus = Consensus::new(member, journal, &config.timers, now, rng)?;
        let mut manager = Manager::new(config, Some(consensus), members, store, applied);
        manager.joining = joining;
        manager.cautious_until = truncated.then(|| now + caution);
        let recovered = Some(Notice::Recovered { last, truncated });
        manager.opening = Some(Opening { record, recovered });
        manager.touched = true;
        manager.refresh_deadline();
        Ok(manager)
    }

    fn new(
        config: ManagerConfig,
        consensus: Option<Consensus>,
        members: BTreeMap<u64, NodeId>,
        store: Store,
        applied: u64,
    ) -> Self {
        Manager {
            config,
            consensus,
            members,
            store,
            applied,
            announced: (ConsensusRole::Follower, 0),
            leading: None,
            joining: None,
            cautious_until: None,
            opening: None,
            arriving: None,
            touched: false,
            deadline: Instant::ZERO,
            ended: false,
            batch: Batch::default(),
            proposals: Vec::new(),
        }
    }

    /// What could not be done without a context: the first write and the first words.
    pub(super) fn open(&mut self, ctx: &mut Context<'_>) {
        let Some(opening) = self.opening.take() else {
            return;
        };
        if let Some(record) = opening.record {
            ctx.persist(record);
        }
        if let Some(recovered) = opening.recovered {
            ctx.notice(recovered);
        }
    }
}

/// The state that all first members start with. Its log begins at position 1 rather than 0, so
/// that a later joiner is always sent this membership, never an empty one.
fn first_checkpoint(
    member: u64,
    members: &BTreeMap<u64, NodeId>,
    store: &Store,
) -> ManagerCheckpoint {
    let snapshot = Snapshot {
        index: 1,
        term: 1,
        voters: members.keys().copied().collect(),
        learners: Vec::new(),
        voters_outgoing: Vec::new(),
        learners_next: Vec::new(),
        auto_leave: false,
        data: store.encode(),
    };
    let members = members.clone();
    ManagerCheckpoint {
        member,
        members,
        term: 1,
        vote: NOBODY,
        commit: 1,
        snapshot,
        entries: vec![],
    }
}

/// What is left of a disk whose tail was damaged, as one record that replaces it.
fn rewritten(member: u64, members: &BTreeMap<u64, NodeId>, journal: &Journal) -> Record {
    match journal.snapshot_out() {
        Some(snapshot) => {
            let entries = journal.entries_after(snapshot.index);
            checkpoint_of(member, members, journal.hard(), snapshot, entries)
        }
        None => Record::Member {
            member,
            members: members.clone(),
        },
    }
}
