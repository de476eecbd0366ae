//! Managers: replicate the store, decide what should run where, and tell agents and clients.
//!
//! A [`Manager`] is a member of a consensus group. What is committed there is applied to its
//! store, on every manager alike. The one that leads also keeps soft state, rebuilt after every
//! election: sessions of agents (`dispatcher`), who waits for which answer (`requests`), and when
//! to look at what again (`planner`).
//!
//! Map: this file routes inputs and runs the apply loop. `consensus` is the seam to the Raft
//! library, `journal` its log and recovery from disk, `wire` the conversions, `membership` who is
//! in the group. `command` and `store` are what is replicated; `planner` (with `reconciler`,
//! `rollout`, `scheduler`, `leases`) decides what to propose.
//!
//! # Order within one input
//! Time that has passed is caught up first, then the input is handled, then consensus is driven
//! until it has nothing more to do. Records, messages and notices go through `Context`, so that a
//! driver that keeps the order of `Effects` sends nothing before what it promises is durable.
//! What a step persisted counts as durable within that step: the effects of one step are carried
//! out together or, after a crash, not sent at all.

use std::collections::BTreeMap;
use std::time::Duration;

use raft::eraftpb::{Entry, EntryType, MessageType};
use rand_chacha::ChaCha8Rng;
use wavetank_model::{
    Availability, Change, ConsensusRole, Epoch, Incarnation, Instant, NodeId, NodeRole, Notice,
    Operation, RequestId, Revision, Timers,
};

use crate::message::{Message, RaftMessage};
use crate::process::{Context, Input, Process};
use crate::record::{ManagerCheckpoint, Record, Snapshot, Stored};

pub mod command;
pub mod leases;
pub mod planner;
pub mod reconciler;
pub mod rollout;
pub mod scheduler;
pub mod store;

mod consensus;
mod dispatcher;
mod journal;
mod membership;
mod requests;
mod wire;

use command::Command;
use consensus::{Batch, Consensus};
use dispatcher::{Dispatcher, Registration};
use journal::{Hard, Journal, NOBODY, Recovered};
use membership::Joining;
use planner::Planner;
use requests::{Read, Requests};
use store::Store;

/// The planner is asked this often within one input before time has to pass. Only a group of one
/// gets near it: there, what is proposed is applied at once.
const PLANS_PER_INPUT_MAX: u32 = 16;

/// A planner that wants to be asked at once is asked after this long, so that a mistake there
/// cannot stop time.
const PLAN_PAUSE_MIN: Duration = Duration::from_millis(1);

/// After a cut-off tail, this many election timeouts are spent waiting for a leader.
const CAUTION_ELECTIONS: u32 = 10;

/// How a manager without durable records starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Boot {
    /// As one of the first members: all of them start with the same list.
    Bootstrap {
        /// The first members by their ids in the consensus group, 1 and up.
        members: BTreeMap<u64, NodeId>,
    },
    /// By asking one of these to let it in. Also after its disk was wiped.
    Join {
        /// Managers to ask.
        contacts: Vec<NodeId>,
    },
}

/// What a manager is told when it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagerConfig {
    /// Its identity.
    pub id: NodeId,
    /// Which boot this is.
    pub incarnation: Incarnation,
    /// What to do if its disk is empty.
    pub boot: Boot,
    /// Its timers.
    pub timers: Timers,
}

/// One manager.
pub struct Manager {
    config: ManagerConfig,
    /// `None` until it was let in.
    consensus: Option<Consensus>,
    /// Who is behind which member id, as far as this manager has heard; for addressing only.
    members: BTreeMap<u64, NodeId>,
    store: Store,
    /// The log position that `store` stands for.
    applied: u64,
    /// What it last said about its part in consensus.
    announced: (ConsensusRole, u64),
    leading: Option<Leading>,
    joining: Option<Joining>,
    /// Set after a cut-off tail: no votes are given or asked for until a leader has brought it up
    /// to date, or until then.
    cautious_until: Option<Instant>,
    /// The first thing to persist and to say, once there is somebody to say it to.
    opening: Option<Opening>,
    /// A store that came with a snapshot: decoded before consensus sees it.
    arriving: Option<(u64, Store)>,
    /// Consensus may have something to do.
    touched: bool,
    deadline: Instant,
    /// It gave up and waits to be ended.
    ended: bool,
    batch: Batch,
    proposals: Vec<Command>,
}

