//! Agents: run what managers want on one node, and say what became of it.
//!
//! Map: `session` (find the leader, heartbeats), `assignments` (what managers want, fenced),
//! `decide` (what to do about a task: pure), `task` (its state and transitions), `drive` (carries
//! decisions out), `answers` (takes in what comes back), `image`, `health`, `restart`, `stop`
//! (rules of one matter each), `runtime` (brings answers, events and listings to whom they
//! concern), `observe` (what is known of a container), `orphans` (containers without a task),
//! `reports` (transitions on their way to managers), `election` (leases and lock files),
//! `recovery` (what is durable), `calls` (who waits for which answer).
//!
//! This file routes inputs to those, and closes every step in one order: drive the tasks that
//! something happened to, make what changed durable, report it. A step costs what it touches: a
//! heartbeat looks at no task. Managers are needed to get new work, never to go on with the old.

use std::collections::{BTreeMap, BTreeSet};

use rand_chacha::ChaCha8Rng;
use wavetank_model::{
    Epoch, Incarnation, Instant, NodeId, Notice, Resources, Revision, SessionId, TaskId, Timers,
};

use crate::client::Requests;
use crate::message::{Assignment, Message};
use crate::process::{Completion, Context, Input, Process};
use crate::random::draw_below;
use crate::record::{Record, Stored};

mod answers;
mod assignments;
mod calls;
mod decide;
mod drive;
mod election;
mod health;
mod image;
mod observe;
mod orphans;
pub mod recovery;
mod reports;
mod restart;
mod runtime;
mod session;
mod stop;
mod task;

use assignments::Fence;
use calls::Calls;
use decide::Surroundings;
use drive::{Fate, Tools};
use election::Elections;
use image::Images;
use observe::Observer;
use orphans::Orphans;
use reports::Reports;
use session::{Session, SessionChange};
use task::Task;

/// What an agent is told when it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentConfig {
    /// Its identity.
    pub id: NodeId,
    /// Which boot this is.
    pub incarnation: Incarnation,
    /// Managers to try, in any order.
    pub managers: Vec<NodeId>,
    /// What it has to offer.
    pub resources: Resources,
    /// What it is like.
    pub labels: BTreeMap<String, String>,
    /// Its timers.
    pub timers: Timers,
}

/// One agent.
#[derive(Clone, Debug, PartialEq)]
pub struct Agent {
    config: AgentConfig,
    session: Session,
    fence: Fence,
    /// The fence changed and was not persisted yet.
    fence_is_dirty: bool,
    tasks: BTreeMap<TaskId, Task>,
    images: Images,
    observer: Observer,
    orphans: Orphans,
    reports: Reports,
    elections: Elections,
    calls: Calls,
    /// Tasks that something happened to in this step.
    touched: BTreeSet<TaskId>,
    /// When the first task wants to be driven again.
    tasks_deadline: Instant,
    deadline: Instant,
}

impl Agent {
    /// Starts an agent from what its disk holds. `rng` is used only here.
    pub fn start(
        config: AgentConfig,
        stored: Vec<Stored>,
        now: Instant,
        rng: &mut ChaCha8Rng,
    ) -> Result<Self, String> {
        let recovered = recovery::recover(stored)?;
        let tasks: BTreeMap<TaskId, Task> = recovered
            .tasks
            .into_iter()
            .map(|(id, durable)| (id, Task::recovered(durable, now)))
            .collect();
        let unreported = tasks
            .iter()
            .filter(|(_, task)| task.has_news)
            .map(|(id, _)| *id)
            .collect();
        let first = draw_below(rng, config.managers.len() as u64);
        let first = usize::try_from(first)
            .ok()
            .and_then(|first| config.managers.get(first))
            .copied();
        let requests = Requests::new(
            config.id,
            config.incarnation,
            &config.managers,
            config.timers.request_retry,
            rng,
        );
        Ok(Agent {
            session: Session::new(first, now),
            fence: Fence {
                seen: recovered.seen,
            },
            fence_is_dirty: false,
            images: Images::default(),
            observer: Observer::new(now),
            orphans: Orphans::default(),
            reports: Reports::new(unreported),
            elections: Elections::new(requests),
            calls: Calls::default(),
            touched: tasks.keys().copied().collect(),
            tasks_deadline: if tasks.is_empty() {
                Instant::NEVER
            } else {
                now
            },
            deadline: now,
            tasks,
            config,
        })
    }

