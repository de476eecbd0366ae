//! Updates, rollbacks, pauses and drained nodes.

use wavetank_core::manager::command::Command;
use wavetank_model::{
    Availability, Generation, NodeId, OnRolloutFailure, Operation, Reason, RolloutState, TaskState,
};

use super::cluster::{Behaviour, Cluster, name, report, seconds, service, version};

fn generations(cluster: &Cluster, service: &str) -> Vec<u64> {
    cluster
        .live(service)
        .iter()
        .map(|task| task.generation.0)
        .collect()
}

#[test]
fn a_first_deployment_completes_when_all_are_available() {
    let mut cluster = Cluster::new(2);
    cluster.deploy(&service("web", 3));
    cluster.run();
    assert_eq!(cluster.rollout("web"), RolloutState::Updating);
    cluster.pass(seconds(6));
    assert_eq!(cluster.rollout("web"), RolloutState::Completed);
}

#[test]
fn w11_p8_an_update_never_takes_more_than_it_may() {
    for (surge, unavailable) in [(1, 0), (0, 1), (2, 1), (0, 2)] {
        let mut cluster = Cluster::new(3);
        let mut web = service("web", 4);
        web.update.surge_max = surge;
        web.update.unavailable_max = unavailable;
        cluster.deploy(&web);
        cluster.pass(seconds(10));
        cluster.deploy(&version(web, 2));
        let (mut least, mut most) = (usize::MAX, 0);
        for _ in 0..200 {
            cluster.settle();
            cluster.agents_work();
            least = least.min(cluster.ready("web"));
            most = most.max(cluster.live("web").len());
            cluster.now = cluster.now + std::time::Duration::from_millis(500);
        }
        assert_eq!(cluster.rollout("web"), RolloutState::Completed);
        assert_eq!(generations(&cluster, "web"), [2, 2, 2, 2]);
        assert!(
            least >= 4 - unavailable as usize,
            "{surge}/{unavailable}: {least} were ready"
        );
        assert!(
            most <= 4 + surge as usize,
            "{surge}/{unavailable}: {most} at once"
        );
    }
}

#[test]
fn p8_a_new_task_counts_only_after_it_was_watched() {
    let mut cluster = Cluster::new(2);
    cluster.deploy(&service("web", 1));
    cluster.pass(seconds(10));
    cluster.deploy(&version(service("web", 1), 2));
    cluster.run();
    assert_eq!(generations(&cluster, "web"), [1, 2]);
    cluster.pass(seconds(4));
    assert_eq!(
        generations(&cluster, "web"),
        [1, 2],
        "the monitor is five seconds"
    );
    cluster.pass(seconds(2));
    assert_eq!(generations(&cluster, "web"), [2]);
    let old = cluster.tasks("web")[0];
    assert_eq!(old.status.state, TaskState::Shutdown);
    assert_eq!(old.reason, Some(Reason::Superseded));
}

#[test]
fn w12_a_new_leader_watches_new_tasks_for_the_full_time() {
    let mut cluster = Cluster::new(2);
    cluster.deploy(&service("web", 1));
    cluster.pass(seconds(10));
    cluster.deploy(&version(service("web", 1), 2));
    cluster.pass(seconds(3));
    cluster.change_leader();
    cluster.pass(seconds(4));
    assert_eq!(generations(&cluster, "web"), [1, 2]);
    cluster.pass(seconds(2));
    assert_eq!(generations(&cluster, "web"), [2]);
}

#[test]
fn w5_an_updated_service_is_spread_as_evenly_as_a_new_one() {
    let mut cluster = Cluster::new(3);
    cluster.deploy(&service("web", 3));
    cluster.pass(seconds(10));
    cluster.deploy(&version(service("web", 3), 2));
    cluster.pass(seconds(60));
    assert_eq!(generations(&cluster, "web"), [2, 2, 2]);
    let counts: Vec<usize> = cluster.by_node("web").into_values().collect();
    assert_eq!(counts, [1, 1, 1]);
}

