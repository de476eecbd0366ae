//! The scheduler: which pending task goes to which node, and if to none, why.
//!
//! A pass is a pure function of the store. Filters first, in this order: the node is ready and
//! takes tasks, has the labels, the memory, the cores and the host ports, and the volume lives
//! there. Then the best of what is left: the least used value of the spread label, the fewest
//! tasks of this service, the fewest of its failures, the fewest tasks at all, the lowest node
//! id. What a pass gives away it counts at once, so that many tasks placed in one pass neither
//! pile up on one node nor exceed it.
//!
//! Tasks of one generation ask for the same, so the nodes are filtered once per generation and
//! kept in order while its tasks are dealt: a pass costs `(nodes + tasks) log nodes`.
//!
//! The same filters are asked again when a placement is applied ([`may_place`]), because a node
//! may have changed in between. Nothing here changes the store.

use std::collections::{BTreeMap, BTreeSet};

use wavetank_model::{
    Availability, DesiredState, Generation, NodeId, NodeStatus, ServiceMode, ServiceName,
    ServiceSpec, TaskId, TaskState,
};

use super::store::{NodeRecord, ServiceRecord, Store, TaskRecord};

/// What one pass decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// Tasks and the nodes they get.
    pub placements: Vec<(TaskId, NodeId)>,
    /// Reasons and the tasks that wait because of them; only reasons that are not yet known.
    pub explanations: BTreeMap<String, Vec<TaskId>>,
}

/// Why a node does not fit, in the order in which it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Refusal {
    Down,
    Drained,
    Paused,
    Labels,
    Memory { needs: u64 },
    Cores { needs_millis: u32 },
    Port { port: u16 },
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refusal::Down => f.write_str("down"),
            Refusal::Drained => f.write_str("drained"),
            Refusal::Paused => f.write_str("paused"),
            Refusal::Labels => f.write_str("without the wanted labels"),
            Refusal::Memory { needs } => write!(f, "lacks memory (needs {})", size(*needs)),
            Refusal::Cores { needs_millis } => {
                write!(
                    f,
                    "lacks cores (needs {}.{:03})",
                    needs_millis / 1000,
                    needs_millis % 1000
                )
            }
            Refusal::Port { port } => write!(f, "port {port} taken"),
        }
    }
}

/// Bytes in the largest binary unit that divides them.
fn size(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = units
        .iter()
        .find(|(shift, _)| bytes != 0 && bytes.is_multiple_of(1 << shift));
    unit.map_or_else(
        || format!("{bytes} B"),
        |(shift, name)| format!("{} {name}", bytes >> shift),
    )
}

/// Places all pending tasks that can be placed and explains the others.
pub fn schedule(store: &Store) -> Schedule {
    let mut pass = Pass::new(store);
    let mut groups: BTreeMap<(TaskId, &ServiceName, Generation), Vec<&TaskRecord>> =
        BTreeMap::new();
    let mut first: BTreeMap<(&ServiceName, Generation), TaskId> = BTreeMap::new();
    for task in store.pending().iter().filter_map(|id| store.task(*id)) {
        let kind = (&task.service, task.generation);
        let oldest = *first.entry(kind).or_insert(task.id);
        groups
            .entry((oldest, kind.0, kind.1))
            .or_default()
            .push(task);
    }
    for tasks in groups.values() {
        pass.place_group(tasks);
    }
    pass.schedule
}

/// May this task be bound to this node as things are?
pub fn may_place(store: &Store, task: TaskId, node: NodeId) -> bool {
    let Some(task) = store.task(task) else {
        return false;
    };
    let (Some(service), Some(spec)) = (store.service(&task.service), store.spec_of(task)) else {
        return false;
    };
    let waits = task.status.state == TaskState::Pending && task.desired == DesiredState::Running;
    let here = pinned(service, spec, task).is_none_or(|(only, _)| only == node);
    let fits = |record| Pass::new(store).refusal(node, record, spec).is_none();
    waits && here && !service.deleting && store.node(node).is_some_and(fits)
}

/// The only node that a task may run on, if there is only one, and what ties it there.
fn pinned(
    service: &ServiceRecord,
    spec: &ServiceSpec,
    task: &TaskRecord,
) -> Option<(NodeId, String)> {
    if spec.mode == ServiceMode::Global {
        return Some((
            NodeId::agent(task.slot),
            "a global service's task".to_owned(),
        ));
    }
    let volume = spec.volume.as_ref()?;
    service
        .home
        .map(|home| (home, format!("volume `{volume}`")))
}

/// What was given away in this pass on one node, on top of what the store knows.
#[derive(Clone, Debug, Default)]
struct Given {
    cpu_millis: u64,
    memory_bytes: u64,
    ports: BTreeSet<u16>,
    tasks: u32,
}

