//! Applies the requests of clients, each at most once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use wavetank_model::{
    Availability, Change, Claim, DesiredState, FencingToken, Generation, LeaseName, NodeId,
    Operation, OperationError, Outcome, Reason, RequestId, Revision, RolloutState, ServiceMode,
    ServiceName, ServiceSpec, TaskId,
};

use super::apply::Apply;
use super::records::{ClientRecord, GenerationRecord, LeaseRecord, ServiceRecord};
use super::{Store, tokens, validate, views};

/// Answers kept per client. A client never has that many requests under way.
const ANSWERS_MAX: usize = 64;

type Answer = Result<Outcome, OperationError>;

/// Carries a request out unless it was carried out before; then the old answer is repeated.
/// `None` if it is too old for an answer.
pub(super) fn once(apply: &mut Apply<'_>, id: RequestId, operation: &Operation) -> Option<Answer> {
    let clients = &mut apply.store.data.clients;
    let fresh = || ClientRecord {
        incarnation: id.incarnation,
        forgotten: 0,
        answers: BTreeMap::new(),
    };
    let client = clients.entry(id.client).or_insert_with(fresh);
    if client.incarnation < id.incarnation {
        *client = fresh();
    }
    if client.incarnation > id.incarnation || id.sequence <= client.forgotten {
        return None;
    }
    if let Some(answer) = client.answers.get(&id.sequence) {
        return Some(answer.clone());
    }
    let answer = perform(apply, operation);
    remember(apply.store, id, answer.clone());
    Some(answer)
}

fn remember(store: &mut Store, id: RequestId, answer: Answer) {
    let Some(client) = store.data.clients.get_mut(&id.client) else {
        return;
    };
    client.answers.insert(id.sequence, answer);
    while client.answers.len() > ANSWERS_MAX {
        if let Some((sequence, _)) = client.answers.pop_first() {
            client.forgotten = sequence;
        }
    }
}

/// Answers what can be answered without a change.
pub(super) fn read(store: &Store, operation: &Operation) -> Answer {
    match operation {
        Operation::Get { key } => Ok(Outcome::Value {
            value: store.data.entries.get(key).cloned(),
        }),
        Operation::GetService { service } => Ok(Outcome::Service {
            service: views::service(store, service),
        }),
        Operation::ListServices => Ok(Outcome::Services {
            services: views::services(store),
        }),
        Operation::ListNodes => Ok(views::nodes(store)),
        Operation::LeaseRenew { lease, token } => {
            held(store, lease, *token).map(|_| Outcome::Granted { token: *token })
        }
        other => Err(invalid(format!("{} is not a read", other.name()))),
    }
}

fn perform(apply: &mut Apply<'_>, operation: &Operation) -> Answer {
    match operation {
        Operation::Deploy { spec } => deploy(apply, spec),
        Operation::Scale { service, replicas } => scale(apply, service, *replicas),
        Operation::Rollback { service } => rollback(apply, service),
        Operation::Stop { service } => stop(apply, service),
        Operation::Start { service } => start(apply, service),
        Operation::Delete { service } => delete(apply, service),
        Operation::SetAvailability { node, availability } => {
            set_availability(apply, *node, *availability)
        }
        Operation::RemoveManager { node } => remove_manager(apply, *node),
        Operation::Put { key, value, claim } => put(apply, key, value, claim.as_ref()),
        Operation::LeaseAcquire { lease, holder, ttl } => acquire(apply, lease, holder, *ttl),
        Operation::LeaseRelease { lease, token } => release(apply, lease, *token),
        Operation::CreateToken {
            digest,
            role,
            expires,
        } => {
            tokens::create(apply.store, digest, *role, *expires)?;
            done(apply)
        }
        Operation::RedeemToken { digest, now } => {
            let node = tokens::redeem(apply.store, digest, *now)?;
            Ok(Outcome::Admitted { node })
        }
        Operation::Get { .. }
        | Operation::GetService { .. }
        | Operation::ListServices
        | Operation::ListNodes
        | Operation::LeaseRenew { .. } => read(apply.store, operation),
    }
}

fn deploy(apply: &mut Apply<'_>, spec: &ServiceSpec) -> Answer {
    validate::deploy(apply.store, spec)?;
    let services = &mut apply.store.data.services;
    let service = match services.get_mut(&spec.name) {
        Some(service) => {
            update(service, spec);
            service
        }
        None => services
            .entry(spec.name.clone())
            .or_insert_with(|| first(spec)),
    };
    let change = service.change();
    finish(apply, &spec.name, change)
}

