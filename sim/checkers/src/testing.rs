//! Hand-made plans and traces for the tests of this crate.

use std::collections::BTreeMap;
use std::time::Duration;

use wavetank_model::*;
use wavetank_port::{ContainerId, ExitCode, ExitStatus, Signal, WallTime};
use wavetank_scenario::plan::*;
use wavetank_trace::{
    Event, EventId, ExitCause, FaultState, HostState, Payload, Phase, VirtualTime,
};

use crate::finding::Judgement;
use crate::judge::Judge;

pub const WEB: &str = "web";

pub fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn timers() -> Timers {
    Timers {
        heartbeat: seconds(5),
        node_down_after: seconds(30),
        down_check: seconds(1),
        failover_grace: seconds(10),
        session_timeout: seconds(15),
        request_retry: seconds(2),
        raft_heartbeat: millis(100),
        raft_election: seconds(1),
        snapshot_every: 1000,
        reconcile: seconds(5),
        status_poll: seconds(5),
        runtime_timeout: seconds(10),
        pull_timeout: seconds(60),
        pull_backoff: Backoff {
            base: seconds(1),
            cap: seconds(30),
        },
        pull_attempts_max: None,
        replace_backoff: Backoff {
            base: seconds(5),
            cap: seconds(60),
        },
        history_max: 2,
    }
}

fn range(ms: u64) -> Range {
    Range {
        min: millis(ms),
        max: millis(ms),
    }
}

/// Three managers, two agents, one image that runs for ever and one that ends with code 0.
pub fn plan(invariants: &[&str]) -> Plan {
    let agent = AgentHost {
        resources: Resources {
            cpu_millis: 4000,
            memory_bytes: 1000,
        },
        labels: BTreeMap::from([("zone".to_owned(), "a".to_owned())]),
    };
    let image = Image {
        run_for: None,
        exit_code: 0,
        on_term: OnTerm::Exits {
            after: millis(50),
            code: None,
        },
        health: Health::Ok,
        pull_bytes: 1000,
        exists: true,
        memory_bytes: 10,
    };
    let job_base = image.clone();
    let job = Image {
        run_for: Some(range(100)),
        ..job_base
    };
    Plan {
        name: "test".into(),
        file: "test.yaml".into(),
        seed: 1,
        profile: "wavetank".into(),
        horizon: seconds(100),
        settle: seconds(100),
        cluster: Cluster {
            managers: 3,
            agents: vec![agent.clone(), agent],
            clients: vec![],
            timers: timers(),
            latency: range(1),
            fsync: range(1),
            runtime_latency: range(10),
            event_delay: range(1),
            runtime_steps: BTreeMap::new(),
            restart_delay: seconds(1),
            shared_volumes: vec![],
        },
        images: BTreeMap::from([(WEB.to_owned(), image), ("job".to_owned(), job)]),
        workload: vec![],
        faults: vec![],
        expect: Expect {
            invariants: invariants.iter().map(|name| (*name).to_owned()).collect(),
            eventually: vec![],
            never: vec![],
            fails: vec![],
        },
        worlds: vec!["event".into()],
    }
}

/// A service `web` with one replica.
pub fn spec() -> ServiceSpec {
    ServiceSpec {
        name: WEB.into(),
        image: wavetank_port::ImageReference(WEB.into()),
        command: vec![],
        environment: BTreeMap::new(),
        mode: ServiceMode::Replicated { replicas: 1 },
        resources: Resources {
            cpu_millis: 100,
            memory_bytes: 100,
        },
        constraints: BTreeMap::new(),
        spread: None,
        ports: vec![],
        volume: None,
        restart: RestartPolicy {
            condition: RestartCondition::Always,
            restarts_max: 2,
            backoff: Backoff {
                base: seconds(1),
                cap: seconds(10),
            },
            stable_after: seconds(30),
        },
        health: None,
        stop_grace: seconds(10),
        update: UpdatePolicy {
            surge_max: 1,
            unavailable_max: 0,
            monitor: seconds(1),
            failures_max: 1,
            on_failure: OnRolloutFailure::Pause,
        },
        election: None,
    }
}

