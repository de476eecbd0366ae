//! Managers: replicate the store, decide what should run where, and tell agents and clients.
//!
//! A [`Manager`] is a member of a consensus group. What is committed there is applied to its
//! store, on every manager alike. The one that leads also keeps soft state, rebuilt after every
//! election: sessions of agents (`dispatcher`), who waits for which answer (`requests`), and when
//! to look at what again (`planner`).
//!
//! Map: this file routes inputs; `start` makes a manager from its disk, `apply` carries out what
//! consensus decides, `leading` is what a leader does besides. `consensus` is the seam to the Raft
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

use raft::eraftpb::MessageType;
use wavetank_model::{
    ConsensusRole, Incarnation, Instant, NodeId, NodeRole, Notice, Operation, OperationError,
    RequestId, Timers,
};

use crate::message::{Message, RaftMessage};
use crate::process::{Context, Input, Process};
use crate::record::Record;

pub mod command;
pub mod leases;
pub mod planner;
pub mod reconciler;
pub mod rollout;
pub mod scheduler;
pub mod store;

mod apply;
mod consensus;
mod dispatcher;
mod journal;
mod leading;
mod membership;
mod requests;
mod start;
mod wire;

use command::Command;
use consensus::{Batch, Consensus};
use dispatcher::Registration;
use journal::NOBODY;
use leading::Leading;
use membership::{Joining, would_lose_quorum};
use requests::Read;
use start::Opening;
use store::Store;

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

impl Manager {
    /// The replicated store as this manager has it.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// True while it leads and its store is up to date.
    pub fn is_leader(&self) -> bool {
        self.leading.as_ref().is_some_and(|leading| leading.active)
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
        if !operation.is_open_to(from.role) {
            let why = format!("an agent may not ask for {}", operation.name());
            let result = Err(OperationError::Invalid { why });
            ctx.send(from, Message::Response { id, result });
        } else if operation.is_read() || matches!(operation, Operation::LeaseRenew { .. }) {
            leading.requests.read(Read {
                from,
                id,
                operation,
            });
        } else if let Some(refusal) = would_lose_quorum(consensus, self.store.members(), &operation)
        {
            let result = Err(refusal);
            ctx.send(from, Message::Response { id, result });
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
            | Input::Submit { .. }
            | Input::Cancel { .. } => {}
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
