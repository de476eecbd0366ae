//! A service as a person writes it: the body of `PUT /v1/services/NAME` and the file that
//! `ctl apply` reads. What it leaves out has a default; what it misspells is an error.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize, Serializer};
use utoipa::ToSchema;
use wavetank_model::{
    Backoff, ElectionBackend, ElectionSpec, HealthCheck, OnRolloutFailure, Resources,
    RestartCondition, RestartPolicy, ServiceMode, ServiceSpec, UpdatePolicy,
};
use wavetank_port::ImageReference;

/// A length of time, zero included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ToSchema)]
#[schema(value_type = String, example = "10s")]
pub struct Lapse(pub Duration);

impl<'de> Deserialize<'de> for Lapse {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let parsed = humantime::parse_duration(&text);
        parsed.map(Lapse).map_err(|_| {
            let why = format!("`{text}` is not a length of time such as `5s` or `150ms`");
            D::Error::custom(why)
        })
    }
}

impl Serialize for Lapse {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(self.0))
    }
}

/// Bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ToSchema)]
#[schema(value_type = String, example = "64MiB")]
pub struct Size(pub u64);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let parsed: Result<bytesize::ByteSize, _> = text.parse();
        let wrong = |_| D::Error::custom(format!("`{text}` is not a size such as `64MiB`"));
        parsed.map(|size| Size(size.as_u64())).map_err(wrong)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Exact where a rounded unit would say something else.
        let (kib, mib) = (1 << 10, 1 << 20);
        match self.0 {
            bytes if bytes > 0 && bytes % mib == 0 => {
                serializer.collect_str(&format_args!("{}MiB", bytes / mib))
            }
            bytes if bytes > 0 && bytes % kib == 0 => {
                serializer.collect_str(&format_args!("{}KiB", bytes / kib))
            }
            bytes => serializer.collect_str(&format_args!("{bytes}B")),
        }
    }
}

/// Cores, to a thousandth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ToSchema)]
#[schema(value_type = f64, example = 0.5)]
pub struct Cpus(pub u32);

impl<'de> Deserialize<'de> for Cpus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let cores = f64::deserialize(deserializer)?;
        if !(0.0..=1_000_000.0).contains(&cores) {
            return Err(D::Error::custom(format!(
                "{cores} is not a number of cores"
            )));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it was just checked to be small and not negative"
        )]
        let millis = (cores * 1000.0).round() as u32;
        Ok(Cpus(millis))
    }
}

impl Serialize for Cpus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(f64::from(self.0) / 1000.0)
    }
}

/// A service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceManifest {
    /// Its name: letters, digits, `-`, `_`, `.`.
    pub name: String,
    /// What to run.
    pub image: String,
    /// Arguments; left out: the image's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Added to the image's environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// So many tasks, kept running. One, unless `global` or `completions` is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// One task on every eligible agent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub global: bool,
    /// So many tasks, each run to completion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completions: Option<u32>,
    /// What each task needs.
    #[serde(default)]
    pub resources: ResourcesManifest,
    /// Labels that a node must have, exactly.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub constraints: BTreeMap<String, String>,
    /// Node label over whose values the tasks are spread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<String>,
    /// Host ports, each taken exclusively on the task's node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
    /// A volume with one writer, bound to the node that first ran the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// When an ended task runs again.
    #[serde(default)]
    pub restart: RestartManifest,
    /// How to find out whether an instance works; left out: it works while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthManifest>,
    /// From SIGTERM to SIGKILL.
    #[serde(default = "stop_grace")]
    pub stop_grace: Lapse,
    /// How updates roll out.
    #[serde(default)]
    pub update: UpdateManifest,
    /// Instances elect one of themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub election: Option<ElectionManifest>,
}

/// What a task needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ResourcesManifest {
    /// Cores.
    pub cpus: Cpus,
    /// A hard limit.
    pub memory: Size,
}

