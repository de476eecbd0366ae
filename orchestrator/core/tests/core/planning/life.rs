//! From deployment to deletion, on nodes that come and go.

use std::time::Duration;

use wavetank_core::manager::command::{Command, NewTask, Plan};
use wavetank_core::manager::scheduler::schedule;
use wavetank_core::manager::store::Store;
use wavetank_model::{
    Availability, Change, DesiredState, Generation, Incarnation, NodeId, Operation, Outcome,
    Reason, RequestId, Revision, ServiceMode, TaskId, TaskState,
};

use super::cluster::{Behaviour, Cluster, MIB, job, name, report, seconds, service};

#[test]
fn a_service_gets_its_tasks_and_they_run() {
    let mut cluster = Cluster::new(3);
    cluster.deploy(&service("web", 6));
    cluster.run();
    assert_eq!(cluster.ready("web"), 6);
    let slots: Vec<u32> = cluster.tasks("web").iter().map(|task| task.slot).collect();
    assert_eq!(slots, [1, 2, 3, 4, 5, 6]);
}

#[test]
fn w2_deleting_a_service_takes_its_tasks_along_and_then_everything_is_gone() {
    let mut cluster = Cluster::new(2);
    cluster.deploy(&service("web", 4));
    cluster.run();
    cluster
        .ask(Operation::Delete {
            service: name("web"),
        })
        .unwrap();
    assert!(
        cluster
            .tasks("web")
            .iter()
            .all(|task| task.desired == DesiredState::Removed)
    );
    assert_eq!(
        cluster.store.assignments(NodeId::agent(1)).len(),
        2,
        "agents are told to stop"
    );
    cluster.run();
    assert!(cluster.store.tasks().is_empty() && cluster.store.services().is_empty());
    assert!(cluster.store.assignments(NodeId::agent(1)).is_empty());
    assert!(cluster.history.contains(&Change::ServiceRemoved {
        service: name("web")
    }));
}

#[test]
fn w2_a_down_node_does_not_hold_up_a_deletion() {
    let mut cluster = Cluster::new(2);
    let mut data = service("data", 1);
    data.volume = Some("data".to_owned());
    cluster.deploy(&data);
    cluster.run();
    let home = cluster.tasks("data")[0].node.unwrap();
    cluster.node_down(home.number);
    cluster
        .ask(Operation::Delete {
            service: name("data"),
        })
        .unwrap();
    assert!(cluster.store.services().is_empty());
}

#[test]
fn w4_a_job_that_is_done_is_not_started_again() {
    let mut cluster = Cluster::new(2);
    cluster
        .behaviours
        .insert("batch:1".to_owned(), Behaviour::Completes);
    cluster.deploy(&job("batch", 3));
    cluster.pass(seconds(600));
    let tasks = cluster.tasks("batch");
    assert_eq!(tasks.len(), 3);
    assert!(
        tasks
            .iter()
            .all(|task| task.status.state == TaskState::Complete)
    );
}

#[test]
fn w4_a_failure_is_final_where_the_restart_rules_say_so() {
    let mut cluster = Cluster::new(2);
    cluster
        .behaviours
        .insert("once:1".to_owned(), Behaviour::Fails);
    let mut once = service("once", 2);
    once.restart.condition = wavetank_model::RestartCondition::Never;
    cluster.deploy(&once);
    cluster.pass(seconds(600));
    assert_eq!(cluster.tasks("once").len(), 2);
}

#[test]
fn a_lost_task_of_a_job_is_run_again_and_a_done_one_is_not() {
    let mut cluster = Cluster::new(1);
    cluster
        .behaviours
        .insert("batch:1".to_owned(), Behaviour::Completes);
    cluster.deploy(&job("batch", 2));
    let first = cluster.live("batch")[0].id;
    for state in [TaskState::Accepted, TaskState::Pulling, TaskState::Creating] {
        let reports = vec![report(cluster.store.task(first).unwrap(), state)];
        cluster.apply(Command::Report {
            node: NodeId::agent(1),
            reports,
        });
    }
    cluster.node_down(1);
    cluster.node_up(2, 1024 * MIB, &[]);
    cluster.pass(seconds(60));
    let complete = cluster
        .tasks("batch")
        .iter()
        .filter(|task| task.status.state == TaskState::Complete)
        .map(|task| task.slot)
        .collect::<Vec<_>>();
    assert_eq!(complete, [1, 2]);
    assert_eq!(
        cluster.store.task(first).unwrap().status.state,
        TaskState::Lost
    );
}

