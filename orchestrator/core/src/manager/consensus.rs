//! The seam to the Raft library: ticks from time, our random draws, messages in and out, and one
//! batch at a time of what is to be persisted, sent and applied. It knows nothing of commands.
//!
//! # Determinism
//! The library draws an election timeout from a random source of its own whenever it resets.
//! That value is read in `tick` only, and every call that may reset is followed by `settle`, which
//! puts our own draw in its place. Our draw is kept until role, term or campaign change: whether
//! the library has drawn in between cannot be seen from outside and must not matter. What comes
//! out of the library's hash sets (recipients of a broadcast, members) is put in order.
//!
//! # Order of writes
//! A leader may send entries to others before they are on its own disk. That is not used: all
//! messages of a batch go through `Effects`, behind the batch's records. The commit position
//! alone is not worth a write; it is written along with terms, votes and entries, and when a
//! membership change was committed, so that a restarted manager never acts under a membership
//! that the others have left two changes behind.

mod peers;

use std::collections::BTreeMap;
use std::time::Duration;

use raft::eraftpb::{ConfState, Entry, EntryType, Message, MessageType, Snapshot as RaftSnapshot};
use raft::{Config, RawNode, ReadOnlyOption, StateRole};
use rand_chacha::ChaCha8Rng;
use wavetank_model::{ConsensusRole, Instant, Timers};

use super::journal::{Hard, Journal, NOBODY};
use super::wire::{self, MemberStep};
use crate::random::draw_below;
use crate::record::{LogEntry, Record, Snapshot};

/// Finer than heartbeats, so that election timeouts are spread well.
const TICKS_PER_HEARTBEAT: u32 = 10;

/// Entries that fit into one message, in bytes; a single larger one still travels.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;

/// Append messages on their way to one follower.
const IN_FLIGHT_MAX: usize = 256;

/// What one round of consensus wants done.
#[derive(Default)]
pub(super) struct Batch {
    /// Terms, votes and entries to be made durable. With a snapshot: after its checkpoint.
    pub records: Vec<Record>,
    /// A snapshot that replaces log and store.
    pub snapshot: Option<RaftSnapshot>,
    /// To other members, once all that is durable.
    pub messages: Vec<Message>,
    /// To be applied, in order.
    pub committed: Vec<Entry>,
    /// Read rounds that are confirmed, with the position that has to be applied first.
    pub reads: Vec<(u64, u64)>,
}

impl Batch {
    fn clear(&mut self) {
        self.records.clear();
        self.snapshot = None;
        self.messages.clear();
        self.committed.clear();
        self.reads.clear();
    }
}

/// One member of the consensus group.
pub(super) struct Consensus {
    raw: RawNode<Journal>,
    /// Length of a tick.
    tick: Duration,
    /// The moment up to which ticks were delivered; a whole number of ticks after the first.
    ticked: Instant,
    /// Our election timeout in ticks, and what it was drawn for.
    draw: usize,
    drawn_for: (u64, StateRole),
    /// What the disk knows.
    durable: Hard,
    /// While it leads: when each other member was last heard of.
    heard: BTreeMap<u64, Instant>,
}

impl Consensus {
    /// A member that continues from its log.
    pub fn new(
        member: u64,
        journal: Journal,
        timers: &Timers,
        now: Instant,
        rng: &mut ChaCha8Rng,
    ) -> Result<Self, String> {
        let tick = (timers.raft_heartbeat / TICKS_PER_HEARTBEAT).max(Duration::from_nanos(1));
        let config = config(member, &journal, timers, tick);
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raw = RawNode::new(&config, journal, &logger).map_err(|error| error.to_string())?;
        let durable = hard_of(&raw);
        let mut consensus = Consensus {
            raw,
            tick,
            // Managers that start together do not tick together.
            ticked: now - Duration::from_nanos(draw_below(rng, nanos(tick))),
            draw: 0,
            drawn_for: (0, StateRole::Follower),
            durable,
            heard: BTreeMap::new(),
        };
        consensus.redraw(rng);
        Ok(consensus)
    }

