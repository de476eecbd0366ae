//! Who is in the consensus group: joining it, being let in, promoted, put out, and handing over
//! leadership.
//!
//! A member id belongs to one log. A manager that comes without its log gets a new id, never its
//! old one: its old self may have voted and acknowledged entries that it no longer knows of. The
//! steps, each one log entry, driven by whoever leads until they are done:
//! 1. `Command::Member` gives the node a never-used id; its older id is no longer listed.
//! 2. Ids in the membership that are no longer listed are put out, also those that an operator took
//!    off the list. A leader does not put itself out: it hands over, and its successor does it.
//! 3. The new id is let in as a learner; that is when the joiner is told who it is.
//! 4. A learner that has caught up gets a vote.
//!
//! One step changes at most one vote, so that any two majorities of neighbouring memberships
//! overlap without joint memberships. One that exists nevertheless is left as soon as possible.

use std::collections::BTreeMap;

use wavetank_model::{Incarnation, Instant, NodeId, Operation, OperationError, Revision, Timers};

use super::Manager;
use super::command::Command;
use super::consensus::Consensus;
use super::journal::{Hard, Journal};
use super::wire::MemberStep;
use crate::message::Message;
use crate::process::Context;
use crate::random::jittered;
use crate::record::Record;

/// A manager that asks to be let in.
#[derive(Clone, Debug)]
pub(super) struct Joining {
    contacts: Vec<NodeId>,
    next_contact: usize,
    retry_at: Instant,
    /// One hint per question is followed: two managers that take each other for the leader must
    /// not keep a joiner running in circles.
    followed: bool,
}

impl Joining {
    pub fn new(contacts: Vec<NodeId>, first: Instant) -> Self {
        Joining {
            contacts,
            next_contact: 0,
            retry_at: first,
            followed: false,
        }
    }

    pub fn next_deadline(&self) -> Instant {
        self.retry_at
    }

    /// Asks the next manager.
    pub fn ask(&mut self, incarnation: Incarnation, timers: &Timers, ctx: &mut Context<'_>) {
        self.retry_at = ctx.now() + jittered(ctx.rng(), timers.request_retry);
        self.followed = false;
        if self.contacts.is_empty() {
            return;
        }
        let contact = self.contacts[self.next_contact % self.contacts.len()];
        self.next_contact += 1;
        ctx.send(contact, Message::Join { incarnation });
    }

    /// A manager named another one.
    pub fn redirected(
        &mut self,
        leader: Option<NodeId>,
        incarnation: Incarnation,
        ctx: &mut Context<'_>,
    ) {
        if let Some(leader) = leader.filter(|_| !self.followed) {
            self.followed = true;
            ctx.send(leader, Message::Join { incarnation });
        }
    }
}

impl Manager {
    /// A node without a log wants to be let in. It asks again until it is answered.
    pub(super) fn handle_join(
        &mut self,
        ctx: &mut Context<'_>,
        from: NodeId,
        incarnation: Incarnation,
    ) {
        let Some(leading) = &mut self.leading else {
            return self.redirect(ctx, from);
        };
        let outdated = self
            .store
            .joined(from)
            .is_some_and(|(newest, _)| newest > incarnation);
        if from == self.config.id || outdated {
            return;
        }
        leading.joins.insert(from, incarnation);
        self.touched = true;
    }

    /// The answer to `Join`: this node is `member` now.
    pub(super) fn handle_joined(
        &mut self,
        ctx: &mut Context<'_>,
        incarnation: Incarnation,
        member: u64,
        members: BTreeMap<u64, NodeId>,
    ) {
        let current = self.consensus.as_ref().map(Consensus::member);
        let wanted = self.joining.is_some() && incarnation == self.config.incarnation;
        // An answer that was overtaken by a newer one names a member that is out again.
        if !wanted || current >= Some(member) || members.get(&member) != Some(&self.config.id) {
            return;
        }
        let journal = Journal::empty(Hard::default());
        let timers = &self.config.timers;
        match Consensus::new(member, journal, timers, ctx.now(), ctx.rng()) {
            Ok(consensus) => self.consensus = Some(consensus),
            Err(error) => return self.give_up(ctx, &error),
        }
        self.members.clone_from(&members);
        ctx.persist(Record::Member { member, members });
        // Asked again only if no leader turns up.
        if let Some(joining) = &mut self.joining {
            joining.retry_at = ctx.now() + self.config.timers.session_timeout;
        }
        self.touched = true;
    }

    /// Asks again to be let in, while nothing of the log has arrived.
    pub(super) fn continue_joining(&mut self, ctx: &mut Context<'_>) {
        let Some(joining) = &mut self.joining else {
            return;
        };
        if self
            .consensus
            .as_ref()
            .is_some_and(|consensus| consensus.last() > 0)
        {
            self.joining = None;
        } else if ctx.now() >= joining.retry_at {
            joining.ask(self.config.incarnation, &self.config.timers, ctx);
        }
    }

