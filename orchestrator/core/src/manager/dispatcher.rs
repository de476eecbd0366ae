//! The leader's side of every agent: registration, heartbeats, who is down, assignments out and
//! reports in. All of it is soft state of one leadership: a new leader starts with none of it and
//! gives every node its full time again.
//!
//! It proposes commands and never changes the store. A heartbeat costs one lookup and one answer;
//! everything that looks at all nodes happens at most once per `down_check`.

use std::collections::{BTreeMap, BTreeSet};

use wavetank_model::{
    Change, Epoch, Incarnation, Instant, NodeId, NodeStatus, Resources, Revision, SessionId,
    TaskId, Timers,
};

use super::command::Command;
use super::store::Store;
use crate::message::{Message, TaskReport};
use crate::process::Context;

/// What an agent says about itself when it registers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Registration {
    pub incarnation: Incarnation,
    pub resources: Resources,
    pub labels: BTreeMap<String, String>,
}

/// One agent that registered with this leader.
#[derive(Clone, Debug)]
struct Session {
    id: SessionId,
    registration: Registration,
    /// False until the store has the node as it registered; the agent does not know of the
    /// session before.
    open: bool,
    /// Revision of the assignments that were sent last, and when. `None` before the first.
    sent: Option<(Revision, Instant)>,
    /// Transitions that were proposed and are not applied yet: the highest per task.
    reported: BTreeMap<TaskId, u64>,
    /// When something was added to `reported` last.
    reported_at: Instant,
}

/// One node that is, or should be, heard of.
#[derive(Clone, Debug)]
struct Tracked {
    /// When its agent was last heard of; after an election in the future, by the grace.
    heard: Instant,
    session: Option<Session>,
    /// When `NodeUp` or `NodeDown` was proposed, until it is applied.
    asked_up: Option<Instant>,
    asked_down: Option<Instant>,
}

impl Tracked {
    fn heard_at(heard: Instant) -> Self {
        Tracked {
            heard,
            session: None,
            asked_up: None,
            asked_down: None,
        }
    }

    fn session(&mut self, id: SessionId) -> Option<&mut Session> {
        self.session
            .as_mut()
            .filter(|session| session.open && session.id == id)
    }
}

/// The dispatcher of one leadership.
#[derive(Clone, Debug)]
pub(super) struct Dispatcher {
    timers: Timers,
    epoch: Epoch,
    /// False until the store is known to be up to date.
    active: bool,
    sessions_made: u64,
    nodes: BTreeMap<NodeId, Tracked>,
    /// Agents that registered before this leader was active.
    early: BTreeMap<NodeId, Registration>,
    /// Nodes whose assignments may have changed.
    changed: BTreeSet<NodeId>,
    next_check: Instant,
}

impl Dispatcher {
    /// A leader's dispatcher, idle until [`Self::activate`].
    pub fn new(timers: &Timers, epoch: Epoch) -> Self {
        Dispatcher {
            timers: timers.clone(),
            epoch,
            active: false,
            sessions_made: 0,
            nodes: BTreeMap::new(),
            early: BTreeMap::new(),
            changed: BTreeSet::new(),
            next_check: Instant::NEVER,
        }
    }

    /// The store is up to date. Every node that should be alive gets its full time plus the grace:
    /// its agent has to find out about the new leader first.
    pub fn activate(&mut self, store: &Store, ctx: &mut Context<'_>, out: &mut Vec<Command>) {
        self.active = true;
        self.next_check = ctx.now() + self.timers.down_check;
        let heard = ctx.now() + self.timers.failover_grace;
        let alive = store
            .nodes()
            .iter()
            .filter(|(_, node)| node.status == NodeStatus::Ready);
        self.nodes = alive
            .map(|(node, _)| (*node, Tracked::heard_at(heard)))
            .collect();
        for (node, registration) in std::mem::take(&mut self.early) {
            self.register(node, registration, store, ctx, out);
        }
    }

    /// When [`Self::check`] is due.
    pub fn next_deadline(&self) -> Instant {
        self.next_check
    }

    /// An agent registers. The same boot gets the same session again; an older boot is another
    /// process that has not noticed yet, and gets none.
    pub fn register(
        &mut self,
        node: NodeId,
        registration: Registration,
        store: &Store,
        ctx: &mut Context<'_>,
        out: &mut Vec<Command>,
    ) {
        if !self.active {
            keep_newest(&mut self.early, node, registration);
            return;
        }
        let tracked = self
            .nodes
            .entry(node)
            .or_insert_with(|| Tracked::heard_at(ctx.now()));
        let known = tracked
            .session
            .as_ref()
            .map(|session| session.registration.incarnation);
        if known.is_some_and(|known| registration.incarnation < known) {
            return;
        }
        tracked.heard = ctx.now();
        if known != Some(registration.incarnation) {
            self.sessions_made += 1;
            let id = session_id(self.epoch, self.sessions_made);
            tracked.session = Some(Session::new(id, registration, ctx.now()));
        } else if let Some(session) = &mut tracked.session {
            session.registration = registration;
        }
        self.admit(node, store, ctx, out);
    }

