//! `target`: where a fault strikes, before anything is drawn.

use wavetank_model::{NodeId, NodeRole};

use super::World;
use super::workload::Workload;
use crate::diagnostic::{Problem, Problems, hint, listed};
use crate::faults::FaultInfo;
use crate::yaml::Node;

/// Where a fault strikes; `expand` draws the rest.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum TargetDefinition {
    /// Some of these nodes.
    Pool {
        nodes: Vec<NodeId>,
        mode: Mode,
    },
    Leader,
    /// Some of the managers that do not lead.
    Followers {
        mode: Mode,
    },
    EventHost,
    /// The node of one task of the service.
    TaskNode {
        service: String,
    },
    /// Some running tasks.
    Tasks {
        service: Option<String>,
        mode: Mode,
    },
    Registry {
        images: Vec<String>,
    },
    Cluster,
}

/// How many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    One,
    All,
    /// Exactly so many.
    Fixed(u32),
    /// So many in a hundred, but at least one.
    Percent(u32),
    /// From one to so many.
    Random(u32),
    /// The most that leave a majority.
    Minority,
    /// The fewest that are one.
    Majority,
}

impl Mode {
    /// The most that this mode takes of `total`.
    pub fn most(self, total: usize) -> usize {
        let share = |percent: u32| (total * percent as usize / 100).max(1);
        match self {
            Mode::One => 1,
            Mode::All => total,
            Mode::Fixed(number) | Mode::Random(number) => number as usize,
            Mode::Percent(percent) => share(percent),
            Mode::Minority => total.saturating_sub(1) / 2,
            Mode::Majority => total / 2 + 1,
        }
    }
}

/// What the target of a fault is read with.
pub(crate) struct Targets<'a, 'w> {
    pub world: &'a World<'w>,
    pub workload: &'a Workload,
    pub problems: &'a mut Problems,
}

impl Targets<'_, '_> {
    /// Reads a fault's target.
    pub fn target(&mut self, fault: &Node, info: &FaultInfo) -> Option<TargetDefinition> {
        let Some(node) = fault.get("target") else {
            return self.implied(fault, info);
        };
        self.check_exclusive(node);
        if node.get("node").is_some() {
            return self.named(node, info);
        }
        let role = match node.word("role") {
            Some(role) => role,
            None if node.get("labels").is_some() => "agent",
            None if node.get("service").is_some() && info.targets == ["task"] => "task",
            None if node.get("service").is_some() => "task-node",
            None if node.get("image").is_some() => "image",
            None => return self.no_role(node, info),
        };
        self.check_role(node, role, info)?;
        self.check_fields(node, role);
        self.by_role(fault, node, role)
    }

    /// Registry and operator actions have one place only; the others must name theirs.
    fn implied(&mut self, fault: &Node, info: &FaultInfo) -> Option<TargetDefinition> {
        match info.targets.first() {
            Some(&"registry") => return Some(TargetDefinition::Registry { images: Vec::new() }),
            Some(&"cluster") => return Some(TargetDefinition::Cluster),
            _ => {}
        }
        let message = format!("`{}` needs a `target`", info.action);
        let help = format!(
            "for example `target: {{ role: {} }}`",
            info.targets.first()?
        );
        self.problems.add(
            Problem::error("scenario::missing-field", fault.span, message)
                .label("`target` is missing here")
                .help(format!("{help}; the roles are: {}", listed(info.targets))),
        );
        None
    }

    fn no_role(&mut self, node: &Node, info: &FaultInfo) -> Option<TargetDefinition> {
        self.problems.add(
            Problem::error(
                "scenario::missing-field",
                node.span,
                "this target selects nothing",
            )
            .label("no `role`, `node`, `labels`, `service` or `image`")
            .help(format!(
                "the roles for `{}` are: {}",
                info.action,
                listed(info.targets)
            )),
        );
        None
    }

    fn check_exclusive(&mut self, node: &Node) {
        let entries = ["role", "node"].map(|key| node.entry(key));
        if let [Some(role), Some(named)] = entries {
            let message = "`role` and `node` exclude each other";
            self.problems.add(
                Problem::error("scenario::conflict", named.key_span, message)
                    .label("these nodes")
                    .also(role.key_span, "this role"),
            );
        }
    }

    fn check_role(&mut self, node: &Node, role: &str, info: &FaultInfo) -> Option<()> {
        let span = node.get("role").unwrap_or(node).span;
        if !crate::faults::ROLES.contains(&role) {
            return None; // Said by the check of the field.
        }
        if !info.targets.contains(&role) {
            let message = format!("`{}` cannot strike a {role}", info.action);
            let near = match role {
                "task" => "did you mean the node of a task, `task-node`? ",
                "task-node" => "did you mean the task itself, `task`? ",
                _ => "",
            };
            self.problems.add(
                Problem::error("scenario::invalid-target", span, message)
                    .label("not a place for this fault")
                    .help(format!("{near}it strikes: {}", listed(info.targets))),
            );
            return None;
        }
        Some(())
    }