    /// Leader: does the next step of whatever the membership lacks.
    pub(super) fn drive_membership(&mut self, ctx: &mut Context<'_>) {
        let (Some(leading), Some(consensus)) = (&mut self.leading, &mut self.consensus) else {
            return;
        };
        if !leading.active || !consensus.may_change_members() {
            return;
        }
        if !self.store.members().contains_key(&consensus.member()) {
            consensus.transfer(None);
            return;
        }
        if let Some(steps) = next_step(consensus, &self.store) {
            consensus.propose_members(&steps);
            return;
        }
        let joins: Vec<(NodeId, Incarnation)> = leading
            .joins
            .iter()
            .map(|(node, incarnation)| (*node, *incarnation))
            .collect();
        for (node, incarnation) in joins {
            if self.let_in(ctx, node, incarnation) {
                return;
            }
        }
    }

    /// Leader: does the next step for one joiner. True if that was a proposal.
    fn let_in(&mut self, ctx: &mut Context<'_>, node: NodeId, incarnation: Incarnation) -> bool {
        let (Some(leading), Some(consensus)) = (&mut self.leading, &mut self.consensus) else {
            return false;
        };
        match self
            .store
            .joined(node)
            .filter(|(newest, _)| *newest >= incarnation)
        {
            Some((newest, member)) if newest == incarnation => {
                if !is_in(consensus, member) {
                    return consensus.propose_members(&[MemberStep::Learn(member)]);
                }
                leading.joins.remove(&node);
                let members = self.store.members().clone();
                ctx.send(
                    node,
                    Message::Joined {
                        incarnation,
                        member,
                        members,
                    },
                );
                false
            }
            Some(_) => {
                leading.joins.remove(&node);
                false
            }
            None => self.allocate(node, incarnation),
        }
    }

    /// Leader: gives a node a new id, once.
    fn allocate(&mut self, node: NodeId, incarnation: Incarnation) -> bool {
        let (Some(leading), Some(consensus)) = (&mut self.leading, &mut self.consensus) else {
            return false;
        };
        if leading.allocating > self.applied {
            return false;
        }
        let known = self
            .members
            .keys()
            .next_back()
            .map_or(0, |highest| highest + 1);
        let member = self.store.next_member().max(known);
        let command = Command::Member {
            member,
            node,
            incarnation,
        };
        match consensus.propose(command.encode()) {
            Some(index) => {
                leading.allocating = index;
                true
            }
            None => false,
        }
    }

    /// Leader: hands leadership to the named manager, or to the one that is furthest. True if the
    /// handover has begun; it is over within an election timeout, one way or the other.
    pub fn transfer_leadership(&mut self, ctx: &mut Context<'_>, to: Option<NodeId>) -> bool {
        let member_of = |node: NodeId| {
            let mut members = self.store.members().iter();
            members
                .find(|(_, other)| **other == node)
                .map(|(member, _)| *member)
        };
        let member = to.and_then(member_of);
        if to.is_some() && member.is_none() {
            return false;
        }
        let Some(consensus) = &mut self.consensus else {
            return false;
        };
        let begun = consensus.transfer(member);
        self.finish(ctx);
        begun
    }

    /// Where this manager thinks the log to be applied, for whoever drives it.
    pub fn applied(&self) -> Revision {
        Revision(self.applied)
    }
}

/// The step that the membership needs next, whoever joins.
fn next_step(consensus: &Consensus, store: &super::store::Store) -> Option<Vec<MemberStep>> {
    let conf = consensus.conf();
    if !conf.voters_outgoing.is_empty() {
        return Some(Vec::new());
    }
    let mut ids = conf.voters.iter().chain(&conf.learners);
    let replaced = ids.find(|id| !store.members().contains_key(id) && **id != consensus.member());
    if let Some(member) = replaced {
        return Some(vec![MemberStep::Remove(*member)]);
    }
    let learner = consensus.caught_up_learner()?;
    Some(vec![MemberStep::Vote(learner)])
}

/// Why a manager must not be removed now: too few of the others are in reach to go on without it.
/// Only a leader knows who is in reach, so this is asked before the request gets into the log.
pub(super) fn would_lose_quorum(
    consensus: &Consensus,
    members: &BTreeMap<u64, NodeId>,
    operation: &Operation,
) -> Option<OperationError> {
    let Operation::RemoveManager { node } = operation else {
        return None;
    };
    let (member, _) = members.iter().find(|(_, listed)| *listed == node)?;
    let (near, needed) = consensus.quorum_without(*member);
    (near < needed && members.len() > 1).then(|| OperationError::Invalid {
        why: format!(
            "without {node} the managers need {needed} in reach to go on and have {near}; \
             bring one back first, or remove one that is gone"
        ),
    })
}

fn is_in(consensus: &Consensus, member: u64) -> bool {
    let conf = consensus.conf();
    conf.voters.contains(&member) || conf.learners.contains(&member)
}