#[test]
fn w5_tasks_placed_in_one_pass_are_spread() {
    let mut cluster = Cluster::new(4);
    cluster.deploy(&service("web", 10));
    let counts: Vec<usize> = cluster.by_node("web").into_values().collect();
    assert_eq!(counts, [3, 3, 2, 2]);
}

#[test]
fn tasks_are_spread_over_the_values_of_a_label_first() {
    let mut cluster = Cluster::new(0);
    for (node, zone) in [(1, "a"), (2, "a"), (3, "a"), (4, "b")] {
        cluster.node_up(node, 8192 * MIB, &[("zone", zone)]);
    }
    let mut web = service("web", 6);
    web.spread = Some("zone".to_owned());
    cluster.deploy(&web);
    let counts: Vec<usize> = cluster.by_node("web").into_values().collect();
    assert_eq!(counts, [1, 1, 1, 3]);
}

#[test]
fn w6_a_report_does_not_undo_what_is_desired() {
    let mut cluster = Cluster::new(1);
    cluster.deploy(&service("web", 1));
    cluster.run();
    let task = cluster.tasks("web")[0].clone();
    cluster
        .ask(Operation::Stop {
            service: name("web"),
        })
        .unwrap();
    let mut late = report(&task, TaskState::Running);
    late.status.ready = false;
    cluster.apply(Command::Report {
        node: NodeId::agent(1),
        reports: vec![late],
    });
    let after = cluster.store.task(task.id).unwrap();
    assert_eq!(after.desired, DesiredState::Shutdown);
    assert!(!after.status.ready, "the report itself counts");
    cluster.pass(seconds(60));
    assert!(cluster.live("web").is_empty());
}

#[test]
fn w13_a_snapshot_holds_what_is_there_and_nothing_that_was() {
    let mut cluster = Cluster::new(2);
    cluster.deploy(&service("old", 2));
    cluster.run();
    let stale = cluster.store.encode();
    cluster
        .ask(Operation::Delete {
            service: name("old"),
        })
        .unwrap();
    cluster.run();
    cluster.deploy(&service("new", 1));
    let follower = Store::decode(&stale).unwrap();
    assert!(follower.service(&name("old")).is_some());
    let follower = Store::decode(&cluster.store.encode()).unwrap();
    assert_eq!(follower, cluster.store);
    assert!(follower.service(&name("old")).is_none());
}

#[test]
fn bytes_that_are_no_store_are_refused() {
    let good = Cluster::new(2).store.encode();
    assert!(Store::decode(&[]).is_err());
    assert!(Store::decode(&good[..good.len() - 1]).is_err());
    let mut other = good;
    other[0] += 1;
    let error = Store::decode(&other).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the store has format 3, this version reads 2"
    );
    assert!(Command::decode(&[250]).is_err());
}

#[test]
fn w17_a_drained_node_stays_drained_when_it_registers_again() {
    let mut cluster = Cluster::new(2);
    cluster.availability(1, Availability::Drain);
    cluster.node_down(1);
    cluster.node_up(1, 8192 * MIB, &[]);
    cluster.node_up(1, 8192 * MIB, &[("zone", "a")]);
    let record = cluster.store.node(NodeId::agent(1)).unwrap();
    assert_eq!(record.availability, Availability::Drain);
    cluster.deploy(&service("web", 2));
    assert_eq!(cluster.by_node("web")[&NodeId::agent(1)], 0);
}

