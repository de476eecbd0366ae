//! Requests of clients: leases, members, and what is refused.

use wavetank_core::manager::command::Command;
use wavetank_core::manager::store::Store;
use wavetank_model::{
    Availability, Claim, FencingToken, Incarnation, NodeId, Operation, OperationError, Outcome,
    Revision, ServiceMode,
};

use super::cluster::{Cluster, name, seconds, service, version};

fn acquire(holder: &str) -> Operation {
    Operation::LeaseAcquire {
        lease: "l".into(),
        holder: holder.to_owned(),
        ttl: seconds(10),
    }
}

fn granted(token: u64) -> Result<Outcome, OperationError> {
    let token = FencingToken(token);
    Ok(Outcome::Granted { token })
}

fn held_by(holder: &str) -> Result<Outcome, OperationError> {
    let holder = holder.to_owned();
    Ok(Outcome::Held { holder })
}

/// A holder's guarded write.
fn act(token: u64) -> Operation {
    Operation::Put {
        key: "k".to_owned(),
        value: "v".to_owned(),
        claim: Some(Claim {
            lease: "l".into(),
            holder: "a".to_owned(),
            token: Some(FencingToken(token)),
        }),
    }
}

#[test]
fn a_lease_has_one_holder_and_every_grant_a_newer_token() {
    let mut cluster = Cluster::new(1);
    assert_eq!(cluster.ask(acquire("a")), granted(1));
    assert_eq!(cluster.ask(acquire("b")), held_by("a"));
    assert_eq!(cluster.ask(acquire("a")), granted(2));
    assert!(cluster.ask(act(2)).is_ok());
    let fenced = OperationError::Fenced {
        lease: "l".into(),
        given: FencingToken(1),
        newest: FencingToken(2),
    };
    assert_eq!(cluster.ask(act(1)), Err(fenced));
    let release = |token| Operation::LeaseRelease {
        lease: "l".into(),
        token: FencingToken(token),
    };
    assert!(cluster.ask(release(1)).is_err());
    assert!(cluster.ask(release(2)).is_ok());
    assert_eq!(cluster.ask(acquire("b")), granted(3));
}

#[test]
fn a_lease_lasts_as_long_as_it_is_renewed() {
    let mut cluster = Cluster::new(1);
    let lease = "l".into();
    assert_eq!(cluster.ask(acquire("a")), granted(1));
    assert_eq!(cluster.ask(acquire("a")), granted(2));
    cluster.pass(seconds(9));
    let now = cluster.now;
    assert!(cluster.planner.renew(&lease, FencingToken(2), now));
    assert!(!cluster.planner.renew(&lease, FencingToken(1), now));
    cluster.pass(seconds(9));
    assert_eq!(cluster.ask(acquire("b")), held_by("a"));
    cluster.pass(seconds(2));
    let late = cluster.ask(act(2));
    assert!(
        matches!(late, Err(OperationError::Fenced { .. })),
        "it ran out"
    );
    let renew = Operation::LeaseRenew {
        lease,
        token: FencingToken(2),
    };
    assert!(cluster.store.read(&renew).is_err());
    assert_eq!(cluster.ask(acquire("b")), granted(3));
}

#[test]
fn a_grant_whose_end_is_proposed_cannot_be_renewed() {
    let mut cluster = Cluster::new(1);
    let acquire = Operation::LeaseAcquire {
        lease: "l".into(),
        holder: "a".to_owned(),
        ttl: seconds(10),
    };
    cluster.ask(acquire).unwrap();
    cluster.settle();
    cluster.now = cluster.now + seconds(10);
    cluster.propose();
    assert_eq!(cluster.under_way.len(), 1);
    assert!(
        !cluster
            .planner
            .renew(&"l".into(), FencingToken(1), cluster.now)
    );
}

#[test]
fn a_new_leader_gives_every_lease_its_full_time() {
    let mut cluster = Cluster::new(1);
    let acquire = Operation::LeaseAcquire {
        lease: "l".into(),
        holder: "a".to_owned(),
        ttl: seconds(10),
    };
    cluster.ask(acquire).unwrap();
    cluster.pass(seconds(9));
    cluster.change_leader();
    cluster.pass(seconds(9));
    assert!(cluster.store.leases()[&"l".into()].holder.is_some());
    cluster.pass(seconds(2));
    assert!(cluster.store.leases()[&"l".into()].holder.is_none());
}

#[test]
fn members_get_ids_that_were_never_used() {
    let mut cluster = Cluster::new(0);
    let founders = [(1, NodeId::manager(1)), (2, NodeId::manager(2))].into();
    cluster.store = Store::bootstrap(&founders);
    assert_eq!(cluster.store.next_member(), 3);
    let member = |member, incarnation| Command::Member {
        member,
        node: NodeId::manager(2),
        incarnation: Incarnation(incarnation),
    };
    let mut apply = |command: Command| cluster.store.apply(Revision(1), &command);
    apply(member(3, 7));
    apply(member(4, 7));
    apply(member(4, 6));
    apply(member(2, 8));
    assert_eq!(
        cluster.store.joined(NodeId::manager(2)),
        Some((Incarnation(7), 3))
    );
    let members = [(1, NodeId::manager(1)), (3, NodeId::manager(2))].into();
    assert_eq!(cluster.store.members(), &members);
    assert_eq!(cluster.store.next_member(), 4);
}