    /// Its id in the consensus group.
    pub fn member(&self) -> u64 {
        self.raw.raft.id
    }

    /// Newest term it knows.
    pub fn term(&self) -> u64 {
        self.raw.raft.term
    }

    /// The member it takes for the leader; [`NOBODY`] if none.
    pub fn leader(&self) -> u64 {
        self.raw.raft.leader_id
    }

    /// True while it leads.
    pub fn leads(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    /// Its part in consensus.
    pub fn role(&self) -> ConsensusRole {
        match self.raw.raft.state {
            StateRole::Leader => ConsensusRole::Leader,
            StateRole::Candidate | StateRole::PreCandidate => ConsensusRole::Candidate,
            StateRole::Follower if self.raw.raft.promotable() => ConsensusRole::Follower,
            StateRole::Follower => ConsensusRole::Learner,
        }
    }

    /// The log.
    pub fn journal(&self) -> &Journal {
        self.raw.store()
    }

    /// Position of the last entry it holds.
    pub fn last(&self) -> u64 {
        self.raw.raft.raft_log.last_index()
    }

    /// How far it knows the log to be committed.
    pub fn commit(&self) -> u64 {
        self.raw.raft.raft_log.committed
    }

    /// What was last made durable, or is about to be.
    pub fn durable(&self) -> Hard {
        self.durable
    }

    /// Delivers the ticks that have passed. A leader or candidate that slept long gets enough of
    /// them to find out that it lost its quorum, not all.
    pub fn catch_up(&mut self, now: Instant, rng: &mut ChaCha8Rng) {
        let due = nanos(now.since(self.ticked)) / nanos(self.tick);
        if due == 0 {
            return;
        }
        self.ticked = self.ticked + Duration::from_nanos(due.saturating_mul(nanos(self.tick)));
        let most = 2 * self.raw.raft.election_timeout();
        for _ in 0..usize::try_from(due).unwrap_or(most).min(most) {
            let campaigned = self.raw.tick() && !self.leads();
            if campaigned {
                self.redraw(rng);
                break;
            }
            self.settle(rng);
        }
    }

    /// Forgets the time that has passed without delivering ticks.
    pub fn skip_ticks(&mut self, now: Instant) {
        let due = nanos(now.since(self.ticked)) / nanos(self.tick);
        self.ticked = self.ticked + Duration::from_nanos(due.saturating_mul(nanos(self.tick)));
    }

    /// When the next tick that does something is due.
    pub fn deadline(&self) -> Instant {
        let raft = &self.raw.raft;
        let ticks = if self.leads() {
            let heartbeat = raft
                .heartbeat_timeout()
                .saturating_sub(raft.heartbeat_elapsed());
            heartbeat.min(
                raft.election_timeout()
                    .saturating_sub(raft.election_elapsed),
            )
        } else if raft.promotable() {
            self.draw.saturating_sub(raft.election_elapsed)
        } else {
            return Instant::NEVER;
        };
        let ticks = u32::try_from(ticks.max(1)).unwrap_or(u32::MAX);
        self.ticked + self.tick.saturating_mul(ticks)
    }

    /// True if the sender counts on log entries of ours that are not there: they were on our disk
    /// once, or the sender would not count on them.
    pub fn lost_entries(&self, message: &Message) -> bool {
        message.get_msg_type() == MessageType::MsgHeartbeat
            && message.term >= self.term()
            && message.commit > self.last()
    }

    /// True if an acknowledgement names entries that we, as leader, do not have.
    pub fn acknowledges_too_much(&self, message: &Message) -> bool {
        message.get_msg_type() == MessageType::MsgAppendResponse
            && message.term == self.term()
            && self.leads()
            && !message.reject
            && message.index > self.last()
    }

    /// Handles a message that was checked before. Stale ones are ignored by the library.
    pub fn step(&mut self, message: Message, rng: &mut ChaCha8Rng) {
        if self.leads() {
            self.heard.insert(message.from, self.ticked);
        }
        // The only errors are answers of members that are gone.
        let _gone = self.raw.step(message);
        self.settle(rng);
    }

    /// Appends a command to the log; its position, or `None` if this manager cannot do that now.
    pub fn propose(&mut self, data: Vec<u8>) -> Option<u64> {
        if !self.leads() {
            return None;
        }
        self.raw
            .propose(Vec::new(), data)
            .ok()
            .map(|()| self.last())
    }

    /// Proposes a change of the membership. False if one is under way or this manager cannot.
    pub fn propose_members(&mut self, steps: &[MemberStep]) -> bool {
        if !self.leads() || self.raw.raft.has_pending_conf() {
            return false;
        }
        self.raw
            .propose_conf_change(Vec::new(), wire::change_of(steps))
            .is_ok()
    }

    /// True if a change of the membership may be proposed.
    pub fn may_change_members(&self) -> bool {
        self.leads() && !self.raw.raft.has_pending_conf() && !self.transferring()
    }

    /// Applies a committed change of the membership. False if it makes no sense and is void.
    pub fn apply_members(&mut self, entry: &Entry, rng: &mut ChaCha8Rng) -> bool {
        let change = wire::change_in(entry);
        let Ok(conf) = self.raw.apply_conf_change(&change) else {
            return false;
        };
        self.raw.mut_store().set_conf(conf);
        if self.leads() && !self.is_member() {
            // The library does not expect a leader without progress of its own.
            let term = self.term();
            self.raw.raft.become_follower(term, NOBODY);
        }
        self.settle(rng);
        true
    }

    /// True if the current membership has this manager in it.
    pub fn is_member(&self) -> bool {
        let conf = self.journal().conf();
        conf.voters.contains(&self.member())
            || conf.learners.contains(&self.member())
            || conf.voters_outgoing.contains(&self.member())
    }

    /// The membership after all applied entries.
    pub fn conf(&self) -> &ConfState {
        self.journal().conf()
    }

    /// Hands leadership to another voter, the one that is furthest if none is named. False if
    /// there is nobody to hand it to.
    pub fn transfer(&mut self, to: Option<u64>) -> bool {
        if !self.leads() {
            return false;
        }
        let Some(to) = to.or_else(|| self.successor()) else {
            return false;
        };
        self.raw.transfer_leader(to);
        self.transferring()
    }

    /// True while leadership is being handed over; proposals are dropped meanwhile.
    pub fn transferring(&self) -> bool {
        self.raw.raft.lead_transferee.is_some()
    }

    /// True if reads can be confirmed: something of the own term is committed.
    pub fn may_read(&self) -> bool {
        self.leads() && self.raw.raft.commit_to_current_term()
    }

    /// Asks the others to confirm that this manager still leads.
    pub fn read_index(&mut self, round: u64) {
        self.raw.read_index(round.to_be_bytes().to_vec());
    }

    /// True if [`Self::take_batch`] has something.
    pub fn has_batch(&self) -> bool {
        self.raw.has_ready()
    }

    /// Takes out what is to be done. Once all of it is on its way, call [`Self::finish_batch`].
    pub fn take_batch(&mut self, batch: &mut Batch, rng: &mut ChaCha8Rng) {
        batch.clear();
        let mut ready = self.raw.ready();
        let snapshot = ready.snapshot().clone();
        if !snapshot.is_empty() {
            self.raw.mut_store().install(snapshot.clone());
            batch.snapshot = Some(snapshot);
        }
        let entries = ready.take_entries();
        let joined = self.raw.mut_store().append(&entries);
        assert!(joined, "the Raft library appends without gaps");
        batch.messages.extend(ready.take_messages());
        batch.messages.extend(ready.take_persisted_messages());
        batch.committed.extend(ready.take_committed_entries());
        batch
            .reads
            .extend(ready.take_read_states().iter().filter_map(|read| {
                Some((
                    u64::from_be_bytes(read.request_ctx.as_slice().try_into().ok()?),
                    read.index,
                ))
            }));
        let mut light = self.raw.advance_append(ready);
        batch.messages.extend(light.take_messages());
        batch.committed.extend(light.take_committed_entries());
        batch.messages.sort_by_key(|message| message.to);
        self.record(batch, &entries);
        self.settle(rng);
    }

    /// Entries go before the hard state. A crash may keep the first records only, and a commit
    /// position must never be on disk before the entries it is about: older ones at the same
    /// positions would count as committed. The other way round does no harm: entries of a term
    /// that the disk has not heard of tell it of that term, and no vote was given in it.
    fn record(&mut self, batch: &mut Batch, entries: &[Entry]) {
        if !entries.is_empty() {
            let entries: Vec<LogEntry> = entries.iter().map(wire::entry_out).collect();
            batch.records.push(Record::Entries(entries));
        }
        let hard = hard_of(&self.raw);
        let voted = (hard.term, hard.vote) != (self.durable.term, self.durable.vote);
        let of_members = |entry: &Entry| entry.get_entry_type() != EntryType::EntryNormal;
        let worth_it = voted || !entries.is_empty() || batch.committed.iter().any(of_members);
        if batch.snapshot.is_some() {
            self.durable = hard;
        } else if worth_it && hard != self.durable {
            self.durable = hard;
            let Hard { term, vote, commit } = hard;
            batch.records.push(Record::HardState { term, vote, commit });
        }
    }

    /// All of the last batch was applied.
    pub fn finish_batch(&mut self, rng: &mut ChaCha8Rng) {
        self.raw.advance_apply();
        self.settle(rng);
    }

    /// True, once, if a member needs a newer snapshot than there is.
    pub fn take_snapshot_wanted(&mut self) -> bool {
        self.raw.mut_store().take_snapshot_wanted()
    }

    /// A new snapshot of the applied store.
    pub fn checkpoint(&mut self, applied: u64, data: Vec<u8>) -> (Snapshot, Vec<LogEntry>) {
        self.durable = hard_of(&self.raw);
        let snapshot = self.raw.mut_store().checkpoint(applied, data);
        let entries = self.journal().entries_after(applied);
        (snapshot, entries)
    }

    /// Puts our draw in the place of whatever the library drew.
    fn settle(&mut self, rng: &mut ChaCha8Rng) {
        if self.drawn_for == (self.term(), self.raw.raft.state) {
            self.raw.raft.set_randomized_election_timeout(self.draw);
        } else {
            self.redraw(rng);
        }
    }

    fn redraw(&mut self, rng: &mut ChaCha8Rng) {
        let least = self.raw.raft.election_timeout();
        let more = draw_below(rng, least as u64);
        self.draw = least + usize::try_from(more).unwrap_or(0);
        self.drawn_for = (self.term(), self.raw.raft.state);
        self.raw.raft.set_randomized_election_timeout(self.draw);
    }
}

fn config(member: u64, journal: &Journal, timers: &Timers, tick: Duration) -> Config {
    let ticks = nanos(timers.raft_election).div_ceil(nanos(tick));
    let heartbeat = TICKS_PER_HEARTBEAT as usize;
    Config {
        id: member,
        heartbeat_tick: heartbeat,
        election_tick: usize::try_from(ticks)
            .unwrap_or(usize::MAX / 4)
            .max(heartbeat + 1),
        applied: journal.snapshot_index(),
        max_size_per_msg: MESSAGE_BYTES_MAX,
        max_inflight_msgs: IN_FLIGHT_MAX,
        check_quorum: true,
        pre_vote: true,
        read_only_option: ReadOnlyOption::Safe,
        ..Config::default()
    }
}

fn hard_of(raw: &RawNode<Journal>) -> Hard {
    let raft = &raw.raft;
    Hard {
        term: raft.term,
        vote: raft.vote,
        commit: raft.raft_log.committed,
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
