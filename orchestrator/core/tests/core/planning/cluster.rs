//! A cluster without consensus or network: one store, one planner, and agents that do what a
//! test tells them. Every command goes through its encoding and is applied to two stores; after
//! each one the rules that must always hold are checked.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use wavetank_core::TaskReport;
use wavetank_core::manager::command::Command;
use wavetank_core::manager::planner::Planner;
use wavetank_core::manager::store::{Applied, Store, TaskRecord};
use wavetank_model::{
    Availability, Backoff, Change, DesiredState, Generation, Incarnation, Instant, NodeId,
    NodeStatus, OnRolloutFailure, Operation, OperationError, Outcome, Reason, RequestId, Resources,
    RestartCondition, RestartPolicy, Revision, RolloutState, ServiceMode, ServiceName, ServiceSpec,
    TaskState, TaskStatus, Timers, UpdatePolicy,
};

/// One mebibyte.
pub const MIB: u64 = 1 << 20;

pub fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub fn timers() -> Timers {
    Timers {
        heartbeat: seconds(5),
        node_down_after: seconds(30),
        down_check: seconds(1),
        failover_grace: seconds(5),
        session_timeout: seconds(10),
        request_retry: seconds(1),
        raft_heartbeat: Duration::from_millis(100),
        raft_election: Duration::from_millis(500),
        snapshot_every: 1000,
        reconcile: seconds(10),
        status_poll: seconds(5),
        runtime_timeout: seconds(10),
        pull_timeout: seconds(300),
        pull_backoff: Backoff {
            base: seconds(1),
            cap: seconds(60),
        },
        pull_attempts_max: None,
        replace_backoff: Backoff {
            base: seconds(1),
            cap: seconds(60),
        },
        history_max: 3,
    }
}

/// A service of so many replicas with the settings that most tests want.
pub fn service(name: &str, replicas: u32) -> ServiceSpec {
    ServiceSpec {
        name: name.into(),
        image: wavetank_port::ImageReference(format!("{name}:1")),
        command: Vec::new(),
        environment: BTreeMap::new(),
        mode: ServiceMode::Replicated { replicas },
        resources: Resources {
            cpu_millis: 100,
            memory_bytes: 64 * MIB,
        },
        constraints: BTreeMap::new(),
        spread: None,
        ports: Vec::new(),
        volume: None,
        restart: RestartPolicy {
            condition: RestartCondition::Always,
            restarts_max: 3,
            backoff: Backoff {
                base: seconds(1),
                cap: seconds(10),
            },
            stable_after: seconds(60),
        },
        health: None,
        stop_grace: seconds(10),
        update: UpdatePolicy {
            surge_max: 1,
            unavailable_max: 0,
            monitor: seconds(5),
            failures_max: 1,
            on_failure: OnRolloutFailure::Rollback,
        },
        election: None,
    }
}

/// The same service with another image: a new generation.
pub fn version(mut spec: ServiceSpec, version: u32) -> ServiceSpec {
    spec.image.0 = format!("{}:{version}", spec.name);
    spec
}

/// A job that runs once.
pub fn job(name: &str, completions: u32) -> ServiceSpec {
    let mut spec = service(name, 0);
    spec.mode = ServiceMode::Job { completions };
    spec.restart.condition = RestartCondition::Never;
    spec
}

/// What agents make of tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// They run and are ready.
    Works,
    /// They run and end with zero.
    Completes,
    /// They run and end otherwise.
    Fails,
    /// They stay in `Pulling`.
    Hangs,
}

#[derive(Clone)]
pub struct Cluster {
    pub store: Store,
    replica: Store,
    pub planner: Planner,
    pub now: Instant,
    revision: u64,
    request: u64,
    pub history: Vec<Change>,
    /// By image: what becomes of tasks; others work.
    pub behaviours: BTreeMap<String, Behaviour>,
    /// Proposals that are not applied yet.
    pub under_way: VecDeque<Command>,
    pub commands: usize,
}

impl Cluster {
    /// A cluster with so many equal nodes.
    pub fn new(nodes: u32) -> Self {
        let mut cluster = Cluster::with_store(Store::new());
        (1..=nodes).for_each(|node| cluster.node_up(node, 8192 * MIB, &[]));
        cluster
    }

