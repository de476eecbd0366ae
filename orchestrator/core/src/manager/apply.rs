//! The apply loop: what consensus hands out becomes records, messages, the store and notices, in
//! that order, the same on every manager.

use std::collections::BTreeMap;

use raft::eraftpb::{Entry, EntryType};
use wavetank_model::{Change, Epoch, NodeId, Notice, Revision};

use super::Manager;
use super::command::Command;
use super::consensus::{Batch, Consensus};
use super::journal::{Hard, NOBODY};
use super::leading::Leading;
use super::store::Store;
use super::wire;
use crate::message::Message;
use crate::process::Context;
use crate::record::{LogEntry, ManagerCheckpoint, Record, Snapshot};

impl Manager {
    /// Drives consensus until it has nothing more to do, and the leader's duties in between.
    pub(super) fn drive(&mut self, ctx: &mut Context<'_>) {
        let mut plans = 0;
        loop {
            self.apply_batches(ctx);
            if self.ended {
                return;
            }
            self.lead(ctx, &mut plans);
            let more = self.consensus.as_ref().is_some_and(Consensus::has_batch);
            if !more && self.proposals.is_empty() {
                break;
            }
        }
        self.checkpoint_if_due(ctx);
    }

    pub(super) fn apply_batches(&mut self, ctx: &mut Context<'_>) {
        while !self.ended && self.consensus.as_ref().is_some_and(Consensus::has_batch) {
            let mut batch = std::mem::take(&mut self.batch);
            self.apply_batch(ctx, &mut batch);
            self.batch = batch;
        }
        // A role may change without anything to persist or send.
        self.announce_role(ctx);
    }

    pub(super) fn apply_batch(&mut self, ctx: &mut Context<'_>, batch: &mut Batch) {
        let Some(consensus) = &mut self.consensus else {
            return;
        };
        consensus.take_batch(batch, ctx.rng());
        if batch.snapshot.take().is_some() {
            self.install_snapshot(ctx);
        }
        for record in batch.records.drain(..) {
            ctx.persist(record);
        }
        for message in batch.messages.drain(..) {
            if let Some(to) = self.members.get(&message.to) {
                ctx.send(*to, Message::Raft(Box::new(wire::message_out(&message))));
            }
        }
        self.announce_role(ctx);
        for entry in batch.committed.drain(..) {
            self.apply(ctx, &entry);
        }
        if let Some(leading) = &mut self.leading {
            for (round, index) in batch.reads.drain(..) {
                leading.requests.confirm(round, index);
            }
        }
        if let Some(consensus) = self.consensus.as_mut().filter(|_| !self.ended) {
            consensus.finish_batch(ctx.rng());
        }
    }

    /// The library has taken the snapshot; log, store and disk follow.
    pub(super) fn install_snapshot(&mut self, ctx: &mut Context<'_>) {
        let Some(consensus) = &self.consensus else {
            return;
        };
        let Some(snapshot) = consensus.journal().snapshot_out() else {
            return;
        };
        let arrived = self
            .arriving
            .take()
            .filter(|(index, _)| *index == snapshot.index);
        self.store = match arrived {
            Some((_, store)) => store,
            None => match Store::decode(&snapshot.data) {
                Ok(store) => store,
                Err(error) => return self.give_up(ctx, &error.to_string()),
            },
        };
        self.applied = snapshot.index;
        self.members.extend(self.store.members());
        let revision = Revision(snapshot.index);
        let checkpoint = self.checkpoint_record(snapshot, Vec::new());
        ctx.persist(checkpoint);
        ctx.notice(Notice::SnapshotInstalled { revision });
        self.announce_members(ctx);
    }

    pub(super) fn apply(&mut self, ctx: &mut Context<'_>, entry: &Entry) {
        if self.ended {
            return;
        }
        let changes = match entry.get_entry_type() {
            EntryType::EntryNormal if entry.data.is_empty() => Vec::new(),
            EntryType::EntryNormal => match self.apply_command(ctx, entry) {
                Some(changes) => changes,
                None => return,
            },
            EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => {
                self.apply_members(ctx, entry);
                Vec::new()
            }
        };
        self.applied = entry.index;
        if let Some(leading) = &mut self.leading
            && entry.term == leading.epoch
        {
            leading.plan_wanted |= !changes.is_empty();
            if !leading.active {
                self.start_leading(ctx);
            }
        }
        let (revision, epoch) = (Revision(entry.index), Epoch(entry.term));
        ctx.notice(Notice::Applied {
            revision,
            epoch,
            digest: wire::digest(entry),
            changes,
        });
    }

