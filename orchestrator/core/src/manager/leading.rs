//! What a leader does besides consensus: takes up its duties once its store is up to date, passes
//! on proposals, answers reads, asks the planner. All of it is soft state of one epoch.

use std::collections::BTreeMap;
use std::time::Duration;

use wavetank_model::{
    Availability, Epoch, Incarnation, Instant, NodeId, Operation, Outcome, Timers,
};

use super::Manager;
use super::command::Command;
use super::consensus::Consensus;
use super::dispatcher::Dispatcher;
use super::planner::Planner;
use super::requests::{Read, Requests};
use super::store::Store;
use crate::message::Message;
use crate::process::Context;

/// The planner is asked this often within one input before time has to pass. Only a group of one
/// gets near it: there, what is proposed is applied at once.
const PLANS_PER_INPUT_MAX: u32 = 16;

/// A planner that wants to be asked at once is asked after this long, so that a mistake there
/// cannot stop time.
const PLAN_PAUSE_MIN: Duration = Duration::from_millis(1);

/// While leadership is handed over nothing can be proposed; the planner waits this long at a time.
const PLAN_PAUSE_TRANSFER: Duration = Duration::from_millis(50);

/// What a leader keeps in addition, for one epoch.
pub(super) struct Leading {
    pub epoch: u64,
    /// Something of the own epoch was applied, so that the store is up to date.
    pub active: bool,
    pub dispatcher: Dispatcher,
    pub requests: Requests,
    pub planner: Option<Planner>,
    /// Something changed since the planner was asked.
    pub plan_wanted: bool,
    pub plan_at: Instant,
    /// The planner's last proposals are applied once this position is.
    pub planned_through: u64,
    /// Nodes that want to be let in.
    pub joins: BTreeMap<NodeId, Incarnation>,
    /// A new member id is given once this position is applied.
    pub allocating: u64,
    /// Snapshots on their way, and until when they are waited for.
    pub snapshots: BTreeMap<u64, Instant>,
    /// An operator drained this manager: somebody else is to lead.
    pub hand_over: bool,
}

impl Leading {
    pub(super) fn new(epoch: u64, timers: &Timers) -> Self {
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

/// What is known of the group besides what is agreed on.
struct Group<'a> {
    leader: NodeId,
    /// Members without a vote.
    learners: &'a [u64],
}

impl Manager {
    /// The first entry of the own epoch is applied: everything before it is, too.
    pub(super) fn start_leading(&mut self, ctx: &mut Context<'_>) {
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
    pub(super) fn lead(&mut self, ctx: &mut Context<'_>, plans: &mut u32) {
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
            let group = Group {
                leader: self.config.id,
                learners: &consensus.conf().learners,
            };
            leading.answer(&read, &self.store, &group, ctx);
        }
        leading.requests.start_round(consensus);
        leading.plan(consensus, &self.store, self.applied, plans, ctx.now());
        leading.watch_snapshots(consensus, &self.config.timers, ctx.now());
        if std::mem::take(&mut leading.hand_over) {
            consensus.transfer(None);
        }
        self.drive_membership(ctx);
    }
}

impl Leading {
    /// Soft state that follows from a command that was applied.
    pub(super) fn applied(
        &mut self,
        command: &Command,
        store: &Store,
        own: NodeId,
        ctx: &mut Context<'_>,
    ) {
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
    /// and not answered for: the holder asks again and learns what became of it. Who leads, which
    /// is whoever answers, and who has no vote yet is not in the store.
    fn answer(&mut self, read: &Read, store: &Store, group: &Group<'_>, ctx: &mut Context<'_>) {
        let mut result = store.read(&read.operation);
        if let Ok(Outcome::Nodes {
            leader, joining, ..
        }) = &mut result
        {
            *leader = Some(group.leader);
            let members = store.members();
            let learners = group.learners.iter();
            *joining = learners.filter_map(|it| members.get(it).copied()).collect();
        }
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
    pub(super) fn plan(
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
        if !self.plan_wanted || self.planned_through > applied {
            return;
        }
        if consensus.transferring() {
            self.plan_at = now + PLAN_PAUSE_TRANSFER;
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

    /// Gives up on snapshots that did not arrive: the library waits for ever.
    pub(super) fn watch_snapshots(
        &mut self,
        consensus: &mut Consensus,
        timers: &Timers,
        now: Instant,
    ) {
        self.snapshots
            .retain(|member, _| consensus.waits_for_snapshot(*member));
        for member in consensus.waiting_for_snapshot() {
            self.snapshots
                .entry(member)
                .or_insert(now + 4 * timers.raft_election);
        }
        let overdue = self.snapshots.iter().filter(|(_, until)| now >= **until);
        let overdue: Vec<u64> = overdue.map(|(member, _)| *member).collect();
        for member in overdue {
            self.snapshots.remove(&member);
            consensus.snapshot_lost(member);
        }
    }
}
