//! Random operators, nodes and agents, with proposals that are late, repeated or lost and leaders
//! that change. `rules` hold after every command; when everything has healed, everything that was
//! asked for must come true.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use wavetank_core::TaskReport;
use wavetank_core::manager::command::Command;
use wavetank_core::manager::store::Store;
use wavetank_model::{
    Availability, DesiredState, NodeId, Operation, Reason, ServiceMode, ServiceSpec, TaskState,
};

use super::cluster::{Behaviour, Cluster, MIB, job, name, report, seconds, service, version};

const NODES: u32 = 4;

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    Deploy {
        service: usize,
        version: u32,
        replicas: u32,
    },
    Ask {
        service: usize,
        what: Ask,
    },
    Availability {
        node: u32,
        availability: Availability,
    },
    NodeUp {
        node: u32,
    },
    NodeDown {
        node: u32,
    },
    /// An agent does what it should with all of its tasks.
    Work {
        node: u32,
    },
    /// An agent's task does whatever it can.
    Chaos {
        pick: usize,
        state: usize,
    },
    /// From now on tasks of this version behave so.
    Behave {
        service: usize,
        version: u32,
        behaviour: Behaviour,
    },
    Propose,
    /// The oldest proposal is applied, `times` times.
    Commit {
        times: usize,
    },
    /// The newest proposal is lost.
    Lose,
    Pass {
        millis: u64,
    },
    ChangeLeader,
}

#[derive(Clone, Copy, Debug)]
enum Ask {
    Stop,
    Start,
    Delete,
    Rollback,
    Scale(u32),
}

fn specs() -> Vec<ServiceSpec> {
    let mut ports = service("ports", 2);
    ports.ports = vec![8080];
    ports.update.surge_max = 0;
    ports.update.unavailable_max = 1;
    let mut data = service("data", 1);
    data.volume = Some("data".to_owned());
    let mut global = service("global", 0);
    global.mode = ServiceMode::Global;
    vec![service("web", 3), ports, data, global, job("batch", 3)]
}

fn spec(index: usize, number: u32, replicas: u32) -> ServiceSpec {
    let specs = specs();
    let mut spec = version(specs[index % specs.len()].clone(), number);
    spec.mode = match spec.mode {
        ServiceMode::Replicated { .. } if spec.volume.is_some() => ServiceMode::Replicated {
            replicas: replicas.min(1),
        },
        ServiceMode::Replicated { .. } => ServiceMode::Replicated { replicas },
        mode => mode,
    };
    spec
}

fn steps() -> impl Strategy<Value = Step> {
    let services = 0..5usize;
    let nodes = 1..=NODES;
    let asks = prop_oneof![
        Just(Ask::Stop),
        Just(Ask::Start),
        Just(Ask::Delete),
        Just(Ask::Rollback),
        (0..4u32).prop_map(Ask::Scale),
    ];
    let availability = prop_oneof![
        2 => Just(Availability::Active),
        1 => Just(Availability::Pause),
        1 => Just(Availability::Drain),
    ];
    let behaviours = prop_oneof![
        Just(Behaviour::Works),
        Just(Behaviour::Completes),
        Just(Behaviour::Fails),
        Just(Behaviour::Hangs),
    ];
    prop_oneof![
        3 => (services.clone(), 1..4u32, 0..5u32)
            .prop_map(|(service, version, replicas)| Step::Deploy { service, version, replicas }),
        2 => (services.clone(), asks).prop_map(|(service, what)| Step::Ask { service, what }),
        1 => (nodes.clone(), availability)
            .prop_map(|(node, availability)| Step::Availability { node, availability }),
        2 => nodes.clone().prop_map(|node| Step::NodeUp { node }),
        1 => nodes.clone().prop_map(|node| Step::NodeDown { node }),
        12 => nodes.prop_map(|node| Step::Work { node }),
        4 => (any::<usize>(), 0..14usize).prop_map(|(pick, state)| Step::Chaos { pick, state }),
        1 => (services, 1..4u32, behaviours).prop_map(|(service, version, behaviour)| {
            Step::Behave { service, version, behaviour }
        }),
        10 => Just(Step::Propose),
        10 => (1..3usize).prop_map(|times| Step::Commit { times }),
        1 => Just(Step::Lose),
        4 => (0..4000u64).prop_map(|millis| Step::Pass { millis }),
        1 => Just(Step::ChangeLeader),
    ]
}