    /// Opens a node's session if the store has the node as it registered; otherwise asks for that
    /// first.
    fn admit(
        &mut self,
        node: NodeId,
        store: &Store,
        ctx: &mut Context<'_>,
        out: &mut Vec<Command>,
    ) {
        let Some(tracked) = self.nodes.get_mut(&node) else {
            return;
        };
        let Some(session) = &mut tracked.session else {
            return;
        };
        let registration = &session.registration;
        let as_registered = store.node(node).is_some_and(|record| {
            record.status == NodeStatus::Ready
                && record.resources == registration.resources
                && record.labels == registration.labels
        });
        // A proposal to declare it down may still be applied; what follows it sets that right.
        if as_registered && tracked.asked_down.is_none() {
            tracked.asked_up = None;
            session.open = true;
            session.sent = None;
            ctx.send(node, session.registered(self.epoch));
            self.push(node, store, ctx);
        } else if is_due(tracked.asked_up, &self.timers, ctx.now()) {
            tracked.asked_up = Some(ctx.now());
            out.push(Command::NodeUp {
                node,
                resources: registration.resources,
                labels: registration.labels.clone(),
            });
        }
    }

    /// An agent is still there. Sends its assignments again if it works on older ones and the
    /// newer ones had time to arrive.
    pub fn heartbeat(
        &mut self,
        node: NodeId,
        session: SessionId,
        works_on: (Epoch, Revision),
        store: &Store,
        ctx: &mut Context<'_>,
    ) {
        let Some(tracked) = self.nodes.get_mut(&node) else {
            return self.unknown(node, session, ctx);
        };
        let Some(open) = tracked.session(session) else {
            return self.unknown(node, session, ctx);
        };
        let lags = match open.sent {
            Some((sent, at)) => {
                works_on < (self.epoch, sent) && ctx.now() >= at + self.timers.request_retry
            }
            None => true,
        };
        tracked.heard = ctx.now();
        ctx.send(node, Message::HeartbeatAcknowledged { session });
        if lags {
            self.push(node, store, ctx);
        }
    }

    /// A session that is not, or not yet, one of this leadership's.
    fn unknown(&self, node: NodeId, session: SessionId, ctx: &mut Context<'_>) {
        ctx.send(node, Message::SessionUnknown { session });
    }

    /// An agent reports transitions. Those that are new and next in order are proposed; those that
    /// cannot change anything any more are acknowledged at once.
    pub fn report(
        &mut self,
        node: NodeId,
        session: SessionId,
        reports: Vec<TaskReport>,
        store: &Store,
        ctx: &mut Context<'_>,
        out: &mut Vec<Command>,
    ) {
        let retry = self.timers.request_retry;
        let Some(tracked) = self.nodes.get_mut(&node) else {
            return self.unknown(node, session, ctx);
        };
        if tracked.session(session).is_none() {
            return self.unknown(node, session, ctx);
        }
        tracked.heard = ctx.now();
        let Some(open) = tracked.session(session) else {
            return;
        };
        // A proposal that did not make it is made again.
        if ctx.now().since(open.reported_at) > 4 * retry {
            open.reported.clear();
        }
        let (fresh, settled) = open.sort_out(reports, store);
        if !settled.is_empty() {
            let through = settled.into_iter().collect();
            ctx.send(node, Message::ReportAcknowledged { session, through });
        }
        if !fresh.is_empty() {
            open.reported_at = ctx.now();
            out.push(Command::Report {
                node,
                reports: fresh,
            });
        }
    }

    /// A report was applied: tell its agent how far.
    pub fn reported(
        &mut self,
        node: NodeId,
        reports: &[TaskReport],
        store: &Store,
        ctx: &mut Context<'_>,
    ) {
        let Some(tracked) = self.nodes.get_mut(&node) else {
            return;
        };
        let Some(session) = tracked.session.as_mut().filter(|session| session.open) else {
            return;
        };
        let mut through = BTreeMap::new();
        for report in reports {
            let sequence = report.status.sequence;
            if session
                .reported
                .get(&report.task)
                .is_some_and(|highest| *highest <= sequence)
            {
                session.reported.remove(&report.task);
            }
            let settled = store.task_sequence(report.task).unwrap_or(sequence);
            let highest = through.entry(report.task).or_insert(settled);
            *highest = settled.max(*highest);
        }
        let through = through.into_iter().collect();
        ctx.send(
            node,
            Message::ReportAcknowledged {
                session: session.id,
                through,
            },
        );
    }

    /// A node was registered. A proposal to declare it down that was made before is applied or
    /// void by now. It is watched even if its agent has gone silent again meanwhile.
    pub fn went_up(&mut self, node: NodeId, now: Instant) {
        let tracked = self
            .nodes
            .entry(node)
            .or_insert_with(|| Tracked::heard_at(now));
        tracked.asked_up = None;
        tracked.asked_down = None;
        self.changed.insert(node);
    }

    /// A node was declared down.
    pub fn went_down(&mut self, node: NodeId) {
        if let Some(tracked) = self.nodes.get_mut(&node) {
            tracked.asked_down = None;
        }
        self.changed.insert(node);
    }