pub fn service(spec: &ServiceSpec) -> Change {
    Change::Service {
        spec: spec.clone(),
        generation: Generation(1),
        rollout: RolloutState::Completed,
        stopped: false,
        deleting: false,
    }
}

pub fn stopped(spec: &ServiceSpec, stopped: bool) -> Change {
    Change::Service {
        spec: spec.clone(),
        generation: Generation(1),
        rollout: RolloutState::Completed,
        stopped,
        deleting: false,
    }
}

pub fn node(number: u32, status: NodeStatus) -> Change {
    Change::Node {
        node: NodeId::agent(number),
        status,
        availability: Availability::Active,
    }
}

pub fn status(state: TaskState, attempt: u32, sequence: u64) -> TaskStatus {
    let ready = state == TaskState::Running;
    TaskStatus {
        state,
        attempt,
        sequence,
        ready,
        ..TaskStatus::pending()
    }
}

pub fn failed(reason: Reason, exit: Option<ExitStatus>, attempt: u32, seq: u64) -> TaskStatus {
    TaskStatus {
        reason: Some(reason),
        exit,
        ..status(TaskState::Failed, attempt, seq)
    }
}

/// A task of `web` in slot `id`, generation 1.
pub struct Task {
    pub id: u64,
    pub slot: u32,
    pub node: Option<NodeId>,
    pub desired: DesiredState,
}

pub fn task(id: u64, agent: u32) -> Task {
    Task {
        id,
        slot: u32::try_from(id).unwrap_or(1),
        node: (agent > 0).then(|| NodeId::agent(agent)),
        desired: DesiredState::Running,
    }
}

impl Task {
    pub fn slot(self, slot: u32) -> Self {
        Task { slot, ..self }
    }
    pub fn desired(self, desired: DesiredState) -> Self {
        Task { desired, ..self }
    }
    pub fn change(&self, from: Option<TaskState>, status: TaskStatus) -> Change {
        Change::Task {
            task: TaskId(self.id),
            service: WEB.into(),
            slot: self.slot,
            generation: Generation(1),
            node: self.node,
            desired: self.desired,
            from,
            status,
        }
    }
}

pub fn removed(id: u64) -> Change {
    Change::TaskRemoved {
        task: TaskId(id),
        service: WEB.into(),
    }
}

pub fn exit(code: i32) -> ExitStatus {
    ExitStatus {
        code: ExitCode::Known(code),
        exited_at: Some(WallTime(7)),
        oom_killed: false,
    }
}

pub fn unknown_exit() -> ExitStatus {
    ExitStatus {
        code: ExitCode::Unknown,
        exited_at: None,
        oom_killed: false,
    }
}

pub fn instance(task: u64, attempt: u32) -> InstanceId {
    InstanceId {
        task: TaskId(task),
        attempt,
    }
}

pub fn container(task: u64, attempt: u32) -> ContainerId {
    instance(task, attempt).container_id()
}

/// A trace in the making.
#[derive(Default)]
pub struct Trace {
    pub events: Vec<Event>,
    pub now: Duration,
    pub revision: u64,
    pub requests: u64,
}

impl Trace {
    /// All hosts up, manager-1 leads epoch 1, both agents are ready, the service exists.
    pub fn started(spec: &ServiceSpec) -> Self {
        let mut trace = Trace::default();
        trace.push(
            None,
            Payload::Phase {
                phase: Phase::Faults,
            },
        );
        for number in 1..=3 {
            trace.host(NodeId::manager(number), HostState::Started);
        }
        for number in 1..=2 {
            trace.host(NodeId::agent(number), HostState::Started);
        }
        trace.after(millis(100));
        trace.lead(1, 1);
        trace.apply(vec![node(1, NodeStatus::Ready), node(2, NodeStatus::Ready)]);
        trace.apply(vec![service(spec)]);
        trace
    }

    pub fn after(&mut self, duration: Duration) -> &mut Self {
        self.now += duration;
        self
    }

    pub fn push(&mut self, host: Option<NodeId>, payload: Payload) -> EventId {
        let id = EventId(self.events.len() as u64 + 1);
        let at = VirtualTime::from_duration(self.now);
        self.events.push(Event {
            id,
            at,
            host,
            cause: None,
            payload,
        });
        id
    }

