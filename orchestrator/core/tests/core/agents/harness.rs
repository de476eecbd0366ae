//! One agent with a small runtime, a manager of a few lines, a disk and virtual time. After every
//! step it checks what must always hold: one live container per task at most, legal transitions,
//! confirmed once and in order, exits observed once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use wavetank_core::{
    Agent, AgentConfig, Assignment, Context, Effects, Input, LockReply, LockRequest, Message,
    Process, Record, Stored,
};
use wavetank_model::{
    DesiredState, Epoch, Generation, Incarnation, InstanceId, Instant, NodeId, Notice, Reason,
    Resources, Revision, ServiceSpec, TaskId, TaskState, TaskStatus, Timers,
};
use wavetank_port::{ContainerId, ContainerSpec, RuntimeCommand, WallTime};

use super::manager::Manager;
use super::runtime::{Output, Runtime, STEP};
pub use super::specs::*;

pub const AGENT: NodeId = NodeId::agent(1);
pub const LEADER: NodeId = NodeId::manager(1);

pub struct World {
    pub now: Instant,
    pub agent: Option<Agent>,
    pub runtime: Runtime,
    pub manager: Manager,
    pub timers: Timers,
    pub transcript: String,
    pub notices: Vec<Notice>,
    pub sent: Vec<(Instant, NodeId, Message)>,
    pub records: u32,
    pub locks: Vec<LockRequest>,
    pub created: Vec<ContainerSpec>,
    pub lock_reply: LockReply,
    disk: Vec<Stored>,
    rng: ChaCha8Rng,
    incarnation: Incarnation,
    queue: BTreeMap<(Instant, u64), Input>,
    counter: u64,
    spins: u32,
    /// What the agent said last about each task, as it was durable.
    said: BTreeMap<TaskId, TaskStatus>,
    acknowledged: BTreeMap<TaskId, u64>,
    exits: BTreeSet<InstanceId>,
}

impl World {
    pub fn new() -> Self {
        World::with(timers(), 1)
    }

    pub fn with(timers: Timers, seed: u64) -> Self {
        let mut world = World {
            now: Instant::ZERO,
            agent: None,
            runtime: Runtime::default(),
            manager: Manager {
                silent: false,
                session: None,
                sessions: 0,
                epoch: Epoch(1),
                revision: Revision(0),
                set: BTreeMap::new(),
                tasks: BTreeMap::new(),
                lease: None,
                token: 0,
                acts: Vec::new(),
            },
            timers,
            transcript: String::new(),
            notices: Vec::new(),
            sent: Vec::new(),
            records: 0,
            locks: Vec::new(),
            created: Vec::new(),
            lock_reply: LockReply::Done,
            disk: Vec::new(),
            rng: ChaCha8Rng::seed_from_u64(seed),
            incarnation: Incarnation(0),
            queue: BTreeMap::new(),
            counter: 0,
            spins: 0,
            said: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            exits: BTreeSet::new(),
        };
        world.start();
        world
    }

    pub fn start(&mut self) {
        self.incarnation = self.incarnation.next();
        let config = AgentConfig {
            id: AGENT,
            incarnation: self.incarnation,
            managers: vec![LEADER],
            resources: Resources {
                cpu_millis: 1000,
                memory_bytes: 1 << 30,
            },
            labels: BTreeMap::new(),
            timers: self.timers.clone(),
        };
        let agent = Agent::start(config, self.disk.clone(), self.now, &mut self.rng);
        self.agent = Some(agent.expect("the records are an agent's"));
    }

    /// The agent's process dies; containers go on.
    pub fn kill(&mut self) {
        self.agent = None;
        self.queue.clear();
        self.runtime.disconnect();
    }

    pub fn restart(&mut self) {
        self.kill();
        self.start();
    }

    pub fn disk(&mut self) -> &mut Vec<Stored> {
        &mut self.disk
    }

    /// The disk is lost: of what the agent said before, only what managers took binds it still.
    /// Returns how many tasks those are.
    pub fn lose_disk(&mut self) -> usize {
        self.disk.clear();
        self.exits.clear();
        self.said = self.manager.tasks.clone();
        self.said.retain(|_, status| status.sequence > 0);
        self.acknowledged = self
            .said
            .iter()
            .map(|(task, it)| (*task, it.sequence))
            .collect();
        self.said.len()
    }

    pub fn has_memory_of(&self, task: u64) -> bool {
        let mut known = false;
        for stored in &self.disk {
            match stored {
                Stored::Intact(Record::Task(durable)) if durable.assignment.task.0 == task => {
                    known = true;
                }
                Stored::Intact(Record::TaskForgotten(id)) if id.0 == task => known = false,
                _ => {}
            }
        }
        known
    }