/// The record of a service that was just deployed for the first time.
fn first(spec: &ServiceSpec) -> ServiceRecord {
    let generation = Generation(1);
    let record = GenerationRecord {
        spec: Arc::new(spec.clone()),
        template: generation,
    };
    ServiceRecord {
        spec: spec.clone(),
        generation,
        generations: BTreeMap::from([(generation, record)]),
        completed: Vec::new(),
        rollout: RolloutState::Updating,
        failures: 0,
        stopped: false,
        deleting: false,
        home: None,
        round: Revision(0),
        losses: 0,
    }
}

/// A spec that runs tasks in the same way as the current one changes the service in place. Any
/// other is a new generation, and so is the same one again after it was given up.
fn update(service: &mut ServiceRecord, spec: &ServiceSpec) {
    let same = same_template(&service.spec, spec) && service.rollout != RolloutState::Paused;
    service.spec = spec.clone();
    if !same {
        advance(service, spec.clone(), RolloutState::Updating);
    }
}

/// Would tasks of both specs be the same? The number of tasks and the pace of updates are the
/// service's business, not the tasks'.
fn same_template(a: &ServiceSpec, b: &ServiceSpec) -> bool {
    let normal = |spec: &ServiceSpec| ServiceSpec {
        mode: b.mode,
        update: b.update,
        ..spec.clone()
    };
    normal(a) == normal(b)
}

/// Gives a service its next generation.
fn advance(service: &mut ServiceRecord, spec: ServiceSpec, rollout: RolloutState) {
    service.generation = service.generation.next();
    let twin = service
        .generations
        .values()
        .find(|record| same_template(&record.spec, &spec));
    let template = twin.map_or(service.generation, |record| record.template);
    let record = GenerationRecord {
        spec: Arc::new(spec),
        template,
    };
    service.generations.insert(service.generation, record);
    service.rollout = rollout;
    service.failures = 0;
}

/// Makes the last completed generation the next one. False if there is none to go back to.
pub(super) fn roll_back(service: &mut ServiceRecord) -> bool {
    let target = service
        .rollback_target()
        .and_then(|target| service.generations.get(&target));
    let Some(target) = target else { return false };
    let spec = ServiceSpec {
        mode: service.spec.mode,
        update: service.spec.update,
        ..ServiceSpec::clone(&target.spec)
    };
    service.spec = spec.clone();
    advance(service, spec, RolloutState::RollingBack);
    true
}

fn scale(apply: &mut Apply<'_>, name: &ServiceName, replicas: u32) -> Answer {
    let service = existing(apply, name)?;
    let mut spec = service.spec.clone();
    spec.mode = match spec.mode {
        ServiceMode::Replicated { .. } => ServiceMode::Replicated { replicas },
        ServiceMode::Job { .. } => ServiceMode::Job {
            completions: replicas,
        },
        ServiceMode::Global => {
            return Err(invalid(format!(
                "{name} is a global service: it has one task on every eligible agent"
            )));
        }
    };
    validate::spec(&spec)?;
    service.spec = spec;
    let change = service.change();
    finish(apply, name, change)
}

fn rollback(apply: &mut Apply<'_>, name: &ServiceName) -> Answer {
    let service = existing(apply, name)?;
    if !roll_back(service) {
        return Err(invalid(format!(
            "{name} has no other completed generation to go back to"
        )));
    }
    let change = service.change();
    finish(apply, name, change)
}

fn stop(apply: &mut Apply<'_>, name: &ServiceName) -> Answer {
    let service = existing(apply, name)?;
    if service.stopped {
        return done(apply);
    }
    service.stopped = true;
    let change = service.change();
    let answer = finish(apply, name, change);
    want_all(apply, name, DesiredState::Shutdown);
    answer
}

fn start(apply: &mut Apply<'_>, name: &ServiceName) -> Answer {
    let service = existing(apply, name)?;
    if !service.stopped {
        return done(apply);
    }
    service.stopped = false;
    let change = service.change();
    finish(apply, name, change)
}

/// Deleting a service takes its tasks along, in the same log entry: there is no moment in which
/// tasks run that belong to nothing.
fn delete(apply: &mut Apply<'_>, name: &ServiceName) -> Answer {
    let service = apply
        .store
        .data
        .services
        .get_mut(name)
        .ok_or_else(|| unknown_service(name))?;
    if service.deleting {
        return done(apply);
    }
    service.deleting = true;
    let change = service.change();
    let answer = finish(apply, name, change);
    want_all(apply, name, DesiredState::Removed);
    apply.settle_service(name);
    answer
}

/// Wants all tasks of a service to end; ended ones are left alone unless they should be gone.
fn want_all(apply: &mut Apply<'_>, name: &ServiceName, desired: DesiredState) {
    let concerned = |task: &&super::TaskRecord| task.is_live() || desired == DesiredState::Removed;
    let ids: Vec<TaskId> = apply
        .store
        .tasks_of(name)
        .filter(concerned)
        .map(|task| task.id)
        .collect();
    for id in ids {
        apply.desire(id, desired, Reason::TerminatedByOperator);
    }
}