    pub fn host(&mut self, node: NodeId, state: HostState) -> EventId {
        self.push(
            Some(node),
            Payload::Host {
                state,
                incarnation: Incarnation(1),
            },
        )
    }

    pub fn notice(&mut self, node: NodeId, notice: Notice) -> EventId {
        self.push(Some(node), Payload::Notice { notice })
    }

    pub fn lead(&mut self, manager: u32, epoch: u64) -> EventId {
        let role = ConsensusRole::Leader;
        self.notice(
            NodeId::manager(manager),
            Notice::RoleChanged {
                role,
                epoch: Epoch(epoch),
            },
        )
    }

    /// Applies the next entry on manager-1.
    pub fn apply(&mut self, changes: Vec<Change>) -> Revision {
        self.revision += 1;
        self.apply_at(1, self.revision, 1, self.revision, changes);
        Revision(self.revision)
    }

    pub fn apply_at(
        &mut self,
        manager: u32,
        revision: u64,
        epoch: u64,
        digest: u64,
        changes: Vec<Change>,
    ) -> EventId {
        let (revision, epoch) = (Revision(revision), Epoch(epoch));
        let notice = Notice::Applied {
            revision,
            epoch,
            digest,
            changes,
        };
        self.notice(NodeId::manager(manager), notice)
    }

    pub fn fault(&mut self, action: &str, state: FaultState, disturbs: &[NodeId]) -> EventId {
        let payload = Payload::Fault {
            fault: 0,
            name: "fault".into(),
            action: action.into(),
            state,
            disturbs: disturbs.to_vec(),
            detail: String::new(),
        };
        self.push(None, payload)
    }

    pub fn moved(&mut self, agent: u32, id: u64, from: TaskState, status: TaskStatus) -> EventId {
        let (task, service) = (TaskId(id), WEB.into());
        self.notice(
            NodeId::agent(agent),
            Notice::TaskMoved {
                task,
                service,
                from,
                status,
            },
        )
    }

    /// An agent moves a task and the managers commit that.
    pub fn reported(&mut self, agent: u32, task: &Task, from: TaskState, status: TaskStatus) {
        self.moved(agent, task.id, from, status.clone());
        self.after(millis(5));
        let sequence = status.sequence;
        self.apply(vec![task.change(Some(from), status)]);
        self.acknowledged(agent, task.id, sequence);
    }

    pub fn acknowledged(&mut self, agent: u32, id: u64, sequence: u64) -> EventId {
        let notice = Notice::ReportAcknowledged {
            task: TaskId(id),
            sequence,
        };
        self.notice(NodeId::agent(agent), notice)
    }

    pub fn called(&mut self, agent: u32, call: &str, container: &ContainerId) -> EventId {
        let payload = Payload::RuntimeCalled {
            call: call.into(),
            container: Some(container.clone()),
            image: None,
        };
        self.push(Some(NodeId::agent(agent)), payload)
    }

    pub fn listed(&mut self, agent: u32, listed: u32) -> EventId {
        let payload = Payload::RuntimeAnswered {
            call: "list".into(),
            container: None,
            error: None,
            listed: Some(listed),
        };
        self.push(Some(NodeId::agent(agent)), payload)
    }

    pub fn create(&mut self, agent: u32, task: u64, attempt: u32, volumes: &[&str]) -> EventId {
        let container = container(task, attempt);
        self.called(agent, "create", &container);
        let volumes = volumes.iter().map(|volume| (*volume).to_owned()).collect();
        let payload = Payload::ContainerCreated { container, volumes };
        self.push(Some(NodeId::agent(agent)), payload)
    }

    pub fn start(&mut self, agent: u32, task: u64, attempt: u32) -> EventId {
        let container = container(task, attempt);
        self.called(agent, "start", &container);
        let payload = Payload::ContainerStarted {
            container,
            pid: 100,
        };
        self.push(Some(NodeId::agent(agent)), payload)
    }

    /// Creates and starts.
    pub fn run(&mut self, agent: u32, task: u64, attempt: u32) -> EventId {
        self.create(agent, task, attempt, &[]);
        self.start(agent, task, attempt)
    }