fn take(cluster: &mut Cluster, step: &Step) {
    match step {
        Step::Deploy {
            service,
            version,
            replicas,
        } => {
            let spec = spec(*service, *version, *replicas);
            let _ = cluster.ask(Operation::Deploy { spec });
        }
        Step::Ask { service, what } => {
            let service = specs()[*service].name.clone();
            let _ = cluster.ask(match what {
                Ask::Stop => Operation::Stop { service },
                Ask::Start => Operation::Start { service },
                Ask::Delete => Operation::Delete { service },
                Ask::Rollback => Operation::Rollback { service },
                Ask::Scale(replicas) => Operation::Scale {
                    service,
                    replicas: *replicas,
                },
            });
        }
        Step::Availability { node, availability } => {
            let (node, availability) = (NodeId::agent(*node), *availability);
            let _ = cluster.ask(Operation::SetAvailability { node, availability });
        }
        Step::NodeUp { node } => cluster.node_up(*node, 1024 * MIB, &[]),
        Step::NodeDown { node } => cluster.node_down(*node),
        Step::Work { node } => {
            cluster.agent_works(NodeId::agent(*node));
        }
        Step::Chaos { pick, state } => chaos(cluster, *pick, TaskState::ALL[*state]),
        Step::Behave {
            service,
            version,
            behaviour,
        } => {
            let image = spec(*service, *version, 1).image.0;
            cluster.behaviours.insert(image, *behaviour);
        }
        Step::Propose => cluster.propose(),
        Step::Commit { times } => {
            let Some(command) = cluster.under_way.pop_front() else {
                return;
            };
            (0..*times).for_each(|_| {
                cluster.apply(command.clone());
            });
        }
        Step::Lose => {
            cluster.under_way.pop_back();
        }
        Step::Pass { millis } => cluster.now = cluster.now + Duration::from_millis(*millis),
        Step::ChangeLeader => cluster.change_leader(),
    }
}

/// Any report about any task, possible or not, true or not.
fn chaos(cluster: &mut Cluster, pick: usize, state: TaskState) {
    let count = cluster.store.tasks().len().max(1);
    let Some(task) = cluster.store.tasks().values().nth(pick % count).cloned() else {
        return;
    };
    let mut report = report(&task, state);
    report.status.ready = pick.is_multiple_of(3);
    report.status.attempt += u32::from(pick.is_multiple_of(7));
    report.status.sequence += u64::from(pick.is_multiple_of(5));
    let node = task.node.unwrap_or(NodeId::agent(1));
    cluster.apply(Command::Report {
        node,
        reports: vec![report],
    });
}

/// Everything works from now on.
fn heal(cluster: &mut Cluster) {
    cluster.behaviours.clear();
    cluster
        .behaviours
        .insert("batch:1".to_owned(), Behaviour::Completes);
    cluster
        .behaviours
        .insert("batch:2".to_owned(), Behaviour::Completes);
    cluster
        .behaviours
        .insert("batch:3".to_owned(), Behaviour::Completes);
    for node in 1..=NODES {
        cluster.node_up(node, 8192 * MIB, &[]);
        let availability = Availability::Active;
        let node = NodeId::agent(node);
        cluster
            .ask(Operation::SetAvailability { node, availability })
            .expect("it is known");
    }
    revive(cluster);
    cluster.pass(seconds(900));
}

/// Chaos may have left tasks where no agent would leave them; they fail and are replaced.
fn revive(cluster: &mut Cluster) {
    let stuck: Vec<(NodeId, TaskReport)> = cluster
        .store
        .tasks()
        .values()
        .filter(|task| task.is_live() && task.desired == DesiredState::Running)
        .filter(|task| !task.is_ready())
        .filter(|task| {
            use TaskState::{Backoff, Running, Stopping};
            matches!(task.status.state, Running | Backoff | Stopping)
        })
        .filter_map(|task| Some((task.node?, report(task, TaskState::Failed))))
        .collect();
    for (node, mut report) in stuck {
        report.status.reason = Some(Reason::ContainerLost);
        cluster.apply(Command::Report {
            node,
            reports: vec![report],
        });
    }
}