struct Opening {
    record: Option<Record>,
    recovered: Option<Notice>,
}

/// What a leader keeps in addition, for one epoch.
struct Leading {
    epoch: u64,
    /// Something of the own epoch was applied, so that the store is up to date.
    active: bool,
    dispatcher: Dispatcher,
    requests: Requests,
    planner: Option<Planner>,
    /// Something changed since the planner was asked.
    plan_wanted: bool,
    plan_at: Instant,
    /// The planner's last proposals are applied once this position is.
    planned_through: u64,
    /// Nodes that want to be let in.
    joins: BTreeMap<NodeId, Incarnation>,
    /// A new member id is given once this position is applied.
    allocating: u64,
    /// Snapshots on their way, and until when they are waited for.
    snapshots: BTreeMap<u64, Instant>,
    /// An operator drained this manager: somebody else is to lead.
    hand_over: bool,
}

impl Leading {
    fn new(epoch: u64, timers: &Timers) -> Self {
        Leading {
            epoch,
            active: false,
            dispatcher: Dispatcher::new(timers, Epoch(epoch)),
            requests: Requests::default(),
            planner: None,
            plan_wanted: true,
            plan_at: Instant::NEVER,
            planned_through: 0,
            joins: BTreeMap::new(),
            allocating: 0,
            snapshots: BTreeMap::new(),
            hand_over: false,
        }
    }
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

    /// The replicated store as this manager has it.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// True while it leads and its store is up to date.
    pub fn is_leader(&self) -> bool {
        self.leading.as_ref().is_some_and(|leading| leading.active)
    }

