//! `deploy`: what a step says of a service, on top of what is known of it.

use std::collections::BTreeMap;
use std::time::Duration;

use wavetank_model::{
    ElectionBackend, ElectionSpec, HealthCheck, OnRolloutFailure, Resources, RestartCondition,
    RestartPolicy, ServiceMode, ServiceName, ServiceSpec, UpdatePolicy,
};
use wavetank_port::ImageReference;

use super::World;
use super::machines::backoff;
use crate::diagnostic::{Problem, Problems, hint};
use crate::scalars;
use crate::yaml::Node;

/// What a service is that says nothing but its name.
pub(super) fn blank(name: &str, world: &World<'_>) -> ServiceSpec {
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
pub(super) struct Deploy<'a, 'w> {
    pub node: &'a Node,
    pub world: &'a World<'w>,
    pub problems: &'a mut Problems,
}

impl Deploy<'_, '_> {
    /// The spec that the step asks for, on top of `base`; `first` if the service is new.
    pub fn spec(&mut self, base: ServiceSpec, first: bool) -> ServiceSpec {
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
        let default = base.unwrap_or_else(|| self.world.profile.health.into());
        match node.text() {
            Some("true") => return Some(default),
            Some(_) => return None,
            None => {}
        }
        let check = HealthCheck {
            command: match node.get("command") {
                Some(_) => node
                    .words("command")
                    .into_iter()
                    .map(str::to_owned)
                    .collect(),
                None => default.command,
            },
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