    /// Takes note of what was applied. A removed task says nothing: it had ended before.
    pub fn note(&mut self, changes: &[Change]) {
        for change in changes {
            if let Change::Task {
                node: Some(node), ..
            } = change
            {
                self.changed.insert(*node);
            }
        }
    }

    /// After a batch of changes: admit nodes that the store has now, send what is new.
    pub fn settle(&mut self, store: &Store, ctx: &mut Context<'_>, out: &mut Vec<Command>) {
        if !self.active {
            return;
        }
        for node in std::mem::take(&mut self.changed) {
            let Some(tracked) = self.nodes.get_mut(&node) else {
                continue;
            };
            let down = store
                .node(node)
                .is_none_or(|record| record.status == NodeStatus::Down);
            match &tracked.session {
                // Gone for good, as far as this leader can tell.
                None if down => {
                    self.nodes.remove(&node);
                }
                None => {}
                Some(session) if session.open && !down => self.push_newer(node, store, ctx),
                // Declared down while it was coming back, or just admitted.
                Some(_) => self.admit(node, store, ctx, out),
            }
        }
    }

    fn push_newer(&mut self, node: NodeId, store: &Store, ctx: &mut Context<'_>) {
        let newest = store.assignments_revision(node);
        let sent = self
            .nodes
            .get(&node)
            .and_then(|tracked| tracked.session.as_ref()?.sent);
        if sent.is_none_or(|(sent, _)| sent < newest) {
            self.push(node, store, ctx);
        }
    }

    /// Sends a node everything it should have.
    fn push(&mut self, node: NodeId, store: &Store, ctx: &mut Context<'_>) {
        let Some(tracked) = self.nodes.get_mut(&node) else {
            return;
        };
        let Some(session) = tracked.session.as_mut().filter(|session| session.open) else {
            return;
        };
        let revision = store.assignments_revision(node);
        session.sent = Some((revision, ctx.now()));
        let (session, epoch) = (session.id, self.epoch);
        let tasks = store.assignments(node);
        ctx.send(
            node,
            Message::Assignments {
                session,
                epoch,
                revision,
                tasks,
            },
        );
    }

    /// Looks for agents that were not heard of for too long.
    pub fn check(&mut self, store: &Store, ctx: &mut Context<'_>, out: &mut Vec<Command>) {
        let now = ctx.now();
        if !self.active || now < self.next_check {
            return;
        }
        self.next_check = now + self.timers.down_check;
        let mut forgotten = Vec::new();
        for (node, tracked) in &mut self.nodes {
            if now.since(tracked.heard) < self.timers.node_down_after {
                continue;
            }
            tracked.session = None;
            if store
                .node(*node)
                .is_none_or(|record| record.status == NodeStatus::Down)
            {
                forgotten.push(*node);
            } else if is_due(tracked.asked_down, &self.timers, now) {
                tracked.asked_down = Some(now);
                tracked.asked_up = None;
                out.push(Command::NodeDown { node: *node });
            }
        }
        for node in forgotten {
            self.nodes.remove(&node);
        }
    }
}

impl Session {
    fn new(id: SessionId, registration: Registration, now: Instant) -> Self {
        Session {
            id,
            registration,
            open: false,
            sent: None,
            reported: BTreeMap::new(),
            reported_at: now,
        }
    }

    fn registered(&self, epoch: Epoch) -> Message {
        Message::Registered {
            incarnation: self.registration.incarnation,
            session: self.id,
            epoch,
        }
    }

    /// Splits reports into those to be proposed and, per task, how far the store is already.
    fn sort_out(
        &mut self,
        reports: Vec<TaskReport>,
        store: &Store,
    ) -> (Vec<TaskReport>, BTreeMap<TaskId, u64>) {
        let mut fresh = Vec::new();
        let mut settled = BTreeMap::new();
        for report in reports {
            let sequence = report.status.sequence;
            let applied = store.task_sequence(report.task).unwrap_or(sequence);
            if sequence <= applied {
                settled.insert(report.task, applied);
                continue;
            }
            let proposed = self
                .reported
                .get(&report.task)
                .copied()
                .unwrap_or(0)
                .max(applied);
            // One that is on its way already, or whose predecessor is missing, waits: the agent
            // sends again what is not acknowledged, oldest first.
            if sequence == proposed + 1 {
                self.reported.insert(report.task, sequence);
                fresh.push(report);
            }
        }
        (fresh, settled)
    }
}

/// May something that was asked for at that time be asked for again?
fn is_due(asked: Option<Instant>, timers: &Timers, now: Instant) -> bool {
    asked.is_none_or(|asked| now >= asked + timers.request_retry)
}

fn keep_newest(
    early: &mut BTreeMap<NodeId, Registration>,
    node: NodeId,
    registration: Registration,
) {
    if early
        .get(&node)
        .is_none_or(|kept| kept.incarnation <= registration.incarnation)
    {
        early.insert(node, registration);
    }
}

/// Unique because there is one leader per epoch.
fn session_id(epoch: Epoch, made: u64) -> SessionId {
    SessionId((epoch.0 << 32) | made)
}