    pub fn signal(&mut self, agent: u32, task: u64, attempt: u32, signal: Signal) -> EventId {
        let container = container(task, attempt);
        let payload = Payload::ContainerSignalled { container, signal };
        self.push(Some(NodeId::agent(agent)), payload)
    }

    pub fn exited(
        &mut self,
        agent: u32,
        task: u64,
        attempt: u32,
        exit: ExitStatus,
        because: ExitCause,
    ) -> EventId {
        let container = container(task, attempt);
        let payload = Payload::ContainerExited {
            container,
            exit,
            because,
        };
        self.push(Some(NodeId::agent(agent)), payload)
    }

    pub fn deleted(&mut self, agent: u32, task: u64, attempt: u32) -> EventId {
        let container = container(task, attempt);
        self.push(
            Some(NodeId::agent(agent)),
            Payload::ContainerDeleted { container },
        )
    }

    pub fn stop_requested(&mut self, agent: u32, task: u64, attempt: u32, reason: Reason) {
        let (instance, grace) = (instance(task, attempt), seconds(10));
        self.notice(
            NodeId::agent(agent),
            Notice::StopRequested {
                instance,
                grace,
                reason,
            },
        );
    }

    pub fn accepted(&mut self, agent: u32, revision: Revision) -> EventId {
        let notice = Notice::AssignmentsAccepted {
            epoch: Epoch(1),
            revision,
            tasks: 1,
        };
        self.notice(NodeId::agent(agent), notice)
    }

    /// A client asks; the answer is for [`Trace::returned`].
    pub fn invoked(&mut self, client: u32, operation: Operation) -> RequestId {
        self.requests += 1;
        let client = NodeId::client(client);
        let request = RequestId {
            client,
            incarnation: Incarnation(1),
            sequence: self.requests,
        };
        self.push(Some(client), Payload::ClientInvoked { request, operation });
        request
    }

    pub fn returned(
        &mut self,
        request: RequestId,
        result: Result<Outcome, OperationError>,
    ) -> EventId {
        self.push(
            Some(request.client),
            Payload::ClientReturned { request, result },
        )
    }

    /// A task of `web` comes up on an agent: written, assigned, started, reported.
    pub fn up(&mut self, id: u64, agent: u32) -> Task {
        let pending = Task {
            node: None,
            ..task(id, agent)
        };
        self.apply(vec![pending.change(None, TaskStatus::pending())]);
        let task = task(id, agent);
        let assigned = status(TaskState::Assigned, 0, 0);
        let revision = self.apply(vec![task.change(Some(TaskState::Pending), assigned)]);
        self.after(millis(10));
        self.accepted(agent, revision);
        self.bring_up(agent, &task);
        task
    }

    /// The agent's side of [`Trace::up`].
    pub fn bring_up(&mut self, agent: u32, task: &Task) {
        use TaskState::{Accepted, Assigned, Creating, Pulling, Running, Starting};
        let way = [Assigned, Accepted, Pulling, Creating, Starting, Running];
        for (sequence, pair) in (1..).zip(way.windows(2)) {
            if pair[1] == Starting {
                self.create(agent, task.id, 1, &[]);
            }
            if pair[1] == Running {
                self.start(agent, task.id, 1);
            }
            self.after(millis(20));
            self.reported(agent, task, pair[0], status(pair[1], 1, sequence));
        }
    }

    pub fn settle(&mut self) -> &mut Self {
        self.push(
            None,
            Payload::Phase {
                phase: Phase::Settle,
            },
        );
        self
    }

    /// The settle phase passes and the run ends.
    pub fn end(&mut self) -> &mut Self {
        self.settle().after(seconds(100));
        self.push(None, Payload::Phase { phase: Phase::End });
        self
    }

    pub fn judge(&self, plan: &Plan) -> Judgement {
        let mut judge = Judge::new(plan);
        for event in &self.events {
            judge.observe(event);
        }
        judge.finish()
    }

    /// Fingerprints of what the named checkers find.
    pub fn findings(&self, invariants: &[&str]) -> Vec<String> {
        self.fingerprints(&plan(invariants))
    }

    pub fn fingerprints(&self, plan: &Plan) -> Vec<String> {
        self.judge(plan)
            .findings
            .into_iter()
            .map(|finding| finding.fingerprint)
            .collect()
    }
}