    /// What could not be done without a context: the first write and the first words.
    fn open(&mut self, ctx: &mut Context<'_>) {
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

    /// Does what has become due.
    fn handle_time(&mut self, ctx: &mut Context<'_>) {
        let now = ctx.now();
        if self.cautious_until.is_some_and(|until| now >= until) {
            self.cautious_until = None;
        }
        self.tick(ctx);
        self.continue_joining(ctx);
        if let Some(leading) = &mut self.leading {
            leading
                .dispatcher
                .check(&self.store, ctx, &mut self.proposals);
            if leading.active && now >= leading.plan_at {
                leading.plan_wanted = true;
                self.touched = true;
            }
        }
    }

    fn tick(&mut self, ctx: &mut Context<'_>) {
        let Some(consensus) = &mut self.consensus else {
            return;
        };
        if self.cautious_until.is_some() {
            consensus.skip_ticks(ctx.now());
        } else {
            consensus.catch_up(ctx.now(), ctx.rng());
            self.touched = true;
        }
    }

    fn handle_message(&mut self, ctx: &mut Context<'_>, from: NodeId, message: Message) {
        match message {
            Message::Raft(message) => self.handle_raft(ctx, from, &message),
            Message::Heartbeat {
                session,
                sent_at: _,
                assignments,
            } => match &mut self.leading {
                Some(leading) => {
                    let dispatcher = &mut leading.dispatcher;
                    dispatcher.heartbeat(from, session, assignments, &self.store, ctx);
                }
                None => self.redirect(ctx, from),
            },
            Message::Report { session, reports } => match &mut self.leading {
                Some(leading) => {
                    let (dispatcher, out) = (&mut leading.dispatcher, &mut self.proposals);
                    dispatcher.report(from, session, reports, &self.store, ctx, out);
                }
                None => self.redirect(ctx, from),
            },
            Message::Register {
                incarnation,
                resources,
                labels,
            } => match &mut self.leading {
                Some(leading) => {
                    let registration = Registration {
                        incarnation,
                        resources,
                        labels,
                    };
                    let (dispatcher, out) = (&mut leading.dispatcher, &mut self.proposals);
                    dispatcher.register(from, registration, &self.store, ctx, out);
                }
                None => self.redirect(ctx, from),
            },
            Message::Request { id, operation } => self.handle_request(ctx, from, id, operation),
            Message::Join { incarnation } => self.handle_join(ctx, from, incarnation),
            Message::Joined {
                incarnation,
                member,
                members,
            } => {
                self.handle_joined(ctx, incarnation, member, members);
            }
            Message::Redirect { leader } => {
                if let Some(joining) = &mut self.joining {
                    joining.redirected(leader, self.config.incarnation, ctx);
                }
            }
            // Answers that managers give; nobody sends them to one.
            Message::Registered { .. }
            | Message::HeartbeatAcknowledged { .. }
            | Message::SessionUnknown { .. }
            | Message::Assignments { .. }
            | Message::ReportAcknowledged { .. }
            | Message::Response { .. } => {}
        }
    }

    /// Names the leader, if there is one, to somebody who wants it.
    fn redirect(&self, ctx: &mut Context<'_>, from: NodeId) {
        let leader = self.consensus.as_ref().map_or(NOBODY, Consensus::leader);
        let leader = self
            .members
            .get(&leader)
            .copied()
            .filter(|leader| *leader != self.config.id);
        ctx.send(from, Message::Redirect { leader });
    }

    fn handle_request(
        &mut self,
        ctx: &mut Context<'_>,
        from: NodeId,
        id: RequestId,
        operation: Operation,
    ) {
        let (Some(leading), Some(consensus)) = (&mut self.leading, &mut self.consensus) else {
            return self.redirect(ctx, from);
        };
        if operation.is_read() || matches!(operation, Operation::LeaseRenew { .. }) {
            leading.requests.read(Read {
                from,
                id,
                operation,
            });
        } else if !leading.requests.is_under_way(id) {
            let command = Command::Client { id, operation };
            // While leadership is handed over nothing is proposed; the client will ask again.
            if let Some(index) = consensus.propose(command.encode()) {
                leading.requests.proposed(index, from, id);
            }
        }
        self.touched = true;
    }

    fn handle_raft(&mut self, ctx: &mut Context<'_>, from: NodeId, message: &RaftMessage) {
        let Some(consensus) = &self.consensus else {
            return;
        };
        if message.to != consensus.member() || from.role != NodeRole::Manager {
            return;
        }
        // A leader may be newer than what this manager has heard of.
        if *self.members.entry(message.from).or_insert(from) != from {
            return;
        }
        if let Err(refused) = self.step(ctx, message) {
            let notice = Notice::Undecodable {
                from,
                message: "raft".to_owned(),
                error: refused.0,
            };
            ctx.notice(notice);
        }
    }

    fn step(&mut self, ctx: &mut Context<'_>, message: &RaftMessage) -> Result<(), wire::Refused> {
        let inside = wire::message_in(message)?;
        if let Some(snapshot) = &message.snapshot {
            let store = Store::decode(&snapshot.data);
            let store = store.map_err(|error| wire::Refused(error.to_string()))?;
            self.arriving = Some((snapshot.index, store));
        }
        self.tick(ctx);
        let Some(consensus) = &mut self.consensus else {
            return Ok(());
        };
        if consensus.acknowledges_too_much(&inside) {
            return Err(wire::Refused(
                "it acknowledges entries that do not exist".to_owned(),
            ));
        }
        if consensus.lost_entries(&inside) {
            self.give_up(ctx, "the leader counts on entries that this disk lost");
            return Ok(());
        }
        let kind = inside.get_msg_type();
        if self.cautious_until.is_some() && is_about_elections(kind) {
            return Ok(());
        }
        consensus.step(inside, ctx.rng());
        self.touched = true;
        let from_leader = matches!(kind, MessageType::MsgAppend | MessageType::MsgSnapshot)
            && consensus.leader() == message.from;
        if from_leader && consensus.last() > 0 && consensus.commit() >= message.commit {
            self.cautious_until = None;
        }
        Ok(())
    }

    /// This identity cannot be used any more; says so on disk, so that nobody tries again.
    fn give_up(&mut self, ctx: &mut Context<'_>, why: &str) {
        ctx.persist(Record::Member {
            member: NOBODY,
            members: BTreeMap::new(),
        });
        ctx.fatal(format!(
            "{}: {why}; wipe the disk and join again",
            self.config.id
        ));
        self.end();
    }

    fn end(&mut self) {
        self.ended = true;
        self.leading = None;
        self.proposals.clear();
    }

    /// Drives consensus until it has nothing more to do, and the leader's duties in between.
    fn drive(&mut self, ctx: &mut Context<'_>) {
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

    fn apply_batches(&mut self, ctx: &mut Context<'_>) {
        while !self.ended && self.consensus.as_ref().is_some_and(Consensus::has_batch) {
            let mut batch = std::mem::take(&mut self.batch);
            self.apply_batch(ctx, &mut batch);
            self.batch = batch;
        }
        // A role may change without anything to persist or send.
        self.announce_role(ctx);
    }

    fn apply_batch(&mut self, ctx: &mut Context<'_>, batch: &mut Batch) {
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
    fn install_snapshot(&mut self, ctx: &mut Context<'_>) {
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

    fn apply(&mut self, ctx: &mut Context<'_>, entry: &Entry) {
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
    fn apply_command(&mut self, ctx: &mut Context<'_>, entry: &Entry) -> Option<Vec<Change>> {
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

    fn apply_members(&mut self, ctx: &mut Context<'_>, entry: &Entry) {
        let Some(consensus) = &mut self.consensus else {
            return;
        };
        if consensus.apply_members(entry, ctx.rng()) {
            self.announce_members(ctx);
        }
    }

    fn announce_members(&self, ctx: &mut Context<'_>) {
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
    fn announce_role(&mut self, ctx: &mut Context<'_>) {
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

    /// The first entry of the own epoch is applied: everything before it is, too.
    fn start_leading(&mut self, ctx: &mut Context<'_>) {
        let Some(leading) = &mut self.leading else {
            return;
        };
        leading.active = true;
        leading.planner = Some(Planner::new(&self.config.timers, ctx.now(), &self.store));
        leading
            .dispatcher
            .activate(&self.store, ctx, &mut self.proposals);
    }

    /// The leader's duties after something has changed.
    fn lead(&mut self, ctx: &mut Context<'_>, plans: &mut u32) {
        let (Some(leading), Some(consensus)) = (&mut self.leading, &mut self.consensus) else {
            self.proposals.clear();
            return;
        };
        leading
            .dispatcher
            .settle(&self.store, ctx, &mut self.proposals);
        for command in self.proposals.drain(..) {
            // One that is dropped is made again when it is still called for.
            let _position = consensus.propose(command.encode());
        }
        for read in leading.requests.answerable(self.applied) {
            leading.answer(&read, &self.store, ctx);
        }
        leading.requests.start_round(consensus);
        leading.plan(consensus, &self.store, self.applied, plans, ctx.now());
        leading.watch_snapshots(consensus, &self.config.timers, ctx.now());
        if std::mem::take(&mut leading.hand_over) {
            consensus.transfer(None);
        }
        self.drive_membership(ctx);
    }

    fn checkpoint_if_due(&mut self, ctx: &mut Context<'_>) {
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

    fn checkpoint_record(
        &self,
        snapshot: Snapshot,
        entries: Vec<crate::record::LogEntry>,
    ) -> Record {
        let hard = self
            .consensus
            .as_ref()
            .map_or_else(Hard::default, Consensus::durable);
        let member = self.consensus.as_ref().map_or(NOBODY, Consensus::member);
        checkpoint_of(member, &self.members, hard, snapshot, entries)
    }

    /// After every input: whatever it led to is done, and the next deadline is known.
    fn finish(&mut self, ctx: &mut Context<'_>) {
        if !self.ended && (self.touched || !self.proposals.is_empty()) {
            self.touched = false;
            self.drive(ctx);
        }
        self.refresh_deadline();
    }

    fn refresh_deadline(&mut self) {
        let mut deadline = Instant::NEVER;
        if let Some(consensus) = &self.consensus {
            deadline = self.cautious_until.unwrap_or_else(|| consensus.deadline());
        }
        if let Some(joining) = &self.joining {
            deadline = deadline.min(joining.next_deadline());
        }
        if let Some(leading) = &self.leading {
            deadline = deadline.min(leading.dispatcher.next_deadline());
            if leading.active && leading.planned_through <= self.applied {
                deadline = deadline.min(leading.plan_at);
            }
        }
        let opens = self.opening.is_some() || self.touched;
        self.deadline = if self.ended {
            Instant::NEVER
        } else if opens {
            Instant::ZERO
        } else {
            deadline
        };
    }
}

impl Leading {
    /// Soft state that follows from a command that was applied.
    fn applied(&mut self, command: &Command, store: &Store, own: NodeId, ctx: &mut Context<'_>) {
        match command {
            Command::Report { node, reports } => {
                self.dispatcher.reported(*node, reports, store, ctx);
            }
            Command::NodeUp { node, .. } => self.dispatcher.went_up(*node, ctx.now()),
            Command::NodeDown { node } => self.dispatcher.went_down(*node),
            Command::Client {
                operation: Operation::SetAvailability { node, availability },
                ..
            } => {
                self.hand_over |= *node == own && *availability == Availability::Drain;
            }
            _ => {}
        }
    }

    /// Answers a read whose round was confirmed. A lease that is about to expire is not renewed
    /// and not answered for: the holder asks again and learns what became of it.
    fn answer(&mut self, read: &Read, store: &Store, ctx: &mut Context<'_>) {
        let result = store.read(&read.operation);
        if let (Operation::LeaseRenew { lease, token }, Ok(_)) = (&read.operation, &result) {
            let Some(planner) = &mut self.planner else {
                return;
            };
            if !planner.renew(lease, *token, ctx.now()) {
                return;
            }
        }
        ctx.send(
            read.from,
            Message::Response {
                id: read.id,
                result,
            },
        );
    }

    /// Asks the planner, unless what it decided last is still on its way: it must not decide
    /// twice from the same store.
    fn plan(
        &mut self,
        consensus: &mut Consensus,
        store: &Store,
        applied: u64,
        plans: &mut u32,
        now: Instant,
    ) {
        let Some(planner) = &mut self.planner else {
            return;
        };
        if !self.plan_wanted || self.planned_through > applied || consensus.transferring() {
            return;
        }
        if *plans >= PLANS_PER_INPUT_MAX {
            self.plan_at = now + PLAN_PAUSE_MIN;
            return;
        }
        *plans += 1;
        self.plan_wanted = false;
        for command in planner.step(store, now) {
            match consensus.propose(command.encode()) {
                Some(index) => self.planned_through = index,
                None => self.plan_wanted = true,
            }
        }
        self.plan_at = planner.next_deadline().max(now + PLAN_PAUSE_MIN);
    }
}

impl Process for Manager {
    fn handle(&mut self, ctx: &mut Context<'_>, input: Input) {
        if self.ended {
            return;
        }
        self.open(ctx);
        if ctx.now() >= self.deadline {
            self.handle_time(ctx);
        }
        match input {
            Input::Message { from, message } => self.handle_message(ctx, from, message),
            Input::Undecodable { from, kind, error } => {
                ctx.notice(Notice::Undecodable {
                    from,
                    message: kind.to_owned(),
                    error,
                });
            }
            Input::ConnectionLost { peer } => self.handle_lost_peer(peer),
            // Time was handled above; the rest is for agents and clients.
            Input::Timer
            | Input::Runtime { .. }
            | Input::RuntimeEvent(_)
            | Input::Lock { .. }
            | Input::Submit { .. } => {}
        }
        self.finish(ctx);
    }

    fn next_deadline(&self) -> Instant {
        self.deadline
    }
}

impl Manager {
    fn handle_lost_peer(&mut self, peer: NodeId) {
        let Some(consensus) = &mut self.consensus else {
            return;
        };
        for (member, node) in &self.members {
            if *node == peer {
                consensus.unreachable(*member);
                self.touched = true;
            }
        }
    }
}

/// Messages that lead to votes.
fn is_about_elections(kind: MessageType) -> bool {
    matches!(
        kind,
        MessageType::MsgRequestVote | MessageType::MsgRequestPreVote | MessageType::MsgTimeoutNow
    )
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

fn checkpoint_of(
    member: u64,
    members: &BTreeMap<u64, NodeId>,
    hard: Hard,
    snapshot: Snapshot,
    entries: Vec<crate::record::LogEntry>,
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
