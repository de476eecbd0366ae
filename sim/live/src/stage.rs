//! One run: the plan's workload and faults at their times, what everybody says put in order and
//! recorded, the verdict.
//!
//! What happens is told by many who do not wait for each other, some of whom look only now and
//! then. So whatever is said first goes to the faults that wait for it, at once, and then to a
//! shelf, from which it is recorded (see `filing`) in the order in which it happened once everybody
//! had the time to speak.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use wavetank_engine::aim::{Sight, aim};
use wavetank_engine::build::build_loads;
use wavetank_engine::faults::{AIM_AGAIN, FaultBoard, dependents, fault_payload};
use wavetank_engine::leadership::Leadership;
use wavetank_engine::queue::Queue;
use wavetank_engine::recorder::Recorder;
use wavetank_engine::roster::Roster;
use wavetank_engine::workload::{Load, OPERATOR, Operator};
use wavetank_engine::{Keep, RunResult};
use wavetank_model::{
    Incarnation, InstanceId, NodeId, NodeRole, Notice, Operation, RequestId, ServiceName, TaskId,
};
use wavetank_node::{Os, Platform as _};
use wavetank_port::{ContainerId, WallTime};
use wavetank_scenario::plan::{Plan, Trigger};
use wavetank_trace::{Event, EventId, FaultState, HostState, Payload, Phase, VirtualTime};
use wavetank_world::LinkRule;

use crate::filing::Blindness;
use crate::log::{Draft, Said, Shelf};
use crate::scene::{Scene, SceneError};
use crate::unable;

/// How long anybody may take to tell what happened: observers look every tenth of a second, look
/// again before they say that something is gone, and a runtime that is busy answers late (Podman
/// after more than two seconds, at a load of four on each core).
pub(crate) const TELLING: Duration = Duration::from_secs(5);
/// How often the shelf is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Something that is due at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Happening {
    Fire { fault: u32 },
    Heal { fault: u32 },
    Step { index: usize },
    Load { client: usize },
    Restart { place: u32, life: u64 },
    Settle,
}

/// What the stage knows of a host.
#[derive(Debug, Default)]
pub(crate) struct Host {
    /// Its process runs.
    pub up: bool,
    /// How often its process was started and ended: what was meant for an older life is void.
    pub life: u64,
    /// It has no power.
    pub dark: bool,
    /// Its disk is empty.
    pub empty: bool,
    /// Faults that keep its process from running.
    pub down_by: BTreeSet<u32>,
    /// Faults that freeze it.
    pub paused_by: BTreeSet<u32>,
    /// Its process's boot, as it said.
    pub incarnation: Incarnation,
    /// Containers whose process runs there, with that process.
    pub running: BTreeMap<ContainerId, u32>,
}

/// One run.
pub(crate) struct Stage<'a> {
    pub plan: &'a Plan,
    pub roster: Roster,
    pub scene: Scene,
    pub hosts: Vec<Host>,
    pub rules: Vec<LinkRule>,
    pub faults: FaultBoard,
    pub operator: Operator,
    pub queue: Queue<Happening>,
    pub leadership: Leadership,
    pub(crate) drafts: UnboundedReceiver<Draft>,
    pub(crate) shelf: Shelf,
    pub(crate) blindness: Blindness,
    pub(crate) recorder: Recorder<'a>,
    loads: Vec<Load>,
    pub(crate) asked: BTreeMap<RequestId, EventId>,
    services: BTreeMap<TaskId, ServiceName>,
    pub(crate) last: VirtualTime,
    settling: bool,
    /// When everything had healed: what is to settle has its time from then on.
    healed_at: Option<VirtualTime>,
    pub(crate) events: u64,
}