    /// Fields that mean nothing for the role are mistakes, not decoration.
    fn check_fields(&mut self, node: &Node, role: &str) {
        let useful: &[&str] = match role {
            "task" => &["role", "mode", "value", "service"],
            "task-node" => &["role", "service"],
            "registry" | "image" => &["role", "image"],
            "leader" | "event-host" | "cluster" => &["role"],
            "follower" | "manager" => &["role", "mode", "value"],
            _ => &["role", "mode", "value", "labels"],
        };
        let known = [
            "role", "mode", "value", "node", "labels", "service", "image",
        ];
        for entry in node.entries() {
            let key = entry.key.as_str();
            if known.contains(&key) && key != "node" && !useful.contains(&key) {
                let message = format!("a target with role `{role}` has no `{key}`");
                self.problems.add(
                    Problem::error("scenario::conflict", entry.key_span, message)
                        .label("means nothing here"),
                );
            }
        }
    }

    fn by_role(&mut self, fault: &Node, node: &Node, role: &str) -> Option<TargetDefinition> {
        match role {
            "leader" => return Some(TargetDefinition::Leader),
            "cluster" => return Some(TargetDefinition::Cluster),
            "registry" | "image" => return self.registry(node),
            "event-host" => return self.event_host(fault, node),
            "task" => return self.task(node),
            "task-node" => return self.task_node(node),
            _ => {}
        }
        let mode = self.mode(node)?;
        let pool = self.pool(node, role);
        self.check_pool(node, role, pool.len(), mode)?;
        if role == "follower" {
            return Some(TargetDefinition::Followers { mode });
        }
        Some(TargetDefinition::Pool { nodes: pool, mode })
    }

    /// The nodes of a role that have the wanted labels.
    fn pool(&self, node: &Node, role: &str) -> Vec<NodeId> {
        let labels = node.pairs("labels");
        let cluster = self.world.cluster;
        let managers = (1..=cluster.managers).map(NodeId::manager);
        let followers = managers.clone().skip(1);
        let wanted = |host: &crate::plan::AgentHost| {
            labels
                .iter()
                .all(|(key, value)| host.labels.get(key) == Some(value))
        };
        let agents = (1..).map(NodeId::agent).zip(&cluster.agents);
        let agents = agents.filter(|(_, host)| wanted(host)).map(|(id, _)| id);
        match role {
            "manager" => managers.collect(),
            "follower" => followers.collect(),
            "agent" | "runtime" => agents.collect(),
            _ if labels.is_empty() => managers.chain(agents).collect(),
            _ => agents.collect(),
        }
    }

    fn check_pool(&mut self, node: &Node, role: &str, total: usize, mode: Mode) -> Option<()> {
        let most = mode.most(total);
        let message = if total == 0 {
            format!("this target selects nothing: there is no such {role}")
        } else if most == 0 {
            format!("this target selects nothing: a minority of {total} is none")
        } else if most > total {
            format!("this target selects {most} of {total}")
        } else {
            return Some(());
        };
        let help = match (total, node.get("labels")) {
            (0, Some(_)) => Some(self.labels_there_are()),
            _ => None,
        };
        self.problems.add(
            Problem::error("scenario::empty-target", node.span, message)
                .label("this target")
                .maybe_help(help),
        );
        None
    }

    fn labels_there_are(&self) -> String {
        let agents = self.world.cluster.agents.iter();
        let pairs = agents.flat_map(|host| host.labels.iter());
        let mut pairs: Vec<String> = pairs.map(|(key, value)| format!("{key}={value}")).collect();
        pairs.sort();
        pairs.dedup();
        format!("labels of agents: {}", listed(&pairs))
    }

    fn named(&mut self, node: &Node, info: &FaultInfo) -> Option<TargetDefinition> {
        let list = node.get("node")?.one_or_many();
        let mut nodes = Vec::new();
        for item in list {
            let newcomer = newcomer(item).filter(|_| info.action == "membership");
            let Some(id) = newcomer.or_else(|| self.known_node(item)) else {
                continue;
            };
            let place = if id.role == NodeRole::Manager {
                "manager"
            } else {
                "agent"
            };
            if !info.targets.contains(&place) {
                let message = format!("`{}` cannot strike a {place}", info.action);
                self.problems.add(
                    Problem::error("scenario::invalid-target", item.span, message)
                        .label("not a place for this fault"),
                );
            }
            nodes.push(id);
        }
        nodes.sort_unstable();
        nodes.dedup();
        let mode = self.mode(node)?;
        if !list.is_empty() && nodes.is_empty() {
            return None;
        }
        self.check_pool(node, "node", nodes.len(), mode)?;
        Some(TargetDefinition::Pool { nodes, mode })
    }

    /// The node of that name, if the cluster has it.
    pub fn known_node(&mut self, item: &Node) -> Option<NodeId> {
        let id: NodeId = item.text()?.parse().ok()?;
        let cluster = self.world.cluster;
        let total = match id.role {
            NodeRole::Manager => cluster.managers as usize,
            NodeRole::Agent => cluster.agents.len(),
            NodeRole::Client => 0,
        };
        if (id.number as usize) <= total {
            return Some(id);
        }
        let message = format!("there is no node `{id}`");
        let help = match id.role {
            NodeRole::Client => "clients cannot be struck".to_owned(),
            role => format!("there are {total} {}s", role.name()),
        };
        self.problems.add(
            Problem::error("scenario::unknown-node", item.span, message)
                .label("no such node")
                .help(help),
        );
        None
    }