struct Pass<'a> {
    store: &'a Store,
    given: BTreeMap<NodeId, Given>,
    /// By service and template: tasks placed in this pass.
    dealt: BTreeMap<(&'a ServiceName, Generation), BTreeMap<NodeId, u32>>,
    schedule: Schedule,
}

/// What a node offers to one group of tasks; the lowest is the best.
type Rank = (u32, u32, u32, NodeId);

impl<'a> Pass<'a> {
    fn new(store: &'a Store) -> Self {
        let schedule = Schedule::default();
        Pass {
            store,
            given: BTreeMap::new(),
            dealt: BTreeMap::new(),
            schedule,
        }
    }

    fn place_group(&mut self, tasks: &[&'a TaskRecord]) {
        let Some(task) = tasks.first() else { return };
        let (Some(service), Some(spec)) =
            (self.store.service(&task.service), self.store.spec_of(task))
        else {
            return;
        };
        let template = service.template_of(task.generation);
        let (tied, free): (Vec<_>, Vec<_>) = tasks
            .iter()
            .partition(|task| pinned(service, spec, task).is_some());
        for task in tied {
            self.place_pinned(service, spec, template, task);
        }
        self.deal(service, spec, template, &free);
    }

    fn place_pinned(
        &mut self,
        service: &ServiceRecord,
        spec: &ServiceSpec,
        template: Generation,
        task: &'a TaskRecord,
    ) {
        let Some((node, tie)) = pinned(service, spec, task) else {
            return;
        };
        let refusal = match self.store.node(node) {
            None => Some("unknown".to_owned()),
            Some(record) => self
                .refusal(node, record, spec)
                .map(|refusal| refusal.to_string()),
        };
        match refusal {
            None => self.give(task, template, node, spec),
            Some(why) => self.explain(task, &format!("{tie} needs {node}, which is: {why}")),
        }
    }

    /// Deals tasks that ask for the same to the nodes that fit, best node first.
    fn deal(
        &mut self,
        service: &ServiceRecord,
        spec: &ServiceSpec,
        template: Generation,
        tasks: &[&'a TaskRecord],
    ) {
        let Some(first) = tasks.first() else { return };
        let tally = Tally::of(self.store, &self.dealt, service, &first.service, template);
        let mut table = Table::default();
        for (node, record) in self.store.nodes() {
            let value = spread_value(spec, record);
            let running = tally.running.get(node).copied().unwrap_or(0);
            let rank = match self.refusal(*node, record, spec) {
                Some(refusal) => {
                    table.refuse(refusal);
                    None
                }
                None => Some(self.rank(*node, &tally)),
            };
            table.add(value, running, rank);
        }
        let mut tasks = tasks.iter();
        for task in tasks.by_ref() {
            let Some((value, rank)) = table.take_best() else {
                let why = table.explain(self.store.nodes().len());
                self.explain(task, &why);
                tasks.for_each(|task| self.explain(task, &why));
                return;
            };
            let node = rank.3;
            self.give(task, template, node, spec);
            let Some(record) = self.store.node(node) else {
                continue;
            };
            match self.refusal(node, record, spec) {
                Some(refusal) => {
                    table.refuse(refusal);
                    table.put_back(value, None);
                }
                None => {
                    let next = (rank.0 + 1, rank.1, rank.2 + 1, node);
                    table.put_back(value, Some(next));
                }
            }
        }
    }

    fn rank(&self, node: NodeId, tally: &Tally) -> Rank {
        let given = self.given.get(&node).map_or(0, |given| given.tasks);
        let all = u32::try_from(self.store.tasks_on_count(node)).unwrap_or(u32::MAX);
        let running = tally.running.get(&node).copied().unwrap_or(0);
        let failed = tally.failed.get(&node).copied().unwrap_or(0);
        (running, failed, all.saturating_add(given), node)
    }

    /// The first filter that a node does not pass.
    fn refusal(&self, node: NodeId, record: &NodeRecord, spec: &ServiceSpec) -> Option<Refusal> {
        if record.status == NodeStatus::Down {
            return Some(Refusal::Down);
        }
        match record.availability {
            Availability::Drain => return Some(Refusal::Drained),
            Availability::Pause => return Some(Refusal::Paused),
            Availability::Active => {}
        }
        if !record.has_labels(&spec.constraints) {
            return Some(Refusal::Labels);
        }
        self.refusal_of_resources(node, record, spec)
    }

    fn refusal_of_resources(
        &self,
        node: NodeId,
        record: &NodeRecord,
        spec: &ServiceSpec,
    ) -> Option<Refusal> {
        let (used, given) = (self.store.used(node), self.given.get(&node));
        let given_memory = given.map_or(0, |given| given.memory_bytes);
        let given_cpu = given.map_or(0, |given| given.cpu_millis);
        let needs = spec.resources;
        let memory = used.memory_bytes.saturating_add(given_memory);
        if memory.saturating_add(needs.memory_bytes) > record.resources.memory_bytes {
            return Some(Refusal::Memory {
                needs: needs.memory_bytes,
            });
        }
        let cpu = u64::from(used.cpu_millis) + given_cpu + u64::from(needs.cpu_millis);
        if cpu > u64::from(record.resources.cpu_millis) {
            return Some(Refusal::Cores {
                needs_millis: needs.cpu_millis,
            });
        }
        let taken = |port: &&u16| {
            self.store.port_taken(node, **port).is_some()
                || given.is_some_and(|given| given.ports.contains(*port))
        };
        spec.ports
            .iter()
            .find(taken)
            .map(|port| Refusal::Port { port: *port })
    }

    fn give(
        &mut self,
        task: &'a TaskRecord,
        template: Generation,
        node: NodeId,
        spec: &ServiceSpec,
    ) {
        let given = self.given.entry(node).or_default();
        given.cpu_millis += u64::from(spec.resources.cpu_millis);
        given.memory_bytes = given
            .memory_bytes
            .saturating_add(spec.resources.memory_bytes);
        given.ports.extend(&spec.ports);
        given.tasks += 1;
        *self
            .dealt
            .entry((&task.service, template))
            .or_default()
            .entry(node)
            .or_default() += 1;
        self.schedule.placements.push((task.id, node));
    }

    fn explain(&mut self, task: &TaskRecord, why: &str) {
        if task.status.message == why {
            return;
        }
        match self.schedule.explanations.get_mut(why) {
            Some(tasks) => tasks.push(task.id),
            None => {
                self.schedule
                    .explanations
                    .insert(why.to_owned(), vec![task.id]);
            }
        }
    }
}

/// A node's value of the label that a service is spread over; nodes without it count as one.
fn spread_value<'a>(spec: &ServiceSpec, record: &'a NodeRecord) -> &'a str {
    let label = spec.spread.as_ref();
    label
        .and_then(|label| record.labels.get(label))
        .map_or("", String::as_str)
}