    fn handle_timer(&mut self, ctx: &mut Context<'_>) {
        let now = ctx.now();
        let timers = &self.config.timers;
        if self.session.next_deadline(timers.session_timeout) <= now {
            self.session
                .handle_timer(ctx, &self.config, self.fence.seen);
        }
        if self.tasks_deadline <= now {
            self.wake_tasks(ctx);
        }
        let timers = &self.config.timers;
        if self.observer.next_deadline() <= now {
            self.observer
                .handle_timer(ctx, &mut self.calls, self.config.id, timers);
        }
        if self.orphans.next_deadline() <= now {
            self.touched
                .extend(self.orphans.handle_timer(ctx, &mut self.calls, timers));
        }
        if self.elections.next_deadline() <= now {
            self.elections.handle_timer(ctx, &mut self.calls, timers);
        }
        if self.reports.next_deadline() <= now {
            self.send_all_reports(ctx);
        }
        if self.images.next_deadline() <= now {
            let timers = &self.config.timers;
            for pulled in self.images.handle_timer(ctx, &mut self.calls, timers) {
                self.handle_pulled(ctx, pulled);
            }
        }
    }

    fn wake_tasks(&mut self, ctx: &mut Context<'_>) {
        let due = |task: &Task| task.next_deadline() <= ctx.now();
        let due: Vec<TaskId> = self
            .tasks
            .iter()
            .filter(|(_, task)| due(task))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            self.with_task(id, |task, tools| task.handle_timer(ctx, tools));
        }
    }

    /// Lets something happen to a task; it is driven at the end of the step.
    fn with_task<T>(
        &mut self,
        id: TaskId,
        happen: impl FnOnce(&mut Task, &mut Tools<'_>) -> T,
    ) -> Option<T> {
        let task = self.tasks.get_mut(&id)?;
        let mut tools = Tools {
            node: self.config.id,
            timers: &self.config.timers,
            calls: &mut self.calls,
            images: &mut self.images,
        };
        self.touched.insert(id);
        Some(happen(task, &mut tools))
    }

    fn handle_message(&mut self, ctx: &mut Context<'_>, from: NodeId, message: Message) {
        match message {
            Message::HeartbeatAcknowledged { session } => {
                self.session.handle_acknowledged(ctx.now(), session);
            }
            Message::Assignments {
                session,
                epoch,
                revision,
                tasks,
            } => {
                self.handle_assignments(ctx, session, (epoch, revision), tasks);
            }
            Message::ReportAcknowledged { session, through } => {
                self.handle_confirmed(ctx, session, through);
            }
            Message::Response { id, result } => {
                self.elections
                    .handle_response(ctx, from, Completion { id, result });
            }
            Message::Registered {
                incarnation,
                session,
                epoch,
            } => {
                let answer = (incarnation, session, epoch);
                self.handle_registered(ctx, from, answer);
            }
            Message::SessionUnknown { session } => {
                self.session
                    .handle_unknown(ctx, &self.config, from, session);
            }
            Message::Redirect { leader } => {
                self.session
                    .handle_redirect(ctx, &self.config, from, leader);
                self.elections.requests().handle_redirect(ctx, from, leader);
            }
            // Meant for managers.
            Message::Raft(_)
            | Message::Join { .. }
            | Message::Joined { .. }
            | Message::Register { .. }
            | Message::Heartbeat { .. }
            | Message::Report { .. }
            | Message::Request { .. } => {}
        }
    }

    fn handle_registered(
        &mut self,
        ctx: &mut Context<'_>,
        from: NodeId,
        answer: (Incarnation, SessionId, Epoch),
    ) {
        let seen = self.fence.seen;
        let change = self
            .session
            .handle_registered(ctx, &self.config, from, answer, seen);
        if let SessionChange::Opened { manager } = change {
            self.elections.requests().prefer(manager);
            self.send_all_reports(ctx);
        }
    }

    fn handle_assignments(
        &mut self,
        ctx: &mut Context<'_>,
        session: SessionId,
        age: (Epoch, Revision),
        set: Vec<Assignment>,
    ) {
        let is_first = self.fence.seen.is_none();
        let is_current = self.session.is(session) || self.fence.seen > Some(age);
        if !is_current || self.fence.judge(ctx, age, set.len()) != assignments::Verdict::Accepted {
            return;
        }
        self.fence_is_dirty = true;
        if is_first {
            // Only now can a listing tell which containers nobody owns.
            self.observer.hurry(ctx.now());
        }
        self.touched
            .extend(assignments::apply(&mut self.tasks, set, ctx.now()));
    }

    fn handle_confirmed(
        &mut self,
        ctx: &mut Context<'_>,
        session: SessionId,
        through: Vec<(TaskId, u64)>,
    ) {
        if !self.session.is(session) {
            return;
        }
        for (id, sequence) in through {
            let Some(task) = self.tasks.get_mut(&id) else {
                continue;
            };
            let Some(sequence) = task.acknowledge(sequence) else {
                continue;
            };
            ctx.notice(Notice::ReportAcknowledged { task: id, sequence });
            if task.durable.unacknowledged.is_empty() {
                self.reports.settle(id);
            }
            self.touched.insert(id);
        }
    }

    fn send_all_reports(&mut self, ctx: &mut Context<'_>) {
        if let Some(session) = self.session.open() {
            self.reports
                .send_all(ctx, &self.config.timers, session, &self.tasks);
        }
    }

    /// Closes a step: drives the tasks that something happened to, makes what changed durable,
    /// reports it.
    fn settle(&mut self, ctx: &mut Context<'_>) {
        if !self.touched.is_empty() {
            self.drive_tasks(ctx);
        }
        if self.fence_is_dirty {
            // After the tasks: a disk that keeps only the first records must not claim to know
            // assignments that it does not have.
            self.fence_is_dirty = false;
            if let Some((epoch, revision)) = self.fence.seen {
                ctx.persist(Record::AssignmentsSeen { epoch, revision });
            }
        }
        if self.session.open().is_none() {
            self.reports.suspend();
        }
        self.deadline = self
            .session
            .next_deadline(self.config.timers.session_timeout)
            .min(self.observer.next_deadline())
            .min(self.tasks_deadline)
            .min(self.images.next_deadline())
            .min(self.orphans.next_deadline())
            .min(self.reports.next_deadline())
            .min(self.elections.next_deadline());
    }

    fn drive_tasks(&mut self, ctx: &mut Context<'_>) {
        let mut news = BTreeSet::new();
        while let Some(id) = self.touched.pop_first() {
            if self.drive_task(ctx, id) {
                news.insert(id);
            }
        }
        if let Some(session) = self.session.open() {
            self.reports
                .send(ctx, &self.config.timers, session, &self.tasks, &news);
        }
        let wake_at = self.tasks.values().map(Task::next_deadline).min();
        self.tasks_deadline = wake_at.unwrap_or(Instant::NEVER);
    }

    /// Drives one task and makes it durable. Returns true if it has news for the managers.
    fn drive_task(&mut self, ctx: &mut Context<'_>, id: TaskId) -> bool {
        let around = Surroundings {
            has_compared: self.observer.has_compared,
            has_orphan: self.orphans.has(id),
        };
        let fate = self.with_task(id, |task, tools| task.drive(ctx, tools, around));
        self.touched.remove(&id);
        let Some(task) = self.tasks.get_mut(&id) else {
            return false;
        };
        self.elections.follow(ctx, &mut self.calls, task);
        if fate == Some(Fate::Forgotten) {
            self.tasks.remove(&id);
            self.reports.settle(id);
            ctx.persist(Record::TaskForgotten(id));
            return false;
        }
        if std::mem::take(&mut task.dirty) {
            ctx.persist(Record::Task(Box::new(task.durable.clone())));
        }
        let has_news = std::mem::take(&mut task.has_news);
        if has_news {
            self.reports.note(id);
        }
        has_news
    }
}

impl Process for Agent {
    fn handle(&mut self, ctx: &mut Context<'_>, input: Input) {
        match input {
            Input::Timer => self.handle_timer(ctx),
            Input::Message { from, message } => self.handle_message(ctx, from, message),
            Input::Undecodable { from, kind, error } => {
                ctx.notice(Notice::Undecodable {
                    from,
                    message: kind.to_owned(),
                    error,
                });
            }
            Input::ConnectionLost { peer } => {
                self.session.handle_connection_lost(ctx, &self.config, peer);
                self.elections.requests().handle_connection_lost(ctx, peer);
            }
            Input::Runtime { call, result } => self.handle_runtime_reply(ctx, call, result),
            Input::RuntimeEvent(event) => self.handle_runtime_event(ctx, &event),
            Input::Lock { call, reply } => self.handle_lock_reply(ctx, call, &reply),
            // Nobody asks the managers for something through an agent.
            Input::Submit { .. } | Input::Cancel { .. } => {}
        }
        self.settle(ctx);
    }

    fn next_deadline(&self) -> Instant {
        self.deadline
    }
}
