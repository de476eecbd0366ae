//! `workload`: operator steps in time order. A `deploy` of a service that exists is an update: it
//! starts from the service's spec and changes what it names.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use wavetank_model::{
    Availability, ElectionBackend, ElectionSpec, HealthCheck, NodeId, OnRolloutFailure, Operation,
    Resources, RestartCondition, RestartPolicy, ServiceMode, ServiceName, ServiceSpec,
    UpdatePolicy,
};
use wavetank_port::ImageReference;

use super::World;
use super::machines::backoff;
use crate::diagnostic::{Problem, Problems, Span, hint};
use crate::expression::Known;
use crate::format::VERBS;
use crate::kind::verb_of;
use crate::plan::Step;
use crate::scalars;
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

/// What a service is that says nothing but its name.
fn blank(name: &str, world: &World<'_>) -> ServiceSpec {
    ServiceSpec {
        name: ServiceName::from(name),
        image: ImageReference(String::new()),
        command: Vec::new(),
        environment: BTreeMap::new(),
        mode: ServiceMode::Replicated { replicas: 1 },
        resources: Resources::default(),
        constraints: BTreeMap::new(),
        spread: None,
        ports: Vec::new(),
        volume: None,
        restart: world.profile.restart,
        health: None,
        stop_grace: world.profile.stop_grace,
        update: world.profile.update,
        election: None,
    }
}

/// One `deploy` step.
struct Deploy<'a, 'w> {
    node: &'a Node,
    world: &'a World<'w>,
    problems: &'a mut Problems,
}

impl Deploy<'_, '_> {
    fn spec(&mut self, base: ServiceSpec, first: bool) -> ServiceSpec {
        let node = self.node;
        let has = |key: &str| node.get(key).is_some();
        let words = |key: &str| node.words(key).into_iter().map(str::to_owned).collect();
        let mode = self.mode(base.mode);
        let volume = node.word("volume").map(str::to_owned).or(base.volume);
        ServiceSpec {
            image: self.image().unwrap_or(base.image),
            command: if has("command") {
                words("command")
            } else {
                base.command
            },
            environment: if has("environment") {
                node.pairs("environment")
            } else {
                base.environment
            },
            mode,
            resources: self.resources(base.resources),
            constraints: if has("constraints") {
                node.pairs("constraints")
            } else {
                base.constraints
            },
            spread: node.word("spread").map(str::to_owned).or(base.spread),
            ports: if has("ports") {
                self.ports()
            } else {
                base.ports
            },
            restart: self.restart(base.restart, first, mode),
            health: self.health(base.health),
            stop_grace: node.duration("stop_grace").unwrap_or(base.stop_grace),
            update: self.update(base.update),
            election: self.election(base.election, &base.name, volume.as_deref()),
            volume,
            name: base.name,
        }
    }

    fn image(&mut self) -> Option<ImageReference> {
        let image = self.node.get("image")?;
        let name = image.text()?;
        if !self.world.images.contains_key(name) {
            let names = self.world.images.keys().map(String::as_str);
            let help = hint(name, "the images are", names)
                .unwrap_or_else(|| format!("describe it: `images: {{ {name}: {{ }} }}`"));
            self.problems.add(
                Problem::error(
                    "scenario::unknown-image",
                    image.span,
                    format!("there is no image `{name}`"),
                )
                .label("unknown image")
                .help(help),
            );
        }
        Some(ImageReference(name.to_owned()))
    }

    fn mode(&mut self, base: ServiceMode) -> ServiceMode {
        let entries = ["replicas", "global", "completions"].map(|key| self.node.entry(key));
        let mut given = entries.iter().flatten();
        if let (Some(first), Some(second)) = (given.next(), given.next()) {
            let message = format!("`{}` and `{}` exclude each other", first.key, second.key);
            self.problems.add(
                Problem::error("scenario::conflict", second.key_span, message)
                    .label("the second")
                    .also(first.key_span, "the first")
                    .help("a service has replicas, or runs on all agents, or completes"),
            );
        }
        if let Some(completions) = self.node.number("completions") {
            return ServiceMode::Job { completions };
        }
        if let Some(replicas) = self.node.number("replicas") {
            return ServiceMode::Replicated { replicas };
        }
        match (self.node.flag("global"), base) {
            (Some(true), _) => ServiceMode::Global,
            (Some(false), ServiceMode::Global) => ServiceMode::Replicated { replicas: 1 },
            _ => base,
        }
    }

    fn resources(&self, base: Resources) -> Resources {
        let Some(node) = self.node.get("resources") else {
            return base;
        };
        Resources {
            cpu_millis: node.cpu_millis("cpus").unwrap_or(base.cpu_millis),
            memory_bytes: node.size("memory").unwrap_or(base.memory_bytes),
        }
    }

    fn ports(&mut self) -> Vec<u16> {
        let Some(node) = self.node.get("ports") else {
            return Vec::new();
        };
        let mut ports: Vec<u16> = node
            .one_or_many()
            .iter()
            .filter_map(Node::as_number)
            .collect();
        ports.sort_unstable();
        if let Some(twice) = ports.windows(2).find(|pair| pair[0] == pair[1]) {
            let message = format!("port {} is listed twice", twice[0]);
            self.problems
                .add(Problem::error("scenario::conflict", node.span, message));
        }
        ports.dedup();
        ports
    }