#[test]
fn w18_a_service_waits_for_nodes_and_says_so() {
    let mut cluster = Cluster::new(0);
    cluster.deploy(&service("web", 1));
    let task = cluster.tasks("web")[0].clone();
    assert_eq!(task.status.reason, Some(Reason::Unschedulable));
    assert_eq!(task.status.message, "no node fits: no agent has registered");
    cluster.node_up(1, 1024 * MIB, &[]);
    cluster.run();
    assert_eq!(cluster.ready("web"), 1);
    assert_eq!(cluster.tasks("web")[0].status.message, "");
}

#[test]
fn a_refusal_is_explained_filter_by_filter() {
    let mut cluster = Cluster::new(0);
    for (node, memory) in [
        (1, 8192),
        (2, 8192),
        (3, 256),
        (4, 8192),
        (5, 8192),
        (6, 8192),
    ] {
        cluster.node_up(
            node,
            memory * MIB,
            &[("disk", if node == 6 { "old" } else { "new" })],
        );
    }
    let mut blocker = service("blocker", 1);
    blocker.ports = vec![8080];
    cluster.deploy(&blocker);
    let taken = cluster.tasks("blocker")[0].node.unwrap();
    assert_eq!(taken, NodeId::agent(1));
    cluster.node_down(2);
    cluster.availability(4, Availability::Drain);
    cluster.availability(5, Availability::Pause);
    let mut web = service("web", 2);
    web.resources.memory_bytes = 512 * MIB;
    web.ports = vec![8080];
    web.constraints = [("disk".to_owned(), "new".to_owned())].into();
    cluster.deploy(&web);
    assert_eq!(
        cluster.tasks("web")[0].status.message,
        "no node fits: 1 down, 1 drained, 1 paused, 1 without the wanted labels, \
         1 lacks memory (needs 512 MiB), 1 port 8080 taken"
    );
    cluster.pass(seconds(30));
    let before = cluster.commands;
    cluster.pass(seconds(60));
    assert_eq!(
        cluster.commands, before,
        "what is known is not written again"
    );
}

#[test]
fn p9_tasks_placed_in_one_pass_do_not_exceed_a_node() {
    let mut cluster = Cluster::new(0);
    cluster.node_up(1, 1024 * MIB, &[]);
    cluster.node_up(2, 512 * MIB, &[]);
    let mut web = service("web", 6);
    web.resources.memory_bytes = 300 * MIB;
    cluster.deploy(&web);
    let counts: Vec<usize> = cluster.by_node("web").into_values().collect();
    assert_eq!(counts, [3, 1]);
    assert_eq!(cluster.store.pending().len(), 2);
    cluster.scale("web", 4);
    cluster.run();
    assert_eq!(cluster.ready("web"), 4);
}

#[test]
fn p9_a_pass_counts_what_it_gives_away() {
    let mut cluster = Cluster::new(0);
    cluster.node_up(1, 1024 * MIB, &[]);
    let mut web = service("web", 4);
    web.resources.memory_bytes = 300 * MIB;
    cluster.ask(Operation::Deploy { spec: web }).unwrap();
    cluster.propose();
    let plan = cluster.under_way.pop_front().unwrap();
    cluster.apply(plan);
    let schedule = schedule(&cluster.store);
    assert_eq!(schedule.placements.len(), 3);
    let why = "no node fits: 1 lacks memory (needs 300 MiB)".to_owned();
    assert_eq!(schedule.explanations, [(why, vec![TaskId(4)])].into());
}

#[test]
fn p9_a_placement_is_checked_again_when_it_is_applied() {
    let mut cluster = Cluster::new(1);
    cluster
        .ask(Operation::Deploy {
            spec: service("web", 2),
        })
        .unwrap();
    cluster.propose();
    let plan = cluster.under_way.pop_front().unwrap();
    cluster.apply(plan);
    cluster.propose();
    let assign = cluster.under_way.pop_front().unwrap();
    cluster
        .ask(Operation::SetAvailability {
            node: NodeId::agent(1),
            availability: Availability::Pause,
        })
        .unwrap();
    let applied = cluster.apply(assign);
    assert!(applied.changes.is_empty());
    assert_eq!(cluster.store.pending().len(), 2);
}