impl<'a> Stage<'a> {
    /// Everything stands and nothing has happened yet.
    pub fn new(
        plan: &'a Plan,
        keep: Keep,
        sink: &'a mut dyn FnMut(&Event),
        scene: Scene,
        drafts: UnboundedReceiver<Draft>,
    ) -> Self {
        let roster = Roster::of(plan);
        Stage {
            plan,
            roster,
            scene,
            hosts: roster.nodes().map(|_| Host::default()).collect(),
            rules: Vec::new(),
            faults: FaultBoard::new(plan),
            operator: Operator::default(),
            queue: Queue::new(),
            leadership: Leadership::default(),
            drafts,
            shelf: Shelf::default(),
            blindness: Blindness::default(),
            recorder: Recorder::new(plan, keep, sink),
            loads: build_loads(plan),
            asked: BTreeMap::new(),
            services: BTreeMap::new(),
            last: VirtualTime::ZERO,
            settling: false,
            healed_at: None,
            events: 0,
        }
    }

    /// Runs the plan to its end.
    ///
    /// # Errors
    /// If this machine fails us: a run without a verdict.
    pub async fn run(mut self) -> Result<RunResult, SceneError> {
        self.gather().await?;
        self.begin();
        while self.healed_at.is_none() || self.now() < self.end() {
            let now = self.now();
            while let Some((_, happening)) = self.queue.pop_until(now) {
                self.events += 1;
                self.happen(happening).await?;
            }
            let told = self.blindness.limit(self.wall_before(TELLING));
            self.file(told);
            self.listen().await;
        }
        self.finish().await
    }

    /// When the plan is over. To heal for real takes time, which is not taken from settling.
    pub(crate) fn end(&self) -> VirtualTime {
        let horizon = VirtualTime::from_duration(self.plan.horizon);
        self.healed_at.unwrap_or(horizon).max(horizon) + self.plan.settle
    }

    pub(crate) fn wall(&self) -> WallTime {
        Os::new().wall()
    }

    pub(crate) fn now(&self) -> VirtualTime {
        self.scene.pace.at(self.wall())
    }

    pub(crate) fn wall_before(&self, span: Duration) -> WallTime {
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        WallTime(self.wall().0.saturating_sub(nanos))
    }

    /// Starts everyone who is there from the beginning, and waits until all have found each other.
    async fn gather(&mut self) -> Result<(), SceneError> {
        for (place, id) in (0..).zip(self.roster.nodes()) {
            let joins_later =
                id.role == NodeRole::Manager && id.number > self.plan.cluster.managers;
            if id.role != NodeRole::Client && !joins_later {
                self.start(place).await?;
            }
        }
        let mut wanted: BTreeSet<NodeId> = self
            .roster
            .nodes()
            .filter(|id| id.role == NodeRole::Agent)
            .collect();
        let voters = self.plan.cluster.managers as usize;
        let mut members = 0;
        let patience = self.scene.patience();
        let deadline = tokio::time::Instant::now() + patience;
        while members < voters || !wanted.is_empty() {
            let draft = tokio::time::timeout_at(deadline, self.drafts.recv()).await;
            let Ok(Some(draft)) = draft else {
                return Err(SceneError::Apart {
                    within: patience,
                    members,
                    without: wanted.iter().map(NodeId::to_string).collect(),
                });
            };
            match (&draft.said, draft.host) {
                (
                    Said::Event(Payload::Notice {
                        notice: Notice::MembershipChanged { voters },
                    }),
                    _,
                ) => members = voters.len(),
                (
                    Said::Event(Payload::Notice {
                        notice: Notice::SessionOpened { .. },
                    }),
                    Some(agent),
                ) => {
                    wanted.remove(&agent);
                }
                _ => {}
            }
            self.hear(draft);
        }
        self.scene.begin(self.wall());
        Ok(())
    }

    /// The plan's time begins.
    fn begin(&mut self) {
        let phase = Phase::Faults;
        // Before what the nodes said while they gathered: a trace begins with its phase.
        self.shelf.put(WallTime(0), None, Payload::Phase { phase });
        for (index, step) in self.plan.workload.iter().enumerate() {
            let at = VirtualTime::from_duration(step.at);
            self.queue.push(at, Happening::Step { index });
        }
        for (client, load) in self.loads.iter().enumerate() {
            let at = VirtualTime::from_duration(load.config.at);
            self.queue.push(at, Happening::Load { client });
        }
        for (fault, planned) in (0..).zip(&self.plan.faults) {
            let silence = (Vec::new(), String::new());
            self.tell_fault(fault, FaultState::Armed, silence);
            if let Some(why) = unable::why(planned, self.scene.runtime(), self.scene.links()) {
                self.faults.runs[fault as usize].fired = true;
                self.tell_fault(fault, FaultState::NotApplied, (Vec::new(), why));
            } else if let Trigger::At(at) = planned.trigger {
                let at = VirtualTime::from_duration(at);
                self.queue.push(at, Happening::Fire { fault });
            }
        }
        let settle = VirtualTime::from_duration(self.plan.horizon);
        self.queue.push(settle, Happening::Settle);
    }

