//! `workload`: operator steps in time order. A `deploy` of a service that exists is an update: it
//! starts from the service's spec and changes what it names (`deploy`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use wavetank_model::{Availability, NodeId, Operation, ServiceMode, ServiceName, ServiceSpec};

use super::World;
use super::deploy::{Deploy, blank};
use crate::diagnostic::{Problem, Problems, Span, hint};
use crate::expression::Known;
use crate::format::VERBS;
use crate::kind::verb_of;
use crate::plan::Step;
use crate::yaml::Node;

/// The steps, and what the rest of the file may know of them.
#[derive(Default)]
pub(crate) struct Workload {
    /// In time order.
    pub steps: Vec<Step>,
    /// Every service that a step deploys, with the last spec that it gets.
    pub specs: BTreeMap<String, ServiceSpec>,
    /// Images that some step deploys.
    pub images: BTreeSet<String>,
    /// Services that exist at the moment that is being read.
    living: BTreeSet<String>,
}

/// Reads the steps in time order.
pub(crate) fn workload(
    node: Option<&Node>,
    world: &World<'_>,
    problems: &mut Problems,
) -> Workload {
    let mut workload = Workload::default();
    let items = node.map(Node::items).unwrap_or_default();
    let mut ordered: Vec<(Duration, &Node)> = items
        .iter()
        .map(|item| (item.duration("at").unwrap_or_default(), item))
        .collect();
    ordered.sort_by_key(|(at, _)| *at);
    for (at, item) in ordered {
        if let Some(operation) = workload.operation(item, world, problems) {
            workload.steps.push(Step { at, operation });
        }
    }
    workload
}

impl Workload {
    /// What a step does. Also reads the arguments of an `operator` fault.
    pub fn operation(
        &mut self,
        node: &Node,
        world: &World<'_>,
        problems: &mut Problems,
    ) -> Option<Operation> {
        let verb = verb_of(node, VERBS)?.name;
        let subject = node.get(verb)?;
        let name = subject.text()?;
        match verb {
            "deploy" => return self.deploy(name, node, world, problems),
            "drain" | "activate" | "pause-node" => {
                let node = known_agent(subject, world, problems)?;
                let availability = match verb {
                    "drain" => Availability::Drain,
                    "activate" => Availability::Active,
                    _ => Availability::Pause,
                };
                return Some(Operation::SetAvailability { node, availability });
            }
            "remove-manager" => {
                let node = some_manager(subject, problems)?;
                return Some(Operation::RemoveManager { node });
            }
            "put" => {
                let value = node.word("value")?.to_owned();
                return Some(Operation::Put {
                    key: name.to_owned(),
                    value,
                    claim: None,
                });
            }
            "get" => {
                return Some(Operation::Get {
                    key: name.to_owned(),
                });
            }
            _ => {}
        }
        self.known_service(name, subject.span, problems)?;
        let service = ServiceName::from(name);
        Some(match verb {
            "scale" => {
                let replicas = node.number("replicas")?;
                self.scale(name, replicas, subject.span, problems);
                Operation::Scale { service, replicas }
            }
            "rollback" => Operation::Rollback { service },
            "stop" => Operation::Stop { service },
            "start" => Operation::Start { service },
            _ => {
                self.living.remove(name);
                Operation::Delete { service }
            }
        })
    }

    /// An operation on a service that does not exist now is odd; on one that never does, wrong.
    fn known_service(&self, name: &str, span: Span, problems: &mut Problems) -> Option<()> {
        if self.living.contains(name) {
            return Some(());
        }
        if self.specs.contains_key(name) {
            let message = format!("service `{name}` is deleted before this");
            problems.add(Problem::warning(
                "scenario::lint::no-service",
                span,
                message,
            ));
            return Some(());
        }
        let message = format!("no earlier step deploys `{name}`");
        let names = self.specs.keys().map(String::as_str);
        problems.add(
            Problem::error("scenario::unknown-service", span, message)
                .label("unknown service")
                .maybe_help(hint(name, "the services are", names)),
        );
        None
    }

    fn scale(&mut self, name: &str, replicas: u32, span: Span, problems: &mut Problems) {
        let Some(spec) = self.specs.get_mut(name) else {
            return;
        };
        match &mut spec.mode {
            ServiceMode::Replicated { replicas: number } => *number = replicas,
            ServiceMode::Job { completions } => *completions = replicas,
            ServiceMode::Global => problems.add(
                Problem::error(
                    "scenario::conflict",
                    span,
                    "a global service cannot be scaled",
                )
                .label("runs once on every agent"),
            ),
        }
    }

    fn deploy(
        &mut self,
        name: &str,
        node: &Node,
        world: &World<'_>,
        problems: &mut Problems,
    ) -> Option<Operation> {
        let base = self
            .specs
            .get(name)
            .filter(|_| self.living.contains(name))
            .cloned();
        let first = base.is_none();
        let base = base.unwrap_or_else(|| blank(name, world));
        if first && node.get("image").is_none() {
            let message = format!("the first `deploy` of `{name}` needs an `image`");
            let names = world.images.keys().map(String::as_str);
            problems.add(
                Problem::error("scenario::missing-field", node.span, message)
                    .label("`image` is missing here")
                    .maybe_help(hint("", "the images are", names)),
            );
        }
        let spec = Deploy {
            node,
            world,
            problems,
        }
        .spec(base, first);
        self.images.insert(spec.image.0.clone());
        self.living.insert(name.to_owned());
        self.specs.insert(name.to_owned(), spec.clone());
        Some(Operation::Deploy { spec })
    }
}

fn known_agent(node: &Node, world: &World<'_>, problems: &mut Problems) -> Option<NodeId> {
    let id: NodeId = node.text()?.parse().ok()?;
    let agents = world.cluster.agents.len();
    if id.role == wavetank_model::NodeRole::Agent && id.number as usize <= agents {
        return Some(id);
    }
    let message = format!("there is no agent `{id}`");
    problems.add(
        Problem::error("scenario::unknown-node", node.span, message)
            .label("no such agent")
            .help(format!("the agents are agent-1 to agent-{agents}")),
    );
    None
}

/// Any manager: one that has joined meanwhile may be removed as well as a founder.
fn some_manager(node: &Node, problems: &mut Problems) -> Option<NodeId> {
    let id: NodeId = node.text()?.parse().ok()?;
    if id.role == wavetank_model::NodeRole::Manager {
        return Some(id);
    }
    let message = format!("`{id}` is no manager");
    problems.add(
        Problem::error("scenario::unknown-node", node.span, message)
            .label("not a manager")
            .help("name one such as `manager-1`; `drain` is for agents"),
    );
    None
}

impl Workload {
    /// Knows the services of another workload as they are in the end: an `operator` fault strikes
    /// at a time that nobody knows yet.
    pub fn adopt(&mut self, other: &Workload) {
        self.specs = other.specs.clone();
        self.living = other.specs.keys().cloned().collect();
    }
}

impl Workload {
    /// The names that expressions may look up.
    pub fn known(&self, world: &World<'_>) -> Known {
        let elections = self
            .specs
            .values()
            .filter_map(|spec| spec.election.as_ref());
        Known {
            services: self.specs.keys().cloned().collect(),
            nodes: (1..)
                .map(NodeId::agent)
                .zip(&world.cluster.agents)
                .map(|(id, _)| id.to_string())
                .collect(),
            leases: elections
                .map(|election| election.lease.to_string())
                .collect(),
        }
    }
}