    /// A cluster that starts with what is in this store.
    pub fn with_store(store: Store) -> Self {
        let now = Instant(1_000_000_000);
        let planner = Planner::new(&timers(), now, &store);
        Cluster {
            replica: store.clone(),
            store,
            planner,
            now,
            revision: 0,
            request: 0,
            history: Vec::new(),
            behaviours: BTreeMap::new(),
            under_way: VecDeque::new(),
            commands: 0,
        }
    }

    pub fn node_up(&mut self, node: u32, memory_bytes: u64, labels: &[(&str, &str)]) {
        let labels = labels
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        let resources = Resources {
            cpu_millis: 64_000,
            memory_bytes,
        };
        self.apply(Command::NodeUp {
            node: NodeId::agent(node),
            resources,
            labels,
        });
    }

    pub fn node_down(&mut self, node: u32) {
        self.apply(Command::NodeDown {
            node: NodeId::agent(node),
        });
    }

    /// Applies a command as every manager would, and checks what must always hold.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a command is made for one application"
    )]
    pub fn apply(&mut self, command: Command) -> Applied {
        let command = Command::decode(&command.encode()).expect("own encoding");
        let before = self.store.clone();
        self.revision += 1;
        self.commands += 1;
        let applied = self.store.apply(Revision(self.revision), &command);
        let again = self.replica.apply(Revision(self.revision), &command);
        assert_eq!(applied, again, "two managers, one result");
        assert_eq!(self.store, self.replica, "two managers, one store");
        super::rules::check(&before, &command, &self.store, &applied.changes);
        self.planner.note(&applied.changes, self.now);
        self.history.extend(applied.changes.iter().cloned());
        applied
    }

    /// A client's request; panics if it is not answered.
    pub fn ask(&mut self, operation: Operation) -> Result<Outcome, OperationError> {
        self.request += 1;
        let id = self.request_id(self.request);
        self.apply(Command::Client { id, operation })
            .result
            .expect("a fresh request is answered")
    }

    pub fn request_id(&self, sequence: u64) -> RequestId {
        RequestId {
            client: NodeId::client(1),
            incarnation: Incarnation(1),
            sequence,
        }
    }

    pub fn deploy(&mut self, spec: &ServiceSpec) {
        self.ask(Operation::Deploy { spec: spec.clone() })
            .expect("a valid spec");
        self.settle();
    }

    pub fn scale(&mut self, name: &str, replicas: u32) {
        self.ask(Operation::Scale {
            service: name.into(),
            replicas,
        })
        .expect("scale");
        self.settle();
    }

    pub fn availability(&mut self, node: u32, availability: Availability) {
        let node = NodeId::agent(node);
        self.ask(Operation::SetAvailability { node, availability })
            .expect("a known node");
        self.settle();
    }

    /// Proposes without applying.
    pub fn propose(&mut self) {
        self.under_way
            .extend(self.planner.step(&self.store, self.now));
    }

    /// Applies what was proposed, and what follows from it, until nothing follows.
    pub fn settle(&mut self) {
        for _ in 0..1000 {
            self.propose();
            let Some(command) = self.under_way.pop_front() else {
                return;
            };
            self.apply(command);
        }
        panic!("the planner never comes to rest");
    }

    /// Settles, then lets agents work, until nothing moves.
    pub fn run(&mut self) {
        for _ in 0..1000 {
            self.settle();
            if !self.agents_work() {
                return;
            }
        }
        panic!("the cluster never comes to rest");
    }

    /// Lets time pass, with agents at work whenever the planner acts.
    pub fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        for _ in 0..100_000 {
            self.run();
            let next = self.planner.next_deadline();
            if next > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(next);
        }
        panic!("the planner never lets time pass");
    }

    /// Every agent that is heard of takes one step with each of its tasks. False if none moved.
    pub fn agents_work(&mut self) -> bool {
        let nodes: Vec<NodeId> = self.store.nodes().keys().copied().collect();
        let mut moved = false;
        for node in nodes {
            moved |= self.agent_works(node);
        }
        moved
    }

    pub fn agent_works(&mut self, node: NodeId) -> bool {
        if self
            .store
            .node(node)
            .is_none_or(|record| record.status == NodeStatus::Down)
        {
            return false;
        }
        let reports: Vec<TaskReport> = self
            .store
            .tasks_on(node)
            .filter_map(|task| self.next_report(task))
            .collect();
        if reports.is_empty() {
            return false;
        }
        self.apply(Command::Report { node, reports });
        true
    }

    pub fn behaviour_of(&self, task: &TaskRecord) -> Behaviour {
        let image = self
            .store
            .spec_of(task)
            .map(|spec| spec.image.0.clone())
            .unwrap_or_default();
        self.behaviours
            .get(&image)
            .copied()
            .unwrap_or(Behaviour::Works)
    }

    fn next_report(&self, task: &TaskRecord) -> Option<TaskReport> {
        let state = next_state(task, self.behaviour_of(task))?;
        Some(report(task, state))
    }

    /// A new leader: nothing is left of what the old one knew.
    pub fn change_leader(&mut self) {
        self.under_way.clear();
        self.store = Store::decode(&self.store.encode()).expect("own encoding");
        self.planner = Planner::new(&timers(), self.now, &self.store);
    }

    pub fn tasks(&self, name: &str) -> Vec<&TaskRecord> {
        self.store.tasks_of(&name.into()).collect()
    }

    pub fn live(&self, name: &str) -> Vec<&TaskRecord> {
        self.tasks(name)
            .into_iter()
            .filter(|task| task.is_live())
            .collect()
    }

    pub fn ready(&self, name: &str) -> usize {
        self.tasks(name)
            .iter()
            .filter(|task| task.is_ready() && task.is_wanted())
            .count()
    }

    pub fn rollout(&self, name: &str) -> RolloutState {
        self.store
            .service(&name.into())
            .expect("the service exists")
            .rollout
    }

    pub fn generation(&self, name: &str) -> Generation {
        self.store
            .service(&name.into())
            .expect("the service exists")
            .generation
    }

    /// How many live tasks each node has of a service.
    pub fn by_node(&self, name: &str) -> BTreeMap<NodeId, usize> {
        let mut nodes: BTreeMap<NodeId, usize> =
            self.store.nodes().keys().map(|node| (*node, 0)).collect();
        for task in self.live(name) {
            if let Some(node) = task.node {
                *nodes.entry(node).or_default() += 1;
            }
        }
        nodes
    }
}

