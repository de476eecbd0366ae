//! What a client may not ask for, and what it is told then. Pure checks, in the order in which
//! a person would want to hear of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use wavetank_model::{
    ElectionBackend, ElectionSpec, HealthCheck, LeaseName, OperationError, ServiceMode,
    ServiceSpec, UpdatePolicy,
};

use super::Store;
use super::operations::invalid;

/// Most tasks of one service.
const REPLICAS_MAX: u32 = 10_000;
/// Longest name of a service, a lease or a volume: a DNS label's.
const NAME_MAX: usize = 63;
/// Longest time that an instance may be given to stop.
const STOP_GRACE_MAX: Duration = Duration::from_secs(3600);

type Verdict = Result<(), OperationError>;

/// May this be deployed into the store as it is?
pub(super) fn deploy(store: &Store, wanted: &ServiceSpec) -> Verdict {
    spec(wanted)?;
    if let Some(service) = store.service(&wanted.name) {
        ensure(!service.deleting, || {
            format!(
                "{} is being deleted; deploy it again once it is gone",
                wanted.name
            )
        })?;
        let (now, then) = (mode_name(service.spec.mode), mode_name(wanted.mode));
        ensure(now == then, || {
            format!(
                "{} is {now} and cannot become {then}; delete it first",
                wanted.name
            )
        })?;
    }
    volume_is_free(store, wanted)
}

/// A volume has one writer, so it belongs to one service.
fn volume_is_free(store: &Store, wanted: &ServiceSpec) -> Verdict {
    let Some(volume) = &wanted.volume else {
        return Ok(());
    };
    let owner = store.services().iter().find(|(name, service)| {
        **name != wanted.name && service.spec.volume.as_ref() == Some(volume)
    });
    match owner {
        Some((name, _)) => Err(invalid(format!(
            "volume `{volume}` belongs to service {name}"
        ))),
        None => Ok(()),
    }
}

/// Does the spec make sense by itself?
pub(super) fn spec(spec: &ServiceSpec) -> Verdict {
    name("service name", &spec.name.0)?;
    ensure(!spec.image.0.is_empty(), || {
        "the image has no name".to_owned()
    })?;
    let is_strange = |it: char| it.is_whitespace() || it.is_control();
    ensure(!spec.image.0.contains(is_strange), || {
        format!("the image {:?} has a blank in its name", spec.image.0)
    })?;
    environment(&spec.environment)?;
    replicas(spec)?;
    update(&spec.update)?;
    ensure(spec.stop_grace <= STOP_GRACE_MAX, || {
        format!(
            "a stop grace of {:?} is longer than an hour",
            spec.stop_grace
        )
    })?;
    ports(&spec.ports)?;
    if let Some(volume) = &spec.volume {
        name("volume name", volume)?;
    }
    spec.health.as_ref().map_or(Ok(()), health)?;
    spec.election.as_ref().map_or(Ok(()), election)
}

/// What a process can be given: a name, `=`, a value, and no zero in either.
fn environment(environment: &BTreeMap<String, String>) -> Verdict {
    let is_given = |(name, value): &(&String, &String)| {
        !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0')
    };
    match environment.iter().find(|it| !is_given(it)) {
        Some((name, _)) => Err(invalid(format!(
            "{name:?} with its value cannot be in an environment"
        ))),
        None => Ok(()),
    }
}

fn replicas(spec: &ServiceSpec) -> Verdict {
    let count = spec.replicas().unwrap_or(1);
    ensure(count <= REPLICAS_MAX, || {
        format!("{count} tasks are more than the {REPLICAS_MAX} that a service may have")
    })?;
    let single = count <= 1 && spec.mode != ServiceMode::Global;
    ensure(spec.volume.is_none() || single, || {
        "a volume has one writer: a service with a volume has at most one task".to_owned()
    })
}

fn update(update: &UpdatePolicy) -> Verdict {
    ensure(update.surge_max > 0 || update.unavailable_max > 0, || {
        "an update needs room: `surge` and `unavailable` cannot both be zero".to_owned()
    })
}

fn ports(ports: &[u16]) -> Verdict {
    ensure(!ports.contains(&0), || "port 0 is not a port".to_owned())?;
    let mut seen = BTreeSet::new();
    match ports.iter().find(|port| !seen.insert(**port)) {
        Some(port) => Err(invalid(format!("port {port} is listed twice"))),
        None => Ok(()),
    }
}

fn health(health: &HealthCheck) -> Verdict {
    ensure(!health.interval.is_zero(), || {
        "a health check needs an interval".to_owned()
    })?;
    ensure(!health.timeout.is_zero(), || {
        "a health check needs a timeout".to_owned()
    })?;
    ensure(health.failures_max > 0, || {
        "a health check needs at least one failure to fail".to_owned()
    })
}

fn election(election: &ElectionSpec) -> Verdict {
    name("lease name", &election.lease.0)?;
    if let ElectionBackend::LockFile { volume } = &election.backend {
        name("volume name", volume)?;
    }
    ensure(
        !election.renew.is_zero() && election.renew < election.ttl,
        || {
            format!(
                "a lease of {:?} cannot be kept by renewing it every {:?}",
                election.ttl, election.renew
            )
        },
    )
}

/// May this lease be asked for?
pub(super) fn lease(lease: &LeaseName, holder: &str, ttl: Duration) -> Verdict {
    name("lease name", &lease.0)?;
    ensure(!holder.is_empty(), || {
        "a lease needs a holder's name".to_owned()
    })?;
    ensure(!ttl.is_zero(), || "a lease needs a time to live".to_owned())
}

fn name(what: &str, text: &str) -> Verdict {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let good = text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(inner)
        && text.len() <= NAME_MAX;
    ensure(good, || {
        format!(
            "{what} `{text}`: use 1 to {NAME_MAX} letters, digits, `-`, `_` and `.`, \
             starting with a letter or digit"
        )
    })
}

fn mode_name(mode: ServiceMode) -> &'static str {
    match mode {
        ServiceMode::Replicated { .. } => "replicated",
        ServiceMode::Global => "global",
        ServiceMode::Job { .. } => "a job",
    }
}

fn ensure(good: bool, why: impl FnOnce() -> String) -> Verdict {
    if good { Ok(()) } else { Err(invalid(why())) }
}