/// Where tasks of one template are. Other generations do not count: they are on their way out,
/// and the new one is to be spread evenly by itself.
#[derive(Default)]
struct Tally {
    running: BTreeMap<NodeId, u32>,
    failed: BTreeMap<NodeId, u32>,
}

impl Tally {
    fn of(
        store: &Store,
        dealt: &BTreeMap<(&ServiceName, Generation), BTreeMap<NodeId, u32>>,
        service: &ServiceRecord,
        name: &ServiceName,
        template: Generation,
    ) -> Self {
        let mut tally = Tally::default();
        for task in store.tasks_of(name) {
            let same = service.template_of(task.generation) == template;
            let Some(node) = task.node.filter(|_| same) else {
                continue;
            };
            if task.is_wanted() {
                *tally.running.entry(node).or_default() += 1;
            } else if matches!(task.status.state, TaskState::Failed | TaskState::Rejected) {
                *tally.failed.entry(node).or_default() += 1;
            }
        }
        for (node, count) in dealt.get(&(name, template)).into_iter().flatten() {
            *tally.running.entry(*node).or_default() += count;
        }
        tally
    }
}

/// The nodes that fit one group of tasks, best first within each value of the spread label.
#[derive(Default)]
struct Table<'a> {
    values: BTreeMap<&'a str, (u32, BTreeSet<Rank>)>,
    /// Values that have nodes left, least used first.
    order: BTreeSet<(u32, &'a str)>,
    refusals: BTreeMap<Refusal, u32>,
}

impl<'a> Table<'a> {
    /// A node: its value of the label, its tasks of the group's kind, and its rank if it fits.
    fn add(&mut self, value: &'a str, running: u32, rank: Option<Rank>) {
        let (count, nodes) = self.values.entry(value).or_default();
        self.order.remove(&(*count, value));
        *count += running;
        nodes.extend(rank);
        if !nodes.is_empty() {
            self.order.insert((*count, value));
        }
    }

    fn take_best(&mut self) -> Option<(&'a str, Rank)> {
        let (_, value) = self.order.pop_first()?;
        let (_, nodes) = self.values.get_mut(value)?;
        Some((value, nodes.pop_first()?))
    }

    /// The node that was taken got a task; `rank` if it fits another one.
    fn put_back(&mut self, value: &'a str, rank: Option<Rank>) {
        self.add(value, 1, rank);
    }

    fn refuse(&mut self, refusal: Refusal) {
        *self.refusals.entry(refusal).or_default() += 1;
    }

    fn explain(&self, nodes: usize) -> String {
        if nodes == 0 {
            return "no node fits: no agent has registered".to_owned();
        }
        let parts: Vec<String> = self
            .refusals
            .iter()
            .map(|(refusal, count)| format!("{count} {refusal}"))
            .collect();
        format!("no node fits: {}", parts.join(", "))
    }
}