#[test]
fn a_down_nodes_tasks_are_lost_and_replaced_elsewhere() {
    let mut cluster = Cluster::new(3);
    cluster.deploy(&service("web", 3));
    cluster.run();
    cluster.node_down(2);
    assert!(cluster.store.assignments(NodeId::agent(2)).is_empty());
    let lost = cluster
        .tasks("web")
        .into_iter()
        .find(|task| !task.is_live())
        .unwrap();
    assert_eq!(lost.status.reason, Some(Reason::NodeDown));
    cluster.run();
    assert_eq!(cluster.ready("web"), 2, "the slot waits for its backoff");
    cluster.pass(seconds(2));
    assert_eq!(cluster.ready("web"), 3);
    cluster.node_up(2, 8192 * MIB, &[]);
    cluster.pass(seconds(60));
    assert_eq!(cluster.live("web").len(), 3);
}

#[test]
fn p11_a_volume_never_has_a_second_writer() {
    let mut cluster = Cluster::new(3);
    let mut data = service("data", 1);
    data.volume = Some("data".to_owned());
    cluster.deploy(&data);
    cluster.run();
    let home = cluster.tasks("data")[0].node.unwrap();
    cluster.node_down(home.number);
    cluster.pass(seconds(600));
    assert_eq!(cluster.live("data").len(), 1, "it stays bound to its node");
    assert_eq!(cluster.live("data")[0].node, Some(home));
    cluster.node_up(home.number, 8192 * MIB, &[]);
    cluster.pass(seconds(60));
    assert_eq!(cluster.tasks("data").len(), 1, "and was never replaced");
}

#[test]
fn p11_a_volume_keeps_its_task_at_home_and_says_what_is_in_the_way() {
    let mut cluster = Cluster::new(3);
    let mut data = service("data", 1);
    data.volume = Some("data".to_owned());
    cluster.deploy(&data);
    cluster.run();
    let home = cluster.tasks("data")[0].node.unwrap();
    cluster.availability(home.number, Availability::Drain);
    cluster.pass(seconds(60));
    let pending = cluster.live("data")[0].clone();
    assert_eq!(pending.node, None);
    assert_eq!(
        pending.status.message,
        format!("volume `data` needs {home}, which is: drained")
    );
    cluster.availability(home.number, Availability::Active);
    cluster.pass(seconds(60));
    assert_eq!(cluster.live("data")[0].node, Some(home));
    assert_eq!(cluster.ready("data"), 1);
}

#[test]
fn scaling_down_takes_the_tasks_that_are_missed_least() {
    let mut cluster = Cluster::new(2);
    cluster.deploy(&service("web", 4));
    cluster.run();
    let second = cluster.tasks("web")[1].clone();
    let mut unready = report(&second, TaskState::Running);
    unready.status.ready = false;
    let node = second.node.unwrap();
    cluster.apply(Command::Report {
        node,
        reports: vec![unready],
    });
    cluster.pass(seconds(10));
    cluster.scale("web", 2);
    cluster.pass(seconds(10));
    let slots: Vec<u32> = cluster.tasks("web").iter().map(|task| task.slot).collect();
    assert_eq!(slots, [1, 3], "the one that is not ready, then the highest");
    cluster.scale("web", 3);
    cluster.pass(seconds(10));
    assert_eq!(cluster.ready("web"), 3);
    cluster.scale("web", 0);
    cluster.pass(seconds(10));
    assert!(cluster.store.tasks().is_empty());
}

#[test]
fn scaling_makes_no_new_generation() {
    let mut cluster = Cluster::new(2);
    cluster.deploy(&service("web", 2));
    cluster.run();
    cluster.scale("web", 3);
    cluster.deploy(&service("web", 5));
    cluster.run();
    assert_eq!(cluster.generation("web"), Generation(1));
    assert_eq!(cluster.ready("web"), 5);
}