type Edit = fn(&mut wavetank_model::ServiceSpec);
/// What is wrong with a spec, and what is said about it.
const NONSENSE: [(Edit, &str); 15] = [
    (
        |spec| spec.name = "a b".into(),
        "service name `a b`: use 1 to 63",
    ),
    (|spec| spec.image.0.clear(), "the image has no name"),
    (
        |spec| spec.image.0 = "web:1\n--x".to_owned(),
        "has a blank in its name",
    ),
    (
        |spec| drop(spec.environment.insert("A=B".to_owned(), "c".to_owned())),
        "\"A=B\" with its value cannot be in an environment",
    ),
    (
        |spec| drop(spec.environment.insert(String::new(), "c".to_owned())),
        "\"\" with its value cannot be in an environment",
    ),
    (
        |spec| spec.mode = ServiceMode::Replicated { replicas: 10_001 },
        "10001 tasks are more than the 10000",
    ),
    (
        |spec| spec.update.surge_max = 0,
        "`surge` and `unavailable` cannot both be zero",
    ),
    (
        |spec| spec.stop_grace = seconds(3601),
        "is longer than an hour",
    ),
    (
        |spec| spec.ports = vec![80, 443, 80],
        "port 80 is listed twice",
    ),
    (|spec| spec.ports = vec![0], "port 0 is not a port"),
    (
        |spec| spec.mode = ServiceMode::Global,
        "web is replicated and cannot become global",
    ),
    (
        |spec| spec.volume = Some("data".to_owned()),
        "volume `data` belongs to service owner",
    ),
    (
        |spec| {
            spec.volume = Some("more".to_owned());
            spec.mode = ServiceMode::Replicated { replicas: 2 };
        },
        "a volume has one writer",
    ),
    (
        |spec| {
            spec.health = Some(wavetank_model::HealthCheck {
                command: Vec::new(),
                interval: seconds(1),
                timeout: seconds(1),
                start_period: seconds(0),
                failures_max: 0,
            });
        },
        "needs at least one failure to fail",
    ),
    (
        |spec| {
            spec.election = Some(wavetank_model::ElectionSpec {
                lease: "l".into(),
                backend: wavetank_model::ElectionBackend::Managers,
                ttl: seconds(5),
                renew: seconds(5),
            });
        },
        "cannot be kept by renewing it every 5s",
    ),
];

#[test]
fn nonsense_is_refused_with_a_reason() {
    let mut cluster = Cluster::new(1);
    cluster.deploy(&service("web", 1));
    let mut owner = service("owner", 1);
    owner.volume = Some("data".to_owned());
    cluster.deploy(&owner);
    for (edit, why) in NONSENSE {
        let mut spec = service("web", 1);
        edit(&mut spec);
        let before = cluster.store.services().clone();
        let error = cluster
            .ask(Operation::Deploy { spec })
            .unwrap_err()
            .to_string();
        assert!(error.contains(why), "{error}");
        assert_eq!(*cluster.store.services(), before);
    }
}

#[test]
fn what_does_not_exist_is_said_so() {
    let mut cluster = Cluster::new(1);
    let error = cluster
        .ask(Operation::Stop {
            service: name("no"),
        })
        .unwrap_err();
    assert_eq!(error.to_string(), "service no does not exist");
    let unknown = Operation::SetAvailability {
        node: NodeId::agent(9),
        availability: Availability::Drain,
    };
    assert_eq!(
        cluster.ask(unknown).unwrap_err().to_string(),
        "node agent-9 does not exist"
    );
    let release = Operation::LeaseRelease {
        lease: "l".into(),
        token: FencingToken(1),
    };
    assert_eq!(
        cluster.ask(release).unwrap_err().to_string(),
        "lease l does not exist"
    );
    cluster.deploy(&service("web", 1));
    cluster.run();
    cluster
        .ask(Operation::Delete {
            service: name("web"),
        })
        .unwrap();
    let again = Operation::Deploy {
        spec: version(service("web", 1), 2),
    };
    let error = cluster.ask(again).unwrap_err().to_string();
    assert_eq!(
        error,
        "web is being deleted; deploy it again once it is gone"
    );
}

#[test]
fn a_plan_for_a_deleted_service_does_nothing_to_its_namesake() {
    let mut cluster = Cluster::new(1);
    cluster
        .ask(Operation::Deploy {
            spec: service("web", 4),
        })
        .unwrap();
    cluster.propose();
    let plan = cluster.under_way.pop_front().unwrap();
    cluster
        .ask(Operation::Delete {
            service: name("web"),
        })
        .unwrap();
    cluster
        .ask(Operation::Deploy {
            spec: service("web", 1),
        })
        .unwrap();
    assert!(cluster.apply(plan).changes.is_empty());
    cluster.pass(seconds(10));
    assert_eq!(cluster.live("web").len(), 1);
}