#[test]
fn p8_a_stop_that_has_become_one_too_many_is_left_out() {
    let mut cluster = Cluster::new(3);
    cluster.deploy(&service("web", 2));
    cluster.pass(seconds(10));
    let failing = cluster.live("web")[1].clone();
    cluster.deploy(&version(service("web", 2), 2));
    cluster.run();
    cluster.now = cluster.now + seconds(5);
    cluster.propose();
    assert_eq!(
        cluster.under_way.len(),
        1,
        "the stop of the first old task is proposed"
    );
    let mut unready = report(&failing, TaskState::Running);
    unready.status.ready = false;
    let node = failing.node.unwrap();
    let reports = vec![unready];
    cluster.apply(Command::Report { node, reports });
    cluster.settle();
    assert_eq!(
        cluster.ready("web"),
        2,
        "the old one, the new one, and none of the third"
    );
}

#[test]
fn p8_a_task_that_works_by_the_time_its_stop_arrives_is_left_alone() {
    let mut cluster = Cluster::new(2);
    cluster.deploy(&service("web", 2));
    let (last, node) = {
        let task = cluster.live("web")[1];
        (task.id, task.node.unwrap())
    };
    while cluster.store.task(last).unwrap().status.state != TaskState::Starting {
        cluster.agents_work();
    }
    cluster
        .ask(Operation::SetAvailability {
            node,
            availability: Availability::Drain,
        })
        .unwrap();
    cluster.propose();
    cluster.agents_work();
    assert_eq!(cluster.ready("web"), 2);
    cluster.settle();
    assert_eq!(cluster.ready("web"), 2);
}

#[test]
fn w12_a_rollout_goes_on_under_the_next_leader() {
    let mut cluster = Cluster::new(3);
    cluster.deploy(&service("web", 6));
    cluster.pass(seconds(10));
    cluster.deploy(&version(service("web", 6), 2));
    for _ in 0..20 {
        cluster.pass(seconds(8));
        cluster.change_leader();
    }
    assert_eq!(cluster.rollout("web"), RolloutState::Completed);
    assert_eq!(generations(&cluster, "web"), [2; 6]);
}

#[test]
fn failures_lead_back_to_what_worked_and_leave_what_still_works_alone() {
    let mut cluster = Cluster::new(3);
    cluster.deploy(&service("web", 3));
    cluster.pass(seconds(10));
    let old: Vec<_> = cluster.live("web").iter().map(|task| task.id).collect();
    cluster
        .behaviours
        .insert("web:2".to_owned(), Behaviour::Fails);
    cluster.deploy(&version(service("web", 3), 2));
    cluster.pass(seconds(60));
    assert_eq!(cluster.rollout("web"), RolloutState::RolledBack);
    assert_eq!(cluster.generation("web"), Generation(3));
    let spec = &cluster.store.service(&name("web")).unwrap().spec;
    assert_eq!(spec.image.0, "web:1");
    let now: Vec<_> = cluster.live("web").iter().map(|task| task.id).collect();
    assert_eq!(now, old);
}

#[test]
fn w12_a_rollback_replaces_what_was_updated_and_goes_on_under_the_next_leader() {
    let mut cluster = Cluster::new(3);
    let mut web = service("web", 3);
    web.update.failures_max = 0;
    cluster.deploy(&web);
    cluster.pass(seconds(10));
    cluster.deploy(&version(web, 2));
    cluster.pass(seconds(11));
    let updated: Vec<_> = cluster
        .live("web")
        .into_iter()
        .filter(|t| t.generation.0 == 2)
        .cloned()
        .collect();
    assert_eq!(updated.len(), 3, "two in place and one on its way");
    let mut failed = report(&updated[0], TaskState::Failed);
    failed.status.reason = Some(Reason::OomKilled);
    let node = updated[0].node.unwrap();
    cluster.apply(Command::Report {
        node,
        reports: vec![failed],
    });
    cluster.run();
    assert_eq!(cluster.rollout("web"), RolloutState::RollingBack);
    cluster.change_leader();
    cluster.pass(seconds(60));
    assert_eq!(cluster.rollout("web"), RolloutState::RolledBack);
    assert_eq!(cluster.ready("web"), 3);
    assert!(!generations(&cluster, "web").contains(&2));
}

#[test]
fn a_new_generation_that_hangs_counts_as_failed_after_two_minutes() {
    let mut cluster = Cluster::new(2);
    let mut web = service("web", 2);
    web.update.failures_max = 0;
    cluster.deploy(&web);
    cluster.pass(seconds(10));
    cluster
        .behaviours
        .insert("web:2".to_owned(), Behaviour::Hangs);
    cluster.deploy(&version(web, 2));
    cluster.pass(seconds(120));
    assert_eq!(cluster.rollout("web"), RolloutState::Updating);
    cluster.pass(seconds(10));
    assert_eq!(cluster.rollout("web"), RolloutState::RolledBack);
    assert_eq!(cluster.ready("web"), 2);
    assert_eq!(cluster.live("web").len(), 2);
}