    /// Puts a task into the set of assignments, or changes what is wanted of it.
    pub fn assign(&mut self, task: u64, spec: &ServiceSpec, desired: DesiredState) {
        self.manager.revision = self.manager.revision.next();
        let assignment = Assignment {
            task: TaskId(task),
            slot: 1,
            generation: Generation(1),
            desired,
            reason: (desired != DesiredState::Running).then_some(Reason::TerminatedByOperator),
            spec: Arc::new(spec.clone()),
            reported: None,
        };
        self.manager.set.insert(TaskId(task), assignment);
        self.manager.tasks.entry(TaskId(task)).or_insert_with(|| {
            let mut status = TaskStatus::pending();
            status.state = TaskState::Assigned;
            status
        });
        self.push_assignments();
    }

    pub fn run_task(&mut self, task: u64, spec: &ServiceSpec) {
        self.assign(task, spec, DesiredState::Running);
    }

    pub fn shut_down(&mut self, task: u64) {
        let spec = self.manager.set[&TaskId(task)].spec.clone();
        self.assign(task, &spec, DesiredState::Shutdown);
    }

    pub fn withdraw(&mut self, task: u64) {
        self.manager.revision = self.manager.revision.next();
        self.manager.set.remove(&TaskId(task));
        self.push_assignments();
    }

    pub fn push_assignments(&mut self) {
        let Some(session) = self.manager.session else {
            return;
        };
        let message = Message::Assignments {
            session,
            epoch: self.manager.epoch,
            revision: self.manager.revision,
            tasks: self.manager.assignments(),
        };
        self.deliver(message);
    }

    /// A message from the leader arrives a moment later.
    pub fn deliver(&mut self, message: Message) {
        self.queue(Input::Message {
            from: LEADER,
            message,
        });
    }

    pub fn queue(&mut self, input: Input) {
        self.counter += 1;
        self.queue.insert((self.now + STEP, self.counter), input);
    }

    pub fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.step(end) {}
        self.now = end;
    }

    /// Runs until the task is in this state, for two minutes at most.
    pub fn run_until(&mut self, task: u64, state: TaskState) {
        let end = self.now + seconds(120);
        while self.state(task) != Some(state) {
            assert!(
                self.step(end),
                "{task} never became {state}:\n{}",
                self.transcript
            );
        }
    }

    /// Does the next thing that is due by `end`.
    fn step(&mut self, end: Instant) -> bool {
        let agent = self
            .agent
            .as_ref()
            .map_or(Instant::NEVER, Process::next_deadline);
        let runtime = self.runtime.next_deadline().unwrap_or(Instant::NEVER);
        let queued = self
            .queue
            .keys()
            .next()
            .map_or(Instant::NEVER, |(at, _)| *at);
        let next = agent.min(runtime).min(queued);
        if next > end {
            return false;
        }
        self.now = self.now.max(next);
        if queued == next {
            if let Some((_, input)) = self.queue.pop_first() {
                self.handle(input);
            }
        } else if runtime == next {
            match self.runtime.wake(self.now) {
                Some(Output::Reply { call, result }) => {
                    self.handle(Input::Runtime { call, result });
                }
                Some(Output::Event(event)) => self.handle(Input::RuntimeEvent(event)),
                None => self.check_containers(),
            }
        } else {
            self.handle(Input::Timer);
            let agent = self
                .agent
                .as_ref()
                .map_or(Instant::NEVER, Process::next_deadline);
            self.spins = if agent <= self.now { self.spins + 1 } else { 0 };
            assert!(self.spins < 100, "the timer spins:\n{}", self.transcript);
        }
        true
    }

    pub fn handle(&mut self, input: Input) {
        let Some(mut agent) = self.agent.take() else {
            return;
        };
        let mut effects = Effects::default();
        let mut rng = self.rng.clone();
        let wall = WallTime(self.now.0);
        let mut context = Context::new(self.now, wall, &mut rng, &mut effects);
        agent.handle(&mut context, input);
        self.rng = rng;
        self.agent = Some(agent);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Effects) {
        for record in effects.persist {
            self.records += 1;
            self.disk.push(Stored::Intact(record));
        }
        for notice in effects.notices {
            self.note(notice);
        }
        for (to, message) in effects.messages {
            self.sent.push((self.now, to, message.clone()));
            if !self.manager.silent && to == LEADER {
                self.serve(message);
            }
        }
        for call in effects.calls {
            self.say(&describe(&call.command));
            if let RuntimeCommand::Create { spec } = &call.command {
                self.created.push(spec.clone());
            }
            self.runtime.submit(self.now, call);
        }
        for request in effects.locks {
            let call = request.call;
            self.locks.push(request);
            let reply = self.lock_reply.clone();
            self.queue(Input::Lock { call, reply });
        }
        self.check_containers();
    }

    pub fn say(&mut self, line: &str) {
        let time = self.now.0 / 1_000_000;
        let _ = writeln!(
            self.transcript,
            "{:>6}.{:03} {line}",
            time / 1000,
            time % 1000
        );
    }

    fn note(&mut self, notice: Notice) {
        match &notice {
            Notice::TaskMoved {
                task, from, status, ..
            } => self.check_move(*task, *from, status),
            Notice::ExitObserved { instance, .. } => {
                assert!(self.exits.insert(*instance), "{instance} ended twice");
            }
            Notice::ReportAcknowledged { task, sequence } => {
                let before = self
                    .acknowledged
                    .insert(*task, *sequence)
                    .unwrap_or_default();
                assert!(
                    *sequence > before,
                    "{task} was confirmed twice through {sequence}"
                );
                let said = self.said.get(task).map_or(0, |status| status.sequence);
                assert!(*sequence <= said, "{task}: confirmed what was never said");
            }
            _ => {}
        }
        self.say(&narrate(&notice));
        self.notices.push(notice);
    }

    fn check_move(&mut self, task: TaskId, from: TaskState, status: &TaskStatus) {
        let mut assigned = TaskStatus::pending();
        assigned.state = TaskState::Assigned;
        let before = self.said.get(&task).unwrap_or(&assigned);
        let says_something_new = match status.state {
            TaskState::Running => before.ready != status.ready,
            TaskState::Pulling => before.message != status.message,
            _ => false,
        };
        let flag = status.state == before.state && says_something_new;
        assert_eq!(from, before.state, "{task}\n{}", self.transcript);
        assert_eq!(status.sequence, before.sequence + 1, "{task}");
        assert!(
            flag || from.may_become(before.attempt, status.state, status.attempt),
            "{task}: {from} to {}\n{}",
            status.state,
            self.transcript
        );
        use TaskState::{Backoff, Failed, Rejected};
        if matches!(status.state, Failed | Rejected | Backoff) {
            assert!(
                status.reason.is_some(),
                "{task}: {} without a reason",
                status.state
            );
        }
        self.said.insert(task, status.clone());
    }

    fn check_containers(&self) {
        for (task, live) in self.runtime.live() {
            assert!(
                live < 2,
                "{live} live containers of {task}\n{}",
                self.transcript
            );
        }
    }

    /// What the agent said last about a task.
    pub fn state(&self, task: u64) -> Option<TaskState> {
        self.said.get(&TaskId(task)).map(|status| status.state)
    }

    pub fn status(&self, task: u64) -> TaskStatus {
        self.said[&TaskId(task)].clone()
    }

    /// What the managers know about a task.
    pub fn reported(&self, task: u64) -> TaskStatus {
        self.manager.tasks[&TaskId(task)].clone()
    }

    /// All states a task went through, with attempts.
    pub fn path(&self, task: u64) -> String {
        let moves = self.notices.iter().filter_map(|notice| match notice {
            Notice::TaskMoved {
                task: moved,
                status,
                ..
            } if moved.0 == task => Some(format!("{}.{}", status.state, status.attempt)),
            _ => None,
        });
        moves.collect::<Vec<_>>().join(" ")
    }

    pub fn count(&self, wanted: impl Fn(&Notice) -> bool) -> usize {
        self.notices.iter().filter(|notice| wanted(notice)).count()
    }

    pub fn heartbeats(&self) -> usize {
        let is_heartbeat = |message: &Message| matches!(message, Message::Heartbeat { .. });
        self.sent
            .iter()
            .filter(|(_, _, message)| is_heartbeat(message))
            .count()
    }
}