#[test]
fn i10_a_stopped_service_stays_stopped_until_it_is_started() {
    let mut cluster = Cluster::new(2);
    cluster.deploy(&service("web", 2));
    cluster.run();
    cluster
        .ask(Operation::Stop {
            service: name("web"),
        })
        .unwrap();
    cluster.node_down(2);
    cluster.change_leader();
    cluster.pass(seconds(600));
    assert!(cluster.live("web").is_empty());
    let states: Vec<TaskState> = cluster
        .tasks("web")
        .iter()
        .map(|task| task.status.state)
        .collect();
    assert_eq!(states, [TaskState::Shutdown, TaskState::Lost]);
    cluster
        .ask(Operation::Start {
            service: name("web"),
        })
        .unwrap();
    cluster.pass(seconds(60));
    assert_eq!(cluster.ready("web"), 2);
}

#[test]
fn a_task_without_a_node_is_stopped_without_an_agent() {
    let mut cluster = Cluster::new(0);
    cluster.deploy(&service("web", 1));
    cluster
        .ask(Operation::Stop {
            service: name("web"),
        })
        .unwrap();
    let task = cluster.tasks("web")[0];
    assert_eq!(task.status.state, TaskState::Shutdown);
    assert_eq!(task.status.reason, Some(Reason::TerminatedByOperator));
    cluster
        .ask(Operation::Delete {
            service: name("web"),
        })
        .unwrap();
    assert!(cluster.store.tasks().is_empty() && cluster.store.pending().is_empty());
}

#[test]
fn w1_a_failing_task_is_replaced_ever_more_slowly_and_its_records_are_bounded() {
    let mut cluster = Cluster::new(2);
    cluster
        .behaviours
        .insert("web:1".to_owned(), Behaviour::Fails);
    cluster.deploy(&service("web", 1));
    let mut started = Vec::new();
    let end = cluster.now + seconds(240);
    while cluster.now < end {
        let before = cluster.store.tasks().keys().next_back().copied();
        cluster.pass(Duration::from_millis(500));
        if cluster.store.tasks().keys().next_back().copied() != before {
            started.push(cluster.now.0 / 1_000_000_000);
        }
        assert!(cluster.tasks("web").len() <= 4);
    }
    let gaps: Vec<u64> = started.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(
        gaps.is_sorted() && *gaps.last().unwrap() >= 60,
        "{started:?}"
    );
}

#[test]
fn a_stable_run_clears_a_slots_failures() {
    let mut cluster = Cluster::new(1);
    cluster
        .behaviours
        .insert("web:1".to_owned(), Behaviour::Fails);
    cluster.deploy(&service("web", 1));
    cluster.pass(seconds(120));
    cluster.behaviours.clear();
    cluster.pass(seconds(180));
    assert_eq!(cluster.ready("web"), 1);
    cluster
        .behaviours
        .insert("web:1".to_owned(), Behaviour::Fails);
    cluster.run();
    cluster.behaviours.clear();
    cluster.pass(seconds(2));
    assert_eq!(
        cluster.ready("web"),
        1,
        "the first failure again waits for a second only"
    );
}

#[test]
fn a_task_is_not_placed_where_its_like_failed_if_there_is_another_node() {
    let mut cluster = Cluster::new(3);
    cluster
        .behaviours
        .insert("web:1".to_owned(), Behaviour::Fails);
    cluster.deploy(&service("web", 1));
    cluster.pass(seconds(4));
    let nodes: Vec<_> = cluster
        .tasks("web")
        .iter()
        .map(|task| task.node.unwrap().number)
        .collect();
    assert_eq!(nodes, [1, 2, 3]);
}