#[test]
fn a_generation_that_goes_on_hanging_goes_on_failing() {
    let mut cluster = Cluster::new(2);
    cluster.deploy(&service("web", 2));
    cluster.pass(seconds(10));
    cluster
        .behaviours
        .insert("web:2".to_owned(), Behaviour::Hangs);
    cluster.deploy(&version(service("web", 2), 2));
    cluster.pass(seconds(240));
    assert_eq!(
        cluster.rollout("web"),
        RolloutState::Updating,
        "one failure is allowed"
    );
    cluster.pass(seconds(20));
    assert_eq!(cluster.rollout("web"), RolloutState::RolledBack);
}

#[test]
fn a_paused_rollout_stays_where_it_is_until_an_operator_acts() {
    let mut cluster = Cluster::new(3);
    let mut web = service("web", 3);
    web.update.on_failure = OnRolloutFailure::Pause;
    cluster.deploy(&web);
    cluster.pass(seconds(10));
    cluster
        .behaviours
        .insert("web:2".to_owned(), Behaviour::Fails);
    cluster.deploy(&version(web.clone(), 2));
    cluster.pass(seconds(60));
    assert_eq!(cluster.rollout("web"), RolloutState::Paused);
    assert_eq!(cluster.ready("web"), 3, "the old ones go on");
    let lost = cluster
        .live("web")
        .into_iter()
        .find(|task| task.is_ready())
        .unwrap()
        .clone();
    cluster.node_down(lost.node.unwrap().number);
    cluster.pass(seconds(60));
    assert_eq!(
        cluster.ready("web"),
        3,
        "a lost one is replaced by its like"
    );
    cluster.behaviours.clear();
    cluster.deploy(&version(web, 2));
    cluster.pass(seconds(60));
    assert_eq!(cluster.rollout("web"), RolloutState::Completed);
    assert_eq!(cluster.ready("web"), 3);
    assert!(
        generations(&cluster, "web")
            .iter()
            .all(|generation| *generation >= 2)
    );
}

#[test]
fn a_rollout_that_may_go_on_does() {
    let mut cluster = Cluster::new(3);
    let mut web = service("web", 2);
    web.update.on_failure = OnRolloutFailure::Continue;
    cluster.deploy(&web);
    cluster.pass(seconds(10));
    cluster
        .behaviours
        .insert("web:2".to_owned(), Behaviour::Fails);
    cluster.deploy(&version(web, 2));
    cluster.pass(seconds(60));
    assert_eq!(cluster.rollout("web"), RolloutState::Updating);
    assert_eq!(
        cluster.ready("web"),
        2,
        "and still takes nothing away that works"
    );
    cluster.behaviours.clear();
    cluster.pass(seconds(200));
    assert_eq!(cluster.rollout("web"), RolloutState::Completed);
}

#[test]
fn a_first_generation_has_nothing_to_go_back_to() {
    let mut cluster = Cluster::new(2);
    cluster
        .behaviours
        .insert("web:1".to_owned(), Behaviour::Fails);
    cluster.deploy(&service("web", 2));
    cluster.pass(seconds(300));
    assert_eq!(cluster.rollout("web"), RolloutState::Updating);
    let error = cluster
        .ask(Operation::Rollback {
            service: name("web"),
        })
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "web has no other completed generation to go back to"
    );
    cluster.behaviours.clear();
    cluster.pass(seconds(120));
    assert_eq!(cluster.rollout("web"), RolloutState::Completed);
}

#[test]
fn an_operator_may_go_back_and_forth() {
    let mut cluster = Cluster::new(2);
    cluster.deploy(&service("web", 2));
    cluster.pass(seconds(30));
    cluster.deploy(&version(service("web", 2), 2));
    cluster.pass(seconds(60));
    for (image, generation) in [("web:1", 3), ("web:2", 4), ("web:1", 5)] {
        cluster
            .ask(Operation::Rollback {
                service: name("web"),
            })
            .unwrap();
        cluster.pass(seconds(60));
        let record = cluster.store.service(&name("web")).unwrap();
        assert_eq!(record.rollout, RolloutState::RolledBack);
        assert_eq!(
            (record.spec.image.0.as_str(), record.generation.0),
            (image, generation)
        );
        assert_eq!(cluster.ready("web"), 2);
        assert!(
            record.generations.len() <= 5,
            "old specs go with their last record"
        );
    }
}

