//! What must hold after every single command, whatever went before.

use std::collections::BTreeMap;

use wavetank_core::manager::command::{Command, Plan};
use wavetank_core::manager::store::{ServiceRecord, Store};
use wavetank_model::{Change, DesiredState, ServiceMode, ServiceName, TaskId, TaskStatus};

pub fn check(before: &Store, command: &Command, after: &Store, changes: &[Change]) {
    tasks_only_go_forward(before, after);
    transitions_are_legal(before, changes);
    changes_tell_the_truth(after, changes);
    nodes_hold_what_they_can(after);
    volumes_have_one_writer(after);
    if let Command::Plan(plan) = command {
        plans_keep_the_bounds(before, after, plan);
    }
    let decoded = Store::decode(&after.encode()).expect("a store can be read back");
    assert_eq!(&decoded, after, "a snapshot is the exact store");
}

fn tasks_only_go_forward(before: &Store, after: &Store) {
    for (id, old) in before.tasks() {
        let Some(new) = after.task(*id) else { continue };
        assert!(
            new.desired >= old.desired,
            "{id}: what is desired only grows"
        );
        assert!(
            old.node.is_none() || old.node == new.node,
            "{id}: a node is for life"
        );
        assert!(
            old.is_live() || old.status == new.status,
            "{id}: nothing follows an end"
        );
        assert!(
            new.status.sequence >= old.status.sequence,
            "{id}: transitions count up"
        );
    }
    let newest = before
        .tasks()
        .keys()
        .next_back()
        .copied()
        .unwrap_or(TaskId(0));
    let new = after
        .tasks()
        .keys()
        .filter(|id| !before.tasks().contains_key(id));
    assert!(
        new.into_iter().all(|id| *id > newest),
        "ids are never used again"
    );
}

fn transitions_are_legal(before: &Store, changes: &[Change]) {
    let mut now: BTreeMap<TaskId, TaskStatus> = before
        .tasks()
        .iter()
        .map(|(id, task)| (*id, task.status.clone()))
        .collect();
    for change in changes {
        let Change::Task {
            task, from, status, ..
        } = change
        else {
            continue;
        };
        let old = now.insert(*task, status.clone());
        assert_eq!(old.as_ref().map(|old| old.state), *from, "{task}");
        let Some(old) = old.filter(|old| old.state != status.state) else {
            continue;
        };
        assert!(
            old.state
                .may_become(old.attempt, status.state, status.attempt),
            "{task}: {} may not become {}",
            old.state,
            status.state
        );
    }
}

fn changes_tell_the_truth(after: &Store, changes: &[Change]) {
    let mut last: BTreeMap<TaskId, &Change> = BTreeMap::new();
    for change in changes {
        if let Change::Task { task, .. } | Change::TaskRemoved { task, .. } = change {
            last.insert(*task, change);
        }
    }
    for (id, change) in last {
        match (change, after.task(id)) {
            (
                Change::Task {
                    status,
                    desired,
                    node,
                    ..
                },
                Some(task),
            ) => {
                assert_eq!(
                    (status, desired, node),
                    (&task.status, &task.desired, &task.node)
                );
            }
            (Change::TaskRemoved { .. }, None) => {}
            (change, task) => panic!("{id} is {task:?} after {change:?}"),
        }
    }
}

fn nodes_hold_what_they_can(store: &Store) {
    for (node, record) in store.nodes() {
        let mut memory = 0;
        let mut ports = BTreeMap::new();
        for task in store.tasks().values().filter(|task| task.is_live()) {
            if task.node != Some(*node) {
                continue;
            }
            let spec = store.spec_of(task).expect("a task's spec is kept");
            memory += spec.resources.memory_bytes;
            for port in &spec.ports {
                assert_eq!(ports.insert(*port, task.id), None, "port {port} of {node}");
            }
        }
        assert_eq!(
            memory,
            store.used(*node).memory_bytes,
            "what is used of {node}"
        );
        assert!(
            memory <= record.resources.memory_bytes,
            "{node} has too little memory"
        );
    }
}

fn volumes_have_one_writer(store: &Store) {
    for (name, service) in store.services() {
        if service.spec.volume.is_none() {
            continue;
        }
        let writers: Vec<_> = store.tasks_of(name).filter(|task| task.is_live()).collect();
        assert!(writers.len() <= 1, "{name}: {writers:?}");
        let nodes = writers.iter().filter_map(|task| task.node);
        assert!(
            nodes.into_iter().all(|node| Some(node) == service.home),
            "{name} left its home"
        );
    }
}

/// A plan never makes more tasks than there may be, and never stops one too many.
fn plans_keep_the_bounds(before: &Store, after: &Store, plan: &Plan) {
    let name = &plan.service;
    let (Some(service), Some(_)) = (before.service(name), after.service(name)) else {
        return;
    };
    let Some(wanted) = wanted(after, service) else {
        return;
    };
    let live = |store: &Store| store.tasks_of(name).filter(|task| task.is_live()).count();
    let surge = usize::try_from(service.spec.update.surge_max).unwrap();
    let most = wanted + surge;
    assert!(
        live(after) <= most.max(live(before)),
        "{name} has more than {most} tasks"
    );
    let shrinks = plan
        .desire
        .iter()
        .any(|(_, desired, _)| *desired == DesiredState::Removed);
    if service.is_job() || service.spec.volume.is_some() || shrinks {
        return;
    }
    let floor = wanted.saturating_sub(service.spec.update.unavailable_max as usize);
    let (had, has) = (available(before, name), available(after, name));
    assert!(
        has >= had || has >= floor,
        "{name} went from {had} to {has} of {wanted}"
    );
}

fn wanted(store: &Store, service: &ServiceRecord) -> Option<usize> {
    match service.spec.mode {
        ServiceMode::Global => None,
        _ => service.spec.replicas().map(|replicas| replicas as usize),
    }
    .filter(|_| !store.nodes().is_empty())
}

fn available(store: &Store, name: &ServiceName) -> usize {
    store
        .tasks_of(name)
        .filter(|task| store.is_up(task))
        .count()
}