    /// How many; all unless told otherwise.
    fn mode(&mut self, node: &Node) -> Option<Mode> {
        let value: Option<u32> = node.number("value");
        let Some(mode) = node.word("mode") else {
            if let Some(entry) = node.entry("value") {
                let message = "`value` needs a `mode`";
                self.problems.add(
                    Problem::error("scenario::missing-field", entry.key_span, message)
                        .help("`fixed`, `fixed-percent` and `random` take a value"),
                );
            }
            return Some(Mode::All);
        };
        let plain = match mode {
            "one" => Some(Mode::One),
            "all" => Some(Mode::All),
            "minority" => Some(Mode::Minority),
            "majority" => Some(Mode::Majority),
            _ => None,
        };
        if let Some(plain) = plain {
            if let Some(entry) = node.entry("value") {
                let message = format!("mode `{mode}` takes no `value`");
                let problem = Problem::error("scenario::conflict", entry.key_span, message);
                self.problems.add(problem.label("means nothing here"));
            }
            return Some(plain);
        }
        if node.get("value").is_none() {
            let message = format!("mode `{mode}` needs a `value`");
            let span = node.get("mode").unwrap_or(node).span;
            self.problems.add(
                Problem::error("scenario::missing-field", span, message)
                    .help(format!("for example `mode: {mode}, value: 2`")),
            );
        }
        match mode {
            "fixed" => value.map(Mode::Fixed),
            "random" => value.map(Mode::Random),
            "fixed-percent" => value.map(|percent| Mode::Percent(percent.min(100))),
            _ => None,
        }
    }

    fn registry(&mut self, node: &Node) -> Option<TargetDefinition> {
        let list = node.get("image").map(Node::one_or_many).unwrap_or_default();
        let mut images = Vec::new();
        for item in list {
            let Some(name) = item.text() else { continue };
            images.push(name.to_owned());
            if !self.world.images.contains_key(name) {
                let names = self.world.images.keys().map(String::as_str);
                self.problems.add(
                    Problem::error(
                        "scenario::unknown-image",
                        item.span,
                        format!("there is no image `{name}`"),
                    )
                    .label("unknown image")
                    .maybe_help(hint(name, "the images are", names)),
                );
            } else if !self.workload.images.contains(name) {
                let message = format!("no service uses image `{name}`");
                self.problems.add(
                    Problem::warning("scenario::lint::idle-fault", item.span, message)
                        .label("this fault can hit nothing"),
                );
            }
        }
        Some(TargetDefinition::Registry { images })
    }

    fn event_host(&mut self, fault: &Node, node: &Node) -> Option<TargetDefinition> {
        if fault.get("on").is_some() {
            return Some(TargetDefinition::EventHost);
        }
        let message = "`event-host` needs an event: `on`";
        self.problems.add(
            Problem::error("scenario::conflict", node.span, message)
                .label("the host of which event?"),
        );
        None
    }

    fn service(&mut self, node: &Node) -> Option<String> {
        let service = node.word("service").map(str::to_owned);
        if let (Some(service), Some(place)) = (&service, node.get("service"))
            && !self.workload.specs.contains_key(service)
        {
            let names = self.workload.specs.keys().map(String::as_str);
            self.problems.add(
                Problem::error(
                    "scenario::unknown-service",
                    place.span,
                    format!("no step deploys `{service}`"),
                )
                .label("unknown service")
                .maybe_help(hint(service, "the services are", names)),
            );
        }
        service
    }

    fn task(&mut self, node: &Node) -> Option<TargetDefinition> {
        let service = self.service(node);
        let mode = self.mode(node)?;
        if matches!(mode, Mode::Percent(_) | Mode::Minority | Mode::Majority) {
            let span = node.get("mode").unwrap_or(node).span;
            let message = "how many tasks run is not known before the run";
            self.problems.add(
                Problem::error("scenario::invalid-target", span, message)
                    .help("use one, all, fixed or random"),
            );
            return None;
        }
        Some(TargetDefinition::Tasks { service, mode })
    }

    /// A fault of machines or runtimes strikes the node of one task.
    fn task_node(&mut self, node: &Node) -> Option<TargetDefinition> {
        if let Some(service) = self.service(node) {
            return Some(TargetDefinition::TaskNode { service });
        }
        let message = "which service's task? `service` is missing";
        let problem = Problem::error("scenario::missing-field", node.span, message);
        self.problems
            .add(problem.help("the fault strikes the node of one of its tasks"));
        None
    }
}

/// A manager that may join later; consensus groups have up to seven members.
fn newcomer(item: &Node) -> Option<NodeId> {
    let id: NodeId = item.text()?.parse().ok()?;
    (id.role == NodeRole::Manager && id.number <= 7).then_some(id)
}