#[test]
fn a_newer_update_takes_over_from_an_older_one() {
    let mut cluster = Cluster::new(2);
    cluster.deploy(&service("web", 3));
    cluster.pass(seconds(30));
    cluster
        .behaviours
        .insert("web:2".to_owned(), Behaviour::Hangs);
    cluster.deploy(&version(service("web", 3), 2));
    cluster.pass(seconds(20));
    cluster.deploy(&version(service("web", 3), 3));
    cluster.pass(seconds(60));
    assert_eq!(cluster.rollout("web"), RolloutState::Completed);
    assert_eq!(generations(&cluster, "web"), [3, 3, 3]);
}

#[test]
fn a_service_with_a_volume_is_updated_at_home_one_after_the_other() {
    let mut cluster = Cluster::new(3);
    let mut data = service("data", 1);
    data.volume = Some("data".to_owned());
    cluster.deploy(&data);
    cluster.pass(seconds(10));
    let home = cluster.live("data")[0].node;
    cluster.deploy(&version(data, 2));
    cluster.pass(seconds(30));
    assert_eq!(cluster.rollout("data"), RolloutState::Completed);
    assert_eq!(generations(&cluster, "data"), [2]);
    assert_eq!(cluster.live("data")[0].node, home);
}

#[test]
fn a_drained_node_is_emptied_after_its_tasks_have_replacements() {
    let mut cluster = Cluster::new(3);
    cluster.deploy(&service("web", 6));
    cluster.pass(seconds(30));
    let node = NodeId::agent(1);
    let availability = Availability::Drain;
    cluster
        .ask(Operation::SetAvailability { node, availability })
        .unwrap();
    for _ in 0..200 {
        cluster.settle();
        cluster.agents_work();
        assert!(cluster.ready("web") >= 6);
        assert!(cluster.live("web").len() <= 7);
        cluster.now = cluster.now + std::time::Duration::from_millis(500);
    }
    let counts: Vec<usize> = cluster.by_node("web").into_values().collect();
    assert_eq!(counts, [0, 3, 3]);
    assert_eq!(
        cluster.rollout("web"),
        RolloutState::Completed,
        "this is no update"
    );
    let moved = cluster
        .tasks("web")
        .into_iter()
        .find(|task| !task.is_live())
        .unwrap();
    assert_eq!(moved.reason, Some(Reason::NodeDraining));
}

#[test]
fn a_drain_that_is_taken_back_moves_nothing_that_still_works() {
    let mut cluster = Cluster::new(3);
    cluster.deploy(&service("web", 3));
    cluster.pass(seconds(30));
    let ids =
        |cluster: &Cluster| -> Vec<_> { cluster.live("web").iter().map(|task| task.id).collect() };
    let before = ids(&cluster);
    cluster.availability(1, Availability::Drain);
    cluster.settle();
    assert_eq!(cluster.live("web").len(), 4, "a replacement is on its way");
    cluster.availability(1, Availability::Active);
    cluster.pass(seconds(30));
    assert_eq!(ids(&cluster), before);
}

#[test]
fn a_paused_node_keeps_what_it_has() {
    let mut cluster = Cluster::new(2);
    cluster.deploy(&service("web", 4));
    cluster.pass(seconds(10));
    cluster.availability(1, Availability::Pause);
    cluster.scale("web", 8);
    cluster.pass(seconds(60));
    let counts: Vec<usize> = cluster.by_node("web").into_values().collect();
    assert_eq!(counts, [2, 6]);
}

#[test]
fn an_update_of_a_job_runs_it_again() {
    let mut cluster = Cluster::new(2);
    let batch = super::cluster::job("batch", 2);
    for image in ["batch:1", "batch:2"] {
        cluster
            .behaviours
            .insert(image.to_owned(), Behaviour::Completes);
    }
    cluster.deploy(&batch);
    cluster.pass(seconds(10));
    cluster.deploy(&version(batch, 2));
    cluster.pass(seconds(60));
    let done: Vec<u64> = cluster
        .tasks("batch")
        .iter()
        .map(|task| task.generation.0)
        .collect();
    assert_eq!(done, [1, 1, 2, 2]);
    assert_eq!(cluster.rollout("batch"), RolloutState::Completed);
}