/// When an ended task runs again.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RestartManifest {
    /// After what; for a job that says nothing, `on-failure`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition: Option<Restart>,
    /// Restarts without a stable run in between.
    pub max: u32,
    /// Wait before the first restart.
    pub backoff: Lapse,
    /// The longest wait; it doubles until then.
    pub backoff_max: Lapse,
    /// A run this long resets the count.
    pub stable_after: Lapse,
}

/// After what a task runs again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// After nothing.
    Never,
    /// After a failure.
    OnFailure,
    /// After any end that nobody asked for.
    Always,
}

/// A health check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HealthManifest {
    /// Run in the container; exit code 0 is healthy.
    pub command: Vec<String>,
    /// Between probes.
    pub interval: Lapse,
    /// Longest a probe may take.
    pub timeout: Lapse,
    /// After the start, failures do not count for this long.
    pub start_period: Lapse,
    /// Unhealthy verdicts in a row that fail the instance.
    pub failures: u32,
}

/// How updates roll out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpdateManifest {
    /// Tasks allowed above the wanted number.
    pub surge: u32,
    /// Tasks allowed to be missing from it.
    pub unavailable: u32,
    /// A new task counts once it has been ready for this long.
    pub monitor: Lapse,
    /// New tasks that may fail.
    pub failures: u32,
    /// What to do when more fail.
    pub on_failure: OnFailure,
}

/// What a rollout does that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// Go back to the last generation that completed.
    Rollback,
    /// Wait for an operator.
    Pause,
    /// Go on.
    Continue,
}

/// Election among the instances, by a lease of the managers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ElectionManifest {
    /// What they compete for.
    pub lease: String,
    /// How long a grant lasts without renewal.
    pub ttl: Lapse,
    /// Between renewals.
    pub renew: Lapse,
    /// A volume with a lock file, in place of the managers' lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock_file: Option<String>,
}

const fn s(seconds: u64) -> Lapse {
    Lapse(Duration::from_secs(seconds))
}

/// Docker's.
fn stop_grace() -> Lapse {
    s(10)
}

impl Default for RestartManifest {
    fn default() -> Self {
        RestartManifest {
            condition: None,
            max: 10,
            backoff: s(1),
            backoff_max: s(60),
            stable_after: s(60),
        }
    }
}

impl Default for HealthManifest {
    fn default() -> Self {
        HealthManifest {
            command: Vec::new(),
            interval: s(10),
            timeout: s(2),
            start_period: s(10),
            failures: 3,
        }
    }
}

impl Default for UpdateManifest {
    fn default() -> Self {
        UpdateManifest {
            surge: 1,
            unavailable: 0,
            monitor: s(5),
            failures: 2,
            on_failure: OnFailure::Rollback,
        }
    }
}

/// Why a manifest means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// More than one of them.
    #[error("`replicas`, `global` and `completions` exclude each other: set one of them at most")]
    Modes,
    /// A health check that checks nothing.
    #[error("`health` needs a `command` to run; without `health` a task is healthy while it runs")]
    NoProbe,
}

impl TryFrom<ServiceManifest> for ServiceSpec {
    type Error = ManifestError;
    fn try_from(manifest: ServiceManifest) -> Result<Self, ManifestError> {
        let mode = match (manifest.replicas, manifest.global, manifest.completions) {
            (replicas, false, None) => ServiceMode::Replicated {
                replicas: replicas.unwrap_or(1),
            },
            (None, true, None) => ServiceMode::Global,
            (None, false, Some(completions)) => ServiceMode::Job { completions },
            _ => return Err(ManifestError::Modes),
        };
        let probes_nothing = |health: &HealthManifest| health.command.is_empty();
        if manifest.health.as_ref().is_some_and(probes_nothing) {
            return Err(ManifestError::NoProbe);
        }
        Ok(ServiceSpec {
            name: manifest.name.as_str().into(),
            image: ImageReference(manifest.image),
            command: manifest.command,
            environment: manifest.environment,
            mode,
            resources: Resources {
                cpu_millis: manifest.resources.cpus.0,
                memory_bytes: manifest.resources.memory.0,
            },
            constraints: manifest.constraints,
            spread: manifest.spread,
            ports: manifest.ports,
            volume: manifest.volume,
            restart: restart(manifest.restart, mode),
            health: manifest.health.map(health),
            stop_grace: manifest.stop_grace.0,
            update: update(manifest.update),
            election: manifest.election.map(election),
        })
    }
}