/// Takes a manager off the list of members; whoever leads then puts it out of the group.
fn remove_manager(apply: &mut Apply<'_>, node: NodeId) -> Answer {
    let members = &mut apply.store.data.members;
    if !members.values().any(|member| *member == node) {
        return Err(OperationError::NotFound {
            what: format!("manager {node}"),
        });
    }
    if members.len() == 1 {
        return Err(invalid(format!("{node} is the last manager")));
    }
    members.retain(|_, member| *member != node);
    tokens::note_number(apply.store, node);
    done(apply)
}

/// A manager runs no tasks, so nothing is to be written down about it; the leader itself hands
/// over when it is drained.
fn set_availability(apply: &mut Apply<'_>, node: NodeId, availability: Availability) -> Answer {
    if apply
        .store
        .data
        .members
        .values()
        .any(|member| *member == node)
    {
        return done(apply);
    }
    let record = apply
        .store
        .data
        .nodes
        .get_mut(&node)
        .ok_or_else(|| OperationError::NotFound {
            what: format!("node {node}"),
        })?;
    if record.availability != availability {
        record.availability = availability;
        let change = record.change(node);
        apply.changes.push(change);
    }
    done(apply)
}

fn put(apply: &mut Apply<'_>, key: &str, value: &str, claim: Option<&Claim>) -> Answer {
    let lease = claim.and_then(|claim| claim.token.map(|token| (&claim.lease, token)));
    if let Some((lease, token)) = lease {
        held(apply.store, lease, token)?;
    }
    apply
        .store
        .data
        .entries
        .insert(key.to_owned(), value.to_owned());
    apply.changes.push(Change::Entry {
        key: key.to_owned(),
        value: value.to_owned(),
        lease: claim.map(|claim| claim.lease.clone()),
        token: claim.and_then(|claim| claim.token),
        holder: claim.map(|claim| claim.holder.clone()),
    });
    done(apply)
}

fn acquire(apply: &mut Apply<'_>, lease: &LeaseName, holder: &str, ttl: Duration) -> Answer {
    validate::lease(lease, holder, ttl)?;
    let free = || LeaseRecord {
        holder: None,
        token: FencingToken(0),
        ttl,
    };
    let record = apply
        .store
        .data
        .leases
        .entry(lease.clone())
        .or_insert_with(free);
    if let Some(other) = record.holder.as_deref().filter(|other| *other != holder) {
        return Ok(Outcome::Held {
            holder: other.to_owned(),
        });
    }
    *record = LeaseRecord {
        holder: Some(holder.to_owned()),
        token: record.token.next(),
        ttl,
    };
    let (token, change) = (record.token, record.change(lease));
    apply.changes.push(change);
    Ok(Outcome::Granted { token })
}

fn release(apply: &mut Apply<'_>, lease: &LeaseName, token: FencingToken) -> Answer {
    held(apply.store, lease, token)?;
    if let Some(record) = apply.store.data.leases.get_mut(lease) {
        record.holder = None;
        let change = record.change(lease);
        apply.changes.push(change);
    }
    done(apply)
}

/// The lease, if `token` is its newest grant and that grant still stands.
fn held<'a>(
    store: &'a Store,
    lease: &LeaseName,
    given: FencingToken,
) -> Result<&'a LeaseRecord, OperationError> {
    let record = store
        .data
        .leases
        .get(lease)
        .ok_or_else(|| OperationError::NotFound {
            what: format!("lease {lease}"),
        })?;
    if record.token == given && record.holder.is_some() {
        return Ok(record);
    }
    Err(OperationError::Fenced {
        lease: lease.clone(),
        given,
        newest: record.token,
    })
}

/// A service that exists and is not on its way out.
fn existing<'a>(
    apply: &'a mut Apply<'_>,
    name: &ServiceName,
) -> Result<&'a mut ServiceRecord, OperationError> {
    match apply.store.data.services.get_mut(name) {
        Some(service) if !service.deleting => Ok(service),
        Some(_) => Err(invalid(format!("{name} is being deleted"))),
        None => Err(unknown_service(name)),
    }
}

fn finish(apply: &mut Apply<'_>, name: &ServiceName, change: Change) -> Answer {
    if let Some(service) = apply.store.data.services.get_mut(name) {
        service.round = apply.revision;
    }
    apply.changes.push(change);
    apply.collect_generations(name);
    done(apply)
}

fn done(apply: &Apply<'_>) -> Answer {
    Ok(Outcome::Done {
        revision: apply.revision,
    })
}

fn unknown_service(name: &ServiceName) -> OperationError {
    OperationError::NotFound {
        what: format!("service {name}"),
    }
}

pub(super) fn invalid(why: impl Into<String>) -> OperationError {
    OperationError::Invalid { why: why.into() }
}