    /// Waits for what is said until something is due.
    async fn listen(&mut self) {
        let due = self.queue.next_at().unwrap_or(self.end());
        let span = self.scene.pace.real(due.since(self.now())).min(LOOK);
        tokio::select! {
            biased;
            draft = self.drafts.recv() => {
                if let Some(draft) = draft {
                    self.hear(draft);
                }
                while let Ok(draft) = self.drafts.try_recv() {
                    self.hear(draft);
                }
            }
            () = tokio::time::sleep(span) => {
                for fault in self.scene.hits() {
                    self.hit(fault);
                }
            }
        }
    }

    pub(crate) fn hear(&mut self, draft: Draft) {
        let Draft { at, host, said } = draft;
        self.events += 1;
        match said {
            Said::Ended { life, why } => {
                let place = host.and_then(|host| self.roster.place_of(host));
                if let Some(place) = place {
                    self.ended(place, life, why);
                }
            }
            Said::Event(payload) => self.hear_event(at, host, payload),
        }
    }

    fn hear_event(&mut self, at: WallTime, host: Option<NodeId>, payload: Payload) {
        if let Some(place) = host.and_then(|host| self.roster.place_of(host)) {
            self.note(place, &payload);
        }
        self.tell_at(at, host, payload);
    }

    /// What a host says changes what is known of it.
    fn note(&mut self, place: u32, payload: &Payload) {
        let host = &mut self.hosts[place as usize];
        match payload {
            Payload::Notice {
                notice: Notice::RoleChanged { role, epoch },
            } => self.leadership.follow(place, *role, *epoch),
            Payload::Host {
                state: HostState::Started,
                incarnation,
            } => host.incarnation = *incarnation,
            Payload::ContainerStarted { container, pid } => {
                host.running.insert(container.clone(), *pid);
            }
            Payload::ContainerExited { container, .. }
            | Payload::ContainerDeleted { container } => {
                host.running.remove(container);
            }
            Payload::Notice {
                notice: Notice::TaskMoved { task, service, .. },
            } => {
                self.services.insert(*task, service.clone());
            }
            Payload::RuntimeCalled {
                call,
                container: Some(container),
                ..
            } if call == "stop" => {
                let id = self.roster.id_of(place);
                self.scene.is_stopping(id, container);
            }
            Payload::ClientReturned { .. } => self.answered(place),
            _ => {}
        }
    }

    fn answered(&mut self, place: u32) {
        let client = self.roster.id_of(place);
        if client == OPERATOR {
            self.operator.answered();
            self.operate();
        } else if let Some(client) = (client.number as usize).checked_sub(2) {
            let at = self.now() + self.loads[client].config.pause;
            self.queue.push(at, Happening::Load { client });
        }
    }

    async fn happen(&mut self, happening: Happening) -> Result<(), SceneError> {
        match happening {
            Happening::Fire { fault } => return self.fire(fault).await,
            Happening::Heal { fault } => return self.heal(fault).await,
            Happening::Step { index } => {
                let operation = self.plan.workload[index].operation.clone();
                self.operator.push(operation, EventId(0));
                self.operate();
            }
            Happening::Load { client } => {
                let now = self.now();
                if let Some(operation) = self.loads[client].next(now) {
                    let number = u32::try_from(client).unwrap_or(u32::MAX) + 2;
                    self.ask(NodeId::client(number), &operation);
                }
            }
            Happening::Restart { place, life } => {
                if self.hosts[place as usize].life == life {
                    return self.start(place).await;
                }
            }
            Happening::Settle => {
                self.settling = true;
                self.heal_all().await?;
                self.healed_at = Some(self.now());
                let phase = Phase::Settle;
                self.tell(None, Payload::Phase { phase });
            }
        }
        Ok(())
    }