fn restart(manifest: RestartManifest, mode: ServiceMode) -> RestartPolicy {
    let condition = match (manifest.condition, mode) {
        (Some(Restart::Never), _) => RestartCondition::Never,
        (Some(Restart::OnFailure), _) | (None, ServiceMode::Job { .. }) => {
            RestartCondition::OnFailure
        }
        (Some(Restart::Always) | None, _) => RestartCondition::Always,
    };
    RestartPolicy {
        condition,
        restarts_max: manifest.max,
        backoff: Backoff {
            base: manifest.backoff.0,
            cap: manifest.backoff_max.0,
        },
        stable_after: manifest.stable_after.0,
    }
}

fn health(manifest: HealthManifest) -> HealthCheck {
    HealthCheck {
        command: manifest.command,
        interval: manifest.interval.0,
        timeout: manifest.timeout.0,
        start_period: manifest.start_period.0,
        failures_max: manifest.failures,
    }
}

fn update(manifest: UpdateManifest) -> UpdatePolicy {
    UpdatePolicy {
        surge_max: manifest.surge,
        unavailable_max: manifest.unavailable,
        monitor: manifest.monitor.0,
        failures_max: manifest.failures,
        on_failure: match manifest.on_failure {
            OnFailure::Rollback => OnRolloutFailure::Rollback,
            OnFailure::Pause => OnRolloutFailure::Pause,
            OnFailure::Continue => OnRolloutFailure::Continue,
        },
    }
}

fn election(manifest: ElectionManifest) -> ElectionSpec {
    ElectionSpec {
        lease: manifest.lease.as_str().into(),
        backend: match manifest.lock_file {
            Some(volume) => ElectionBackend::LockFile { volume },
            None => ElectionBackend::Managers,
        },
        ttl: manifest.ttl.0,
        renew: manifest.renew.0,
    }
}

impl From<ServiceSpec> for ServiceManifest {
    fn from(spec: ServiceSpec) -> Self {
        let (replicas, global, completions) = match spec.mode {
            ServiceMode::Replicated { replicas } => (Some(replicas), false, None),
            ServiceMode::Global => (None, true, None),
            ServiceMode::Job { completions } => (None, false, Some(completions)),
        };
        ServiceManifest {
            name: spec.name.to_string(),
            image: spec.image.0,
            command: spec.command,
            environment: spec.environment,
            replicas,
            global,
            completions,
            resources: ResourcesManifest {
                cpus: Cpus(spec.resources.cpu_millis),
                memory: Size(spec.resources.memory_bytes),
            },
            constraints: spec.constraints,
            spread: spec.spread,
            ports: spec.ports,
            volume: spec.volume,
            restart: spec.restart.into(),
            health: spec.health.map(HealthManifest::from),
            stop_grace: Lapse(spec.stop_grace),
            update: spec.update.into(),
            election: spec.election.map(ElectionManifest::from),
        }
    }
}

impl From<RestartPolicy> for RestartManifest {
    fn from(policy: RestartPolicy) -> Self {
        RestartManifest {
            condition: Some(match policy.condition {
                RestartCondition::Never => Restart::Never,
                RestartCondition::OnFailure => Restart::OnFailure,
                RestartCondition::Always => Restart::Always,
            }),
            max: policy.restarts_max,
            backoff: Lapse(policy.backoff.base),
            backoff_max: Lapse(policy.backoff.cap),
            stable_after: Lapse(policy.stable_after),
        }
    }
}

impl From<HealthCheck> for HealthManifest {
    fn from(check: HealthCheck) -> Self {
        HealthManifest {
            command: check.command,
            interval: Lapse(check.interval),
            timeout: Lapse(check.timeout),
            start_period: Lapse(check.start_period),
            failures: check.failures_max,
        }
    }
}