/// What an agent does next with a task; `None` if it is where it should be.
pub fn next_state(task: &TaskRecord, behaviour: Behaviour) -> Option<TaskState> {
    use TaskState::{
        Accepted, Assigned, Complete, Creating, Failed, Pulling, Running, Shutdown, Starting,
        Stopping,
    };
    let state = task.status.state;
    if task.desired != DesiredState::Running {
        let running = matches!(state, Running | Starting);
        return Some(if running { Stopping } else { Shutdown });
    }
    match (state, behaviour) {
        (Assigned, _) => Some(Accepted),
        (Accepted, _) => Some(Pulling),
        (Pulling, Behaviour::Hangs) => None,
        (Pulling, _) => Some(Creating),
        (Creating, _) => Some(Starting),
        (Starting, _) => Some(Running),
        (Running, Behaviour::Completes) => Some(Complete),
        (Running, Behaviour::Fails) => Some(Failed),
        _ => None,
    }
}

/// An agent's report that a task moved.
pub fn report(task: &TaskRecord, state: TaskState) -> TaskReport {
    let accepted = state == TaskState::Accepted && task.status.attempt == 0;
    let failed = matches!(state, TaskState::Failed | TaskState::Rejected);
    let status = TaskStatus {
        state,
        attempt: task.status.attempt + u32::from(accepted),
        sequence: task.status.sequence + 1,
        ready: state == TaskState::Running,
        reason: failed.then_some(Reason::ExitedNonZero),
        message: String::new(),
        exit: None,
    };
    TaskReport {
        task: task.id,
        status,
    }
}

/// The name of a service, for tests.
pub fn name(text: &str) -> ServiceName {
    text.into()
}