/// What was asked for last is what there is.
fn converged(cluster: &Cluster) {
    for (service_name, record) in cluster.store.services() {
        let text = service_name.to_string();
        assert!(!record.deleting, "{text} is still there");
        let live = cluster.live(&text).len();
        let wanted = match record.spec.mode {
            _ if record.stopped => 0,
            ServiceMode::Replicated { replicas } => replicas as usize,
            ServiceMode::Global => NODES as usize,
            ServiceMode::Job { .. } => 0,
        };
        assert_eq!(live, wanted, "{text}: {:#?}", cluster.tasks(&text));
        assert_eq!(
            cluster.ready(&text),
            wanted,
            "{text}: {:#?}",
            cluster.tasks(&text)
        );
        let mut ended: BTreeMap<u32, usize> = BTreeMap::new();
        for task in cluster.tasks(&text).iter().filter(|task| !task.is_live()) {
            *ended.entry(task.slot).or_default() += 1;
        }
        assert!(
            ended.values().all(|count| *count <= 3),
            "{text} keeps {ended:?}"
        );
        let rolling = record.is_rolling() && !record.stopped;
        assert!(!rolling, "{text} is still {:?}", record.rollout);
    }
}

proptest! {
    #[test]
    fn whatever_happens_the_rules_hold_and_in_the_end_all_is_as_asked(
        steps in prop::collection::vec(steps(), 1..150),
    ) {
        let mut cluster = Cluster::new(2);
        for step in &steps {
            take(&mut cluster, step);
        }
        heal(&mut cluster);
        converged(&cluster);
        let commands = cluster.commands;
        cluster.pass(seconds(60));
        prop_assert_eq!(cluster.commands, commands, "at rest nothing is written");
    }

    #[test]
    fn w5_equal_nodes_get_equal_numbers(
        nodes in 1..8u32,
        replicas in 0..40u32,
        more in 0..40u32,
    ) {
        let mut cluster = Cluster::new(nodes);
        cluster.deploy(&service("web", replicas));
        cluster.scale("web", replicas + more);
        let counts = cluster.by_node("web");
        let (least, most) = (counts.values().min(), counts.values().max());
        prop_assert!(most.unwrap() - least.unwrap() <= 1, "{:?}", counts);
    }

    #[test]
    fn p9_memory_is_never_exceeded(
        nodes in prop::collection::vec(0..4096u64, 1..6),
        services in prop::collection::vec((1..1024u64, 0..20u32), 1..6),
    ) {
        let mut cluster = Cluster::new(0);
        for (number, memory) in (1..).zip(&nodes) {
            cluster.node_up(number, memory * MIB, &[]);
        }
        for (number, (memory, replicas)) in services.iter().enumerate() {
            let mut spec = service(&format!("s{number}"), *replicas);
            spec.resources.memory_bytes = memory * MIB;
            cluster.deploy(&spec);
        }
        for pending in cluster.store.pending() {
            let task = cluster.store.task(*pending).unwrap();
            let needs = cluster.store.spec_of(task).unwrap().resources.memory_bytes;
            for (node, record) in cluster.store.nodes() {
                let used = cluster.store.used(*node).memory_bytes;
                prop_assert!(used + needs > record.resources.memory_bytes, "{} fits", pending);
            }
            prop_assert_eq!(task.status.reason, Some(Reason::Unschedulable));
        }
    }

    #[test]
    fn damaged_bytes_are_refused_or_read_but_never_panic(
        position in any::<prop::sample::Index>(),
        value in any::<u8>(),
    ) {
        let mut cluster = Cluster::new(2);
        cluster.deploy(&service("web", 2));
        let mut bytes = cluster.store.encode();
        let position = position.index(bytes.len());
        bytes[position] = value;
        let _ = Store::decode(&bytes);
        prop_assert!(cluster.store.service(&name("web")).is_some());
    }
}