    /// Applies a command to the store and to the leader's soft state.
    pub(super) fn apply_command(
        &mut self,
        ctx: &mut Context<'_>,
        entry: &Entry,
    ) -> Option<Vec<Change>> {
        let command = match Command::decode(&entry.data) {
            Ok(command) => command,
            Err(error) => {
                // Going on would give this manager another store than the others have.
                ctx.fatal(format!(
                    "{}: log entry {}: {error}",
                    self.config.id, entry.index
                ));
                self.end();
                return None;
            }
        };
        let applied = self.store.apply(Revision(entry.index), &command);
        if let Command::Member { member, node, .. } = command {
            self.members.insert(member, node);
        }
        if let Some(leading) = &mut self.leading {
            if let Some(planner) = &mut leading.planner {
                planner.note(&applied.changes, ctx.now());
            }
            leading.dispatcher.note(&applied.changes);
            leading.requests.applied(entry.index, applied.result, ctx);
            leading.applied(&command, &self.store, self.config.id, ctx);
        }
        Some(applied.changes)
    }

    pub(super) fn apply_members(&mut self, ctx: &mut Context<'_>, entry: &Entry) {
        let Some(consensus) = &mut self.consensus else {
            return;
        };
        if consensus.apply_members(entry, ctx.rng()) {
            self.announce_members(ctx);
        }
    }

    pub(super) fn announce_members(&self, ctx: &mut Context<'_>) {
        let Some(consensus) = &self.consensus else {
            return;
        };
        let voters = consensus.conf().voters.iter();
        let mut voters: Vec<NodeId> = voters
            .filter_map(|voter| self.members.get(voter).copied())
            .collect();
        voters.sort_unstable();
        ctx.notice(Notice::MembershipChanged { voters });
    }

    /// Says what part it plays, if that changed, and takes up or drops a leader's soft state.
    pub(super) fn announce_role(&mut self, ctx: &mut Context<'_>) {
        let Some(consensus) = &self.consensus else {
            return;
        };
        let (role, term) = (consensus.role(), consensus.term());
        if self.announced == (role, term) {
            return;
        }
        self.announced = (role, term);
        ctx.notice(Notice::RoleChanged {
            role,
            epoch: Epoch(term),
        });
        self.leading = consensus
            .leads()
            .then(|| Leading::new(term, &self.config.timers));
        if self.leading.is_none() {
            self.proposals.clear();
        }
    }

    pub(super) fn checkpoint_if_due(&mut self, ctx: &mut Context<'_>) {
        let Some(consensus) = &mut self.consensus else {
            return;
        };
        let since = self.applied - consensus.journal().snapshot_index().min(self.applied);
        let wanted = since > 0 && consensus.take_snapshot_wanted();
        if since < self.config.timers.snapshot_every.max(1) && !wanted {
            return;
        }
        let (snapshot, entries) = consensus.checkpoint(self.applied, self.store.encode());
        let record = self.checkpoint_record(snapshot, entries);
        ctx.persist(record);
    }

    pub(super) fn checkpoint_record(&self, snapshot: Snapshot, entries: Vec<LogEntry>) -> Record {
        let hard = self
            .consensus
            .as_ref()
            .map_or_else(Hard::default, Consensus::durable);
        let member = self.consensus.as_ref().map_or(NOBODY, Consensus::member);
        checkpoint_of(member, &self.members, hard, snapshot, entries)
    }
}

pub(super) fn checkpoint_of(
    member: u64,
    members: &BTreeMap<u64, NodeId>,
    hard: Hard,
    snapshot: Snapshot,
    entries: Vec<LogEntry>,
) -> Record {
    let Hard { term, vote, commit } = hard;
    // Never more than what this record holds.
    let commit = commit.min(snapshot.index + entries.len() as u64);
    let members = members.clone();
    Record::Checkpoint(Box::new(ManagerCheckpoint {
        member,
        members,
        term,
        vote,
        commit,
        snapshot,
        entries,
    }))
}