#[test]
fn a_global_service_has_one_task_on_every_node_that_takes_it() {
    let mut cluster = Cluster::new(2);
    let mut agent = service("monitor", 0);
    agent.mode = ServiceMode::Global;
    agent.update.unavailable_max = 1;
    cluster.deploy(&agent);
    cluster.run();
    cluster.node_up(3, 1024 * MIB, &[]);
    cluster.run();
    assert_eq!(cluster.ready("monitor"), 3);
    assert!(
        cluster
            .tasks("monitor")
            .iter()
            .all(|t| t.node == Some(NodeId::agent(t.slot)))
    );
    cluster.node_down(2);
    cluster.pass(seconds(60));
    assert_eq!(
        cluster.live("monitor").len(),
        2,
        "no other node gets a second one"
    );
    cluster.node_up(2, 1024 * MIB, &[]);
    cluster.availability(1, Availability::Pause);
    cluster.availability(3, Availability::Drain);
    cluster.pass(seconds(60));
    let counts: Vec<usize> = cluster.by_node("monitor").into_values().collect();
    assert_eq!(counts, [1, 1, 0]);
    cluster.availability(3, Availability::Active);
    cluster.pass(seconds(60));
    assert_eq!(cluster.ready("monitor"), 3);
}

#[test]
fn i15_reports_count_once_in_order_and_from_the_tasks_own_node() {
    let mut cluster = Cluster::new(2);
    cluster.deploy(&service("web", 1));
    let task = cluster.tasks("web")[0].clone();
    let node = task.node.unwrap();
    let accepted = report(&task, TaskState::Accepted);
    let mut pulling = report(&task, TaskState::Pulling);
    pulling.status.attempt = 1;
    pulling.status.sequence = 2;
    let gap = Command::Report {
        node,
        reports: vec![pulling.clone()],
    };
    assert!(cluster.apply(gap).changes.is_empty());
    assert_eq!(cluster.store.task_sequence(task.id), Some(0));
    let other = NodeId::agent(3 - node.number);
    let foreign = Command::Report {
        node: other,
        reports: vec![accepted.clone()],
    };
    assert!(cluster.apply(foreign).changes.is_empty());
    let both = Command::Report {
        node,
        reports: vec![accepted, pulling],
    };
    assert_eq!(cluster.apply(both.clone()).changes.len(), 2);
    assert!(cluster.apply(both).changes.is_empty());
    assert_eq!(cluster.store.task_sequence(task.id), Some(2));
    assert_eq!(
        cluster.store.task(task.id).unwrap().status.state,
        TaskState::Pulling
    );
}

#[test]
fn i6_an_impossible_transition_is_passed_over() {
    let mut cluster = Cluster::new(1);
    cluster.deploy(&service("web", 1));
    let task = cluster.tasks("web")[0].clone();
    let complete = report(&task, TaskState::Complete);
    let node = task.node.unwrap();
    assert!(
        cluster
            .apply(Command::Report {
                node,
                reports: vec![complete]
            })
            .changes
            .is_empty()
    );
    assert_eq!(
        cluster.store.task(task.id).unwrap().status.state,
        TaskState::Assigned
    );
    assert_eq!(
        cluster.store.task_sequence(task.id),
        Some(1),
        "it does not block what follows"
    );
}

#[test]
fn an_ended_or_unknown_task_has_nothing_left_to_wait_for() {
    let mut cluster = Cluster::new(1);
    cluster.deploy(&service("web", 1));
    let task = cluster.tasks("web")[0].id;
    cluster.node_down(1);
    assert_eq!(cluster.store.task_sequence(task), None);
    assert_eq!(cluster.store.task_sequence(TaskId(99)), None);
}

#[test]
fn assignments_have_the_revision_of_their_last_change() {
    let mut cluster = Cluster::new(2);
    cluster.deploy(&service("web", 1));
    let node = cluster.tasks("web")[0].node.unwrap();
    let assigned = cluster.store.assignments_revision(node);
    assert!(assigned > Revision(0));
    cluster.run();
    assert_eq!(
        cluster.store.assignments_revision(node),
        assigned,
        "reports do not change them"
    );
    cluster
        .ask(Operation::Stop {
            service: name("web"),
        })
        .unwrap();
    let stopping = cluster.store.assignments_revision(node);
    assert!(stopping > assigned);
    cluster.run();
    assert!(
        cluster.store.assignments_revision(node) > stopping,
        "an ended task leaves them"
    );
    let other = NodeId::agent(3 - node.number);
    assert_eq!(cluster.store.assignments_revision(other), Revision(0));
}