    /// The operator asks the next thing, if it is not waiting for an answer.
    pub(crate) fn operate(&mut self) {
        if let Some((operation, _)) = self.operator.take_next() {
            self.ask(OPERATOR, &operation);
        }
    }

    fn ask(&mut self, client: NodeId, operation: &Operation) {
        self.scene.ask(client, operation);
    }

    async fn fire(&mut self, fault: u32) -> Result<(), SceneError> {
        let run = &self.faults.runs[fault as usize];
        if run.fired || self.settling {
            return Ok(());
        }
        let host = run.trigger.and_then(|(host, _)| host);
        let Some(struck) = aim(&self.plan.faults[fault as usize], host, self) else {
            let again = self.now() + AIM_AGAIN;
            self.queue.push(again, Happening::Fire { fault });
            return Ok(());
        };
        let words = self.faults.begin(fault, struck);
        self.tell_fault(fault, FaultState::Fired, words);
        self.strike(fault).await?;
        for (other, delay) in dependents(self.plan, fault) {
            let at = self.now() + delay;
            self.queue.push(at, Happening::Fire { fault: other });
        }
        if let Some(duration) = self.plan.faults[fault as usize].duration {
            let at = self.now() + duration;
            self.queue.push(at, Happening::Heal { fault });
        }
        Ok(())
    }

    async fn heal(&mut self, fault: u32) -> Result<(), SceneError> {
        if !self.faults.end(fault) {
            return Ok(());
        }
        self.undo(fault).await?;
        self.tell_fault(fault, FaultState::Healed, (Vec::new(), String::new()));
        Ok(())
    }

    async fn heal_all(&mut self) -> Result<(), SceneError> {
        for (fault, planned) in (0..).zip(&self.plan.faults) {
            if planned.heals {
                self.heal(fault).await?;
            }
        }
        Ok(())
    }

    pub(crate) fn hit(&mut self, fault: u32) {
        if self.faults.hit(fault) {
            self.tell_fault(fault, FaultState::Hit, (Vec::new(), String::new()));
        }
    }

    pub(crate) fn tell_fault(
        &mut self,
        fault: u32,
        state: FaultState,
        (disturbs, detail): (Vec<NodeId>, String),
    ) {
        let payload = fault_payload(self.plan, fault, state, disturbs, detail);
        self.tell(None, payload);
    }

    /// Tells what happens now, by the stage's own doing.
    pub(crate) fn tell(&mut self, host: Option<NodeId>, payload: Payload) {
        self.tell_at(self.wall(), host, payload);
    }

    fn tell_at(&mut self, at: WallTime, host: Option<NodeId>, payload: Payload) {
        let glimpse = Event {
            id: EventId(0),
            at: self.scene.pace.at(at),
            host,
            cause: None,
            payload,
        };
        for (fault, delay) in self.faults.due_after(&glimpse) {
            let due = self.now() + delay;
            self.queue.push(due, Happening::Fire { fault });
        }
        self.shelf.put(at, host, glimpse.payload);
    }
}

impl Sight for Stage<'_> {
    fn roster(&self) -> Roster {
        self.roster
    }

    fn leader(&self) -> Option<u32> {
        self.leadership.leader()
    }

    fn is_up(&self, place: u32) -> bool {
        self.hosts[place as usize].up
    }

    fn running_tasks(&self, service: Option<&str>) -> Vec<(u32, ContainerId)> {
        let mut tasks = Vec::new();
        for (place, host) in (0..).zip(&self.hosts) {
            let of_service = |id: &&ContainerId| {
                let task = InstanceId::of_container(id).map(|instance| instance.task);
                let own = task.and_then(|task| self.services.get(&task));
                service.is_none_or(|service| own.is_some_and(|own| *own.0 == *service))
            };
            let ids = host.running.keys().filter(of_service);
            tasks.extend(ids.map(|id| (place, id.clone())));
        }
        tasks
    }
}