pub fn container(task: u64, attempt: u32) -> ContainerId {
    InstanceId {
        task: TaskId(task),
        attempt,
    }
    .container_id()
}

pub fn own_labels(task: u64) -> BTreeMap<String, String> {
    [
        ("wavetank.node".to_owned(), AGENT.to_string()),
        ("wavetank.task".to_owned(), TaskId(task).to_string()),
    ]
    .into()
}

fn describe(command: &RuntimeCommand) -> String {
    match command.container() {
        Some(id) => format!("call {} {id}", command.name()),
        None => format!("call {}", command.name()),
    }
}

/// A notice in one line, without what differs from seed to seed.
fn narrate(notice: &Notice) -> String {
    match notice {
        Notice::TaskMoved {
            task, from, status, ..
        } => {
            let ready = if status.ready { " ready" } else { "" };
            let reason = status
                .reason
                .map(|reason| format!(" ({reason})"))
                .unwrap_or_default();
            format!(
                "{task}.{} {from} -> {}{ready}{reason}",
                status.attempt, status.state
            )
        }
        Notice::ExitObserved { instance, exit } => format!("{instance} exited {}", exit.code),
        Notice::ReportAcknowledged { task, sequence } => format!("{task} confirmed {sequence}"),
        Notice::StopRequested {
            instance,
            grace,
            reason,
        } => {
            format!(
                "{instance} asked to stop within {}s ({reason})",
                grace.as_secs()
            )
        }
        Notice::PullDelayed {
            image,
            failures,
            class,
            ..
        } => {
            format!("pull of {image} delayed after {failures} failures ({class})")
        }
        Notice::SessionOpened {
            session, manager, ..
        } => format!("session {session} of {manager}"),
        other => format!("{other:?}"),
    }
}