    /// A job that were always restarted would never end, so jobs begin with `on-failure`.
    fn restart(&mut self, base: RestartPolicy, first: bool, mode: ServiceMode) -> RestartPolicy {
        let job = first && matches!(mode, ServiceMode::Job { .. });
        let condition = if job {
            RestartCondition::OnFailure
        } else {
            base.condition
        };
        let base = RestartPolicy { condition, ..base };
        let Some(node) = self.node.get("restart") else {
            return base;
        };
        let named = node
            .text()
            .or_else(|| node.word("condition"))
            .and_then(condition_named);
        let policy = RestartPolicy {
            condition: named.unwrap_or(base.condition),
            restarts_max: node.number("max").unwrap_or(base.restarts_max),
            backoff: backoff(node.get("backoff"), base.backoff, self.problems),
            stable_after: node.duration("stable_after").unwrap_or(base.stable_after),
        };
        if matches!(mode, ServiceMode::Job { .. }) && policy.condition == RestartCondition::Always {
            let message = "a job that is always restarted never completes";
            self.problems.add(
                Problem::error("scenario::conflict", node.span, message)
                    .help("use `never` or `on-failure`"),
            );
        }
        policy
    }

    fn health(&mut self, base: Option<HealthCheck>) -> Option<HealthCheck> {
        let Some(node) = self.node.get("health") else {
            return base;
        };
        let default = base.unwrap_or(self.world.profile.health);
        match node.text() {
            Some("true") => return Some(default),
            Some(_) => return None,
            None => {}
        }
        let check = HealthCheck {
            interval: node.duration("interval").unwrap_or(default.interval),
            timeout: node.duration("timeout").unwrap_or(default.timeout),
            start_period: node
                .duration("start_period")
                .unwrap_or(default.start_period),
            failures_max: node.number("failures").unwrap_or(default.failures_max),
        };
        if check.interval.is_zero() || check.timeout.is_zero() {
            let message = "a probe without `interval` or `timeout` never ends";
            self.problems.add(
                Problem::error("scenario::invalid-value", node.span, message)
                    .label("one of them is zero"),
            );
        }
        Some(check)
    }

    fn update(&mut self, base: UpdatePolicy) -> UpdatePolicy {
        let Some(node) = self.node.get("update") else {
            return base;
        };
        let policy = UpdatePolicy {
            surge_max: node.number("surge").unwrap_or(base.surge_max),
            unavailable_max: node.number("unavailable").unwrap_or(base.unavailable_max),
            monitor: node.duration("monitor").unwrap_or(base.monitor),
            failures_max: node.number("failures").unwrap_or(base.failures_max),
            on_failure: match node.word("on_failure") {
                Some("rollback") => OnRolloutFailure::Rollback,
                Some("pause") => OnRolloutFailure::Pause,
                Some("continue") => OnRolloutFailure::Continue,
                _ => base.on_failure,
            },
        };
        if policy.surge_max == 0 && policy.unavailable_max == 0 {
            let message = "an update can neither add a task nor take one away";
            self.problems.add(
                Problem::error("scenario::conflict", node.span, message)
                    .label("surge and unavailable are both 0")
                    .help("allow at least one of either"),
            );
        }
        policy
    }

    fn election(
        &mut self,
        base: Option<ElectionSpec>,
        service: &ServiceName,
        volume: Option<&str>,
    ) -> Option<ElectionSpec> {
        let Some(node) = self.node.get("election") else {
            return base;
        };
        let backend = match node.word("backend") {
            Some("lock-file") => {
                let volume = node.word("volume").or(volume);
                if volume.is_none() {
                    let message = "a lock file needs a `volume` to be on";
                    self.problems.add(
                        Problem::error("scenario::missing-field", node.span, message)
                            .label("no volume here, and the service has none"),
                    );
                }
                ElectionBackend::LockFile {
                    volume: volume.unwrap_or_default().to_owned(),
                }
            }
            _ => ElectionBackend::Managers,
        };
        let spec = ElectionSpec {
            lease: node.word("lease").unwrap_or(&service.0).into(),
            backend,
            ttl: node.duration("ttl").unwrap_or(Duration::from_secs(15)),
            renew: node.duration("renew").unwrap_or(Duration::from_secs(5)),
        };
        if spec.renew.is_zero() || spec.renew >= spec.ttl {
            let message = "a lease must be renewed before it ends";
            self.problems.add(
                Problem::error("scenario::invalid-value", node.span, message).label(format!(
                    "renew {}, ttl {}",
                    scalars::show(spec.renew),
                    scalars::show(spec.ttl)
                )),
            );
        }
        Some(spec)
    }
}

fn condition_named(name: &str) -> Option<RestartCondition> {
    Some(match name {
        "never" => RestartCondition::Never,
        "on-failure" => RestartCondition::OnFailure,
        "always" => RestartCondition::Always,
        _ => return None,
    })
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