impl From<UpdatePolicy> for UpdateManifest {
    fn from(policy: UpdatePolicy) -> Self {
        UpdateManifest {
            surge: policy.surge_max,
            unavailable: policy.unavailable_max,
            monitor: Lapse(policy.monitor),
            failures: policy.failures_max,
            on_failure: match policy.on_failure {
                OnRolloutFailure::Rollback => OnFailure::Rollback,
                OnRolloutFailure::Pause => OnFailure::Pause,
                OnRolloutFailure::Continue => OnFailure::Continue,
            },
        }
    }
}

impl From<ElectionSpec> for ElectionManifest {
    fn from(election: ElectionSpec) -> Self {
        ElectionManifest {
            lease: election.lease.to_string(),
            ttl: Lapse(election.ttl),
            renew: Lapse(election.renew),
            lock_file: match election.backend {
                ElectionBackend::Managers => None,
                ElectionBackend::LockFile { volume } => Some(volume),
            },
        }
    }
}

impl fmt::Display for Lapse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: &str) -> Result<ServiceSpec, String> {
        let manifest: ServiceManifest =
            serde_json::from_str(json).map_err(|error| error.to_string())?;
        manifest
            .try_into()
            .map_err(|error: ManifestError| error.to_string())
    }

    #[test]
    fn a_health_check_without_a_command_is_refused() {
        let error = spec(r#"{"name": "web", "image": "web:1", "health": {"interval": "5s"}}"#);
        assert!(error.unwrap_err().contains("needs a `command`"));
    }

    #[test]
    fn a_manifest_says_no_more_than_it_must() {
        let spec = spec(r#"{"name": "web", "image": "web:1"}"#).unwrap();
        assert_eq!(spec.mode, ServiceMode::Replicated { replicas: 1 });
        assert_eq!(spec.restart.condition, RestartCondition::Always);
        assert_eq!(spec.health, None);
    }

    #[test]
    fn what_is_shown_means_what_was_asked_for() {
        let full = r#"{"name": "web", "image": "web:1", "command": ["a"], "replicas": 3,
            "environment": {"A": "b"}, "resources": {"cpus": 0.25, "memory": "1000B"},
            "constraints": {"zone": "a"}, "spread": "rack", "ports": [80], "volume": "v",
            "restart": {"condition": "never", "backoff": "150ms"},
            "health": {"command": ["true"], "interval": "1m 30s"}, "stop_grace": "0s",
            "update": {"surge": 2, "on_failure": "pause"},
            "election": {"lease": "l", "ttl": "10s", "renew": "2s", "lock_file": "v"}}"#;
        for json in [
            full,
            r#"{"name": "g", "image": "g:1", "global": true}"#,
            r#"{"name": "j", "image": "j:1", "completions": 2, "resources": {"memory": "3KiB"}}"#,
        ] {
            let asked = spec(json).unwrap();
            let shown = serde_json::to_string(&ServiceManifest::from(asked.clone())).unwrap();
            assert_eq!(spec(&shown).unwrap(), asked, "{shown}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let wrong = [
            (r#"{"image": "web:1"}"#, "missing field `name`"),
            (
                r#"{"name": "w", "image": "w", "replica": 1}"#,
                "unknown field `replica`",
            ),
            (
                r#"{"name": "w", "image": "w", "replicas": 1, "global": true}"#,
                "exclude each other",
            ),
            (
                r#"{"name": "w", "image": "w", "replicas": -1}"#,
                "invalid value",
            ),
            (
                r#"{"name": "w", "image": "w", "stop_grace": "soon"}"#,
                "not a length of time",
            ),
            (
                r#"{"name": "w", "image": "w", "resources": {"cpus": -1}}"#,
                "not a number of cores",
            ),
            (
                r#"{"name": "w", "image": "w", "resources": {"memory": "big"}}"#,
                "not a size",
            ),
            (
                r#"{"name": "w", "image": "w", "restart": {"condition": "often"}}"#,
                "unknown variant",
            ),
        ];
        for (json, why) in wrong {
            let error = spec(json).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