#[test]
fn tasks_of_one_generation_share_their_spec() {
    let mut cluster = Cluster::new(1);
    cluster.deploy(&service("web", 2));
    let assignments = cluster.store.assignments(NodeId::agent(1));
    assert!(std::sync::Arc::ptr_eq(
        &assignments[0].spec,
        &assignments[1].spec
    ));
}

#[test]
fn a_stale_plan_does_nothing() {
    let mut cluster = Cluster::new(1);
    cluster.deploy(&service("web", 1));
    let record = cluster.store.service(&name("web")).unwrap();
    let mut plan = Plan::new(name("web"), Revision(record.round.0 - 1), record.losses);
    plan.create.push(NewTask {
        slot: 2,
        generation: Generation(1),
    });
    assert!(cluster.apply(Command::Plan(plan)).changes.is_empty());
    assert_eq!(cluster.tasks("web").len(), 1);
}

#[test]
fn what_is_under_way_is_not_proposed_again_and_what_is_lost_is() {
    let mut cluster = Cluster::new(1);
    cluster
        .ask(Operation::Deploy {
            spec: service("web", 1),
        })
        .unwrap();
    cluster.propose();
    assert_eq!(cluster.under_way.len(), 1);
    cluster.propose();
    cluster.now = cluster.now + Duration::from_millis(500);
    cluster.propose();
    assert_eq!(cluster.under_way.len(), 1);
    cluster.now = cluster.now + seconds(1);
    cluster.propose();
    assert_eq!(cluster.under_way.len(), 2);
    cluster.settle();
    assert_eq!(cluster.tasks("web").len(), 1, "the second one is void");
}

#[test]
fn at_rest_only_the_periodic_look_remains() {
    let mut cluster = Cluster::new(3);
    cluster.deploy(&service("web", 6));
    cluster.pass(seconds(300));
    let before = cluster.commands;
    let mut looks = 0;
    let end = cluster.now + seconds(100);
    while cluster.planner.next_deadline() <= end {
        cluster.now = cluster.planner.next_deadline();
        assert!(cluster.planner.step(&cluster.store, cluster.now).is_empty());
        assert!(cluster.planner.next_deadline() > cluster.now);
        looks += 1;
    }
    assert_eq!((looks, cluster.commands), (10, before));
}

#[test]
fn a_repeated_request_takes_effect_once() {
    let mut cluster = Cluster::new(1);
    let put = |value: &str| Operation::Put {
        key: "k".to_owned(),
        value: value.to_owned(),
        claim: None,
    };
    let client = |cluster: &mut Cluster, sequence: u64, operation: Operation| {
        let id = cluster.request_id(sequence);
        cluster.apply(Command::Client { id, operation })
    };
    let first = client(&mut cluster, 1, put("a"));
    client(&mut cluster, 2, put("b"));
    let again = client(&mut cluster, 1, put("a"));
    assert_eq!(again.result, first.result);
    assert!(again.changes.is_empty());
    let get = Operation::Get {
        key: "k".to_owned(),
    };
    assert_eq!(
        cluster.store.read(&get),
        Ok(Outcome::Value {
            value: Some("b".to_owned())
        })
    );
    (3..=70).for_each(|sequence| {
        client(&mut cluster, sequence, put("c"));
    });
    assert_eq!(
        client(&mut cluster, 1, put("a")).result,
        None,
        "too old to tell"
    );
    let newer = RequestId {
        incarnation: Incarnation(2),
        ..cluster.request_id(1)
    };
    assert!(
        cluster
            .apply(Command::Client {
                id: newer,
                operation: put("d")
            })
            .result
            .is_some()
    );
    assert_eq!(
        client(&mut cluster, 71, put("e")).result,
        None,
        "an older boot is over"
    );
}
